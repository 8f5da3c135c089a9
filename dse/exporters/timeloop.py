"""Timeloop v4: architecture, one problem a product, mapper."""

from __future__ import annotations

from typing import Any

from dse.exporters.base import Export
from dse.exporters.design import ExportDesign, Product
from dse.exporters.names import safe_name
from dse.exporters.on_chip import Placement, placements
from dse.exporters.yaml_text import Flow, Tagged, dump
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import ArrayKind
from hw_models.accelerator.levels import MemoryLevel
from hw_models.costs.residency.models import OPERANDS

TOOL = "Timeloop v4 (format 0.4; Accelergy-Project/timeloop-accelergy-exercises)"
_DRAM_TYPES = {"lpddr4": "LPDDR4", "lpddr": "LPDDR", "ddr3": "DDR3", "ddr4": "DDR4", "hbm2": "HBM2", "gddr5": "GDDR5"}


def _container(name: str, **fields: Any) -> Tagged:
    return Tagged("Container", {"name": name, **fields})


def _memory(level: MemoryLevel, a: Accelerator, name: str, placement: Placement | None = None) -> Tagged:
    """A memory; with ``placement`` one beside which operands stay: the DRAM is passed by, the level below has what is left and them."""
    bits = a.word_bits
    stay = () if placement is None else placement.on_chip
    if level.kind != "sram":
        width = max(bits, round(level.read_words_per_cycle * bits))
        attributes = {
            "type": _DRAM_TYPES.get(level.kind, "LPDDR4"),
            "width": width,
            "datawidth": bits,
            "read_bandwidth": float(level.read_words_per_cycle),
            "write_bandwidth": float(level.write_words_per_cycle),
        }
        fields: dict[str, Any] = {"name": name, "class": "DRAM", "attributes": attributes}
        if stay:
            spaces = {kind: [word.capitalize() for word in OPERANDS if (word in stay) == (kind == "bypass")] for kind in ("keep", "bypass")}
            fields["constraints"] = {"dataspace": Flow({kind: names for kind, names in spaces.items() if names})}
        return Tagged("Component", fields)
    # One row is what the memory delivers in a cycle.
    words = max(1, round(level.read_words_per_cycle))
    size = level.bytes * (1 if level.shared else 3)
    buffers = 2 if level.double_buffered else 1
    if placement is not None and level is a.levels[-2]:  # operands that stay have one copy, so that tiles have theirs counted here
        size = int((level.bytes - placement.held_bytes) / buffers + placement.resident_bytes)
        buffers = 1
    attributes = {
        "width": words * bits,
        "depth": max(1, -(-size * 8 // (words * bits)) if placement is not None else size * 8 // (words * bits)),
        "datawidth": bits,
        "n_banks": 1,
        "read_bandwidth": float(level.read_words_per_cycle),
        "write_bandwidth": float(level.write_words_per_cycle),
        "multiple_buffering": buffers,
    }
    keep = Flow({"keep": ["Inputs", "Weights", "Outputs"]})
    return Tagged("Component", {"name": name, "class": "SRAM", "attributes": attributes, "constraints": {"dataspace": keep}})


def architecture(design: ExportDesign, placement: Placement | None = None) -> dict[str, Any]:
    """The architecture document; with ``placement`` that of a product beside what stays on chip."""
    a = design.accelerator
    taken = {"system", "chip", "core", "column", "pe", "registers", "mac"}
    nodes: list[Tagged] = [_container("system")]
    reverse = list(reversed(a.levels))
    nodes.append(_memory(reverse[0], a, safe_name(reverse[0].name, taken), placement))
    chip = {"technology": f"{a.node_nm:g}nm", "global_cycle_seconds": 1 / a.frequency_hz}
    nodes.append(_container("chip", attributes=chip))
    inside_core = False
    for level in reverse[1:]:
        if level.per_core and not inside_core:
            nodes.append(_container("core", spatial=Flow({"meshX": a.cores})))
            inside_core = True
        nodes.append(_memory(level, a, safe_name(level.name, taken), placement))
    if not inside_core:
        nodes.append(_container("core", spatial=Flow({"meshX": a.cores})))
    nodes.append(_container("column", spatial=Flow({"meshX": a.array_columns})))
    nodes.append(_container("pe", spatial=Flow({"meshY": a.array_rows})))
    if a.register_bytes:
        attributes = {
            "width": a.word_bits,
            "depth": max(1, a.register_bytes * 8 // a.word_bits),
            "datawidth": a.word_bits,
        }
        nodes.append(Tagged("Component", {"name": "registers", "class": "regfile", "attributes": attributes}))
    mac = {"multiplier_width": a.word_bits, "adder_width": 32}
    nodes.append(Tagged("Component", {"name": "mac", "class": "intmac", "attributes": mac}))
    return {"architecture": {"version": 0.4, "nodes": nodes}}


def problem(p: Product) -> dict[str, Any]:
    """A product as a problem: dimensions B (batch), M, N, K."""
    batch = [["B"]] if not p.second_is_weight or p.batch > 1 else []

    def space(name: str, projection: list[list[str]], **more: Any) -> dict[str, Any]:
        return {"name": name, "projection": Flow([[[d] for d in part] for part in projection]), **more}

    return {
        "problem": {
            "version": 0.4,
            "shape": {
                "name": p.name,
                "dimensions": Flow(["B", "M", "N", "K"]),
                "data_spaces": [
                    space("Inputs", [["B"], ["M"], ["K"]]),
                    space("Weights", [*batch, ["K"], ["N"]]),
                    space("Outputs", [["B"], ["M"], ["N"]], read_write=True),
                ],
            },
            "instance": Flow({"B": p.batch, "M": p.m, "N": p.n, "K": p.k}),
        }
    }


def mapper(design: ExportDesign) -> dict[str, Any]:
    """Settings of Timeloop's mapper; its metrics follow the criterion of the design."""
    metrics = {"edp": ["edp"], "latency": ["delay", "energy"], "energy": ["energy", "delay"]}[design.criterion]
    return {
        "mapper": {
            "version": 0.4,
            "algorithm": "random_pruned",
            "optimization_metrics": Flow(metrics),
            "victory_condition": 1000,
            "timeout": 10000,
            "live_status": False,
        }
    }


def export(design: ExportDesign) -> Export:
    """The files for Timeloop."""
    a = design.accelerator
    files = {"arch.yaml": dump(architecture(design)), "mapper.yaml": dump(mapper(design))}
    files |= {f"problems/{p.name}.yaml": dump(problem(p)) for p in design.products}
    files |= {f"on-chip/{p.name}.yaml": dump(architecture(design, p)) for p in placements(design)}
    lost = [
        "The mapping that our cost stands for: its tiles are padded (a last tile may be smaller), Timeloop's factors must multiply to "
        "the size exactly; its mapper searches its own.",
        "Energies: Accelergy estimates them there for the components named here; ours come from the tables of the design's profile.",
    ]
    if a.array_kind != ArrayKind.DOT_PRODUCT:
        lost.append(f"Filling and draining of an array of the kind {ArrayKind(a.array_kind).name.lower()}.")
    assumed = ["Accumulators of 32 bits.", "One bank a memory, whose row is what it delivers in a cycle."]
    if a.levels[-1].kind not in _DRAM_TYPES:
        assumed.append(f"LPDDR4 for a DRAM of type {a.levels[-1].kind}")
    if not all(v.shared for v in a.levels):
        assumed.append("Levels with a buffer for each operand are one memory of their total size.")
    return Export(
        tool=TOOL,
        files=files,
        expressed=[
            "`arch.yaml`: DRAM, buffers with size, bandwidth and double buffering, cores, array and registers.",
            "`problems/*.yaml`: each distinct product; `mapper.yaml`: the mapper's settings with the criterion of the design.",
        ],
        assumed=assumed,
        lost=lost,
        run=["# with the Timeloop front end: arch.yaml, mapper.yaml and one file of problems/"],
        checked="Not run: Timeloop is no package that installs. The tests check the documents against the form of its v4 examples, "
        "and a golden file keeps it.",
        on_chip="`on-chip/*.yaml` is the architecture for each product in each condition that it runs in: operands that stay bypass the "
        "DRAM, and the level below has their bytes and the room that is left for tiles, once (`multiple_buffering` 1).",
    )
