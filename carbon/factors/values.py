"""Look factors up, let some be replaced by ranges' draws, and remember which were used.

A model function takes one :class:`Values`; with no overrides it answers with the tables, in Monte Carlo and tornado runs with
arrays under the factor's key. Draws broadcast against designs: give them shape (draws, 1) for designs of shape (designs,).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from carbon.arrays import Numeric, where
from carbon.errors import CarbonError
from carbon.factors import tables as factors
from carbon.factors.grid import GridFactor
from carbon.factors.tables import Factor


class Values:
    """Factor values by key, with overrides and a list of what was used."""

    def __init__(self, overrides: Mapping[str, Numeric] | None = None) -> None:
        self._overrides = dict(overrides or {})
        self._used: dict[str, Factor | GridFactor] = {}
        self._named: dict[str, Numeric] = {}
        self._nodes: tuple[Any, factors.NodeIndex] | None = None

    def use(self, factor: Factor) -> Numeric:
        """Return a factor's value or its override, and record it."""
        self._used[factor.key] = factor
        return self._overrides.get(factor.key, factor.value)

    def item(self, name: str) -> Numeric:
        """Return a packaging, board or system item."""
        return self.use(factors.item(name))

    def fab(self, quantity: str, node_nm: Any) -> Numeric:
        """Return a fab quantity for one node or for an array of nodes.

        Raises:
            CarbonError: a node without that quantity, by its index in the array.
        """
        if np.ndim(node_nm) == 0:
            return self.use(factors.fab(quantity, node_nm))
        if self._nodes is None or self._nodes[0] is not node_nm:  # a million nodes are sorted out once, not per quantity
            self._nodes = (node_nm, factors.NodeIndex(node_nm))
        index = self._nodes[1]
        values: Numeric = index.values(quantity)
        for node in index.distinct:
            factor = factors.fab(quantity, node)
            self._used[factor.key] = factor
            if factor.key in self._overrides:
                values = where(index.where(node), self._overrides[factor.key], values)
        return values

    def grid(self, key: str, place: GridFactor) -> Numeric:
        """Return a grid intensity in g/kWh under ``key`` (``fab.grid`` or ``use.grid``)."""
        self._used[key] = place
        return self._overrides.get(key, place.gco2e_per_kwh)

    def named(self, key: str, default: Numeric) -> Numeric:
        """Return the override of an input that is not a table factor, else ``default``."""
        self._named[key] = default
        return self._overrides.get(key, default)

    def inputs(self) -> Mapping[str, Numeric]:
        """Return the inputs that :meth:`named` was asked for, with their defaults."""
        return dict(self._named)

    def sources(self) -> tuple[Factor | GridFactor, ...]:
        """Return every factor used, once, in the order of use."""
        return tuple(dict.fromkeys(self._used.values()))

    def keyed(self) -> Mapping[str, Factor | GridFactor]:
        """Return the factors used by the key an override would have."""
        return dict(self._used)

    def unused(self, known: frozenset[str]) -> None:
        """Raise CarbonError for an override that nothing asked for: a mistyped key must not pass silently."""
        for key in self._overrides:
            if key not in self._used and key not in self._named and key not in known:
                raise CarbonError(f"override {key!r} is used by nothing in this estimate")
