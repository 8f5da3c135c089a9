"""Models as trials, exact hardware for everybody: nested beside Optuna's samplers and stock Ax, on the stand-in and on real architectures.

    python benchmarks/search_models.py --methods nested gp tpe nsga3 random --json FILE   # 9 seeds: eight CPU minutes, most of GPSampler
    python benchmarks/search_models.py stand-in --methods ax --budget 25                 # the slow rival: some 3 CPU s a proposal
    python benchmarks/search_models.py stand-in --methods nested informed oracle         # what is left to gain

Every method proposes a model and is told its quality and its exact least carbon; none has to learn hardware. What it proposes is moved to
the nearest model that some hardware can run and that was not measured yet, so that no evaluation is lost on a repeat. Share of the true
hypervolume, every seed in the JSON.

* `stand-in`: the frozen problem of tests/reference/search (6,660 models with feasible hardware), quality without noise.
* `nas-bench-bert`: the published GLUE scores of 500 architectures of 299 descriptors (tests/reference/search/nas_bench_bert.csv), costs on
  edge22 as in benchmarks/noise.py; architectures of one descriptor averaged, no noise.
* `nas-bench-bert-spread`: the 102 descriptors of which several architectures were measured. An evaluation returns the score of one of
  them, drawn, and truth is their mean: noise as it is, not injected. Nested and Ax are told the pooled spread about that mean (1.9
  points); nested answers with its posterior, the others with the figures they saw. Methods lie close there: take --seeds 30 and look
  at the paired differences.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import contest  # noqa: E402 - after the thread settings
import noise as real  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

FloatArray = npt.NDArray[np.float64]
MARKS = (10, 15, 25, 50)
SAMPLERS = {"gp": "GPSampler", "tpe": "TPESampler", "nsga3": "NSGAIIISampler"}
METHODS = ("nested", "random", *SAMPLERS, "ax")
# What knows more than a search can: how much is left to gain, and by what.
INFORMED = ("informed", "oracle")
TOLD = 150


@dataclass(frozen=True)
class Problem:
    """Models as index columns (n, parameters), their true quality and exact cost (n,), and how one is measured."""

    codes: FloatArray
    quality: FloatArray
    cost: FloatArray
    reference: FloatArray  # (-quality, cost)
    whole: float
    measure: Callable[[int, int], tuple[float, float]]  # (model, draw): figure and standard error
    nested: Callable[[int, int, Any], tuple[Any, list[Any]]]  # (seed, budget, strategy): the task and its trials

    def share(self, rows: npt.NDArray[np.int64], believed: FloatArray) -> float:
        """True share of the hypervolume (%) of the models that the believed figures put on the front."""
        from dse.fronts.pareto import Front, hypervolume

        chosen = Front.of(rows, rows, np.stack([-believed, self.cost[rows]], axis=1)).models
        return float(100 * hypervolume(np.stack([-self.quality[chosen], self.cost[chosen]], axis=1), self.reference) / self.whole)


def stand_in() -> Problem:
    """The frozen stand-in."""
    from dse.strategies.protocol import simulate

    t = contest.tasks()
    task = t.standin_nested()
    cost = np.asarray(t.standin_inner()[0])[task.row_numbers]
    values = [np.array(p.values)[task.rows[:, j]] for j, p in enumerate(task.space.parameters)]
    columns = {p.name: v for p, v in zip(task.space.parameters, values, strict=True)}
    rows = [{name: column[i].item() for name, column in columns.items()} for i in range(len(cost))]
    quality = np.array([task.evaluator(row, fidelity=1.0, seed=0)["accuracy"].mean for row in rows])
    reference = np.asarray(t.reference_point())

    def nested(seed: int, budget: int, strategy: Any) -> tuple[Any, list[Any]]:
        return task, simulate(task, strategy, budget=budget, seed=seed)

    whole = t.standin_module().TRUE_HYPERVOLUME
    return Problem(task.rows.astype(float), quality, cost, reference, whole, lambda row, draw: (float(quality[row]), 0.0), nested)


def nas_bench_bert(*, spread: bool = False) -> Problem:
    """Real architectures; with ``spread`` those of several measurements, and one of them drawn at each evaluation."""
    from dse.fronts.pareto import Front, hypervolume
    from dse.strategies.protocol import simulate

    d = real.data()
    groups: dict[tuple[float, ...], list[float]] = {}
    with (contest.ROOT / "tests" / "reference" / "search" / "nas_bench_bert.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(x for x in file if not x.startswith("#")):
            if line["metric"] == "glue":
                groups.setdefault(tuple(float(line[n]) for n in real.NAMES), []).append(float(line["value"]))
    figures = [np.array(groups[tuple(row)]) for row in d.rows.tolist()]
    kept = np.array([len(f) > 1 for f in figures]) if spread else np.ones(len(figures), dtype=bool)
    rows, glue, carbon, figures = d.rows[kept], d.glue[kept], d.carbon[kept], [f for f, k in zip(figures, kept, strict=True) if k]
    error = float(np.sqrt(sum(((f - f.mean()) ** 2).sum() for f in figures) / sum(len(f) for f in figures))) if spread else 0.0
    print(f"  {len(figures)} descriptors, pooled spread {error:.2f} points of GLUE")
    index = np.arange(len(rows))
    front = Front.of(index, index, np.stack([-glue, carbon], axis=1)).values
    reference = front.max(0) + 0.1 * np.ptp(front, axis=0)

    def measure(row: int, draw: int) -> tuple[float, float]:
        return (float(np.random.default_rng([draw, row]).choice(figures[row])) if spread else float(glue[row])), error

    @dataclass
    class Drawn:
        seed: int

        def ask(self, row: int) -> tuple[float, float]:
            return measure(row, self.seed)

    def nested(seed: int, budget: int, strategy: Any) -> tuple[Any, list[Any]]:
        task = real.task_of(rows, Drawn(seed), carbon)  # type: ignore[arg-type]
        return task, simulate(task, strategy, budget=budget, seed=seed)

    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in rows.T], axis=1).astype(float)
    return Problem(codes, glue, carbon, reference, hypervolume(front, reference), measure, nested)


class _Snap:
    """The nearest model, not yet measured, to value indices."""

    def __init__(self, codes: FloatArray) -> None:
        self.most = codes.max(0)
        self.codes, self.free = codes / self.most, np.ones(len(codes), dtype=bool)

    def take(self, index: list[float]) -> int:
        distance = ((self.codes - np.array(index) / self.most) ** 2).sum(1)
        at = int(np.where(self.free, distance, np.inf).argmin())
        self.free[at] = False
        return at


def _optuna(problem: Problem, sampler: str, seed: int, budget: int) -> list[tuple[int, float]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    snap, seen = _Snap(problem.codes), []
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=getattr(optuna.samplers, sampler)(seed=seed))
    for _ in range(budget):
        trial = study.ask()
        row = snap.take([trial.suggest_int(f"p{j}", 0, int(most)) for j, most in enumerate(snap.most)])
        seen.append((row, problem.measure(row, seed)[0]))
        study.tell(trial, [seen[-1][1], float(problem.cost[row])])
    return seen


def _ax(problem: Problem, seed: int, budget: int) -> list[tuple[int, float]]:
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    snap, seen = _Snap(problem.codes), []
    client = Client(random_seed=seed)
    names = [f"p{j}" for j in range(len(snap.most))]
    client.configure_experiment(
        [RangeParameterConfig(name=n, bounds=(0, int(most)), parameter_type="int") for n, most in zip(names, snap.most, strict=True)]
    )
    client.configure_optimization("quality, -cost")
    while len(seen) < budget:
        for index, values in client.get_next_trials(1).items():
            row = snap.take([float(values[n]) for n in names])  # type: ignore[arg-type]
            figure, error = problem.measure(row, seed)
            seen.append((row, figure))
            client.complete_trial(index, raw_data={"quality": (figure, error), "cost": (float(problem.cost[row]), 0.0)})
    return seen


def _informed(problem: Problem, seed: int) -> Any:
    """Nested with the length scales that TOLD models, drawn at random and free of charge, show."""
    from dse.strategies.nested import NestedSearch
    from dse.strategies.surrogates import gp

    rows = np.random.default_rng([seed, 9]).choice(len(problem.quality), min(TOLD, len(problem.quality)), replace=False)
    told = problem.quality[rows]
    offset, scale = float(told.mean()), float(told.std())

    class Informed(NestedSearch):
        theta: FloatArray | None = None

        def _fit(self, task: Any, inputs: FloatArray, value: FloatArray, noise: FloatArray, sign: float) -> gp.GaussianProcess:
            if self.theta is None:
                self.theta = gp.fit(task.space.coded(task.rows[rows]), told).theta
            groups = np.zeros(len(value), dtype=np.int64)
            fixed = gp._Posterior(inputs, (value - offset) / scale, noise / scale**2 + 1e-6, groups)
            return gp.GaussianProcess(inputs, groups, self.theta, 0.0, offset, scale, *fixed.solve(self.theta))

    return Informed()


def _oracle(problem: Problem, budget: int) -> list[tuple[int, float]]:
    """Knows every quality and takes the model of the largest gain each time."""
    from dse.strategies.surrogates.improvement import ehvi_one_cost

    rows: list[int] = []
    certain, bounds = np.zeros(len(problem.cost)), (-float(problem.reference[0]), float(problem.reference[1]))
    for _ in range(budget):
        gain = ehvi_one_cost(problem.quality, certain, problem.cost, problem.quality[rows], problem.cost[rows], bounds)
        rows.append(int(gain.argmax()))
    return [(row, float(problem.quality[row])) for row in rows]


def marks_of(budget: int) -> list[int]:
    """The numbers of evaluations at which shares are shown: those of MARKS within the budget, and a larger budget itself."""
    return [m for m in MARKS if m <= budget] + [budget] * (budget > MARKS[-1])


def curve(problem: Problem, method: str, seed: int, budget: int) -> list[float]:
    """Shares at the marks of the budget, of one run."""
    marks = marks_of(budget)
    if method in ("nested", "informed"):
        from dse.strategies import make

        strategy: Any = make("nested") if method == "nested" else _informed(problem, seed)
        task, trials = problem.nested(seed, budget, strategy)
        found = []
        for mark in marks:
            seen = strategy.predict(task, trials[:mark])
            found.append(problem.share(np.asarray(seen.observed), np.asarray(seen.level)))
        return found
    if method == "random":
        rows = np.random.default_rng([seed, 1]).permutation(len(problem.cost))[:budget]
        seen_rows = [(int(r), problem.measure(int(r), seed)[0]) for r in rows]
    elif method == "oracle":
        seen_rows = _oracle(problem, budget)
    else:
        seen_rows = _ax(problem, seed, budget) if method == "ax" else _optuna(problem, SAMPLERS[method], seed, budget)
    return [problem.share(np.array([r for r, _ in seen_rows[:m]]), np.array([v for _, v in seen_rows[:m]])) for m in marks]


def paired(difference: FloatArray) -> str:
    """Mean difference over the seeds with its 95 % interval of Student's t, and on how many seeds it is positive and negative."""
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference)))
    mean = float(difference.mean())
    return f"{mean:+.2f} [{mean - reach:+.2f}, {mean + reach:+.2f}] {np.sum(difference > 0)}:{np.sum(difference < 0)}"


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "stand-in": stand_in,
    "nas-bench-bert": nas_bench_bert,
    "nas-bench-bert-spread": lambda: nas_bench_bert(spread=True),
}


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM", help=", ".join(PROBLEMS))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=(*METHODS, *INFORMED), metavar="METHOD",
                        help=", ".join((*METHODS, *INFORMED)))  # fmt: skip
    parser.add_argument("--seeds", type=int, default=9)
    parser.add_argument("--budget", type=int, default=50, help="evaluations a run; default: 50")
    parser.add_argument("--json", type=Path, help="where to write every seed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found: list[dict[str, Any]] = []
    for name in args.problems:
        print(f"{name}:")
        problem = PROBLEMS[name]()
        for method in args.methods:
            start, curves = time.process_time(), []
            for seed in range(args.seeds):
                curves.append(curve(problem, method, seed, args.budget))
                if method == "ax":  # a seed takes a minute or more: shown as it comes
                    print(f"    seed {seed}: {'  '.join(f'{share:.1f}' for share in curves[-1])}", flush=True)
            seconds = (time.process_time() - start) / (len(curves) * args.budget)
            array, marks = np.array(curves), marks_of(args.budget)
            if method == args.methods[0]:
                first = array
            shown = "  ".join(
                f"@{m} {np.median(array[:, j]):5.1f} [{array[:, j].min():.1f}, {array[:, j].max():.1f}]" for j, m in enumerate(marks)
            )
            print(f"  {method:<8} {len(curves)} seeds  {shown}  {seconds:.3f} CPU s a proposal", flush=True)
            if method != args.methods[0] and args.seeds > 1:
                ahead = "  ".join(f"@{m} {paired(d)}" for m, d in zip(marks, (first - array).T, strict=True))
                print(f"           {args.methods[0]} less {method}: {ahead}", flush=True)
            found.append({"problem": name, "method": method, "marks": marks, "share": curves, "cpu_s_per_proposal": seconds})
            if args.json:
                args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
