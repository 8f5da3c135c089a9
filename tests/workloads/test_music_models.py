"""Scores, tokens, decoders and their decoding: masks, equal parameters, uptraining, files, hostile MIDI; the commands of ``dse music``."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dse.cli import main
from workloads.errors import WorkloadError
from workloads.music import files
from workloads.music.corpus import make_piece, read_midi, split
from workloads.music.decoding import Decoding, fit_parts
from workloads.music.groupings import groupings
from workloads.music.model import DecoderOptions, MusicDecoder, equal_parameter_ffn, pool_heads
from workloads.music.tokens import TokenOptions, Tokens

EXTRA = pytest.mark.skipif(find_spec("miditok") is None or find_spec("music21") is None, reason="needs the extra music")
# Ids of a made-up vocabulary: time, instrument, pitch, duration in turn.
ATTRIBUTES = np.arange(12) % 4


def decoder(name: str, *, seed: int = 0) -> MusicDecoder:
    torch.manual_seed(seed)
    chosen = groupings(("instrument",))[name]
    ffn = equal_parameter_ffn(64, 8, chosen.map.kv_heads)
    return MusicDecoder(DecoderOptions((12,), chosen, 2, 64, ffn), ATTRIBUTES).eval()


@pytest.mark.parametrize("name", list(groupings(("instrument",))))
def test_steps_with_the_kernel_equal_the_whole_sequence(name: str) -> None:
    model = decoder(name)
    ids = torch.randint(0, 12, (3, 40, 1), generator=torch.Generator().manual_seed(1))
    whole = model(ids)
    state = Decoding(model, 3, 40)
    steps = torch.stack([state.step(ids[:, t]) for t in range(40)], dim=1)
    assert (steps - whole).abs().max() <= 1e-4
    if name == "attribute":
        counts = [[int((ATTRIBUTES[row[:, 0].numpy()] == a).sum()) for a in range(4)] for row in ids]
        assert state.lengths.tolist() == counts


def test_a_masked_head_does_not_see_other_attributes() -> None:
    model = decoder("attribute")
    ids = torch.randint(0, 12, (1, 10, 1), generator=torch.Generator().manual_seed(2))
    seen = model.seen[ids[0, :, 0]]
    assert seen.sum(1).tolist() == [[2, 1, 4, 1][int(ATTRIBUTES[i])] for i in ids[0, :, 0]]
    with pytest.raises(WorkloadError, match="is masked by attribute"):
        MusicDecoder(model.options, np.full(12, -1))


def test_equal_parameters() -> None:
    counts = [decoder(name).parameter_count() for name in groupings(("instrument",))]
    assert np.ptp(counts) <= 0.003 * counts[0]  # biases of the wider networks


def test_pooling_averages_the_heads_that_share() -> None:
    source = decoder("mha")
    pooled = pool_heads(source, groupings(("instrument",))["shared"])
    old = source.state_dict()["layers.0.attention.k.weight"].view(8, 8, 64)
    new = pooled.state_dict()["layers.0.attention.k.weight"].view(4, 8, 64)
    assert torch.allclose(new[0], old[:2].mean(0)) and torch.allclose(new[2], old[3:7].mean(0))
    same = pool_heads(source, groupings(())["mha"])
    ids = torch.zeros((1, 5, 1), dtype=torch.int64)
    assert torch.equal(same.eval()(ids), source(ids))
    with pytest.raises(WorkloadError, match="pooled from a multi-head decoder"):
        pool_heads(pooled, groupings(())["mqa"])


def test_tunes_stay_on_one_side_of_a_split() -> None:
    pieces = [
        make_piece(f"{i}", (4, 4), [(480 * t, 480, 60 + (i // 2) + (i // 2) * t % 5, 0, 90) for t in range(20)], [0]) for i in range(20)
    ]
    kept, held = split(pieces, 5)
    assert sorted(kept + held) == list(range(20)) and len(held) >= 5
    assert not {pieces[i].tune for i in kept} & {pieces[i].tune for i in held}


def test_parts_are_dealt_by_pitch() -> None:
    piece = make_piece("x", (4, 4), [(0, 480, 40, 0, 90), (0, 480, 80, 1, 90), (480, 480, 60, 2, 90)], [0, 0, 0])
    fitted = fit_parts(piece, (73, 70))
    assert {(int(p), int(v)) for p, v in fitted.notes[:, 2:4]} == {(80, 0), (60, 1), (40, 1)}


TRACK = b"MTrk" + struct.pack(">I", 4) + b"\x00\xff\x2f\x00"
HEADER = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
FAR = b"\x00\x90\x3c\x40\x60\x80\x3c\x40\xff\xff\xff\x7f\x90\x3c\x40\x60\x80\x3c\x40\x00\xff\x2f\x00"
HOSTILE = {
    "empty": (b"", "is empty"),
    "text": (b"hello, this is no music at all", "is not MIDI"),
    "header only": (HEADER, "0 of 1 tracks are there"),
    "truncated": (HEADER + TRACK[:-2], "is truncated: a chunk at byte 14 says 4 bytes, 2 are left"),
    "huge chunk": (HEADER + b"MTrk\xff\xff\xff\xff\x00", "is truncated"),
    "no tracks": (b"MThd" + struct.pack(">IHHH", 6, 1, 0, 480), "at least one must be"),
    "no ticks": (b"MThd" + struct.pack(">IHHH", 6, 0, 1, 0) + TRACK, "not a file in ticks a quarter"),
    "no note": (HEADER + TRACK, "holds no note"),
    # A note, the longest silence that a file can tell, and another note.
    "silence": (HEADER + b"MTrk" + struct.pack(">I", len(FAR)) + FAR, "ends after 559,241 quarter notes, must end after at most 65,536"),
}


@EXTRA
@pytest.mark.parametrize(("raw", "message"), HOSTILE.values(), ids=HOSTILE)
def test_midi_that_is_no_music_is_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mid"
    path.write_bytes(raw)
    with pytest.raises(WorkloadError, match=message):
        read_midi(path)
    with pytest.raises(WorkloadError, match="does not exist"):
        read_midi(tmp_path / "missing.mid")


@EXTRA
@pytest.mark.parametrize("tokeniser", ["remi", "tsd", "midilike", "octuple", "cpword"])
def test_tokens_and_back(tokeniser: str) -> None:
    rows = [(240 * t, 240, 60 + 7 * part + t % 5, part, 100) for part in range(2) for t in range(16)]
    piece = make_piece("x", (4, 4), rows, [73, 70])
    tokens = Tokens(TokenOptions(tokeniser, (73, 70)))
    ids = tokens.encode(piece)
    assert ids.shape[1] == len(tokens.vocabularies) and (ids < np.array(tokens.vocabularies)).all()
    assert np.array_equal(tokens.decode(ids, piece).notes[:, :4], piece.notes[:, :4])
    if len(tokens.vocabularies) == 1:
        assert (tokens.attributes() >= 0).all()
    with pytest.raises(WorkloadError, match=r"bpe_vocabulary is 500, must be 0 for octuple"):
        TokenOptions("octuple", (), False, 500)


@EXTRA
def test_train_continue_and_bench(tmp_path: Path, capsys: Any) -> None:
    model = tmp_path / "model"
    words = [
        "music",
        "train",
        "--corpus",
        "ryans",
        "--pieces",
        "12",
        "--steps",
        "2",
        "--width",
        "32",
        "--grouping",
        "attribute",
        "--layers",
        "1",
    ]
    assert main([*words, "--cache", str(tmp_path / "cache"), "--out", str(model), "--json"]) == 0
    assert '"nats_per_note"' in capsys.readouterr().out
    prompt = make_piece("x", (4, 4), [(480 * t, 480, 60 + t % 7, 0, 90) for t in range(8)], [0])
    Tokens(TokenOptions()).score(prompt).dump_midi(str(tmp_path / "in.mid"))
    made = []
    for _ in range(2):
        words = [
            "music",
            "continue",
            str(tmp_path / "in.mid"),
            "--model",
            str(model),
            "--out",
            str(tmp_path / "out.mid"),
            "--new-tokens",
            "40",
        ]
        assert main([*words, "--json"]) == 0
        made.append(read_midi(tmp_path / "out.mid").notes)
    assert np.array_equal(made[0], made[1]) and len(made[0]) >= 8
    (tmp_path / "bad.mid").write_bytes(b"no")
    assert main(["music", "continue", str(tmp_path / "bad.mid"), "--model", str(model), "--out", str(tmp_path / "out.mid")]) != 0
    (model / "model.json").write_text("{}", encoding="utf-8")
    assert main(["music", "continue", str(tmp_path / "in.mid"), "--model", str(model), "--out", str(tmp_path / "out.mid")]) != 0
    errors = capsys.readouterr().err
    assert "is not MIDI" in errors and "has format None" in errors and "Traceback" not in errors
    assert main(["music", "bench", "--contexts", "32", "--batches", "1", "--width", "32", "--rounds", "1"]) == 0
    assert "attribute" in capsys.readouterr().out


@EXTRA
def test_merged_tokens_are_trained_kept_and_played_on(tmp_path: Path, capsys: Any) -> None:
    """Byte-pair merges are learnt on the training pieces, kept as data beside the weights, and refused where they are others."""
    import json

    model, merges = tmp_path / "model", tmp_path / "model" / "merges.json"
    words = ["music", "train", "--corpus", "ryans", "--pieces", "12", "--steps", "2", "--width", "32", "--layers", "1", "--bpe-vocabulary"]
    out = ["--cache", str(tmp_path / "cache"), "--out", str(model), "--json"]
    assert main([*words, "400", "--grouping", "shared", *out]) == 0
    assert json.loads(capsys.readouterr().out)["nats_by_attribute"] == {}
    loaded, tokens = files.load(model)
    assert tokens.vocabularies == (400,) == loaded.options.vocabularies
    prompt = make_piece("x", (4, 4), [(480 * t, 480, 60 + t % 7, 0, 90) for t in range(16)], [0])
    ids = tokens.encode(prompt)
    assert len(ids) < len(Tokens(TokenOptions()).encode(prompt))
    assert np.array_equal(tokens.decode(ids, prompt).notes[:, :3], prompt.notes[:, :3])
    assert main([*words, "400", "--grouping", "attribute", *out]) == 2 and "must be 0 for attribute" in capsys.readouterr().err
    fields = json.loads(merges.read_text(encoding="utf-8"))
    for bad in ({**fields, "_tokenizer_kind": 1}, {**fields, "_vocab_base": {}}, {**fields, "_model": "{}"}, []):
        merges.write_text(json.dumps(bad), encoding="utf-8")
        with pytest.raises(WorkloadError, match="merges"):
            files.load(model)
