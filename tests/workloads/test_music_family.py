"""The family ``music``: equal parameters, KV bytes of groupings, tokens from the measured table, and its measured quality."""

from __future__ import annotations

import csv
from importlib import resources

import numpy as np
import pytest

import dse
import workloads
from dse.evaluation.words import make_problem
from dse.quality import surrogate
from workloads.errors import WorkloadError
from workloads.music.family import GROUPINGS
from workloads.music.groupings import groupings


def test_groupings_have_equal_parameters_and_the_bytes_of_their_heads() -> None:
    family = workloads.load("music")
    made = [family.build(grouping=g) for g in range(len(GROUPINGS))]
    sizes = np.array([workload.parameter_count() for workload in made])
    assert np.ptp(sizes) <= 0.002 * sizes.mean()  # biases of the wider networks
    kv = {name: workload.kv_cache_bytes() for name, workload in zip(GROUPINGS, made, strict=True)}
    assert kv["gqa4"] == kv["mha"] / 2 and kv["mqa"] == kv["mha"] / 8 and kv["shared"] == kv["gqa4"]
    # Shares of attributes sum to 1 (to the table's four digits): a token is stored in one group.
    assert kv["attribute"] == pytest.approx(kv["mqa"], rel=2e-4)
    assert kv["mixed"] == pytest.approx(kv["gqa2"], rel=2e-4)


def test_numbers_of_the_knob_are_the_groupings_of_the_trained_models() -> None:
    for several, name in ((True, "music"), (False, "music-single")):
        known = groupings(("instrument",) if several else ())
        for number, grouping in enumerate(GROUPINGS):
            made = workloads.load(name).build(grouping=number)
            assert made.dimensions["kv_heads"] == known[grouping].map.kv_heads


def test_many_models_at_once_cost_what_each_costs() -> None:
    family = workloads.load("music")
    grid = family.model_grid()
    together = family.build(**grid)
    for i in range(len(grid["grouping"])):
        alone = family.build(**{name: int(column[i]) for name, column in grid.items()})
        assert np.asarray(together.macs())[i] == alone.macs()
        assert np.asarray(together.kv_cache_bytes())[i] == alone.kv_cache_bytes()
        assert np.asarray(together.parameter_count())[i] == alone.parameter_count()


def test_tokens_follow_the_tokeniser() -> None:
    family = workloads.load("music")
    remi, octuple = family.build(), family.build(tokeniser=3)
    assert remi.dimensions["new_tokens"] == 347 and octuple.dimensions["new_tokens"] == 100
    with pytest.raises(WorkloadError, match="grouping is 5"):
        family.build(grouping=5, bpe_vocabulary=1000)
    with pytest.raises(WorkloadError, match="bpe_vocabulary of remi is 7, must be one of"):
        family.build(bpe_vocabulary=7)


def test_quality_is_the_table_paired_by_seed() -> None:
    text = resources.files("workloads").joinpath("music/data/quality.csv").read_text(encoding="utf-8")
    rows = [
        r for r in csv.DictReader(text.splitlines()) if r["corpus"] == "chorales" and r["bpe_vocabulary"] == "0" and r["start"] == "scratch"
    ]
    by = {(r["grouping"], r["seed"]): float(r["nats_per_note"]) for r in rows}
    ratios = [100 * by["mha", s] / by["mqa", s] for s in ("0", "1", "2")]
    speaker = surrogate.for_workload("music")
    assert speaker is not None
    found = speaker.predict(
        grouping=np.array([3, 0, 3]), bpe_vocabulary=np.zeros(3, int), layers=np.array([2, 2, 4]), hidden=np.full(3, 128)
    )  # type: ignore[call-arg]
    assert found.mean[0] == pytest.approx(np.mean(ratios)) and found.standard_error[0] == pytest.approx(np.std(ratios, ddof=1) / 3**0.5)
    assert found.mean[1] == 100 and [surrogate.SUPPORT[s] for s in found.support] == ["measured", "measured", "extrapolated"]
    # The family counts the parameters that the trained models had, which are equal to the biases of the wider networks.
    for row in rows:
        built = workloads.load("music").build(grouping=GROUPINGS.index(row["grouping"]))
        assert built.parameter_count() == int(row["parameters"])
    assert np.ptp([int(r["parameters"]) for r in rows]) <= 0.002 * int(rows[0]["parameters"])


@pytest.mark.parametrize("objective", ["latency", "carbon"])
def test_search_over_groupings(objective: str, tmp_path: object) -> None:
    study = dse.search("music", objective=objective, hw="edge22", out=tmp_path)
    front = study.pareto()
    assert len(set(front["grouping"])) >= 3 and set(front["quality_support"]) == {"measured"}


def test_the_deadline_is_the_time_in_which_the_notes_are_played() -> None:
    """120 beats a minute, sixteenths, four voices: 32 notes a second; it holds in a search unless it is removed or replaced."""
    assert workloads.load("music").deadline_s() == pytest.approx(100 / 32)
    assert workloads.load("music").deadline_s(tempo_bpm=60, new_notes=50, bpe_vocabulary=1000) == pytest.approx(50 / 16)
    assert workloads.load("music-single").deadline_s(notes_per_beat=2) == pytest.approx(100 / 4)
    assert workloads.load("bert").deadline_s() is None

    def bounds(**words: object) -> dict[str, float]:
        problem = make_problem("music", "latency", **words)
        return {c.metric: c.bound for c in problem.constraints}

    assert bounds()["latency_s"] == pytest.approx(3.125)
    assert bounds(fixed={"tempo_bpm": 240})["latency_s"] == pytest.approx(1.5625)
    assert bounds(constraints=["latency_s<=1"])["latency_s"] == 1.0
    assert "latency_s" not in bounds(no_constraint=["latency_s"])
    assert "latency_s" not in bounds(default_constraints=False)
