"""Exhaustive sweeps over worker processes or a Dask cluster: a shard is a range of hardware points, with every model.

The mapping search is the dear part of a sweep and belongs to the hardware, so shards divide it. A worker is told the problem as
plain data and a range, prepares that part of the space by itself and answers with the range's local front; nobody ever
holds the unit costs of the whole space. Merged fronts are the bytes of a sweep in one process (:mod:`dse.searches.sweep`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError
from dse.evaluation.design_costs import one_point
from dse.evaluation.design_costs import sizes as sizes_of
from dse.evaluation.evaluation import Evaluation, Space, build_space, load_family, load_hardware
from dse.fronts.pareto import Front, merge
from dse.problem.problem import Problem
from dse.searches.plan import ShardSettings
from dse.searches.sweep import DEFAULT_BLOCK_POINTS, Progress, block_bounds, front_of, sweep_block
from dse.spaces.sizes import SHARDED_SECONDS_LIMIT, Sizes
from dse.storage.study import BlockResult, Study
from dse.strategies.executors import Workers, workers
from workloads import library

IntArray = npt.NDArray[np.int64]

# Shards a worker: one that is slower, or comes late, finds something left to do.
_PER_WORKER = 4
# Unit costs (shapes x points) of a shard at most: some 400 MB a worker.
_SHARD_COSTS = 4_000_000


def check(sizes: Sizes, workers: int) -> None:
    """A sweep of more designs than anybody waits for is refused, sharded or not."""
    if sizes.seconds / workers > SHARDED_SECONDS_LIMIT:
        raise UsageError(
            f"a sweep of {sizes.effort} of one process, more than {SHARDED_SECONDS_LIMIT:,.0f} s on each of {workers} workers; fix some "
            "knobs with --set, or search it without --workers, --executor and --address"
        )


def shard_bounds(problem: Problem, sizes: Sizes, workers: int) -> list[tuple[int, int]]:
    """First and one-past-last hardware point of every shard."""
    points = sizes.hardware
    if _leaves_out(problem):
        points = build_space(problem, load_family(problem), load_hardware(problem)).hardware_count
    most = max(1, _SHARD_COSTS // max(1, sizes.shapes))
    size = min(most, max(1, -(-points // (_PER_WORKER * workers))))
    return [(first, min(first + size, points)) for first in range(0, points, size)]


def _leaves_out(problem: Problem) -> bool:
    """Whether the points are fewer than all combinations of values: by a space file's constraints, or by memories that would not grow."""
    if problem.space_toml is not None:
        return True
    template = load_hardware(problem).narrowed(problem.fixed).template
    return template is not None and template.size != math.prod(len(values) for values in template.knobs.values())


def part_of(problem: Problem, points: IntArray) -> Space:
    """The joint space of a problem with the hardware points at ``points``, in the order of `build_space`."""
    if _leaves_out(problem):  # ranks say nothing then
        space = build_space(problem, load_family(problem), load_hardware(problem))
        return replace(space, hardware={name: column[points] for name, column in space.hardware.items()})
    space, values = one_point(problem)
    if not values:
        return space
    at = np.unravel_index(points, [len(chosen) for chosen in values.values()])
    return replace(space, hardware={name: np.array(chosen)[i] for (name, chosen), i in zip(values.items(), at, strict=True)})


def sweep_shard(problem: Mapping[str, Any], number: int, first: int, last: int, threads: int) -> BlockResult:
    """Every model on hardware points first..last-1; what a worker runs."""
    own = Problem.from_dict(dict(problem))
    evaluation = Evaluation(own, space=part_of(own, np.arange(first, last)), threads=threads)
    models, points = evaluation.space.model_count, evaluation.space.hardware_count
    blocks = [
        sweep_block(evaluation, own.objectives, own.constraints, i, low, high)
        for i, (low, high) in enumerate(block_bounds(models, points, DEFAULT_BLOCK_POINTS))
    ]
    front, summary = front_of(blocks, len(own.objectives))
    return BlockResult(
        number=number,
        first_model=0,
        last_model=models,
        points=summary.points,
        feasible=summary.feasible,
        reasons=summary.reasons,
        front_models=front.models,
        front_hardware=front.hardware + first,
        front_values=front.values,
    )


def run_study(
    study: Study,
    problem: Problem,
    bounds: list[tuple[int, int]],
    settings: ShardSettings,
    *,
    threads: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """The sweep of a run folder over its workers; ``threads`` are shared by the processes of this machine."""
    each = max(1, threads // settings.workers) if settings.executor == "processes" else 1
    with workers(settings.executor, settings.workers, settings.address) as pool:
        run(problem, study, bounds, pool, retries=settings.retries, threads=each, on_progress=on_progress)


def counts(problem: Problem, bounds: list[tuple[int, int]]) -> dict[str, int]:
    """What a report says of the whole space, which no single process has seen."""
    return {"hardware_points": bounds[-1][1], "shapes": sizes_of(problem).shapes}


def run(
    problem: Problem,
    study: Study,
    bounds: list[tuple[int, int]],
    pool: Workers,
    *,
    retries: int,
    threads: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Sweep the shards that ``study`` does not hold yet; each is committed as soon as it is known.

    A worker that dies loses its shard to another one, ``retries`` times; what was
    committed stays. Raises DseError where a shard fails or is lost more often.
    """
    objectives, points = len(problem.objectives), sizes_of(problem).models * bounds[-1][1]
    told = _portable(problem).to_dict()
    finished = list(study.blocks())
    so_far = front_of(finished, objectives)[0] if finished else merge([], objectives)
    swept, feasible = sum(b.points for b in finished), sum(b.feasible for b in finished)
    attempts = dict.fromkeys((n for n in range(len(bounds)) if n not in {b.number for b in finished}), 0)
    pending: dict[Future[BlockResult], int] = {}

    def tell() -> None:
        if on_progress:
            on_progress(Progress(len(bounds) - len(attempts), len(bounds), swept, points, feasible, so_far))

    tell()
    while attempts:
        # Two shards a worker are enough to keep it fed; a cluster may have more workers than were named.
        busy = set(pending.values())
        width = len(bounds) if pool.kind == "dask" else 2 * pool.count
        for number in [n for n in attempts if n not in busy][: width - len(pending)]:
            try:
                pending[pool.submit(sweep_shard, told, number, *bounds[number], threads)] = number
            except BrokenExecutor:  # a process died since; the shards that it had come back as lost
                if not pending:
                    pool.renew()
                break
        if not pending:
            continue
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        broken = False
        for future in done:
            number = pending.pop(future)
            try:
                result = future.result()
            except ValueError:  # what our own rooms raise: the same on every worker
                raise
            except Exception as error:
                broken = True
                attempts[number] += 1
                if attempts[number] > retries:
                    raise DseError(
                        f"shard {number} of the sweep was lost {attempts[number]} times ({type(error).__name__}: {error}); what was swept "
                        f"is kept in {study.path}, `dse resume` goes on"
                    ) from error
                continue
            study.record(result)
            del attempts[number]
            swept, feasible = swept + result.points, feasible + result.feasible
            so_far = merge([so_far, Front(result.front_models, result.front_hardware, result.front_values)], objectives)
            tell()
        if broken and not pool.cancels_one:  # a pool of processes is broken as a whole
            pool.renew()
            pending.clear()


def _portable(problem: Problem) -> Problem:
    """The problem as a worker in another folder can read it."""
    name = problem.workload
    return replace(problem, workload=str(Path(name).absolute())) if library.is_path(name) else problem


def sample(problem: Problem, bounds: list[tuple[int, int]], *, threads: int | None = None) -> Evaluation:
    """Every model on some of the hardware points, spread evenly: what one process tells of a sweep that many shared."""
    points, shapes = bounds[-1][1], sizes_of(problem).shapes
    count = min(points, max(1, _SHARD_COSTS // max(1, shapes)))
    return Evaluation(
        problem, space=part_of(problem, np.unique(np.linspace(0, points - 1, count).round().astype(np.int64))), threads=threads
    )


def evaluation_of(problem: Problem, front: Front, *, threads: int | None = None) -> tuple[Evaluation, Front]:
    """An evaluation of the front's own hardware points, and the front in its indices."""
    used, place = np.unique(front.hardware, return_inverse=True)
    evaluation = Evaluation(problem, space=part_of(problem, used), threads=threads)
    return evaluation, Front.of(front.models, place.reshape(-1).astype(np.int64), front.values)
