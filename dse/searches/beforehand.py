"""What is known before any mapping search: whether area, throughput, memory or quality leave a design at all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dse.errors import DseError
from dse.evaluation.evaluation import Block, Evaluation
from dse.evaluation.feasibility import meets
from dse.problem.metrics import known_before_mapping
from dse.problem.problem import Problem
from dse.searches.deployments import Deployed, Piece
from dse.searches.sweep import block_bounds


def refuse_infeasible(problem: Problem, *, apart: bool = False) -> None:
    """Raise DseError where no design meets the bounds on metrics that need no mapping: which, and how near the nearest comes.

    ``apart``: the problem has so many deployments that they are not listed.
    """
    known = known_before_mapping()
    constraints = [constraint for constraint in problem.constraints if constraint.metric in known]
    if not constraints:
        return
    blocks: Iterable[Block | Piece]
    if apart:
        deployed = Deployed(problem, mapped=False)
        blocks, total = deployed.every_piece(), deployed.size
    else:
        evaluation = Evaluation(problem, mapped=False)
        bounds = block_bounds(evaluation.space.model_count, evaluation.space.hardware_count)
        blocks, total = (evaluation.block(first, last) for first, last in bounds), evaluation.space.size
    broken, nearest = dict.fromkeys(constraints, 0), dict.fromkeys(constraints, np.inf)
    for block in blocks:
        found = np.array(np.broadcast_to(block.makeable(), block.shape))
        for constraint in constraints:
            values = np.broadcast_to(block.metric(constraint.metric), block.shape)
            met = meets(constraint, values)
            broken[constraint] += int(np.count_nonzero(~met))
            sign = 1.0 if constraint.relation == "<=" else -1.0
            nearest[constraint] = min(nearest[constraint], float(np.min(sign * values, initial=np.inf)))
            found &= met
        if found.any():
            return
    told = [
        f"{constraint} fails at {100.0 * count / total:.1f}% of them"
        + (f" (nearest {abs(nearest[constraint]):.4g})" if count == total else "")
        for constraint, count in sorted(broken.items(), key=lambda item: -item[1])
        if count
    ]
    raise DseError(f"no design of {total:,} is feasible: {'; '.join(told) or 'no device can be made'}; no mapping was needed to tell")
