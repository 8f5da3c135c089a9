"""Any ``torch.nn.Module`` with example inputs: exported (torch.export) and walked."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from workloads.errors import WorkloadError, shorten
from workloads.importers.collector import Collector
from workloads.importers.decoding import CachedLayers, Decoding
from workloads.importers.torch_graph import GraphWalk
from workloads.records import LeftOut, Phase, Workload


def import_module(
    module: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    weight_bits: int = 8,
    activation_bits: int = 8,
    fused_attention: bool = False,
    strict: bool = False,
    layer_times: Mapping[str, int] | None = None,
    copies: Mapping[str, int] | None = None,
) -> Workload:
    """Return the workload of one forward pass of ``module`` on example inputs; meta tensors do, no weight is needed.

    Operations that are not understood are listed in ``Workload.not_understood``; with ``strict`` they raise WorkloadError.
    ``layer_times`` and ``copies`` say how many layers a module of that path, and a parameter of that name, stand for.
    """
    program = export_module(module, args, kwargs, name)
    return imported_graph(
        program, module, name=name, weight_bits=weight_bits, activation_bits=activation_bits, fused_attention=fused_attention,
        strict=strict, layer_times=layer_times, copies=copies,
    ).workload  # fmt: skip


@dataclass(frozen=True)
class ImportedGraph:
    """A workload of one graph; its layers with a cache; names of the parameters that an operation reads."""

    workload: Workload
    cached: tuple[CachedLayers, ...]
    used: frozenset[str]


def export_module(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, name: str = "") -> Any:
    """Return the ``torch.export.ExportedProgram`` of one forward pass in evaluation mode; raise WorkloadError if there is none."""
    import torch

    was_training = module.training
    module.eval()
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, tuple(args), dict(kwargs or {}), strict=False)
    except Exception as error:  # export reports many kinds of failure; the user needs one sentence
        first = shorten(str(error), 300)
        raise WorkloadError(f"{name or type(module).__name__} cannot be exported by torch.export: {first}") from error
    finally:
        module.train(was_training)


def imported_graph(
    program: Any,
    module: Any,
    *,
    name: str = "",
    phase: str = "forward",
    weight_bits: int = 8,
    activation_bits: int = 8,
    fused_attention: bool = False,
    strict: bool = False,
    layer_times: Mapping[str, int] | None = None,
    copies: Mapping[str, int] | None = None,
    decoding: Decoding | None = None,
    unused: bool = True,
    unknown_size: int = 0,
) -> ImportedGraph:
    """Return the workload of an exported program of ``module``; arguments as :func:`import_module`.

    ``decoding``: how attention uses a cache; ``unused``: whether parameters that no operation reads get a row;
    ``unknown_size``: what stands for a size that depends on data.
    """
    parameters = {key: int(value.numel()) for key, value in module.named_parameters()}
    first_name = {id(value): key for key, value in module.named_parameters()}
    aliases = {key: first_name[id(value)] for key, value in module.named_parameters(remove_duplicate=False)}
    collector = Collector(parameters, weight_bits, activation_bits, fused_attention, copies=MappingProxyType(dict(copies or {})))
    walk = GraphWalk(collector, layer_times, aliases, decoding, unknown_size)
    walk.run(program)
    title = name or type(module).__name__
    check_understood(collector.left_out(), title, strict)
    try:
        table = collector.table(unused=unused)
    except WorkloadError as error:
        raise WorkloadError(f"{title}: {error}") from error
    workload = Workload(
        name=title,
        family="imported",
        phases=(Phase(phase, table),),
        dimensions=MappingProxyType({"weight_bits": weight_bits, "activation_bits": activation_bits}),
        left_out=collector.left_out(),
        assumptions=tuple(collector.assumptions),
    )
    return ImportedGraph(workload, tuple(walk.cached), collector.used())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and logged tracebacks of other packages off the terminal; what matters of them is in our errors."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check_understood(left_out: Sequence[LeftOut], title: str, strict: bool) -> None:
    """Raise WorkloadError under ``strict`` if an operation was not understood."""
    if strict and left_out:
        listed = ", ".join(f"{item.operation} ({item.count}; {item.reason})" for item in left_out)
        raise WorkloadError(f"{title} has operations that are not understood: {listed}; without strict they are listed and left out")
