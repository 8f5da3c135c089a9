"""What a data sheet says of a chip that serves: rates by format, memory, link, power; and its embodied carbon."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from carbon.device import device_embodied
from dse.errors import unknown_name
from dse.evaluation.boards import board_inputs
from hw_models.costs.kernels import board_of
from hw_models.devices import library
from hw_models.devices.gpus import gpu_names, gpu_sheet

# Formats in which engines multiply weights of so many bits, best first; 4-bit integers are widened (weight-only).
_FORMATS = {16: ("bf16", "fp16"), 8: ("fp8", "int8"), 4: ("fp4",)}
CARBON_PROFILE = "default"


@dataclass(frozen=True)
class Sheet:
    """Peak figures of one chip.

    Attributes:
        rates: dense rate of the tensor cores by bits of an operand [FLOP/s].
        dram_bytes_per_s, memory_bytes, link_bytes_per_s: link: one direction.
        tdp_w, idle_w: power at full load and with nothing to do [W].
        active_w, byte_j, flop_j: what a busy chip draws above idle whatever it does, a byte of its memory, and a 16-bit operation: the
            rule of `hw_models.costs.board_power`, as in evaluations.
        embodied_kgco2e: of the chip with its memory, package, board and share of a host.
    """

    name: str
    rates: dict[int, float]
    dram_bytes_per_s: float
    memory_bytes: float
    link_bytes_per_s: float
    tdp_w: float
    idle_w: float
    active_w: float
    byte_j: float
    flop_j: float
    embodied_kgco2e: float = 0.0

    def has(self, bits: int) -> bool:
        """Whether the tensor cores multiply operands of so many bits."""
        return bits in self.rates

    def flops_per_s(self, bits: int) -> float:
        """Peak rate for weights of so many bits; those without a format of their own run in 16 bits."""
        return self.rates.get(bits, self.rates[16])


def at_clock(chip: Sheet, clock: float, supply: float) -> Sheet:
    """The chip at ``clock`` times its frequency and ``supply`` times its voltage: rates go with the clock, what a busy chip draws with
    clock x supply^2, an operation with supply^2; memory and links keep theirs."""
    return replace(
        chip,
        rates={bits: rate * clock for bits, rate in chip.rates.items()},
        active_w=chip.active_w * clock * supply**2,
        flop_j=chip.flop_j * supply**2,
    )


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
    memory = library.load(name).accelerator.levels[-1]
    board = board_of(library.load(name).accelerator.batch(), 0)
    embodied = device_embodied(CARBON_PROFILE, **board_inputs(name))
    return Sheet(
        name,
        rates,
        gpu.dram_bytes_per_s,
        float(memory.bytes),
        gpu.link_bytes_per_s,
        gpu.tdp_w,
        gpu.idle_w,
        float(board.active_w[0]),
        float(board.byte_j[0]),
        float(board.mac_j[0]) / 2,
        float(embodied.embodied_kgco2e),
    )
