"""Component footprints as boaviztapi 2.5.0 computes them (AGPL code: formulas and single factors as facts, written anew).

CPU by die area, RAM and SSD by die density, drives and power supplies by unit; GPUs by effective die areas. Its GPU figures are
1.78 times those of Hubblo, which cites the same parametric model, and give no range: reproduced, never used by a profile.
"""

from __future__ import annotations

import json
import math
from typing import Any

from carbon.errors import CarbonError
from carbon.factors.tables import item

_KERF_MM = 0.2
_WAFER_MM = 300.0
_VRAM_MM2_PER_GB = 15.5
_GPU_D0_PER_CM2 = 0.1
#: GPUs: effective die mm2 (wafer loss included), GB, memory dies, board cm2, heatsink, case and card kg; facts of its table.
_TRANSPORT_KM = {"boat": 19000.0, "truck": 1000.0}


def cpu(die_mm2: float) -> float:
    """Return kgCO2e of a CPU: 0.0197 kg/mm2 of die + 9.14."""
    return die_mm2 * item("boavizta_cpu_die").value + item("boavizta_cpu_package_fixed").value


def ram(capacity_gb: float, density_gb_cm2: float) -> float:
    """Return kgCO2e of a memory module: GB / density * 2.20 kg/cm2 + 5.22."""
    return capacity_gb / density_gb_cm2 * item("memory_die_kgco2e_cm2").value + item("dimm_fixed_kgco2e").value


def ssd(capacity_gb: float, density_gb_cm2: float) -> float:
    """Return kgCO2e of a flash drive: GB / density * 2.20 kg/cm2 + 6.34."""
    return capacity_gb / density_gb_cm2 * item("memory_die_kgco2e_cm2").value + item("ssd_fixed_kgco2e").value


def effective_mm2(die_mm2: float) -> float:
    """Return the wafer area a die answers for: kerf, wafer edge and Seeds yield exp(-sqrt(A * 0.1 /cm2)) included."""
    area = (math.sqrt(die_mm2) + _KERF_MM) ** 2
    wafer = math.pi * (_WAFER_MM / 2.0) ** 2
    dies = wafer / area - math.pi * _WAFER_MM / math.sqrt(2.0 * area)
    if dies <= 0.0:
        raise CarbonError(f"die_mm2 is {die_mm2:g}, but no such die fits a 300 mm wafer")
    return area * (wafer / (dies * area)) / math.exp(-math.sqrt(area / 100.0 * _GPU_D0_PER_CM2))


def gpu(
    *, die_effective_mm2: float, memory_gb: float, memory_dies: float, board_cm2: float, heatsink_kg: float, case_kg: float,
    card_kg: float,
) -> float:  # fmt: skip
    """Return kgCO2e of a GPU card from its bill.

    ``die_effective_mm2`` already holds wafer loss; the memory's area is 15.5 mm2/GB over ``memory_dies`` dies.
    """
    memory = effective_mm2(memory_gb * _VRAM_MM2_PER_GB / memory_dies) * memory_dies
    return (
        item("boavizta_gpu_die").value * die_effective_mm2
        + item("boavizta_gpu_vram").value * memory
        + item("boavizta_gpu_pwb").value * board_cm2
        + item("boavizta_gpu_heatsink").value * heatsink_kg
        + item("boavizta_gpu_casing").value * case_kg
        + (item("boavizta_gpu_upstream_transport").value + item("boavizta_gpu_eol").value) * card_kg
        + item("boavizta_boat").value * _TRANSPORT_KM["boat"] * card_kg
        + item("boavizta_truck").value * _TRANSPORT_KM["truck"] * card_kg
    )


def component(endpoint: str, request: str) -> float | None:
    """Return kgCO2e for a component request of its interface, None for one without a published formula here (GPU by name)."""
    kind = endpoint.split("/v1/component/", 1)[-1].split("?", 1)[0]
    body: dict[str, Any] = json.loads(request)
    units = float(body.get("units", 1))
    if kind == "cpu":
        return cpu(float(body["die_size"])) * units
    if kind == "ram":
        return ram(float(body["capacity"]), float(body["density"])) * units
    if kind == "ssd":
        return ssd(float(body["capacity"]), float(body["density"])) * units
    if kind == "hdd":
        return item("hdd_kgco2e").value * units
    if kind == "power_supply":
        return float(body["unit_weight"]) * item("boavizta_psu").value * units
    return None
