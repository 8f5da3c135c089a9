"""Recurrent layers and cells of PyTorch (LSTM, GRU, RNN): every layer and direction, all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from workloads.importers.collector import GATES, Collector, Value
from workloads.ops import Operation

LAYERS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "rnn", "rnn_relu": "rnn"}
CELLS = {"lstm_cell": "lstm", "gru_cell": "gru", "rnn_tanh_cell": "rnn", "rnn_relu_cell": "rnn"}

Rows = list[tuple[Operation, Sequence[str]]]


def recurrent_rows(collector: Collector, node: Any, kind: str, name: str, value: Callable[[Any], Value]) -> Rows | None:
    """Rows of ``aten.lstm`` and its kin, or None for packed sequences, whose lengths are data.

    ``value`` gives what is known of a node's tensor.
    """
    if kind in CELLS:
        cell, source = CELLS[kind], value(node.args[0])
        batch = source.shape[0] if len(source.shape) > 1 else 1
        return _direction(collector, name, cell, 1, batch, source, [value(item) for item in node.args[2:6] if item is not None])
    cell = LAYERS[kind]
    source, weights = value(node.args[0]), node.args[2]
    if not isinstance(weights, (list, tuple)):
        return None
    biased, layers = bool(node.args[3]), int(node.args[4])
    directions, batch_first = (2 if node.args[7] else 1), bool(node.args[8])
    batch, steps = source.shape[:2] if batch_first else source.shape[1::-1]
    each = len(weights) // (layers * directions)
    projected = cell == "lstm" and each == (5 if biased else 3)
    rows: Rows = []
    for layer in range(layers):
        width = 0
        for direction in range(directions):
            at = (layer * directions + direction) * each
            mine = [value(item) for item in weights[at : at + each]]
            title = f"{name}.layer{layer}" if layers * directions > 1 else name
            rows += _direction(collector, title, cell, steps, batch, source, mine, projected)
            width += mine[1].shape[-1]
        source = Value((*source.shape[:2], width), -1)
    return rows


def _direction(
    collector: Collector, name: str, cell: str, steps: int, batch: int, source: Value, weights: list[Value], projected: bool = False
) -> Rows:
    """One direction of one layer; weights in PyTorch's order: input, state, biases, projection."""
    hidden = weights[0].shape[0] // GATES[cell]
    made = collector.recurrent(
        name, cell, steps=steps, batch=batch, size=source.shape[-1], hidden=hidden, weight=weights[0], state_weight=weights[1],
        source=source, projected=weights[-1].shape[0] if projected else 0,
    )  # fmt: skip
    names = [item for weight in weights for item in weight.parameters]
    return [(row, names if index == 0 else ()) for index, row in enumerate(made)]
