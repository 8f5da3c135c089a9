"""A family: one named model, the knobs that a search may turn on it, and the builder that makes its operations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, unknown_name
from workloads.knobs import Knob
from workloads.records import Phase, Workload

Grid = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Builder:
    """How a kind of model is built.

    Attributes:
        name: ``encoder``, ``decoder``, ...
        knobs: every dimension and setting that it reads, with its limits.
        defaults: values of dimensions that a model record may leave out.
        check: raises WorkloadError for combinations of values that no model has; completes derived dimensions.
        phases: makes the phases (or, for imported models, the whole workload) from completed values.
        grids: named model spaces: {space: function(values) -> Grid}.
        deadline_s: seconds in which a request must end, from completed values (None: the kind of model has no deadline).
        rate_per_s: requests that arrive in a second, where the workload says so (a mix).
    """

    name: str
    knobs: Mapping[str, Knob]
    defaults: Mapping[str, Any]
    check: Callable[[dict[str, Any], frozenset[str], str], None]
    phases: Callable[[Mapping[str, Any]], tuple[Phase, ...] | Workload]
    grids: Mapping[str, Callable[[Mapping[str, Any]], Grid]] = field(default_factory=dict)
    deadline_s: Callable[[Mapping[str, Any]], float] | None = None
    rate_per_s: float | None = None


@dataclass(frozen=True)
class Family:
    """A named model and everything that may be changed about it.

    Attributes:
        name: the model; builder: how it is built.
        dimensions: its physical dimensions; defaults: how it is run unless told otherwise (sequence, batch, bits, phase).
        published: {parameters, source, status, ...} of the published parameter count.
        sources: where the dimensions come from; note: what to know about them.
        quality_metrics: names of the quality metrics that exist for it.
        model_spaces: which of the builder's model spaces are spaces of this model.
    """

    name: str
    builder: Builder
    dimensions: Mapping[str, Any]
    defaults: Mapping[str, Any]
    published: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    quality_metrics: tuple[str, ...] = ()
    note: str = ""
    model_spaces: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The kind of model: ``encoder``, ``decoder``, ..."""
        return self.builder.name

    @property
    def knobs(self) -> Mapping[str, Knob]:
        """What :meth:`build` accepts: {name: Knob}."""
        return self.builder.knobs

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the model spaces of :meth:`model_grid`."""
        return ("default", *(space for space in self.model_spaces if space != "default"))

    def values(self, **knobs: Any) -> dict[str, Any]:
        """Return every dimension and setting, with ``knobs`` in place, derived ones completed and all checked.

        Raises WorkloadError for a knob that does not exist, a value outside its range or a combination that no model has.
        """
        for name in knobs:
            if name not in self.knobs:
                raise unknown_name(f"knob of {self.name}", name, self.knobs)
        merged = {**self.builder.defaults, **self.dimensions, **self.defaults}
        given = {name: value for name, value in knobs.items() if value is not None}
        merged |= {name: self.knobs[name].check(value, self.name) for name, value in given.items()}
        lengths = {value.shape[0] for value in merged.values() if isinstance(value, np.ndarray)}
        if len(lengths) > 1:
            raise WorkloadError(f"knobs of {self.name} given as arrays must have one length, got lengths {sorted(lengths)}")
        self.builder.check(merged, frozenset(given), self.name)
        return merged

    def build(self, **knobs: Any) -> Workload:
        """Return the workload with ``knobs`` in place of the model's own values; numbers, or arrays of shape (models,).

        Raises WorkloadError as :meth:`values` does.
        """
        values = self.values(**knobs)
        made = self.builder.phases(values)
        if isinstance(made, Workload):
            return replace(made, name=self.name, dimensions=MappingProxyType({**made.dimensions, **values}))
        return Workload(
            name=self.name,
            family=self.family,
            phases=made,
            dimensions=MappingProxyType(values),
            quality_metrics=self.quality_metrics,
        )

    def deadline_s(self, **knobs: Any) -> float | None:
        """Seconds in which a request must end with ``knobs`` in place (a search keeps to it unless told otherwise); None: no deadline."""
        return None if self.builder.deadline_s is None else self.builder.deadline_s(self.values(**knobs))

    @property
    def rate_per_s(self) -> float | None:
        """Requests that arrive in a second (the rate of a deployment that names none); None: the workload does not say."""
        return self.builder.rate_per_s

    def model_grid(self, space: str = "default", **choices: Sequence[int]) -> Grid:
        """Return the models of a named space, or of the product of ``choices``, as int64 columns of physical values.

        ``default`` is the model itself where it has no space of its own. ``model_grid("catransformers")`` gives that space;
        ``model_grid(hidden=[...], heads=[...])`` gives every combination of the listed values that is a model that exists (the
        others are left out). The order is canonical: the first knob varies slowest. Raises WorkloadError for an unknown space or
        knob, or if no combination is left.
        """
        if choices:
            return self._product(choices)
        if space not in self.spaces:
            raise unknown_name(f"model space of {self.name}", space, self.spaces)
        return self.builder.grids[space](self.values()) if space in self.model_spaces else self._own()

    def _own(self) -> Grid:
        knobs = [name for name in ("layers", "hidden", "ffn", "heads") if isinstance(self.dimensions.get(name), int)]
        return {name: np.array([self.dimensions[name]], dtype=np.int64) for name in knobs}

    def existing(
        self, names: Sequence[str], rows: Iterable[Sequence[Any]], given: Mapping[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.bool_], list[str]]:
        """Which models exist, of ``rows`` of values of the knobs ``names`` beside those that are ``given``: (rows,), and why the others
        do not, in order.

        Raises WorkloadError where none exists, or a knob that is given cannot have its value at all.
        """
        for name, value in (given or {}).items():
            self.knobs[name].check(value, self.name)
        keep, reasons = [], []
        for values in rows:
            try:
                self.values(**{**(given or {}), **dict(zip(names, values, strict=True))})
                keep.append(True)
            except WorkloadError as error:
                keep.append(False)
                reasons.append(str(error))
        if not any(keep):
            problem = reasons[-1] if reasons else f"no value is listed for a knob of {self.name}, at least one is needed"
            raise WorkloadError(f"no combination of the listed knobs of {self.name} is a model that exists: {problem}")
        return np.array(keep, dtype=bool), reasons

    def _product(self, choices: Mapping[str, Sequence[int]]) -> Grid:
        for name in choices:
            if name not in self.knobs:
                raise unknown_name(f"knob of {self.name}", name, self.knobs)
        rows = list(itertools.product(*map(list, choices.values())))
        keep, _ = self.existing(list(choices), rows)
        columns = np.array(list(itertools.compress(rows, keep)), dtype=np.int64).reshape(-1, len(choices))
        return {name: np.ascontiguousarray(columns[:, i]) for i, name in enumerate(choices)}
