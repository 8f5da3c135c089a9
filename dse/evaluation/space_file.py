"""``--space FILE.toml``: a user's own space (the form of :mod:`dse.spaces.parameters`) as the space of a problem.

Parameters of role ``model`` and ``shared`` are knobs of the workload; quality is a function of them. Parameters of role
``hardware`` are knobs and settings of the template, those of role ``deployment`` what ``--vary`` takes of a deployment. What the
file leaves out stays: knobs of the template as the template lists them, dimensions of the workload as the model has them.

Every model meets every hardware point, so a constraint must stay on one side: between model parameters, or between those of
hardware and deployment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError, unknown_name
from dse.problem.deployment import VARIABLE
from dse.problem.wording import plural
from dse.quality import surrogate as quality
from dse.spaces import parameters as space
from dse.spaces.constraints import meet
from dse.spaces.parameters import Parameter, Space
from workloads.family import Family

MODEL_ROLES = ("model", "shared")
# More combinations of model knobs than this are checked one by one for longer than a search takes.
MODEL_LIMIT = 250_000


def is_file(name: str) -> bool:
    """Whether ``--space`` names a file and not a model space of the workload."""
    path = Path(name)
    return path.suffix == ".toml" or path.is_file()


def read(
    path: str,
    *,
    names: Mapping[str, tuple[str, int]] | None = None,
    listed: Mapping[str, Sequence[Any]] | None = None,
    further: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[str, Space]:
    """Text and space of a file, checked for what a problem can take.

    ``names``, ``listed`` and ``further`` are those of :func:`dse.spaces.parameters.parse`. Where they change anything, the text is of the
    space by its knobs, which reads back without them.
    """
    text = space.text_of(path)
    found = space.parse(text, where=path, names=names, listed=listed, further=further)
    if names or listed or further:
        try:
            same = space.parse(text, where=path) == found
        except UsageError:
            same = False
        text = text if same else found.to_toml()
    for constraint in found.constraints:
        sides = {found.parameter(name).role in MODEL_ROLES for name in constraint.names}
        if len(sides) > 1:
            raise UsageError(
                f"space {path}: constraint {constraint.text!r} ties a model to its hardware, and every model meets every hardware "
                "point; bound a metric with --constraint instead"
            )
    for parameter in found.parameters:
        if parameter.role == "deployment" and parameter.name not in VARIABLE:
            raise unknown_name(f"space {path}: deployment parameter", parameter.name, VARIABLE)
        whole = all(isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in parameter.values)
        if parameter.role in MODEL_ROLES and not whole:
            raise UsageError(f"space {path}: {parameter.name} is a knob of the model and has {_odd(parameter)!r}; whole numbers are needed")
    return text, found


def _odd(parameter: Parameter) -> Any:
    return next(value for value in parameter.values if isinstance(value, str) or value != int(value))


def varied(found: Space) -> dict[str, tuple[Any, ...]]:
    """Values of the hardware's and the deployment's parameters, in the form of ``Problem.vary``."""
    return {p.name: p.values for p in found.parameters if p.role not in MODEL_ROLES}


def model_grid(
    text: str | None, name: str, family: Family, fixed: Mapping[str, Any] | None = None
) -> tuple[dict[str, npt.NDArray[np.int64]], str]:
    """Models of a problem: those of its space file, or of the workload's own space called ``name``; and what is to be said of them.

    ``fixed``: what is set for every model, a length or a width that the file does not list among it; knobs that it does list are narrowed
    by whoever asks, here only the models that are left out are counted among those that stay.
    """
    if text is None:
        return family.model_grid(name), ""
    found = space.parse(text, where=name)
    choices = {p.name: [int(value) for value in p.values] for p in found.parameters if p.role in MODEL_ROLES}
    if not choices:
        return family.model_grid("default"), ""
    given = {knob: value for knob, value in (fixed or {}).items() if knob in family.knobs and knob not in choices}
    surrogate = quality.for_workload(family.name)
    if surrogate is not None:  # it is asked for all of its knobs
        own = {**family.values(**{knob: value for knob, value in given.items() if family.knobs[knob].setting}), **given}
        choices |= {knob: [int(own[knob])] for knob in surrogate.knobs if knob not in choices}
        given = {knob: value for knob, value in given.items() if knob not in choices}
    size = int(np.prod([len(values) for values in choices.values()], dtype=np.float64))
    if size > MODEL_LIMIT:
        raise UsageError(f"space {name} has {size:,} combinations of model knobs; at most {MODEL_LIMIT:,} are taken, leave some values out")
    for knob, values in choices.items():
        if knob not in family.knobs:
            raise unknown_name(f"space {name}: knob of {family.name}", knob, family.knobs)
        if any(abs(value) >= 2**62 for value in values):
            family.knobs[knob].check(max(values, key=abs), family.name)
    axes = np.meshgrid(*(np.array(values, dtype=np.int64) for values in choices.values()), indexing="ij")
    grid = {knob: axis.reshape(-1) for knob, axis in zip(choices, axes, strict=True)}
    keep = meet(found.constraints, grid)
    if not keep.any():
        raise UsageError(f"space {name}: no model meets the constraints {_texts(found, grid)}")
    grid = {knob: column[keep] for knob, column in grid.items()}
    exists, reasons = family.existing(list(grid), zip(*(column.tolist() for column in grid.values()), strict=True), given)
    asked = np.ones(len(exists), dtype=bool)
    for knob, value in (fixed or {}).items():
        asked &= grid[knob] == value if knob in grid else True
    if not (asked & exists).any():  # told by whoever narrows the space
        asked = np.ones(len(exists), dtype=bool)
    gone = asked & ~exists
    why = reasons[int(np.cumsum(~exists)[np.argmax(gone)]) - 1].partition("; nearest")[0] if gone.any() else ""
    told = f"{np.count_nonzero(gone):,} of {plural(int(np.count_nonzero(asked)), 'model')} of the space left out: {why}." if why else ""
    return {knob: column[exists] for knob, column in grid.items()}, told


def held(family: Family, searched: Iterable[str], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Dimensions that every model of a search has alike, with their values: the workload's own, or what ``fixed`` sets."""
    own = family.values(**{knob: value for knob, value in fixed.items() if knob in family.knobs})
    wanted = [name for name in family.knobs if name in family.dimensions and name not in set(searched)]
    return {name: own[name] for name in wanted if isinstance(own[name], int)}


def model_knobs(text: str | None, name: str) -> list[str]:
    """Knobs of the model that a problem's space file varies or holds."""
    return [] if text is None else [p.name for p in space.parse(text, where=name).parameters if p.role in MODEL_ROLES]


def allowed_points(text: str | None, name: str, points: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Hardware points (in their deployments) that meet the constraints of a problem's space file.

    A single point stays as it is: it was asked for by name, or probes how large a space would be.
    """
    if text is None or len(next(iter(points.values()), (0,))) < 2:
        return dict(points)
    found = space.parse(text, where=name)
    keep = meets(found, points)
    if not keep.any():
        raise UsageError(f"space {name}: no hardware point meets the constraints {_texts(found, points)}")
    return {knob: column[keep] for knob, column in points.items()}


def of_problem(text: str | None, name: str) -> Space | None:
    """A problem's space file, None where it has none."""
    return None if text is None else space.parse(text, where=name)


def meets(found: Space | None, points: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Which hardware points meet the constraints of a problem's space file, those between values of its lists included.

    Deployments may be held apart (dse/searches/deployments.py), where constraints of theirs are met. Raises UsageError for one on any
    other thing that the points have not: it would be lost without a word.
    """
    if found is None:
        return np.ones(len(next(iter(points.values()))), dtype=bool)
    for constraint in found.constraints:
        lost = [name for name in constraint.names if name not in points]
        if lost and found.parameter(lost[0]).role not in (*MODEL_ROLES, "deployment"):
            raise UsageError(f"space {found.name}: constraint {constraint.text!r} names {lost[0]}, which is no knob of this search; it has "
                             f"{', '.join(points)}")  # fmt: skip
    return meet(found.constraints, points)


def point_constraints(text: str | None, name: str) -> list[str]:
    """Constraints of a problem's space file between parameters of the hardware and the deployment."""
    if text is None:
        return []
    found = space.parse(text, where=name)
    return [c.text for c in found.constraints if found.parameter(c.names[0]).role not in MODEL_ROLES]


def _texts(found: Space, columns: Mapping[str, npt.NDArray[Any]]) -> str:
    return ", ".join(repr(c.text) for c in found.constraints if set(c.names) <= set(columns))
