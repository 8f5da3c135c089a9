"""Noise, and what a proxy brings back: real architectures with real scores, exact costs on edge22, injected noise.

    python benchmarks/noise.py                    # both parts, 30 seeds: some 10 CPU minutes
    python benchmarks/noise.py --seeds 5          # the shape of it
    python benchmarks/noise.py --json FILE        # every seed

The question of Kuo and others, *On Noisy Evaluation in Federated Hyperparameter Tuning* (MLSys 2023): do methods that are ahead
of random search keep their lead when evaluations are noisy, and does a clean public proxy bring it back?

Architectures: NAS-Bench-BERT (tests/reference/search/nas_bench_bert.csv), 500 measured ones, equal descriptors averaged: 299.
Quality is GLUE; the public proxy is MNLI. Cost is the least total carbon of an architecture over the 3,240 accelerators of
edge22 under its default constraints, **approximate**: the benchmark publishes averages over an architecture's layers, so it is
costed as an encoder with its layers and width, 2 or 4 heads (the nearer to the mean) and a feed-forward width of mean width x
mean number of networks; layers without self-attention are costed as if they had it.

Noise is **injected**: 1,000 clients whose views of one architecture have a standard deviation of 8 points; an evaluation asks
some of them. What an evaluation costs does not depend on how many answer.

Hyperband's lower fidelity is real: MNLI, one of GLUE's eight tasks, at an eighth of the price, under the same noise (in the
paper too, asking few clients is no cheaper at few training rounds). The data have no learning curves, so there are two rungs.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings
import numpy.typing as npt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FloatArray = npt.NDArray[np.float64]
MARKS = (16, 32, 64)
NAMES = ("hidden", "layers", "mean_heads", "mean_ffn_or_ratio", "n_ffn_mean", "frac_self_attention")
CLIENTS, CLIENT_SD = 1000, 8.0
# An evaluation of the lower rung is one of GLUE's eight tasks.
RUNG_PRICE = 1 / 8
NOISE: dict[str, dict[str, Any]] = {
    "none": {"clients_asked": CLIENTS, "heterogeneity": 0.0},
    "10 clients": {"clients_asked": 10},
    "3 clients": {"clients_asked": 3},
    "1 client": {"clients_asked": 1},
    "10 clients, epsilon 5 an evaluation": {"clients_asked": 10, "epsilon": 5.0},
    "10 clients, bias 1.5": {"clients_asked": 10, "bias": 1.5},
}


@dataclass(frozen=True)
class Data:
    """Architectures: descriptors (n, 6), GLUE and MNLI (n,) in points, least carbon on edge22 (n,) in kg."""

    rows: FloatArray
    glue: FloatArray
    mnli: FloatArray
    carbon: FloatArray
    published_parameters: FloatArray
    costed_parameters: FloatArray

    @property
    def price(self) -> FloatArray:
        """What carbon takes from an architecture's score, in points: as much over the range of the true front as quality gives."""
        front = self.front()
        low, high = np.log(front[:, 1].min()), np.log(front[:, 1].max())
        return np.asarray(np.ptp(front[:, 0]) * (np.log(self.carbon) - low) / (high - low))

    def front(self) -> FloatArray:
        """True front: (-GLUE, carbon)."""
        from dse.fronts.pareto import Front

        index = np.arange(len(self.rows), dtype=np.int64)
        return Front.of(index, index, np.stack([-self.glue, self.carbon], axis=1)).values


@functools.lru_cache(maxsize=1)
def data() -> Data:
    """Read the scores and cost the architectures (some 1 CPU s)."""
    path = ROOT / "tests" / "reference" / "search" / "nas_bench_bert.csv"
    groups: dict[tuple[float, ...], dict[str, list[float]]] = {}
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(x for x in file if not x.startswith("#")):
            found = groups.setdefault(tuple(float(line[n]) for n in NAMES), {})
            found.setdefault(line["metric"], []).append(float(line["value"]))
            found.setdefault("params", []).append(float(line["params"]))
    rows = np.array(sorted(groups))
    mean = {m: np.array([np.mean(groups[tuple(r)][m]) for r in rows]) for m in ("glue", "mnli", "params")}
    carbon, parameters = _costs(rows)
    return Data(rows, mean["glue"], mean["mnli"], carbon, mean["params"], parameters)


def _costs(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least total carbon of each architecture over edge22 [kg], and the parameters of what was costed."""
    from dse import api
    from dse.evaluation.evaluation import Evaluation, Space, build_space, load_family, load_hardware
    from dse.quality.evaluators import SurrogateEvaluator
    from dse.strategies.views import nested_task

    hidden, layers, heads, ffn, networks, _ = rows.T
    columns = np.stack([layers, hidden, np.where(heads >= 3, 4, 2), np.round(ffn * networks)], axis=1).astype(np.int64)
    distinct, at = np.unique(columns, axis=0, return_inverse=True)
    models = {name: distinct[:, j] for j, name in enumerate(("layers", "hidden", "heads", "ffn"))}
    problem = api.make_problem("bert", "carbon", space="catransformers")
    base = build_space(problem, load_family(problem), load_hardware(problem))
    evaluation = Evaluation(problem, space=Space(models, base.hardware, 0, base.settings), threads=1)
    inner = nested_task(evaluation, SurrogateEvaluator("bert")).inner
    assert inner is not None
    return np.array([front[0, 0] for front in inner.fronts])[at], np.asarray(evaluation.parameters)[at]


@dataclass(frozen=True)
class Event:
    """One full evaluation: what had been paid when it was there, the architecture, and its noisy figure."""

    paid: float
    row: int
    value: float


class Scores:
    """Noisy figures of architectures; ``value`` is what is measured of each at full fidelity, ``low`` at the lower rung."""

    def __init__(self, value: FloatArray, low: FloatArray, seed: int, settings: dict[str, Any]) -> None:
        from dse.quality.noise import NoisyEvaluator

        self.value, self.low, self.seed, self.asked = value, low, seed, 0
        more = {"clients": CLIENTS, "heterogeneity": CLIENT_SD, "population_seed": seed, **settings}
        self.noisy = {which: NoisyEvaluator(_Table(figures), **more) for which, figures in (("full", value), ("low", low))}

    def ask(self, row: int, which: str = "full") -> tuple[float, float]:
        """Mean and standard error of an architecture; every call asks other clients."""
        self.asked += 1
        found = self.noisy[which]({"row": row}, fidelity=1.0, seed=self.seed * 100_000 + self.asked)["quality"]
        return found.mean, found.se


@dataclass(frozen=True)
class _Table:
    figures: FloatArray
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Any, *, fidelity: float, seed: int) -> dict[str, Any]:
        from dse.quality.measured import Measured

        return {"quality": Measured(float(self.figures[int(parameters["row"])]))}


class _Snap:
    """Nearest architecture, not yet measured, to a point given by value indices."""

    def __init__(self, rows: FloatArray) -> None:
        self.values = [np.unique(column) for column in rows.T]
        self.codes = np.stack([np.searchsorted(v, c) / (len(v) - 1) for v, c in zip(self.values, rows.T, strict=True)], axis=1)
        self.free = np.ones(len(rows), dtype=bool)

    def suggest(self, trial: Any) -> int:
        """An Optuna trial's proposal, as an architecture."""
        index = [trial.suggest_int(name, 0, len(v) - 1) / (len(v) - 1) for name, v in zip(NAMES, self.values, strict=True)]
        distance = ((self.codes - np.array(index)) ** 2).sum(1)
        at = int(np.where(self.free, distance, np.inf).argmin())
        self.free[at] = False
        return at


def _random(rows: FloatArray, scores: Scores, seed: int, budget: int) -> list[Event]:
    order = np.random.default_rng([seed, 1]).permutation(len(rows))[:budget]
    return [Event(k + 1, int(i), scores.ask(int(i))[0]) for k, i in enumerate(order)]


def _quiet() -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _tpe(rows: FloatArray, scores: Scores, seed: int, budget: int) -> list[Event]:
    optuna, snap = _quiet(), _Snap(rows)
    events: list[Event] = []
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for k in range(budget):
        trial = study.ask()
        row = snap.suggest(trial)
        events.append(Event(k + 1, row, scores.ask(row)[0]))
        study.tell(trial, events[-1].value)
    return events


def _hyperband(rows: FloatArray, scores: Scores, seed: int, budget: int, *, tpe: bool) -> list[Event]:
    """Optuna's Hyperband with its default reduction by 3; what is pruned after the lower rung has cost an eighth."""
    optuna, snap, paid = _quiet(), _Snap(rows), 0.0
    events: list[Event] = []
    sampler = optuna.samplers.TPESampler(seed=seed) if tpe else optuna.samplers.RandomSampler(seed=seed)
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=8, reduction_factor=3)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    while paid < budget and snap.free.any():
        trial = study.ask()
        row = snap.suggest(trial)
        trial.report(scores.ask(row, "low")[0], 1)
        if trial.should_prune():
            paid += RUNG_PRICE
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # it keeps what was reported
            continue
        paid += 1.0
        value = scores.ask(row)[0]
        trial.report(value, 8)
        study.tell(trial, value)
        events.append(Event(paid, row, value))
    return events


def task_of(rows: FloatArray, scores: Scores, carbon: FloatArray | None) -> Any:
    """The architectures as a task of our strategies: quality from ``scores``, the exact carbon of each where it is given."""
    from dse.problem.objectives import Objective
    from dse.spaces.parameters import Parameter, Space
    from dse.strategies.task import Inner, Task

    values = [np.unique(column) for column in rows.T]
    space = Space("nas-bench-bert", tuple(
        Parameter(name, tuple(v.tolist()), "model", "linear") for name, v in zip(NAMES, values, strict=True)
    ))  # fmt: skip
    table = np.stack([np.searchsorted(v, column) for v, column in zip(values, rows.T, strict=True)], axis=1)
    objectives = [Objective("max", "quality")]
    fronts = [np.zeros((1, 0)) for _ in rows]
    if carbon is not None:
        objectives.append(Objective("min", "total_kgco2e"))
        fronts = [np.array([[c]]) for c in carbon]
    inner = Inner(tuple(o.metric for o in objectives[1:]), fronts, [np.zeros(1, dtype=np.int64) for _ in rows])
    return Task("nas-bench-bert", space, tuple(objectives), _Asked(rows, scores), table=table, inner=inner)


class _Asked:
    """Scores as an evaluator of our strategies."""

    metrics = ("quality",)

    def __init__(self, rows: FloatArray, scores: Scores) -> None:
        self.position, self.scores = {tuple(r): i for i, r in enumerate(rows.tolist())}, scores

    def __call__(self, parameters: Any, *, fidelity: float, seed: int) -> dict[str, Any]:
        from dse.quality.measured import Measured

        return {"quality": Measured(*self.scores.ask(self.position[tuple(float(parameters[n]) for n in NAMES)]))}


def _nested(rows: FloatArray, scores: Scores, seed: int, budget: int, carbon: FloatArray | None = None) -> tuple[Any, list[Any]]:
    from dse.strategies import make
    from dse.strategies.protocol import simulate

    task = task_of(rows, scores, carbon)
    return task, simulate(task, make("nested"), budget=budget, seed=seed)


def _level(task: Any, trials: list[Any]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Architectures that were measured and their posterior means: a process never reports its largest noisy value."""
    from dse.strategies import make

    seen = make("nested").predict(task, trials)
    return np.asarray(task.row_numbers[seen.observed]), np.asarray(seen.level)


def _best(events: Sequence[Event], paid: float) -> int:
    """What a user would take who has paid so much: the best figure seen."""
    return max((e for e in events if e.paid <= paid), key=lambda e: e.value, default=events[0]).row


def _clean(found: Data, figures: FloatArray, seed: int) -> Scores:
    """The public proxy: no clients, no noise."""
    return Scores(figures, figures, seed, NOISE["none"])


def regret(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Points lost by the architecture that a method picks: true score, GLUE less the price of its carbon, below the best one's."""
    d = data()
    true, proxy = d.glue - d.price, d.mnli - d.price
    top = float(true.max())
    most = MARKS[-1]
    found = []
    for label, settings in NOISE.items():
        runs: dict[str, dict[int, list[float]]] = {}

        def note(method: str, picks: dict[int, int], into: dict[str, dict[int, list[float]]] = runs) -> None:
            for mark, row in picks.items():
                into.setdefault(method, {}).setdefault(mark, []).append(top - float(true[row]))

        for seed in seeds:
            methods: dict[str, Callable[[Scores], list[Event]]] = {
                "random": lambda s, k=seed: _random(d.rows, s, k, most),
                "TPE": lambda s, k=seed: _tpe(d.rows, s, k, most),
                "Hyperband": lambda s, k=seed: _hyperband(d.rows, s, k, most, tpe=False),
                "TPE with Hyperband": lambda s, k=seed: _hyperband(d.rows, s, k, most, tpe=True),
            }
            for method, on_target in methods.items():
                events = on_target(Scores(true, proxy, seed, settings))
                note(method, {mark: _best(events, mark) for mark in MARKS})
            task, trials = _nested(d.rows, Scores(true, proxy, seed, settings), seed, most)
            picks = {}
            for mark in MARKS:
                rows, level = _level(task, trials[:mark])
                picks[mark] = int(rows[int(np.argmax(level))])
            note("nested, told the noise", picks)
            for method, on_proxy in (("proxy: random, one shot", _random), ("proxy: TPE, one shot", _tpe)):
                events = on_proxy(d.rows, _clean(d, proxy, seed), seed, most)
                note(method, {mark: _best(events, mark) for mark in MARKS})
            note("proxy: TPE, best quarter measured", _quarter(d.rows, proxy, Scores(true, proxy, seed, settings), seed))
        found += _table("regret", label, runs, best="least")
    return found


def _quarter(rows: FloatArray, proxy: FloatArray, target: Scores, seed: int) -> dict[int, int]:
    """What `--proxy` does: three quarters of the evaluations on the proxy, the best of them measured by the rest."""
    picks = {}
    for mark in MARKS:
        top = mark // 4
        events = _tpe(rows, Scores(proxy, proxy, seed, NOISE["none"]), seed, mark - top)
        chosen = sorted(events, key=lambda e: -e.value)[:top]
        picks[mark] = max(chosen, key=lambda e: target.ask(e.row)[0]).row
    return picks


def hypervolume(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Share (%) of the true hypervolume of GLUE and carbon that the designs have which a method takes for its front."""
    from dse.fronts.pareto import hypervolume as volume

    d = data()
    front = d.front()
    reference = front.max(0) + 0.1 * np.ptp(front, axis=0)
    whole = volume(front, reference)
    most = MARKS[-1]

    def share(rows: Sequence[int], believed: Sequence[float]) -> float:
        """True hypervolume of the front that the believed figures show."""
        from dse.fronts.pareto import Front

        index = np.asarray(rows, dtype=np.int64)
        chosen = Front.of(index, index, np.stack([-np.asarray(believed), d.carbon[index]], axis=1)).models
        return 100 * volume(np.stack([-d.glue[chosen], d.carbon[chosen]], axis=1), reference) / whole

    found = []
    for label, settings in NOISE.items():
        runs: dict[str, dict[int, list[float]]] = {}
        for seed in seeds:
            for method, scores in (
                ("random", Scores(d.glue, d.mnli, seed, settings)),
                ("TPE, two objectives", Scores(d.glue, d.mnli, seed, settings)),
                ("proxy: random, one shot", _clean(d, d.mnli, seed)),
            ):
                events = (_tpe_pair if method.startswith("TPE") else _random)(d.rows, scores, seed, most)
                for mark in MARKS:
                    shown = events[:mark]
                    runs.setdefault(method, {}).setdefault(mark, []).append(share([e.row for e in shown], [e.value for e in shown]))
            for method, scores in (
                ("nested, told the noise", Scores(d.glue, d.mnli, seed, settings)),
                ("proxy: nested, one shot", _clean(d, d.mnli, seed)),
            ):
                task, trials = _nested(d.rows, scores, seed, most, d.carbon)
                for mark in MARKS:
                    rows, level = _level(task, trials[:mark])
                    runs.setdefault(method, {}).setdefault(mark, []).append(share(rows.tolist(), level.tolist()))
        found += _table("hypervolume", label, runs, best="most")
    return found


def _tpe_pair(rows: FloatArray, scores: Scores, seed: int, budget: int) -> list[Event]:
    optuna, snap = _quiet(), _Snap(rows)
    events: list[Event] = []
    carbon = data().carbon
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed))
    for k in range(budget):
        trial = study.ask()
        row = snap.suggest(trial)
        events.append(Event(k + 1, row, scores.ask(row)[0]))
        study.tell(trial, [events[-1].value, float(carbon[row])])
    return events


def _table(measure: str, noise: str, runs: dict[str, dict[int, list[float]]], *, best: str) -> list[dict[str, Any]]:
    """Print and return one noise level: every seed, and each method against random search seed by seed."""
    from scipy.stats import binomtest

    found = []
    sign = 1 if best == "most" else -1
    for method, marks in runs.items():
        for mark, values in marks.items():
            against = sign * (np.array(values) - np.array(runs["random"][mark]))
            wins, losses = int((against > 1e-12).sum()), int((against < -1e-12).sum())
            p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
            found.append({"measure": measure, "noise": noise, "method": method, "evaluations": mark, "values": values,
                          "better_than_random": wins, "worse_than_random": losses, "sign_test_p": p})  # fmt: skip
    for method, marks in runs.items():
        shown = "  ".join("@{} {:6.2f} [{:.2f}, {:.2f}]".format(m, *np.percentile(v, [50, 25, 75])) for m, v in marks.items())
        last = next(r for r in found if r["method"] == method and r["evaluations"] == MARKS[-1])
        test = f"{last['better_than_random']}:{last['worse_than_random']} p={last['sign_test_p']:.3g}"
        print(f"  {noise:<36} {method:<36} {shown}  against random @{MARKS[-1]} {test}", flush=True)
    return found


def noise(seeds: Sequence[int] = range(30)) -> list[dict[str, Any]]:
    """Six levels of noise: regret of one pick by every method, and hypervolume by those that take two objectives."""
    from scipy.stats import spearmanr

    d = data()
    facts = {
        "architectures": len(d.rows),
        "glue_sd": float(d.glue.std()),
        "score_sd": float((d.glue - d.price).std()),
        "mnli_glue_rank_correlation": float(spearmanr(d.mnli, d.glue).statistic),
        "proxy_score_rank_correlation": float(spearmanr(d.mnli - d.price, d.glue - d.price).statistic),
        "costed_published_parameters_rank_correlation": float(spearmanr(d.costed_parameters, d.published_parameters).statistic),
        "true_front": len(d.front()),
    }
    print("  " + json.dumps(facts), flush=True)
    print("  regret in points: median [quartiles]", flush=True)
    found: list[dict[str, Any]] = [{"measure": "facts", **facts}, *regret(seeds)]
    print("  share of the true hypervolume, %: median [quartiles]", flush=True)
    return found + hypervolume(seeds)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    found = noise(range(args.seeds))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
