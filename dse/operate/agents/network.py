"""What was learnt: a small network (or a linear model, a network without a hidden layer) in one safetensors file, run by numpy.

The file holds the weights and, as text in its header, JSON that says what they are. Nothing of it is executed.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.operate.features import View, levels, size, size_of
from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]

FORMAT = "dse-operate-1"
HEADS = ("share", "levels")
MEMORY = ("lstm_seen", "lstm_own", "lstm_bias")
MAX_BYTES = 2**26
_HEADER = 8


@dataclass(frozen=True)
class Network:
    """Layers of tanh units and a linear head.

    Attributes:
        weights: of each layer (out, in). biases: (out,). head: ``levels`` (a score an action, the best valid one is taken) or ``share``
            (a number a site, whose sigmoid is the share of what may be run there). stack: observations that are seen at once, the last
            one at the end.
        about: plain facts: who learnt it, on what, by which version.
        recurrent: of an LSTM with h units that sees the observation (none: without memory): weights of the observation (4 h, numbers) and
            of its own state (4 h, h), biases (4 h,), in the order input, forget, cell, output. The layers then see the observation and
            the state after it.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    head: str
    stack: int = 1
    about: dict[str, Any] = field(default_factory=dict)
    recurrent: tuple[FloatArray, FloatArray, FloatArray] | None = None

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise DseError(f"head of a policy is {self.head!r}, must be {' or '.join(HEADS)}")
        if not self.weights or len(self.weights) != len(self.biases):
            raise DseError(f"a policy has {len(self.weights)} weights and {len(self.biases)} biases, must have as many, at least one")
        before = self.weights[0].shape[-1]
        if self.recurrent is not None:
            self._check_memory(before)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weight.ndim != 2 or bias.shape != (weight.shape[0],) or weight.shape[1] != before:
                raise DseError(f"layer {i} of a policy has weights {weight.shape} and biases {bias.shape}, must follow {before} numbers")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise DseError(f"layer {i} of a policy has numbers that are not finite")
            before = weight.shape[0]

    def _check_memory(self, before: int) -> None:
        assert self.recurrent is not None
        seen, own, bias = self.recurrent
        units = own.shape[-1]
        fits = own.shape == (4 * units, units) and bias.shape == (4 * units,) and seen.shape == (4 * units, before - units)
        if not fits or units < 1 or before - units < 1:
            raise DseError(f"memory of a policy has weights {seen.shape}, {own.shape} and biases {bias.shape}, must fit {before} numbers")
        if self.stack != 1:
            raise DseError(f"a policy with a memory has a stack of {self.stack}, must have 1")
        if not all(np.isfinite(part).all() for part in self.recurrent):
            raise DseError("memory of a policy has numbers that are not finite")

    @property
    def inputs(self) -> int:
        """Numbers that it takes."""
        return int((self.weights if self.recurrent is None else self.recurrent)[0].shape[1])

    def remember(self, seen: FloatArray, state: tuple[FloatArray, FloatArray] | None) -> tuple[FloatArray, FloatArray]:
        """(output, cell) (n, h) of the LSTM after observations (n, numbers), from those before (None: nothing was seen yet)."""
        assert self.recurrent is not None
        of_seen, own, bias = self.recurrent
        units = own.shape[1]
        output, cell = state or (np.zeros((len(seen), units)), np.zeros((len(seen), units)))
        gates = seen @ of_seen.T + output @ own.T + bias
        enters, stays, leaves = (1.0 / (1.0 + np.exp(-np.clip(gates[:, k * units : (k + 1) * units], -50, 50))) for k in (0, 1, 3))
        cell = stays * cell + enters * np.tanh(gates[:, 2 * units : 3 * units])
        return leaves * np.tanh(cell), cell

    def __call__(self, seen: FloatArray) -> FloatArray:
        """The head's numbers (n, out) for observations (n, inputs)."""
        x = seen
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.tanh(x @ weight.T + bias)
        return np.asarray(x @ self.weights[-1].T + self.biases[-1])

    def save(self, path: str | Path) -> Path:
        """Write the file."""
        from safetensors.numpy import save_file

        tensors = {f"weight{i}": np.ascontiguousarray(w, dtype=np.float32) for i, w in enumerate(self.weights)}
        tensors |= {f"bias{i}": np.ascontiguousarray(b, dtype=np.float32) for i, b in enumerate(self.biases)}
        if self.recurrent is not None:
            parts = zip(MEMORY, self.recurrent, strict=True)
            tensors |= {name: np.ascontiguousarray(part, dtype=np.float32) for name, part in parts}
        told = {"format": FORMAT, "head": self.head, "stack": self.stack, "layers": len(self.weights), "about": self.about}
        if self.recurrent is not None:
            told["memory"] = "lstm"
        save_file(tensors, str(path), metadata={"policy": json.dumps(told, sort_keys=True)})
        return Path(path)


def load(path: str | Path) -> Network:
    """Read a policy; anything that is not one is refused in one sentence. The file is data: no part of it is run."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DseError(f"policy {file} is larger than {MAX_BYTES} bytes, which none is")
        data = file.read_bytes()
    except OSError as error:
        raise DseError(f"policy {str(file)!r} cannot be read: {error.strerror or error}") from error
    from safetensors import SafetensorError
    from safetensors.numpy import load as read

    try:
        length = struct.unpack("<Q", data[:_HEADER])[0]
        told = json.loads(json.loads(data[_HEADER : _HEADER + length])["__metadata__"]["policy"])
        tensors = read(data)
        if told["format"] != FORMAT:
            raise DseError(f"policy {file} has format {str(told['format'])[:40]!r}, must be {FORMAT!r}")
        layers, stack = int(told["layers"]), int(told["stack"])
        if not 1 <= layers <= 16 or not 1 <= stack <= 64:
            raise DseError(f"policy {file} has {layers} layers and a stack of {stack}, must have 1 to 16 and 1 to 64")
        return Network(
            tuple(tensors[f"weight{i}"].astype(np.float64) for i in range(layers)),
            tuple(tensors[f"bias{i}"].astype(np.float64) for i in range(layers)),
            str(told["head"]),
            stack,
            dict(told["about"]),
            _memory(told, tensors, file),
        )
    except DseError:
        raise
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise DseError(f"policy {file} is no policy of {FORMAT}: {type(error).__name__}") from None


def _memory(told: dict[str, Any], tensors: dict[str, Any], file: Path) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    if "memory" not in told:
        return None
    if told["memory"] != "lstm":
        raise DseError(f"policy {file} has memory {str(told['memory'])[:40]!r}, must be 'lstm' or none")
    seen, own, bias = (tensors[name].astype(np.float64) for name in MEMORY)
    if own.ndim != 2 or seen.ndim != 2:
        raise DseError(f"policy {file} has a memory with weights {seen.shape} and {own.shape}, must be two tables")
    return seen, own, bias


class Learnt:
    """A network as a policy of :mod:`dse.operate.simulation`."""

    def __init__(self, network: Network, name: str) -> None:
        self.network, self.name = network, name

    def begin(self, weeks: Weeks) -> None:
        """Check that it fits the sites; forget the last week."""
        known = [size_of(weeks), size(weeks.sites)]  # what was learnt without a temperature limit looks at all but the budget
        takes = self.network.inputs
        self._numbers = next((number for number in known if takes == number * self.network.stack), 0)
        if not self._numbers:
            told = known[0] * self.network.stack
            what = f"policy {self.name!r} takes {takes} numbers, but {weeks.sites} site(s) give {told}"
            raise DseError(f"{what}: `dse operate learn` learns one for these")
        actions = len(levels(weeks.sites)) ** weeks.sites if self.network.head == "levels" else weeks.sites
        if len(self.network.biases[-1]) != actions:
            raise DseError(f"policy {self.name!r} has {len(self.network.biases[-1])} actions, must have {actions}")
        self._view = View(weeks)
        self._seen: FloatArray | None = None
        self._state: tuple[FloatArray, FloatArray] | None = None

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """The best valid level, or the share."""
        now = self._view.observe(queue)[:, : self._numbers]
        if self.network.recurrent is not None:
            self._state = self.network.remember(now, self._state)
            now = np.concatenate([now, self._state[0]], axis=1)
        numbers = now.shape[1]
        if self._seen is None:
            self._seen = np.zeros((len(now), numbers * self.network.stack))
        self._seen = np.concatenate([self._seen[:, numbers:], now], axis=1)
        out = self.network(self._seen)
        if self.network.head == "levels":
            out = np.where(self._view.masks(queue), out, -np.inf)
            return self._view.work(queue, np.argmax(out, axis=1))
        low, beyond = self._view.between(queue, room)
        share = 1.0 / (1.0 + np.exp(-np.clip(out, -50, 50)))
        return np.asarray(low + share * beyond)
