"""Runs zigzag-dse 3.9.1 (LOMA search) on convolutions given as JSON lines; executed inside its own environment.

Each line holds the accelerator (``memories``: levels from the innermost with bits, bandwidths, energies and ``double``; ``axes``: sizes of
D1 and D2; ``mac_pj``; ``word_bits``), the layer (``sizes`` of G K C OX OY FX FY, ``stride``, ``input``: rows and columns of the map,
``pad``) and its ``spatial`` mapping. Each answer holds cycles, words that pass each level by operand, energy and process time.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import yaml
from zigzag.api import get_hardware_performance_zigzag
from zigzag.datatypes import LayerOperand
from zigzag.hardware.architecture.memory_port import DataDirection

LOOPS = ("B", "K", "G", "OX", "OY", "C", "FX", "FY")
DIRECTIONS = {
    "down": DataDirection.RD_OUT_TO_LOW,
    "from_below": DataDirection.WR_IN_BY_LOW,
    "up": DataDirection.RD_OUT_TO_HIGH,
    "from_above": DataDirection.WR_IN_BY_HIGH,
}


def memory(level, word_bits):
    """A memory of all operands with a read and a write port; costs are those of one access of the whole bandwidth."""
    read, write = level["read_bits"], level["write_bits"]
    return {
        "size": level["bits"], "r_cost": level["read_pj"] * read / word_bits, "w_cost": level["write_pj"] * write / word_bits,
        "area": 0, "latency": 1, "auto_cost_extraction": False, "operands": ["I1", "I2", "O"],
        "ports": [
            {"name": "r_port_1", "type": "read", "bandwidth_min": word_bits, "bandwidth_max": read,
             "allocation": ["I1, tl", "I2, tl", "O, tl", "O, th"]},
            {"name": "w_port_1", "type": "write", "bandwidth_min": word_bits, "bandwidth_max": write,
             "allocation": ["I1, fh", "I2, fh", "O, fh", "O, fl"]},
        ],
        "served_dimensions": ["D1", "D2"], "force_double_buffering": level["double"],
    }  # fmt: skip


def weight_register(case):
    """One word of weights in each unit: what rests on a weight-stationary array."""
    bits = case["word_bits"]
    return {
        "size": bits, "r_cost": case["register_pj"], "w_cost": case["register_pj"], "area": 0, "latency": 1,
        "auto_cost_extraction": False, "operands": ["I2"],
        "ports": [
            {"name": "r_port_1", "type": "read", "bandwidth_min": bits, "bandwidth_max": bits, "allocation": ["I2, tl"]},
            {"name": "w_port_1", "type": "write", "bandwidth_min": bits, "bandwidth_max": bits, "allocation": ["I2, fh"]},
        ],
        "served_dimensions": [],
    }  # fmt: skip


def files(case, where):
    """The three files of a case."""
    memories = {"reg_w": weight_register(case)}
    memories |= {level["name"]: memory(level, case["word_bits"]) for level in case["memories"]}
    hardware = {
        "name": "edge", "memories": memories,
        "operational_array": {"unit_energy": case["mac_pj"], "unit_area": 1, "dimensions": ["D1", "D2"], "sizes": case["axes"]},
    }  # fmt: skip
    links = {"O": "O", "W": "I2", "I": "I1"}
    mapping = [{"name": "default", "spatial_mapping": {k: v for k, v in case["spatial"].items() if v}, "memory_operand_links": links}]
    s, bits, size = case["stride"], case["word_bits"], case["sizes"]
    layer = {
        "id": 0, "operator_type": "Conv", "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [f"ix={s}*ox+1*fx", f"iy={s}*oy+1*fy"],
        "loop_dims": list(LOOPS), "loop_sizes": [size.get(name, 1) for name in LOOPS],
        "operand_precision": {"W": bits, "I": bits, "O": bits, "O_final": bits},
        "pr_loop_dims": ["IX", "IY"], "pr_loop_sizes": [case["input"], case["input"]],
        "padding": [[case["pad"], case["pad"]], [case["pad"], case["pad"]]],
        "operand_source": {"I": 0, "W": 0},
    }  # fmt: skip
    for name, content in (("hardware", hardware), ("mapping", mapping), ("workload", [layer])):
        (where / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def search(case, folder):
    """The tool's counts of one layer."""
    where = Path(folder)
    files(case, where)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        energy, latency, found = get_hardware_performance_zigzag(
            str(where / "workload.yaml"), str(where / "hardware.yaml"), str(where / "mapping.yaml"),
            opt=case.get("opt", "EDP"), lpf_limit=case.get("lpf_limit", 6), dump_folder=str(where / "dump"),
            pickle_filename=str(where / "out.pickle"), loma_show_progress_bar=False,
        )  # fmt: skip
    cme = found[0][1][0][0] if isinstance(found[0][1], (list, tuple)) else found[0][0]
    words = {}
    for operand in ("I", "W", "O"):
        op = LayerOperand(operand)
        linked = cme.memory_operand_links.layer_to_mem_op(op)
        for at, accesses in enumerate(cme.memory_word_access[op]):
            level = cme.accelerator.get_memory_level(linked, at)
            counts = {}
            for name, direction in DIRECTIONS.items():
                width = level.get_max_bandwidth(linked, direction) if accesses.get(direction) else 0
                counts[name] = accesses.get(direction) * width / case["word_bits"]
            words.setdefault(level.name, {})[operand] = counts
    return {
        "name": case.get("name", ""), "process_s": time.process_time() - start, "cycles": float(latency),
        "compute_cycles": float(cme.ideal_temporal_cycle), "cycles_without_load_and_store": float(cme.latency_total0),
        "energy_pj": float(energy), "words": words,
    }  # fmt: skip


if __name__ == "__main__":
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            try:
                answer = search(json.loads(line), folder)
            except ValueError as error:  # the tool's own where nothing is left to loop over; the other layers go on
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
