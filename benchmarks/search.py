"""Search strategies against each other: same budget, same truth, every seed shown.

    python benchmarks/search.py                       # nested, bert, transfer: minutes
    python benchmarks/search.py nested flat cost amoo noise bert transfer --json FILE
    python benchmarks/search.py stock-ax              # the slow rival, one seed

The stand-in problems are tests/reference/search/*.py (written for this project, constants plausible, not calibrated). Costs
are process CPU seconds with one thread. What was tuned is said in docs/models/search.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from contest import SEEDS, cpu, curve, row, strategy_row, tasks  # sets one thread, before numpy
from search_descent import amoo, amoo_evaluations
from search_precision import precision

import numpy as np  # isort: skip


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
