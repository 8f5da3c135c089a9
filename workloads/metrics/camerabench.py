"""CameraBench: average precision of VQAScore, the probability of "Yes" as a model's first token (arXiv 2504.15376).

Each record is one video and one description of camera motion: its score and whether the description holds. The average
precision of a description ranks all its videos; the mean over descriptions is the benchmark's classification figure. Pairwise
accuracy (a description's video against a video that it does not hold for) is its question-answering form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, is_number, shorten

FRAMES_PER_S = 8
PROMPT = 'Does this video show "{text}"?'


@dataclass(frozen=True)
class CameraBenchScores:
    """Mean average precision over labels, pairwise accuracy, and what they rest on.

    average_precision: mean over labels with at least one positive; by_label: that of each label; pair_accuracy: share of
    (positive, negative) pairs of a label in the right order, ties half; labels, answers: how many.
    """

    average_precision: float
    pair_accuracy: float | None
    by_label: Mapping[str, float]
    labels: int
    answers: int


def average_precision(scores: npt.ArrayLike, positives: npt.ArrayLike) -> float:
    """Return the average precision of a ranking: sum over thresholds of (recall step) x precision.

    Ties share one threshold, so that the result does not depend on the order of the records (as scikit-learn's
    ``average_precision_score``). ``scores`` (n,) finite, ``positives`` (n,) of 0 and 1 with at least one 1.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positives, dtype=bool)
    if values.shape != truth.shape or values.ndim != 1 or not truth.any():
        raise WorkloadError(f"average precision needs scores and answers of one length with at least one positive, got {values.shape}")
    if not np.isfinite(values).all():
        raise WorkloadError("average precision needs finite scores")
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    ends = np.flatnonzero(np.append(np.diff(values) != 0, True))
    hits = np.cumsum(truth)[ends]
    precision = hits / (ends + 1)
    steps = np.diff(np.concatenate([[0], hits])) / hits[-1]
    return float((steps * precision).sum())


def pair_accuracy(scores: npt.ArrayLike, positives: npt.ArrayLike) -> float | None:
    """Return the share of (positive, negative) pairs that the scores order rightly, ties half; None without pairs."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positives, dtype=bool)
    good, bad = values[truth], np.sort(values[~truth])
    if not len(good) or not len(bad):
        return None
    below, upto = np.searchsorted(bad, good, side="left"), np.searchsorted(bad, good, side="right")
    return float((below + (upto - below) / 2).sum() / (len(good) * len(bad)))


def vqa_score(yes_logit: float, no_logit: float) -> float:
    """Return P(yes) among yes and no from two logits of the first token."""
    return 1.0 / (1.0 + math.exp(min(700.0, max(-700.0, no_logit - yes_logit))))


def score_records(records: Iterable[Mapping[str, Any]], where: str) -> CameraBenchScores:
    """Return the scores of parsed JSON lines; ``where`` names the file in errors.

    A line is ``{"label": "pan left", "score": 0.83, "positive": true}``.
    """
    scores: dict[str, list[float]] = {}
    truth: dict[str, list[bool]] = {}
    count = 0
    for line, record in enumerate(records, start=1):
        label, value, positive = record.get("label"), record.get("score"), record.get("positive")
        if not isinstance(label, str):
            raise WorkloadError(f"{where} line {line}: field 'label' is {shorten(label)!r}, must be a text")
        if not is_number(value):
            raise WorkloadError(f"{where} line {line}: field 'score' is {shorten(value)!r}, must be a finite number")
        if positive not in (0, 1):
            raise WorkloadError(f"{where} line {line}: field 'positive' is {shorten(positive)!r}, must be true or false")
        scores.setdefault(label, []).append(float(value))  # type: ignore[arg-type]
        truth.setdefault(label, []).append(bool(positive))
        count += 1
    kept = {label: average_precision(scores[label], truth[label]) for label in sorted(scores) if any(truth[label])}
    if not kept:
        raise WorkloadError(f"{where} holds no positive answer, at least one label needs one")
    pairs = [pair_accuracy(scores[label], truth[label]) for label in kept]
    known = [pair for pair in pairs if pair is not None]
    return CameraBenchScores(
        average_precision=sum(kept.values()) / len(kept),
        pair_accuracy=sum(known) / len(known) if known else None,
        by_label=kept,
        labels=len(kept),
        answers=count,
    )
