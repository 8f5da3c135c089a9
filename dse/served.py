"""Searches over a reasoning loop, and over fleets for a log of requests, kept as runs like every search.

The problem of such a run has a ``kind`` and holds what was asked for, so that its study alone can finish it: a loop's grid is costed in
one pass, a fleet is a trial each, and what was committed is kept. Files that were named are held to what they were by their SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dse.analysis.recommendation import recommend
from dse.errors import DseError
from dse.fronts.pareto import rounded
from dse.problem.deployment import Deployment
from dse.problem.metrics import current_name
from dse.problem.objectives import PRESETS, Constraint, Objective
from dse.problem.problem import FLEET, LOOP, Problem
from dse.quality.measured import Measured
from dse.reports.run_files import write_files
from dse.run import Run
from dse.serving import fleet, loops
from dse.serving.fleet_place import Place, with_grid, with_settings
from dse.serving.requests import RequestLog, read_requests
from dse.storage.study import Study
from dse.storage.summary import SweepSummary
from dse.storage.trial import COMPLETE, FAILED, Proposal, Trial
from dse.storage.trials import Claimed, TrialStore

_NOT_DRAWN = (
    "not told for fleets: their joules are an engine model's, whose errors with the number in flight no draw of carbon factors moves; "
    "serve the log again with `--grid`, `--pue` and `--lifetime-years` at their ends"
)
FLEET_KNOBS = ("hw", "tp", "weight_bits", "max_sequences", "replicas")


def loop_problem(
    workload: str,
    model: str,
    hw: str,
    *,
    objective: Sequence[str],
    constraints: Iterable[str] = (),
    vary: Mapping[str, Sequence[Any]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    quality: str = "scripted",
    deployment: Deployment | None = None,
) -> Problem:
    """The problem of a loop; everything is checked. Arguments are those of `dse.serving.loops.search_loops`."""
    asked: dict[str, Any] = {"objective": list(objective), "constraints": list(constraints), "quality": quality}
    found = loops.loop_problem(workload, model, hw, vary=vary, fixed=fixed, deployment=deployment, **asked)
    return Problem(
        workload,
        hw,
        found.objectives,
        found.constraints,
        deployment=found.deployment,
        fixed=dict(fixed or {}),
        vary={name: tuple(values) for name, values in (vary or {}).items()},
        preset=objective[0] if len(objective) == 1 and objective[0] in PRESETS else None,
        kind=LOOP,
        request={**asked, "model": model, "files": _files([*model.split(","), *hw.split(","), quality.partition(":")[2]])},
    )


def fleet_problem(
    log: str,
    model: str,
    hardware: Sequence[str],
    *,
    objectives: Sequence[tuple[str, bool]],
    bounds: Sequence[tuple[str, str, float]] = (),
    limits: Mapping[str, float] | None = None,
    knobs: Mapping[str, Sequence[int]] | None = None,
    settings: Mapping[str, Any] | None = None,
    deployment: Deployment | None = None,
    region: str = "",
) -> Problem:
    """The problem of fleets for a log (of one of its regions). ``limits``: ``ttft_s``, ``tpot_s`` of a good request; ``settings``: of the
    place (`dse.serving.fleet_place.with_settings`); the grid is the deployment's: a name or a file of hours."""
    where = deployment or Deployment()
    return Problem(
        log,
        ",".join(hardware),
        tuple(Objective("max" if up else "min", name) for name, up in objectives),
        tuple(Constraint(name, sign, value) for name, sign, value in bounds),
        deployment=where,
        vary={name: tuple(values) for name, values in (knobs or {}).items()},
        kind=FLEET,
        request={
            "model": model,
            "objectives": [list(pair) for pair in objectives],
            "bounds": [list(bound) for bound in bounds],
            "limits": dict(limits or {}),
            "settings": dict(settings or {}),
            "region": region,
            "files": _files([log, *model.split(","), *hardware, str(where.grid)]),
        },
    )


def _files(words: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those words that are files."""
    return {word: hashlib.sha256(Path(word).read_bytes()).hexdigest() for word in words if word and Path(word).is_file()}


def finish(study: Study, problem: Problem, say: Callable[[str, int, int, str], None] | None = None) -> Run:
    """Search, or go on with it, and write the run's files.

    Raises DseError where a file of the search is another now, or no configuration is feasible.
    """
    for word, known in problem.request["files"].items():
        if _files([word]) != {word: known}:
            raise DseError(f"{word} is not the file that was searched with; put it back or search again")
    description = study.description()
    seed = description["provenance"]["seed"]
    if problem.kind == LOOP:
        answer, summary, searched = _loop(problem, seed)
    else:
        answer, summary, searched = _fleets(study, problem, say)
    designs = _designs(problem, answer.pop("front"), list(searched))
    context = {
        "kind": problem.kind,
        "answer": answer,
        "knob_ranges": _ranges(searched),
        "cautions": _cautions(problem),
        "sources": answer.get("sources", []),
    }
    run = Run(study.path.parent, problem, description["provenance"], summary, designs, context)
    found = replace(recommend(run), not_drawn=_NOT_DRAWN if problem.kind == FLEET else "")
    run = replace(run, context={**context, "recommendation": found.to_dict()})
    study.finish({"summary": vars(summary), "designs": run.designs, "context": run.context})
    write_files(run)
    return run


def answer_of(run: Run) -> dict[str, Any]:
    """The answer of the search as `dse.serving` gives it: what is common, and a row for each design of the front."""
    rows = [{**d["knobs"], **{name: v for name, v in d["metrics"].items() if name not in d["knobs"]}} for d in run.designs]
    return {**run.context["answer"], "front": rows}


def _loop(problem: Problem, seed: int) -> tuple[dict[str, Any], SweepSummary, dict[str, Sequence[Any]]]:
    asked = problem.request
    answer = loops.search_loops(
        problem.workload,
        asked["model"],
        problem.hardware,
        objective=asked["objective"],
        constraints=asked["constraints"],
        quality=asked["quality"],
        vary=problem.vary,
        fixed=problem.fixed,
        deployment=problem.deployment,
        seed=seed,
    )
    own = loops.loop_problem(
        problem.workload, asked["model"], problem.hardware, quality=asked["quality"], vary=problem.vary, fixed=problem.fixed
    )
    searched: dict[str, Sequence[Any]] = {"model": own.models, "device": (), "chips": own.chips, **own.knobs}
    return answer, SweepSummary(answer["configurations"], answer["feasible"], dict(answer["infeasible_reasons"])), searched


def _fleets(
    study: Study, problem: Problem, say: Callable[[str, int, int, str], None] | None
) -> tuple[dict[str, Any], SweepSummary, dict[str, Sequence[Any]]]:
    asked, where = problem.request, problem.deployment
    place = with_settings(Place(0.0, where.pue, where.lifetime_years), asked["settings"])
    remembered = _Remembered(TrialStore.of_study(study), study.description()["provenance"]["seed"], say)
    answer = fleet.search(
        log_of(problem),
        asked["model"],
        problem.hardware.split(","),
        with_grid(place, str(where.grid)),
        objectives=[(current_name(name), bool(up)) for name, up in asked["objectives"]],
        bounds=[(current_name(name), sign, float(value)) for name, sign, value in asked["bounds"]],
        knobs=problem.vary,
        remember=remembered,
        **asked["limits"],
    )
    answer["region"] = asked["region"]
    reasons = {"does not fit": answer["do_not_fit"], **answer["break_bounds"]}
    searched = {"hw": problem.hardware.split(","), **fleet.KNOBS, **problem.vary}
    return answer, SweepSummary(answer["fleets"], answer["keep_bounds"], reasons), {name: searched[name] for name in FLEET_KNOBS}


def log_of(problem: Problem) -> RequestLog:
    """The requests of a fleet's problem: the log, or those of its region."""
    log = read_requests(problem.workload)
    region = problem.request["region"]
    return log.where(np.array(log.region) == region) if region else log


class _Remembered:
    """Fleets as trials of the study: the number of a trial is the place of the fleet in the grid."""

    def __init__(self, store: TrialStore, seed: int, say: Callable[[str, int, int, str], None] | None) -> None:
        self._store, self._seed, self._say = store, seed, say
        store.take_over(limit=2**31)
        self._known = {trial.number: trial for trial in store.trials()}

    def __call__(self, number: int, count: int, design: Mapping[str, Any], compute: Callable[[], dict[str, float] | None]) -> Any:
        """The figures of a fleet, None where it does not fit; simulated where no trial has them."""
        trial = self._known.get(number)
        if trial is not None and trial.state in (COMPLETE, FAILED):
            return {current_name(name): value.mean for name, value in trial.metrics.items()} if trial.done else None
        found = compute()
        if trial is None:
            trial = self._claimed(number, design)
        if trial is not None:
            told = {name: Measured(value, 0.0) for name, value in (found or {}).items()}
            self._store.tell(trial.finish(told) if found else trial.fail(FAILED, "does not fit"))
        if self._say:
            self._say("designs", number + 1, count, "fleets")
        return found

    def _claimed(self, number: int, design: Mapping[str, Any]) -> Trial | None:
        try:
            return self._store.claim([Proposal(dict(design))], number, self._seed)[0]
        except Claimed:  # by another process, which finds the same
            return None


def _designs(problem: Problem, rows: Sequence[Mapping[str, Any]], knobs: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a front as designs of a run; of equal objective values the later ones name the first."""
    support = problem.request.get("quality", "").partition(":")[0] or None
    values = rounded(np.array([[o.sign * row[_own(row, o.metric)] for o in problem.objectives] for row in rows], dtype=np.float64))
    first: dict[bytes, int] = {}
    found = []
    for number, (row, value) in enumerate(zip(rows, values, strict=True), start=1):
        equal = first.setdefault(value.tobytes(), number)
        found.append(
            {
                "design": number,
                "equal_to": None if equal == number else equal,
                "knobs": {name: row[name] for name in knobs if name in row},
                "quality_support": support,
                "metrics": {
                    current_name(name): v if name == "chips" else float(v)
                    for name, v in row.items()
                    if name not in knobs or name == "chips"
                },
            }
        )
    return found


def _own(row: Mapping[str, Any], name: str) -> str:
    """The row's word for a metric, which an earlier version may have called otherwise."""
    return name if name in row else next(word for word in row if current_name(word) == name)


def _ranges(searched: Mapping[str, Sequence[Any]]) -> dict[str, list[float]]:
    """Least and largest value that was searched, of each knob that is a number and varies."""
    numbers = {n: v for n, v in searched.items() if v and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in v)}
    return {name: [min(values), max(values)] for name, values in numbers.items() if min(values) < max(values)}


def _cautions(problem: Problem) -> list[str]:
    if problem.kind == FLEET:
        told = ["Times are an engine model's, with the errors that docs/models/serving.md shows."]
        if min(problem.vary.get("weight_bits", fleet.KNOBS["weight_bits"])) < 16:
            told.append("What fewer bits a weight do to the model's answers is not weighed here: measure it before you serve with them.")
        return told
    if problem.request["quality"] == "scripted":
        return ["Quality is that of a scripted model with stated rates: a stand-in, no measurement of any language model."]
    return []
