"""Sound workload files, and what reads them whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import workloads
from workloads.jsonl import read_lines
from workloads.metrics import camerabench, naturalbench

CONFIG = {
    **{"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2},
    **{"intermediate_size": 32, "vocab_size": 40, "max_position_embeddings": 32, "layer_norm_eps": 1e-12, "hidden_act": "gelu"},
    **{"vision_config": {"image_size": [224, 224], "depth": 2}, "id2label": {"0": "a"}, "layer_types": ["full", "sliding"]},
}
RECORD = """
name = "tiny"
family = "decoder"
quality_metrics = ["perplexity"]
[dimensions]
layers = 2
hidden = 64
heads = 4
kv_heads = 2
head_dim = 16
ffn = 128
vocabulary = 100
positions = 512
experts = 4
top_k = 2
expert_ffn = 32
window = 16
[defaults]
sequence = 32
new_tokens = 8
kv_bits = 8
fused_attention = true
[published]
parameters = 1000
status = "exact"
[sources]
dimensions = "made up"
"""
MIX = """
name = "two"
note = "a mix"
quality_metrics = ["accuracy"]
[requests]
rate_per_s = 2.5
deadline_s = 0.5
duty = 0.25
[[part]]
name = "a"
workload = "minilm-l6"
weight = 2
set = { sequence = 16, batch = 1 }
[[part]]
workload = "minilm-l6"
weight = 0.5
[sources]
origin = "made up"
"""
NATURAL = '{"q0_i0": "Yes", "q0_i1": "No.", "q1_i0": "no", "q1_i1": "yes", "type": "yes_no"}\n' * 2 + "".join(
    json.dumps({"group": 7, "question": q, "image": i, "answer": "A", "type": "multiple_choice"}) + "\n" for q in (0, 1) for i in (0, 1)
)
CAMERA = '{"label": "pan left", "score": 0.83, "positive": true}\n{"label": "zoom", "score": -0.5, "positive": false}\n' * 2


def read_record(path: Path) -> None:
    workloads.load(str(path)).build().macs()


def read_natural(path: Path) -> None:
    naturalbench.score_records(read_lines(path), str(path))


def read_camera(path: Path) -> None:
    camerabench.score_records(read_lines(path), str(path))


def read_graph(path: Path) -> None:
    from workloads.importers.onnx import import_onnx

    workload = import_onnx(path, fused_attention=True)
    assert workload.macs() >= 0
    assert workload.parameter_count() >= 0


def graphs() -> list[bytes]:
    """Sound ONNX files with every kind of construct: shape arithmetic, loops, branches, functions, quantisation, attention."""
    import numpy as np
    import onnx

    helper, numpy_helper, kinds = onnx.helper, onnx.numpy_helper, onnx.TensorProto

    def weight(*shape: int) -> Any:
        return np.ones(shape, dtype=np.float32)

    def info(name: str, shape: Any, kind: int = 1) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    def model(nodes: list[Any], inputs: list[Any], stored: dict[str, Any], **more: Any) -> bytes:
        graph = helper.make_graph(nodes, "g", inputs, [info("y", None)], [numpy_helper.from_array(a, n) for n, a in stored.items()])
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("f", 1)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10, **more).SerializeToString())

    node = helper.make_node
    body = helper.make_graph(
        [node("MatMul", ["h", "w"], ["h2"]), node("Identity", ["go"], ["go2"])],
        "body",
        [info("i", [], kinds.INT64), info("go", [], kinds.BOOL), info("h", [4, 8])],
        [info("go2", [], kinds.BOOL), info("h2", [4, 8])],
    )
    branch = helper.make_graph([node("MatMul", ["x", "w"], ["b"])], "then", [], [info("b", None)])
    other = helper.make_graph([node("Relu", ["x"], ["b"])], "else", [], [info("b", None)])
    scan = helper.make_graph(
        [node("Add", ["s", "t"], ["u"]), node("Mul", ["u", "u"], ["v"])],
        "scan",
        [info("s", [8]), info("t", [8])],
        [info("u", [8]), info("v", [8])],
    )
    function = helper.make_function("f", "Block", ["a"], ["c"], [node("Softmax", ["a"], ["c"])], [helper.make_opsetid("", 21)])
    return [
        model(
            [
                node("Loop", ["n", "yes", "x"], ["l"], body=body),
                node("If", ["cond"], ["k"], then_branch=branch, else_branch=other),
                node("Add", ["l", "k"], ["m"]),
                node("Scan", ["zero", "m"], ["s1", "s2"], body=scan, num_scan_inputs=1),
                node("Block", ["s2"], ["y"], domain="f"),
            ],
            [info("x", [4, 8]), info("cond", [], kinds.BOOL)],
            {"w": weight(8, 8), "n": np.array(5), "yes": np.array(True), "zero": weight(8)},
            functions=[function],
        ),
        model(
            [
                node("Conv", ["p", "k", "bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
                node("Resize", ["a", "", "scales"], ["r"], mode="nearest"),
                node("Shape", ["r"], ["s"]),
                node("Gather", ["s", "two"], ["g"]),
                node("Concat", ["g", "minus"], ["t"], axis=0),
                node("Reshape", ["r", "t"], ["q"]),
                node("Einsum", ["q", "e"], ["y"], equation="ij,jk->ik"),
            ],
            [info("p", [1, 3, 8, 8])],
            {
                **{"k": weight(4, 3, 3, 3), "bias": weight(4), "scales": np.array([1, 1, 2, 2], dtype=np.float32)},
                **{"two": np.array([2]), "minus": np.array([-1]), "e": weight(32, 5)},
            },
        ),
        model(
            [
                node("QuantizeLinear", ["x", "sc", "z"], ["xq"]),
                node("DequantizeLinear", ["xq", "sc", "z"], ["xd"]),
                node("Attention", ["xd", "qkv", "qb"], ["o"], domain="com.microsoft", num_heads=2),
                node("LSTM", ["o", "lw", "lr"], ["y"], hidden_size=4),
            ],
            [info("x", [2, 3, 8])],
            {
                **{"sc": np.array(0.1, dtype=np.float32), "z": np.array(0, dtype=np.int8), "qkv": weight(8, 24), "qb": weight(24)},
                **{"lw": weight(1, 16, 8), "lr": weight(1, 16, 4)},
            },
        ),
    ]
