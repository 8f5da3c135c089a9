"""Area, technology, vector unit and whole models against the tools that their numbers come from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from hw_models import spaces as templates
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs.evaluate import Cost, evaluate
from hw_models.costs.vector_catransformers import catransformers
from hw_models.technology import tables as technology
from hw_models.validation.registry import Outcome, Spec, reference_rows
from workloads import library
from workloads.ops import Kind, Operation, OperationTable

_TOOL: Final = "CATransformers@ad8c859, run"
_CACTI: Final = "CACTI 7, run"
# A row counts as exact within the digits that its source prints.
_EXACT: Final = 1e-9
_PRINTED: Final = 1e-6

# That tool's names of vector operators, and the function, kind and number of operands that are ours.
OPERATORS: Final = {
    "Add": ("add", Kind.ELEMENTWISE, 2),
    "Softmax": ("softmax", Kind.SOFTMAX, 1),
    "NativeDropout": ("dropout", Kind.ELEMENTWISE, 1),
    "NativeLayerNorm": ("layernorm", Kind.NORM, 1),
    "MaskedFill": ("relu", Kind.ELEMENTWISE, 1),
}


def edge_design(row: dict[str, str], *, profile: str) -> AcceleratorBatch:
    """The `edge22` design that a row of the references names."""
    cores = row["num"] if "num" in row else row["num_tc"]
    return templates.load("edge22", profile=profile).batch(
        cores=int(cores),
        width=int(row["width"]),
        depth=int(row["depth"]),
        l2_kib=int(row["L2_KB"]),
        l2_words_per_cycle=int(row["L2_BW"]),
        glb_mib=int(row["GLB_MB"]),
    )


@dataclass(frozen=True)
class VectorOperator:
    """A vector operator as that tool and as we cost it: latency [s], energy [J]."""

    name: str
    latency_s: float
    energy_j: float
    our_latency_s: float
    our_energy_j: float


def vector_operators() -> Iterator[VectorOperator]:
    """The vector operators of the BERT runs whose listed shape is what was costed."""
    dropout: dict[tuple[str, ...], tuple[float, float]] = {}
    rows = [row for row in reference_rows("catransformers_ops_bertbase.csv") if row["kind"] == "VC" and row["op"] in OPERATORS]
    for row in rows:
        if row["op"] == "NativeDropout":
            dropout[_place(row)] = float(row["latency_s"]), float(row["energy_J"])
    for row in rows:
        shape = json.loads(row["out"])[0]
        # Additions inside attention are costed on one row of the tensor that is listed, and the sum of two
        # scalars is a fixed cost: neither says what an addition of tensors costs.
        if (row["op"] == "Add" and row["component"] == "attention") or math.prod(shape) == 1:
            continue
        function, kind, operands = OPERATORS[row["op"]]
        table = OperationTable.from_rows(
            [Operation(row["op"], kind, math.prod(shape[:-1]), shape[-1], function=function, operands=operands)]
        )
        found = catransformers(table, edge_design(row, profile="catransformers22"))
        # Ours carries the dropout that follows an attention softmax in that tool.
        later = dropout[_place(row)] if row["op"] == "Softmax" else (0.0, 0.0)
        yield VectorOperator(
            row["op"],
            float(row["latency_s"]) + later[0],
            float(row["energy_J"]) + later[1],
            float(found.lanes_s[0, 0]),
            float(found.energy_j[0, 0]),
        )


def _place(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[k] for k in ("num", "width", "depth", "L2_KB", "GLB_MB", "hidden", "out"))


def bert_runs() -> Iterator[tuple[dict[str, str], Cost]]:
    """The BERT runs of that tool and our cost of the same models and designs with its constants."""
    family = library.load("bert")
    for row in reference_rows("catransformers_runs.csv"):
        if row["model"] == "bertbase":
            model = family.build(**{k: int(row[k]) for k in ("layers", "hidden", "ffn", "heads")}, sequence=int(row["seq"]))
            yield row, evaluate(edge_design(row, profile="catransformers22"), model)


def _relative(pairs: list[tuple[float, float]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    ours, theirs = np.array(pairs).T
    return np.asarray(np.abs(ours / theirs - 1))


def _areas() -> Outcome:
    rows = reference_rows("catransformers_runs.csv")
    errors = _relative([(edge_design(r, profile="default").area_mm2[0] * 1e6, float(r["area_um2"])) for r in rows])
    return Outcome(len(rows), float(np.sum(errors > _EXACT)))


def _accelergy() -> Outcome:
    pairs = []
    for row in reference_rows("accelergy_cacti_22nm.csv"):
        for kib, area, access in ((int(row["L2_KB"]), "L2", "tc_l2"), (int(row["GLB_MB"]) * 1024, "GLB", "tc_glb")):
            size = kib * 1024
            pairs.append((float(technology.sram("area_um2", size)), float(row[f"a_{area}_Buffer"])))
            pairs.append((float(technology.sram("read_pj", size)), float(row[f"e_{access}_read"])))
            pairs.append((float(technology.sram("write_pj", size)), float(row[f"e_{access}_write"])))
    return Outcome(len(pairs), float(np.sum(_relative(pairs) > _PRINTED)))


def _wide_port() -> Outcome:
    pairs = []
    for row in reference_rows("cacti_sram.csv"):
        size, node = int(row["kB"]) * 1024, round(float(row["tech_m"]) * 1e9)
        for quantity, column, unit in (
            ("area_um2", "area_m2", 1e12),
            ("read_pj", "read_J", 1e12),
            ("leakage_w", "leak_W", 1.0),
        ):
            found = technology.cacti(quantity, size, node, 32)  # type: ignore[arg-type]
            pairs.append((float(found), float(row[column]) * unit))
    return Outcome(len(pairs), float(np.sum(_relative(pairs) > _PRINTED)))


def left_out_errors(access_bytes: int, quantity: technology.Quantity) -> list[float]:
    """Relative errors at sizes (at 22, 45 and 65 nm) that the shipped SRAM table does not hold."""
    pairs = [
        (
            float(technology.cacti(quantity, int(row["kib"]) * 1024, float(row["node_nm"]), access_bytes)),
            float(row[quantity]),
        )
        for row in reference_rows("cacti_left_out.csv")
        if int(row["access_bytes"]) == access_bytes
    ]
    return [float(e) for e in _relative(pairs)]


def _left_out(access_bytes: int, quantity: technology.Quantity, how: Literal["worst", "mean"]) -> Outcome:
    errors = left_out_errors(access_bytes, quantity)
    return Outcome(len(errors), 100 * float(max(errors) if how == "worst" else np.mean(errors)))


def _vector_cycles() -> Outcome:
    errors = _relative([(o.our_latency_s, o.latency_s) for o in vector_operators()])
    return Outcome(len(errors), float(np.sum(errors > _EXACT)))


def _vector_energy() -> Outcome:
    errors = _relative([(o.our_energy_j, o.energy_j) for o in vector_operators()])
    return Outcome(len(errors), 100 * float(np.max(errors)))


def _bert(ours: str, theirs: str, how: Literal["worst", "median"]) -> Outcome:
    errors = _relative([(float(getattr(cost, ours)[0]), float(row[theirs])) for row, cost in bert_runs()])
    return Outcome(len(errors), 100 * float(np.max(errors) if how == "worst" else np.median(errors)))


def _bert_order() -> Outcome:
    """Pairs of runs that we put in another order of latency than that tool."""
    pairs = [(float(cost.latency_s[0]), float(row["latency_s"])) for row, cost in bert_runs()]
    swapped = sum((a[0] - b[0]) * (a[1] - b[1]) <= 0 for i, a in enumerate(pairs) for b in pairs[:i])
    return Outcome(len(pairs), float(swapped))


SPECS: Final = (
    Spec("edge22 area", _TOOL, "rows", 0, 0, "", "nothing", _areas),
    Spec("SRAM area and energy, 22 nm", "Accelergy and CACTI, run", "rows", 0, 0, "", "nothing", _accelergy),
    Spec("SRAM with a wide port, 7-45 nm", "hwcomponents-cacti, run", "rows", 0, 0, "", "nothing", _wide_port),
    *(
        Spec(
            f"SRAM {label} at sizes left out, worst row",
            _CACTI,
            "%",
            bound,
            10.0,
            "",
            "other sizes",
            lambda quantity=quantity: _left_out(4, quantity, "worst"),  # type: ignore[misc]
        )
        for label, quantity, bound in (
            ("area", "area_um2", 9.0),
            ("read energy", "read_pj", 4.3),
            ("write energy", "write_pj", 7.0),
        )
    ),
    Spec(
        "SRAM area with a wide port at sizes left out",
        _CACTI,
        "%",
        2.9,
        None,
        "",
        "other sizes",
        lambda: _left_out(32, "area_um2", "mean"),
    ),
    Spec("vector operators of BERT, its constants", _TOOL, "rows", 0, 0, "", "nothing", _vector_cycles),
    Spec("energy of these operators, worst row", _TOOL, "%", 0.1, 15.0, "", "nothing", _vector_energy),
    Spec("BERT end to end, its constants: order by latency", _TOOL, "rows", 0, 0, "", "nothing", _bert_order),
    Spec(
        "BERT end to end, its constants: energy, worst run",
        _TOOL,
        "%",
        1.1,
        15.0,
        "",
        "nothing",
        lambda: _bert("energy_j", "energy_J_per_inf", "worst"),
    ),
    Spec(
        "BERT end to end, its constants: latency, median run",
        _TOOL,
        "%",
        1.6,
        10.0,
        "",
        "nothing",
        lambda: _bert("latency_s", "latency_s", "median"),
    ),
    Spec(
        "BERT end to end, its constants: latency, worst run",
        _TOOL,
        "%",
        3.7,
        10.0,
        "",
        "nothing",
        lambda: _bert("latency_s", "latency_s", "worst"),
    ),
)
