"""Devices that exist, and how measurements calibrate them."""

from __future__ import annotations

from hw_models.devices.library import (
    DEFAULT_SET,
    OVERHEAD_SETS,
    Device,
    OverheadSet,
    device_from,
    load,
    names,
    overhead_set_from,
    overheads_toml,
    read_overheads,
)

__all__ = [
    "DEFAULT_SET",
    "OVERHEAD_SETS",
    "Device",
    "OverheadSet",
    "device_from",
    "load",
    "names",
    "overhead_set_from",
    "overheads_toml",
    "read_overheads",
]
