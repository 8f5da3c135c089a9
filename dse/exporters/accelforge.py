"""accelforge 1: architecture with energies and bandwidths, and a workload a product."""

from __future__ import annotations

from typing import Any

from dse.exporters.base import Export, script
from dse.exporters.design import ExportDesign, Product
from dse.exporters.names import safe_name
from dse.exporters.yaml_text import Flow, Plain, Tagged, dump
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.accelerator.levels import MemoryLevel

TOOL = "accelforge 1.0.467"
# Which operand the units along the columns and along the rows of the array use together, by what rests in the array.
_REUSE = {
    Dataflow.WS: ("input", "output"),
    Dataflow.ANY: ("input", "output"),
    Dataflow.OS: ("input", "weight"),
    Dataflow.IS: ("weight", "output"),
}
_OPERANDS = ("input", "weight", "output")


def _actions(read_pj_per_bit: float, write_pj_per_bit: float, read_bits_per_s: float, write_bits_per_s: float) -> list[Flow]:
    def latency(rate: float) -> Any:
        return Plain(f"1 / {rate:.17g}") if rate else 0

    return [
        Flow({"name": "read", "energy": read_pj_per_bit * 1e-12, "latency": latency(read_bits_per_s)}),
        Flow({"name": "write", "energy": write_pj_per_bit * 1e-12, "latency": latency(write_bits_per_s)}),
    ]


def _level(design: ExportDesign, i: int, name: str, tensors: Any, whole: tuple[float, float]) -> Tagged:
    a, b = design.accelerator, design.batch
    level: MemoryLevel = a.levels[i]
    rate = a.word_bits * a.frequency_hz
    # The tool lets no level overlap filling and using; half of a double-buffered level is what a tile may take.
    usable = level.bytes * 8 // (2 if level.double_buffered else 1)
    return Tagged(
        "Memory",
        {
            "name": name,
            "size": Plain("inf") if i == len(a.levels) - 1 else usable,
            "leak_power": whole[0],
            "area": whole[1],
            "actions": _actions(
                float(b.level_read_pj_per_word[0, i]) / a.word_bits,
                float(b.level_write_pj_per_word[0, i]) / a.word_bits,
                level.read_words_per_cycle * rate,
                level.write_words_per_cycle * rate,
            ),
            "tensors": tensors,
        },
    )


def architecture(design: ExportDesign) -> dict[str, Any]:
    """The architecture document: DRAM first, multiplier last."""
    a, b = design.accelerator, design.batch
    taken = {"Core", "Array", "Register", "MAC", "columns", "rows", "cores"}
    everything = Flow({"keep": Plain("All")})
    last = len(a.levels) - 1
    nodes: list[Tagged] = [
        _level(
            design,
            last,
            safe_name(a.levels[last].name, taken),
            Flow({"keep": Plain("~Intermediates"), "may_keep": Plain("All")}),
            (0.0, 0.0),
        )
    ]
    # The figures of the whole design stand at its outermost level of SRAM, divided where every core has one.
    figures = (float(b.leakage_w[0]), float(b.area_mm2[0]) * 1e-6)
    outermost = next((i for i in range(last - 1, -1, -1)), None)
    inside = False
    for i in range(last - 1, -1, -1):
        level = a.levels[i]
        if level.per_core and not inside:
            nodes.append(_cores(a))
            inside = True
        share = a.cores if level.per_core else 1
        whole = (figures[0] / share, figures[1] / share) if i == outermost else (0.0, 0.0)
        if b.level_shared[i]:
            nodes.append(_level(design, i, safe_name(level.name, taken), everything, whole))
            continue
        for operand in _OPERANDS:
            only = Flow({"keep": Plain(operand)})
            nodes.append(_level(design, i, safe_name(f"{level.name}_{operand}", taken), only, whole))
            whole = (0.0, 0.0)
    if not inside:
        nodes.append(_cores(a))
    columns, rows = _REUSE[Dataflow(a.dataflow)]
    spatial = [
        Flow({"name": name, "fanout": size, "may_reuse": Plain(operand), "reuse": Plain(operand), "min_usage": 1})
        for name, size, operand in (("columns", a.array_columns, columns), ("rows", a.array_rows, rows))
        if size > 1
    ]
    if spatial:
        nodes.append(Tagged("Container", {"name": "Array", "spatial": spatial}))
    if a.register_bytes:
        nodes.append(
            Tagged(
                "Memory",
                {
                    "name": "Register",
                    "size": a.register_bytes * 8,
                    "leak_power": 0.0,
                    "area": 0.0,
                    "actions": _actions(
                        float(b.register_read_pj_per_word[0]) / a.word_bits, float(b.register_write_pj_per_word[0]) / a.word_bits, 0, 0
                    ),
                    "tensors": everything,
                },
            )
        )
    compute = Flow({"name": "compute", "energy": float(b.mac_pj[0]) * 1e-12, "latency": Plain(f"1 / {a.frequency_hz:.17g}")})
    nodes.append(Tagged("Compute", {"name": "MAC", "leak_power": 0.0, "area": 0.0, "actions": [compute]}))
    return {"arch": {"nodes": nodes}}


def _cores(a: Accelerator) -> Tagged:
    spread = Flow({"name": "cores", "fanout": a.cores, "may_reuse": Plain("weight"), "min_usage": 1})
    return Tagged("Container", {"name": "Core", "spatial": [spread]})


def workload(p: Product) -> dict[str, Any]:
    """One product as an einsum."""
    batch = ["b"] if p.batch > 1 else []
    sizes = {**({"b": p.batch} if batch else {}), "m": p.m, "k": p.k, "n": p.n}
    bits = {"I": p.input_bits, "W": p.weight_bits, "O": p.output_bits}
    accesses = [
        Flow({"name": "I", "projection": [*batch, "m", "k"]}),
        Flow({"name": "W", "projection": [*batch, "k", "n"]}),
        Flow({"name": "O", "projection": [*batch, "m", "n"], "output": True}),
    ]
    return {
        "workload": {
            # Plain text: single letters would be quoted otherwise ("n" is a boolean in YAML 1.1).
            "iteration_space_shape": {rank: f"0 <= {rank} < {size}" for rank, size in sizes.items()},
            "bits_per_value": Flow({"All": bits["I"]} if len(set(bits.values())) == 1 else bits),
            "einsums": [{"name": p.name, "tensor_accesses": accesses, "renames": Flow({"weight": "W", "input": "I", "output": "O"})}],
        }
    }


def export(design: ExportDesign) -> Export:
    """The files for accelforge."""
    a = design.accelerator
    columns, rows = _REUSE[Dataflow(a.dataflow)]
    files = {"arch.yaml": dump(architecture(design)), "run_accelforge.py": script("run_accelforge.py")}
    files |= {f"workloads/{p.name}.yaml": dump(workload(p)) for p in design.products}
    lost = [
        "The mapping that our cost stands for: its mapper searches its own, in factors that multiply to the size exactly; our tiles are "
        "padded.",
        "Overlap of filling and using a buffer: a double-buffered level is given with half of its size.",
        "Vector units.",
    ]
    if a.array_kind != ArrayKind.DOT_PRODUCT:
        lost.append(f"Filling and draining of an array of the kind {ArrayKind(a.array_kind).name.lower()}.")
    return Export(
        tool=TOOL,
        files=files,
        expressed=[
            "`arch.yaml`: DRAM, buffers, cores, array, registers and multipliers with energy a bit, time a bit, leakage and area.",
            "`workloads/*.yaml`: each distinct product as an einsum.",
        ],
        assumed=[
            f"Units along the columns share an {columns}, units along the rows an {rows}"
            + (" (the design may choose for every product)." if a.dataflow == Dataflow.ANY else "."),
            "Leakage and area of the whole design stand at its outermost on-chip memory.",
            "All tensors pass through every level.",
        ],
        lost=lost,
        run=[
            "python3.12 -m venv accelforge && accelforge/bin/pip install accelforge==1.0.467   # and the system's graphviz (dot)",
            "accelforge/bin/python run_accelforge.py LAYER",
        ],
        checked="Run by the real tool in the slow tests on small products: its latency is held against ours, with the difference in "
        "docs/exports.md.",
    )
