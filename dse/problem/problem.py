"""What is searched: a workload, the space of its models, a hardware space, a deployment, objectives and constraints.

A problem is plain data. Its dictionary goes into the study, and the problem is rebuilt from there alone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError, nearest, unknown_name
from dse.problem.deployment import Deployment
from dse.problem.objectives import Constraint, Objective, parse_constraint, parse_objective, read_constraint

IntArray = npt.NDArray[np.int64]

DEFAULT_SPACE = "default"
CRITERIA = ("edp", "latency", "energy")
RESIDENCY = ("none", "activations", "epilogue", "weights", "tiles")
"""What may stay on chip between operations, each with those before it (`hw_models.costs.residency`)."""
DEFAULT_RESIDENCY = "weights"
"""What is best of whole tensors, of searches and of single designs alike, so that a design has the same numbers in both; where it is
another one, `dse.evaluation.words.default_residency` says why. (`tiles` takes longer to find, and is asked for.)
"""


LOOP, FLEET = "loop", "fleet"
"""Kinds of problems beside designs of an accelerator: reasoning loops, and fleets that serve a log (`dse.served`)."""


LISTS = 2
"""The edition of the templates' lists, written with a problem: a study of an earlier one keeps the designs that it was of."""
_EARLIER_LISTS = {"edge22": {"glb_mib": (2, 4, 8)}}


_CAPACITIES = {"kib": 1024, "mib": 1024**2, "gib": 1024**3}


@dataclass(frozen=True)
class Problem:
    """Everything that decides the result of a search.

    ``fixed`` holds knobs of the model or the hardware that the user has set, ``vary`` further knobs that are searched: settings
    of the hardware (node_nm, ...) and of the deployment (grid, fab_grid, package, lifetime_years); ``fixed_model`` keeps the
    model at the workload's own dimensions. ``hardware_toml`` is the text of a user's hardware file, kept so that a study needs
    no file but its own. ``workload`` is a name, or the path of a file (then ``workload_sha256`` holds it to what it was, and
    ``bind`` and ``strict`` say how it is read).
    """

    workload: str
    hardware: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    deployment: Deployment = field(default_factory=Deployment)
    space: str = DEFAULT_SPACE
    space_toml: str | None = None  # the text of --space FILE.toml, which `space` names
    hardware_toml: str | None = None
    hardware_profile: str | None = None  # None: the default, or what a user's file says
    bind: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False
    workload_sha256: str | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed_model: bool = False
    allow_unsupported: bool = False
    criterion: str = "edp"
    residency: str = "none"
    prefetch: bool = False
    act_lacks: str = ""  # the memory for which the carbon profile is `default` in place of act2 where nobody named one
    preset: str | None = None
    models: Mapping[str, tuple[int, ...]] | None = None  # the models that are searched: of too many those that can be on the front
    models_dominated: int = 0  # the others
    kind: str = ""  # "": designs of an accelerator; "loop", "fleet": of a reasoning loop, of fleets for a log (`dse.served`)
    request: Mapping[str, Any] = field(default_factory=dict)  # what a kind is asked for beside the fields above, plain values
    asked_as: Mapping[str, str] = field(
        default_factory=dict
    )  # knobs by another name of theirs, which --set or --vary used (glb_bytes: glb_mib)

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise unknown_name("criterion", self.criterion, CRITERIA)
        if self.residency not in RESIDENCY:
            raise unknown_name("residency", self.residency, RESIDENCY)
        if self.prefetch and self.residency == "none":
            raise UsageError("prefetch is of steps whose data on chip is known, and residency is none; ask for --residency weights, or "
                             "leave prefetch out")  # fmt: skip
        if self.prefetch and self.residency == "tiles":
            raise UsageError(
                "prefetch is of steps that run whole, and residency is tiles; ask for --residency weights, or leave prefetch out"
            )
        if not self.objectives:
            raise UsageError("objective is missing; give a preset or at least one min:METRIC or max:METRIC")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "workload": self.workload,
            "space": self.space,
            "space_toml": self.space_toml,
            "hardware": self.hardware,
            "hardware_toml": self.hardware_toml,
            "hardware_profile": self.hardware_profile,
            "bind": dict(self.bind),
            "strict": self.strict,
            "workload_sha256": self.workload_sha256,
            "fixed": dict(self.fixed),
            "vary": {name: list(chosen) for name, chosen in self.vary.items()},
            "fixed_model": self.fixed_model,
            "objectives": [str(objective) for objective in self.objectives],
            "preset": self.preset,
            "constraints": [str(constraint) for constraint in self.constraints],
            "deployment": self.deployment.to_dict(),
            "allow_unsupported": self.allow_unsupported,
            "criterion": self.criterion,
            "residency": self.residency,
            "lists": LISTS,
            **({"prefetch": True} if self.prefetch else {}),
            **({"act_lacks": self.act_lacks} if self.act_lacks else {}),
            **({"models": {k: list(v) for k, v in self.models.items()}, "models_dominated": self.models_dominated} if self.models else {}),
            **({"kind": self.kind, "request": dict(self.request)} if self.kind else {}),
            **({"asked_as": dict(self.asked_as)} if self.asked_as else {}),
        }

    def shown(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """Knobs by the names, and in the units, in which a reader asked for them: ``glb_bytes`` 262,144 is ``glb_mib`` 0.25."""
        return {self.asked_as.get(name, name): self._as_asked(name, value) for name, value in knobs.items()}

    def _as_asked(self, name: str, value: Any) -> Any:
        unit = _CAPACITIES.get(self.asked_as.get(name, "").rpartition("_")[2])
        if unit is None or not name.endswith("_bytes") or isinstance(value, (bool, str)):
            return value
        return int(value) // unit if value % unit == 0 else value / unit

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Problem:
        """The inverse of :meth:`to_dict`."""
        kind = values.get("kind", "")
        # A kind has metrics of its own, which its search has checked.
        objectives = (Objective(*text.split(":", 1)) if kind else parse_objective(text) for text in values["objectives"])
        constraints = (read_constraint(text) if kind else parse_constraint(text) for text in values["constraints"])
        return cls(
            kind=kind,
            request=dict(values.get("request") or {}),
            workload=values["workload"],
            space=values["space"],
            space_toml=values.get("space_toml"),
            hardware=values["hardware"],
            hardware_toml=values["hardware_toml"],
            hardware_profile=values["hardware_profile"],
            bind=dict(values["bind"]),
            strict=values["strict"],
            workload_sha256=values["workload_sha256"],
            fixed=dict(values["fixed"]),
            vary={**_earlier(values), **{name: tuple(chosen) for name, chosen in values["vary"].items()}},
            fixed_model=values["fixed_model"],
            objectives=tuple(objectives),
            preset=values["preset"],
            models={k: tuple(v) for k, v in values["models"].items()} if values.get("models") else None,
            models_dominated=values.get("models_dominated", 0),
            constraints=tuple(constraints),
            deployment=Deployment.from_dict(values["deployment"]),
            allow_unsupported=values["allow_unsupported"],
            criterion=values["criterion"],
            residency=values.get("residency", "none"),
            prefetch=bool(values.get("prefetch", False)),
            act_lacks=values.get("act_lacks", ""),
            asked_as=dict(values.get("asked_as") or {}),
        )


def _earlier(values: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The lists of a template as they were for a problem that was written before they grew; none of its own knobs, set or listed."""
    if values.get("lists", 1) >= LISTS:
        return {}
    lists = _EARLIER_LISTS.get(values["hardware"] if values["hardware_toml"] is None else _template_of(values["hardware_toml"]), {})
    return {name: listed for name, listed in lists.items() if name not in values["fixed"]}


def _template_of(text: str) -> str:
    """The template whose lists a hardware file takes; empty where it describes its designs itself, or lists the knobs as well."""
    document = tomllib.loads(text)
    return str(document.get("template", "")) if "glb_mib" not in document.get("knobs", {}) else ""


def fix_knobs(grid: Mapping[str, IntArray], fixed: Mapping[str, int]) -> dict[str, IntArray]:
    """The rows of ``grid`` (knob -> values, one entry a point) in which every fixed knob has its value.

    Knobs in ``fixed`` that ``grid`` does not have are left to whoever owns them. A value that no row has is an error
    that names the nearest one.
    """
    keep = np.ones(len(next(iter(grid.values()))), dtype=bool)
    for name, value in fixed.items():
        if name not in grid:
            continue
        values = np.unique(grid[name])
        shown = ", ".join(str(v) for v in values.tolist())
        named = values.dtype.kind == "U"
        if isinstance(value, str) != named:
            raise UsageError(f"set {name}={value} is not in the space; allowed are {shown}")
        if named and value not in values:
            raise UsageError(
                f"set {name}={value} is not in the space; allowed are {shown}; nearest is {nearest(str(value), values.tolist())}"
            )
        if value not in values:
            near = int(values[np.argmin(np.abs(values - value))])
            raise UsageError(f"set {name}={value} is not in the space; allowed are {shown}; nearest is {near}")
        keep &= grid[name] == value
    if not keep.any():
        raise UsageError(
            "no point of the space has "
            + " and ".join(f"{name}={value}" for name, value in fixed.items() if name in grid)
            + "; each value exists, but not together"
        )
    return {name: values[keep] for name, values in grid.items()}


def check_knob_names(fixed: Mapping[str, int], searched: list[str], settable: list[str]) -> None:
    """An unknown knob is an error that names the nearest one; ``settable`` are the workload's further knobs."""
    known = list(dict.fromkeys([*searched, *settable]))
    for name in fixed:
        if name not in known:
            close = nearest(name, known)
            hint = f"; did you mean {close!r}?" if close else ""
            raise UsageError(f"set {name!r} is no knob of this problem; the search varies {', '.join(searched)}{hint}")
