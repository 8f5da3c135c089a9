"""ZigZag 3: accelerator, workload, and for every product the spatial mapping that our cost stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dse.exporters.base import Export, script
from dse.exporters.design import ExportDesign, Product, axis_dimensions
from dse.exporters.names import safe_name
from dse.exporters.on_chip import Placement, placements, room_bytes
from dse.exporters.yaml_text import Flow, dump
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import ArrayKind
from hw_models.accelerator.levels import MemoryLevel

if TYPE_CHECKING:
    from hw_models.costs.mapping import LoopNest

TOOL = "ZigZag 3.9.1"
# Names of the loops in the workload: m, n, k and the batch.
LOOPS = {"m": "D0", "n": "D1", "k": "D2", "batch": "G"}
OPERANDS = {"I1": "inputs", "I2": "weights", "O": "outputs"}
# Share of a multiplier's registers for each operand: ours is one capacity for all, ZigZag's registers belong to one.
REGISTER_SHARE = {"I1": 0.25, "I2": 0.25, "O": 0.5}


def export(design: ExportDesign) -> Export:
    """The files for ZigZag."""
    a = design.accelerator
    lost = [
        "Registers that any operand may use: ZigZag's belong to one operand, so each multiplier's are divided (a quarter for inputs, "
        "a quarter for weights, half for outputs).",
        "The temporal mapping that our cost stands for: ZigZag searches its own (give it `temporal_ordering` to fix one).",
        "Leakage, area of logic, voltage and frequency: its results are cycles and pJ.",
        "Transfers that overlap the first and last tile: ZigZag adds the cycles of loading the first and storing the last.",
    ]
    if a.array_kind != ArrayKind.DOT_PRODUCT:
        lost.append(f"Filling and draining: the array is {ArrayKind(a.array_kind).name.lower()}, ZigZag's cycles have neither.")
    return Export(
        tool=TOOL,
        files={
            "hardware.yaml": hardware_yaml(design),
            "workload.yaml": workload_yaml(design),
            "mapping.yaml": mapping_yaml(design),
            "run_zigzag.py": script("run_zigzag.py"),
            **{f"on-chip/{p.name}.yaml": hardware_yaml(design, p) for p in placements(design)},
        },
        expressed=[
            f"`hardware.yaml`: the array as D1 (columns, {a.array_columns}), D2 (rows, {a.array_rows}) and D3 (cores, {a.cores}); "
            "registers, every memory level with its size, bandwidth and energy (pJ an access of the whole bandwidth).",
            "`workload.yaml`: the matrix products as independent layers; batches with second operands of their own have a loop G.",
            "`mapping.yaml`: for each product how it is spread over columns, rows and cores in the mapping that our cost stands for.",
        ],
        assumed=[
            "Partial sums have the width of the output, as in our own model.",
            "A memory of the kind double-buffered is given to ZigZag as such (`force_double_buffering`).",
            "The mapping was chosen by " + design.criterion + ".",
        ],
        lost=lost,
        run=["python -m venv zigzag && zigzag/bin/pip install zigzag-dse==3.9.1 six", "zigzag/bin/python run_zigzag.py"],
        checked="Run by the real tool in the slow tests: its ideal cycles must equal our compute cycles, and its latency is held "
        "against ours with the difference in docs/exports.md.",
        on_chip="`on-chip/*.yaml` is the accelerator for each product in each condition that it runs in: the DRAM serves only operands "
        "that do not stay, and the level below has their bytes and the room that is left for tiles, once. `run_zigzag.py --on-chip` runs "
        "them.",
    )


def _bits(words_per_cycle: float, word_bits: int) -> int:
    return max(word_bits, int(words_per_cycle * word_bits))


def _memory(level: MemoryLevel, a: Accelerator, energies: tuple[float, float], operands: list[str], served: list[str]) -> dict[str, Any]:
    """A memory with a read and a write port; its costs are those of one access of the whole bandwidth."""
    read, write = _bits(level.read_words_per_cycle, a.word_bits), _bits(level.write_words_per_cycle, a.word_bits)
    down = [f"{op}, tl" for op in operands] + (["O, th"] if "O" in operands else [])
    up = [f"{op}, fh" for op in operands] + (["O, fl"] if "O" in operands else [])
    return {
        "size": level.bytes * 8,
        "r_cost": energies[0] * read / a.word_bits,
        "w_cost": energies[1] * write / a.word_bits,
        "area": 0,
        "latency": 1,
        "auto_cost_extraction": False,
        "operands": Flow(operands),
        "ports": [
            Flow({"name": "r_port_1", "type": "read", "bandwidth_min": a.word_bits, "bandwidth_max": read, "allocation": down}),
            Flow({"name": "w_port_1", "type": "write", "bandwidth_min": a.word_bits, "bandwidth_max": write, "allocation": up}),
        ],
        "served_dimensions": Flow(served),
        "force_double_buffering": level.double_buffered,
    }


def _register(design: ExportDesign, operand: str) -> dict[str, Any]:
    a, b = design.accelerator, design.batch
    bits = max(a.word_bits, int(a.register_bytes * 8 * REGISTER_SHARE[operand]) // a.word_bits * a.word_bits)
    directions = ("tl", "th", "fh", "fl") if operand == "O" else ("tl", "fh")
    ports = []
    for number, direction in enumerate(directions):
        kind = "r" if direction[0] == "t" else "w"
        place = number % 2 + 1 if operand == "O" else 1
        ports.append(
            Flow(
                {
                    "name": f"{kind}_port_{place}",
                    "type": "read" if kind == "r" else "write",
                    "bandwidth_min": a.word_bits,
                    "bandwidth_max": a.word_bits,
                    "allocation": [f"{operand}, {direction}"],
                }
            )
        )
    return {
        "size": bits,
        "r_cost": float(b.register_read_pj_per_word[0]),
        "w_cost": float(b.register_write_pj_per_word[0]),
        "area": 0,
        "latency": 1,
        "auto_cost_extraction": False,
        "operands": Flow([operand]),
        "ports": ports,
        "served_dimensions": Flow([]),
    }


def memories(design: ExportDesign, *, levels: tuple[MemoryLevel, ...] | None = None, placement: Placement | None = None) -> dict[str, Any]:
    """Registers and memories by name, innermost first; with ``placement`` the DRAM has only what does not stay on chip, and the level
    below it the bytes of what does and what is left for tiles, once.
    """
    a, b = design.accelerator, design.batch
    found: dict[str, Any] = {f"reg_{OPERANDS[op]}": _register(design, op) for op in OPERANDS}
    taken = set(found)
    for i, level in enumerate(a.levels):
        if levels is not None and level not in levels:
            continue
        energies = (float(b.level_read_pj_per_word[0, i]), float(b.level_write_pj_per_word[0, i]))
        served = ["D1", "D2"] if level.per_core else ["D1", "D2", "D3"]
        operands = list(OPERANDS)
        if placement is not None and i == len(a.levels) - 1:
            operands = [op for op, word in OPERANDS.items() if word not in placement.on_chip]
            if not operands:
                continue
        if placement is not None and i == len(a.levels) - 2:
            size = int(room_bytes(design, placement) + placement.resident_bytes)
            level = replace(level, bytes=size, double_buffered=False)
        if b.level_shared[i]:
            found[safe_name(level.name, taken)] = _memory(level, a, energies, operands, served)
        else:
            for op, word in OPERANDS.items():
                found[safe_name(f"{level.name}_{word}", taken)] = _memory(level, a, energies, [op], served)
    return found


def hardware_yaml(design: ExportDesign, placement: Placement | None = None) -> str:
    """The accelerator file; with ``placement`` that of a product beside what stays on chip."""
    a = design.accelerator
    return dump(
        {
            "name": design.label,
            "memories": memories(design, placement=placement),
            "operational_array": {
                "unit_energy": float(design.batch.mac_pj[0]),
                "unit_area": 1.0,
                "dimensions": Flow(["D1", "D2", "D3"]),
                "sizes": Flow([a.array_columns, a.array_rows, a.cores]),
            },
        }
    )


def layer(p: Product, number: int) -> dict[str, Any]:
    """A product as a layer of the workload."""
    batched = p.batch > 1
    equation = "O[g][d0][d1]+=I[g][d0][d2]*W[g][d2][d1]" if batched else "O[d0][d1]+=I[d0][d2]*W[d2][d1]"
    return {
        "id": number,
        "name": p.name,
        "operator_type": "Gemm",
        "equation": equation,
        "dimension_relations": Flow([]),
        "loop_dims": Flow((["G"] if batched else []) + ["D0", "D1", "D2"]),
        "loop_sizes": Flow(([p.batch] if batched else []) + [p.m, p.n, p.k]),
        "operand_precision": Flow({"W": p.weight_bits, "I": p.input_bits, "O": p.output_bits, "O_final": p.output_bits}),
        "operand_source": Flow({"I": number, "W": number}),
    }


def workload_yaml(design: ExportDesign) -> str:
    """The products as layers that do not depend on each other."""
    return dump([layer(p, i) for i, p in enumerate(design.products)])


def spatial(p: Product, mapping: LoopNest, a: Accelerator) -> dict[str, list[str]]:
    """D1 (columns), D2 (rows) and D3 (cores) of a product: the loops that they carry."""
    sizes = {"m": p.m, "n": p.n, "k": p.k, "batch": p.batch}
    column, row = axis_dimensions(mapping, a.array_rows, a.array_columns)
    cores = [(name, units) for name, units in zip(("m", "n", "k", "batch"), mapping.cores, strict=True) if units > 1]
    used: dict[str, int] = {}
    axes: dict[str, list[str]] = {"D1": [], "D2": [], "D3": []}
    for axis, entries in (("D3", cores), ("D1", [column]), ("D2", [row])):
        for name, units in entries:
            # Units beyond the size of a loop idle; the tool takes no more than there is.
            here = min(units, -(-sizes[name] // used.get(name, 1)))
            used[name] = used.get(name, 1) * here
            if here > 1:
                axes[axis].append(f"{LOOPS[name]}, {here}")
    return {axis: entries for axis, entries in axes.items() if entries}


def mapping_yaml(design: ExportDesign) -> str:
    """Spatial mappings of the products by name, and a default."""
    links = Flow({"O": "O", "W": "I2", "I": "I1"})
    a = design.accelerator
    entries: list[dict[str, Any]] = [
        {
            "name": "default",
            "spatial_mapping": {"D1": Flow([f"D1, {a.array_columns}"]), "D2": Flow([f"D2, {a.array_rows}"])},
            "memory_operand_links": links,
        }
    ]
    for p in design.products:
        axes = {axis: Flow(found) for axis, found in spatial(p, design.mappings[p.name], a).items()}
        entry: dict[str, Any] = {"name": p.name, "memory_operand_links": links}
        if axes:
            entry["spatial_mapping"] = axes
        entries.append(entry)
    return dump(entries)
