"""One training step from the rows of a forward pass: backward pass, low-rank adapters, optimizer.

Backward of a product costs one product for the gradient of each operand that needs one: twice the forward products
in all, three times with the forward pass. A frozen base (LoRA) needs no gradients of its weights. Backward of a fused
attention recomputes the scores: 3 products of the key size and 2 of the value size against 1 + 1 forward. Vector operations
run once more with one operand more. Every intermediate result is kept until the backward pass has used it
(``Phase.saved_bytes``); recomputation is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.blocks import bits_of, linear
from workloads.ops import ATTENTION, IntLike, Kind, Operation, OperationTable, Parallel
from workloads.records import Phase

# Tensors of the parameters' size that a step reads and writes: parameter, gradient and moments; parameter and moments.
OPTIMIZERS = {"adamw": (4, 3), "sgd_momentum": (3, 2), "sgd": (2, 1)}
STATE_BITS = 32
_ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")


def training_phase(forward: Sequence[Operation], d: Mapping[str, Any]) -> Phase:
    """The phase of one step on ``batch`` sequences.

    Settings: ``lora_rank`` (0: all parameters are trained; else adapters of that rank on the query, key, value and output
    projections and a frozen base) and ``optimizer``.
    """
    adapted = _has(d["lora_rank"])
    rows = [replace(row, writes_cache=False, output_bits=row.input_bits) if row.writes_cache else row for row in forward]
    if adapted:
        rows = with_adapters(rows, d)
    backward: list[Operation] = []
    for row in reversed(rows):
        backward += backward_rows(row, frozen=adapted and ".lora_" not in row.name)
    trained = [row for row in rows if not adapted or ".lora_" in row.name]
    forward_table = OperationTable.from_rows(rows)
    step = optimizer_row(OperationTable.from_rows(trained).parameter_count(), d["optimizer"])
    saved = (forward_table.row_output_elements() * forward_table.output_bits * forward_table.repeat).sum(axis=-1) / 8.0
    table = OperationTable.from_rows([*rows, *backward, step])
    return Phase("training_step", table, saved_bytes=float(saved) if np.ndim(saved) == 0 else saved)


def with_adapters(rows: Sequence[Operation], d: Mapping[str, Any]) -> list[Operation]:
    """Add the two products and the addition of a low-rank adapter behind each attention projection (arXiv 2106.09685)."""
    bits, rank = bits_of(d), d["lora_rank"]
    result: list[Operation] = []
    for row in rows:
        result.append(row)
        if not row.name.endswith(_ADAPTED) or row.kind is not Kind.GEMM:
            continue
        common: dict[str, Any] = {"bits": bits, "repeat": row.repeat, "bias": False, "component": row.component}
        output = row.m * row.n
        # The adapter takes its input and leaves its result dealt over chips as the projection does.
        inner = Parallel.ROW if row.parallel == Parallel.ROW else Parallel.GATHERED
        outer = Parallel.COLUMN if row.parallel == Parallel.COLUMN else Parallel.GATHERED
        result.append(linear(f"{row.name}.lora_a", row.m, rank, row.k, held=output, parallel=inner, **common))
        result.append(linear(f"{row.name}.lora_b", row.m, row.n, rank, held=output, parallel=outer, **common))
        add = Operation(
            f"{row.name}.lora_add",
            Kind.ELEMENTWISE,
            row.m,
            row.n,
            repeat=row.repeat,
            component=row.component,
            function="add",
            operands=2,
            input_bits=bits.activations,
            weight_bits=bits.weights,
            output_bits=bits.activations,
            parallel=Parallel.COLUMN if row.parallel == Parallel.COLUMN else Parallel.AUTO,
        )
        result.append(add)
    return result


def backward_rows(row: Operation, *, frozen: bool) -> list[Operation]:
    """Rows of the backward pass of one forward row."""
    if row.kind in (Kind.GEMM, Kind.CONV):
        return _product_backward(row, frozen)
    if row.kind in ATTENTION:
        return [replace(row, name=f"{row.name}.backward", k=3 * row.k, v_dim=2 * row.v_dim, parameters=0, weight_id="")]
    if row.kind is Kind.EMBEDDING:
        scatter = replace(row, name=f"{row.name}.backward", kind=Kind.GATHER, function="scatter_add", parameters=0, weight_id="")
        return [] if frozen else [scatter]
    # The gradient of a sum that was reduced is whole on every chip already.
    parallel = Parallel.REPLICATED if row.parallel == Parallel.ROW else row.parallel
    return [replace(row, name=f"{row.name}.backward", parallel=parallel, operands=row.operands + 1, parameters=0, weight_id="")]


def _product_backward(row: Operation, frozen: bool) -> list[Operation]:
    # The pictures, patches or spectra that a first convolution reads need no gradient.
    first = row.kind is Kind.CONV and row.component == "embedding"
    blank: dict[str, Any] = {"parameters": 0, "writes_cache": False, "held_elements": 0, "input_elements": 0}
    # Over chips: what was dealt by columns of the result is now dealt along k, and the other way round; the gradient of a weight
    # stays with the chip that holds the weight.
    turned = {Parallel.COLUMN: Parallel.ROW, Parallel.ROW: Parallel.COLUMN, Parallel.PARTIAL: Parallel.COLUMN}
    dealt = turned.get(row.parallel, row.parallel) if row.second_is_weight else row.parallel
    to_input = replace(row, name=f"{row.name}.input_gradient", n=row.k, k=row.n, parallel=dealt, **{**blank, "parameters": row.parameters})
    to_second = replace(
        row,
        name=f"{row.name}.weight_gradient" if row.second_is_weight else f"{row.name}.second_gradient",
        kind=Kind.GEMM,
        m=row.k,
        k=row.m * row.batch if row.second_is_weight else row.m,
        batch=1 if row.second_is_weight else row.batch,
        second_is_weight=False,
        weight_bits=row.output_bits,
        weight_id="",
        parallel=Parallel.COLUMN,
        **blank,
    )
    rows = [] if first else [to_input]
    return rows if frozen and row.second_is_weight else [*rows, to_second]


def optimizer_row(parameters: IntLike, optimizer: str) -> Operation:
    """The update of ``parameters`` numbers, in 32-bit states."""
    reads, writes = OPTIMIZERS[optimizer]
    return Operation(
        "optimizer_step",
        Kind.OPTIMIZER_STEP,
        1,
        parameters,
        writes,
        component="optimizer",
        function=optimizer,
        operands=reads,
        input_bits=STATE_BITS,
        weight_bits=STATE_BITS,
        output_bits=STATE_BITS,
        parallel=Parallel.COLUMN,
    )


def _has(value: Any) -> bool:
    return not isinstance(value, int) or value > 0
