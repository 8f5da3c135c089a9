"""The packaged hours of 2022 are the measured ones."""

import csv
from pathlib import Path

import numpy as np
import pytest

from carbon.errors import CarbonError
from carbon.factors import traces

REFERENCE = Path(__file__).parents[1] / "reference"


def test_packaged_hours_are_the_reference() -> None:
    path = next(REFERENCE.rglob("hourly_ci_eia2022.csv"))
    with path.open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for authority in traces.balancing_authorities():
        trace = traces.eia2022_hourly(authority)
        assert trace.gco2e_per_kwh.tolist() == [float(row[authority]) for row in rows]
        # the 12x24 profile was made from hours before they were rounded: 0.21 is the largest difference, zero hours apart
        assert np.abs(trace.profile() - traces.eia2022(authority).profile()).max() < 0.5
    with pytest.raises(CarbonError, match="CISO"):
        traces.eia2022_hourly("CIS")
