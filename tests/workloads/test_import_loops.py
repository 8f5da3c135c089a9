"""Layers that repeat one another become loops without leaving the order of the graph; batch norms are folded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import dse
import workloads
from workloads.importers.loops import loops

torch = pytest.importorskip("torch")
from workloads.importers.module import import_module  # noqa: E402 - needs torch

RECORD = """
name = "nine"
family = "convnet"
[dimensions]
network = "conv 8 3; conv 8 3 2; conv 8 3; conv 8 3 2; conv 8 3; conv 8 3; average; dense 10"
[defaults]
resolution = 16
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abcbcd", [("a", 1), ("b", 2), ("c", 2), ("d", 1)]),
        ("aaa", [("a", 3)]),
        ("abbabb", [("a", 2), ("b", 4)]),
        ("abcab", [(letter, 1) for letter in "abcab"]),
        ("", []),
    ],
)
def test_loops_are_what_stands_side_by_side(text: str, expected: list[tuple[str, int]]) -> None:
    found = loops(text, [False] * len(text))
    assert [(text[places[0]], runs) for places, runs in found] == expected
    assert sorted(place for places, _ in found for place in places) == list(range(len(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cRcRcR", [("c", 3), ("R", 3)]),
        ("xRcRc", [("x", 1), ("R", 1), ("c", 1), ("R", 1), ("c", 1)]),  # R belongs to the x before it
        ("xRcRcR", [("x", 1), ("R", 1), ("c", 2), ("R", 2)]),
        ("cccR", [("c", 2), ("c", 1), ("R", 1)]),  # the last c has its own R
    ],
)
def test_a_loop_keeps_a_function_with_the_operation_before_it(text: str, expected: list[tuple[str, int]]) -> None:
    found = loops(text, [letter == "R" for letter in text])
    assert [(text[places[0]], runs) for places, runs in found] == expected


def test_every_place_is_counted_once_whatever_the_sequence() -> None:
    draw = random.Random(3)
    for _ in range(200):
        text = "".join(draw.choice("abR") for _ in range(draw.randrange(14)))
        found = loops(text, [letter == "R" for letter in text])
        assert sorted(place for places, _ in found for place in places) == list(range(len(text)))
        assert all(len(places) == runs and {text[p] for p in places} == {text[places[0]]} for places, runs in found)


def network(norm: Any = torch.nn.BatchNorm2d, **options: object) -> Any:
    layers: list[Any] = []
    for index in range(6):
        layers += [torch.nn.Conv2d(8 if index else 3, 8, 3, stride=2 if index in (1, 3) else 1, padding=1, bias=False)]
        layers += [norm(8, **options), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 10))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_model_costs_the_same_as_module_record_and_onnx(tmp_path: Path) -> None:
    """Every combination of sources, where a chain of results on chip decides the cost."""
    (tmp_path / "nine.toml").write_text(RECORD)
    module = network().eval()
    example = torch.zeros(1, 3, 16, 16)
    pytest.importorskip("onnx")
    torch.onnx.export(module, (example,), str(tmp_path / "nine.onnx"), dynamo=False)
    costs = [
        dse.evaluate(module, hw="edge22", example=example),
        dse.evaluate(str(tmp_path / "nine.toml"), hw="edge22"),
        dse.evaluate(str(tmp_path / "nine.onnx"), hw="edge22"),
    ]
    for metric in ("latency_s", "energy_j"):
        assert costs[0][metric] == pytest.approx(costs[1][metric], rel=1e-9) == costs[2][metric]


def test_only_a_batch_norm_with_constant_statistics_behind_its_own_product_is_folded() -> None:
    example = torch.zeros(1, 3, 16, 16)
    folded = import_module(network(), (example,))
    assert not any(row.function == "batchnorm" for row in folded.phases[0].table.rows())
    assert any("folded" in sentence and "6 batch norm" in sentence for sentence in folded.assumptions)
    assert folded.parameter_count() == sum(parameter.numel() for parameter in network().parameters())
    own = import_module(network(track_running_stats=False), (example,))
    assert sum(row.function == "layernorm" for row in own.phases[0].table.rows()) > 0
    first = import_module(torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Conv2d(3, 8, 3)), (example,))
    assert any(row.function == "batchnorm" for row in first.phases[0].table.rows())


class Branch(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A convolution whose result is read beside the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)

    def forward(self, x: Any) -> Any:
        made = self.conv(x)
        return self.norm(made) + made


def test_a_result_that_others_read_too_keeps_its_norm() -> None:
    rows = list(import_module(Branch(), (torch.zeros(1, 3, 8, 8),)).phases[0].table.rows())
    assert any(row.function == "batchnorm" for row in rows)


def test_functions_belong_to_the_component_that_they_follow(tmp_path: Path) -> None:
    (tmp_path / "nine.toml").write_text(RECORD)
    for table in (
        import_module(network(), (torch.zeros(1, 3, 16, 16),)).phases[0].table,
        workloads.load(str(tmp_path / "nine.toml")).build().phases[0].table,
    ):
        assert {row.component for row in table.rows() if row.function == "relu" or row.kind.name == "CONV"} == {"convolutions"}
