"""Every number of this package that comes from outside, with its range, source, vintage and licence.

The tables live in ``carbon/data/*.csv`` and are read on first use. A :class:`Factor` is one cell with its provenance; the
formulas take plain numbers, and whoever looks a number up keeps the factor so that ``explain`` can print it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from carbon.errors import CarbonError, nearest, unknown


@dataclass(frozen=True, slots=True)
class Factor:
    """One sourced number.

    Attributes:
        key: dotted name, for example ``fab.7nm.epa_kwh_cm2``.
        value: the number, in ``unit``.
        unit: unit as text.
        low, high: range for uncertainty work; None where the source gives none and none is assumed.
        source, vintage, licence: where it comes from, of when, and under what terms.
        note: known flaws, assumptions behind the range, what is included.
    """

    key: str
    value: float
    unit: str
    low: float | None
    high: float | None
    source: str
    vintage: str
    licence: str
    note: str = ""


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of ``carbon/data/<name>.csv`` as dictionaries of text, read once."""
    text = resources.files("carbon").joinpath("data", f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(io.StringIO(text)))


def _optional(text: str) -> float | None:
    return float(text) if text else None


@cache
def _fab() -> dict[str, dict[float, Factor]]:
    """Fab factors as quantity -> node -> factor."""
    found: dict[str, dict[float, Factor]] = {}
    for row in table("fab_nodes"):
        node = float(row["node_nm"])
        factor = Factor(
            key=f"fab.{node:g}nm.{row['quantity']}",
            value=float(row["value"]),
            unit=row["unit"],
            low=_optional(row["low"]),
            high=_optional(row["high"]),
            source=row["source"],
            vintage=row["vintage"],
            licence=row["licence"],
            note=row["note"],
        )
        found.setdefault(row["quantity"], {})[node] = factor
    return found


def fab_quantities() -> list[str]:
    """Return the names of all fab quantities."""
    return sorted(_fab())


def nodes(quantity: str = "epa_kwh_cm2") -> list[float]:
    """Return the process nodes in nm, smallest first, for which ``quantity`` is known."""
    return sorted(_fab()[quantity])


def parse_node(value: object) -> float:
    """Read a process node given as 7, 7.0, "7" or "7nm" and return it in nm.

    Raises:
        CarbonError: it is not such a thing. Whether a table has the node is for the table to say.
    """
    text = str(value).strip().lower()
    try:
        return float(text.removesuffix("nm").strip())
    except ValueError:
        raise unknown("node_nm", value, [f"{node:g}nm" for node in nodes()]) from None


def fab(quantity: str, node_nm: object) -> Factor:
    """Return one fab factor, for example ``fab("epa_kwh_cm2", 7)``.

    Raises:
        CarbonError: unknown quantity or a node without that quantity; names the nearest nodes that have it.
    """
    by_node = _fab().get(quantity)
    if by_node is None:
        raise unknown("fab quantity", quantity, _fab())
    node = parse_node(node_nm)
    found = _at(quantity, node)
    if found is None:
        raise _no_node(quantity, node, by_node)
    return found


OLDEST_NM = 130.0
"""Oldest node that is costed at all; between the oldest node of ACT's tables and it that node's factors stand in, and say so."""
_STANDS_IN = ("epa_kwh_cm2", "gpa_", "mpa_kgco2e_cm2", "d0_default_per_cm2", "alpha_default")


@cache
def _at(quantity: str, node: float) -> Factor | None:
    """The factor of a node: of the table, between two of its nodes (power law in the node), or of the oldest for older ones."""
    by_node = _fab()[quantity]
    if node in by_node:
        return by_node[node]
    if not quantity.startswith(_STANDS_IN):
        return None  # peers' tables stay as they are
    # A node that a table has may lack some of its gases: 12 nm has those of 99 % abatement alone (0.135, between its neighbours 0.137).
    if node in _fab()["epa_kwh_cm2"] and not quantity.startswith("gpa_"):
        return None
    below = max((n for n in by_node if n < node), default=None)
    above = min((n for n in by_node if n > node), default=None)
    key = f"fab.{node:g}nm.{quantity}"
    if below is None or (above is None and node > OLDEST_NM):
        return None
    if above is None:
        note = f"the factor of {below:g} nm, the oldest node that is known; older ones need no more".strip()
        return replace(by_node[below], key=key, note=note)
    a, b = by_node[below], by_node[above]
    share = (math.log(node) - math.log(below)) / (math.log(above) - math.log(below))

    def between(x: float | None, y: float | None) -> float | None:
        if x is None or y is None:
            return None
        return x ** (1 - share) * y**share if min(x, y) > 0 else x + share * (y - x)

    value = between(a.value, b.value)
    assert value is not None
    note = f"interpolated between {below:g} and {above:g} nm"
    source = a.source if a.source == b.source else f"{a.source}; {b.source}"
    return replace(a, key=key, value=value, low=between(a.low, b.low), high=between(a.high, b.high), source=source, note=note)


def _no_node(quantity: str, node: float, known: Iterable[float], where: str = "") -> CarbonError:
    close = nearest(f"{node:g}", [f"{each:g}" for each in sorted(known)])
    return CarbonError(f"{where}node_nm {node:g} has no {quantity}; nearest: {', '.join(close)}")


class NodeIndex:
    """An array of process nodes sorted out once, so that many quantities can be taken from it quickly.

    Attributes:
        distinct: the nodes that occur, in nm, ascending.
    """

    def __init__(self, node_nm: Any) -> None:
        array = np.asarray(node_nm)
        if array.dtype.kind not in "fiu":
            array = np.array([parse_node(item) for item in array.ravel()], dtype=np.float64).reshape(array.shape)
        wanted = array.astype(np.float64, copy=False)
        table_nodes = {node for by_node in _fab().values() for node in by_node}
        between = {node for node in np.unique(wanted).tolist() if min(table_nodes) < node <= OLDEST_NM}
        self._known = np.array(sorted(table_nodes | between), dtype=np.float64)
        self._index = np.minimum(np.searchsorted(self._known, wanted), self._known.size - 1)
        wrong = self._known[self._index] != wanted
        if wrong.any():
            at = int(np.flatnonzero(wrong.ravel())[0])
            value = f"{float(wanted.ravel()[at]):g}"
            raise unknown("node_nm", value, [f"{node:g}" for node in self._known], f"element {at}: ")
        counts = np.bincount(self._index.ravel(), minlength=self._known.size)
        self.distinct: list[float] = self._known[counts > 0].tolist()

    def where(self, node: float) -> Any:
        """Return the mask of one node."""
        return self._known[self._index] == node

    def values(self, quantity: str) -> Any:
        """Return ``quantity`` for every node of the array (float64).

        Raises:
            CarbonError: unknown quantity, or a node without it, by its index in the array.
        """
        by_node = _fab().get(quantity)
        if by_node is None:
            raise unknown("fab quantity", quantity, _fab())
        for node in self.distinct:
            if _at(quantity, node) is None:
                at = int(np.flatnonzero(np.ravel(self.where(node)))[0])
                raise _no_node(quantity, node, by_node, f"element {at}: ")
        factors = {node: _at(quantity, node) for node in self.distinct}
        column = np.array([f.value if (f := factors.get(node)) is not None else np.nan for node in self._known.tolist()])
        return column[self._index]


def fab_values(quantity: str, node_nm: Any) -> Any:
    """Return ``quantity`` for one node (float) or for an array of nodes (float64 array of the same shape).

    Raises:
        CarbonError: a node without that quantity, by its index in the array.
    """
    if np.ndim(node_nm) == 0:
        return fab(quantity, node_nm).value
    return NodeIndex(node_nm).values(quantity)


def fab_factors(quantity: str, node_nm: Any) -> list[Factor]:
    """Return the factors behind :func:`fab_values`, each node once, for the list of sources."""
    if np.ndim(node_nm) == 0:
        return [fab(quantity, node_nm)]
    return [fab(quantity, node) for node in NodeIndex(node_nm).distinct]


@dataclass(frozen=True, slots=True)
class MemoryFactor:
    """Embodied carbon of a memory or storage type: per GB, plus a fixed amount a module or drive.

    Attributes:
        source_id: whose figure (``act``, ``boaviztapi``, ``nvidia-pcf``, ``dell-lca``).
        per_gb: kgCO2e per GB (decimal or binary as the maker counts; the sources do not say).
        fixed_kgco2e: per module (DIMM) or drive.
        divided_by_yield: the source's profile divides the per-GB figure by the fab yield once more (ACT does).
        boundary: what is included.
    """

    kind: str
    type: str
    source_id: str
    per_gb: Factor
    fixed_kgco2e: float
    divided_by_yield: bool
    boundary: str


def _memory_factor(kind: str, row: dict[str, str], fixed: str) -> MemoryFactor:
    factor = Factor(
        key=f"{kind}.{row['type']}.kgco2e_per_gb",
        value=float(row["kgco2e_per_gb"]),
        unit="kgCO2e/GB",
        low=_optional(row["low"]),
        high=_optional(row["high"]),
        source=row["source"],
        vintage=row["vintage"],
        licence=row["licence"],
        note="; ".join(part for part in (row["boundary"], row["note"]) if part),
    )
    return MemoryFactor(kind, row["type"], row["source_id"], factor, float(row[fixed]), row["divided_by_yield"] == "1", row["boundary"])


@cache
def memories() -> dict[str, MemoryFactor]:
    """All memory types by name."""
    return {row["type"]: _memory_factor("memory", row, "fixed_kgco2e_per_module") for row in table("memory")}


@cache
def storages() -> dict[tuple[str, str], MemoryFactor]:
    """All storage types by (kind, name), kind being ``ssd`` or ``hdd``."""
    return {(row["kind"], row["type"]): _memory_factor(row["kind"], row, "fixed_kgco2e") for row in table("storage")}


def memory(name: str, *, source_id: str | None = None) -> MemoryFactor:
    """Return a memory type, of one source if given; an unknown name raises CarbonError naming the nearest."""
    known = {each: factor for each, factor in memories().items() if source_id in (None, factor.source_id)}
    try:
        return known[name]
    except KeyError:
        raise unknown("memory_type", name, known) from None


def storage(kind: str, name: str) -> MemoryFactor:
    """Return a storage type of kind ``ssd`` or ``hdd``; unknown names raise CarbonError naming the nearest."""
    kinds = sorted({known for known, _ in storages()})
    if kind not in kinds:
        raise unknown("storage kind", kind, kinds)
    try:
        return storages()[kind, name]
    except KeyError:
        raise unknown(f"{kind} type", name, [known for of, known in storages() if of == kind]) from None


@cache
def items() -> dict[str, Factor]:
    """Packaging, board and system factors by item name."""
    found = {}
    for row in table("packaging"):
        found[row["item"]] = Factor(
            key=f"packaging.{row['item']}",
            value=float(row["value"]),
            unit=row["unit"],
            low=_optional(row["low"]),
            high=_optional(row["high"]),
            source=row["source"],
            vintage=row["vintage"],
            licence=row["licence"],
            note=row["note"],
        )
    return found


def item(name: str) -> Factor:
    """Return a packaging, board or system factor; an unknown name raises CarbonError naming the nearest."""
    try:
        return items()[name]
    except KeyError:
        raise unknown("packaging item", name, items()) from None


def need(condition: bool, sentence: str) -> None:
    """Raise CarbonError with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise CarbonError(sentence)
