"""Phase graphs of loops: prefill, decode, judgements, votes and training, with dependences, as operations of a decoder.

A stage is the same work done by some sequences at once (agents, votes, samples, problems in step). How many of them are active is
known or, where the loop is stochastic, binomial; a graph is the stages of one way through the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.family import Family
from workloads.ops import ATTENTION, Kind, OperationTable, concatenate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

KINDS = ("prefill", "decode", "train_forward", "train_backward", "optimiser", "host")
PHASES = ("prompt", "think", "answer", "verify", "localise", "backtrack", "vote", "train")


@dataclass(frozen=True)
class Work:
    """What sequences run at once.

    Attributes:
        kind: one of `KINDS`; ``host`` is work that no accelerator does. new_tokens: a sequence computes or makes; context: tokens
        before them that it only reads. shared: leading tokens of the context whose keys and values are read once for every
        ``sharers`` sequences (0: each reads its own).
    """

    kind: str
    new_tokens: int
    context: int = 0
    shared: int = 0
    sharers: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise WorkloadError(f"kind is {self.kind!r}, must be one of {', '.join(KINDS)}")
        if self.new_tokens < 0 or self.context < 0 or not 0 <= self.shared <= self.context or self.sharers < 1:
            raise WorkloadError(
                f"work has {self.new_tokens} new tokens, {self.context} of context, {self.shared} of them shared by {self.sharers}; "
                "must be from 0, shared at most the context, and at least 1 sharer"
            )


@dataclass(frozen=True)
class Stage:
    """One stage of a loop: ``multiple`` x Binomial(``trials``, ``probability``) sequences do ``work``; none of them, no stage.

    ``after``: places of the stages that must end before. ``prefix``: what the context is, the same name where it is the same.
    """

    phase: str
    work: Work
    trials: int
    multiple: int = 1
    probability: float = 1.0
    after: tuple[int, ...] = ()
    prefix: str = ""

    @property
    def sequences(self) -> float:
        """Expected sequences."""
        return self.trials * self.multiple * self.probability


@dataclass(frozen=True)
class Node:
    """A stage with its number of sequences."""

    phase: str
    work: Work
    sequences: int
    after: tuple[int, ...]
    prefix: str = ""


@dataclass(frozen=True)
class PhaseGraph:
    """One way through a loop. Latency is the critical path over ``after``, energy the sum."""

    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, stages: Sequence[Stage], counts: Sequence[int] | None = None) -> PhaseGraph:
        """The graph of stages at so many active trials each (None: all); a stage without any is passed over."""
        active = [stage.trials for stage in stages] if counts is None else list(counts)
        nodes: list[Node] = []
        ends: list[tuple[int, ...]] = []  # of each stage: the nodes to wait for after it
        for stage, count in zip(stages, active, strict=True):
            before = tuple(dict.fromkeys(node for place in stage.after for node in ends[place]))
            if not count:
                ends.append(before)
                continue
            nodes.append(Node(stage.phase, stage.work, count * stage.multiple, before, stage.prefix))
            ends.append((len(nodes) - 1,))
        return cls(tuple(nodes))

    def tokens(self, kind: str) -> int:
        """Tokens of all nodes of a kind (prefill: of prompts computed; decode: made)."""
        return sum(node.work.new_tokens * node.sequences for node in self.nodes if node.work.kind == kind)

    def critical_path(self, seconds: Sequence[float]) -> float:
        """Longest sum of node times along dependences."""
        ends: list[float] = []
        for node, time in zip(self.nodes, seconds, strict=True):
            ends.append(time + max((ends[i] for i in node.after), default=0.0))
        return max(ends, default=0.0)


def longest_context(stages: Sequence[Stage]) -> int:
    """Most tokens that a sequence of any stage holds."""
    return max((stage.work.context + stage.work.new_tokens for stage in stages if stage.work.kind != "host"), default=0)


def work_table(family: Family, work: Work, sequences: int, *, lora_rank: int = 64) -> OperationTable:
    """Operations of ``sequences`` sequences that do ``work`` on a decoder. Attention is fused.

    A prompt behind a cached context: the prompt's table with the context's keys added to its attention. Decoding: the steps of a
    generation. Training: forward, backward and optimiser rows of one step with low-rank adapters (rank 0: all parameters).
    """
    if work.kind == "decode":
        made = family.build(
            phase="generate", batch=sequences, sequence=max(work.context, 1), new_tokens=work.new_tokens, fused_attention=True
        )
        table = made.phases[-1].table
        return _shared_decode(table, work, sequences) if work.shared and work.sharers > 1 else table
    if work.kind == "prefill":
        return _behind(_built(family, "prefill", sequences, work.new_tokens), work.context)
    if work.kind == "optimiser":
        table = _built(family, "train", 1, 1, lora_rank=lora_rank)
        return table.take(np.flatnonzero(table.kind == Kind.OPTIMIZER_STEP))
    if work.kind == "host":
        raise WorkloadError("work is the host's and has no operations")
    table = _behind(_built(family, "train", sequences, work.new_tokens, lora_rank=lora_rank), work.context)
    back = np.array([name.endswith((".backward", "_gradient")) for name in table.name])
    wanted = back if work.kind == "train_backward" else ~back
    return table.take(np.flatnonzero(wanted & (table.kind != Kind.OPTIMIZER_STEP)))


def cache_bytes(family: Family, work: Work, sequences: int) -> float:
    """Bytes of keys and values that the sequences hold at the end of ``work``; what is shared is held once for its sharers."""
    if work.kind in ("host", "optimiser"):
        return 0.0

    def held(tokens: int) -> float:
        return float(family.build(phase="decode", batch=1, context=tokens).kv_cache_bytes()) if tokens else 0.0

    own = held(work.context + work.new_tokens)
    if work.shared and work.sharers > 1:
        groups = -(-sequences // work.sharers)
        return sequences * (own - held(work.shared)) + groups * held(work.shared)
    return sequences * own


def _built(family: Family, phase: str, batch: int, sequence: int, **settings: int) -> OperationTable:
    return family.build(phase=phase, batch=batch, sequence=sequence, fused_attention=True, **settings).phases[0].table


def _behind(table: OperationTable, context: int) -> OperationTable:
    """The table of new tokens whose attention also reads ``context`` earlier keys (no more of them than a window shows)."""
    if not context:
        return table
    attention = np.isin(table.kind, ATTENTION)
    seen = np.where(table.window > 0, np.minimum(table.window, context), context)
    return replace(table, n=np.where(attention, table.n + seen, table.n))


def _shared_decode(table: OperationTable, work: Work, sequences: int) -> OperationTable:
    """Decoding whose attention over the shared beginning reads it once for all sharers, and over the rest as before.

    The queries of the sharers are stacked against one set of keys and values, and the two parts merged by their log-sum-exp
    (Hydragen, arXiv 2402.05099). A last group that is not full is counted as full.
    """
    rows = np.flatnonzero(np.isin(table.kind, ATTENTION) & (table.n > work.shared))
    if not len(rows):
        return table
    groups = -(-sequences // work.sharers)
    beginning = table.take(rows)
    beginning = replace(
        beginning,
        name=np.array([f"{name}.shared" for name in beginning.name]),
        n=np.full(len(rows), work.shared, dtype=np.int64),
        batch=beginning.batch // sequences * groups * work.sharers,
        kv_share=beginning.kv_share * work.sharers,
    )
    keys = table.n.copy()
    keys[rows] -= work.shared
    return concatenate([replace(table, n=keys), beginning])
