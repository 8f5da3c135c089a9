"""Search spaces: parameters with a role and a coding, constraints between them, exact cardinality, TOML files.

A design is a row of value indices, one a parameter. Strategies work on indices and on the coding, a map of every
parameter to [0, 1] in which equal steps mean roughly equal effects; users and evaluators see values.

A space file::

    name = "tiny"
    # an equation gives a parameter that is not listed its values: "ffn == 4 * hidden"
    constraints = ["cores * width * depth <= 8192", "hidden % heads == 0", "hidden >= 64 * heads"]

    [parameters.hidden]
    role = "model"              # model, hardware, deployment or shared (enters both quality and cost)
    coding = "log"              # linear, log, power_of_two (by exponent) or ordered (by position)
    values = [256, 512, 768]

    [parameters.frequency_hz]
    role = "hardware"
    from = 0.5e9                # or a range: `steps` values, evenly spaced in the coding
    to = 1.5e9
    steps = 41
"""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError, nearest, unknown_name
from dse.spaces.constraints import SpaceConstraint, parse_constraint
from hw_models import spaces as templates

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]
"""Values of parameters by name, one array a parameter."""
Value = int | float | str

ROLES = ("model", "hardware", "deployment", "shared")
CODINGS = ("linear", "log", "power_of_two", "ordered")
# Largest number of combinations of constrained parameters that the exact count enumerates at a time.
_COUNT_BLOCK = 1 << 20
COUNT_LIMIT = 200_000_000
# Most values of a parameter that is given by from, to and steps: more than any search tells apart.
MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Parameter:
    """One searched quantity: its admissible values in ascending order (strings in the order that is meant)."""

    name: str
    values: tuple[Value, ...]
    role: str = "hardware"
    coding: str = "linear"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise unknown_name(f"role of parameter {self.name}", self.role, ROLES)
        if self.coding not in CODINGS:
            raise unknown_name(f"coding of parameter {self.name}", self.coding, CODINGS)
        if not self.values:
            raise UsageError(f"parameter {self.name} has no value; give at least one")
        _check_kinds(self.name, self.values)
        if len(set(self.values)) != len(self.values):
            raise UsageError(f"parameter {self.name} has a value twice; give each once")
        self._check_coding()

    def _check_coding(self) -> None:
        if self.coding == "ordered":
            return
        if not self.numeric:
            raise UsageError(f"parameter {self.name} has strings for values; its coding is {self.coding}, 'ordered' is needed")
        numbers = np.array(self.values, dtype=np.float64)
        if not np.isfinite(numbers).all() or np.any(np.diff(numbers) <= 0):
            raise UsageError(f"parameter {self.name} has values {list(self.values)}; finite ascending numbers are needed")
        if self.coding != "linear" and numbers[0] <= 0:
            raise UsageError(f"parameter {self.name} has the value {self.values[0]}; coding {self.coding} needs positive ones")
        if self.coding == "power_of_two" and np.any(np.log2(numbers) % 1):
            raise UsageError(f"parameter {self.name} has values {list(self.values)}; coding power_of_two needs powers of two")

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return not any(isinstance(value, str) for value in self.values)

    @cached_property
    def column(self) -> npt.NDArray[Any]:
        """The values as an array."""
        return np.array(self.values)

    @cached_property
    def code(self) -> FloatArray:
        """Position of every value in [0, 1]; 0.5 where there is one value only."""
        if len(self.values) == 1:
            return np.array([0.5])
        if self.coding == "ordered":
            return np.linspace(0.0, 1.0, len(self.values))
        numbers = self.column.astype(np.float64)
        if self.coding in ("log", "power_of_two"):
            numbers = np.log2(numbers)
        return np.asarray((numbers - numbers[0]) / (numbers[-1] - numbers[0]), dtype=np.float64)

    def index(self, value: Value) -> int:
        """Index of a value; an unknown one is an error that names the nearest."""
        if value in self.values:
            return self.values.index(value)
        if self.numeric and not isinstance(value, str):
            near = self.values[int(np.argmin(np.abs(self.column.astype(np.float64) - value)))]
            shown = ", ".join(map(str, self.values[:12])) + (", ..." if len(self.values) > 12 else "")
            raise UsageError(f"{self.name}={value} is not in the space; allowed are {shown}; nearest is {near}")
        raise unknown_name(self.name, str(value), [str(known) for known in self.values])


def _check_kinds(name: str, values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise UsageError(f"parameter {name} has a value that is neither a number nor a string")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UsageError(f"parameter {name} has an integer of {value.bit_length()} bits; 63 bits are the most")


def guess_coding(values: Sequence[Value], role: str = "hardware") -> str:
    """The coding for values without a stated one: strings by position, powers of two by exponent, dimensions of a model
    (quality and cost follow powers of them) and wide positive ranges (a factor of four and more) by logarithm, anything
    else linear."""
    if any(isinstance(value, str) for value in values):
        return "ordered"
    numbers = np.array(values, dtype=np.float64)
    if len(numbers) < 2 or numbers.min() <= 0:
        return "linear"
    if not np.any(np.log2(numbers) % 1):
        return "power_of_two"
    return "log" if role == "model" or numbers.max() / numbers.min() >= 4 else "linear"


@dataclass(frozen=True)
class Space:
    """Parameters and the constraints between them. Designs are rows of indices, shape (n, parameters)."""

    name: str
    parameters: tuple[Parameter, ...]
    constraints: tuple[SpaceConstraint, ...] = ()
    source: str = ""
    _by_name: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.parameters:
            raise UsageError(f"space {self.name} has no parameter; give at least one")
        for position, parameter in enumerate(self.parameters):
            if parameter.name in self._by_name:
                raise UsageError(f"space {self.name} has the parameter {parameter.name} twice")
            self._by_name[parameter.name] = position
        for constraint in self.constraints:
            for name in constraint.names:
                if name not in self._by_name:
                    raise _unlisted(self.name, constraint, name, self.names)
                if not self.parameter(name).numeric:
                    raise UsageError(f"constraint {constraint.text!r} names {name}, whose values are strings; numbers are needed")

    # -- shape ---------------------------------------------------------------------------------------------------
    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each parameter."""
        return tuple(len(parameter.values) for parameter in self.parameters)

    @property
    def size(self) -> int:
        """Number of designs before constraints, an exact integer."""
        total = 1
        for count in self.shape:
            total *= count
        return total

    def parameter(self, name: str) -> Parameter:
        """One parameter by name."""
        if name not in self._by_name:
            raise unknown_name("parameter", name, self._by_name)
        return self.parameters[self._by_name[name]]

    def cardinality(self) -> int:
        """Exact number of designs that meet the constraints.

        Only parameters that share a constraint are enumerated together; the rest multiply. A group of more than
        ``COUNT_LIMIT`` combinations is an error.
        """
        total = 1
        for group in self._groups():
            sub = Space(self.name, tuple(self.parameter(name) for name in group),
                        tuple(c for c in self.constraints if c.names and c.names[0] in group))  # fmt: skip
            if not sub.constraints:
                total *= sub.size
                continue
            if sub.size > COUNT_LIMIT:
                raise UsageError(
                    f"space {self.name} ties {sub.size:,} combinations of {', '.join(group)} by constraints; "
                    f"at most {COUNT_LIMIT:,} can be counted"
                )
            total *= sum(
                int(np.count_nonzero(sub.feasible(sub.unrank(np.arange(first, min(first + _COUNT_BLOCK, sub.size))))))
                for first in range(0, sub.size, _COUNT_BLOCK)
            )
        return total

    def _groups(self) -> list[list[str]]:
        """Names of parameters, grouped by being tied by constraints directly or through others."""
        groups: list[set[str]] = [{name} for name in self.names]
        for constraint in self.constraints:
            tied = [group for group in groups if group & set(constraint.names)]
            groups = [group for group in groups if group not in tied]
            groups.append(set().union(*tied))
        order = {name: i for i, name in enumerate(self.names)}
        return sorted((sorted(group, key=order.__getitem__) for group in groups if group), key=lambda g: order[g[0]])

    # -- designs ---------------------------------------------------------------------------------------------------
    def unrank(self, numbers: npt.ArrayLike) -> IntArray:
        """Designs of the given numbers 0..size-1 in canonical order (the last parameter varies fastest), (n, d)."""
        found = np.unravel_index(np.atleast_1d(np.asarray(numbers, dtype=np.int64)), self.shape)
        return np.stack(found, axis=1).astype(np.int64)

    def rank(self, indices: IntArray) -> IntArray:
        """The inverse of :meth:`unrank`; for spaces of fewer than 2**63 designs."""
        return np.asarray(np.ravel_multi_index(tuple(np.atleast_2d(indices).T), self.shape), dtype=np.int64)

    def columns(self, indices: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Values of designs as one array (n,) a parameter."""
        indices = np.atleast_2d(indices)
        return {p.name: p.column[indices[:, j]] for j, p in enumerate(self.parameters)}

    def values(self, index: IntArray) -> dict[str, Value]:
        """Values of one design."""
        return {p.name: p.values[int(i)] for p, i in zip(self.parameters, np.asarray(index).reshape(-1), strict=True)}

    def index(self, values: Mapping[str, Value]) -> IntArray:
        """Index row (d,) of a design given by values; names and values are checked."""
        for name in values:
            self.parameter(name)
        missing = [name for name in self.names if name not in values]
        if missing:
            raise UsageError(f"design lacks {', '.join(missing)}; space {self.name} has {', '.join(self.names)}")
        return np.array([p.index(values[p.name]) for p in self.parameters], dtype=np.int64)

    def coded(self, indices: IntArray) -> FloatArray:
        """Designs in the coding, (n, d) in [0, 1]."""
        indices = np.atleast_2d(indices)
        return np.stack([p.code[indices[:, j]] for j, p in enumerate(self.parameters)], axis=1)

    def nearest(self, coded: FloatArray) -> IntArray:
        """The designs whose codes are nearest to ``coded`` (n, d), each parameter by itself."""
        coded = np.atleast_2d(coded)
        return np.stack([np.abs(coded[:, j, None] - p.code[None, :]).argmin(1) for j, p in enumerate(self.parameters)], axis=1).astype(
            np.int64
        )

    def feasible(self, indices: IntArray) -> BoolArray:
        """Which designs meet all constraints, exactly."""
        indices = np.atleast_2d(indices)
        keep = np.ones(len(indices), dtype=bool)
        if self.constraints:
            columns = {
                name: self.parameter(name).column[indices[:, self._by_name[name]]].astype(np.float64)
                for name in {name for constraint in self.constraints for name in constraint.names}
            }
            for constraint in self.constraints:
                keep &= constraint.holds(columns)
        return keep

    def sub(self, names: Iterable[str], *, name: str | None = None) -> Space:
        """The space of some parameters, with the constraints that concern them alone."""
        chosen = tuple(self.parameter(n) for n in names)
        kept = {p.name for p in chosen}
        return Space(name or self.name, chosen, tuple(c for c in self.constraints if set(c.names) <= kept), self.source)

    def with_role(self, *roles: str) -> tuple[str, ...]:
        """Names of the parameters of some roles."""
        for role in roles:
            if role not in ROLES:
                raise unknown_name("role", role, ROLES)
        return tuple(p.name for p in self.parameters if p.role in roles)

    # -- files -----------------------------------------------------------------------------------------------------
    def to_toml(self) -> str:
        """The space as a file that :func:`load` reads back to an equal one."""
        lines = [f"name = {_quote(self.name)}"]
        if self.source:
            lines.append(f"source = {_quote(self.source)}")
        lines.append(f"constraints = [{', '.join(_quote(c.text) for c in self.constraints)}]")
        for p in self.parameters:
            values = ", ".join(_quote(v) if isinstance(v, str) else repr(v) for v in p.values)
            lines += ["", f"[parameters.{p.name}]", f'role = "{p.role}"', f'coding = "{p.coding}"', f"values = [{values}]"]
        return "\n".join(lines) + "\n"


def _unlisted(space: str, constraint: SpaceConstraint, name: str, known: Sequence[str]) -> UsageError:
    """The error for a constraint on what the space does not list: it would be held at one value, and the constraint lost."""
    close = nearest(name, known)
    meant = f"did you mean {close!r}? Else " if close else ""
    return UsageError(
        f"constraint {constraint.text!r}: parameter {name!r} is unknown, space {space} lists {', '.join(known)}; {meant}give "
        f"[parameters.{name}] its values, or tie it to listed ones alone by {name} == ..., from which its values follow"
    )


def _quote(text: str) -> str:
    import json

    return json.dumps(text)


def from_columns(name: str, columns: Mapping[str, Sequence[Value]], role: str | Mapping[str, str]) -> Space:
    """A space from the columns of a grid or the knobs of a template: the distinct values of each, codings guessed."""
    parameters = []
    for key, values in columns.items():
        found = list(dict.fromkeys(value.item() if isinstance(value, np.generic) else value for value in values))
        if not any(isinstance(value, str) for value in found):
            found = sorted(found)
        its_role = role if isinstance(role, str) else role[key]
        parameters.append(Parameter(key, tuple(found), its_role, guess_coding(found, its_role)))
    return Space(name, tuple(parameters))


def names() -> tuple[str, ...]:
    """Names of the built-in spaces: the hardware templates that have knobs."""
    return tuple(name for name in templates.names() if templates.load(name).knobs)


def text_of(path: str | Path) -> str:
    """The text of a space file; UsageError where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"space {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error


def load(name: str | Path) -> Space:
    """A built-in space by name, or the space of a TOML file."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return parse(text_of(path), where=str(path))
    known = names()
    if str(name) not in known:
        raise unknown_name("space", str(name), known)

    template = templates.load(str(name))
    space = from_columns(str(name), template.knobs, "hardware")
    return Space(space.name, space.parameters, source=template.source)


def parse(
    text: str,
    *,
    where: str,
    names: Mapping[str, tuple[str, int]] | None = None,
    listed: Mapping[str, Sequence[Value]] | None = None,
    further: Mapping[str, Sequence[Value]] | None = None,
) -> Space:
    """The space that the text of a TOML file describes; errors begin with ``where``.

    Args:
        names: second names of knobs of the hardware, {name: (knob, its units in one of the name's)}: parameters and constraints of the
            file come out by the knobs.
        listed: knobs that are listed elsewhere (in the hardware's own file), with their values: those that a constraint names and the
            file does not list are parameters too.
        further: as ``listed``, where no equation of the file gives the knob its values (lists of a built-in template).
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML errors are ValueErrors, and so is an integer of 5,000 digits
        raise UsageError(f"space {where} is not valid TOML: {error}") from error
    for key in document:
        if key not in ("name", "source", "constraints", "parameters"):
            raise unknown_name(f"space {where}: key", key, ("name", "source", "constraints", "parameters"))
    names, listed, further = names or {}, listed or {}, further or {}
    tables = document.get("parameters", {})
    if not isinstance(tables, dict) or not (tables or ((listed or further) and document.get("constraints"))):
        raise UsageError(f"space {where} has no [parameters.NAME] table; give at least one")
    constraints = document.get("constraints", [])
    if not isinstance(constraints, list) or not all(isinstance(c, str) for c in constraints):
        raise UsageError(f"space {where}: constraints is {constraints!r}; a list of strings is needed")
    written = [_parameter(name, table, where) for name, table in tables.items()]
    names = {name: knob for name, knob in names.items() if name not in {p.name for p in written if p.role != "hardware"}}
    own: Sequence[Parameter] = [_by_knob(parameter, names) for parameter in written]
    parsed = tuple(parse_constraint(text).renamed(names) for text in constraints)
    own = _with_derived(_with_listed(own, parsed, listed), parsed)
    own = _with_derived(_with_listed(own, parsed, further), parsed) if further else own
    return Space(
        str(document.get("name", Path(where).stem)),
        tuple(own),
        parsed,
        str(document.get("source", "")),
    )


def _by_knob(parameter: Parameter, names: Mapping[str, tuple[str, int]]) -> Parameter:
    """A parameter by the knob that its name stands for, with its values in the knob's units."""
    if parameter.name not in names:
        return parameter
    knob, unit = names[parameter.name]
    if unit == 1 or not parameter.numeric:
        return Parameter(knob, parameter.values, parameter.role, parameter.coding)
    counted = [float(value) * unit for value in parameter.values]
    return Parameter(knob, tuple(int(v) if v.is_integer() else v for v in counted), parameter.role, parameter.coding)


def _with_listed(
    own: Sequence[Parameter], constraints: Sequence[SpaceConstraint], listed: Mapping[str, Sequence[Value]]
) -> tuple[Parameter, ...]:
    """Also the knobs that are listed elsewhere and that a constraint names; those that no constraint names stay where they are."""
    wanted = dict.fromkeys(name for constraint in constraints for name in constraint.names if name in listed)
    found = {name: listed[name] for name in wanted if name not in {p.name for p in own}}
    return (*own, *from_columns("", found, "hardware").parameters) if found else tuple(own)


def _with_derived(listed: Sequence[Parameter], constraints: Sequence[SpaceConstraint]) -> tuple[Parameter, ...]:
    """The listed parameters and those that an equation with them gives: ``ffn == 4 * hidden`` lists ffn, where nothing else does."""
    found = {parameter.name: parameter for parameter in listed}
    rest = [constraint for constraint in constraints if constraint.relation == "=="]
    while True:
        made = [(c, p) for c in rest if (p := _derived(c, found)) is not None]
        if not made:
            return (*listed, *(p for name, p in found.items() if name not in {q.name for q in listed}))
        found[made[0][1].name] = made[0][1]
        rest.remove(made[0][0])


def _derived(constraint: SpaceConstraint, known: Mapping[str, Parameter]) -> Parameter | None:
    """The one parameter of an equation that is not known yet, with every value that the others give it; None where it does not follow."""
    missing = [name for name in constraint.names if name not in known]
    others = [known[name] for name in constraint.names if name in known]
    if len(missing) != 1 or len({p.role for p in others}) != 1 or not all(p.numeric for p in others):
        return None
    (name,), role = missing, others[0].role
    own = [term for term in constraint.terms if any(tied == name for tied, _ in term.powers)]
    if (
        len(own) != 1
        or own[0].powers != ((name, 1.0),)
        or own[0].coefficient == 0
        or math.prod(len(p.values) for p in others) > _COUNT_BLOCK
    ):
        return None
    axes = np.meshgrid(*(p.column.astype(np.float64) for p in others), indexing="ij")
    columns = {p.name: axis.reshape(-1) for p, axis in zip(others, axes, strict=True)}
    total: FloatArray = np.zeros(columns[others[0].name].shape)
    for term in constraint.terms:
        if term is not own[0]:
            total = total + term.coefficient * math.prod((columns[tied] ** power for tied, power in term.powers), start=np.ones(1))
    values = sorted({float(f"{value:.12g}") for value in (-total / own[0].coefficient).tolist()})
    whole = [int(value) for value in values if value > 0 and value.is_integer()]
    chosen: Sequence[Value] = whole if role in ("model", "shared") or len(whole) == len(values) else values
    if not chosen:
        raise UsageError(f"constraint {constraint.text!r} gives {name} no whole number for any of the values that are listed")
    return Parameter(name, tuple(chosen), role, guess_coding(chosen, role))


def _parameter(name: str, table: Any, where: str) -> Parameter:
    keys = ("role", "coding", "values", "from", "to", "steps")
    if not isinstance(table, dict):
        raise UsageError(f"space {where}: parameters.{name} is {table!r}; a table is needed")
    for key in table:
        if key not in keys:
            raise unknown_name(f"space {where}: key of parameters.{name}", key, keys)
    role = str(table.get("role", "hardware"))
    if "values" in table:
        values = table["values"]
        if not isinstance(values, list):
            raise UsageError(f"space {where}: parameters.{name}.values is {values!r}; a list is needed")
        _check_kinds(name, values)
        return Parameter(name, tuple(values), role, str(table.get("coding") or (guess_coding(values, role) if values else "linear")))
    bounds = [table.get(key) for key in ("from", "to", "steps")]
    if any(isinstance(b, bool) or not isinstance(b, (int, float)) for b in bounds):
        raise UsageError(f"space {where}: parameters.{name} needs values, or from, to and steps, as numbers")
    if not all(abs(b) <= sys.float_info.max for b in bounds if isinstance(b, (int, float))):
        raise UsageError(f"space {where}: parameters.{name} has a bound that is not finite; from, to and steps must be finite numbers")
    low, high, steps = (float(b) for b in bounds if isinstance(b, (int, float)))
    coding = str(table.get("coding", "linear"))
    if not (low < high and 2 <= steps <= MOST_STEPS and steps == int(steps)) or (coding == "log" and low <= 0):
        raise UsageError(
            f"space {where}: parameters.{name} goes from {low:g} to {high:g} in {steps:g} steps; from < to, 2 to {MOST_STEPS:,} "
            "whole steps and, by logarithm, positive bounds are needed"
        )
    spread = np.geomspace if coding == "log" else np.linspace
    # Twelve digits: the values print as they were meant (0.6, not 0.6000000000000001) and read back the same.
    return Parameter(name, tuple(float(f"{v:.12g}") for v in spread(low, high, int(steps))), role, coding)
