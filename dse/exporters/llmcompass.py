"""LLMCompass: the device as JSON."""

from __future__ import annotations

import json
from typing import Any

from dse.exporters.base import Export
from dse.exporters.design import ExportDesign

TOOL = "LLMCompass (PrincetonUniversity/LLMCompass@b95c6c9, configs/template.json)"
_TYPES = {8: "int8", 16: "fp16", 32: "fp32"}
# LLMCompass names the interfaces that its area model knows.
_PROTOCOLS = {"lpddr4": "DDR4", "lpddr4x": "DDR4", "lpddr5": "DDR5", "ddr4": "DDR4", "ddr5": "DDR5", "hbm2": "HBM2e", "hbm2e": "HBM2e"}
_PINS = 1024


def device(design: ExportDesign) -> dict[str, Any]:
    """The JSON document."""
    a = design.accelerator
    on_chip = a.levels[:-1]
    local = next((v for v in on_chip if v.per_core), on_chip[0])
    shared = next((v for v in reversed(on_chip) if not v.per_core), local)
    dram = a.levels[-1]
    word = a.word_bits / 8
    bits = next((known for known in _TYPES if known >= a.word_bits), 32)
    register_words = max(1, a.array_rows * a.array_columns * a.register_bytes * 8 // 32)
    node = f"{a.node_nm:g}nm"
    return {
        "name": design.label,
        "device_count": 1,
        "interconnect": {
            "link": {
                "name": "none",
                "bandwidth_per_direction_byte": 1.0,
                "bandwidth_both_directions_byte": 2.0,
                "latency_second": 0.0,
                "flit_size_byte": 16,
                "header_size_byte": 16,
                "max_payload_size_byte": 256,
            },
            "link_count_per_device": 1,
            "topology": "FC",
        },
        "device": {
            "frequency_Hz": a.frequency_hz,
            "compute_chiplet_count": 1,
            "compute_chiplet": {
                "physical_core_count": a.cores,
                "core_count": a.cores,
                "process_node": node,
                "core": {
                    "sublane_count": 1,
                    "systolic_array": {
                        "array_width": a.array_columns,
                        "array_height": a.array_rows,
                        "data_type": _TYPES[bits],
                        "mac_per_cycle": 1,
                    },
                    "vector_unit": {
                        "vector_width": max(1, a.vector_lanes // a.cores),
                        "flop_per_cycle": 1,
                        "data_type": _TYPES[bits],
                        "int32_count": 0,
                        "fp16_count": 0,
                        "fp32_count": 0,
                        "fp64_count": 0,
                    },
                    "register_file": {
                        "num_reg_files": 1,
                        "num_registers": register_words,
                        "register_bitwidth": 32,
                        "num_rdwr_ports": 1,
                    },
                    "SRAM_KB": local.bytes / 1024,
                },
            },
            "memory_protocol": _PROTOCOLS.get(dram.kind, "DDR4"),
            "io": {
                "process_node": node,
                "global_buffer_MB": shared.bytes / 2**20,
                "physical_global_buffer_MB": shared.bytes / 2**20,
                "global_buffer_bandwidth_per_cycle_byte": shared.read_words_per_cycle * word,
                "memory_channel_physical_count": 1,
                "memory_channel_active_count": 1,
                "pin_count_per_channel": _PINS,
                "bandwidth_per_pin_bit": dram.read_words_per_cycle * a.word_bits * a.frequency_hz / _PINS,
            },
            "memory": {"total_capacity_GB": dram.bytes / 2**30},
        },
    }


def export(design: ExportDesign) -> Export:
    """The file for LLMCompass."""
    a = design.accelerator
    assumed = [
        "One device: the interconnect's fields are fillers that a single device never uses.",
        f"The bandwidth of the DRAM as one channel of {_PINS} pins; only the product of the three fields is meant.",
        "One sublane a core, one operation a vector lane and cycle.",
    ]
    if a.levels[-1].kind not in _PROTOCOLS:
        assumed.append(f"memory protocol DDR4 for a DRAM of type {a.levels[-1].kind}")
    lost = [
        "The workload: LLMCompass builds its operators in Python; `operations.csv` has the sizes to give them.",
        "Energy; area by our tables (it has a model of its own for 7 nm logic).",
        "A DRAM of another kind than its own protocols, bandwidth of each level in words, double buffering, mapping.",
        "Sharing of registers between operands.",
    ]
    return Export(
        tool=TOOL,
        files={"device.json": json.dumps(device(design), indent=2, allow_nan=False) + "\n"},
        expressed=["`device.json`: cores, arrays, vector lanes, local and global buffer, DRAM with its bandwidth, frequency, node."],
        assumed=assumed,
        lost=lost,
        checked="Not run: LLMCompass is no package that installs. Its keys are held against its own template in the tests, and a "
        "golden file keeps the form.",
    )
