"""A fleet of a front as a file: the options of the search that serves the log with it alone, as `dse search --config FILE` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dse.analysis.demand import limits_of, standing
from dse.storage.run_folder import RunRecord

_VARIED = ("tp", "weight_bits", "max_sequences", "replicas")


def fleet_toml(run: RunRecord, design: Mapping[str, Any]) -> str:
    """The file of one design of a run over fleets; its figures stand in it as comments."""
    problem, knobs = run.problem, design["knobs"]
    where, region = problem.deployment, problem.request["region"]
    own = {name: value for name, value in problem.request["settings"].items() if value is not None}
    read = (
        f"Its log is that of region {region}: to serve these requests alone, name a log of them."
        if region
        else f"`dse search --config FILE` serves the log with it, `dse operate RUN --design {design['design']}` operates a replica of it."
    )
    lines = [
        f"# Design {design['design']} of the front of: {json.dumps(run.provenance.get('command', ''))}",
        f"# dse {run.provenance.get('version', '')}",
        f"# {read}",
        f"# {standing(problem, design)}.",
        f"workload = {json.dumps(problem.workload)}",
        f"model = {json.dumps(problem.request['model'])}",
        f"hw = {json.dumps(knobs['hw'])}",
        f"vary = {json.dumps([f'{name}={knobs[name]}' for name in _VARIED])}",
        f"objective = {json.dumps([str(o) for o in problem.objectives])}",
        f"constraint = {json.dumps([*limits_of(problem), *map(str, problem.constraints)])}",
        f"grid = {json.dumps(str(where.grid))}",
        f"pue = {where.pue!r}",
        f"lifetime-years = {where.lifetime_years!r}",
        *([f"set = {json.dumps([f'{name}={value}' for name, value in own.items()])}"] if own else []),
        "",
        *(f"# {name} = {value!r}" for name, value in design["metrics"].items()),
    ]
    return "\n".join(lines) + "\n"
