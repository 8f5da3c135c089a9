"""The tree kernel beside libpecos itself: the same bits on a generated tree, and faster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .environments import python_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_bits_and_speed_beside_libpecos(tmp_path: Path) -> None:
    (tmp_path / "pecos").symlink_to(python_of("pecos").parents[1])
    command = [sys.executable, str(ROOT / "benchmarks" / "xmc.py"), "speed", "--labels", "10000"]
    subprocess.run([*command, "--environments", str(tmp_path), "--json", str(tmp_path / "found.json")], check=True, timeout=900)
    (found,) = json.loads((tmp_path / "found.json").read_text())["speed"]
    assert set(found["queries_with_equal_bits"].values()) == {2000}
    # Measured 0.26 and 0.11; a machine that does other work may take half as much again.
    assert found["batch_ratio"] < 0.4 and found["online_ratio_p50"] < 0.2
