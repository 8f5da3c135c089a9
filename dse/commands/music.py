"""``dse music``: train a small decoder of symbolic music, let it continue a MIDI file, measure its decode step by head map."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from dse.errors import UsageError


def register(subparsers: Any) -> None:
    """Add the command group to the command line."""
    group = subparsers.add_parser(
        "music",
        help="train, continue and measure decoders of symbolic music with shared heads",
        description="Small decoders of symbolic music whose query heads share keys and values by attribute (extra: music).",
        allow_abbrev=False,
    )
    commands = group.add_subparsers(dest="music_command", metavar="COMMAND", required=True)
    train = _parser(commands, "train", "train a decoder on scores that the package music21 installs", run_train)
    train.add_argument("--corpus", default="chorales", metavar="NAME", help="chorales (four tracks) or ryans (one); default chorales")
    train.add_argument(
        "--grouping", default="mha", metavar="NAME", help="mha, gqa4, gqa2, mqa, shared, attribute, mixed, or name:heads/kv,..."
    )
    merged = "join tokens by byte-pair merges, learnt on the training pieces, up to a vocabulary of N (default 0: none)"
    train.add_argument("--bpe-vocabulary", type=int, default=0, metavar="N", help=merged)
    train.add_argument("--out", required=True, metavar="FOLDER", help="the folder to write")
    train.add_argument("--cache", metavar="FOLDER", help="where extracted scores are kept (default: dse-music in the user's cache)")
    train.add_argument("--layers", type=int, default=2)
    train.add_argument("--width", type=int, default=128)
    train.add_argument("--steps", type=int, default=350, help="steps of 2,048 tokens (default 350: about a minute)")
    train.add_argument("--pieces", type=int, metavar="N", help="the first N files only")
    train.add_argument("--held-out", type=int, metavar="N", help="pieces held out (default an eighth)")
    train.add_argument("--seed", type=int, default=0)
    go_on = _parser(commands, "continue", "let a trained decoder play on after a MIDI file", run_continue)
    go_on.add_argument("midi", metavar="FILE.mid", help="the prompt")
    go_on.add_argument("--model", required=True, metavar="FOLDER", help="what `dse music train` wrote")
    go_on.add_argument("--out", required=True, metavar="FILE.mid", help="prompt and continuation")
    go_on.add_argument("--new-tokens", type=int, default=347, help="default 347: about 100 notes")
    go_on.add_argument("--temperature", type=float, default=1.0)
    go_on.add_argument("--seed", type=int, default=0)
    bench = _parser(commands, "bench", "time the decode step of every grouping on this machine", run_bench)
    bench.add_argument("--contexts", type=int, nargs="+", default=[256, 1024, 4096], metavar="N")
    bench.add_argument("--batches", type=int, nargs="+", default=[1, 8], metavar="N")
    bench.add_argument("--layers", type=int, default=2)
    bench.add_argument("--width", type=int, default=128)
    bench.add_argument("--rounds", type=int, default=8)
    bench.add_argument("--threads", type=int, default=1)


def _parser(commands: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)
    return parser


def _positive(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not 1 <= value <= 2**20:
                raise UsageError(f"{name.replace('_', '-')} is {value}, must be 1 to {2**20}")


def run_train(args: argparse.Namespace) -> int:
    """Train, score on held-out tunes, write the folder."""
    _positive(args, "layers", "width", "steps", "pieces", "held_out")
    from workloads.music import corpus, files
    from workloads.music.groupings import grouping
    from workloads.music.model import DecoderOptions, equal_parameter_ffn
    from workloads.music.tokens import TokenOptions, Tokens
    from workloads.music.training import TrainingOptions, likelihood, make_model, tokenise, train

    chosen = grouping(args.grouping, ("instrument",) if args.corpus == "chorales" else ())
    if args.bpe_vocabulary and chosen.masked:
        raise UsageError(f"bpe-vocabulary is {args.bpe_vocabulary}, must be 0 for {args.grouping}: a merged token tells several attributes")
    cache = Path(args.cache) if args.cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dse-music"
    pieces = corpus.load_corpus(args.corpus, cache, limit=args.pieces)
    kept, held = corpus.split(pieces, args.held_out or max(1, len(pieces) // 8))
    training = [pieces[i] for i in kept]
    programs = corpus.VOICE_PROGRAMS if args.corpus == "chorales" else ()
    tokens = Tokens(TokenOptions("remi", programs, bpe_vocabulary=args.bpe_vocabulary), training)
    data = tokenise(tokens, training, [pieces[i] for i in held])
    ffn = equal_parameter_ffn(args.width, chosen.map.heads, chosen.map.kv_heads)
    model = make_model(tokens, DecoderOptions(tokens.vocabularies, chosen, args.layers, args.width, ffn), args.seed)

    def tell(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step} of {args.steps}: {loss:.3f} nats a token", file=sys.stderr)

    seconds = train(model, data, TrainingOptions(steps=args.steps, seed=args.seed), tell)
    found = likelihood(model, data, attribute_of_id=None if args.bpe_vocabulary else tokens.attributes())
    record = {
        **{
            "corpus": args.corpus,
            "steps": args.steps,
            "seed": args.seed,
            "parameters": model.parameter_count(),
            "cpu_s": round(seconds, 1),
        },
        **{"nats_per_note": found.nats_per_note, "nats_by_attribute": found.by_attribute, "held_out_notes": int(found.notes.sum())},
    }
    files.save(Path(args.out), model, tokens, record)
    _print({"folder": args.out, **record}, args.json)
    return 0


def run_continue(args: argparse.Namespace) -> int:
    """Continue a MIDI file."""
    _positive(args, "new_tokens")
    if not 0 < args.temperature <= 100:
        raise UsageError(f"temperature is {args.temperature:g}, must be above 0 and at most 100")
    from workloads.music import corpus, files
    from workloads.music.decoding import continue_piece

    piece = corpus.read_midi(Path(args.midi))
    model, tokens = files.load(Path(args.model))
    began = time.process_time()
    made = continue_piece(model, tokens, piece, args.new_tokens, temperature=args.temperature, seed=args.seed)
    seconds = time.process_time() - began
    tokens.score(made).dump_midi(args.out)
    _print({"file": args.out, "notes": len(made.notes), "prompt_notes": len(piece.notes), "cpu_s": round(seconds, 2)}, args.json)
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Time one step of decoders with drawn weights: latency does not depend on what they learnt."""
    _positive(args, "contexts", "batches", "layers", "width", "rounds", "threads")
    import numpy as np
    import torch

    from workloads.music.decoding import Decoding
    from workloads.music.family import token_table
    from workloads.music.groupings import EVERYTHING, groupings
    from workloads.music.model import DecoderOptions, MusicDecoder, equal_parameter_ffn
    from workloads.music.tokens import ATTRIBUTES

    torch.set_num_threads(args.threads)
    table = token_table()["chorales", "remi", 0]
    shares = {name: float(table[f"share_{name}"]) for name in ATTRIBUTES}
    rows = []
    for batch in args.batches:
        for context in args.contexts:
            states = {}
            for name, chosen in groupings(("instrument",)).items():
                ffn = equal_parameter_ffn(args.width, 8, chosen.map.kv_heads)
                model = MusicDecoder(DecoderOptions((305,), chosen, args.layers, args.width, ffn), np.zeros(305, dtype=np.int64))
                states[name] = Decoding(model.eval(), batch, context + 1)
                held = [
                    1.0 if not chosen.masked or g.name == EVERYTHING else shares[g.name]
                    for g in chosen.map.groups
                    for _ in range(g.kv_heads)
                ]
                states[name].lengths[:] = np.maximum(1, np.round(context * np.array(held)))
            best = dict.fromkeys(states, float("inf"))
            ids = torch.zeros((batch, 1), dtype=torch.int64)
            for _ in range(args.rounds):
                for name, state in states.items():
                    before = state.lengths.copy()
                    began = time.process_time() if args.threads == 1 else time.perf_counter()
                    state.step(ids, args.threads)
                    ended = time.process_time() if args.threads == 1 else time.perf_counter()
                    state.lengths[:] = before
                    best[name] = min(best[name], ended - began)
            rows += [
                {"batch": batch, "context": context, "grouping": name, "step_ms": seconds * 1e3, "speed_up": best["mha"] / seconds}
                for name, seconds in best.items()
            ]
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(
            f"batch {row['batch']:3} context {row['context']:5}  {row['grouping']:10} {row['step_ms']:7.3f} ms  "
            f"{row['speed_up']:5.2f}x of mha"
        )
    return 0


def _print(record: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(record) if as_json else "\n".join(f"{name}: {value}" for name, value in record.items()))
