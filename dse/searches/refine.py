"""Refine a front: its models on hardware between the listed values of the knobs, by exact Pareto local search.

The grid of a template is coarse (powers of two); its cost model is not. From the front's designs, knobs move half a step at a
time (in the knob's own coding), then a quarter, and so on, every candidate costed exactly; what dominates enters the front.
Models stay as they are: their quality is what was measured or predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.evaluation import robustness, space_file
from dse.evaluation.design_costs import one_point
from dse.evaluation.evaluation import Evaluation, Space, load_hardware
from dse.evaluation.feasibility import feasible
from dse.fronts.pareto import Front, hypervolume
from dse.problem.objectives import Objective
from dse.problem.problem import Problem
from dse.quality.surrogate import MEASURED, Quality
from dse.spaces.parameters import guess_coding
from dse.storage.run_folder import RunRecord, describe_front, load
from dse.storage.study import FILE_NAME, Study
from dse.storage.summary import SweepSummary

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LARGEST_BATCH = 4096
_OF_THE_START = ("sampled", "strategy", "convergence", "importance", "alignment", "uncertainty", "shapes", "contenders",
                 "recommendation")  # fmt: skip


@dataclass(frozen=True)
class Refined:
    """The refined front: an evaluation of exactly its models and hardware points, and its indices into that.

    ``gained`` is the number of designs that were not there before, ``costed`` of designs costed on the way (``models`` on ``points``
    hardware points), ``feasible`` of those that meet every bound, ``growth`` the relative gain of hypervolume over the start's
    front (reference: the start's nadir moved out by a tenth of its range).
    """

    evaluation: Evaluation
    front: Front
    gained: int
    costed: int
    growth: float
    models: int
    points: int
    feasible: int


def levels(values: tuple[Any, ...], name: str, resolution: int, unit: float = 0.0) -> npt.NDArray[Any]:
    """The listed values of a knob with 2**resolution - 1 more between neighbours, whole numbers staying whole, and whole KiB so too.

    ``unit``: what other values are multiples of (sixteenths of a MiB); 0: anything.
    """
    if len(values) < 2 or any(isinstance(v, (str, bool)) for v in values):
        return np.array(values)
    numbers = np.array(values, dtype=np.float64)
    coding = guess_coding(list(values))
    logs = coding in ("log", "power_of_two")
    code = np.log2(numbers) if logs else numbers
    parts = 1 << resolution
    fine = np.interp(np.arange((len(code) - 1) * parts + 1) / parts, np.arange(len(code)), code)
    out = np.exp2(fine) if logs else fine
    if all(isinstance(v, (int, np.integer)) for v in values):
        unit = 1024 if name.endswith("_bytes") and all(v % 1024 == 0 for v in values) else 1
        return np.unique(np.rint(out / unit).astype(np.int64) * unit)
    return np.unique(np.rint(out / unit) * unit) if unit else np.unique(np.round(out, 12))


def refine(
    problem: Problem,
    designs: list[Mapping[str, Any]],
    *,
    resolution: int = 2,
    rounds: int = 12,
    threads: int | None = None,
    fixed_quality: Mapping[int, tuple[float, float]] | None = None,
    say: Callable[[str], None] | None = None,
) -> Refined:
    """Refine the designs (knob values) of a front of ``problem``.

    ``fixed_quality``: mean and standard error of the quality of the i-th distinct model (in order of appearance), where it was
    measured rather than predicted. Raises UsageError for hardware without numeric knobs.
    """
    if not 1 <= resolution <= 6:
        raise UsageError(f"resolution is {resolution}; from 1 (half steps) to 6 is allowed")
    hardware = load_hardware(problem)
    space, every = one_point(problem)
    listed = {name: tuple(np.unique(np.array(values)).tolist()) for name, values in every.items()}
    moved = [name for name, values in listed.items() if len(values) > 1 and not isinstance(values[0], str)]
    # Between two process nodes there is none that anybody makes.
    movable = [name for name in moved if name in hardware.knobs and name != "node_nm"]
    if not movable:
        raise UsageError(f"hardware {problem.hardware} has no numeric knob with several values; there is nothing to refine")
    units = {} if hardware.template is None else hardware.template.fractions
    models = list(dict.fromkeys(tuple(design[name] for name in space.models) for design in designs))
    model_columns = {name: np.array([m[j] for m in models]) for j, name in enumerate(space.models)}
    search = _Search(problem, space, model_columns, fixed_quality, threads)
    start = list(dict.fromkeys(tuple(design[name] for name in space.hardware) for design in designs))
    search.cost(start)
    before = search.front.values
    if not len(before):
        raise UsageError("none of the designs to refine is feasible under the problem's constraints")
    first = set(search.keys())
    for level in range(1, resolution + 1):
        fine = {name: levels(listed[name], name, level, units.get(name, 0.0)) for name in movable}
        for _ in range(rounds):
            new = search.neighbours(fine)
            if not new:
                break
            kept = set(search.keys())
            search.cost(new[:_LARGEST_BATCH])
            if say:
                say(f"resolution 1/{1 << level}: {search.costed:,} designs costed, front of {len(search.keys())}")
            if set(search.keys()) == kept:
                break
    low, high = before.min(0), before.max(0)
    reference = high + 0.1 * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-12))
    growth = hypervolume(search.front.values, reference) / hypervolume(before, reference) - 1.0
    evaluation, front = search.finish()
    return Refined(evaluation, front, len(set(search.keys()) - first), search.costed, growth, len(models), len(search.points),
                   search.feasible)  # fmt: skip


class _Search:
    """The front as (model, hardware values) with exact objective values, minimised."""

    def __init__(
        self, problem: Problem, space: Space, models: dict[str, Any], quality: Mapping[int, tuple[float, float]] | None, threads: int | None
    ) -> None:
        self.problem, self.space, self.models, self.quality, self.threads = problem, space, models, quality, threads
        self.own_space = space_file.of_problem(problem.space_toml, problem.space)
        self.names = list(space.hardware)
        self.seen: dict[tuple[Any, ...], int] = {}
        self.points: list[tuple[Any, ...]] = []
        self.front = Front(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, len(problem.objectives))))
        self.costed = self.feasible = 0

    def keys(self) -> list[tuple[int, tuple[Any, ...]]]:
        return [(m, self.points[h]) for m, h in zip(self.front.models.tolist(), self.front.hardware.tolist(), strict=True)]

    def evaluation(self, points: list[tuple[Any, ...]], models: dict[str, Any] | None = None) -> Evaluation:
        columns = {name: np.array([point[j] for point in points]) for j, name in enumerate(self.names)}
        space = Space(models or self.models, columns, 0, self.space.settings)
        return Evaluation(self.problem, space=space, threads=self.threads)

    def cost(self, points: list[tuple[Any, ...]]) -> None:
        """Cost new points with every model and merge."""
        points = [p for p in points if p not in self.seen]
        if not points:
            return
        offset = len(self.points)
        self.points += points
        self.seen.update({p: offset + i for i, p in enumerate(points)})
        evaluation = self.evaluation(points)
        count = evaluation.space.model_count
        block = evaluation.block(0, count)
        rows, columns = np.nonzero(feasible(block, self.problem.constraints, self._metric)[0])
        values = np.stack([self._values(block, o)[rows, columns] for o in self.problem.objectives], axis=1)
        self.costed += len(points) * count
        self.feasible += len(rows)
        self.front = Front.of(
            np.concatenate([self.front.models, rows.astype(np.int64)]),
            np.concatenate([self.front.hardware, columns.astype(np.int64) + offset]),
            np.concatenate([self.front.values, values]),
        )

    def _metric(self, block: Any, name: str) -> FloatArray:
        if name == "quality" and self.quality is not None:
            return np.array([self.quality[i][0] for i in range(block.shape[0])])[:, None]
        return np.asarray(block.metric(name))

    def _values(self, block: Any, objective: Objective) -> FloatArray:
        return np.broadcast_to(objective.sign * self._metric(block, objective.metric), block.shape)

    def neighbours(self, fine: Mapping[str, npt.NDArray[Any]]) -> list[tuple[Any, ...]]:
        """Unseen points one fine value away, in one knob, from the hardware of the front, that meet the space's constraints."""
        found: dict[tuple[Any, ...], None] = {}
        for h in np.unique(self.front.hardware).tolist():
            point = self.points[h]
            for j, name in enumerate(self.names):
                if name not in fine:
                    continue
                at = int(np.searchsorted(fine[name], point[j]))
                for k in (at - 1, at + 1):
                    if 0 <= k < len(fine[name]):
                        moved = (*point[:j], fine[name][k].item(), *point[j + 1 :])
                        if moved not in self.seen:
                            found[moved] = None
        if not found:
            return []
        columns = {name: np.array([point[j] for point in found]) for j, name in enumerate(self.names)}
        allowed = space_file.meets(self.own_space, columns)
        return [point for point, kept in zip(found, allowed.tolist(), strict=True) if kept]

    def finish(self) -> tuple[Evaluation, Front]:
        """An evaluation of the front's hardware points alone, and the front in its indices."""
        used = np.unique(self.front.hardware)
        evaluation = self.evaluation([self.points[h] for h in used.tolist()])
        if self.quality is not None:
            mean, error = (np.array([self.quality[i][k] for i in range(evaluation.space.model_count)]) for k in (0, 1))
            evaluation.quality = Quality(mean, error, np.full(len(mean), MEASURED, dtype=np.int64))
        position = {h: i for i, h in enumerate(used.tolist())}
        hardware = np.array([position[h] for h in self.front.hardware.tolist()], dtype=np.int64)
        return evaluation, Front.of(self.front.models, hardware, self.front.values)


def refine_run(
    path: str | Path,
    *,
    out: str | Path | None = None,
    resolution: int = 2,
    rounds: int = 12,
    threads: int | None = None,
    command: str | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[RunRecord, Evaluation]:
    """Refine the front of a finished run; its record and evaluation, and a study of its own (default folder: the run's name, -refined)."""
    start = load(path)
    folder = Path(out) if out is not None else start.path.with_name(f"{start.path.name}-refined")
    quality = _measured_quality(start)
    found = refine(
        start.problem,
        [design["knobs"] for design in start.designs],
        resolution=resolution,
        rounds=rounds,
        threads=threads,
        fixed_quality=quality,
        say=say,
    )
    if say:
        say(f"{found.gained} new designs, hypervolume {found.growth:+.2%}, {found.costed:,} designs costed")
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {**start.provenance, "command": command or f"dse refine {start.path}", "refined_from": str(start.path)}
    summary = SweepSummary(found.costed, found.feasible, {})
    designs = describe_front(found.evaluation, found.front)
    # What was told of the start's own search and of its designs by number is not true of this one.
    kept = {name: value for name, value in start.context.items() if name not in _OF_THE_START}
    run = RunRecord(
        path=folder,
        problem=start.problem,
        provenance=provenance,
        summary=summary,
        designs=designs,
        context={
            **kept,
            "models": found.models,
            "hardware_points": found.points,
            "strategy": {
                "name": "refine",
                "why": f"from the front of {start.path}, hardware between the listed values of its knobs",
                "stopped": f"no step costed improves the front, or {rounds} rounds a resolution are done (to 1/{2**resolution} of a step)",
                "notes": [],
                "trials": found.costed,
            },
            "uncertainty": robustness.report_context(start.problem, designs, seed=start.provenance["seed"]),
        },
    )
    description: dict[str, Any] = {"problem": start.problem.to_dict(), "measured": None, "bounds": [], "provenance": provenance}
    with Study.create(folder / FILE_NAME, description) as study:
        study.finish({"summary": vars(summary), "designs": run.designs, "context": run.context})
    return run, found.evaluation


def _measured_quality(run: RunRecord) -> dict[int, tuple[float, float]] | None:
    """Quality of the run's distinct models where an evaluator measured it (no surrogate knows it again)."""
    if run.context.get("quality_evaluator") is None:
        return None
    names = [name for name in run.designs[0]["knobs"] if name in run.context["quality_evaluator"]["parameters"]]
    found: dict[tuple[Any, ...], tuple[float, float]] = {}
    for design in run.designs:
        metrics = design["metrics"]
        found.setdefault(tuple(design["knobs"][name] for name in names), (float(metrics["quality"]), float(metrics["quality_se"])))
    return dict(enumerate(found.values()))
