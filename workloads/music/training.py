"""Training of the music decoder on a corpus, and its likelihood on tunes that it has not seen, a note and an attribute.

Likelihood is told a note, never a token: merges and tokenisers change what a token is, the notes stay the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from workloads.music.corpus import Piece
from workloads.music.model import MusicDecoder
from workloads.music.tokens import ATTRIBUTES, Tokens

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingOptions:
    """How a decoder is trained (AdamW, linear warm-up, cosine decay to a tenth).

    Attributes:
        steps, batch, context: optimiser steps, windows a step, tokens a window.
        learning_rate, weight_decay, warm_up: as named; warm_up in steps.
        seed: of the weights (set before the model is made) and of the windows.
    """

    steps: int = 500
    batch: int = 8
    context: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warm_up: int = 50
    seed: int = 0


@dataclass(frozen=True)
class TokenisedCorpus:
    """Training streams in several transpositions, and held-out pieces as they are.

    Attributes:
        training: one array (steps, vocabularies) a piece and transposition, each with the start token before it.
        held_out, held_out_notes: the same of the held-out pieces, and how many notes each has.
    """

    training: tuple[IntArray, ...]
    held_out: tuple[IntArray, ...]
    held_out_notes: tuple[int, ...]


def tokenise(
    tokens: Tokens, training: Sequence[Piece], held_out: Sequence[Piece], shifts: Sequence[int] = tuple(range(-5, 6))
) -> TokenisedCorpus:
    """Encode the pieces; training pieces in every one of ``shifts`` semitones."""
    first = np.full((1, len(tokens.vocabularies)), tokens.start, dtype=np.int64)

    def stream(piece: Piece, shift: int = 0) -> IntArray:
        return np.concatenate([first, tokens.encode(piece, shift)])

    return TokenisedCorpus(
        tuple(stream(piece, shift) for piece in training for shift in shifts),
        tuple(stream(piece) for piece in held_out),
        tuple(tokens.note_count(piece) for piece in held_out),
    )


def train(
    model: MusicDecoder, corpus: TokenisedCorpus, options: TrainingOptions, progress: Callable[[int, float], None] | None = None
) -> float:
    """Train in place and return the seconds of processor time it took; ``progress`` is told (step, loss in nats a token).

    Windows are drawn by length, so that every token is as likely as any other; the same seed gives the same windows to every model.
    """
    generator = np.random.default_rng(options.seed)
    lengths = np.array([max(1, len(piece) - 1) for piece in corpus.training], dtype=np.float64)
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=options.learning_rate,
        betas=(0.9, 0.98),
    )
    began = time.process_time()
    model.train()
    for step in range(options.steps):
        warm = min(1.0, (step + 1) / max(1, options.warm_up))
        rate = options.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        ids = _windows(corpus.training, lengths, options, generator)
        loss = token_nats(model(ids[:, :-1]), ids[:, 1:], model.options.vocabularies)
        valid = ids[:, 1:, 0] >= 0
        mean = (loss * valid).sum() / valid.sum()
        optimiser.zero_grad(set_to_none=True)
        mean.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress:
            progress(step, float(mean.detach()))
    return time.process_time() - began


def _windows(pieces: Sequence[IntArray], lengths: FloatArray, options: TrainingOptions, generator: np.random.Generator) -> torch.Tensor:
    """(batch, context + 1, vocabularies) of consecutive tokens; a piece that is shorter goes on with the start of another."""
    chosen = generator.choice(len(pieces), size=2 * options.batch, p=lengths / lengths.sum())
    rows = []
    for first, second in chosen.reshape(-1, 2):
        at = int(generator.integers(0, max(1, len(pieces[first]) - options.context // 2)))
        row = pieces[first][at : at + options.context + 1]
        if len(row) <= options.context:
            row = np.concatenate([row, np.resize(pieces[second], (options.context + 1 - len(row), row.shape[1]))])
        rows.append(row)
    return torch.as_tensor(np.stack(rows))


def token_nats(logits: torch.Tensor, targets: torch.Tensor, vocabularies: Sequence[int]) -> torch.Tensor:
    """(batch, tokens): negative log-likelihood of each step, summed over its vocabularies."""
    total = torch.zeros(targets.shape[:2])
    for index, part in enumerate(torch.split(logits, list(vocabularies), dim=-1)):
        total = total + functional.cross_entropy(part.flatten(0, 1), targets[..., index].flatten(), reduction="none").view(
            targets.shape[:2]
        )
    return total


@dataclass(frozen=True)
class Likelihood:
    """Held-out negative log-likelihood.

    Attributes:
        nats_per_note: over all held-out notes; per_piece: the same of each piece; notes: of each piece.
        by_attribute: nats a note of the tokens of each attribute (empty where tokens have none); they sum to nats_per_note.
    """

    nats_per_note: float
    per_piece: FloatArray
    notes: IntArray
    by_attribute: dict[str, float]


@torch.no_grad()
def likelihood(model: MusicDecoder, corpus: TokenisedCorpus, *, context: int = 256, attribute_of_id: IntArray | None = None) -> Likelihood:
    """Score every held-out piece in windows of ``context`` tokens, each after the first half seen as context only."""
    model.eval()
    rows: list[tuple[int, IntArray, int]] = []
    for index, piece in enumerate(corpus.held_out):
        begin = 0
        while begin < len(piece) - 1:
            start = max(0, begin - context // 2) if begin else 0
            end = min(start + context, len(piece) - 1)
            rows.append((index, piece[start : end + 1], begin - start))
            begin = end
    per_piece = np.zeros(len(corpus.held_out))
    by_attribute = np.zeros(len(ATTRIBUTES))
    known = attribute_of_id is not None and bool((attribute_of_id >= 0).all())
    rows.sort(key=lambda r: len(r[1]))
    for at in range(0, len(rows), 16):
        block = rows[at : at + 16]
        longest = max(len(row) for _, row, _ in block)
        ids = np.zeros((len(block), longest, block[0][1].shape[1]), dtype=np.int64)
        for i, (_, row, _) in enumerate(block):
            ids[i, : len(row)] = row
        tensor = torch.as_tensor(ids)
        scored = token_nats(model(tensor[:, :-1]), tensor[:, 1:], model.options.vocabularies).numpy()
        for i, (piece_index, row, skip) in enumerate(block):
            nats = scored[i, skip : len(row) - 1].astype(np.float64)
            per_piece[piece_index] += nats.sum()
            if known and attribute_of_id is not None:
                attributes = attribute_of_id[row[skip + 1 :, 0]]
                by_attribute += np.bincount(attributes, weights=nats, minlength=len(ATTRIBUTES))
    notes = np.array(corpus.held_out_notes, dtype=np.int64)
    total = notes.sum()
    split = {name: float(value / total) for name, value in zip(ATTRIBUTES, by_attribute, strict=True) if value} if known else {}
    return Likelihood(float(per_piece.sum() / total), per_piece / notes, notes, split)


def make_model(tokens: Tokens, options: Any, seed: int) -> MusicDecoder:
    """A decoder for these tokens with weights drawn by ``seed`` (``options``: DecoderOptions)."""
    torch.manual_seed(seed)
    single = len(tokens.vocabularies) == 1
    return MusicDecoder(options, tokens.attributes() if single and options.grouping.masked else None)
