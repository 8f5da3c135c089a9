"""Designs to begin with: random ones that meet every known constraint, or, where those are rare, ones that local search reaches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.evaluation.feasibility import meets
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Draws of rejection sampling before a space is given up as having nothing left to propose.
_DRAW_BLOCK = 4096
_DRAW_BLOCKS = 256
# Blocks of random draws before local search takes over, and how that goes on.
_BLOCKS = 4
_FIRST = 2048
_KEPT = 48
_ROUNDS = 60


def left_over(task: Task, taken: set[tuple[int, ...]]) -> IntArray:
    """Positions in ``task.rows`` of the designs that have not been proposed."""
    free = np.ones(len(task.rows), dtype=bool)
    free[[position for row in taken if (position := task.row_set.get(row)) is not None]] = False
    return np.flatnonzero(free)


def draw(task: Task, rng: np.random.Generator, taken: set[tuple[int, ...]]) -> IntArray | None:
    """One design that may be proposed and has not been, uniformly; None if there is none."""
    if task.listable:
        free = left_over(task, taken)
        return None if not len(free) else np.asarray(task.rows[rng.choice(free)])
    shape = np.array(task.space.shape)
    for _ in range(_DRAW_BLOCKS):
        rows = rng.integers(0, shape, size=(_DRAW_BLOCK, len(shape)))
        # The first few mostly hold one that is allowed, and what is known of a design may take a while.
        for part in np.split(rows, (8, 64, 512)):
            for row in part[task.allowed(part)]:
                if tuple(row.tolist()) not in taken:
                    return np.asarray(row, dtype=np.int64)
    count = _DRAW_BLOCK * _DRAW_BLOCKS
    raise DseError(f"space {task.space.name} gave no feasible new design in {count:,} draws; loosen a constraint{why_none(task, 0)}")


def draw_many(task: Task, rng: np.random.Generator, count: int, *, blocks: int = _DRAW_BLOCKS) -> IntArray:
    """Up to ``count`` allowed designs of a large space, uniformly, possibly fewer where few are allowed (``blocks`` limits the draws)."""
    shape = np.array(task.space.shape)
    found: list[IntArray] = []
    have = 0
    for _ in range(blocks):
        rows = rng.integers(0, shape, size=(max(_DRAW_BLOCK, count), len(shape)))
        rows = rows[task.allowed(rows)]
        found.append(rows)
        have += len(rows)
        if have >= count:
            break
    return np.concatenate(found)[:count]


def neighbours_of(task: Task, rows: IntArray, rng: np.random.Generator) -> IntArray:
    """Neighbours of designs (n, d): every single step of 1, 4 and 16 values, and as many pairs of such steps drawn at random."""
    shape = np.array(task.space.shape)
    steps = _single_steps(shape)
    if not len(steps):
        return np.zeros((0, len(shape)), dtype=np.int64)
    pairs = steps[rng.integers(len(steps), size=(len(rows), len(steps)))]
    pairs = pairs + steps[rng.integers(len(steps), size=(len(rows), len(steps)))]
    near = rows[:, None, :] + np.concatenate([np.broadcast_to(steps, pairs.shape), pairs], axis=1)
    near = near.reshape(-1, len(shape))
    return np.asarray(near[((near >= 0) & (near < shape)).all(1)])


def _single_steps(shape: IntArray) -> IntArray:
    identity = np.eye(len(shape), dtype=np.int64)
    return np.concatenate([sign * width * identity[shape > 2 * width] for width in (1, 4, 16) for sign in (1, -1)])


def sample(task: Task, rng: np.random.Generator, count: int) -> IntArray:
    """Up to ``count`` designs that meet the known constraints: uniform ones, else what :func:`reach` finds; none if it finds none."""
    rows = draw_many(task, rng, count, blocks=_BLOCKS)
    return rows if len(rows) else reach(task, rng)[:count]


def reach(task: Task, rng: np.random.Generator) -> IntArray:
    """Feasible designs by local search on how far the known constraints are missed (relative to each bound, added)."""
    rows = rng.integers(0, np.array(task.space.shape), size=(_FIRST, len(task.space.shape)))
    missed = _missed(task, rows)
    for _ in range(_ROUNDS):
        best = np.argsort(missed, kind="stable")[:_KEPT]
        rows, missed = rows[best], missed[best]
        if missed[-1] == 0:
            break
        near = np.unique(np.concatenate([rows, neighbours_of(task, rows, rng)]), axis=0)
        rows, missed = near, _missed(task, near)
    return np.asarray(rows[missed == 0])


def _missed(task: Task, rows: IntArray) -> FloatArray:
    """How far designs (n, d) are outside the constraints, 0 inside; infinite outside the space's own."""
    total = np.where(task.space.feasible(rows), 0.0, np.inf)
    assert task.known is not None
    metrics = task.known(task.space.columns(rows))
    for c in task.constraints:
        excess = metrics[c.metric] - c.bound if c.relation == "<=" else c.bound - metrics[c.metric]
        total += np.maximum(np.nan_to_num(excess, nan=np.inf), 0.0) / max(abs(c.bound), 1e-12)
    return np.asarray(total)


def why_none(task: Task, seed: int) -> str:
    """The constraints that random designs miss most, and how near they come: the rest of a sentence."""
    if task.known is None:
        return ""
    rows = np.random.default_rng([seed, 7]).integers(0, np.array(task.space.shape), size=(2 * _FIRST, len(task.space.shape)))
    metrics = task.known(task.space.columns(rows))
    told = []
    for c in task.constraints:
        if c.metric not in metrics:  # an evaluation tells it
            continue
        share = float(np.mean(~meets(c, metrics[c.metric])))
        nearest = metrics[c.metric].min() if c.relation == "<=" else metrics[c.metric].max()
        if share > 0:
            told.append((share, f"{c} fails at {share:.1%} of {len(rows):,} random designs (nearest {nearest:.3g})"))
    return "".join(f"; {text}" for _, text in sorted(told, reverse=True)[:2])
