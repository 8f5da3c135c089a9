"""A loop's trace on the engine: critical path, energy, and what the prefix cache saves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dse.cli import main
from dse.serving.reasoning import requests_of
from dse.serving.simulation import Setup, run
from workloads.reasoning import closed_forms as forms
from workloads.reasoning.backends import ScriptedModel
from workloads.reasoning.loops import thought_ics
from workloads.reasoning.traces import Recorder


def right(answer: str | None) -> bool:
    return answer == "yes"


def chain() -> Recorder:
    """Eight thoughts of 60 tokens after a prompt of 450, no error."""
    recorder = Recorder(ScriptedModel(8, 60, 0.0))
    thought_ics("p " * 448 + "p", recorder, level="oracle", correct=right)
    return recorder


def test_prefix_cache_on_the_first_chain() -> None:
    """Closed form: 5,280 tokens of prompts without a cache, 450 with an ideal one (11.7x). Blocks of 16 tokens lose what does not
    fill a block, and the last token of a thought is computed with the next one."""
    requests = requests_of(chain().calls)
    cold, warm = (run(Setup("llama3-8b", "h100", prefix_cache=cache), requests) for cache in (False, True))
    assert cold.outcome.prefill_tokens == forms.chain_tokens(prompt=450, thoughts=8, thought=60, reuse=False).prefill
    kept = [16 * ((450 + 60 * i - 1) // 16) for i in range(1, 8)]  # whole blocks of what the calls before have left in the cache
    assert warm.outcome.prefill_tokens == 5280 - sum(kept)
    assert 9 < cold.outcome.prefill_tokens / warm.outcome.prefill_tokens < 11.7
    assert warm.makespan_s < cold.makespan_s and warm.energy_j.sum() < cold.energy_j.sum()


def test_latency_is_the_critical_path_and_energy_the_sum() -> None:
    served = run(Setup("llama3-8b", "h100"), requests_of(chain().calls))
    assert served.makespan_s == pytest.approx((served.outcome.last_s - served.outcome.arrival_s).sum())
    assert (np.diff(served.outcome.arrival_s) > 0).all()


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loop.jsonl"
    chain().write(path)
    assert main(["simulate", "--workload", "llama3-8b", "--hw", "h100", "--trace", str(path), "--prefix-cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cached_tokens"] > 4000
    assert main(["workload", "from-trace", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"out": str(tmp_path / "loop.toml"), "requests": 8, "prompt_tokens": 5280, "output_tokens": 480}
    assert main(["workload", "show", answer["out"], "--json"]) == 0
    log = tmp_path / "log.csv"
    log.write_text("arrival_s,prompt_tokens,output_tokens\n0,10,5\n1,20,6\n")
    capsys.readouterr()
    assert main(["workload", "from-trace", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == 30
    assert main(["workload", "from-trace", str(tmp_path / "none.csv")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
