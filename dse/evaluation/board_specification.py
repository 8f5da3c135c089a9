"""Devices of the library by name in a specification of `dse carbon estimate`, which `carbon` itself does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carbon.errors import unknown
from hw_models.devices import library


def with_devices(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with the inputs of each named device in place of its name: ``device = "h100"`` in [device] or a [[component]].

    What stands beside the name overrides the device's own. The share of a host is left out: a specification lists its host, or gives
    ``host_share``. Raises CarbonError for an unknown name, with the nearest.
    """
    found = dict(spec)
    if isinstance(found.get("device"), Mapping):
        found["device"] = _resolved("[device]", found["device"])
    if isinstance(listed := found.get("component"), list):
        found["component"] = [_resolved(f"component {at + 1}", part) for at, part in enumerate(listed)]
    return found


def _resolved(where: str, part: Any) -> Any:
    if not isinstance(part, Mapping) or "device" not in part:
        return part
    name, known = part["device"], library.names()
    if not isinstance(name, str) or name not in known:
        raise unknown(f"device of {where}", name, known)
    device = library.load(name)
    memory = device.accelerator.levels[-1]
    made = {"area_mm2": device.die_mm2, "node_nm": device.accelerator.node_nm}
    stored = {"memory_type": memory.kind, "memory_gb": memory.bytes / 2**30}
    own = {key: value for key, value in device.embodied.items() if key != "host_share"}
    return {**made, **stored, **own, **{key: value for key, value in part.items() if key != "device"}}
