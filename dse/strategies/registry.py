"""The strategies: one record each, which everything reads (``dse list strategies``, ``auto``, measured and large searches).

A strategy of one's own needs no edit of this package. It is given as

* an object in Python: ``dse.search(..., strategy=DeepestFirst())`` or ``register(StrategyRecord(...))``, known in this process by its name;
* ``python:module:NAME``, a class, an instance or a :class:`StrategyRecord` of a module that can be imported (the working folder counts);
* an entry point of an installed package in the group ``dse.strategies``, under its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from dse.errors import UsageError, nearest, unknown_name
from dse.extensions import from_module, installed, installed_names
from dse.spaces.sizes import SWEEP_LIMIT

if TYPE_CHECKING:  # a record names what its factory makes, and importing a strategy costs
    from dse.strategies.protocol import Strategy

GROUP = "dse.strategies"
AUTO = "auto"
AUTO_SUMMARY = "picks one and says why: exhaustive where every metric is cheap, nested where quality is measured"
INNER_LIMIT = 100_000
MODEL_LIMIT = 250_000


@dataclass(frozen=True)
class Facts:
    """What ``auto`` knows of a problem: measured metrics, sizes of both spaces, whether quality is the model's alone."""

    measured: int
    models: int
    hardware: int
    separable: bool = True

    @property
    def designs(self) -> int:
        """Number of whole designs."""
        return self.models * self.hardware


@dataclass(frozen=True)
class StrategyRecord:
    """All that is said of a strategy.

    Attributes:
        name: what users type.
        summary: one line for ``dse list strategies``.
        trial: what a trial of a measured search is: ``model`` (its hardware solved exactly) or ``design`` (a model on a hardware point).
        factory: makes the strategy; options are its keywords.
        needs: packages that must be importable, as their import names, and the extra that brings them.
        large: whether it searches spaces too large to enumerate, by exact evaluations of whole designs.
        large_options: keywords of the factory there.
        warm_start: whether the factory takes ``prior``, the trials of earlier runs.
        fits: the reason for which ``auto`` takes it for a problem, or None. Records are asked in order.
    """

    name: str
    summary: str
    trial: Literal["model", "design"]
    factory: Callable[..., Strategy]
    needs: tuple[str, ...] = ()
    large: bool = False
    large_options: Mapping[str, Any] = field(default_factory=dict)
    warm_start: bool = False
    fits: Callable[[Facts], str | None] = field(default=lambda facts: None, repr=False)

    def __post_init__(self) -> None:
        if self.trial not in ("model", "design"):
            raise UsageError(f"strategy {self.name}: a trial is {self.trial!r}; allowed are model and design")

    @property
    def missing(self) -> tuple[str, ...]:
        """What it needs and is not installed."""
        return tuple(name for name in self.needs if find_spec(name) is None)


def _made_by(module: str, name: str) -> Callable[..., Strategy]:
    """A factory that imports its module when it is called: several engines cost seconds to import."""

    def make(**options: Any) -> Strategy:
        found: Strategy = getattr(importlib.import_module(f"dse.strategies.{module}"), name)(**options)
        return found

    return make


def _exhaustive_fits(facts: Facts) -> str | None:
    if facts.measured or facts.designs > SWEEP_LIMIT:
        return None
    return f"nothing is measured and {facts.designs:,} designs can be swept whole, which is exact"


def _nested_fits(facts: Facts) -> str | None:
    if facts.measured != 1 or not facts.separable or facts.hardware > INNER_LIMIT or facts.models > MODEL_LIMIT:
        return None
    return (
        f"quality is evaluated and the {facts.hardware:,} hardware points of each of {facts.models:,} models are solved exactly, so "
        "that evaluations are spent on quality alone"
    )


def _amoo_fits(facts: Facts) -> str | None:
    if facts.measured:
        return None
    return f"nothing is measured and {facts.designs:,} designs are too many to sweep: descent on the cost model, then exact polish"


def _flat_fits(facts: Facts) -> str | None:
    why = (
        "more than one metric is measured"
        if facts.measured > 1
        else "quality depends on hardware parameters"
        if not facts.separable
        else f"{facts.hardware:,} hardware points a model are too many to solve exactly"
    )
    return f"{why}, so whole designs are searched with a model of every measured metric"


_SHIPPED = (
    StrategyRecord(
        "exhaustive",
        "every design of the joint space, exact front",
        "model",
        _made_by("sampling", "ExhaustiveSearch"),
        fits=_exhaustive_fits,
    ),
    StrategyRecord(
        "nested",
        "Bayesian optimisation of measured quality over models, exact hardware front of each",
        "model",
        _made_by("nested", "NestedSearch"),
        warm_start=True,
        fits=_nested_fits,
    ),
    StrategyRecord(
        "amoo",
        "gradient descent on the relaxed cost model by groups of aligned objectives, then exact polish (extra: search)",
        "design",
        _made_by("amoo.search", "AmooSearch"),
        needs=("torch",),
        large=True,
        fits=_amoo_fits,
    ),
    StrategyRecord(
        "flat",
        "Bayesian optimisation of whole designs, where model and hardware cannot be separated",
        "design",
        _made_by("flat", "FlatSearch"),
        fits=_flat_fits,
    ),
    StrategyRecord("ax", "whole designs through Ax/BoTorch (extra: search)", "design", _made_by("ax", "AxSearch"), needs=("ax", "botorch")),
    StrategyRecord(
        "nsga2",
        "evolutionary baseline (pymoo, extra: search)",
        "model",
        _made_by("nsga2", "Nsga2Search"),
        needs=("pymoo",),
        large=True,
        large_options={"population": 100},
    ),
    StrategyRecord(
        "bandit",
        "a learning agent: linear bandit with Thompson sampling, designs as arms",
        "model",
        _made_by("bandit", "BanditSearch"),
        large=True,
    ),
    StrategyRecord("random", "random models with exact hardware: the baseline", "model", _made_by("sampling", "RandomSearch"), large=True),
    StrategyRecord("sobol", "quasi-random models with exact hardware", "model", _made_by("sampling", "SobolSearch"), large=True),
)
_known: dict[str, StrategyRecord] = {record.name: record for record in _SHIPPED}


def register(strategy: StrategyRecord | Any) -> StrategyRecord:
    """Make a strategy known in this process by its name, and return its record.

    ``strategy`` is a record, or an object or class with ``name`` and ``propose`` (:class:`dse.strategies.protocol.Strategy`); what a trial
    is comes from its attribute ``trial`` (default ``model``). A name of the package cannot be taken over.
    """
    record = _record_of(strategy)
    if any(record.name == shipped.name for shipped in _SHIPPED) or record.name == AUTO:
        raise UsageError(f"strategy {record.name!r} is one of this package; give yours another name")
    _known[record.name] = record
    return record


def name_of(strategy: str | StrategyRecord | Any) -> str:
    """The name of a strategy given as a name or as an object, which is registered by it."""
    return strategy if isinstance(strategy, str) else register(strategy).name


def find(name: str) -> StrategyRecord:
    """The record of a strategy; an unknown name, and ``auto``, which stands for a choice, are errors."""
    if name == AUTO:
        raise UsageError("strategy 'auto' stands for a choice; choose() makes it for a problem")
    if name in _known:
        return _known[name]
    if name.startswith("python:"):
        return _record_of(from_module("strategy", name), name=name)
    given = installed(GROUP, name)
    if given is not None:
        return _record_of(given, name=name)
    close = nearest(name, names())
    if close is None and ":" in name:
        raise UsageError(f"strategy {name!r} is neither a name of `dse list strategies` nor python:module:NAME")
    raise unknown_name("strategy", name, names())


def check(name: str) -> str:
    """The name of a strategy or ``auto``, or an error with the nearest."""
    if name != AUTO:
        find(name)
    return name


def records() -> tuple[StrategyRecord, ...]:
    """Every strategy: the package's, those of installed packages, those registered in this process."""
    own = dict(_known)
    for name in installed_names(GROUP):
        own.setdefault(name, _record_of(installed(GROUP, name), name=name))
    return tuple(own.values())


def names() -> tuple[str, ...]:
    """Names that ``--strategy`` takes, ``auto`` first."""
    return (AUTO, *dict.fromkeys((*_known, *installed_names(GROUP))))


def large_names() -> tuple[str, ...]:
    """Names of the strategies that search spaces too large to enumerate."""
    return tuple(record.name for record in records() if record.large)


def make(name: str, **options: Any) -> Strategy:
    """The strategy called ``name`` (not ``auto``, which needs a problem: see :func:`choose`)."""
    return find(name).factory(**options)


def choose(*, measured: int, models: int, hardware: int, separable: bool = True) -> tuple[str, str]:
    """Name of the strategy for a problem and the reason in a sentence; arguments: see :class:`Facts`."""
    facts = Facts(measured, models, hardware, separable)
    # The last of the package's fits always, so whatever is registered after it is never chosen unasked.
    return next((record.name, why) for record in _known.values() if (why := record.fits(facts)) is not None)


def check_budget(budget: int | None) -> None:
    """A budget is at least one trial."""
    if budget is not None and budget < 1:
        raise UsageError(f"budget is {budget}; at least one evaluation is needed")


def _record_of(given: Any, name: str | None = None) -> StrategyRecord:
    """The record of whatever a user gave: a record, a class, an instance, each under ``name`` where one is asked for."""
    from dataclasses import replace

    if isinstance(given, StrategyRecord):
        return given if name is None else replace(given, name=name)
    if not callable(getattr(given, "propose", None)):
        raise UsageError(f"strategy {name or given!r} has no function propose(task, history, number, seed)")
    own = getattr(given, "name", None) or getattr(given, "__name__", type(given).__name__)
    text = (given.__doc__ or "").strip().splitlines()
    factory = given if isinstance(given, type) else lambda: given
    return StrategyRecord(name or str(own), text[0] if text else "a strategy of yours", getattr(given, "trial", "model"), factory)
