"""Operations that an ONNX file writes out as several nodes: counted as the one operator that they are, where nothing else reads between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workloads
from workloads import summary
from workloads.importers.onnx import import_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dse-toolkit[onnx]'")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
Node = tuple[str, Sequence[str], str]
SHAPE = [2, 6, 16]
SCALARS = {"half": 0.5, "one": 1.0, "root2": 1.4142135, "two": 2.0, "three": 3.0, "cubic": 0.044715, "root": 0.7978845, "quick": 1.702,
           "eps": 1e-5, "minus_half": -0.5}  # fmt: skip
WEIGHTS = {"w": (16,), "b": (16,), "m": (16, 16), "places": (6, 16)}


def read(path: Path, nodes: Sequence[Node], more: Sequence[Any] = ()) -> workloads.Workload:
    """The workload of a graph of ``x`` and ``z`` (2, 6, 16) with the scalars and weights above; means are over the last axis."""
    axes = {"ReduceMean": ["last"]}
    along = {"Gather": {"axis": 1}}
    made = [helper.make_node(op, [*inputs, *axes.get(op, [])], [output], name=output, **along.get(op, {})) for op, inputs, output in nodes]
    stored = [numpy_helper.from_array(np.float32(value), name) for name, value in SCALARS.items()]
    used = {name for step in (*made, *more) for name in step.input}
    places = {"last": np.array([-1]), "first": np.array(0), "ends": np.array([0, 1])}
    stored += [numpy_helper.from_array(value, name) for name, value in places.items()]
    stored += [numpy_helper.from_array(np.random.default_rng(0).normal(size=shape).astype(np.float32), name)
               for name, shape in WEIGHTS.items() if name in used]  # fmt: skip
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "z")]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([*made, *more], "g", infos, [result], [s for s in stored if s.name in used])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
    return import_onnx(path)


def rows(workload: workloads.Workload) -> list[tuple[Any, ...]]:
    """Function, size and parameters of each row."""
    return [
        (row.function or row.kind.name, int(row.m), int(row.n), int(row.k), int(row.repeat), int(row.parameters))
        for row in workload.phases[0].table.rows()
    ]


ERF: list[Node] = [("Div", ("x", "root2"), "s"), ("Erf", ("s",), "e"), ("Add", ("e", "one"), "p")]
INNER: list[Node] = [("Mul", ("u", "cubic"), "c"), ("Add", ("x", "c"), "v"), ("Mul", ("v", "root"), "i"), ("Tanh", ("i",), "t"),
                     ("Add", ("t", "one"), "p")]  # fmt: skip
CUBE: list[Node] = [("Mul", ("x", "x"), "x2"), ("Mul", ("x2", "x"), "u")]
ROOT: list[Node] = [("Sqrt", ("ve",), "sd")]
NORM: list[Node] = [("ReduceMean", ("x",), "mu"), ("Sub", ("x", "mu"), "d"), ("Pow", ("d", "two"), "q"), ("ReduceMean", ("q",), "var"),
                    ("Add", ("var", "eps"), "ve")]  # fmt: skip
RMS: list[Node] = [("Mul", ("x", "x"), "q"), ("ReduceMean", ("q",), "var"), ("Add", ("var", "eps"), "ve")]


@pytest.mark.parametrize(
    ("nodes", "function"),
    [
        ([*ERF, ("Mul", ("x", "p"), "g"), ("Mul", ("g", "half"), "y")], "gelu"),
        ([*ERF, ("Mul", ("x", "half"), "h"), ("Mul", ("h", "p"), "y")], "gelu"),
        ([*ERF, ("Mul", ("p", "half"), "ph"), ("Mul", ("ph", "x"), "y")], "gelu"),
        ([("Pow", ("x", "three"), "u"), *INNER, ("Mul", ("x", "p"), "g"), ("Mul", ("half", "g"), "y")], "gelu_tanh"),
        ([*CUBE, *INNER, ("Mul", ("x", "half"), "h"), ("Mul", ("h", "p"), "y")], "gelu_tanh"),
        ([("Sigmoid", ("x",), "s"), ("Mul", ("x", "s"), "y")], "silu"),
        ([("Mul", ("x", "quick"), "u"), ("Sigmoid", ("u",), "s"), ("Mul", ("x", "s"), "y")], "quick_gelu"),
    ],
)  # fmt: skip
def test_an_activation_is_one_operation(nodes: list[Node], function: str, tmp_path: Path) -> None:
    found = read(tmp_path / "m.onnx", nodes)
    assert rows(found) == [(function, 12, 16, 0, 1, 0)]
    assert any(f"1 {function}" in sentence for sentence in found.assumptions)
    assert f"1 {function}" in summary.as_text(found, peak_tops=1.0, bandwidth_gb_s=1.0)


@pytest.mark.parametrize(
    ("nodes", "function", "parameters"),
    [
        ([*NORM, *ROOT, ("Div", ("d", "sd"), "y")], "layernorm", 0),
        ([*NORM, *ROOT, ("Div", ("d", "sd"), "n"), ("Mul", ("n", "w"), "s"), ("Add", ("s", "b"), "y")], "layernorm", 32),
        ([*NORM, *ROOT, ("Reciprocal", ("sd",), "r"), ("Mul", ("d", "r"), "n"), ("Mul", ("w", "n"), "y")], "layernorm", 16),
        ([*RMS, *ROOT, ("Div", ("x", "sd"), "n"), ("Mul", ("w", "n"), "y")], "rmsnorm", 16),
        ([*RMS, ("Pow", ("ve", "minus_half"), "r"), ("Mul", ("x", "r"), "n"), ("Mul", ("n", "w"), "y")], "rmsnorm", 16),
    ],
)  # fmt: skip
def test_a_norm_is_one_operation(nodes: list[Node], function: str, parameters: int, tmp_path: Path) -> None:
    found = read(tmp_path / "m.onnx", nodes)
    assert rows(found) == [(function, 12, 16, 0, 1, parameters)]


def test_a_bias_belongs_to_its_product(tmp_path: Path) -> None:
    found = read(tmp_path / "m.onnx", [("MatMul", ("x", "m"), "h"), ("Add", ("h", "b"), "y")])
    assert rows(found) == [("GEMM", 12, 16, 16, 1, 16 * 16 + 16)]
    # A row of parameters for every place is added to the product, and is no bias.
    places = read(tmp_path / "p.onnx", [("MatMul", ("x", "m"), "h"), ("Add", ("h", "places"), "y")])
    assert [row[0] for row in rows(places)] == ["GEMM", "add"]
    # What is added to the sum elsewhere is read before the bias.
    twice = read(tmp_path / "t.onnx", [("MatMul", ("x", "m"), "h"), ("Add", ("h", "b"), "a"), ("Mul", ("a", "h"), "y")])
    assert [row[0] for row in rows(twice)] == ["GEMM", "add", "mul"]


@pytest.mark.parametrize(
    "nodes",
    [
        [*ERF, ("Mul", ("x", "p"), "g"), ("Mul", ("g", "e"), "y")],  # erf itself is read once more
        [*ERF, ("Mul", ("z", "p"), "y")],  # gates another tensor
        [("Sigmoid", ("x",), "s"), ("Mul", ("z", "s"), "y")],
        [("Tanh", ("x",), "s"), ("Mul", ("x", "s"), "y")],  # no cubic
        [*ERF, ("Mul", ("p", "w"), "y")],  # scaled by a parameter a column, gates nothing
    ],
)
def test_what_is_no_pattern_stays(nodes: list[Node], tmp_path: Path) -> None:
    assert len(rows(read(tmp_path / "m.onnx", nodes))) == len(nodes)


def test_the_scale_behind_an_activation_that_is_a_parameter_stays(tmp_path: Path) -> None:
    nodes: list[Node] = [("Sigmoid", ("x",), "s"), ("Mul", ("x", "s"), "g"), ("Mul", ("g", "w"), "y")]
    assert [row[0] for row in rows(read(tmp_path / "m.onnx", nodes))] == ["silu", "mul"]


def test_nodes_are_called_by_the_module_that_they_were_exported_from(tmp_path: Path) -> None:
    """torch.onnx's newer exporter numbers its nodes through and states the module's path as metadata: equal layers are rows of one name."""
    made = []
    for layer, (source, result) in enumerate((("x", "h"), ("h", "y"))):
        step = helper.make_node("Tanh", [source], [result], name=f"node_tanh_{layer or ''}")
        entry = step.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', 'layers.{layer}', 'layers.{layer}.mlp', 'tanh_{layer}']"
        made.append(step)
    (row,) = read(tmp_path / "m.onnx", [], made).phases[0].table.rows()
    assert (row.name, row.component, int(row.repeat)) == ("layers.*.mlp.tanh", "ffn", 2)


def test_one_known_place_of_an_activation_is_a_view(tmp_path: Path) -> None:
    """x[:, 0] is no work, as a slice is none; several places, and one that is computed, are gathered."""
    found = read(tmp_path / "m.onnx", [("Gather", ("x", "first"), "h"), ("Relu", ("h",), "y")])
    assert rows(found) == [("relu", 2, 16, 0, 1, 0)]
    several = read(tmp_path / "s.onnx", [("Gather", ("x", "ends"), "h"), ("Relu", ("h",), "y")])
    assert [row[0] for row in rows(several)] == ["gather", "relu"]


def test_the_bits_that_are_counted_are_told(tmp_path: Path) -> None:
    found = read(tmp_path / "m.onnx", [("MatMul", ("x", "m"), "y")])
    assert "weights 256 B at 8 bits" in summary.as_text(found, peak_tops=1.0, bandwidth_gb_s=1.0)
