"""Files of drives and vehicles from anywhere: read as they are meant, or refused in one sentence with the line or the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import DseError
from dse.operate.driving.generate import generate
from dse.operate.driving.trace import read_trace, write_trace
from dse.operate.driving.vehicle import load_vehicle, vehicle_from

HEAD = "time_s,legal_limit_mps,pedestrians,distance_m\n"


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "drive.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_written_drive_reads_back(tmp_path: Path) -> None:
    trace = generate("school", seed=1, duration_s=60)
    write_trace(trace, tmp_path / "drive.csv")
    back = read_trace(tmp_path / "drive.csv")
    for name in ("time_s", "legal_limit_mps", "pedestrians", "distance_m"):
        assert np.array_equal(getattr(back, name), getattr(trace, name)), name


def test_other_columns_units_and_marks(tmp_path: Path) -> None:
    """Columns in any order among others, km/h, a mark at the beginning, Windows' ends of lines, empty distances."""
    text = "\ufeffnote,distance_m,pedestrians, legal_limit_kmh ,time_s\r\nx,,0,50,5\r\n\r\ny,12.5,2,30,5.5\r\n"
    trace = read_trace(_file(tmp_path, text))
    assert np.allclose(trace.legal_limit_mps, [50 / 3.6, 30 / 3.6])
    assert trace.time_s.tolist() == [5.0, 5.5]
    assert trace.distance_m.tolist() == [float("inf"), 12.5]
    assert trace.pedestrians.tolist() == [0, 2]
    assert trace.duration_s == 1.0


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", r"is empty, must have a line of columns"),
    "no rows": (HEAD, r"holds no row"),
    "bytes": (b"time_s\xff\xfe\x00", r"is not a text file: byte 6 is no UTF-8"),
    "no unit": ("t,legal_limit_mps,pedestrians,distance\n0,1,2,3\n", r"line 1: column 'time_s' is missing"),
    "distance without unit": (HEAD.replace("_m\n", "\n") + "0,1,2,3\n", r"column 'distance_m' is missing.*'distance' is not"),
    "two limits": ("time_s,legal_limit_mps,legal_limit_kmh,pedestrians,distance_m\n", r"both stand there; keep one"),
    "twice": ("time_s,time_s,legal_limit_mps,pedestrians,distance_m\n", r"column 'time_s' stands there twice"),
    "word": (HEAD + "0,10,0,5\n1,fast,0,5\n", r"line 3: legal_limit_mps is 'fast', must be a number"),
    "short row": (HEAD + "0,10,0\n", r"line 2: 3 values, must be 4"),
    "long row": (HEAD + "0,10,0,5,6\n", r"line 2: 5 values, must be 4"),
    "repeated time": (HEAD + "0,10,0,5\n1,10,0,5\n1,10,0,5\n", r"line 4: time_s 1 is the same as that of the row above"),
    "time runs back": (HEAD + "5,10,0,5\n1,10,0,5\n", r"line 3: time_s 1 is before that of the row above"),
    "gap": (HEAD + "0,10,0,5\n\n3600,10,0,5\n", r"line 4: a gap of 3600 s to the row above, must be at most 10 s"),
    "milliseconds": (HEAD + "0,10,0,5\n100,10,0,5\n", r"is time_s in seconds\?"),
    "nan": (HEAD + "0,10,0,5\nnan,10,0,5\n", r"line 3: time_s is nan"),
    "nan limit": (HEAD + "0,nan,0,5\n", r"line 2: the legal limit is nan m/s"),
    "negative": (HEAD + "0,-3,0,5\n", r"line 2: the legal limit is -3 m/s"),
    "another unit": (HEAD + "0,50,0,5\n", r"line 2: the legal limit is 50 m/s.*a column in km/h is named legal_limit_kmh"),
    "half a person": (HEAD + "0,10,0.5,5\n", r"line 2: pedestrians is 0\.5, must be a whole number"),
    "minus one person": (HEAD + "0,10,-1,5\n", r"line 2: pedestrians is -1"),
    "negative distance": (HEAD + "0,10,1,-5\n", r"line 2: distance_m is -5"),
    "nan distance": (HEAD + "0,10,1,nan\n", r"line 2: distance_m is nan"),
    "many digits": (HEAD + "0," + "9" * 5000 + ",0,5\n", r"line 2: the legal limit is inf m/s"),
    "open quote": (HEAD + '0,10,0,"5\n', r"line 2: is no CSV"),
    "huge field": (HEAD + "0,10,0," + "x" * 200_000 + "\n", r"line 2: is no CSV"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_hostile_drives(tmp_path: Path, name: str) -> None:
    text, told = BAD[name]
    with pytest.raises(DseError, match=told) as failure:
        read_trace(_file(tmp_path, text))
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 500 + len(str(tmp_path))


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DseError, match="cannot be read"):
            read_trace(path)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_drive_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for content in (text, HEAD + text):
        path.write_text(content, encoding="utf-8", errors="replace", newline="")
        told = ""
        try:
            read_trace(path)
        except DseError as error:
            told = str(error)
        assert "\n" not in told


def _record() -> dict[str, Any]:
    return {
        "name": "cart",
        "vehicle": {"acceleration_mps2": 1, "deceleration_mps2": 2, "jerk_mps3": 1, "emergency_mps2": 6, "actuation_s": 0.1, "margin_m": 1,
                    "sight_m": 50, "walking_mps": 2},
        "social": {"pedestrians": [0, 5], "speed_mps": [10, 2]},
        "proximity": {"distance_m": [1, 50], "speed_mps": [0, 12]},
        "perception": {"rates_hz": [5, 30], "latency_floor_s": 0.1, "appearance": {"legal_limit_mps": [5, 15], "distance_m": [5, 30]}},
    }  # fmt: skip


def _with(path: str, value: Any) -> dict[str, Any]:
    record = _record()
    *outer, last = path.split(".")
    inner = record
    for name in outer:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return record


def test_a_vehicle_of_ones_own() -> None:
    cart = vehicle_from(_record(), "cart.toml")
    assert cart.social([0, 5, 9, 2.5]).tolist() == [10, 2, 2, 6]
    assert cart.rates_hz == (5.0, 30.0)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("social", None, r"table \[social\] is missing"),
        ("perception.appearance", None, r"table \[perception.appearance\] is missing"),
        ("vehicle.jerk_mps3", None, "vehicle.jerk_mps3 is missing"),
        ("vehicle.jerk_mps3", 0, "vehicle.jerk_mps3 is 0, must be a number from above 0 to 100"),
        ("vehicle.jerk_mps3", True, "vehicle.jerk_mps3 is True"),
        ("vehicle.jerk_mps3", float("nan"), "vehicle.jerk_mps3 is nan"),
        ("vehicle.jerk", 1, "vehicle.jerk is unknown.*did you mean vehicle.jerk_mps3"),
        ("vehicle.emergency_mps2", 1.5, "must be at least deceleration_mps2 = 2"),
        ("social.speed_mps", [2, 10], "goes from 2 to 10, must never rise with pedestrians"),
        ("social.speed_mps", [10, 2, 1], "has 3 values, must have 2"),
        ("social.speed_mps", [90, 2], "must be at most 45 m/s; is it in km/h"),
        ("social.pedestrians", [5, 5], "must rise from point to point"),
        ("social.speed_mps", ["fast", 2], "must be numbers from 0"),
        ("social.speed_mps", [], "must be a list of 1 to 1000 numbers"),
        ("proximity.speed_mps", [3, 1], "must never fall with distance_m"),
        ("proximity.speed_mps", [0, 30], r"proximity.speed_mps is 30 m/s at 50 m, from which the vehicle cannot stop.*at most 23\.0"),
        ("proximity.speed_mps", [2, 12], "2 m/s at 1 m"),
        ("perception.rates_hz", [30, 5], "must rise"),
        ("perception.rates_hz", [0, 30], "must rise, above 0"),
        ("perception.latency_floor_s", 0.02, "must be more than the interval of the highest rate"),
        ("colour", "red", "colour is unknown"),
        ("name", 7, "name is '7', must be a text"),
    ],
)
def test_bad_vehicles(path: str, value: Any, told: str) -> None:
    with pytest.raises(DseError, match=told):
        vehicle_from(_with(path, value), "cart.toml")


def test_vehicle_files(tmp_path: Path) -> None:
    for name, content, told in (
        ("a.toml", b"\xff\xfe", "is not a TOML file"),
        ("b.toml", b"x = " + b"[" * 5000, "is not a TOML file"),
        ("c.toml", b"#" * (2**20 + 1), "is larger than"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DseError, match=told):
            load_vehicle(tmp_path / name)
    with pytest.raises(DseError, match=r"neither a \.toml file nor the example 'shuttle'"):
        load_vehicle("bus")
    with pytest.raises(DseError, match="cannot be read"):
        load_vehicle(tmp_path / "none.toml")
