"""The cost of decode attention on the `cpu` template against measured kernels: fitted on some shapes, judged on the others."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
ROWS = ROOT / "tests" / "reference" / "hardware" / "attention_cpu.csv"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/attention_cost.py, by path: benchmarks are no package."""
    spec = importlib.util.spec_from_file_location("dse_attention_cost", ROOT / "benchmarks" / "attention_cost.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_maps_contexts_and_widths_that_the_fit_never_saw(benchmark: ModuleType) -> None:
    rows = benchmark.read_rows(ROWS)
    clocks, rate = benchmark.fit(rows)
    predicted = benchmark.predicted_s(rows, clocks, rate)
    error = np.array([abs(p / row.measured_s - 1) for p, row in zip(predicted, rows, strict=True)])
    held = np.array([not row.fitted for row in rows])
    assert held.sum() > 4 * (~held).sum()
    assert np.median(error[held]) <= 0.2
    # Maps that it never saw, each by itself.
    for name in ("gqa16", "gqa8", "16-8-4-2-1-1", "12-12-4-4"):
        assert np.median(error[[row.map == name for row in rows]]) <= 0.2, name
    # Rates of a real machine: what was fitted is no refuge for what the model leaves out.
    assert 15e9 <= rate <= 45e9
    assert clocks[32] < clocks[16]


def test_bytes_of_unequal_groups(benchmark: ModuleType) -> None:
    """The table of a map reads keys and values of each KV head once, and multiplies for every query head."""
    row = benchmark.Row("16-8-4-2-1-1", 8, 1024, 128, 16)
    table = row.table()
    assert float((table.row_second_elements() * table.weight_bits).sum()) / 8 == row.cache_bytes == 2 * 8 * 1024 * 6 * 128 * 2
    assert int(table.row_macs().sum()) == 2 * 8 * 32 * 1024 * 128
