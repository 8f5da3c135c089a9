"""Scores: the two corpora that the models are trained on, and MIDI files of users.

Corpora are extracted from the files that the package music21 installs on the user's own machine. Their licences do not allow
shipping (music21's corpus: permission of each encoder, some non-commercial), so neither scores nor notes nor tokens of
them are part of this project; what is kept is the cache in a folder of the user.

* ``chorales``: the four-part chorales of J. S. Bach (``bach/*.mxl``), read by music21; several tracks.
* ``ryans``: Ryan's Mammoth Collection (``ryansMammoth/*.abc``), read by symusic; one track. Its reader reports broken notes on
  the standard output and drops them: such files are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, shorten, unknown_name

TICKS_PER_QUARTER = 480
CORPORA = ("chorales", "ryans")
MAX_MIDI_BYTES = 4 * 2**20
MAX_NOTES = 200_000
MAX_QUARTERS = 2**16  # nine hours at 120 a minute; each bar is a token, whether it sounds or not
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Notes of one score, in order of (start, part, pitch).

    Attributes:
        name: file; tune: identity of its melody (pieces of one tune stay on one side of a split).
        meter: (numerator, denominator) of its first bar.
        notes: int64 (notes, 5): start and duration in ticks (480 a quarter), pitch (MIDI), part (0 the first), velocity.
        programs: General MIDI program of each part.
    """

    name: str
    tune: str
    meter: tuple[int, int]
    notes: IntArray
    programs: tuple[int, ...]


def make_piece(name: str, meter: tuple[int, int], rows: Sequence[tuple[int, int, int, int, int]], programs: Sequence[int]) -> Piece:
    """A piece from rows (start, duration, pitch, part, velocity) in any order."""
    notes = np.array(sorted(rows, key=lambda r: (r[0], r[3], r[2], r[1])), dtype=np.int64).reshape(-1, 5)
    first = notes[notes[:, 3] == 0][:17, 2]
    # Melody's first sixteen intervals: transposed settings of one tune have one identity.
    tune = hashlib.sha256(np.diff(first).tobytes()).hexdigest()[:16]
    return Piece(name, tune, meter, notes, tuple(int(p) for p in programs))


def load_corpus(name: str, folder: Path, *, limit: int | None = None) -> list[Piece]:
    """Pieces of a corpus, extracted once into ``folder`` and read from there afterwards.

    ``limit`` takes the first files only (for trials; cached apart). Raises WorkloadError for an unknown name or where music21 or
    symusic is not installed.
    """
    if name not in CORPORA:
        raise unknown_name("corpus", name, CORPORA)
    path = folder / f"{name}{'' if limit is None else f'-{limit}'}.npz"
    if path.is_file():
        return _read_cache(path)
    pieces = list(_chorales(limit) if name == "chorales" else _ryans(limit))
    if not pieces:
        raise WorkloadError(f"corpus {name} holds no score that can be read in the installed music21, must hold at least one")
    folder.mkdir(parents=True, exist_ok=True)
    _write_cache(path, pieces)
    return pieces


def _write_cache(path: Path, pieces: Sequence[Piece]) -> None:
    """One npz without objects: notes end to end, and the texts as fixed-width Unicode."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as stream:
        np.savez_compressed(
            stream,
            names=np.array([p.name for p in pieces]),
            tunes=np.array([p.tune for p in pieces]),
            meters=np.array([p.meter for p in pieces], dtype=np.int64),
            lengths=np.array([len(p.notes) for p in pieces], dtype=np.int64),
            notes=np.concatenate([p.notes for p in pieces]),
            parts=np.array([len(p.programs) for p in pieces], dtype=np.int64),
            programs=np.array([program for p in pieces for program in p.programs], dtype=np.int64),
        )
    os.replace(stream.name, path)


def _read_cache(path: Path) -> list[Piece]:
    with np.load(path, allow_pickle=False) as data:
        ends, part_ends = np.cumsum(data["lengths"]), np.cumsum(data["parts"])
        notes, programs = np.split(data["notes"], ends[:-1]), np.split(data["programs"], part_ends[:-1])
        return [
            Piece(str(name), str(tune), (int(meter[0]), int(meter[1])), rows, tuple(int(p) for p in own))
            for name, tune, meter, rows, own in zip(data["names"], data["tunes"], data["meters"], notes, programs, strict=True)
        ]


def split(pieces: Sequence[Piece], held_out: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Indices (training, held out): whole tunes are held out, in a seeded order, until ``held_out`` pieces are reached."""
    if not 0 < held_out < len(pieces):
        raise WorkloadError(f"held_out is {held_out}, must be 1 to {len(pieces) - 1} of {len(pieces)} pieces")
    tunes = sorted({piece.tune for piece in pieces})
    np.random.default_rng(seed).shuffle(tunes)
    chosen: set[str] = set()
    count = 0
    for tune in tunes:
        if count >= held_out:
            break
        chosen.add(tune)
        count += sum(piece.tune == tune for piece in pieces)
    kept = [i for i, piece in enumerate(pieces) if piece.tune not in chosen]
    return kept, [i for i, piece in enumerate(pieces) if piece.tune in chosen]


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise WorkloadError(f"{module} is not installed, which music needs; install the extra: pip install 'dse-toolkit[music]'")


# Programs that tell the voices apart (General MIDI 73 flute, 68 oboe, 71 clarinet, 70 bassoon): the scores name none. Assumed.
VOICE_PROGRAMS = (73, 68, 71, 70)


def _chorales(limit: int | None) -> Iterator[Piece]:
    _need("music21")
    from music21 import corpus

    paths = sorted(Path(str(path)) for path in corpus.getComposer("bach") if str(path).endswith(".mxl"))
    for path in paths[:limit]:
        try:
            score: Any = corpus.parse(path)
            parts = list(score.parts)
            if len(parts) != len(VOICE_PROGRAMS):
                continue
            yield _from_score(path.name, score, parts)
        except Exception as error:  # noqa: BLE001  music21 raises many kinds; a score that it cannot read is left out and said
            print(f"{path.name} is left out: {shorten(str(error))}", file=sys.stderr)


def _from_score(name: str, score: Any, parts: Sequence[Any]) -> Piece:
    rows: list[tuple[int, int, int, int, int]] = []
    for index, part in enumerate(parts):
        for event in part.stripTies().flatten().notes:
            start, duration = round(float(event.offset) * TICKS_PER_QUARTER), round(float(event.quarterLength) * TICKS_PER_QUARTER)
            rows += [(start, max(duration, 1), int(pitch.midi), index, 90) for pitch in event.pitches]
    meters = list(score.recurse().getElementsByClass("TimeSignature"))
    meter = (int(meters[0].numerator), int(meters[0].denominator)) if meters else (4, 4)
    return make_piece(name, meter, rows, VOICE_PROGRAMS)


def _ryans(limit: int | None) -> Iterator[Piece]:
    _need("music21")
    _need("symusic")
    import symusic

    spec = importlib.util.find_spec("music21")
    folder = Path(str(spec.origin)).parent / "corpus" / "ryansMammoth" if spec else Path()
    for path in sorted(folder.glob("*.abc"))[:limit]:
        with _quiet() as said:
            try:
                score = symusic.Score(str(path))
            except Exception as error:  # noqa: BLE001  the C reader raises several kinds; a tune that it cannot read is left out
                said.append(str(error).encode())
        if any(said) or not score.tracks:
            continue
        yield _from_symusic(path.name, score)


@contextlib.contextmanager
def _quiet() -> Iterator[list[bytes]]:
    """What C code writes to the standard output meanwhile, as bytes in the list that is given, filled at the end."""
    said: list[bytes] = []
    sys.stdout.flush()
    with tempfile.TemporaryFile() as stream:
        kept = os.dup(1)
        os.dup2(stream.fileno(), 1)
        try:
            yield said
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            stream.seek(0)
            said.append(stream.read(4096))


def _from_symusic(name: str, score: Any) -> Piece:
    scale = TICKS_PER_QUARTER / score.ticks_per_quarter
    rows: list[tuple[int, int, int, int, int]] = []
    for index, track in enumerate(score.tracks):
        rows += [
            (round(n.time * scale), max(1, round(n.duration * scale)), int(n.pitch), index, max(1, min(127, int(n.velocity))))
            for n in track.notes
        ]
    meters = score.time_signatures
    meter = (int(meters[0].numerator), int(meters[0].denominator)) if meters else (4, 4)
    return make_piece(name, meter, rows, [128 if track.is_drum else int(track.program) for track in score.tracks])


def read_midi(path: Path) -> Piece:
    """Notes of a MIDI file of a user.

    The chunks are walked before the reader sees the bytes: a file that is missing, empty, too large, truncated or not MIDI is refused,
    and so is one without notes or with more than MAX_NOTES or MAX_QUARTERS (WorkloadError, one sentence).
    """
    _need("symusic")
    import symusic

    try:
        if not path.is_file():
            raise WorkloadError(f"MIDI file {str(path)!r} does not exist or is no file")
        size = path.stat().st_size
        if size > MAX_MIDI_BYTES:
            raise WorkloadError(f"MIDI file {str(path)!r} has {size} bytes, must have at most {MAX_MIDI_BYTES}")
        raw = path.read_bytes()
    except OSError as error:
        raise WorkloadError(f"MIDI file {str(path)!r} cannot be read: {error.strerror or error}") from error
    _check_chunks(raw, str(path))
    with _quiet() as said:
        try:
            score = symusic.Score.from_midi(raw)
        except Exception as error:  # noqa: BLE001  whatever the C reader raises, the file is not readable
            said.append(str(error).encode() or b"unreadable")
            score = None
    if score is None:
        raise WorkloadError(f"MIDI file {str(path)!r} cannot be read: {shorten(said[0].decode(errors='replace'))}")
    if not any(len(track.notes) for track in score.tracks):
        raise WorkloadError(f"MIDI file {str(path)!r} holds no note, must hold at least one")
    count = sum(len(track.notes) for track in score.tracks)
    if count > MAX_NOTES:
        raise WorkloadError(f"MIDI file {str(path)!r} holds {count} notes, must hold at most {MAX_NOTES}")
    quarters = max(note.time + note.duration for track in score.tracks for note in track.notes) / score.ticks_per_quarter
    if quarters > MAX_QUARTERS:
        raise WorkloadError(f"MIDI file {str(path)!r} ends after {quarters:,.0f} quarter notes, must end after at most {MAX_QUARTERS:,}")
    return _from_symusic(path.name, score)


def _check_chunks(raw: bytes, where: str) -> None:
    """Walk the chunks of a standard MIDI file: header of six bytes, as many tracks as it says, all inside the file."""
    if len(raw) < 14 or raw[:4] != b"MThd":
        raise WorkloadError(f"MIDI file {where!r} is {'empty' if not raw else 'not MIDI'}, must begin with a header chunk MThd")
    length, form, tracks, division = struct.unpack(">IHHH", raw[4:14])
    if length < 6 or form > 2 or division == 0 or division & 0x8000:
        raise WorkloadError(
            f"MIDI file {where!r} has a header of length {length}, format {form}, division {division}: not a file in ticks a quarter"
        )
    at, seen = 8 + length, 0
    while at + 8 <= len(raw) and seen < tracks:
        kind, size = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "big")
        if at + 8 + size > len(raw):
            raise WorkloadError(f"MIDI file {where!r} is truncated: a chunk at byte {at} says {size} bytes, {len(raw) - at - 8} are left")
        seen += kind == b"MTrk"
        at += 8 + size
    if seen < tracks or not tracks:
        raise WorkloadError(f"MIDI file {where!r} is truncated: {seen} of {tracks} tracks are there, at least one must be")
