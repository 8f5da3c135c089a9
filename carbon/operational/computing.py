"""What a computation itself took: measured where the machine has meters, else from time and power; as energy and as carbon.

    meter = Meter()
    ...                             # or meter.command(["python", "train.py"])
    spent = meter.stop()
    emissions(spent, grid.lookup("france"), pue=1.2)

Meters: RAPL (Linux, the packages and their memory, as far as the files under /sys/class/powercap may be read) and NVML (all GPUs, where
the package `pynvml` is installed). Both see the whole machine. Without RAPL, processor energy is CPU time x 12 W a core and memory
0.3725 W a GB of the largest resident set: the defaults of Green Algorithms (Lannelongue, Grealey and Inouye 2021; its table v2.2 for a
processor that is not known). 4 W a thread (codecarbon 3.3.2) and 12 W are the ends of the range that is given.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbon.errors import CarbonError
from carbon.factors.grid import GridFactor

CORE_W = 12.0  # Green Algorithms v2.2, "Any"
LEAST_CORE_W = 4.0  # codecarbon 3.3.2, a thread of an unknown processor
MEMORY_W_PER_GB = 0.3725  # Lannelongue et al. 2021
_JOULES_PER_KWH = 3.6e6
_POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Spent:
    """Time and energy of a computation.

    Attributes:
        wall_s, cpu_s: cpu_s: of the process and its children.
        processor_kwh, memory_kwh, gpu_kwh: memory is within the processor's where RAPL measured it.
        least_kwh: energy at the low end where it is an estimate, else the energy itself.
        basis: how it was found, in words. exit_code: of a command, 0 otherwise.
    """

    wall_s: float
    cpu_s: float
    processor_kwh: float
    memory_kwh: float
    gpu_kwh: float
    least_kwh: float
    basis: str
    exit_code: int = 0

    @property
    def kwh(self) -> float:
        """All energy."""
        return self.processor_kwh + self.memory_kwh + self.gpu_kwh


@dataclass(frozen=True, slots=True)
class Emissions:
    """Carbon of a computation: electricity with the facility's share, at the place's intensity, and a share of the machines' making."""

    spent: Spent
    place: GridFactor
    pue: float
    embodied_kgco2e: float

    @property
    def facility_kwh(self) -> float:
        """Electricity of the facility."""
        return self.spent.kwh * self.pue

    @property
    def operational_kgco2e(self) -> float:
        """Of the electricity."""
        return self.facility_kwh * self.place.gco2e_per_kwh / 1e3

    @property
    def least_kgco2e(self) -> float:
        """Operational carbon at the low end of the energy."""
        return self.spent.least_kwh * self.pue * self.place.gco2e_per_kwh / 1e3

    @property
    def total_kgco2e(self) -> float:
        """Operational and embodied."""
        return self.operational_kgco2e + self.embodied_kgco2e


def emissions(spent: Spent, place: GridFactor, *, pue: float = 1.0, embodied_kgco2e: float = 0.0) -> Emissions:
    """The carbon of ``spent`` at ``place``. Raises CarbonError for a PUE below 1."""
    if not (pue >= 1.0 and pue < 100.0):
        raise CarbonError(f"pue is {pue:g}; facility power over machine power is at least 1")
    return Emissions(spent, place, pue, embodied_kgco2e)


def from_time(wall_s: float, cpu_s: float, memory_gb: float, *, gpu_kwh: float = 0.0, how: str = "") -> Spent:
    """Energy from CPU time and memory [GB], by the rules at the head of this module."""
    processor = cpu_s * CORE_W / _JOULES_PER_KWH
    memory = wall_s * memory_gb * MEMORY_W_PER_GB / _JOULES_PER_KWH
    least = processor * LEAST_CORE_W / CORE_W + memory + gpu_kwh
    basis = (
        f"estimated: {cpu_s:.4g} CPU s x {CORE_W:g} W a core (low end {LEAST_CORE_W:g} W), {memory_gb:.3g} GB x {MEMORY_W_PER_GB:g} W a GB"
    )
    return Spent(wall_s, cpu_s, processor, memory, gpu_kwh, least, basis + how)


def from_power(hours: float, watts: float, *, basis: str) -> Spent:
    """Energy of machines that draw ``watts`` for ``hours``."""
    for name, value in (("hours", hours), ("watts", watts)):
        if not (0 <= value < 1e12):
            raise CarbonError(f"{name} is {value:g}, must be at least 0")
    kwh = hours * watts / 1e3
    return Spent(hours * 3600, 0.0, 0.0, 0.0, kwh, kwh, basis)


class Meter:
    """Reads the meters at its making and at :meth:`stop`."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._cpu = _cpu_s()
        self._rapl = rapl_joules()
        self._gpu = _gpu_joules()

    def command(self, words: Sequence[str]) -> Spent:
        """Run a command (no shell) to its end, and stop. Raises CarbonError where there is no such command."""
        try:
            done = subprocess.run(list(words), check=False)  # noqa: S603 - the user's own command, word by word
        except OSError as error:
            raise CarbonError(f"command {words[0]!r} cannot be run: {error.strerror}") from None
        spent = self.stop()
        return Spent(**{**{name: getattr(spent, name) for name in Spent.__slots__}, "exit_code": done.returncode})

    def stop(self) -> Spent:
        """Time and energy since the beginning."""
        wall, cpu = time.perf_counter() - self._start, _cpu_s() - self._cpu
        gpu_now = _gpu_joules()
        gpu = None if self._gpu is None or gpu_now is None else max(gpu_now - self._gpu, 0.0) / _JOULES_PER_KWH
        told = "; GPUs measured by NVML, the whole machine" if gpu is not None else ""
        now = rapl_joules()
        if self._rapl and now and self._rapl.keys() == now.keys():
            joules = sum(_risen(self._rapl[zone], now[zone]) for zone in now)
            kwh = joules / _JOULES_PER_KWH
            basis = "measured by RAPL: processor packages and their memory, the whole machine" + told
            return Spent(wall, cpu, kwh, 0.0, gpu or 0.0, kwh + (gpu or 0.0), basis)
        return from_time(wall, cpu, _largest_gb(), gpu_kwh=gpu or 0.0, how=told)


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _largest_gb() -> float:
    """Largest resident set of this process or of one of its children [GB]."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * unit / 1e9


def rapl_joules(root: Path | None = None) -> dict[str, tuple[float, float]]:
    """(energy, range at which its counter begins again) [J] of every package and its memory; empty where they may not be read."""
    found: dict[str, tuple[float, float]] = {}
    for zone in sorted((root or _POWERCAP).glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            # A package holds its cores; memory is beside it on servers. Sub-zones of cores would count twice.
            if not name.startswith(("package", "dram")):
                continue
            energy, most = (int((zone / part).read_text(encoding="ascii")) / 1e6 for part in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            return {}
        found[zone.name] = (energy, most)
    return found


def _risen(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Joules between two readings of a counter that begins again at its range (once, at most)."""
    return after[0] - before[0] if after[0] >= before[0] else after[0] + before[1] - before[0]


def _gpu_joules() -> float | None:
    """Energy that all GPUs have counted since their driver was loaded [J]; None where NVML does not say."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        devices: list[Any] = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return sum(float(pynvml.nvmlDeviceGetTotalEnergyConsumption(device)) for device in devices) / 1e3 if devices else None
    except pynvml.NVMLError:
        return None
