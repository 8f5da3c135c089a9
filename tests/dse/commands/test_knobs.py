"""Knobs by name on the command line: what `workload show` takes, search and evaluate take too."""

from pathlib import Path

import pytest

from dse import cli


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("layers=abc", "not a number"),
        ("cores=abc", "allowed are 1, 2, 4"),
        ("array_kind=sistolic", "did you mean 'systolic'"),
        ("fused_attention=maybe", "true or false"),
    ],
)
def test_a_name_where_none_is_meant_is_a_sentence(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--workload", "bert-tiny", "--set", words]) in (1, 2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_phases_and_switches_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--workload", "llama3-8b", "--hw", "datacenter", "--set", "phase=decode"]) == 0
    assert cli.main(["evaluate", "--workload", "bert-tiny", "--set", "fused_attention=true"]) == 0
    search = ["search", "--workload", "bert-tiny", "--objective", "hardware", "--set", "fused_attention=true", "--set", "cores=1"]
    assert cli.main([*search, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["resume", str(tmp_path / "run")]) == 0
    capsys.readouterr()


def test_a_strategy_of_a_large_space_needs_no_quality(tmp_path: Path) -> None:
    """Named strategies of spaces that nothing sweeps evaluate designs, not models: no evaluator is asked for what it tells."""
    words = ["search", "--workload", "bert-tiny", "--hw", "datacenter", "--objective", "min:latency_s", "--objective", "min:area_mm2"]
    assert cli.main([*words, "--strategy", "random", "--budget", "12", "--out", str(tmp_path / "run")]) == 0
