"""Groups of steps that run tile by tile: of what passes between them only a tile is on chip, and every word of it there alone.

    rows     each step makes some rows of its result, from the rows that the step before has made; a convolution keeps the rows that its
             windows read again. Parameters of all its products are loaded once and held, or few tiles stream them again.
    width    of two products, the first makes some columns of its result and the second adds what these give to its own; what goes in and
             what comes out are held whole, parameters are streamed once.

The rules are in docs/models/residency.md. A group is costed by its pieces: steps of a table of their own, each run so many times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isqrt
from typing import Literal, NamedTuple

from hw_models.costs.residency.steps import Chain, Operand, Step, elementwise
from hw_models.costs.residency.units import Condition
from workloads.ops import PRODUCTS, Kind, Operation, OperationTable

INSIDE = -3
"""The tensor of an operand that the group itself holds."""
MOST_STEPS = 4
"""Of a group of rows."""
LEAST_ROWS, LEAST_WIDTH = 8, 16
"""The smallest tiles; larger ones are twice as large each."""
MOST_STREAMED = 4
"""Tiles of rows that stream parameters, each all of them."""


@dataclass(frozen=True)
class Piece:
    """A tile of a step, ``times`` over. ``member``: the step of the chain; ``step``: its tile, rows of the table of tiles.

    ``own_bits``: of its parameters, loaded whole and held; ``enters``: what goes into the group is loaded whole, unless it is on chip;
    ``ends``: its result is the group's, and stays or is stored as that (else it stays).
    """

    member: int
    step: Step
    times: int
    own_bits: int = 0
    enters: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Group:
    """Steps ``first`` .. ``last`` of a chain, tile by tile.

    ``size``: rows of the last result in a tile, or columns of what passes; ``count``: tiles of the last step. ``held_bits``: of what
    passes inside, while the group runs; ``holds``: parameters of its products are held too, ``own_bits``. ``entering``: what is read
    whole (`width`); ``gives_way``: the tensor whose rows those of the result take the place of, which then need only those of a tile,
    ``tile_bits``, more. ``reads``: tensors from outside.
    """

    first: int
    last: int
    form: Literal["rows", "width"]
    size: int
    count: int
    pieces: tuple[Piece, ...]
    held_bits: int
    own_bits: int
    reads: frozenset[int]
    entering: Operand | None = None
    gives_way: int | None = None
    tile_bits: int = 0
    holds: bool = False

    def room_bits(self, bits: Mapping[int, int], held: tuple[int, ...], *, keeps: bool) -> int:
        """Bits that are held while it runs beside the tensors ``held`` (the result among them if it ``keeps`` it), parameters aside."""
        total = sum(bits[t] for t in held) + self.held_bits
        if keeps and self.gives_way in held:
            total += self.tile_bits - min(bits[self.gives_way], bits[self.last])
        if self.entering is not None and self.entering.tensor not in held:
            total += self.entering.bits
        return total

    def condition(self, piece: Piece, held: tuple[int, ...], *, keeps: bool, stores: bool, held_bits: int, pinned: bool) -> Condition:
        """How a piece runs beside the tensors ``held``; ``held_bits``: all that is held, parameters included."""
        resident = tuple(o.tensor is not None and (o.tensor == INSIDE or o.tensor in held) for o in piece.step.operands)
        loaded = self.entering.bits if piece.enters and self.entering is not None and self.entering.tensor not in held else 0
        keeps, stores = (keeps, stores) if piece.ends else (True, False)
        own = 0 if pinned else piece.own_bits
        return Condition(resident, keeps, stores, held_bits, loaded, pinned, own, self.holds and piece.step.pins)


class Groups(NamedTuple):
    """The groups of a chain, and the table that their pieces are rows of (None: there are none)."""

    every: tuple[Group, ...]
    table: OperationTable | None


def groups_of(chain: Chain, table: OperationTable) -> Groups:
    """Every group of a chain whose steps are rows of ``table``."""
    builder = _Builder(chain, table)
    found = tuple(builder.groups())
    return Groups(found, OperationTable.from_rows(builder.made) if found else None)


class _Member(NamedTuple):
    """A step as one of a group of rows: rows of its result (per entry of a batch), and of a window over the rows before it (0: none) what
    one output moves it on, what two neighbours share, and the rows that are kept behind the last one read.
    """

    rows: int
    step: int = 1
    overlap: int = 0
    kept: int = 0
    pixels: int = 0


@dataclass(eq=False)
class _Builder:
    chain: Chain
    table: OperationTable
    made: list[Operation] = field(init=False, default_factory=list)
    _places: dict[tuple[object, ...], int] = field(init=False, default_factory=dict)

    def groups(self) -> Iterator[Group]:
        steps = self.chain.steps
        for first in range(len(steps)):
            members = [self._member(first, 0)]
            if members[0] is not None and self._fits([members[0]], first):
                yield from self._rows(first, [members[0]])
            for last in range(first + 1, min(first + MOST_STEPS, len(steps))):
                before = members[-1]
                if before is None or not self._passes(last - 1):
                    break
                members.append(self._member(last, before.rows))
                if not self._aligned(members[-2], members[-1]):
                    break
                sure = [m for m in members if m is not None]
                if self._fits(sure, first):
                    yield from self._rows(first, sure)
            if first + 1 < len(steps) and self._passes(first):
                yield from self._width(first)

    @cached_property
    def _operations(self) -> list[Operation]:
        return list(self.table.rows())

    @cached_property
    def _readers(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for i, step in enumerate(self.chain.steps):
            for place, operand in enumerate(step.operands):
                if operand.tensor is not None:
                    found.setdefault(operand.tensor, []).append((i, place))
        return found

    def _passes(self, at: int) -> bool:
        """Whether the result of a step goes to the first operand of the next one, and nowhere else."""
        made, reader = self.chain.steps[at], self.chain.steps[at + 1]
        alone = self._readers.get(made.tensor) == [(at + 1, 0)] and not made.stored and self.chain.leaving != made.tensor
        return alone and reader.shares == 1 and reader.operands[0].bits == made.bits

    def _member(self, at: int, before: int) -> _Member | None:
        """A step as a member; ``before``: rows of the step before it in the group, 0 if it is the first."""
        step, op = self.chain.steps[at], self._operations[self.chain.steps[at].row]
        if op.kind in PRODUCTS:
            if step.own_operands < 1 or step.shares != 1 or int(op.moe_experts) > 0:
                return None
            if int(op.input_elements) == 0:
                return _Member(int(op.m))
            taps, stride = int(op.filter_taps), int(op.filter_step)
            pixels = int(op.input_elements) // max(int(op.batch) * int(op.groups) * (int(op.k) // max(taps, 1)), 1)
            if taps == 1 and stride == 1:
                return _Member(int(op.m))
            # A square filter, whose rows and stride are roots, moved by less than itself: w + s positions a row at most.
            size, by, overlap = isqrt(taps), isqrt(stride), int(op.filter_overlap)
            if size * size != taps or by * by != stride or not 0 < by < size or overlap < 1 or int(op.k) % taps:
                return None
            return _Member(int(op.m), stride, overlap, -(-overlap * (size + by - 2) // (size - by)), pixels)
        if step.shares != 1 or not step.operands:
            return None
        if elementwise(self.table, step.row):
            return _Member(before) if before else None
        return _Member(int(op.m)) if op.kind in (Kind.NORM, Kind.SOFTMAX) else None

    @staticmethod
    def _aligned(a: _Member | None, b: _Member | None) -> bool:
        """Whether the rows of a step are those that the next one reads."""
        return a is not None and b is not None and a.rows == (b.pixels or b.rows)

    def _fits(self, members: list[_Member], first: int) -> bool:
        """Whether results and further operands divide by rows, and at least one step is a product."""
        products = False
        for i, member in enumerate(members, start=first):
            step, op = self.chain.steps[i], self._operations[self.chain.steps[i].row]
            product = op.kind in PRODUCTS
            products |= product
            others = step.operands[step.own_operands :] if product else step.operands
            if step.bits % member.rows or any(o.bits % member.rows for o in others):
                return False
            if any(self._elements(row) % member.rows for row in step.epilogue) or (not product and self._elements(step.row) % member.rows):
                return False
        return products

    def _elements(self, row: int) -> int:
        op = self._operations[row]
        return int(op.batch) * int(op.m) * int(op.n)

    def _rows(self, first: int, members: list[_Member]) -> Iterator[Group]:
        steps, last = self.chain.steps, first + len(members) - 1
        size = LEAST_ROWS
        while size < members[-1].rows:
            tiles = [size]
            for before, member in zip(members[-2::-1], members[:0:-1], strict=True):
                tiles.append(min(before.rows, tiles[-1] * (member.step if member.pixels else 1)))
            tiles.reverse()
            held = 0
            for i, (member, rows) in enumerate(zip(members, tiles, strict=True), start=first):
                if i < last:
                    window = members[i - first + 1]
                    there = min(member.rows, window.kept + 2 * rows) if window.pixels else rows
                    held += there * (steps[i].bits // member.rows)
            outside = self._outside(first, last)
            gives = None if any(m.pixels for m in members) else self._dies(first, last)
            tile_bits = size * (steps[last].bits // members[-1].rows)
            count = -(-members[-1].rows // size)
            sizes = self._parameter_bits(first, last)
            # A step by itself takes what room there is anyhow, unless its rows take that of its operand's.
            if first < last or gives is not None:
                for holds in (True, False) if any(sizes) and count <= MOST_STREAMED else (True,):
                    loads = sizes if holds else [0] * len(sizes)
                    pieces = tuple(self._pieces(first, members, tiles, loads))
                    yield Group(first, last, "rows", size, count, pieces, held, sum(loads), outside, None, gives, tile_bits, holds)
            size *= 2

    def _pieces(self, first: int, members: list[_Member], tiles: list[int], loads: list[int]) -> Iterator[Piece]:
        """The tiles of each step of a group of rows: the first, which loads parameters, those like it, and what is left."""
        last = first + len(members) - 1
        for i, (member, rows, load) in enumerate(zip(members, tiles, loads, strict=True), start=first):
            for tile, times, own in ((rows, 1, load), (rows, member.rows // rows - 1, 0), (member.rows % rows, 1, 0)):
                if tile and times:
                    yield Piece(i, self._tile(i, member, tile, inside=i > first), times, own, False, i == last)

    def _dies(self, first: int, last: int) -> int | None:
        """What the first step of a group reads for the last time, row by row, and no other step of the group reads."""
        tensor = self.chain.steps[first].operands[0].tensor
        if tensor is None or self.chain.last_use[tensor] > last:
            return None
        return tensor if [reader for reader in self._readers[tensor] if reader[0] >= first] == [(first, 0)] else None

    def _parameter_bits(self, first: int, last: int) -> list[int]:
        """Bits of the parameters of each product of a group, 0 of other steps."""
        steps = self.chain.steps[first : last + 1]
        ops = [self._operations[s.row] for s in steps]
        return [int(o.groups) * int(o.n) * int(o.k) * int(o.weight_bits) if s.pins else 0 for s, o in zip(steps, ops, strict=True)]

    def _outside(self, first: int, last: int) -> frozenset[int]:
        steps = self.chain.steps[first : last + 1]
        return frozenset(o.tensor for s in steps for o in s.operands if o.tensor is not None and not first <= o.tensor < last)

    def _tile(self, at: int, member: _Member, rows: int, *, inside: bool) -> Step:
        """Some rows of a step; its first operand comes from ``inside`` the group."""
        step, op = self.chain.steps[at], self._operations[self.chain.steps[at].row]
        product = op.kind in PRODUCTS
        first = step.operands[0].bits * rows // member.rows
        if not product:
            tile = self._some(step.row, rows, member.rows) if elementwise(self.table, step.row) else replace(op, m=rows)
        elif int(op.input_elements) == 0 or not member.pixels:
            tile = replace(op, m=rows, input_elements=int(op.input_elements) * rows // member.rows)
        else:
            positions = min(member.pixels, rows * member.step + member.overlap)
            elements = int(op.input_elements) // member.pixels * positions
            tile = replace(op, m=rows, input_elements=elements)
            first = elements * int(op.input_bits)
        operands = [Operand(INSIDE if inside else step.operands[0].tensor, first)]
        whole = step.own_operands if product else 1
        operands += step.operands[1:whole]
        operands += [replace(o, bits=o.bits * rows // member.rows) for o in step.operands[whole:]]
        epilogue = tuple(self._place(self._some(row, rows, member.rows)) for row in step.epilogue)
        bits = step.bits * rows // member.rows
        return replace(step, row=self._place(tile), epilogue=epilogue, operands=tuple(operands), bits=bits, stored=False)

    def _some(self, row: int, part: int, of: int) -> Operation:
        """A share of elementwise work, as elements alone."""
        return replace(self._operations[row], batch=1, m=self._elements(row) * part // of, n=1, input_elements=0)

    def _place(self, op: Operation) -> int:
        """The row of the table of tiles that an operation is."""
        op = replace(op, repeat=1, copies=0, reads="", held_elements=0)
        key = tuple(vars(op).values())
        if key not in self._places:
            self._places[key] = len(self.made)
            self.made.append(op)
        return self._places[key]

    # ---- width ----

    def _width(self, first: int) -> Iterator[Group]:
        up, down = self.chain.steps[first : first + 2]
        a, b = self._operations[up.row], self._operations[down.row]
        if not all(self._plain(s) for s in (up, down)) or int(a.n) != int(b.k) or (int(a.batch), int(a.m)) != (int(b.batch), int(b.m)):
            return
        rows, width = int(a.batch) * int(a.m), int(a.n)
        entering = up.operands[0]
        same = entering.tensor is None or self.chain.bits[entering.tensor] == entering.bits
        sums = rows * int(b.n)
        if not same or up.bits != rows * width * int(a.output_bits) or down.bits != sums * int(b.output_bits):
            return
        others = [o.bits for o in up.operands[1:]] + [self._elements(r) for r in up.epilogue]
        if any(v % width for v in others) or any(int(self._operations[r].parameters) % width for r in up.epilogue):
            return
        add = self._place(
            replace(
                b, name=f"{b.name} sums", kind=Kind.ELEMENTWISE, function="add", batch=1, m=sums, n=1, k=0, operands=2, parameters=0,
                second_is_weight=False, weight_id="", input_elements=0, filter_taps=0, filter_overlap=0, filter_step=0,
                input_bits=b.output_bits, weight_bits=b.output_bits,
            )
        )  # fmt: skip
        size = LEAST_WIDTH
        while size < width:
            count, rest = -(-width // size), width % size or size
            pieces = []
            if count > 1:
                widths = [(size, 1, True), (size, count - 2, False), (rest, 1, False)]
                pieces += [Piece(first, self._columns(up, a, w), n, 0, loads) for w, n, loads in widths if n]
                pieces.append(Piece(first + 1, self._share(down, b, size, (), entering), 1))
                if count > 2:
                    pieces.append(Piece(first + 1, self._share(down, b, size, (add,), entering), count - 2))
                pieces.append(Piece(first + 1, self._share(down, b, rest, (add,), entering, ends=True), 1, 0, False, True))
            held = rows * size * int(a.output_bits)
            outside = self._outside(first, first + 1)
            yield Group(first, first + 1, "width", size, count, tuple(pieces), held, 0, outside, entering)
            size *= 2

    def _plain(self, step: Step) -> bool:
        """Whether a step is a product by parameters whose rows are those of its operand."""
        op = self._operations[step.row]
        if op.kind not in PRODUCTS or not step.pins or step.own_operands != 1 or step.shares != 1 or int(op.groups) != 1:
            return False
        read = int(op.input_elements)
        return int(op.moe_experts) == 0 and (read == 0 or read == int(op.batch) * int(op.m) * int(op.k))

    def _columns(self, step: Step, op: Operation, width: int) -> Step:
        """Some columns of the result of the first product."""
        every = int(op.n)
        tile = self._place(replace(op, n=width, parameters=width * int(op.k), input_elements=0))
        epilogue = []
        for row in step.epilogue:
            some = self._some(row, width, every)
            epilogue.append(self._place(replace(some, parameters=int(some.parameters) * width // every)))
        operands = (replace(step.operands[0], tensor=INSIDE), *(replace(o, bits=o.bits * width // every) for o in step.operands[1:]))
        bits = step.bits * width // every
        return replace(step, row=tile, epilogue=tuple(epilogue), operands=operands, bits=bits, stored=False)

    def _share(self, step: Step, op: Operation, width: int, adds: tuple[int, ...], entering: Operand, *, ends: bool = False) -> Step:
        """What some columns give of the result of the second product, added to what there is."""
        tile = self._place(replace(op, k=width, parameters=width * int(op.n), input_elements=0))
        operands = [Operand(INSIDE, step.operands[0].bits * width // int(op.k))]
        operands += [Operand(INSIDE, step.bits)] * len(adds)
        epilogue = adds
        if ends:
            epilogue += tuple(self._place(self._operations[row]) for row in step.epilogue)
            inside = entering.tensor
            operands += [replace(o, tensor=INSIDE) if o.tensor is not None and o.tensor == inside else o for o in step.operands[1:]]
        return replace(step, row=tile, epilogue=epilogue, operands=tuple(operands), stored=False)
