"""GenZ: a system, and the model where its dimensions are those of a transformer."""

from __future__ import annotations

import json
from typing import Any

from dse.exporters.base import Export, script
from dse.exporters.design import ExportDesign
from hw_models.accelerator.design import Accelerator

TOOL = "genz-llm 0.0.16"
# Its names of precisions by bits, and how much longer than bf16 an operation takes there.
PRECISIONS = {2: ("int2", 0.125), 4: ("int4", 0.25), 8: ("int8", 0.5), 16: ("bf16", 1.0), 32: ("f32", 2.0)}
# Its bandwidths and sizes are in binary units, its rates in decimal ones (GenZ/unit.py).
BINARY_GIGA = 2**30
BINARY_MEGA = 2**20


def precision(design: ExportDesign) -> tuple[int, str, float]:
    """The widest operand of the products as a precision of GenZ: (bits, its name, its multiplier)."""
    widest = max(max(p.input_bits, p.weight_bits) for p in design.products)
    bits = next((known for known in PRECISIONS if known >= widest), max(PRECISIONS))
    return (bits, *PRECISIONS[bits])


def system(design: ExportDesign) -> dict[str, Any]:
    """The keyword arguments of GenZ's ``System`` (read there with ``System.from_json``)."""
    a = design.accelerator
    _, name, multiplier = precision(design)
    inner, dram = a.levels[0], a.levels[-1]
    word = a.word_bits / 8
    copies = a.cores if inner.per_core else 1
    return {
        # It divides the rate by the multiplier of the precision, so that the rate must be that of bf16.
        "flops": float(design.batch.tops[0]) * multiplier,
        "frequency": a.frequency_hz / 1e6,
        "bits": name,
        "onchip_mem_bw": copies * inner.read_words_per_cycle * word * a.frequency_hz / BINARY_GIGA,
        "on_chip_mem_size": sum(v.bytes * (a.cores if v.per_core else 1) for v in a.levels[:-1]) / BINARY_MEGA,
        "offchip_mem_bw": dram.read_words_per_cycle * word * a.frequency_hz / BINARY_GIGA,
        "off_chip_mem_size": dram.bytes / BINARY_MEGA,
        "compute_efficiency": 1.0,
        "memory_efficiency": 1.0,
    }


def model(design: ExportDesign) -> dict[str, Any] | None:
    """The keyword arguments of GenZ's ``ModelConfig`` and the tokens of a request, or None for a model of another kind."""
    d = design.workload.dimensions
    if design.workload.family not in ("encoder", "decoder") or not {"layers", "hidden", "heads", "ffn"} <= set(d):
        return None
    if any(d.get(name) for name in ("experts", "mla_kv_lora")):
        return None
    return {
        "tokens": int(d.get("sequence", 1)),
        "batch": int(d.get("batch", 1)),
        "config": {
            "model": design.label,
            "vocab_size": int(d.get("vocabulary", 1)),
            "hidden_size": int(d["hidden"]),
            "intermediate_size": int(d["ffn"]),
            "num_ffi": 2 if d.get("gated") else 1,
            "num_decoder_layers": int(d["layers"]),
            "num_attention_heads": int(d["heads"]),
            "num_key_value_heads": int(d.get("kv_heads") or d["heads"]),
            "head_dim": int(d.get("head_dim") or int(d["hidden"]) // int(d["heads"])),
        },
    }


def export(design: ExportDesign) -> Export:
    """The files for GenZ."""
    a: Accelerator = design.accelerator
    files: dict[str, str] = {"system.json": _json(system(design)), "run_genz.py": script("run_genz.py")}
    bits, name, _ = precision(design)
    expressed = [
        f"`system.json`: peak rate, frequency, on-chip and off-chip size and bandwidth, precision {name} (read it with "
        "`GenZ.system.System.from_json`).",
        "`operations.csv`: the matrix products, which the run script gives to GenZ's own operators.",
    ]
    lost = [
        "Array shape, dataflow, levels of memory and mapping: GenZ is a roofline of one rate and one bandwidth, so a product that does "
        "not fill the array, or that a buffer's bandwidth bounds, is faster there than here.",
        "Reads and writes at the same time: GenZ adds inputs, weights and outputs over one bandwidth; ours reads and writes together.",
        "Energy and area.",
        "Widths that differ between operands: one precision for all.",
    ]
    described = model(design)
    if described is not None:
        files["model.json"] = _json(described)
        expressed.append("`model.json`: the dimensions of the model for GenZ's `ModelConfig` and the tokens of a request.")
        lost.append(
            "In `model.json`: embeddings of positions and types, the pooler, biases, softmax, norms; it counts looking tokens up and "
            "its own output layer as products with the whole vocabulary."
        )
        if len(design.workload.phases) > 1:
            lost.append(
                "In `model.json`: phases after the first; the script asks GenZ for the prefill, and for every product of all phases."
            )
    assumed = ["compute, memory and communication efficiency 1"]
    widest = max(max(p.input_bits, p.weight_bits) for p in design.products)
    if bits != widest:
        assumed.append(f"operands of {widest} bits count as {name}")
    if a.array_rows * a.array_columns == 1:
        assumed.append("a single multiplier")
    return Export(
        tool=TOOL,
        files=files,
        expressed=expressed,
        assumed=assumed,
        lost=lost,
        run=["python -m venv genz && genz/bin/pip install genz-llm==0.0.16", "genz/bin/python run_genz.py"],
        checked="Run by the real tool in the slow tests: its time of each product must equal the roofline of the same rate and "
        "bandwidth, and its distance to our cycles is in docs/exports.md.",
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
