"""A design that is too slow for the request rate is said to be, with how much."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import dse
from dse.cli import main
from dse.errors import DseError


def test_a_design_too_slow_for_the_rate_says_so() -> None:
    answer = dse.evaluate("llama3-8b", hw="edge22", fixed={"sequence": 64})
    assert answer["service_utilisation"] > 1.0
    assert any(f"asks for {answer['service_utilisation']:.3g} times" in reason for reason in answer["infeasible_reasons"])


def test_a_search_that_no_gpu_serves_one_after_the_other_names_what_serves_many_at_once(tmp_path: Path) -> None:
    search = partial(dse.search, "llama3-8b", hw="h100", objective="carbon", rate_per_s=50.0)
    with pytest.raises(DseError, match=r"one after the other \(batch=1\).*`dse tokens --workload llama3-8b --rate 50`.*log\.csv --model"):
        search(out=tmp_path / "one")
    with pytest.raises(DseError, match=r"a request is a batch of 64 prompts"):
        search(out=tmp_path / "many", fixed={"batch": 64})
    with pytest.raises(DseError) as found:
        dse.search("bert-large", hw="h100", objective="carbon", rate_per_s=1e6, out=tmp_path / "bert")
    assert "simulate" not in str(found.value)  # which serves no encoder


def test_the_header_says_what_a_request_is(capsys: pytest.CaptureFixture[str]) -> None:
    at = ("evaluate", "--workload", "llama3-8b", "--hw", "h100")
    assert main([*at, "--set", "batch=64"]) == 0
    told = capsys.readouterr().out
    assert "requests/s (a request is a batch of 64 prompts) for" in told
    assert "sequence=512 (prompt), new_tokens=128" in told
    assert main([*at, "--set", "phase=prefill"]) == 0
    assert "(prompt)" not in (told := capsys.readouterr().out) and "a request is" not in told
    one, many = (dse.evaluate("llama3-8b", hw="h100", fixed={"batch": batch}) for batch in (1, 64))
    assert many["macs"] == 64 * one["macs"]  # so that joules and grams a request are of all 64
