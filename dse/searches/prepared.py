"""A search before it begins: its arguments found good, what is searched and how; nothing is written yet."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Unpack

from dse.errors import UsageError, unknown_name
from dse.evaluation.words import ProblemOptions, make_problem
from dse.moved import warn_renamed
from dse.problem.problem import Problem
from dse.searches import beforehand, plan, shards, towers
from dse.searches.effort import sizes_of
from dse.searches.plan import DEFAULT_BUDGET, LargeSettings, MeasuredSettings, ShardSettings, check_count, measured_settings
from dse.searches.sweep import DEFAULT_BLOCK_POINTS, block_bounds
from dse.spaces.sizes import Sizes
from dse.strategies.registry import AUTO, name_of

# Arguments of `dse.search` that say what becomes of the run and not what is searched.
_OF_THE_RUN = ("out", "command", "say", "progress")


@dataclass(frozen=True)
class Prepared:
    """What a search will do.

    Attributes:
        problem: what is searched, decomposed where that leaves the front the same.
        measured, large, sharded: how, one of them at most; none: a sweep in this process.
        apart: designs and deployments are swept apart. bounds: blocks of models, or of hardware points where the sweep is sharded.
    """

    problem: Problem
    measured: MeasuredSettings | None
    large: LargeSettings | None
    sharded: ShardSettings | None
    apart: bool
    bounds: list[tuple[int, int]]
    seed: int
    threads: int | None


def prepared(
    workload: Any,
    objective: str | Iterable[str] | None = None,
    *,
    quality: str | Callable[..., Any] | None = None,
    strategy: str | Any = AUTO,
    budget: int | None = None,
    workers: int = 1,
    whole_budget: bool = False,
    confirm: int = 0,
    measured: MeasuredSettings | None = None,
    sharded: ShardSettings | None = None,
    seed: int = 0,
    threads: int | None = None,
    block_points: int = DEFAULT_BLOCK_POINTS,
    **options: Unpack[ProblemOptions],
) -> Prepared:
    """The search that the arguments of :func:`dse.search` describe.

    Raises DseError as that does, and where no design can meet the bounds that need no mapping.
    """
    given: dict[str, Any] = dict(options)
    if "learnt" in given:
        warn_renamed("learnt", "measured")
        measured = given.pop("learnt")
    strategy = name_of(strategy)
    check_count("workers", workers)
    if threads is not None:
        check_count("threads", threads)
    if seed < 0:
        raise UsageError(f"seed is {seed}; a whole number from 0 is needed")
    if measured is not None:
        _unused("measured holds it", quality=quality, workers=None if workers == 1 else workers)
    measured = _agreed(measured, strategy, budget)
    dear = (measured.quality if measured is not None else quality) not in (None, "surrogate")
    if quality is not None and dear and not isinstance(workload, Problem):
        # An evaluator measures any model that exists; only a surrogate needs published support.
        given = {"allow_unsupported": True, **given}
    problem = _problem(workload, objective, given, keep_quality=dear)
    if measured is None and quality is None:
        problem = towers.reduced(problem, threads=threads)
    sizes = sizes_of(problem, threads=threads or 1)
    if measured is None and sharded is None:
        measured = measured_settings(quality, strategy, budget=budget, workers=workers, large=strategy == "amoo" or not sizes.sweepable)
    if measured is None and sharded is None and workers != 1 and sizes.sweepable and strategy != "amoo":
        sharded = ShardSettings("processes", workers)
    large = None if sharded is not None else plan.large_settings(sizes, measured, strategy, budget)
    if whole_budget:
        if measured is None or large is not None:
            raise UsageError("whole_budget is not used: this search has no trials to stop before their budget; leave it out")
        measured = replace(measured, stop_early=False)
    if confirm:
        if measured is None or large is not None:
            raise UsageError(f"confirm is {confirm} and this search measures no quality that could be measured again; leave it out")
        if measured.confirm not in (0, confirm):
            raise UsageError(f"confirm is {confirm} and that of the measured settings {measured.confirm}; give one of them")
        measured = replace(measured, confirm=confirm)
    if sharded is not None:
        _unused("the sweep is shared out", quality=quality)
        _check_sharded(sizes, measured, strategy, sharded.workers)
    elif large is not None:
        _unused("designs are evaluated in this process", workers=None if workers == 1 else workers)
        measured = None
        if problem.prefetch:
            raise UsageError(f"prefetch is of spaces that are swept, and this one has {sizes.designs:,} designs; leave it out")
        problem = replace(problem, residency="none")  # its exact evaluations and closed forms are of operations by themselves
        # Start-up: a plain sweep, the usual search, does not wait for what it needs not.
        from dse.searches import large_space

        large_space.check(problem, large)
    elif not sizes.sweepable:
        raise UsageError(sizes.refusal(measured=measured is not None and (measured.quality != "surrogate" or measured.proxy is not None)))
    if measured is None and large is None and budget is not None:
        raise UsageError(f"budget is {budget} and all {sizes.designs:,} designs are swept, which has none; leave it out or name a strategy")
    if block_points != DEFAULT_BLOCK_POINTS and (measured is not None or large is not None or sharded is not None):
        raise UsageError(f"block-points is {block_points} and this search is no sweep in one process; leave it out")
    apart = sizes.apart and measured is None and large is None and sharded is None
    if apart and block_points != DEFAULT_BLOCK_POINTS:
        raise UsageError(f"block-points is {block_points} and this sweep of many deployments cuts its own blocks; leave it out")
    if measured is None and large is None:
        beforehand.refuse_infeasible(problem, apart=sizes.apart)
    if measured is not None:
        # Start-up: a plain sweep, the usual search, does not wait for what it needs not.
        from dse.searches.measured import check_problem

        check_problem(measured, problem)
    if sharded is not None:
        bounds = shards.shard_bounds(problem, sizes, sharded.workers)
    else:
        bounds = block_bounds(sizes.models, sizes.hardware, block_points) if large is None and not apart else []
    return Prepared(problem, measured, large, sharded, apart, bounds, seed, threads)


def _problem(workload: Any, objective: str | Iterable[str] | None, options: dict[str, Any], *, keep_quality: bool) -> Problem:
    """The problem that the arguments of :func:`prepared` describe."""
    if isinstance(workload, Problem):
        for name in ("objective", *options) if objective is not None else options:
            raise UsageError(f"{name} is not used: the workload is a Problem, which holds it")
        return workload
    own = [name for name in inspect.signature(prepared).parameters if name != "options"]
    for name in options:
        if name not in ProblemOptions.__annotations__:
            raise unknown_name("argument", name, [*own, *_OF_THE_RUN, *ProblemOptions.__annotations__])
    return make_problem(workload, "carbon" if objective is None else objective, keep_quality=keep_quality, **options)


def _unused(why: str, **arguments: Any) -> None:
    """An argument that would change nothing is an error, not a silence."""
    for name, value in arguments.items():
        if value is not None:
            raise UsageError(f"{name} {value!r} is not used: {why}; leave it out")


def _agreed(measured: MeasuredSettings | None, strategy: str, budget: int | None) -> MeasuredSettings | None:
    """The settings of a measured search with the strategy and the budget that were given beside them; two that differ are an error."""
    if measured is None:
        return None
    if strategy not in (AUTO, measured.strategy):
        if measured.strategy != AUTO:
            raise UsageError(f"strategy is {strategy} and that of the measured settings {measured.strategy}; give one of them")
        measured = replace(measured, strategy=strategy)
    if budget is not None and budget not in (measured.budget, sum(measured.sizes)):  # the second: what screening shares out
        if measured.budget != DEFAULT_BUDGET:
            raise UsageError(f"budget is {budget} and that of the measured settings {measured.budget}; give one of them")
        measured = replace(measured, budget=budget)
    return measured


def _check_sharded(sizes: Sizes, measured: MeasuredSettings | None, strategy: str, workers: int) -> None:
    if measured is not None or strategy not in ("auto", "exhaustive"):
        raise UsageError(f"shards are of a sweep, and strategy {measured.strategy if measured else strategy} is none; use exhaustive")
    shards.check(sizes, workers)
