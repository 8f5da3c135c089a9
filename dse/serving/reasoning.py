"""A loop's trace as a load: its calls are requests that wait for their parents and share prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dse_kernels.serving import Requests

from dse.serving.simulation import BLOCK_TOKENS
from workloads.errors import WorkloadError
from workloads.jsonl import read_lines
from workloads.reasoning.traces import BLOCK_TOKENS as TRACE_BLOCK
from workloads.reasoning.traces import Call


def is_trace(path: str | Path) -> bool:
    """Whether a file looks like the trace of a loop: JSON lines whose first object names a phase."""
    try:
        return "phase" in next(read_lines(Path(path)), {})
    except WorkloadError:
        return False


def requests_of(calls: Sequence[Call], *, rate_per_s: float = 0.0, seed: int = 0) -> Requests:
    """One request a call. Problems arrive at once, or ``rate_per_s`` a second (Poisson); a call arrives when its parents have ended.

    Latency of a problem is then its critical path on the engine, energy the sum over its calls.
    """
    assert BLOCK_TOKENS == TRACE_BLOCK
    samples = np.array([call.sample for call in calls])
    arrival = np.zeros(len(calls))
    if rate_per_s > 0:
        moments = np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, int(samples.max()) + 1))
        arrival = moments[samples]

    def lists(values: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate([[0], np.cumsum([len(v) for v in values])])
        return offsets, np.array([x for v in values for x in v], dtype=np.int64)

    return Requests(
        arrival,
        np.array([call.prompt_tokens for call in calls]),
        np.array([call.output_tokens for call in calls]),
        session=samples,
        parents=lists([call.parents for call in calls]),
        blocks=lists([call.blocks[: (call.prompt_tokens + call.output_tokens) // BLOCK_TOKENS] for call in calls]),
    )
