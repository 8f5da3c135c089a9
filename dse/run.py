"""A finished search as users meet it: its front and trials as frames, its answer, its picture, and what else may be asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from carbon.analysis.robustness import Robustness
from dse.analysis.contenders import compared
from dse.analysis.explanation import explain
from dse.analysis.recommendation import Recommendation
from dse.analysis.sureness import recommend_surely
from dse.errors import DseError, UsageError, all_ours
from dse.evaluation import robustness
from dse.evaluation.device_order import DeviceOrder, device_order
from dse.evaluation.one_design import evaluate_in, nothing_kept, profile_fell_back
from dse.evaluation.robustness import DRAWS
from dse.problem.metrics import METRICS, metric
from dse.problem.objectives import PRESETS, Constraint, parse_constraint
from dse.reports import comparison_text, notebook
from dse.reports.comparison_text import RunComparison, RunsComparison
from dse.reports.explanation_text import RunExplanation
from dse.reports.recommendation_text import command
from dse.storage import run_folder
from dse.storage.run_folder import RunRecord
from hw_models.errors import HardwareError
from workloads.errors import WorkloadError

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
        """What to build, the runner-up, how sure that is, what would change it, its file, and the command that gives its numbers again;
        printed, it reads as sentences."""
        known = self.context.get("recommendation")
        found = Recommendation.from_dict(known) if isinstance(known, Mapping) else recommend_surely(self)
        file = self.path / "designs" / f"design-{found.design or 0:04d}.toml"
        return replace(found, file=str(file), again=command(self, found)) if file.is_file() else found

    def best(self, objective: str | None = None, *constraints: str | Iterable[str]) -> dict[str, Any]:
        """One design of the front, the columns of :meth:`pareto` as a dictionary: the recommended one, or the best of a metric.

        Args:
            objective: a metric (``"latency_s"``, in the direction of the search or else the usual one), ``"min:METRIC"`` or
                ``"max:METRIC"``, or a preset of ``objective=`` with one cost (``"carbon"``, ``"latency"``, ``"energy"``).
            constraints: bounds that it must meet beside those of the search, like ``"latency_s<=0.02"``, one by one or as a list.

        Raises DseError for an unknown metric, or if no design of the front meets the bounds.
        """
        asked = [text for given in constraints for text in ([given] if isinstance(given, str) else given)]
        bounds = [parse_constraint(text) for text in asked]
        rows = [run_folder.flat_row(design) for design in self.designs if all(_meets(design["metrics"].get(c.metric), c) for c in bounds)]
        if not rows:
            raise DseError(f"no design of the front meets {', '.join(asked)}" if asked else "the front is empty")
        if objective is None:
            if asked:
                raise UsageError(
                    "the recommended design is of the whole front; name a metric with the bounds, like best('total_kgco2e', ...)"
                )
            number = self.recommend().design
            return next(row for row in rows if row["design"] == number)
        if objective in PRESETS and objective not in METRICS:
            costs = [str(o) for o in PRESETS[objective].objectives if o.metric != "quality"]
            if len(costs) > 1:
                raise UsageError(f"best {objective!r} stands for {len(costs)} objectives; name one of {', '.join(costs)}")
            objective = costs[0]
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
        """The evaluations of a measured or a large search, one a row: ``trial`` (number), ``state``, the parameters, each metric and its
        standard error (``quality``, ``quality_se``), ``fidelity``, ``error``, and ``confirms``, the trial that it measured again, where the
        search confirmed its front.

        Raises DseError for a sweep, which evaluates every design of its space and keeps none but the front.
        """
        import pandas as pd

        from dse.searches.measured import trials_of_study

        rows = trials_of_study(self.path)
        if not rows:
            raise DseError(f"run {self.path} swept {self.summary.points:,} designs and has no trials; pareto() is its front")
        return pd.DataFrame(rows)

    @all_ours
    def explain(self, **options: Any) -> RunExplanation:
        """Which design suits which deployment, as ``dse explain`` tells; options: :func:`dse.analysis.explanation.explain`."""
        return RunExplanation(**vars(explain(self, **options)), run=self)

    @overload
    def compare(self, other: RunRecord, /) -> RunComparison: ...

    @overload
    def compare(self, other: RunRecord, third: RunRecord, /, *more: RunRecord) -> RunsComparison: ...

    def compare(self, other: RunRecord, /, *more: RunRecord) -> RunComparison | RunsComparison:
        """This front against others', as ``dse compare`` tells: hypervolumes with a common reference point, who dominates whom."""
        return comparison_text.compared_several([self, other, *more]) if more else comparison_text.compared(self, other)

    @all_ours
    def robustness(self, *, draws: int = robustness.DRAWS, seed: int = 0) -> Robustness:
        """How the front stands up to uncertain carbon factors, as ``dse carbon robustness`` tells: the share of draws in which each
        design stays, ranges, order.

        Its arrays hold the designs of the front whose ``equal_to`` is None, in the order of :meth:`pareto` (equal designs have no order
        to keep); a front of one design is held against the contenders beside it, which follow it in the table.
        """
        return robustness.analyse(self.problem, compared(self), draws=draws, seed=seed)

    def device_order(self, *, draws: int = DRAWS, seed: int = 0) -> DeviceOrder | None:
        """How sure the order of the devices by total carbon is, for the model of the first design; None with fewer than two devices."""
        return device_order(self.problem, self.designs[0]["knobs"] if self.designs else None, count=draws, seed=seed)

    @all_ours
    def evaluate(self, design: int | Mapping[str, Any] | pd.Series) -> dict[str, Any]:
        """One design in the deployment of this search, in full, as :func:`dse.evaluate` answers.

        Args:
            design: its number (on the front, or of a contender beside it), a row of :meth:`pareto` or :meth:`best` (or of
                :meth:`trials`, which is a model), whose knobs may be
                changed (what else it holds is passed over then), or knob -> value;
                a knob of the model that is not given is what all models of the search with the given ones have, else the model's own;
                one of the hardware has the middle of the values that its template or file lists (of four the third), not that of the
                recommended design: to change one knob of a design, begin with its row.

        ``by_default`` of the answer are the knobs that neither the design nor the search named, with the values that they have then.
        Where an evaluator told the quality, it is this study's own measurement; of a design that it did not measure it is None, with the
        reason in ``quality_reason``.
        """
        from dse.analysis.own_quality import own_quality

        row: Any = design if isinstance(design, (int, Mapping)) or not hasattr(design, "to_dict") else design.to_dict()
        knobs = self._named(row)
        try:
            answer = evaluate_in(self.problem, knobs)
        except (HardwareError, WorkloadError) as error:  # knobs that do not fit each other
            raise UsageError(str(error)) from None
        answer["by_default"] = {name: value for name, value in answer["design"].items() if name not in {**self.problem.fixed, **knobs}}
        answer["cautions"] = [*profile_fell_back(self.problem), *nothing_kept(self.problem, answer["design"], answer)]
        measured = own_quality(self)
        return answer if measured is None else {**answer, **measured.answer(answer["design"])}

    def _named(self, row: Any) -> Mapping[str, Any]:
        """The knobs of a design given by its number, as a row of our table, or by knobs; those of a changed row are as it has them."""
        given: Mapping[str, Any] = row if isinstance(row, Mapping) else {"design": row}
        if "trial" in given and "design" not in given:  # a row of trials(): of the measured side alone
            known = {*self.context.get("model_knobs", ()), *(name for design in self.designs for name in design["knobs"])}
            return {name: _plain(value) for name, value in given.items() if name in known}
        columns = {name for design in self.designs for name in run_folder.flat_row(design) if name not in design["knobs"]}
        own = {name: _plain(value) for name, value in given.items() if name not in columns}
        if "design" not in given:
            return own
        number = given["design"]
        found = self.entry(number)
        if found is None:
            raise UsageError(f"design {number} is not on the front; its designs are 1 to {len(self.designs)}")
        knobs: Mapping[str, Any] = found["knobs"]
        return {**knobs, **{name: value for name, value in own.items() if knobs.get(name) != value}}

    def plot(self) -> go.Figure:
        """An interactive picture of the front."""
        from dse.reports.figures import front_figure

        return front_figure(self)


def _plain(value: Any) -> Any:
    """A value of a frame's row as Python has it; a row of numbers alone is of floats, and knobs are whole numbers where they can be."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _meets(value: float | None, constraint: Constraint) -> bool:
    if value is None:
        raise DseError(f"the designs of this search have no {constraint.metric}")
    return value <= constraint.bound if constraint.relation == "<=" else value >= constraint.bound


def load(path: str | Path) -> Run:
    """Read a finished run from its folder (or its study file); an unfinished one is an error that says how to go on."""
    return Run.of(run_folder.load(path))
