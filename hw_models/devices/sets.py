"""Several devices as one space: which of them, and how many share a request.

space = device_space(("h100", "l40s", "b200"))      # knobs: device, chips; settings: PARALLEL
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Launch
from hw_models.devices import library
from hw_models.errors import HardwareError, unknown_name
from hw_models.spaces.template import Columns, Template

CHIPS: Final = (1, 2, 4, 8)
"""Devices of a node that share a request by tensor parallelism; ``vary chips`` gives others."""


PARALLEL: Final[dict[str, int | float | str]] = {
    "pipeline_stages": 1, "data_parallel": 1, "microbatches": 0, "expert_parallel": 1, "node_chips": 8, "node_bytes_per_s": 50e9,
    "node_latency_s": 5e-6, "launch": "graph",
}  # fmt: skip
"""How devices share work beside tensor parallelism (`chips`), and how a node reaches others: 8 boards with a 400 Gb/s adapter each
(NVIDIA DGX H100 datasheet, 2023); 5 us a message are an estimate."""


def device_space(names: Sequence[str], *, profile: str | None = None) -> Template:
    """The space of some devices and their counts, under a profile or each under its own (None); an unknown name is an error that names the
    nearest.

    Where one of them has no links, the count is 1 for all.
    """
    unique = tuple(dict.fromkeys(names))
    known = library.names()
    for name in unique:
        if name not in known:
            raise unknown_name("device", name, known)
    if not unique:
        raise HardwareError("a space of devices needs at least one, got none")
    own = {library.load(name).accelerator.profile for name in unique}
    linked = all(library.load(name).accelerator.link_bytes_per_s > 0 for name in unique)
    return Template(
        name=",".join(unique),
        title="devices: " + "; ".join(library.load(name).title for name in unique),
        source="hw_models/data/devices",
        knobs={"device": unique, "chips": CHIPS if linked else (1,)},
        settings=dict(PARALLEL),
        builder=_each_its_own if profile is None else _build,
        profile=profile or (own.pop() if len(own) == 1 else "default"),
        carbon_profile="default",
    )


def counted(name: str, chips: Sequence[int], *, profile: str | None = None) -> Template:
    """One device in several counts."""
    return device_space((name,), profile=profile).with_knobs(chips=list(chips))


def shared_device(name: str, *, profile: str | None = None) -> Template:
    """One device whose ways of sharing work (`PARALLEL`) are settings, and whose number is one unless it is varied."""
    return counted(name, (1,), profile=profile)


def _each_its_own(profile: str, columns: Columns, count: int) -> AcceleratorBatch:
    """`_build` under the profile of the device's file; that of the space is told where all devices share it."""
    return _build(None, columns, count)


def _build(profile: str | None, columns: Columns, count: int) -> AcceleratorBatch:
    """Designs of one device with several counts: devices differ in their levels, which a batch has once."""
    names = [str(name) for name in columns["device"]]
    if len(set(names)) > 1:
        raise HardwareError(f"a batch holds counts of one device, got {', '.join(dict.fromkeys(names))}")
    base = library.load(names[0], profile=profile).accelerator
    shared = {name: np.broadcast_to(columns[name], (count,)).tolist() for name in ("chips", *PARALLEL)}
    shared["launch"] = [_launch(str(name)) for name in shared["launch"]]
    designs = [replace(base, **dict(zip(shared, values, strict=True))) for values in zip(*shared.values(), strict=True)]
    return AcceleratorBatch.of(designs)


def _launch(name: str) -> Launch:
    known = {member.name.lower(): member for member in Launch}
    if name not in known:
        raise unknown_name("launch", name, known)
    return known[name]
