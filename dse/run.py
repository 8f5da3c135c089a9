"""A finished search as users meet it: its front and trials as frames, its answer, its picture, and what else may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carbon.analysis.robustness import Robustness
from dse.analysis.explanation import Explanation, explain
from dse.analysis.recommendation import Recommendation
from dse.analysis.sureness import recommend_surely
from dse.errors import DseError, UsageError
from dse.evaluation import robustness
from dse.evaluation.device_order import DeviceOrder, device_order
from dse.evaluation.one_design import evaluate_in
from dse.evaluation.robustness import DRAWS
from dse.problem.metrics import METRICS, metric
from dse.problem.objectives import Constraint, parse_constraint
from dse.reports import notebook
from dse.storage import run_folder
from dse.storage.run_folder import RunRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Run(RunRecord):
    """A finished search: ``len(study)`` designs on its front."""

    @staticmethod
    def of(record: RunRecord) -> Run:
        """The run of a record."""
        return Run(**vars(record))

    def __repr__(self) -> str:
        return notebook.card_text(self)

    def _repr_html_(self) -> str:
        return str(notebook.card_html(self))

    def recommend(self) -> Recommendation:
        """What to build, the runner-up, how sure that is and what would change it; printed, it reads as sentences."""
        known = self.context.get("recommendation")
        return Recommendation.from_dict(known) if isinstance(known, Mapping) else recommend_surely(self)

    def best(self, objective: str | None = None, *constraints: str) -> dict[str, Any]:
        """One design of the front as a row of :meth:`pareto`: the recommended one, or the best of a metric.

        Args:
            objective: a metric (``"latency_s"``, in the direction of the search or else the usual one), ``"min:METRIC"`` or
                ``"max:METRIC"``.
            constraints: bounds that it must meet beside those of the search, like ``"latency_s<=0.02"``.

        Raises DseError for an unknown metric, or if no design of the front meets the bounds.
        """
        bounds = [parse_constraint(text) for text in constraints]
        rows = [run_folder.flat_row(design) for design in self.designs if all(_meets(design["metrics"].get(c.metric), c) for c in bounds)]
        if not rows:
            raise DseError(f"no design of the front meets {', '.join(constraints)}" if constraints else "the front is empty")
        if objective is None:
            if constraints:
                raise UsageError(
                    "the recommended design is of the whole front; name a metric with the bounds, like best('total_kgco2e', ...)"
                )
            number = self.recommend().design
            return next(row for row in rows if row["design"] == number)
        direction, _, name = objective.rpartition(":")
        if not (self.problem.kind and name in self.designs[0]["metrics"]):
            name = metric("best", name).name
        sign = self._sign(name, direction)
        if not all(name in row for row in rows):
            raise DseError(f"the designs of this search have no {name}")
        return min(rows, key=lambda row: sign * row[name])

    def _sign(self, name: str, direction: str) -> float:
        if direction not in ("", "min", "max"):
            raise UsageError(f"best has direction {direction!r}; allowed are min and max")
        asked = {objective.metric: objective.direction for objective in self.problem.objectives}
        usual = METRICS[name].better if name in METRICS else None
        return -1.0 if (direction or asked.get(name) or usual) == "max" else 1.0

    def trials(self) -> pd.DataFrame:
        """The evaluations of a measured or a large search, one a row: number, state, parameters, metrics, standard errors, seconds.

        Raises DseError for a sweep, which evaluates every design of its space and keeps none but the front.
        """
        import pandas as pd

        from dse.searches.measured import trials_of_study

        rows = trials_of_study(self.path)
        if not rows:
            raise DseError(f"run {self.path} swept {self.summary.points:,} designs and has no trials; pareto() is its front")
        return pd.DataFrame(rows)

    def explain(self, **options: Any) -> Explanation:
        """Which design suits which deployment, as ``dse explain`` tells; options: :func:`dse.analysis.explanation.explain`."""
        return explain(self, **options)

    def robustness(self, *, draws: int = robustness.DRAWS, seed: int = 0) -> Robustness:
        """How the front stands up to uncertain carbon factors: the share of draws in which each design stays, ranges, order."""
        return robustness.analyse(self.problem, self.designs, draws=draws, seed=seed)

    def device_order(self, *, draws: int = DRAWS, seed: int = 0) -> DeviceOrder | None:
        """How sure the order of the devices by total carbon is, for the model of the first design; None with fewer than two devices."""
        return device_order(self.problem, self.designs[0]["knobs"] if self.designs else None, count=draws, seed=seed)

    def evaluate(self, design: int | Mapping[str, Any]) -> dict[str, Any]:
        """One design in the deployment of this search, in full, as :func:`dse.evaluate` answers.

        Args:
            design: its number on the front, or knob -> value; knobs that are not given have the workload's and the hardware's defaults.
        """
        if isinstance(design, Mapping):
            return evaluate_in(self.problem, design)
        found = next((entry for entry in self.designs if entry["design"] == design), None)
        if found is None:
            raise UsageError(f"design {design} is not on the front; its designs are 1 to {len(self.designs)}")
        return evaluate_in(self.problem, found["knobs"])

    def plot(self) -> go.Figure:
        """An interactive picture of the front."""
        from dse.reports.figures import front_figure

        return front_figure(self)


def _meets(value: float | None, constraint: Constraint) -> bool:
    if value is None:
        raise DseError(f"the designs of this search have no {constraint.metric}")
    return value <= constraint.bound if constraint.relation == "<=" else value >= constraint.bound


def load(path: str | Path) -> Run:
    """Read a finished run from its folder (or its study file); an unfinished one is an error that says how to go on."""
    return Run.of(run_folder.load(path))
