"""Held-out likelihood of music decoders by head map, corpus, merges and seed: the runs behind the family's shipped quality.

    python benchmarks/music_quality.py --corpora FOLDER --out runs/music --table workloads/music/data/quality.csv

Runs that the table already holds are not repeated, so that it may be stopped and gone on with. One thread; processor time in the
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADS, LAYERS, WIDTH, HELD_OUT = 8, 2, 128, {"chorales": 50, "ryans": 60}
COLUMNS = (
    *("corpus", "tokeniser", "bpe_vocabulary", "grouping", "head_map", "start", "seed", "layers", "width", "ffn", "parameters"),
    *("kv_heads_per_token", "steps", "tokens_per_step", "cpu_s", "tokens_per_note", "nats_per_note"),
    *("nats_time", "nats_instrument", "nats_pitch", "nats_duration", "held_out_pieces", "held_out_notes"),
)


@dataclass(frozen=True)
class Plan:
    """One corpus and vocabulary, its groupings in order, and the length of a run."""

    corpus: str
    bpe_vocabulary: int
    groupings: tuple[str, ...]
    steps: int
    uptrain: tuple[str, ...] = ()


PLANS = (
    Plan("chorales", 0, ("mha", "attribute", "mqa", "shared", "gqa4", "mixed", "gqa2"), 350, ("mha", "shared", "attribute", "mqa")),
    Plan("ryans", 0, ("mha", "attribute", "mqa", "shared"), 250),
    Plan("chorales", 1000, ("mha", "shared", "mqa"), 200),
    Plan("ryans", 1000, ("mha", "shared", "mqa"), 150),
)
UPTRAIN_STEPS = 120


def main() -> int:
    """Run what the table lacks, or show it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpora", type=Path, required=True, help="folder of the extracted corpora (filled when empty)")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights")
    parser.add_argument("--table", type=Path, required=True, help="CSV that runs are added to")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plan", type=int, nargs="*", default=list(range(len(PLANS))))
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    done = _done(args.table)
    for number in args.plan:
        plan = PLANS[number]
        setting = _setting(plan, args.corpora)
        for seed in range(args.seeds):
            for name in plan.groupings:
                _run(plan, setting, name, seed, args, done)
            for name in plan.uptrain:
                _uptrain(plan, setting, name, seed, args, done)
    return 0


def _done(table: Path) -> set[tuple[str, ...]]:
    if not table.is_file():
        return set()
    with table.open(newline="", encoding="utf-8") as stream:
        return {_key(row) for row in csv.DictReader(stream)}


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("corpus", "tokeniser", "bpe_vocabulary", "grouping", "start", "seed"))


def _setting(plan: Plan, folder: Path) -> dict[str, Any]:
    from workloads.music.corpus import VOICE_PROGRAMS, load_corpus, split
    from workloads.music.tokens import TokenOptions, Tokens
    from workloads.music.training import tokenise

    pieces = load_corpus(plan.corpus, folder)
    kept, held = split(pieces, HELD_OUT[plan.corpus])
    training, held_out = [pieces[i] for i in kept], [pieces[i] for i in held]
    programs = VOICE_PROGRAMS if plan.corpus == "chorales" else ()
    tokens = Tokens(TokenOptions("remi", programs, False, plan.bpe_vocabulary), training)
    corpus = tokenise(tokens, training, held_out)
    steps = sum(len(piece) - 1 for piece in corpus.held_out)
    attributes = None if plan.bpe_vocabulary else tokens.attributes()
    return {"tokens": tokens, "corpus": corpus, "attributes": attributes, "tokens_per_note": steps / sum(corpus.held_out_notes)}


def _base(plan: Plan, setting: dict[str, Any], name: str, seed: int, start: str) -> tuple[dict[str, Any], Any]:
    from workloads.music.groupings import grouping

    chosen = grouping(name, ("instrument",) if plan.corpus == "chorales" else ())
    tokens = setting["tokens"]
    shares: dict[str, float] = {}
    if chosen.masked:
        shares = attribute_shares(tokens, setting["corpus"].training[::11])
    row = {
        **{"corpus": plan.corpus, "tokeniser": tokens.options.tokeniser, "bpe_vocabulary": plan.bpe_vocabulary, "grouping": name},
        **{"head_map": str(chosen.map), "start": start, "seed": seed, "layers": LAYERS, "width": WIDTH},
        **{"kv_heads_per_token": round(chosen.kv_heads_per_token(shares), 4), "tokens_per_note": round(setting["tokens_per_note"], 4)},
    }
    return row, chosen


def attribute_shares(tokens: Any, streams: Any) -> dict[str, float]:
    """Share of tokens of every attribute in the streams."""
    import numpy as np

    from workloads.music.tokens import ATTRIBUTES

    known = tokens.attributes()
    counts = np.bincount(np.concatenate([known[s[:, 0]] for s in streams]), minlength=len(ATTRIBUTES))
    return {name: float(count / counts.sum()) for name, count in zip(ATTRIBUTES, counts, strict=True)}


def _run(plan: Plan, setting: dict[str, Any], name: str, seed: int, args: argparse.Namespace, done: set[tuple[str, ...]]) -> None:
    from workloads.music.model import DecoderOptions, equal_parameter_ffn
    from workloads.music.training import TrainingOptions, make_model, train

    row, chosen = _base(plan, setting, name, seed, "scratch")
    if _key(row) in done:
        return
    ffn = equal_parameter_ffn(WIDTH, HEADS, chosen.map.kv_heads)
    model = make_model(setting["tokens"], DecoderOptions(setting["tokens"].vocabularies, chosen, LAYERS, WIDTH, ffn), seed)
    options = TrainingOptions(steps=plan.steps, seed=seed)
    seconds = train(model, setting["corpus"], options)
    _write(row, model, setting, options, seconds, args)


def _uptrain(plan: Plan, setting: dict[str, Any], name: str, seed: int, args: argparse.Namespace, done: set[tuple[str, ...]]) -> None:
    from safetensors.torch import load_file

    from workloads.music.groupings import grouping
    from workloads.music.model import DecoderOptions, equal_parameter_ffn, pool_heads
    from workloads.music.training import TrainingOptions, make_model, train

    row, chosen = _base(plan, setting, name, seed, "pooled")
    if _key(row) in done:
        return
    tokens = setting["tokens"]
    ffn = equal_parameter_ffn(WIDTH, HEADS, HEADS)
    source = make_model(tokens, DecoderOptions(tokens.vocabularies, grouping("mha", ()), LAYERS, WIDTH, ffn), seed)
    source.load_state_dict(load_file(args.out / _file({**row, "grouping": "mha", "start": "scratch"})))
    model = pool_heads(source, chosen, tokens.attributes())
    options = TrainingOptions(steps=UPTRAIN_STEPS, warm_up=10, learning_rate=2e-3, seed=1000 + seed)
    seconds = train(model, setting["corpus"], options)
    _write(row, model, setting, options, seconds, args)


def _file(row: dict[str, Any]) -> str:
    return f"{row['corpus']}-{row['bpe_vocabulary']}-{row['grouping']}-{row['start']}-{row['seed']}.safetensors"


def _write(row: dict[str, Any], model: Any, setting: dict[str, Any], options: Any, seconds: float, args: argparse.Namespace) -> None:
    from safetensors.torch import save_file

    from workloads.music.training import likelihood

    found = likelihood(model, setting["corpus"], attribute_of_id=setting["attributes"])
    split = {
        f"nats_{name}": round(found.by_attribute[name], 5) if name in found.by_attribute else ""
        for name in ("time", "instrument", "pitch", "duration")
    }
    row = {
        **{
            **row,
            **split,
            "ffn": model.options.ffn,
            "parameters": model.parameter_count(),
            "steps": options.steps,
            "cpu_s": round(seconds, 1),
        },
        **{"tokens_per_step": options.batch * options.context, "nats_per_note": round(found.nats_per_note, 5)},
        **{"held_out_pieces": len(found.notes), "held_out_notes": int(found.notes.sum())},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), args.out / _file(row))
    new = not args.table.is_file()
    args.table.parent.mkdir(parents=True, exist_ok=True)
    with args.table.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row["corpus"], row["bpe_vocabulary"], row["grouping"], row["start"], row["seed"], row["nats_per_note"], row["cpu_s"], flush=True)


if __name__ == "__main__":
    sys.exit(main())
