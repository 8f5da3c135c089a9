"""Tokens of symbolic music: five tokenisers of miditok, byte-pair merges, and the attribute that each token tells.

REMI (Huang and Yang, arXiv:2002.00212), TSD and Structured/MIDI-Like (Oore et al., arXiv:1808.03715) write one attribute a token;
CPWord (Hsiao et al., arXiv:2101.02402) and Octuple (Zeng et al., arXiv:2106.05630) write several sub-tokens a step, each from a
vocabulary of its own. Byte-pair merges (Fradet et al., arXiv:2301.11975) join tokens of several attributes, so that a merged token
has none.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.music.corpus import TICKS_PER_QUARTER, Piece, _need, make_piece

TOKENISERS = ("remi", "tsd", "midilike", "octuple", "cpword")
_CLASSES = {"remi": "REMI", "tsd": "TSD", "midilike": "MIDILike", "octuple": "Octuple", "cpword": "CPWord"}
ATTRIBUTES = ("time", "instrument", "pitch", "duration", "velocity")
# Kinds of miditok's tokens and what they tell; a kind that is missing here (special tokens, merges) tells no single attribute.
_ATTRIBUTE_OF_KIND = {
    **dict.fromkeys(("Bar", "Position", "TimeShift", "Rest", "TimeSig", "Tempo", "Family"), "time"),
    **dict.fromkeys(("Pitch", "NoteOn", "NoteOff", "PitchDrum", "DrumOn", "DrumOff"), "pitch"),
    "Program": "instrument",
    "Duration": "duration",
    "Velocity": "velocity",
}
IntArray = npt.NDArray[np.int64]
MAX_MERGES_BYTES = 2**24
_MERGES_FIELDS = {
    "_model",
    "_vocab_base",
    "_vocab_base_byte_to_token",
    "config",
    "miditok_version",
    "symusic_version",
    "tokenization",
    "hf_tokenizers_version",
}


@dataclass(frozen=True)
class TokenOptions:
    """What the tokens tell.

    Attributes:
        tokeniser: one of TOKENISERS.
        programs: General MIDI programs told apart (empty: one track, no instrument tokens).
        velocity: whether loudness is told (32 steps).
        bpe_vocabulary: size of the vocabulary after byte-pair merges (0: none); one-vocabulary tokenisers only.
    """

    tokeniser: str = "remi"
    programs: tuple[int, ...] = ()
    velocity: bool = False
    bpe_vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.tokeniser not in TOKENISERS:
            raise unknown_name("tokeniser", self.tokeniser, TOKENISERS)
        if self.bpe_vocabulary and self.tokeniser in ("octuple", "cpword"):
            raise WorkloadError(
                f"bpe_vocabulary is {self.bpe_vocabulary}, must be 0 for {self.tokeniser}, whose steps have several vocabularies"
            )
        if self.bpe_vocabulary < 0:
            raise WorkloadError(f"bpe_vocabulary is {self.bpe_vocabulary}, must be 0 (none) or the size of the vocabulary")


class Tokens:
    """A tokeniser: pieces to ids and back.

    ``ids`` have shape (steps, vocabularies); the ids of vocabulary c start at ``offsets[c]`` of the joint range ``size``. Byte-pair merges
    are learnt on ``training``, or read from the file ``merges`` that :meth:`save` wrote.
    """

    def __init__(self, options: TokenOptions, training: Sequence[Piece] = (), merges: Path | None = None) -> None:
        _need("miditok")
        import miditok

        self.options = options
        config = miditok.TokenizerConfig(
            pitch_range=(21, 109),
            beat_res={(0, 2): 8, (2, 8): 4},
            use_velocities=options.velocity,
            use_programs=bool(options.programs),
            one_token_stream_for_programs=True,
            programs=list(options.programs) or [0],
            encode_ids_split="bar" if options.tokeniser == "remi" else "no",
        )
        self._tokenizer: Any = getattr(miditok, _CLASSES[options.tokeniser])(config)
        if options.bpe_vocabulary and merges is not None:
            self._read(merges)
        elif options.bpe_vocabulary:
            self._merge(training, options.bpe_vocabulary)

    def _merge(self, training: Sequence[Piece], size: int) -> None:
        if not training:
            raise WorkloadError("byte-pair merges need training pieces, none are given")
        if size <= len(self._tokenizer):
            raise WorkloadError(f"bpe_vocabulary is {size}, must be above the {len(self._tokenizer)} single tokens")
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for index, piece in enumerate(training):
                paths.append(Path(folder) / f"{index}.mid")
                self.score(piece).dump_midi(str(paths[-1]))
            self._tokenizer.train(vocab_size=size, model="BPE", files_paths=paths)

    def save(self, path: Path) -> None:
        """Write single tokens and merges as JSON."""
        self._tokenizer.save(path)

    def _read(self, path: Path) -> None:
        """Take the merges of a file; WorkloadError unless it holds these tokens and merges up to the size of the options."""
        size = path.stat().st_size
        if size > MAX_MERGES_BYTES:
            raise WorkloadError(f"{path} has {size} bytes, must have at most {MAX_MERGES_BYTES}")
        fields = json.loads(path.read_text(encoding="utf-8"))
        # miditok sets whatever a file names; only what it writes itself is let through.
        if not isinstance(fields, dict) or not _MERGES_FIELDS >= set(fields) >= {"_model", "_vocab_base", "config"}:
            raise WorkloadError(f"{path} holds no byte-pair merges: its fields must be {', '.join(sorted(_MERGES_FIELDS))}")
        try:
            made = type(self._tokenizer)(params=path)
        except Exception as error:  # the library of the merges raises nothing narrower
            raise WorkloadError(f"{path} holds no byte-pair merges: {shorten(str(error))}") from error
        if made.vocab != self._tokenizer.vocab or made.config != self._tokenizer.config:
            raise WorkloadError(f"{path} holds merges of other tokens than {self.options.tokeniser}'s of this model")
        self._tokenizer = made
        if self.size != self.options.bpe_vocabulary:
            raise WorkloadError(f"{path} holds {self.size} tokens, must hold bpe_vocabulary, which is {self.options.bpe_vocabulary}")

    @property
    def vocabularies(self) -> tuple[int, ...]:
        """Size of each vocabulary (one, but for Octuple and CPWord)."""
        if self._tokenizer.is_multi_voc:
            return tuple(len(v) for v in self._tokenizer.vocab)
        return (int(self._tokenizer.vocab_size if not self.options.bpe_vocabulary else len(self._tokenizer.vocab_model)),)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the ids of each vocabulary begin in the joint range."""
        return tuple(int(x) for x in np.concatenate([[0], np.cumsum(self.vocabularies)[:-1]]))

    @property
    def size(self) -> int:
        """All ids."""
        return sum(self.vocabularies)

    @property
    def start(self) -> int:
        """Id of the token before the first (of the first vocabulary)."""
        return int(self._tokenizer["BOS_None"] if not self._tokenizer.is_multi_voc else self._tokenizer[0, "BOS_None"])

    def attributes(self) -> IntArray:
        """(vocabulary,): index into ATTRIBUTES of every id of a tokeniser with one vocabulary; -1 where it tells several or none.

        Special tokens count as time, so that every unmerged token has an attribute.
        """
        vocabulary = self._tokenizer.vocab
        if self._tokenizer.is_multi_voc:
            raise WorkloadError(
                f"tokens of {self.options.tokeniser} tell several attributes a step, must be of a tokeniser with one vocabulary"
            )
        result = np.full(self.size, -1, dtype=np.int64)
        for name, index in vocabulary.items():
            if index < self.size and not self.options.bpe_vocabulary:
                result[index] = ATTRIBUTES.index(_ATTRIBUTE_OF_KIND.get(name.split("_")[0], "time"))
        return result

    def score(self, piece: Piece, shift: int = 0) -> Any:
        """The piece, ``shift`` semitones higher, as a score of symusic."""
        import symusic

        score = symusic.Score(TICKS_PER_QUARTER)
        score.time_signatures.append(symusic.TimeSignature(0, *piece.meter))
        for index, program in enumerate(piece.programs):
            track = symusic.Track(program=program % 128, is_drum=program == 128, name=f"part {index}")
            own = piece.notes[piece.notes[:, 3] == index]
            for start, duration, pitch, _, velocity in own.tolist():
                track.notes.append(symusic.Note(start, duration, pitch + shift, velocity))
            score.tracks.append(track)
        return score

    def encode(self, piece: Piece, shift: int = 0) -> IntArray:
        """Ids of the piece, shape (steps, vocabularies)."""
        made = self._tokenizer.encode(self.score(piece, shift))
        sequence = made if not isinstance(made, list) else made[0]
        ids = np.asarray(sequence.ids, dtype=np.int64)
        return ids[:, None] if ids.ndim == 1 else ids

    def decode(self, ids: IntArray, like: Piece) -> Piece:
        """The piece that ids tell; what is not music in them (an order that the grammar does not have) is left out by miditok."""
        from miditok import TokSequence

        rows: Any = ids[:, 0].tolist() if ids.shape[1] == 1 else ids.tolist()
        sequence = TokSequence(ids=rows, are_ids_encoded=bool(self.options.bpe_vocabulary))
        score = self._tokenizer.decode(sequence if self.options.programs else [sequence])
        scale = TICKS_PER_QUARTER / score.ticks_per_quarter
        programs = list(like.programs)
        notes = [
            (round(n.time * scale), max(1, round(n.duration * scale)), int(n.pitch), self._part(track, programs), int(n.velocity))
            for track in score.tracks
            for n in track.notes
        ]
        return make_piece(like.name, like.meter, notes, programs)

    @staticmethod
    def _part(track: Any, programs: Sequence[int]) -> int:
        program = 128 if track.is_drum else int(track.program)
        return programs.index(program) if program in programs else 0

    def note_count(self, piece: Piece) -> int:
        """Notes of the piece that the tokens can tell (pitch in range)."""
        return int(((piece.notes[:, 2] >= 21) & (piece.notes[:, 2] < 109)).sum())


def tokens_per_note(tokens: Tokens, pieces: Sequence[Piece]) -> float:
    """Steps a note over all pieces together."""
    steps = sum(len(tokens.encode(piece)) for piece in pieces)
    return steps / sum(tokens.note_count(piece) for piece in pieces)
