"""What a warm start saves: evaluations to a share of the true hypervolume, with and without other studies.

    python benchmarks/search.py transfer --json FILE

Two settings. The stand-in with prior workloads of another quality; and NAS-Bench-BERT's real architectures on edge22, where the
study of one task (MNLI or GLUE) is the prior of the other (data and approximate costs: benchmarks/noise.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from contest import curve, tasks  # sets one thread, before numpy

import numpy as np  # isort: skip

PRIOR_TRIALS = 30


def stand_in(seeds: Any = range(9)) -> list[dict[str, Any]]:
    """Evaluations to 95 % of the true hypervolume with 0, 1, 2, 4 prior workloads of 30 trials each, random or by nested search.

    Prior workloads are the stand-in with another quality: accuracy saturates sooner or later in each dimension.
    """
    from dse.quality.evaluators import FunctionEvaluator
    from dse.strategies import make
    from dse.strategies.nested import NestedSearch
    from dse.strategies.protocol import simulate
    from dse.strategies.transfer import Prior

    t = tasks()
    ref, true = t.reference_point(), t.standin_module().TRUE_HYPERVOLUME
    view = t.standin_nested()
    found = []
    for count, kind in ((0, "random"), (1, "random"), (2, "random"), (4, "random"), (1, "nested"), (2, "nested"), (4, "nested")):
        needed, at10 = [], []
        for seed in seeds:
            priors = []
            for w in range(count):
                rates = np.random.default_rng([seed, w]).uniform(0.6, 1.6, 3)

                def quality(p: dict[str, Any], fidelity: float, trial_seed: int, rates: Any = rates) -> float:
                    return saturating(p, rates)

                other = replace(view, evaluator=FunctionEvaluator(quality, ("accuracy",)))
                priors.append(simulate(other, make(kind), budget=PRIOR_TRIALS, seed=100 + 10 * seed + w))
            strategy = NestedSearch(prior=Prior.of(priors, "accuracy") if count else None)
            shares = curve(view, simulate(view, strategy, budget=40, seed=seed), ref, true)
            needed.append(_first(shares, 0.95))
            at10.append(100 * shares[9])
        print(f"  {count} prior workloads, {kind}: evaluations to 95 % median {np.median(needed):g}  {needed}  share @10 "
              f"{np.median(at10):.1f}", flush=True)  # fmt: skip
        found.append({"setting": "stand-in", "priors": count, "prior_trials": kind, "evaluations_to_95": needed, "share_at_10": at10})
    return found


def saturating(p: dict[str, Any], rates: Any) -> float:
    """The stand-in's quality with other rates of saturation in width, feed-forward width and depth (1, 1, 1: its own)."""
    d, f, n = 96 * p["hidden"] / 768, 384 * p["ffn"] / 3072, p["num_layers"] / 3.2
    return float(70 * (1 - 0.42 * np.exp(-2.2 * d * rates[0]) - 0.16 * np.exp(-1.8 * f * rates[1]) - 0.55 * np.exp(-n * rates[2])))


def _first(shares: list[float], level: float) -> int:
    """Evaluations after which a share is reached; one more than there were where it is not."""
    return next((k + 1 for k, share in enumerate(shares) if share >= level), len(shares) + 1)


def real_tasks(seeds: Any = range(15), budget: int = 48) -> list[dict[str, Any]]:
    """MNLI as the prior of GLUE and GLUE of MNLI: evaluations to 80, 90 and 95 % of the true hypervolume of quality and carbon."""
    import noise
    from scipy.stats import binomtest

    from dse.fronts.pareto import Front, hypervolume
    from dse.strategies import make
    from dse.strategies.nested import NestedSearch
    from dse.strategies.protocol import simulate
    from dse.strategies.transfer import Prior

    d = noise.data()
    scores = {"GLUE": d.glue, "MNLI": d.mnli}

    def task(name: str) -> Any:
        clean = noise.Scores(scores[name], scores[name], 0, noise.NOISE["none"])
        return noise.task_of(d.rows, clean, d.carbon)

    found = []
    for target, prior in (("GLUE", "MNLI"), ("MNLI", "GLUE")):
        index = np.arange(len(d.rows), dtype=np.int64)
        front = Front.of(index, index, np.stack([-scores[target], d.carbon], axis=1)).values
        reference = front.max(0) + 0.1 * np.ptp(front, axis=0)
        true = hypervolume(front, reference)
        cold: dict[float, list[int]] = {}
        for label, strategy, trials in (
            ("cold", "random", 0),
            (f"{prior}, 30 random", "random", 30),
            (f"{prior}, 30 nested", "nested", 30),
        ):
            needed: dict[float, list[int]] = {0.8: [], 0.9: [], 0.95: []}
            for seed in seeds:
                known = [simulate(task(prior), make(strategy), budget=trials, seed=500 + seed)] if trials else []
                view = task(target)
                run = simulate(view, NestedSearch(prior=Prior.of(known, "quality") if known else None), budget=budget, seed=seed)
                shares = [view.hypervolume(run[: k + 1], reference) / true for k in range(len(run))]
                for level, values in needed.items():
                    values.append(_first(shares, level))
            cold = cold or needed
            for level, values in needed.items():
                less = sum(w < c for w, c in zip(values, cold[level], strict=True))
                more = sum(w > c for w, c in zip(values, cold[level], strict=True))
                p = float(binomtest(less, less + more).pvalue) if less + more else 1.0
                found.append({"setting": f"NAS-Bench-BERT, {target}", "prior": label, "share": level, "evaluations": values,
                              "fewer_than_cold": less, "more_than_cold": more, "sign_test_p": p})  # fmt: skip
            shown = "  ".join(f"{level:.0%}: {np.median(values):g} {sorted(values)}" for level, values in needed.items())
            print(f"  {target} from {label:<18} evaluations to {shown}", flush=True)
    return found
