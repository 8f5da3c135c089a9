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
_NUMBERS = ("rate_per_s", "lifetime_years", "pue", "electricity_usd_per_kwh")
# Of two totals that are one: both are sums of the same doubles, and a file of another version may have added them in another order.
_SAME = 1e-9


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
    if not _same_workload(workload, problem.workload):
        return {}, f"The design of {Path(hw).name} was found for workload {workload}: the model here is {problem.workload}'s own."
    family = load_family(problem)
    tables = [table for name in ("run_with", "model") if isinstance(table := found.get(name), dict)]
    return {name: value for table in tables for name, value in table.items() if name in family.knobs}, ""


def deployment_of(problem: Problem, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The deployment that a design of a search was costed in: that of its problem, with what the search varied of it."""
    return {**problem.deployment.to_dict(), **{name: value for name, value in knobs.items() if name in VARIABLE}}


def deployment_in(hw: Any, workload: str) -> dict[str, Any]:
    """The deployment in a design's file that was found for ``workload``; empty of all other hardware, and of files that keep none.

    A value of the wrong kind is an error that names its field; what no deployment has is passed over.
    """
    found = written_design(hw)
    table = found.get("deployment")
    if not _same_workload(str(found.get("workload")), workload) or not isinstance(table, dict):
        return {}
    kinds: dict[str, type] = {name: float if name in _NUMBERS else str for name in _OPTIONS}
    for name, value in table.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in kinds and not (number if kinds[name] is float else isinstance(value, str)):
            needed = "number" if kinds[name] is float else "text"
            raise UsageError(f"design.deployment.{name} of {Path(hw).name} is {value!r}; a {needed} is needed")
    return {name: kinds[name](value) for name, value in table.items() if name in kinds}


def criterion_in(hw: Any) -> str | None:
    """What each mapping minimised where a design's file says so."""
    found = written_design(hw).get("criterion")
    return found if isinstance(found, str) else None


def metrics_in(hw: Any) -> dict[str, float]:
    """The metrics that a design's file states; empty of all other hardware."""
    found = written_design(hw).get("metrics")
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))} if isinstance(found, dict) else {}


def quality_in(hw: Any) -> dict[str, Any]:
    """The entries on quality of an answer about the model of a design's file that states a measured one; empty of all other hardware."""
    figures = metrics_in(hw)
    if written_design(hw).get("quality_support") != "measured" or "quality" not in figures:
        return {}
    return {"quality": figures["quality"], "quality_se": figures.get("quality_se"), "quality_support": "measured",
            "quality_reason": None, "quality_label": f"of the file {Path(hw).name}", "quality_surrogate": None}  # fmt: skip


def elsewhere(hw: Any, answer: Mapping[str, Any]) -> list[str]:
    """A sentence where a file without a deployment, of an earlier version, states another carbon than it has here."""
    stated = metrics_in(hw).get("total_kgco2e")
    if stated is None or isinstance(written_design(hw).get("deployment"), dict) or abs(answer["total_kgco2e"] / stated - 1.0) < _SAME:
        return []
    return [
        f"{Path(hw).name} states {stated:.6g} kgCO2e in all and keeps no deployment of its search (files of earlier versions do "
        "not): for its numbers name the place, lifetime and rate of the search, or have it written again by `dse resume RUN`."
    ]


def workload_of(hw: Any) -> str | None:
    """The workload that a design's file was found for; None for hardware that is no such file.

    Raises UsageError where it is a file that is not there, or was an object of the process that searched, which no file holds.
    """
    found = written_design(hw).get("workload")
    if not isinstance(found, str):
        return None
    if library.is_known(found) or Path(found.removeprefix(library.CHECKPOINT)).exists():  # a model may be a folder
        return found
    if library.is_path(found) or found.startswith(library.CHECKPOINT):
        raise UsageError(
            f"workload is missing: {Path(hw).name} was found for {found}, which is not here; name where it is now with --workload (under "
            "the same file name its knobs and deployment are taken)"
        )
    raise UsageError(
        f"workload is missing: {Path(hw).name} was found for {found}, no model of the library and no file here but an object that a Python "
        f"program gave; cost it there, {_python_call(hw)}, or name a model with --workload"
    )


def _same_workload(written: str, asked: str) -> bool:
    """Whether a file's workload is the one that is asked for: an alias of it, another way to its file, or where that file is now."""
    if library.ALIASES.get(written, written) == library.ALIASES.get(asked, asked):
        return True
    if not (library.is_path(written) and library.is_path(asked)):
        return False
    there, here = Path(written), Path(asked)
    return there.resolve() == here.resolve() or (there.name == here.name and not there.exists())


def _python_call(hw: Any) -> str:
    return f"dse.evaluate(MODEL, hw={str(hw)!r})"


def command_of(problem: Problem, knobs: Mapping[str, Any], path: Path) -> str:
    """What costs a design's file as its search did, a command or for a model of a Python program a call; empty where a design is no
    accelerator.
    """
    if problem.kind:
        return ""
    shared = (*library.names(), *library.mixes(), *library.ALIASES)
    if problem.workload not in shared and not library.is_path(problem.workload) and not problem.workload.startswith(library.CHECKPOINT):
        return f"{_python_call(path)} in Python, where MODEL is the object that was searched"
    words = ["dse", "evaluate", "--workload", problem.workload, "--hw", str(path)]
    own = deployment_of(problem, knobs)
    profile = from_text(path.read_text(encoding="utf-8"), name=str(path), profile=None).default_carbon_profile
    plain = Deployment(carbon_profile=own["carbon_profile"]).to_dict() | {"carbon_profile": profile}
    plain |= deployment_in(path, problem.workload)  # what the file says needs no option
    for name, option in _OPTIONS.items():
        if own[name] != plain[name]:
            words += [option, f"{own[name]:g}" if own[name] == float(f"{own[name]:g}") else repr(own[name])] if isinstance(
                own[name], float) else [option, str(own[name])]  # fmt: skip
    words += ["--criterion", problem.criterion] if problem.criterion != (criterion_in(path) or "edp") else []
    words += [word for name, value in problem.bind.items() for word in ("--bind", f"{name}={value}")]
    words += ["--allow-unsupported"] if problem.allow_unsupported and not quality_in(path) else []
    return shlex.join(words)
