"""Die yield and dies per wafer.

Areas are in mm2, defect densities D0 per cm2, yields in (0, 1]. Everything is elementwise and broadcasts over floats, numpy
arrays and torch tensors; all models fall with area and with D0 and are 1 at D0 = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from carbon.arrays import Numeric, as_number, exp, expm1, floor, is_tensor, sqrt, where
from carbon.errors import CarbonError, unknown

#: Area of the largest field a scanner exposes: 26 mm x 33 mm.
RETICLE_LIMIT_MM2 = 858.0


def _defects(area_mm2: Numeric, d0_per_cm2: Numeric) -> Numeric:
    """Mean number of killer defects on a die."""
    area = as_number("area_mm2", area_mm2, low=0.0)
    return area / 100.0 * as_number("d0_per_cm2", d0_per_cm2, low=0.0)


def poisson(area_mm2: Numeric, d0_per_cm2: Numeric) -> Numeric:
    """Poisson yield exp(-A D0): defects independent (the pessimistic end)."""
    return exp(-_defects(area_mm2, d0_per_cm2))


def murphy(area_mm2: Numeric, d0_per_cm2: Numeric) -> Numeric:
    """Murphy yield ((1 - exp(-A D0)) / (A D0))^2 (Murphy 1964)."""
    defects = _defects(area_mm2, d0_per_cm2)
    # below 1e-8 the quotient is 1 - x/2 to the last digit, and 0/0 at 0
    small = defects < 1e-8
    safe = where(small, 1.0 + 0.0 * defects, defects)
    ratio = where(small, 1.0 - defects / 2.0, -expm1(-safe) / safe)
    return ratio * ratio


def seeds(area_mm2: Numeric, d0_per_cm2: Numeric) -> Numeric:
    """Seeds yield exp(-sqrt(A D0)), the form boaviztapi uses for GPUs."""
    defects = _defects(area_mm2, d0_per_cm2)
    return exp(-sqrt(defects))


def bose_einstein(area_mm2: Numeric, d0_per_cm2: Numeric) -> Numeric:
    """Yield 1 / (1 + A D0), also called Seeds in part of the literature: negative binomial with alpha = 1."""
    return 1.0 / (1.0 + _defects(area_mm2, d0_per_cm2))


def negative_binomial(area_mm2: Numeric, d0_per_cm2: Numeric, alpha: Numeric = 10.0) -> Numeric:
    """Negative binomial yield (1 + A D0 / alpha)^-alpha (Stapper 1983); ECO-CHIP and 3D-Carbon use alpha = 10."""
    cluster = as_number("alpha", alpha, low=0.0, open_low=True)
    return (1.0 + _defects(area_mm2, d0_per_cm2) / cluster) ** (-cluster)


def harvested(
    area_mm2: Numeric,
    d0_per_cm2: Numeric,
    *,
    units: int,
    needed: int,
    repairable_fraction: Numeric,
    alpha: Numeric = 10.0,
) -> Numeric:
    """Return the yield of dies sold with some units disabled (harvesting, binning).

    A fraction f of the area holds ``units`` equal units of which ``needed`` must work; the rest must be free of defects.
    With lambda = A f D0 / units and p = exp(-lambda):
    Y = (1 + A (1 - f) D0 / alpha)^-alpha * sum_{k=0}^{units-needed} C(units, k) p^(units-k) (1-p)^k.

    Args:
        units, needed: whole numbers, 1 <= needed <= units. repairable_fraction: f in [0, 1].

    Raises:
        CarbonError: counts or fraction out of range.
    """
    if units != int(units) or needed != int(needed) or not 1 <= needed <= units:
        raise CarbonError(f"harvest needs {needed} of {units} units, but 1 <= needed <= units in whole numbers is required")
    fraction = as_number("repairable_fraction", repairable_fraction, low=0.0, high=1.0)
    area = as_number("area_mm2", area_mm2, low=0.0)
    fixed = negative_binomial(area * (1.0 - fraction), d0_per_cm2, alpha)
    per_unit = _defects(area * fraction, d0_per_cm2) / units
    return fixed * _enough_units(per_unit, int(units), int(units - needed))


def _enough_units(defects_per_unit: Numeric, units: int, spare: int) -> Numeric:
    """P(at most ``spare`` of ``units`` fail), each with probability 1 - exp(-defects_per_unit)."""
    largest = float(np.max(np.asarray(defects_per_unit.detach() if is_tensor(defects_per_unit) else defects_per_unit)))
    if largest * units < 600.0:  # exp stays normal: terms by their ratio, two multiplications each
        odds = expm1(defects_per_unit)  # (1 - p) / p
        term = exp(-defects_per_unit * units)
        total = term
        for k in range(spare):
            term = term * odds * ((units - k) / (k + 1.0))
            total = total + term
    else:  # wafer-scale counts: in logarithms
        fail = -expm1(-defects_per_unit)
        floor_value = 1e-300
        log_fail = np.log(np.maximum(fail, floor_value)) if not is_tensor(fail) else fail.clamp_min(floor_value).log()
        total = exp(-defects_per_unit * units)
        log_ways = 0.0
        for k in range(1, spare + 1):
            log_ways += math.log((units - k + 1) / k)
            total = total + exp(log_ways + k * log_fail - defects_per_unit * (units - k))
    return where(total < 1.0, total, 1.0 + 0.0 * total)  # the sum may pass 1 by rounding


MODELS: dict[str, Callable[..., Numeric]] = {
    "poisson": poisson,
    "murphy": murphy,
    "seeds": seeds,
    "bose_einstein": bose_einstein,
    "negative_binomial": negative_binomial,
}


def model(name: str) -> Callable[..., Numeric]:
    """Return a yield function by name; an unknown name raises CarbonError naming the nearest."""
    try:
        return MODELS[name]
    except KeyError:
        raise unknown("yield_model", name, ("constant", *MODELS)) from None


def wafer_area_mm2(wafer_mm: Numeric) -> Numeric:
    """Return the area of a wafer of diameter ``wafer_mm``."""
    return math.pi / 4.0 * wafer_mm * wafer_mm


def dies_per_wafer(area_mm2: Numeric, wafer_mm: Numeric = 300.0, *, scribe_mm: Numeric = 0.0) -> Numeric:
    """Return gross dies per wafer pi d^2 / (4 A) - pi d / sqrt(2 A) as a real number (de Vries 2005).

    ``scribe_mm`` widens each side of a square die (saw street). The result is not cut to a whole number, which keeps it
    differentiable; ECO-CHIP and 3D-Carbon cut it, see :func:`floor_dies`. It is <= 0 for dies too large for the wafer.
    """
    diameter = as_number("wafer_mm", wafer_mm, low=0.0, open_low=True)
    area = as_number("area_mm2", area_mm2, low=0.0, open_low=True)
    street = as_number("scribe_mm", scribe_mm, low=0.0)
    if is_tensor(street) or is_tensor(area) or np.any(street):
        side = sqrt(area) + street
        area = side * side
    return math.pi * diameter * (diameter / (4.0 * area) - 1.0 / sqrt(2.0 * area))


def floor_dies(dies: Numeric) -> Numeric:
    """Cut dies per wafer to whole dies."""
    return floor(dies)


def wafer_share_mm2(area_mm2: Numeric, wafer_mm: Numeric = 300.0, *, scribe_mm: Numeric = 0.0) -> Numeric:
    """Return the wafer area one gross die answers for, edge loss included: Aw / DPW; infinite where no die fits."""
    dies = dies_per_wafer(area_mm2, wafer_mm, scribe_mm=scribe_mm)
    fits = dies > 0.0
    share = wafer_area_mm2(wafer_mm) / where(fits, dies, 1.0 + 0.0 * dies)
    return where(fits, share, math.inf)
