"""Bits a product of a whole model: a space that neither listing nor local search reaches.

python benchmarks/search.py precision
"""

from __future__ import annotations

from typing import Any

import numpy as np

BITS = (2, 3, 4, 6, 8)


class _Precision:
    """Bits of each product of BERT-base (12 layers x 6): 5^72 = 2e50 designs, a stand-in with plausible constants.

    Energy: products of 128 tokens, growing with the square of the bits, and DRAM for the weights that 16 MB do not hold (so layers are
    coupled). Error: what rounding to b bits leaves, 4^-b times a sensitivity a layer, log-normal, drawn once.
    """

    layers, product_j, dram_j_per_byte, on_chip_bytes = 72, 128 * 0.02e-12, 100e-12, 16e6
    weights = np.tile([768.0 * 768] * 4 + [768.0 * 3072] * 2, 12)
    sensitivity = np.random.default_rng(11).lognormal(0.0, 1.5, 72)

    def costs(self, bits: Any, weights: Any, sensitivity: Any, positive: Any) -> dict[str, Any]:
        """Of bits (layers, ...) and columns (layers, 1)."""
        stored = (weights * bits / 8).sum(0)
        energy = (weights * self.product_j * bits * bits).sum(0) + positive(stored - self.on_chip_bytes) * self.dram_j_per_byte
        return {"energy": energy, "error": (sensitivity * 4.0 ** (-bits)).sum(0)}

    def task(self) -> Any:
        """All costs known, and relaxed."""
        from dse.problem.objectives import Objective
        from dse.spaces.parameters import Parameter, Space
        from dse.strategies.task import Task

        names = [f"bits_{i}" for i in range(self.layers)]

        def known(columns: Any) -> dict[str, Any]:
            bits = np.stack([np.asarray(columns[name], dtype=float) for name in names])
            return self.costs(bits, self.weights[:, None], self.sensitivity[:, None], lambda x: np.maximum(x, 0.0))

        def relaxed(columns: Any) -> dict[str, Any]:
            import torch

            bits = torch.stack([columns[name] * 1.0 for name in names])
            shape = (self.layers,) + (1,) * (bits.ndim - 1)
            own = (torch.as_tensor(column).reshape(shape) for column in (self.weights, self.sensitivity))
            return self.costs(bits, *own, lambda x: torch.nn.functional.softplus(x / 1e6) * 1e6)

        space = Space("precision", tuple(Parameter(name, BITS, "hardware", "log") for name in names))
        objectives = (Objective("min", "energy"), Objective("min", "error"))
        return Task("precision", space, objectives, known=known, known_metrics=("energy", "error"), relaxed=relaxed)

    def by_layer(self) -> Any:
        """Designs that minimise energy + lambda error layer by layer, 200 of them: exact where all adds over layers."""
        bits = np.array(BITS, dtype=float)
        rows = []
        for extra in (0.0, self.dram_j_per_byte):
            energy = self.weights[:, None] * (self.product_j * bits**2 + extra * bits / 8)
            rows += [np.argmin(energy + x * self.sensitivity[:, None] * 4.0**-bits, axis=1) for x in np.logspace(-12, 0, 100)]
        return np.unique(np.array(rows), axis=0)


def precision(seeds: Any = range(5)) -> list[dict[str, Any]]:
    """Precision a layer, 2e50 designs: descent, local search alone, evolution, chance, and layer by layer; exact evaluations counted."""
    from dse_kernels.pareto import pareto_mask
    from moocore import hypervolume as exact

    from dse.strategies.amoo import search as module
    from dse.strategies.drawing import draw_many

    problem = _Precision()
    task = problem.task()
    methods = {"amoo, pamoo": "pamoo", "amoo, equal weights": "equal", "amoo without descent": None}
    limits = (3_000, 10_000)
    evaluate, descend = module.evaluate, module.descend
    fronts: dict[tuple[str, int, int], Any] = {}
    count, seen = [0], [module.ExactFront.empty(task)]
    current: list[Any] = []

    def counted(its_task: Any, rows: Any) -> Any:
        """Counts, and keeps the front at the moments that are compared."""
        found = evaluate(its_task, rows)
        count[0] += len(rows)
        seen[0] = seen[0].merged(*found)
        for limit in limits:
            if count[0] >= limit and (*current, limit) not in fronts:
                fronts[current[0], current[1], limit] = seen[0].values
        return found

    try:
        for seed in seeds:
            for name, rule in methods.items():
                module.evaluate, count[0], seen[0] = counted, 0, module.ExactFront.empty(task)
                module.descend = descend if rule else (lambda relaxed, starts, *_, **__: starts)
                current[:] = [name, seed]
                strategy = module.AmooSearch(rule=rule or "pamoo", starts=16, draws=4, polish_evaluations=400)
                rounds = 0
                while count[0] < limits[-1]:
                    rounds += 1
                    strategy.front(task, seed, rounds)
            module.evaluate, module.descend = evaluate, descend
            for limit in limits:
                rows = draw_many(task, np.random.default_rng(seed), limit)
                fronts["random", seed, limit] = module.ExactFront.empty(task).merged(*evaluate(task, rows)).values
                fronts["NSGA-II, population 50", seed, limit] = _evolved(task, seed, limit)
    finally:
        module.evaluate, module.descend = evaluate, descend
    layer = module.ExactFront.empty(task).merged(*evaluate(task, problem.by_layer())).values
    points = np.log(np.concatenate([*fronts.values(), layer]))
    best = points[pareto_mask(points)]
    reference = best.max(0) + 0.1 * np.ptp(best, axis=0)
    true = exact(best, ref=reference)
    found = [
        {"method": "layer by layer", "exact_evaluations": 200, "share_of_best_known": [100 * exact(np.log(layer), ref=reference) / true]}
    ]
    print(f"  {'layer by layer':<24}    200 exact evaluations  {found[0]['share_of_best_known'][0]:.1f}")
    for limit in limits:
        for name in dict.fromkeys(name for name, _, _ in fronts):
            shares = [100 * exact(np.log(fronts[name, seed, limit]), ref=reference) / true for seed in seeds]
            found.append({"method": name, "exact_evaluations": limit, "share_of_best_known": shares})
            shown = " ".join(f"{x:.1f}" for x in shares)
            print(f"  {name:<24} {limit:6} exact evaluations  {np.median(shares):.1f}  {shown}", flush=True)
    return found


def _evolved(task: Any, seed: int, most: int) -> Any:
    """The front of all that pymoo's NSGA-II evaluates."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    from dse.strategies.amoo.search import ExactFront, evaluate

    seen: list[Any] = []

    class Bits(Problem):  # type: ignore[misc]
        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            seen.append(np.asarray(x, dtype=np.int64))
            metrics = task.known(task.space.columns(seen[-1]))
            out["F"] = np.log(np.stack([metrics["energy"], metrics["error"]], axis=1))

    whole = {"vtype": float, "repair": RoundingRepair()}
    size = len(task.space.parameters)
    algorithm = NSGA2(pop_size=50, sampling=IntegerRandomSampling(), crossover=SBX(**whole), mutation=PM(**whole))
    minimize(Bits(n_var=size, n_obj=2, xl=0, xu=len(BITS) - 1, vtype=int), algorithm, ("n_eval", most), seed=seed)
    rows = np.unique(np.concatenate(seen), axis=0)
    return ExactFront.empty(task).merged(*evaluate(task, rows)).values
