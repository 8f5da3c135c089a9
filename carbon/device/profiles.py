"""Profiles and the one function that evaluates a device under any of them.

``act2``, ``catransformers``, ``ecochip`` and ``3dcarbon`` reproduce those tools; ``default`` is this package's own model.
"""

from __future__ import annotations

from carbon.device.device import Device, Embodied, Harvest, device_embodied
from carbon.device.recipes import Profile, get, names

__all__ = ["Device", "Embodied", "Harvest", "Profile", "device_embodied", "get", "names"]
