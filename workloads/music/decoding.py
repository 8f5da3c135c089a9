"""Decoding with a cache and the attention kernel: one step a token, KV heads that hold what their group sees; continuing a piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from dse_kernels import attention

from workloads.errors import WorkloadError
from workloads.music.corpus import Piece, make_piece
from workloads.music.model import MusicDecoder, rotary_angles, rotate
from workloads.music.tokens import Tokens

IntArray = npt.NDArray[np.int64]


class Decoding:
    """A decoder with the caches of ``rows`` continuations of up to ``capacity`` tokens.

    ``lengths`` (rows, KV heads): a masked group stores the tokens of its attribute alone; the token that a row stands at is seen by all
    heads, and kept by those whose group stores it.
    """

    def __init__(self, model: MusicDecoder, rows: int, capacity: int) -> None:
        grouping, dim = model.options.grouping, model.options.head_dim
        self.model, self.capacity, self.position = model, capacity, 0
        self.owners = np.array(grouping.map.kv_of_head)
        first = [grouping.map.kv_of_head.index(kv) for kv in range(grouping.map.kv_heads)]
        self.stored = model.seen[:, first].numpy()  # (ids, KV heads)
        shape = (rows, capacity, grouping.map.kv_heads, dim)
        self.keys, self.values = ([torch.zeros(shape) for _ in model.layers] for _ in range(2))
        self.lengths = np.zeros((rows, grouping.map.kv_heads), dtype=np.int64)

    @torch.no_grad()
    def step(self, ids: torch.Tensor, threads: int | None = None) -> torch.Tensor:
        """Logits (rows, all ids) after the tokens ``ids`` (rows, vocabularies). WorkloadError where a cache is full."""
        if int(self.lengths.max()) >= self.capacity:
            raise WorkloadError(f"cache holds {self.capacity} tokens, which is its capacity")
        rows = len(ids)
        angles = rotary_angles(torch.tensor([self.position]), self.model.options.head_dim)
        at = torch.from_numpy(self.lengths)
        row, head = torch.arange(rows)[:, None], torch.arange(at.shape[1])[None]
        x = self.model.embed(ids)[:, None]
        for layer, keys, values in zip(self.model.layers, self.keys, self.values, strict=True):
            normed = layer.attention_norm(x)  # type: ignore[operator]
            q, k, v = (part(normed).view(rows, 1, -1, keys.shape[-1]).transpose(1, 2) for part in _projections(layer))
            keys[row, at, head] = rotate(k, angles)[:, :, 0]
            values[row, at, head] = v[:, :, 0]
            out = attention.decode(rotate(q, angles)[:, :, 0].contiguous(), keys, values, self.owners, self.lengths + 1, threads=threads)
            x = layer.feed(x + layer.attention.o(out.reshape(rows, 1, -1)))  # type: ignore[operator, union-attr]
        self.lengths += self.stored[ids[:, 0].numpy()]
        self.position += 1
        return self.model.logits(x[:, 0])


def _projections(layer: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    held = layer.attention
    return held.q, held.k, held.v  # type: ignore[union-attr, return-value]


@torch.no_grad()
def sample(
    model: MusicDecoder, prompts: torch.Tensor, new_tokens: int, *, temperature: float = 1.0, seed: int = 0, threads: int | None = None
) -> IntArray:
    """(rows, new_tokens, vocabularies) drawn behind ``prompts`` (rows, tokens, vocabularies), all rows at once."""
    state = Decoding(model, len(prompts), prompts.shape[1] + new_tokens)
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    logits = torch.empty(0)
    for at in range(prompts.shape[1]):
        logits = state.step(prompts[:, at], threads)
    made = []
    for at in range(new_tokens):
        parts = torch.split(logits / max(temperature, 1e-3), list(model.options.vocabularies), dim=-1)
        # The three special tokens of miditok (padding, begin, end) are no music.
        weights = [torch.softmax(part.index_fill(1, torch.arange(3), -torch.inf), 1) for part in parts]
        made.append(torch.cat([torch.multinomial(w, 1, generator=generator) for w in weights], dim=1))
        if at + 1 < new_tokens:
            logits = state.step(made[-1], threads)
    return torch.stack(made, dim=1).numpy()


def continue_piece(
    model: MusicDecoder,
    tokens: Tokens,
    piece: Piece,
    new_tokens: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    threads: int | None = None,
) -> Piece:
    """The piece and ``new_tokens`` sampled tokens behind it, as notes; parts are dealt to voices as in :func:`fit_parts`."""
    fitted = fit_parts(piece, tokens.options.programs)
    prompt = tokens.encode(fitted)
    first = np.full((1, prompt.shape[1]), tokens.start, dtype=np.int64)
    ids = np.concatenate([first, prompt])
    made = sample(model, torch.as_tensor(ids[None]), new_tokens, temperature=temperature, seed=seed, threads=threads)
    return tokens.decode(np.concatenate([prompt, made[0]]), fitted)


def fit_parts(piece: Piece, programs: tuple[int, ...]) -> Piece:
    """The piece with its parts as the model's voices: by mean pitch, highest first, the lowest ones together; one voice: all together."""
    voices = programs or (0,)
    parts = np.unique(piece.notes[:, 3])
    order = sorted(parts.tolist(), key=lambda part: -float(piece.notes[piece.notes[:, 3] == part, 2].mean()))
    voice = {part: min(i, len(voices) - 1) for i, part in enumerate(order)}
    rows = [(start, duration, pitch, voice[part], velocity) for start, duration, pitch, part, velocity in piece.notes.tolist()]
    return make_piece(piece.name, piece.meter, rows, voices)
