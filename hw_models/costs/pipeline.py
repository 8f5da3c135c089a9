"""Groups of chips with a part of the layers each (pipeline), and such pipelines side by side (data parallelism).

A pipeline of ``stages`` works on ``microbatches`` batches at a time. Layers are dealt as evenly as whole layers allow; what lies
outside the layers is taken to be spread like them. A batch passes all stages, sends its activations from each to the next, and starts
its next pass (its next token) when the last stage is done with it; when it is finished another takes its place. In the steady state a
pass takes

    max(pass + (stages - 1) hop, microbatches (slowest stage + hop))

the way of one batch, or the turn of all at the slowest stage. What stages wait is the bubble (`bubble_share`). Replicas do not meet but in
layers of experts that are dealt over them (`hw_models.costs.chips`). GPipe (Huang et al., arXiv:1811.06965) and PipeDream-Flush (Narayanan
et al., arXiv:2006.09503) state the same for training: with one pass the bubble is (stages - 1) / (microbatches + stages - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workloads.ops import PRODUCTS, OperationTable, Parallel

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Passes:
    """What a pipeline needs to know of models: arrays (models,).

    Attributes:
        layers: layers that stages share out.
        passes: times that a request passes all of them (tokens of a generation, one of a prompt).
        hop_bytes: activations that go from a stage to the next, mean over the passes.
    """

    layers: FloatArray
    passes: FloatArray
    hop_bytes: FloatArray

    def take(self, models: slice) -> Passes:
        """Those of some models."""
        return Passes(self.layers[models], self.passes[models], self.hop_bytes[models])

    def __add__(self, other: Passes) -> Passes:
        """Of two phases of a request."""
        both = self.passes + other.passes
        moved = (self.passes * self.hop_bytes + other.passes * other.hop_bytes) / np.maximum(both, 1e-300)
        return Passes(np.maximum(self.layers, other.layers), both, moved)


def passes_of(table: OperationTable, runs: float = 1.0) -> Passes:
    """Passes of a phase, from the projection that ends the attention of a layer (the first product that several chips would reduce).

    Its tensor exists once a layer, and it runs once a layer and pass. A table without such a row is one layer that is run ``runs`` times
    and hands its largest result on.
    """
    rows = np.flatnonzero((table.parallel == Parallel.ROW) & np.isin(table.kind, PRODUCTS))
    repeat = table.column("repeat").reshape(-1, len(table)).astype(np.float64)
    size = (table.row_output_elements() * table.column("output_bits") / 8.0).reshape(-1, len(table))
    if not len(rows):
        one = np.ones(len(repeat))
        return Passes(one, runs * one, size.max(axis=1))
    mine = np.flatnonzero((table.name == table.name[rows[0]]) & (table.parallel == Parallel.ROW))
    copies = table.column("copies").reshape(-1, len(table))[:, mine].astype(np.float64)
    layers = np.where(copies > 0, copies, repeat[:, mine]).max(axis=1)
    times = repeat[:, mine] / layers[:, None]
    passes = times.sum(axis=1)
    return Passes(layers, runs * passes, (times * size[:, mine]).sum(axis=1) / passes)


def hop_s(hardware: AcceleratorBatch, size_bytes: FloatArray) -> FloatArray:
    """Time of handing activations on (models, points): each chip of a stage sends its part to one of the next, over the links of a node or,
    where a pipeline spans nodes, between them.
    """
    outside = _spans(hardware)
    latency = np.where(outside, hardware.node_latency_s, hardware.link_latency_s)
    rate = np.where(outside, hardware.node_bytes_per_s, hardware.link_bytes_per_s)
    part = np.ceil(size_bytes[:, None] / hardware.chips)
    return np.where(hardware.pipeline_stages > 1, latency + part / np.maximum(rate, 1e-200), 0.0)


def hops_j(hardware: AcceleratorBatch, passes: Passes) -> FloatArray:
    """Energy of all hand-overs of a request (models, points)."""
    sent = passes.passes * passes.hop_bytes * 8e-12
    return np.asarray(sent[:, None] * (hardware.pipeline_stages - 1) * hardware.link_pj_per_bit)


def latency_s(one_by_one_s: FloatArray, passes: Passes, hardware: AcceleratorBatch) -> FloatArray:
    """Time of a batch through the pipelines (models, points), from that of its operations one after the other."""
    stages = hardware.pipeline_stages.astype(np.float64)
    batches = hardware.in_flight / hardware.data_parallel
    layers = passes.layers[:, None]
    slowest = one_by_one_s * (np.ceil(layers / stages) / layers)  # the share first: exactly 1 for one stage
    hop = hop_s(hardware, passes.hop_bytes) * passes.passes[:, None]
    return np.asarray(np.maximum(one_by_one_s + (stages - 1) * hop, batches * (slowest + hop * (stages > 1))))


def bubble_share(one_by_one_s: FloatArray, whole_s: FloatArray, hardware: AcceleratorBatch) -> FloatArray:
    """Share of the stages' time in which they wait (models, points); ``whole_s`` is what `latency_s` gives."""
    busy = one_by_one_s * hardware.in_flight / hardware.data_parallel
    return np.asarray(1.0 - busy / np.maximum(hardware.pipeline_stages * whole_s, 1e-300))


def _spans(hardware: AcceleratorBatch) -> npt.NDArray[np.bool_]:
    """Whether a pipeline spans nodes (points,)."""
    return np.asarray((hardware.node_chips > 0) & (hardware.chips * hardware.pipeline_stages > hardware.node_chips))
