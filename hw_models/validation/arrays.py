"""Systolic arrays against SCALE-Sim."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.systolic.conv import conv_counts
from hw_models.systolic.gemm import SystolicCounts, gemm_counts
from hw_models.validation.registry import Outcome, Spec, reference_rows

# What is held to be exact: our field -> the simulator's column.
EXACT: Final = {
    "cycles_scalesim": "total_cycles",
    "ifmap_sram_reads": "ifmap_sram_reads",
    "filter_sram_reads": "filter_sram_reads",
    "ofmap_sram_writes_scalesim": "ofmap_sram_writes",
    "ifmap_dram_reads": "ifmap_dram_reads",
    "filter_dram_reads": "filter_dram_reads",
}
PERCENT: Final = {"utilisation": "utilisation_pct", "mapping_efficiency": "mapping_efficiency_pct"}
# Percentages are quotients of exact counts: they may differ in the last digits where the order of operations does.
PERCENT_TOLERANCE: Final = 1e-9

_SIMULATOR: Final = "SCALE-Sim 3.0.0, stall-free"
_PEER: Final = "13 % CATransformers, CLIP QKV"


def columns(rows: list[dict[str, str]], name: str) -> npt.NDArray[np.int64]:
    """One column as integers."""
    return np.array([int(row[name]) for row in rows], dtype=np.int64)


def gemm_reference(*sets: str) -> tuple[list[dict[str, str]], SystolicCounts]:
    """Reference rows of the named sets and our counts of the same products."""
    rows = [row for row in reference_rows("scalesim_gemm.csv") if row["set"] in sets]
    counts = gemm_counts(
        *(columns(rows, name) for name in ("m", "n", "k")),
        rows=columns(rows, "rows"),
        columns=columns(rows, "columns"),
        dataflow=np.array([row["dataflow"] for row in rows]),
        ifmap_kib=columns(rows, "ifmap_kib"),
        filter_kib=columns(rows, "filter_kib"),
        ofmap_kib=columns(rows, "ofmap_kib"),
    )
    return rows, counts


def convolution_reference() -> tuple[list[dict[str, str]], SystolicCounts]:
    """Reference rows of convolutions and our counts of the same."""
    rows = list(reference_rows("scalesim_conv.csv"))
    sizes = ("height", "width", "channels", "filters", "filter_height", "filter_width")
    counts = conv_counts(
        *(columns(rows, name) for name in sizes),
        stride=columns(rows, "stride"),
        ceil_mode=True,  # the simulator keeps windows that reach beyond the input
        rows=columns(rows, "rows"),
        columns=columns(rows, "columns"),
        dataflow=np.array([row["dataflow"] for row in rows]),
        ifmap_kib=columns(rows, "ifmap_kib"),
        filter_kib=columns(rows, "filter_kib"),
        ofmap_kib=columns(rows, "ofmap_kib"),
    )
    return rows, counts


def differing(rows: list[dict[str, str]], counts: SystolicCounts) -> npt.NDArray[np.bool_]:
    """Rows in which any count or percentage differs."""
    wrong = np.zeros(len(rows), dtype=bool)
    for ours, theirs in EXACT.items():
        wrong |= getattr(counts, ours) != columns(rows, theirs)
    for ours, theirs in PERCENT.items():
        expected = np.array([float(row[theirs]) for row in rows])
        wrong |= np.abs(getattr(counts, ours) / expected - 1) > PERCENT_TOLERANCE
    return wrong


def _gemm(*sets: str) -> Outcome:
    rows, counts = gemm_reference(*sets)
    return Outcome(len(rows), float(differing(rows, counts).sum()))


def _convolution() -> Outcome:
    rows, counts = convolution_reference()
    return Outcome(len(rows), float(differing(rows, counts).sum()))


def _ofmap_dram() -> Outcome:
    rows, counts = gemm_reference("random", "bert_and_odd", "fresh_small", "fresh_large")
    error = np.abs(counts.ofmap_dram_writes / columns(rows, "ofmap_dram_writes") - 1)
    return Outcome(len(rows), float(100 * error.max()))


SPECS: Final = (
    Spec("systolic GEMM, random shapes", _SIMULATOR, "rows", 0, 0, _PEER, "nothing", lambda: _gemm("random")),
    Spec("systolic GEMM, BERT and odd shapes", _SIMULATOR, "rows", 0, 0, _PEER, "nothing", lambda: _gemm("bert_and_odd")),
    Spec("systolic GEMM, fresh shapes", _SIMULATOR, "rows", 0, 0, _PEER, "nothing",
         lambda: _gemm("fresh_small", "fresh_large")),
    Spec("systolic convolution", _SIMULATOR, "rows", 0, 0, "", "nothing", _convolution),
    Spec("systolic output writes to DRAM, worst row", _SIMULATOR, "%", 3.0, 3.0, "", "nothing", _ofmap_dram),
)  # fmt: skip
