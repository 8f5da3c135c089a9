"""Blocks of BERT and MobileNetV2 with what stays on chip, beside accelforge's fused mapper and Stream: bytes of the DRAM.

    python benchmarks/fusion.py [--run accelforge] [--run stream] [--environments DIR] [--json FILE]

BERT-tiny's layer (128 tokens, width 128, two heads, 512 inside) as its eight products, and a block of MobileNetV2 at 28 x 28 (32 channels,
192 inside) as its three convolutions; 8 bits, one buffer. accelforge (arXiv 2602.15166) is given energies of the DRAM alone (64 pJ a byte),
so that what it minimises is bytes. Ours is mapped for least energy, with tensors that stay whole (`--residency activations`) and with tiles
that pass from operation to operation (`--residency tiles`), as those of both peers do. Stream 2.1.1 fuses tiles of operations for least
cycles, on its own Eyeriss-like core with that buffer. Its reader joins no heads,
so the layer is asked in two parts, attention and feed-forward. --run asks a peer (minutes a block; an environment of its own is made on
first use under build/peers).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers

from hw_models.accelerator.design import Accelerator
from hw_models.costs.residency.models import report
from hw_models.costs.residency.solve import Level
from hw_models.spaces.files import read_document
from workloads.filters import filter_fields
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase, Workload

ROOT = Path(__file__).resolve().parents[1]
DRAM_PJ_PER_BYTE = 64.0
KIB = (32, 64, 128, 256, 512, 1024)
TOKENS, WIDTH, HEADS, INSIDE = 128, 128, 2, 512
SIDE, CHANNELS, WIDE = 28, 32, 192


def bert() -> list[Operation]:
    """The eight products of a layer; softmax and norms are left out on both sides."""

    def product(name: str, n: int, k: int, reads: str) -> Operation:
        return Operation(
            name, Kind.GEMM, TOKENS, n, k, second_is_weight=True, parameters=n * k, weight_id=name, reads=reads
        )  # fmt: skip

    head = WIDTH // HEADS
    return [
        # The input is copied in, as in accelforge's own workloads: what three products read is a tensor that some operation made.
        Operation("input", Kind.ELEMENTWISE, TOKENS * WIDTH, 1, function="scale", reads="-"),
        product("value", WIDTH, WIDTH, "input"),
        product("key", WIDTH, WIDTH, "input"),
        product("query", WIDTH, WIDTH, "input"),
        Operation("scores", Kind.GEMM, TOKENS, TOKENS, head, batch=HEADS, reads="query key"),
        Operation("context", Kind.GEMM, TOKENS, head, TOKENS, batch=HEADS, reads="scores value"),
        product("out", WIDTH, WIDTH, "context"),
        product("up", INSIDE, WIDTH, "out"),
        product("down", WIDTH, INSIDE, "up"),
    ]


def attention() -> list[Operation]:
    """The five products of the layer's attention."""
    return bert()[:6]


def feed_forward() -> list[Operation]:
    """The two products of the layer's feed-forward part."""
    up, down = bert()[-2:]
    return [replace(up, reads="-"), down]


def inverted() -> list[Operation]:
    """The three convolutions of an inverted bottleneck."""

    def conv(name: str, inputs: int, outputs: int, taps: int, groups: int, reads: str) -> Operation:
        k = inputs // groups * taps**2
        return Operation(
            name, Kind.CONV, SIDE**2, outputs // groups, k, groups=groups, second_is_weight=True, parameters=k * outputs, weight_id=name,
            input_elements=SIDE**2 * inputs, reads=reads, **filter_fields([SIDE, SIDE], [taps, taps], [1, 1]),
        )  # fmt: skip

    return [
        conv("expand", CHANNELS, WIDE, 1, 1, "-"),
        conv("depthwise", WIDE, WIDE, 3, WIDE, "expand"),
        conv("project", WIDE, CHANNELS, 1, 1, "depthwise"),
    ]


def _access(name: str, projection: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "projection": projection, **more}


BLOCKS: dict[str, dict[str, Any]] = {
    "bert": {
        "rows": bert,
        "ranks": {
            "M": TOKENS, "P": TOKENS, "H": HEADS, "E": WIDTH // HEADS, "F": WIDTH // HEADS, "D": WIDTH, "G": WIDTH, "C": INSIDE, "J": WIDTH,
        },
        "einsums": [
            {"einsum": "I[m, d] = I_in[m, d]", "is_copy_operation": True},
            *(f"{name}[m, h, e] = I[m, d] * W{name}[h, e, d]" for name in "VKQ"),
            {"einsum": "QK[m, p, h] = Q[m, h, e] * K[M: p, h, e]", "renames": {"input": "Q"}},
            {"einsum": "AV[m, h, f] = QK[m, p, h] * V[M: p, h, E: f]", "renames": {"input": "QK"}},
            "Z[m, g] = AV[m, h, f] * WZ[h, f, g]", "FFA[m, c] = Z[m, g] * WFFA[g, c]", "FFB[m, j] = FFA[m, c] * WFFB[c, j]",
        ],
    },
    "attention": {"rows": attention},
    "feed_forward": {"rows": feed_forward},
    "inverted": {
        "rows": inverted,
        "ranks": {"P0": SIDE, "Q0": SIDE, "N0": CHANNELS, "T0": WIDE, "N1": CHANNELS, "P1": SIDE, "Q1": SIDE},
        "einsums": [
            {
                "name": "Expand", "renames": {"input": "T0", "output": "TA", "weight": "WA"},
                "tensor_accesses": [
                    _access("T0", ["p0", "q0", "n0"]), _access("WA", ["n0", "t0"]), _access("TA", ["p0", "q0", "t0"], output=True),
                ],
            },
            {
                "name": "Depthwise", "iteration_space_shape": ["0 <= r0 < 3", "0 <= s0 < 3"],
                "tensor_accesses": [
                    _access("TA", {"P0": "p1 + r0", "Q0": "q1 + s0", "T0": "t0"}), _access("WD", ["r0", "s0", "t0"]),
                    _access("TB", ["p1", "q1", "t0"], output=True),
                ],
            },
            {
                "name": "Project",
                "tensor_accesses": [
                    _access("TB", ["p1", "q1", "t0"]), _access("WB", ["t0", "n1"]), _access("T1", ["p1", "q1", "n1"], output=True),
                ],
            },
        ],
    },
}  # fmt: skip


def _node(name: str, op_type: str, inputs: list[str], **attributes: Any) -> dict[str, Any]:
    # Stream confuses a node with a tensor of its name.
    return {"name": f"make_{name}", "op_type": op_type, "inputs": inputs, "output": name, "attributes": attributes}


ONNX: dict[str, dict[str, Any]] = {
    "attention": {
        "nodes": [
            *(_node(p, "MatMul", ["input", f"w{p}"]) for p in "QKV"), _node("transposed", "Transpose", ["K"], perm=[0, 2, 1]),
            _node("scores", "MatMul", ["Q", "transposed"]), _node("context", "MatMul", ["scores", "V"]),
        ],
        "weights": {f"w{p}": [HEADS, WIDTH, WIDTH // HEADS] for p in "QKV"}, "inputs": {"input": [TOKENS, WIDTH]},
        "output": "context", "output_shape": [HEADS, TOKENS, WIDTH // HEADS],
    },
    "feed_forward": {
        "nodes": [_node("up", "Gemm", ["input", "w_up"]), _node("down", "Gemm", ["up", "w_down"])],
        "weights": {"w_up": [WIDTH, INSIDE], "w_down": [INSIDE, WIDTH]}, "inputs": {"input": [TOKENS, WIDTH]},
        "output": "down", "output_shape": [TOKENS, WIDTH],
    },
    "inverted": {
        "nodes": [
            _node("expand", "Conv", ["input", "w_expand"], kernel_shape=[1, 1]),
            _node("depthwise", "Conv", ["expand", "w_depthwise"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=WIDE),
            _node("project", "Conv", ["depthwise", "w_project"], kernel_shape=[1, 1]),
        ],
        "weights": {"w_expand": [WIDE, CHANNELS, 1, 1], "w_depthwise": [WIDE, 1, 3, 3], "w_project": [CHANNELS, WIDE, 1, 1]},
        "inputs": {"input": [1, CHANNELS, SIDE, SIDE]}, "output": "project", "output_shape": [1, CHANNELS, SIDE, SIDE],
    },
}  # fmt: skip
STREAM = peers.Tool("stream", ("stream-dse==2.1.1", "six"), "python3.12", "residency")


def accelerator(kib: int) -> Accelerator:
    """An array with one buffer, of which everything may be used at once."""
    design = read_document(
        {
            "name": "block", "cores": 1, "frequency_hz": 1e9, "node_nm": 22.0, "voltage_v": 0.8,
            "array": {"rows": 16, "columns": 16, "kind": "dot_product", "dataflow": "any", "register_bytes": 32}, "vector": {"lanes": 16},
            "levels": [
                {"name": "buffer", "kib": kib, "words_per_cycle": 64, "double_buffered": False},
                {"name": "dram", "kind": "lpddr4", "gib": 1, "words_per_cycle": 16},
            ],
        },
        where=__file__,
    )  # fmt: skip
    assert isinstance(design, Accelerator)
    return design


def least_bytes(name: str) -> int:
    """What any schedule moves: the first input, every weight and the last result once."""
    rows = BLOCKS[name]["rows"]()
    first, last = rows[0], rows[-1]
    inputs = int(first.input_elements) or int(first.m) * int(first.k if first.kind is Kind.GEMM else first.n)
    return inputs + sum(int(row.parameters) for row in rows) + int(last.batch) * int(last.m) * int(last.n) * int(last.groups)


def ours(name: str, kib: int, level: Level) -> float:
    """Bytes of the DRAM with what is best kept on chip."""
    table = OperationTable.from_rows(BLOCKS[name]["rows"]())
    # Peers count one request, which loads its weights: beside a weight that never fits, and never runs, none stay from the one before.
    beside = OperationTable.from_rows([Operation("beside", Kind.GEMM, 1, 4096, 4096, second_is_weight=True, parameters=4096**2)])
    workload = Workload(name=name, family="imported", phases=(Phase("forward", table), Phase("beside", beside, 0)))
    found = report(workload, accelerator(kib).batch(), point=0, level=level, criterion="energy")
    return float(found["dram_bytes"])


def theirs(name: str, kib: int, environments: Path) -> float | str:
    """Bytes that accelforge's best mapping moves, or why there is no answer."""
    block = BLOCKS.get(name, {})
    if "einsums" not in block:
        return "not asked: the whole layer is"
    case = {
        "name": name, "einsums": block["einsums"], "ranks": block["ranks"], "sram_bytes": 1024 * kib,
        "dram_pj_per_byte": DRAM_PJ_PER_BYTE, "sram_pj_per_byte": 0.0, "mac_pj": 0.0,
    }  # fmt: skip
    answer = _ask(next(tool for tool in peers.TOOLS if tool.name == "accelforge"), case, environments)
    return answer if isinstance(answer, str) else float(answer["energy_j"]) / (DRAM_PJ_PER_BYTE * 1e-12)


def streams(name: str, kib: int, environments: Path) -> float | str:
    """Bytes that Stream's fused tiles move, or why there is no answer."""
    if name not in ONNX:
        return "not asked: its parts are"
    answer = _ask(STREAM, {"name": name, "sram_bytes": 1024 * kib, **ONNX[name]}, environments)
    return answer if isinstance(answer, str) else answer.get("failed") or float(answer["dram_bytes"])


def _ask(tool: peers.Tool, case: dict[str, Any], environments: Path) -> dict[str, Any] | str:
    python = peers.environment(tool, environments)
    if not isinstance(python, Path):
        return python
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(python), str(peers.SCRIPTS / f"{tool.name}_blocks.py")], cwd=folder, input=json.dumps(case) + "\n",
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1:]}"
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return found


PEERS = {"accelforge": theirs, "stream": streams}


def main() -> int:
    """Print a line a block and buffer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="append", choices=tuple(PEERS), default=[], help="ask this peer too (repeatable)")
    parser.add_argument("--block", action="append", choices=tuple(BLOCKS), help="this block only (repeatable)")
    parser.add_argument("--kib", action="append", type=int, help="this buffer only (repeatable)")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers", help="folder of the environments")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    options.environments.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.block or BLOCKS:
        for kib in options.kib or KIB:
            row: dict[str, Any] = {"block": name, "kib": kib, "least": least_bytes(name)}
            row |= {"whole": ours(name, kib, "activations"), "tiles": ours(name, kib, "tiles")}
            for peer in options.run:
                row[peer] = PEERS[peer](name, kib, options.environments)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
