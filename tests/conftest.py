"""Hypothesis without time limits: how long an example takes says how busy the machine is, not whether the code is right. And a folder of
its own for what searches keep between processes, which goes when the tests end: none of a user's, and the same for all workers.
"""

import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dse", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dse")

_MADE = "" if "DSE_CACHE" in os.environ else tempfile.mkdtemp(prefix="dse-cache-")
if _MADE:
    os.environ["DSE_CACHE"] = _MADE


def pytest_unconfigure(config: pytest.Config) -> None:
    """The process that made the folder, whose workers have ended, removes it."""
    if _MADE:
        shutil.rmtree(_MADE, ignore_errors=True)
