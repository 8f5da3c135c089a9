"""`dse drive` and `dse search --trace` as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dse import cli

# One model on a few designs: enough to see that a drive decides what is searched.
SMALL = [
    *("--set", "resnet_layers=50", "--set", "scale=400", "--set", "cores=2", "--set", "width=256", "--set", "depth=32"),
    *("--set", "l2_words_per_cycle=128", "--set", "glb_mib=2"),
]


@pytest.fixture
def drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A drive by a school."""
    path = tmp_path / "school.csv"
    assert cli.main(["drive", "generate", "school", "--seed", "3", "--seconds", "120", "--out", str(path)]) == 0
    assert "1,200 rows, 120 s, synthetic" in capsys.readouterr().out
    return path


def test_profile(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["drive", "profile", str(drawn), "--out", str(tmp_path / "seconds.csv")]) == 0
    assert "every frame within" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "seconds.csv").read_text().splitlines()))
    assert cli.main(["drive", "profile", str(drawn), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [float(row["rate_hz"]) for row in rows] == [row["rate_hz"] for row in told["seconds"]]
    assert len(rows) == told["requirement"]["seconds"] == 121
    assert told["requirement"]["rate_per_s"] == pytest.approx(sum(row["rate_hz"] for row in told["seconds"]) / 121)


def test_a_drive_decides_what_is_searched(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The problem has the drive's deadline and rate, and the front is told by the kilometre as `drive compare` tells it."""
    words = ["search", "--workload", "av-perception", "--trace", str(drawn), *SMALL, "--out", str(tmp_path / "run"), "--json"]
    assert cli.main(words) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    asked = found["drive"]
    assert f"latency_s<={asked['deadline_s']!r}" in found["problem"]["constraints"]
    assert found["problem"]["deployment"]["rate_per_s"] == asked["rate_per_s"]
    assert all(design["latency_s"] <= asked["deadline_s"] for design in found["front"])
    # Energy is linear in the rate: average power is the rate's frames and idle power in between.
    first = found["front"][0]
    assert first["power_w"] >= asked["rate_per_s"] * first["energy_j"]
    assert "drive       121 s over" in out.err
    assert cli.main(["drive", "compare", str(drawn), "--run", str(tmp_path / "run"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["design"]["latency_s"] == first["latency_s"]
    whole = next(way for way in compared["all"] if way["way"] == "contextual")
    assert asked["designs"][0]["joules_per_km"] == whole["joules_per_km"]
    assert asked["designs"][0]["gco2e_per_km"] == whole["gco2e_per_km"]
    life_s = 3 * 365.25 * 86400  # the house's year
    grid = found["front"][0]["operational_kgco2e"] / (first["power_w"] * life_s / 3.6e6)  # kg a kWh of the deployment
    made = 1000 * first["embodied_kgco2e"] * 120 / life_s / compared["comfort"][0]["kilometres"]
    assert whole["gco2e_per_km"] == pytest.approx(whole["joules_per_km"] / 3.6e6 * 1000 * grid + made, rel=1e-9)
    assert cli.main(["drive", "compare", str(drawn), "road", "--run", str(tmp_path / "run")]) == 0
    assert "by context saves" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["drive", "generate", "raod"], 2, "drive 'raod' is unknown; known are plaza, road, school; did you mean 'road'?"),
        (["drive", "generate", "road", "--seed", "-1"], 2, "seed is -1"),
        (["drive", "profile", "none.csv"], 1, "drive 'none.csv' cannot be read"),
        (["drive", "compare", "road", "--latency", "0.03"], 2, "energy is missing; give --run RUN, or --latency, --energy and --idle"),
        (["drive", "compare", "road", "--latency", "nan", "--energy", "1", "--idle", "1"], 2, "latency is nan; a number above 0"),
        (["drive", "compare", "road", "--latency", "0.9", "--energy", "1", "--idle", "1"], 1, "must be at most 0.5 s"),
        (["drive", "compare", "road", "--seeds", "0", "--latency", "1", "--energy", "1", "--idle", "1"], 2, "seeds is 0"),
        (["drive", "compare", "road", "--run", "none", "--idle", "1"], 2, "idle is given beside --run"),
        (["search", "--workload", "av-perception", "--vehicle", "x.toml"], 2, "vehicle belongs to --trace"),
        (["search", "--workload", "av-perception", "--trace", "DRAWN", "--rate", "5"], 2, "rate is 5 and the drive of --trace has its own"),
        (["search", "--workload", "log.csv", "--trace", "DRAWN"], 2, "trace is of a vehicle, and workload log.csv a log of requests"),
        (["search", "--workload", "av-perception", "--trace", "DRAWN", "--vehicle", "bus"], 1, "neither a .toml file nor the example"),
    ],
)
def test_one_sentence(words: list[str], code: int, says: str, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        ended = cli.main([str(drawn) if word == "DRAWN" else word for word in words])
    except SystemExit as stopped:  # what the parser itself refuses
        ended = stopped.code
    assert ended == code
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told


def test_drives_of_a_kind_are_a_mean_with_its_spread(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["drive", "compare", "road", "school", "--seeds", "2", "--latency", "0.03", "--energy", "0.35", "--idle", "4"]
    assert cli.main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 2 * 2 * 4  # kinds, seeds, ways
    assert cli.main(words) == 0
    told = capsys.readouterr().out.splitlines()
    table = [line for line in told if " contextual " in line]
    assert [line.split("  ")[0] for line in table] == ["road, 2 drives", "school, 2 drives", "all"]
    own = [row for row in rows if row["way"] == "contextual" and row["drive"].startswith("road")]
    joules, km = ([float(row[name]) for row in own] for name in ("joules_per_km", "kilometres"))
    mean = (joules[0] * km[0] + joules[1] * km[1]) / sum(km)  # by the kilometre
    spread = abs(joules[0] - joules[1]) / 2**0.5  # of two values, the unbiased one
    assert f"{mean:.4g} +- {spread:.2g} " in table[0]
    assert cli.main([*words, "--all"]) == 0
    each = [line for line in capsys.readouterr().out.splitlines() if " contextual " in line]
    assert len(each) == 2 * 2 + 1 and each[0].startswith("road drive, seed 0")
