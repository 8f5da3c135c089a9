"""Exact policy trees on a grid: which choice in which box of the grid, by at most a few axis-aligned questions.

Rows are the cells of a product grid of features, choices are designs, and each (cell, choice) has a cost or cannot serve. A tree
asks at most ``depth`` questions ``feature <= threshold`` and gives each leaf one choice. Every node of such a tree is a box of the grid,
so a table of running sums gives the cost of any box for every choice in constant time, and dynamic programming over boxes finds
the best tree exactly. (Wu, Tan et al., KDD 2022, arXiv 2111.03267, fit such trees to estimated outcomes; here every outcome is
known, so the regret itself is minimised, not a classification error.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A split must gain more than the rounding of the sums, or the smaller tree stands.
_RELATIVE_GAIN = 1e-9
MAX_DEPTH = 4


@dataclass(frozen=True)
class Leaf:
    """A box and its choice: ``cells`` of the grid, of which ``unserved`` have no answer; ``cost`` sums the others."""

    box: tuple[tuple[int, int], ...]
    choice: int
    cells: int
    unserved: int
    cost: float


@dataclass(frozen=True)
class Split:
    """A question: cells whose index along ``feature`` is below ``index`` go left, the others right."""

    feature: int
    index: int
    left: Tree
    right: Tree


Tree = Leaf | Split


def leaves(tree: Tree) -> Iterator[Leaf]:
    """The leaves from left to right."""
    if isinstance(tree, Leaf):
        yield tree
    else:
        yield from leaves(tree.left)
        yield from leaves(tree.right)


def depth_of(tree: Tree) -> int:
    """Questions on the longest way."""
    return 0 if isinstance(tree, Leaf) else 1 + max(depth_of(tree.left), depth_of(tree.right))


def assignment(tree: Tree, shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """The choice of every cell, shape ``shape``."""
    chosen = np.zeros(tuple(shape), dtype=np.int64)
    for leaf in leaves(tree):
        chosen[tuple(slice(first, last) for first, last in leaf.box)] = leaf.choice
    return chosen


def fit(cost: FloatArray, served: BoolArray, depth: int) -> Tree:
    """The tree of at most ``depth`` questions that leaves the fewest cells unserved and, among those, costs least.

    Args:
        cost: of each cell and choice (f1, ..., fd, choices); finite where served.
        served: whether the choice can serve the cell at all; same shape.
        depth: 0 (one choice for all) to ``MAX_DEPTH``.

    Ties go to the smaller tree, then to the first choice, feature and threshold.
    """
    if not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"depth is {depth}; it must be from 0 to {MAX_DEPTH}")
    return _Fitter(cost, served).best(tuple((0, n) for n in cost.shape[:-1]), depth)


class _Fitter:
    """Best trees of boxes, remembered."""

    def __init__(self, cost: FloatArray, served: BoolArray) -> None:
        self._features = cost.ndim - 1
        self._cost = _running_sums(np.where(served, cost, 0.0))
        self._unserved = _running_sums((~served).astype(np.int64))
        self._known: dict[tuple[tuple[tuple[int, int], ...], int], Tree] = {}
        self._value: dict[int, tuple[int, float]] = {}

    def best(self, box: tuple[tuple[int, int], ...], depth: int) -> Tree:
        key = (box, depth)
        if key not in self._known:
            self._known[key] = self._search(box, depth)
        return self._known[key]

    def value(self, tree: Tree) -> tuple[int, float]:
        """(cells without an answer, cost of the others): smaller is better."""
        if isinstance(tree, Leaf):
            return tree.unserved, tree.cost
        known = self._value.get(id(tree))
        if known is None:
            left, right = self.value(tree.left), self.value(tree.right)
            known = self._value[id(tree)] = (left[0] + right[0], left[1] + right[1])
        return known

    def _search(self, box: tuple[tuple[int, int], ...], depth: int) -> Tree:
        best: Tree = self._leaf(box) if depth == 0 else self.best(box, depth - 1)
        if depth == 0:
            return best
        value = self.value(best)
        for feature, (first, last) in enumerate(box):
            for index in range(first + 1, last):
                below, above = _cut(box, feature, first, index), _cut(box, feature, index, last)
                left, right = self.best(below, depth - 1), self.best(above, depth - 1)
                found = (self.value(left)[0] + self.value(right)[0], self.value(left)[1] + self.value(right)[1])
                if found[0] < value[0] or (
                    found[0] == value[0] and found[1] < value[1] - _RELATIVE_GAIN * max(abs(value[1]), abs(found[1]))
                ):
                    best, value = Split(feature, index, left, right), found
        self.value(best)
        return best

    def _leaf(self, box: tuple[tuple[int, int], ...]) -> Leaf:
        unserved = _box_sum(self._unserved, box)
        least = unserved.min()
        cost = np.where(unserved == least, _box_sum(self._cost, box), np.inf)
        choice = int(np.argmin(cost))
        cells = int(np.prod([last - first for first, last in box]))
        return Leaf(box, choice, cells, int(least), float(cost[choice]))


def _cut(box: tuple[tuple[int, int], ...], feature: int, first: int, last: int) -> tuple[tuple[int, int], ...]:
    return (*box[:feature], (first, last), *box[feature + 1 :])


def _running_sums(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Sums over all cells below an index, along every feature; one row of zeros before each."""
    features = values.ndim - 1
    sums = np.zeros((*(n + 1 for n in values.shape[:-1]), values.shape[-1]), dtype=values.dtype)
    sums[tuple(slice(1, None) for _ in range(features))] = values
    for axis in range(features):
        np.cumsum(sums, axis=axis, out=sums)
    return sums


def _box_sum(sums: npt.NDArray[np.generic], box: tuple[tuple[int, int], ...]) -> FloatArray:
    """Sum over a box for every choice: inclusion and exclusion of its corners."""
    total = np.zeros(sums.shape[-1], dtype=sums.dtype)
    for corner in product((0, 1), repeat=len(box)):
        part = sums[tuple(pair[side] for pair, side in zip(box, corner, strict=True))]
        total = total + part if (len(box) - sum(corner)) % 2 == 0 else total - part
    return np.asarray(total)
