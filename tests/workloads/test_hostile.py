"""Files that are wrong in every way that a mutation finds: read, or refused in one sentence, in bounded time and memory.

Each reader gets sound files that are damaged: bytes changed, cut and doubled, numbers of hundreds of digits, infinities, lists and
tables where a scalar belongs, deep nesting, text where a number belongs. The default takes seconds; the slow version is the same
with as many inputs as the environment variable DSE_FUZZ_INPUTS says (a reader), 75,000 unless it is set.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import workloads
from workloads.importers.huggingface.config import read_config
from workloads.jsonl import read_lines
from workloads.metrics import camerabench, naturalbench

SECONDS = 5.0
PEAK_KIB = 2 * 2**20
NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "1e308",
    "-1e-308",
    "nan",
    "inf",
    "-inf",
    "9" * 25,
    "9" * 400,
    "9" * 5000,
    "0.5",
    "4294967296",
    "true",
    '""',
    "[]",
    "[1, 2]",
)
TEXTS = ('""', '"\\u0000"', '"' + "x" * 5000 + '"', "[" * 200 + "]" * 200, "{}", "[[1]]", "null", '"../../etc/passwd"', '"\\u001b[2J"')

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


def damaged(sound: bytes, source: random.Random) -> bytes:
    """A file with some of its bytes, words or values changed."""
    data = bytearray(sound)
    for _ in range(source.randint(1, 4)):
        way = source.random()
        at = source.randrange(len(data) + 1)
        if way < 0.25 and data:
            data[at % len(data)] = source.randrange(256)
        elif way < 0.35:
            data[at:at] = source.randbytes(source.randint(1, 8))
        elif way < 0.45:
            del data[at : at + source.randint(1, 40)]
        elif way < 0.5:
            piece = data[at : at + source.randint(1, 200)]
            data[at:at] = piece * source.randint(1, 3)
        else:
            _change_value(data, source)
    return bytes(data)


def _change_value(data: bytearray, source: random.Random) -> None:
    """Replace what stands behind a ``:`` or ``=`` up to the end of the value, or a number, by something odd."""
    marks = [i for i, byte in enumerate(data) if byte in b":=,["]
    if not marks:
        return
    start = source.choice(marks) + 1
    end = start
    while end < len(data) and data[end] not in b",\n}]":
        end += 1
    data[start:end] = b" " + source.choice((*NUMBERS, *TEXTS)).encode()


def damaged_graph(sound: bytes, source: random.Random) -> bytes:
    """An ONNX file with bytes changed, cut or doubled; numbers of the wire format become huge."""
    data = bytearray(sound)
    for _ in range(source.randint(1, 5)):
        way, at = source.random(), source.randrange(max(1, len(data)))
        if way < 0.5 and data:
            data[at] = source.randrange(256)
        elif way < 0.65:
            data[at : at + 1] = b"\xff" * source.randint(1, 9) + b"\x01"
        elif way < 0.8:
            del data[at : at + source.randint(1, 30)]
        else:
            data[at:at] = data[at : at + source.randint(1, 60)]
    return bytes(data)


# ---- readers: each takes a file and reads all of it ----


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


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where the block takes longer."""

    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attack(
    name: str, read: Callable[[Path], None], files: list[bytes], damage: Callable[[bytes, random.Random], bytes], folder: Path, count: int
) -> float:
    """Give ``count`` damaged files to a reader; return the seconds a file. Fails on anything but success or a sentence."""
    source = random.Random(f"{name} 7")
    path = folder / name
    start = time.process_time()
    for _ in range(count):
        data = damage(source.choice(files), source)
        path.write_bytes(data)
        message = ""
        try:
            with within(SECONDS):
                read(path)
        except workloads.WorkloadError as error:
            message = str(error)
        except BaseException:
            kept = folder / f"found-{name}"
            kept.write_bytes(data)
            raise
        assert "\n" not in message, data
        assert len(message) < 2000, data
        assert "\x1b" not in message, data
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < PEAK_KIB
    return (time.process_time() - start) / count


def graphs() -> list[bytes]:
    """Sound ONNX files with every kind of construct: shape arithmetic, loops, branches, functions, quantisation, attention."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dse-toolkit[onnx]'")
    import numpy as np

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


TARGETS: dict[str, tuple[Callable[[Path], Any], Callable[[], list[bytes]], Callable[[bytes, random.Random], bytes]]] = {
    "config.json": (read_config, lambda: [json.dumps(CONFIG, indent=1).encode()], damaged),
    "model.toml": (read_record, lambda: [RECORD.encode(), MIX.encode()], damaged),
    "natural.jsonl": (read_natural, lambda: [NATURAL.encode()], damaged),
    "camera.jsonl": (read_camera, lambda: [CAMERA.encode()], damaged),
    "model.onnx": (read_graph, graphs, damaged_graph),
}
DEFAULT = {"config.json": 400, "model.toml": 200, "natural.jsonl": 300, "camera.jsonl": 300, "model.onnx": 500}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    read, files, damage = TARGETS[name]
    attack(name, read, files(), damage, tmp_path, DEFAULT[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files(name: str, tmp_path: Path) -> None:
    read, files, damage = TARGETS[name]
    attack(name, read, files(), damage, tmp_path, int(os.environ.get("DSE_FUZZ_INPUTS", "75000")))


# ---- what mutations found, or what they would take long to find ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RECORD.replace("sequence = 32", "sequence = [1, 2]"), "field 'sequence' of defaults is [1, 2], must be one value"),
        (RECORD.replace("layers = 2", "layers = " + "9" * 400), "field 'layers' is"),
        (RECORD.replace("layers = 2", "layers = " + "9" * 5000), "is not a TOML file"),
        (RECORD.replace('["perplexity"]', "[1]"), "field 'quality_metrics' is [1], must be a list of texts"),
        (MIX.replace("weight = 2", "weight = " + "9" * 400), "field 'weight' is"),
        (MIX.replace("duty = 0.25", "duty = " + "9" * 400), "field 'duty' of requests is"),
        (MIX.replace("batch = 1", "batch = [1, 2]"), "'batch' is [1, 2], must be one value"),
        (MIX.replace('note = "a mix"', "note = 3"), "field 'note' is 3, must be a text"),
        (MIX.replace('quality_metrics = ["accuracy"]', "quality_metrics = 4"), "field 'quality_metrics' is 4"),
        (RECORD.replace('name = "tiny"', 'name = "\\u001b[2J"'), "must be a text without control characters"),
        ("a = " + "[" * 100000, "is not a TOML file"),
    ],
)
def test_values_that_no_record_has(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(workloads.WorkloadError) as caught:
        workloads.load(str(path)).build()
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_answer_of_hundreds_of_digits(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"label": "pan", "score": ' + "9" * 400 + ', "positive": true}')
    with pytest.raises(workloads.WorkloadError, match="field 'score' is '9999"):
        camerabench.score_records(read_lines(path), str(path))
