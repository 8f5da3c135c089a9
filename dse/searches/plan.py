"""The plan of a search: how quality is measured, how a large space is searched, how a sweep is shared out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dse.errors import UsageError
from dse.moved import warn_renamed
from dse.quality import evaluators
from dse.spaces.sizes import Sizes
from dse.strategies.executors import EXECUTORS, Workers
from dse.strategies.registry import AUTO, find, large_names, name_of
from dse.strategies.rungs import rung_sizes

DEFAULT_BUDGET = 50
MEASURED_SHARE = 0.25  # of a screened budget: those that are healed and measured
SMALLEST_SCREENED = 8
DEFAULT_PROXY_TOP = 10  # designs that a proxy search measures on the target
LARGE_BUDGET = 2000  # exact evaluations of a large space


MOST_AT_ONCE = 1024  # workers or threads: more than any machine here has processors
MOST_TRIALS = 2**31 - 1


def check_count(name: str, value: int, most: int = MOST_AT_ONCE) -> None:
    """Raise UsageError unless a number of things is from 1 to ``most``."""
    if value < 1:
        raise UsageError(f"{name} is {value}; a whole number of at least 1 is needed")
    if value > most:
        raise UsageError(f"{name} is {value}; a whole number of at most {most:,} is needed")


@dataclass(frozen=True)
class MeasuredSettings:
    """How quality is measured and searched.

    ``timeout_s`` and ``memory_gib`` bound one evaluation. ``quality`` is an evaluator's word (``surrogate``, ``table:FILE.csv``,
    ``measured:...``, ``command:...``) or an evaluator,
    ``strategy`` a name or a strategy; objects are registered in this process and known by their names from then on. ``confirm`` says
    how often the designs of the final front are measured again; ``stop_early`` whether a stalled search ends before its budget;
    ``warm_start`` run folders whose trials are known beforehand. With ``proxy``, an evaluator's word too, ``budget`` is spent on
    it and its ``proxy_top`` best designs are measured by ``quality``; ``fidelities`` (rising, between 0 and 1) are rungs on the way, or,
    without a proxy, where ``budget`` is spent first (successive halving). ``storage`` is the SQLAlchemy URL of a database that
    holds the trials in place of the run folder, so that several drivers share them; ``study`` their name in it (default: one
    that follows from the problem and these settings, the same for every driver of the same search).
    """

    quality: Any = "surrogate"  # a word, an evaluator or a function; its word from here on
    strategy: Any = "auto"  # a name or a strategy; its name from here on
    budget: int = DEFAULT_BUDGET
    workers: int = 1
    executor: str | None = None
    address: str | None = None
    timeout_s: float | None = None
    memory_gib: float | None = None
    retries: int = 1
    confirm: int = 0
    stop_early: bool = True
    warm_start: tuple[str, ...] = ()
    proxy: str | None = None
    proxy_top: int = DEFAULT_PROXY_TOP
    fidelities: tuple[float, ...] = ()
    storage: str | None = None
    study: str | None = None

    @property
    def stops_early(self) -> bool:
        """Whether a stalled search ends before its budget: figures of a table that are there cost nothing, so that all are read."""
        return self.stop_early and not str(self.quality).startswith("table:")

    def __post_init__(self) -> None:
        # Objects are known by a name from here on, for a study keeps plain values.
        object.__setattr__(self, "quality", evaluators.name_of(self.quality))
        object.__setattr__(self, "strategy", name_of(self.strategy))
        if self.proxy is not None:
            object.__setattr__(self, "proxy", evaluators.name_of(self.proxy))
        check_count("budget", self.budget, MOST_TRIALS)
        check_count("workers", self.workers)
        for name in ("confirm", "retries"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more is needed")
        for name in ("timeout_s", "memory_gib"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"trial-{name.partition('_')[0]} is {value}; a positive number is needed")
        if self.memory_gib is not None and (self.executor not in (None, "processes") or self.quality.startswith("object:")):
            raise UsageError("trial-memory bounds processes, and these evaluations run in none of their own; leave it or the executor out")
        if any(not 0 < low < 1 for low in self.fidelities) or list(self.fidelities) != sorted(set(self.fidelities)):
            told = ",".join(f"{low:g}" for low in self.fidelities)
            raise UsageError(f"fidelities are {told}; numbers above 0 and below 1 are needed, each above the one before")
        if self.fidelities and self.proxy is None and not 1 <= self.proxy_top <= self.budget:
            raise UsageError(f"{self.proxy_top} whole measurements are asked for; between 1 and the budget of {self.budget} are needed")
        if self.proxy is not None and not 1 <= self.proxy_top <= self.budget:
            raise UsageError(f"proxy-top is {self.proxy_top}; between 1 and the budget of {self.budget} trials on the proxy is needed")
        if self.study is not None and self.storage is None:
            raise UsageError(f"study {self.study!r} names trials in a shared database; give the database with --storage URL")
        if self.storage is not None:
            _check_storage(self.storage)

    @property
    def of_trials(self) -> str | None:
        """The first setting, in the command line's word, that only trials of a measured quality can have; None if there is none."""
        given = {
            "storage": self.storage,
            "confirm": self.confirm,
            "from": self.warm_start,
            "executor": self.executor,
            "address": self.address,
            "trial-timeout": self.timeout_s,
            "trial-memory": self.memory_gib,
        }
        return next((name for name, value in given.items() if value), None)

    @property
    def sizes(self) -> list[int]:
        """Designs of each rung, from the first to the whole measurements; one number where there are no rungs."""
        if self.proxy is None and not self.fidelities:
            return [self.budget]
        return rung_sizes(self.budget, self.proxy_top, len(self.fidelities) - (self.proxy is None))

    @property
    def in_words(self) -> str:
        """What is evaluated how often."""
        first, *between = self.sizes
        if not between:
            return f"at most {self.budget} evaluations of {self.quality}"
        rungs = self.fidelities if self.proxy else self.fidelities[1:]
        steps = "".join(f"then {size} at fidelity {low:g}, " for low, size in zip(rungs, between, strict=False))
        begun = f"evaluations of the proxy {self.proxy}" if self.proxy else f"at fidelity {self.fidelities[0]:g}"
        whole = f"{self.proxy_top} of {self.quality}" if self.proxy else f"{self.proxy_top} whole evaluations of {self.quality}"
        return f"at most {first} {begun}, {steps}then {whole}, which alone make the front"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MeasuredSettings:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, **{name: tuple(values.get(name, ())) for name in ("warm_start", "fidelities")}})


@dataclass(frozen=True)
class LargeSettings:
    """How a large space is searched: the strategy (or auto) and the number of exact evaluations."""

    strategy: str = "auto"
    budget: int = LARGE_BUDGET

    def __post_init__(self) -> None:
        if self.strategy != AUTO and not find(self.strategy).large:
            raise UsageError(
                f"strategy {self.strategy} does not fit a space too large to enumerate; use auto or one of {', '.join(large_names())}, "
                "or fix knobs with --set"
            )
        if self.budget < 1:
            raise UsageError(f"budget is {self.budget}; at least one evaluation is needed")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ShardSettings:
    """Where the shards of a sweep run, as :func:`dse.strategies.executors.workers` takes it, and further attempts of a lost one."""

    executor: str
    workers: int = 1
    address: str | None = None
    retries: int = 1

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            Workers(self.executor)  # it knows the sentence
        check_count("workers", self.workers)
        if self.retries < 0:
            raise UsageError(f"retries is {self.retries}; 0 or more is needed")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def _check_storage(url: str) -> None:
    import sqlalchemy as sa

    try:
        parsed = sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        raise UsageError("storage is no URL of a database; sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE is meant") from None
    try:
        parsed.get_dialect()
    except sa.exc.NoSuchModuleError:
        raise UsageError(
            f"storage {parsed.drivername} is no kind of database; sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE is meant"
        ) from None
    except ModuleNotFoundError:
        pass  # a driver that is not installed is told where the database is opened
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError("storage sqlite:// names no file, and what is kept in memory is lost and shared with nobody; give sqlite:///FILE")
    if parsed.password is not None:
        raise UsageError(
            "storage holds a password, which would be written into the study and the report; leave it to PGPASSWORD or ~/.pgpass"
        )


def measured_settings(
    quality: Any = None, strategy: str = AUTO, *, budget: int | None = None, workers: int = 1, large: bool = False
) -> MeasuredSettings | None:
    """How quality is measured where an evaluator or a strategy of trials is named; None where every metric is cheap and all is swept.

    Args:
        quality: an evaluator, its word, or a function of a model's parameters. budget, workers: of its evaluations.
        large: whether the space is too large to sweep, which the same strategies search by exact evaluations of designs.
    """
    if quality is None and (strategy in (AUTO, "exhaustive") or large):
        return None
    settings = MeasuredSettings(
        quality="surrogate" if quality is None else quality,
        strategy=strategy,
        budget=DEFAULT_BUDGET if budget is None else budget,
        workers=workers,
    )
    return screened(settings)


def screened(settings: MeasuredSettings, *, look: bool = True) -> MeasuredSettings:
    """Settings whose budget is shared out between cheap evaluations and whole ones.

    A search by a real model first looks at every design without healing, and heals and measures a quarter of the budget (``look`` false:
    it does not). The look (agreement with the unpruned model over 200 items) ranks models as the measurement does, at a small part of its
    cost. With ``fidelities`` each rung has half the designs of the one before. All trials together are the budget. What has neither, has a
    proxy of its own, or has a budget too small to share stays.
    """
    word, rungs = settings.quality, len(settings.fidelities)
    look = look and word.startswith("measured:")
    if not (look or rungs) or settings.proxy is not None or settings.budget < SMALLEST_SCREENED:
        return settings
    if rungs:
        steps = rungs + look
        top = max(1, round(settings.budget / (2 ** (steps + 1) - 1)))
        later = sum(top * 2**i for i in range(steps))
    else:
        later = top = max(3, round(settings.budget * MEASURED_SHARE))
    proxy = word + ("&" if "?" in word else "?") + "screen=1" if look else None
    return replace(settings, proxy=proxy, proxy_top=top, budget=settings.budget - later)


def __getattr__(name: str) -> Any:
    if name == "LearntSettings":
        warn_renamed("LearntSettings", "MeasuredSettings")
        return MeasuredSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def large_settings(sizes: Sizes, measured: MeasuredSettings | None, strategy: str, budget: int | None) -> LargeSettings | None:
    """Settings of a search by exact evaluations, where the space is too large for a sweep or amoo is asked for; None elsewhere."""
    if measured is not None:
        if measured.quality != "surrogate" or measured.proxy is not None:
            return None
        strategy = measured.strategy if strategy == AUTO else strategy
    if strategy == "amoo" or (not sizes.sweepable and (strategy == AUTO or find(strategy).large)):
        if measured is not None and (name := measured.of_trials) is not None:
            raise UsageError(
                f"{name} is for trials of a measured quality, and this search evaluates designs exactly, in this process; leave it out"
            )
        return LargeSettings(strategy, LARGE_BUDGET if budget is None else budget)
    return None
