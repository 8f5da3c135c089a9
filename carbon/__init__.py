"""Embodied and operational carbon of accelerators: formulas, sourced factors, uncertainty and decision metrics.

Submodules load on first use, so that ``import carbon`` costs next to nothing::

    import carbon

    carbon.grid.lookup("taiwan", role="fab").gco2e_per_kwh  # 583.0
    carbon.profiles.device_embodied("act2", area_mm2=12.0, node_nm=22, memory_type="lpddr4", memory_gb=2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from carbon.errors import CarbonError

if TYPE_CHECKING:
    from carbon import embodied, factors, grid, operational, profiles

_MODULES = ("embodied", "factors", "grid", "operational", "profiles")

__all__ = ["CarbonError", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"carbon.{name}")
    raise AttributeError(f"module 'carbon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
