"""The BERT surrogate: its table, its error, and above all what it refuses to support."""

import numpy as np
import pytest

from dse.quality.surrogate import EXTRAPOLATED, INTERPOLATED, PUBLISHED, bert_mnli


def _predict(layers: int, hidden: int, ffn: int | None = None, heads: int | None = None):
    return bert_mnli().predict(
        layers=np.array([layers]),
        hidden=np.array([hidden]),
        ffn=np.array([ffn or 4 * hidden]),
        heads=np.array([heads or hidden // 64]),
    )


def test_fit_equals_the_normal_equations_and_loo_equals_refitting() -> None:
    surrogate = bert_mnli()
    x = np.array([[1.0, np.log2(p.layers), np.log2(p.hidden)] for p in surrogate.points])
    y = np.array([p.accuracy_percent for p in surrogate.points])
    assert np.allclose(surrogate.coefficients, np.linalg.solve(x.T @ x, x.T @ y), rtol=1e-9)
    errors = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        fit = np.linalg.lstsq(x[rest], y[rest], rcond=None)[0]
        errors.append(y[i] - x[i] @ fit)
    assert surrogate.standard_error == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=1e-9)


def test_every_published_point_is_published_and_within_three_standard_errors() -> None:
    surrogate = bert_mnli()
    for point in surrogate.points:
        found = _predict(point.layers, point.hidden)
        assert found.support[0] == PUBLISHED
        assert abs(found.mean[0] - point.accuracy_percent) < 3 * surrogate.standard_error


@pytest.mark.parametrize(
    ("layers", "hidden", "support"),
    [(6, 512, INTERPOLATED), (12, 640, INTERPOLATED), (2, 768, EXTRAPOLATED), (12, 128, EXTRAPOLATED), (12, 832, EXTRAPOLATED)],
)
def test_hull(layers: int, hidden: int, support: int) -> None:
    assert _predict(layers, hidden).support[0] == support


def test_other_head_dimension_or_ffn_ratio_has_no_support() -> None:
    assert _predict(12, 768, heads=6).support[0] == EXTRAPOLATED
    assert _predict(12, 768, ffn=1536).support[0] == EXTRAPOLATED
    surrogate = bert_mnli()
    assert "head dimension 128" in surrogate.describe_refusal(12, 768, 3072, 6)
    assert "ratio 4" in surrogate.describe_refusal(12, 768, 1536, 12)
    assert "hull" in surrogate.describe_refusal(2, 768, 3072, 12)


def test_quality_rises_with_depth_and_width() -> None:
    assert _predict(8, 512).mean[0] < _predict(9, 512).mean[0]
    assert _predict(8, 512).mean[0] < _predict(8, 576).mean[0]
