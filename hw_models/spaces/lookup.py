"""The `lookup` builder: look-up units with a scratchpad each, one shared SRAM for the upper levels of a tree, and a DRAM or flash; the
`cpu` builder: cores with two caches each, a shared cache and a DRAM.

Both serve irregular look-ups (`hw_models.costs.sparse`). The area is that of SRAM, lanes and multiply-add units by the technology
tables: what a general core has beside them (fetch, rename, speculation) is not in it, and is said in the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch, given_columns
from hw_models.accelerator.resolve import Levels
from hw_models.errors import HardwareError
from hw_models.technology.tables import FLASH, dram

Columns = Mapping[str, npt.NDArray[Any]]
NOMINAL_22NM_V = 0.8


def _one_dram(columns: Columns) -> str:
    kinds = np.unique(columns["dram_type"])
    if len(kinds) != 1:
        raise HardwareError(f"designs of one batch must have one DRAM type, got {', '.join(map(str, kinds))}")
    return str(kinds[0])


def _ints(columns: Columns, name: str) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(columns[name], dtype=np.int64)


def _build(
    profile: str, columns: Columns, count: int, names: tuple[str, ...], per_core: tuple[bool, ...], held: list[npt.NDArray[np.int64]]
) -> AcceleratorBatch:
    word = _ints(columns, "word_bits") / 8.0
    rates = [np.asarray(columns[f"{name}_bytes_per_cycle"], dtype=np.float64) / word for name in names[:-1]]
    rates.append(np.asarray(columns["dram_bytes_per_s"], dtype=np.float64) / word / np.asarray(columns["frequency_hz"], dtype=np.float64))
    lanes = _ints(columns, "lanes")
    levels = len(names)
    bandwidth = np.column_stack(rates)
    return AcceleratorBatch.build(
        profile=profile,
        levels=Levels(
            names=names,
            kinds=(*["sram"] * (levels - 1), _one_dram(columns)),
            per_core=per_core,
            shared=(True,) * levels,
            double_buffered=(False,) * levels,
            access_bytes=(32,) * levels,
        ),
        columns={
            **given_columns(columns),
            "array_rows": np.ones(count, np.int64),
            "array_columns": lanes,
            "vector_lanes": _ints(columns, "cores") * lanes,
            "vector_buffer_bytes": np.zeros(count, np.int64),
            "nominal_v": np.full(count, NOMINAL_22NM_V),
            "level_bytes": np.column_stack(held),
            "level_area_bytes": np.column_stack(held),
            "level_read_words_per_cycle": bandwidth,
            "level_write_words_per_cycle": bandwidth.copy(),
        },
    )


def lookup(profile: str, columns: Columns, count: int) -> AcceleratorBatch:
    """Designs of look-up units from columns of knobs and settings (count,)."""
    held = [_ints(columns, "local_kib") * 1024, _ints(columns, "tree_sram_kib") * 1024, _ints(columns, "dram_gib") * 1024**3]
    kind = _one_dram(columns)
    if kind in FLASH:  # as fast as its channels
        rate = dram(kind).part_bytes_per_s * np.asarray(columns["flash_channels"], dtype=np.float64)
        columns = {**columns, "dram_bytes_per_s": rate}
    banks = _ints(columns, "banks")
    # A bank serves one line at a time: as many lines wait as there are banks, at most.
    waiting = np.minimum(_ints(columns, "gather_outstanding"), banks)
    rates = {"tree_sram_bytes_per_cycle": banks * _ints(columns, "bank_bytes_per_cycle")}
    full = {**columns, **rates, "gather_outstanding": waiting}
    return _build(profile, full, count, ("local", "tree_sram", "dram"), (True, False, False), held)


def cpu(profile: str, columns: Columns, count: int) -> AcceleratorBatch:
    """Designs of cores with caches from columns of knobs and settings (count,)."""
    held = [_ints(columns, f"{name}_kib") * 1024 for name in ("l1", "l2", "l3")]
    held.append(_ints(columns, "dram_gib") * 1024**3)
    return _build(profile, columns, count, ("l1", "l2", "l3", "dram"), (True, True, False, False), held)
