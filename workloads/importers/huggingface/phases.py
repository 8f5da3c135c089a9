"""The phases of a configured model: its forward pass, or prompt and steps of a language model, with the tower of one that sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from workloads.errors import WorkloadError, shorten
from workloads.importers.collector import Collector
from workloads.importers.decoding import Decoding
from workloads.importers.huggingface.building import build_model, example_inputs
from workloads.importers.huggingface.layers import leave_out_equal_layers
from workloads.importers.huggingface.vision import Pictures, Tower, tower_of
from workloads.importers.module import ImportedGraph, export_module, imported_graph
from workloads.ops import OperationTable, concatenate
from workloads.records import LeftOut, Phase, Workload

Prepare = Callable[[Any, Any], dict[str, Any]]
"""``prepare(model, settings)`` readies a model and gives its example inputs."""


@dataclass(frozen=True)
class _Source:
    """A configuration and how its graphs are to be read."""

    config: Mapping[str, Any]
    file: str
    options: Mapping[str, Any]
    whole: bool

    def graph(
        self, prepare: Prepare, phase: str, *, decoding: Decoding | None = None, unused: bool = True, pictures: int = 0
    ) -> tuple[ImportedGraph, Any]:
        """Export one way through the model: (its workload, the program); equal layers once, if that is exact.

        ``pictures``: how many a tower sees, which stands for the number of those that are not blank (which depends on values).
        Models that fail with our attention functions are exported with what they run by themselves.
        """
        problem: WorkloadError | None = None
        for recorded, short in ((True, True), (True, False), (False, True), (False, False)):
            if short and self.whole:
                continue
            model, settings = build_model(self.config, self.file, recorded=recorded)
            total = sum(value.numel() for value in model.parameters())
            inputs = _checked_inputs(prepare, model, settings, self.file)
            times: dict[str, int] = {}
            copies: dict[str, int] = {}
            if short:
                found = leave_out_equal_layers(model, inputs)
                if found is None:
                    continue
                times, copies = found
            try:
                program = export_module(model, (), inputs, self.file)
                made = imported_graph(
                    program, model, name=self.file, phase=phase, layer_times=times, copies=copies, decoding=decoding, unused=unused,
                    unknown_size=pictures, **self.options,
                )  # fmt: skip
            except WorkloadError as error:
                problem = problem or error
                if self.options.get("strict") and "not understood" in str(error):
                    raise
                continue
            if unused and made.workload.parameter_count() != total:
                continue
            return replace(made, workload=_with_inputs(made.workload, inputs)), program
        raise problem or WorkloadError(f"{self.file} describes no model whose graph can be read")


def _checked_inputs(prepare: Prepare, model: Any, settings: Any, file: str) -> dict[str, Any]:
    try:
        return prepare(model, settings)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # sizes that no tensor has
        if isinstance(error, WorkloadError):
            raise
        raise WorkloadError(f"{file} describes inputs that cannot be made: {shorten(str(error), 200)}") from error


def _with_inputs(workload: Workload, inputs: Mapping[str, Any]) -> Workload:
    """Say what the graph was given."""
    shapes = {f"input.{name}": list(value.shape) for name, value in inputs.items() if hasattr(value, "shape")}
    return replace(workload, dimensions=MappingProxyType({**workload.dimensions, **shapes}))


def import_config(
    config: Mapping[str, Any],
    file: str,
    *,
    sequence: int = 128,
    target: int = 16,
    batch: int = 1,
    weight_bits: int = 8,
    activation_bits: int = 8,
    fused_attention: bool = False,
    phase: str = "forward",
    context: int = 0,
    new_tokens: int = 128,
    kv_bits: int = 8,
    kv_growth: str = "summed",
    all_logits: bool = True,
    images: int = 0,
    image_height: int = 448,
    image_width: int = 448,
    strict: bool = False,
    whole: bool = False,
) -> Workload:
    """Return the workload of the model that a configuration describes.

    ``phase``: ``forward`` (one pass over ``sequence`` tokens), or of a language model ``prefill``, ``decode`` (one step at
    ``context`` keys, 0: ``sequence``) or ``generate`` (prompt and ``new_tokens`` steps). ``images``: pictures of a request, which a
    tower turns into tokens before the text. ``whole``: without leaving out equal layers. Raises WorkloadError naming the file.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise WorkloadError(
            f"{file} needs torch and transformers to be imported, which are not installed: pip install 'dse-toolkit[hf]'"
        ) from error
    del torch, transformers
    options = {"weight_bits": weight_bits, "activation_bits": activation_bits, "fused_attention": fused_attention, "strict": strict}
    source = _Source(config, file, options, whole)
    if phase == "forward" and not images:

        def prepare(model: Any, settings: Any) -> dict[str, Any]:
            return example_inputs(model, settings, file, sequence=sequence, target=target, batch=batch)

        return source.graph(prepare, "forward")[0].workload
    pictures = Pictures(images, image_height, image_width, batch)
    request = _Request(source, sequence, batch, phase, context, new_tokens, kv_bits, kv_growth, all_logits)
    return request.workload(pictures)


@dataclass(frozen=True)
class _Request:
    """One request of a language model."""

    source: _Source
    sequence: int
    batch: int
    phase: str
    context: int
    new_tokens: int
    kv_bits: int
    kv_growth: str
    all_logits: bool

    def workload(self, pictures: Pictures) -> Workload:
        """The tower's phase, if there are pictures, then the language model's; parameters of the whole model counted once."""
        tower: Tower | None = None
        left_out: tuple[LeftOut, ...] = ()
        if pictures.images:
            tower, left_out = self._tower(pictures)
        seen = tower.tokens if tower is not None else 0
        graphs = [tower.graph] if tower is not None else []
        phases = [replace(tower.graph.workload.phases[0], runs=0.0 if self.phase == "decode" else 1.0)] if tower is not None else []
        first = ("vision",) if tower is not None else ()
        prompt = self.sequence + seen
        if self.phase in ("prefill", "generate"):
            made, built = self._pass("prefill", prompt, prompt, Decoding(self.kv_bits), first)
            graphs.append(made)
            phases.append(built)
        if self.phase == "decode":
            keys = self.context or prompt
            made, built = self._pass("decode", 1, keys, Decoding(self.kv_bits, 1, context=keys), first)
            graphs.append(made)
            phases.append(built)
        if self.phase == "generate":
            plan = Decoding(self.kv_bits, self.new_tokens, prompt=prompt, growth=self.kv_growth)
            made, built = self._pass("generation", 1, prompt + self.new_tokens, plan, ("prefill",))
            graphs.append(made)
            phases.append(built)
        phases = self._with_unused(phases, graphs)
        dimensions = {name: value for graph in graphs for name, value in graph.workload.dimensions.items()}
        if tower is not None:
            dimensions |= {"image_tokens": tower.tokens // max(1, pictures.images)}
        return Workload(
            name=self.source.file,
            family="imported",
            phases=tuple(phases),
            dimensions=MappingProxyType(dimensions),
            left_out=(*left_out, *_merged(graphs)),
            assumptions=tuple(dict.fromkeys(sentence for graph in graphs for sentence in graph.workload.assumptions)),
        )

    def _tower(self, pictures: Pictures) -> tuple[Tower | None, tuple[LeftOut, ...]]:
        """The tower, or None and what is left out with it: a model whose tower takes what we cannot make counts its text alone."""
        try:
            return tower_of(self.source.graph, pictures, self.source.file), ()
        except WorkloadError as error:
            if self.source.options.get("strict"):
                raise
            return None, (LeftOut("image tower", pictures.images * self.batch, f"its graph cannot be read: {shorten(str(error), 120)}"),)

    def _pass(self, name: str, tokens: int, context: int, plan: Decoding, after: tuple[str, ...]) -> tuple[ImportedGraph, Phase]:
        def prepare(model: Any, settings: Any) -> dict[str, Any]:
            inputs = example_inputs(
                model,
                settings,
                self.source.file,
                sequence=tokens,
                target=1,
                batch=self.batch,
                longest=max(tokens, context),
                text_alone=True,
            )
            if not self.all_logits:
                inputs |= _last_logits(model)
            return inputs

        made, _ = self.source.graph(prepare, name, decoding=plan, unused=False)
        cache = sum(layers.bytes_at(context, self.kv_bits) for layers in made.cached)
        return made, replace(made.workload.phases[0], after=after, kv_cache_bytes=cache)

    def _with_unused(self, phases: list[Phase], graphs: list[ImportedGraph]) -> list[Phase]:
        """Give the parameters that no phase reads a row in the last one, so that they are counted and take memory."""
        model, _ = build_model(self.source.config, self.source.file)
        total = sum(value.numel() for value in model.parameters())
        if Workload("", "", tuple(phases)).parameter_count() > total:
            phases = _counted_once(phases)
        missing = total - Workload("", "", tuple(phases)).parameter_count()
        if missing <= 0:
            return phases
        bits = self.source.options
        collector = Collector({}, bits["weight_bits"], bits["activation_bits"])
        row = OperationTable.from_rows([collector.unused({"rest": missing})])
        return [*phases[:-1], replace(phases[-1], table=concatenate([phases[-1].table, row]))]


def _last_logits(model: Any) -> dict[str, Any]:
    """The argument by which a model computes the logits of the last token alone, where it has one."""
    import inspect

    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _counted_once(phases: list[Phase]) -> list[Phase]:
    """The phases with parameters in the first one that has them: layers that merge in one phase may be apart in the next."""
    seen: set[str] = set()
    result = []
    for phase in phases:
        table = phase.table
        again = (table.weight_id != "") & (len(seen) > 0) & ~np.isin(table.weight_id, list(seen))
        seen |= {str(name) for name in table.weight_id if name}
        none = np.zeros_like(table.parameters)
        parameters, copies = np.where(again, none, table.parameters), np.where(again, none, table.copies)
        result.append(replace(phase, table=replace(table, parameters=parameters, copies=copies)))
    return result


def _merged(graphs: list[ImportedGraph]) -> tuple[LeftOut, ...]:
    counts: dict[tuple[str, str], int] = {}
    for graph in graphs:
        for item in graph.workload.left_out:
            counts[(item.operation, item.reason)] = counts.get((item.operation, item.reason), 0) + item.count
    return tuple(LeftOut(operation, count, reason) for (operation, reason), count in counts.items())
