"""What of a model was not understood is said wherever its costs are shown."""

import json
from pathlib import Path

import pytest

from dse import api, cli

onnx = pytest.importorskip("onnx")


def _model(path: Path, *, products: bool) -> Path:
    """A product and an operator of somebody's own, or the operator alone."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 64], [0.0] * 4096)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"])] if products else []
    nodes.append(helper.make_node("Mystery", ["h" if products else "x"], ["y"], domain="somebody.else"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "own", ends[:1], ends[1:], [weight] if products else [])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("somebody.else", 1)]), path)
    return path


def test_a_search_and_an_evaluation_name_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = _model(tmp_path / "own.onnx", products=True)
    knobs = ["--set", "cores=1", "--set", "depth=16", "--set", "l2_kib=64", "--set", "glb_mib=2"]
    assert cli.main(["search", "--workload", str(model), "--objective", "carbon", "--out", str(tmp_path / "run"), *knobs]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "front of an incomplete model:" in said and "Mystery" in said
    assert "Mystery" in api.load(tmp_path / "run").context["left_out"]
    assert "front of an incomplete model" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert cli.main(["evaluate", "--workload", str(model), "--hw", "edge22", "--json"]) == 0
    assert "Mystery" in json.loads(capsys.readouterr().out)["left_out"]


def test_a_complete_model_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--workload", "bert-tiny", "--hw", "edge22"]) == 0
    assert "incomplete" not in capsys.readouterr().out
