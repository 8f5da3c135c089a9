"""Workloads as tables of operations: what a model computes and moves, whatever accelerator runs it."""

from __future__ import annotations

from workloads.errors import WorkloadError
from workloads.family import Family
from workloads.knobs import Knob
from workloads.library import load, names
from workloads.ops import Distinct, Kind, Operation, OperationTable, concatenate
from workloads.records import LeftOut, Phase, Workload

__all__ = [
    "Distinct",
    "Family",
    "Kind",
    "Knob",
    "LeftOut",
    "Operation",
    "OperationTable",
    "Phase",
    "Workload",
    "WorkloadError",
    "concatenate",
    "load",
    "names",
]
