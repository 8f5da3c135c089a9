"""A ``torch.nn.Module`` as a family: its precision and fused attention are knobs, its graph is fixed by the example inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from workloads.errors import WorkloadError
from workloads.family import Builder, Family
from workloads.importers.module import import_module
from workloads.importers.onnx.family import DEFAULTS, KNOBS, no_check
from workloads.records import Workload


def family_from_module(module: Any, example: Any = None, *, name: str = "", strict: bool = False) -> Family:
    """Return the family of a module for one request like ``example``; it is exported once for each precision that is asked for.

    Args:
        module: a ``torch.nn.Module``. Weights may lie on the meta device: no value is read.
        example: its inputs: a tensor, a sequence of positional ones, or a mapping of keywords. Modules that carry ``dummy_inputs`` (as
            those of transformers do) need none.
        name: of the workload; by default the module's class.

    Raises WorkloadError where there is no example, or where the module cannot be exported.
    """
    title = name or type(module).__name__
    given = example if example is not None else getattr(module, "dummy_inputs", None)
    if given is None:
        raise WorkloadError(
            f"workload {title} is a torch module, whose operations follow from its inputs; give example=TENSOR, as it is called"
        )
    args, kwargs = _arguments(given)

    @functools.lru_cache(maxsize=8)
    def imported(*key: Any) -> Workload:
        return import_module(module, args, kwargs, name=title, strict=strict, **dict(key))

    def phases(values: Mapping[str, Any]) -> Workload:
        return imported(*sorted((knob, values[knob]) for knob in DEFAULTS))

    return Family(
        name=title,
        builder=Builder(name="imported", knobs=KNOBS, defaults=DEFAULTS, check=no_check, phases=phases),
        dimensions={},
        defaults=DEFAULTS,
        sources={"dimensions": f"torch module {title}"},
    )


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, Sequence):
        return tuple(example), {}
    return (example,), {}
