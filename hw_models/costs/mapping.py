"""The memory hierarchy as the mapping search sees it, and the mappings that it finds as records.

The search itself is `dse_kernels.mapping`; docs/models/mapping.md has the cost model, formula by formula. This module
turns designs into its arrays by the rules of their technology profile, and what it found into a loop nest with names, for
exports and reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from dse_kernels import mapping

from hw_models.errors import bad_value
from hw_models.technology.profiles import profile as find_profile

if TYPE_CHECKING:
    from dse_kernels.mapping import MappingColumns, MappingHardware

    from hw_models.accelerator.design import AcceleratorBatch

FloatArray = npt.NDArray[np.float64]
DIMENSIONS = ("m", "n", "k")
# The operand that stays in place while a loop over this dimension runs: the one that does not have it.
STATIONARY = {"m": "weights", "n": "inputs", "k": "outputs"}


def is_sunstone(batch: AcceleratorBatch) -> bool:
    """Whether the profile of these designs maps by the rules of CATransformers' mapper (docs/models/mapping.md, section 7)."""
    return find_profile(batch.profile).mapper == "sunstone"


def usable_words(batch: AcceleratorBatch) -> FloatArray:
    """Words that a tile may take in each level (points, levels): half of them where the level is double buffered."""
    words = np.floor(batch.level_bytes * 8.0 / batch.word_bits[:, None])
    return np.asarray(np.floor(words / np.where(batch.level_double_buffered, 2.0, 1.0)))


def mapping_hardware(batch: AcceleratorBatch) -> MappingHardware:
    """The designs as the mapping search wants them, by the rules of their profile."""
    sunstone = is_sunstone(batch)
    write_pj, register_write_pj = batch.level_write_pj_per_word, batch.register_write_pj_per_word
    if sunstone:  # the tool charges the energy of a read for either
        write_pj, register_write_pj = batch.level_read_pj_per_word, batch.register_read_pj_per_word
    return mapping.MappingHardware(
        cores=batch.cores,
        array_rows=batch.array_rows,
        array_columns=batch.array_columns,
        array_kind=batch.array_kind,
        dataflow=batch.dataflow,
        mac_pj=batch.mac_pj,
        level_words=usable_words(batch),
        level_read_words_per_cycle=batch.level_read_words_per_cycle,
        level_write_words_per_cycle=batch.level_write_words_per_cycle,
        level_read_pj_per_word=batch.level_read_pj_per_word,
        level_write_pj_per_word=write_pj,
        level_shared=np.array(batch.level_shared),
        level_per_core=np.array(batch.level_per_core),
        level_double_buffered=np.array(batch.level_double_buffered),
        level_shared_bus=np.array(batch.level_shared_bus),
        register_words=batch.register_bytes * 8 // batch.word_bits,
        register_read_pj_per_word=batch.register_read_pj_per_word,
        register_write_pj_per_word=register_write_pj,
        register_keeps=mapping.KEEP_WEIGHTS if sunstone else mapping.KEEP_ALL,
        split_axes=sunstone,
        split_k_over_cores=sunstone,
        factors_first=sunstone,
        pooled_bandwidth=sunstone,
        count_refills=not sunstone,
        word_bits=batch.word_bits,
    )


@dataclass(frozen=True, slots=True)
class LevelTile:
    """The tile that one memory level holds and the loop over the tiles of the level inside it.

    Attributes:
        level: name of the level.
        tile: elements along m, n, k that one core has there (the whole product at the DRAM), clipped to the core's share.
        count: tiles of this level that cover a core's share, along m, n, k.
        stationary: operand that the innermost loop of this level's block leaves in place inside it: weights, inputs, outputs.
    """

    level: str
    tile: tuple[int, int, int]
    count: tuple[int, int, int]
    stationary: str

    @property
    def innermost_loop(self) -> str:
        """The dimension whose loop runs innermost in this level's block: m, n or k."""
        return next(d for d, operand in STATIONARY.items() if operand == self.stationary)


@dataclass(frozen=True, slots=True)
class LoopNest:
    """How one product runs on one design, as the mapping search found it.

    Attributes:
        batch, m, n, k: the product as it was mapped: the batch counts as rows where it shares the second operand.
        cores: cores along m, n, k and batch.
        unroll: units of the array along m, n, k.
        registers: elements that one unit of the array holds along m, n, k.
        spread: units of the array along the batch.
        levels: the memory levels, innermost first, the DRAM last.
    """

    batch: int
    m: int
    n: int
    k: int
    cores: tuple[int, int, int, int]
    unroll: tuple[int, int, int]
    registers: tuple[int, int, int]
    levels: tuple[LevelTile, ...]
    spread: int = 1

    def loops(self) -> tuple[tuple[str, str, int], ...]:
        """The temporal loops as (level, dimension, trips), outermost first; loops of one trip are left out.

        The trips are those of a full tile; the last tile of a dimension is clipped, so its block may have fewer.
        """
        share = -(-self.batch // self.cores[3])
        found = [("", "batch", -(-share // self.spread))]
        for at in range(len(self.levels) - 1, -1, -1):
            here = self.levels[at]
            array = [units * held for units, held in zip(self.unroll, self.registers, strict=True)]
            inside = self.levels[at - 1].tile if at else array
            trips = [-(-here.tile[d] // min(inside[d], here.tile[d])) for d in range(3)]
            last = DIMENSIONS.index(here.innermost_loop)
            order = [d for d in range(3) if d != last] + [last]
            found += [(here.level, DIMENSIONS[d], trips[d]) for d in order]
        return tuple(loop for loop in found if loop[2] > 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and names, for JSON and TOML."""
        return {
            "product": {"batch": self.batch, "m": self.m, "n": self.n, "k": self.k},
            "cores": dict(zip((*DIMENSIONS, "batch"), self.cores, strict=True)),
            "array": dict(zip((*DIMENSIONS, "batch"), (*self.unroll, self.spread), strict=True)),
            "registers": dict(zip(DIMENSIONS, self.registers, strict=True)),
            "levels": [
                {
                    "level": v.level,
                    "tile": dict(zip(DIMENSIONS, v.tile, strict=True)),
                    "count": dict(zip(DIMENSIONS, v.count, strict=True)),
                    "stationary": v.stationary,
                }
                for v in self.levels
            ],
        }


def loop_nest(
    mapping: MappingColumns,
    product: tuple[int, int, int, int],
    level_names: tuple[str, ...],
    *,
    shape: int = 0,
    point: int = 0,
    weights_shared: bool = False,
) -> LoopNest:
    """The mapping of row ``shape`` on design ``point`` as a record; ``product`` is its batch, m, n, k.

    Raises HardwareError if the search found no mapping there.
    """
    batch, m, n, k = product
    if weights_shared:
        batch, m = 1, batch * m
    split = [int(v) for v in mapping.split[shape, point]]
    if split[0] < 1:
        raise bad_value("product", product, "mappable on this design, whose innermost level holds no tile of it")

    def triple(values: npt.NDArray[np.int64]) -> tuple[int, int, int]:
        return int(values[0]), int(values[1]), int(values[2])

    share = [-(-size // cores) for size, cores in zip((m, n, k), split, strict=False)]
    levels = []
    for at, name in enumerate(level_names):
        resting = STATIONARY[DIMENSIONS[int(mapping.stationary[shape, point, at])]]
        if at + 1 < len(level_names):
            raw = mapping.tile[shape, point, at]
            tile = triple(np.minimum(raw, share))
            levels.append(LevelTile(name, tile, triple(mapping.count[shape, point, at]), resting))
        else:
            levels.append(LevelTile(name, (share[0], share[1], share[2]), (1, 1, 1), resting))
    return LoopNest(
        batch,
        m,
        n,
        k,
        (split[0], split[1], split[2], split[3]),
        triple(mapping.unroll[shape, point]),
        triple(mapping.register_tile[shape, point]),
        tuple(levels),
        int(mapping.spread[shape, point]),
    )
