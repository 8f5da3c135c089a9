"""The tensors between the rows of an operation table: who makes what a row reads, and what has to reach memory.

A row may say whose results it reads (``Operation.reads``); where it says nothing:

* its first operand is the result of the row before it if both have as many elements, else it comes from memory;
* every other operand comes from memory.

Rows that follow each other and run equally often are a *segment*, and a segment that runs more than once is a loop over its
rows. One tensor passes from a segment to the next and from one run of a loop to the next: the result of the last row, where the
first row reads it. It passes between segments where one of the two runs once (what comes before and after the layers); all
other tensors between segments go through memory, as does what no row reads, a KV cache, and what a gather reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable

MEMORY = -1
"""An operand that comes from memory."""
BEFORE = -2
"""An operand that the last row made: of the segment before, or of the run before in a loop."""
_WITHOUT = (Kind.EMBEDDING, Kind.GATHER, Kind.OPTIMIZER_STEP, Kind.SPARSE_BEAM, Kind.COLLECTIVE)


@dataclass(frozen=True)
class Use:
    """An operand of a row: the row that makes it (or MEMORY, BEFORE) and its bits as this row reads them, once."""

    source: int
    bits: int


@dataclass
class Row:
    """A row that runs: its number in the table, its activation operands, the bits of its result, and whether that must reach
    memory.
    """

    at: int
    uses: tuple[Use, ...]
    bits: int
    stored: bool = False


@dataclass
class Segment:
    """Rows that run one after the other, ``repeat`` times over.

    ``carried_bits``: the tensor that BEFORE names (0: there is none); ``enters``: the segment before makes it, else the first
    run reads it from memory; ``leaves``: the segment after reads the result of the last row.
    """

    repeat: int
    rows: list[Row] = field(default_factory=list)
    carried_bits: int = 0
    enters: bool = False
    leaves: bool = False

    @property
    def loops(self) -> bool:
        """Whether the last row's result is what the next run begins with."""
        return self.repeat > 1 and self.carried_bits > 0


def segments(table: OperationTable) -> list[Segment]:
    """The segments of one model's table, rows that do not run left out."""
    running = [i for i in range(len(table)) if int(table.repeat[i]) > 0]
    found: list[Segment] = []
    place: dict[int, int] = {}
    bits_out = table.row_output_elements() * table.output_bits
    wanted = operand_bits(table)
    for i in running:
        if not found or found[-1].repeat != int(table.repeat[i]):
            found.append(Segment(int(table.repeat[i])))
        found[-1].rows.append(Row(i, (), int(bits_out[i]), bool(table.writes_cache[i])))
        place[i] = len(found) - 1
    for number, segment in enumerate(found):
        _link(table, found, place, number, segment, wanted)
    for number, segment in enumerate(found):
        _settle(found, number, segment)
    return found


def operand_bits(table: OperationTable) -> list[list[int]]:
    """Bits of each activation operand of each row of one model, as it reads them once; parameters, caches and gathered tables are
    none.
    """
    columns = (
        table.kind,
        table.row_input_elements() * table.input_bits,
        table.row_second_elements() * table.weight_bits,
        table.second_is_weight | table.second_is_cache,
        table.values_in_keys,
        table.k,
        table.v_dim,
        table.operands,
    )
    return [_operands(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _operands(kind: int, first: int, second: int, apart: bool, values_in_keys: bool, k: int, v_dim: int, operands: int) -> list[int]:
    """Bits of the activation operands of a row: ``first`` and ``second`` are those of both operands, ``apart`` says that the second is
    none.
    """
    if kind in _WITHOUT:
        return []
    if kind in PRODUCTS:
        return [first] if apart else [first, second]
    if kind in ATTENTION:
        if apart:
            return [first]
        if values_in_keys:
            return [first, second]
        keys = second * k // (k + v_dim)
        return [first, keys, second - keys]
    return [first // operands] * operands


def _link(
    table: OperationTable, found: list[Segment], place: dict[int, int], number: int, segment: Segment, every: list[list[int]]
) -> None:
    """Fill the uses of a segment's rows."""
    names = [str(table.name[row.at]) for row in segment.rows]
    last = segment.rows[-1]
    earlier = {str(table.name[row.at]): row.at for other in found[:number] for row in other.rows}
    previous = found[number - 1] if number else None
    for position, row in enumerate(segment.rows):
        wanted = every[row.at]
        names_read = str(table.reads[row.at]).split()
        if names_read and wanted and len(names_read) > len(wanted):  # several tensors are one operand, side by side
            wanted = _shares(wanted[0], len(names_read), [_made(segment, names, position, t) for t in names_read])
        sources = []
        for slot, bits in enumerate(wanted):
            if names_read:
                named = names_read[slot] if slot < len(names_read) else "-"
                sources.append(_resolve(named, segment, names, position, earlier, previous))
            elif slot == 0:
                sources.append(_chain(segment, position, bits, previous))
            else:
                sources.append(MEMORY)
        for source in sources:  # what another segment makes goes through memory
            if source >= 0 and place[source] != number:
                next(r for r in found[place[source]].rows if r.at == source).stored = True
        sources = [s if s < 0 or place[s] == number else MEMORY for s in sources]
        row.uses = tuple(Use(s, b) for s, b in zip(sources, wanted, strict=True))
        if any(s == BEFORE for s in sources) and not segment.carried_bits:
            segment.carried_bits = last.bits if segment.repeat > 1 else (previous.rows[-1].bits if previous else 0)


def _chain(segment: Segment, position: int, bits: int, previous: Segment | None) -> int:
    if position:
        before = segment.rows[position - 1]
        return before.at if before.bits == bits else MEMORY
    if segment.repeat > 1:
        return BEFORE if segment.rows[-1].bits == bits else MEMORY
    return BEFORE if previous is not None and previous.rows[-1].bits == bits else MEMORY


def _resolve(named: str, segment: Segment, names: list[str], position: int, earlier: dict[str, int], previous: Segment | None) -> int:
    """The source that a named of ``reads`` names."""
    if named == "-":
        return MEMORY
    if named.startswith("="):
        name = named[1:]
        for at in range(position - 1, -1, -1):
            if names[at] == name:
                uses = segment.rows[at].uses
                return uses[0].source if uses else MEMORY
        return MEMORY
    for at in range(position - 1, -1, -1):
        if names[at] == named:
            return segment.rows[at].at
    if segment.repeat > 1:
        return BEFORE if named == names[-1] else earlier.get(named, MEMORY)
    if previous is not None and named in earlier and previous.rows[-1].at == earlier[named]:
        return BEFORE
    return earlier.get(named, MEMORY)


def _made(segment: Segment, names: list[str], position: int, named: str) -> int:
    """Bits of the tensor that a named names inside a segment, 0 where it names none."""
    return next((segment.rows[at].bits for at in range(position - 1, -1, -1) if names[at] == named), 0)


def _shares(total: int, count: int, sizes: list[int]) -> list[int]:
    """An operand's bits divided among the tensors that it lies in, in proportion to their sizes."""
    whole = sum(sizes) or count
    shares = [total * (size or 1) // whole for size in sizes]
    shares[-1] = total - sum(shares[:-1])
    return shares


def _settle(found: list[Segment], number: int, segment: Segment) -> None:
    """Say what passes between segments, and which results must reach memory."""
    previous = found[number - 1] if number else None
    following = found[number + 1] if number + 1 < len(found) else None
    last = segment.rows[-1]
    one_runs_once = previous is not None and (previous.repeat == 1 or (previous.loops and segment.repeat == 1))
    same = previous is not None and previous.rows[-1].bits == segment.carried_bits
    segment.enters = bool(segment.carried_bits and one_runs_once and same)
    if segment.carried_bits and not segment.enters and previous is not None and same:
        previous.rows[-1].stored = True
    if following is not None and following.carried_bits:
        passes = segment.repeat == 1 or (segment.loops and following.repeat == 1)
        segment.leaves = passes and following.carried_bits == last.bits
    read = {use.source for row in segment.rows for use in row.uses}
    for row in segment.rows:
        carried = row is last and (segment.loops or segment.leaves)
        if row.at not in read and not carried:
            row.stored = True
