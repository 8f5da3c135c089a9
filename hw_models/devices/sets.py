"""Several devices as one space: which of them, and how many share a request.

space = device_space(("h100", "l40s", "b200"))      # knobs: device, chips
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.devices import library
from hw_models.errors import HardwareError, unknown_name
from hw_models.spaces.template import Columns, Template

CHIPS: Final = (1, 2, 4, 8)
"""Devices of a node that share a request by tensor parallelism; ``vary chips`` gives others."""


def device_space(names: Sequence[str], *, profile: str = "default") -> Template:
    """The space of some devices and their counts; an unknown name is an error that names the nearest.

    Where one of them has no links, the count is 1 for all.
    """
    unique = tuple(dict.fromkeys(names))
    known = library.names()
    for name in unique:
        if name not in known:
            raise unknown_name("device", name, known)
    if not unique:
        raise HardwareError("a space of devices needs at least one, got none")
    linked = all(library.load(name).accelerator.link_bytes_per_s > 0 for name in unique)
    return Template(
        name=",".join(unique),
        title="devices: " + "; ".join(library.load(name).title for name in unique),
        source="hw_models/data/devices",
        knobs={"device": unique, "chips": CHIPS if linked else (1,)},
        settings={},
        builder=_build,
        profile=profile,
        carbon_profile="default",
    )


def counted(name: str, chips: Sequence[int], *, profile: str = "default") -> Template:
    """One device in several counts."""
    return device_space((name,), profile=profile).with_knobs(chips=list(chips))


def _build(profile: str, columns: Columns, count: int) -> AcceleratorBatch:
    """Designs of one device with several counts: devices differ in their levels, which a batch has once."""
    names = [str(name) for name in columns["device"]]
    if len(set(names)) > 1:
        raise HardwareError(f"a batch holds counts of one device, got {', '.join(dict.fromkeys(names))}")
    base = library.load(names[0], profile=profile).accelerator
    chips = np.broadcast_to(columns["chips"], (count,))
    return AcceleratorBatch.of([replace(base, chips=int(c)) for c in chips])
