"""Systolic closed forms against SCALE-Sim's rows, a plain replay of small products, and their own properties."""

from __future__ import annotations

import csv
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.errors import HardwareError
from hw_models.systolic.gemm import ARRAY_KINDS, SystolicCounts, array_cycles, flush_cache_misses, gemm_counts
from hw_models.validation.arrays import differing, gemm_reference

REFERENCE = Path(__file__).parents[2] / "reference" / "hardware"
EXACT = {
    "cycles_scalesim": "total",
    "ifmap_sram_reads": "if_sr",
    "filter_sram_reads": "fl_sr",
    "ofmap_sram_writes_scalesim": "of_sw",
    "ifmap_dram_reads": "if_dr",
    "filter_dram_reads": "fl_dr",
}


def counts_of(m, n, k, rows, columns, dataflow, kib=(64, 64, 64), **other) -> SystolicCounts:
    ifmap, filters, ofmap = kib
    return gemm_counts(
        m, n, k, rows=rows, columns=columns, dataflow=dataflow, ifmap_kib=ifmap, filter_kib=filters, ofmap_kib=ofmap, **other
    )


@pytest.mark.parametrize(("name", "rows"), [("scalesim_random_check", 133), ("scalesim_bert", 22)])
def test_equals_every_row_of_the_simulator(name: str, rows: int) -> None:
    table = list(csv.DictReader((REFERENCE / f"{name}.csv").read_text().splitlines()))
    assert len(table) == rows

    def column(key: str) -> np.ndarray:
        return np.array([int(row[key]) for row in table])

    counts = counts_of(
        *(column(c) for c in ("M", "N", "K", "R", "C")),
        np.array([row["df"] for row in table]),
        (column("ik"), column("fk"), column("ok")),
    )
    for ours, theirs in EXACT.items():
        np.testing.assert_array_equal(getattr(counts, ours), column(theirs), err_msg=ours)
    np.testing.assert_array_equal(counts.cycles, column("total") + 1)
    # Quotients of exact integers; the simulator averages fold by fold, so the last digits may differ.
    np.testing.assert_allclose(counts.utilisation, [float(r["util"]) for r in table], rtol=1e-12)
    np.testing.assert_allclose(counts.mapping_efficiency, [float(r["mapeff"]) for r in table], rtol=1e-12)
    # Outputs: exact where they fit half the buffer, else the simulator adds up to one line of padding (3 % at most).
    ofmap = column("of_dw")
    fits = counts.ofmap_sram_writes <= 512 * column("ok")
    np.testing.assert_array_equal(counts.ofmap_dram_writes[fits], ofmap[fits])
    assert (counts.ofmap_dram_writes <= ofmap).all()
    assert (ofmap - counts.ofmap_dram_writes <= column("C") - 1).all()
    assert np.abs(counts.ofmap_dram_writes / ofmap - 1).max() <= 0.03


@pytest.mark.parametrize("name", ["fresh_small", "fresh_large"])
def test_equals_the_simulator_on_shapes_run_afterwards(name: str) -> None:
    rows, counts = gemm_reference(name)
    assert len(rows) == {"fresh_small": 60, "fresh_large": 18}[name]
    assert not differing(rows, counts).any()


def plain_flush_cache(blocks: list[tuple[int, int]], cap: int) -> int:
    """The recursion that the closed form sums up, pass by pass: (words, passes) of each block."""
    fill = misses = 0
    for words, passes in blocks:
        resident = 0
        for _ in range(passes):
            need = words - resident
            if need == 0:
                break
            if fill + need < cap:
                misses, fill, resident = misses + need, fill + need, words
            else:
                misses += words
                fill = resident = (words - (cap - fill)) % cap
    return misses


@given(
    words=st.integers(1, 120),
    blocks=st.integers(0, 25),
    last=st.integers(1, 120),
    passes=st.integers(1, 12),
    cap=st.integers(1, 300),
)
@settings(max_examples=600, deadline=None)
def test_flush_cache_equals_its_recursion(words: int, blocks: int, last: int, passes: int, cap: int) -> None:
    last = min(last, words)
    expected = plain_flush_cache([(words, passes)] * blocks + [(last, passes)], cap)
    args = [np.array(v) for v in (words, blocks, last, passes, cap)]
    assert flush_cache_misses(*args) == expected


def test_output_stationary_filter_reads_equal_the_recursion_on_large_shapes() -> None:
    rng = np.random.default_rng(5)
    m, n, k = (rng.integers(1, 3000, 400) for _ in range(3))
    rows, columns = rng.integers(1, 200, 400), rng.integers(1, 200, 400)
    kib = rng.choice([1, 2, 8, 64, 300, 2048], 400)
    counts = counts_of(m, n, k, rows, columns, "os", (kib, kib, kib))
    for i in range(400):
        cap = 50 * (1024 * int(kib[i]) // 100)
        folds, passes = -(-int(n[i]) // int(columns[i])), -(-int(m[i]) // int(rows[i]))
        blocks = [(int(k[i]) * min(int(columns[i]), int(n[i]) - j * int(columns[i])), passes) for j in range(folds)]
        assert counts.filter_dram_reads[i] == plain_flush_cache(blocks, cap)


def replay(m: int, n: int, k: int, rows: int, columns: int, dataflow: str, cap: int) -> dict[str, int]:
    """Every fold of a small product, word by word: a reference that knows folds and a flushing cache, and no formula."""

    class Cache:
        def __init__(self) -> None:
            self.held: set[tuple[int, int]] = set()
            self.fetched = self.asked = 0

        def ask(self, word: tuple[int, int]) -> None:
            self.asked += 1
            if word not in self.held:
                self.fetched += 1
                self.held.add(word)
                if len(self.held) == cap:
                    self.held.clear()

    ifmap, filters = Cache(), Cache()
    cycles = written = used = folds = 0
    row_extent, column_extent, stream = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    for c in range(0, column_extent, columns):
        across = range(c, min(c + columns, column_extent))
        for r in range(0, row_extent, rows):
            down = range(r, min(r + rows, row_extent))
            folds += 1
            used += len(down) * len(across)
            cycles += (0 if dataflow == "os" else rows) + stream + rows + columns - 2
            if dataflow == "os":
                for t in range(stream + max(len(down), len(across))):  # wavefront: lane j starts j cycles late
                    for j, i in enumerate(down):
                        if 0 <= t - j < k:
                            ifmap.ask((i, t - j))
                    for j, i in enumerate(across):
                        if 0 <= t - j < k:
                            filters.ask((t - j, i))
                written += len(down) * len(across)
            else:
                stationary, moving = (filters, ifmap) if dataflow == "ws" else (ifmap, filters)
                for i in reversed(down):
                    for j in across:
                        stationary.ask((i, j))
                for t in range(stream + len(down)):
                    for j, i in enumerate(down):
                        if 0 <= t - j < stream:
                            moving.ask((t - j, i))
                written += stream * len(across)
    return {
        "cycles": cycles,
        "ifmap_sram_reads": ifmap.asked,
        "filter_sram_reads": filters.asked,
        "ifmap_dram_reads": ifmap.fetched,
        "filter_dram_reads": filters.fetched,
        "ofmap_sram_writes": written,
        "mapping_used": used,
        "folds": folds,
    }


@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    k=st.integers(1, 40),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    dataflow=st.sampled_from(["os", "ws", "is"]),
    kib=st.sampled_from([0.1, 0.2, 0.5, 1, 4]),
)
@settings(max_examples=120, deadline=None)
def test_equals_a_word_by_word_replay(m: int, n: int, k: int, rows: int, columns: int, dataflow: str, kib: float) -> None:
    cap = 50 * int(1024 * kib // 100)
    expected = replay(m, n, k, rows, columns, dataflow, cap)
    counts = counts_of(m, n, k, rows, columns, dataflow, (kib, kib, kib))
    for name in (
        "cycles",
        "ifmap_sram_reads",
        "filter_sram_reads",
        "ifmap_dram_reads",
        "filter_dram_reads",
        "ofmap_sram_writes",
    ):
        assert getattr(counts, name) == expected[name], name
    efficiency = 100 * expected["mapping_used"] / (expected["folds"] * rows * columns)
    assert counts.mapping_efficiency == pytest.approx(efficiency, rel=1e-12)


def scheduled_cycles(folds: int, rows: int, columns: int, stream: int, loads: bool) -> int:
    """A double-buffered array, fold by fold: the next operand loads while this one streams, wavefronts follow at once."""
    begin = rows if loads else 0
    for _ in range(folds - 1):
        begin = max(begin + stream, begin + rows)  # stream over, and the next operand (or the finished output) shifted
    return begin + stream + rows + columns - 2


@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 20), st.integers(1, 50), st.booleans())
def test_array_kinds(folds: int, rows: int, columns: int, stream: int, loads: bool) -> None:
    systolic, pipelined, dot = (array_cycles(kind, folds, rows, columns, stream, int(loads)) for kind in ARRAY_KINDS)
    assert pipelined == scheduled_cycles(folds, rows, columns, stream, loads)
    assert dot == folds * stream
    assert dot <= pipelined <= systolic
    assert array_cycles("systolic_pipelined", 1, rows, columns, stream, int(loads)) == systolic // folds


@given(
    st.tuples(*[st.integers(1, 5000)] * 3), st.tuples(*[st.integers(1, 300)] * 2), st.sampled_from(["os", "ws", "is"]),
    st.integers(1, 512), st.sampled_from(ARRAY_KINDS),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_properties(sizes, array, dataflow, kib, kind) -> None:
    m, n, k = sizes
    counts = counts_of(m, n, k, *array, dataflow, (kib, kib, kib), kind=kind)
    larger = counts_of(m, n, k, *array, dataflow, (4 * kib, 4 * kib, kib), kind=kind)
    for name, least in (("ifmap_dram_reads", m * k), ("filter_dram_reads", k * n)):
        assert least <= getattr(counts, name) <= getattr(counts, name.replace("dram", "sram"))
        # Four times the buffer costs no traffic, but for the os filter: a cache that drops everything when it is full can
        # happen to drop a block at a worse moment, and the simulator's does.
        if (name, dataflow) != ("filter_dram_reads", "os"):
            assert getattr(larger, name) <= getattr(counts, name)
    assert counts.ofmap_sram_writes_scalesim >= counts.ofmap_sram_writes >= m * n
    assert 0 < counts.mapping_efficiency <= 100
    assert counts.cycles * array[0] * array[1] >= m * n * k
    if kind == "dot_product":
        assert counts.utilisation == pytest.approx(counts.mapping_efficiency, rel=1e-12)
    wider = counts_of(m, n, k, 2 * array[0], 2 * array[1], dataflow, (kib, kib, kib), kind="dot_product")
    assert wider.cycles <= counts.cycles


def test_arrays_broadcast_and_scalars_stay_scalars() -> None:
    grid = counts_of(np.array([[5], [70]]), 33, 129, 8, np.array([4, 8, 16]), np.array(["os", "ws", "is"]))
    for i, m in enumerate((5, 70)):
        for j, (columns, dataflow) in enumerate(((4, "os"), (8, "ws"), (16, "is"))):
            one = counts_of(m, 33, 129, 8, columns, dataflow)
            for f in fields(SystolicCounts):
                assert getattr(grid, f.name).shape == (2, 3)
                assert getattr(grid, f.name)[i, j] == getattr(one, f.name)
                assert np.ndim(getattr(one, f.name)) == 0


def test_cycles_are_exact_far_beyond_float_precision() -> None:
    m, n, k = 1_000_003, 131_071, 999_983
    counts = counts_of(m, n, k, 2, 3, "ws")
    folds = -(-k // 2) * -(-n // 3)
    assert int(counts.cycles) == folds * (2 * 2 + 3 + m - 2) > 2**53


def test_a_million_designs_take_seconds() -> None:
    rng = np.random.default_rng(0)
    m, n, k = (rng.integers(1, 4096, 1_000_000) for _ in range(3))
    start = time.process_time()
    counts = counts_of(m, n, k, 128, 64, "os")
    spent = time.process_time() - start
    assert counts.cycles.shape == (1_000_000,)
    assert spent < 10  # 0.7 s measured; the margin is for slow machines


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"m": 0}, "m must be a positive integer, got 0"),
        ({"n": 2.5}, "n must be a positive integer, got 2.5"),
        ({"k": float("nan")}, "k must be a positive integer, got nan"),
        ({"rows": -4}, "rows must be a positive integer, got -4"),
        ({"columns": True}, "columns must be a positive integer"),
        ({"columns": "eight"}, "columns must be a positive integer"),
        ({"dataflow": "rs"}, "unknown dataflow 'rs': allowed are os, ws, is"),
        ({"ifmap_kib": 0.01}, "ifmap_kib"),
        ({"filter_kib": float("inf")}, "filter_kib"),
        ({"ofmap_kib": -1}, "ofmap_kib"),
        ({"ofmap_kib": "big"}, "ofmap_kib"),
        ({"kind": "systolyc"}, "did you mean 'systolic'"),
        ({"m": 2**40, "n": 2**30}, "2**61"),
    ],
)
def test_bad_arguments_are_named(change: dict, sentence: str) -> None:
    good = {
        "m": 4, "n": 4, "k": 4, "rows": 2, "columns": 2, "dataflow": "ws", "ifmap_kib": 1, "filter_kib": 1, "ofmap_kib": 1,
    }  # fmt: skip
    with pytest.raises(HardwareError) as caught:
        gemm_counts(**{**good, **change})
    assert sentence in str(caught.value)
