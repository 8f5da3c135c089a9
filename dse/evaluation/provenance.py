"""Where the numbers of the hardware come from: energies, leakage, area, rates of every design, with value, unit, vintage and licence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
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
from hw_models.spaces.files import figures_of
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import node_status, read_table

_UNITS = {"hz": "Hz", "nm": "nm", "v": "V", "bytes": "bytes", "mm2": "mm2", "w": "W", "usd": "USD", "kgco2e": "kgCO2e"}
_MEASURED = {"vintage": "2025", "licence": "Apache-2.0 (measurements of aiconfigurator 0.12.0)"}


def hardware_sources(points: Points, hardware: HardwareSpace, label: str = "", file: str = "") -> list[dict[str, Any]]:
    """One entry a number of the first design of each kind, in the form of the carbon factors: key, value, unit, source, vintage,
    licence, note. ``label`` names the design where it has no name of its own, ``file`` the user's file that it is from.

    What a device's or a user's file states itself is of that file, not of the technology tables.
    """
    entries: list[dict[str, Any]] = []
    for name in hardware.shipped:
        entries += _device(name)
    for batch in points.batches:
        if (batch.execution != Execution.MAPPED).any():
            entries += _kernels(batch)
        else:
            entries += _tables(batch, label, _stated(batch, hardware, file), "" if hardware.own else hardware.source)
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


Origin = tuple[str, str]
"""(source, vintage) of a figure that a file states."""


def _stated(batch: AcceleratorBatch, hardware: HardwareSpace, file: str) -> dict[str, Origin]:
    """The figures that are none of the tables', ``leakage_w`` or ``dram.read_pj_per_word``, with what their file says of them."""
    name = hardware.board or next((name for name in hardware.shipped if _is_of(batch, name)), "")
    if name:
        device = library.load(name)
        said = {
            figure: device.sources.get(figure) or device.sources.get(figure.partition(".")[0]) for figure in figures_of(device.accelerator)
        }
        return {figure: (source or f"given in the file of {name}", device.vintage or "see source") for figure, source in said.items()}
    own = hardware.source if hardware.source != file else ""
    given = f"given in {file or hardware.name}" + (f": {own}" if own and Path(own).name != file else "")
    return dict.fromkeys(hardware.figures, (given, "see source"))


def _is_of(batch: AcceleratorBatch, name: str) -> bool:
    """Whether the designs of a batch are a device of the library, in whatever number."""
    own = library.load(name).accelerator.batch()
    if own.level_names != batch.level_names:
        return False
    columns = ("cores", "array_rows", "array_columns", "frequency_hz", "node_nm", "level_bytes")
    return all(bool((getattr(own, column)[0] == getattr(batch, column)[0]).all()) for column in columns)


def _tables(batch: AcceleratorBatch, label: str, stated: Mapping[str, Origin] | None = None, rule: str = "") -> Iterator[dict[str, Any]]:
    """What the technology tables say of an array, or ``stated`` in their place: a MAC, words of SRAM and DRAM, leakage, area.

    ``rule``: the source of a template whose areas follow a rule of its own.
    """
    stated = stated or {}
    node = float(batch.node_nm[0])
    first = "" if len(batch) == 1 else "first design"
    label = label or (batch.names[0] if batch.names else "design 1")
    rules = find_profile(batch.profile)
    by_format = rules.logic == "arithmetic"
    table, component = ("arithmetic.csv", "multiplier") if by_format else ("logic.csv", "mac")
    mac = next(row for row in read_table(table) if row["component"] == component)
    note = f"at {node:g} nm, {node_status(node)}" + (f"; {first}" if first else "")

    def told(key: str, value: Any, unit: str, source: str, vintage: str, licence: str = "facts only", note: str = note) -> dict[str, Any]:
        if key in stated:  # at the node that the file's author means, by whatever rule
            (source, vintage), licence, note = stated[key], "see source", first
        return _entry(f"hardware.{label}.{key}", float(value), unit, source, vintage, licence, note)

    if rules.mac_pj is None:
        yield told("mac_pj", batch.mac_pj[0], "pJ", mac["source"], mac["vintage"], mac["licence"])
    else:  # whatever the node
        yield told("mac_pj", batch.mac_pj[0], "pJ", rules.source, "see source", note=first)
    if by_format:
        bit = next(row for row in read_table(table) if row["component"] == "register")
        yield told("register_pj_per_word", batch.register_write_pj_per_word[0], "pJ", bit["source"], bit["vintage"], bit["licence"])
    cacti = read_table("sram_cacti.csv")[0]
    for i, (name, kind) in enumerate(zip(batch.level_names, batch.level_kinds, strict=True)):
        row = cacti if kind == "sram" else next(r for r in read_table("dram.csv") if r["type"] == kind)
        source, vintage, licence = (
            row.get(k) or default for k, default in (("source", "CACTI 7"), ("vintage", "2017"), ("licence", "facts only"))
        )
        # A DRAM is a part of its own: its energy does not go with the chip's node.
        own_note = note if kind == "sram" else first
        yield told(f"{name}.read_pj_per_word", batch.level_read_pj_per_word[0, i], "pJ", source, vintage, licence, own_note)
        if f"{name}.write_pj_per_word" in stated:
            yield told(f"{name}.write_pj_per_word", batch.level_write_pj_per_word[0, i], "pJ", source, vintage, licence, own_note)
    source, vintage = cacti.get("source") or "CACTI 7", cacti.get("vintage") or "2017"
    yield told("leakage_w", batch.leakage_w[0], "W", source, vintage)
    area = f"{mac['source']}; {source}"
    if rule and not batch.bottom_up_area[0]:
        area = f"{rule}; {source}"
    yield told("area_mm2", batch.area_mm2[0], "mm2", area, vintage)


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
