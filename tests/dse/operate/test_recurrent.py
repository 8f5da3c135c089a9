"""A policy with a memory: the LSTM by numpy against torch's, its file, and weeks that are run by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.operate import device, scenario, simulation
from dse.operate.agents import bandits, library, network
from dse.operate.features import size

UNITS = 4


@pytest.fixture
def made() -> network.Network:
    rng = np.random.default_rng(0)
    memory = (rng.normal(size=(4 * UNITS, size(1))), rng.normal(size=(4 * UNITS, UNITS)), rng.normal(size=4 * UNITS))
    weights = (rng.normal(size=(3, size(1) + UNITS)), rng.normal(size=(1, 3)))
    return network.Network(weights, (rng.normal(size=3), rng.normal(size=1)), "share", 1, {"a": 1}, memory)


def test_the_memory_is_torchs(made: network.Network) -> None:
    torch = pytest.importorskip("torch")
    lstm = torch.nn.LSTM(size(1), UNITS)
    assert made.recurrent is not None
    with torch.no_grad():
        for name, value in zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), made.recurrent, strict=True):
            getattr(lstm, name).copy_(torch.as_tensor(value))
        lstm.bias_hh_l0.zero_()
    seen = np.random.default_rng(1).normal(size=(30, 2, size(1)))
    expected = lstm(torch.as_tensor(seen, dtype=torch.float32))[0].detach().numpy()
    state = None
    for hour in range(30):
        state = made.remember(seen[hour], state)
        assert state[0] == pytest.approx(expected[hour], abs=1e-4)  # torch in single precision


def test_a_file_keeps_the_memory_and_runs_from_an_empty_one(made: network.Network, tmp_path: Path) -> None:
    policy, _, _ = library.find(str(made.save(tmp_path / "memory.safetensors")))
    weeks = scenario.Scenario(device.example(), ("CISO",)).prepared().weeks("test", most=2)
    once, again = simulation.simulate(weeks, policy), simulation.simulate(weeks, policy)
    assert once.missed.sum() == 0
    assert np.array_equal(once.work, again.work)  # nothing is remembered from one run to the next
    alone = simulation.simulate(weeks.take(1), network.Learnt(made, "same"))
    assert alone.work == pytest.approx(once.work[1:], rel=1e-4, abs=1.0)  # weeks beside it are not seen; the file is in single precision
    forgets = replace(made, recurrent=tuple(np.zeros_like(part) for part in made.recurrent or ()))
    assert not np.allclose(simulation.simulate(weeks, network.Learnt(forgets, "forgets")).work, once.work, rtol=1e-3)


def test_memories_that_are_none(made: network.Network, tmp_path: Path) -> None:
    seen, own, bias = made.recurrent or ()
    with pytest.raises(ValueError, match=r"memory of a policy has weights .* must fit"):
        replace(made, recurrent=(seen[:-1], own, bias))
    with pytest.raises(ValueError, match="not finite"):
        replace(made, recurrent=(seen, own, np.full_like(bias, np.inf)))
    with pytest.raises(ValueError, match="has a stack of 2, must have 1"):
        replace(made, stack=2)
    with pytest.raises(ValueError, match="without a memory"):
        bandits.lifted(made, np.zeros((1, size(1))))
    file = made.save(tmp_path / "p.safetensors")
    file.write_bytes(file.read_bytes().replace(b"lstm_own", b"lstm_oxn"))
    with pytest.raises(ValueError, match="is no policy of dse-operate-1"):
        network.load(file)
    file = made.save(tmp_path / "q.safetensors")
    file.write_bytes(file.read_bytes().replace(b'\\"lstm\\"', b'\\"grup\\"'))
    with pytest.raises(ValueError, match="has memory 'grup', must be 'lstm' or none"):
        network.load(file)


@pytest.mark.slow
def test_imitation_with_a_memory_learns_to_plan() -> None:
    pytest.importorskip("gymnasium")
    from dse.operate.agents import recurrent
    from dse.operate.policies import Now, Plan

    prepared = scenario.Scenario(device.example(), ("CISO",)).prepared()
    learnt = recurrent.imitation(prepared.weeks("train"), rounds=2, epochs=12)
    weeks = prepared.weeks("test")
    outcomes = [simulation.simulate(weeks, policy) for policy in (Now(), network.Learnt(learnt, "lstm"), Plan())]
    now, mine, plan = (o.total_grams for o in outcomes)
    assert outcomes[1].missed.sum() == 0
    assert (now - mine) / (now - plan) > 0.85


@pytest.mark.parametrize(
    ("by", "history", "allowed"), [("dqn", "lstm", "hours from 1 to 24"), ("imitation", "5", "1 or lstm"), ("sac", "2", "1")]
)
def test_a_history_that_a_learner_does_not_take(by: str, history: str, allowed: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dse.cli import main

    assert main(["operate", "learn", "nowhere", "--by", by, "--history", history, "--out", "p.safetensors"]) == 2
    assert capsys.readouterr().err == f"dse: history is {history!r} for {by}, must be {allowed}\n"
