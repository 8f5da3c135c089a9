"""Energy, area and leakage of memories and logic, each from a table with its source.

SRAM between the sizes of a table follows a power law from point to point (linear in the logarithms); beyond its ends
the last segment's law goes on. The level of the numbers is the Accelergy/CACTI table at 22 nm (the one the area
closed form of the `edge22` template is made of); the step to another node is the ratio of two CACTI 7 tables at the
same size. CACTI 7 computes 22 and 45 nm; its 7 nm rows are its own linear scaling of 22 nm, and every figure below 22
nm is therefore an assumption, labelled `scaled`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

from hw_models.errors import bad_value, unknown_name

FloatArray = npt.NDArray[np.float64]
Quantity = Literal["area_um2", "read_pj", "write_pj", "leakage_w", "access_s"]
KIB = 1024.0
NODE_RANGE_NM = (7.0, 45.0)
# The tables end at 8 MiB and begin at 32 KiB; a power law carried two decades further says little, so it stops there.
SIZE_RANGE_BYTES = (256.0, 1024.0 * 1024 * 1024)


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of ``hw_models/data/<name>`` as dictionaries of strings."""
    text = (files("hw_models") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@dataclass(frozen=True)
class SizeCurve:
    """A quantity over the size of a memory: power laws between the table's points."""

    log_bytes: FloatArray
    log_value: FloatArray

    def __call__(self, size_bytes: npt.ArrayLike) -> FloatArray:
        """The quantity at ``size_bytes`` (any shape), in the unit of the table's column."""
        x = np.log(np.asarray(size_bytes, dtype=np.float64))
        segment = np.clip(np.searchsorted(self.log_bytes, x, side="right") - 1, 0, len(self.log_bytes) - 2)
        x0, y0 = self.log_bytes[segment], self.log_value[segment]
        slope = (self.log_value[segment + 1] - y0) / (self.log_bytes[segment + 1] - x0)
        return np.asarray(np.exp(y0 + slope * (x - x0)))


def curve(kib: npt.ArrayLike, value: npt.ArrayLike) -> SizeCurve:
    """The power-law curve through points (KiB, value), which must be positive and ascending in size."""
    return SizeCurve(np.log(np.asarray(kib, dtype=np.float64) * KIB), np.log(np.asarray(value, dtype=np.float64)))


@cache
def accelergy_curve(quantity: Quantity) -> SizeCurve:
    """SRAM at 22 nm, 4-byte access (sram_accelergy_22nm.csv): area_um2, read_pj or write_pj over bytes."""
    rows = read_table("sram_accelergy_22nm.csv")
    return curve([float(r["kib"]) for r in rows], [float(r[quantity]) for r in rows])


ACCELERGY_ACCESS_BYTES = 4


@cache
def cacti7_curve(quantity: Quantity, node_nm: int) -> SizeCurve:
    """SRAM at a node of the table (7, 22, 45 nm), 32-byte access (sram_cacti7.csv), over bytes."""
    rows = [r for r in read_table("sram_cacti7.csv") if int(r["node_nm"]) == node_nm]
    if not rows:
        raise unknown_name("node of the CACTI 7 table", node_nm, ("7", "22", "45"))
    return curve([float(r["kib"]) for r in rows], [float(r[quantity]) for r in rows])


def check_node(node_nm: npt.ArrayLike) -> FloatArray:
    """``node_nm`` as an array, or an error where it lies outside the tables."""
    node = np.asarray(node_nm, dtype=np.float64)
    low, high = NODE_RANGE_NM
    bad = ~((node >= low) & (node <= high))
    if np.any(bad):
        value = float(np.extract(bad, node)[0])
        raise bad_value("node_nm", value, f"between {low:g} and {high:g} nm", closest=f"{min(max(value, low), high):g}")
    return node


def cacti7(quantity: Quantity, size_bytes: npt.ArrayLike, node_nm: npt.ArrayLike) -> FloatArray:
    """SRAM by CACTI 7 at any node from 7 to 45 nm: power law in the node between the tables at 7, 22 and 45 nm."""
    size, node = np.broadcast_arrays(np.asarray(size_bytes, dtype=np.float64), check_node(node_nm))
    if np.all(node == 22.0):
        return cacti7_curve(quantity, 22)(size)
    at = {n: np.log(cacti7_curve(quantity, n)(size)) for n in (7, 22, 45)}
    x = np.log(node)
    low = at[7] + (at[22] - at[7]) * (x - np.log(7.0)) / (np.log(22.0) - np.log(7.0))
    high = at[22] + (at[45] - at[22]) * (x - np.log(22.0)) / (np.log(45.0) - np.log(22.0))
    return np.asarray(np.exp(np.where(node <= 22.0, low, high)))


def sram(quantity: Quantity, size_bytes: npt.ArrayLike, node_nm: npt.ArrayLike = 22.0) -> FloatArray:
    """SRAM of ``size_bytes`` at ``node_nm`` (broadcast): area_um2; read_pj, write_pj of a 4-byte access; leakage_w;
    access_s.

    Area and energy: the Accelergy/CACTI curve at 22 nm times CACTI 7's ratio of ``node_nm`` to 22 nm at that
        size. Leakage and access time: CACTI 7. A size of 0 costs nothing.
    """
    size = np.asarray(size_bytes, dtype=np.float64)
    node = check_node(node_nm)
    low, high = SIZE_RANGE_BYTES
    bad = (size != 0) & ~((size >= low) & (size <= high))
    if np.any(bad):
        value = float(np.extract(bad, size)[0])
        closest = f"{min(max(value, low), high):g}"
        raise bad_value("SRAM size in bytes", value, f"0 or between {low:g} and {high:g}", closest=closest)
    present = size > 0
    safe = np.where(present, size, KIB)
    if quantity in ("leakage_w", "access_s"):
        value_at = cacti7(quantity, safe, node)
    else:
        value_at = accelergy_curve(quantity)(safe)
        if not np.all(node == 22.0):
            value_at = value_at * cacti7(quantity, safe, node) / cacti7_curve(quantity, 22)(safe)
    return np.asarray(np.where(present, value_at, 0.0))


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
    return Logic(
        float(row["area_um2"] or 0.0),
        float(row["energy_pj"]),
        float(row["write_energy_pj"] or row["energy_pj"]),
        row["source"],
    )


@cache
def dram_types() -> dict[str, float]:
    """Energy of DRAM and HBM by type [pJ/byte] (dram.csv)."""
    return {r["type"]: float(r["pj_per_byte"]) for r in read_table("dram.csv")}


def dram_pj_per_byte(kind: str) -> float:
    """Energy of moving one byte to or from DRAM of type ``kind`` [pJ]."""
    types = dram_types()
    if kind not in types:
        raise unknown_name("DRAM type", kind, types)
    return types[kind]
