"""Whole chips against their published figures, nothing fitted: latency, energy of the chip, DRAM bytes and area.

published_chips.csv: a row is a chip, a workload and a figure, with its source, whether that was read or is recalled of the paper, and why
ours differs. Chips are devices of the library (NVDLA's other sizes by units, buffer, bandwidth and node); workloads run in the chip's own
precision, with what the chip keeps on chip (`--residency`). Energy of the chip is what the DRAM's words do not take. Area is what the
profile of the device says, in place of the published die that the device carries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np

from hw_models.accelerator.design import Accelerator
from hw_models.costs.evaluate import evaluate
from hw_models.costs.residency.models import report
from hw_models.costs.residency.solve import check_level
from hw_models.devices import library as devices
from hw_models.technology.tables import dram
from hw_models.validation.registry import Outcome, Spec, reference_rows
from workloads import library
from workloads.filters import filter_fields
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase, Workload

FILE: Final = "published_chips.csv"
WITHIN: Final = {"area": 1.5, "area at 28 nm": 1.5}
"""How far a figure may be by the goal; 2 where not named."""
# Weights and layers of TPU v1's networks (Jouppi et al., ISCA 2017, table 1); their sizes are not published: square products that have
# them, and for CNN0 16 layers of 3 x 3 over 19 x 19 positions (8 x 361 = 2,888 operations a byte of weights, as the table has it).
DENSE: Final = {"mlp0": (5, 20_000_000), "mlp1": (4, 5_000_000), "lstm0": (24, 52_000_000), "lstm1": (37, 34_000_000)}
CNN0_LAYERS, CNN0_CHANNELS, BOARD = 16, 236, 19
_BITS: Final = {"eyeriss": 16}


@dataclass(frozen=True)
class Figure:
    """A published figure beside ours."""

    chip: str
    workload: str
    batch: int
    quantity: str
    unit: str
    published: float
    ours: float
    status: str
    source: str
    reason: str

    @property
    def ratio(self) -> float:
        """Ours over the published figure."""
        return self.ours / self.published

    @property
    def within(self) -> bool:
        """Within 2x (area: 1.5x)."""
        limit = WITHIN.get(self.quantity, 2.0)
        return 1 / limit <= self.ratio <= limit


def chip(row: Mapping[str, str]) -> Accelerator:
    """The accelerator of a row: a device, or NVDLA of another size or node."""
    design = devices.load(row["device"]).accelerator
    if not row["units"]:
        return design
    inputs, filters = (int(v) for v in row["units"].split("x"))
    buffer, memory = design.levels
    rate, width = float(row["dram_gb_per_s"]) * 1e9 / design.frequency_hz, float(2 * inputs)
    levels = (
        replace(
            buffer,
            bytes=int(row["buffer_kib"]) * 1024,
            read_words_per_cycle=width,
            write_words_per_cycle=width,
            access_bytes=4 if inputs < math.sqrt(4 * 32) else 32,
        ),
        replace(memory, read_words_per_cycle=rate, write_words_per_cycle=rate),
    )
    node_nm = float(row.get("node_nm") or design.node_nm)
    return replace(design, name=row["chip"], node_nm=node_nm, array_rows=inputs, array_columns=filters, adder_tree=inputs, levels=levels)


def workload(name: str, batch: int, bits: int) -> Workload:
    """The workload of a row: a named network (or its convolutions alone), or one of TPU v1's."""
    if name in DENSE:
        return _workload(name, _dense(*DENSE[name], batch))
    if name == "cnn0":
        return _workload(name, _board(batch))
    network, _, part = name.partition(" ")
    made = library.load(network).build(batch=batch, weight_bits=bits, activation_bits=bits)
    if part != "convolutions":
        return made
    (phase,) = made.phases
    last = max(i for i, kind in enumerate(phase.table.kind.tolist()) if kind == Kind.CONV) + 2  # its function too
    return replace(made, phases=(replace(phase, table=phase.table.take(list(range(last)))),))


def _workload(name: str, rows: list[Operation]) -> Workload:
    return Workload(name=name, family="imported", phases=(Phase("forward", OperationTable.from_rows(rows)),))


def _dense(layers: int, weights: int, batch: int) -> list[Operation]:
    side = round((weights / layers) ** 0.5)
    rows = []
    for i in range(layers):
        rows.append(
            Operation(f"dense{i}", Kind.GEMM, batch, side, side, second_is_weight=True, parameters=side * side, weight_id=f"dense{i}")
        )
        rows.append(Operation(f"function{i}", Kind.ACTIVATION, batch * side, 1, function="relu"))
    return rows


def _board(batch: int) -> list[Operation]:
    places, channels = BOARD**2, CNN0_CHANNELS
    fields: dict[str, Any] = {
        "batch": batch, "second_is_weight": True, "parameters": 9 * channels**2, "input_elements": batch * places * channels,
        **filter_fields([BOARD, BOARD], [3, 3], [1, 1]),
    }  # fmt: skip
    rows = []
    for i in range(CNN0_LAYERS):
        rows.append(Operation(f"conv{i}", Kind.CONV, places, channels, 9 * channels, weight_id=f"conv{i}", **fields))
        rows.append(Operation(f"function{i}", Kind.ACTIVATION, batch * places * channels, 1, function="relu"))
    return rows


@cache
def _run(device: str, units: str, buffer: str, rate: str, name: str, batch: int, residency: str) -> tuple[float, float, float, float]:
    """Latency [s], energy [J], DRAM bytes and MACs of a workload on a chip."""
    design = chip({"chip": "chip", "device": device, "units": units, "buffer_kib": buffer, "dram_gb_per_s": rate})
    one = workload(name, batch, _BITS.get(device, 8))
    macs = float(one.macs())
    if residency == "none":
        cost = evaluate(design, one)
        return float(cost.latency_s), float(cost.energy_j), float(cost.dram_bytes), macs
    hardware = design.batch()
    found = report(one, hardware, point=0, level=check_level(residency))
    if "steps" not in found:
        raise ValueError(f"{device}: {found['reason']}")
    latency = sum(step["latency_s"] for step in found["steps"])
    energy = sum(step["energy_j"] for step in found["steps"]) + float(hardware.leakage_w[0]) * latency
    return latency, energy, float(found["dram_bytes"]), macs


def bottom_up_mm2(design: Accelerator) -> float:
    """Area of one chip by its technology profile [mm2]."""
    return float(replace(design, area_mm2=None).batch().area_mm2[0]) / design.chips


def _ours(row: Mapping[str, str]) -> float:
    design = chip(row)
    if row["quantity"] in WITHIN:
        return bottom_up_mm2(design)
    settings = (row["device"], row["units"], row["buffer_kib"], row["dram_gb_per_s"], row["workload"], int(row["batch"]), row["residency"])
    latency, energy, moved, macs = _run(*settings)
    on_dram = moved * dram(design.levels[-1].kind).pj_per_byte * 1e-12
    return {
        "latency": latency * 1e3, "rate": 2e-12 * macs / latency, "die power": (energy - on_dram) / latency,
        "chip energy": (energy - on_dram) * 1e3, "DRAM": moved * 1e-6,
    }[row["quantity"]]  # fmt: skip


@cache
def figures() -> tuple[Figure, ...]:
    """Every published figure with ours."""
    return tuple(
        Figure(
            row["chip"], row["workload"], int(row["batch"] or 0), row["quantity"], row["unit"], float(row["published"]), _ours(row),
            row["status"], row["source"], row["reason"],
        )
        for row in reference_rows(FILE)
    )  # fmt: skip


HEADER: Final = ("chip", "workload", "quantity", "published", "ours", "ratio", "reason")


def named() -> dict[str, tuple[str, ...]]:
    """The chips that each name means, in small letters: one as the table has it (``edge tpu``), or a device's (``edge-tpu``, ``nvdla``)."""
    rows = {row["chip"]: row["device"] for row in reference_rows(FILE)}
    of_devices = {device.casefold(): tuple(chip for chip in rows if rows[chip] == device) for device in rows.values()}
    return {chip.casefold(): (chip,) for chip in rows} | of_devices


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the texts of one line."""
    name = f"{figure.workload}, batch {figure.batch}" if figure.workload else ""
    shown = [f"{value:.3g} {figure.unit}" for value in (figure.published, figure.ours)]
    return (figure.chip, name, figure.quantity, *shown, f"{figure.ratio:.2f}" + ("" if figure.within else " (missed)"), figure.reason)


def markdown(shown: Sequence[Figure]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cells(figure)) + " |" for figure in shown]
    return "\n".join(lines) + "\n"


def _off(*quantities: str) -> Outcome:
    """The geometric mean of how far ours are off, either way [%]: 100 is a factor of 2."""
    logs = [abs(float(np.log(f.ratio))) for f in figures() if f.quantity in quantities]
    return Outcome(len(logs), 100 * (float(np.exp(np.mean(logs))) - 1))


def _spec(name: str, bound: float, goal: float, *quantities: str) -> Spec:
    published = "papers of Eyeriss, TPU v1, Gemmini, NVDLA, Simba; Coral"
    return Spec(f"whole chips, {name}: off either way", published, "%", bound, goal, "", "nothing", lambda: _off(*quantities))


SPECS: Final = (
    _spec("latency and rate", 47.0, 100.0, "latency", "rate"),
    _spec("energy and power", 58.0, 100.0, "chip energy", "die power"),
    _spec("area by profile silicon", 33.0, 50.0, "area"),
    _spec("area at 28 nm by profile silicon", 18.0, 50.0, "area at 28 nm"),
)
