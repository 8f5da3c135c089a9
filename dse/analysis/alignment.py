"""Which costs of a run pull the same way: gradients of a design's costs over its hardware knobs, and groups of allies.

A search that minimises several costs wastes its time on their trade-offs where there are none: latency, energy and operational
carbon of a fixed model usually fall together, and embodied carbon rises against them. The question is answered for one model
on the run's hardware by the cosines of the costs' gradients (:mod:`dse.strategies.amoo.alignment`), which needs the template's
differentiable twin: `edge22` and the `datacenter` family have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carbon.operational.service import equal_service
from dse.errors import DseError, UsageError
from dse.evaluation.evaluation import Evaluation, build_space, load_family, load_hardware
from dse.evaluation.evaluation import Space as Joint
from dse.problem.objectives import Objective
from dse.problem.problem import Problem
from dse.searches.large_space import large_view
from dse.spaces.constraints import meet
from dse.spaces.parameters import Columns, Space, from_columns
from dse.strategies.amoo.alignment import alignment
from dse.strategies.task import Task
from dse.strategies.views import index_rows, plain
from hw_models.twins.edge import edge_cost

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord
    from dse.strategies.amoo.alignment import Alignment

FloatArray = npt.NDArray[np.float64]

# What a designer trades against each other, besides the run's own objectives.
COSTS = ("latency_s", "energy_j", "area_mm2", "embodied_kgco2e", "operational_kgco2e")
# What the differentiable twins give; an objective that is none of these (quality, service_utilisation) is left out.
TWIN_METRICS = (*COSTS, "total_kgco2e", "tops")


@dataclass(frozen=True)
class RunAlignment:
    """The alignment of a run's costs for the model of one of its designs (``model``: its knob values).

    ``exact``: whether rank correlations are the exact model's; else they are those of the closed forms behind the gradients.
    """

    design: int
    model: Mapping[str, Any]
    exact: bool
    alignment: Alignment

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for reports."""
        return {"design": self.design, "model": dict(self.model), "exact": self.exact, **self.alignment.to_dict()}


def of_run(run: RunRecord, *, design: int | None = None, points: int = 200, seed: int = 0) -> RunAlignment:
    """The alignment of a run's costs, for the model of design number ``design`` (default: the middle one of the front).

    Raises UsageError where the run's hardware has no differentiable twin or no such design, DseError without torch.
    """
    if points < 10:
        raise UsageError(f"points is {points}; at least 10 designs are needed to compare gradients")
    known = {entry["design"]: entry for entry in run.designs}
    number = design if design is not None else run.designs[len(run.designs) // 2]["design"]
    if number not in known:
        raise UsageError(f"design {number} is not on the front; it has designs 1 to {len(run.designs)}")
    problem = run.problem
    twin = twin_of(problem)
    hardware = {*load_hardware(problem).knobs, *problem.vary}
    model = {name: value for name, value in known[number]["knobs"].items() if name not in hardware}
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise DseError("alignment needs the package torch; install dse-toolkit[search]")

    return RunAlignment(number, model, twin is edge_task, alignment(twin(problem, model), seed=seed, points=points))


def twin_of(problem: Problem) -> Callable[[Problem, Mapping[str, Any]], Task]:
    """What makes the task of a problem's hardware with its differentiable twin; an error where there is none."""
    tasks = {"datacenter": datacenter_task, "edge": edge_task}
    forms = load_hardware(problem).closed_forms
    if forms not in tasks:
        raise UsageError(f"hardware {problem.hardware} has no differentiable twin; alignment is for spaces of {' and '.join(tasks)}")
    return tasks[forms]


def datacenter_task(problem: Problem, model: Mapping[str, Any]) -> Task:
    """One model on hardware of the ``datacenter`` family, all by the closed forms of :mod:`dse.twins.datacenter`.

    The exact costs of a design there need a mapping search; the closed forms follow them closely (docs/models/search.md).
    """
    one = replace(problem, fixed={**problem.fixed, **model}, objectives=_objectives(problem), preset=None, fixed_model=False,
                  allow_unsupported=True)  # fmt: skip
    view = large_view(one)
    if view.twin is None:
        raise UsageError(f"alignment needs a differentiable cost model, and {view.no_twin}")
    return view.twin.task


def edge_task(problem: Problem, model: Mapping[str, Any]) -> Task:
    """One model on the grid of ``edge22``: exact costs, and their differentiable twin (``hw_models.twins.edge.edge_cost``).

    Both are of operations by themselves, whatever stays on chip in the run. The twin's embodied carbon is the exact one as a function of
    area, linear between the designs of the grid. Raises UsageError where the run leaves what the twin knows: another node or memory,
    other word widths, varied deployments.
    """
    if problem.vary:
        raise UsageError(f"alignment is for one deployment and the template's own settings; the run varies {', '.join(problem.vary)}")
    problem = replace(problem, residency="none", prefetch=False)
    template = load_hardware(replace(problem, fixed={}))
    moved = [name for name, value in problem.fixed.items() if name in template.settings and template.settings[name] != value]
    if moved or problem.hardware_profile not in (None, "default"):
        what = f"{moved[0]}={problem.fixed[moved[0]]}" if moved else f"profile {problem.hardware_profile}"
        raise UsageError(f"the differentiable twin of edge22 knows the template's own settings only; the run has {what}")
    evaluation = _evaluation(problem, model)
    space = from_columns(problem.hardware, plain(evaluation.space.hardware), "hardware")
    if space.size != evaluation.space.hardware_count or not any(len(p.values) > 1 for p in space.parameters):
        raise UsageError("alignment needs a full product of hardware knobs of which at least one varies")
    objectives = _objectives(problem)
    exact = _exact(evaluation, space)
    return Task(
        name=f"{problem.workload} on {problem.hardware}",
        space=space,
        objectives=objectives,
        known=lambda columns: exact(columns, [o.metric for o in objectives]),
        known_metrics=tuple(o.metric for o in objectives),
        relaxed=_edge_twin(evaluation),
    )


def _evaluation(problem: Problem, model: Mapping[str, Any]) -> Evaluation:
    """One model on all hardware points of the problem."""
    whole = build_space(replace(problem, allow_unsupported=True), load_family(problem), load_hardware(problem))
    one = {name: np.array([model[name]], dtype=np.int64) for name in whole.models}
    if (hardware := load_hardware(problem)).constraints:  # gradients are probed between all values, of corners that are no design too
        values = [np.unique(column) for column in whole.hardware.values()]
        at = np.indices([len(v) for v in values]).reshape(len(values), -1)
        product = {name: v[i] for name, v, i in zip(whole.hardware, values, at, strict=True)}
        if np.count_nonzero(meet(hardware.constraints, product)) == whole.hardware_count:
            whole = replace(whole, hardware=product)
    return Evaluation(problem, space=Joint(one, whole.hardware, 0, whole.settings), threads=1)


def _objectives(problem: Problem) -> tuple[Objective, ...]:
    """The usual costs, then what else the run optimises and the twin gives."""
    more = [o for o in problem.objectives if o.metric in TWIN_METRICS and o.metric not in COSTS]
    return (*(Objective("min", name) for name in COSTS), *more)


def _exact(evaluation: Evaluation, space: Space) -> Callable[[Columns, list[str]], dict[str, FloatArray]]:
    block = evaluation.block(0, 1)
    order = space.rank(index_rows(space, evaluation.space.hardware))
    place = np.empty(space.size, dtype=np.int64)
    place[order] = np.arange(space.size)

    def known(columns: Columns, names: list[str]) -> dict[str, FloatArray]:
        at = place[space.rank(index_rows(space, columns))]
        return {name: np.broadcast_to(block.metric(name), block.shape)[0][at] for name in names}

    return known


def _edge_twin(evaluation: Evaluation) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    phases = evaluation.workload.phases
    deployment = asdict(evaluation.deployment)
    area, first = np.unique(evaluation.points.area_mm2, return_index=True)
    embodied = evaluation.points.embodied_kgco2e[first]
    intensity = float(evaluation.points.gco2e_per_kwh[0])

    def twin(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        latency: Any = 0.0
        energy: Any = 0.0
        for phase in phases:
            table = phase.table.model(0) if phase.table.models is not None else phase.table
            found = edge_cost(table, columns, settings=evaluation.hardware_space.settings)
            latency, energy = latency + phase.runs * found.latency_s, energy + phase.runs * found.energy_j
        operation = equal_service(
            energy,
            latency,
            idle_w=found.leakage_w,
            rate_per_s=deployment["rate_per_s"],
            lifetime_years=deployment["lifetime_years"],
            pue=deployment["pue"],
            gco2e_per_kwh=intensity,
        )
        made = _line(found.area_mm2, area, embodied)
        return {
            "latency_s": latency,
            "energy_j": energy,
            "area_mm2": found.area_mm2,
            "tops": found.tops,
            "embodied_kgco2e": made,
            "operational_kgco2e": operation.operational_kgco2e,
            "total_kgco2e": made + operation.operational_kgco2e,
        }

    return twin


def _line(x: Any, at: FloatArray, value: FloatArray) -> Any:
    """Linear between known points, the outermost pieces continued; tensors keep their gradients."""
    import torch

    if len(at) == 1:
        return torch.full_like(x, float(value[0]))
    knots, levels = torch.as_tensor(at, dtype=x.dtype), torch.as_tensor(value, dtype=x.dtype)
    below = torch.clamp(torch.searchsorted(knots, x.detach().contiguous(), right=True) - 1, 0, len(at) - 2)
    slope = (levels[below + 1] - levels[below]) / (knots[below + 1] - knots[below])
    return levels[below] + slope * (x - knots[below])
