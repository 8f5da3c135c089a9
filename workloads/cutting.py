"""Models that a given one can be cut to (fewer layers, channels, heads in whole key/value groups, units, bits a weight), or trained as."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Grid = dict[str, npt.NDArray[np.int64]]

# Parts of each dimension that are offered. Depth and width end where one-shot pruning of a sentence encoder still gives a model
# worth healing (docs/measured-quality.md); heads and units go further, for they cost less.
LAYERS = (1.0, 5 / 6, 2 / 3, 1 / 2)
WIDTHS = (1.0, 11 / 12, 5 / 6)
HEADS = (1.0, 3 / 4, 1 / 2, 1 / 4)
UNITS = (1.0, 3 / 4, 1 / 2, 1 / 4)
WEIGHT_BITS = (8, 4)
_WIDTH_STEP = 32  # widths are multiples of it: arrays and vector units are


def cut_grid(values: Mapping[str, Any]) -> Grid:
    """The models that ``values`` can be cut to, as columns: layers, hidden, heads, (kv_heads,) head_dim, ffn, weight_bits."""
    heads, groups = int(values["heads"]), int(values.get("kv_heads") or values["heads"])
    group = heads // groups
    step = _WIDTH_STEP if values["hidden"] >= 4 * _WIDTH_STEP else 4
    axes: dict[str, list[int]] = {
        "layers": _parts(int(values["layers"]), LAYERS, 1),
        "hidden": _parts(int(values["hidden"]), WIDTHS, step),
        "groups": _parts(groups, HEADS, 1),
        "ffn": _parts(int(values["ffn"]), UNITS, 8 if values["ffn"] >= 64 else 1),
        "weight_bits": list(WEIGHT_BITS),
    }
    rows = np.array(list(itertools.product(*axes.values())), dtype=np.int64)
    columns = dict(zip(axes, rows.T, strict=True))
    kept = columns.pop("groups")
    columns |= {"heads": kept * group, "head_dim": np.full(len(rows), int(values["head_dim"]), dtype=np.int64)}
    if "kv_heads" in values:
        columns["kv_heads"] = kept
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


# Knobs of the tables of models that were trained from scratch (benchmarks/trained_tasks.py draws its grids from the same values).
TRAINED = {"layers": (1, 2, 3, 4), "hidden": (32, 48, 64, 96), "heads": (1, 2, 4, 8), "head_dim": (8, 16), "ratio": (0.5, 1.0, 2.0, 4.0)}
TRAINED_BITS = (8, 4, 3)


def trained_grid(values: Mapping[str, Any]) -> Grid:
    """All models of the knobs that small models were trained with, as columns; ``kv_heads`` where the kind of model has them."""
    rows = [
        (layers, hidden, heads, groups, head_dim, int(ratio * hidden), bits)
        for layers, hidden, heads, head_dim, ratio in itertools.product(*TRAINED.values())
        for groups in ((k for k in TRAINED["heads"] if heads % k == 0) if "kv_heads" in values else (heads,))
        for bits in TRAINED_BITS
    ]
    names = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "weight_bits")
    columns = dict(zip(names, np.array(rows, dtype=np.int64).T, strict=True))
    if "kv_heads" not in values:
        columns.pop("kv_heads")
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def _parts(whole: int, parts: tuple[float, ...], step: int) -> list[int]:
    """``whole`` and the parts of it, as multiples of ``step``, each once, the smallest first."""
    found = {whole} | {max(step, round(whole * part / step) * step) for part in parts if part < 1.0}
    return sorted(value for value in found if value <= whole)
