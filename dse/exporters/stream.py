"""Stream 2: a multi-core accelerator whose cores are ZigZag accelerators, their links, and an allocation."""

from __future__ import annotations

from typing import Any

from dse.exporters import zigzag
from dse.exporters.base import Export
from dse.exporters.design import ExportDesign
from dse.exporters.names import quoted
from dse.exporters.yaml_text import Flow, dump
from hw_models.accelerator.design import Accelerator

TOOL = "Stream (stream-dse 2.1.1)"


def core(design: ExportDesign) -> dict[str, Any]:
    """One compute core: its registers, its own memories and its array."""
    a = design.accelerator
    own = tuple(level for level in a.levels if level.per_core) or a.levels[:1]
    memories = zigzag.memories(design, levels=own)
    for memory in memories.values():
        memory["served_dimensions"] = Flow([d for d in memory["served_dimensions"].value if d != "D3"])
    return {
        "name": f"{design.label}_core",
        "type": "zigzag.compute",
        "memories": memories,
        "operational_array": {
            "unit_energy": float(design.batch.mac_pj[0]),
            "unit_area": 1.0,
            "dimensions": Flow(["D1", "D2"]),
            "sizes": Flow([a.array_columns, a.array_rows]),
        },
    }


def offchip(design: ExportDesign) -> dict[str, Any]:
    """The DRAM as a core of its own."""
    memories = zigzag.memories(design, levels=design.accelerator.levels[-1:])
    dram = {name: memory for name, memory in memories.items() if not name.startswith("reg_")}
    for memory in dram.values():
        memory["served_dimensions"] = Flow(["D1", "D2"])
    return {
        "name": f"{design.label}_dram",
        "type": "zigzag.offchip",
        "memories": dram,
        "operational_array": {"unit_energy": 0.0, "unit_area": 0.0, "dimensions": Flow(["D1", "D2"]), "sizes": Flow([0, 0])},
    }


def _shared_on_chip(a: Accelerator) -> list[Any]:
    return [level for level in a.levels[:-1] if not level.per_core]


def hardware(design: ExportDesign) -> dict[str, Any]:
    """The accelerator: compute cores, the shared buffers as memory cores are not used, the DRAM, and one bus."""
    a = design.accelerator
    cores: dict[int, str] = dict.fromkeys(range(a.cores), "./cores/core.yaml")
    cores[a.cores] = "./cores/offchip.yaml"
    shared = _shared_on_chip(a)
    # What lies between cores and DRAM bounds the bus: the narrower of shared buffer and DRAM.
    words = min([v.read_words_per_cycle for v in shared] + [a.levels[-1].read_words_per_cycle])
    links: list[dict[str, Any]] = [{"type": "bus", "cores": Flow([*range(a.cores), a.cores]), "bandwidth": float(words * a.word_bits)}]
    return {
        "name": design.label,
        "cores": cores,
        "offchip_core_id": a.cores,
        "unit_energy_cost": 0.0,
        "core_connectivity": links,
    }


def mapping(design: ExportDesign) -> dict[str, Any]:
    """Every kind of layer on all compute cores, split over the output columns."""
    a = design.accelerator
    everywhere = Flow([list(range(a.cores))])
    split = Flow([[{"dim": "D1", "split": a.cores}]])
    return {
        "layers": [
            {"name": kind, "core_allocation": everywhere, **({"inter_core_tiling": split} if a.cores > 1 else {})}
            for kind in ("MatMul", "Gemm")
        ]
    }


def export(design: ExportDesign) -> Export:
    """The files for Stream."""
    a = design.accelerator
    lost = [
        "Vector units: Stream gives other operations a core of their own; none is described.",
        "The mapping that our cost stands for: Stream allocates and tiles by itself; `mapping.yaml` only spreads products over cores.",
        "Registers that any operand may use, leakage, area of logic: as for ZigZag.",
    ]
    shared = _shared_on_chip(a)
    if shared:
        lost.insert(
            0,
            f"The capacity of {', '.join(quoted(v.name) for v in shared)}: cores reach the DRAM over one bus, which has "
            "its bandwidth only.",
        )
    return Export(
        tool=TOOL,
        files={
            "hardware.yaml": dump(hardware(design)),
            "cores/core.yaml": dump(core(design)),
            "cores/offchip.yaml": dump(offchip(design)),
            "mapping.yaml": dump(mapping(design)),
        },
        expressed=[
            f"`hardware.yaml`: {a.cores} compute cores and the DRAM on one bus; `cores/*.yaml`: each as a ZigZag accelerator.",
            "`mapping.yaml`: matrix products on all cores, split over output columns.",
        ],
        assumed=["The workload is the design's ONNX graph (`dse export ... --to onnx`)."],
        lost=lost,
        run=["python3.12 -m venv stream && stream/bin/pip install stream-dse==2.1.1 six"],
        checked="Read by the real tool's own validators in the slow tests; no cost is computed with it.",
    )
