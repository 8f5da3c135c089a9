"""Which objectives pull the same way: cosines of their gradients over a probe of the space, and groups of allies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.strategies.amoo.relaxed import Relaxed
from dse.strategies.drawing import sample, why_none
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """Mean cosine (m, m) of the gradients of the objectives, share of points where each pair conflicts, and the groups.

    ``groups`` are lists of objective positions whose mean cosines are all positive; ``rank_correlation`` (m, m) is
    Spearman's of the exact values over the same designs; ``relaxation`` (m,) Spearman's of relaxed against exact values.
    """

    names: tuple[str, ...]
    cosine: FloatArray
    conflict: FloatArray
    groups: tuple[tuple[int, ...], ...]
    rank_correlation: FloatArray
    relaxation: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports."""
        return {
            "objectives": list(self.names),
            "cosine": self.cosine.tolist(),
            "conflict_share": self.conflict.tolist(),
            "groups": [[self.names[i] for i in group] for group in self.groups],
            "rank_correlation": self.rank_correlation.tolist(),
            "relaxation_rank_correlation": self.relaxation.tolist(),
        }

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [" " * width + "".join(f"  {name:>{max(7, len(name))}}" for name in self.names)]
        for i, name in enumerate(self.names):
            lines.append(
                f"{name:<{width}}" + "".join(f"  {self.cosine[i, j]:>{max(7, len(other))}.2f}" for j, other in enumerate(self.names))
            )
        lines.append("aligned groups: " + "; ".join(", ".join(self.names[i] for i in group) for group in self.groups))
        return "\n".join(lines)

    def figure(self) -> Any:
        """Heat map of the cosines (a Plotly figure)."""
        import plotly.graph_objects as go

        names = list(self.names)
        figure = go.Figure(
            go.Heatmap(
                z=self.cosine,
                x=names,
                y=names,
                zmin=-1,
                zmax=1,
                colorscale="RdBu",
                text=np.round(self.cosine, 2),
                texttemplate="%{text}",
                colorbar={"title": "cosine"},
            )
        )
        figure.update_layout(title="Alignment of the objectives: mean cosine of their gradients", yaxis={"autorange": "reversed"})
        return figure


def alignment(task: Task, *, seed: int = 0, points: int = 200, relaxed: Relaxed | None = None) -> Alignment:
    """Measure the alignment of a task's objectives at ``points`` random feasible designs (their gradients by torch)."""
    relaxed = relaxed or Relaxed.of(task, seed)
    rows = sample(task, np.random.default_rng([seed, 11]), points)
    if not len(rows):
        raise UsageError(f"alignment found no feasible design of {task.name}{why_none(task, seed)}")
    # Away from the faces of the box, where a one-sided change is all that is possible.
    x = np.clip(task.space.coded(rows), 0.02, 0.98)
    found = relaxed.evaluate(x)
    norms = np.linalg.norm(found.gradients, axis=1, keepdims=True)
    unit = found.gradients / np.maximum(norms, 1e-300)
    cosines = np.einsum("ndi,ndj->nij", unit, unit)
    mean = cosines.mean(0)
    assert task.known is not None
    metrics = task.known(task.space.columns(rows))
    exact = relaxed.transform(np.stack([o.sign * metrics[o.metric] for o in task.objectives], axis=1))
    count = len(task.objectives)
    ranks, trust = np.eye(count), np.ones(count)
    for i in range(count):
        trust[i] = _spearman(exact[:, i], found.values[:, i], both_constant=1.0)
        for j in range(i):
            ranks[i, j] = ranks[j, i] = _spearman(exact[:, i], exact[:, j], both_constant=0.0)
    names = tuple(o.metric for o in task.objectives)
    return Alignment(names, mean, (cosines < 0).mean(0), group(mean), ranks, trust)


def _spearman(a: FloatArray, b: FloatArray, *, both_constant: float) -> float:
    """Spearman's rank correlation; a column without any order has none with one that has."""
    from scipy.stats import spearmanr

    constant = np.ptp(a) == 0, np.ptp(b) == 0
    if any(constant):
        return both_constant if all(constant) else 0.0
    return float(spearmanr(a, b).statistic)


def group(cosine: FloatArray) -> tuple[tuple[int, ...], ...]:
    """Objectives joined greedily, most aligned pair first, as long as all pairs of a group stay positive."""
    groups = [[i] for i in range(len(cosine))]
    while True:
        best: tuple[float, int, int] | None = None
        for a in range(len(groups)):
            for b in range(a):
                least = float(min(cosine[i, j] for i in groups[a] for j in groups[b]))
                if least > 0 and (best is None or least > best[0]):
                    best = (least, a, b)
        if best is None:
            return tuple(tuple(sorted(g)) for g in sorted(groups, key=min))
        _, a, b = best
        groups[b] += groups.pop(a)
