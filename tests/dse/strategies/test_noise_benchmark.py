"""The benchmark of noise and proxies: its data, its accounting, and the shape of what it finds."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """benchmarks/noise.py, by path."""
    pytest.importorskip("optuna")
    spec = importlib.util.spec_from_file_location("dse_noise_benchmark", Path(__file__).parents[3] / "benchmarks" / "noise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_architectures_are_distinct_and_costed(bench: ModuleType) -> None:
    d = bench.data()
    assert len(d.rows) == len(np.unique(d.rows, axis=0)) == 299
    assert np.isfinite(d.carbon).all()
    assert (d.carbon > 0).all()
    # What is costed alike but for the layers or the width costs more with more of them.
    for column in (0, 1):
        others = [j for j in range(6) if j != column]
        pairs = [
            (a, b)
            for a in range(len(d.rows))
            for b in range(len(d.rows))
            if d.rows[a, column] < d.rows[b, column] and (d.rows[a, others] == d.rows[b, others]).all()
        ]
        assert len(pairs) > 5
        assert all(d.carbon[a] <= d.carbon[b] for a, b in pairs)
    front = d.front()
    # The price of carbon spans on the front what GLUE spans.
    on_front = np.isin(d.carbon, front[:, 1])
    assert np.ptp(d.price[on_front]) == pytest.approx(np.ptp(front[:, 0]))


def test_no_noise_is_the_truth_and_other_clients_are_asked_each_time(bench: ModuleType) -> None:
    d = bench.data()
    clean = bench.Scores(d.glue, d.mnli, 0, bench.NOISE["none"])
    # The mean of 1,000 equal views: rounding alone.
    assert clean.ask(7) == pytest.approx((d.glue[7], 0.0), rel=1e-12)
    assert clean.ask(7, "low") == pytest.approx((d.mnli[7], 0.0), rel=1e-12)
    noisy = bench.Scores(d.glue, d.mnli, 0, bench.NOISE["3 clients"])
    means, errors = np.array([noisy.ask(7) for _ in range(400)]).T
    # Three of 1,000 clients of standard deviation 8; the population's own mean is within 8/sqrt(1000) x 4 of the truth.
    assert means.std() == pytest.approx(8 / np.sqrt(3), rel=0.15)
    assert means.mean() == pytest.approx(d.glue[7], abs=4 * 8 / np.sqrt(1000) + 4 * means.std() / 20)
    assert (errors > 0).all()


def test_what_is_paid(bench: ModuleType) -> None:
    d = bench.data()
    scores = bench.Scores(d.glue, d.mnli, 0, bench.NOISE["none"])
    tpe = bench._tpe(d.rows, scores, 0, 20)
    assert [e.paid for e in tpe] == list(range(1, 21))
    assert len({e.row for e in tpe}) == 20
    scores = bench.Scores(d.glue, d.mnli, 0, bench.NOISE["none"])
    band = bench._hyperband(d.rows, scores, 0, 20, tpe=False)
    assert len({e.row for e in band}) == len(band)
    paid = [e.paid for e in band]
    assert paid == sorted(paid)
    # Every architecture was asked at the lower rung; those that were pruned there have cost an eighth.
    full = len(band)
    pruned = scores.asked - 2 * full
    assert pruned > 0
    assert paid[-1] <= full + pruned * bench.RUNG_PRICE < 22
    assert bench._best(band, 0.5) == band[0].row
    assert bench._best(band, 20) == max((e for e in band if e.paid <= 20), key=lambda e: e.value).row


@pytest.mark.slow
def test_leads_without_noise_none_with_it_and_a_proxy_that_brings_one_back(bench: ModuleType) -> None:
    d = bench.data()
    true, proxy = d.glue - d.price, d.mnli - d.price

    def lost(method: str, noise: str, seed: int) -> float:
        scores = bench.Scores(true, proxy, seed, bench.NOISE[noise])
        events = {"random": bench._random, "TPE": bench._tpe}[method](d.rows, scores, seed, 64)
        return float(true.max() - true[bench._best(events, 64)])

    def by_proxy(seed: int) -> float:
        events = bench._tpe(d.rows, bench._clean(d, proxy, seed), seed, 64)
        return float(true.max() - true[bench._best(events, 64)])

    seeds = range(12)
    clean = np.array([[lost(m, "none", s) for m in ("random", "TPE")] for s in seeds])
    noisy = np.array([[*(lost(m, "1 client", s) for m in ("random", "TPE")), by_proxy(s)] for s in seeds])
    wins = int((clean[:, 1] < clean[:, 0]).sum() - (clean[:, 1] > clean[:, 0]).sum())
    assert wins >= 6
    assert abs(int((noisy[:, 1] < noisy[:, 0]).sum()) - 6) <= 4  # a coin's: outside with a probability of 0.6 %
    assert (noisy[:, 2] < noisy[:, 0]).sum() >= 10
