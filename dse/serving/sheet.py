"""What a data sheet says of a chip that serves: rates by format, memory, link, power; and its embodied carbon."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from hw_models.costs.gpu_kernels.library import documents, gpu_names, gpu_sheet

from carbon import profiles
from dse.errors import unknown_name

# Formats in which engines multiply weights of so many bits, best first; 4-bit integers are widened (weight-only).
_FORMATS = {16: ("bf16", "fp16"), 8: ("fp8", "int8"), 4: ("fp4",)}
GIB = 2**30
CARBON_PROFILE = "default"
# Memory types that the carbon tables do not have yet, and the nearest that they have.
_NEAREST_MEMORY = {"gddr7": "gddr6"}


@dataclass(frozen=True)
class Sheet:
    """Peak figures of one chip.

    Attributes:
        rates: dense rate of the tensor cores by bits of an operand [FLOP/s].
        dram_bytes_per_s, memory_bytes, link_bytes_per_s: link: one direction.
        tdp_w, idle_w: power at full load and with nothing to do [W].
        embodied_kgco2e: of the chip with its memory, package and board.
    """

    name: str
    rates: dict[int, float]
    dram_bytes_per_s: float
    memory_bytes: float
    link_bytes_per_s: float
    tdp_w: float
    idle_w: float
    embodied_kgco2e: float = 0.0

    def has(self, bits: int) -> bool:
        """Whether the tensor cores multiply operands of so many bits."""
        return bits in self.rates

    def flops_per_s(self, bits: int) -> float:
        """Peak rate for weights of so many bits; those without a format of their own run in 16 bits."""
        return self.rates.get(bits, self.rates[16])


def names() -> tuple[str, ...]:
    """Chips that can serve."""
    return gpu_names()


@functools.cache
def sheet(name: str) -> Sheet:
    """The sheet of the GPU called ``name``; an unknown name is an error that names the nearest."""
    if name not in gpu_names():
        raise unknown_name("hw", name, gpu_names())
    gpu = gpu_sheet(name)
    rates = {}
    for bits, formats in _FORMATS.items():
        found = [gpu.rates[f] for f in formats if f in gpu.rates]
        if found:
            rates[bits] = 2 * gpu.peak_macs_per_s * found[0]
    document = documents()[name]
    record, made = document["accelerator"], document["embodied"]
    memory = record["levels"][-1]
    embodied = profiles.device_embodied(
        CARBON_PROFILE,
        area_mm2=document["die_mm2"],
        node_nm=made.get("node_nm", record["node_nm"]),
        dies=made["dies"],
        package=made["package"],
        system=made["system"],
        memory_type=_NEAREST_MEMORY.get(memory["kind"], memory["kind"]),
        memory_gb=memory["gib"],
    )
    return Sheet(
        name,
        rates,
        gpu.dram_bytes_per_s,
        memory["gib"] * GIB,
        gpu.link_bytes_per_s,
        gpu.tdp_w,
        gpu.idle_w,
        float(embodied.embodied_kgco2e),
    )
