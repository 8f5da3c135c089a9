"""A search with measured quality against random models, and what designing for carbon saves at equal measured quality.

    python benchmarks/measured_search.py run --steps 60 --budget 40 --seeds 3 --cache runs/measured_search # 20 CPU minutes
    python benchmarks/measured_search.py report --cache runs/measured_search  # from what is kept
    python benchmarks/measured_search.py halving --cache runs/measured_search  # rungs against whole measurements
    python benchmarks/measured_search.py claim --cache runs/measured_search  # carbon against latency designs

``run`` is ``dse search --workload minilm --quality measured:minilm --objective carbon --budget 40``: three quarters of the budget are looks
(pruned, not healed), the best quarter is healed and measured, and measurements alone make the front. The contender draws the models of
the looks at random; what is healed is chosen by the same rule, hardware is exact for both, and a model's figure is the same whoever asks
(one healing seed), so that all runs share one store of figures. Hypervolume: quality up, total carbon down, bounded by the same point for
all (the nadir of the front of everything measured, moved out by a tenth of its range). Nothing was tuned here.
"""

import argparse
import json
import os
import shutil
import sys
import time
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
    return make_problem("minilm", "carbon", space="pruned", keep_quality=True)


def run(cache: Path, *, steps: int, budget: int, seeds: int) -> None:
    """Every strategy and seed; trials are kept as JSON, figures by what decides them."""
    cache.mkdir(parents=True, exist_ok=True)
    plan = screened(MeasuredSettings(quality=f"measured:minilm?steps={steps}", budget=budget))
    evaluation = Evaluation(problem_of_minilm())
    for seed in range(seeds):
        for strategy in STRATEGIES:
            place = cache / f"{strategy}-{seed}.json"
            if place.exists():
                continue
            began = time.process_time()
            store = TrialStore.open(cache / f"{strategy}-{seed}.db")
            found = search(evaluation, store, shared(plan.quality, cache), strategy=strategy, budget=plan.budget, seed=seed,
                           proxy=shared(plan.proxy, cache), proxy_top=plan.proxy_top)  # fmt: skip
            trials = [{"parameters": dict(t.parameters), "fidelity": t.fidelity, "quality": t.metrics["quality"].mean,
                       "se": t.metrics["quality"].se} for t in found.trials if t.done]  # fmt: skip
            record = {"strategy": strategy, "seed": seed, "steps": steps, "budget": budget, "trials": trials,
                      "rank_correlation": found.proxy.spearman if found.proxy else None, "cpu_s": time.process_time() - began}  # fmt: skip
            place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(f"{strategy} {seed}: {len(trials)} trials, {record['cpu_s']:.0f} CPU s of its own", flush=True)


def runs_of(cache: Path) -> list[dict[str, Any]]:
    """The runs that are kept."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(cache.glob("*-*.json"))]


def measurements(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every model that was healed and measured, once."""
    found = {design_key(t["parameters"]): t for r in runs for t in r["trials"] if t["fidelity"] > 0}
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
    """Hypervolume by seed and strategy."""
    runs = runs_of(cache)
    yard = Yardstick(runs)
    rows: dict[int, dict[str, float]] = {}
    for r in runs:
        own = [t for t in r["trials"] if t["fidelity"] > 0]
        rows.setdefault(r["seed"], {})[r["strategy"]] = yard.share(own)
        looks = len(r["trials"]) - len(own)
        print(f"seed {r['seed']} {r['strategy']:<7} {looks} looks, {len(own)} healed {r['steps']} steps: hypervolume "
              f"{100 * yard.share(own):5.1f} %, best quality {max(t['quality'] for t in own):.4f}, rank correlation of looks and "
              f"measurements {r['rank_correlation']:.2f}")  # fmt: skip
    wins = sum(row["nested"] > row["random"] for row in rows.values() if len(row) == len(STRATEGIES))
    print(f"nested above random on {wins} of {len(rows)} seeds; {len(measurements(runs))} models measured in all")
    return {"hypervolume": rows, "wins": wins}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--steps", type=int, default=60)
    one.add_argument("--budget", type=int, default=40)
    one.add_argument("--seeds", type=int, default=3)
    two = commands.add_parser("report")
    for sub in (one, two):
        sub.add_argument("--cache", type=Path, default=Path("runs/measured_search"))
    args = parser.parse_args()
    if args.command == "run":
        run(args.cache, steps=args.steps, budget=args.budget, seeds=args.seeds)
    report(args.cache)
    sys.exit(0)
