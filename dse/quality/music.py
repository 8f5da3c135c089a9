"""Measured quality of the music decoder: held-out likelihood a note of trained models, by head map and merges.

Quality is ``100 * nats a note of multi-head attention without merges / nats a note``, in percent, paired by seed: the mean and standard
error over seeds of ``workloads/music/data/quality.csv``
(trained by benchmarks/music_quality.py from the scores that music21 installs). A model that
was not trained has no quality: its support is ``extrapolated``, its figure that of multi-head attention.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from dse.quality.records import EXTRAPOLATED, MEASURED, FloatArray, IntArray, Quality
from workloads.music.family import GROUPINGS, TRACKS


@dataclass(frozen=True)
class MusicQuality:
    """Measured figures of one corpus: {(grouping, bpe_vocabulary): (mean, standard error, seeds)}, of models ``layers`` x ``hidden``."""

    corpus: str
    layers: int
    hidden: int
    measured: dict[tuple[int, int], tuple[float, float, int]]

    name = "music-likelihood"
    label = "likelihood a note against multi-head attention [%], measured"
    unit = "%"
    unsupported_knobs = ("layers", "hidden")
    standard_error_kind = "the largest, of means over seeds"
    knobs = ("grouping", "bpe_vocabulary", "layers", "hidden")

    @property
    def standard_error(self) -> float:
        """The largest standard error of a measured mean, in points."""
        return max(error for _, error, _ in self.measured.values())

    def predict(self, *, grouping: IntArray, bpe_vocabulary: IntArray, layers: IntArray, hidden: IntArray) -> Quality:
        """Quality of models given as integer arrays of one shape (n,)."""
        columns = np.broadcast_arrays(*map(np.atleast_1d, (grouping, bpe_vocabulary, layers, hidden)))
        mean, error, support = [], [], []
        for g, bpe, deep, wide in zip(*(c.tolist() for c in columns), strict=True):
            known = self.measured.get((g, bpe)) if (deep, wide) == (self.layers, self.hidden) else None
            mean.append(known[0] if known else 100.0)
            error.append(known[1] if known else self.standard_error)
            support.append(MEASURED if known else EXTRAPOLATED)
        return Quality(np.array(mean), np.array(error), np.array(support, dtype=np.int64))

    def describe_refusal(self, grouping: int, bpe_vocabulary: int, layers: int, hidden: int) -> str:
        """Why a model has no measured quality, in one sentence."""
        trained = ", ".join(f"{GROUPINGS[g]}{f' with {bpe} merged tokens' if bpe else ''}" for g, bpe in self.measured)
        return (
            f"grouping={grouping}, bpe_vocabulary={bpe_vocabulary}, layers={layers}, hidden={hidden} was not trained on {self.corpus}; "
            f"measured are {self.layers}x{self.hidden}: {trained}"
        )

    def provenance(self) -> dict[str, object]:
        """What a report says of the measurements."""
        return {
            "name": self.name,
            "label": self.label,
            "measured": True,
            "form": "100 x nats a note of multi-head attention / nats a note, paired by seed",
            "corpus": self.corpus,
            "standard_error_percent": self.standard_error,
            "standard_error_kind": "of the mean over seeds",
            "points": [
                {"model": GROUPINGS[g], "bpe_vocabulary": bpe, "quality_percent": mean, "standard_error": error, "seeds": seeds}
                for (g, bpe), (mean, error, seeds) in self.measured.items()
            ],
            "unsupported_knobs": [],
        }


@lru_cache(maxsize=2)
def music_quality(*, several_tracks: bool) -> MusicQuality:
    """The measurements of one corpus, read on first use from the table that ships with the package."""
    text = resources.files("workloads").joinpath("music/data/quality.csv").read_text(encoding="utf-8")
    corpus = TRACKS[int(several_tracks)]
    rows = [row for row in csv.DictReader(text.splitlines()) if row["corpus"] == corpus and row["start"] == "scratch"]
    nats = {(row["grouping"], int(row["bpe_vocabulary"]), int(row["seed"])): float(row["nats_per_note"]) for row in rows}
    measured = {}
    for name, bpe in dict.fromkeys((name, bpe) for name, bpe, _ in nats):
        ratios: FloatArray = 100 * np.array([nats["mha", 0, s] / value for (n, b, s), value in nats.items() if (n, b) == (name, bpe)])
        error = float(ratios.std(ddof=1) / np.sqrt(len(ratios))) if len(ratios) > 1 else float("nan")
        measured[GROUPINGS.index(name), bpe] = (float(ratios.mean()), error, len(ratios))
    return MusicQuality(corpus, int(rows[0]["layers"]), int(rows[0]["width"]), measured)
