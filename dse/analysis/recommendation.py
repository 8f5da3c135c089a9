"""What to build, and why: one record of a finished search that terminal, report, JSON and Python all show.

The rule of the choice (`dse.analysis.choice`) and what each part means are in docs/recommendation.md. A front of equal designs counts
each once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.analysis.cautions import cautions
from dse.analysis.choice import alike, choose
from dse.analysis.demand import Demand, demand, standing
from dse.analysis.quality_order import QualityOrder, quality_order
from dse.analysis.reasons import why
from dse.analysis.ties import near_ties
from dse.analysis.words import Words
from dse.evaluation.feasibility import meets
from dse.problem.metrics import METRICS
from dse.problem.objectives import Objective
from dse.problem.problem import LOOP
from dse.problem.wording import error_text, finite, joined, lowered, number_text, whole_percents

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

ONE_ERROR, NEAREST, BEST = "one standard error", "nearest to the best of every objective", "best"
_KNOBS = 3


@dataclass(frozen=True)
class Change:
    """What would change the choice: ``factor`` beyond ``value`` (``unit``) makes ``design`` the recommended one; ``examples`` lie there."""

    factor: str
    relation: str  # "<" or ">"
    value: float
    unit: str
    design: int
    phrase: str
    examples: tuple[str, ...] = ()
    on_front: bool = True  # or a contender beside it, which the front of another deployment would hold

    def __str__(self) -> str:
        return f"{self.when}: {self.then}"

    @property
    def when(self) -> str:
        """``grid below 101 gCO2e/kWh (iceland, france)``"""
        side = "below" if self.relation == "<" else "above"
        named = f" ({', '.join(self.examples)})" if self.examples else ""
        return f"{self.factor} {side} {number_text(float(f'{self.value:.3g}'))} {self.unit}{named}"

    @property
    def then(self) -> str:
        """``design 174 (12 layers x 576 on 2 cores of 128 x 4, beside this front)``"""
        return f"design {self.design} ({self.phrase}{'' if self.on_front else ', beside this front'})"


@dataclass(frozen=True)
class Extreme:
    """The design with the best value of one objective."""

    metric: str
    direction: str
    design: int
    value: float
    phrase: str


@dataclass(frozen=True)
class KnobShare:
    """Share of the variation of a metric over the space that a knob is charged with; all of a metric add to one."""

    knob: str
    metric: str
    share: float


@dataclass(frozen=True)
class Recommendation:
    """What to build.

    Attributes:
        design: number on the front, None where the front is empty. phrase: the design in a few words. knobs: every knob with its value.
        toml: its file in the run's folder. rule: which form of the rule applied. reason: why, as the end of a sentence.
        runner_up: what the rule names without it, of the contenders where the front is this design; None where nothing is left.
        runner_up_reason: how that differs.
        why: what its costs are made of and what it saves, in one line. near_ties: designs that no objective tells from it by more than
        one per cent (`dse.analysis.ties`). ties_differ_in: knobs in which those, and those that draws name, differ from it.
        kept_share: share of the draws of the carbon factors in which the rule names the same design; None where nothing was drawn.
        tied_share: the same, or one that is a near tie with it. model_share, hardware_share: one with the same model, the same hardware;
        None where no draw can tell, as only one is searched.
        quality_order: how likely its quality is at least the runner-up's and the best one's, as far as standard errors tell.
        ahead, ahead_share: a design that more draws name than it, which one most, and their share; None where it is named most itself.
        carbon_profile: whose factors were drawn. other_profile, other_profile_design: what the rule names by the other shipped one (act2,
        default); empty where that does not know the hardware.
        draws, factors: how many draws of how many factors.
        changes: what of the deployment would change the choice, one factor at a time. unchanged: factors that cannot, with their range.
        compared_with: what the draws and the deployments chose from beside the front, in words; empty: the front alone. alone: there was
        nothing else to choose from, so that nothing can be said of either. contenders_kept: whether the designs beside the front that the
        rule may name elsewhere were there to choose from; where not, all of these speak of the front alone (None: not asked).
        front_designs: how many designs the front has, equal ones counted once.
        extremes: the best design of each objective. matters: the three knobs with the largest shares and the rest, adding to one.
        not_drawn: why nothing was drawn, where that is so for all of a kind.
        device, device_share, device_settled: of a choice among devices by total carbon, its device, the share of draws in which that has
        the least when the devices' latency and energy are drawn as well (`dse.evaluation.device_order`), and whether that settles it.
        warnings: what to know before trusting it.
        file, again: of a run that is asked (:meth:`dse.run.Run.recommend`), the path of its file and the command that gives its numbers
        from there; a search keeps neither, as a folder may be moved.
    """

    design: int | None
    phrase: str
    knobs: Mapping[str, Any]
    toml: str
    rule: str
    reason: str
    runner_up: int | None = None
    runner_up_phrase: str = ""
    runner_up_reason: str = ""
    kept_share: float | None = None
    draws: int = 0
    factors: int = 0
    changes: tuple[Change, ...] = ()
    unchanged: tuple[str, ...] = ()
    extremes: tuple[Extreme, ...] = ()
    matters: tuple[KnobShare, ...] = ()
    warnings: tuple[str, ...] = ()
    compared_with: str = ""
    alone: bool = False
    contenders_kept: bool | None = None
    front_designs: int = 0
    quality_order: tuple[QualityOrder, ...] = ()
    why: str = ""
    near_ties: tuple[int, ...] = ()
    ties_differ_in: tuple[str, ...] = ()
    tied_share: float | None = None
    model_share: float | None = None
    hardware_share: float | None = None
    ahead: int | None = None
    ahead_share: float | None = None
    carbon_profile: str = ""
    other_profile: str = ""
    other_profile_design: int | None = None
    not_drawn: str = ""
    device: str = ""
    device_share: float | None = None
    device_settled: bool = False
    file: str = field(default="", compare=False)
    again: str = field(default="", compare=False)

    @property
    def sentence(self) -> str:
        """``Build design 9: 12 layers x 576 on 64 x 32; within one standard error of the best quality and 28 % less total carbon.``"""
        if self.design is None:
            return "No design can be recommended: the front is empty."
        return f"Build design {self.design}: {self.phrase}; {self.reason}."

    @property
    def lines(self) -> list[str]:
        """What stands below the sentence: runner-up, how sure, what would change it, what matters; each a line ``word: text``."""
        found = [f"why: {self.why}"] if self.why else []
        if self.runner_up is not None:
            found.append(f"runner-up: design {self.runner_up}, {self.runner_up_phrase}: {self.runner_up_reason}")
        if self.quality_order:
            found.append(f"order of quality: {self.order_text} (by their standard errors)")
        if self.near_ties:
            found.append(f"near ties: {self.ties_text}")
        if self.kept_share is not None:
            found.append(f"how sure: {self.sure_text}")
        if self.not_drawn:
            found.append(f"how sure: {self.not_drawn}")
        if self.alone:
            found.append(f"how sure: {self._nothing_else}")
        if self.changes:
            found.append("what would change it: " + "; ".join(self.changes_by_design))
        if self.unchanged:
            found.append(f"what would not{'' if self.compared_with else ' (of this front)'}: " + "; ".join(self.unchanged))
        if self.matters:
            percents = whole_percents([row.share for row in self.matters])
            label = _label(self.matters[0].metric)
            found.append(f"what moves {label}: " + ", ".join(f"{row.knob} {p} %" for row, p in zip(self.matters, percents, strict=True)))
        return found

    @property
    def order_text(self) -> str:
        """``48 % that its quality is at least design 8's, 27 % the best one's, design 1``"""
        told = [
            f"{_percent(row.probability)} {'' if at else 'that its quality is at least '}"
            f"{f'that of the best, design {row.design}' if row.best else f'that of design {row.design}'}"
            for at, row in enumerate(self.quality_order)
        ]
        return ", ".join(told)

    @property
    def ties_text(self) -> str:
        """``design 12 is within 1 % of it in every objective; they differ in depth: take whichever suits``"""
        many = len(self.near_ties) > 1
        shown = [str(number) for number in self.near_ties[:5]] + ([f"{len(self.near_ties) - 5} more"] if len(self.near_ties) > 5 else [])
        apart = f"; they differ in {joined(self.ties_differ_in)}" if self.ties_differ_in else ""
        return f"design{'s' if many else ''} {joined(shown)} {'are' if many else 'is'} within 1 % of it in every objective{apart}"

    @property
    def sure_text(self) -> str:
        """In how many draws it stays: it or a near tie first, for which of two equals is named is chance; then model and hardware apart."""
        assert self.kept_share is not None  # asked where something was drawn
        within = f" within carbon profile {self.carbon_profile}" if self.carbon_profile else ""
        of = f"of {self.draws:,} draws of {self.factors} carbon factors{within}"
        among = f"of {self.compared_with or 'this front'}"
        shares = [("the same model", self.model_share), ("the same hardware", self.hardware_share)]
        if self.tied_share is None or self.tied_share <= self.kept_share:
            told = f"{_percent(self.kept_share)} {of} name the same design {among}"
        else:
            apart = f"; they differ in {joined(self.ties_differ_in)}" if self.ties_differ_in and not self.near_ties else ""
            told = f"{_percent(self.tied_share)} {of} name it or a near tie {among} (within 1 %{apart})"
            shares.insert(0, ("the design itself", self.kept_share))
        apart_shares = [f"{part} {_percent(share)}" for part, share in shares if share is not None and self.kept_share < 1.0]
        lines = [told, *([joined(apart_shares)] if apart_shares else [])]
        if self.ahead is not None and self.ahead_share is not None:
            lines.append(f"design {self.ahead} is named in more of them, {_percent(self.ahead_share)}")
        if self.other_profile:
            same = self.other_profile_design == self.design
            lines.append(f"profile {self.other_profile} names {'it too' if same else f'design {self.other_profile_design}'}")
        if self.device_share is None:
            return "; ".join(lines) + " (quality, latency and energy held)"
        of_device = (
            f"{'' if self.device_settled else 'not '}settled: {_percent(self.device_share)} of draws that also move each device's latency "
            f"and energy, by its model's errors, keep {self.device} the least in total carbon"
        )
        return f"{of_device}; with those held, " + "; ".join(lines)

    @property
    def changes_by_design(self) -> list[str]:
        """Each design that something would make the recommended one, with all that would."""
        when: dict[str, list[str]] = {}
        for change in self.changes:
            when.setdefault(change.then, []).append(change.when)
        return [f"{then}: {' or '.join(whens)}" for then, whens in when.items()]

    @property
    def _nothing_else(self) -> str:
        """Why nothing is said of draws and other deployments."""
        if self.compared_with:
            alike = " with a quality within one standard error of the best" if self.rule == ONE_ERROR else ""
            return f"no other design was there to choose: of {self.compared_with} it alone can be built and serve{alike}"
        only = "the front is this one design"
        if self.front_designs > 1:
            alike = "has a quality within one standard error of the best" if self.rule == ONE_ERROR else "may be recommended"
            only = f"of the {self.front_designs} designs of the front that differ it alone {alike}"
        return (f"not told: {only}, and designs beside the front were not kept, so another grid, lifetime or rate may well name "
                "another; search there too")  # fmt: skip

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"  {line}" for line in self.lines), *(f"  careful: {line}" for line in self.warnings),
                          *(f"  {line}" for line in self._where)])  # fmt: skip

    @property
    def _where(self) -> list[str]:
        """Its file, and what gives its numbers again, where both are known."""
        told = [f"its file: {self.file}"] if self.file else []
        return told + ([f"its numbers again: {self.again} (in Python: evaluate({self.design}) of the study)"] if self.again else [])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A small card for notebooks: the sentence, what stands below it, and what to be careful about."""
        rows = [line.split(": ", 1) for line in self.lines] + [["careful", line] for line in self.warnings]
        rows += [line.split(": ", 1) for line in self._where]
        body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(told)}</td></tr>" for name, told in rows)
        table = f"<table><tbody>{body}</tbody></table>" if rows else ""
        style = "border:1px solid #8884;border-radius:8px;padding:10px 14px;max-width:60em"
        return f'<div style="{style}"><div><strong>{escape(self.sentence)}</strong></div>{table}</div>'

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``file`` and ``again`` where they are known."""
        told = {name: value for name, value in asdict(self).items() if value or name not in ("file", "again")}
        return {"sentence": self.sentence, **told}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recommendation:
        """The inverse of :meth:`to_dict`."""
        given = {name: value for name, value in values.items() if name != "sentence"}
        rows = {"changes": Change, "extremes": Extreme, "matters": KnobShare, "quality_order": QualityOrder}
        for name, kind in rows.items():
            given[name] = tuple(kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in given.get(name, ()))
        lists = ("unchanged", "warnings", "near_ties", "ties_differ_in")
        return cls(**{**given, **{name: tuple(given[name]) for name in lists if name in given}})


@dataclass(frozen=True)
class Front:
    """A front as the rule sees it: each of equal designs once, in canonical order.

    Attributes:
        designs: entries. quality, error: (designs,), higher better, None without a quality objective. costs: (designs, costs), minimised;
        objectives: theirs. allowed: designs whose quality something supports, all where none has support. demand: of fleets, what they
        are to serve.
    """

    designs: list[dict[str, Any]]
    quality: FloatArray | None
    error: FloatArray | None
    costs: FloatArray
    objectives: tuple[Objective, ...]
    allowed: BoolArray
    demand: Demand | None = None

    @classmethod
    def of(cls, run: RunRecord) -> Front:
        """The front of a run; designs without a value of an objective are left out."""
        found = cls.of_designs(run.problem.objectives, [design for design in run.designs if design.get("equal_to") is None])
        return replace(found, demand=demand(run.problem, found.designs))

    @classmethod
    def of_designs(cls, objectives: Sequence[Objective], designs: Sequence[dict[str, Any]]) -> Front:
        """The same of designs that may not all be on a front."""
        once = [design for design in designs if all(finite(design["metrics"].get(o.metric)) is not None for o in objectives)]
        best = next((o for o in objectives if o.metric == "quality" and o.direction == "max"), None)
        others = tuple(o for o in objectives if o is not best)
        costs = np.array([[o.sign * d["metrics"][o.metric] for o in others] for d in once], dtype=np.float64).reshape(
            len(once), len(others)
        )
        supported = np.array([d.get("quality_support") != "extrapolated" for d in once], dtype=bool)
        if best is None:
            return cls(once, None, None, costs, others, np.ones(len(once), dtype=bool))
        quality = np.array([d["metrics"]["quality"] for d in once], dtype=np.float64)
        error = np.array([finite(d["metrics"].get("quality_se")) or 0.0 for d in once])
        return cls(once, quality, error, costs, others, supported if supported.any() else np.ones(len(once), dtype=bool))

    @property
    def best(self) -> int:
        """Index of the best quality of the designs that are allowed."""
        assert self.quality is not None  # asked where quality is an objective
        return int(np.argmax(np.where(self.allowed, self.quality, -np.inf)))

    def without(self, index: int) -> Front:
        """The front less one design."""
        keep = [i for i in range(len(self.designs)) if i != index]
        allowed = self.allowed[keep]
        return Front(
            [self.designs[i] for i in keep],
            None if self.quality is None else self.quality[keep],
            None if self.error is None else self.error[keep],
            self.costs[keep],
            self.objectives,
            allowed if allowed.any() else np.ones(len(keep), dtype=bool),
            self._demand_without(keep),
        )

    def _demand_without(self, keep: list[int]) -> Demand | None:
        if self.demand is None or not self.demand.serves[keep].any():
            return None
        return replace(self.demand, serves=self.demand.serves[keep])

    def rule(self) -> tuple[str, BoolArray, FloatArray]:
        """Which form of the rule applies, the designs that it chooses from, and the costs (designs, costs) by which it chooses."""
        if self.demand is not None:
            return self.demand.rule, self.demand.serves, self.costs[:, list(self.demand.costs)]
        if self.quality is None or self.error is None:
            return (BEST if len(self.objectives) == 1 else NEAREST), self.allowed, self.costs
        if not self.objectives:
            return BEST, self.allowed, -self.quality[:, None]
        like = alike(self.quality, self.error, self.allowed)
        if like is not None:
            return ONE_ERROR, like, self.costs
        return NEAREST, self.allowed, np.column_stack([-self.quality, self.costs])


def recommend(run: RunRecord) -> Recommendation:
    """The recommendation of a run from its designs alone; `dse.analysis.sureness` adds draws and other deployments."""
    front = Front.of(run)
    if not front.designs:
        return Recommendation(None, "", {}, "", NEAREST, "", warnings=tuple(cautions(run)))
    rule, allowed, costs = front.rule()
    chosen = int(choose(costs, allowed))
    design = front.designs[chosen]
    words = Words.of(run)
    second = _runner_up(run, front, chosen)
    best = front.designs[front.best] if rule == ONE_ERROR else None
    other, role = (second, "the runner-up") if best is None or best is design else (best, "the best in quality")
    alike_designs = near_ties(design, [*front.designs, *beside(run)], run.problem.objectives)
    return Recommendation(
        design=design["design"],
        phrase=words.phrase(design["knobs"]),
        knobs=dict(design["knobs"]),
        toml="" if run.problem.kind == LOOP else f"designs/design-{design['design']:04d}.toml",
        rule=rule,
        reason=_reason(front, chosen, rule, allowed),
        runner_up=None if second is None else second["design"],
        runner_up_phrase="" if second is None else words.beside(second["knobs"], design["knobs"]),
        runner_up_reason="" if second is None else _difference(run.problem.objectives, design, second),
        extremes=tuple(_extremes(run, front, words)),
        matters=tuple(_matters(run)),
        quality_order=tuple(quality_order(run, design, second, front.designs[front.best])) if front.quality is not None else (),
        warnings=tuple(cautions(run, design)),
        why=standing(run.problem, design) if run.problem.kind else why(design, run.problem.objectives, other, role),
        front_designs=len(front.designs),
        near_ties=tuple(tied["design"] for tied in alike_designs),
        ties_differ_in=words.apart(design["knobs"], [tied["knobs"] for tied in alike_designs]),
    )


def _runner_up(run: RunRecord, front: Front, chosen: int) -> dict[str, Any] | None:
    rest = front.without(chosen) if len(front.designs) > 1 else Front.of_designs(run.problem.objectives, beside(run))
    if not rest.designs:
        return None
    _, allowed, costs = rest.rule()
    return rest.designs[int(choose(costs, allowed))]


def beside(run: RunRecord) -> list[dict[str, Any]]:
    """The contenders of a run that meet every bound of its search, so that they stand beside its front here and now."""
    bounds = run.problem.constraints
    return [d for d in run.contenders if all(c.metric in d["metrics"] and bool(meets(c, d["metrics"][c.metric])) for c in bounds)]


def _label(name: str) -> str:
    return lowered(METRICS[name].label) if name in METRICS else name


def _percent(value: float) -> str:
    """A share in whole per cent, never 0 or 100 where it is neither."""
    percent = 100.0 * value
    if 99.5 <= percent < 100:
        return "> 99 %"
    return "< 1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"


def _gap(value: float) -> str:
    """A difference as a share: below one per cent with the digits that tell it from none."""
    percent = 100.0 * value
    return f"{percent:.1g} %" if 0.001 <= percent < 0.95 else _percent(value)


def _reason(front: Front, chosen: int, rule: str, allowed: BoolArray) -> str:
    """Why the chosen design, as the end of a sentence."""
    if front.demand is not None:
        return _served(front, front.demand, chosen, allowed)
    if rule == BEST:
        name = front.objectives[0].metric if front.objectives else "quality"
        direction = front.objectives[0].direction if front.objectives else "max"
        return f"the {'highest' if direction == 'max' else 'lowest'} {_label(name)} of all feasible designs"
    if rule == NEAREST:
        if front.quality is None and (front.costs[chosen] == front.costs.min(axis=0)).all():
            return f"the best of all feasible designs in {joined([_label(o.metric) for o in front.objectives])}"
        told = [f"{_label(o.metric)} {_times(front.costs[:, i], front.costs[chosen, i], o)}" for i, o in enumerate(front.objectives)]
        if front.quality is not None:
            told.insert(0, f"quality {number_text(front.quality[chosen])} of at most {number_text(front.quality.max())}")
        return f"{NEAREST}: {', '.join(told)}"
    best = front.best
    if chosen == best:
        return "the best quality, and no design within one standard error of it " + (
            f"has less {_label(front.objectives[0].metric)}" if len(front.objectives) == 1 else "is better in the other objectives together"
        )
    saved = _against(front.objectives, front.costs[best], front.costs[chosen])
    return f"within one standard error of the best quality and {saved}"


def _served(front: Front, asked: Demand, chosen: int, allowed: BoolArray) -> str:
    """Why the chosen fleet, and what the most goodput would take."""
    told = []
    for at in asked.costs:
        times, objective = _times(front.costs[allowed, at], front.costs[chosen, at], front.objectives[at]), front.objectives[at]
        best = "the most" if objective.direction == "max" else "the least"
        told.append(f"{best} {_label(objective.metric)}" if times == "the best" else f"{_label(objective.metric)} {times}")
    reason = asked.reason(joined(told))
    good = next(i for i in range(len(front.objectives)) if i not in asked.costs)
    fastest = int(np.argmin(front.costs[:, good]))
    if fastest == chosen:
        return reason
    more = _gap(float(front.costs[fastest, good] / front.costs[chosen, good]) - 1.0)
    others = list(asked.costs)
    price = _against([front.objectives[i] for i in others], front.costs[chosen, others], front.costs[fastest, others])
    return f"{reason}; {more} more {_label(front.objectives[good].metric)} is to be had for {price}"


def _times(column: FloatArray, value: float, objective: Objective) -> str:
    """How far a value is from the best of its column."""
    best = float(column.min())
    if value == best:
        return "the best"
    if best > 0:
        # "1 times the least" would say the best itself.
        return f"{value / best:.3g} times the least" if value / best >= 1.005 else f"{_gap(value / best - 1.0)} above the least"
    return f"{number_text(objective.sign * value)} of at best {number_text(objective.sign * best)}"


def _against(objectives: Sequence[Objective], reference: FloatArray, values: FloatArray) -> str:
    """``28 % less total carbon, 3 % more latency``: values against a reference, both minimised."""
    told = []
    for objective, before, after in zip(
        objectives, objective_values(objectives, reference), objective_values(objectives, values), strict=True
    ):
        if before == after:
            told.append(f"the same {_label(objective.metric)}")
        elif before > 0:
            ratio = after / before
            told.append(f"{_gap(abs(ratio - 1.0))} {'less' if ratio < 1 else 'more'} {_label(objective.metric)}"
                        if ratio < 2 else f"{ratio:.3g} times the {_label(objective.metric)}")  # fmt: skip
        else:
            told.append(f"{_label(objective.metric)} {number_text(after)} instead of {number_text(before)}")
    return ", ".join(told)


def objective_values(objectives: Sequence[Objective], minimised: FloatArray) -> list[float]:
    """Values of objectives in their own sense."""
    return [objective.sign * float(value) for objective, value in zip(objectives, minimised, strict=True)]


def _difference(objectives: Sequence[Objective], design: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """How another design differs from the recommended one, objective by objective."""
    told = []
    for objective in objectives:
        mine, theirs = float(design["metrics"][objective.metric]), float(other["metrics"][objective.metric])
        if objective.metric == "quality":
            gap = theirs - mine
            told.append(f"quality {error_text(abs(gap))} {'higher' if gap > 0 else 'lower'}" if gap else "the same quality")
        else:
            told.append(_against([objective], np.array([objective.sign * mine]), np.array([objective.sign * theirs])))
    return ", ".join(told)


def _extremes(run: RunRecord, front: Front, words: Words) -> list[Extreme]:
    found = []
    for objective in run.problem.objectives:
        value, index = min((objective.sign * d["metrics"][objective.metric], i) for i, d in enumerate(front.designs))
        design = front.designs[index]
        found.append(Extreme(objective.metric, objective.direction, design["design"], objective.sign * value,
                             words.phrase(design["knobs"])))  # fmt: skip
    return found


def _matters(run: RunRecord) -> list[KnobShare]:
    """The three largest shares of the first cost (of quality where nothing else is asked for) and the rest, adding to one."""
    rows = [row for row in run.context.get("importance") or () if finite(row.get("share")) is not None]
    names = [o.metric for o in run.problem.objectives if o.metric != "quality"] or ["quality"]
    shares = sorted(((float(row["share"]), str(row["knob"])) for row in rows if row["metric"] == names[0]), key=lambda r: (-r[0], r[1]))
    if not shares or not math.isclose(sum(value for value, _ in shares), 1.0, abs_tol=1e-6):
        return []  # none, or of an earlier version, whose shares did not add up
    asked = run.problem.asked_as
    top = [KnobShare(" + ".join(asked.get(part, part) for part in knob.split(" + ")), names[0], value) for value, knob in shares[:_KNOBS]]
    rest = shares[_KNOBS:]
    if rest:
        label = "the other knob" if len(rest) == 1 else f"the other {len(rest)} knobs"
        top.append(KnobShare(label, names[0], max(0.0, 1.0 - sum(row.share for row in top))))
    return top
