"""The workload family ``music``: continue a prompt of notes, with knobs for what shares keys and values and how notes become tokens.

A request is ``prompt_notes`` notes that are read and ``new_notes`` notes that are generated, so that tokenisers and merges, which change
how many tokens a note takes, compare at equal service. Tokens a note and shares of attributes are measured (``data/tokens.csv``);
layers, width and the deadline (a tempo, notes a beat, voices) are assumptions of ours (``sage_like`` sizes are unpublished).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from workloads.blocks import HeadSharing
from workloads.decoder import decoder_phases
from workloads.errors import WorkloadError
from workloads.family import Builder, Grid
from workloads.head_map import parse_head_map
from workloads.knobs import Knob, require_divisible
from workloads.records import Phase

GROUPINGS = ("mha", "gqa4", "gqa2", "mqa", "shared", "attribute", "mixed")
"""What the numbers of the knob ``grouping`` stand for; see :mod:`workloads.music.groupings`."""
MASKED = (5, 6)
TOKENISERS = ("remi", "tsd", "midilike", "octuple", "cpword")
TRACKS = ("ryans", "chorales")
"""Corpus that speaks for one track (0) and several (1)."""
MEASURED_BPE = 1000
# The grid: every grouping without merges, and those that were trained with merges (masked ones need tokens of one attribute).
_GRID = (*((g, 0) for g in range(len(GROUPINGS))), (0, MEASURED_BPE), (4, MEASURED_BPE), (3, MEASURED_BPE))
_SINGLE_GRID = ((0, 0), (3, 0), (4, 0), (5, 0), (0, MEASURED_BPE), (4, MEASURED_BPE), (3, MEASURED_BPE))
_MAPS = {
    0: {4: "time:2/1,pitch:4/1,duration:2/1", 6: "all:2/1,time:1/1,pitch:3/1,duration:2/1"},
    1: {4: "time:2/1,instrument:1/1,pitch:4/1,duration:1/1", 6: "all:2/1,time:1/1,instrument:1/1,pitch:3/1,duration:1/1"},
}
HEADS = 8
VOICES = (1, 4)
"""Voices that play at once, by ``tracks``: one melody, four-part chorales."""


@cache
def token_table() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Measured rows by (corpus, tokeniser, bpe_vocabulary)."""
    text = resources.files("workloads").joinpath("music/data/tokens.csv").read_text(encoding="utf-8")
    return {(row["corpus"], row["tokeniser"], int(row["bpe_vocabulary"])): row for row in csv.DictReader(text.splitlines())}


def tokens_row(tracks: int, tokeniser: int, bpe_vocabulary: int) -> dict[str, Any]:
    """The measured row of a choice of knobs; WorkloadError where none was measured."""
    key = (TRACKS[tracks], TOKENISERS[tokeniser], bpe_vocabulary)
    if key not in token_table():
        known = sorted({size for corpus, name, size in token_table() if (corpus, name) == key[:2]})
        raise WorkloadError(f"bpe_vocabulary of {key[1]} is {bpe_vocabulary}, must be one of {known}: tokens a note are measured for these")
    return token_table()[key]


def sharing_of(grouping: int, tracks: int, tokeniser: int, bpe_vocabulary: int) -> tuple[tuple[int, int, float], ...]:
    """(query heads a KV head, KV heads, share of tokens) of every group of a grouping."""
    plain = {0: HEADS, 1: HEADS // 2, 2: HEADS // 4, 3: 1}
    if grouping in plain:
        return ((HEADS // plain[grouping], plain[grouping], 1.0),)
    chosen = parse_head_map(_MAPS[tracks][6 if grouping == 6 else 4])
    row = tokens_row(tracks, tokeniser, bpe_vocabulary)
    if grouping in MASKED and not row["share_time"]:
        raise WorkloadError(f"grouping is {grouping} ({GROUPINGS[grouping]}), must be one of 0 to 4 where a token tells several attributes")
    masked = grouping in MASKED
    shares = [1.0 if not masked or g.name == "all" else float(row[f"share_{g.name}"]) for g in chosen.groups]
    return tuple((g.heads // g.kv_heads, g.kv_heads, share) for g, share in zip(chosen.groups, shares, strict=True))


def _columns(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(np.broadcast_arrays(*(np.asarray(values[n]) for n in ("grouping", "tracks", "tokeniser", "bpe_vocabulary"))))


def _plain(column: Any, shape: tuple[int, ...]) -> Any:
    array = np.asarray(column).reshape(shape)
    return array.item() if not shape else array


def check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """Complete what follows from the knobs: KV heads, equal-parameter FFN, vocabulary, tokens of prompt and answer."""
    require_divisible(values, "hidden", "heads", model)
    values["head_dim"] = values["hidden"] // values["heads"]
    columns = _columns(values)
    shape = columns[0].shape
    chosen = list(zip(*(c.reshape(-1).tolist() for c in columns), strict=True))
    rows = [tokens_row(*choice[1:]) for choice in chosen]
    kinds = [sharing_of(*choice) for choice in chosen]
    values["kv_heads"] = _plain([sum(count for _, count, _ in kind) for kind in kinds], shape)
    per_note = np.array([float(row["tokens_per_note"]) for row in rows])
    if "ffn" not in given:
        # Equal parameters: what keys and values save goes into the feed-forward network.
        values["ffn"] = 4 * values["hidden"] + (values["heads"] - values["kv_heads"]) * values["head_dim"]
    if "vocabulary" not in given:
        values["vocabulary"] = _plain([sum(map(int, row["vocabularies"].split())) for row in rows], shape)
    for name, notes in (("sequence", "prompt_notes"), ("new_tokens", "new_notes")):
        if name not in given:
            values[name] = _plain(np.maximum(1, np.rint(per_note * np.asarray(values[notes]).reshape(-1))).astype(np.int64), shape)


def phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """Phases of the decoder with the sharing that the grouping says; groups that a model has not got run 0 times."""
    columns = _columns(d)
    kinds = [sharing_of(*choice) for choice in zip(*(c.reshape(-1).tolist() for c in columns), strict=True)]
    shape = columns[0].shape
    sharing = []
    for slot in range(max(map(len, kinds))):
        filled = [kind[slot] if slot < len(kind) else (1, 1, 1.0) for kind in kinds]
        readers, count, share = (_plain(column, shape) for column in zip(*filled, strict=True))
        sharing.append(HeadSharing(readers, count, share, _plain([int(slot < len(kind)) for kind in kinds], shape)))
    return decoder_phases({**d, "sharing": tuple(sharing)})


def deadline_s(values: Mapping[str, Any]) -> float:
    """Seconds in which the new notes are played: ``new_notes / (tempo / 60 x notes a beat x voices)``, whatever their tokens."""
    notes_per_s = values["tempo_bpm"] / 60.0 * values["notes_per_beat"] * VOICES[int(values["tracks"])]
    return float(values["new_notes"] / notes_per_s)


def _grid(values: Mapping[str, Any]) -> Grid:
    chosen = _GRID if values["tracks"] else _SINGLE_GRID
    columns = dict(zip(("grouping", "bpe_vocabulary"), np.array(chosen, dtype=np.int64).T, strict=True))
    columns |= {name: np.full(len(chosen), values[name], dtype=np.int64) for name in ("layers", "hidden")}
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def music_builder(decoder: Builder) -> Builder:
    """The builder, from the decoder's."""
    taken = ("layers", "hidden", "ffn", "vocabulary", "positions", "head_dim")
    settings = {name: knob for name, knob in decoder.knobs.items() if knob.setting}
    knobs = (
        Knob(
            "grouping",
            "which heads share keys and values: " + ", ".join(f"{i} {name}" for i, name in enumerate(GROUPINGS)),
            0,
            len(GROUPINGS) - 1,
        ),
        Knob("tracks", "one track (0) or several (1)", 0, 1),
        Knob(
            "tokeniser", "how notes become tokens: " + ", ".join(f"{i} {name}" for i, name in enumerate(TOKENISERS)), 0, len(TOKENISERS) - 1
        ),
        Knob("bpe_vocabulary", "vocabulary after byte-pair merges (0: none)", 0, 2**20),
        Knob("heads", "query heads: the groupings are of eight", choices=(HEADS,)),
        Knob("prompt_notes", "notes that are read", 1, 2**20, setting=True),
        Knob("new_notes", "notes that are generated", 1, 2**20, setting=True),
        Knob("tempo_bpm", "beats a minute at which they are played, for the deadline", 1, 1000, setting=True),
        Knob("notes_per_beat", "notes a beat and voice, for the deadline", 1, 64, setting=True),
    )
    return replace(
        decoder,
        name="music",
        knobs={**{name: decoder.knobs[name] for name in taken}, **{knob.name: knob for knob in knobs}, **settings},
        defaults={
            **decoder.defaults,
            "ffn": 1,
            "kv_heads": 1,
            "head_dim": 1,
            "prompt_notes": 64,
            "new_notes": 100,
            "vocabulary": 1,
            "tempo_bpm": 120,
            "notes_per_beat": 4,
        },
        check=check,
        phases=phases,
        grids={"default": _grid},
        deadline_s=deadline_s,
    )
