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
    from carbon import device as device
    from carbon import ecochip as ecochip
    from carbon import embodied as embodied
    from carbon import factors as factors
    from carbon import grid as grid
    from carbon import memory as memory
    from carbon import operational as operational
    from carbon import packaging as packaging
    from carbon import profiles as profiles
    from carbon import recipes as recipes
    from carbon import threedcarbon as threedcarbon
    from carbon import yields as yields

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
