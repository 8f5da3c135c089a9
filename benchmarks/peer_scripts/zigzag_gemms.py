"""Runs zigzag-dse 3.9.1 (LOMA search) on products given as JSON lines; executed inside its own environment.

The accelerator is a weight-stationary array with one SRAM and a DRAM. Its energies are placeholders: only latency and the time
of the tool itself are of use.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from zigzag.api import get_hardware_performance_zigzag


def port(name, kind, low, high, *allocation):
    """One port of a memory, as a line of YAML."""
    listed = ", ".join(f'"{a}"' for a in allocation)
    return f"    - {{name: {name}, type: {kind}, bandwidth_min: {low}, bandwidth_max: {high}, allocation: [{listed}]}}\n"


def memory(name, bits, cost, operands, ports, served):
    """One memory, as YAML."""
    return (
        f"  {name}:\n    size: {bits}\n    r_cost: {cost}\n    w_cost: {cost}\n    area: 0\n    latency: 1\n"
        f"    auto_cost_extraction: false\n    operands: [{operands}]\n    ports:\n{''.join(ports)}"
        f"    served_dimensions: [{served}]\n"
    )


def hardware(rows, columns, sram_kib):
    """The accelerator as YAML: D1 = columns, D2 = rows."""
    wide = (rows + columns) * 32
    everything = ["I1, fh", "I1, tl", "I2, fh", "I2, tl", "O, fh", "O, tl", "O, fl", "O, th"]
    register = [port("r_port_1", "read", 8, 8, "I2, tl"), port("w_port_1", "write", 8, 8, "I2, fh")]
    accumulator = [
        port("r_port_1", "read", 32, 32, "O, tl"),
        port("r_port_2", "read", 32, 32, "O, th"),
        port("w_port_1", "write", 32, 32, "O, fh"),
        port("w_port_2", "write", 32, 32, "O, fl"),
    ]
    return (
        "name: sa_ws\nmemories:\n"
        + memory("rf_S", 16, 0.01, "I2", register, "")
        + memory("acc_O", 32768, 0.1, "O", accumulator, "D2")
        + memory(
            "sram", sram_kib * 8192, 50, "I1, I2, O",
            [
                port("r_port_1", "read", 64, wide, "I1, tl", "I2, tl", "O, tl", "O, th"),
                port("w_port_1", "write", 64, wide, "I1, fh", "I2, fh", "O, fh", "O, fl"),
            ],
            "D1, D2",
        )
        + memory("dram", 100000000000, 700, "I1, I2, O", [port("rw_port_1", "read_write", 80, 80, *everything)], "D1, D2")
        + f"operational_array:\n  unit_energy: 0.04\n  unit_area: 1\n  dimensions: [D1, D2]\n  sizes: [{columns}, {rows}]\n"
    )  # fmt: skip


def mapping(rows, columns):
    """Columns take the output dimension, rows the reduction."""
    return (
        f'- name: default\n  spatial_mapping:\n    D1: ["D1, {columns}"]\n    D2: ["D2, {rows}"]\n'
        "  memory_operand_links: {O: O, W: I2, I: I1}\n"
    )


def workload(m, n, k):
    """One product as YAML."""
    return (
        "- id: 0\n  operator_type: Gemm\n  equation: O[d0][d1]+=I[d0][d2]*W[d2][d1]\n  dimension_relations: []\n"
        f"  loop_dims: [D0, D1, D2]\n  loop_sizes: [{m}, {n}, {k}]\n"
        "  operand_precision: {W: 8, I: 8, O: 32, O_final: 8}\n  operand_source: {I: 0, W: 0}\n"
    )


def search(case, folder):
    """The tool's latency of one product."""
    where = Path(folder)
    sram = case["ifmap_kib"] + case["filter_kib"] + case["ofmap_kib"]
    (where / "hardware.yaml").write_text(hardware(case["rows"], case["columns"], sram))
    (where / "mapping.yaml").write_text(mapping(case["rows"], case["columns"]))
    (where / "workload.yaml").write_text(workload(case["m"], case["n"], case["k"]))
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _, latency, _ = get_hardware_performance_zigzag(
            str(where / "workload.yaml"),
            str(where / "hardware.yaml"),
            str(where / "mapping.yaml"),
            opt="latency",
            lpf_limit=6,
            dump_folder=str(where / "dump"),
            pickle_filename=str(where / "out.pickle"),
            loma_show_progress_bar=False,
        )
    return {**case, "process_s": time.process_time() - start, "cycles": float(latency)}


if __name__ == "__main__":
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(search(json.loads(line), folder)), flush=True)
