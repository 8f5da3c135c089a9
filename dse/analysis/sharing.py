"""Where sharing keys and values pays: every measured grouping of attention heads on the hardware of one design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.errors import DseError
from dse.evaluation.design_costs import around
from dse.evaluation.evaluation import Evaluation, Space
from hw_models.errors import HardwareError
from workloads.music.family import GROUPINGS

NOTICED = 0.01
"""Share of a cost below which a saving is called none: what the models of hardware do not tell apart."""
COSTS = ("latency_s", "energy_j", "total_kgco2e")


@dataclass(frozen=True)
class Shared:
    """A grouping against multi-head attention with the same merges on the same hardware.

    Attributes:
        grouping, merges: its name and the vocabulary after merges (0: none). quality, quality_se: in percent of multi-head attention
            without merges. costs: of COSTS. saved: share of each cost that it saves. lost: points of quality that it loses.
        verdict: ``pays`` (saves a noticeable share of an objective, and the loss is within two standard errors of both figures),
            ``costs quality`` (saves, and the loss is beyond them) or ``saves nothing``.
    """

    grouping: str
    merges: int
    quality: float
    quality_se: float
    costs: Mapping[str, float]
    saved: Mapping[str, float]
    lost: float
    verdict: str


def sharing(run: Any, number: int) -> tuple[Shared, ...]:
    """Every measured grouping beside multi-head attention on the hardware of design ``number``; empty where none was measured."""
    if (run.context.get("quality_surrogate") or {}).get("name") != "music-likelihood":
        return ()
    entry = next((design for design in run.designs if design["design"] == number), None)
    if entry is None:
        return ()
    knobs = dict(entry["knobs"])
    problem = replace(run.problem, fixed={k: v for k, v in run.problem.fixed.items() if k not in knobs}, fixed_model=False)
    try:
        space = around(problem, knobs)
        own = {name: np.array([knobs[name]]) for name in space.hardware if name in knobs}
        point = Space(space.models, own, 0, dict(space.settings))
        evaluation = Evaluation(problem, space=point, threads=1)
        block = evaluation.block(0, len(space.models["grouping"]))
        names = ("quality", "quality_se", *(name for name in COSTS if name in evaluation.metric_names))
        columns = {name: np.broadcast_to(block.metric(name), block.shape)[:, 0] for name in names}
    except (HardwareError, DseError):
        return ()  # a space that lists no groupings, or hardware that holds none of them
    rows = [
        {name: float(column[i]) for name, column in columns.items()} | {n: int(space.models[n][i]) for n in ("grouping", "bpe_vocabulary")}
        for i in range(block.shape[0])
    ]
    base = {row["bpe_vocabulary"]: row for row in rows if row["grouping"] == 0}
    wanted = [o.metric for o in run.problem.objectives if o.metric in COSTS and o.metric in columns]
    return tuple(_against(row, base[row["bpe_vocabulary"]], wanted) for row in rows if row["grouping"] and row["bpe_vocabulary"] in base)


def _against(row: Mapping[str, Any], base: Mapping[str, Any], wanted: list[str]) -> Shared:
    costs = {name: row[name] for name in COSTS if name in row}
    saved = {name: 1 - row[name] / base[name] for name in costs}
    lost = base["quality"] - row["quality"]
    noticed = any(saved[name] >= NOTICED for name in wanted)
    sure = lost > 2 * float(np.hypot(row["quality_se"], base["quality_se"]))
    verdict = ("costs quality" if sure else "pays") if noticed else "saves nothing"
    return Shared(GROUPINGS[row["grouping"]], row["bpe_vocabulary"], row["quality"], row["quality_se"], costs, saved, lost, verdict)
