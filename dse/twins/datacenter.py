"""The closed forms of a `datacenter` design with the carbon model on top: every metric of a large space in microseconds.

One class for two namespaces: numpy for screening, torch for gradients. Energy and latency are those of
`hw_models.twins.datacenter`; carbon is the carbon model's own lines, which take tensors; quality, memory and area are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import carbon.device.profiles
import carbon.operational.service
from dse.problem.deployment import VARIABLE
from dse.problem.metrics import average_power_w
from dse.spaces.parameters import Columns
from dse.strategies.task import Task
from hw_models.technology.namespace import NUMPY, torch_namespace
from hw_models.twins.datacenter import DatacenterTwin

if TYPE_CHECKING:
    from dse.evaluation.design_costs import DesignCosts
    from hw_models.technology.namespace import Namespace

FloatArray = npt.NDArray[np.float64]
Array = Any

METRICS = (
    *("quality", "quality_se", "parameters", "macs", "latency_s", "energy_j", "area_mm2", "tops", "power_w"),
    *("service_utilisation", "array_utilisation"),
    *("embodied_kgco2e", "operational_kgco2e", "total_kgco2e", "kgco2e_per_request", "dram_fill", "makeable"),
)


def refusal(costs: DesignCosts) -> str | None:
    """Why a problem has no twin, as half a sentence; None where it has one."""
    if costs.base.hardware_space.closed_forms != "datacenter":
        return "only hardware of the datacenter family has closed forms"
    for name in costs.names:
        if name not in METRICS:
            return f"the closed forms of datacenter have no {name}"
    for name in costs.problem.vary:
        if name in VARIABLE:
            return f"the closed forms know one deployment, and {name} varies"
    if not costs.base.points.one_group or any((batch.expert_parallel > 1).any() for batch in costs.base.points.batches):
        return "the closed forms know tensor parallelism alone, not pipeline stages, replicas or experts on ranks"
    if any(((batch.node_chips > 0) & (batch.node_chips < batch.chips)).any() for batch in costs.base.points.batches):
        return "the closed forms know one kind of link, not links between nodes"
    try:
        _closed_forms(costs)
    except ValueError as error:
        return str(error)
    return None


def _closed_forms(costs: DesignCosts) -> Any:
    base = costs.base
    runs = np.concatenate([np.full(len(phase.table), float(phase.runs)) for phase in base.workload.phases])
    template = base.hardware_space.template
    assert template is not None
    return DatacenterTwin(base.table, template, runs=runs)


class Twin:
    """The twin of a task's costs; ``task`` is that task with everything known by the closed forms and differentiable."""

    def __init__(self, costs: DesignCosts, task: Task) -> None:
        self.costs = costs
        self.forms = _closed_forms(costs)
        base = costs.base
        self._group = base.points.groups[0]
        self._words: dict[str, Any] = {name: value for name, value in self._group.devices.items() if isinstance(value, str)}
        self._nodes = np.array(sorted(task.space.parameter("node_nm").values), dtype=np.float64)
        order = costs.order
        columns = {"parameters": base.parameters, "macs": base.macs, "shared": base.shared_bytes, "held": base.activation_bytes}
        if base.quality is not None:
            columns |= {"quality": base.quality.mean, "quality_se": base.quality.standard_error}
        self._models = {name: np.asarray(column, dtype=np.float64)[order] for name, column in columns.items()}
        names = (*costs.names, "makeable")
        self.task = replace(
            task,
            name=f"{task.name} (closed forms)",
            evaluator=None,
            known=lambda columns: {name: value for name, value in self.metrics(columns).items() if name in names},
            known_metrics=names,
            relaxed=self.relaxed,
        )

    def relaxed(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """All metrics as tensors of tensors (points,); model and node go to the nearest that exists and have no gradient."""
        return self.metrics(columns, torch_namespace(relaxed=True))

    def metrics(self, columns: Columns, xp: Namespace | None = None) -> dict[str, Array]:
        """All metrics of designs (points,) in a namespace (default numpy)."""
        xp = xp or NUMPY
        model = np.clip(np.rint(_numbers(columns["model"])), 0, len(self.costs.order) - 1).astype(np.int64)
        node = _numbers(columns["node_nm"])
        node = self._nodes[np.abs(np.log(node)[:, None] - np.log(self._nodes)).argmin(1)]
        knobs = {name: xp.asarray(column) * 1.0 for name, column in columns.items() if name not in ("model", "node_nm")}
        cost = self.forms.cost({**knobs, "node_nm": node}, self.costs.order[model], xp=xp)
        points, problem = self.costs.base.points, self.costs.problem
        embodied, makeable = self._embodied(xp, cost, node)
        use = carbon.operational.service.equal_service(
            cost.energy_j,
            cost.latency_s,
            idle_w=cost.leakage_w,
            rate_per_s=problem.deployment.rate_per_s,
            lifetime_years=problem.deployment.lifetime_years,
            pue=problem.deployment.pue,
            gco2e_per_kwh=float(points.gco2e_per_kwh[0]),
        )
        total = embodied + use.operational_kgco2e
        utilisation = cost.latency_s * problem.deployment.rate_per_s
        idle = xp.where(utilisation < 1.0, 1.0 - utilisation, 0.0 * utilisation)
        still = 0.0 * cost.area_mm2  # what depends on the model alone has a gradient of zero
        own = {name: xp.asarray(column[model]) + still for name, column in self._models.items()}
        return {
            **own,
            "latency_s": cost.latency_s,
            "energy_j": cost.energy_j,
            "area_mm2": cost.area_mm2,
            "tops": cost.tops,
            "power_w": average_power_w(problem.deployment.rate_per_s, cost.energy_j, idle, cost.leakage_w),
            "service_utilisation": utilisation,
            "array_utilisation": 2.0 * own["macs"] / (1e12 * cost.tops * cost.latency_s),
            "embodied_kgco2e": embodied,
            "operational_kgco2e": use.operational_kgco2e,
            "total_kgco2e": total,
            "kgco2e_per_request": total / use.requests,
            "dram_fill": (own["shared"] + own["held"] * cost.chips) / cost.dram_bytes,
            "makeable": makeable,
        }

    def _embodied(self, xp: Namespace, cost: Any, node: FloatArray) -> tuple[Array, Array]:
        """Embodied carbon of all chips, and whether a die can be made; the carbon of a wafer is known for real nodes only."""
        embodied, makeable = 0.0 * cost.die_mm2, 0.0 * cost.die_mm2
        for value in np.unique(node).tolist():
            here = xp.asarray((node == value).astype(np.float64))
            # Designs of other nodes pass through with an area that can be made.
            area = here * cost.die_mm2 + (1.0 - here) * 100.0
            found = carbon.device.profiles.device_embodied(
                self.costs.problem.deployment.carbon_profile,
                area_mm2=area,
                node_nm=value,
                memory_gb=cost.dram_bytes / cost.chips / 2**30,
                **self._words,
            )
            fits = xp.where(found.feasible, here, 0.0 * here)
            # A die that no wafer holds has infinite carbon; a large number keeps gradients finite.
            whole = xp.where(found.embodied_kgco2e < _UNMAKEABLE, found.embodied_kgco2e, 0.0 * here + _UNMAKEABLE)
            embodied, makeable = embodied + here * whole * cost.chips, makeable + fits
        return embodied, makeable


_UNMAKEABLE = 1e12


def _numbers(values: Any) -> FloatArray:
    return np.asarray(values.detach().numpy() if hasattr(values, "detach") else values, dtype=np.float64)
