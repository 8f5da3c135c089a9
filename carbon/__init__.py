"""Embodied and operational carbon of accelerators: formulas, sourced factors, uncertainty and decision metrics.

Submodules load on first use, so that ``import carbon`` costs next to nothing::

    import carbon

    carbon.factors.grid.lookup("taiwan", role="fab").gco2e_per_kwh  # 583.0
    carbon.device.profiles.device_embodied("act2", area_mm2=12.0, node_nm=22, memory_type="lpddr4", memory_gb=2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from carbon.errors import CarbonError

if TYPE_CHECKING:
    from carbon.device import device, ecochip, profiles, recipes
    from carbon.embodied import act as embodied
    from carbon.embodied import memory, packaging, threedcarbon, yields
    from carbon.factors import grid
    from carbon.factors import table as factors
    from carbon.operational import service as operational

__all__ = [
    "CarbonError",
    "device",
    "ecochip",
    "embodied",
    "factors",
    "grid",
    "memory",
    "operational",
    "packaging",
    "profiles",
    "recipes",
    "threedcarbon",
    "yields",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"carbon.{name}")
    raise AttributeError(f"module 'carbon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
