"""What a mix says of its requests holds where nobody says otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse import cli
from dse.evaluation.words import make_problem


@pytest.fixture
def mix(tmp_path: Path) -> str:
    path = tmp_path / "mix.toml"
    path.write_text('[requests]\nrate_per_s = 3.0\ndeadline_s = 0.04\n[[part]]\nworkload = "bert-base"\n')
    return str(path)


def test_of_a_problem(mix: str) -> None:
    problem = make_problem(mix, "hardware")
    assert problem.deployment.rate_per_s == 3.0
    assert ("latency_s", "<=", 0.04) in [(c.metric, c.relation, c.bound) for c in problem.constraints]
    assert make_problem(mix, "hardware", rate_per_s=2.0).deployment.rate_per_s == 2.0
    assert make_problem("bert-base", "hardware").deployment.rate_per_s == 1.0


@pytest.mark.parametrize(("words", "rate"), [([], 3.0), (["--rate", "1"], 1.0)])
def test_on_the_command_line(capsys: pytest.CaptureFixture[str], mix: str, words: list[str], rate: float) -> None:
    assert cli.main(["evaluate", "--workload", mix, "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["deployment"]["rate_per_s"] == rate
