"""A design by its clocks: equal to the run's own figures at full clock, and the hull of an hour's work against a brute force."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import dse
from dse.operate import device
from hw_models.technology.tables import REFERENCE_V, SUPPLIES_V


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("operate") / "run"
    return dse.search("bert", "hardware", hw="edge22", fixed={"layers": 2, "hidden": 128, "ffn": 512, "heads": 2}, out=folder)


def test_full_clock_is_the_run_and_lower_clocks_are_slower_and_cheaper(run) -> None:
    for number in (1, len(run.designs)):
        made = device.of_run(run, number)
        metrics = run.designs[number - 1]["metrics"]
        top = made.fastest
        assert top.clock == 1.0
        assert top.latency_s == pytest.approx(metrics["latency_s"], rel=1e-12)
        assert top.busy_kw * 1e3 * top.latency_s == pytest.approx(metrics["energy_j"], rel=1e-12)
        assert made.embodied_kgco2e == metrics["embodied_kgco2e"]
        points = sorted(made.points, key=lambda p: p.clock)
        for slow, fast in itertools.pairwise(points):
            assert slow.latency_s >= fast.latency_s and slow.busy_kw < fast.busy_kw and slow.supply <= fast.supply
            # the supply falls no further than logic scales, and no request costs more at a lower clock while leakage is small
            assert slow.busy_kw / slow.requests_per_h < fast.busy_kw / fast.requests_per_h
        assert made.sleep_kw == pytest.approx(0.2 * made.idle_kw)


def test_batches_and_limits(run) -> None:
    both = device.of_run(run, 1, batches=[1, 4])
    assert {p.batch for p in both.points} == {1, 4}
    limit = sorted(p.latency_s for p in both.points)[2]
    assert max(p.latency_s for p in device.of_run(run, 1, batches=[1, 4], latency_limit_s=limit).points) <= limit
    for wrong, said in (({"batches": [0]}, "batch is 0"), ({"clocks": [1.5]}, "clock is 1.5"), ({"sleep_share": 2.0}, "sleep share is 2"),
                        ({"latency_limit_s": 1e-12}, "no operating point with a latency")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            device.of_run(run, 1, **wrong)
    with pytest.raises(ValueError, match="design is 999, must be from 1"):
        device.of_run(run, 999)


def test_supply_at_a_clock_closes_timing() -> None:
    from hw_models.technology.tables import logic_delay

    def delay(supply: float) -> float:
        return float(np.ravel(logic_delay(np.array([22.0]), np.array([supply * REFERENCE_V])))[0])

    for clock in (0.5, 0.7, 0.9, 1.0):
        supply = device.supply_at(clock, 22.0)
        assert delay(supply) <= delay(1.0) / clock * (1 + 1e-9)
        lowest = SUPPLIES_V[0] / REFERENCE_V
        assert supply == pytest.approx(lowest) or delay(supply * 0.999) > delay(1.0) / clock
    assert device.supply_at(0.1, 22.0) == pytest.approx(SUPPLIES_V[0] / REFERENCE_V)


def test_the_hull_is_the_least_energy_of_any_mix() -> None:
    made = device.example()
    chips, cap = 5, 0.8
    curve = device.hull(made, chips, cap=cap)
    rng = np.random.default_rng(0)
    assert (np.diff(curve.slopes) > 0).all() and curve.capacity == pytest.approx(chips * cap * 3600)
    for _ in range(2000):
        # any shares of the hour at any points, on any number of chips each
        shares = rng.dirichlet(np.full(len(made.points) + 1, 0.5))[:-1]
        awake = rng.uniform(0, chips, len(shares))
        busy = rng.uniform(0, cap, len(shares))
        work = sum(s * n * b * p.requests_per_h for s, n, b, p in zip(shares, awake, busy, made.points, strict=True))
        kwh = chips * made.sleep_kw + sum(
            s * n * (made.idle_kw - made.sleep_kw + b * (p.busy_kw - made.idle_kw))
            for s, n, b, p in zip(shares, awake, busy, made.points, strict=True)
        )
        assert curve.energy(work) <= kwh * (1 + 1e-12)
    # vertices are points that exist
    for work, kwh, clock in zip(curve.work[1:], curve.kwh[1:], curve.clock[1:], strict=True):
        point = next(p for p in made.points if p.clock == clock)
        assert work == pytest.approx(chips * cap * point.requests_per_h)
        assert kwh == pytest.approx(chips * (0.10 - 0.02) + chips * cap * (point.busy_kw - 0.10))
    chips_awake, clock = curve.running(curve.work[1] / 2)
    assert chips_awake == pytest.approx(chips / 2) and clock == pytest.approx(curve.clock[1])


def test_always_awake_costs_no_less() -> None:
    made = device.example()
    free, fixed = device.hull(made, 4), device.always_on(made, 4, made.fastest)
    work = np.linspace(0, free.capacity, 50)
    assert (free.energy(work) <= fixed.energy(work) + 1e-12).all()
    assert fixed.energy(0.0) == pytest.approx(0.4) and free.energy(0.0) == pytest.approx(0.08)


def test_wrong_devices_are_refused() -> None:
    good = device.example()
    for change, said in (({"points": ()}, "no operating point"), ({"idle_kw": -1.0}, "idle_kw"), ({"sleep_kw": 0.2}, "sleep_kw")):
        with pytest.raises(ValueError, match=said):
            device.Device(**{**vars(good), **change})
    with pytest.raises(ValueError, match="chips is 0"):
        device.hull(good, 0)
