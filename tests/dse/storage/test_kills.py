"""Searches that are killed: nothing lost, nothing doubled, every folder finishable, no process left behind (see tests/dse/kills.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[1] / "kills.py"


def _campaign(folder: Path, count: int, seed: int, *kinds: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
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
