"""ONNX: files of torch.onnx and files by hand, dynamic axes, quantisation, fused operators, external data, hostile bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workloads
from workloads.compare import differences
from workloads.importers.onnx import dynamic_axes, import_onnx
from workloads.ops import Kind

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dse-toolkit[onnx]'")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

SEED = 11
RANDOM = np.random.default_rng(0)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, Sequence[Any]],
    stored: dict[str, np.ndarray] | None = None,
    output: str = "y",
    **model: Any,
) -> str:
    """Write a model of float inputs; stored arrays become initializers."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, model.pop(f"type_{name}", TensorProto.FLOAT), shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (stored or {}).items()],
    )
    opsets = model.pop("opsets", [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, **model), path)
    return str(path)


def weight(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), list(outputs), name="/".join(outputs), **attributes)


def products(workload: workloads.Workload) -> list[tuple[int, ...]]:
    return [
        (int(row.batch), int(row.groups), int(row.m), int(row.n), int(row.k), int(row.second_is_weight))
        for row in workload.phases[0].table.rows()
        if row.kind in (Kind.GEMM, Kind.CONV)
    ]


def test_dynamic_axes_are_bound(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "w"], ["h"]), node("Shape", ["h"], ["s"]), node("Reshape", ["h", "flat"], ["y"])],
        {"x": ["batch", "tokens", 8]},
        {"w": weight(8, 16), "flat": np.array([-1, 16])},
    )
    assert dynamic_axes(path) == ("batch", "tokens")
    workload = workloads.load(path, bind={"batch": 2, "tokens": 10}).build()
    assert products(workload) == [(1, 1, 20, 16, 8, 1)]
    assert workload.parameter_count() == 128
    assert workload.dimensions["tokens"] == 10
    for bind, words in (
        ({}, "dynamic axes that are not bound: batch, tokens"),
        ({"batch": 1}, "not bound: tokens"),
        ({"batch": 1, "token": 2, "tokens": 3}, "'token', must be one of batch, tokens; nearest is 'tokens'"),
        ({"batch": 0, "tokens": 3}, "'batch' is bound to 0"),
    ):
        with pytest.raises(workloads.WorkloadError) as caught:
            import_onnx(path, bind)
        assert words in str(caught.value)
        assert path in str(caught.value)
    unnamed = save(tmp_path / "u.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": [None, 8]}, {"w": weight(8, 16)})
    assert dynamic_axes(unnamed) == ("x.0",)
    assert products(import_onnx(unnamed, {"x.0": 5})) == [(1, 1, 5, 16, 8, 1)]
    with pytest.raises(workloads.WorkloadError, match="has no dynamic axis"):
        import_onnx(save(tmp_path / "s.onnx", [node("Relu", ["x"], ["y"])], {"x": [1]}), {"n": 1})


def test_shape_arithmetic_is_evaluated(tmp_path: Path) -> None:
    """The split of heads as exporters write it: sizes gathered from Shape, computed, concatenated."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Gather", ["s", "one"], ["t"]),
        node("Mul", ["b", "one"], ["b1"]),
        node("Unsqueeze", ["b1", "axis"], ["b2"]),
        node("Unsqueeze", ["t", "axis"], ["t2"]),
        node("Concat", ["b2", "t2", "heads", "minus"], ["target"], axis=0),
        node("MatMul", ["x", "w"], ["q"]),
        node("Reshape", ["q", "target"], ["qh"]),
        node("Transpose", ["qh"], ["qt"], perm=[0, 2, 1, 3]),
        node("Transpose", ["qh"], ["kt"], perm=[0, 2, 3, 1]),
        node("MatMul", ["qt", "kt"], ["scores"]),
        node("Softmax", ["scores"], ["p"]),
        node("MatMul", ["p", "qt"], ["y"]),
    ]
    stored = {
        "w": weight(12, 12),
        "zero": np.array(0),
        "one": np.array(1),
        "axis": np.array([0]),
        "heads": np.array([3]),
        "minus": np.array([-1]),
    }
    path = save(tmp_path / "m.onnx", nodes, {"x": ["b", "t", 12]}, stored)
    workload = import_onnx(path, {"b": 2, "t": 7})
    assert workload.not_understood == {}
    assert products(workload) == [(1, 1, 14, 12, 12, 1), (6, 1, 7, 7, 4, 0), (6, 1, 7, 4, 7, 0)]
    assert workload.parameter_count() == 144


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bsd,de->bse", [(2, 5, 8), (8, 3)], (1, 1, 10, 3, 8)),
        ("bhsd,bhtd->bhst", [(2, 3, 5, 4), (2, 3, 6, 4)], (6, 1, 5, 6, 4)),
        ("...ij,...jk->...ik", [(2, 3, 5, 4), (2, 3, 4, 6)], (6, 1, 5, 6, 4)),
        ("ij,jk", [(5, 4), (4, 6)], (1, 1, 5, 6, 4)),
        ("bd,bd->b", [(3, 8), (3, 8)], (3, 1, 1, 1, 8)),
        ("i,j->ij", [(3,), (4,)], (1, 1, 3, 4, 1)),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]], expected: tuple[int, ...], tmp_path: Path) -> None:
    inputs: dict[str, Sequence[Any]] = {f"x{i}": shape for i, shape in enumerate(shapes)}
    path = save(tmp_path / "m.onnx", [node("Einsum", list(inputs), ["y"], equation=equation)], inputs)
    workload = import_onnx(path)
    batch, _, m, n, k = expected
    assert workload.macs() == batch * m * n * k
    # numpy is the independent judge of the result's shape, through which MACs follow: every output sums k products.
    result = np.einsum(equation, *[np.ones(shape) for shape in shapes])
    assert workload.macs() == result.size * k
    assert np.all(result == k)


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5),
        # The first product keeps b (a batch of the second), the second sums over j and d.
        ("bij,bjd,bd->bi", [(2, 3, 4), (2, 4, 5), (2, 5)], 2 * 3 * 4 * 5 + 2 * 3 * 5),
        ("i,j,k->ijk", [(2,), (3,), (4,)], 2 * 3 + 2 * 3 * 4),
        ("ab,bc,cd,de", [(2, 3), (3, 4), (4, 5), (5, 6)], 2 * 3 * 4 + 2 * 4 * 5 + 2 * 5 * 6),
    ],
)
def test_einsum_of_many_operands_is_products_from_left_to_right(
    equation: str, shapes: list[tuple[int, ...]], macs: int, tmp_path: Path
) -> None:
    inputs: dict[str, Sequence[Any]] = {f"x{i}": shape for i, shape in enumerate(shapes)}
    path = save(tmp_path / "m.onnx", [node("Einsum", list(inputs), ["h"], equation=equation), node("Relu", ["h"], ["y"])], inputs)
    workload = import_onnx(path)
    assert workload.complete
    assert workload.macs() == macs
    relu = next(row for row in workload.phases[0].table.rows() if row.function == "relu")
    assert relu.m * relu.n == np.einsum(equation, *[np.ones(shape) for shape in shapes]).size


def test_an_einsum_with_a_weight_a_batch_entry_has_groups(tmp_path: Path) -> None:
    """Experts side by side: each batch entry has a weight of its own, read once each."""
    path = save(tmp_path / "m.onnx", [node("Einsum", ["x", "w"], ["y"], equation="etd,edf->etf")], {"x": [4, 6, 8]}, {"w": weight(4, 8, 5)})
    assert products(import_onnx(path)) == [(1, 4, 6, 5, 8, 1)]


def test_convolutions_and_gemm(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["a", "d"], ["b"], group=6, pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["b", "u"], ["c"], strides=[2, 2]),
        node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "v", "bias"], ["y"], transB=1),
    ]
    stored = {"w": weight(6, 3, 3, 3), "d": weight(6, 1, 3, 3), "u": weight(6, 4, 2, 2), "v": weight(10, 4), "bias": weight(10)}
    workload = import_onnx(save(tmp_path / "m.onnx", nodes, {"x": [2, 3, 15, 15]}, stored))
    assert workload.not_understood == {}
    assert products(workload) == [
        (2, 1, 64, 6, 27, 1),
        (2, 6, 64, 1, 9, 1),
        (2, 1, 64, 16, 6, 1),
        (1, 1, 2, 10, 4, 1),
    ]
    assert workload.parameter_count() == sum(array.size for array in stored.values())


def test_quantised_graphs(tmp_path: Path) -> None:
    """QDQ, integer products and packed 4-bit weights: bits of the file stay, whatever is asked for the rest."""
    scale, zero = np.array(0.1, dtype=np.float32), np.array(0, dtype=np.int8)
    qdq = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["wq", "s", "z"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["y"]),
    ]
    stored = {"s": scale, "z": zero, "wq": np.ones((8, 16), dtype=np.int8)}
    workload = import_onnx(save(tmp_path / "q.onnx", qdq, {"x": [4, 8]}, stored), weight_bits=16, activation_bits=16)
    row = next(row for row in workload.phases[0].table.rows() if row.kind is Kind.GEMM)
    assert (row.input_bits, row.weight_bits, row.output_bits) == (8, 8, 16)
    assert workload.macs() == 4 * 8 * 16
    assert workload.parameter_count() == 128
    assert workload.weight_bytes() == 128
    assert workload.not_understood == {}

    integer = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("MatMulInteger", ["xq", "wq"], ["yi"]),
        node("Cast", ["yi"], ["yf"], to=1),
        node("Mul", ["yf", "xs"], ["y"]),
    ]
    workload = import_onnx(save(tmp_path / "i.onnx", integer, {"x": [4, 8]}, {"wq": stored["wq"]}), weight_bits=16)
    row = next(row for row in workload.phases[0].table.rows() if row.kind is Kind.GEMM)
    assert (row.input_bits, row.weight_bits, row.second_is_weight) == (8, 8, True)

    packed = [node("MatMulNBits", ["x", "w4", "scales"], ["y"], domain="com.microsoft", K=64, N=10, bits=4, block_size=32)]
    stored = {"w4": np.zeros((10, 2, 16), dtype=np.uint8), "scales": weight(20)}
    workload = import_onnx(save(tmp_path / "n.onnx", packed, {"x": [4, 64]}, stored))
    assert products(workload) == [(1, 1, 4, 10, 64, 1)]
    assert workload.parameter_count() == 640
    assert workload.weight_bytes() == 320


def test_fused_attention_operators(tmp_path: Path) -> None:
    b, s, h, d = 2, 6, 4, 8
    packed = [node("Attention", ["x", "w", "bias"], ["y"], domain="com.microsoft", num_heads=h)]
    stored = {"w": weight(h * d, 3 * h * d), "bias": weight(3 * h * d)}
    workload = import_onnx(save(tmp_path / "a.onnx", packed, {"x": [b, s, h * d]}, stored))
    core = 2 * b * h * s * s * d
    assert workload.macs() == b * s * (h * d) * 3 * (h * d) + core
    assert workload.parameter_count() == stored["w"].size + stored["bias"].size

    grouped = [
        node(
            "GroupQueryAttention",
            ["q", "k", "v", "pk", "pv", "sl", "tl"],
            ["y", "ck", "cv"],
            domain="com.microsoft",
            num_heads=h,
            kv_num_heads=2,
        )
    ]
    inputs = {
        "q": [b, 1, h * d],
        "k": [b, 1, 2 * d],
        "v": [b, 1, 2 * d],
        "pk": [b, 2, 9, d],
        "pv": [b, 2, 9, d],
        "sl": [b],
        "tl": [1],
    }
    workload = import_onnx(save(tmp_path / "g.onnx", grouped, inputs))
    assert products(workload) == [(b * 2, 1, 2, 10, d, 0), (b * 2, 1, 2, d, 10, 0)]

    standard = [node("Attention", ["q", "k", "v"], ["y"], is_causal=1)]
    inputs = {"q": [b, h, s, d], "k": [b, 2, s, d], "v": [b, 2, s, d]}
    path = save(tmp_path / "s.onnx", standard, inputs, opsets=[helper.make_opsetid("", 23)])
    assert import_onnx(path).macs() == core
    fused = import_onnx(path, fused_attention=True)
    assert fused.macs() == 2 * b * h * d * s * (s + 1) // 2
    assert fused.phases[0].table.kind.tolist() == [Kind.ATTENTION_PREFILL]

    multi = [node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=h)]
    workload = import_onnx(save(tmp_path / "m.onnx", multi, {"q": [b, s, h * d], "k": [b, 5, h * d], "v": [b, 5, h * d]}))
    assert workload.macs() == 2 * b * h * s * 5 * d

    skip = [node("SkipLayerNormalization", ["x", "r", "g"], ["n"], domain="com.microsoft"), node("Relu", ["n"], ["y"])]
    workload = import_onnx(save(tmp_path / "k.onnx", skip, {"x": [3, 8], "r": [3, 8]}, {"g": weight(8)}))
    assert workload.phases[0].table.function.tolist() == ["add", "layernorm", "relu"]
    assert workload.parameter_count() == 8


def test_recurrent_layers(tmp_path: Path) -> None:
    stored = {"w": weight(2, 4 * 16, 8), "r": weight(2, 4 * 16, 16)}
    path = save(
        tmp_path / "m.onnx",
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=16, direction="bidirectional")],
        {"x": [5, 3, 8]},
        stored,
    )
    workload = import_onnx(path)
    assert workload.macs() == 2 * (5 * 3 * 64 * 8 + 5 * 3 * 64 * 16)
    assert workload.parameter_count() == stored["w"].size + stored["r"].size


def test_functions_and_branches(tmp_path: Path) -> None:
    body = [node("MatMul", ["a", "b"], ["c"]), helper.make_node("Softmax", ["c"], ["d"], name="soft")]
    function = helper.make_function("mine", "Block", ["a", "b"], ["d"], body, [helper.make_opsetid("", 21)])
    nodes = [
        helper.make_node("Block", ["x", "w"], ["h"], domain="mine", name="one"),
        helper.make_node("Block", ["h", "w"], ["y"], domain="mine", name="two"),
    ]
    path = save(
        tmp_path / "f.onnx",
        nodes,
        {"x": [4, 8]},
        {"w": weight(8, 8)},
        functions=[function],
        opsets=[helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)],
    )
    workload = import_onnx(path)
    assert workload.macs() == 2 * 4 * 8 * 8
    assert workload.parameter_count() == 64

    def branch(op: str) -> Any:
        return helper.make_graph(
            [node(op, ["x", "w"] if op == "MatMul" else ["x"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)],
        )

    choice = node("If", ["yes"], ["y"], then_branch=branch("MatMul"), else_branch=branch("Relu"))
    stored = {"w": weight(8, 8), "yes": np.array(True)}
    assert import_onnx(save(tmp_path / "t.onnx", [choice], {"x": [4, 8]}, stored)).macs() == 256
    stored["yes"] = np.array(False)
    assert import_onnx(save(tmp_path / "e.onnx", [choice], {"x": [4, 8]}, stored)).macs() == 0
    open_choice = save(tmp_path / "o.onnx", [choice], {"x": [4, 8], "yes": []}, {"w": stored["w"]}, type_yes=TensorProto.BOOL)
    dearer = import_onnx(open_choice)
    assert dearer.complete
    assert dearer.macs() == 256
    assert dearer.assumptions == ("If 'y' is decided at run time: its dearer branch, then_branch, is counted",)
    with pytest.raises(workloads.WorkloadError, match="its graph makes 1"):
        import_onnx(
            save(
                tmp_path / "few.onnx",
                [node("If", ["yes"], ["y", "z"], then_branch=branch("MatMul"), else_branch=branch("Relu"))],
                {"x": [4, 8]},
                stored,
            )
        )


def test_operators_that_are_not_understood_are_listed_with_their_counts(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["a"], domain="vendor.ops"),
        helper.make_node("Mystery", ["a"], ["b"], domain="vendor.ops"),
        node("NonZero", ["x"], ["nz"]),
        node("MatMul", ["b", "w"], ["y"]),
        node("MatMul", ["x", "w"], ["z"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"x": [4, 8]}, {"w": weight(8, 8)})
    workload = workloads.load(path).build()
    assert workload.not_understood == {"vendor.ops.Mystery": 2, "NonZero": 1, "MatMul": 1}
    assert not workload.complete
    assert workload.left_out_sentence() == (
        "m is counted without 1 x MatMul (its shape depends on data or on an operator that is left out), "
        "1 x NonZero (no rule for the operator), 2 x vendor.ops.Mystery (no rule for the operator); all its costs are too low by these"
    )
    assert workload.macs() == 256
    assert workload.parameter_count() == 64
    with pytest.raises(
        workloads.WorkloadError,
        match=r"not understood: MatMul \(1; .*\), NonZero \(1; no rule for the operator\), vendor.ops.Mystery \(2; no rule",
    ):
        workloads.load(path, strict=True).build()


def test_a_stated_shape_stands_in_for_an_unknown_operator(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["a"], domain="vendor.ops"), node("MatMul", ["a", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight(16, 4), "w")],
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 16])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    workload = import_onnx(tmp_path / "m.onnx", {"n": 3})
    assert workload.not_understood == {"vendor.ops.Mystery": 1}
    assert workload.macs() == 3 * 16 * 4


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../x", ""])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    path = _with_external(tmp_path / "m.onnx", location)
    with pytest.raises(workloads.WorkloadError, match="must be a path inside the folder of the file") as caught:
        import_onnx(path)
    assert "'w'" in str(caught.value)


def test_external_data_behind_a_link_is_refused_and_inside_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = _with_external(tmp_path / "model" / "m.onnx", "weights.bin")
    assert import_onnx(path).macs() == 4 * 8 * 8  # the data need not even be there
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(workloads.WorkloadError, match="inside the folder"):
        import_onnx(path)


def _with_external(path: Path, location: str) -> Path:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 8], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor],
    )
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("nodes", "inputs", "words"),
    [
        ([node("MatMul", ["x", "nowhere"], ["y"])], {"x": [2, 2]}, "reads tensor 'nowhere', which no node before it makes"),
        ([node("MatMul", ["x", "x"], ["y"])], {"x": [2, 3]}, "shapes (2, 3) and (2, 3) do not multiply"),
        ([node("Add", ["x", "z"], ["y"])], {"x": [2, 3], "z": [4, 3]}, "do not broadcast"),
        ([node("Transpose", ["x"], ["y"], perm=[0, 0])], {"x": [2, 3]}, "is no order of 2 axes"),
        ([node("Softmax", [], ["y"])], {"x": [2, 3]}, "input 0 is missing"),
        ([node("Concat", ["x", "x"], ["y"], axis=7)], {"x": [2, 3]}, "axis 7 does not exist"),
        ([node("Conv", ["x", "x"], ["y"])], {"x": [2, 3]}, "do not fit"),
        ([node("Expand", ["x", "x"], ["y"])], {"x": [2, 2**40]}, ""),
    ],
)
def test_graphs_that_are_wrong(nodes: list[Any], inputs: dict[str, list[int]], words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", nodes, inputs)
    if not words:
        assert import_onnx(path).not_understood == {"Expand": 1}
        return
    with pytest.raises(workloads.WorkloadError) as caught:
        import_onnx(path)
    assert words in str(caught.value)
    assert path in str(caught.value)


def test_recursion_and_explosion_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that calls itself, and one whose calls double at every level."""
    itself = helper.make_function("f", "Loop", ["a"], ["b"], [helper.make_node("Loop", ["a"], ["b"], domain="f")], [])
    path = save(tmp_path / "r.onnx", [helper.make_node("Loop", ["x"], ["y"], domain="f")], {"x": [1]}, functions=[itself])
    with pytest.raises(workloads.WorkloadError, match="deeper than"):
        import_onnx(path)
    levels = []
    for i in range(11):
        inner = f"L{i + 1}" if i < 10 else "Relu"
        domain = "f" if i < 10 else ""
        calls = [helper.make_node(inner, ["a" if j == 0 else f"t{j - 1}"], [f"t{j}"], domain=domain) for j in range(8)]
        levels.append(helper.make_function("f", f"L{i}", ["a"], ["t7"], calls, []))
    path = save(tmp_path / "x.onnx", [helper.make_node("L0", ["x"], ["y"], domain="f")], {"x": [1]}, functions=levels)
    monkeypatch.setattr("workloads.importers.onnx.graph.MAX_STEPS", 5000)  # the real bound takes seconds
    with pytest.raises(workloads.WorkloadError, match="runs more than 5000 nodes"):
        import_onnx(path)


def test_every_operator_has_a_function_that_hardware_knows() -> None:
    from workloads.functions import VOCABULARY
    from workloads.importers.collector import Collector, Value
    from workloads.importers.onnx import graph, rows, shapes
    from workloads.importers.onnx.info import Info
    from workloads.importers.onnx.wire import Node

    maker = rows.OnnxRows(Collector({}))
    entry = rows.Entry(Info((2, 3)), Value((2, 3), 1))
    for op in shapes.RULES:
        if op in {*rows.PRODUCTS, *graph._SHAPE_ONLY, *graph._VIEWS, "QuantizeLinear", "DequantizeLinear"}:
            continue  # these are no vector operations
        made = maker.of(Node(op), [entry] * 4, [Info((2, 3))], ())
        for row, _ in made:
            assert row.kind in (Kind.GATHER, Kind.EMBEDDING, Kind.TOPK) or row.function in VOCABULARY, op


# ---- hostile bytes ----


def _sample(path: Path) -> bytes:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Reshape", ["h", "flat"], ["r"]),
        node("Conv", ["p", "c"], ["q"], pads=[1, 1, 1, 1]),
        node("Attention", ["h3", "v"], ["y"], domain="com.microsoft", num_heads=2),
    ]
    stored = {"w": weight(8, 16), "flat": np.array([2, -1]), "c": weight(4, 3, 3, 3), "v": weight(8, 24)}
    save(path, nodes, {"x": ["n", 8], "p": [1, 3, 5, 5], "h3": [1, 4, 8]}, stored)
    return path.read_bytes()


def test_changed_and_cut_bytes_give_one_clear_sentence(tmp_path: Path) -> None:
    sound = _sample(tmp_path / "sound.onnx")
    target = tmp_path / "bad.onnx"
    source = random.Random(5)
    outcomes = {"read": 0, "refused": 0}
    for round_ in range(3000):
        data = bytearray(sound)
        for _ in range(source.randint(1, 6)):
            place = source.randrange(len(data))
            action = source.randrange(4)
            if action == 0:
                data[place] = source.randrange(256)
            elif action == 1:
                del data[place : place + source.randint(1, 40)]
            elif action == 2:
                data[place:place] = bytes(source.randrange(256) for _ in range(source.randint(1, 12)))
            else:
                data[place] ^= 1 << source.randrange(8)
            if not data:
                data = bytearray(b"\x00")
        target.write_bytes(bytes(data) if round_ % 5 else bytes(data[: source.randrange(len(data))]))
        message = None
        try:
            import_onnx(target, {"n": 3})
        except workloads.WorkloadError as error:
            message = str(error)
        outcomes["read" if message is None else "refused"] += 1
        assert message is None or (str(target) in message and "\n" not in message), message
    assert min(outcomes.values()) > 50  # both ways are exercised
    assert {path.name for path in tmp_path.iterdir()} == {"sound.onnx", "bad.onnx"}


ATTRIBUTES: dict[str, Sequence[Any]] = {
    "axis": [-3, 0, 1, 9, 2**62],
    "axes": [[0], [-1, 5], [2**62]],
    "perm": [[0, 1], [1, 0, 2], [-1]],
    "group": [0, 1, 3, -2],
    "strides": [[0, 0], [1, 1], [2**40, 2**40], [1]],
    "pads": [[0, 0, 0, 0], [2**60] * 4, [-9, 0, 0, 0], [1]],
    "dilations": [[1, 1], [-(2**62), 3]],
    "kernel_shape": [[3, 3], [0, 0], [2**50, 1]],
    "blocksize": [0, 2, -1],
    "num_heads": [0, 1, 2, -4, 2**40],
    "kv_num_heads": [0, 1, 7],
    "q_num_heads": [0, 2],
    "qkv_hidden_sizes": [[8, 8, 8], [0, 0, 0], [2**62] * 3],
    "equation": ["ij,jk->ik", "...i,...j->...ij", "", "ii->", "a" * 60, "->", "ij,kl->xy", "...,..."],
    "split": [[1, 1], [-1, 5]],
    "k": [3, -1, 2**62],
    "N": [4, 0, 2**60],
    "K": [8, 0],
    "bits": [4, 0, 10**9],
    "to": [1, 7, 9, 99],
    "keepdims": [0, 1],
    "transA": [0, 1],
    "transB": [0, 1],
    "allowzero": [0, 1],
    "shape": [[0, -1], [2**62]],
    "output_shape": [[2**61, 2**61], [0, 0]],
    "starts": [[0], [2**63 - 1]],
    "ends": [[1], [-(2**63)]],
    "auto_pad": ["SAME_UPPER", "VALID"],
    "value_ints": [[1, 2]],
    "batch_dims": [0, 9],
    "start": [0, -9],
    "end": [1, 99],
    "direction": ["reverse"],
}


def test_any_node_with_any_attribute(tmp_path: Path) -> None:
    """Every operator with tensors and attributes that do not fit: understood, listed, or refused in one sentence."""
    from workloads.importers.onnx import fused, shapes

    source = random.Random(SEED)
    stored = {
        "w": weight(8, 16),
        "c": weight(4, 3, 3, 3),
        "v": weight(8, 24),
        "r": weight(2, 32, 8),
        "i": np.array([2, -1]),
        "big": np.array([2**62, -(2**63)]),
        "one": np.array(1),
        "none": np.zeros((0,), dtype=np.int64),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "f": np.array([np.nan, np.inf], dtype=np.float32),
        "yes": np.array([True, False]),
    }
    inputs: dict[str, Sequence[Any]] = {
        "x": [2, 8],
        "p": [1, 3, 9, 8],
        "h": [1, 4, 8],
        "scalar": [],
        "empty": [0, 4],
        "wide": [2**20, 2**20],
    }
    names = [*stored, *inputs, ""]
    operators = sorted({*shapes.RULES, *fused.FUSED, "If", "Loop", "Scan"})
    path = tmp_path / "m.onnx"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(2500):
        op = source.choice(operators)
        chosen = {name: source.choice(values) for name, values in source.sample(sorted(ATTRIBUTES.items()), source.randint(0, 6))}
        chosen |= {name: source.choice(ATTRIBUTES[name]) for name in ("num_heads", "N", "K") if op in fused.FUSED}
        made = node(op, source.choices(names, k=source.randint(0, 5)), ["y", "z"][: source.randint(1, 2)], **chosen)
        if op in fused.FUSED and source.random() < 0.7:
            made.domain = "com.microsoft"
        save(path, [made], inputs, stored)
        message = None
        try:
            import_onnx(path)
        except workloads.WorkloadError as error:
            message = str(error)
        outcomes["read" if message is None else "refused"] += 1
        assert message is None or (str(path) in message and "\n" not in message), message
    assert min(outcomes.values()) > 200


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"not a model at all", "is not a sound ONNX file"),
        (b"\x08\x0a", "holds no graph"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "is not a sound ONNX file"),
        (b"\x3a\x80" * 40, "is not a sound ONNX file"),
        (b"\x00\x00", "field has the number 0"),
    ],
)
def test_files_that_are_no_onnx(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(workloads.WorkloadError) as caught:
        import_onnx(path)
    assert words in str(caught.value)


def test_shapes_agree_with_onnx_itself(tmp_path: Path) -> None:
    """Where onnx infers a full shape, ours is the same."""
    from workloads.importers.onnx.info import Info
    from workloads.importers.onnx.shapes import infer
    from workloads.importers.onnx.wire import read_model

    cases: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Conv", ["p", "c"], {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
        ("Conv", ["p", "c"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("ConvTranspose", ["p", "u"], {"strides": [3, 2], "output_padding": [1, 0], "group": 1}),
        ("AveragePool", ["p"], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", ["p"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Gemm", ["a", "b"], {"transA": 1, "transB": 1}),
        ("ReduceMean", ["p", "axes"], {"keepdims": 0}),
        ("ReduceSum", ["p"], {}),
        ("ArgMax", ["p"], {"axis": 2, "keepdims": 0}),
        ("TopK", ["p", "two"], {"axis": -1}),
        ("Slice", ["p", "starts", "ends", "axes", "steps"], {}),
        ("Pad", ["p", "pads"], {}),
        ("Tile", ["p", "repeats"], {}),
        ("Gather", ["p", "index"], {"axis": 1}),
        ("GatherND", ["p", "pairs"], {}),
        ("Squeeze", ["p", "zero"], {}),
        ("Unsqueeze", ["p", "ends_axes"], {}),
        ("DepthToSpace", ["c"], {"blocksize": 2}),
        ("Flatten", ["p"], {"axis": 2}),
        ("OneHot", ["index", "depth", "values"], {"axis": 0}),
        ("Resize", ["p", "", "scales"], {}),
        ("GlobalAveragePool", ["p"], {}),
        ("Einsum", ["p", "p"], {"equation": "nchw,nchv->nwv"}),
    ]
    stored = {
        "c": weight(4, 3, 3, 3),
        "u": weight(3, 5, 2, 2),
        "axes": np.array([1, -1]),
        "two": np.array([2]),
        "starts": np.array([-3, 0]),
        "ends": np.array([2**40, 9]),
        "steps": np.array([2, 1]),
        "pads": np.array([0, 1, 2, 0, 0, 0, 1, 3]),
        "repeats": np.array([1, 2, 1, 3]),
        "index": np.array([[0, 2], [1, 1]]),
        "pairs": np.array([[[0, 1]], [[0, 2]]]),
        "zero": np.array([0]),
        "ends_axes": np.array([0, -1]),
        "depth": np.array(6),
        "values": np.array([0.0, 1.0], dtype=np.float32),
        "scales": np.array([1, 1, 2, 1.5], dtype=np.float32),
    }
    inputs: dict[str, Sequence[Any]] = {"p": [1, 3, 9, 8], "a": [5, 4], "b": [6, 5]}
    for op, names, attributes in cases:
        own = dict(stored)
        if op == "DepthToSpace":
            own["c"] = weight(1, 8, 3, 3)
        path = tmp_path / "m.onnx"
        save(path, [node(op, names, ["y", "z"] if op == "TopK" else ["y"], **attributes)], inputs, own)
        untyped = onnx.load(path)
        untyped.graph.output[0].ClearField("type")
        expected = onnx.shape_inference.infer_shapes(untyped, strict_mode=True).graph.output[0].type.tensor_type.shape
        sizes = tuple(dim.dim_value for dim in expected.dim)
        parsed = read_model(path).graph
        infos: dict[str, Info] = {tensor.name: Info(tensor.dims, tensor.data_type, tensor.value) for tensor in parsed.initializers}
        infos |= {name: Info(tuple(shape)) for name, shape in inputs.items()}
        found = infer(parsed.nodes[0], [infos.get(name) for name in parsed.nodes[0].inputs])
        assert found[0].shape == sizes, op


# ---- files of torch.onnx ----


def _configured(name: str) -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers as hf

    ids = torch.zeros(2, 9, dtype=torch.long)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1}
    if name == "bert":
        return hf.BertModel(hf.BertConfig(vocab_size=50, **size)), {"input_ids": ids}
    if name == "vit":
        return hf.ViTForImageClassification(hf.ViTConfig(image_size=32, patch_size=8, **size)), {"pixel_values": torch.zeros(2, 3, 32, 32)}
    if name == "gpt2":
        config = hf.GPT2Config(n_layer=1, n_embd=32, n_head=4, vocab_size=50, bos_token_id=0, eos_token_id=0)
        return hf.GPT2LMHeadModel(config), {"input_ids": ids, "use_cache": False}
    if name == "llama":
        config = hf.LlamaConfig(vocab_size=50, num_key_value_heads=2, **size)
        return hf.LlamaForCausalLM(config), {"input_ids": ids, "use_cache": False}
    if name == "t5":
        config = hf.T5Config(num_layers=1, d_model=32, d_ff=48, num_heads=4, d_kv=8, vocab_size=50)
        return hf.T5ForConditionalGeneration(config), {"input_ids": ids, "decoder_input_ids": ids[:, :4], "use_cache": False}
    if name == "clip":
        parts = {
            "text_config": {**size, "vocab_size": 50, "eos_token_id": 1, "bos_token_id": 0},
            "vision_config": {**size, "image_size": 32, "patch_size": 8},
        }
        return hf.CLIPModel(hf.CLIPConfig(**parts)), {"input_ids": ids, "pixel_values": torch.zeros(2, 3, 32, 32)}
    config = hf.WhisperConfig(
        encoder_layers=1, decoder_layers=1, d_model=32, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=50, max_source_positions=20, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration(config), {
        "input_features": torch.zeros(2, 80, 40),
        "decoder_input_ids": ids[:, :4],
        "use_cache": False,
    }


@pytest.mark.filterwarnings("ignore")  # the exporter's own warnings
@pytest.mark.parametrize(
    "name",
    [
        "bert",
        "vit",
        "gpt2",
        "llama",
        "t5",
        pytest.param("clip", marks=pytest.mark.slow),
        pytest.param("whisper", marks=pytest.mark.slow),
    ],
)
def test_exported_by_torch(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for package in ("transformers", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from workloads.importers.module import import_module

    model, inputs = _configured(name)
    model.eval()
    path = tmp_path / f"{name}.onnx"
    with torch.no_grad():
        torch.onnx.export(model, (), str(path), kwargs=inputs, dynamo=True, verbose=False)
    from_file, from_graph = import_onnx(path, strict=True), import_module(model, (), inputs)
    found = differences(from_graph.phases[0].table, from_file.phases[0].table)
    assert not found, "\n".join(found)
    assert from_file.macs() == from_graph.macs()
    # The exporter stores buffers and folded constants as initializers too, and may drop tables that it folded.
    assert abs(from_file.parameter_count() / from_graph.parameter_count() - 1) < 0.25
