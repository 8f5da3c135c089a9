"""The file of a design that a search wrote, evaluated again: what it says of the model, and the command that gives its numbers."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dse.errors import UsageError
from dse.evaluation.evaluation import load_family
from dse.problem.deployment import VARIABLE, Deployment
from dse.problem.problem import Problem
from dse.spaces.hardware import from_text
from workloads import library

_OPTIONS = {"rate_per_s": "--rate", "lifetime_years": "--lifetime-years", "grid": "--grid", "fab_grid": "--fab-grid", "pue": "--pue",
            "electricity_usd_per_kwh": "--electricity-usd", "package": "--package", "carbon_profile": "--carbon-profile"}  # fmt: skip


def written_design(hw: Any) -> dict[str, Any]:
    """The table ``[design]`` of a file; empty for all other hardware, and for what is no TOML, which its reader tells."""
    try:
        found = tomllib.loads(Path(hw).read_text(encoding="utf-8")).get("design") if isinstance(hw, (str, Path)) else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def model_of(hw: Any, problem: Problem) -> tuple[dict[str, Any], str]:
    """Knobs of the model that a design's file was found for, and how it is run; and a sentence where it was found for another workload.

    Both empty for hardware that is no such file.
    """
    found = written_design(hw)
    if not isinstance(workload := found.get("workload"), str):
        return {}, ""
    if workload != problem.workload:
        return {}, f"The design of {Path(hw).name} was found for workload {workload}: the model here is {problem.workload}'s own."
    family = load_family(problem)
    tables = [table for name in ("run_with", "model") if isinstance(table := found.get(name), dict)]
    return {name: value for table in tables for name, value in table.items() if name in family.knobs}, ""


def workload_of(hw: Any) -> str | None:
    """The workload that a design's file was found for; None for hardware that is no such file.

    Raises UsageError where it was an object of the process that searched, which no file holds.
    """
    found = written_design(hw).get("workload")
    if not isinstance(found, str):
        return None
    if found in library.names() or found in library.mixes() or Path(found).is_file():
        return found
    raise UsageError(
        f"workload is missing: {Path(hw).name} was found for {found}, no model of the library and no file here but an object that a Python "
        f"program gave; cost it there, dse.evaluate(MODEL, hw={str(hw)!r}), or name a model with --workload"
    )


def command_of(problem: Problem, knobs: Mapping[str, Any], path: Path) -> str:
    """The command that costs a design's file as its search did; empty where a design is no accelerator."""
    if problem.kind:
        return ""
    words = ["dse", "evaluate", "--workload", problem.workload, "--hw", str(path)]
    own = {**problem.deployment.to_dict(), **{name: value for name, value in knobs.items() if name in VARIABLE}}
    profile = from_text(path.read_text(encoding="utf-8"), name=str(path), profile=None).default_carbon_profile
    plain = Deployment(carbon_profile=own["carbon_profile"]).to_dict() | {"carbon_profile": profile}
    for name, option in _OPTIONS.items():
        if own[name] != plain[name]:
            words += [option, f"{own[name]:g}" if own[name] == float(f"{own[name]:g}") else repr(own[name])] if isinstance(
                own[name], float) else [option, str(own[name])]  # fmt: skip
    words += ["--criterion", problem.criterion] if problem.criterion != "edp" else []
    words += [word for name, value in problem.bind.items() for word in ("--bind", f"{name}={value}")]
    words += ["--allow-unsupported"] if problem.allow_unsupported else []
    return shlex.join(words)
