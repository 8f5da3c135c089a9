"""Carbon of making things: dies and their yield, packages, memory, boards."""

from __future__ import annotations

from carbon.embodied.act import (
    ABATEMENT_LEVELS,
    battery_act,
    capacitor_act,
    capacity,
    carbon_per_area,
    gas_per_area,
    ic_packaging,
    logic_die,
    material_act,
    node_carbon_per_area,
    pcb_act,
)

__all__ = [
    "ABATEMENT_LEVELS",
    "battery_act",
    "capacitor_act",
    "capacity",
    "carbon_per_area",
    "gas_per_area",
    "ic_packaging",
    "logic_die",
    "material_act",
    "node_carbon_per_area",
    "pcb_act",
]
