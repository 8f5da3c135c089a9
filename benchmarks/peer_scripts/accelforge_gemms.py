"""Runs accelforge 1.0.467 (optimal mapper) on products given as JSON lines; executed inside its own environment.

The accelerator is an array with one register a unit, a global buffer and a DRAM; sizes in bits, energies in J a bit, latencies
in s a bit.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import accelforge as af

ARCHITECTURE = """arch:
  nodes:
  - !Memory
    name: MainMemory
    size: inf
    leak_power: 0
    area: 0
    actions:
    - {{name: read, energy: 8.0e-12, latency: 1 / (8 * 80e9)}}
    - {{name: write, energy: 8.0e-12, latency: 1 / (8 * 80e9)}}
    tensors: {{keep: ~Intermediates, may_keep: All}}
  - !Memory
    name: GlobalBuffer
    size: {sram_bits}
    leak_power: 0
    area: 6.2e-6
    actions:
    - {{name: read, energy: 1.07e-12, latency: 1 / (8 * 512 * 625e6)}}
    - {{name: write, energy: 0.96e-12, latency: 1 / (8 * 512 * 625e6)}}
    tensors: {{keep: ~MainMemory.tensors, may_keep: All}}
  - !Container
    name: ProcessingElement
    spatial:
    - {{name: reuse_input, fanout: {columns}, may_reuse: input, reuse: input, min_usage: 1}}
    - {{name: reuse_output, fanout: {rows}, may_reuse: output, reuse: output, min_usage: 1}}
  - !Memory
    name: Register
    size: weight.bits_per_value if weight else 0
    leak_power: 0
    area: 1e-11
    actions:
    - {{name: read, energy: 0, latency: 0}}
    - {{name: write, energy: 0, latency: 0}}
    tensors: {{keep: weight}}
  - !Compute
    name: MAC
    leak_power: 0
    area: 3.8e-10
    actions:
    - {{name: compute, energy: 0.469e-12, latency: 1 / 625e6}}
"""

WORKLOAD = """workload:
  iteration_space_shape:
    m: 0 <= m < {m}
    k: 0 <= k < {k}
    n: 0 <= n < {n}
  bits_per_value: {{All: 8}}
  einsums:
  - name: G
    tensor_accesses:
    - {{name: I, projection: [m, k]}}
    - {{name: W, projection: [k, n]}}
    - {{name: O, projection: [m, n], output: True}}
    renames: {{weight: W, input: I, output: O}}
"""


def search(case, folder):
    """The tool's latency of one product."""
    where = Path(folder)
    sram_bits = 8192 * (case["ifmap_kib"] + case["filter_kib"] + case["ofmap_kib"])
    (where / "arch.yaml").write_text(ARCHITECTURE.format(**case, sram_bits=sram_bits))
    (where / "workload.yaml").write_text(WORKLOAD.format(**case))
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        spec = af.Spec.from_yaml(str(where / "arch.yaml"), str(where / "workload.yaml"))
        spec.mapper.metrics = af.Metrics.LATENCY
        found = spec.map_workload_to_arch(print_progress=False, print_number_of_pmappings=False)
        latency = float(found.latency())
    return {**case, "process_s": time.process_time() - start, "cycles": latency * 625e6}


if __name__ == "__main__":
    af.set_n_parallel_jobs(1)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(search(json.loads(line), folder)), flush=True)
