"""How a language model's graph is run with a cache of keys and values: one prompt, or steps of one token."""

from __future__ import annotations

from dataclasses import dataclass

from workloads.generation import step_parts


@dataclass(frozen=True)
class Decoding:
    """The cache of a pass over a graph.

    Attributes:
        bits: precision of a cached element.
        steps: 0: the pass writes the cache (a prompt); else how many steps of one token it stands for, which read it.
        prompt: tokens in the cache before the first step; context: keys that a single step attends to, where it is given.
        growth: ``summed`` or ``stepwise`` (:func:`workloads.generation.step_parts`).
    """

    bits: int = 8
    steps: int = 0
    prompt: int = 0
    context: int = 0
    growth: str = "summed"

    def parts(self, window: int, chunk: int) -> list[tuple[int, int]]:
        """(keys, how many steps attend to that many) in a layer with that window, or that attends within chunks (0: none)."""
        if self.context:
            keys = min(self.context, window) if window else self.context
            return [((keys - 1) % chunk + 1 if chunk else keys, 1)]
        if chunk:
            return self._chunked(chunk)
        return [(int(keys), int(count)) for keys, count in step_parts(self.prompt, self.steps, window, self.growth)]

    def _chunked(self, chunk: int) -> list[tuple[int, int]]:
        """Step t sees the keys since its chunk began; two neighbouring lengths add up to exactly what all steps see."""
        total = _seen(self.prompt + self.steps, chunk) - _seen(self.prompt, chunk)
        low, above = divmod(total, self.steps)
        return [(keys, count) for keys, count in ((max(low, 1), self.steps - above), (low + 1, above)) if count]


def _seen(tokens: int, chunk: int) -> int:
    """Pairs that ``tokens`` tokens see in all, each those of its chunk up to itself."""
    whole, rest = divmod(tokens, chunk)
    return whole * chunk * (chunk + 1) // 2 + rest * (rest + 1) // 2


@dataclass(frozen=True)
class CachedLayers:
    """Layers of a graph that keep keys and values: how many, elements a token, window and chunk (0: none)."""

    layers: int
    elements: int
    window: int
    chunk: int

    def bytes_at(self, tokens: int, bits: int) -> float:
        """Bytes of all these layers at ``tokens`` tokens; a window or a chunk keeps no more than its own."""
        limit = self.window or self.chunk
        return self.layers * self.elements * (min(tokens, limit) if limit else tokens) * bits / 8.0
