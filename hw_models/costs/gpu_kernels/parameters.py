"""Parameters of kernels: what is fitted to measurements, by kernel family. Read from data/gpu_kernels.toml, which names the rows.

Times in seconds, ``*_cycles`` in cycles of the multiprocessor, efficiencies as shares of a peak rate. Launch times are those at
`LAUNCH_HZ`: a launch takes cycles, so that it is shorter on a faster clock (A100 and H100 agree on the cycles within 2 %).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Final

from hw_models.errors import HardwareError, bad_value, unknown_name

LAUNCH_HZ: Final = 1.6e9


@dataclass(frozen=True)
class ProductKernel:
    """Matrix products in tiles and waves.

    Attributes:
        launch_s: a kernel that computes nothing.
        tensor_efficiency: share of the peak rate of a tile's inner loop.
        port_efficiency: share of the L2 port of 64 bytes a cycle that staging operands reaches.
        fixed_cycles, next_cycles: prologue of a multiprocessor's first tile, and what each further one adds.
        dram_efficiency: share of the peak DRAM rate that streams reach.
        overlap: exponent p of (a^p + b^p)^(1/p): how well computing and DRAM overlap (1: not at all, infinity: wholly).
        split_cycles: what dividing k over multiprocessors costs once.
        out_bytes_per_cycle: rate at which a multiprocessor writes its results.
    """

    launch_s: float
    tensor_efficiency: float
    port_efficiency: float
    fixed_cycles: float
    next_cycles: float
    dram_efficiency: float
    overlap: float
    split_cycles: float
    out_bytes_per_cycle: float


@dataclass(frozen=True)
class LowPrecision:
    """What a product in a narrow format adds to `ProductKernel`.

    Attributes:
        extra_s: fixed time (the quantising kernel's launch, or a slower main kernel).
        rate_factor: what remains of the tensor efficiency.
        row_cycles: quantising one row of activations, two at a time on a multiprocessor.
        tiles_by_rows: the engine takes its tile by the rows alone and never divides k, as vLLM's scaled products do on Hopper and
            later (recalled of its dispatch by rows: 64 x 64 up to 64 rows, 64 x 128 up to 128, else 128 x 128).
    """

    extra_s: float
    rate_factor: float
    row_cycles: float
    tiles_by_rows: bool = False


@dataclass(frozen=True)
class DecodeKernel:
    """Attention of one new token against a cache, split over keys.

    Attributes:
        launch_s: the kernel without any work (it follows the clock with ``shared_memory_tiles`` alone).
        item_cycles, group_cycles: fixed cost of a work item, and what each query head of its group (of 1,024 elements) adds.
        port_bytes_per_cycle: cache bytes that a multiprocessor reads in a cycle.
        block_cycles: a block of 64 keys for each 16 query heads of a group, at a head of 128 elements.
        dram_efficiency, overlap: as in `ProductKernel`.
        combine_s: joining the parts of a split.
        single_factor: share of an item's fixed cost where one query head uses each KV head: TensorRT-LLM's kernel of that case keeps
            several such items on a multiprocessor, its kernel for groups one.
        copy_s: copying queries and results into another order.
        splits_single_heads: whether keys are split where one query head uses each KV head.
        shared_memory_tiles: FlashAttention-2: as many items on a multiprocessor as have room, keys divided by the kernel's own rule, and
            neither heads of a group together nor keys divided under a window. Its launches, copies and joins follow the clock, and its
            ``block_cycles`` count 64 keys of 128 elements of a tile that is multiplied whole.
    """

    launch_s: float
    item_cycles: float
    group_cycles: float
    port_bytes_per_cycle: float
    block_cycles: float
    dram_efficiency: float
    overlap: float
    combine_s: float
    single_factor: float
    copy_s: float
    splits_single_heads: bool = True
    shared_memory_tiles: bool = False


@dataclass(frozen=True)
class PrefillKernel:
    """Attention of a prompt against itself, in blocks of queries.

    Attributes:
        launch_s: the kernels without any work.
        tensor_efficiency: share of the peak rate of its two products.
        exponential_cycles: cycles that a multiprocessor needs for the softmax of 64 (query, key) pairs.
        item_cycles: fixed cost of a block of queries.
        dram_efficiency, overlap: as in `ProductKernel`.
        cache_cycles: writing keys and values of one token of one head of 128 elements into a paged cache; where the kernel
            ``prepares_queries`` too (rotates and copies them), those of one head as well.
        packs_groups: a block of queries takes the query heads of a KV head together (FlashAttention-3); packs_single: for a single
            query alone (FlashAttention-2).
    """

    launch_s: float
    tensor_efficiency: float
    exponential_cycles: float
    item_cycles: float
    dram_efficiency: float
    overlap: float
    cache_cycles: float
    prepares_queries: bool = False
    packs_groups: bool = False
    packs_single: bool = False


@dataclass(frozen=True)
class MixtureKernel:
    """One layer of experts: routing, two grouped products, activation, weighted sum.

    Attributes:
        launch_s: its kernels without any work.
        rate_factor: share of the products' tensor efficiency that grouped products reach.
        item_cycles: fixed cost of a tile.
        dram_efficiency: share of the peak DRAM rate for weights of experts.
        activation_factor: DRAM passes over the activations.
        top_k_s, top_k_cycles: a general top-k where experts or choices are more than the engine's routing kernel knows: its launches,
            and the cycles of a multiprocessor for each token (0 where routing is no part of the layer).
        triton: a Triton kernel: its tiles follow a rule, and activations of tokens that belong to other ranks are carried along.
        tiles_by_tokens: the rule of newer versions, by the number of tokens; else by whether tokens outnumber experts.
    """

    launch_s: float
    rate_factor: float
    item_cycles: float
    dram_efficiency: float
    activation_factor: float
    top_k_s: float
    top_k_cycles: float
    triton: bool = False
    tiles_by_tokens: bool = False


@dataclass(frozen=True)
class CollectiveKernel:
    """Library collectives: a low-latency protocol, or a simple one that starts later and is faster (NCCL's LL and Simple).

    Attributes:
        start_s, step_s: fixed time and time of a message.
        rate, all_reduce_rate: share of the link of the simple protocol; ``pair_loss`` / devices^2 of ``rate`` is lost.
        low_latency_rate: share of the link of the low-latency protocol; simple_s: how much later the simple one starts.
        all_to_all_steps: messages of an all-to-all for each peer.
    """

    start_s: float
    step_s: float
    rate: float
    all_reduce_rate: float
    pair_loss: float
    low_latency_rate: float
    simple_s: float
    all_to_all_steps: float


@dataclass(frozen=True)
class DirectKernel:
    """All-reduce over peers' memory in one kernel: everybody reads everything (one-shot), or scatter and gather (two-shot)."""

    start_s: float
    step_s: float
    one_shot_rate: float
    two_shot_s: float
    two_shot_rate: float


@dataclass(frozen=True)
class RowKernel:
    """Norms and elementwise operations: launch, then traffic.

    Attributes:
        launch_s: a kernel that moves nothing.
        dram_efficiency: share of the peak DRAM rate.
        cache_factor: rate of data that an earlier kernel left in the L2, relative to the DRAM's.
    """

    launch_s: float
    dram_efficiency: float
    cache_factor: float


RECORDS: Final[dict[str, type[Any]]] = {
    "product": ProductKernel,
    "low_precision": LowPrecision,
    "decode": DecodeKernel,
    "prefill": PrefillKernel,
    "mixture": MixtureKernel,
    "collective": CollectiveKernel,
    "direct": DirectKernel,
    "row": RowKernel,
}


@dataclass(frozen=True)
class Family:
    """Kernels of one name: what they are (a key of `RECORDS`), their parameters, and the rows that these were fitted on."""

    kind: str
    parameters: Any
    fitted_on: str


def parse(document: dict[str, Any], *, where: str) -> dict[str, Family]:
    """Families from parsed TOML: {"kind.name": {parameter: number, fitted_on: text}}; errors name the field."""
    found: dict[str, Family] = {}
    for kind, families in document.items():
        if kind not in RECORDS:
            raise unknown_name("kind of kernel", kind, RECORDS, where=where)
        for name, table in families.items():
            found[f"{kind}.{name}"] = Family(kind, _record(RECORDS[kind], table, f"{kind}.{name}", where), str(table.get("fitted_on", "")))
    return found


def _record(record: type[Any], table: dict[str, Any], label: str, where: str) -> Any:
    names = {f.name: f for f in fields(record)}
    for key in table:
        if key not in names and key != "fitted_on":
            raise unknown_name(f"parameter of {label}", key, names, where=where)
    values: dict[str, Any] = {}
    for name, item in names.items():
        flag = item.type == "bool"
        if name not in table:
            if flag:
                continue
            raise HardwareError(f"{where}: {label} lacks {name}")
        value = table[name]
        if flag != isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise bad_value(f"{label}.{name}", value, "true or false" if flag else "a number from 0", where=where)
        values[name] = value if flag else float(value)
    return record(**values)


@cache
def shipped() -> dict[str, Family]:
    """The families that come with the package."""
    name = "gpu_kernels.toml"
    text = (files("hw_models") / "data" / name).read_text(encoding="utf-8")
    return parse(tomllib.loads(text), where=name)


def family(name: str, *, kind: str) -> Any:
    """The parameters of the shipped family ``kind.name``; an unknown name is an error that names the nearest."""
    known = {key.split(".", 1)[1]: f for key, f in shipped().items() if f.kind == kind}
    if name not in known:
        raise unknown_name(f"{kind} kernel", name, known)
    return known[name].parameters
