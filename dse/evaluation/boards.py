"""Boards of the device library as the carbon model takes them: dies, spare units, chiplets, package, card, share of a host."""

from __future__ import annotations

from typing import Any

import carbon.device
from hw_models.devices import library


def board_inputs(name: str) -> dict[str, Any]:
    """Inputs of `carbon.device.device_embodied` for one board of the library, memory included."""
    device = library.load(name)
    memory = device.accelerator.levels[-1]
    said = dict(device.embodied)
    if "harvest" in said:
        said["harvest"] = carbon.device.Harvest(**said["harvest"])
    if "chiplets" in said:
        said["chiplets"] = tuple(carbon.device.Device(**chiplet) for chiplet in said["chiplets"])
    made = {"area_mm2": device.die_mm2, "node_nm": device.accelerator.node_nm}
    return {**made, "memory_type": memory.kind, "memory_gb": memory.bytes / 2**30, **said}
