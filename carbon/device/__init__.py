"""Whole devices: specifications, the named recipes (profiles) and what they give."""

from __future__ import annotations

from carbon.device.device import (
    SYSTEMS,
    Device,
    Die,
    Embodied,
    Harvest,
    Logic,
    design_carbon,
    device_embodied,
    die_carbon,
    ecochip_waste,
    evaluate,
)

__all__ = [
    "SYSTEMS",
    "Device",
    "Die",
    "Embodied",
    "Harvest",
    "Logic",
    "design_carbon",
    "device_embodied",
    "die_carbon",
    "ecochip_waste",
    "evaluate",
]
