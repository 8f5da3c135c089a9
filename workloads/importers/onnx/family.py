"""An ONNX file as a family: its precision and fused attention are knobs, its graph is fixed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workloads.family import Builder, Family
from workloads.importers.onnx.graph import import_onnx
from workloads.knobs import Knob
from workloads.records import Workload

KNOBS = {
    knob.name: knob
    for knob in (
        Knob(
            "weight_bits",
            "bits of a parameter that the file does not quantise",
            choices=(1, 2, 3, 4, 6, 8, 16, 32),
            setting=True,
        ),
        Knob("activation_bits", "bits of an activation that it does not quantise", choices=(4, 8, 16, 32), setting=True),
        Knob("fused_attention", "attention operators as one operation", choices=(True, False), setting=True),
    )
}
DEFAULTS: dict[str, Any] = {"weight_bits": 8, "activation_bits": 8, "fused_attention": False}


def family_from_onnx(path: Path, bind: Mapping[str, int], *, strict: bool = False) -> Family:
    """Return the family of an ONNX file; it is read when it is built. Errors as :func:`import_onnx` gives them."""
    axes = dict(bind)

    @functools.lru_cache(maxsize=8)
    def imported(*key: Any) -> Workload:
        return import_onnx(path, axes, strict=strict, **dict(key))

    def phases(values: Mapping[str, Any]) -> Workload:
        return imported(*sorted((name, values[name]) for name in DEFAULTS))

    return Family(
        name=path.stem,
        builder=Builder(name="imported", knobs=KNOBS, defaults=DEFAULTS, check=no_check, phases=phases),
        dimensions={},
        defaults=DEFAULTS,
        sources={"dimensions": str(path)},
    )


def no_check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """Nothing to check: a graph has no combinations of its own."""
