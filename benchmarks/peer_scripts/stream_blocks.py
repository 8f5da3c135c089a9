"""Runs Stream 2.1.1 (fused tiles, allocated by constraint optimisation) on blocks given as JSON lines; executed in its own environment.

Each line holds ``nodes`` (op_type, inputs, output, name, attributes of ONNX), ``weights`` and ``inputs`` (name -> shape), ``output`` with
its shape, and ``sram_bytes``: its own Eyeriss-like core with that global buffer, 8-bit tensors, one DRAM. Each answer holds the bytes
that cross to the DRAM, cycles and process time. Stream minimises cycles, not bytes.
"""

import contextlib
import io
import json
import logging
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference
from stream.api import SolveOptions, evaluate_mapping

BUS_BITS = 64  # width of its DRAM's port, in which it counts accesses
ARCHITECTURE = """name: one
cores:
  0: core.yaml
  1: offchip.yaml
offchip_core_id: 1
unit_energy_cost: 0
core_connectivity:
  - type: bus
    cores: [0, 1]
    bandwidth: 64
"""


def hardware(folder, sram_bytes):
    """Stream's Eyeriss-like core with 8-bit words and a global buffer of ``sram_bytes``."""
    cores = resources.files("stream") / "inputs" / "examples" / "hardware" / "cores"
    core = (cores / "eyeriss_like.yaml").read_text()
    changes = {"size: 8388608": f"size: {8 * sram_bytes}", "input: int16": "input: int8", "accumulator: int16": "accumulator: int8"}
    for old, new in changes.items():
        if old not in core:
            raise ValueError(f"{old!r} is not in Stream's core")
        core = core.replace(old, new)
    (folder / "cores").mkdir()
    (folder / "cores" / "core.yaml").write_text(core)
    (folder / "cores" / "offchip.yaml").write_text((cores / "offchip.yaml").read_text())
    (folder / "one.yaml").write_text(ARCHITECTURE)
    return folder / "one.yaml"


def model(folder, case):
    """The block as an ONNX file, weights without values."""
    weights = []
    for name, shape in case["weights"].items():
        tensor = helper.make_tensor(name, TensorProto.INT8, shape, np.zeros(shape, dtype=np.int8).tobytes(), raw=True)
        tensor.ClearField("raw_data")
        weights.append(tensor)
    nodes = [helper.make_node(n["op_type"], n["inputs"], [n["output"]], name=n["name"], **n["attributes"]) for n in case["nodes"]]
    info = [helper.make_tensor_value_info(name, TensorProto.INT8, shape) for name, shape in case["inputs"].items()]
    out = [helper.make_tensor_value_info(case["output"], TensorProto.INT8, case["output_shape"])]
    graph = helper.make_graph(nodes, "block", info, out, weights)
    made = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    onnx.save(made, folder / "block.onnx")
    return folder / "block.onnx"


def solve(case, folder):
    """Bytes of the DRAM and cycles of a block."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        chip, block = hardware(folder, case["sram_bytes"]), model(folder, case)
        found = evaluate_mapping(str(chip), str(block), str(folder / "out"), options=SolveOptions(artifacts=False, time_limit_s=120))
    told = str(found.context.get("memory_accesses")).splitlines()
    moved = [line for line in told if "offchip" in line]
    counts = [int(part.split("=")[1]) for line in moved for part in line.rsplit(": ", 1)[1].split(", ")]
    moved_bytes = sum(counts) * BUS_BITS // 8
    return {"name": case["name"], "dram_bytes": moved_bytes, "cycles": found.cycles, "process_s": time.process_time() - start}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            one = json.loads(line)
            try:
                answer = solve(one, Path(folder))
            except Exception as error:  # noqa: BLE001  whatever it raises is its answer
                answer = {"name": one["name"], "failed": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
