"""Runs SCALE-Sim 3.0.0 on products and convolutions given as JSON lines; executed inside its own environment (numpy < 2).

Each line holds rows, columns, dataflow, ifmap_kib, filter_kib, ofmap_kib and m, n, k, or convolution = [height, width,
filter_height, filter_width, channels, filters, stride]. Each answer holds the simulator's counts and its process time.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from scalesim.layout_utils import layouts
from scalesim.scale_config import scale_config
from scalesim.single_layer_sim import single_layer_sim
from scalesim.topology_utils import topologies

CONFIG = """[general]
run_name = dse
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {columns}
IfmapSramSzkB: {ifmap_kib}
FilterSramSzkB: {filter_kib}
OfmapSramSzkB: {ofmap_kib}
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth : 10
Dataflow : {dataflow}
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def simulate(case, folder):
    """The simulator's counts of one case."""
    config, topology = Path(folder, "design.cfg"), Path(folder, "workload.csv")
    config.write_text(CONFIG.format(**case))
    convolution = case.get("convolution")
    if convolution:
        topology.write_text("Layer,h,w,r,s,c,f,stride,\nL," + ",".join(map(str, convolution)) + ",\n")
    else:
        topology.write_text("Layer,M,N,K,\nG,{m},{n},{k},\n".format(**case))
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        settings = scale_config()
        settings.read_conf_file(str(config))
        layers = topologies()
        layers.load_arrays(topofile=str(topology), mnk_inputs=not convolution)
        simulator = single_layer_sim()
        simulator.set_params(layer_id=0, config_obj=settings, topology_obj=layers, layout_obj=layouts(), verbose=False)
        simulator.run()
        compute, detail = simulator.get_compute_report_items(), simulator.get_detail_report_items()
    return {
        **case,
        "process_s": time.process_time() - start,
        "total_cycles": int(compute[1]),
        "utilisation_pct": float(compute[3]),
        "mapping_efficiency_pct": float(compute[4]),
        "ifmap_sram_reads": int(detail[2]),
        "filter_sram_reads": int(detail[5]),
        "ofmap_sram_writes": int(detail[8]),
        "ifmap_dram_reads": int(detail[11]),
        "filter_dram_reads": int(detail[14]),
        "ofmap_dram_writes": int(detail[17]),
    }


if __name__ == "__main__":
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(simulate(json.loads(line), folder)), flush=True)
