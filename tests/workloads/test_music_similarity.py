"""Similarity of two passages by hand, and continuations of several rows at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from workloads.errors import WorkloadError
from workloads.music.corpus import make_piece
from workloads.music.similarity import Similarity, similarity

Q = 480


def piece(rows: list[tuple[int, int, int, int]], meter: tuple[int, int] = (4, 4)) -> object:
    """Notes (start in quarters, duration in quarters, pitch, part)."""
    return make_piece("x", meter, [(start * Q, duration * Q, pitch, part, 90) for start, duration, pitch, part in rows], (0, 1))


A = piece([(0, 1, 60, 0), (1, 1, 62, 0), (4, 4, 64, 0), (4, 4, 52, 1)])


def test_a_passage_is_like_itself_and_an_octave_keeps_its_chroma() -> None:
    assert similarity(A, A, 0, 2) == Similarity(pytest.approx(1), pytest.approx(1), pytest.approx(1), 2)  # type: ignore[arg-type]
    octave = piece([(0, 1, 72, 0), (1, 1, 74, 0), (4, 4, 76, 0), (4, 4, 64, 1)])
    found = similarity(octave, A, 0, 2)  # type: ignore[arg-type]
    # Of the pitches 60, 62, 64, 52 and 72, 74, 76, 64 one is in both: a quarter of the notes.
    assert (found.chroma, found.groove, found.attribute) == (pytest.approx(1), pytest.approx(1), pytest.approx((0.25 + 1 + 1 + 1) / 4))


def test_cosines_bar_by_bar() -> None:
    # Bar 0: pitch classes (0, 2) against (0, 0): 2 / (sqrt 2 x 2); positions 0, 4 against 0, 0. Bar 1 is empty in one alone.
    other = piece([(0, 1, 60, 0), (0, 1, 48, 1)])
    found = similarity(other, A, 0, 2)  # type: ignore[arg-type]
    assert found.chroma == found.groove == pytest.approx((2 / (2**0.5 * 2) + 0) / 2)
    # Bar 2 is empty in both.
    assert similarity(other, A, 2, 3).chroma == 1  # type: ignore[arg-type]
    # Only the bars that are asked for count.
    assert similarity(other, A, 0, 1).chroma == pytest.approx(2**-0.5)  # type: ignore[arg-type]


def test_it_is_symmetric_and_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        piece([(int(rng.integers(0, 16)), int(rng.integers(1, 4)), int(rng.integers(40, 80)), int(rng.integers(0, 2))) for _ in range(40)])
        for _ in range(6)
    ]
    for a, b in itertools.pairwise(drawn):
        left, right = similarity(a, b, 0, 4), similarity(b, a, 0, 4)  # type: ignore[arg-type]
        assert left == right
        assert all(0 <= x <= 1 for x in (left.chroma, left.groove, left.attribute))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(WorkloadError, match=r"end_bar is 1, must be above first_bar, which is 1"):
        similarity(A, A, 1, 1)  # type: ignore[arg-type]
    with pytest.raises(WorkloadError, match=r"meters are \(4, 4\) and \(3, 4\), must be one"):
        similarity(A, piece([], (3, 4)), 0, 1)  # type: ignore[arg-type]
