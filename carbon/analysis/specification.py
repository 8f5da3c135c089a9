"""The values of a specification, checked key by key before anything is computed with them: types, ranges, nesting.

What an equation asks of a number (a yield of at most 1, a PUE of at least 1) is said where the equation stands; here a value is a number
where a number is meant, finite and of a size that exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from carbon.device.device import Device
from carbon.errors import CarbonError

# Far beyond anything built or used: a value above is a slip of units.
LARGEST = 1e12
UNITS_LARGEST = 1e30  # functional units: tokens, operations
_OWN = {"area_mm2": 1e6, "node_nm": 1e4, "count": 1e9}
KEYS = {
    "use": (
        *("rate_per_s", "latency_s", "energy_j_per_request", "concurrency", "power_w", "duty_cycle"),
        *("grid", "gco2e_per_kwh", "kind", "source", "trace", "pue", "lifetime_years", "idle_w"),
    ),
    "functional_unit": ("name", "per_request", "total"),
    "metrics": ("delay_s", "energy_j", "flops", "basis"),
    "uncertainty": ("draws", "seed", "factors"),
}
"""The keys of each section of a specification."""
_WORDS = ("memory_type", "fab_grid", "yield_model", "package", "system", "grid", "kind", "source", "trace", "name", "basis")
_FLAGS = ("factors", "bottom_up_area")
_YEARS = ("memory_year", "storage_year")
_WHOLE = {"draws": (1, 1_000_000), "seed": (0, 2**32 - 1), "units": (1, 1_000_000), "needed": (1, 1_000_000)}


def check(spec: Mapping[str, Any]) -> None:
    """Raise CarbonError, with section, key and value, unless every value of a specification is of its kind and a size that exists."""
    for key in ("name", "profile"):
        if key in spec and not isinstance(spec[key], str):
            raise CarbonError(f"{key} is {_shown(spec[key])}, but a text is needed")
    parts = [("device", spec.get("device"))]
    listed = spec.get("component")
    parts += [(f"component {i + 1}", item) for i, item in enumerate(listed)] if isinstance(listed, list) else []
    for where, part in parts:
        if isinstance(part, Mapping):
            _device(where, part)
    for section in ("use", "functional_unit", "metrics", "uncertainty"):
        found = spec.get(section)
        if isinstance(found, Mapping):
            for key, value in found.items():
                if key in KEYS[section]:  # one that is unknown is told with the nearest where the section is read
                    _value(section, key, value, ranged=section == "use")


def _device(where: str, part: Mapping[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(Device)}
    for key, value in part.items():
        if key == "chiplets":
            if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
                raise CarbonError(
                    f"chiplets of {where} is {_shown(value)}, but a list of tables with area_mm2 and node_nm is needed, as in "
                    "[[device.chiplets]]"
                )
            for i, item in enumerate(value):
                if "chiplets" in item:
                    raise CarbonError(f"chiplet {i + 1} of {where} has chiplets, but dies stand side by side: list them all in one table")
                _device(f"chiplet {i + 1} of {where}", item)
        elif key == "harvest":
            if isinstance(value, Mapping):
                for inner, number in value.items():
                    _value(f"harvest of {where}", inner, number, ranged=False)
        elif key in known or key in ("count", "name"):
            _value(where, key, value, ranged=key not in ("count", *_YEARS))


def _value(where: str, key: str, value: Any, *, ranged: bool) -> None:
    label = f"{key} of {where}"
    if key in _WORDS:
        if key == "grid" and isinstance(value, Mapping):
            for share in value.values():
                _number(f"a share of {label}", share, LARGEST)
        elif not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise CarbonError(f"{label} is {_shown(value)}, but a text is needed")
        return
    if key in _FLAGS:
        if not isinstance(value, bool):
            raise CarbonError(f"{label} is {_shown(value)}, but true or false is needed")
        return
    if key in _WHOLE or key in _YEARS:
        low, high = _WHOLE.get(key, (1950, 2200))
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high or value != int(value):
            raise CarbonError(f"{label} is {_shown(value)}, but a whole number from {low} to {high:,} is needed")
        return
    largest = UNITS_LARGEST if where in ("functional_unit", "metrics") else _OWN.get(key, LARGEST)
    if isinstance(value, list):
        if not ranged or len(value) != 3:
            wanted = "a number or three numbers [low, mode, high]" if ranged else "a number"
            raise CarbonError(f"{label} is {_shown(value)}, but {wanted} is needed")
        for each in value:
            _number(label, each, largest)
        return
    if key == "node_nm" and isinstance(value, str):
        return  # "7nm": read where nodes are
    _number(label, value, largest)


def _number(label: str, value: Any, largest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= largest:
        raise CarbonError(f"{label} is {_shown(value)}, but a number of at most {largest:g} is needed")


def _shown(value: Any) -> str:
    """A value short enough for a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "an integer of many digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
