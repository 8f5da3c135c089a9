"""Inference engines: how each schedules, and the few numbers that its software adds."""

from __future__ import annotations

from dataclasses import dataclass

from dse_kernels.serving import Policy


@dataclass(frozen=True)
class EngineTraits:
    """One engine.

    Attributes:
        chunked, mixed, reserve, token_budget: see `dse_kernels.serving.Policy`.
        poll_low, poll_high: steps between receptions of new requests, below 16 requests in flight and from there.
        step_s, sequence_s: scheduler's time of a step, and of each sequence in it.
        first_s, prompt_token_s: time between client and engine of a request, and of each token of its prompt (tokenising).
        lag_steps: decode steps from the end of a prompt until its first token is seen (asynchronous scheduling, streaming).
    """

    chunked: bool
    mixed: bool
    reserve: bool
    token_budget: int
    poll_low: int
    poll_high: int
    step_s: float
    sequence_s: float
    first_s: float
    prompt_token_s: float
    lag_steps: float

    def policy(self, *, concurrency: int, blocks: int, block_tokens: int, max_sequences: int, longest_prompt: int) -> Policy:
        """The scheduler at a load."""
        budget = self.token_budget
        if not self.chunked:
            budget = max(budget, longest_prompt + max_sequences)
        poll = self.poll_low if concurrency < 16 else self.poll_high
        return Policy(budget, max_sequences, self.chunked, self.mixed, self.reserve, poll, blocks, block_tokens)
