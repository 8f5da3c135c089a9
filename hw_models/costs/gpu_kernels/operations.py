"""Rows of an operation table as kernels of a GPU: their times, bytes and what bounds them.

Products take the format of their wider operand. Fused attention is one kernel. Functions that follow a product (activations,
residual sums, scalings, rotary embeddings) run in the kernel beside them, as compilers and serving engines fuse them: they cost
nothing but reading their further operands where the L2 cannot hold them. Norms, softmax, gathers and top-k are kernels of their
own. Layers of routed experts are two grouped products (`moe_...` columns of the table): each product of an expert costs its share
of them, and what runs inside them nothing more. Weights come from the DRAM: a model runs layer after layer, and its weights are far
more than a cache. Collectives between devices are not in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels import attention, mixtures, products, rows
from hw_models.costs.gpu_kernels.kernel_choice import Choice, choice
from hw_models.costs.gpu_kernels.parameters import LowPrecision, family
from hw_models.costs.gpu_kernels.sheet import FORMATS, GpuSheet
from workloads.moe import active_experts
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FUSED: Final = (Kind.ACTIVATION, Kind.ELEMENTWISE)
BOUNDS: Final = ("compute", "dram", "launch")


@dataclass(frozen=True, eq=False)
class KernelTimes:
    """Costs of running each row once: arrays (rows,).

    Attributes:
        latency_s: from start to end, launch included.
        compute_s: of the busiest multiprocessor: tensor cores or the L2 ports that feed them.
        dram_s, dram_bytes: of the DRAM.
        macs, rate: multiply-accumulates, and the rate of their format relative to bf16 (1 where there are none).
        bound: index into `BOUNDS`.
    """

    latency_s: FloatArray
    compute_s: FloatArray
    dram_s: FloatArray
    dram_bytes: FloatArray
    macs: FloatArray
    rate: FloatArray
    bound: IntArray


def kernel_times(
    table: OperationTable, sheet: GpuSheet, *, engine: str | None = None, warm: bool = False, expert_ranks: int = 1, replicas: int = 1
) -> KernelTimes:
    """Times of each row of a table (rows,) on one GPU under the kernels of an engine (None: the sheet's).

    ``table`` holds columns (rows,), as `OperationTable.distinct` gives them, or one model's table; ``repeat`` is not used.
    ``warm``: operands as a benchmark leaves them, which repeats one kernel on a few copies of them, not as a model does.
    ``expert_ranks``: ranks that routed experts are dealt to, of which the one with most tokens is costed; ``replicas`` whose tokens it has.

    Raises HardwareError for a format that the device lacks and for an unknown engine.
    """
    count = len(table)
    chosen = choice(sheet, engine)
    result = {name: np.zeros(count) for name in ("latency_s", "compute_s", "dram_s", "dram_bytes")}
    rate = np.ones(count)
    macs = np.asarray(table.row_macs() / np.maximum(table.repeat, 1), dtype=np.float64)
    kind = table.kind

    def put(at: IntArray, latency: FloatArray, compute: FloatArray, dram: FloatArray, moved: FloatArray) -> None:
        for name, value in zip(("latency_s", "compute_s", "dram_s", "dram_bytes"), (latency, compute, dram, moved), strict=True):
            result[name][at] = value

    routed = table.moe_experts > 0
    for at, number_format in _by_format(table, np.flatnonzero(routed & (table.moe_joined > 0)), sheet):
        found, tokens = _experts(table.take(at), sheet, chosen, number_format, warm, expert_ranks, replicas)
        macs[at] = tokens * table.n[at] * table.k[at] / table.moe_active[at]
        put(at, found.latency_s, found.compute_s, found.dram_s, found.dram_bytes)
        rate[at] = sheet.rate(number_format)
    for product in PRODUCTS:
        for at, number_format in _by_format(table, np.flatnonzero((kind == product) & ~routed), sheet):
            found = _products(table.take(at), sheet, chosen, number_format, warm)
            put(at, found.latency_s, found.compute_s, found.dram_s, found.dram_bytes)
            rate[at] = sheet.rate(number_format)
    for wanted, cost in ((Kind.ATTENTION_DECODE, _decode), (Kind.ATTENTION_PREFILL, _prefill)):
        for at, number_format in _by_format(table, np.flatnonzero(kind == wanted), sheet):
            times = cost(table.take(at), sheet, chosen, number_format, warm)
            put(at, times.latency_s, times.compute_s, times.dram_s, times.dram_bytes)
            rate[at] = sheet.rate(number_format)
    others = np.flatnonzero(~np.isin(kind, (*PRODUCTS, *ATTENTION, Kind.COLLECTIVE)) & ~routed)
    if len(others):
        put(others, *_rows(table.take(others), sheet))
    slower = np.where(result["compute_s"] >= result["dram_s"], 0, 1)
    work = np.maximum(result["compute_s"], result["dram_s"])
    bound = np.where(result["latency_s"] > 2 * work, 2, slower)
    return KernelTimes(**result, macs=macs, rate=rate, bound=bound)


def _by_format(table: OperationTable, at: IntArray, sheet: GpuSheet) -> list[tuple[IntArray, str]]:
    """Rows of products or attention by the format in which they are multiplied."""
    widths = np.column_stack([table.input_bits[at], table.weight_bits[at]])
    parts = []
    for pair in np.unique(widths, axis=0):
        here = at[(widths == pair).all(axis=1)]
        # Attention reads a narrow cache and multiplies in the format of its queries.
        bits = int(pair[0]) if np.isin(table.kind[here[0]], ATTENTION) else int(pair[1])
        parts.append((here, sheet.product_format(int(pair[0]), bits)))
    return parts


def low_precision(chosen: Choice, number_format: str, weight_bits: int, *, alone: bool, convolution: bool = False) -> LowPrecision | None:
    """What a narrow product adds: quantising for a narrow format, widening for narrow weights alone.

    Integers have scales that were calibrated before, so that within a model the kernel before quantises its own result; measured
    ``alone`` their products do it themselves. FP8 is quantised as the engine does it, a token at a time. A convolution has no tokens:
    its scales are calibrated whatever the format, the kernel before writes its map narrow once (not a row for every window), and
    vLLM's dispatch by rows is none of it.
    """
    if number_format in ("fp8", "int8", "fp4", "int4"):
        if convolution and number_format in ("fp8", "fp4"):
            chosen = replace(chosen, engine="trtllm")  # the library's own kernels: every tile
        name = "int8" if number_format in ("int8", "int4") else str(chosen.low_precision("fp8"))
    elif weight_bits < FORMATS[number_format]:
        name = "int8-weights" if weight_bits > 4 else "int4-weights"
    else:
        return None
    found: LowPrecision = family(name, kind="low_precision")
    calibrated = convolution or (name == "int8" and not alone)
    return replace(found, extra_s=0.0, row_cycles=0.0) if calibrated and found.row_cycles > 0 else found


def _products(t: OperationTable, sheet: GpuSheet, chosen: Choice, number_format: str, warm: bool) -> products.ProductTimes:
    """Products of one kind and one format."""
    weight_bytes = t.n * t.k * t.weight_bits / 8
    return products.product_times(
        sheet, family(chosen.product, kind="product"), t.m, t.n, t.k, batch=t.batch * t.groups, number_format=number_format,
        activation_bytes=t.input_bits / 8 * _fed(t), weight_bytes=t.weight_bits / 8, out_bytes=t.output_bits / 8,
        low=low_precision(chosen, number_format, int(t.weight_bits.max()), alone=warm, convolution=t.kind[0] == Kind.CONV),
        copies=products.benchmark_copies(chosen.engine, sheet, weight_bytes) if warm else 0.0,
        # Weights that a batch shares are one product with as many rows more; groups have weights of their own.
        second_is_weight=t.second_is_weight & (t.groups == 1),
        one_operand=t.second_is_weight & (t.groups == 1) & (t.batch > 1),
    )  # fmt: skip


def _experts(
    t: OperationTable, sheet: GpuSheet, chosen: Choice, number_format: str, warm: bool, ranks: int, replicas: int
) -> tuple[products.ProductTimes, FloatArray]:
    """One product of an expert as its share of the layer's two grouped products, of their fixed time and of the activations between; and
    the tokens that the rank's experts have."""
    down = t.moe_joined == 1
    hidden, inner = np.where(down, t.n, t.k), np.where(down, t.k, t.n)
    kernel = family(chosen.mixture("bf16" if FORMATS[number_format] > 8 else "fp8"), kind="mixture")
    layers = zip(
        *(getattr(t, f"moe_{name}").tolist() for name in ("tokens", "experts", "chosen", "active", "imbalance_permille")), strict=True
    )
    loads = []
    for tokens, experts, top_k, active, permille in layers:
        imbalance = max(permille / 1000, 1.0)
        at_work = active if replicas == 1 else active_experts(tokens * replicas, experts, top_k, imbalance)
        loads.append(mixtures.layer_loads(tokens * replicas, experts, top_k, at_work, ranks, imbalance))
    found = mixtures.mixture_times(
        sheet, family(chosen.product, kind="product"), kernel, loads, t.moe_tokens * replicas, hidden, inner, t.moe_experts, t.moe_chosen,
        number_format=number_format, activation_bytes=float(t.input_bits[0]) / 8, weight_bytes=float(t.weight_bits[0]) / 8, cold=not warm,
    )  # fmt: skip
    # Gate and up are halves of the first product; what belongs to the whole layer is dealt to the three products alike.
    half = np.where(down, 1.0, 0.5) / t.moe_active
    third = 1 / 3 / t.moe_active

    def of(name: str) -> FloatArray:
        return np.asarray(np.where(down, getattr(found.second, name), getattr(found.first, name)) * half)

    tokens = np.array([sum(load) for load in loads])
    times = products.ProductTimes(
        of("latency_s") + (found.fixed_s + found.passing_s) * third,
        of("compute_s"),
        of("dram_s") + found.passing_s * third,
        of("dram_bytes") + found.passing_bytes * third,
    )
    return times, tokens


def _fed(t: OperationTable) -> FloatArray:
    """Elements of the first operand over m x k: less than one for a convolution, whose windows overlap."""
    whole = (t.batch * t.groups * t.m * t.k).astype(np.float64)
    return np.where(t.input_elements > 0, np.minimum(t.input_elements / whole, 1.0), 1.0)


def _decode(t: OperationTable, sheet: GpuSheet, chosen: Choice, number_format: str, warm: bool) -> attention.AttentionTimes:
    kernel = family(chosen.decode("fp8" if int(t.weight_bits.max()) <= 8 else "bf16"), kind="decode")
    return attention.decode_times(
        sheet, kernel, 1, t.batch * t.m, t.batch // t.kv_share, t.n, t.k, kv_bytes=t.weight_bits / 8, value_elements=t.v_dim,
        values_in_keys=t.values_in_keys, window=t.window, cold=not warm,
    )  # fmt: skip


def _prefill(t: OperationTable, sheet: GpuSheet, chosen: Choice, number_format: str, warm: bool) -> attention.AttentionTimes:
    kernel = family(chosen.prefill(number_format, "fp8" if int(t.weight_bits.max()) <= 8 else "bf16"), kind="prefill")
    return attention.prefill_times(
        sheet, kernel, 1, t.batch, t.batch // t.kv_share, t.m, t.k, keys=t.n, value_elements=t.v_dim, window=t.window, causal=t.causal,
        number_format=number_format, query_bytes=t.input_bits / 8, kv_bytes=t.weight_bits / 8, writes_cache=bool(t.second_is_cache.any()),
    )  # fmt: skip


def _rows(t: OperationTable, sheet: GpuSheet) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Norms, functions, gathers and scans by the bytes that they move; a scan also by its arithmetic on the vector lanes."""
    moved = t.row_bytes() / np.maximum(t.repeat, 1)
    kernel = family("kernel", kind="row")
    alone, dram_bytes = rows.row_kernel_times(sheet, kernel, moved)
    # The product of a gate with what it gates is a kernel of its own in serving engines, its function fused into it.
    fused = np.isin(t.kind, FUSED) & (t.function != "mul")
    # A fused function finds its first operand in registers and leaves its result there; the others are read.
    further = np.asarray(t.row_input_elements() * t.input_bits / 8.0) * (1 - 1 / t.operands)
    inside, inside_bytes = rows.row_kernel_times(sheet, kernel, further, fused=True)
    latency, dram_bytes = np.where(fused, inside, alone), np.where(fused, inside_bytes, dram_bytes)
    lanes = sheet.peak_macs_per_s * sheet.rates.get("fp32", min(sheet.rates.values()))
    arithmetic = np.where(t.kind == Kind.SCAN, 4.0 * t.batch * t.m * t.n * t.k / lanes, 0.0)
    return np.maximum(latency, arithmetic), arithmetic, dram_bytes / sheet.dram_bytes_per_s, np.asarray(dram_bytes)
