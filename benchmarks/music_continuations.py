"""How alike continuations of held-out pieces are to what the composer wrote, by head map and seed.

    python benchmarks/music_continuations.py --corpora FOLDER --weights runs/music --table workloads/music/data/continuations.csv

Reads the weights that `benchmarks/music_quality.py --out runs/music` wrote. Every held-out piece is cut after 96 tokens; 160 tokens are
drawn behind it (temperature 1, all pieces as one batch, the kernels of decode attention; 256 tokens in all are the window that the decoders
were trained in), and the bars that both have whole are compared (`workloads.music.similarity`); `--draws` of them from each model. A model
without weights is left out and said. The row `another piece` compares what was written with the same bars of another held-out piece of the
same meter.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import music_quality as runs
import numpy as np

COLUMNS = (
    *("corpus", "tokeniser", "grouping", "seed", "draw", "pieces", "bars"),
    *("chroma", "groove", "attribute", "notes_made", "notes_true", "cpu_s"),
)
PARTS = ("chroma", "groove", "attribute")
PROMPT, NEW = 96, 160  # together the window that the decoders were trained in


def main() -> int:
    """Sample, compare, add to the table, print means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpora", type=Path, required=True, help="folder of the extracted corpora")
    parser.add_argument("--weights", type=Path, required=True, help="folder of weights")
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    parser.add_argument("--groupings", nargs="+", default=["mha", "gqa4", "shared", "mixed", "attribute", "mqa"])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each grouping")
    parser.add_argument("--draws", type=int, default=2, help="continuations of each training")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    plan = runs.PLANS[0]
    tokens, pieces, streams = _held_out(plan, args.corpora)
    rows = []
    for seed in range(args.seeds):
        rows.append(_another_piece(plan, tokens, pieces, streams, seed))
        for name in args.groupings:
            path = args.weights / f"{plan.corpus}-{plan.bpe_vocabulary}-{name}-scratch-{seed}.safetensors"
            if path.is_file():
                rows += [_continuations(plan, tokens, pieces, streams, name, seed, draw, path) for draw in range(args.draws)]
            else:
                print(f"no weights {path}", file=sys.stderr)
    with args.table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for name in [*args.groupings, "another piece"]:
        own = [row for row in rows if row["grouping"] == name]
        seeds = sorted({row["seed"] for row in own})
        means = {part: [float(np.mean([r[part] for r in own if r["seed"] == seed])) for seed in seeds] for part in PARTS}
        shown = (
            f"{part} {np.mean(x):.3f} ± {np.std(x, ddof=1) / len(x) ** 0.5 if len(x) > 1 else float('nan'):.3f}"
            for part, x in means.items()
        )
        print(f"{name:14}", *shown, f"{len(seeds)} seeds", sep="  ")
    return 0


def _held_out(plan: Any, folder: Path) -> tuple[Any, list[Any], np.ndarray]:
    """Tokens, the held-out pieces that are long enough, and their first 256 ids behind the start token (pieces, 257, 1)."""
    from workloads.music.corpus import VOICE_PROGRAMS, load_corpus, split
    from workloads.music.tokens import TokenOptions, Tokens

    loaded = load_corpus(plan.corpus, folder)
    _, held = split(loaded, runs.HELD_OUT[plan.corpus])
    tokens = Tokens(TokenOptions("remi", VOICE_PROGRAMS), [])
    encoded = [(loaded[i], tokens.encode(loaded[i])) for i in held]
    long = [(piece, ids[: PROMPT + NEW]) for piece, ids in encoded if len(ids) >= PROMPT + NEW]
    start = np.full((len(long), 1, 1), tokens.start, dtype=np.int64)
    return tokens, [piece for piece, _ in long], np.concatenate([start, np.stack([ids for _, ids in long])], axis=1)


def _compare(tokens: Any, piece: Any, prompt: np.ndarray, made: np.ndarray, true: np.ndarray) -> tuple[Any, int, int] | None:
    """Similarity in the bars that lie whole behind the prompt in both, and the notes of each there; None where there is none."""
    from workloads.music.similarity import bar_ticks, similarity

    before, with_made, with_true = (tokens.decode(np.concatenate([prompt, more]), piece) for more in (prompt[:0], made, true))
    length = bar_ticks(with_true)
    first = int(before.notes[:, 0].max()) // length + 1
    end = min(int(whole.notes[:, 0].max()) // length for whole in (with_made, with_true))
    if end <= first:
        return None
    counts = [int(((w.notes[:, 0] >= first * length) & (w.notes[:, 0] < end * length)).sum()) for w in (with_made, with_true)]
    return similarity(with_made, with_true, first, end), counts[0], counts[1]


def _row(plan: Any, name: str, seed: int, draw: int, found: list[Any], seconds: float) -> dict[str, Any]:
    compared = [x for x in found if x is not None]
    means = {part: round(float(np.mean([getattr(s, part) for s, _, _ in compared])), 4) for part in PARTS}
    return {
        **{"corpus": plan.corpus, "tokeniser": "remi", "grouping": name, "seed": seed, "draw": draw, "pieces": len(compared)},
        **{"bars": sum(s.bars for s, _, _ in compared), **means, "notes_made": sum(x[1] for x in compared)},
        **{"notes_true": sum(x[2] for x in compared), "cpu_s": round(seconds, 1)},
    }


def _continuations(plan: Any, tokens: Any, pieces: Any, streams: np.ndarray, name: str, seed: int, draw: int, path: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    from workloads.music.decoding import sample
    from workloads.music.groupings import grouping
    from workloads.music.model import DecoderOptions, equal_parameter_ffn
    from workloads.music.training import make_model

    chosen = grouping(name, ("instrument",))
    ffn = equal_parameter_ffn(runs.WIDTH, runs.HEADS, chosen.map.kv_heads)
    model = make_model(tokens, DecoderOptions(tokens.vocabularies, chosen, runs.LAYERS, runs.WIDTH, ffn), seed)
    model.load_state_dict(load_file(path))
    began = time.process_time()
    made = sample(model, torch.as_tensor(streams[:, : PROMPT + 1]), NEW, seed=draw, threads=1)
    seconds = time.process_time() - began
    found = [
        _compare(tokens, piece, ids[1 : PROMPT + 1], new, ids[PROMPT + 1 :]) for piece, ids, new in zip(pieces, streams, made, strict=True)
    ]
    row = _row(plan, name, seed, draw, found, seconds)
    print(row, file=sys.stderr, flush=True)
    return row


def _another_piece(plan: Any, tokens: Any, pieces: list[Any], streams: np.ndarray, seed: int) -> dict[str, Any]:
    """Each piece against the next one of its meter in an order drawn by the seed."""
    from workloads.music.similarity import bar_ticks, similarity

    whole = [tokens.decode(ids[1:], piece) for piece, ids in zip(pieces, streams, strict=True)]
    before = [tokens.decode(ids[1 : PROMPT + 1], piece) for piece, ids in zip(pieces, streams, strict=True)]
    order = np.random.default_rng(seed).permutation(len(pieces))
    found: list[Any] = []
    for meter in {piece.meter for piece in whole}:
        own = [i for i in order if whole[i].meter == meter]
        for i, other in zip(own, own[1:] + own[:1], strict=True):
            length = bar_ticks(whole[i])
            first = int(before[i].notes[:, 0].max()) // length + 1
            end = min(int(whole[j].notes[:, 0].max()) // length for j in (i, other))
            if i != other and end > first:
                counts = [int(((whole[j].notes[:, 0] >= first * length) & (whole[j].notes[:, 0] < end * length)).sum()) for j in (other, i)]
                found.append((similarity(whole[other], whole[i], first, end), counts[0], counts[1]))
    return _row(plan, "another piece", seed, 0, found, 0.0)


if __name__ == "__main__":
    sys.exit(main())
