"""Quality of a model as a number with an error and a statement of what supports it.

BERT has a surrogate: MNLI-matched accuracy, fitted to published GLUE-test figures of one setting (models
pretrained from scratch, then fine-tuned). It is a surrogate, and is called one wherever it is shown: six published
models, two knobs. What the points do not cover is not predicted silently:

* ``support`` is ``published`` (a point of the table), ``interpolated`` (inside the convex hull of the points in the
  plane of log2 layers and log2 hidden) or ``extrapolated`` (anything else, and every model whose head dimension or FFN
  ratio differs from the one that all points share).
* The number of heads at fixed hidden width and the FFN ratio do not enter the fit: no published table of this setting
  varies them, so a search that may choose them takes them for nothing.

Form: accuracy = a + b log2(layers) + c log2(hidden), least squares. The direct contrasts in the table (mini to small:
hidden x2, +2.8; small to medium: layers x2, +2.4) agree with its slopes. The standard error is the leave-one-out
root-mean-square error of the fit.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources

import numpy as np
import numpy.typing as npt

from dse.quality.detector import PublishedPrecision, retinanet_precision
from dse.quality.music import MusicQuality, music_quality
from dse.quality.records import EXTRAPOLATED, INTERPOLATED, MEASURED, PUBLISHED, SUPPORT, Quality
from dse.quality.trained.quality import WORKLOADS, TrainedQuality, trained_quality
from dse.quality.trees import MeasuredRecall

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

__all__ = [
    "EXTRAPOLATED",
    "INTERPOLATED",
    "KNOBS",
    "MEASURED",
    "PUBLISHED",
    "SUPPORT",
    "BertMnliSurrogate",
    "PublishedModel",
    "Quality",
    "bert_mnli",
    "for_workload",
]

# Knobs of a model that BERT's surrogate is asked with.
KNOBS = ("layers", "hidden", "ffn", "heads")

_HEAD_DIM = 64
_FFN_RATIO = 4
# Slack of the hull test, in units of log2: the published points lie on its edge and must count as inside.
_HULL_SLACK = 1e-9


@dataclass(frozen=True)
class PublishedModel:
    """One row of the published table."""

    model: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    accuracy_percent: float
    source: str


@dataclass(frozen=True)
class BertMnliSurrogate:
    """The fit, its points and its error; see the module's docstring for what it may be asked."""

    points: tuple[PublishedModel, ...]
    coefficients: tuple[float, float, float]
    standard_error: float

    name = "bert-mnli"
    label = "MNLI-matched accuracy [%], surrogate"
    unit = "%"
    knobs = KNOBS
    unsupported_knobs = ("heads", "ffn")
    standard_error_kind = "leave-one-out root-mean-square error"

    def predict(self, *, layers: IntArray, hidden: IntArray, ffn: IntArray, heads: IntArray) -> Quality:
        """Accuracy of models given as integer arrays of one shape (n,); extrapolated ones are marked, not refused."""
        layers, hidden, ffn, heads = np.broadcast_arrays(*map(np.atleast_1d, (layers, hidden, ffn, heads)))
        a, b, c = self.coefficients
        mean = a + b * np.log2(layers) + c * np.log2(hidden)
        support = np.full(mean.shape, EXTRAPOLATED, dtype=np.int64)
        regular = (heads * _HEAD_DIM == hidden) & (ffn == _FFN_RATIO * hidden)
        support[regular & self._inside_hull(layers, hidden)] = INTERPOLATED
        for point in self.points:
            same = (layers == point.layers) & (hidden == point.hidden) & regular
            support[same] = PUBLISHED
            # A published model keeps its published figure out of the mean on purpose: one smooth surface, one error.
        return Quality(np.clip(mean, 0.0, 100.0), np.full(mean.shape, self.standard_error), support)

    def _inside_hull(self, layers: IntArray, hidden: IntArray) -> npt.NDArray[np.bool_]:
        inside = np.ones(np.shape(layers), dtype=bool)
        x, y = np.log2(layers), np.log2(hidden)
        corners = _hull_corners([(np.log2(p.layers), np.log2(p.hidden)) for p in self.points])
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= -_HULL_SLACK
        return inside

    def describe_refusal(self, layers: int, hidden: int, ffn: int, heads: int) -> str:
        """Why a model has no supported quality, in one sentence."""
        if heads * _HEAD_DIM != hidden:
            return (
                f"heads={heads} gives head dimension {hidden / heads:g} and every published point has {_HEAD_DIM}, so no figure supports it"
            )
        if ffn != _FFN_RATIO * hidden:
            return (
                f"ffn={ffn} is {ffn / hidden:g} times hidden={hidden} and every published point has ratio "
                f"{_FFN_RATIO}, so no figure supports it"
            )
        names = ", ".join(f"{p.model} ({p.layers}x{p.hidden})" for p in self.points)
        return f"layers={layers}, hidden={hidden} lies outside the hull of the published points {names}"

    def provenance(self) -> dict[str, object]:
        """What a report says of the surrogate."""
        return {
            "name": self.name,
            "label": self.label,
            "form": "a + b log2(layers) + c log2(hidden)",
            "coefficients": list(self.coefficients),
            "standard_error_percent": self.standard_error,
            "standard_error_kind": self.standard_error_kind,
            "points": [vars(point) for point in self.points],
            "unsupported_knobs": list(self.unsupported_knobs),
        }


def _cross(o: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> float:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def _hull_corners(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the convex hull, counter-clockwise (Andrew's monotone chain)."""

    def chain(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
        corners: list[tuple[float, float]] = []
        for point in ordered:
            while len(corners) >= 2 and _cross(corners[-2], corners[-1], point) <= 0:
                corners.pop()
            corners.append(point)
        return corners[:-1]

    ordered = sorted(set(points))
    return chain(ordered) + chain(ordered[::-1])


def _fit(points: tuple[PublishedModel, ...]) -> tuple[FloatArray, float]:
    design = np.array([[1.0, np.log2(p.layers), np.log2(p.hidden)] for p in points])
    accuracy = np.array([p.accuracy_percent for p in points])
    coefficients = np.linalg.lstsq(design, accuracy, rcond=None)[0]
    # Leave-one-out residuals of a linear fit in closed form: residual / (1 - leverage).
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    left_out = (accuracy - design @ coefficients) / (1.0 - leverage)
    return coefficients, float(np.sqrt(np.mean(left_out**2)))


@lru_cache(maxsize=1)
def bert_mnli() -> BertMnliSurrogate:
    """The surrogate of BERT's MNLI-matched accuracy, fitted on first use to the table that ships with the package."""
    text = resources.files("dse").joinpath("data/quality_bert_mnli.csv").read_text(encoding="utf-8")
    points = tuple(
        PublishedModel(
            row["model"],
            int(row["layers"]),
            int(row["hidden"]),
            int(row["heads"]),
            int(row["ffn"]),
            float(row["accuracy_percent"]),
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    )
    coefficients, standard_error = _fit(points)
    a, b, c = (float(value) for value in coefficients)
    return BertMnliSurrogate(points, (a, b, c), standard_error)


# Which surrogate speaks for which workload.
Known = BertMnliSurrogate | MeasuredRecall | MusicQuality | PublishedPrecision | TrainedQuality
_BY_WORKLOAD: dict[str, Callable[[], Known]] = {
    "av-perception": retinanet_precision,
    "bert-base": bert_mnli,
    "music": lambda: music_quality(several_tracks=True),
    "music-single": lambda: music_quality(several_tracks=False),
    "xmc-wordnet": lambda: MeasuredRecall("xmc-wordnet"),
    **{workload: partial(trained_quality, task) for workload, task in WORKLOADS.items()},
}


def for_workload(name: str) -> Known | None:
    """What is known of the quality of a workload's models (by its full name): a surrogate, figures measured here, or None."""
    return _BY_WORKLOAD[name]() if name in _BY_WORKLOAD else None
