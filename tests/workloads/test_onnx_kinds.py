"""ONNX: what is a parameter, graphs inside graphs, old opsets, fused operators of onnxruntime; every count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workloads
from workloads.importers.onnx import dynamic_axes, import_onnx
from workloads.ops import Kind

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dse-toolkit[onnx]'")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
node = helper.make_node
MICROSOFT = "com.microsoft"


def ones(*shape: int, kind: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype=kind)


def info(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: np.ndarray) -> Any:
    return node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def save(folder: Path, nodes: Sequence[Any], inputs: Sequence[Any], stored: dict[str, np.ndarray] | None = None, opset: int = 21) -> str:
    graph = helper.make_graph(
        list(nodes), "g", list(inputs), [info("y", None)], [numpy_helper.from_array(array, name) for name, array in (stored or {}).items()]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return str(path)


# ---- what is a parameter ----


@pytest.mark.parametrize("names", [("conv.weight", "conv.bias"), ("onnx::Conv_497", "onnx::Conv_498"), ("497", "498"), ("w", "b")])
def test_the_names_of_tensors_do_not_matter(names: tuple[str, str], tmp_path: Path) -> None:
    """Two convolutions of one shape: 2 x (16 x 3 x 9 + 16), whatever an exporter calls their tensors."""
    w, b = names
    nodes = [node("Conv", ["x", w, b], ["h"]), node("Conv", ["x", f"{w}1", f"{b}1"], ["k"]), node("Add", ["h", "k"], ["y"])]
    stored = {w: ones(16, 3, 3, 3), b: ones(16), f"{w}1": ones(16, 3, 3, 3), f"{b}1": ones(16)}
    workload = import_onnx(save(tmp_path, nodes, [info("x", [1, 3, 10, 10])], stored))
    assert workload.parameter_count() == 2 * 448
    assert workload.macs() == 2 * 64 * 16 * 27


def test_weights_in_constant_nodes_are_weights(tmp_path: Path) -> None:
    """As converters from TensorFlow write them, also behind a transpose; a number to scale by and the shape are none."""
    nodes = [
        constant("w", ones(3, 3, 2, 4)),
        node("Transpose", ["w"], ["wt"], perm=[3, 2, 0, 1]),
        constant("b", ones(4)),
        node("Conv", ["x", "wt", "b"], ["h"]),
        constant("root", np.array(0.5, dtype=np.float32)),
        node("Mul", ["h", "root"], ["s"]),
        constant("flat", np.array([1, -1])),
        node("Reshape", ["s", "flat"], ["r"]),
        constant("d", ones(4 * 64, 5)),
        node("MatMul", ["r", "d"], ["y"]),
    ]
    workload = import_onnx(save(tmp_path, nodes, [info("x", [1, 2, 10, 10])]))
    assert workload.parameter_count() == 72 + 4 + 256 * 5
    assert workload.macs() == 64 * 72 + 256 * 5
    conv = next(row for row in workload.phases[0].table.rows() if row.kind is Kind.CONV)
    assert conv.second_is_weight


def test_one_element_is_a_bias_by_its_place(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["h"]),
        node("MatMul", ["h", "m"], ["k"]),
        node("Add", ["k", "mb"], ["l"]),
        node("Div", ["l", "scale"], ["p"]),
        node("PRelu", ["p", "slope"], ["y"]),
    ]
    stored = {"w": ones(1, 2, 3, 3), "b": ones(1), "m": ones(8, 1), "mb": ones(1), "scale": ones(1), "slope": ones(1)}
    workload = import_onnx(save(tmp_path, nodes, [info("x", [1, 2, 10, 10])], stored))
    assert workload.parameter_count() == 18 + 1 + 8 + 1 + 1


def test_what_configures_an_operator_is_no_parameter(tmp_path: Path) -> None:
    nodes = [
        node("Resize", ["x", "roi", "scales"], ["r"], mode="linear"),
        node("Clip", ["r", "low", "high"], ["c"]),
        node("Pad", ["c", "pads", "fill"], ["p"]),
        node("Pow", ["p", "powers"], ["q"]),
        node("Conv", ["q", "w"], ["y"]),
    ]
    stored = {
        **{"roi": ones(8), "scales": np.array([1, 1, 2, 2], dtype=np.float32), "low": ones(1), "high": ones(1)},
        **{"pads": np.zeros(8, dtype=np.int64), "fill": np.array(0, dtype=np.float32), "powers": ones(1, 3, 1, 1), "w": ones(2, 3, 1, 1)},
    }
    assert import_onnx(save(tmp_path, nodes, [info("x", [1, 3, 4, 4])], stored)).parameter_count() == 6


def test_quantised_convolutions_keep_their_biases(tmp_path: Path) -> None:
    """QDQ: int8 weight, int32 bias, scales a channel; and the integer operator with its bias of one element."""
    dequantised = [
        node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=0),
        node("DequantizeLinear", ["bq", "bs"], ["b"], axis=0),
        node("Conv", ["x", "w", "b"], ["y"]),
    ]
    stored = {
        **{"wq": ones(4, 3, 3, 3, kind=np.int8), "ws": ones(4), "wz": ones(4, kind=np.int8)},
        **{"bq": ones(4, kind=np.int32), "bs": ones(4)},
    }
    workload = import_onnx(save(tmp_path, dequantised, [info("x", [1, 3, 8, 8])], stored), weight_bits=16)
    assert workload.parameter_count() == 108 + 4
    assert next(row for row in workload.phases[0].table.rows() if row.kind is Kind.CONV).weight_bits == 8
    integer = [node("QLinearConv", ["x", "s", "z", "wq", "s", "z8", "s", "z", "b"], ["y"])]
    stored = {
        **{"s": np.array(0.1, dtype=np.float32), "z": np.array(0, dtype=np.uint8), "z8": np.array(0, dtype=np.int8)},
        **{"wq": ones(1, 3, 3, 3, kind=np.int8), "b": ones(1, kind=np.int32)},
    }
    assert import_onnx(save(tmp_path, integer, [info("x", [1, 3, 8, 8], TensorProto.UINT8)], stored)).parameter_count() == 28


# ---- graphs inside graphs ----


def body(nodes: Sequence[Any], state: Sequence[Any], stored: dict[str, np.ndarray] | None = None, extra: int = 0) -> Any:
    """A loop body with one carried value ``h`` -> ``h2`` and ``extra`` scanned outputs ``e0``..."""
    return helper.make_graph(
        [*nodes, node("Identity", ["go"], ["go2"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("h", state)],
        [info("go2", [], TensorProto.BOOL), info("h2", None), *(info(f"e{index}", None) for index in range(extra))],
        [numpy_helper.from_array(array, name) for name, array in (stored or {}).items()],
    )


LOOP = {"n": np.array(7), "yes": np.array(True)}


@pytest.mark.parametrize("trips", [1, 7, 300_000])
def test_a_loop_runs_every_trip(trips: int, tmp_path: Path) -> None:
    """Its weight, inside or outside, is one weight; the scanned output has an entry a trip; a long loop is as exact as a short one."""
    inner = body(
        [node("MatMul", ["h", "w"], ["a"]), node("MatMul", ["a", "v"], ["h2"]), node("Identity", ["h2"], ["e0"])],
        [2, 4],
        {"v": ones(4, 4)},
        1,
    )
    nodes = [node("Loop", ["n", "yes", "x"], ["l", "all"], body=inner), node("Relu", ["all"], ["y"])]
    stored = {**LOOP, "n": np.array(trips), "w": ones(4, 4)}
    workload = import_onnx(save(tmp_path, nodes, [info("x", [2, 4])], stored))
    assert workload.complete
    assert workload.assumptions == ()
    assert workload.macs() == trips * 2 * 2 * 4 * 4
    assert workload.parameter_count() == 32
    relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
    assert relu.m * relu.n == trips * 2 * 4


def test_a_loop_whose_shapes_grow(tmp_path: Path) -> None:
    """A cache that gains a row a trip: 1 + 2 + ... + 7 rows are multiplied."""
    inner = body([node("MatMul", ["h", "w"], ["m"]), node("Concat", ["h", "row"], ["h2"], axis=0)], ["t", 4])
    nodes = [node("Loop", ["n", "yes", "x"], ["l"], body=inner), node("Relu", ["l"], ["y"])]
    workload = import_onnx(save(tmp_path, nodes, [info("x", [1, 4]), info("row", [1, 4])], {**LOOP, "w": ones(4, 3)}))
    assert workload.macs() == sum(range(1, 8)) * 4 * 3
    relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
    assert (relu.m, relu.n) == (8, 4)


def test_a_loop_that_may_end_early_counts_at_most(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [node("MatMul", ["h", "w"], ["h2"]), node("ReduceMax", ["h2"], ["top"], keepdims=0), node("Less", ["top", "limit"], ["go2"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("h", [2, 4])],
        [info("go2", [], TensorProto.BOOL), info("h2", [2, 4])],
    )
    stored = {**LOOP, "w": ones(4, 4), "limit": np.array(9, dtype=np.float32)}
    workload = import_onnx(save(tmp_path, [node("Loop", ["n", "yes", "x"], ["y"], body=inner)], [info("x", [2, 4])], stored))
    assert workload.macs() == 7 * 32
    assert workload.assumptions == ("Loop 'y' may end early: its 7 trips at most are counted",)
    for missing, reason in (
        (["", "yes", "x"], "its number of trips depends on data"),
        (["m", "yes", "x"], "its number of trips depends on data"),
    ):
        inputs = [info("x", [2, 4]), info("m", [], TensorProto.INT64)]
        workload = import_onnx(save(tmp_path, [node("Loop", missing, ["y"], body=inner)], inputs, stored))
        assert [(item.operation, item.count, item.reason) for item in workload.left_out] == [("Loop", 1, reason)]


def test_a_loop_until_a_known_condition(tmp_path: Path) -> None:
    """No number of trips, but a counter that the file itself fixes: five."""
    inner = helper.make_graph(
        [node("MatMul", ["h", "w"], ["h2"]), node("Less", ["i", "four"], ["go2"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("h", [2, 4])],
        [info("go2", [], TensorProto.BOOL), info("h2", [2, 4])],
    )
    stored = {"yes": np.array(True), "w": ones(4, 4), "four": np.array(4)}
    workload = import_onnx(save(tmp_path, [node("Loop", ["", "yes", "x"], ["y"], body=inner)], [info("x", [2, 4])], stored))
    assert (workload.macs(), workload.complete) == (5 * 32, True)


def test_loops_in_loops_and_left_out_operators_multiply(tmp_path: Path) -> None:
    inner = body([node("MatMul", ["h", "w"], ["h2"]), node("NonZero", ["h2"], ["unused"])], [2, 4])
    outer = helper.make_graph(
        [node("Loop", ["n", "yes", "g"], ["g2"], body=inner), node("Identity", ["on"], ["on2"])],
        "outer",
        [info("j", [], TensorProto.INT64), info("on", [], TensorProto.BOOL), info("g", [2, 4])],
        [info("on2", [], TensorProto.BOOL), info("g2", [2, 4])],
    )
    nodes = [node("Loop", ["three", "yes", "x"], ["y"], body=outer)]
    workload = import_onnx(save(tmp_path, nodes, [info("x", [2, 4])], {**LOOP, "three": np.array(3), "w": ones(4, 4)}))
    assert workload.macs() == 3 * 7 * 32
    assert workload.not_understood == {"NonZero": 21}


@pytest.mark.parametrize("opset", [8, 21])
def test_a_scan_runs_once_a_slice(opset: int, tmp_path: Path) -> None:
    """6 steps of a recurrence by hand; in opset 8 all inputs have a batch axis (3) in front."""
    inner = helper.make_graph(
        [
            node("MatMul", ["t", "w"], ["a"]),
            node("MatMul", ["s", "u"], ["b"]),
            node("Add", ["a", "b"], ["s2"]),
            node("Identity", ["s2"], ["o"]),
        ],
        "scan",
        [info("s", [1, 5]), info("t", [1, 4])],
        [info("s2", [1, 5]), info("o", [1, 5])],
    )
    batch = [3] if opset == 8 else []
    first = [""] if opset == 8 else []
    nodes = [node("Scan", [*first, "s0", "x"], ["last", "all"], body=inner, num_scan_inputs=1), node("Relu", ["all"], ["y"])]
    inputs = [info("s0", [*batch, 1, 5]), info("x", [*batch, 6, 1, 4])]
    workload = import_onnx(save(tmp_path, nodes, inputs, {"w": ones(4, 5), "u": ones(5, 5)}, opset=opset))
    assert workload.complete
    assert workload.macs() == (3 if opset == 8 else 1) * 6 * (4 * 5 + 5 * 5)
    relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
    assert relu.m * relu.n == (3 if opset == 8 else 1) * 6 * 5


# ---- old opsets, axes without names ----


def test_resizing_in_every_opset(tmp_path: Path) -> None:
    conv, stored = node("Conv", ["u", "w"], ["y"]), {"w": ones(4, 3, 1, 1)}
    scales = np.array([1, 1, 3, 2], dtype=np.float32)
    for opset, first, more in (
        (1, node("Upsample", ["x"], ["u"], height_scale=3.0, width_scale=2.0), {}),
        (7, node("Upsample", ["x"], ["u"], scales=[1.0, 1.0, 3.0, 2.0]), {}),
        (9, node("Upsample", ["x", "s"], ["u"]), {"s": scales}),
        (10, node("Resize", ["x", "s"], ["u"]), {"s": scales}),
        (13, node("Resize", ["x", "", "s"], ["u"]), {"s": scales}),
        (13, node("Resize", ["x", "", "", "z"], ["u"]), {"z": np.array([1, 3, 12, 10])}),
        (18, node("Resize", ["x", "", "", "z"], ["u"], axes=[2, 3]), {"z": np.array([12, 10])}),
        (18, node("Resize", ["x", "", "s"], ["u"], axes=[3, 2]), {"s": np.array([2, 3], dtype=np.float32)}),
    ):
        workload = import_onnx(save(tmp_path, [first, conv], [info("x", [1, 3, 4, 5])], {**stored, **more}, opset=opset))
        assert (workload.macs(), workload.parameter_count(), workload.complete) == (12 * 10 * 12, 12, True)


def test_broadcasting_before_opset_7(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"], broadcast=1, axis=1)]
    workload = import_onnx(save(tmp_path, nodes, [info("x", [1, 3, 4, 5])], {"w": ones(4, 3, 1, 1), "b": ones(4)}, opset=6))
    assert (workload.macs(), workload.parameter_count(), workload.complete) == (240, 16, True)


def test_axes_that_are_called_a_question_mark_are_apart(tmp_path: Path) -> None:
    path = save(tmp_path, [node("MatMul", ["x", "w"], ["y"])], [info("x", ["?", "?", 8])], {"w": ones(8, 2)})
    assert dynamic_axes(path) == ("x.0", "x.1")
    assert import_onnx(path, {"x.0": 3, "x.1": 5}).macs() == 3 * 5 * 16


def test_transposed_convolutions(tmp_path: Path) -> None:
    """Products are input positions x weights, whatever the stride, padding, groups or stated output."""
    for attributes in ({"strides": [2, 2]}, {"auto_pad": "SAME_UPPER", "strides": [3, 3]}, {"output_shape": [9, 9], "strides": [2, 2]}):
        nodes = [node("ConvTranspose", ["x", "w", "b"], ["h"], group=2, **attributes), node("Relu", ["h"], ["y"])]
        workload = import_onnx(save(tmp_path, nodes, [info("x", [1, 4, 4, 4])], {"w": ones(4, 3, 3, 3), "b": ones(6)}))
        assert (workload.macs(), workload.parameter_count()) == (16 * 4 * 3 * 9, 108 + 6)
        relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
        side = 12 if "auto_pad" in attributes else 9
        assert relu.m * relu.n == 6 * side * side


# ---- operators of onnxruntime ----


@pytest.mark.parametrize(
    ("a", "b", "attributes"),
    [
        ([2, 5, 4], [2, 3, 4], {"transB": 1}),
        ([2, 4, 5], [2, 4, 3], {"transA": 1}),
        ([2, 4, 5], [2, 3, 4], {"transA": 1, "transB": 1, "alpha": 0.5}),
        ([5, 2, 4], [2, 4, 3], {"transBatchA": 1}),
        ([5, 2, 4], [4, 2, 3], {"transBatchA": 1, "transBatchB": 1}),
    ],
)
def test_fused_matmul(a: list[int], b: list[int], attributes: dict[str, Any], tmp_path: Path) -> None:
    nodes = [node("FusedMatMul", ["p", "q"], ["h"], domain=MICROSOFT, **attributes), node("Relu", ["h"], ["y"])]
    workload = import_onnx(save(tmp_path, nodes, [info("p", a), info("q", b)]))
    assert workload.macs() == 2 * 5 * 4 * 3
    relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
    assert relu.m * relu.n == 2 * 5 * 3


def test_embeddings_with_their_norm(tmp_path: Path) -> None:
    nodes = [
        node("EmbedLayerNormalization", ["ids", "seg", "words", "places", "kinds", "g", "b"], ["h", "mask"], domain=MICROSOFT),
        node("MatMul", ["h", "w"], ["y"]),
    ]
    stored = {"words": ones(50, 8), "places": ones(16, 8), "kinds": ones(2, 8), "g": ones(8), "b": ones(8), "w": ones(8, 4)}
    inputs = [info("ids", [2, 6], TensorProto.INT32), info("seg", [2, 6], TensorProto.INT32)]
    workload = import_onnx(save(tmp_path, nodes, inputs, stored))
    assert workload.complete
    assert workload.macs() == 2 * 6 * 8 * 4
    assert workload.parameter_count() == sum(array.size for array in stored.values())
    assert [row.kind for row in workload.phases[0].table.rows()].count(Kind.EMBEDDING) == 3


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_operators(op: str, layout: int, tmp_path: Path) -> None:
    """steps x batch x gates x hidden x (inputs + hidden), both directions, whatever axis comes first."""
    steps, batch, size, hidden = 5, 3, 8, 16
    gates = {"GRU": 3, "RNN": 1}.get(op, 4)
    more: dict[str, Any] = {} if op == "DynamicQuantizeLSTM" else {"layout": layout}
    x = [batch, steps, size] if more.get("layout") else [steps, batch, size]
    if op == "DynamicQuantizeLSTM":
        stored = {
            "w": ones(2, size, gates * hidden, kind=np.int8),
            "r": ones(2, hidden, gates * hidden, kind=np.int8),
            "b": ones(2, 2 * gates * hidden),
        }
        scales = {"ws": ones(2), "wz": ones(2, kind=np.int8), "rs": ones(2), "rz": ones(2, kind=np.int8)}
        names = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    else:
        stored = {"w": ones(2, gates * hidden, size), "r": ones(2, gates * hidden, hidden), "b": ones(2, 2 * gates * hidden)}
        scales, names = {}, ["x", "w", "r", "b"]
    domain = MICROSOFT if op == "DynamicQuantizeLSTM" else ""
    nodes = [
        node(op, names, ["h", "last"], domain=domain, hidden_size=hidden, direction="bidirectional", **more),
        node("Relu", ["h"], ["y"]),
    ]
    workload = import_onnx(save(tmp_path, nodes, [info("x", x)], {**stored, **scales}))
    assert workload.complete
    assert workload.macs() == 2 * steps * batch * gates * hidden * (size + hidden)
    assert workload.parameter_count() == sum(array.size for array in stored.values())
    relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
    assert relu.m * relu.n == steps * batch * 2 * hidden
    sequential = [row for row in workload.phases[0].table.rows() if row.name.endswith(".state")]
    assert {(row.m, row.n, row.k) for row in sequential} == {(batch, gates * hidden, hidden)}
    assert sum(int(row.repeat) for row in sequential) == 2 * steps


def test_a_window_of_a_grouped_attention_hides_keys_when_fused(tmp_path: Path) -> None:
    nodes = [
        node("GroupQueryAttention", ["q", "k", "v"], ["y"], domain=MICROSOFT, num_heads=4, kv_num_heads=2, local_window_size=3),
    ]
    path = save(tmp_path, nodes, [info("q", [1, 10, 32]), info("k", [1, 10, 16]), info("v", [1, 10, 16])])
    pairs = sum(min(position, 3) for position in range(1, 11))
    assert import_onnx(path, fused_attention=True).macs() == 4 * pairs * 2 * 8
    assert import_onnx(path).macs() == 4 * 100 * 2 * 8


def test_expanded_kv_heads_are_read_once(tmp_path: Path) -> None:
    """Exporters copy each KV head for its query heads (Unsqueeze, Expand, Reshape): the copies are not read."""
    nodes = [
        node("Unsqueeze", ["k", "two"], ["k5"]),
        node("Expand", ["k5", "wide"], ["ke"]),
        node("Reshape", ["ke", "flat"], ["kh"]),
        node("Transpose", ["kh"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["s"]),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "kh"], ["y"]),
    ]
    stored = {"two": np.array([2]), "wide": np.array([1, 2, 4, 9, 5]), "flat": np.array([1, 8, 9, 5])}
    workload = import_onnx(save(tmp_path, nodes, [info("q", [1, 8, 9, 5]), info("k", [1, 2, 9, 5])], stored))
    rows = [(row.batch, row.m, row.n, row.k) for row in workload.phases[0].table.rows() if row.kind is Kind.GEMM]
    assert rows == [(2, 36, 9, 5), (2, 36, 5, 9)]


def test_experts_of_onnxruntime(tmp_path: Path) -> None:
    """6 tokens through 2 of 4 experts of 8 x 16: expected loads, all weights counted."""
    nodes = [node("MoE", ["x", "p", "f1", "b1", "f2", "b2"], ["y"], domain=MICROSOFT, k=2, activation_type="gelu")]
    stored = {"f1": ones(4, 8, 16), "b1": ones(4, 16), "f2": ones(4, 16, 8), "b2": ones(4, 8)}
    workload = import_onnx(save(tmp_path, nodes, [info("x", [6, 8]), info("p", [6, 4])], stored))
    assert workload.macs() == 6 * 2 * 2 * 8 * 16
    assert workload.parameter_count() == sum(array.size for array in stored.values())


def test_a_model_without_these_is_complete(tmp_path: Path) -> None:
    path = save(tmp_path, [node("MatMul", ["x", "w"], ["y"])], [info("x", [2, 8])], {"w": ones(8, 2)})
    workload = workloads.load(path).build()
    assert workload.complete
    assert workload.left_out_sentence() == ""


@pytest.mark.parametrize("shared", [1, 2])
def test_attention_that_is_written_out_is_fused(shared: int, tmp_path: Path) -> None:
    """Scores scaled and masked, softmax, context: one operation that never writes the scores; KV heads read as they are."""
    heads = [node("Unsqueeze", ["k", "two"], ["k5"]), node("Expand", ["k5", "wide"], ["ke"]), node("Reshape", ["ke", "flat"], ["kh"])]
    nodes = [
        *(heads if shared > 1 else [node("Identity", ["k"], ["kh"])]),
        node("Transpose", ["kh"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["s"]),
        node("Div", ["s", "root"], ["d"]),
        node("Add", ["d", "mask"], ["m"]),
        node("Softmax", ["m"], ["p"]),
        node("MatMul", ["p", "kh"], ["c"]),
        node("Relu", ["c"], ["y"]),
    ]
    stored = {
        **{"two": np.array([2]), "wide": np.array([1, 4, 2, 9, 5]), "flat": np.array([1, 8, 9, 5])},
        **{"root": np.array(2, dtype=np.float32), "mask": ones(1, 1, 7, 9)},
    }
    path = save(tmp_path, nodes, [info("q", [1, 8, 7, 5]), info("k", [1, 8 // shared, 9, 5])], stored)
    plain, fused = (import_onnx(path, fused_attention=value) for value in (False, True))
    assert fused.macs() == plain.macs() == 2 * 8 * 7 * 9 * 5
    assert fused.parameter_count() == plain.parameter_count()
    (row,) = [row for row in fused.phases[0].table.rows() if row.kind is Kind.ATTENTION_PREFILL]
    assert (row.batch, row.m, row.n, row.k, row.v_dim, row.kv_share) == (8, 7, 9, 5, 5, shared)
    assert fused.minimum_bytes() == 2 * 8 * 7 * 5 + 2 * (8 // shared) * 9 * 5 + 2 * 8 * 7 * 5  # queries, keys, values, context; relu


def test_scores_that_are_read_elsewhere_stay(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["q", "k"], ["s"]),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "v"], ["c"]),
        node("ReduceSum", ["p"], ["t"], keepdims=0),
        node("Mul", ["c", "t"], ["y"]),
    ]
    path = save(tmp_path, nodes, [info("q", [2, 3, 4]), info("k", [2, 4, 5]), info("v", [2, 5, 4])])
    workload = import_onnx(path, fused_attention=True)
    assert [row.kind for row in workload.phases[0].table.rows()].count(Kind.GEMM) == 2
