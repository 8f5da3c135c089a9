"""Formulas that the exact costs and their twins share: plain arithmetic on floats, numpy arrays or tensors, each written once.

Arguments broadcast. What needs more than arithmetic (rounding up, the larger of two) takes a `Namespace` and stands with its subject.
"""

from __future__ import annotations

from hw_models.technology.namespace import Array
from hw_models.technology.tables import REFERENCE_V


def sram_word_pj(access_pj: Array, word_bytes: Array, access_bytes: Array, supply: Array) -> Array:
    """Energy of a word in an SRAM [pJ]: its share of an access at the nominal supply, times the square of the relative ``supply``."""
    return access_pj * (word_bytes / access_bytes * supply**2)


def dram_word_pj(pj_per_byte: Array, word_bytes: Array) -> Array:
    """Energy of a word at the DRAM [pJ]; it does not depend on the chip's supply."""
    return pj_per_byte * word_bytes


def logic_supply_v(supply: Array) -> Array:
    """The supply at which the polynomials of logic are read [V], from the supply relative to nominal.

    A design at its nominal supply has the energies of the tables: those hold at 0.8 V, whatever CACTI calls nominal at the node.
    """
    return REFERENCE_V * supply


def mac_scale(mac_bits: Array, logic_energy: Array) -> Array:
    """Energy of a MAC and its registers over that of an 8-bit one at 22 nm: linear in the width (Accelergy's library)."""
    return (mac_bits / 8.0) * logic_energy


def sram_leakage_w(cores: Array, of_core_w: Array, shared_w: Array, supply: Array) -> Array:
    """Leakage of all SRAM of a chip [W], linear in the relative ``supply``."""
    return (cores * of_core_w + shared_w) * supply


def clock_hz(nominal_hz: Array, delay: Array, nominal_delay: Array) -> Array:
    """Clock of a design that closes timing at ``nominal_hz`` where logic has ``nominal_delay`` [Hz]."""
    return nominal_hz / (delay / nominal_delay)


def words_per_cycle(bytes_per_s: Array, word_bits: Array, frequency_hz: Array) -> Array:
    """Bandwidth of a part with a clock of its own, in words a cycle of the chip."""
    return bytes_per_s * 8.0 / word_bits / frequency_hz


def core_words_per_cycle(array_rows: Array, array_columns: Array) -> Array:
    """What a core's SRAM delivers to its array in a cycle: an operand a row and one a column [words]."""
    return array_rows + array_columns


def peak_tops(macs: Array, frequency_hz: Array) -> Array:
    """Peak rate of ``macs`` units [10^12 operations/s], a multiply-accumulate counted as two."""
    return macs * 2 * frequency_hz / 1e12


def energy_j(dynamic_j: Array, leakage_w: Array, latency_s: Array) -> Array:
    """Energy of a request [J]: what its operations switch, and leakage while it runs."""
    return dynamic_j + leakage_w * latency_s


def messages_s(steps: Array, bytes_in_sequence: Array, latency_s: Array, bytes_per_s: Array) -> Array:
    """Time of messages one after the other on a link [s] (alpha-beta model)."""
    return steps * latency_s + bytes_in_sequence / bytes_per_s


def link_j(link_bytes: Array, pj_per_bit: Array) -> Array:
    """Energy of bytes that cross links [J]."""
    return link_bytes * (8.0 * pj_per_bit * 1e-12)
