"""The family `convnet`: networks for pictures, written as a line of layers, every layer counted.

A network is a text of steps separated by semicolons; a map is (rows, columns, channels) of one picture:

    conv CHANNELS TAPS [STRIDE]               a square convolution and its function
    max TAPS STRIDE                           the maximum of windows
    bottleneck WIDTH COUNT STRIDE             He et al. (arXiv:1512.03385): 1x1, 3x3, 1x1 to 4 WIDTH channels, a shortcut
    separable CHANNELS STRIDE                 Howard et al. (arXiv:1704.04861): 3x3 for each channel, 1x1
    inverted EXPANSION CHANNELS COUNT STRIDE TAPS     Sandler et al. (arXiv:1801.04381): 1x1, TAPS x TAPS for each channel, 1x1
    average                                   the mean of every channel
    dense OUTPUTS                             a product with everything before it

Words behind the numbers: `relu`, `silu`, `linear` (the function; relu, but linear behind dense), `pad N` (conv: half the taps; max: 0),
`groups N` (conv), `squeeze` (inverted: the gate of arXiv:1709.01507 with a quarter of the block's input channels, as in arXiv:1905.11946).
Only the first block of COUNT has the stride, in its 3x3 (or TAPS x TAPS) convolution. Normalisation is folded into the convolution
before it, as it is when a network serves, so that each convolution has a bias. The gate's product reads the map alone, not its few factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.family import Builder, Grid
from workloads.filters import filter_fields
from workloads.knobs import Knob, TextKnob
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase

# Numbers that a step has to have and may have.
STEPS: Final = {
    "conv": (2, 3),
    "max": (2, 2),
    "bottleneck": (3, 3),
    "separable": (2, 2),
    "inverted": (5, 5),
    "average": (0, 0),
    "dense": (1, 1),
}
FUNCTIONS: Final = ("relu", "silu", "linear")
_EXPANSION = 4
MOST_STEPS: Final = 1000
LARGEST: Final = 2**16


@dataclass(frozen=True)
class Step:
    """One step of a network: its word, its numbers, and what stands behind them (pad None: as the step has it)."""

    word: str
    numbers: tuple[int, ...]
    function: str
    pad: int | None = None
    groups: int = 1
    squeeze: bool = False


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a network; WorkloadError names the step that is none and what it may be."""
    parts = [part.split() for part in text.split(";") if part.strip()]
    if not parts or len(parts) > MOST_STEPS:
        raise WorkloadError(f"network has {len(parts)} steps, must have 1 to {MOST_STEPS}")
    return tuple(_step(words) for words in parts)


def _step(words: list[str]) -> Step:
    word, *rest = words
    told = f"network: step {shorten(' '.join(words))!r}"
    if word not in STEPS:
        raise unknown_name("network: step", word, STEPS)
    numbers = []
    while rest and rest[0].isdecimal():
        numbers.append(_number(rest.pop(0), told))
    fewest, most = STEPS[word]
    if not fewest <= len(numbers) <= most:
        raise WorkloadError(f"{told} has {len(numbers)} numbers, must have {fewest}" + (f" to {most}" if most > fewest else ""))
    given: dict[str, Any] = {"function": "linear" if word in ("dense", "average", "max") else "relu"}
    while rest:
        name = rest.pop(0)
        if name in FUNCTIONS:
            given["function"] = name
        elif name in ("pad", "groups") and word in ("conv", "max"):
            if not rest or not rest[0].isdecimal():
                raise WorkloadError(f"{told}: {name} needs a number behind it")
            given[name] = _number(rest.pop(0), told, least=0 if name == "pad" else 1)
        elif name == "squeeze" and word == "inverted":
            given["squeeze"] = True
        else:
            raise unknown_name(f"{told}: word", name, (*FUNCTIONS, "pad", "groups", "squeeze"))
    return Step(word, tuple(numbers), **given)


def _number(text: str, told: str, least: int = 1) -> int:
    value = int(text) if len(text) < 9 else LARGEST + 1
    if not least <= value <= LARGEST:
        raise WorkloadError(f"{told}: {shorten(text)} must be {least} to {LARGEST}")
    return value


@dataclass
class _Net:
    """Rows of a network as they are added, and the map that the next one reads."""

    width: IntLike
    pictures: IntLike
    weight_bits: IntLike
    activation_bits: IntLike
    high: IntLike
    wide: IntLike
    channels: IntLike = 3
    last: str = "-"
    held: IntLike = 0
    rows: list[Operation] = field(default_factory=list)

    def wider(self, full: int) -> IntLike:
        """Channels of a layer that has ``full`` at full width: the nearest multiple of eight, at least eight."""
        rounded = np.maximum(8, (np.asarray(self.width, np.int64) * full + 400) // 800 * 8)
        many = np.where(np.asarray(self.width) == 100, full, rounded)
        return int(many) if many.ndim == 0 else many

    def elements(self) -> IntLike:
        """Elements of the map, of one picture."""
        return self.high * self.wide * self.channels

    def add(self, name: str, kind: Kind, m: IntLike, n: IntLike, k: IntLike = 0, **fields: Any) -> None:
        """A row; what it makes is what the next one reads."""
        bits: dict[str, Any] = {"input_bits": self.activation_bits, "weight_bits": self.weight_bits, "output_bits": self.activation_bits}
        given = {"reads": self.last, "held_elements": self.held, **fields}
        self.rows.append(Operation(name, kind, m, n, k, **bits, **given))
        self.last = name

    def function(self, name: str, function: str, **fields: Any) -> None:
        """A function of every element of the map; nothing for `linear`."""
        if function != "linear":
            kind = Kind.ACTIVATION if function in ("relu", "silu", "sigmoid") else Kind.ELEMENTWISE
            made = {"component": self.rows[-1].component if self.rows else "", **fields}  # it belongs to what makes the map
            self.add(f"{name}.{function}", kind, self.pictures * self.elements(), 1, function=function, **made)

    def conv(self, name: str, outputs: IntLike, taps: int, stride: int = 1, *, pad: int | None = None, groups: IntLike = 1) -> None:
        """A convolution over the map."""
        side = (taps - 1) // 2 if pad is None else pad
        before = self.pictures * self.elements()
        extents = (self.high, self.wide)
        for extent in extents:
            if np.any(np.asarray(extent) + 2 * side < taps):
                raise WorkloadError(
                    f"{name} has a filter of {taps} on a map of {np.min(extent)} with {side} at each side; resolution is too small"
                )
        high, wide = ((extent + 2 * side - taps) // stride + 1 for extent in extents)
        if np.any(np.asarray(self.channels) % groups) or np.any(np.asarray(outputs) % groups):
            raise WorkloadError(f"{name} has groups {groups}, must divide its {self.channels} inputs and {outputs} outputs")
        k = self.channels // groups * taps**2
        self.add(
            *(name, Kind.CONV, high * wide, outputs // groups, k),
            batch=self.pictures,
            groups=groups,
            component="convolutions",
            second_is_weight=True,
            parameters=k * outputs + outputs,
            weight_id=name,
            input_elements=before,
            **filter_fields(extents, (taps, taps), (stride, stride)),
        )
        self.high, self.wide, self.channels = high, wide, outputs

    def dense(self, name: str, outputs: int) -> None:
        """A product with all elements of the map."""
        inputs = self.elements()
        self.add(
            *(name, Kind.GEMM, self.pictures, outputs, inputs),
            component="dense", second_is_weight=True, parameters=inputs * outputs + outputs, weight_id=name,
        )  # fmt: skip
        self.high, self.wide, self.channels = 1, 1, outputs

    def average(self, name: str) -> None:
        """The mean of every channel."""
        rows, n = self.pictures * self.channels, self.high * self.wide
        self.add(name, Kind.ELEMENTWISE, rows, n, function="mean", component="pooling", input_elements=rows * n)
        self.high, self.wide = 1, 1


def convnet_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """One look at ``batch`` pictures."""
    net = _Net(d["width_percent"], d["batch"], d["weight_bits"], d["activation_bits"], d["resolution"], d["resolution"])
    for number, step in enumerate(parse(d["network"]), 1):
        _BUILD[step.word](net, f"{step.word}{number}", step)
    return (Phase("forward", OperationTable.from_rows(net.rows)),)


def _conv(net: _Net, name: str, step: Step) -> None:
    outputs, taps, stride = (*step.numbers, 1)[:3]
    net.conv(name, net.wider(outputs), taps, stride, pad=step.pad, groups=step.groups)
    net.function(name, step.function)


def _max(net: _Net, name: str, step: Step) -> None:
    taps, stride = step.numbers
    pad = step.pad or 0
    before = net.pictures * net.elements()
    if np.any(np.asarray(net.high) + 2 * pad < taps):
        raise WorkloadError(f"{name} has windows of {taps} on a map of {np.min(net.high)}; resolution is too small")
    net.high, net.wide = ((extent + 2 * pad - taps) // stride + 1 for extent in (net.high, net.wide))
    net.add(
        *(name, Kind.ELEMENTWISE, net.pictures * net.elements(), taps**2),
        function="max", component="pooling", input_elements=before,
    )  # fmt: skip


def _bottleneck(net: _Net, name: str, step: Step) -> None:
    full, count, stride = step.numbers
    width = net.wider(full)
    for block in range(count):
        at, step_here = f"{name}.{block + 1}", stride if block == 0 else 1
        entry, source = net.pictures * net.elements(), net.last
        size, inputs = (net.high, net.wide), net.channels
        net.held = 0
        net.conv(f"{at}.reduce", width, 1)
        net.held = entry
        net.function(f"{at}.reduce", step.function)
        net.conv(f"{at}.conv", width, 3, step_here)
        net.function(f"{at}.conv", step.function)
        net.conv(f"{at}.expand", _EXPANSION * width, 1)
        added = net.last
        shortcut = source
        if block == 0:
            result = (net.high, net.wide, net.channels)
            net.held = net.pictures * net.elements()
            (net.high, net.wide), net.channels, net.last = size, inputs, source
            net.conv(f"{at}.shortcut", _EXPANSION * width, 1, step_here, pad=0)
            shortcut = net.last
            net.high, net.wide, net.channels = result
        net.held = 0
        net.add(
            *(f"{at}.add", Kind.ELEMENTWISE, net.pictures * net.elements(), 1),
            function="add", operands=2, reads=f"{added} {shortcut}", component="convolutions",
        )  # fmt: skip
        net.function(at, step.function)


def _separable(net: _Net, name: str, step: Step) -> None:
    outputs, stride = step.numbers
    net.conv(f"{name}.depthwise", net.channels, 3, stride, groups=net.channels)
    net.function(f"{name}.depthwise", step.function)
    net.conv(f"{name}.pointwise", net.wider(outputs), 1)
    net.function(f"{name}.pointwise", step.function)


def _inverted(net: _Net, name: str, step: Step) -> None:
    expansion, full, count, stride, taps = step.numbers
    outputs = net.wider(full)
    for block in range(count):
        at, step_here = f"{name}.{block + 1}", stride if block == 0 else 1
        entry, source, inputs = net.pictures * net.elements(), net.last, net.channels
        if expansion > 1:
            net.held = 0
            net.conv(f"{at}.expand", expansion * inputs, 1)
            net.held = entry if block else 0
            net.function(f"{at}.expand", step.function)
        net.conv(f"{at}.depthwise", expansion * inputs, taps, step_here, groups=expansion * inputs)
        net.function(f"{at}.depthwise", step.function)
        if step.squeeze:
            _gate(net, at, step, np.maximum(1, np.asarray(inputs) // 4) if np.ndim(inputs) else max(1, int(inputs) // 4))
        net.conv(f"{at}.project", outputs, 1)
        net.held = 0
        if block:
            net.add(
                *(f"{at}.add", Kind.ELEMENTWISE, net.pictures * net.elements(), 1),
                function="add", operands=2, reads=f"{net.last} {source}", component="convolutions",
            )  # fmt: skip


def _gate(net: _Net, at: str, step: Step, narrow: IntLike) -> None:
    """Squeeze and excitation: the channels' means through two products, and the map scaled by them."""
    size, channels, source = (net.high, net.wide), net.channels, net.last
    net.average(f"{at}.squeeze")
    for name, outputs, function in ((f"{at}.narrow", narrow, step.function), (f"{at}.widen", channels, "sigmoid")):
        net.add(
            *(name, Kind.GEMM, net.pictures, outputs, net.channels),
            component="gates", second_is_weight=True, parameters=net.channels * outputs + outputs, weight_id=name,
        )  # fmt: skip
        net.channels = outputs
        net.function(name, function)
    (net.high, net.wide), net.channels, net.last = size, channels, source
    net.add(f"{at}.scale", Kind.ELEMENTWISE, net.pictures * net.elements(), 1, function="scale", component="gates")


def _average(net: _Net, name: str, step: Step) -> None:
    net.average(name)


def _dense(net: _Net, name: str, step: Step) -> None:
    net.dense(name, step.numbers[0])
    net.function(name, step.function)


_BUILD: Final = {
    "conv": _conv, "max": _max, "bottleneck": _bottleneck, "separable": _separable, "inverted": _inverted, "average": _average,
    "dense": _dense,
}  # fmt: skip


def _default_grid(values: Mapping[str, Any]) -> Grid:
    return {"width_percent": np.array([100], np.int64)}


def _check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    parse(values["network"])


_KNOBS: tuple[Knob, ...] = (
    TextKnob("network", "its layers, as the family `convnet` writes them", parse=parse),
    Knob("width_percent", "channels of every convolution, of the network's own", 1, 400),
    Knob("resolution", "rows and columns of a picture", 8, 4096, setting=True),
    Knob("batch", "pictures that are looked at together", 1, 2**16, setting=True),
    Knob("weight_bits", "bits of a parameter", choices=(1, 2, 3, 4, 6, 8, 16, 32), setting=True),
    Knob("activation_bits", "bits of an activation", choices=(4, 8, 16, 32), setting=True),
)

CONVNET = Builder(
    name="convnet",
    knobs={knob.name: knob for knob in _KNOBS},
    defaults={"network": "", "width_percent": 100, "resolution": 224, "batch": 1, "weight_bits": 8, "activation_bits": 8},
    check=_check,
    phases=convnet_phases,
    grids={"default": _default_grid},
)
