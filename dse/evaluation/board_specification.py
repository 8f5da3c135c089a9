"""Devices of the library by name in a specification of `dse carbon estimate`, which `carbon` itself does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from carbon.errors import unknown
from carbon.factors import tables as factors
from hw_models.devices import library


def with_devices(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with the inputs of each named device in place of its name: ``device = "h100"`` in [device] or a [[component]].

    What stands beside the name overrides the device's own. The share of a host is left out: a specification lists its host, or gives
    ``host_share``. Of a device that is a server itself (server-cpu) the rest of the server and its memory are left out where another
    component is the host (`whole_servers` tells it). Raises CarbonError for an unknown name, with the nearest.
    """
    found = dict(spec)
    hosts = _hosts(spec)
    if isinstance(found.get("device"), Mapping):
        found["device"] = _resolved("[device]", found["device"], hosts)
    if isinstance(listed := found.get("component"), list):
        found["component"] = [_resolved(f"component {at + 1}", part, hosts) for at, part in enumerate(listed)]
    return found


def whole_servers(spec: Mapping[str, Any]) -> list[str]:
    """What `with_devices` leaves out of the devices that are servers themselves, or counts of them, in sentences for ``assumed:``."""
    hosts, told = _hosts(spec), []
    listed = spec.get("component")
    for part in [spec.get("device"), *(listed if isinstance(listed, list) else [])]:
        if not isinstance(part, Mapping) or part.get("device") not in library.names():
            continue
        if library.load(part["device"]).embodied.get("system") != "server":
            continue
        full, kept = _resolved("", part, []), _resolved("", part, hosts)
        name = str(part.get("name", part["device"]))
        memory = f"{full['memory_gb']:g} GB of {full['memory_type']}" if isinstance(full["memory_gb"], (int, float)) else "memory"
        parts = {"system": "the rest of a server (system)", "memory_gb": f"its {memory}"}
        if left := [words for key, words in parts.items() if key in full and key not in kept]:
            told.append(f"{name}: of device {part['device']} {' and '.join(left)} left out, because {hosts[0].name} is the host")
        elif not hosts and "system" not in part:
            told.append(
                f"{name}: device {part['device']} is a whole server, each with {memory} and the rest of a server (system), left out "
                'beside a component of its own for the host (system = "server")'
            )
        if (
            hosts
            and kept.get("system") != "server"
            and not part.get("cpu_packages")
            and not any(host.packages or host.dies for host in hosts)
        ):
            own_kg = factors.item("cpu_package_kgco2e").value
            told.append(
                f"{name}: cpu_packages is not given, no processor's own {own_kg:g} kg are counted (cpu_packages of {hosts[0].name})"
            )
        if own := [host.name for host in hosts if host.dies]:
            told.append(
                f"{name}: the processors of device {part['device']} are counted beside those of {own[0]}, which lists dies of its own; "
                f"where they are the same, leave one out ({own[0]} without area_mm2 and node_nm, or no device {part['device']})"
            )
    return told


class _Host(NamedTuple):
    """A component that says itself that it is a server: its name, and whether it lists memory, dies (processors) and their packages."""

    name: str
    memory: bool
    dies: bool
    packages: bool


def _hosts(spec: Mapping[str, Any]) -> list[_Host]:
    listed = spec.get("component")
    parts = [
        ("device", spec.get("device")),
        *((f"component {at + 1}", one) for at, one in enumerate(listed if isinstance(listed, list) else [])),
    ]
    return [
        _Host(
            str(one.get("name", where)),
            bool(one.get("memory_gb")),
            bool(one.get("area_mm2") or one.get("chiplets")),
            bool(one.get("cpu_packages")),
        )
        for where, one in parts
        if isinstance(one, Mapping) and "device" not in one and one.get("system") == "server"
    ]


def _resolved(where: str, part: Any, hosts: list[_Host]) -> Any:
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
    if hosts and own.get("system") == "server":
        del own["system"]
        if any(host.memory for host in hosts):
            stored = {}
    if "memory_gb" in part:
        stored = {"memory_type": memory.kind, **stored}
    return {**made, **stored, **own, **{key: value for key, value in part.items() if key != "device"}}
