"""What descent on a differentiable cost model brings to a search of a large space, by CPU seconds and by exact evaluations.

python benchmarks/search.py amoo amoo-evaluations
"""

from __future__ import annotations

from typing import Any

from contest import cpu, tasks  # sets one thread, before numpy

import numpy as np  # isort: skip


def amoo(seconds: tuple[float, ...] = (1.0, 3.0), seeds: Any = range(5)) -> list[dict[str, Any]]:
    """Three objectives on the stand-in data-centre space at equal CPU seconds; gradient calls are in them."""
    import torch  # noqa: F401 - its import is not a search's cost
    from moocore import hypervolume as exact

    t = tasks()
    task = t.datacenter()
    names = ("amoo, pamoo", "amoo, equal weights", "amoo without descent", "nsga2 (population 100)", "random")
    fronts: dict[tuple[str, int, float], Any] = {}
    for seed in seeds:
        for limit in seconds:
            fronts[names[0], seed, limit] = _by_amoo(task, seed, limit, "pamoo")
            fronts[names[1], seed, limit] = _by_amoo(task, seed, limit, "equal")
            fronts[names[2], seed, limit] = _by_amoo(task, seed, limit, None)
            fronts[names[3], seed, limit] = _by_nsga2(task, seed, limit)
            fronts[names[4], seed, limit] = _by_random(task, seed, limit)
    everything = np.log(np.concatenate(list(fronts.values())))
    from dse_kernels.pareto import pareto_mask

    best = everything[pareto_mask(everything)]
    reference = best.max(0) + 0.1 * np.ptp(best, axis=0)
    true = exact(best, ref=reference)
    found = []
    for limit in seconds:
        for name in names:
            shares = [100 * exact(np.log(fronts[name, seed, limit]), ref=reference) / true for seed in seeds]
            found.append({"method": name, "cpu_s": limit, "share_of_best_known": shares})
            print(f"  {name:<26} {limit:g} CPU s  {np.median(shares):.2f}  " + " ".join(f"{s:.2f}" for s in shares), flush=True)
    return found


def amoo_evaluations(seeds: Any = range(5)) -> list[dict[str, Any]]:
    """The same space where exact evaluations are scarce: small rounds, exact evaluations counted, random gets the most of them."""
    from moocore import hypervolume as exact

    from dse.strategies.amoo import search as module
    from dse.strategies.drawing import draw_many

    task = tasks().datacenter()
    methods = {"amoo, pamoo": "pamoo", "amoo, camoo": "camoo", "amoo, equal weights": "equal", "amoo without descent": None}
    fronts: dict[tuple[str, int, int], Any] = {}
    counts: dict[tuple[str, int, int], int] = {}
    evaluate, descend = module.evaluate, module.descend
    count = [0]

    def counted(its_task: Any, rows: Any) -> Any:
        count[0] += len(rows)
        return evaluate(its_task, rows)

    module.evaluate = counted
    try:
        for seed in seeds:
            for name, rule in methods.items():
                module.descend = descend if rule else (lambda relaxed, starts, *_, **__: starts)
                strategy = module.AmooSearch(rule=rule or "pamoo", starts=16, draws=4, polish_evaluations=200)
                count[0] = 0
                for rounds in (1, 2):
                    fronts[name, seed, rounds] = strategy.front(task, seed, rounds).values
                    counts[name, seed, rounds] = count[0]
    finally:
        module.evaluate, module.descend = evaluate, descend
    for seed in seeds:
        for rounds in (1, 2):
            most = max(counts[name, seed, rounds] for name in methods)
            rows = draw_many(task, np.random.default_rng(seed), most)
            fronts["random", seed, rounds] = module.ExactFront.empty(task).merged(*evaluate(task, rows)).values
            counts["random", seed, rounds] = most
    best = np.log(np.concatenate(list(fronts.values())))
    from dse_kernels.pareto import pareto_mask

    best = best[pareto_mask(best)]
    reference = best.max(0) + 0.1 * np.ptp(best, axis=0)
    true = exact(best, ref=reference)
    found = []
    for rounds in (1, 2):
        for name in (*methods, "random"):
            shares = [100 * exact(np.log(fronts[name, seed, rounds]), ref=reference) / true for seed in seeds]
            used = [counts[name, seed, rounds] for seed in seeds]
            found.append({"method": name, "exact_evaluations": used, "share_of_best_known": shares})
            print(f"  {name:<22} {np.median(used):6.0f} exact evaluations  {np.median(shares):.1f}  "
                  + " ".join(f"{x:.1f}" for x in shares), flush=True)  # fmt: skip
    return found


def _by_amoo(task: Any, seed: int, seconds: float, rule: str | None) -> Any:
    from dse.strategies.amoo import search as module

    strategy = module.AmooSearch(rule=rule or "pamoo")
    descend = module.descend
    if rule is None:
        module.descend = lambda relaxed, starts, *_, **__: starts
    try:
        start, rounds = cpu(), 0
        while cpu() - start < seconds:
            rounds += 1
            front = strategy.front(task, seed, rounds)
    finally:
        module.descend = descend
    return front.values


def _by_random(task: Any, seed: int, seconds: float) -> Any:
    from dse.strategies.amoo.search import ExactFront, evaluate

    rng, start, front = np.random.default_rng(seed), cpu(), ExactFront.empty(task)
    while cpu() - start < seconds:
        front = front.merged(*evaluate(task, rng.integers(0, np.array(task.space.shape), size=(8192, len(task.space.shape)))))
    return front.values


def _by_nsga2(task: Any, seed: int, seconds: float) -> Any:
    """pymoo at its best: vectorised evaluation, every design it evaluated archived after the clock has stopped."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    from dse.strategies.amoo.search import ExactFront, evaluate

    asked: list[Any] = []

    class Wrapped(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            upper = np.array(task.space.shape) - 1
            super().__init__(n_var=len(upper), n_obj=len(task.objectives), n_ieq_constr=len(task.constraints), xl=0, xu=upper,
                             vtype=int)  # fmt: skip

        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            x = x.astype(int)
            asked.append(x)
            metrics = task.known(task.space.columns(x))
            out["F"] = np.log(np.stack([metrics[o.metric] for o in task.objectives], axis=1))
            out["G"] = np.stack([metrics[c.metric] / c.bound - 1 for c in task.constraints], axis=1)

    algorithm = NSGA2(
        pop_size=100,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    start = cpu()
    algorithm.setup(Wrapped(), termination=("n_gen", 10**9), seed=seed, verbose=False)
    while cpu() - start < seconds:
        algorithm.next()
    return ExactFront.empty(task).merged(*evaluate(task, np.concatenate(asked))).values
