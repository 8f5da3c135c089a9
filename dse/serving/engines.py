"""Inference engines: how each schedules, and the few numbers that software adds, fitted to published serving runs."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from dse_kernels.serving import Policy

from dse.errors import unknown_name
from dse.serving.steps import Overheads


@dataclass(frozen=True)
class EngineTraits:
    """One engine.

    Attributes:
        chunked, mixed, reserve, token_budget: see `dse_kernels.serving.Policy`.
        poll_low, poll_high: steps between receptions of new requests, below 16 requests in flight and from there.
        layer_s: time of a layer beside its products and attention (norms, rotations, launches).
        step_s, sequence_s: scheduler's time of a step, and of each sequence in it.
        first_s, prompt_token_s: time between client and engine of a request, and of each token of its prompt (tokenising).
        lag_steps: decode steps from the end of a prompt until its first token is seen (asynchronous scheduling, streaming).
    """

    name: str
    chunked: bool
    mixed: bool
    reserve: bool
    token_budget: int
    poll_low: int
    poll_high: int
    layer_s: float
    step_s: float
    sequence_s: float
    first_s: float
    prompt_token_s: float
    lag_steps: float

    def policy(
        self,
        *,
        concurrency: int,
        blocks: int,
        block_tokens: int,
        max_sequences: int,
        longest_prompt: int,
        prefix_cache: bool = False,
        query_tokens: int = 1,
        token_budget: int = 0,
    ) -> Policy:
        """The scheduler at a load (``concurrency`` requests in flight, 0 if not known); ``token_budget`` 0: the engine's own."""
        budget = token_budget or self.token_budget
        if not self.chunked:
            budget = max(budget, longest_prompt + max_sequences * query_tokens)
        poll = self.poll_low if 0 < concurrency < 16 else self.poll_high
        return Policy(budget, max_sequences, self.chunked, self.mixed, self.reserve, poll, blocks, block_tokens, prefix_cache, query_tokens)


@functools.cache
def _document() -> dict[str, dict[str, dict[str, float]]]:
    return tomllib.loads((files("dse") / "data" / "serving.toml").read_text(encoding="utf-8"))


@functools.cache
def overheads() -> Overheads:
    """What no data sheet says, the same for every model, device and engine."""
    return Overheads(**_document()["overheads"])  # type: ignore[arg-type]


def engine_names() -> tuple[str, ...]:
    """Engines that can be simulated."""
    return tuple(_document()["engine"])


@functools.cache
def engine(name: str) -> EngineTraits:
    """The engine called ``name``; an unknown name is an error that names the nearest."""
    known = _document()["engine"]
    if name not in known:
        raise unknown_name("engine", name, known)
    values = known[name]
    return EngineTraits(name=name, **values)  # type: ignore[arg-type]
