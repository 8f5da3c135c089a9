"""What a sweep of a problem would take, from the rates of a sample of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np

from dse.evaluation import design_costs
from dse.evaluation.evaluation import Evaluation
from dse.problem.deployment import VARIABLE
from dse.problem.problem import Problem
from dse.searches import deployments
from dse.searches.sweep import sweep_block
from dse.spaces.sizes import Rates, Sizes

# Of the sample: models and designs spread over their ranges, and designs of the sweep at least.
_MODELS, _HARDWARE, _DESIGNS = 32, 24, 1 << 17
_known: dict[str, Rates] = {}


def sizes_of(problem: Problem, *, threads: int = 1) -> Sizes:
    """Numbers of models, points, designs and operations; of a problem that is not swept in seconds anyway, with measured rates."""
    sizes = design_costs.sizes(problem)
    sizes = replace(sizes, apart=deployments.apply(problem, sizes))
    return sizes if sizes.easy else replace(sizes, rates=rates_of(problem, threads=threads, apart=sizes.apart))


def rates_of(problem: Problem, *, threads: int = 1, apart: bool = False) -> Rates:
    """Mapping searches and designs a second of a problem, each measured on a sample spread over its space, once a process."""
    key = json.dumps(problem.to_dict(), sort_keys=True, default=str) + f" {threads} {apart}"
    if key not in _known:
        _known[key] = _measured(problem, threads, apart)
    return _known[key]


def _measured(problem: Problem, threads: int, apart: bool) -> Rates:
    one, values = design_costs.one_point(problem)
    rng = np.random.default_rng(0)
    models = np.unique(rng.integers(0, one.model_count, _MODELS))
    hardware = {name: np.array(chosen)[rng.integers(0, len(chosen), _HARDWARE)] for name, chosen in values.items()}
    if hardware:  # one type of DRAM, one set of names: a sample must be one batch
        hardware = {name: column if column.dtype.kind != "U" else np.repeat(column[:1], _HARDWARE) for name, column in hardware.items()}
    space = replace(one, models={name: column[models] for name, column in one.models.items()}, hardware=hardware)
    plain = replace(problem, vary={name: chosen for name, chosen in problem.vary.items() if name not in VARIABLE})
    start = time.perf_counter()
    evaluation = Evaluation(plain, space=space, threads=threads)
    mapped = time.perf_counter() - start
    mappings = len(evaluation.shapes) * sum(map(len, evaluation.points.batches))
    if apart:
        own = {name: column for name, column in space.hardware.items() if name not in VARIABLE}
        deployed = deployments.Deployed(problem, space=replace(space, hardware=own), threads=threads)
    designs, spent = 0, 0.0
    while designs < _DESIGNS and spent < 0.5:
        start = time.perf_counter()
        if apart:
            designs += deployed.swept(deployed.every_piece())[1]
        else:
            designs += sweep_block(evaluation, problem.objectives, problem.constraints, 0, 0, space.model_count).points
        spent += time.perf_counter() - start
    return Rates(mappings / mapped, threads * designs / spent, measured=True)
