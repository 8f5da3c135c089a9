"""Designs that the export tests share."""

from dataclasses import replace

import hw_models.spaces
from dse.exporters.design import ExportDesign, describe
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import ArrayKind, Dataflow
from workloads import library
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase, Workload

KNOBS = {"cores": 2, "width": 64, "depth": 16, "l2_kib": 128, "l2_words_per_cycle": 64, "glb_mib": 2}


def accelerator(**changes: object) -> Accelerator:
    """An edge accelerator, or one with some fields changed."""
    return replace(hw_models.spaces.load("edge22").accelerator(**KNOBS), name="edge", **changes)  # type: ignore[arg-type]


def systolic(dataflow: Dataflow) -> Accelerator:
    """One core with a systolic array of the dataflow."""
    return accelerator(cores=1, vector_lanes=64, array_kind=ArrayKind.SYSTOLIC, dataflow=dataflow)


def products(*rows: Operation) -> Workload:
    """A workload of some operations."""
    return Workload(name="products", family="imported", phases=(Phase("forward", OperationTable.from_rows(list(rows))),))


def gemm(name: str, m: int, n: int, k: int, **fields: object) -> Operation:
    """A matrix product with a weight."""
    return Operation(name, Kind.GEMM, m, n, k, component="x", second_is_weight=True, **fields)  # type: ignore[arg-type]


SMALL = products(
    gemm("up", 60, 96, 40, repeat=3),
    gemm("up_again", 60, 96, 40),
    Operation("scores", Kind.GEMM, 33, 31, 16, batch=4, component="attention", repeat=2),
    gemm("row", 1, 70, 130),
    Operation("soft", Kind.SOFTMAX, 33, 31, component="attention", function="softmax"),
)


def small_design(**changes: object) -> ExportDesign:
    """A small workload on the edge accelerator."""
    return describe(accelerator(**changes), SMALL, number=7, command="dse search --workload x", version="1.2.3")


def bert_design(**knobs: int) -> ExportDesign:
    """BERT on the edge accelerator."""
    return describe(accelerator(), library.load("bert").build(**knobs), number=1, workload_name="bert")


def documented_design() -> ExportDesign:
    """The design of the table in docs/exports.md: BERT-base, 512 tokens, on 2 cores of 16 x 128."""
    knobs = {"cores": 2, "width": 128, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}
    edge = hw_models.spaces.load("edge22").accelerator(**knobs)
    return describe(edge, library.load("bert").build(), number=1, workload_name="bert")


def tiny_design() -> ExportDesign:
    """Products that a mapper searches in seconds: sizes that divide, and one that does not."""
    workload = products(gemm("smooth", 16, 32, 16), gemm("odd", 13, 27, 11))
    return describe(accelerator(cores=1, array_rows=8, array_columns=8, vector_lanes=8), workload)
