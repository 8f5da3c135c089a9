"""Search strategies against each other: same budget, same truth, every seed shown.

    python benchmarks/search.py                       # nested, bert, transfer: minutes
    python benchmarks/search.py nested flat cost amoo noise bert transfer --json FILE
    python benchmarks/search.py stock-ax              # the slow rival, one seed

The stand-in problems are tests/reference/search/*.py (written for this project, constants plausible, not calibrated). Costs
are process CPU seconds with one thread. What was tuned is said in docs/models/search.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MARKS = (10, 15, 25, 50)
SEEDS = range(9)


def tasks() -> ModuleType:
    """The tasks that the tests use."""
    name = "dse_strategy_tasks"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "dse" / "tasks.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def cpu() -> float:
    """Process CPU seconds."""
    return time.process_time()


def curve(task: Any, trials: list[Any], reference: Any, true: float) -> list[float]:
    """Share of the true hypervolume after 1, 2, ... trials."""
    return [task.hypervolume(trials[: k + 1], reference) / true for k in range(len(trials))]


def row(name: str, curves: list[list[float]], seconds: float, **more: Any) -> dict[str, Any]:
    """One line of a table, printed and returned."""
    array = 100 * np.array(curves)
    found = {
        "method": name,
        "seeds": len(curves),
        "cpu_s_per_proposal": seconds,
        **{f"@{k}": [float(x) for x in array[:, k - 1]] for k in MARKS if k <= array.shape[1]},
        **more,
    }
    shown = "  ".join(
        f"@{k} {np.median(array[:, k - 1]):5.1f} [{array[:, k - 1].min():.1f}, {array[:, k - 1].max():.1f}]"
        for k in MARKS
        if k <= array.shape[1]
    )
    print(f"  {name:<34} {len(curves)} seeds  {shown}  {seconds:.3f} CPU s a proposal", flush=True)
    return found


def strategy_row(name: str, make_task: Callable[[], Any], make: Callable[[], Any], budget: int, seeds: Any, reference: Any,
                 true: float) -> dict[str, Any]:  # fmt: skip
    """Run one of our strategies over the seeds."""
    from dse.strategies.protocol import simulate

    curves, start = [], cpu()
    for seed in seeds:
        task = make_task()
        curves.append(curve(task, simulate(task, make(), budget=budget, seed=seed), reference, true))
    return row(name, curves, (cpu() - start) / (len(curves) * budget))


def nested() -> list[dict[str, Any]]:
    """Nested search on the frozen stand-in, random and Sobol models with exact hardware beside it."""
    from dse.strategies import make

    t = tasks()
    problem = t.standin_module()
    t.standin_inner()
    ref, true = t.reference_point(), problem.TRUE_HYPERVOLUME
    view = t.standin_nested()
    blind = t.standin_nested(known_reference=False)
    return [
        strategy_row("nested", lambda: view, lambda: make("nested"), 50, SEEDS, ref, true),
        strategy_row("nested, reference point inferred", lambda: blind, lambda: make("nested"), 50, SEEDS, ref, true),
        strategy_row("random models, exact hardware", lambda: view, lambda: make("random"), 50, SEEDS, ref, true),
        strategy_row("Sobol models, exact hardware", lambda: view, lambda: make("sobol"), 50, SEEDS, ref, true),
    ]


def parallel(workers: tuple[int, ...] = (1, 2, 4, 8)) -> list[dict[str, Any]]:
    """Nested search with several trials at a time, at equal trials; how long each takes is drawn (half to one and a half of the mean)."""
    from dse.strategies import make

    t = tasks()
    t.standin_inner()
    task, ref, true = t.standin_nested(), t.reference_point(), t.standin_module().TRUE_HYPERVOLUME
    found = []
    for count in workers:
        curves, spans, start = [], [], cpu()
        for seed in SEEDS:
            trials, span = _at_once(task, make("nested"), count, 50, seed)
            curves.append(curve(task, trials, ref, true))
            spans.append(span)
        found.append(row(f"{count} at a time", curves, (cpu() - start) / (len(curves) * 50), makespan=spans))
        print(f"    makespan {np.median(spans):.1f} mean durations of a trial", flush=True)
    return found


def _at_once(task: Any, strategy: Any, count: int, budget: int, seed: int) -> tuple[list[Any], float]:
    """Trials in the order in which they end, and when the last one does: whoever is free asks, and sees those of the others as running."""
    from dse.storage.trial import Trial

    rng = np.random.default_rng([seed, 7])
    done: list[Any] = []
    running: list[tuple[float, Any]] = []
    now, number = 0.0, 0
    while len(done) < budget:
        while len(running) < count and number < budget:
            history = sorted([*done, *(trial for _, trial in running)], key=lambda trial: trial.number)
            proposal = strategy.propose(task, history, number, seed)
            running.append((now + rng.uniform(0.5, 1.5), Trial(number, dict(proposal.parameters), number, info=dict(proposal.info))))
            number += 1
        running.sort(key=lambda item: item[0])
        now, trial = running.pop(0)
        known = dict(task.measure_known(trial.parameters))
        done.append(trial.finish(known | task.evaluator(trial.parameters, fidelity=1.0, seed=trial.seed)))
    return done, now


def items(fidelities: tuple[float, ...] = (1.0, 0.5, 0.25), seeds: Any = range(5), error: float = 0.01) -> list[dict[str, Any]]:
    """Nested search on fewer items a model and more models: equal items, the standard error told, share of what it believes its front."""
    import dataclasses

    from dse.fronts.pareto import Front, hypervolume
    from dse.quality.measured import Measured
    from dse.strategies import make
    from dse.strategies.protocol import simulate

    t = tasks()
    t.standin_inner()
    base, ref, true = t.standin_nested(), t.reference_point(), t.standin_module().TRUE_HYPERVOLUME
    cost = np.asarray(t.standin_inner()[0])[base.row_numbers]
    values = [np.array(p.values)[base.rows[:, j]] for j, p in enumerate(base.space.parameters)]
    rows = [{p.name: v[i].item() for p, v in zip(base.space.parameters, values, strict=True)} for i in range(len(cost))]
    exact = [base.evaluator(r, fidelity=1.0, seed=0)["accuracy"].mean for r in rows]
    place = {tuple(r.values()): i for i, r in enumerate(rows)}
    quality = np.array(exact)

    class OnItems:
        metrics = ("accuracy",)

        def __init__(self, seed: int, se: float) -> None:
            self.seed, self.se = seed, se

        def __call__(self, parameters: Any, *, fidelity: float, seed: int) -> Any:
            row = place[tuple(parameters.values())]
            return {"accuracy": Measured(exact[row] + self.se * np.random.default_rng([self.seed, row]).normal(), self.se)}

    found = []
    for fidelity in fidelities:
        shares: dict[int, list[float]] = {12: [], 25: []}
        for seed in seeds:
            task = dataclasses.replace(base, evaluator=OnItems(seed, error / fidelity**0.5))
            trials = simulate(task, make("nested"), budget=int(25 / fidelity), seed=seed)
            for spent, column in shares.items():
                seen = make("nested").predict(task, trials[: int(spent / fidelity)])
                at, level = np.asarray(seen.observed), np.asarray(seen.level)
                front = Front.of(at, at, np.stack([-level, cost[at]], axis=1)).models
                column.append(100 * hypervolume(np.stack([-quality[front], cost[front]], axis=1), ref) / true)
        found.append({"fidelity": fidelity, "share_at_whole_evaluations": shares})
        shown = "   ".join(f"@{m} {np.median(c):.1f} ({' '.join(f'{x:.1f}' for x in c)})" for m, c in shares.items())
        print(f"  {fidelity:5g} of the items  {shown}", flush=True)
    return found


def flat(names: tuple[str, ...] = ("flat", "ax", "tpe", "nsga2", "random", "sobol")) -> list[dict[str, Any]]:
    """Whole designs: area and peak throughput known, accuracy, carbon and latency as measured metrics; an infeasible design counts."""
    from dse.strategies import make

    t = tasks()
    ref, true = t.reference_point(), t.standin_module().TRUE_HYPERVOLUME
    found = []
    for name in names:
        if name == "tpe":
            curves, start = [], cpu()
            for seed in SEEDS:
                curves.append(_tpe(t, seed, 50, ref, true))
            found.append(row("Optuna TPE (constraints_func)", curves, (cpu() - start) / (len(curves) * 50)))
        elif name == "nsga2":
            for population in (10, 20):
                found.append(strategy_row(f"NSGA-II (pymoo), population {population}", t.standin_flat,
                                          lambda p=population: make("nsga2", population=p), 50, SEEDS, ref, true))  # fmt: skip
        else:
            found.append(strategy_row(name, t.standin_flat, lambda n=name: make(n), 50, SEEDS, ref, true))
    return found


def _tpe(t: ModuleType, seed: int, budget: int, reference: Any, true: float) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = t.standin_flat()
    trials: list[Any] = []

    def measure(trial: Any) -> tuple[float, float]:
        values = {p.name: trial.suggest_categorical(p.name, list(p.values)) for p in task.space.parameters}
        metrics = {**task.measure_known(values), **task.evaluator(values, fidelity=1.0, seed=0)}
        trials.append(_trial(len(trials), values, metrics))
        trial.set_user_attr("excess", [metrics[c.metric].mean - c.bound for c in task.constraints])
        return metrics["accuracy"].mean, metrics["carbon"].mean

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=seed, constraints_func=lambda trial: trial.user_attrs["excess"])
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        study.optimize(measure, n_trials=budget)
    return curve(task, trials, reference, true)


def _trial(number: int, values: dict[str, Any], metrics: dict[str, Any]) -> Any:
    from dse.storage.trial import Trial

    return Trial(number, dict(values), 0).finish(metrics)


def bert() -> list[dict[str, Any]]:
    """BERT's catransformers space (7,168 models) on edge22 (3,240 designs), the MNLI surrogate as the dear evaluation."""
    from dse import api
    from dse.evaluation.evaluation import Evaluation
    from dse.fronts.pareto import Front, hypervolume
    from dse.quality.evaluators import SurrogateEvaluator
    from dse.strategies import make
    from dse.strategies.views import flat_task, nested_task

    evaluation = Evaluation(api.make_problem("bert", "carbon", space="catransformers"), threads=1)
    task = nested_task(evaluation, SurrogateEvaluator("bert"))
    quality = evaluation.quality
    assert quality is not None and task.inner is not None
    models = np.array([i for i, front in enumerate(task.inner.fronts) if len(front)])
    points = np.array([[-quality.mean[i], task.inner.fronts[i][0, 0]] for i in models])
    front = Front.of(models, models, points).values
    ref = front.max(0) + 0.1 * np.ptp(front, axis=0)
    true = hypervolume(front, ref)
    print(f"  exact front {len(front)} models, reference point {ref.tolist()}, hypervolume {true:.6f}")
    view = nested_task(evaluation, SurrogateEvaluator("bert"), reference=ref)
    whole = flat_task(evaluation, SurrogateEvaluator("bert"), reference=ref)
    found = [
        strategy_row("nested", lambda: view, lambda: make("nested"), 50, SEEDS, ref, true),
        strategy_row("random models, exact hardware", lambda: view, lambda: make("random"), 50, SEEDS, ref, true),
        strategy_row("flat", lambda: whole, lambda: make("flat"), 50, range(5), ref, true),
        strategy_row("random designs", lambda: whole, lambda: make("random"), 50, range(5), ref, true),
    ]
    return [{**r, "reference_point": ref.tolist(), "true_hypervolume": true} for r in found]


def cost() -> list[dict[str, Any]]:
    """CPU seconds of a proposal with 20, 50, 100 and 200 trials told, and the largest memory of the process."""
    found = []
    for name in ("flat", "ax", "nested"):
        out = subprocess.run([sys.executable, __file__, f"_cost-{name}"], capture_output=True, text=True, check=True)
        found.append(json.loads(out.stdout.strip().splitlines()[-1]))
        print("  " + json.dumps(found[-1]), flush=True)
    return found


def _cost_of(name: str) -> dict[str, Any]:
    from dse.strategies import make
    from dse.strategies.protocol import simulate

    t = tasks()
    task = t.standin_nested() if name == "nested" else t.standin_flat()
    history = simulate(task, make("random"), budget=200, seed=0)
    strategy = make(name)
    strategy.propose(task, history[:20], 20, 0)  # imports and the compiled helper are not a proposal's cost
    seconds = {}
    for count in (20, 50, 100, 200):
        start = cpu()
        strategy.propose(task, history[:count], count, 0)
        seconds[str(count)] = round(cpu() - start, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"method": name, "cpu_s_at_trials": seconds, "peak_memory_mb": round(peak)}


def stock_ax(budget: int = 50, seeds: Any = (0,)) -> list[dict[str, Any]]:
    """Ax as it comes, on the flat stand-in: its own initial design, every metric a process, costs as they are."""
    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig

    t = tasks()
    ref, true = t.reference_point(), t.standin_module().TRUE_HYPERVOLUME
    curves, start = [], cpu()
    for seed in seeds:
        task, trials = t.standin_flat(), []
        client = Client(random_seed=seed)
        client.configure_experiment(
            [ChoiceParameterConfig(name=p.name, values=list(p.values), parameter_type="int", is_ordered=True)
             for p in task.space.parameters]
        )  # fmt: skip
        client.configure_optimization("accuracy, -carbon", [f"{c.metric} {c.relation} {c.bound}" for c in task.constraints])
        while len(trials) < budget:
            for index, values in client.get_next_trials(1).items():
                metrics = {**task.measure_known(values), **task.evaluator(values, fidelity=1.0, seed=0)}
                trials.append(_trial(len(trials), values, metrics))
                client.complete_trial(index, raw_data={k: (m.mean, 0.0) for k, m in metrics.items()})
        curves.append(curve(task, trials, ref, true))
    return [row("Ax 1.3.1 as it comes", curves, (cpu() - start) / (len(curves) * budget))]


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


def transfer(seeds: Any = range(9)) -> list[dict[str, Any]]:
    """Evaluations that a warm start saves, on the stand-in and between real tasks (benchmarks/transfer.py)."""
    import transfer as module

    return [*module.stand_in(seeds), *module.real_tasks(range(15))]


def noise(seeds: Any = range(30)) -> list[dict[str, Any]]:
    """Evaluation noise and proxies on NAS-Bench-BERT x edge22 (benchmarks/noise.py)."""
    import noise as module

    return module.noise(seeds)


SECTIONS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "nested": nested,
    "parallel": parallel,
    "items": items,
    "flat": flat,
    "bert": bert,
    "cost": cost,
    "amoo": amoo,
    "amoo-evaluations": amoo_evaluations,
    "precision": precision,
    "transfer": transfer,
    "noise": noise,
    "stock-ax": stock_ax,
}


def main() -> int:
    """Run the sections that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=["nested", "bert", "transfer"], metavar="SECTION",
                        help=", ".join(SECTIONS))  # fmt: skip
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if args.sections[0].startswith("_cost-"):
        print(json.dumps(_cost_of(args.sections[0].removeprefix("_cost-"))))
        return 0
    for name in args.sections:
        if name not in SECTIONS:
            parser.error(f"section {name!r} is unknown; known are {', '.join(SECTIONS)}")
    found = {}
    for name in args.sections:
        print(f"{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}", flush=True)
        found[name] = SECTIONS[name]()
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
