"""What a design does one after the other: operations with the vector work in their epilogues, and the tensors between them."""

from __future__ import annotations

from dataclasses import dataclass

from hw_models.costs.vector import function
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable
from workloads.tensors import BEFORE, MEMORY, Segment

CARRIED = -1
"""The number of the tensor that passes from run to run, or from segment to segment, where it comes in."""


@dataclass(frozen=True)
class Operand:
    """An activation that a step reads: its tensor (None: it is in memory), and its bits as they are read once."""

    tensor: int | None
    bits: int


@dataclass(frozen=True)
class Step:
    """A row of the table with the rows in its epilogue.

    ``operands``: ``own_operands`` of the row, of which the first ``shares`` lie side by side as its first operand, then the further ones
    of its epilogue. ``tensor`` is what it makes, of ``bits``; ``stored``: which must reach memory. ``pins``: its second operand is
    parameters.
    """

    row: int
    epilogue: tuple[int, ...]
    operands: tuple[Operand, ...]
    own_operands: int
    tensor: int
    bits: int
    stored: bool
    shares: int = 1
    pins: bool = False

    @property
    def rows(self) -> tuple[int, ...]:
        """All rows of the table that it does."""
        return (self.row, *self.epilogue)


@dataclass(frozen=True)
class Chain:
    """The steps of a segment. ``bits`` of every tensor by its number, ``last_use``: the step after which it is dead.

    The tensor CARRIED comes in; ``leaving`` is what goes out to the next run or segment (None: nothing does).
    """

    segment: Segment
    steps: tuple[Step, ...]
    bits: dict[int, int]
    last_use: dict[int, int]
    leaving: int | None


def chain_of(table: OperationTable, segment: Segment, *, epilogues: bool) -> Chain:
    """The steps of a segment; ``epilogues``: vector work runs in the epilogue of the product before it where it may.

    It may if it is elementwise without rows (an activation, an addition, a product, a scaling), if one operand is a result that
    no other row reads and that need not reach memory, of as many elements and bits as its own, and if its other operands are
    made before that product.
    """
    rows = {row.at: row for row in segment.rows}
    position = {row.at: i for i, row in enumerate(segment.rows)}
    readers: dict[int, list[int]] = {}
    for row in segment.rows:
        for use in row.uses:
            readers.setdefault(use.source, []).append(row.at)
    last = segment.rows[-1].at
    outside = last if segment.loops or segment.leaves else None
    head: dict[int, int] = {}  # row -> the product whose epilogue it is in
    tail: dict[int, list[int]] = {}
    for row in segment.rows:
        at = row.at
        if not epilogues or not elementwise(table, at):
            continue
        for use in row.uses:
            made = use.source
            if made < 0 or readers.get(made) != [at] or rows[made].stored or rows[made].bits != row.bits or made == outside:
                continue
            product = head.get(made, made)
            if int(table.kind[product]) not in PRODUCTS or (tail.get(product) or [product])[-1] != made:
                continue
            others = [u.source for u in row.uses if u.source != made]
            # What another step makes is there when that step has run, which is where its product stands.
            if any(s >= 0 and position[head.get(s, s)] >= position[product] for s in others):
                continue
            head[at] = product
            tail.setdefault(product, []).append(at)
            break
    number: dict[int, int] = {}
    steps: list[Step] = []
    bits: dict[int, int] = {}
    if segment.carried_bits:
        bits[CARRIED] = segment.carried_bits
    for row in segment.rows:
        if row.at in head:
            continue
        epilogue = tuple(tail.get(row.at, ()))
        inside = {row.at, *epilogue}
        operands = [_operand(use.source, use.bits, number) for use in row.uses]
        for at in epilogue:
            operands += [_operand(use.source, use.bits, number) for use in rows[at].uses if use.source not in inside]
        end = rows[epilogue[-1]] if epilogue else row
        this = len(steps)
        for at in inside:
            number[at] = this
        bits[this] = end.bits
        pins = bool(table.second_is_weight[row.at])
        shares = len(row.uses) if len(row.uses) > _most_operands(table, row.at) else 1
        steps.append(Step(row.at, epilogue, tuple(operands), len(row.uses), this, end.bits, end.stored, shares, pins))
    last_use = dict.fromkeys(bits, -1)
    for i, step in enumerate(steps):
        last_use[step.tensor] = i
        for operand in step.operands:
            if operand.tensor is not None:
                last_use[operand.tensor] = i
    leaving = number[last] if outside is not None else None
    if leaving is not None:
        last_use[leaving] = len(steps)
    return Chain(segment, tuple(steps), bits, last_use, leaving)


def _operand(source: int, bits: int, number: dict[int, int]) -> Operand:
    if source == MEMORY:
        return Operand(None, bits)
    return Operand(CARRIED if source == BEFORE else number[source], bits)


def _most_operands(table: OperationTable, at: int) -> int:
    """Activations that a row can read as operands of their own."""
    kind = int(table.kind[at])
    if kind not in PRODUCTS and kind not in ATTENTION:
        return int(table.operands[at])
    if bool(table.second_is_weight[at]) or bool(table.second_is_cache[at]):
        return 1
    return 2 if kind in PRODUCTS or bool(table.values_in_keys[at]) else 3


def elementwise(table: OperationTable, at: int) -> bool:
    """Whether a row is vector work on single elements that a product's epilogue can do."""
    if int(table.kind[at]) not in (Kind.ACTIVATION, Kind.ELEMENTWISE) or str(table.function[at]) in ("mean", "sum", "max", "rope"):
        return False
    work = function(str(table.function[at]))
    return work.row_cycles == 0 and work.passes == 1
