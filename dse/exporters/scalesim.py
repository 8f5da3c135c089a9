"""SCALE-Sim 3: a configuration of one core's array and a topology of matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dse.errors import DseError
from dse.exporters.base import Export, csv_text, script
from dse.exporters.design import ExportDesign
from dse.exporters.names import quoted
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.systolic.gemm import SystolicCounts, gemm_counts

TOOL = "SCALE-Sim 3.0.0"
COUNTS_FILE = "expected-counts.csv"
# The three buffers of the simulator begin at these addresses, which must lie further apart than an operand is long.
_OFFSET_STEP = 10_000_000

_CONFIG = """\
[general]
run_name = {label}

[architecture_presets]
ArrayHeight:    {rows}
ArrayWidth:     {columns}
IfmapSramSzkB:  {ifmap_kib}
FilterSramSzkB: {filter_kib}
OfmapSramSzkB:  {ofmap_kib}
IfmapOffset:    0
FilterOffset:   {filter_offset}
OfmapOffset:    {ofmap_offset}
Bandwidth : {bandwidth}
Dataflow : {dataflow}
MemoryBanks:   1
ReadRequestBuffer: 32
WriteRequestBuffer: 32

[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: {bandwidth}
IfmapSRAMBankNum: 1
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: {bandwidth}
FilterSRAMBankNum: 1
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


@dataclass(frozen=True)
class Settings:
    """What SCALE-Sim is told of a design: one array, its dataflow, and the KiB of its three buffers."""

    rows: int
    columns: int
    dataflow: str
    ifmap_kib: int
    filter_kib: int
    ofmap_kib: int
    level: str

    def counts(self, m: int, n: int, k: int) -> SystolicCounts:
        """Our closed forms for a product on these settings."""
        return gemm_counts(
            m, n, k, rows=self.rows, columns=self.columns, dataflow=self.dataflow, ifmap_kib=self.ifmap_kib,
            filter_kib=self.filter_kib, ofmap_kib=self.ofmap_kib,
        )  # fmt: skip


def settings_of(design: ExportDesign) -> Settings:
    """The settings that stand for a design."""
    a = design.accelerator
    on_chip = [level for level in a.levels if level.kind == "sram"]
    if not on_chip:
        raise DseError(f"accelerator {a.name!r} has no memory on the chip; {TOOL} needs its three buffers")
    level = on_chip[-1]
    # A word is one byte there; what counts is how many words a buffer holds.
    kib = level.bytes * 8 // a.word_bits // 1024
    third = max(1, kib // 3) if level.shared else max(1, kib)
    ofmap = max(1, kib - 2 * third) if level.shared else third
    flows = [Dataflow(a.dataflow).name.lower()] if a.dataflow != Dataflow.ANY else ["os", "ws", "is"]
    candidates = [Settings(a.array_rows, a.array_columns, flow, third, third, ofmap, level.name) for flow in flows]
    return min(candidates, key=lambda s: total_cycles(design, s))


def total_cycles(design: ExportDesign, settings: Settings) -> int:
    """Cycles of a request's products on one array, fold after fold."""
    return int(sum(p.runs * p.batch * int(settings.counts(p.m, p.n, p.k).cycles) for p in design.products))


def export(design: ExportDesign) -> Export:
    """The files for SCALE-Sim and, beside them, the counts that it will report by our closed forms."""
    a, s = design.accelerator, settings_of(design)
    spread = max(max(p.m * p.k, p.k * p.n, p.m * p.n) for p in design.products)
    step = max(_OFFSET_STEP, int(np.ceil(spread / _OFFSET_STEP)) * _OFFSET_STEP)
    config = _CONFIG.format(
        label=design.label, rows=s.rows, columns=s.columns, ifmap_kib=s.ifmap_kib, filter_kib=s.filter_kib, ofmap_kib=s.ofmap_kib,
        filter_offset=step, ofmap_offset=2 * step, dataflow=s.dataflow,
        bandwidth=max(1, round(a.levels[-1].read_words_per_cycle)),
    )  # fmt: skip
    # The parser drops the last field of a line, hence the comma at its end.
    topology = "Layer,M,N,K,\n" + "".join(f"{p.name},{p.m},{p.n},{p.k},\n" for p in design.products)
    assumed = [
        f"The three buffers are the {quoted(s.level)} level, a third each, in whole KiB of words; SCALE-Sim uses half of each at a time."
        if a.levels[[v.name for v in a.levels].index(s.level)].shared
        else f"The three buffers are the {quoted(s.level)} level, which has one for each operand.",
        "InterfaceBandwidth is CALC: memories are fast enough, and cycles are those of the array alone.",
    ]
    if a.dataflow == Dataflow.ANY:
        assumed.append(f"The design lets every product choose its dataflow; {s.dataflow} takes the fewest cycles over the workload.")
    lost = [
        f"The array of this design is of the kind {ArrayKind(a.array_kind).name.lower()}; SCALE-Sim fills and drains a systolic array "
        "in every fold."
        if a.array_kind != ArrayKind.SYSTOLIC
        else "Everything but the array and one level of buffers.",
        "One memory level: "
        + (", ".join(quoted(v.name) for v in a.levels if v.kind == "sram" and v.name != s.level) or "nothing")
        + " is left out; registers, energies and area have no place in the format.",
        "Widths of words: one byte a word.",
    ]
    if a.cores > 1:
        lost.append(f"The {a.cores} cores: one core's array stands alone; our own cost spreads a product over all of them.")
    batched = [p.name for p in design.products if p.batch > 1]
    if batched:
        lost.append(
            f"Batches of products with second operands of their own ({', '.join(batched)}): one entry is listed; it runs "
            "`instances` times (see the counts)."
        )
    return Export(
        tool=TOOL,
        files={
            "design.cfg": config,
            "workload.csv": topology,
            COUNTS_FILE: _counts_csv(design, s),
            "run_scalesim.py": script("run_scalesim.py"),
        },
        expressed=[
            f"`design.cfg`: one array of {s.rows} x {s.columns}, dataflow {s.dataflow}, buffers of {s.ifmap_kib}, {s.filter_kib} and "
            f"{s.ofmap_kib} KiB.",
            "`workload.csv`: the matrix products as M, N, K (read it with the GEMM input switched on).",
            f"`{COUNTS_FILE}`: cycles, SRAM accesses and operand DRAM reads that the simulator will report, from our closed forms.",
        ],
        assumed=assumed,
        lost=lost,
        run=["python -m venv scalesim && scalesim/bin/pip install scalesim==3.0.0 numpy==1.26.4", "scalesim/bin/python run_scalesim.py"],
        checked="Run by the real tool in the slow tests: every count of `expected-counts.csv` must be equal.",
    )


def _counts_csv(design: ExportDesign, settings: Settings) -> str:
    rows = []
    for p in design.products:
        c = settings.counts(p.m, p.n, p.k)
        rows.append(
            {
                "layer": p.name,
                "m": p.m,
                "n": p.n,
                "k": p.k,
                "instances": p.batch,
                "runs_per_request": repr(p.runs),
                "cycles": int(c.cycles_scalesim),
                "ifmap_sram_reads": int(c.ifmap_sram_reads),
                "filter_sram_reads": int(c.filter_sram_reads),
                "ofmap_sram_writes": int(c.ofmap_sram_writes_scalesim),
                "ifmap_dram_reads": int(c.ifmap_dram_reads),
                "filter_dram_reads": int(c.filter_dram_reads),
            }
        )
    return csv_text(rows)
