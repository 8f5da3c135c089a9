"""Quality of RetinaNet by depth and scale: published average precision on COCO; between the published scales, interpolated.

Ten published models (two depths at five scales). Between two scales of one depth the figure is linear in log2(scale), and its standard
error the root-mean-square error of that rule at the inner published scales, each predicted from its neighbours. Everything else (other
depths, scales outside, another width) is extrapolated: the nearest published figure, marked.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from dse.quality.records import EXTRAPOLATED, INTERPOLATED, PUBLISHED, FloatArray, IntArray, Quality

FULL_WIDTH = 100
# Figures are published to one decimal: uniform over 0.1 points. Their sampling error is not published.
ROUNDING_ERROR = 0.1 / 12**0.5


@dataclass(frozen=True)
class PublishedPrecision:
    """Average precision [%] by depth: {depth: (scales (n,), figures (n,))}, scales rising."""

    points: dict[int, tuple[IntArray, FloatArray]]
    source: str

    name = "retinanet-coco"
    label = "published average precision on COCO test-dev [%]"
    unit = "%"
    knobs = ("resnet_layers", "scale", "width_percent")
    unsupported_knobs = ("width_percent",)
    standard_error_kind = "of interpolation between published scales; published figures carry their rounding alone"

    @property
    def standard_error(self) -> float:
        """Root-mean-square error of the rule at the inner published scales."""
        errors = []
        for scales, figures in self.points.values():
            x = np.log2(scales)
            for i in range(1, len(scales) - 1):
                share = (x[i] - x[i - 1]) / (x[i + 1] - x[i - 1])
                errors.append(figures[i] - (1 - share) * figures[i - 1] - share * figures[i + 1])
        return float(np.sqrt(np.mean(np.square(errors))))

    def predict(self, *, resnet_layers: IntArray, scale: IntArray, width_percent: IntArray) -> Quality:
        """Quality of models given as integer arrays of one shape (n,)."""
        depth, scale, width = np.broadcast_arrays(*map(np.atleast_1d, (resnet_layers, scale, width_percent)))
        mean = np.zeros(depth.shape)
        error = np.full(depth.shape, self.standard_error)
        support = np.full(depth.shape, EXTRAPOLATED, np.int64)
        known = np.array(sorted(self.points))
        nearest = known[np.argmin(np.abs(depth[:, None] - known[None, :]), axis=1)]
        for deep, (scales, figures) in self.points.items():
            mine = nearest == deep
            mean[mine] = np.interp(np.log2(scale[mine]), np.log2(scales), figures)
            regular = (depth == deep) & (width == FULL_WIDTH)
            support[regular & (scale >= scales[0]) & (scale <= scales[-1])] = INTERPOLATED
            at = regular & np.isin(scale, scales)
            support[at], error[at] = PUBLISHED, ROUNDING_ERROR
        return Quality(mean, error, support)

    def describe_refusal(self, resnet_layers: int, scale: int, width_percent: int) -> str:
        """Why a model has no supported quality, in one sentence."""
        depths = " and ".join(map(str, self.points))
        lows, highs = zip(*((int(scales[0]), int(scales[-1])) for scales, _ in self.points.values()), strict=True)
        return (
            f"resnet_layers={resnet_layers}, scale={scale}, width_percent={width_percent} is not among the published models: "
            f"resnet_layers {depths}, scale {max(lows)} to {min(highs)}, width_percent {FULL_WIDTH}"
        )

    def provenance(self) -> dict[str, object]:
        """What a report says of the figures."""
        return {
            "name": self.name,
            "label": self.label,
            "form": "published figures; linear in log2(scale) between two published scales of one depth",
            "standard_error_percent": self.standard_error,
            "standard_error_kind": self.standard_error_kind,
            "points": [
                {
                    "model": f"RetinaNet-{deep}-{scale}",
                    "resnet_layers": deep,
                    "scale": scale,
                    "quality_percent": figure,
                    "source": self.source,
                }
                for deep, (scales, figures) in self.points.items()
                for scale, figure in zip(scales.tolist(), figures.tolist(), strict=True)
            ],
            "unsupported_knobs": list(self.unsupported_knobs),
        }


@lru_cache(maxsize=1)
def retinanet_precision() -> PublishedPrecision:
    """The published figures, read on first use from the table that ships with the package."""
    text = resources.files("dse").joinpath("data/quality_retinanet_coco.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    points = {}
    for deep in sorted({int(row["resnet_layers"]) for row in rows}):
        own = sorted((int(row["scale"]), float(row["average_precision_percent"])) for row in rows if int(row["resnet_layers"]) == deep)
        points[deep] = (np.array([scale for scale, _ in own], np.int64), np.array([figure for _, figure in own]))
    return PublishedPrecision(points, rows[0]["source"])
