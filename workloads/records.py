"""Workload, phase and knob: the records that carry operation tables to the rooms that cost them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from workloads.errors import unknown_name
from workloads.ops import OperationTable


@dataclass(frozen=True, eq=False)
class Phase:
    """One stage of a request: its operations and how often the table runs in one request.

    Attributes:
        name: ``forward``, ``prefill``, ``decode``, ``generation``, ``training_step``, or what a mix names it.
        table: operations of one run.
        runs: runs per request (a number, not necessarily whole in a mix).
        after: names of the phases that must end before this one starts.
        kv_cache_bytes: largest KV cache (or recurrent state) that is resident during the phase: float or (models,).
        saved_bytes: activations that the backward pass needs again (training only): float or (models,).
    """

    name: str
    table: OperationTable
    runs: float = 1.0
    after: tuple[str, ...] = ()
    kv_cache_bytes: Any = 0.0
    saved_bytes: Any = 0.0


@dataclass(frozen=True)
class LeftOut:
    """Operations of an imported model that no table holds, so that every cost of the workload is short of them.

    Attributes:
        operation: the operator as the file names it (``vendor.ops.Mystery``); count: executions in one request.
        reason: why it has no row, in words that follow "left out:".
    """

    operation: str
    count: int
    reason: str


@dataclass(frozen=True, eq=False)
class Workload:
    """What one request of a model, or of many models at once, executes.

    Attributes:
        name: the model, or the mix.
        family: the builder that made it (``encoder``, ``decoder``, ..., ``imported``, ``mix``).
        phases: stages of a request in order.
        dimensions: every physical dimension and setting that it was built from.
        quality_metrics: names of the quality metrics that are known for it.
        requests: request model, where a mix gives one: rate_per_s, deadline_s, duty.
        left_out: operations of an imported graph that no table holds, with counts and reasons (empty: all are there).
        assumptions: sentences about what an imported graph leaves to run time and how it was counted (the dearer branch
            of an If, the largest number of trips of a loop).
    """

    name: str
    family: str
    phases: tuple[Phase, ...]
    dimensions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    quality_metrics: tuple[str, ...] = ()
    requests: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    left_out: tuple[LeftOut, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def not_understood(self) -> Mapping[str, int]:
        """Operations that are left out: {operation: executions in one request}."""
        counts: dict[str, int] = {}
        for item in self.left_out:
            counts[item.operation] = counts.get(item.operation, 0) + item.count
        return MappingProxyType(counts)

    @property
    def complete(self) -> bool:
        """Whether every operation of the model is in a table."""
        return not self.left_out

    def left_out_sentence(self) -> str:
        """One sentence that lists what is left out, for every place that shows a cost; empty where nothing is."""
        if not self.left_out:
            return ""
        listed = ", ".join(f"{item.count:,} x {item.operation} ({item.reason})" for item in self.left_out[:8])
        more = f" and {len(self.left_out) - 8} more operators" if len(self.left_out) > 8 else ""
        return f"{self.name} is counted without {listed}{more}; all its costs are too low by these"

    def phase(self, name: str) -> Phase:
        """Return the phase of that name."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise unknown_name("phase", name, [phase.name for phase in self.phases])

    @property
    def models(self) -> int | None:
        """The number of models that the tables describe, or None for one."""
        for phase in self.phases:
            if phase.table.models is not None:
                return phase.table.models
        return None

    def macs(self) -> Any:
        """Multiply-accumulates of one request: int (or float where a phase runs a fraction), or an array (models,)."""
        total: Any = 0
        for phase in self.phases:
            runs: float | int = int(phase.runs) if float(phase.runs).is_integer() else phase.runs
            total = total + phase.table.macs() * runs
        return total

    def minimum_bytes(self) -> Any:
        """Bytes that one request moves if every row reads and writes memory once: float, or (models,)."""
        return sum(phase.table.minimum_bytes() * phase.runs for phase in self.phases)

    def parameter_count(self) -> Any:
        """Parameters of the workload; a tensor that several phases use counts once: int, or (models,)."""
        return self._over_weights(0)

    def weight_bytes(self) -> Any:
        """Bytes of these parameters: int, or (models,)."""
        return self._over_weights(1)

    def activation_bytes(self) -> Any:
        """Peak of live activations over the phases (bytes; see OperationTable.activation_bytes): float, or (models,)."""
        return _maximum([phase.table.activation_bytes() + phase.saved_bytes for phase in self.phases])

    def kv_cache_bytes(self) -> Any:
        """Largest resident KV cache over the phases (bytes): float, or (models,)."""
        return _maximum([phase.kv_cache_bytes for phase in self.phases])

    def _over_weights(self, which: int) -> Any:
        total: dict[str, Any] = {}
        for phase in self.phases:
            for key, amounts in phase.table.by_weight().items():
                # Tensors without a name belong to their phase alone.
                name = f"{phase.name}: {key}" if key.startswith("row ") else key
                total[name] = np.maximum(total.get(name, 0), amounts[which])
        result = sum(total.values())
        return int(result) if np.ndim(result) == 0 else result


def _maximum(values: list[Any]) -> Any:
    result = np.maximum.reduce(np.broadcast_arrays(*[np.asarray(value, dtype=np.float64) for value in values]))
    return float(result) if np.ndim(result) == 0 else result
