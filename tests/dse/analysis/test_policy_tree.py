"""Policy trees: the best tree of a depth, held against every tree there is on small grids."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.analysis import policy_tree
from dse.analysis.policy_tree import Leaf, Split, Tree


def plain_value(cells: list[tuple[int, ...]], cost: np.ndarray, served: np.ndarray) -> tuple[int, float]:
    """The best single choice for some cells, cell by cell: (unserved, cost)."""
    return min(
        (
            sum(not served[(*cell, choice)] for cell in cells),
            sum(cost[(*cell, choice)] for cell in cells if served[(*cell, choice)]),
        )
        for choice in range(cost.shape[-1])
    )


def every_value(cells: list[tuple[int, ...]], depth: int, cost: np.ndarray, served: np.ndarray) -> Iterator[tuple[int, float]]:
    """The value of every tree of at most ``depth`` questions over some cells, by trying all questions."""
    yield plain_value(cells, cost, served)
    if depth == 0:
        return
    for feature in range(cost.ndim - 1):
        for index in range(1, cost.shape[feature]):
            left = [cell for cell in cells if cell[feature] < index]
            right = [cell for cell in cells if cell[feature] >= index]
            if left and right:
                a = min(every_value(left, depth - 1, cost, served))
                b = min(every_value(right, depth - 1, cost, served))
                yield a[0] + b[0], a[1] + b[1]


def value_of(tree: Tree, cost: np.ndarray, served: np.ndarray) -> tuple[int, float]:
    """What a tree costs, from the choice that it gives each cell."""
    chosen = policy_tree.assignment(tree, cost.shape[:-1])
    unserved, total = 0, 0.0
    for cell in np.ndindex(cost.shape[:-1]):
        place = (*cell, int(chosen[cell]))
        if served[place]:
            total += float(cost[place])
        else:
            unserved += 1
    return unserved, total


shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, depth=st.integers(0, 3), seed=st.integers(0, 2**32 - 1), share=st.sampled_from([1.0, 0.7]))
def test_the_tree_is_the_best_of_all_trees(shape: tuple[int, ...], depth: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    # Small whole numbers: sums are exact, and ties are common.
    cost = random.integers(0, 6, shape).astype(np.float64)
    served = random.random(shape) < share
    tree = policy_tree.fit(cost, served, depth)
    assert policy_tree.depth_of(tree) <= depth
    cells = list(np.ndindex(shape[:-1]))
    assert value_of(tree, cost, served) == min(every_value(cells, depth, cost, served))


def test_leaves_partition_the_grid_and_say_what_they_hold() -> None:
    random = np.random.default_rng(7)
    cost = random.random((5, 4, 3, 6))
    served = random.random(cost.shape) < 0.8
    tree = policy_tree.fit(cost, served, 3)
    seen = np.zeros(cost.shape[:-1], dtype=int)
    for leaf in policy_tree.leaves(tree):
        box = tuple(slice(first, last) for first, last in leaf.box)
        seen[box] += 1
        assert leaf.cells == seen[box].size
        assert leaf.unserved == np.count_nonzero(~served[(*box, leaf.choice)])
        # Differences of running sums over 60 cells: a few rounding errors of their size.
        assert leaf.cost == pytest.approx(cost[(*box, leaf.choice)][served[(*box, leaf.choice)]].sum(), rel=1e-12)
    assert (seen == 1).all()


def test_deeper_is_never_worse_and_a_question_that_gains_nothing_is_not_asked() -> None:
    cost = np.random.default_rng(3).random((4, 4, 5))
    served = np.ones(cost.shape, dtype=bool)
    totals = [value_of(policy_tree.fit(cost, served, depth), cost, served)[1] for depth in range(4)]
    assert totals == sorted(totals, reverse=True)
    same = np.zeros((3, 3, 2))
    assert isinstance(policy_tree.fit(same, np.ones(same.shape, dtype=bool), 3), Leaf)


def test_a_depth_that_is_not_offered_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 4"):
        policy_tree.fit(np.zeros((2, 1)), np.ones((2, 1), dtype=bool), 5)


def test_one_question_finds_the_threshold() -> None:
    cost = np.array([[0.0, 9.0], [0.0, 9.0], [9.0, 1.0]])
    tree = policy_tree.fit(cost, np.ones(cost.shape, dtype=bool), 1)
    assert isinstance(tree, Split)
    assert (tree.feature, tree.index) == (0, 2)
    assert [leaf.choice for leaf in policy_tree.leaves(tree)] == [0, 1]
