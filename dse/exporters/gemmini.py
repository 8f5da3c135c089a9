"""Gemmini: a Chisel configuration of its generator."""

from __future__ import annotations

from dataclasses import dataclass

from dse.errors import DseError
from dse.exporters.base import Export
from dse.exporters.design import ExportDesign
from dse.exporters.names import quoted
from hw_models.accelerator.fields import Dataflow

TOOL = "Gemmini (ucb-bar/gemmini, GemminiArrayConfig as in Configs.scala)"
SCRATCHPAD_BANKS, ACCUMULATOR_BANKS = 4, 2
ACCUMULATOR_BITS = 32


@dataclass(frozen=True)
class Array:
    """What Gemmini is told: a square array, the KiB of its two memories, the bits of an input."""

    dim: int
    scratchpad_kib: int
    accumulator_kib: int
    input_bits: int
    dataflow: str

    def broken_rules(self) -> list[str]:
        """Rules of Gemmini's generator that these settings break (the ``require`` lines of GemminiConfigs.scala)."""
        bank = self.scratchpad_kib * 1024 * 8 // (SCRATCHPAD_BANKS * self.dim * self.input_bits)
        accumulator_bank = self.accumulator_kib * 1024 * 8 // (ACCUMULATOR_BANKS * self.dim * ACCUMULATOR_BITS)
        tiles = SCRATCHPAD_BANKS * bank // self.dim - 2
        rules = [
            (self.dim >= 2 and self.dim & (self.dim - 1) == 0, "the array must be a power of two from 2 on"),
            (bank > 0 and bank & (bank - 1) == 0, "a scratchpad bank must have a power of two of rows"),
            (bank > 0 and bank % self.dim == 0, "the rows of a scratchpad bank must be a multiple of the array"),
            (accumulator_bank > 0 and accumulator_bank % self.dim == 0, "the rows of an accumulator bank must be a multiple of the array"),
            (tiles >= ACCUMULATOR_BANKS * accumulator_bank // self.dim, "the scratchpad must hold more tiles than the accumulator"),
        ]
        return [text for kept, text in rules if not kept]


def settings_of(design: ExportDesign) -> Array:
    """The square array and the memories that stand for one core; DseError where no setting keeps Gemmini's rules."""
    a = design.accelerator
    macs = a.array_rows * a.array_columns
    dim = 2
    while (2 * dim) ** 2 <= macs:
        dim *= 2
    local = a.levels[0]
    kib = local.bytes // 1024 * (1 if local.shared else 3)
    scratchpad = 1
    while scratchpad * 2 <= kib * 3 // 4:
        scratchpad *= 2
    flow = {Dataflow.WS: "WS", Dataflow.OS: "OS"}.get(Dataflow(a.dataflow), "BOTH")
    found = Array(dim, scratchpad, max(1, scratchpad // 4), a.word_bits, flow)
    broken = found.broken_rules() if macs >= 4 else ["the array must be a power of two from 2 on"]
    if broken:
        raise DseError(
            f"accelerator {a.name!r} with {a.array_rows} x {a.array_columns} multipliers and {kib} KiB in level {local.name!r} has no "
            f"form in Gemmini: {broken[0]}"
        )
    return found


def export(design: ExportDesign) -> Export:
    """The Scala file for Gemmini."""
    a, s = design.accelerator, settings_of(design)
    bus = max(8, a.levels[-1].read_words_per_cycle * a.word_bits)
    width = 64
    while width < min(bus, 512):
        width *= 2
    name = "".join(part.capitalize() for part in design.label.split("_")) + "Config"
    text = f"""\
package gemmini

import chisel3._
import freechips.rocketchip.diplomacy.LazyModule
import freechips.rocketchip.tile.BuildRoCC
import org.chipsalliance.cde.config.{{Config, Parameters}}

// One core of a design that dse found. Everything that is not named here is Gemmini's default configuration.
object {name}s {{
  val config = GemminiConfigs.defaultConfig.copy(
    inputType = SInt({s.input_bits}.W),
    accType = SInt({ACCUMULATOR_BITS}.W),
    tileRows = 1,
    tileColumns = 1,
    meshRows = {s.dim},
    meshColumns = {s.dim},
    dataflow = Dataflow.{s.dataflow},
    sp_banks = {SCRATCHPAD_BANKS},
    acc_banks = {ACCUMULATOR_BANKS},
    sp_capacity = CapacityInKilobytes({s.scratchpad_kib}),
    acc_capacity = CapacityInKilobytes({s.accumulator_kib}),
    dma_buswidth = {width}
  )
}}

class {name} extends Config((site, here, up) => {{
  case BuildRoCC => up(BuildRoCC) ++ Seq((p: Parameters) => {{
    implicit val q = p
    LazyModule(new Gemmini({name}s.config))
  }})
}})
"""
    lost = [
        f"The shape of the array: Gemmini's is square and its side a power of two, so {a.array_rows} x {a.array_columns} = "
        f"{a.array_rows * a.array_columns} multipliers became {s.dim} x {s.dim} = {s.dim**2}.",
        "Levels beyond the scratchpad and the accumulator ("
        + ", ".join(quoted(v.name) for v in a.levels[1:])
        + "): they are the system's caches and memory.",
        "Workload and mapping: Gemmini runs compiled programs; `operations.csv` has the sizes for its tiled matrix products.",
        "Energy, area, voltage, frequency, node.",
    ]
    if a.cores > 1:
        lost.append(f"The {a.cores} cores: the configuration is one of them.")
    if s.dim**2 == a.array_rows * a.array_columns == s.dim * a.array_rows:
        lost.pop(0)
    smaller = (
        f"the exported array has {s.dim} x {s.dim} = {s.dim**2} multipliers, the design {a.array_rows} x {a.array_columns} = "
        f"{a.array_rows * a.array_columns}: Gemmini's is square and its side a power of two"
    )
    return Export(
        tool=TOOL,
        files={f"{name}.scala": text},
        expressed=[
            f"`{name}.scala`: the array, its dataflow ({s.dataflow}), scratchpad ({s.scratchpad_kib} KiB) and accumulator "
            f"({s.accumulator_kib} KiB) from level {quoted(a.levels[0].name)}, the width of the bus."
        ],
        assumed=[
            f"{SCRATCHPAD_BANKS} scratchpad and {ACCUMULATOR_BANKS} accumulator banks, sums of {ACCUMULATOR_BITS} bits; the memories "
            "are the largest powers of two within the level that leave a quarter of the scratchpad's size to the accumulator.",
        ],
        lost=lost,
        careful=[smaller] if s.dim**2 < a.array_rows * a.array_columns else [],
        run=["# into generators/gemmini/src/main/scala/gemmini of a Chipyard checkout"],
        checked="Not compiled: it needs Chipyard. The rules of Gemmini's generator are checked before the file is written, and a "
        "golden file keeps the form.",
    )
