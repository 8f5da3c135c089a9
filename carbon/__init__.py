"""Embodied and operational carbon of accelerators: formulas, sourced factors, uncertainty and decision metrics.

Rooms: `factors` (every number from outside, grids, traces), `embodied` (dies, packages, memory), `operational` (service, water,
language-model requests), `device` (specifications and named recipes), `analysis` (estimates, uncertainty, validation). The modules
that users meet are offered by their own names and load on first use, so that ``import carbon`` costs next to nothing::

    import carbon

    carbon.grid.lookup("taiwan", role="fab").gco2e_per_kwh  # 583.0
    carbon.profiles.device_embodied("act2", area_mm2=12.0, node_nm=22, memory_type="lpddr4", memory_gb=2)
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from carbon.errors import CarbonError
from carbon.moved import FORWARDING

_HOME = {
    "ecochip": "carbon.device.ecochip",
    "grid": "carbon.factors.grid",
    "memory": "carbon.embodied.memory",
    "packaging": "carbon.embodied.packaging",
    "profiles": "carbon.device.profiles",
    "recipes": "carbon.device.recipes",
    "threedcarbon": "carbon.embodied.threedcarbon",
    "yields": "carbon.embodied.yields",
}
_ROOMS = ("analysis", "device", "embodied", "factors", "operational")

if FORWARDING not in sys.meta_path:
    sys.meta_path.append(FORWARDING)

__all__ = ["CarbonError", *sorted((*_HOME, *_ROOMS))]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return importlib.import_module(_HOME[name])
    if name in _ROOMS:
        return importlib.import_module(f"carbon.{name}")
    raise AttributeError(f"module 'carbon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
