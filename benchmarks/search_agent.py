"""A learning agent as a search strategy (`bandit`) against nested, amoo, NSGA-II and random, at equal evaluations, every seed shown.

    python benchmarks/search_agent.py [nested] [large] [--json FILE]

nested: the stand-in of benchmarks/search.py, a trial a model with exact hardware. large: accelerators of `datacenter` for BERT-base,
200 exact evaluations of whole designs (total carbon, latency); shares of the hypervolume of the best known front (all methods and seeds
together), objectives by logarithm, reference a tenth of its range beyond its nadir.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import contest
import numpy as np
from dse_kernels.pareto import pareto_mask
from moocore import hypervolume

from dse.evaluation.words import make_problem
from dse.searches import large_space
from dse.storage.trials import TrialStore
from dse.strategies import make

BUDGET = 200
LARGE = ("amoo", "bandit", "nsga2", "random")
LARGE_SEEDS = range(5)


def nested() -> list[dict[str, Any]]:
    """Models as trials: share of the true hypervolume after 10, 15, 25 and 50."""
    tasks = contest.tasks()
    tasks.standin_inner()
    view, reference, true = tasks.standin_nested(), tasks.reference_point(), tasks.standin_module().TRUE_HYPERVOLUME
    methods: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("nested", "nested", {}),
        ("bandit, Thompson", "bandit", {}),
        ("bandit, epsilon", "bandit", {"exploration": "epsilon"}),
        ("nsga2, population 10", "nsga2", {"population": 10}),
        ("random", "random", {}),
    )
    return [
        contest.strategy_row(name, lambda: view, lambda s=strategy, o=options: make(s, **o), 50, contest.SEEDS, reference, true)
        for name, strategy, options in methods
    ]


def large() -> list[dict[str, Any]]:
    """Designs as trials, too many to sweep: share of the best known hypervolume after 200."""
    problem = make_problem(
        "bert", ["min:total_kgco2e", "min:latency_s"], hw="datacenter", fixed={"layers": 12, "hidden": 768}, residency="none"
    )
    fronts: dict[tuple[str, int], Any] = {}
    for seed in LARGE_SEEDS:
        for name in LARGE:
            view = large_space.large_view(problem, threads=1)
            strategy, _ = large_space.strategy_of(view, name)
            with tempfile.TemporaryDirectory() as folder:
                store = TrialStore.open(Path(folder) / "trials.db")
                large_space.run(view, store, strategy, budget=BUDGET, seed=seed, batch=10)
                fronts[name, seed] = view.task.points(store.trials())[0]
    return shares(fronts)


def shares(fronts: dict[tuple[str, int], Any]) -> list[dict[str, Any]]:
    """Shares of the best known hypervolume by method, printed and returned."""
    everything = np.log(np.concatenate([np.asarray(front) for front in fronts.values()]))
    best = everything[pareto_mask(everything)]
    reference = best.max(0) + 0.1 * np.ptp(best, axis=0)
    whole = hypervolume(best, ref=reference)
    rows = []
    for name in LARGE:
        own = [100 * hypervolume(np.log(np.asarray(front)), ref=reference) / whole for (n, _), front in fronts.items() if n == name]
        rows.append({"method": name, "evaluations": BUDGET, "share_of_best_known": own})
        print(f"  {name:<10} {np.median(own):5.1f} [{min(own):.1f}, {max(own):.1f}]", flush=True)
    return rows


SECTIONS = {"nested": nested, "large": large}


def main() -> None:
    """Run the sections that are named, all if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default="all", choices=[*SECTIONS, "all"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {}
    for name in SECTIONS if "all" in args.sections else args.sections:
        print(f"{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}", flush=True)
        found[name] = SECTIONS[name]()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
