"""What a data sheet says of a GPU, as the kernel models take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Engine, TensorCore
from hw_models.errors import HardwareError, bad_value, unknown_name

FORMATS: Final = {"fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
"""Number formats of tensor cores and the bits of an element."""


@dataclass(frozen=True)
class GpuSheet:
    """One GPU.

    Attributes:
        multiprocessors: SMs (compute units) in use.
        frequency_hz: clock at which the peak rates of the sheet hold.
        macs_per_cycle: dense multiply-accumulates of one multiprocessor in a cycle at bf16.
        rates: rate of each format relative to bf16; formats that are not named do not exist on the device.
        l1_bytes: memory of a multiprocessor that its L1 and its shared memory divide (0: unknown).
        l2_bytes, l2_partitions: last-level cache; data sit in one of the partitions and cross to the others.
        l2_bytes_per_s: measured read rate of the whole L2 where it is below a port of 64 bytes a cycle and multiprocessor (None).
        dram_bytes_per_s: peak rate.
        link_bytes_per_s: one direction of all links of the device to its peers in a node (0: none).
        engine: whose kernels run (`vllm`, `trtllm`).
        tdp_w, idle_w: board power limit, and power of a board that holds a context but runs nothing.
    """

    name: str
    tensor_core: TensorCore
    multiprocessors: int
    frequency_hz: float
    macs_per_cycle: float
    l2_bytes: float
    dram_bytes_per_s: float
    tdp_w: float
    idle_w: float = 0.0
    l1_bytes: float = 0.0
    l2_partitions: int = 1
    l2_bytes_per_s: float | None = None
    link_bytes_per_s: float = 0.0
    engine: str = "vllm"
    rates: dict[str, float] = field(default_factory=lambda: {"bf16": 1.0, "fp16": 1.0})

    def __post_init__(self) -> None:
        for name in ("multiprocessors", "frequency_hz", "macs_per_cycle", "l2_bytes", "dram_bytes_per_s", "tdp_w", "l2_partitions"):
            if not 0 < float(getattr(self, name)) < float("inf"):
                raise bad_value(f"{self.name}.{name}", getattr(self, name), "a positive number")
        for name in self.rates:
            if name not in FORMATS:
                raise unknown_name(f"number format of {self.name}", name, FORMATS)

    @property
    def peak_macs_per_s(self) -> float:
        """Dense multiply-accumulates of the device a second at bf16."""
        return self.multiprocessors * self.macs_per_cycle * self.frequency_hz

    @property
    def near_l2_bytes(self) -> float:
        """What the L2 holds of data that all multiprocessors read: each side of a partitioned one keeps a copy of what its half reads."""
        return self.l2_bytes / min(self.l2_partitions, 2)

    @property
    def port_bytes_per_cycle(self) -> float:
        """What one multiprocessor can read from the L2 in a cycle when all read: 64 bytes, or its share of a measured rate."""
        if self.l2_bytes_per_s is None:
            return 64.0
        return min(64.0, self.l2_bytes_per_s / (self.multiprocessors * self.frequency_hz))

    def rate(self, number_format: str) -> float:
        """Rate of a format relative to bf16; HardwareError for one that the device lacks, with those it has."""
        if number_format not in self.rates:
            has = ", ".join(sorted(self.rates))
            raise HardwareError(f"device {self.name} has no {number_format} in its tensor cores: it multiplies {has}")
        return self.rates[number_format]

    def product_format(self, activation_bits: int, weight_bits: int) -> str:
        """The format in which a product of these widths is multiplied: that of the wider operand, or the next wider one it has.

        A narrower operand is widened on its way (weight-only quantisation), so that every device runs every width up to its
        widest format; a wider operand than that is an error.
        """
        need = max(activation_bits, weight_bits)
        for candidates in (("fp4", "int4"), ("fp8", "int8"), ("bf16", "fp16"), ("tf32", "fp32")):
            for name in candidates:
                if name in self.rates and FORMATS[name] >= need:
                    return name
        widest = max(FORMATS[name] for name in self.rates)
        raise HardwareError(f"device {self.name} multiplies operands of at most {widest} bits, got {need}")


def sheet_of(hardware: AcceleratorBatch, point: int) -> GpuSheet:
    """The sheet of one chip of design ``point``; its last two levels are the cache and the DRAM."""
    rates = {"bf16": 1.0}
    for name in FORMATS:
        rate = float(getattr(hardware, f"rate_{name}")[point]) if name != "bf16" else 1.0
        if rate > 0:
            rates[name] = rate
    measured = float(hardware.l2_bytes_per_s[point])
    return GpuSheet(
        name=hardware.names[point] if hardware.names else f"design {point}",
        tensor_core=TensorCore(int(hardware.tensor_core[point])),
        multiprocessors=int(hardware.cores[point]),
        frequency_hz=float(hardware.frequency_hz[point]),
        macs_per_cycle=float(hardware.array_rows[point] * hardware.array_columns[point]),
        l2_bytes=float(hardware.level_bytes[point, -2]),
        dram_bytes_per_s=float(hardware.dram_bytes_per_s[point]),
        tdp_w=float(hardware.tdp_w[point]),
        idle_w=float(hardware.leakage_w[point] / hardware.all_chips[point]),
        l1_bytes=float(hardware.level_bytes[point, -3]) if hardware.level_bytes.shape[1] > 2 else 0.0,
        l2_partitions=int(hardware.l2_partitions[point]),
        l2_bytes_per_s=measured or None,
        link_bytes_per_s=float(hardware.link_bytes_per_s[point]),
        engine=Engine(int(hardware.engine[point])).name.lower(),
        rates=rates,
    )
