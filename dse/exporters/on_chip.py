"""What an exported design keeps on chip between operations, and how each product runs beside it.

A product that runs in several conditions (other operands on chip, other room left) is one `Placement` for each: what a target that
takes one product at a time can be told of residency is which operands do not pass the DRAM, and the room that is left for tiles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dse_kernels import mapping

from dse.exporters.design import ExportDesign, Product
from dse.exporters.names import safe_name
from hw_models.costs.mapping import LoopNest, loop_nest, mapping_hardware
from hw_models.costs.residency.models import OPERANDS

FILE = "on_chip.json"


@dataclass(frozen=True)
class Placement:
    """A product as it runs beside what stays on chip.

    Attributes:
        name: safe for any file format, another one for each placement.
        product: what runs. operations: the operations of the model that run it so; runs: how often a request does.
        on_chip: which of inputs, weights and outputs lie in the last level below the DRAM and do not pass its boundary.
        held_bytes: all that lies there while it runs, these included.
        latency_s, energy_j, dram_bytes: of one run, the work in its epilogue and what is loaded or stored beside it included.
    """

    name: str
    product: Product
    operations: tuple[str, ...]
    runs: float
    on_chip: tuple[str, ...]
    held_bytes: float
    latency_s: float
    energy_j: float
    dram_bytes: float

    @property
    def resident_bytes(self) -> float:
        """Bytes of its own operands that are on chip."""
        p = self.product
        bits = {
            "inputs": p.batch * p.m * p.k * p.input_bits,
            "weights": p.batch * p.k * p.n * p.weight_bits,
            "outputs": p.batch * p.m * p.n * p.output_bits,
        }
        return sum(bits[name] for name in self.on_chip) / 8.0


def placements(design: ExportDesign) -> tuple[Placement, ...]:
    """How the products of a design run beside what stays on chip; empty where nothing does. What runs tile by tile is told in steps."""
    if design.on_chip is None:
        return ()
    steps: dict[tuple[str, tuple[str, ...], float], list[Mapping[str, Any]]] = {}
    for step in design.on_chip["steps"]:
        name = design.rows.get(step["row"])
        if name is not None and step["runs"] > 0 and "tiles" not in step:
            steps.setdefault((name, tuple(step["operands_on_chip"]), step["held_bytes"]), []).append(step)
    products = {p.name: p for p in design.products}
    taken: set[str] = set()
    placed = []
    for (name, on_chip, held), same in steps.items():
        runs = sum(step["runs"] for step in same)
        letters = "".join(word[0] for word in on_chip) or "none"
        placed.append(
            Placement(
                name=safe_name(f"{name}_{letters}", taken),
                product=products[name],
                operations=tuple(dict.fromkeys("+".join([step["name"], *step["epilogue"]]) for step in same)),
                runs=runs,
                on_chip=on_chip,
                held_bytes=held,
                **{field: sum(step[field] for step in same) / runs for field in ("latency_s", "energy_j", "dram_bytes")},
            )
        )
    return tuple(placed)


def placed_mappings(design: ExportDesign, placed: Sequence[Placement]) -> dict[str, LoopNest]:
    """The mapping of each placement, by its name: beside what is held, its operands on chip."""
    sizes = [(p.product.batch, p.product.m, p.product.n, p.product.k) for p in placed]
    shared = [p.product.second_is_weight and p.product.batch == 1 for p in placed]
    found = mapping.search(
        sizes,
        shared,
        mapping_hardware(design.batch),
        operand_bits=np.array([(p.product.input_bits, p.product.weight_bits, p.product.output_bits) for p in placed], dtype=np.float64),
        criterion=design.criterion,  # type: ignore[arg-type]
        resident=np.array([sum(OPERANDS[name] for name in p.on_chip) for p in placed]),
        held_bits=np.array([round(8.0 * p.held_bytes) for p in placed]),
        return_mapping=True,
    )
    assert found.mapping is not None  # asked for
    names = design.batch.level_names
    return {p.name: loop_nest(found.mapping, sizes[i], names, shape=i, weights_shared=shared[i]) for i, p in enumerate(placed)}


def room_bytes(design: ExportDesign, placement: Placement) -> float:
    """What is left for tiles in the last level below the DRAM, one copy of them: half where the level is double buffered."""
    level = design.accelerator.levels[-2]
    return (level.bytes - placement.held_bytes) / (2 if level.double_buffered else 1)


def text(design: ExportDesign) -> str:
    """`on_chip.json`: where each tensor lives, each step with what is on chip while it runs, and each placement with its mapping."""
    found = design.on_chip
    assert found is not None  # the caller asks where something stays
    placed = placements(design)
    mappings = placed_mappings(design, placed) if placed else {}
    document = {
        "residency": found["level"],
        "weights_on_chip": found["weights_on_chip"],
        "capacity_bytes": found["capacity_bytes"],
        "dram_bytes": found["dram_bytes"],
        "dram_bytes_by_cause": found["dram_bytes_by_cause"],
        **({"prefetch": found["prefetch"]} if "prefetch" in found else {}),
        "tensors": found["tensors"],
        "steps": [{**step, "layer": design.rows.get(step["row"])} for step in found["steps"]],
        "placements": [
            {
                "name": p.name,
                "layer": p.product.name,
                "operations": list(p.operations),
                "runs_per_request": p.runs,
                "on_chip": list(p.on_chip),
                "held_bytes": p.held_bytes,
                "room_bytes": room_bytes(design, p),
                "latency_s": p.latency_s,
                "energy_j": p.energy_j,
                "dram_bytes": p.dram_bytes,
                "mapping": mappings[p.name].as_dict(),
            }
            for p in placed
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
