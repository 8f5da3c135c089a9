"""The processor that runs this: a record scaled from the library's server processor, and its products and row-wise operators as numpy runs
them (its BLAS with as many threads as it takes).

Cores are those that this process may use, the DRAM's rate is that of a measured copy; caches, area, power and capacity are the
server's by its share of cores: they are not measured, and the record's source says so.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import Accelerator
from hw_models.devices import library
from hw_models.devices.calibration import DIMENSIONS, Measurements

FloatArray = npt.NDArray[np.float64]

# m, n, k from one row to what fills the caches; a product of each size takes under 0.1 s on two cores.
PRODUCT_SHAPES: Final = tuple(
    (m, n, k) for m in (1, 16, 128, 512) for n, k in ((128, 128), (512, 512), (768, 3072), (3072, 768), (1024, 1024), (2048, 2048))
)
ROW_SHAPES: Final = tuple((rows, columns) for rows in (16, 128, 1024, 4096) for columns in (64, 512, 2048))
REPEATS: Final = 7
COPY_BYTES: Final = 2**28


def record() -> Accelerator:
    """The processor as an accelerator."""
    base = library.load("server-cpu").accelerator
    usable = len(os.sched_getaffinity(0))
    share = usable / base.cores
    *inner, shared, dram = base.levels
    words = _copy_bytes_per_s() / (base.word_bits / 8) / base.frequency_hz
    rate = shared.read_words_per_cycle * share
    levels = (
        *inner,
        replace(shared, bytes=int(shared.bytes * share), read_words_per_cycle=rate, write_words_per_cycle=rate),
        replace(dram, bytes=max(int(dram.bytes * share), 2**30), read_words_per_cycle=words, write_words_per_cycle=words),
    )
    return replace(
        base,
        name="this-machine",
        cores=usable,
        vector_lanes=max(int(base.vector_lanes * share), 1),
        levels=levels,
        area_mm2=(base.area_mm2 or 0.0) * share,
        leakage_w=(base.leakage_w or 0.0) * share,
        tdp_w=base.tdp_w * share,
        chips=1,
        source=f"cores and DRAM rate measured here; everything else {usable}/{base.cores} of server-cpu ({platform.machine()})",
    )


def _copy_bytes_per_s() -> float:
    """Bytes read and written a second by a copy that no cache holds."""
    source = np.ones(COPY_BYTES // 8)
    target = np.empty_like(source)
    return 2 * COPY_BYTES / _least(lambda: np.copyto(target, source))


def measure(products: Sequence[tuple[int, int, int]] = PRODUCT_SHAPES, rows: Sequence[tuple[int, int]] = ROW_SHAPES) -> list[Measurements]:
    """Float32 times of products and softmax [s], the least of several calls after two that warm up."""
    rng = np.random.default_rng(0)
    product_s = []
    for m, n, k in products:
        a, b, out = rng.random((m, k), np.float32), rng.random((k, n), np.float32), np.empty((m, n), np.float32)
        product_s.append(_least(partial(np.matmul, a, b, out=out)))
    softmax_s = []
    for count, width in rows:
        x, out = rng.random((count, width), np.float32), np.empty((count, width), np.float32)
        softmax_s.append(_least(partial(_softmax, x, out)))
    return [
        Measurements("gemm", "fp32", np.array(products, float), np.ones(len(products)), np.array(product_s)),
        Measurements("softmax", "fp32", np.array(rows, float), np.ones(len(rows)), np.array(softmax_s)),
    ]


def as_csv(measured: Sequence[Measurements]) -> str:
    """The rows in the columns that `dse calibrate --measured` takes."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    names = ("m", "n", "k", "rows", "columns", "elements")
    writer.writerow(["op", "dtype", "latency_s", *names])
    for rows in measured:
        of = DIMENSIONS[rows.operator]
        for dims, latency in zip(rows.dims.tolist(), rows.latency_s.tolist(), strict=True):
            given = dict(zip(of, map(int, dims), strict=True))
            writer.writerow([rows.operator, rows.dtype, repr(latency), *(given.get(name, "") for name in names)])
    return stream.getvalue()


def _softmax(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)


def _least(call: Callable[[], Any]) -> float:
    call()
    call()
    best = np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return float(best)
