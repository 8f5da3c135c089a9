"""Templates: hardware spaces with named knobs, and the accelerator files that users bring.

    template = load("edge22")
    batch = template.batch(**template.grid())            # all 5,832 designs, canonical order
    design = template.accelerator(cores=4, width=64, depth=16, l2_kib=256, l2_words_per_cycle=64, glb_mib=4)

A template has `knobs`, which a search varies, and `settings`, which stay as they are unless a caller gives another
value: both are keywords of `batch` and `accelerator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import NUMBERS, Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import Rule
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.spaces.datacenter import datacenter
from hw_models.spaces.edge import edge
from hw_models.spaces.lookup import cpu, lookup
from hw_models.technology.profiles import profile as find_profile

Value = int | float | str
_UNITS = {"kib": 1024, "mib": 1024**2}
Columns = dict[str, npt.NDArray[Any]]
Builder = Callable[[str, Columns, int], AcceleratorBatch]
"""From a technology profile, columns of knobs and settings (count,) and the count to designs."""
BUILDERS: dict[str, Builder] = {"edge": edge, "datacenter": datacenter, "lookup": lookup, "cpu": cpu}


@dataclass(frozen=True)
class Template:
    """A hardware space: knobs with their values, fixed settings, and how both become designs.

    Attributes:
        name, title, source: what it is and where its numbers come from.
        knobs: values of each knob; the order of the names is the canonical order of `grid`. A design may also lie between the
            values of a knob, not beyond them.
        settings: values of everything else that `batch` accepts.
        profile: technology profile of the designs it builds.
        not_modelled: what the numbers leave out, to be said to users.
        constraints, carbon_profile: what holds in a search of this space unless the user says otherwise; a space narrowed from it
            keeps them.
        closed_forms: which closed forms with gradients cost its designs (`edge`, `datacenter`); empty: none do.
        notes: what a knob or setting means and where its value is from, by its name.
        fractions: knobs of whole numbers that may also lie between them, and what their values are multiples of.
        default_design: what a knob has where nobody says; of the others the middle of their list (:meth:`defaults`).
        nested: knobs of the sizes of memories, from the innermost outwards: a design whose memories do not grow is none (:meth:`grid`).
        published_grid: lists of the tool that the template is from, where they are not its own (:meth:`as_published`).
        figures: of a user's file that lists values, what it states itself in place of the technology tables (:func:`stated_figures`);
            None of a template.
    """

    name: str
    title: str
    source: str
    knobs: dict[str, tuple[Value, ...]]
    settings: dict[str, Value]
    builder: Builder = field(repr=False)
    profile: str = "default"
    not_modelled: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ("dram_fill<=1.0",)
    carbon_profile: str = "act2"
    closed_forms: str = ""
    notes: Mapping[str, str] = field(default_factory=dict, repr=False)
    fractions: Mapping[str, float] = field(default_factory=dict, repr=False)
    default_design: Mapping[str, Value] = field(default_factory=dict, repr=False)
    nested: tuple[str, ...] = ()
    published_grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict, repr=False)
    figures: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        """Number of designs of the grid."""
        apart = {name: values for name, values in self.knobs.items() if name in self.nested}
        together = len(next(iter(replace(self, knobs=apart).grid().values()))) if apart else 1
        return together * int(np.prod([len(values) for name, values in self.knobs.items() if name not in apart], dtype=np.int64))

    def grid(self) -> Columns:
        """All designs: {knob: array (size,)}, the last knob varying fastest; where none has memories that grow outwards, all the same."""
        at = np.indices([len(values) for values in self.knobs.values()]).reshape(len(self.knobs), -1)
        columns = {name: np.array(values)[chosen] for (name, values), chosen in zip(self.knobs.items(), at, strict=True)}
        sizes = [_bytes(name, columns[name]) for name in self.nested if name in columns]
        grows = np.ones(at.shape[1], dtype=bool)
        for inner, outer in pairwise(sizes):
            grows &= inner <= outer
        return columns if grows.all() or not grows.any() else {name: column[grows] for name, column in columns.items()}

    @property
    def defaults(self) -> dict[str, Value]:
        """What each knob has where nobody says: the template's own choice where the knob lists it, else the middle of its list (of a
        memory that would be smaller than the one inside it, the largest)."""
        found = {name: values[len(values) // 2] for name, values in self.knobs.items()}
        found |= {name: value for name, value in self.default_design.items() if value in self.knobs.get(name, ())}
        for inner, outer in pairwise(name for name in self.nested if name in found):
            if _bytes(inner, np.array(found[inner])) > _bytes(outer, np.array(found[outer])):
                found[outer] = max(self.knobs[outer], key=float)
        return found

    def with_profile(self, profile: str) -> Template:
        """The same space under another technology profile; one with a buffer an operand answers as the published tool, on its lists."""
        found = find_profile(profile)
        return replace(self.as_published() if found.operand_buffers else self, profile=found.name)

    def as_published(self) -> Template:
        """The space that the tool of :attr:`source` searches: its lists, but of knobs that were given other values since."""
        return replace(self, knobs={**self.knobs, **self.published_grid}, published_grid={})

    def with_knobs(self, **values: tuple[Value, ...] | list[Value]) -> Template:
        """The same space with other values of some knobs, within the shipped ones or beyond, or with settings made knobs."""
        self._check_names(values)
        knobs = dict(self.knobs)
        for name, chosen in values.items():
            if len(chosen) == 0:
                raise HardwareError(f"knob {name} of template {self.name} needs at least one value, got none")
            check_scalars(name, chosen, f"template {self.name}")
            unique = dict.fromkeys(of_one_kind(chosen))
            self._check_values(name, np.array(list(unique)), within_knobs=False)
            knobs[name] = tuple(unique)
        settings = {k: v for k, v in self.settings.items() if k not in knobs}
        published = {name: listed for name, listed in self.published_grid.items() if name not in values}
        return replace(self, knobs=knobs, settings=settings, published_grid=published)

    def with_settings(self, **values: Value) -> Template:
        """The same space with other values of settings (`frequency_hz`, `word_bits`, ...)."""
        self._check_names(values)
        for name, value in values.items():
            if name in self.knobs:
                raise HardwareError(f"{name} is a knob of template {self.name}, not a setting: give it with with_knobs")
            self._check_values(name, np.array([value]))
        return replace(self, settings={**self.settings, **values})

    def batch(self, **knobs: npt.ArrayLike) -> AcceleratorBatch:
        """Designs as arrays: one keyword a knob (arrays of one length or scalars), settings where they differ."""
        columns = self._columns(knobs)
        points = {len(c) for c in columns.values() if c.ndim == 1}
        if len(points) > 1:
            raise HardwareError(f"knobs of template {self.name} must have one length, got lengths {sorted(points)}")
        count = points.pop() if points else 1
        full = {name: np.broadcast_to(c, (count,)) for name, c in columns.items()}
        return self.builder(self.profile, full, count)

    def check(self, **knobs: npt.ArrayLike) -> None:
        """Raise HardwareError unless the knobs and settings name designs of this template."""
        self._columns(knobs)

    def accelerator(self, **knobs: Value) -> Accelerator:
        """One design from scalar knobs."""
        found = self.accelerators(**knobs)
        if len(found) != 1:
            raise HardwareError(f"a single design of template {self.name} needs scalar knobs, got {len(found)} designs")
        return found[0]

    def accelerators(self, **knobs: npt.ArrayLike) -> list[Accelerator]:
        """Designs as records; arguments as of `batch`."""
        batch = self.batch(**knobs)
        columns = [np.broadcast_to(np.asarray(knobs[name]), (len(batch),)).tolist() for name in self.knobs]
        rows = zip(*columns, strict=True)
        names = ["-".join(map(_short, (self.name, *values))) for values in rows] if columns else [self.name] * len(batch)
        return batch.accelerators(names, source=self.source)

    def _check_names(self, given: Mapping[str, object]) -> None:
        for name in given:
            if name not in self.knobs and name not in self.settings:
                raise unknown_name(f"knob of template {self.name}", name, (*self.knobs, *self.settings))

    def _columns(self, given: Mapping[str, npt.ArrayLike]) -> Columns:
        self._check_names(given)
        missing = [name for name in self.knobs if name not in given]
        if missing:
            raise HardwareError(
                f"template {self.name} needs a value for {', '.join(missing)}: "
                + "; ".join(f"{m} in {', '.join(map(_short, self.knobs[m]))}" for m in missing)
            )
        columns: Columns = {}
        for name, value in {**self.settings, **given}.items():
            array = np.asarray(value)
            if array.ndim > 1:
                raise HardwareError(f"{name} of template {self.name} must be a number or a list, got shape {array.shape}")
            self._check_values(name, np.atleast_1d(array))
            columns[name] = array
        return columns

    def _check_values(self, name: str, values: npt.NDArray[Any], *, within_knobs: bool = True) -> None:
        where = f"template {self.name}"
        default = self.knobs[name][0] if name in self.knobs else self.settings[name]
        if isinstance(default, str):
            if values.dtype.kind != "U":
                raise bad_value(name, values.tolist()[0], f"a name like {default!r}", where=where)
            return  # the names themselves are checked where they are looked up
        if isinstance(default, bool):
            if values.dtype.kind != "b":
                raise bad_value(name, values.tolist()[0], "true or false", where=where)
            return
        if values.dtype.kind not in "iuf":
            raise bad_value(name, values.tolist()[0], "a number", where=where)
        whole = isinstance(default, int) and name not in self.fractions
        if (whole or name in self.fractions) and values.dtype.kind == "f":
            unit = self.fractions.get(name, 1.0)
            uneven = values[(values / unit) != np.floor(values / unit)]
            if uneven.size or not np.isfinite(values).all():
                value = float((uneven if uneven.size else values)[0])
                raise bad_value(name, value, "a whole number" if whole else f"a multiple of {unit:g}", where=where)
        if name in self.knobs and within_knobs:
            allowed = np.array(self.knobs[name], dtype=np.float64)
            listed = ", ".join(f"{v:g}" for v in allowed)
            inside = (values >= allowed.min()) & (values <= allowed.max())
            if not inside.all():
                value = values[~inside][0]
                closest = f"{allowed[np.argmin(np.abs(allowed - value))]:g}"
                rule = f"between {allowed.min():g} and {allowed.max():g} (grid: {listed})"
                raise bad_value(name, value.item(), rule, closest=closest, where=where)
        else:
            limits = NUMBERS[name] if name in NUMBERS else Rule(whole, 1e-9, 2.0**50, "")
            for value in np.unique(values):
                limits.check(name, value.item(), where)


def _bytes(name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The sizes of a knob, whose name ends with their unit."""
    return values * _UNITS[name.rpartition("_")[2]]


def nesting(inner: str, outer: str) -> str:
    """The constraint that a memory is no larger than the one outside it, in the units of the two knobs: ``l2_kib <= 1024 * glb_mib``."""
    return f"{inner} <= {_UNITS[outer.rpartition('_')[2]] / _UNITS[inner.rpartition('_')[2]]:g} * {outer}"


def _short(value: object) -> str:
    """A value as it is written: 4 where a list with parts of one makes it 4.0."""
    return f"{value:g}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else str(value)


def check_scalars(name: str, values: Iterable[object], where: str) -> None:
    """Raise HardwareError where a value of a knob is no number or name: a list or a table inside the list of a file."""
    for value in values:
        if not isinstance(value, (int, float, str, np.generic)):
            raise bad_value(name, value, "a number or a name", where=where)


def of_one_kind(values: Sequence[Any]) -> list[Any]:
    """Values of a knob, all floats where any is: a knob whose first value is an integer would be taken for one of whole numbers."""
    if not any(isinstance(value, float) for value in values):
        return list(values)
    return [float(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else value for value in values]


_given: dict[str, Template] = {}


def register(template: Template) -> str:
    """Make a template known in this process by its name, which is returned; a shipped name cannot be taken over."""
    if template.name in names():
        raise HardwareError(f"hardware template {template.name!r} is one of this package; give yours another name")
    _given[template.name] = template
    return template.name


def foreign(name: str) -> Template | None:
    """A template registered in this process, or an entry point of an installed package in the group `dse.templates` (a Template, or a
    function without arguments that makes one); None where there is none of that name."""
    from importlib.metadata import entry_points  # 20 ms, for a name that the package does not know

    if name in _given:
        return _given[name]
    found = next((point.load() for point in entry_points(group="dse.templates", name=name)), None)
    return found if isinstance(found, Template) or found is None else found()


def names() -> tuple[str, ...]:
    """Names of the templates that come with the package."""
    folder = files("hw_models") / "data" / "templates"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


@cache
def _shipped(name: str) -> Template:
    import tomllib

    known = names()
    if name not in known:
        raise unknown_name("hardware template", name, known)
    text = (files("hw_models") / "data" / "templates" / f"{name}.toml").read_text(encoding="utf-8")
    return template_from(tomllib.loads(text), where=f"template {name}")


def load(name: str, *, profile: str = "default") -> Template:
    """The template called ``name``; an unknown name is an error naming the nearest."""
    template = (None if name in names() else foreign(name)) or _shipped(name)
    return template if profile == template.profile else template.with_profile(profile)


def template_from(document: Mapping[str, Any], *, where: str) -> Template:
    """A template from a parsed TOML document of the shipped form."""
    name = str(document["name"])
    if document["builder"] not in BUILDERS:
        raise unknown_name("builder", document["builder"], BUILDERS, where=where)
    return Template(
        name=name,
        title=str(document["title"]),
        source=str(document["source"]),
        knobs={k: tuple(of_one_kind(v)) for k, v in document["knobs"].items()},
        settings=dict(document["settings"]),
        builder=BUILDERS[document["builder"]],
        not_modelled=tuple(document.get("not_modelled", ())),
        notes=dict(document.get("notes", {})),
        fractions={name: float(unit) for name, unit in document.get("fractions", {}).items()},
        nested=tuple(document.get("nested", ())),
        default_design=dict(document.get("default_design", {})),
        published_grid={name: tuple(listed) for name, listed in document.get("published_grid", {}).items()},
        **_defaults(document.get("defaults", {}), where),
    )


def _defaults(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The facts of ``[defaults]`` as fields of `Template`."""
    known = ("constraints", "carbon_profile", "closed_forms")
    for name in given:
        if name not in known:
            raise unknown_name("field of [defaults]", name, known, where=where)
    return {name: tuple(value) if isinstance(value, list) else str(value) for name, value in given.items()}
