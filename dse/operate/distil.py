"""A policy that can be read: a tree of at most four questions that does what a learnt policy does, and what that costs.

The tree is fitted by `dse.analysis.policy_tree`, exactly, on a grid of three features. What a level costs in an hour is how far the grams
of the hour and of the cheapest plan after it (`dse.operate.policies.Plan.costs`) are from those of the teacher's choice, so the tree errs
where it costs little. Hours are those that the teacher meets, then those that the tree itself meets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.analysis import policy_tree
from dse.errors import DseError, UsageError
from dse.operate.features import LEVELS, View, names
from dse.operate.policies import Plan
from dse.operate.simulation import Decides
from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]

FEATURES = ("urgent", "share_of_cheaper_hours", "due_within_6_h")
MEANINGS = {
    "urgent": "share of the waiting work that finds no cheaper hour before its deadline, as forecast",
    "share_of_cheaper_hours": "share of the next 24 hours that are cheaper than now, as forecast",
    "due_within_6_h": "work due within six hours, in hours of the cheapest clock of all chips",
}
BINS = 6
FORMAT = "dse-operate-tree-1"


@dataclass(frozen=True)
class Node:
    """A question ``feature <= at_most`` (``yes`` and ``no``), or a leaf with its ``level``."""

    level: float | None = None
    feature: str = ""
    at_most: float = 0.0
    yes: Node | None = None
    no: Node | None = None

    def levels(self, seen: dict[str, FloatArray]) -> FloatArray:
        """The level of every hour (n,)."""
        if self.level is not None:
            return np.full(len(next(iter(seen.values()))), self.level)
        assert self.yes is not None and self.no is not None
        return np.where(seen[self.feature] <= self.at_most, self.yes.levels(seen), self.no.levels(seen))

    @property
    def depth(self) -> int:
        """Questions on the longest way."""
        if self.level is not None:
            return 0
        assert self.yes is not None and self.no is not None
        return 1 + max(self.yes.depth, self.no.depth)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        if self.level is not None:
            return {"level": self.level}
        assert self.yes is not None and self.no is not None
        return {"feature": self.feature, "at_most": self.at_most, "yes": self.yes.to_dict(), "no": self.no.to_dict()}

    @staticmethod
    def from_dict(told: Any, depth: int = 0) -> Node:
        """The inverse; DseError for anything else."""
        try:
            if depth > 16:
                raise ValueError("deeper than 16 questions")
            if "level" in told:
                level = float(told["level"])
                if not 0 <= level <= 1:
                    raise ValueError(f"level {level:g}")
                return Node(level)
            feature, at_most = str(told["feature"]), float(told["at_most"])
            if feature not in FEATURES or not np.isfinite(at_most):
                raise ValueError(f"question {feature[:40]!r} <= {at_most}")
            return Node(None, feature, at_most, Node.from_dict(told["yes"], depth + 1), Node.from_dict(told["no"], depth + 1))
        except DseError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DseError(f"a policy tree has a node that is none: {error}") from None


class TreePolicy:
    """A tree as a policy; one site."""

    def __init__(self, root: Node, name: str = "tree") -> None:
        self.root, self.name = root, name

    def begin(self, weeks: Weeks) -> None:
        """Prepare what it looks at."""
        if weeks.sites != 1:
            raise UsageError(f"policy tree is of one site, got {weeks.sites}")
        self._view = View(weeks)

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """The level of its leaf."""
        level = self.root.levels(columns(self._view.observe(queue)))
        least, most = self._view.bounds(queue, room)
        low = np.minimum(least[:, None], most)
        return np.asarray(low + level[:, None] * (most - low))


def columns(seen: FloatArray) -> dict[str, FloatArray]:
    """What a tree looks at, of observations (n, numbers)."""
    where = names()
    return {name: seen[:, where.index(name)] for name in FEATURES}


def fit(weeks: Weeks, teacher: Decides, *, depth: int = 4, rounds: int = 3) -> Node:
    """The tree that costs least beside the teacher, on training weeks of one site.

    Raises UsageError for a depth beyond 4.
    """
    if not 0 <= depth <= policy_tree.MAX_DEPTH:
        raise UsageError(f"depth is {depth}, must be from 0 to {policy_tree.MAX_DEPTH}")
    found: list[tuple[FloatArray, FloatArray]] = []
    root: Node | None = None
    for _ in range(rounds):
        found.append(_hours(weeks, teacher, root))
        seen, cost = (np.concatenate(part) for part in zip(*found, strict=True))
        edges = [_edges(name, values) for name, values in columns(seen).items()]
        cells = [np.searchsorted(edge, values, side="left") for edge, values in zip(edges, columns(seen).values(), strict=True)]
        shape = tuple(len(edge) + 1 for edge in edges)
        at = np.ravel_multi_index(cells, shape)
        sums = np.stack([np.bincount(at, weights=cost[:, k], minlength=int(np.prod(shape))) for k in range(len(LEVELS))], axis=1)
        tree = policy_tree.fit(sums.astype(np.float64).reshape(*shape, len(LEVELS)), np.ones((*shape, len(LEVELS)), dtype=bool), depth)
        root = _node(tree, edges)
    assert root is not None
    return root


def _edges(name: str, values: FloatArray) -> FloatArray:
    if name == "urgent":  # a share, mostly 0 or 1: edges between the levels
        return np.array([0.02, 0.125, 0.375, 0.625, 0.875])
    return np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]).round(3))


def _node(tree: policy_tree.Tree, edges: list[FloatArray]) -> Node:
    if isinstance(tree, policy_tree.Leaf):
        return Node(LEVELS[tree.choice])
    yes, no = _node(tree.left, edges), _node(tree.right, edges)
    return yes if yes == no else Node(None, FEATURES[tree.feature], float(edges[tree.feature][tree.index - 1]), yes, no)


def _hours(weeks: Weeks, teacher: Decides, leads: Node | None) -> tuple[FloatArray, FloatArray]:
    """(observations, cost of each level beside the teacher's choice [g]) of all hours; the tree decides where there is one."""
    if weeks.sites != 1:
        raise UsageError(f"policy tree is of one site, got {weeks.sites}")
    view, queue, plan = View(weeks), Queue(weeks), Plan()
    plan.begin(weeks)
    teacher.begin(weeks)
    rows, costs = [], []
    while not queue.done:
        room = queue.room
        seen = view.observe(queue)
        least, most = view.bounds(queue, room)
        low = np.minimum(least[:, None], most)
        taught = np.clip(teacher.work(queue, room), low, np.maximum(room, low))
        works = low + np.array(LEVELS) * (most - low)
        told = plan.costs(queue, room, np.concatenate([works, taught], axis=1))
        rows.append(seen)
        costs.append(np.abs(told[:, :-1] - told[:, -1:]))
        work = taught if leads is None else low + leads.levels(columns(seen))[:, None] * (most - low)
        queue.run(view.guard.correct(queue, np.clip(work, 0.0, room), room))
    return np.concatenate(rows), np.concatenate(costs)


def text(root: Node, indent: str = "") -> str:
    """The tree in words."""
    if root.level is not None:
        return f"{indent}run {100 * root.level:g} % of what may wait\n"
    assert root.yes is not None and root.no is not None
    return f"{indent}if {root.feature} <= {root.at_most:g}:\n{text(root.yes, indent + '  ')}{indent}else:\n{text(root.no, indent + '  ')}"


def json_text(root: Node) -> str:
    """The tree as JSON, which `from_json` reads."""
    return json.dumps({"format": FORMAT, "features": MEANINGS, "tree": root.to_dict()}, indent=2) + "\n"


def from_json(content: str, where: str) -> Node:
    """A tree from JSON; DseError, one sentence, for anything else."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise DseError(f"{where} is not JSON") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise DseError(f"{where} is no policy tree of {FORMAT}")
    return Node.from_dict(told.get("tree"))


def c_text(root: Node) -> str:
    """The tree as a C function without state or library."""

    def lines(node: Node, indent: str) -> str:
        if node.level is not None:
            return f"{indent}return {node.level!r};\n"
        assert node.yes is not None and node.no is not None
        return (
            f"{indent}if ({node.feature} <= {node.at_most!r}) {{\n{lines(node.yes, indent + '    ')}{indent}}} else {{\n"
            f"{lines(node.no, indent + '    ')}{indent}}}\n"
        )

    told = "".join(f" * {name}: {meaning}\n" for name, meaning in MEANINGS.items())
    arguments = ", ".join(f"double {name}" for name in FEATURES)
    unused = "".join(f"    (void){name};\n" for name in FEATURES)
    head = f"/* Share of the waiting work to run in this hour, 0 to 1.\n{told} */\n"
    return f"{head}double dse_operate_share({arguments})\n{{\n{unused}{lines(root, '    ')}}}\n"
