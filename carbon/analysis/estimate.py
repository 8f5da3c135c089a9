"""An estimate from a specification: embodied by part, operation, metrics, range, and the source of every factor.

A specification is a dictionary (a TOML file, see docs/models/carbon.md)::

    profile = "default"
    [device]            # or several [[component]] with name and count
    area_mm2 = 814
    node_nm = 5
    harvest = { units = 144, needed = 132, fraction = 0.6 }
    memory_type = "hbm3"
    memory_gb = 80
    system = "card"
    [use]
    grid = "US-CA"
    power_w = 500       # or rate_per_s, latency_s, energy_j_per_request, idle_w
    duty_cycle = 0.6
    lifetime_years = 4
    pue = 1.1

Every number may be a range [low, mode, high]; every factor with a known range varies too.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carbon.analysis import metrics, specification, uncertainty
from carbon.analysis.assumed import assumptions
from carbon.analysis.uncertainty import Range, Spread
from carbon.arrays import Numeric, as_number
from carbon.device import device as devices
from carbon.device import recipes
from carbon.errors import CarbonError, unknown
from carbon.factors import grid, grid_files, traces
from carbon.factors import tables as factors
from carbon.factors.grid import GridFactor
from carbon.factors.tables import Factor
from carbon.factors.values import Values
from carbon.operational import service as operational

_TOP = ("name", "profile", "device", "component", "use", "functional_unit", "metrics", "uncertainty", "ranges")
#: Share of the looked-up intensity that a place's figure may be off where only one source has it (assumed).
_GRID_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a product: what it is and how many of it."""

    name: str
    count: float
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The answer.

    Attributes:
        name, profile, basis: what was estimated and on what terms.
        embodied_parts: kgCO2e by ``part`` or ``component.part``. embodied_kgco2e: their sum.
        operation: None without a [use] section. operational_kgco2e, total_kgco2e: over the lifetime.
        embodied, operational, total: distributions. tornado: widest bars of the total.
        part_spreads: the distribution of each of ``embodied_parts``; component_spreads: of each component, all of its kind.
        metrics: decision metrics asked for. per_unit: grams per functional unit, or None.
        sources: key -> factor. warnings: suspect figures, infeasible designs. assumed: what the specification leaves open.
        counts: how many there are of each component. machines_kwh: electricity of the machines over the lifetime, without PUE;
            pue and lifetime_years: as [use] has them (of a range the middle). ranges: what the draws are from, by key.
    """

    name: str
    profile: str
    basis: str
    embodied_parts: Mapping[str, float]
    embodied_kgco2e: float
    operation: operational.Operation | None
    operational_kgco2e: float
    total_kgco2e: float
    embodied: Spread
    operational: Spread
    total: Spread
    part_spreads: Mapping[str, Spread]
    component_spreads: Mapping[str, Spread]
    tornado: list[uncertainty.Bar]
    metrics: list[metrics.Metric]
    sources: Mapping[str, Factor | GridFactor]
    warnings: list[str]
    assumed: list[str]
    counts: Mapping[str, float]
    machines_kwh: float = 0.0
    pue: float = 1.0
    lifetime_years: float | None = None
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)


def load(path: str | Path) -> dict[str, Any]:
    """Read a specification from a TOML file; CarbonError if it cannot be read or parsed."""
    try:
        with Path(path).open("rb") as handle:
            return tomllib.load(handle)
    except OSError as problem:
        raise CarbonError(f"specification {str(path)!r} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # also an integer of thousands of digits, and tables nested without end
        raise CarbonError(f"specification {str(path)!r} is not TOML: {problem}") from None


def estimate(spec: Mapping[str, Any]) -> Estimate:
    """Return the estimate of a specification.

    Raises:
        CarbonError: unknown keys (with the nearest), missing or impossible values, kinds of grids mixed.
    """
    return _Run(spec).answer()


def _check_kind(spec: Mapping[str, Any]) -> None:
    """A file of an accelerator or of a search space is told as what it is: its keys have no near ones here."""
    accelerator = [
        key for key in ("cores", "array", "vector", "levels", "template", "knobs", "mac_bits") if key in spec and key not in _TOP
    ]
    if accelerator:
        raise CarbonError(
            f"key {accelerator[0]!r} is of an accelerator's file, and a carbon specification is needed; `dse evaluate --workload NAME --hw "
            "FILE` tells that accelerator's embodied and total carbon with their ranges, `dse init carbon` writes a specification"
        )


class _Run:
    """One specification, checked, as a function from overrides to carbon."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        _check_kind(spec)
        _known(spec, _TOP, "key")
        specification.check(spec)
        self.name = str(spec.get("name", "unnamed"))
        self.recipe = recipes.get(str(spec.get("profile", "default")))
        self.input_ranges: dict[str, Range] = {}
        self.components = self._components(spec)
        self.use = self._section(spec, "use", specification.KEYS["use"])
        self.unit = self._section(spec, "functional_unit", specification.KEYS["functional_unit"])
        self.wanted = self._section(spec, "metrics", specification.KEYS["metrics"])
        self.settings = self._section(spec, "uncertainty", specification.KEYS["uncertainty"])
        self.own_ranges = {key: _range(f"ranges.{key}", value) for key, value in self._section(spec, "ranges", None).items()}
        self.place = self._place() if self.use else None

    @staticmethod
    def _section(spec: Mapping[str, Any], name: str, allowed: tuple[str, ...] | None) -> dict[str, Any]:
        section = spec.get(name, {})
        if not isinstance(section, Mapping):
            raise CarbonError(f"{name} is {section!r}, but a table [{name}] is needed")
        if allowed is not None:
            _known(section, allowed, f"key of [{name}]")
        return dict(section)

    def _components(self, spec: Mapping[str, Any]) -> list[Component]:
        listed = spec.get("component", [])
        if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
            raise CarbonError("component is not a list of tables, but [[component]] is needed")
        items: list[Mapping[str, Any]] = list(listed)
        if "device" in spec:
            items.insert(0, self._section(spec, "device", None))
        if not items:
            raise CarbonError("specification has neither [device] nor [[component]], but one is needed")
        components: list[Component] = []
        for position, item in enumerate(items):
            name = str(item.get("name", "device" if len(items) == 1 else f"component{position + 1}"))
            if name in [component.name for component in components]:
                raise CarbonError(f"component name {name!r} is given twice, but names tell the parts apart")
            rest = {key: value for key, value in item.items() if key not in ("name", "count")}
            count = float(as_number(f"count of {name}", item.get("count", 1), low=0.0))
            components.append(Component(name, count, self._inputs(name, rest)))
        return components

    def _inputs(self, component: str, table: Mapping[str, Any]) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(devices.Device)}
        if "device" in table:
            raise CarbonError(
                f"device of {component} is {table['device']!r}, but names of devices are read by `dse carbon estimate` alone; "
                "give area_mm2, node_nm, memory_type and memory_gb here"
            )
        _known(table, names, f"key of {component}")
        found: dict[str, Any] = {}
        for name, value in table.items():
            if name == "harvest":
                found[name] = _harvest(value)
            elif name == "chiplets":
                found[name] = tuple(devices.Device(**self._inputs(f"{component}.chiplet", chiplet)) for chiplet in value)
            elif isinstance(value, list):
                key = f"input.{component}.{name}"
                self.input_ranges[key] = _range(key, value)
                found[name] = key
            else:
                found[name] = value
        return found

    def _number(self, section: dict[str, Any], name: str, default: float | None = None) -> Any:
        """A number of [use]; a range is remembered and its key returned."""
        value = section.get(name, default)
        if value is None:
            way = "" if name == "lifetime_years" else ": give power_w, or energy_j_per_request with latency_s and rate_per_s"
            raise CarbonError(f"{name} is missing in [use], but the operation cannot be computed without it{way}")
        if isinstance(value, list):
            key = f"use.{name}"
            self.input_ranges[key] = _range(key, value)
            return key
        return value

    def _place(self) -> GridFactor:
        given = [name for name in ("grid", "gco2e_per_kwh", "trace") if name in self.use]
        if len(given) != 1:
            raise CarbonError(f"[use] gives {', '.join(given) or 'no grid'}, but exactly one of grid, gco2e_per_kwh, trace is needed")
        if given == ["gco2e_per_kwh"]:
            signal, _, boundary = str(self.use.get("kind", "")).partition(",")
            if not boundary or "source" not in self.use:
                raise CarbonError(
                    "gco2e_per_kwh of [use] needs kind (for example 'average, lifecycle') and source, because both decide what "
                    "it may be compared with"
                )
            value = self.use["gco2e_per_kwh"]
            if isinstance(value, list):
                self.input_ranges["use.grid"] = _range("use.gco2e_per_kwh", value)
                value = self.input_ranges["use.grid"].mode
            return grid.custom(value, signal=signal.strip(), boundary=boundary.strip(), source=str(self.use["source"]))
        if given == ["trace"]:
            name = str(self.use["trace"])
            if name.startswith("eia2022:"):
                return traces.eia2022(name.partition(":")[2]).factor()
            return grid_files.read(name).trace.factor()
        places = self.use["grid"]
        try:
            if isinstance(places, Mapping):
                return grid.mix([(grid.lookup(code), float(share)) for code, share in places.items()])
            return grid.lookup(grid_files.as_grid(str(places)))
        except CarbonError as problem:
            raise CarbonError(f"grid of use: {problem}") from None

    def embodied(self, values: Values, overrides: Mapping[str, Numeric]) -> tuple[dict[str, Numeric], list[str]]:
        """Parts by name and the reasons why a component is infeasible."""
        parts: dict[str, Numeric] = {}
        wrong = []
        for component in self.components:
            inputs = {name: _resolve(value, overrides, self.input_ranges) for name, value in component.inputs.items()}
            built = devices.evaluate(self.recipe, devices.Device(**inputs), values)
            prefix = "" if len(self.components) == 1 else f"{component.name}."
            for name, part in built.parts.items():
                parts[prefix + name] = part * component.count
            wrong += [f"{component.name}: {reason}" for reason, where in built.infeasible.items() if np.any(where)]
        return parts, wrong

    def operation(self, values: Values, overrides: Mapping[str, Numeric]) -> operational.Operation | None:
        """Operation over the lifetime, or None without [use]."""
        if self.place is None:
            return None
        use = self.use

        def number(name: str, default: float | None = None) -> Numeric:
            return _resolve(self._number(use, name, default), overrides, self.input_ranges)

        intensity = values.grid("use.grid", self.place)
        common = {
            "lifetime_years": number("lifetime_years"),
            "pue": number("pue", 1.0),
            "days_per_year": self.recipe.days_per_year,
        }
        if "power_w" in use:
            for name in ("rate_per_s", "latency_s", "energy_j_per_request", "concurrency"):
                if name in use:
                    raise CarbonError(f"[use] gives power_w and {name}, but operation is by power or by request, not both")
            duty = number("duty_cycle", 1.0)
            as_number("duty_cycle", duty, low=0.0, high=1.0)
            # a device at power_w serves one "request" a second that takes duty seconds
            return operational.equal_service(
                number("power_w") * duty, duty, idle_w=number("idle_w", 0.0), rate_per_s=1.0, gco2e_per_kwh=intensity, **common
            )
        return operational.equal_service(
            number("energy_j_per_request"),
            number("latency_s"),
            idle_w=number("idle_w", 0.0),
            rate_per_s=number("rate_per_s"),
            concurrency=number("concurrency", 1.0),
            gco2e_per_kwh=intensity,
            **common,
        )

    def answer(self) -> Estimate:
        values = Values()
        parts, wrong = self.embodied(values, {})
        operation = self.operation(values, {})
        embodied = float(sum(parts.values()))
        used = 0.0 if operation is None else float(operation.operational_kgco2e)
        if not math.isfinite(embodied + used):
            raise CarbonError(f"design is infeasible ({'; '.join(wrong)}), so it has no finite footprint")
        warnings = [f"infeasible: {reason}" for reason in wrong]
        if operation is not None and not operation.feasible:
            warnings.append(f"infeasible: utilisation is {float(operation.utilisation):.3g}, above 1")
        warnings += [
            f"{one.name}: cpu_packages is {packages:g}, but dies is {dies:g}: of one die a processor dies = {packages:g} is needed"
            for one in self.components
            if one.inputs.get("area_mm2") is not None
            and isinstance(packages := one.inputs.get("cpu_packages", 0), (int, float))
            and isinstance(dies := one.inputs.get("dies", 1), (int, float))
            and dies < packages
            and not one.inputs.get("chiplets")
        ]
        sources = dict(values.keyed())
        warnings += [
            f"{factor.code}: {factor.note}" for factor in sources.values() if isinstance(factor, GridFactor) and factor.status == "suspect"
        ]
        ranges = self._ranges(sources, values.inputs())
        count, seed = int(self.settings.get("draws", 20000)), int(self.settings.get("seed", 0))
        drawn_parts, drawn_use = self._evaluate(uncertainty.draws(ranges, count, seed))
        drawn_made: Numeric = sum(drawn_parts.values())
        spreads = [_spread(each, count) for each in (drawn_made, drawn_use, drawn_made + drawn_use)]
        pue, years = 1.0, None
        if operation is not None:
            pue = float(_resolve(self._number(self.use, "pue", 1.0), {}, self.input_ranges))
            years = float(_resolve(self._number(self.use, "lifetime_years"), {}, self.input_ranges))
        bars = uncertainty.tornado(self.total, ranges)
        return Estimate(
            name=self.name,
            profile=self.recipe.name,
            basis=self._basis(),
            embodied_parts={name: float(part) for name, part in parts.items()},
            embodied_kgco2e=embodied,
            operation=operation,
            operational_kgco2e=used,
            total_kgco2e=embodied + used,
            embodied=spreads[0],
            operational=spreads[1],
            total=spreads[2],
            part_spreads={name: _spread(part, count) for name, part in drawn_parts.items()},
            component_spreads={one.name: _spread(sum(self._parts_of(one.name, drawn_parts)), count) for one in self.components},
            tornado=bars,
            metrics=self._metrics(embodied, used, operation),
            sources=sources,
            warnings=[*warnings, *self._mistaken_hours()],
            assumed=[line for one in self.components for line in assumptions(one.name, one.inputs)] if self.recipe.blocks else [],
            counts={component.name: component.count for component in self.components},
            machines_kwh=0.0 if operation is None else float(operation.energy_kwh) / pue,
            pue=pue,
            lifetime_years=years,
            ranges=ranges,
        )

    def _evaluate(self, overrides: Mapping[str, Numeric]) -> tuple[dict[str, Numeric], Numeric]:
        """Embodied carbon by part, and operational carbon."""
        values = Values(overrides)
        parts, _ = self.embodied(values, overrides)
        operation = self.operation(values, overrides)
        values.unused(frozenset(self.input_ranges))
        return parts, 0.0 if operation is None else operation.operational_kgco2e

    def total(self, overrides: Mapping[str, Numeric]) -> Numeric:
        """Total carbon as a function of overrides."""
        parts, used = self._evaluate(overrides)
        made: Numeric = sum(parts.values())
        return made + used

    def _parts_of(self, component: str, parts: Mapping[str, Numeric]) -> list[Numeric]:
        """The parts of one component, all of its kind together."""
        alone = len(self.components) == 1
        return [part for name, part in parts.items() if alone or name.startswith(f"{component}.")]

    def _units(self, operation: operational.Operation | None) -> float:
        """How many functional units the lifetime has: stated, of its requests, or of time where the unit is an hour, a day or a year."""
        name = str(self.unit.get("name", "unit"))
        if "total" in self.unit:
            return float(self.unit["total"])
        if operation is not None and "per_request" in self.unit and "rate_per_s" in self.use:
            return float(operation.requests) * float(self.unit["per_request"])
        if (found := self._of_time(name)) is not None and "per_request" not in self.unit:
            return found
        raise CarbonError(
            "functional_unit needs total, or per_request with rate_per_s in [use], or a unit of time as name (hour, day, year) with "
            "lifetime_years in [use]"
        )

    def _of_time(self, name: str) -> float | None:
        """Hours, days or years of the lifetime; None for any other unit and without [use]."""
        days = {"hour": 1.0 / 24.0, "day": 1.0, "year": self.recipe.days_per_year}.get(name.lower())
        if days is None or not self.use:
            return None
        years = float(_resolve(self._number(self.use, "lifetime_years"), {}, self.input_ranges))
        return years * self.recipe.days_per_year / days

    def _mistaken_hours(self) -> list[str]:
        """A total of hours, days or years that is not the lifetime's: it was not changed with it."""
        found = self._of_time(name := str(self.unit.get("name", "unit")))
        if found is None or "total" not in self.unit or math.isclose(float(self.unit["total"]), found, rel_tol=0.01):
            return []
        return [
            f"total of functional_unit is {float(self.unit['total']):g} {name}s and lifetime_years = {self.use['lifetime_years']} has "
            f"{found:g}; without total it follows"
        ]

    def _ranges(self, sources: Mapping[str, Factor | GridFactor], inputs: Mapping[str, Numeric]) -> dict[str, Range]:
        """Ranges of the factors and of ranged inputs; [ranges] overrides any of them."""
        found = default_ranges(sources, inputs) if self.settings.get("factors", True) else {}
        for key, one in self.own_ranges.items():
            if key not in sources and key not in inputs:
                raise unknown("ranges key", key, (*sources, *inputs))
            found[key] = one
        found.update(self.input_ranges)
        return found

    def _basis(self) -> str:
        text = f"profile {self.recipe.name}; {len(self.components)} component(s), cradle to gate"
        if self.place is not None:
            text += f"; operation over {self.use.get('lifetime_years')} years on {self.place.code} ({self.place.kind})"
        return text

    def _metrics(self, embodied: float, used: float, operation: operational.Operation | None) -> list[metrics.Metric]:
        found = [metrics.total(embodied, used, basis=self._basis())]
        if self.unit:
            name, units = str(self.unit.get("name", "unit")), self._units(operation)
            as_number("functional units", units, low=0.0, open_low=True)
            grams = (embodied + used) * 1000.0 / units
            found.append(metrics.Metric("per functional unit", grams, f"gCO2e/{name}", f"total over {units:.6g} {name}"))
        if "delay_s" in self.wanted or "energy_j" in self.wanted:
            for needed in ("delay_s", "energy_j"):
                if needed not in self.wanted:
                    raise CarbonError(f"{needed} is missing in [metrics], but products need delay_s and energy_j")
            found += metrics.products(embodied, used, float(self.wanted["delay_s"]), float(self.wanted["energy_j"]))
        if "flops" in self.wanted:
            found.append(metrics.cci(embodied, used, float(self.wanted["flops"]), basis=str(self.wanted.get("basis", ""))))
        return found


def default_ranges(sources: Mapping[str, Factor | GridFactor], inputs: Mapping[str, Numeric]) -> dict[str, Range]:
    """Return the ranges of everything that was used: factors by their tables, grids, and a constant yield.

    Args:
        sources: key -> factor, from :meth:`carbon.factors.values.Values.keyed`. inputs: from :meth:`carbon.factors.values.Values.inputs`.
    """
    found = uncertainty.ranges_of(sources.values())
    if "fab.yield" in inputs and np.ndim(inputs["fab.yield"]) == 0:
        good = float(inputs["fab.yield"])
        found["fab.yield"] = Range(0.75 * good, good, min(1.0, 1.12 * good))  # 0.66-0.875-0.98, assumed
    for key, factor in sources.items():
        if isinstance(factor, GridFactor):
            found[key] = grid_range(factor, fab=key.startswith("fab."))
    return found


def grid_range(place: GridFactor, *, fab: bool) -> Range:
    """Return the range of a grid factor.

    For a fab 0.515 to 1.407 of it (300-583-820 g/kWh around Taiwan: contracts and coal, assumed). For use the figures of
    other sources of the same kind for the same place, at least 15 % to either side (assumed where one source is alone).
    """
    value = place.gco2e_per_kwh
    if fab:
        return Range(value * factors.item("fab_ci_range_low").value, value, value * factors.item("fab_ci_range_high").value)
    others = [each.gco2e_per_kwh for each in grid.same_place(place)]
    return Range(min([value * (1.0 - _GRID_SHARE), *others]), value, max([value * (1.0 + _GRID_SHARE), *others]))


def _known(table: Mapping[str, Any], allowed: Any, what: str) -> None:
    for key in table:
        if key not in allowed:
            raise unknown(what, key, allowed)


def _range(name: str, value: Any) -> Range:
    if not isinstance(value, list) or len(value) != 3:
        raise CarbonError(f"{name} is {value!r}, but a range is three numbers [low, mode, high]")
    low, mode, high = (float(as_number(name, each)) for each in value)
    return Range(low, mode, high)


def _harvest(value: Any) -> devices.Harvest:
    if not isinstance(value, Mapping) or set(value) != {"units", "needed", "fraction"}:
        raise CarbonError(f"harvest is {value!r}, but a table with units, needed and fraction is needed")
    return devices.Harvest(value["units"], value["needed"], value["fraction"])


def _resolve(value: Any, overrides: Mapping[str, Numeric], ranges: Mapping[str, Range]) -> Any:
    """A ranged input's draws, or its mode; anything else as it is. Chiplets are devices of their own."""
    if isinstance(value, str) and value in ranges:
        return overrides.get(value, ranges[value].mode)
    if isinstance(value, tuple):
        return tuple(_resolve(each, overrides, ranges) for each in value)
    if isinstance(value, devices.Device):
        names = [field.name for field in dataclasses.fields(value)]
        return devices.Device(**{name: _resolve(getattr(value, name), overrides, ranges) for name in names})
    return value


def _spread(drawn: Any, count: int) -> Spread:
    return uncertainty.spread(np.broadcast_to(np.asarray(drawn, dtype=np.float64), (count,)))


def model(spec: Mapping[str, Any]) -> Callable[[Mapping[str, Numeric]], Numeric]:
    """Return the total carbon of a specification as a function of overrides, for your own sensitivity work."""
    run = _Run(spec)
    return run.total
