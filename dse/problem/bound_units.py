"""Units in which a bound may be given (``latency_s<=20ms``), as factors to the unit of the metric."""

from __future__ import annotations

from dse.errors import UsageError

_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}
_MASS_KG = {"t": 1e3, "kg": 1.0, "g": 1e-3, "mg": 1e-6, "ug": 1e-9, "µg": 1e-9, "ng": 1e-12}

# Unit of the metric -> words that are understood -> factor.
_FACTORS: dict[str, dict[str, float]] = {
    "s": {**{f"{p}s": f for p, f in _SMALL.items()}, "min": 60.0, "h": 3600.0},
    "J": {**{f"{p}J": f for p, f in {**_SMALL, **_SI}.items()}, "Wh": 3600.0, "kWh": 3.6e6},
    "W": {f"{p}W": f for p, f in {**_SMALL, **_SI}.items()},
    "kgCO2e": {f"{word}{end}": f for word, f in _MASS_KG.items() for end in ("", "CO2e", "CO2")},
    "mm2": {"mm2": 1.0, "mm²": 1.0, "cm2": 100.0, "cm²": 100.0, "um2": 1e-6, "µm²": 1e-6},
    "1e12 op/s": {"TOPS": 1.0, "GOPS": 1e-3, "POPS": 1e3},
    "USD": {"USD": 1.0, "$": 1.0, "kUSD": 1e3, "MUSD": 1e6},
    "%": {"%": 1.0},
    "1": {"%": 0.01, **{p: f for p, f in _SI.items() if p}, "B": 1e9},  # B: billions, as parameters are counted
}


def scaled(value: float, word: str, metric: str, unit: str) -> float:
    """``value`` in the unit ``unit`` of ``metric``, given in ``word`` (empty: in the metric's own).

    Raises UsageError for a unit that is not one of the metric's.
    """
    if not word:
        return value
    known = _FACTORS.get(unit, {})
    if word not in known:
        shown = ", ".join(name for name in known if name.isascii()) or "none"
        raise UsageError(f"constraint on {metric} has the unit {word!r}; {metric} is in {unit or '1'}, units understood are {shown}")
    # Divide by whole numbers where the factor is below one: 20 ms are 0.02 s and not 0.020000000000000004.
    factor = known[word]
    return value * factor if factor >= 1 else value / round(1 / factor)
