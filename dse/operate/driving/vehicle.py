"""A vehicle: its dynamics, the tables of its speed layers, and the frame rates of its perception; from a TOML file of the user's.

Tables are the user's. The example that ships (`shuttle`) is an example: its numbers are choices, and no published controller's.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, nearest

FloatArray = npt.NDArray[np.float64]

EXAMPLE = "shuttle"
MAX_BYTES = 2**20
MAX_SPEED_MPS = 45.0  # 162 km/h, above every legal limit but one
MAX_POINTS = 1000
STANDS_MPS = 1e-3  # slower than a millimetre a second, a vehicle stands
MAX_RATE_HZ = 1000.0


@dataclass(frozen=True)
class Table:
    """A function of one quantity: linear between its points, constant beyond them.

    Attributes:
        x, y: names of the columns, units in them. points, values: shape (points,), points rising.
    """

    x: str
    y: str
    points: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, at: Any) -> FloatArray:
        """Values at an array of any shape."""
        return np.asarray(np.interp(at, self.points, self.values), dtype=np.float64)


@dataclass(frozen=True)
class Vehicle:
    """What a drive is planned with; SI units.

    Attributes:
        name: of the vehicle.
        acceleration_mps2, deceleration_mps2, jerk_mps3: bounds of the comfortable profile. emergency_mps2: full braking.
        actuation_s: from the decision to the brake's force. margin_m: left to the nearest person when the vehicle stands.
        sight_m: how far the sensors see. walking_mps: how fast a person may come nearer.
        social: speed [m/s] by pedestrians near, never rising. proximity: speed by distance [m], never falling.
        appearance: nearest distance [m] at which someone may step out unseen, by legal limit [m/s], never falling.
        rates_hz: frame rates of the perception, rising. latency_floor_s: what the speed leaves perception at least.
    """

    name: str
    acceleration_mps2: float
    deceleration_mps2: float
    jerk_mps3: float
    emergency_mps2: float
    actuation_s: float
    margin_m: float
    sight_m: float
    walking_mps: float
    social: Table
    proximity: Table
    appearance: Table
    rates_hz: tuple[float, ...]
    latency_floor_s: float

    def safe_speed_mps(self, distance_m: Any) -> FloatArray:
        """Fastest speed that leaves perception its floor: (d - margin)/v - v/2b - actuation = floor, solved for v."""
        room = np.maximum(np.asarray(distance_m, np.float64) - self.margin_m, 0.0)
        delay = self.latency_floor_s + self.actuation_s
        b = self.emergency_mps2
        return np.asarray(b * (np.sqrt(delay**2 + 2.0 * room / b) - delay))

    def latency_budget_s(self, speed_mps: Any, distance_m: Any) -> FloatArray:
        """Time from a scene to the decision that still stops the vehicle ``margin_m`` before it; inf where it stands, may be negative."""
        speed = np.asarray(speed_mps, np.float64)
        room = np.asarray(distance_m, np.float64) - self.margin_m
        moving = speed > STANDS_MPS
        budget = room / np.where(moving, speed, 1.0) - speed / (2.0 * self.emergency_mps2) - self.actuation_s
        return np.asarray(np.where(moving, budget, np.inf))

    def stopping_distance_m(self, speed_mps: Any, latency_s: Any) -> FloatArray:
        """Way to a stand: the latency and the actuation at full speed, then full braking."""
        speed = np.asarray(speed_mps, np.float64)
        return np.asarray(speed * (np.asarray(latency_s) + self.actuation_s) + speed**2 / (2.0 * self.emergency_mps2))


def load_vehicle(source: str | Path = EXAMPLE) -> Vehicle:
    """The vehicle of a TOML file, or the example by its name. Raises DseError, one sentence with the file and the field."""
    if str(source) == EXAMPLE:
        return _example()
    path = Path(source)
    if path.suffix != ".toml":
        raise DseError(f"vehicle {str(source)[:120]!r} is neither a .toml file nor the example {EXAMPLE!r}")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DseError(f"vehicle {str(path)!r} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise DseError(f"vehicle {path} is larger than {MAX_BYTES} bytes, which no vehicle file is")
    try:
        record = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are no text, and numbers of thousands of digits
        raise DseError(f"vehicle {path} is not a TOML file: {str(error)[:200]}") from error
    return vehicle_from(record, str(path))


@lru_cache(maxsize=1)
def _example() -> Vehicle:
    text = resources.files("dse").joinpath(f"operate/driving/data/{EXAMPLE}.toml").read_text(encoding="utf-8")
    return vehicle_from(tomllib.loads(text), f"{EXAMPLE}.toml")


# Numbers of [vehicle] and [perception] with their largest value and whether zero is one.
_VEHICLE = {
    "acceleration_mps2": (20.0, False),
    "deceleration_mps2": (20.0, False),
    "jerk_mps3": (100.0, False),
    "emergency_mps2": (20.0, False),
    "actuation_s": (10.0, True),
    "margin_m": (100.0, True),
    "sight_m": (1000.0, False),
    "walking_mps": (15.0, True),
}


def vehicle_from(record: Mapping[str, Any], where: str) -> Vehicle:
    """A vehicle from the tables of its file, checked."""
    _only(record, ("name", "vehicle", "social", "proximity", "perception"), where, "")
    numbers = _table(record, "vehicle", where)
    _only(numbers, tuple(_VEHICLE), where, "vehicle.")
    values = {name: _number(numbers, name, where, "vehicle.", most, zero) for name, (most, zero) in _VEHICLE.items()}
    perception = _table(record, "perception", where)
    _only(perception, ("rates_hz", "latency_floor_s", "appearance"), where, "perception.")
    name = record.get("name", Path(where).stem)
    if not isinstance(name, str) or not name.strip() or len(name) > 80:
        raise DseError(f"{where}: name is {str(name)[:80]!r}, must be a text of at most 80 letters")
    vehicle = Vehicle(
        name=name,
        **values,
        social=_curve(record, "social", ("pedestrians", "speed_mps"), where, rising=False),
        proximity=_curve(record, "proximity", ("distance_m", "speed_mps"), where, rising=True),
        appearance=_curve(perception, "appearance", ("legal_limit_mps", "distance_m"), where, rising=True, inside="perception."),
        rates_hz=_rates(perception, where),
        latency_floor_s=_number(perception, "latency_floor_s", where, "perception.", 10.0, True),
    )
    if vehicle.emergency_mps2 < vehicle.deceleration_mps2:
        raise DseError(
            f"{where}: vehicle.emergency_mps2 is {vehicle.emergency_mps2:g}, must be at least deceleration_mps2 = "
            f"{vehicle.deceleration_mps2:g}"
        )
    if vehicle.latency_floor_s <= 1.0 / vehicle.rates_hz[-1]:
        raise DseError(
            f"{where}: perception.latency_floor_s is {vehicle.latency_floor_s:g}, must be more than the interval of the highest rate, "
            f"{1.0 / vehicle.rates_hz[-1]:.4g} s"
        )
    _check_stops(vehicle, where)
    return vehicle


def _check_stops(vehicle: Vehicle, where: str) -> None:
    """The proximity table may nowhere allow more than the vehicle can stop from; what can be stopped from is concave beyond the margin."""
    at = np.array([vehicle.margin_m, *vehicle.proximity.points])
    allowed, safe = vehicle.proximity(at), vehicle.safe_speed_mps(at)
    for i in np.flatnonzero(allowed > safe + 1e-9)[:1]:
        raise DseError(
            f"{where}: proximity.speed_mps is {allowed[i]:.4g} m/s at {at[i]:g} m, from which the vehicle cannot stop with "
            f"{vehicle.latency_floor_s:g} s for perception; at most {safe[i]:.4g} m/s"
        )


def _table(record: Mapping[str, Any], name: str, where: str, inside: str = "") -> Mapping[str, Any]:
    value = record.get(name)
    if not isinstance(value, Mapping):
        raise DseError(f"{where}: table [{inside}{name}] is missing")
    return value


def _only(record: Mapping[str, Any], known: Sequence[str], where: str, inside: str) -> None:
    for name in record:
        if name not in known:
            close = nearest(str(name), known)
            hint = f"; did you mean {inside}{close}?" if close else ""
            raise DseError(f"{where}: {inside}{str(name)[:60]} is unknown, known are {', '.join(known)}{hint}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _number(record: Mapping[str, Any], name: str, where: str, inside: str, most: float, zero: bool) -> float:
    if name not in record:
        raise DseError(f"{where}: {inside}{name} is missing")
    value = record[name]
    if not _is_number(value) or not (0 < value <= most or (zero and value == 0)):
        low = "0" if zero else "above 0"
        raise DseError(f"{where}: {inside}{name} is {str(value)[:60]}, must be a number from {low} to {most:g}")
    return float(value)


def _curve(record: Mapping[str, Any], name: str, columns: tuple[str, str], where: str, *, rising: bool, inside: str = "") -> Table:
    given = _table(record, name, where, inside)
    full = f"{inside}{name}."
    _only(given, columns, where, full)
    x, y = (_list(given, column, where, full) for column in columns)
    if len(x) != len(y):
        raise DseError(f"{where}: {full}{columns[1]} has {len(y)} values, must have {len(x)} as {columns[0]} has")
    if any(b <= a for a, b in itertools.pairwise(x)):
        raise DseError(f"{where}: {full}{columns[0]} must rise from point to point")
    for a, b in itertools.pairwise(y):
        if (b < a) if rising else (b > a):
            raise DseError(
                f"{where}: {full}{columns[1]} goes from {a:g} to {b:g}, must never {'fall' if rising else 'rise'} with {columns[0]}"
            )
    if columns[1] == "speed_mps" and y and max(y) > MAX_SPEED_MPS:
        raise DseError(f"{where}: {full}speed_mps is {max(y):g}, must be at most {MAX_SPEED_MPS:g} m/s; is it in km/h?")
    return Table(*columns, x, y)


def _list(record: Mapping[str, Any], name: str, where: str, inside: str) -> tuple[float, ...]:
    values = record.get(name)
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_POINTS:
        raise DseError(f"{where}: {inside}{name} must be a list of 1 to {MAX_POINTS} numbers")
    for value in values:
        if not _is_number(value) or not math.isfinite(value) or value < 0:
            raise DseError(f"{where}: {inside}{name} has {str(value)[:60]}, must be numbers from 0")
    return tuple(float(value) for value in values)


def _rates(record: Mapping[str, Any], where: str) -> tuple[float, ...]:
    rates = _list(record, "rates_hz", where, "perception.")
    if any(b <= a for a, b in itertools.pairwise(rates)) or not 0 < rates[0] <= rates[-1] <= MAX_RATE_HZ:
        raise DseError(f"{where}: perception.rates_hz must rise, above 0 and at most {MAX_RATE_HZ:g}")
    return rates
