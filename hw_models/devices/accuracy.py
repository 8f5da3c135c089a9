"""What the kernel models are off on measured rows that no parameter has seen, as sentences for results.

data/gpu_accuracy.csv holds the errors (benchmarks/fit_gpu_kernels.py --fit writes it, a test holds it to the models).
"""

from __future__ import annotations

from functools import cache
from typing import Final

from hw_models.accelerator.fields import Engine, Execution
from hw_models.devices import library
from hw_models.technology.tables import read_table

_LIKE: Final = {"a100-40gb": "a100", "h100-pcie": "h100", "h100-nvl": "h100", "l4": "l40s"}
"""Devices whose rows were not measured, and the measured one with the same multiprocessors."""
_WORDS: Final = {"products": "products", "decode": "decode attention", "prefill": "prefill attention", "mixtures": "mixtures of experts"}


@cache
def rows() -> tuple[dict[str, str], ...]:
    """The table of errors: kind, format, engine, device, rows, mean, median, p90."""
    return tuple(read_table("gpu_accuracy.csv"))


UNMEASURED: Final = 0.25
"""Mean error that is assumed where no kernels of a device were measured: what those of others are off on devices in no fit."""


@cache
def mean_error(name: str) -> float:
    """Mean error of a device's bf16 products and attention on measured rows that no fit has seen; `UNMEASURED` where there are none."""
    found = [row for row in _measured(name) if row["kind"] != "mixtures"]
    if not found:
        return UNMEASURED
    return sum(float(row["mean"]) * int(row["rows"]) for row in found) / sum(int(row["rows"]) for row in found)


def _measured(name: str) -> list[dict[str, str]]:
    """The rows of the table that speak of a device under its own engine in bf16."""
    record = library.load(name).accelerator
    if record.execution != Execution.GPU:
        return []
    engine = Engine(record.engine).name.lower()
    device = _LIKE.get(name, name)
    return [row for row in rows() if row["device"] == device and row["engine"] == engine and row["format"].split("/")[0] == "bf16"]


@cache
def statement(name: str) -> str:
    """How far a device of the library is from measurements, in a sentence."""
    record = library.load(name).accelerator
    if record.execution == Execution.MAPPED:
        return (
            "nothing of this device was measured by us; its times are those of its arrays and memories, without launches and a host, so "
            "they flatter it beside a GPU (docs/validation.md shows how far mapped arrays are from published figures)"
        )
    if record.execution == Execution.CPU:
        return "nothing of this device was measured by us; `dse calibrate --this-machine` measures the processor that it runs on"
    measured, found = _LIKE.get(name, name), _measured(name)
    if not found:
        return "no kernels of this device were measured; parameters and sheet carry over from devices that were, expect 25 % and more"
    parts = []
    for kind, word in _WORDS.items():
        of_kind = [row for row in found if row["kind"] == kind]
        if of_kind:
            count = sum(int(row["rows"]) for row in of_kind)
            mean = sum(float(row["mean"]) * int(row["rows"]) for row in of_kind) / count
            parts.append(f"{word} within {100 * mean:.0f} % on {count}")
    seen = "rows kept out of the fit" if measured in ("a100", "h100") else "rows of a device in no fit"
    like = "" if measured == name else f" of {measured}"
    return f"bf16 {', '.join(parts)} ({seen}{like}, mean error)"
