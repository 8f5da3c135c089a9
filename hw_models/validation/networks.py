"""Layers of three networks on one design of edge22 beside SCALE-Sim's and ZigZag's counts of the same layers and mapping.

network_layers.csv holds what both tools answered (benchmarks/networks.py runs them and writes it): a core of 16 x 128 units, L2 of 1 MiB,
global buffer of 8 MiB, LPDDR4. Weights rest on the array (rows k, columns n) in all three; the groups of a depthwise convolution, which
no weight-stationary array of theirs holds, run one after the other in SCALE-Sim and lie along the columns in ZigZag. SCALE-Sim's array has
three buffers in place of the global one (3, 3 and 2 MiB), neither L2 nor bandwidths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from hw_models.accelerator.design import Accelerator
from hw_models.costs.products import Products, map_windows, product_shapes, search_products
from hw_models.spaces.files import read_document
from hw_models.validation.registry import Outcome, Spec, reference_rows
from workloads import library
from workloads.filters import filter_fields
from workloads.ops import PRODUCTS, Kind, Operation, OperationTable

NETWORKS: Final = ("resnet-50", "mobilenet-v2", "efficientnet-b0")
FILE: Final = "network_layers.csv"
ROWS, COLUMNS = 16, 128
SCALESIM_KIB: Final = {"ifmap_kib": 3072, "filter_kib": 3072, "ofmap_kib": 2048}
SHAPE: Final = ("input", "channels", "filters", "taps", "stride", "groups")
"""What a layer is: rows and columns of its map, channels, filters, rows and columns of its filter, stride, groups; all square."""


def accelerator(kind: str) -> Accelerator:
    """The design: ``kind`` of array as in an accelerator file (weights rest on systolic ones)."""
    design = read_document(
        {
            "name": "edge", "cores": 1, "frequency_hz": 625e6, "node_nm": 22.0, "voltage_v": 0.8,
            "array": {
                "rows": ROWS, "columns": COLUMNS, "kind": kind,
                "dataflow": "any" if kind == "dot_product" else "ws", "register_bytes": 32,
            },
            "vector": {"lanes": COLUMNS},
            "levels": [
                {"name": "l2", "mib": 1, "words_per_cycle": 128, "per_core": True},
                {"name": "glb", "mib": 8, "words_per_cycle": 512},
                {"name": "dram", "kind": "lpddr4", "gib": 1, "words_per_cycle": 128},
            ],
        },
        where=__name__,
    )  # fmt: skip
    assert isinstance(design, Accelerator)  # no list in it
    return design


def shape_of(row: Any) -> tuple[int, ...]:
    """`SHAPE` of a convolution's or product's row of a named network at 224 x 224."""
    if row.kind == Kind.GEMM:
        return (1, int(row.k), int(row.n), 1, 1, 1)
    groups, taps = int(row.groups), round(int(row.filter_taps) ** 0.5)
    channels = int(row.k) // taps**2 * groups
    high = round((int(row.input_elements) / channels) ** 0.5)
    return (high, channels, int(row.n) * groups, taps, round(int(row.filter_step) ** 0.5), groups)


@cache
def layers() -> dict[tuple[int, ...], dict[str, int]]:
    """Every distinct layer of the networks: {shape: {network: how often}}."""
    found: dict[tuple[int, ...], dict[str, int]] = {}
    for network in NETWORKS:
        for row in library.load(network).build().phases[0].table.rows():
            if row.kind in PRODUCTS:
                counts = found.setdefault(shape_of(row), dict.fromkeys(NETWORKS, 0))
                counts[network] += 1
    return found


def outputs(shape: tuple[int, ...]) -> int:
    """Rows and columns of a layer's result; filters are padded by half of them."""
    high, _, _, taps, stride, _ = shape
    return (high + 2 * ((taps - 1) // 2) - taps) // stride + 1


def operation(shape: tuple[int, ...]) -> Operation:
    """A layer as a row."""
    high, channels, filters, taps, stride, groups = shape
    k = channels // groups * taps**2
    return Operation(
        "layer", Kind.CONV, outputs(shape) ** 2, filters // groups, k, groups=groups, second_is_weight=True,
        parameters=filters * k, weight_id="layer", input_elements=high * high * channels,
        **filter_fields([high, high], [taps, taps], [stride, stride]),
    )  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """What a layer costs here: cycles of the array and of everything, words of the DRAM by direction, energy, and the words that the
    L2 and the global buffer read and write.
    """

    compute_cycles: float
    cycles: float
    dram_read_words: float
    dram_write_words: float
    energy_pj: float
    l2_words: float
    glb_words: float
    unroll: tuple[int, int, int]
    spread: int


def counts(shapes: list[tuple[int, ...]], kind: str, criterion: Any = "edp") -> list[Counts]:
    """Our mapping search on the layers."""
    table = OperationTable.from_rows([operation(shape) for shape in shapes])
    sizes, shared, bits, _ = product_shapes(table)
    windows, spread = map_windows(table, sizes, shared)
    found = search_products(
        sizes, shared, accelerator(kind).batch(), bits=bits, windows=windows, spread=spread, criterion=criterion,
    )  # fmt: skip
    return [_counts(found, i) for i in range(len(shapes))]


def _counts(found: Products, i: int) -> Counts:
    assert found.mapping is not None  # asked for by default
    l2, glb = (float(found.read_words[i, 0, level] + found.write_words[i, 0, level]) for level in (0, 1))
    m, n, k = (int(v) for v in found.mapping.unroll[i, 0])
    return Counts(
        float(found.compute_cycles[i, 0]),
        float(found.cycles[i, 0]),
        float(found.read_words[i, 0, -1]),
        float(found.write_words[i, 0, -1]),
        float(found.energy_pj[i, 0]),
        l2,
        glb,
        (m, n, k),
        int(found.mapping.spread[i, 0]),
    )


@dataclass(frozen=True)
class Layer:
    """A layer with our counts, as SCALE-Sim's array runs it (`systolic`) and as ZigZag's does, and the row of the file."""

    shape: tuple[int, ...]
    times: dict[str, int]
    systolic: Counts
    pipelined: Counts
    row: dict[str, str]

    @property
    def depthwise(self) -> bool:
        return self.shape[5] > 1

    @property
    def kind(self) -> str:
        """What the table calls it."""
        if self.shape[0] == 1:
            return "dense"
        return "depthwise" if self.depthwise else f"{self.shape[3]} x {self.shape[3]}"

    def peer(self, column: str) -> float:
        """A figure of a tool, 0 where it has none; SCALE-Sim ran one group of several, which stand one after the other."""
        parts = ("scalesim_ifmap_dram_reads", "scalesim_filter_dram_reads") if column == "scalesim_dram_reads" else (column,)
        value = sum(float(self.row[part] or 0) for part in parts)
        if column == "scalesim_total_cycles" and value:
            value += 1  # it reports the number of the last cycle
        return value * (self.shape[5] if column.startswith("scalesim") else 1)


@cache
def compared() -> tuple[Layer, ...]:
    """All layers of the file with our counts."""
    rows = reference_rows(FILE)
    shapes = [tuple(int(row[name]) for name in SHAPE) for row in rows]
    grouped = [shape[5] > 1 for shape in shapes]
    plain = [shape for shape, many in zip(shapes, grouped, strict=True) if not many]
    wide = [shape for shape, many in zip(shapes, grouped, strict=True) if many]
    systolic = dict(zip(shapes, counts(shapes, "systolic", "latency"), strict=True))
    others = dict(zip(plain, counts(plain, "systolic_pipelined"), strict=True)) | dict(zip(wide, counts(wide, "dot_product"), strict=True))
    return tuple(
        Layer(shape, {name: int(row[name]) for name in NETWORKS}, systolic[shape], others[shape], row)
        for shape, row in zip(shapes, rows, strict=True)
    )


def _chosen(network: str, column: str, depthwise: bool | None, dense: bool | None) -> list[tuple[Layer, int]]:
    return [
        (layer, layer.times[network])
        for layer in compared()
        if layer.times[network] and layer.peer(column)
        and depthwise in (None, layer.depthwise) and dense in (None, layer.kind == "dense")
    ]  # fmt: skip


def ratio(network: str, column: str, ours: Callable[[Layer], float], *, depthwise: bool | None = None, dense: bool | None = None) -> float:
    """Ours over a tool's figure, summed over a network's layers (those that the tool has an answer for); not a number if there are none."""
    chosen = _chosen(network, column, depthwise, dense)
    theirs = sum(layer.peer(column) * times for layer, times in chosen)
    return sum(ours(layer) * times for layer, times in chosen) / theirs if chosen else float("nan")


def error(column: str, ours: Callable[[Layer], float], *, depthwise: bool | None = None, dense: bool | None = None) -> Outcome:
    """Mean of |ours / theirs - 1| [%] over the layers of all networks, each as often as it occurs."""
    chosen = [pair for network in NETWORKS for pair in _chosen(network, column, depthwise, dense)]
    total = sum(times for _, times in chosen)
    return Outcome(total, 100 * sum(abs(ours(layer) / layer.peer(column) - 1) * times for layer, times in chosen) / total)


class Comparison(NamedTuple):
    """Tool, quantity, column of the file (`scalesim_dram_reads`: inputs and weights), our figure, which layers, why it differs."""

    tool: str
    what: str
    column: str
    ours: Callable[[Layer], float]
    layers: dict[str, bool]
    reason: str


COMPARED: Final = (
    Comparison(
        *(
            "SCALE-Sim",
            "array cycles, all but depthwise",
            "scalesim_total_cycles",
            lambda v: v.systolic.compute_cycles,
            {"depthwise": False},
        ),
        "a strided filter's last window reaches beyond the map there; some streams come in two pieces here: a fill more",
    ),
    Comparison(
        *("SCALE-Sim", "array cycles, depthwise", "scalesim_total_cycles", lambda v: v.systolic.compute_cycles, {"depthwise": True}),
        "groups lie along the diagonal here, one after the other there",
    ),
    Comparison(
        *("SCALE-Sim", "DRAM words read", "scalesim_dram_reads", lambda v: v.systolic.dram_read_words, {}),
        "padding is stored and read there; partial sums never come back to its array",
    ),
    Comparison(
        *("SCALE-Sim", "DRAM words written", "scalesim_ofmap_dram_writes", lambda v: v.systolic.dram_write_words, {}),
        "each fold's partial sums leave the chip there; here they stay in the L2 and the global buffer",
    ),
    Comparison(
        *("ZigZag", "array cycles, convolutions", "zigzag_compute_cycles", lambda v: v.pipelined.compute_cycles, {"dense": False}),
        "one fill of the array here; rows take taps and channels as they come here, whole loops there (first layers of 3 channels)",
    ),
    Comparison(
        *("ZigZag", "cycles, convolutions", "zigzag_cycles_without_load_and_store", lambda v: v.pipelined.cycles, {"dense": False}),
        "16 inputs and 128 sums share the L2's 128 words a cycle here (1.125 cycles); there each takes whole cycles of the port (2)",
    ),
    Comparison(
        *(
            "ZigZag",
            "cycles, dense layers and gates",
            "zigzag_cycles_without_load_and_store",
            lambda v: v.pipelined.cycles,
            {"dense": True},
        ),
        "bound by weights in both; a gate's few cycles begin with a fill of the array here",
    ),
    Comparison(
        *("ZigZag", "DRAM words read", "zigzag_dram_read_words", lambda v: v.pipelined.dram_read_words, {}),
        "the same words: each map and each weight once",
    ),
    Comparison(
        *("ZigZag", "DRAM words written", "zigzag_dram_write_words", lambda v: v.pipelined.dram_write_words, {}),
        "the same words; accesses of a whole port round down there",
    ),
    Comparison(
        *("ZigZag", "words of the global buffer", "zigzag_glb_words", lambda v: v.pipelined.glb_words, {}),
        "the same words",
    ),
    Comparison(
        *("ZigZag", "words of the L2, all but depthwise", "zigzag_l2_words", lambda v: v.pipelined.l2_words, {"depthwise": False}),
        "the first partial sums are zeros here and read there",
    ),
    Comparison(
        *("ZigZag", "words of the L2, depthwise", "zigzag_l2_words", lambda v: v.pipelined.l2_words, {"depthwise": True}),
        "sums rest in the units of a dot-product array here; there they go to the L2 after each tap",
    ),
    Comparison(
        *("ZigZag", "dynamic energy", "zigzag_energy_pj", lambda v: v.pipelined.energy_pj, {}),
        "a resting weight is read from its register at every multiply-accumulate here, once there",
    ),
)


HEADER: Final = ("tool", "what", *NETWORKS, "reason of the difference")


def cells() -> list[tuple[str, ...]]:
    """Ours over theirs, summed over a network's layers, as the texts of the table."""
    return [
        (c.tool, c.what, *(f"{ratio(name, c.column, c.ours, **c.layers):.3f}".replace("nan", "-") for name in NETWORKS), c.reason)
        for c in COMPARED
    ]  # fmt: skip


def markdown() -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(row) + " |" for row in cells()]
    return "\n".join(lines) + "\n"


def _systolic(layer: Layer) -> float:
    return layer.systolic.compute_cycles


def _pipelined(layer: Layer) -> float:
    return layer.pipelined.compute_cycles


def _spec(name: str, tool: str, bound: float, run: Callable[[], Outcome]) -> Spec:
    reference = {"scalesim": "SCALE-Sim 3.0.0, stall-free", "zigzag": "ZigZag 3.9.1"}[tool]
    return Spec(f"ResNet-50, MobileNetV2, EfficientNet-B0: {name}", reference, "%", bound, None, "", "nothing", run)


SPECS: Final = (
    _spec("array cycles, depthwise left out", "scalesim", 0.4, lambda: error("scalesim_total_cycles", _systolic, depthwise=False)),
    _spec("array cycles of convolutions", "zigzag", 2.2, lambda: error("zigzag_compute_cycles", _pipelined, dense=False)),
    _spec("DRAM words read", "zigzag", 0.8, lambda: error("zigzag_dram_read_words", lambda v: v.pipelined.dram_read_words)),
    _spec("words of the global buffer", "zigzag", 3.5, lambda: error("zigzag_glb_words", lambda v: v.pipelined.glb_words)),
)  # fmt: skip
