"""Where the numbers of the hardware come from: energies, leakage, area, rates of every design, with value, unit, vintage and licence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dse.evaluation.hardware_points import Points
from dse.spaces.hardware import HardwareSpace
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs import board_power
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.parameters import shipped
from hw_models.costs.gpu_kernels.sheet import sheet_of
from hw_models.costs.kernels import board_of
from hw_models.devices import library
from hw_models.devices.accuracy import statement
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import node_status, read_table

_UNITS = {"hz": "Hz", "nm": "nm", "v": "V", "bytes": "bytes", "mm2": "mm2", "w": "W", "usd": "USD", "kgco2e": "kgCO2e"}
_MEASURED = {"vintage": "2025", "licence": "Apache-2.0 (measurements of aiconfigurator 0.12.0)"}


def hardware_sources(points: Points, hardware: HardwareSpace, label: str = "") -> list[dict[str, Any]]:
    """One entry a number of the first design of each kind, in the form of the carbon factors: key, value, unit, source, vintage,
    licence, note. ``label`` names the design where it has no name of its own."""
    entries: list[dict[str, Any]] = []
    for name in hardware.shipped:
        entries += _device(name)
    for batch in points.batches:
        entries += _kernels(batch) if (batch.execution != Execution.MAPPED).any() else _tables(batch, label)
        if (batch.tdp_w > 0).any():
            entries += _board(batch)
    return list({repr(entry): entry for entry in entries}.values())


def expected_error(hardware: HardwareSpace) -> list[str]:
    """For each device of the library what its kernels were off on measured rows that no fit has seen, or that none were measured."""
    told = [f"{name}: {statement(name)}" for name in hardware.shipped]
    return told + [f"{name}: by your calibration, {doubt}" for name in hardware.shipped[:1] for doubt in hardware.doubts]


def _entry(
    key: str, value: float | None, unit: str, source: str, vintage: str, licence: str = "facts only", note: str = ""
) -> dict[str, Any]:
    return {"key": key, "value": value, "unit": unit, "source": source, "vintage": vintage, "licence": licence, "note": note}


def _device(name: str) -> Iterator[dict[str, Any]]:
    """Every number of a device file with its source."""
    device = library.load(name)
    record = device.accelerator
    levels = {level.name: level for level in record.levels}
    for key, source in device.sources.items():
        value: float | None = None
        unit = ""
        if key in levels:
            value, unit = float(levels[key].bytes), "bytes"
        elif key == "link":
            value, unit = record.link_bytes_per_s, "bytes/s"
        elif key == "array":
            value, unit = float(record.array_rows * record.array_columns), "multiply-accumulates a cycle and core"
        elif key == "vector":
            value, unit = float(record.vector_lanes), "lanes"
        elif isinstance(number := getattr(record, key, getattr(device, key, None)), (int, float)):
            value, unit = float(number), _UNITS.get(key.rsplit("_", 1)[-1], "")
        yield _entry(f"device.{name}.{key}", value, unit, source, device.vintage or "see source")


def _tables(batch: AcceleratorBatch, label: str) -> Iterator[dict[str, Any]]:
    """What the technology tables say of an array: a MAC, words of SRAM and DRAM, leakage, area."""
    node = float(batch.node_nm[0])
    first = "" if len(batch) == 1 else "; first design"
    label = label or (batch.names[0] if batch.names else "design 1")
    by_format = find_profile(batch.profile).logic == "arithmetic"
    table, component = ("arithmetic.csv", "multiplier") if by_format else ("logic.csv", "mac")
    mac = next(row for row in read_table(table) if row["component"] == component)
    note = f"at {node:g} nm, {node_status(node)}{first}"
    yield _entry(f"hardware.{label}.mac_pj", float(batch.mac_pj[0]), "pJ", mac["source"], mac["vintage"], mac["licence"], note)
    if by_format:
        bit = next(row for row in read_table(table) if row["component"] == "register")
        pj = float(batch.register_write_pj_per_word[0])
        yield _entry(f"hardware.{label}.register_pj_per_word", pj, "pJ", bit["source"], bit["vintage"], bit["licence"], note)
    cacti = read_table("sram_cacti.csv")[0]
    for i, (name, kind) in enumerate(zip(batch.level_names, batch.level_kinds, strict=True)):
        row = cacti if kind == "sram" else next(r for r in read_table("dram.csv") if r["type"] == kind)
        source, vintage, licence = (
            row.get(k) or default for k, default in (("source", "CACTI 7"), ("vintage", "2017"), ("licence", "facts only"))
        )
        pj = float(batch.level_read_pj_per_word[0, i])
        yield _entry(f"hardware.{label}.{name}.read_pj_per_word", pj, "pJ", source, vintage, licence, note)
    source, vintage = cacti.get("source") or "CACTI 7", cacti.get("vintage") or "2017"
    yield _entry(f"hardware.{label}.leakage_w", float(batch.leakage_w[0]), "W", source, vintage, note=note)
    yield _entry(f"hardware.{label}.area_mm2", float(batch.area_mm2[0]), "mm2", f"{mac['source']}; {source}", vintage, note=note)


def _kernels(batch: AcceleratorBatch) -> Iterator[dict[str, Any]]:
    """The kernel families that a GPU's operations are costed with."""
    gpu = [p for p in range(len(batch)) if batch.execution[p] == Execution.GPU][:1]
    for point in gpu:
        chosen = choice(sheet_of(batch, point))
        names = (
            f"product.{chosen.product}", f"decode.{chosen.decode('bf16')}", f"prefill.{chosen.prefill('bf16')}",
            f"mixture.{chosen.mixture('bf16')}", f"collective.{chosen.collective}", f"direct.{chosen.direct}", "row.kernel",
        )  # fmt: skip
        for name in names:
            yield {"key": f"kernels.{name}", "value": None, "unit": "", "source": shipped()[name].fitted_on, **_MEASURED, "note": ""}


def _board(batch: AcceleratorBatch) -> Iterator[dict[str, Any]]:
    """The rule of boards' energy."""
    label = batch.names[0] if batch.names else "design 1"
    limit = "what the power limit leaves at the rate of large products; docs/models/gpu.md"
    yield _entry(f"power.{label}.mac_j", float(board_of(batch, 0).mac_j[0]), "J", limit, "2024")
    polca = "our estimate, after what is recalled of Patel et al., POLCA, ASPLOS 2024 (arXiv:2308.12908), not checked against its text"
    yield _entry("power.active_share", board_power.ACTIVE_SHARE, "of the limit", polca, "2024")
    yield _entry("power.way_pj_per_byte", board_power.WAY_PJ_PER_BYTE, "pJ/byte", polca, "2024")
    row = next(r for r in read_table("dram.csv") if r["type"] == batch.level_kinds[-1])
    yield _entry(f"power.{row['type']}_pj_per_bit", float(row["pj_per_bit"]), "pJ/bit", row["source"], row["vintage"], row["licence"])
