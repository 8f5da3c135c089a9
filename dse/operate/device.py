"""A design as it runs: operating points by clock and batch, idle and sleep power, and the least energy of an hour's work.

A chip at relative clock ``f`` closes timing at the supply where logic is 1/f times as slow (Stillmaker and Baas, Integration 58, 2017, as
in :mod:`hw_models.technology.tables`). Latency and energy at every clock are those of the cost model on the design with that clock and
supply, with what is best kept on chip where the run was searched so; the DRAM keeps its bytes a second and its energy. Where a design's
energy follows the power of its board, dynamic power goes as f V^2. A design that is a table of measurements has one clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError
from dse.evaluation.evaluation import build_space, load_family, load_hardware, settings_on
from dse.problem.deployment import VARIABLE
from dse.storage.run_folder import RunRecord
from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs.evaluate import evaluate
from hw_models.costs.residency.models import model_totals
from hw_models.costs.residency.solve import check_level, eligible, keeps
from hw_models.technology.closed_forms import logic_supply_v
from hw_models.technology.tables import REFERENCE_V, SUPPLIES_V, logic_delay
from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]

CLOCKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SLEEP_SHARE = 0.2
"""Sleep over idle power where nobody measured it: an assumption, said where it is used."""
UTILISATION_CAP = 0.8
"""Share of the time that an awake chip may be busy: what keeps queues of seconds short inside an hour. An assumption."""
HOURS_PER_YEAR = 8766.0


@dataclass(frozen=True)
class OperatingPoint:
    """A chip that is always busy at one clock and batch.

    Attributes:
        clock: relative to the design's. supply: relative to the design's. batch: requests served together.
        latency_s: of the batch. requests_per_h: at full occupation. busy_kw: power while busy.
    """

    clock: float
    supply: float
    batch: int
    latency_s: float
    requests_per_h: float
    busy_kw: float


@dataclass(frozen=True)
class Device:
    """One chip (or one group of chips that share a request) with its memory.

    Attributes:
        points: what it can do, at least one; idle_kw: awake without work; sleep_kw: asleep.
        embodied_kgco2e, lifetime_h: of one device, for re-sizing alone: when it is operated its making is spent.
        notes: where the figures are from, and what is assumed.
    """

    name: str
    points: tuple[OperatingPoint, ...]
    idle_kw: float
    sleep_kw: float
    embodied_kgco2e: float
    lifetime_h: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.points:
            raise DseError(f"device {self.name!r} has no operating point, needs at least one")
        for field in ("idle_kw", "sleep_kw", "embodied_kgco2e"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise DseError(f"{field} of device {self.name!r} is {value}, must be finite and at least 0")
        if self.sleep_kw > self.idle_kw:
            raise DseError(f"sleep_kw of device {self.name!r} is {self.sleep_kw:g}, must be at most idle_kw, {self.idle_kw:g}")
        for point in self.points:
            if not (math.isfinite(point.requests_per_h) and point.requests_per_h > 0 and point.busy_kw >= self.idle_kw):
                raise DseError(
                    f"operating point clock {point.clock:g}, batch {point.batch} of device {self.name!r} serves {point.requests_per_h:g} "
                    f"requests/h at {point.busy_kw:g} kW, must serve some and take at least idle power, {self.idle_kw:g} kW"
                )

    @property
    def fastest(self) -> OperatingPoint:
        """The point of most requests an hour (the cheaper one of equals)."""
        return max(self.points, key=lambda p: (p.requests_per_h, -p.busy_kw))


@dataclass(frozen=True)
class Curve:
    """Least energy of an hour's work: ``base_kwh`` plus a piecewise linear, convex function through ``work`` -> ``kwh``.

    Attributes:
        work: requests an hour at the vertices (v,), from 0, rising; the last one is the capacity. kwh: above the base, from 0.
        chips, clock, batch: of each vertex; between two vertices the hour is divided between them.
        chips_all: how many there are.
    """

    work: FloatArray
    kwh: FloatArray
    base_kwh: float
    chips: FloatArray
    clock: FloatArray
    batch: FloatArray
    chips_all: int

    @property
    def capacity(self) -> float:
        """Requests an hour."""
        return float(self.work[-1])

    @property
    def widths(self) -> FloatArray:
        """Work of each segment (v - 1,)."""
        return np.diff(self.work)

    @property
    def slopes(self) -> FloatArray:
        """kWh a request on each segment (v - 1,), rising."""
        return np.diff(self.kwh) / np.diff(self.work)

    def energy(self, work: npt.ArrayLike) -> FloatArray:
        """kWh of an hour with that much work (any shape), base included; work beyond the capacity is not served and not counted."""
        w = np.asarray(work, dtype=np.float64)[..., None]
        return np.asarray(self.base_kwh + (np.clip(w - self.work[:-1], 0.0, self.widths) * self.slopes).sum(axis=-1))

    def work_of(self, kwh: npt.ArrayLike) -> FloatArray:
        """The most work of an hour with that much energy (any shape), base included; 0 where it does not cover the base."""
        return np.asarray(np.interp(np.asarray(kwh, dtype=np.float64) - self.base_kwh, self.kwh, self.work))

    def running(self, work: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Mean chips awake, and the mean relative clock of these, for an hour's work (any shape)."""
        w = np.asarray(work, dtype=np.float64)
        chips = np.interp(w, self.work, self.chips)
        weighted = np.interp(w, self.work, self.chips * self.clock)
        return chips, np.divide(weighted, chips, out=np.zeros_like(chips), where=chips > 0)


def hull(device: Device, chips: int, *, cap: float = UTILISATION_CAP, points: Sequence[OperatingPoint] | None = None) -> Curve:
    """The least energy of an hour's work on ``chips`` chips that may sleep and be clocked: the lower convex hull of all operating points.

    ``chips`` awake all hour at point p serve at most chips x cap x requests_per_h and take idle power plus, while busy, the rest. Chips
    that are awake or at a clock for part of the hour reach everything between. Grams are intensity times this, so the best clock does not
    depend on the intensity; it moves where capacity binds.
    """
    if chips < 1:
        raise UsageError(f"chips is {chips}, must be at least 1")
    if not 0 < cap <= 1:
        raise UsageError(f"utilisation cap is {cap:g}, must be above 0 and at most 1")
    corners: list[tuple[float, float, OperatingPoint | None]] = [(0.0, 0.0, None)]
    for point in points if points is not None else device.points:
        work = chips * cap * point.requests_per_h
        kwh = chips * (device.idle_kw - device.sleep_kw) + chips * cap * (point.busy_kw - device.idle_kw)
        corners.append((work, kwh, point))
    best: list[tuple[float, float, OperatingPoint | None]] = []
    for corner in sorted(corners, key=lambda c: (c[0], c[1])):
        if best and corner[0] == best[-1][0]:
            continue
        while len(best) > 1 and (best[-1][1] - best[-2][1]) * (corner[0] - best[-2][0]) >= (corner[1] - best[-2][1]) * (
            best[-1][0] - best[-2][0]
        ):
            best.pop()
        best.append(corner)
    kept = [c[2] for c in best]
    return Curve(
        work=np.array([c[0] for c in best]),
        kwh=np.array([c[1] for c in best]),
        base_kwh=chips * device.sleep_kw,
        chips=np.array([0.0 if p is None else float(chips) for p in kept]),
        clock=np.array([0.0 if p is None else p.clock for p in kept]),
        batch=np.array([0.0 if p is None else float(p.batch) for p in kept]),
        chips_all=chips,
    )


def always_on(device: Device, chips: int, point: OperatingPoint, *, cap: float = UTILISATION_CAP) -> Curve:
    """Every chip awake all the time at one operating point."""
    work = chips * cap * point.requests_per_h
    return Curve(
        work=np.array([0.0, work]),
        kwh=np.array([0.0, chips * cap * (point.busy_kw - device.idle_kw)]),
        base_kwh=chips * device.idle_kw,
        chips=np.full(2, float(chips)),
        clock=np.full(2, point.clock),
        batch=np.full(2, float(point.batch)),
        chips_all=chips,
    )


def supply_at(clock: float, node_nm: float, supply: float = 1.0) -> float:
    """The supply, relative to nominal, at which a design that closes timing at ``supply`` still does at ``clock`` times its frequency.

    The lowest one of the range where the scaling of logic holds, where the clock would allow less. Found by bisection: delay falls with
    supply.
    """
    lowest = SUPPLIES_V[0] / REFERENCE_V

    def delay(at: float) -> float:
        return float(np.ravel(logic_delay(np.array([node_nm]), np.array([logic_supply_v(at)])))[0])

    allowed = delay(supply) / clock
    if supply <= lowest or delay(lowest) <= allowed:
        return min(supply, lowest)
    low, high = lowest, supply
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if delay(middle) <= allowed else (middle, high)
    return high


def at_clock(accelerator: Accelerator, clock: float) -> Accelerator:
    """The design at ``clock`` times its frequency and the supply that this allows; its DRAM keeps its bytes a second."""
    relative = supply_at(clock, accelerator.node_nm, accelerator.voltage_v / accelerator.nominal_v)
    *on_chip, last = accelerator.levels
    dram = replace(
        last,
        read_words_per_cycle=last.read_words_per_cycle / clock,
        write_words_per_cycle=last.write_words_per_cycle / clock,
    )
    return replace(
        accelerator,
        frequency_hz=accelerator.frequency_hz * clock,
        voltage_v=relative * accelerator.nominal_v,
        levels=(*on_chip, dram),
    )


def request_cost(
    batch: AcceleratorBatch, workload: Workload, *, criterion: str = "edp", residency: str = "none", prefetch: bool = False
) -> tuple[float, float]:
    """Latency [s] and energy [J], leakage included, of one request of a workload of one model on one design."""
    rule: Any = criterion
    if residency != "none" and eligible(batch)[0].all() and not keeps(workload):
        kept = model_totals(workload, batch, level=check_level(residency), criterion=rule, prefetch=prefetch)
        latency = float(kept.latency_s[0, 0])
        return latency, float(kept.energy_j[0, 0]) + float(batch.leakage_w[0]) * latency
    cost = evaluate(batch, workload, criterion=rule)
    return float(np.ravel(cost.latency_s)[0]), float(np.ravel(cost.energy_j)[0])


def operating_points(
    accelerator: Accelerator,
    workloads: Sequence[tuple[int, Any]],
    clocks: Sequence[float],
    *,
    criterion: str = "edp",
    residency: str = "none",
    prefetch: bool = False,
) -> tuple[tuple[OperatingPoint, ...], float]:
    """Operating points of a design for (batch, workload) pairs, and its idle power [kW]; points that no mapping fits are left out."""
    found = []
    original = accelerator.batch()
    idle_w = float(original.leakage_w[0])
    own = accelerator.voltage_v / accelerator.nominal_v
    rules: Any = {"criterion": criterion, "residency": residency, "prefetch": prefetch}
    steps: Sequence[float] = clocks if accelerator.execution in (Execution.MAPPED, Execution.GPU) else (1.0,)
    for clock in steps:
        design = at_clock(accelerator, clock) if clock != 1.0 else accelerator
        supply = design.voltage_v / design.nominal_v / own
        for batch, workload in workloads:
            latency, energy = request_cost(design.batch(), workload, **rules)
            if not math.isfinite(latency):
                continue
            busy_w = energy / latency
            if accelerator.tdp_w > 0 and clock != 1.0:
                # A board's measured power knows no supply: its dynamic part at the full clock, times f V^2.
                full_s, full_j = request_cost(original, workload, **rules)
                full_w = full_j / full_s
                busy_w = idle_w + (full_w - idle_w) * clock * supply**2
            found.append(OperatingPoint(clock, supply, batch, latency, 3600.0 * batch / latency, max(busy_w, idle_w) / 1e3))
    return tuple(found), idle_w / 1e3


def entry_of(run: RunRecord, design: int | None, what: str) -> dict[str, Any]:
    """The front's entry of a number (from 1; None: the first); ``what`` the entries are is said in the error."""
    number = 1 if design is None else design
    entry = run.entry(number)
    if entry is None:
        raise UsageError(f"design is {number}, must be from 1 to {len(run.designs)}, the {what} of {run.path}")
    return entry


def check_operation(clocks: Sequence[float], sleep_share: float, whose: str) -> None:
    """Relative clocks from 0.1 to 1 (of ``whose`` own) and a share of sleep from 0 to 1, else UsageError."""
    for clock in clocks:
        if not 0.1 <= clock <= 1:
            raise UsageError(f"clock is {clock:g}, must be from 0.1 to 1 of the {whose}'s own")
    if not 0 <= sleep_share <= 1:
        raise UsageError(f"sleep share is {sleep_share:g}, must be from 0 to 1")


def of_run(
    run: RunRecord,
    design: int | None,
    *,
    clocks: Sequence[float] = CLOCKS,
    batches: Sequence[int] = (),
    latency_limit_s: float | None = None,
    sleep_share: float = SLEEP_SHARE,
) -> Device:
    """The device of a run's design (its number, from 1; None: the first of the front).

    Args:
        clocks: relative, in (0, 1]; the design's own clock is always one of them.
        batches: requests served together, where the workload has a batch (none: the run's own).
        latency_limit_s: operating points with a longer latency of a batch are left out.
        sleep_share: sleep power over idle power, 0 to 1.

    Raises UsageError for a design that the run has not, and for values out of range; DseError where no point keeps the limit.
    """
    if not run.designs:
        raise DseError(f"run {run.path} has no design on its front")
    entry = entry_of(run, design, "designs")
    number = entry["design"]
    check_operation(clocks, sleep_share, "design")
    problem = run.problem
    hardware, family = load_hardware(problem), load_family(problem)
    knobs = entry["knobs"]
    try:
        accelerator = hardware.accelerator({name: knobs[name] for name in hardware.knobs if name not in VARIABLE})
    except KeyError as error:
        raise DseError(f"design {number} of {run.path} lacks the knob {error}, search again") from error
    space = build_space(problem, family, hardware)
    settings = settings_on(family, space.settings, kernels=accelerator.execution != Execution.MAPPED)
    model = {**settings, **{name: knobs[name] for name in space.models}}
    for batch in batches:
        if batch < 1:
            raise UsageError(f"batch is {batch}, must be at least 1")
        if "batch" not in family.knobs:
            raise UsageError(f"batch is {batch}, but workload {problem.workload!r} has no batch to set")
    sizes = list(batches) or [int(model.get("batch", 1))]
    built = [(size, family.build(**({**model, "batch": size} if batches or "batch" in model else model))) for size in sizes]
    rules: Any = {"criterion": problem.criterion, "residency": problem.residency, "prefetch": problem.prefetch}
    points, idle_kw = operating_points(accelerator, built, sorted({*clocks, 1.0}), **rules)
    if latency_limit_s is not None:
        points = tuple(p for p in points if p.latency_s <= latency_limit_s)
    if not points:
        limit = "" if latency_limit_s is None else f" with a latency of at most {latency_limit_s:g} s"
        raise DseError(f"design {number} of {run.path} has no operating point{limit}")
    notes = (
        "latency, energy and leakage at every clock from the cost model on the design at that clock and supply; "
        "supply at a clock: Stillmaker and Baas 2017",
        f"sleep power is {sleep_share:g} of idle power: an assumption",
        *(("idle power is the leakage of the chip's SRAM: boards and hosts are not counted",) if accelerator.tdp_w <= 0 else ()),
        *(("power of the board at lower clocks: dynamic part times f V^2",) if accelerator.tdp_w > 0 else ()),
    )
    return Device(
        name=f"design {number} of {run.path.name}",
        points=points,
        idle_kw=idle_kw,
        sleep_kw=sleep_share * idle_kw,
        embodied_kgco2e=float(entry["metrics"]["embodied_kgco2e"]),
        lifetime_h=problem.deployment.lifetime_years * HOURS_PER_YEAR,
        notes=notes,
    )


def example() -> Device:
    """A made-up accelerator card: 0.65 kW busy, 0.10 kW idle, 0.02 kW asleep, half of its time bound by memory, 3,600 requests an hour.

    For teaching and tests, and what the shipped policies were trained with; no figure of it was measured. Speed s(f) = 1 / (0.5 / f + 0.5),
    supply max(0.65, 0.3 + 0.7 f), busy power idle + dynamic f supply^2.
    """
    points = []
    for clock in CLOCKS:
        speed, supply = 1.0 / (0.5 / clock + 0.5), max(0.65, 0.3 + 0.7 * clock)
        points.append(OperatingPoint(clock, supply, 1, 1.0 / speed, 3600.0 * speed, 0.10 + 0.55 * clock * supply**2))
    return Device("example card", tuple(points), 0.10, 0.02, 150.0, 3.0 * HOURS_PER_YEAR, ("made up: no figure was measured",))
