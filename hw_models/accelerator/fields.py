"""What a field of an accelerator may hold: the words in which the record (`hw_models.accelerator.design`) describes its fields.

The record is the one table of fields: each attribute carries its rule, and whatever treats every field (checks, files, batches,
templates, the documentation) loops over it. A new field is a line in `Accelerator` and one in `AcceleratorBatch`.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.errors import bad_value, unknown_name


class ArrayKind(IntEnum):
    """How an array is filled and drained: fold after fold, with the next fold's weights loading, or not at all."""

    SYSTOLIC = 0
    SYSTOLIC_PIPELINED = 1
    DOT_PRODUCT = 2


class Dataflow(IntEnum):
    """The operand that stays in the array: outputs, weights or inputs; ANY lets the mapper choose.

    A mapping is a loop nest in which one of three operands rests, so these are all that the mapper can express; another kind of
    dataflow is another mapper. A further member (4: the range is checked) is named here, in ``kernels/dse_kernels/mapping.py`` and
    ``mapping_reference.py`` (`DATAFLOW_OF`), ``kernels/src/mapping_model.h`` (enum), ``mapping_arrays.cpp`` (range) and
    ``mapping_options.cpp`` (what it lets rest), in `hw_models.systolic` (``gemm.py``, ``conv.py``) if it has a closed form, and in
    the tools that know names of their own: exporters ``accelforge``, ``scalesim``, ``gemmini``, importer ``scalesim``.
    """

    OS = 0
    WS = 1
    IS = 2
    ANY = 3


class Execution(IntEnum):
    """What decides how operations run: a search of mappings, a GPU's kernels, or a processor's.

    MAPPED: arrays and memories that a mapping search uses (`hw_models.costs.products`). GPU: kernels of libraries and engines
    (`hw_models.costs.gpu_kernels`). CPU: cores with caches (`hw_models.costs.cpu`).
    """

    MAPPED = 0
    GPU = 1
    CPU = 2


class TensorCore(IntEnum):
    """How a GPU's tensor cores are fed and drained, which decides what overlaps.

    SYNCHRONOUS: warps issue matrix instructions on registers (mma.sync: Ampere, Ada, consumer Blackwell). ASYNCHRONOUS: whole
    warp groups work out of shared memory, tiles of neighbouring blocks are multicast (wgmma, TMA: Hopper). TENSOR_MEMORY: the
    same with accumulators in a memory of their own, so that one tile is written while the next is multiplied (tcgen05: B200).
    """

    SYNCHRONOUS = 0
    ASYNCHRONOUS = 1
    TENSOR_MEMORY = 2


class Engine(IntEnum):
    """Whose kernels a GPU runs: those of vLLM or of TensorRT-LLM."""

    VLLM = 0
    TRTLLM = 1


class Launch(IntEnum):
    """How a GPU's kernels are launched: GRAPH replays recorded ones back to back, EAGER issues each from the host."""

    GRAPH = 0
    EAGER = 1


@dataclass(frozen=True)
class Rule:
    """What a number field accepts, and how a file spells it.

    Attributes:
        whole: whole numbers only.
        low, high, unit: the range, ends included, and its unit. The upper ends are far beyond anything built (a wafer holds under
            10^6 cores, SRAM under 10^11 bytes): a value above is a slip of units.
        table: the table of an accelerator file that holds the field, and its name there; None: the top of the file.
        like, otherwise: the field that is taken where a file leaves this one out, and the value where it leaves out that one too.
    """

    whole: bool
    low: float
    high: float
    unit: str
    table: tuple[str, str] | None = None
    like: str = ""
    otherwise: float | None = None

    def __str__(self) -> str:
        number = "a whole number" if self.whole else "a number"
        return f"{number} from {self.low:g} to {self.high:g} {self.unit}".rstrip()

    def check(self, field: str, value: object, where: str) -> int | float:
        """``value`` as a number, or the error that says what would do."""
        allowed = str(self)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise bad_value(field, value, allowed, where=where)
        # The range first: it compares an integer of any size exactly, where a conversion to a float would overflow.
        if not self.low <= value <= self.high:
            closest = self.high if value > self.high else self.low
            raise bad_value(field, value, allowed, closest=f"{closest:g}", where=where)
        if self.whole and value != int(value):
            raise bad_value(field, value, allowed, where=where)
        return int(value) if self.whole else value


@dataclass(frozen=True)
class Choice:
    """What an enumerated field accepts: the names of ``kind``, in small letters; ``needed`` where a file must give it."""

    kind: type[IntEnum]
    table: tuple[str, str]
    needed: bool = False

    @property
    def names(self) -> dict[str, IntEnum]:
        """{name: member}."""
        return {member.name.lower(): member for member in self.kind}

    def codes(self, field: str, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Codes (count,) for an array of names (any case)."""
        known = {name: int(member) for name, member in self.names.items()}
        unique, inverse = np.unique(values, return_inverse=True)
        for name in unique:
            if str(name).lower() not in known:
                raise unknown_name(field, str(name), known)
        return np.asarray(np.array([known[str(name).lower()] for name in unique], dtype=np.int64)[inverse])


def whole(low: float, high: float, unit: str = "", *, table: tuple[str, str] | None = None) -> dict[str, Any]:
    """Metadata of a field of whole numbers."""
    return {"rule": Rule(True, low, high, unit, table)}


def number(
    low: float, high: float, unit: str = "", *, table: tuple[str, str] | None = None, like: str = "", otherwise: float | None = None
) -> dict[str, Any]:
    """Metadata of a field of numbers."""
    return {"rule": Rule(False, low, high, unit, table, like, otherwise)}


def choice(kind: type[IntEnum], table: tuple[str, str], *, needed: bool = False) -> dict[str, Any]:
    """Metadata of an enumerated field."""
    return {"choice": Choice(kind, table, needed)}


def rules(record: type) -> dict[str, Rule]:
    """The number fields of a record, in its order."""
    return {f.name: f.metadata["rule"] for f in fields(record) if "rule" in f.metadata}


def choices(record: type) -> dict[str, Choice]:
    """The enumerated fields of a record, in its order."""
    return {f.name: f.metadata["choice"] for f in fields(record) if "choice" in f.metadata}


def required(record: type) -> tuple[str, ...]:
    """Number fields that a file must give: those without a default and without another field to be taken from."""
    return tuple(f.name for f in fields(record) if "rule" in f.metadata and f.default is MISSING and not f.metadata["rule"].like)
