"""Energy, area and leakage of memories and logic, each from a table with its source.

SRAM: CACTI 7 at seven nodes from 22 to 90 nm and sizes from 16 KiB to 64 MiB (sram_cacti.csv), for two ports: 4
    bytes (four banks, two ports; the memories that the area closed form of `edge22` is made of) and 32 bytes (one
    bank, one port). Between points a quantity follows a power law in the size and in the node; beyond the ends of the
    sizes the last segment's law goes on. Below 22 nm nothing is
computed: there the rule of hwcomponents-cacti applies (area with the node, energy and leakage with its square
    root), and every such figure is labelled `scaled`. A MAC and its registers are Accelergy's at 22 nm (logic.csv);
    other nodes and voltages follow the published polynomials of Stillmaker and Baas (logic_scaling.csv).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hw_models.errors import bad_value, unknown_name
from hw_models.technology.namespace import NUMPY, Array, Namespace, power_law

FloatArray = npt.NDArray[np.float64]
Quantity = Literal["area_um2", "read_pj", "write_pj", "leakage_w", "access_s"]
KIB = 1024.0
NODE_RANGE_NM = (2.0, 130.0)
COMPUTED_RANGE_NM = (22.0, 90.0)
SUPPLIES_V = (0.5, 1.3)
"""Supplies between which the polynomials of logic_scaling.csv are used."""
# The tables run from 16 KiB to 64 MiB; a power law carried much further says little.
SIZE_RANGE_BYTES = (256.0, 1024.0**3)
ACCESS_BYTES = (4, 32)
# What Accelergy adds to CACTI for each access at 22 nm: an address generator (a 1 pJ adder at 45 nm, scaled) or a
# dummy.
ADDRESS_READ_PJ, ADDRESS_WRITE_PJ = 1.586294, 2.0
# hwcomponents-cacti: FinFETs leak 21 % less than the planar devices they follow (Parvais et al., VLSI-TSA 2009).
FINFET_LEAKAGE = 0.79


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of ``hw_models/data/<name>`` as dictionaries of strings."""
    text = (files("hw_models") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@dataclass(frozen=True)
class SizeCurve:
    """A quantity over the size of a memory: power laws between the table's points (ascending)."""

    log_bytes: FloatArray
    log_value: FloatArray

    def log(self, log_size: FloatArray) -> FloatArray:
        """Logarithm of the quantity at sizes given by their logarithm."""
        return np.asarray(power_law(NUMPY, self.log_bytes, self.log_value, log_size))


def size_curve(kib: npt.ArrayLike, value: npt.ArrayLike) -> SizeCurve:
    """The curve through points (KiB, value), positive and ascending in size."""
    return SizeCurve(np.log(np.asarray(kib, dtype=np.float64) * KIB), np.log(np.asarray(value, dtype=np.float64)))


@cache
def _sram_rows() -> dict[tuple[int, int], list[dict[str, str]]]:
    grouped: dict[tuple[int, int], list[dict[str, str]]] = {}
    for row in read_table("sram_cacti.csv"):
        grouped.setdefault((int(row["access_bytes"]), int(row["node_nm"])), []).append(row)
    return grouped


@cache
def sram_nodes(access_bytes: int) -> tuple[int, ...]:
    """Nodes of the SRAM table [nm], ascending."""
    nodes = tuple(sorted(node for access, node in _sram_rows() if access == access_bytes))
    if not nodes:
        raise bad_value("access_bytes", access_bytes, f"one of {', '.join(map(str, ACCESS_BYTES))}")
    return nodes


@cache
def sram_curve(quantity: Quantity, node_nm: int, access_bytes: int = 4) -> SizeCurve:
    """What CACTI gives at a node of the table: area_um2, read_pj and write_pj of an access, leakage_w, access_s, over
    bytes.
    """
    rows = _sram_rows().get((access_bytes, node_nm))
    if rows is None:
        raise unknown_name("node of the SRAM table", node_nm, map(str, sram_nodes(access_bytes)))
    return size_curve([float(r["kib"]) for r in rows], [float(r[quantity]) for r in rows])


def check_node(node_nm: npt.ArrayLike) -> FloatArray:
    """``node_nm`` as an array, or an error where it lies outside the tables."""
    node = np.asarray(node_nm, dtype=np.float64)
    low, high = NODE_RANGE_NM
    bad = ~((node >= low) & (node <= high))
    if np.any(bad):
        value = float(np.extract(bad, node)[0])
        raise bad_value("node_nm", value, f"between {low:g} and {high:g} nm", closest=f"{min(max(value, low), high):g}")
    return node


def node_status(node_nm: float) -> str:
    """How memory figures at a node come about: computed, interpolated between computed nodes, or scaled."""
    low, high = COMPUTED_RANGE_NM
    if low <= node_nm <= high:
        return "computed" if node_nm in sram_nodes(4) else "interpolated"
    return "scaled"


def cacti(quantity: Quantity, size_bytes: npt.ArrayLike, node_nm: npt.ArrayLike = 22.0, access_bytes: int = 4) -> FloatArray:
    """SRAM as CACTI has it, at any size and node (broadcast), before Accelergy's activity: see `sram` for the
    quantities.
    """
    size, node = np.broadcast_arrays(np.asarray(size_bytes, dtype=np.float64), check_node(node_nm))
    log_size = np.log(size)
    result = np.empty(size.shape)
    for value in np.unique(node):
        here = node == value
        result[here] = _at_node(quantity, log_size[here], float(value), access_bytes)
    return result


def _at_node(quantity: Quantity, log_size: FloatArray, node: float, access_bytes: int) -> FloatArray:
    nodes = sram_nodes(access_bytes)
    if node < nodes[0]:
        ratio = node / nodes[0]
        law = {"area_um2": ratio, "access_s": ratio, "leakage_w": FINFET_LEAKAGE * ratio**0.5}.get(quantity, ratio**0.5)
        return np.asarray(np.exp(sram_curve(quantity, nodes[0], access_bytes).log(log_size)) * law)
    upper = min((n for n in nodes if n >= node), default=nodes[-1])
    if upper == node:
        return np.asarray(np.exp(sram_curve(quantity, upper, access_bytes).log(log_size)))
    if node > nodes[-1]:  # as above, the other way: squared, as hwcomponents-cacti has it beyond its largest node
        factor = (node / nodes[-1]) ** (1.0 if quantity == "access_s" else 2.0)
        return np.asarray(np.exp(sram_curve(quantity, nodes[-1], access_bytes).log(log_size)) * factor)
    lower = max(n for n in nodes if n < node)
    share = (np.log(node) - np.log(lower)) / (np.log(upper) - np.log(lower))
    low, high = (sram_curve(quantity, n, access_bytes).log(log_size) for n in (lower, upper))
    return np.asarray(np.exp(low + share * (high - low)))


def sram(quantity: Quantity, size_bytes: npt.ArrayLike, node_nm: npt.ArrayLike = 22.0, access_bytes: int = 4) -> FloatArray:
    """SRAM of ``size_bytes`` at ``node_nm`` (broadcast), 0 bytes costing nothing.

    Quantities: area_um2; read_pj, write_pj of an access of ``access_bytes``; leakage_w; access_s. Energies are
        Accelergy's: half of CACTI's access (data and address toggle half of the time) and an address generator.
    """
    size = np.asarray(size_bytes, dtype=np.float64)
    low, high = SIZE_RANGE_BYTES
    present = size > 0
    bad = (size != 0) & ~((size >= low) & (size <= high))
    if np.any(bad):
        value = float(np.extract(bad, size)[0])
        raise bad_value("SRAM size in bytes", value, f"0 or between {low:g} and {high:g}", closest=f"{min(max(value, low), high):g}")
    found = cacti(quantity, np.where(present, size, KIB), node_nm, access_bytes)
    if quantity == "read_pj":
        found = found / 2 + ADDRESS_READ_PJ * logic_energy(node_nm)
    elif quantity == "write_pj":
        found = found / 2 + ADDRESS_WRITE_PJ * logic_energy(node_nm)
    return np.asarray(np.where(present, found, 0.0))


# ---- logic ----

REFERENCE_NODE_NM, REFERENCE_V = 22.0, 0.8
"""Where logic.csv holds: 22 nm at the supply of CACTI's low-standby-power process."""


@dataclass(frozen=True)
class Logic:
    """A logic component at 22 nm and 8 bit: area [um2], energy of one use (or read) and of one write [pJ]."""

    area_um2: float
    energy_pj: float
    write_energy_pj: float
    source: str


@cache
def logic(component: str) -> Logic:
    """The row of logic.csv named ``component``: mac, array_register, vector_register, lookup_table."""
    rows = {r["component"]: r for r in read_table("logic.csv")}
    if component not in rows:
        raise unknown_name("logic component", component, rows)
    row = rows[component]
    energy = float(row["energy_pj"])
    return Logic(float(row["area_um2"] or 0.0), energy, float(row["write_energy_pj"] or energy), row["source"])


@cache
def _logic_table() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Nodes (n,), areas (n,), delay coefficients (n, 4) and energy coefficients (n, 3), highest power first."""
    rows = read_table("logic_scaling.csv")
    nodes = np.array([float(r["node_nm"]) for r in rows])
    area = np.array([float(r["area_relative"]) for r in rows])
    delay = np.array([[float(r[f"delay_v{p}"]) for p in (3, 2, 1, 0)] for r in rows])
    energy = np.array([[float(r[f"energy_v{p}"]) for p in (2, 1, 0)] for r in rows])
    return nodes, area, delay, energy


def _between(node: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """For each node the table node below it, and how far it lies towards the next one in the logarithm."""
    nodes = np.log(_logic_table()[0])
    x = np.log(node)
    at = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    return at, np.clip((x - nodes[at]) / (nodes[at + 1] - nodes[at]), 0.0, 1.0)


def _between_nodes(values: FloatArray, node: FloatArray, *, below: float) -> FloatArray:
    """Power law in the node through ``values`` (n,) at ``node`` (points,); below the smallest node it goes with that power."""
    at, share = _between(node)
    logs = np.log(values)
    beyond = np.minimum(node / _logic_table()[0][0], 1.0) ** below
    return np.asarray(np.exp(logs[at] + share * (logs[at + 1] - logs[at])) * beyond)


def _voltage(voltage_v: npt.ArrayLike) -> FloatArray:
    voltage = np.asarray(voltage_v, dtype=np.float64)
    low, high = SUPPLIES_V
    bad = ~((voltage >= low) & (voltage <= high))
    if np.any(bad):
        value = float(np.extract(bad, voltage)[0])
        closest = f"{min(max(value, low), high):g}"
        raise bad_value("voltage_v", value, f"between {low:g} and {high:g} V, where the scaling of logic holds", closest=closest)
    return voltage


def _polynomials(coefficients: FloatArray, voltage: FloatArray) -> FloatArray:
    """Polynomials of each node (n, powers) at supplies (points,): (n, points)."""
    # Horner, entry by entry: the rounding of a matrix product depends on how many points are computed together.
    total = np.zeros((len(coefficients), len(voltage)))
    for coefficient in coefficients.T:
        total = total * voltage + coefficient[:, None]
    return total


@cache
def _delay_turns() -> FloatArray:
    """Supply (n,) from which on the delay polynomial of a node no longer falls: there its fit ends and the delay stays."""
    supplies = np.linspace(*SUPPLIES_V, 801)
    falling = np.diff(_polynomials(_logic_table()[2], supplies), axis=1) < 0
    first = np.where(falling.all(axis=1), falling.shape[1], np.argmin(falling, axis=1))
    return np.asarray(supplies[first])


def logic_scale(xp: Namespace, which: Literal["delay", "energy"], node_nm: FloatArray, supply_v: Array) -> Array:
    """Energy or delay of logic relative to 22 nm and 0.8 V: nodes as plain numbers, supplies of any namespace, of one shape.

    The polynomials of the two table nodes about each node, read at its supply, and the power law in the node between them; beyond the
    table's smallest node energy goes with the root of the node, delay stays (IRDS).
    """
    node = np.asarray(node_nm, dtype=np.float64)
    reference = _polynomial(xp, which, np.full(1, REFERENCE_NODE_NM), xp.asarray(np.full(1, REFERENCE_V)))
    return _polynomial(xp, which, node, supply_v) / reference


def _polynomial(xp: Namespace, which: str, node: FloatArray, supply: Array) -> Array:
    nodes, _, delay, energy = _logic_table()
    coefficients = delay if which == "delay" else energy
    flat = node.reshape(-1)
    at, share = _between(flat)
    # What a quantity that is the same at every node would get: the law beyond the smallest one.
    beyond = _between_nodes(np.ones(len(nodes)), flat, below=0.5 if which == "energy" else 0.0)

    def value(index: npt.NDArray[np.int64]) -> Array:
        x = xp.minimum(supply, xp.asarray(_delay_turns()[index].reshape(node.shape))) if which == "delay" else supply
        total: Array = 0.0
        for power in coefficients.T:
            total = total * x + xp.asarray(power[index].reshape(node.shape))
        return xp.log(total)

    low, high = value(at), value(at + 1)
    return xp.exp(low + xp.asarray(share.reshape(node.shape)) * (high - low)) * xp.asarray(beyond.reshape(node.shape))


def _scaled(which: Literal["delay", "energy"], node_nm: npt.ArrayLike, voltage_v: npt.ArrayLike) -> FloatArray:
    """`logic_scale` of arrays that broadcast, each checked."""
    node, voltage = np.broadcast_arrays(check_node(node_nm), _voltage(voltage_v))
    return np.asarray(logic_scale(NUMPY, which, node, voltage))


def logic_energy(node_nm: npt.ArrayLike, voltage_v: npt.ArrayLike = REFERENCE_V) -> FloatArray:
    """Switching energy of logic relative to 22 nm and 0.8 V (broadcast); below 7 nm with the root of the node (IRDS)."""
    node, voltage = np.asarray(node_nm, dtype=np.float64), np.asarray(voltage_v, dtype=np.float64)
    if np.all(node == REFERENCE_NODE_NM) and np.all(voltage == REFERENCE_V):
        return np.ones(np.broadcast_shapes(node.shape, voltage.shape))
    return _scaled("energy", node, voltage)


def logic_delay(node_nm: npt.ArrayLike, voltage_v: npt.ArrayLike = REFERENCE_V) -> FloatArray:
    """Delay of logic relative to 22 nm and 0.8 V (broadcast); below 7 nm as at 7 nm.

    A design that closes timing at a frequency and a supply closes it at frequency x delay(supply) / delay(other) at
    another supply.
    """
    return _scaled("delay", node_nm, voltage_v)


def logic_area(node_nm: npt.ArrayLike) -> FloatArray:
    """Area of logic relative to 22 nm; below 7 nm with the node (IRDS)."""
    node = check_node(node_nm)
    if np.all(node == REFERENCE_NODE_NM):
        return np.ones(node.shape)
    area = _logic_table()[1]
    flat = node.reshape(-1)
    reference = _between_nodes(area, np.array([REFERENCE_NODE_NM]), below=1.0)
    return np.asarray((_between_nodes(area, flat, below=1.0) / reference).reshape(node.shape))


# ---- DRAM ----

FLASH: Final = ("nand",)  # kinds that are written once and then read, a page at a time: a catalogue, never what a run computes


@dataclass(frozen=True)
class Dram:
    """A type of DRAM (LPDDR, GDDR, HBM) or of flash: energy of a bit [pJ], smallest access (burst, page) [bytes], source, and what one part
    moves [bytes/s].

    ``part`` says what a part is (a package, a module, a stack) and at what rate of its standard.
    """

    pj_per_bit: float
    burst_bytes: int
    source: str
    part_bytes_per_s: float
    part: str

    @property
    def pj_per_byte(self) -> float:
        """Energy of a byte [pJ]."""
        return 8.0 * self.pj_per_bit


@cache
def dram_types() -> dict[str, Dram]:
    """All types of DRAM by name (dram.csv)."""
    return {r["type"]: _dram(r) for r in read_table("dram.csv")}


def _dram(row: dict[str, str]) -> Dram:
    return Dram(float(row["pj_per_bit"]), int(row["burst_bytes"]), row["source"], float(row["part_bytes_per_s"]), row["part"])


@cache
def dram_random_s(kind: str) -> float:
    """Time of a read that finds another row open in its bank, of a DRAM of type ``kind`` [s] (dram_latency.csv)."""
    times = {r["type"]: float(r["random_s"]) for r in read_table("dram_latency.csv")}
    if kind not in times:
        raise unknown_name("DRAM type", kind, times)
    return times[kind]


def dram(kind: str) -> Dram:
    """The DRAM of type ``kind``; an unknown type is an error naming the nearest."""
    types = dram_types()
    if kind not in types:
        raise unknown_name("DRAM type", kind, types)
    return types[kind]
