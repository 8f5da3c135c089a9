"""A problem from words: what the command line and Python say, checked and made a `Problem`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dse.errors import DseError, UsageError, unknown_name
from dse.evaluation.evaluation import file_sha256
from dse.problem.deployment import VARIABLE, Deployment
from dse.problem.objectives import Constraint, Objective, Preset, merge_constraints, parse_constraint, parse_objectives
from dse.problem.problem import DEFAULT_RESIDENCY, DEFAULT_SPACE, Problem
from dse.quality.surrogate import for_workload as surrogate_for
from dse.spaces.hardware import load_path_or_name
from hw_models import spaces as templates
from workloads import library
from workloads.family import Family


def make_problem(
    workload: str | Family,
    objective: str | Iterable[str] = "carbon",
    *,
    hw: str | templates.Template = "edge22",
    hardware_profile: str | None = None,
    space: str = DEFAULT_SPACE,
    constraints: Iterable[str | Constraint] = (),
    no_constraint: Iterable[str] = (),
    default_constraints: bool = True,
    fixed: Mapping[str, int] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    allow_unsupported: bool = False,
    criterion: str = "edp",
    residency: str = DEFAULT_RESIDENCY,
    deployment: Deployment | None = None,
    bind: Mapping[str, int] | None = None,
    strict: bool = False,
    keep_quality: bool = False,
) -> Problem:
    """A problem from the words of a command line, or from objects in their place (a Family, a Template); see :func:`search`.

    ``keep_quality``: an evaluator tells the quality, which a preset's objectives then keep whatever the workload is.
    """
    # Objects are known by a name from here on, for a problem is plain data.
    workload = library.register(workload) if isinstance(workload, Family) else workload
    hw = templates.register(hw) if isinstance(hw, templates.Template) else hw
    given = [objective] if isinstance(objective, str) else list(objective)
    objectives, preset = parse_objectives(given)
    parsed = [parse_constraint(c) if isinstance(c, str) else c for c in constraints]
    hardware_toml = None
    path = Path(hw)
    if path.suffix == ".toml" or path.is_file():
        hardware_toml = _read_text("hw", path)
    hardware = load_path_or_name(hw, profile=hardware_profile)
    defaults = hardware.default_constraints if default_constraints else ()
    file_hash = file_sha256(workload)
    _check_varied(vary or {})
    family = library.load(workload, bind=bind or None, strict=strict)
    known_spaces = family.spaces
    if space not in known_spaces:
        raise unknown_name("space", space, known_spaces)
    if not keep_quality:
        objectives = _without_quality(objectives, preset, family, space)
    return Problem(
        workload=str(Path(workload).absolute()) if file_hash else workload,
        workload_sha256=file_hash,
        bind=dict(bind or {}),
        strict=strict,
        hardware=hw if hardware_toml is None else path.name,
        hardware_toml=hardware_toml,
        hardware_profile=hardware_profile,
        objectives=objectives,
        preset=preset.name if preset else None,
        constraints=merge_constraints(parsed, defaults=defaults, removed=no_constraint),
        deployment=deployment or Deployment(carbon_profile=hardware.default_carbon_profile),
        space=space,
        fixed=dict(fixed or {}),
        vary={name: tuple(chosen) for name, chosen in (vary or {}).items()},
        fixed_model=bool(preset and preset.fixed_model),
        # That tool's space varies knobs that no published table of the setting varies.
        allow_unsupported=allow_unsupported or space == "catransformers",
        criterion=criterion,
        residency=residency,
    )


def _check_varied(vary: Mapping[str, Sequence[Any]]) -> None:
    """Values of deployment knobs must be of their kind and make sense one by one."""
    for name, chosen in vary.items():
        kind = VARIABLE.get(name)
        for value in chosen:
            if kind is float and (isinstance(value, str) or not value > 0):
                raise UsageError(f"vary {name} has the value {value!r}; a positive number is needed")
        if len(set(chosen)) != len(chosen):
            raise UsageError(f"vary {name} lists a value twice: {', '.join(map(str, chosen))}")


def _without_quality(objectives: tuple[Objective, ...], preset: Preset | None, family: Family, space: str) -> tuple[Objective, ...]:
    """A preset's objectives, less quality where the workload is one model: it is the same for every design then."""
    own = family.model_grid(space)
    single = len(next(iter(own.values()), (0,))) == 1
    if preset is None or not single or surrogate_for(family.name) is not None:
        return objectives
    return tuple(objective for objective in objectives if objective.metric != "quality")


def _read_text(field: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DseError(f"{field} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DseError(f"{field} {path} is not a text file: byte {error.start} is not UTF-8") from error
