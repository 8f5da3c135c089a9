"""Tasks of the strategy tests: tiny ones, and the frozen stand-in in its two views."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dse.problem.objectives import Constraint, Objective
from dse.quality.measured import Measured
from dse.spaces.constraints import parse_constraint
from dse.spaces.parameters import Columns, Parameter, Space, Value
from dse.strategies.task import Inner, Task

REFERENCE = Path(__file__).resolve().parents[1] / "reference" / "search"


def load(name: str) -> Any:
    """A module of the reference folder."""
    spec = importlib.util.spec_from_file_location(name, REFERENCE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class TinyQuality:
    """A smooth quality of three parameters, with noise of a stated standard error."""

    se: float = 0.0
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        a, b = float(parameters["a"]), float(parameters["b"])
        mean = 10 * np.log2(1 + a) + 3 * b - 0.4 * b * b
        return {"quality": Measured(float(mean + self.se * np.random.default_rng(seed).normal()), self.se)}


@dataclass(frozen=True)
class TinyDesign:
    """Quality and cost of a whole design."""

    metrics: tuple[str, ...] = ("quality", "cost")

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        found = TinyQuality()(parameters, fidelity=fidelity, seed=seed)
        a, b, c = (float(parameters[name]) for name in "abc")
        return {**found, "cost": Measured(a * (1 + b) / c + c)}


_MODEL = (Parameter("a", (1, 2, 4, 8), "model", "power_of_two"), Parameter("b", (0, 1, 2, 3), "model", "linear"))
_OBJECTIVES = (Objective("max", "quality"), Objective("min", "cost"))


def tiny_nested(se: float = 0.0, costs: int = 1) -> Task:
    """Sixteen models, one forbidden by a constraint, one without feasible hardware; one or two cost objectives."""
    space = Space("tiny", _MODEL, (parse_constraint("a * b <= 20"),))
    fronts, choices = [], []
    for row in space.unrank(np.arange(space.size)):
        a, b = (float(v) for v in space.values(row).values())
        c = np.array([1.0, 2.0, 4.0])
        first, second = a * (1 + b) / c + c, c * 1.5
        if a == 1 and b == 0:
            fronts.append(np.zeros((0, costs)))
            choices.append(np.zeros(0, dtype=np.int64))
        elif costs == 1:
            fronts.append(first.min(keepdims=True)[:, None])
            choices.append(np.array([int(first.argmin())]))
        else:
            keep = first < np.minimum.accumulate(np.concatenate([[np.inf], first]))[:-1]
            fronts.append(np.stack([first, second], 1)[keep])
            choices.append(np.flatnonzero(keep))
    extra = () if costs == 1 else (Objective("min", "silicon"),)
    return Task("tiny", space, (*_OBJECTIVES, *extra), TinyQuality(se),
                inner=Inner(("cost", "silicon")[:costs], fronts, choices))  # fmt: skip


def tiny_flat() -> Task:
    """Forty-eight designs of which a constraint of the space, a known and a measured metric rule out some."""
    space = Space("tiny flat", (*_MODEL, Parameter("c", (1, 2, 4), "hardware", "power_of_two")),
                  (parse_constraint("a * b <= 20"),))  # fmt: skip
    constraints = (Constraint("area", "<=", 12.0), Constraint("cost", "<=", 14.0))
    return Task("tiny flat", space, _OBJECTIVES, TinyDesign(), known=_area, known_metrics=("area",), constraints=constraints)


def _area(columns: Columns) -> dict[str, Any]:
    return {"area": columns["a"] * columns["c"] * 1.0}


def tiny_known() -> Task:
    """Everything known, with a relaxation: two opposed objectives over a small grid."""
    space = Space("tiny known", tuple(Parameter(n, tuple(range(1, 9)), "hardware", "log") for n in ("p", "q")))

    def known(columns: Any) -> dict[str, Any]:
        p, q = columns["p"] * 1.0, columns["q"] * 1.0
        return {"time": 30.0 / (p * q) + 0.2 * q, "size": p * p + q}

    objectives = (Objective("min", "time"), Objective("min", "size"))
    return Task("tiny known", space, objectives, known=known, known_metrics=("time", "size"), relaxed=known,
                constraints=(Constraint("size", "<=", 60.0),))  # fmt: skip


@lru_cache(maxsize=1)
def standin_module() -> Any:
    """The frozen stand-in problem."""
    return load("standin_problem")


@lru_cache(maxsize=1)
def standin_inner() -> tuple[Any, Any]:
    """Least feasible carbon of every model and its hardware (some 6 CPU s)."""
    found: tuple[Any, Any] = standin_module().solve_inner()
    return found


def reference_point() -> Any:
    """The stand-in's frozen reference point, minimised."""
    accuracy, carbon = standin_module().REFERENCE_POINT
    return np.array([-accuracy, carbon])


_STANDIN_OBJECTIVES = (Objective("max", "accuracy"), Objective("min", "carbon"))


@dataclass(frozen=True)
class StandinAccuracy:
    """Accuracy of a model."""

    metrics: tuple[str, ...] = ("accuracy",)

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        hardware = [1, 32, 2, 64, 32, 2]  # any: accuracy depends on the model alone
        row = [float(parameters[name]) for name in standin_module().NAMES[:4]]
        return {"accuracy": Measured(float(standin_module().evaluate([[*row, *hardware]])["accuracy"][0]))}


@dataclass(frozen=True)
class StandinDesign:
    """Everything of a design that the flat view learns."""

    metrics: tuple[str, ...] = ("accuracy", "carbon", "latency")

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        costs = standin_module().evaluate([[float(parameters[name]) for name in standin_module().NAMES]])
        return {name: Measured(float(costs[name][0])) for name in self.metrics}


def _standin_parameters(count: int) -> tuple[Parameter, ...]:
    problem = standin_module()
    return tuple(
        Parameter(name, tuple(problem.SPACE[name]), "model" if i < 4 else "hardware", "log" if i < 4 else "power_of_two")
        for i, name in enumerate(problem.NAMES[:count])
    )


def standin_nested(*, known_reference: bool = True) -> Task:
    """Models of the stand-in with their exact hardware."""
    carbon, hardware = standin_inner()
    fronts = [np.array([[c]]) if np.isfinite(c) else np.zeros((0, 1)) for c in carbon]
    choices = [np.array([h]) if np.isfinite(c) else np.zeros(0, dtype=np.int64) for c, h in zip(carbon, hardware, strict=True)]
    return Task("stand-in", Space("stand-in", _standin_parameters(4)), _STANDIN_OBJECTIVES, StandinAccuracy(),
                inner=Inner(("carbon",), fronts, choices), reference=reference_point() if known_reference else None)  # fmt: skip


def _standin_known(columns: Columns) -> dict[str, Any]:
    problem = standin_module()
    costs = problem.evaluate(np.stack([columns[name] for name in problem.NAMES], axis=1))
    return {name: costs[name] for name in ("area", "tops")}


def standin_flat() -> Task:
    """Whole designs of the stand-in: area and peak throughput known, the rest measured."""
    problem = standin_module()
    constraints = (Constraint("latency", "<=", problem.LATENCY_MAX_S), Constraint("area", "<=", problem.AREA_MAX_MM2),
                   Constraint("tops", "<=", problem.TOPS_MAX))  # fmt: skip
    return Task("stand-in, flat", Space("stand-in, flat", _standin_parameters(10)), _STANDIN_OBJECTIVES, StandinDesign(),
                known=_standin_known, known_metrics=("area", "tops"), constraints=constraints, reference=reference_point())  # fmt: skip


def datacenter(objectives: tuple[str, ...] = ("embodied", "operational", "latency_s")) -> Task:
    """The stand-in data-centre space, exact and relaxed."""
    module = load("standin_datacenter")

    def known(columns: Columns) -> dict[str, Any]:
        found: dict[str, Any] = module.costs({name: np.asarray(c, dtype=np.float64) for name, c in columns.items()}, np)
        return found

    def relaxed(columns: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        found: dict[str, Any] = module.costs(columns, torch, soft=True)
        return found

    space = Space("stand-in data centre", tuple(Parameter(n, tuple(v), "hardware", c) for n, (c, v) in module.SPACE.items()))
    names = ("latency_s", "energy_j", "area_mm2", "timing", "power_w", "embodied", "operational")
    constraints = (Constraint("area_mm2", "<=", module.AREA_MAX_MM2), Constraint("latency_s", "<=", module.LATENCY_MAX_S),
                   Constraint("timing", "<=", 1.0))  # fmt: skip
    return Task("stand-in data centre", space, tuple(Objective("min", o) for o in objectives), known=known,
                known_metrics=names, constraints=constraints, relaxed=relaxed)  # fmt: skip
