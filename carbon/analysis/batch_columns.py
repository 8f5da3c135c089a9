"""The columns of ``dse carbon batch``, by kind: spellings, bounds, which are needed, and what is only passed through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """An input column: its spellings, its bounds, whether it is text."""

    names: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    whole: bool = False
    text: bool = False
    scale: Mapping[str, float] | None = None  # spelling -> factor to the unit of the first name


_POSITIVE: dict[str, Any] = {"low": 0.0, "open_low": True}
_SHARE: dict[str, Any] = {"low": 0.0, "high": 1.0, "open_low": True}
COLUMNS: dict[str, dict[str, Column]] = {
    "die": {
        "node": Column(("node", "node_nm"), text=True),
        "area_mm2": Column(("area_mm2",), **_POSITIVE),
        "fab_grid": Column(("fab_ci", "fab_grid"), text=True),
        "ci_g_per_kwh": Column(("fab_ci_g_per_kwh", "ci_g_per_kwh"), low=0.0),
        "abatement_pct": Column(("gpa_abatement_pct", "abatement_pct"), low=0.0, high=100.0),
        "fab_yield": Column(("fab_yield",), **_SHARE),
        "n_ics": Column(("n_ics",), low=0.0),
        "wafer_mm": Column(("wafer_mm",), **_POSITIVE),
        "d0_per_cm2": Column(("d0_per_cm2", "d0_per_mm2"), low=0.0, scale={"d0_per_mm2": 100.0}),
        "alpha": Column(("alpha",), **_POSITIVE),
        "dies": Column(("dies",), low=1.0),
        "package": Column(("package",), text=True),
        "yield_model": Column(("yield_model",), text=True),
    },
    "memory": {
        "kind": Column(("kind",), text=True),
        "process": Column(("process", "memory_type", "type"), text=True),
        "capacity_gb": Column(("capacity_gb", "memory_gb", "gb"), low=0.0),
        "fab_yield": Column(("fab_yield",), **_SHARE),
        "n_ics": Column(("n_ics",), low=0.0),
        "modules": Column(("modules", "drives"), low=0.0),
        "year": Column(("year",), low=1990.0, high=2100.0, whole=True),
    },
    "operation": {
        "kind": Column(("kind",), text=True),
        "power_w": Column(("op_power_w", "power_w"), low=0.0),
        "duty_cycle": Column(("duty_cycle",), low=0.0, high=1.0),
        "lifetime_years": Column(("lifetime_year", "lifetime_years"), low=0.0),
        "grid": Column(("op_ci", "grid"), text=True),
        "ci_g_per_kwh": Column(("ci_g_per_kwh",), low=0.0),
        "pue": Column(("pue",), low=1.0),
        "idle_w": Column(("idle_w",), low=0.0),
    },
    "pcb": {
        "kind": Column(("kind",), text=True),
        "area_cm2": Column(("area_cm2",), low=0.0),
        "layers": Column(("layers",), low=1.0, whole=True),
    },
    "llm": {
        "active_b": Column(("active_b",), **_POSITIVE),
        "total_b": Column(("total_b",), **_POSITIVE),
        "out_tokens": Column(("out_tokens",), low=0.0),
        "zone": Column(("zone",), text=True),
        "mix_gwp_kg_kwh": Column(("mix_gwp_kg_kwh",), low=0.0),
        "mix_wue": Column(("mix_wue",), low=0.0),
        "pue": Column(("pue",), low=1.0),
        "dc_wue": Column(("dc_wue",), low=0.0),
        "batch": Column(("batch",), low=1.0),
        "bits": Column(("bits",), low=1.0),
    },
}
REQUIRED = {
    "die": ("node", "area_mm2"),
    "memory": ("process", "capacity_gb"),
    "operation": ("power_w", "lifetime_years"),
    "pcb": ("area_cm2", "layers"),
    "llm": ("active_b", "total_b", "out_tokens"),
}
#: What the peers' tables hold as results: passed through.
RESULTS = (
    *("cpa_kg_per_cm2", "fab_kgco2", "packaging_kgco2", "total_kgco2", "cpg_kg_per_gb", "yield_", "yield_negbin", "dpw"),
    *("dies_per_wafer", "waste_g_per_die", "die_g", "die_with_waste_g", "package_g", "total_g", "cpa_g_per_mm2"),
    *("energy_kwh", "gwp_total_kg", "gwp_use_kg", "gwp_embodied_kg", "water_l"),
)
