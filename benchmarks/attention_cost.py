"""The cost model against the measured attention kernels: the `cpu` template fitted on some shapes and judged on others.

    python benchmarks/attention_cost.py [--rounds 5] [--csv ROWS.csv] [--from ROWS.csv]

Measures `dse_kernels.attention` on one thread over head maps, contexts and widths of the cache (least processor time over caches in
rotation, so that they come from memory), fits the `cpu` template's clock for each width and its DRAM rate on the maps and contexts of
`FITTED`, and prints the errors on all others. `--from` judges rows that were measured before.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from hw_models.costs.evaluate import unit_costs
from hw_models.spaces.template import load
from workloads.ops import Kind, Operation, OperationTable, concatenate

FloatArray = npt.NDArray[np.float64]
HEADS = 32
MAPS: dict[str, tuple[int, ...]] = {
    "mha": (1,) * 32,
    "gqa16": (2,) * 16,
    "gqa8": (4,) * 8,
    "gqa4": (8,) * 4,
    "mqa": (32,),
    "16-8-4-2-1-1": (16, 8, 4, 2, 1, 1),
    "12-12-4-4": (12, 12, 4, 4),
}
"""Query heads of each KV head."""
CONTEXTS = (256, 512, 1024, 2048, 4096)
BITS = (32, 16, 8)
FITTED = (("mha", "gqa4", "mqa"), (512, 2048))
"""Maps and contexts that the template is fitted on; a row is judged where its map or its context is none of them."""
MOST_BYTES = 300 * 2**20


@dataclass(frozen=True)
class Row:
    """One shape and what it took: head map, rows of the batch, context, dims a head, bits of the cache, seconds."""

    map: str
    rows: int
    context: int
    d: int
    bits: int
    measured_s: float = 0.0

    @property
    def fitted(self) -> bool:
        """Whether the template may see it."""
        return self.map in FITTED[0] and self.context in FITTED[1]

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values."""
        return 2 * self.rows * self.context * len(MAPS[self.map]) * self.d * self.bits // 8

    def table(self) -> OperationTable:
        """One row of decode attention for every size of group in the map."""
        groups = MAPS[self.map]
        return OperationTable.from_rows(
            [
                Operation(
                    f"readers{size}", Kind.ATTENTION_DECODE, 1, self.context, self.d, batch=self.rows * size * groups.count(size),
                    function="softmax", input_bits=32, weight_bits=self.bits, output_bits=32, second_is_cache=True, v_dim=self.d,
                    kv_share=size,
                )
                for size in sorted(set(groups))
            ]
        )  # fmt: skip


def shapes(rows: int = 8, d: int = 128) -> Iterator[Row]:
    """All shapes whose cache fits."""
    for name in MAPS:
        for context in CONTEXTS:
            for bits in BITS:
                row = Row(name, rows, context, d, bits)
                if row.cache_bytes <= MOST_BYTES:
                    yield row


def predicted_s(rows: Sequence[Row], clocks: dict[int, float], dram_bytes_per_s: float) -> FloatArray:
    """Latency of each row on one core of the template with a clock for each width of the cache."""
    found = np.zeros(len(rows))
    for bits, clock in clocks.items():
        design = load("cpu").batch(
            cores=1, lanes=16, l2_kib=1024, l3_kib=32768, gather_outstanding=32, frequency_hz=clock, dram_bytes_per_s=dram_bytes_per_s,
            l2_bytes_per_cycle=64,
        )  # fmt: skip
        at = [i for i, row in enumerate(rows) if row.bits == bits]
        if at:
            tables = [rows[i].table() for i in at]
            seconds = unit_costs(concatenate(tables), design).latency_s[:, 0]
            np.add.at(found, np.repeat(at, [len(table) for table in tables]), seconds)
    return found


def fit(rows: Sequence[Row]) -> tuple[dict[int, float], float]:
    """Clocks [Hz] by width and DRAM rate [bytes/s]: least squares of log ratios with a robust loss, on the rows that may be seen."""
    seen = [row for row in rows if row.fitted]
    measured = np.array([row.measured_s for row in seen])

    def residuals(logs: FloatArray) -> FloatArray:
        values = np.exp(logs)
        return np.asarray(np.log(predicted_s(seen, dict(zip(BITS, values[:3].tolist(), strict=True)), float(values[3])) / measured))

    found = least_squares(residuals, np.log([4e9, 6e9, 8e9, 3e10]), loss="soft_l1", f_scale=0.2, diff_step=0.02)
    values = np.exp(found.x)
    return dict(zip(BITS, values[:3].tolist(), strict=True)), float(values[3])


def measure(rounds: int) -> list[Row]:
    """Least processor time of every shape."""
    import torch
    from dse_kernels import attention

    rng = np.random.default_rng(0)
    sizes = {bits: MOST_BYTES // 2 * 8 // bits for bits in BITS}
    drawn = rng.normal(size=2**20).astype(np.float32)
    wide = [np.empty(sizes[32], np.float32) for _ in range(2)]
    for array in wide:
        array[:] = np.resize(drawn, array.shape)
    narrow = [torch.from_numpy(np.empty(sizes[16], np.int16)).view(torch.bfloat16) for _ in range(2)]
    for tensor in narrow:
        tensor.copy_(torch.from_numpy(np.resize(drawn, sizes[16])))
    whole = [np.resize(rng.integers(0, 256, 2**20, dtype=np.uint8), sizes[8]) for _ in range(2)]
    scales = np.full(sizes[8] // 16, 0.01, np.float32)
    found = []
    for row in shapes():
        groups = MAPS[row.map]
        kv_heads, owners = len(groups), np.repeat(np.arange(len(groups)), groups)
        count = row.cache_bytes // 2 * 8 // row.bits
        copies = max(1, min(sizes[row.bits] // count, 8))
        q = torch.from_numpy(rng.normal(size=(row.rows, HEADS, row.d)).astype(np.float32))
        lengths = np.full(row.rows, row.context)
        shape = (row.rows, kv_heads, row.context, row.d)

        def call(i: int, row: Row = row, q: torch.Tensor = q, count: int = count, shape: tuple[int, ...] = shape,
                 owners: npt.NDArray[np.int64] = owners, lengths: npt.NDArray[np.int64] = lengths) -> None:  # fmt: skip
            part = slice(i * count, (i + 1) * count)
            if row.bits == 8:
                held = scales[: count // row.d].reshape(shape[:3])
                cache = attention.Int8Cache(*(x[part].reshape(shape) for x in whole), held, held, lengths)
                attention.decode_int8(q, cache, owners, threads=1)
            elif row.bits == 16:
                attention.decode(q.bfloat16(), *(x[part].view(shape).transpose(1, 2) for x in narrow), owners, lengths, threads=1)
            else:
                attention.decode(q.numpy(), *(x[part].reshape(shape).transpose(0, 2, 1, 3) for x in wide), owners, lengths, threads=1)

        best = float("inf")
        for round_ in range(rounds):
            for i in range(copies):
                began = time.process_time()
                call(i)
                if round_:
                    best = min(best, time.process_time() - began)
        found.append(Row(row.map, row.rows, row.context, row.d, row.bits, best))
    return found


def read_rows(path: Path) -> list[Row]:
    """Rows of a file that `--csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(r["map"], int(r["rows"]), int(r["context"]), int(r["d"]), int(r["bits"]), float(r["measured_s"]))
            for r in csv.DictReader(line for line in file if not line.startswith("#"))
        ]


def main() -> None:
    """Measure or read, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path, help="write the measured rows there")
    parser.add_argument("--from", type=Path, dest="source", help="rows that were measured before")
    args = parser.parse_args()
    rows = read_rows(args.source) if args.source else measure(args.rounds)
    if args.csv:
        with args.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("map", "rows", "context", "d", "bits", "measured_s"))
            writer.writerows((r.map, r.rows, r.context, r.d, r.bits, f"{r.measured_s:.4g}") for r in rows)
    clocks, rate = fit(rows)
    print(
        "fitted: "
        + ", ".join(f"{clock / 1e9:.2f} GHz x 16 lanes at {bits} bits" for bits, clock in clocks.items())
        + f", DRAM {rate / 1e9:.1f} GB/s"
    )
    predicted = predicted_s(rows, clocks, rate)
    error = np.array([p / r.measured_s - 1 for p, r in zip(predicted, rows, strict=True)])
    held = np.array([not r.fitted for r in rows])
    for title, of in (("map", lambda r: r.map), ("context", lambda r: r.context), ("bits", lambda r: r.bits)):
        for value in dict.fromkeys(map(of, rows)):
            at = held & np.array([of(r) == value for r in rows])
            if at.any():
                median, worst = np.median(abs(error[at])), max(error[at], key=abs)
                print(f"  {title} {value}: {int(at.sum())} rows, median |error| {median:.1%}, worst {worst:+.1%}")
    print(
        f"held out: {int(held.sum())} rows, median |error| {np.median(abs(error[held])):.1%}, 90 % {np.quantile(abs(error[held]), 0.9):.1%}"
    )
    print(f"fitted:   {int((~held).sum())} rows, median |error| {np.median(abs(error[~held])):.1%}")


if __name__ == "__main__":
    main()
