"""Matrix products without a mapping search: bounds in closed form over any array namespace.

A product of sizes B M N K on C cores, with words I, W, O of both operands and the result, moves

    from core SRAM into the arrays    max(I c + W d, 2 B M N K / sqrt(S_array)) + O      S_array = units x words of a unit
    from shared to core SRAM          max(I c + W d, 2 B M N K / sqrt(S_core)) + O       counted where it arrives
                                      max(I + W,     2 B M N K / sqrt(C S_core)) + O     counted where it leaves (multicast)
    from DRAM to shared SRAM          max(I + W,     2 B M N K / sqrt(S_shared)) + O

where I c + W d = 2 sqrt(I W C / B) is what the cores hold together when C / B of them share an operand, and S are the usable
words, half of a memory. What crosses a storage of S words cannot be less than 2 m n k / sqrt(S) + m n (Hong and Kung 1981,
constant of Smith et al. 2019). The cycles are the most of the MACs over all units and of the words over each bandwidth. Every MAC reads
three registers and writes one, and what arrives at an array is written into the registers that it is multicast to. An optimum
of the mapping search lies at or above these times (of a convolution, whose windows share what they read, it may lie below by the root of
that reuse); the bounds carry its trends in every size and bandwidth, and have gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw_models.costs.vector_unit import LevelRates
from hw_models.technology.namespace import Array, Namespace


@dataclass(frozen=True)
class ProductWork:
    """Matrix products as arrays that broadcast to (shapes, points): sizes, words of each operand, whole."""

    batch: Array
    m: Array
    n: Array
    k: Array
    input_words: Array
    second_words: Array
    output_words: Array


@dataclass(frozen=True)
class ArrayRates:
    """Cores and their arrays as columns (points,): units and register words of one core's array, energies [pJ]."""

    cores: Array
    units: Array
    register_words: Array
    mac_pj: Array
    register_read_pj: Array
    register_write_pj: Array


def product_costs(
    xp: Namespace, work: ProductWork, array: ArrayRates, *, core: LevelRates, shared: LevelRates, main: LevelRates, word_bits: Array
) -> tuple[Array, Array]:
    """Cycles and energy [pJ] of products (shapes, points); see the module.

    ``core``: the SRAM of a core (capacity of one, bandwidth of all); ``shared``: the SRAM of the chip; ``main``: the DRAM. Both
    SRAMs are double-buffered.
    """
    macs = work.batch * work.m * work.n * work.k
    core_words, shared_words = core.bits / word_bits / 2.0, shared.bits / word_bits / 2.0
    outputs = work.output_words
    once = work.input_words + work.second_words
    sharing = xp.maximum(array.cores / work.batch, 0.0 * macs + 1.0)
    spread = xp.maximum(once, 2.0 * (work.input_words * work.second_words * sharing) ** 0.5)
    into_arrays = xp.maximum(spread, 2.0 * macs / (array.units * array.register_words) ** 0.5)
    into_cores = xp.maximum(spread, 2.0 * macs / core_words**0.5)
    from_shared = xp.maximum(once, 2.0 * macs / (array.cores * core_words) ** 0.5)
    from_main = xp.maximum(once, 2.0 * macs / shared_words**0.5)
    cycles = xp.ceil(macs / (array.units * array.cores))
    for words, rate in (
        (into_arrays + outputs, core.read_words_per_cycle),
        (into_cores + outputs, core.write_words_per_cycle),
        (from_shared + outputs, shared.read_words_per_cycle),
        (from_main + outputs, shared.write_words_per_cycle),
        (from_main, main.read_words_per_cycle),
        (outputs, main.write_words_per_cycle),
    ):
        cycles = xp.maximum(cycles, words / rate)
    # A unit with w words holds a tile of about w / 3 elements of each operand.
    tile = xp.maximum(array.register_words / 3.0, 0.0 * array.register_words + 1.0)
    energy = macs * (array.mac_pj + 3.0 * array.register_read_pj + array.register_write_pj * (1.0 + 2.0 / tile**0.5))
    energy = energy + (into_arrays + outputs) * core.read_pj + (into_cores + outputs) * core.write_pj
    energy = energy + (from_shared + outputs) * shared.read_pj + (from_main + outputs) * shared.write_pj
    return cycles, energy + from_main * main.read_pj + outputs * main.write_pj
