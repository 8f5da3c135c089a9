"""Runs accelforge 1.0.467 (fused mapper, arXiv 2602.15166) on blocks given as JSON lines; executed inside its own environment.

Each line holds ``einsums`` (as in its workload files), ``ranks`` (their sizes), ``sram_bytes``, ``dram_pj_per_byte``, ``sram_pj_per_byte``
and ``mac_pj``: a memory, a buffer and a multiply-accumulate unit, mapped for least energy. Each answer holds the energy and process time.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import accelforge as af
import yaml

ARCHITECTURE = """arch:
  nodes:
  - !Memory
    name: MainMemory
    size: inf
    leak_power: 0
    area: 0
    tensors: {{keep: ~Intermediates, may_keep: All}}
    actions:
    - {{name: read, energy: {dram}, latency: 0}}
    - {{name: write, energy: {dram}, latency: 0}}
  - !Memory
    name: GlobalBuffer
    size: {bits}
    leak_power: 0
    area: 0
    tensors: {{keep: ~MainMemory.tensors, may_keep: All}}
    actions:
    - {{name: read, energy: {sram}, latency: 0}}
    - {{name: write, energy: {sram}, latency: 0}}
  - !Compute
    name: MAC
    leak_power: 0
    area: 0
    actions:
    - {{name: compute, energy: {mac}, latency: 1.0e-9}}
"""
RENAMES = {
    "einsums": [
        {
            "name": "default",
            "tensor_accesses": [
                {"name": "input", "source": "Inputs & Intermediates if len(All) == 3 else Inputs", "expected_count": 1},
                {"name": "output", "source": "Outputs", "expected_count": 1},
                {"name": "weight", "source": "~(input | output)", "expected_count": "1 if len(All) == 3 else 0"},
            ],
        }
    ]
}


def search(case, folder):
    """The least energy of a block [J]."""
    where = Path(folder)
    energies = {name: case[f"{name}_pj_per_byte"] * 1e-12 / 8 for name in ("dram", "sram")}
    (where / "arch.yaml").write_text(ARCHITECTURE.format(bits=8 * case["sram_bytes"], mac=case["mac_pj"] * 1e-12, **energies))
    workload = {"rank_sizes": case["ranks"], "bits_per_value": {"All": 8}, "einsums": case["einsums"]}
    (where / "workload.yaml").write_text(yaml.safe_dump({"workload": workload, "renames": RENAMES}, sort_keys=False))
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        spec = af.Spec.from_yaml(str(where / "arch.yaml"), str(where / "workload.yaml"))
        spec.mapper.metrics = af.Metrics.ENERGY
        found = spec.map_workload_to_arch(print_progress=False, print_number_of_pmappings=False)
        energy = float(found.energy())
    return {"name": case["name"], "process_s": time.process_time() - start, "energy_j": energy}


if __name__ == "__main__":
    af.set_n_parallel_jobs(1)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(search(json.loads(line), folder)), flush=True)
