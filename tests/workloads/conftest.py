"""Shared by the tests of workloads: reference rows, and one thread for exports."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "reference" / "workloads"


@pytest.fixture(scope="session")
def model_rows() -> dict[str, dict[str, str]]:
    """The rows of model_dims.csv by name."""
    with (REFERENCE / "model_dims.csv").open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="session")
def gemm_rows() -> list[dict[str, str]]:
    """The rows of meta_gemm_shapes.csv: products of traced models."""
    with (REFERENCE / "meta_gemm_shapes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
