"""An inference engine with continuous batching: when every request's first and last token come, and what they cost.

Arrays in, arrays out. Requests wait first in, first out; every step the engine decodes its running sequences, computes pieces
of prompts, or both, as the policy says; a paged cache of keys and values bounds what runs. `simulate` goes from event to event
(C++); `dse_kernels.serving_reference.simulate_reference` is the same engine step by step, and defines it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Policy:
    """What a worker's scheduler does.

    Attributes:
        token_budget: tokens of a step, prompts' and decoding ones together.
        max_sequences: sequences that run at once.
        chunked: a prompt may be cut where the budget ends; else it is computed whole, alone if it is longer than the budget.
        mixed: sequences decode in a step that computes prompts; else prompts go first and alone.
        reserve: blocks for the whole output are taken when a request is admitted; else as it grows, and the request that was
            admitted last gives way (its tokens are computed again) where none is left.
        poll_steps: arrivals are received every so many steps, and whenever the worker has nothing to do.
        blocks, block_tokens: the KV cache.
        prefix_cache: leading blocks whose names are cached are shared; unused ones stay until they are evicted, oldest first.
        query_tokens: tokens of a decoding sequence in a step (1, and those that speculative decoding has drafted).
        skip: go from event to event; else step by step, with the same result.
    """

    token_budget: int
    max_sequences: int
    chunked: bool = True
    mixed: bool = True
    reserve: bool = False
    poll_steps: int = 1
    blocks: int = 2**40
    block_tokens: int = 16
    prefix_cache: bool = False
    query_tokens: int = 1
    skip: bool = True

    def numbers(self) -> IntArray:
        """The fields in order, shape (11,)."""
        return np.array([int(getattr(self, item.name)) for item in fields(self)], dtype=np.int64)


@dataclass(frozen=True)
class StepTable:
    """Time [s] and energy [J] of a step, linear between the knots and beyond the last.

    A step costs ``linear(tokens)`` + ``decode(sequences, mean keys)`` + the sum over its pieces of prompts of
    ``prefill(take, done)``. Axes increase from 0. Shapes: linear (tokens,), decode (batch, keys), prefill (take, done).
    """

    tokens: FloatArray
    linear_s: FloatArray
    linear_j: FloatArray
    batch: FloatArray
    keys: FloatArray
    decode_s: FloatArray
    decode_j: FloatArray
    take: FloatArray
    done: FloatArray
    prefill_s: FloatArray
    prefill_j: FloatArray

    def arrays(self) -> list[FloatArray]:
        """The fields in order, each flat."""
        return [np.ascontiguousarray(getattr(self, item.name), dtype=np.float64).ravel() for item in fields(self)]


def no_lists(count: int) -> tuple[IntArray, IntArray]:
    """Offsets and items of ``count`` empty lists."""
    return np.zeros(count + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Requests:
    """What is asked for; arrays of shape (requests,).

    Attributes:
        arrival_s: earliest arrival. gap_s: time between the end of the last parent and the arrival (a tool, a person).
        prompt, output: tokens, at least 1 each.
        decode_steps: steps that make the tokens after the first; output - 1, or fewer with speculative decoding.
        session: requests of one session go to one worker; -1 for none.
        parents: (offsets of shape (requests + 1,), indices): requests that must end first; each precedes its child.
        blocks: (offsets, names): names of the leading blocks of prompt and output, for the prefix cache.
    """

    arrival_s: FloatArray
    prompt: IntArray
    output: IntArray
    gap_s: FloatArray = field(default_factory=lambda: np.zeros(0))
    decode_steps: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    session: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parents: tuple[IntArray, IntArray] | None = None
    blocks: tuple[IntArray, IntArray] | None = None

    def __post_init__(self) -> None:
        n = len(self.prompt)
        set_ = object.__setattr__
        set_(self, "arrival_s", np.ascontiguousarray(self.arrival_s, dtype=np.float64))
        for name, empty in (
            ("prompt", None),
            ("output", None),
            ("decode_steps", np.maximum(self.output - 1, 0)),
            ("session", np.full(n, -1)),
        ):
            value = getattr(self, name)
            set_(self, name, np.ascontiguousarray(value if len(value) or empty is None else empty, dtype=np.int64))
        set_(self, "gap_s", np.ascontiguousarray(self.gap_s if len(self.gap_s) else np.zeros(n), dtype=np.float64))
        for name in ("parents", "blocks"):
            offsets, items = getattr(self, name) or no_lists(n)
            set_(self, name, (np.ascontiguousarray(offsets, dtype=np.int64), np.ascontiguousarray(items, dtype=np.int64)))
        offsets, items = self.parent_lists
        if len(offsets) == n + 1 and (items >= np.repeat(np.arange(n), np.diff(offsets))).any():
            raise ValueError("a parent must come before its child in the list of requests")
        if not (np.isfinite(self.arrival_s).all() and np.isfinite(self.gap_s).all() and (self.gap_s >= 0).all()):
            raise ValueError("arrival_s must be finite numbers and gap_s numbers from 0")

    @property
    def parent_lists(self) -> tuple[IntArray, IntArray]:
        """Offsets and items of the parents."""
        assert self.parents is not None
        return self.parents

    @property
    def block_lists(self) -> tuple[IntArray, IntArray]:
        """Offsets and names of the blocks."""
        assert self.blocks is not None
        return self.blocks


@dataclass(frozen=True)
class Cluster:
    """The workers: all of one kind, or some for prompts (the first ``prefill_workers``) and some that decode.

    Between the two a request's cache takes ``transfer_s + transfer_s_per_token x prompt`` [s].
    """

    policy: Policy
    table: StepTable
    workers: int = 1
    decode_workers: int = 0
    decode_policy: Policy | None = None
    decode_table: StepTable | None = None
    transfer_s: float = 0.0
    transfer_s_per_token: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What happened; arrays of shape (requests,), or (workers,) for the last four.

    Attributes:
        arrival_s, start_s, first_s, last_s: arrival, admission, first and last token [s].
        energy_j: share of the energy of the steps that a request was in [J].
        cached_tokens: tokens of the prompt found in the prefix cache. preemptions: times it gave way. worker: the last one.
        busy_s, peak_blocks, evicted_blocks: by worker.
        timeline: rows (time_s, worker, decoding, waiting, blocks, prompt tokens of the step) at every event, if asked for.
        steps, events: engine steps and events. prefill_tokens: computed, recomputed ones too. decode_tokens: (sequence, step)
            pairs. resumed: recomputations that ended (each makes a token too).
    """

    arrival_s: FloatArray
    start_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray
    energy_j: FloatArray
    cached_tokens: IntArray
    preemptions: IntArray
    worker: IntArray
    busy_s: FloatArray
    peak_blocks: IntArray
    evicted_blocks: IntArray
    timeline: FloatArray
    steps: int
    events: int
    prefill_tokens: int
    decode_tokens: int
    resumed: int


def simulate(requests: Requests, cluster: Cluster, *, concurrency: int = 0, timeline: bool = False) -> Outcome:
    """Serve ``requests`` and return what happened.

    ``concurrency`` above 0: a closed loop in which a request arrives when an earlier one ends and at most so many are under way,
    in their order (parents must be absent). Raises ValueError if a request cannot fit the cache, or sizes disagree.
    """
    if concurrency and len(requests.parent_lists[1]):
        raise ValueError("concurrency must be 0 where requests have parents")
    values: dict[str, Any] = _kernels.simulate_serving(
        requests.arrival_s,
        requests.gap_s,
        requests.prompt,
        requests.output,
        requests.decode_steps,
        requests.session,
        *requests.parent_lists,
        *requests.block_lists,
        int(concurrency),
        cluster.workers,
        cluster.decode_workers,
        float(cluster.transfer_s),
        float(cluster.transfer_s_per_token),
        cluster.policy.numbers(),
        (cluster.decode_policy or cluster.policy).numbers(),
        cluster.table.arrays(),
        (cluster.decode_table or cluster.table).arrays(),
        timeline,
    )
    values["timeline"] = np.asarray(values["timeline"]).reshape(-1, 6)
    return Outcome(**values)
