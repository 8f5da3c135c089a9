"""The hardware side of a problem, in one form whether it is a built-in template, a user's space or a single design."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.factors import memories
from dse.errors import UsageError, nearest, unknown_name
from dse.problem.objectives import Constraint, parse_constraint
from dse.problem.problem import fix_knobs
from dse.spaces.constraints import SpaceConstraint
from dse.spaces.constraints import parse_constraint as parse_space_constraint
from dse.spaces.toml_text import toml_text
from hw_models import spaces as templates
from hw_models.accelerator.design import NUMBERS, Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.accelerator.toml import CAPACITIES, load_toml
from hw_models.devices import library as devices
from hw_models.devices.sets import PARALLEL, device_space, shared_device
from hw_models.spaces import files as accelerator_files
from hw_models.spaces.template import nesting

IntArray = npt.NDArray[np.int64]
PUBLISHED_SPACE = "catransformers"
"""The space of models of the tool that `edge22` is from."""


class HardwareSpace:
    """Hardware points as knob columns, and the way from knob values to designs. A single design has no knobs."""

    def __init__(self, source: templates.Template | Accelerator, *, shipped: tuple[str, ...] = (), board: str = "") -> None:
        self._source = source
        self.board = board
        """The device of the library that a design's file is, unchanged: it is made as that board is. Empty for others."""
        self.doubts: tuple[str, ...] = ()
        """What `dse calibrate` says of how far the calibration of a device can be relied on."""
        self.shipped = shipped
        """Devices of the library that its designs are; empty for templates and users' files."""
        self.name: str = source.name
        self.knobs: dict[str, tuple[Any, ...]] = {} if isinstance(source, Accelerator) else dict(source.knobs)

    @property
    def template(self) -> templates.Template | None:
        """The template behind the space; None for a single design."""
        return None if isinstance(self._source, Accelerator) else self._source

    @property
    def closed_forms(self) -> str:
        """Which closed forms cost its designs (`edge`, `datacenter`), whatever its name; empty for those of files and devices."""
        return "" if self.template is None else self.template.closed_forms

    @property
    def default_constraints(self) -> tuple[Constraint, ...]:
        """Constraints that hold unless they are removed: the template's, elsewhere that the model fits the DRAM."""
        given = ("dram_fill<=1.0",) if self.template is None else self.template.constraints
        return tuple(parse_constraint(text) for text in given)

    @property
    def default_carbon_profile(self) -> str:
        """The carbon profile where none is named: the template's, elsewhere ACT's; our own for boards and for memories ACT lacks."""
        return "default" if self.fell_back_for else self._profile_of_kind

    @property
    def fell_back_for(self) -> str:
        """The memory for which :attr:`default_carbon_profile` is our own in place of act2; empty where it is act2, or our own anyway."""
        return self.memory_act_lacks if self._profile_of_kind == "act2" else ""

    @property
    def _profile_of_kind(self) -> str:
        """The carbon profile of such hardware, whatever its memory is."""
        if self.template is not None:
            return self.template.carbon_profile
        board = isinstance(self._source, Accelerator) and self._source.tdp_w > 0
        return "default" if board or self.shipped or self.board else "act2"

    @property
    def memory_act_lacks(self) -> str:
        """The first DRAM of its designs whose carbon ACT does not give; empty where it gives all."""
        template = self.template
        listed = () if template is None else template.knobs.get("dram_type", ())
        kinds = [str(kind) for kind in listed] or [self.accelerator(self.defaults).levels[-1].kind]
        known = memories()
        return next((kind for kind in kinds if kind not in known or known[kind].source_id != "act"), "")

    def kernels_run(self, columns: Mapping[str, npt.NDArray[Any]], count: int) -> npt.NDArray[np.bool_]:
        """Of ``count`` points, on which kernels of software run (GPU, CPU), which fuse attention, not mappings that a search finds."""
        if self.shipped:
            names = columns.get("device", np.array(self.shipped[:1]))
            kinds = {name: devices.load(name).accelerator.execution != Execution.MAPPED for name in self.shipped}
            return np.broadcast_to(np.array([kinds[str(name)] for name in names.tolist()]), (count,))
        return np.full(count, self.accelerator(self.defaults).execution != Execution.MAPPED)

    def of_kind(self, kernels: bool, fixed: Mapping[str, Any]) -> tuple[str, ...]:
        """Its devices on which kernels run, or those on which mappings do, less what ``fixed`` rules out; its name where it is no list."""
        device = fixed.get("device", "")
        names = self.knobs.get("device", ()) if not device else (device,)
        kinds = self.kernels_run({"device": np.array(names)} if names else {}, max(len(names), 1))
        return tuple(str(name) for name, kind in zip(names or (self.name,), kinds.tolist(), strict=True) if kind is kernels)

    @property
    def defaults(self) -> dict[str, Any]:
        """What a knob has that a user leaves out, stated in every answer (:meth:`hw_models.spaces.Template.defaults`)."""
        return {} if isinstance(self._source, Accelerator) else dict(self._source.defaults)

    @property
    def settings(self) -> dict[str, Any]:
        """What else a user may set or vary, with its value."""
        if isinstance(self._source, Accelerator):
            return {"chips": 1, **PARALLEL} if self.shipped else {}
        return dict(self._source.settings)

    def with_knobs(self, values: Mapping[str, Sequence[Any]]) -> HardwareSpace:
        """The same space with other values of some knobs, or with settings made knobs (node_nm, frequency_hz, dram_type)."""
        if not values:
            return self
        if isinstance(self._source, Accelerator):
            if self.shipped and set(values) <= {"chips", *PARALLEL}:
                several = shared_device(self.shipped[0], profile=self._source.profile)
                return HardwareSpace(several.with_knobs(**{n: list(v) for n, v in values.items()}), shipped=self.shipped)
            raise UsageError(f"vary {next(iter(values))} needs a template; {self.name} is a single design")
        return HardwareSpace(self._source.with_knobs(**{name: list(chosen) for name, chosen in values.items()}), shipped=self.shipped)

    def for_models(self, space: str) -> HardwareSpace:
        """The hardware beside a space of models: that of the published tool's beside its own (``catransformers``), and else this."""
        if space != PUBLISHED_SPACE or isinstance(self._source, Accelerator) or not self._source.published_grid:
            return self
        return HardwareSpace(self._source.as_published(), shipped=self.shipped)

    def narrowed(self, fixed: Mapping[str, Any]) -> HardwareSpace:
        """The same space with the knobs of ``fixed`` that it has at one of their values: a large grid is never listed for them.

        A value that a knob does not list is an error that names the nearest.
        """
        chosen = {name: [value] for name, value in fixed.items() if name in self.knobs}
        for name, values in chosen.items():
            fix_knobs({name: np.array(self.knobs[name])}, {name: values[0]})
        return self.with_knobs(chosen)

    def with_settings(self, values: Mapping[str, Any]) -> HardwareSpace:
        """The same space with other values of settings."""
        if not values:
            return self
        if isinstance(self._source, Accelerator):
            if not self.shipped:
                return self
            # A device that shares its work is a point of its own space: the number of it is a knob with one value.
            several = shared_device(self.shipped[0], profile=self._source.profile)
            chips = {"chips": [values["chips"]]} if "chips" in values else {}
            others = {name: value for name, value in values.items() if name != "chips"}
            return HardwareSpace(several.with_knobs(**chips).with_settings(**others), shipped=self.shipped)
        return HardwareSpace(self._source.with_settings(**values), shipped=self.shipped)

    @property
    def constraints(self) -> tuple[SpaceConstraint, ...]:
        """What leaves combinations of its knobs out of :meth:`grid`: memories that would not grow outwards."""
        knobs = [] if self.template is None else [name for name in self.template.nested if name in self.knobs]
        return tuple(parse_space_constraint(text) for text in map(nesting, knobs, knobs[1:]))

    def grid(self) -> dict[str, IntArray]:
        """All points: {knob: array (points,)}; empty for a single design."""
        if isinstance(self._source, Accelerator):
            return {}
        return self._source.grid()

    def batch(self, knobs: Mapping[str, IntArray]) -> AcceleratorBatch:
        """The designs of some points."""
        if isinstance(self._source, Accelerator):
            return self._source.batch()
        return self._source.batch(**knobs)

    def accelerator(self, knobs: Mapping[str, Any]) -> Accelerator:
        """One design."""
        if isinstance(self._source, Accelerator):
            return self._source
        return self._source.accelerator(**knobs)

    def accelerators(self, columns: Mapping[str, npt.NDArray[Any]], count: int) -> list[Accelerator]:
        """The designs of ``count`` points."""
        if isinstance(self._source, Accelerator):
            return [self._source] * count
        found: dict[int, Accelerator] = {}
        for members in self.alike(columns, count):
            found |= zip(
                members.tolist(), self._source.accelerators(**{name: column[members] for name, column in columns.items()}), strict=True
            )
        return [found[i] for i in range(count)]

    def alike(self, columns: Mapping[str, npt.NDArray[Any]], count: int) -> list[IntArray]:
        """Points that one batch can hold: it has one type of DRAM and one kind of levels, so each type and each device is apart."""
        apart = next((name for name in ("dram_type", "device") if name in columns), None)
        if apart is None:
            return [np.arange(count)]
        return [np.flatnonzero(columns[apart] == kind) for kind in dict.fromkeys(columns[apart].tolist())]

    @property
    def source_record(self) -> templates.Template | Accelerator:
        """The template or the single design behind the space."""
        return self._source

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the costs leave out: the template's own list; for other mapped designs what the technology tables lack."""
        template = self.template
        if template is not None and template.not_modelled:
            return template.not_modelled
        mapped = self.accelerator(self.defaults).execution == Execution.MAPPED
        lacking = templates.load("edge22").not_modelled if mapped else ()
        # An idle power that is stated is all of it.
        return tuple(what for what in lacking if what != "leakage of logic" or "leakage_w" not in self.figures)

    @property
    def own(self) -> bool:
        """Whether its designs are those of a user's file, not of a template or a device."""
        return not (self.shipped or self.board) and (self.template is None or self.template.figures is not None)

    @property
    def figures(self) -> tuple[str, ...]:
        """What its file states itself in place of the technology tables, ``leakage_w`` or ``dram.read_pj_per_word``; of several devices
        what all of them state."""
        if len(self.shipped) > 1:
            each = [accelerator_files.figures_of(devices.load(name).accelerator) for name in self.shipped]
            return tuple(name for name in each[0] if all(name in others for others in each))
        if self.shipped:
            return accelerator_files.figures_of(devices.load(self.shipped[0]).accelerator)
        if isinstance(self._source, Accelerator):
            return accelerator_files.figures_of(self._source)
        return self._source.figures or ()

    def ground(self, figure: str) -> str:
        """What a figure of its designs rests on: ``tables``, ``data sheet`` (of a device) or ``file`` (stated in the user's)."""
        if figure not in self.figures:
            return "tables"
        return "file" if self.own else "data sheet"

    @property
    def source(self) -> str:
        """Where the numbers of the hardware come from."""
        return self._source.source


def load(name: str, *, profile: str | None) -> HardwareSpace:
    """The built-in template (a space), device (a single design) or devices (``h100,l40s``: a space) called ``name``."""
    if name in devices.names():
        return HardwareSpace(devices.load(name, profile=profile).accelerator, shipped=(name,))
    if "," in name:
        several = tuple(part.strip() for part in name.split(",") if part.strip())
        for part in several:
            if part not in devices.names():
                raise _not_listed(name, part)
        return HardwareSpace(device_space(several, profile=profile), shipped=several)
    if name not in templates.names() and templates.foreign(name) is None:
        raise unknown_name("hw", name, [*templates.names(), *devices.names()])
    return HardwareSpace(templates.load(name, profile=profile or "default"))


def _not_listed(listed: str, part: str) -> UsageError:
    """The error for a list that holds what is no device: a template or a file of its own knobs does not stand beside boards in one grid."""
    template, file = part in templates.names() or templates.foreign(part) is not None, Path(part).suffix == ".toml"
    if not template and not file:
        return unknown_name("hw", part, [*devices.names(), *templates.names()])
    if all(Path(one.strip()).suffix == ".toml" for one in listed.split(",")):
        return UsageError(
            f"hw {listed!r} lists files, and a list is of devices alone (h100,l40s); search each by itself with the same deployment "
            "(--rate, --grid, --carbon-profile), and `dse compare RUN RUN RUN` says which designs of them are on one front"
        )
    return UsageError(
        f"hw {listed!r} lists {'template' if template else 'file'} {part} beside devices, and a list is of devices alone (h100,l40s); "
        f"search {part} by itself with the same deployment (--rate, --grid, --carbon-profile default), and `dse compare RUN RUN` says "
        "which designs of the two are on one front"
    )


@lru_cache(maxsize=8)
def from_text(text: str, *, name: str, profile: str | None) -> HardwareSpace:
    """The space or design that the text of a user's TOML file describes; errors name the file ``name``.

    The last few are kept: a problem has its hardware as text, and each step of its evaluation asks for it. Nobody changes a space in place.
    """
    try:
        document = _parsed(text)
    except (ValueError, RecursionError) as error:  # TOML errors are ValueErrors, and so is an integer of 5,000 digits
        raise UsageError(f"hw {name} is not valid TOML: {error}") from error
    if "device" in document:
        return _calibrated_device(document, where=name, profile=profile)
    found = accelerator_files.read_document(document, where=name, profile=profile)
    return HardwareSpace(found, board=_board_of(document, found))


def _board_of(document: Mapping[str, Any], found: templates.Template | Accelerator) -> str:
    """The device that a design's file names, where the file still is that device: other chips, ways of sharing work and fits aside."""
    written = document.get("design")
    device = written.get("device") if isinstance(written, Mapping) else None
    if not isinstance(found, Accelerator) or device not in devices.names():
        return ""
    own = devices.load(device, profile=found.profile).accelerator
    free = ("name", "source", "chips", *PARALLEL, *CALIBRATION, *(("mac_bits",) if own.mac_bits is None else ()))
    return device if replace(own, **{name: getattr(found, name) for name in free}) == found else ""


def with_fields(text: str, values: Mapping[str, Sequence[Any]]) -> tuple[str, dict[str, tuple[str, list[Any]]]]:
    """The text of a hardware file with other ``values`` of fields of the accelerators that it describes, each a knob then.

    Returns the text and {name: (knob, its values)} of the names that are fields; the text itself where none is
    (:func:`hw_models.spaces.files.with_values`).
    """
    document, found = accelerator_files.with_values(_parsed(text), values)
    return (toml_text(document) if found else text), found


def fields_of(text: str | None) -> tuple[str, ...]:
    """The names that :func:`with_fields` takes; none where there is no text, or that of a template or a device."""
    return tuple(accelerator_files.settable(_parsed(text))) if text is not None else ()


def second_names(text: str | None) -> dict[str, tuple[str, int]]:
    """Names of :func:`fields_of` that are not the knob's own (``glb_mib`` of ``glb_bytes``): {name: (knob, its units in one)}."""
    places = {} if text is None else accelerator_files.settable(_parsed(text))
    return {name: (knob, CAPACITIES.get(key, 1)) for name, (knob, _, key) in places.items() if name != knob}


@lru_cache(maxsize=8)
def _parsed(text: str) -> Mapping[str, Any]:
    """A file's document, which its readers leave as it is."""
    return tomllib.loads(text)


def _calibrated_device(document: Mapping[str, Any], *, where: str, profile: str | None) -> HardwareSpace:
    """A device of the library with what `dse calibrate` found of the user's own one; tables of its operators are passed over."""
    name = document["device"]
    if not isinstance(name, str) or name not in devices.names():
        raise unknown_name(f"{where}: device", str(name), devices.names())
    table = document.get("calibration")
    if not isinstance(table, Mapping):
        raise UsageError(
            f"{where}: calibration is missing: give a table with {', '.join(CALIBRATION)}, or name the device itself with --hw"
        )
    accelerator = devices.load(name, profile=profile).accelerator
    if accelerator.execution == Execution.MAPPED:
        raise UsageError(f"{where}: device {name} is costed by a search of mappings; only devices that kernels run on take a calibration")
    for key in table:
        if key not in CALIBRATION:
            raise unknown_name(f"{where}: field of [calibration]", key, CALIBRATION)
    values: dict[str, Any] = {key: NUMBERS[key].check(f"calibration.{key}", value, where) for key, value in table.items()}
    found = HardwareSpace(replace(accelerator, **values), shipped=(name,))
    told = document.get("careful", [])
    if not isinstance(told, list) or not all(isinstance(sentence, str) and sentence.isprintable() for sentence in told):
        raise UsageError(f"{where}: careful is no list of sentences, as `dse calibrate` writes it")
    found.doubts = tuple(told)
    return found


CALIBRATION = tuple(field for field, rule in NUMBERS.items() if rule.table is not None and rule.table[0] == "calibration")


def load_path_or_name(hw: str, *, profile: str | None) -> HardwareSpace:
    """A template or device by name, or the user's file where ``hw`` is one."""
    path = Path(hw)
    if path.is_file() or (path.suffix == ".toml" and "," not in hw):
        document = load_toml(path)
        if "device" in document:
            return _calibrated_device(document, where=hw, profile=profile)
        found = accelerator_files.read_document(document, where=hw, profile=profile)
        return HardwareSpace(found, board=_board_of(document, found))
    return load(hw, profile=profile)


def load_with(
    hw: str, fixed: Mapping[str, Any], *, profile: str | None, keep: Sequence[str] = ()
) -> tuple[HardwareSpace, dict[str, Any], str | None]:
    """As `load_path_or_name` with fields of a file's accelerators at the values of ``fixed``.

    Returns the space, ``fixed`` by its knobs' names, and the text of the space where it is of a file.

    Names of ``keep``, and those that are no field, stay in ``fixed`` as they are.
    """
    hardware, path = load_path_or_name(hw, profile=profile), Path(hw)
    wanted = {name: [value] for name, value in fixed.items() if name not in (*keep, *hardware.knobs, *hardware.settings)}
    text = path.read_text(encoding="utf-8") if path.is_file() else None
    if not wanted:
        return hardware, dict(fixed), text
    fields = fields_of(text)
    for name in wanted:
        if name not in fields and (fields or isinstance(hardware.source_record, Accelerator)):
            raise unknown_field("set", name, hardware, fields, keep)
    if text is None:
        return hardware, dict(fixed), None  # of a template, which says itself what it does not know
    text, found = with_fields(text, wanted)
    changed = dict(fixed)
    for name, (knob, values) in found.items():
        del changed[name]
        changed[knob] = values[0]
    return from_text(text, name=hw, profile=profile), changed, text


def unknown_field(option: str, name: str, hardware: HardwareSpace, fields: Sequence[str], further: Iterable[str]) -> UsageError:
    """The error for a name of --set or --vary that is neither of ``fields`` of a hardware file nor of the ``further`` words there are."""
    kinds = [field for field in fields if field.endswith("_kind")]
    # Templates call dram_type what a file has as the kind of its last level.
    close = kinds[-1] if kinds and name == "dram_type" else nearest(name, [*fields, *further])
    same = [field for field in fields if field.endswith(f"_{name}")]  # lanes, of two tables: vector_lanes or gather_lanes
    hint = f"; did you mean {' or '.join(map(repr, same[:4]))}?" if same else f"; did you mean {close!r}?" if close else ""
    if not fields:
        device = hardware.name
        file = f"`dse init accelerator my-{device}.toml --from {device}` writes a file whose fields it takes" if hardware.shipped else (
            f"it takes {', '.join(further)}")  # fmt: skip
        return UsageError(f"{option} {name!r} is nothing that {device} lets change; {file}{hint}")
    level = next(field for field in fields if field.endswith("_kib"))
    return UsageError(f"{option} {name!r} is no field of the hardware file and no other knob; fields are named as `dse init accelerator` "
                      f"writes them, those of a level with its name before them ({level}){hint}")  # fmt: skip
