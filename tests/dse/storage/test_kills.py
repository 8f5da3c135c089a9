"""Searches that are killed: nothing lost, nothing doubled, every folder finishable, no process left behind (see tests/dse/kills.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dse.quality.containment import MARK, TRIAL_MARK, WORKER_MARK

HARNESS = Path(__file__).parents[1] / "kills.py"


def _campaign(folder: Path, count: int, seed: int, *kinds: str) -> None:
    # A search that ran in this process before has marked its environment: what bears a mark is another search's, and gets no warden.
    unmarked = {name: value for name, value in os.environ.items() if name not in (MARK, TRIAL_MARK, WORKER_MARK)}
    environment = {**unmarked, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(folder), str(count), str(seed), *kinds],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["findings"] == []
    assert sum(number for how, number in told["kills"].items() if how.startswith("killed at")) >= count


def test_killed_searches_are_finished(tmp_path: Path) -> None:
    _campaign(tmp_path, 8, 1, "sweep", "nested", "command")


@pytest.mark.slow
def test_a_thousand_kills(tmp_path: Path) -> None:
    _campaign(tmp_path, int(os.environ.get("DSE_KILLS", "1000")), 2)
