"""How alike two passages of one piece are: pitch classes and onsets bar by bar, and the attributes of their notes.

Chroma and groove are the similarities of Wu and Yang (arXiv:2105.04090): cosines of a bar's counts of onsets by pitch class (12) and by
position (sixteenths of a whole note). Attributes: the intersection of two histograms (Swain and Ballard 1991), which is 1 less half their
distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.music.corpus import TICKS_PER_QUARTER, Piece

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
POSITION_TICKS = TICKS_PER_QUARTER // 4


@dataclass(frozen=True)
class Similarity:
    """0 (nothing in common) to 1 of each; ``bars`` were compared."""

    chroma: float
    groove: float
    attribute: float
    bars: int


def bar_ticks(piece: Piece) -> int:
    """Length of a bar by the first meter."""
    return TICKS_PER_QUARTER * 4 * piece.meter[0] // piece.meter[1]


def similarity(made: Piece, true: Piece, first_bar: int, end_bar: int) -> Similarity:
    """Bars ``first_bar`` to ``end_bar`` (not included) of two pieces of one meter, notes counted where they begin.

    Chroma and groove are means over the bars; two empty bars are alike (1), an empty and a full one are not (0). ``attribute`` is the mean
    over pitch, duration, position in the bar and part of the notes of all these bars. WorkloadError without a bar or for two meters.
    """
    if made.meter != true.meter:
        raise WorkloadError(f"meters are {made.meter} and {true.meter}, must be one")
    if end_bar <= first_bar:
        raise WorkloadError(f"end_bar is {end_bar}, must be above first_bar, which is {first_bar}")
    length = bar_ticks(true)
    pair = [_notes(piece, first_bar * length, end_bar * length) for piece in (made, true)]
    chroma, groove = [], []
    for bar in range(end_bar - first_bar):
        inside = [notes[notes[:, 0] // length == bar] for notes in pair]
        chroma.append(_cosine(*(np.bincount(n[:, 2] % 12, minlength=12) for n in inside)))
        groove.append(_cosine(*(np.bincount(n[:, 0] % length // POSITION_TICKS, minlength=-(-length // POSITION_TICKS)) for n in inside)))
    attributes = [_overlap(a, b) for a, b in zip(*(_attributes(notes, length) for notes in pair), strict=True)]
    return Similarity(float(np.mean(chroma)), float(np.mean(groove)), float(np.mean(attributes)), end_bar - first_bar)


def _notes(piece: Piece, begin: int, end: int) -> IntArray:
    """Notes that begin in the range, their starts counted from its begin."""
    notes = piece.notes[(piece.notes[:, 0] >= begin) & (piece.notes[:, 0] < end)].copy()
    notes[:, 0] -= begin
    return notes


def _attributes(notes: IntArray, length: int) -> tuple[IntArray, ...]:
    """Pitch, duration, position in the bar and part of every note."""
    return notes[:, 2], notes[:, 1], notes[:, 0] % length // POSITION_TICKS, notes[:, 3]


def _cosine(a: IntArray, b: IntArray) -> float:
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    return float(a @ b / np.sqrt(float(a @ a) * float(b @ b)))


def _overlap(a: IntArray, b: IntArray) -> float:
    """Sum over values of the smaller of their two shares."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    values = np.union1d(a, b)
    shares: list[FloatArray] = [np.bincount(np.searchsorted(values, x), minlength=len(values)) / len(x) for x in (a, b)]
    return float(np.minimum(*shares).sum())
