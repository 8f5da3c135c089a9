"""A search with measured quality against random models, and what looks and rungs of low fidelity save.

    python benchmarks/measured_search.py run --cache runs/measured_search      # 20 CPU minutes; carries on where it was broken off
    python benchmarks/measured_search.py report --cache runs/measured_search   # from what is kept

``run`` is ``dse search --workload minilm --quality measured:minilm --objective carbon --budget 40``: three quarters of the budget are looks
(pruned, not healed), a quarter is healed and measured, and measurements alone make the front. The contender draws the models of
the looks at random and measures its best ones; hardware is exact for both, and a model's figure is the same whoever asks
(one healing seed), so that all runs share one store of figures. ``halving`` is the first with a rung at a quarter of the fidelity between
(``--fidelities 0.25``), its budget the same 40. Hypervolume: quality up, total carbon down, bounded by the same point for all (the nadir of
the front of everything measured, moved out by a tenth of its range). The rule of what is measured was first tried on a smooth stand-in made
of figures of earlier runs.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

from dse.evaluation.evaluation import Evaluation  # noqa: E402
from dse.evaluation.words import make_problem  # noqa: E402
from dse.fronts.pareto import Front, hypervolume  # noqa: E402
from dse.quality import evaluators  # noqa: E402
from dse.quality.measured import Evaluator, Measured, design_key  # noqa: E402
from dse.searches.measured_search import search  # noqa: E402
from dse.searches.plan import MeasuredSettings, screened  # noqa: E402
from dse.storage.trials import TrialStore  # noqa: E402
from dse.strategies.views import nested_task  # noqa: E402

STRATEGIES = ("nested", "random")
RUNG = 0.25
RATE = 0.001  # of healing: that of the figures that are kept
MARGIN = 0.1


@dataclass(frozen=True)
class Shared:
    """An evaluator whose figures are kept in a folder for whoever asks next: one healing seed, no checkpoints."""

    inner: Any

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.inner.metrics

    def __call__(self, parameters: Mapping[str, Any], *, fidelity: float, seed: int) -> dict[str, Measured]:
        found = self.inner(parameters, fidelity=fidelity, seed=0)
        for model in Path(self.inner.folder).glob("*/model"):
            shutil.rmtree(model)
        return found


def shared(word: str, cache: Path) -> Evaluator:
    """The evaluator of a word, its figures kept in ``cache``."""
    from dataclasses import replace

    return Shared(replace(evaluators.parse(word, workload="minilm"), folder=str(cache / "figures")))


def problem_of_minilm() -> Any:
    # Every operation by itself, as in the figures of docs/measured-quality.md.
    return make_problem("minilm", "carbon", space="pruned", keep_quality=True, residency="none")


def run(cache: Path, *, steps: int, budget: int, seeds: int, strategies: tuple[str, ...]) -> None:
    """Every strategy and seed; trials are kept as JSON, figures by what decides them."""
    cache.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(problem_of_minilm())
    for seed in range(seeds):
        for strategy in strategies:
            place = cache / f"{strategy}-{seed}.json"
            if place.exists():
                continue
            rungs = (RUNG,) if strategy == "halving" else ()
            plan = screened(MeasuredSettings(quality=f"measured:minilm?steps={steps}&rate={RATE}", budget=budget, fidelities=rungs))
            store = TrialStore.open(cache / f"{strategy}-{seed}.db")
            found = search(evaluation, store, shared(plan.quality, cache), strategy="random" if strategy == "random" else "nested",
                           budget=plan.budget, seed=seed, proxy=shared(plan.proxy, cache), proxy_top=plan.proxy_top,
                           fidelities=plan.fidelities)  # fmt: skip
            trials = [{"parameters": dict(t.parameters), "fidelity": t.fidelity, "quality": t.metrics["quality"].mean,
                       "se": t.metrics["quality"].se} for t in found.trials if t.done]  # fmt: skip
            record = {"strategy": strategy, "seed": seed, "steps": steps, "budget": budget, "trials": trials,
                      "rank_correlation": found.proxy.spearman if found.proxy else None}  # fmt: skip
            place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(f"{strategy} {seed}: {len(trials)} trials", flush=True)


def costs_of(cache: Path) -> dict[str, float]:
    """Mean CPU seconds of a look, a measurement at the rung's fidelity and a whole one, from the records of the figures."""
    found: dict[str, list[float]] = {}
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (cache / "figures").glob("*/record.json")]
    most = max(r["items"] for r in records if "unpruned" in r)
    for r in records:
        kind = "look" if "unpruned" not in r else "whole" if r["items"] == most else "rung"
        found.setdefault(kind, []).append(r["cpu_s"])
    return {kind: float(np.mean(seconds)) for kind, seconds in found.items()}


def runs_of(cache: Path) -> list[dict[str, Any]]:
    """The runs that are kept."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(cache.glob("*-*.json"))]


def measurements(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every model that was healed and measured, once."""
    found = {design_key(t["parameters"]): t for r in runs for t in r["trials"] if t["fidelity"] == 1.0}
    return list(found.values())


class Yardstick:
    """Objective values of measured models on their exact hardware, and the hypervolume that all runs are judged by."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.task = nested_task(Evaluation(problem_of_minilm()), evaluators.parse("surrogate", workload="minilm"))
        every = self.values(measurements(runs))
        index = np.arange(len(every), dtype=np.int64)
        front = Front.of(index, index, every).values
        low, high = front.min(0), front.max(0)
        self.reference = high + MARGIN * (high - low)
        self.best = hypervolume(every, self.reference)

    def values(self, trials: list[dict[str, Any]]) -> Any:
        inner = self.task.inner
        rows = []
        for trial in trials:
            for cost in inner.fronts[self.task.position(trial["parameters"])]:
                rows.append((-trial["quality"], *cost))
        return np.array(rows)

    def share(self, trials: list[dict[str, Any]]) -> float:
        """Hypervolume of measured models, as a share of that of everything measured in all runs."""
        return hypervolume(self.values(trials), self.reference) / self.best


def report(cache: Path) -> dict[str, Any]:
    """Hypervolume and CPU seconds by seed and strategy."""
    runs, costs = runs_of(cache), costs_of(cache)
    yard = Yardstick(runs)
    rows: dict[int, dict[str, float]] = {}
    print(", ".join(f"a {kind} {seconds:.1f} CPU s" for kind, seconds in costs.items()))
    for r in runs:
        own = [t for t in r["trials"] if t["fidelity"] == 1.0]
        looks, rung = (sum(t["fidelity"] == low for t in r["trials"]) for low in (0.0, RUNG))
        rows.setdefault(r["seed"], {})[r["strategy"]] = yard.share(own)
        spent = looks * costs["look"] + rung * costs.get("rung", 0.0) + len(own) * costs["whole"]
        all_whole = (looks or len(own)) * costs["whole"]
        print(f"seed {r['seed']} {r['strategy']:<7} {looks} looks, {rung} at {RUNG:g}, {len(own)} healed {r['steps']} steps: hypervolume "
              f"{100 * yard.share(own):5.1f} %, best quality {max(t['quality'] for t in own):.4f}, rank correlation of looks and "
              f"measurements {r['rank_correlation']:.2f}; {spent:.0f} CPU s (all of the first step wholly: {all_whole:.0f})")  # fmt: skip
    both = [row for row in rows.values() if {"nested", "random"} <= set(row)]
    wins = sum(row["nested"] > row["random"] for row in both)
    print(f"nested above random on {wins} of {len(both)} seeds; {len(measurements(runs))} models measured in all")
    return {"hypervolume": rows, "wins": wins, "costs": costs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--steps", type=int, default=60)
    one.add_argument("--budget", type=int, default=40)
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--strategies", default=",".join(STRATEGIES), help="also halving")
    two = commands.add_parser("report")
    for sub in (one, two):
        sub.add_argument("--cache", type=Path, default=Path("runs/measured_search"))
    args = parser.parse_args()
    if args.command == "run":
        run(args.cache, steps=args.steps, budget=args.budget, seeds=args.seeds, strategies=tuple(args.strategies.split(",")))
    report(args.cache)
    sys.exit(0)
