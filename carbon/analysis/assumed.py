"""What a specification leaves open and an estimate takes for granted, in sentences: a default that moves the answer is never silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carbon.embodied import memory
from carbon.factors import tables as factors

#: From this area on the yield of a die without spare units moves its carbon by a quarter and more (D0 0.1 / cm2).
LARGE_DIE_MM2 = 300.0


def assumptions(name: str, inputs: Mapping[str, Any]) -> list[str]:
    """Defaults that the ``default`` profile takes for a component whose ``inputs`` (of `carbon.device.device.Device`) leave them out."""
    found = []
    kind = str(inputs.get("memory_type", "")).lower()
    if _given(inputs, "storage_gb"):
        if "storage_year" not in inputs:
            found.append(f"{name}: storage_year is not given, flash of {memory.default_year('nand')} is taken (newer flash is denser)")
        found += _newer(name, "storage_year", "nand", inputs)
        if not _given(inputs, "storage_drives"):
            found.append(f"{name}: storage_drives is not given, no drive's own {_kg('ssd_fixed_kgco2e')} are counted")
    if _given(inputs, "memory_gb") and kind not in memory.HBM and kind in memory.types():
        if "memory_year" not in inputs:
            found.append(f"{name}: memory_year is not given, {kind} of {memory.default_year(kind)} is taken")
        found += _newer(name, "memory_year", kind, inputs)
        if memory.on_modules(kind) and not _given(inputs, "memory_modules"):
            found.append(f"{name}: memory_modules is not given, no module's own {_kg('dimm_fixed_kgco2e')} are counted")
    if inputs.get("system") == "server" and _given(inputs, "area_mm2") and not _given(inputs, "cpu_packages"):
        found.append(f"{name}: cpu_packages is not given, no processor's own {_kg('cpu_package_kgco2e')} are counted")
    area = inputs.get("area_mm2")
    spared = {"harvest", "fab_yield", "d0_per_cm2"} & set(inputs)
    if isinstance(area, (int, float)) and area >= LARGE_DIE_MM2 and not spared:
        found.append(
            f"{name}: harvest is not given, so that one defect on the {area:g} mm2 die loses it; a product of this size with spare "
            'units costs less (of an H100, as in device = "h100": { units = 144, needed = 132, fraction = 0.6 })'
        )
    return found


def _newer(name: str, field: str, kind: str, inputs: Mapping[str, Any]) -> list[str]:
    """What stands for the density of a year after the newest one that is known."""
    year, newest = inputs.get(field), memory.newest_year(kind)
    if not isinstance(year, (int, float)) or newest is None or year <= newest:
        return []
    what = "flash" if kind == "nand" else kind
    return [f"{name}: {field} is {year:.0f}, the newest known density of {what} is of {newest}; it stands for {year:.0f}"]


def _given(inputs: Mapping[str, Any], field: str) -> bool:
    value = inputs.get(field)
    return value is not None and not (isinstance(value, (int, float)) and value == 0)


def _kg(item: str) -> str:
    factor = factors.item(item)
    return f"{factor.value:g} kg"
