"""Objectives and constraints as words: what is taken, what is refused and in which words."""

from pathlib import Path

import pytest

from dse.errors import UsageError
from dse.problem.objectives import (
    PRESETS,
    SERVICE_CONSTRAINT,
    Constraint,
    merge_constraints,
    parse_constraint,
    parse_objectives,
)
from dse.spaces import hardware


def test_preset_and_free_objectives() -> None:
    objectives, preset = parse_objectives(["carbon"])
    assert preset is PRESETS["carbon"]
    assert [str(o) for o in objectives] == ["max:quality", "min:total_kgco2e"]
    objectives, preset = parse_objectives(["max:quality", "min:area_mm2"])
    assert preset is None and [o.sign for o in objectives] == [-1.0, 1.0]


EDGE_CONSTRAINTS = hardware.load("edge22", profile=None).default_constraints


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["carbn"], "did you mean 'carbon'"),
        (["min:latency"], "did you mean 'latency_s'"),
        (["least:latency_s"], "allowed are min and max"),
        (["carbon", "min:latency_s"], "stands alone"),
        (["min:latency_s", "max:latency_s"], "given 2 times"),
    ],
)
def test_bad_objectives(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_objectives(texts)


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("latency_s<=0.05", ("latency_s", "<=", 0.05)),
        (" quality >= 8e1 ", ("quality", ">=", 80.0)),
        ("tops<=.5", ("tops", "<=", 0.5)),
    ],
)
def test_constraints(text: str, constraint: tuple[str, str, float]) -> None:
    assert parse_constraint(text) == Constraint(*constraint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency_s<0.05", "METRIC<=NUMBER"),
        ("latncy_s<=1", "did you mean 'latency_s'"),
        ("latency_s<=1e999", "finite"),
        ("", "of the form"),
    ],
)
def test_bad_constraints(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_constraint(text)


def test_a_given_bound_replaces_the_default_of_its_side_only() -> None:
    merged = merge_constraints([parse_constraint("latency_s<=0.2")], defaults=EDGE_CONSTRAINTS, removed=["tops"])
    assert Constraint("latency_s", "<=", 0.2) in merged
    assert Constraint("latency_s", "<=", 0.05) not in merged
    assert not any(c.metric == "tops" for c in merged)
    assert SERVICE_CONSTRAINT in merged
    merged = merge_constraints([parse_constraint("latency_s>=0.001")], defaults=EDGE_CONSTRAINTS, removed=[])
    assert set(EDGE_CONSTRAINTS) <= set(merged)


def test_contradictions_and_more_than_full_service_are_errors() -> None:
    with pytest.raises(UsageError, match="contradict"):
        merge_constraints([parse_constraint("latency_s>=0.1")], defaults=EDGE_CONSTRAINTS, removed=[])
    with pytest.raises(UsageError, match="at most 1"):
        merge_constraints([parse_constraint("utilisation<=1.5")], defaults=EDGE_CONSTRAINTS, removed=[])
    with pytest.raises(UsageError, match="did you mean 'tops'"):
        merge_constraints([], defaults=EDGE_CONSTRAINTS, removed=["top"])


def test_the_edge_limits_are_defaults_of_the_edge_template_only() -> None:
    assert hardware.load("edge22", profile=None).default_constraints == EDGE_CONSTRAINTS
    assert [str(c) for c in hardware.load("a100", profile=None).default_constraints] == ["dram_fill<=1.0"]


def test_a_narrower_space_keeps_the_limits_of_its_template(tmp_path: Path) -> None:
    file = tmp_path / "narrow_edge.toml"
    file.write_text('template = "edge22"\n[knobs]\ncores = [1, 2]\n', encoding="utf-8")
    assert hardware.load_path_or_name(str(file), profile=None).default_constraints == EDGE_CONSTRAINTS
