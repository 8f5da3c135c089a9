"""Search of the `datacenter` template with exact costs: amoo against NSGA-II, random and Sobol at equal CPU seconds.

    python benchmarks/datacenter.py methods weights twin --json FILE [--workload bert] [--seconds 3 10 20]

BERT's supported models x all hardware points of the template, quality (max), total carbon and latency (min), carbon profile
default. Every method pays the same exact costs (a mapping search a design, batched); gradients and closed forms count as CPU time
of the method that uses them. Costs are process CPU seconds with one thread; imports are not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SEEDS = range(5)
SECONDS = (3.0, 10.0, 20.0)
OBJECTIVES = ("max:quality", "min:total_kgco2e", "min:latency_s")
# -quality [%], ln of total carbon [kgCO2e], ln of latency [s]. Fixed: about the nadir of a long run's front (69.9 %, 154 kg, 34 ms)
# moved out by a tenth of its range.
REFERENCE = np.array([-68.5, np.log(200.0), np.log(0.08)])


def cpu() -> float:
    """Process CPU seconds."""
    return time.process_time()


def view_of(workload: str, objectives: tuple[str, ...] = OBJECTIVES) -> Any:
    """The problem as a task, its exact costs and its twin; nothing is costed yet."""
    from dse.api import make_problem
    from dse.problem.deployment import Deployment
    from dse.searches.large_space import large_view

    problem = make_problem(workload, list(objectives), hw="datacenter", deployment=Deployment(carbon_profile="default"), residency="none")
    return large_view(problem, threads=1)


Found = Iterator[tuple[Any, int]]
"""Exact objectives (n, m) of feasible designs as they come, and exact evaluations spent on them."""


def exact(view: Any, rows: Any) -> tuple[Any, Any, Any]:
    """Exact objectives (n, m), relative violation of each constraint (n, c), and whether all hold, of designs (n, d).

    Designs that a known constraint rules out are not costed.
    """
    task, costs = view.task, view.costs
    known = costs.known(task.space.columns(rows))
    outside = np.stack([_violation(c, known[c.metric]) if c.metric in known else np.zeros(len(rows)) for c in task.constraints], axis=1)
    allowed = (outside <= 0).all(1)
    values = np.full((len(rows), len(costs.metrics)), np.inf)
    if allowed.any():
        values[allowed] = costs.cost(rows[allowed])
    metrics = {**known, **{name: values[:, j] for j, name in enumerate(costs.metrics)}}
    for j, c in enumerate(task.constraints):
        if c.metric not in known:
            outside[:, j] = np.where(allowed, _violation(c, metrics[c.metric]), 0.0)
    objectives = np.stack([o.sign * metrics[o.metric] for o in task.objectives], axis=1)
    return objectives, outside, (outside <= 0).all(1) & np.isfinite(objectives).all(1)


def _violation(constraint: Any, values: Any) -> Any:
    excess = values - constraint.bound if constraint.relation == "<=" else constraint.bound - values
    return np.where(np.isfinite(excess), np.maximum(excess, 0.0) / max(abs(constraint.bound), 1e-12), 1e6)


def by_amoo(view: Any, seed: int, rule: str | None = "pamoo", generation: int = 128, inner: Any = None) -> Found:
    """The strategy itself, a generation at a time; ``rule`` None leaves out the descent, ``inner`` replaces the search on the twin."""
    from dse.searches.large_space import cost_trials
    from dse.storage.trial import Trial
    from dse.strategies.amoo import search as module
    from dse.strategies.amoo.screened import ScreenedAmoo

    descend = module.descend
    strategy = ScreenedAmoo(view.twin.task, rule=rule or "pamoo", generation=generation, inner=inner)
    history: list[Any] = []
    while True:
        if rule is None:
            module.descend = lambda relaxed, starts, *_, **__: starts
        try:
            asked = list(history)
            for number in range(len(history), len(history) + generation):
                proposal = strategy.propose(view.task, history, number, seed)
                asked.append(Trial(number, dict(proposal.parameters), 0))
        finally:
            module.descend = descend
        done = cost_trials(view, asked[len(history) :])
        history += done
        yield view.task.points(done)[0], generation


def by_random(view: Any, seed: int, block: int = 128) -> Found:
    """Uniform designs that no known constraint rules out."""
    from dse.strategies.drawing import draw_many

    rng = np.random.default_rng(seed)
    while True:
        rows = draw_many(view.task, rng, block)
        values, _, feasible = exact(view, rows)
        yield values[feasible], len(rows)


def by_sobol(view: Any, seed: int, block: int = 128) -> Found:
    """A scrambled Sobol sequence over the indices."""
    from scipy.stats import qmc

    shape = np.array(view.task.space.shape)
    sequence = qmc.Sobol(len(shape), scramble=True, rng=np.random.default_rng(seed))
    while True:
        rows = np.minimum((sequence.random(block) * shape).astype(np.int64), shape - 1)
        rows = rows[view.task.allowed(rows)]
        values, _, feasible = exact(view, rows)
        yield values[feasible], len(rows)


def by_nsga2(view: Any, seed: int, population: int = 100) -> Found:
    """pymoo with a whole generation costed together, and every design that it evaluated counted as found."""
    found: list[Any] = []

    def evaluate(rows: Any) -> tuple[Any, Any]:
        values, outside, feasible = exact(view, rows)
        found.append(values[feasible])
        return values, outside

    algorithm = nsga2(view.task, evaluate, seed, population)
    while True:
        before = view.costs.evaluations
        algorithm.next()
        yield np.concatenate(found), view.costs.evaluations - before
        found.clear()


def by_screened_nsga2(view: Any, seed: int) -> Found:
    """NSGA-II on the closed forms in the place of amoo's search there, 40 generations of 100 a round; the rest is amoo's."""
    return by_amoo(view, seed, inner=_Nsga2OnTwin())


class _Nsga2OnTwin:
    """What :class:`dse.strategies.amoo.search.AmooSearch` is to the screened strategy, by pymoo."""

    def __init__(self, generations: int = 40) -> None:
        self.generations = generations
        self.fronts: list[Any] = []
        self.asked: list[tuple[Any, Any]] = []
        self.algorithm: Any = None

    def front(self, task: Any, seed: int, rounds: int) -> Any:
        from dse.strategies.amoo.search import ExactFront

        def evaluate(rows: Any) -> tuple[Any, Any]:
            metrics = task.known(task.space.columns(rows))
            outside = np.stack([_violation(c, metrics[c.metric]) for c in task.constraints], axis=1)
            values = np.stack([o.sign * metrics[o.metric] for o in task.objectives], axis=1)
            feasible = (outside <= 0).all(1)
            self.asked.append((rows[feasible], values[feasible]))
            return values, outside

        self.algorithm = self.algorithm or nsga2(task, evaluate, seed, 100)
        while len(self.fronts) < rounds:
            for _ in range(self.generations):
                self.algorithm.next()
            before = self.fronts[-1] if self.fronts else ExactFront.empty(task)
            self.fronts.append(before.merged(*(np.concatenate(part) for part in zip(*self.asked, strict=True))))
            self.asked.clear()
        return self.fronts[rounds - 1]


def nsga2(task: Any, evaluate: Callable[[Any], tuple[Any, Any]], seed: int, population: int) -> Any:
    """pymoo's algorithm on the indices of a task's values; ``evaluate`` gives objectives and violations of rows."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    class Wrapped(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=len(task.space.shape), n_obj=len(task.objectives), n_ieq_constr=len(task.constraints), xl=0,
                             xu=np.array(task.space.shape) - 1, vtype=int)  # fmt: skip

        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            values, out["G"] = evaluate(x.astype(np.int64))
            out["F"] = _logs(np.where(np.isfinite(values), values, 1e12))

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(Wrapped(), termination=("n_gen", 10**9), seed=seed, verbose=False)
    return algorithm


def _logs(values: Any) -> Any:
    """Quality as it is, the others by logarithm."""
    return np.column_stack([values[:, 0], np.log(np.maximum(values[:, 1:], 1e-300))])


def curve(make: Callable[[Any], Found], workload: str, marks: tuple[float, ...]) -> list[tuple[Any, int]]:
    """Front (transformed) and exact evaluations when each mark of CPU seconds has passed, on costs of its own."""
    from dse_kernels.pareto import pareto_mask

    view = view_of(workload)
    front, spent, at = np.zeros((0, 3)), 0, []
    start = cpu()
    for values, evaluations in make(view):
        now = cpu() - start
        while len(at) < len(marks) and now > marks[len(at)]:
            at.append((front, spent))
        if len(at) == len(marks):
            return at
        front = np.concatenate([front, _logs(values)])
        front, spent = front[pareto_mask(front)], spent + evaluations
    return at


def _table(methods: dict[str, Callable[[Any, int], Found]], workload: str, marks: tuple[float, ...], seeds: Any) -> list[dict[str, Any]]:
    import torch
    from moocore import hypervolume

    torch.set_num_threads(1)
    found = []
    for make in methods.values():  # imports and tables are not a search's cost
        next(make(view_of(workload), 99))
    for name, make in methods.items():
        runs = [curve(lambda view, make=make, seed=seed: make(view, seed), workload, marks) for seed in seeds]
        for i, mark in enumerate(marks):
            volumes = [float(hypervolume(run[i][0], ref=REFERENCE)) if len(run[i][0]) else 0.0 for run in runs]
            spent = [run[i][1] for run in runs]
            sizes = [len(run[i][0]) for run in runs]
            found.append({"method": name, "cpu_s": mark, "hypervolume": volumes, "exact_evaluations": spent, "front": sizes})
            print(f"  {name:<24} {mark:4g} CPU s  {np.median(volumes):8.3f}  {' '.join(f'{v:.3f}' for v in volumes)}  "
                  f"evaluations {np.median(spent):6.0f}  front {np.median(sizes):5.0f}", flush=True)  # fmt: skip
    return found


def methods(workload: str, marks: tuple[float, ...], seeds: Any) -> list[dict[str, Any]]:
    """amoo against its rivals."""
    rivals: dict[str, Callable[[Any, int], Found]] = {
        "amoo": by_amoo,
        "nsga2 (population 100)": by_nsga2,
        "random": by_random,
        "sobol": by_sobol,
    }
    return _table(rivals, workload, marks, seeds)


def weights(workload: str, marks: tuple[float, ...], seeds: Any) -> list[dict[str, Any]]:
    """The rules of the descent, the search without it, and a genetic algorithm in its place."""
    rules = {"amoo, pamoo": "pamoo", "amoo, camoo": "camoo", "amoo, equal weights": "equal", "amoo without descent": None}
    runs: dict[str, Callable[[Any, int], Found]] = {
        name: lambda view, seed, rule=rule: by_amoo(view, seed, rule) for name, rule in rules.items()
    }
    return _table({**runs, "nsga2 on the closed forms": by_screened_nsga2}, workload, marks, seeds)


def twin(workload: str, marks: tuple[float, ...], seeds: Any) -> list[dict[str, Any]]:
    """The closed forms against the exact cost of 600 random designs, for several workloads."""
    from scipy.stats import spearmanr

    import workloads
    from hw_models import spaces as templates
    from hw_models.costs.evaluate import evaluate
    from hw_models.twins.datacenter import DatacenterTwin
    from workloads.ops import concatenate

    template, found = templates.load("datacenter"), []
    for name in dict.fromkeys((workload, "gpt2", "llama3.2-1b", "llama3-70b")):
        built = workloads.load(name).build()
        rng = np.random.default_rng(0)
        knobs = {knob: np.array(values)[rng.integers(0, len(values), 600)] for knob, values in template.knobs.items()}
        start = cpu()
        true = evaluate(template.batch(**knobs), built, threads=1)
        exact_s = cpu() - start
        runs = np.concatenate([np.full(len(phase.table), float(phase.runs)) for phase in built.phases])
        forms = DatacenterTwin(concatenate([phase.table for phase in built.phases]), template, runs=runs)
        start = cpu()
        guess = forms.cost({knob: column.astype(np.float64) for knob, column in knobs.items()})
        line: dict[str, Any] = {"workload": name, "exact_s": exact_s / 600, "closed_forms_s": (cpu() - start) / 600}
        for metric in ("latency_s", "energy_j"):
            ratio = getattr(guess, metric) / getattr(true, metric)
            line[metric] = [
                float(spearmanr(getattr(guess, metric), getattr(true, metric)).statistic),
                *np.quantile(ratio, (0.5, 0.05, 0.95)),
            ]
        print(f"  {name:<12} " + "  ".join(f"{m} rho {line[m][0]:.4f} ratio {line[m][1]:.3f} [{line[m][2]:.3f}, {line[m][3]:.3f}]"
                                           for m in ("latency_s", "energy_j"))
              + f"  {1e6 * line['exact_s']:.0f} against {1e6 * line['closed_forms_s']:.0f} us a design", flush=True)  # fmt: skip
        found.append(line)
    return found


SECTIONS: dict[str, Callable[[str, tuple[float, ...], Any], list[dict[str, Any]]]] = {"methods": methods, "weights": weights, "twin": twin}


def main() -> int:
    """Run the sections that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=["methods"], metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--workload", default="bert")
    parser.add_argument("--seconds", type=float, nargs="*", default=list(SECONDS))
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    figures = {}
    for name in args.sections:
        if name not in SECTIONS:
            parser.error(f"section {name!r} is unknown: there are {', '.join(SECTIONS)}")
        print(name, flush=True)
        figures[name] = SECTIONS[name](args.workload, tuple(args.seconds), range(args.seeds))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
