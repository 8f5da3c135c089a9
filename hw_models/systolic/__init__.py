"""Systolic arrays in closed form, equal to SCALE-Sim."""

from __future__ import annotations

from hw_models.systolic.conv import conv_counts
from hw_models.systolic.gemm import (
    ARRAY_KINDS,
    DATAFLOWS,
    SystolicCounts,
    array_cycles,
    buffer_kib,
    ceil_div,
    dataflow_masks,
    flush_cache_misses,
    fold_cycles,
    gemm_counts,
    positive_integers,
    read_buffer_words,
)

__all__ = [
    "ARRAY_KINDS",
    "DATAFLOWS",
    "SystolicCounts",
    "array_cycles",
    "buffer_kib",
    "ceil_div",
    "conv_counts",
    "dataflow_masks",
    "flush_cache_misses",
    "fold_cycles",
    "gemm_counts",
    "positive_integers",
    "read_buffer_words",
]
