"""What a data sheet says of a chip that serves: rates by format, memory, link, power."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """Peak figures of one chip.

    Attributes:
        rates: dense multiply-add rate of the tensor cores by bits of an operand [FLOP/s].
        dram_bytes_per_s, memory_bytes, link_bytes_per_s: link: one direction.
        tdp_w, idle_w: power at full load and with nothing to do [W].
    """

    name: str
    rates: dict[int, float]
    dram_bytes_per_s: float
    memory_bytes: float
    link_bytes_per_s: float
    tdp_w: float = 0.0
    idle_w: float = 0.0

    def has(self, bits: int) -> bool:
        """Whether the tensor cores multiply operands of so many bits."""
        return bits in self.rates

    def flops_per_s(self, bits: int) -> float:
        """Peak rate for weights of so many bits; those without a format of their own run in 16 bits."""
        return self.rates.get(bits, self.rates[16])
