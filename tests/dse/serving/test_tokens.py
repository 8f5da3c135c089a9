"""A million tokens: grams, joules and dollars by their definitions, and the words that the command takes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dse_kernels.serving import Requests

from dse.cli import main
from dse.errors import DseError
from dse.serving import simulation
from dse.serving.sheet import sheet
from dse.serving.tokens import Load, Site, token_cost
from hw_models.devices import library

YEAR_S = 365.25 * 86400
LOAD = Load(concurrency=8, prompt_tokens=128, output_tokens=64)


def cost(grid: str = "400", *, load: Load = LOAD, site: Site | None = None, **words: object):
    return token_cost("llama3-8b", "h100", grid, load=load, site=site or Site(), **words)  # type: ignore[arg-type]


def test_joules_are_those_of_the_engine_times_the_facility() -> None:
    requests = Requests(np.zeros(64), np.full(64, 128), np.full(64, 64))
    served = simulation.run(simulation.Setup("llama3-8b", "h100"), requests, concurrency=8)
    joules_a_token = served.energy_j.sum() / served.output.sum()
    assert cost(site=Site(pue=1.5), tp=1).energy_j_per_million_tokens == pytest.approx(1.5e6 * joules_a_token, rel=1e-12)


def test_grams_are_electricity_and_the_share_of_the_chips_life() -> None:
    found, clean = cost("400", tp=1), cost("1e-9", tp=1)
    embodied_g = 1e3 * sheet("h100").embodied_kgco2e * (1e6 / found.tokens_per_s) / (5 * YEAR_S)
    assert clean.gco2e_per_million_tokens == pytest.approx(embodied_g, rel=1e-6)
    electric_g = found.energy_j_per_million_tokens / 3.6e6 * 400
    assert found.gco2e_per_million_tokens == pytest.approx(embodied_g + electric_g, rel=1e-9)
    assert found.embodied_share == pytest.approx(embodied_g / (embodied_g + electric_g), rel=1e-9)


def test_dollars_are_boards_and_electricity() -> None:
    found = cost(site=Site(electricity_usd_per_kwh=0.0), tp=2)
    board = library.load("h100").capital_usd
    assert board is not None
    assert found.usd_per_million_tokens == pytest.approx(2 * board * 1e6 / found.tokens_per_s / (5 * YEAR_S), rel=1e-9)
    with_power = cost(tp=2).usd_per_million_tokens
    assert with_power == pytest.approx(found.usd_per_million_tokens + found.energy_j_per_million_tokens / 3.6e6 * 0.12, rel=1e-9)


def test_an_idle_machine_costs_its_tokens_more() -> None:
    busy, half = cost(tp=1), cost(load=Load(8, 128, 64, busy_share=0.5), tp=1)
    idle_j = sheet("h100").idle_w * 1.2 * 1e6 / busy.tokens_per_s  # as long idle as busy
    assert half.energy_j_per_million_tokens == pytest.approx(busy.energy_j_per_million_tokens + idle_j, rel=1e-9)
    assert half.gco2e_per_million_tokens * half.embodied_share == pytest.approx(
        2 * busy.gco2e_per_million_tokens * busy.embodied_share, rel=1e-9
    )


def test_a_steady_rate_is_the_open_loop_of_the_engine_and_not_bursts() -> None:
    """Beside a simulation of its own arrivals: 1,000 drawn at random scatter by 3 % in rate, the batches with them."""
    found = cost(load=Load(64, 128, 64, rate_per_s=10.0), tp=1)
    assert found.tokens_per_s == pytest.approx(640.0)
    arrival = np.cumsum(np.random.default_rng(7).exponential(0.1, 4000))
    served = simulation.run(simulation.Setup("llama3-8b", "h100"), Requests(arrival, np.full(4000, 128), np.full(4000, 64)))
    in_flight = 10.0 * (served.outcome.last_s - served.outcome.arrival_s).mean()  # Little's law
    assert found.requests_in_flight == pytest.approx(in_flight, rel=0.05)
    assert found.energy_j_per_million_tokens == pytest.approx(1.2e6 * served.energy_j.sum() / served.output.sum(), rel=0.04)
    embodied_g = 1e3 * sheet("h100").embodied_kgco2e * (1e6 / 640.0) / (5 * YEAR_S)
    assert found.gco2e_per_million_tokens * found.embodied_share == pytest.approx(embodied_g)
    busy = cost(load=Load(64, 128, 64), tp=1)
    bursts = cost(load=Load(64, 128, 64, busy_share=640.0 / busy.tokens_per_s), tp=1)  # the same tokens a year
    assert bursts.energy_j_per_million_tokens < 0.8 * found.energy_j_per_million_tokens  # which is why the two are told apart


def test_a_hardly_asked_machine_draws_its_idle_power() -> None:
    found = cost(load=Load(64, 128, 64, rate_per_s=1e-4), tp=1)
    assert found.energy_j_per_million_tokens == pytest.approx(1.2e6 * sheet("h100").idle_w / (1e-4 * 64), rel=1e-2)


def test_a_rate_above_what_a_chip_serves_is_divided_over_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    """Each replica is a chip at its share of the rate: a token costs the same, and only the fewest replicas that serve it are there."""
    full = cost(load=Load(1024, 128, 64), tp=1)
    most = full.tokens_per_s / 64.0
    assert cost(load=Load(64, 128, 64, rate_per_s=0.97 * most), tp=1).replicas == 1
    for replicas in (2, 3):
        rate = (replicas - 0.5) * most
        several, one = (cost(load=Load(64, 128, 64, rate_per_s=r), tp=1) for r in (rate, rate / replicas))
        assert (several.replicas, several.chips, one.chips) == (replicas, replicas, 1)
        for name in ("gco2e_per_million_tokens", "energy_j_per_million_tokens", "usd_per_million_tokens", "gco2e_per_request", "tpot_ms"):
            assert getattr(several, name) == pytest.approx(getattr(one, name))
        assert several.tokens_per_s == pytest.approx(64.0 * rate)
        assert several.requests_in_flight == pytest.approx(replicas * one.requests_in_flight)
    anyhow = cost(load=Load(64, 128, 64, rate_per_s=2.5 * most))
    assert anyhow.gco2e_per_million_tokens <= several.gco2e_per_million_tokens
    words = ["tokens", "--workload", "llama3-8b", "--grid", "france", "--tp", "1", "--prompt", "128", "--output", "64", "--rate"]
    assert main([*words, f"{1.5 * most:.4g}", "--hw", "h100"]) == 0
    assert "on 2 x h100 (2 replicas of 1) in" in capsys.readouterr().out
    assert main([*words, "5", "--concurrency", "8"]) == 2 and "give one of them" in capsys.readouterr().err
    assert main([*words, "5", "--busy-share", "0.5"]) == 2 and "give one of them" in capsys.readouterr().err


def test_the_number_of_chips_is_the_one_of_least_grams() -> None:
    each = [cost(tp=chips).gco2e_per_million_tokens for chips in (1, 2, 4, 8)]
    assert cost().gco2e_per_million_tokens == min(each)


def test_a_model_of_few_positions_is_served() -> None:
    assert token_cost("gpt2", "l4", "world", load=LOAD, site=Site()).gco2e_per_million_tokens > 0


def test_the_command_prints_one_line_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokens", "--workload", "llama3-8b", "--concurrency", "4", "--output", "16", "--grid", "france"]
    assert main([*words, "--hw", "h100"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "gCO2e" in line and "kJ" in line and "USD a million tokens" in line
    assert main([*words, "--hw", "h100,l4", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["hw"] for row in rows] == ["h100", "l4"] and all(row["gco2e_per_million_tokens"] > 0 for row in rows)
    assert main([*words, "--hw", "h100,l4", "--format", "markdown"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("| ---")
    assert main([*words, "--format", "xml"]) == 2
    assert "text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Load(busy_share=0.0), "busy-share is 0"),
        (lambda: Load(concurrency=0), "concurrency is 0"),
        (lambda: Load(rate_per_s=float("nan")), "rate is nan"),
        (lambda: Site(pue=0.5), "pue is 0.5"),
        (lambda: Site(lifetime_years=float("nan")), "lifetime-years is nan"),
        (lambda: Site(electricity_usd_per_kwh=-1.0), "electricity-usd is -1"),
        (lambda: cost(load=Load(8, 200_000, 64)), "prompt \\+ output"),
        (lambda: token_cost("llama3-70b", "l4", "world", load=LOAD, site=Site(), tp=1), "llama3-70b"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DseError, match=said):
        make()
