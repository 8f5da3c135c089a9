"""The GPU of this machine: a record of its kind in the library with this board's figures, and products and softmax as torch runs them.

Kernels run in a CUDA graph, as the record launches them, over as many copies of their operands as lists of products are costed on; the
smallest rows are little more than a launch. Multiprocessors, L2, memory and its peak rate are those that the driver tells, the power limit
NVML's where its package is installed; clock, node, area, links and idle power are those of the nearest device of the same generation, and
the record's source says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from hw_models.accelerator.design import Accelerator
from hw_models.devices import library
from hw_models.devices.calibration import Measurements
from hw_models.errors import HardwareError

GENERATIONS: Final = {
    (8, 0): ("a100", "a100-40gb"), (8, 9): ("l4", "l40s"), (9, 0): ("h100", "h100-pcie", "h100-nvl", "h200"), (10, 0): ("b200", "gb200"),
    (12, 0): ("rtx-pro-6000",),
}  # fmt: skip
"""Compute capability of CUDA and the devices of the library that have it."""
PRODUCT_SHAPES: Final = tuple(
    (m, n, k)
    for m in (1, 16, 128, 512, 4096)
    for n, k in ((512, 512), (1024, 4096), (4096, 1024), (4096, 4096), (8192, 4096), (4096, 11008))
)
ROW_SHAPES: Final = tuple((rows, columns) for rows in (16, 512, 4096, 32768) for columns in (64, 1024, 8192))
COPIES: Final = 6  # of operands in turn, as `hw_models.costs.kernels.times_of` costs them warm
CALLS: Final = 3 * COPIES
REPEATS: Final = 9


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise HardwareError("measuring this machine's GPU needs torch: install a build of it for CUDA") from None
    if not torch.cuda.is_available():
        raise HardwareError("torch finds no CUDA device here: measure the processor (--this-machine cpu), or install a build for CUDA")
    return torch


def record() -> Accelerator:
    """The GPU as an accelerator."""
    torch = _torch()
    found = torch.cuda.get_device_properties(0)
    return described(
        found.name,
        (int(found.major), int(found.minor)),
        multiprocessors=int(found.multi_processor_count),
        memory_bytes=int(found.total_memory),
        l2_bytes=int(getattr(found, "L2_cache_size", 0)),
        memory_bytes_per_s=2 * 1e3 * getattr(found, "memory_clock_rate", 0) * getattr(found, "memory_bus_width", 0) / 8,
        limit_w=_limit_w(),
    )


def described(
    name: str,
    capability: tuple[int, int],
    *,
    multiprocessors: int,
    memory_bytes: int,
    l2_bytes: int = 0,
    memory_bytes_per_s: float = 0.0,
    limit_w: float = 0.0,
) -> Accelerator:
    """A record from what a driver tells of a board; what it does not (0) is the nearest device's, by the share of multiprocessors where
    it is a matter of size.

    Raises HardwareError for a generation that no device of the library is of.
    """
    if capability not in GENERATIONS:
        known = ", ".join(f"{a}.{b}" for a, b in GENERATIONS)
        raise HardwareError(
            f"{name} has compute capability {capability[0]}.{capability[1]}, of which no device is known; known are {known}"
        )

    def distance(candidate: Accelerator) -> float:
        return 2 * abs(math.log(candidate.cores / multiprocessors)) + abs(math.log(candidate.levels[-1].bytes / memory_bytes))

    base = min((library.load(n).accelerator for n in GENERATIONS[capability]), key=distance)
    share = multiprocessors / base.cores
    *inner, shared, dram = base.levels
    words = memory_bytes_per_s / (base.word_bits / 8) / base.frequency_hz or dram.read_words_per_cycle
    l2_words = shared.read_words_per_cycle * share
    levels = (
        *inner,
        replace(shared, bytes=l2_bytes or int(shared.bytes * share), read_words_per_cycle=l2_words, write_words_per_cycle=l2_words),
        replace(dram, bytes=memory_bytes, read_words_per_cycle=words, write_words_per_cycle=words),
    )
    return replace(
        base,
        name="this-machine",
        cores=multiprocessors,
        vector_lanes=max(int(base.vector_lanes * share), 1),
        levels=levels,
        area_mm2=base.area_mm2 if share == 1 else (base.area_mm2 or 0.0) * share,
        tdp_w=limit_w or base.tdp_w * share,
        chips=1,
        source=f"{name}: multiprocessors, memory{', L2' if l2_bytes else ''} as the driver tells; everything else "
        f"{multiprocessors}/{base.cores} of {base.name}",
    )


def _limit_w() -> float:
    """The board's power limit, 0 where NVML's package is not installed or does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1e3
    except Exception:  # noqa: BLE001 - its errors are classes of its own, and the package may be missing
        return 0.0


def measure(products: Sequence[tuple[int, int, int]] = PRODUCT_SHAPES, rows: Sequence[tuple[int, int]] = ROW_SHAPES) -> list[Measurements]:
    """bfloat16 times of products and softmax [s]: the median of several replays of a graph of `CALLS` calls."""
    torch = _torch()
    normal = partial(torch.randn, device="cuda", dtype=torch.bfloat16)
    product_s = []
    for m, n, k in products:
        a, w = [normal(m, k) for _ in range(COPIES)], [normal(n, k) for _ in range(COPIES)]
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
        product_s.append(_call_s(torch, partial(_product, torch, a, w, out)))
    softmax_s = []
    for count, width in rows:
        x = [normal(count, width) for _ in range(COPIES)]
        softmax_s.append(_call_s(torch, partial(_softmax, torch, x)))
    return [
        Measurements("gemm", "bf16", np.array(products, float), np.ones(len(products)), np.array(product_s)),
        Measurements("softmax", "bf16", np.array(rows, float), np.ones(len(rows)), np.array(softmax_s)),
    ]


def _product(torch: Any, a: list[Any], w: list[Any], out: Any, i: int) -> None:
    torch.mm(a[i], w[i].t(), out=out)


def _softmax(torch: Any, x: list[Any], i: int) -> None:
    torch.softmax(x[i], dim=-1)


def _call_s(torch: Any, call: Callable[[int], None]) -> float:
    """Time of a call inside a graph of calls on operand 0, 1, ... in turn."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(COPIES):
            call(i)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(CALLS):
            call(i % COPIES)
    graph.replay()
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e-3 * begin.elapsed_time(end) / CALLS)
    return float(np.median(times))
