"""The differentiable side of a task: continuous points of the coding, transformed objectives, their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError
from dse.strategies.drawing import sample, why_none
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]

_PROBE = 256


@dataclass(frozen=True)
class Relaxed:
    """Objectives of a task as functions of x in [0, 1]^d, by torch.

    A minimised positive metric enters by its logarithm (effects multiply, and gradients of different units become
    comparable); anything else is divided by its range over a probe. ``calls`` counts gradient evaluations, one a point and
    objective.
    """

    task: Task
    scales: FloatArray
    logs: tuple[bool, ...]
    counter: list[int]

    @classmethod
    def of(cls, task: Task, seed: int = 0) -> Relaxed:
        """From a task that has a relaxation; what lacks one is an error."""
        if task.relaxed is None:
            raise UsageError(f"strategy amoo needs a differentiable cost model and task {task.name} has none; use nsga2")
        for parameter in task.space.parameters:
            if not parameter.numeric:
                raise UsageError(f"strategy amoo needs numbers and parameter {parameter.name} has strings; fix it or use nsga2")
        from importlib.util import find_spec

        if find_spec("torch") is None:
            raise DseError("strategy amoo needs the package torch; install dse-toolkit[search]")
        rows = sample(task, np.random.default_rng([seed, 7]), _PROBE)
        if not len(rows) or task.known is None:
            raise UsageError(f"strategy amoo found no feasible design of {task.name} to begin with{why_none(task, seed)}")
        metrics = task.known(task.space.columns(rows))
        scales, logs = [], []
        for objective in task.objectives:
            values = metrics[objective.metric]
            logs.append(objective.direction == "min" and bool((values > 0).all()))
            scales.append(1.0 if logs[-1] else max(float(np.ptp(values)), 1e-12))
        return cls(task, np.array(scales), tuple(logs), [0])

    @property
    def calls(self) -> int:
        """Gradient evaluations so far."""
        return self.counter[0]

    def transform(self, values: FloatArray) -> FloatArray:
        """Exact objective values (n, m), minimised, in the transformed units."""
        out = np.empty_like(values)
        for j, log in enumerate(self.logs):
            out[:, j] = np.log(np.maximum(values[:, j], 1e-300)) if log else values[:, j] / self.scales[j]
        return out

    def columns(self, x: Any) -> dict[str, Any]:
        """Continuous parameter values (tensors (n,)) of points x (n, d)."""
        import torch

        found = {}
        for j, parameter in enumerate(self.task.space.parameters):
            numbers = parameter.column.astype(np.float64)
            if len(numbers) == 1:
                found[parameter.name] = torch.full_like(x[:, j], float(numbers[0]))
            elif parameter.coding == "linear":
                found[parameter.name] = numbers[0] + x[:, j] * (numbers[-1] - numbers[0])
            elif parameter.coding in ("log", "power_of_two"):
                found[parameter.name] = torch.exp2(float(np.log2(numbers[0])) + x[:, j] * float(np.log2(numbers[-1]) - np.log2(numbers[0])))
            else:
                found[parameter.name] = _interpolate(x[:, j], numbers)
        return found

    def evaluate(self, x: FloatArray, hessian_probes: int = 0) -> Point:
        """Objectives, gradients, constraint excess and its gradient at points x (n, d)."""
        import torch

        points = torch.tensor(x, dtype=torch.double, requires_grad=True)
        assert self.task.relaxed is not None
        metrics = self.task.relaxed(self.columns(points))
        values = []
        for objective, log, scale in zip(self.task.objectives, self.logs, self.scales, strict=True):
            metric = metrics[objective.metric]
            values.append(torch.log(metric) if log else objective.sign * metric / float(scale))
        excess = torch.zeros(len(x), dtype=torch.double)
        for constraint in self.task.constraints:
            if constraint.metric in metrics:
                sign = 1.0 if constraint.relation == "<=" else -1.0
                span = max(abs(constraint.bound), 1e-12)
                excess = excess + torch.relu(sign * (metrics[constraint.metric] - constraint.bound) / span)
        gradients, curvatures = [], []
        for value in values:
            if not value.requires_grad:  # it depends on nothing that moves
                value = value + 0.0 * points.sum(1)
            (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=hessian_probes > 0, retain_graph=True)
            if hessian_probes:
                curvatures.append(_diagonal(gradient, points, hessian_probes))
            gradients.append(gradient.detach())
        push = torch.zeros_like(points)
        if excess.requires_grad:
            (push,) = torch.autograd.grad(excess.sum(), points)
        self.counter[0] += len(x) * (len(values) * (1 + hessian_probes) + 1)
        return Point(
            torch.stack(values, 1).detach().numpy(),
            torch.stack(gradients, 2).numpy(),
            excess.detach().numpy(),
            push.detach().numpy(),
            np.stack(curvatures, axis=2) if curvatures else None,
        )


@dataclass(frozen=True)
class Point:
    """Values (n, m), gradients (n, d, m), constraint excess (n,) and its gradient (n, d), Hessian diagonals (n, d, m)."""

    values: FloatArray
    gradients: FloatArray
    excess: FloatArray
    push: FloatArray
    curvature: FloatArray | None = None


def _diagonal(gradient: Any, points: Any, probes: int) -> FloatArray:
    """Diagonal of the Hessian by Hutchinson's estimator with Rademacher probes from a fixed seed, (n, d)."""
    import torch

    rng = np.random.default_rng(points.shape[0])
    total = torch.zeros_like(points)
    for _ in range(probes):
        sign = torch.tensor(rng.choice([-1.0, 1.0], size=tuple(points.shape)))
        (product,) = torch.autograd.grad((gradient * sign).sum(), points, retain_graph=True)
        total = total + sign * product
    return np.asarray((total / probes).detach().numpy())


def _interpolate(position: Any, numbers: FloatArray) -> Any:
    """Numbers of an ordered choice, linear between neighbours."""
    import torch

    scaled = position * (len(numbers) - 1)
    below = torch.clamp(scaled.detach().floor().long(), 0, len(numbers) - 2)
    table = torch.tensor(numbers)
    return table[below] + (scaled - below) * (table[below + 1] - table[below])
