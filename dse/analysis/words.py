"""Designs of a run in words: by the names in which their knobs were asked for, with what its reader must know to tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dse.analysis.ties import differ_in
from dse.problem.problem import Problem
from dse.problem.wording import design_phrase, phrase_beside


@dataclass(frozen=True)
class Words:
    """``varying``: knobs that a search varied, as far as its designs or its ranges show; names as they were asked for."""

    problem: Problem
    varying: tuple[str, ...]
    of_workload: frozenset[str] = frozenset()  # knobs and settings of the model, which name no hardware
    sizes: tuple[str, ...] = ()  # knobs of the model

    @classmethod
    def of(cls, run: Any, designs: Iterable[Mapping[str, Any]] | None = None) -> Words:
        """Those of a run, judged by its front or by other ``designs`` of it."""
        shown = list(run.designs if designs is None else designs)
        names = list(dict.fromkeys(name for design in shown for name in design["knobs"]))
        ranges = run.context.get("knob_ranges") or {}
        varying = [name for name in names if name in ranges or len({str(design["knobs"].get(name)) for design in shown}) > 1]
        workload = frozenset({*(run.context.get("model_knobs") or ()), *(run.context.get("run_with") or ())})
        return cls(run.problem, tuple(run.problem.asked_as.get(name, name) for name in varying), workload,
                   tuple(run.context.get("model_knobs") or ()))  # fmt: skip

    @property
    def _named(self) -> tuple[str, ...]:
        """What --vary listed values of: a phrase tells them in any case."""
        if self.problem.kind:
            return ()
        return tuple(self.problem.asked_as.get(name, name) for name, values in self.problem.vary.items() if len(values) > 1)

    def phrase(self, knobs: Mapping[str, Any]) -> str:
        """A design in a few words; where nothing varies, its hardware and what was set of it."""
        told = design_phrase(self.problem.shown(knobs), self.varying, self._named, self.sizes)
        if told:
            return told
        fixed = [f"{name} {value}" for name, value in self.problem.shown(self.problem.fixed).items() if name not in self.of_workload]
        return f"{self.problem.hardware} with {', '.join(fixed[:4])}" if fixed else self.problem.hardware

    def beside(self, knobs: Mapping[str, Any], own: Mapping[str, Any]) -> str:
        """A design in a few words beside another, which it is told from."""
        shown = self.problem.shown
        return phrase_beside(shown(knobs), shown(own), self.varying, self._named, self.sizes)

    def apart(self, own: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
        """The knobs in which others differ from it."""
        return tuple(self.problem.asked_as.get(name, name) for name in differ_in(own, others))
