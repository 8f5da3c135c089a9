"""Carbon of use: service over a lifetime, water, requests of language models."""

from __future__ import annotations

from carbon.operational.service import (
    DAYS_PER_YEAR,
    JOULES_PER_KWH,
    Operation,
    equal_service,
    fixed_requests,
    power_hours,
)

__all__ = ["DAYS_PER_YEAR", "JOULES_PER_KWH", "Operation", "equal_service", "fixed_requests", "power_hours"]
