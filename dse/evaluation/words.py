"""A problem from words: what the command line and Python say, checked and made a `Problem`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from carbon.factors import grid as grids
from carbon.factors.grid import GridFactor
from dse.errors import DseError, UsageError, all_ours, nearest, unknown_name
from dse.evaluation import space_file
from dse.evaluation.evaluation import file_sha256, load_hardware
from dse.problem.deployment import VARIABLE, Deployment
from dse.problem.objectives import Constraint, Objective, Preset, merge_constraints, parse_constraint, parse_objectives
from dse.problem.problem import DEFAULT_RESIDENCY, DEFAULT_SPACE, Problem
from dse.problem.wording import joined
from dse.quality.surrogate import for_workload as surrogate_for
from dse.spaces.hardware import (
    PUBLISHED_SPACE,
    HardwareSpace,
    fields_of,
    from_text,
    load_path_or_name,
    second_names,
    unknown_field,
    with_fields,
)
from dse.spaces.parameters import Space, text_of
from dse.spaces.toml_text import toml_text
from hw_models import spaces as templates
from hw_models.accelerator.design import NUMBERS, Accelerator
from hw_models.costs.residency.solve import alone_by_profile
from workloads import library
from workloads.family import Family

# Sizes that people vary of a model.
_SIZES = ("layers", "hidden", "heads", "ffn", "width", "depth")

# Widths that the model and the hardware agree on.
_SHARED = ("weight_bits", "activation_bits", "kv_bits")

Hardware = str | Path | templates.Template | Accelerator | Mapping[str, Any]


class DeploymentOptions(TypedDict, total=False):
    """Where and how a device serves, each of them a field of :class:`dse.problem.deployment.Deployment`."""

    rate_per_s: float
    lifetime_years: float
    grid: str | GridFactor | float
    fab_grid: str | GridFactor | float
    pue: float
    carbon_profile: str
    electricity_usd_per_kwh: float
    package: str


class ProblemOptions(DeploymentOptions, total=False):
    """What decides a problem beside its workload and objectives; see :func:`make_problem`."""

    hw: Hardware
    example: Any
    hardware_profile: str | None
    space: str | Path
    constraints: Iterable[str | Constraint]
    no_constraint: Iterable[str]
    default_constraints: bool
    fixed: Mapping[str, Any] | None
    vary: Mapping[str, Sequence[Any]] | None
    allow_unsupported: bool
    criterion: str
    residency: str | None
    prefetch: bool | None
    deployment: Deployment | None
    bind: Mapping[str, int] | None
    strict: bool


def deadline(family: Family, fixed: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """The bound on latency that a workload brings (music that is played as it is made), with the knobs of ``fixed`` in place; or none."""
    seconds = family.deadline_s(**{name: value for name, value in fixed.items() if name in family.knobs})
    return () if seconds is None else (Constraint("latency_s", "<=", seconds),)


@all_ours
def make_problem(
    workload: Any,
    objective: str | Iterable[str] = "carbon",
    *,
    hw: Hardware = "edge22",
    example: Any = None,
    hardware_profile: str | None = None,
    space: str | Path = DEFAULT_SPACE,
    constraints: Iterable[str | Constraint] = (),
    no_constraint: Iterable[str] = (),
    default_constraints: bool = True,
    fixed: Mapping[str, Any] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    allow_unsupported: bool = False,
    criterion: str = "edp",
    residency: str | None = None,
    prefetch: bool | None = None,
    deployment: Deployment | None = None,
    bind: Mapping[str, int] | None = None,
    strict: bool = False,
    keep_quality: bool = False,
    **serves: Unpack[DeploymentOptions],
) -> Problem:
    """A problem from the words of a command line, or from objects in their place.

    Args:
        workload: a name, a path, a :class:`workloads.family.Family`, or a ``torch.nn.Module`` (with ``example``, its inputs).
        hw: a name (``edge22``, ``h100``, ``h100,l40s``), a path, a Template, an Accelerator, or a dictionary as a hardware file holds it.
        space: a model space of the workload, or a file with a space of one's own.
        residency: what may stay on chip between operations; None: the best (:func:`default_residency`).
        prefetch: an operation's weights are read during the one before it, where that shortens it (None: no, or what a design's file says).
        deployment: where it serves; or some of its fields as arguments (``grid="france"``, ``rate_per_s=20.0``), where a grid may be a
            GridFactor or a number [gCO2e/kWh]. The others are :func:`dse.search`'s.
        keep_quality: an evaluator tells the quality, which a preset's objectives then keep whatever the workload is.

    Raises DseError, one sentence, for whatever cannot be.
    """
    file = str(space) if space_file.is_file(str(space)) else ""
    space = DEFAULT_SPACE if file else str(space)
    workload = _workload_word(workload, example, strict)
    hw, text = _hardware_word(hw)
    given = [objective] if isinstance(objective, str) else list(objective)
    objectives, preset = parse_objectives(given)
    parsed = [parse_constraint(c) if isinstance(c, str) else c for c in constraints]
    hardware_toml = text
    if text is None and ((Path(hw).suffix == ".toml" and "," not in hw) or Path(hw).is_file()):
        hardware_toml = _read_text("hw", Path(hw))
    hardware = load_path_or_name(hw, profile=hardware_profile) if text is None else from_text(text, name=hw, profile=hardware_profile)
    hardware = hardware.for_models(space)
    file_hash = file_sha256(workload)
    _check_varied(vary or {})
    fixed, vary = fixed or {}, vary or {}
    family = library.load(workload, bind=bind or None, strict=strict)
    _check_names(family, hardware, hardware_toml)
    if residency is None:
        residency = default_residency(hardware, hardware_toml, space)
    if prefetch is None:  # no, but for the file of a design that was searched with it
        prefetch = residency != "none" and _written(hardware_toml).get("prefetch") is True
    own, second = None, dict[str, str]()
    if file:
        own, vary, second = _own_space(file, hardware_toml, hardware, family, fixed, vary)
    hardware_toml, fixed, vary, asked_as = _in_file(hardware_toml, hardware, family, fixed, vary, own and own[1])
    asked_as = {**second, **asked_as}
    if own is None and hardware_toml is None:
        fixed, vary = beside_the_list(hardware, fixed, vary)
    if own is not None and (fields := fields_of(hardware_toml)):
        for name in space_file.varied(own[1]):
            if name not in (*fields, *hardware.knobs, *VARIABLE):
                file = Path(hw).name
                raise UsageError(f"space {own[1].name} lists {name}, which {file} has not; leave it out, or begin with "
                                 f"`dse init space FILE --workload {workload} --from {file}`, which lists what {file} has")  # fmt: skip
    if own is not None and hardware.shipped and hardware_toml is None:
        _check_of_model(own[1], hardware)
    _check_knobs(fixed, vary, hardware, hardware_toml, family, workload)
    defaults = (*hardware.default_constraints, *deadline(family, fixed)) if default_constraints else ()
    known_spaces = family.spaces
    if space not in known_spaces:
        raise unknown_name("space", space, known_spaces)
    if not keep_quality:
        objectives = _without_quality(objectives, preset, family, space)
    problem = Problem(
        workload=str(Path(workload).absolute()) if file_hash else workload,
        workload_sha256=file_hash,
        bind=dict(bind or {}),
        strict=strict,
        hardware=hw if hardware_toml is None else Path(hw).name,
        hardware_toml=hardware_toml,
        hardware_profile=hardware_profile,
        objectives=objectives,
        preset=preset.name if preset else None,
        constraints=merge_constraints(parsed, defaults=defaults, removed=no_constraint),
        deployment=_deployment(deployment, serves if deployment is not None else {**_asked(family), **serves}),
        space=space,
        fixed=dict(fixed),
        vary={name: tuple(chosen) for name, chosen in vary.items()},
        fixed_model=bool(preset and preset.fixed_model),
        # That tool's space varies knobs that no published table of the setting varies.
        allow_unsupported=allow_unsupported or space == PUBLISHED_SPACE,
        criterion=criterion,
        residency=residency,
        prefetch=prefetch,
        asked_as=asked_as,
    )
    problem = _with_profile(problem)
    return problem if own is None else replace(problem, space=own[1].name, space_toml=own[0])


def _with_profile(problem: Problem) -> Problem:
    """A problem with the carbon profile that suits its hardware, as set and varied, where nobody named one."""
    hardware = load_hardware(problem).narrowed(problem.fixed)
    for name, kinds in hardware.knobs.items():
        if name.endswith("_kind") and len(kinds) > 1 and problem.hardware_toml is not None:
            each = joined([f"--set {name}={kind}" for kind in kinds])
            raise UsageError(
                f"{name} has the values {joined(list(map(str, kinds)))}, and the designs of one search have one; make a search of each "
                f"({each}, all with --carbon-profile default), and `dse compare RUN RUN` says which designs of them are on one front"
            )
    if problem.deployment.carbon_profile:
        return problem
    deployment = replace(problem.deployment, carbon_profile=hardware.default_carbon_profile)
    return replace(problem, deployment=deployment, act_lacks=hardware.fell_back_for)


def default_residency(hardware: HardwareSpace, hardware_toml: str | None, space: str) -> str:
    """What may stay on chip where nobody says: the best, but for

    * designs of a profile that answers as another tool does, where nothing stays, and that tool's space of models;
    * designs with more than two memories below the DRAM (:func:`many_memories`);
    * the file of a design that a search has written, which is costed as it was there.
    """
    if space == PUBLISHED_SPACE or alone_by_profile(hardware.source_record.profile) or many_memories(hardware):
        return "none"
    if written := _written(hardware_toml):
        # Files of older versions, and of designs by themselves, say nothing.
        return str(written.get("residency", "none"))
    return DEFAULT_RESIDENCY


def _written(hardware_toml: str | None) -> dict[str, Any]:
    """What the file of a design that a search has written says of how it was costed; empty of other files."""
    written = tomllib.loads(hardware_toml).get("design") if hardware_toml is not None else None
    return written if isinstance(written, dict) else {}


def many_memories(hardware: HardwareSpace) -> bool:
    """Whether designs have more than two memories below the DRAM: there a mapping of one large product to what others leave of the last
    memory takes seconds to minutes to be found, and a model on one design has some thirty of them. Nobody waits for that unasked.
    """
    return len(hardware.accelerator(hardware.defaults).levels) > 3


def _workload_word(workload: Any, example: Any, strict: bool) -> str:
    """The word of a workload; an object is known by its name from here on, for a problem is plain data."""
    if type(workload).__module__ != "builtins" and hasattr(workload, "named_parameters"):  # a torch module, without importing torch
        # Start-up: importers of torch modules are for those who bring one.
        from workloads.importers.module_family import family_from_module

        return library.register(family_from_module(workload, example, strict=strict))
    if (kind := _makes_modules(workload)) and not isinstance(workload, Family):
        raise UsageError(
            f"workload is {kind}, and a search takes one module of fixed sizes, as Classifier(layers=8, width=256); search each variant by "
            "itself and compare the runs (docs/python.md, variants of a module)"
        )
    if example is not None:
        raise UsageError("example is of a torch module's inputs, and this workload is none; leave it out")
    if isinstance(workload, Family):
        return library.register(workload)
    if isinstance(workload, (str, Path)):
        return str(workload)
    raise UsageError(f"workload is {_kind(workload)}; a name, a path, a Family or a torch module is needed")


def _makes_modules(workload: Any) -> str:
    """What a workload is that stands for several torch modules, in words; empty where it is none of the kind."""
    if isinstance(workload, type):
        return f"the class {workload.__name__}"
    if isinstance(workload, (list, tuple, set, dict)):
        return f"a {type(workload).__name__}"
    return f"the function {getattr(workload, '__name__', type(workload).__name__)}" if callable(workload) else ""


def _hardware_word(hw: Any) -> tuple[str, str | None]:
    """The word of hardware, and its text where it was given as an object that a file can hold."""
    if isinstance(hw, templates.Template):
        return templates.register(hw), None
    if isinstance(hw, Accelerator):
        return hw.name, hw.to_toml()
    if isinstance(hw, Mapping):
        return str(hw.get("name") or hw.get("template") or "hw"), toml_text(hw)
    if isinstance(hw, (str, Path)):
        return str(hw), None
    raise UsageError(f"hw is {_kind(hw)}; a name, a path, a Template, an Accelerator or a dictionary is needed")


def _kind(value: Any) -> str:
    return f"{value!r} of type {type(value).__name__}" if isinstance(value, (int, float, bool)) else f"of type {type(value).__name__}"


def _deployment(given: Deployment | None, fields: Mapping[str, Any]) -> Deployment:
    """The deployment as it was given, or one with these fields; without a carbon profile where none is named."""
    if given is not None and fields:
        raise UsageError(f"{next(iter(fields))} and deployment are both given; put it into the deployment")
    for name in fields:
        if name not in DeploymentOptions.__annotations__:
            raise unknown_name("argument", name, ProblemOptions.__annotations__)
    words: dict[str, Any] = {
        name: repr(float(value)) if name in ("grid", "fab_grid") and _is_number(value) else value for name, value in fields.items()
    }
    words.setdefault("carbon_profile", "")
    found = given or Deployment(**words)
    grids.lookup(found.grid)  # an unknown place is told now, before anything is computed or written
    return found


def _asked(family: Family) -> dict[str, float]:
    """What a workload says itself of where it serves: the rate of a mix."""
    return {} if family.rate_per_s is None else {"rate_per_s": family.rate_per_s}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_varied(vary: Mapping[str, Sequence[Any]]) -> None:
    """Values of deployment knobs must be of their kind and make sense one by one."""
    for name, chosen in vary.items():
        kind = VARIABLE.get(name)
        for value in chosen:
            if kind is float and (isinstance(value, str) or not value > 0):
                raise UsageError(f"vary {name} has the value {value!r}; a positive number is needed")
        if len(set(chosen)) != len(chosen):
            raise UsageError(f"vary {name} lists a value twice: {', '.join(map(str, chosen))}")


def _own_space(
    file: str,
    text: str | None,
    hardware: HardwareSpace,
    family: Family,
    fixed: Mapping[str, Any],
    vary: Mapping[str, Sequence[Any]],
) -> tuple[tuple[str, Space], dict[str, Sequence[Any]], dict[str, str]]:
    """A space file by the knobs of the hardware, (its text, the space); what is varied with it; and {knob: the name that it has there}.

    A field of an accelerator file has several names (``array_rows``, ``rows``; ``glb_mib``, ``glb_bytes``); the file of the space may use
    each, and its constraints hold whichever it is. What the accelerator file lists, or --set and --vary give, needs no list in the space.
    """
    taken = {*hardware.knobs, *hardware.settings, *family.knobs, *family.dimensions, *VARIABLE}
    names = {name: knob for name, knob in second_names(text).items() if name not in taken}
    given = {**{name: [value] for name, value in fixed.items() if name not in hardware.knobs}, **vary}
    known = {name: values for name, values in given.items()
             if name not in family.knobs and (name in hardware.settings or name in VARIABLE or name in fields_of(text))}  # fmt: skip
    listed = {names[n][0] if n in names else n: [v * names[n][1] if n in names and isinstance(v, (int, float)) else v for v in values]
              for n, values in known.items()}  # fmt: skip
    of_hardware = {knob: values for knob, values in hardware.knobs.items() if knob not in listed}
    own_lists = text is not None and fields_of(text)
    found = space_file.read(file, names=names, listed={**of_hardware, **listed} if own_lists else listed,
                            further={} if own_lists else of_hardware)  # fmt: skip
    tables = {names.get(name, (name, 1))[0] for name in tomllib.loads(text_of(file)).get("parameters", {})}
    if both := [name for name in vary if names.get(name, (name, 1))[0] in tables]:
        raise UsageError(f"vary {both[0]} is in space {found[1].name} too; leave it to one of them")
    elsewhere = {**of_hardware, **listed}
    ours = {name: values for name, values in space_file.varied(found[1]).items()
            if name in tables or set(values) != set(elsewhere.get(name, ()))}  # fmt: skip
    second = {names[name][0]: name for name in tomllib.loads(text_of(file)).get("parameters", {}) if name in names}
    return found, {**vary, **ours}, second


def _in_file(
    text: str | None,
    hardware: HardwareSpace,
    family: Family,
    fixed: Mapping[str, Any],
    vary: Mapping[str, Sequence[Any]],
    listed: Space | None,
) -> tuple[str | None, dict[str, Any], dict[str, Sequence[Any]], dict[str, str]]:
    """A file that describes its accelerators itself, with the fields that are fixed or varied as knobs of it, and both by those knobs.

    The last is {knob: the name by which it was asked for} where that is another.
    What is a knob or a setting already, or is of the model or the deployment, stays as it is.
    """
    taken = {*hardware.knobs, *hardware.settings, *family.knobs, *family.dimensions, *VARIABLE}
    wanted = {**{name: [value] for name, value in fixed.items()}, **vary}
    wanted = {name: values for name, values in wanted.items() if name not in taken}
    if text is None or not wanted:
        return text, dict(fixed), dict(vary), {}
    for name, value in fixed.items():
        if name in vary and (listed is None or name not in space_file.varied(listed)):
            raise UsageError(f"{name} is given with set and with vary; give one of them")
        if name in vary and value not in vary[name]:
            raise UsageError(
                f"set {name} is {value}, and space {listed.name if listed else ''} lists {joined([str(v) for v in vary[name]])}"
            )
    changed, found = with_fields(text, wanted)
    # A knob that the file lists keeps its list where one value of it is fixed: another is told with the nearest.
    written = {name: values for name, values in wanted.items() if name in vary or (name in found and found[name][0] not in hardware.knobs)}
    place = {name: list(wanted[name]).index(value) for name, value in fixed.items() if name in found}
    fixed = {found[name][0] if name in found else name: found[name][1][place[name]] if name in found else value
             for name, value in fixed.items()}  # fmt: skip
    vary = {found[name][0] if name in found else name: found[name][1] if name in found else values for name, values in vary.items()}
    asked_as = {knob: name for name, (knob, _) in found.items() if knob != name}
    return (changed if written.keys() == found.keys() else with_fields(text, written)[0]), fixed, vary, asked_as


_UNITS = ("_kib", "_mib", "_gib", "_hz", "_v", "_nm")


def _check_of_model(own: Space, hardware: HardwareSpace) -> None:
    """A space file that lists knobs of a template around devices as they are sold: which entries have to go."""
    of_hardware = [name for name in space_file.varied(own) if name not in (*hardware.knobs, *hardware.settings, *VARIABLE)]
    if of_hardware:
        those = "are devices as they are sold" if len(hardware.shipped) > 1 else "is a device as it is sold"
        raise UsageError(
            f"space {own.name}: hw {hardware.name} {those}, around which a space file lists knobs of the model alone; delete "
            f"{joined(of_hardware)} from the file"
        )


def beside_the_list(
    hardware: HardwareSpace, fixed: Mapping[str, Any], vary: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """Both, with a quantity that a built-in template can be built with, though its list has it not, as the list of its knob.

    The lists of ``edge22`` and ``datacenter`` are what a search tries where nobody says otherwise. Of what has a unit (sizes of memories,
    clocks, voltages, nodes) any value can be meant: ``--set glb_mib=0.75`` means what ``--vary glb_mib=0.75`` does, and the template itself
    says what it cannot be built with. Another count (cores, width) is rather a slip, is told with the nearest, and is left to ``--vary``.
    A list in a user's file stays a limit.
    """
    if not hardware.closed_forms or hardware.shipped:
        return dict(fixed), dict(vary)
    further = {
        name: [value] for name, value in fixed.items()
        if name in hardware.knobs and name.endswith(_UNITS) and name not in vary and _is_number(value)
        and value not in hardware.knobs[name] and not isinstance(hardware.knobs[name][0], str)
    }  # fmt: skip
    return {name: value for name, value in fixed.items() if name not in further}, {**vary, **further}


def _check_names(family: Family, hardware: HardwareSpace, text: str | None) -> None:
    """A knob of the model that has the name of another of the hardware or the deployment: a design has one value under each name."""
    others = {
        **dict.fromkeys(fields_of(text), f"a field of hw {hardware.name}"),
        **dict.fromkeys(hardware.settings, f"a setting of hw {hardware.name}"),
        **dict.fromkeys(hardware.knobs, f"a knob of hw {hardware.name}"),
        **dict.fromkeys(VARIABLE, "a knob of the deployment"),
    }
    both = [name for name in {**family.knobs, **family.dimensions} if name in others and name not in _SHARED]
    if both:
        named = joined([f"{name} ({others[name]})" for name in both])
        raise UsageError(
            f"workload {family.name} has knobs with names that are taken: {named}; call them otherwise in the model, its spaces and its "
            f"quality tables, for example {joined([f'model_{name}' for name in both])}"
        )


def _check_knobs(
    fixed: Mapping[str, Any],
    vary: Mapping[str, Sequence[Any]],
    hardware: HardwareSpace,
    text: str | None,
    family: Family,
    workload: str,
) -> None:
    """A name that neither the model, the hardware nor the deployment has is an error that says where its values belong."""
    fields = fields_of(text)
    for option, names in (("set", fixed), ("vary", vary)):
        for name in names:
            if name in VARIABLE or name in hardware.knobs or name in hardware.settings or name in fields:
                continue
            if option == "set" and (name in family.knobs or name in family.dimensions):
                continue
            if option == "vary" and name in family.knobs:
                file = "my-space.toml"
                raise UsageError(
                    f"vary {name} is of the hardware and the deployment, and {name} is a knob of the model {family.name}; list its values "
                    f"in a space file (`dse init space {file} --workload {workload}`) and search it with --space {file}"
                )
            if fields:
                raise unknown_field(option, name, hardware, fields, family.knobs if option == "set" else VARIABLE)
            if (
                option == "vary"
                and family.family != "mix"
                and all(knob.setting for knob in family.knobs.values())
                and (name in _SIZES or nearest(name, [*hardware.knobs, *hardware.settings]) is None)
            ):
                raise UsageError(
                    f"vary {name!r} is no knob of {hardware.name}, and {family.name} is one model without size knobs; to search "
                    "sizes write it as a record (a TOML file with family and dimensions, docs/extending.md) and list their values in a "
                    "space file (`dse init space my-space.toml --workload my-model.toml`): workload my-model.toml, space my-space.toml"
                )
            if len(hardware.shipped) == 1 and text is None and name in NUMBERS:
                device = hardware.shipped[0]
                written = f"--{option} {name}={','.join(map(str, vary[name])) if option == 'vary' else fixed[name]}"
                raise UsageError(
                    f"{option} {name} needs a file, for {device} is a device as it is sold: `dse init accelerator my-{device}.toml --from "
                    f"{device}` writes one, and --hw my-{device}.toml takes {written}"
                )


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
