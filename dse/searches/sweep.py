"""Exhaustive sweep: the exact front of the joint space, in blocks of models that fit in memory.

A block's result is its local front and the counts of why points were infeasible. It depends on its models alone, so
blocks may be computed in any order, by any number of threads or processes, in any size; merging their fronts gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from dse.evaluation.evaluation import Evaluation
from dse.evaluation.feasibility import feasible
from dse.fronts.pareto import Front, merge
from dse.problem.objectives import Constraint, Objective
from dse.storage.study import BlockResult, Study
from dse.storage.summary import SweepSummary

# Points a block: large enough that numpy's and the kernels' inner loops dominate, small enough that the dozen metric
# arrays of a block stay below 50 MB a thread.
DEFAULT_BLOCK_POINTS = 1 << 18


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands, told after every block."""

    blocks_done: int
    blocks: int
    points_done: int
    points: int
    feasible: int
    front: Front  # of the blocks so far


def block_bounds(models: int, hardware: int, block_points: int = DEFAULT_BLOCK_POINTS) -> list[tuple[int, int]]:
    """First and one-past-last model of every block."""
    size = max(1, block_points // max(1, hardware))
    return [(first, min(first + size, models)) for first in range(0, models, size)]


def sweep_block(
    evaluation: Evaluation,
    objectives: tuple[Objective, ...],
    constraints: tuple[Constraint, ...],
    number: int,
    first_model: int,
    last_model: int,
) -> BlockResult:
    """Evaluate models first_model..last_model-1 on every hardware point."""
    block = evaluation.block(first_model, last_model)
    found, reasons = feasible(block, constraints)
    rows, columns = np.nonzero(found)
    values = np.empty((len(rows), len(objectives)))
    for j, objective in enumerate(objectives):
        values[:, j] = objective.sign * np.broadcast_to(block.metric(objective.metric), block.shape)[rows, columns]
    front = Front.of(rows.astype(np.int64) + first_model, columns.astype(np.int64), values)
    return BlockResult(
        number=number,
        first_model=first_model,
        last_model=last_model,
        points=found.size,
        feasible=len(rows),
        reasons=reasons,
        front_models=front.models,
        front_hardware=front.hardware,
        front_values=front.values,
    )


def run(
    study: Study,
    bounds: list[tuple[int, int]],
    compute: Callable[[int, int, int], BlockResult],
    points_of: Callable[[int, int], int],
    *,
    objectives: int,
    threads: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Compute the blocks that ``study`` does not hold yet; each is committed as soon as it is known.

    Args:
        bounds: first and one-past-last of whatever blocks are ranges of (models, say).
        compute: number, first, last -> the block. points_of: first, last -> its designs.
    """
    done = study.finished()
    missing = [number for number in range(len(bounds)) if number not in done]
    points_done = sum(points_of(*bounds[n]) for n in done)
    points = points_done + sum(points_of(*bounds[n]) for n in missing)
    blocks_done, feasible = len(done), 0
    so_far = front_of(study.blocks(), objectives)[0] if done else merge([], objectives)

    def tell() -> None:
        if on_progress:
            on_progress(Progress(blocks_done, len(bounds), points_done, points, feasible, so_far))

    tell()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        queue = iter(missing)

        def submit() -> None:
            for number in queue:
                pending.add(pool.submit(compute, number, *bounds[number]))
                return

        pending: set[Future[BlockResult]] = set()
        # One block waits behind each busy thread: enough to keep them fed, and memory stays bounded.
        for _ in range(2 * threads):
            submit()
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                result = future.result()
                study.record(result)
                blocks_done += 1
                points_done += result.points
                feasible += result.feasible
                so_far = merge([so_far, Front(result.front_models, result.front_hardware, result.front_values)], objectives)
                submit()
                tell()


def front_of(blocks: Iterable[BlockResult], objectives: int) -> tuple[Front, SweepSummary]:
    """Merge recorded blocks into the front and the counts of the whole sweep."""
    fronts, points, feasible = [], 0, 0
    reasons: dict[str, int] = {}
    for block in blocks:
        fronts.append(Front(block.front_models, block.front_hardware, block.front_values))
        points += block.points
        feasible += block.feasible
        for reason, count in block.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return merge(fronts, objectives), SweepSummary(points, feasible, reasons)
