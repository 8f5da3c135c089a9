"""Tokens a note and shares of attributes by corpus, tokeniser and merges: the rows of workloads/music/data/tokens.csv.

python benchmarks/music_tokens.py --corpora FOLDER --table workloads/music/data/tokens.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from workloads.music.corpus import CORPORA, VOICE_PROGRAMS, load_corpus, split
from workloads.music.tokens import ATTRIBUTES, TOKENISERS, TokenOptions, Tokens, tokens_per_note

HELD_OUT = {"chorales": 50, "ryans": 60}
COLUMNS = (
    "corpus",
    "tokeniser",
    "bpe_vocabulary",
    "vocabularies",
    "tokens_per_note",
    "pieces",
    "notes",
    *(f"share_{a}" for a in ATTRIBUTES),
)


def main() -> None:
    """Measure on all pieces (merges: trained on the training pieces, measured on the held-out ones) and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    args = parser.parse_args()
    with args.table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for name in CORPORA:
            pieces = load_corpus(name, args.corpora)
            kept, held = split(pieces, HELD_OUT[name])
            for tokeniser in TOKENISERS:
                for size in (0, 1000) if tokeniser == "remi" else (0,):
                    programs = VOICE_PROGRAMS if name == "chorales" else ()
                    tokens = Tokens(TokenOptions(tokeniser, programs, False, size), [pieces[i] for i in kept])
                    chosen = [pieces[i] for i in held] if size else pieces
                    row = {
                        **{"corpus": name, "tokeniser": tokeniser, "bpe_vocabulary": size, "pieces": len(chosen)},
                        **{"vocabularies": " ".join(map(str, tokens.vocabularies))},
                        **{"tokens_per_note": round(tokens_per_note(tokens, chosen), 4), "notes": sum(map(tokens.note_count, chosen))},
                    }
                    if len(tokens.vocabularies) == 1 and not size:
                        known = tokens.attributes()
                        counts = np.bincount(np.concatenate([known[tokens.encode(p)[:, 0]] for p in chosen]), minlength=len(ATTRIBUTES))
                        row |= {f"share_{a}": round(c / counts.sum(), 4) for a, c in zip(ATTRIBUTES, counts.tolist(), strict=True)}
                    writer.writerow(row)
                    print(row)


if __name__ == "__main__":
    main()
