"""Models and the choices of what stays on chip as arrays of the kernel (`dse_kernels.residency.Arrays`).

What models share is packed once: products, steps, ways to run them, and the choices of chains of one form, whose sizes alone differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from dse_kernels import mapping, residency

from hw_models.costs import products, vector
from hw_models.costs.residency.states import BOTH, NO_GROUP, ONLY, WITHIN, Edges, Variant, edges_of, form
from hw_models.costs.residency.steps import Chain, Step, chain_of
from hw_models.costs.residency.tiles import Group, Groups, groups_of
from hw_models.costs.residency.units import mask_of, pinned_bits, product_mask, reads_on_chip
from workloads.ops import ATTENTION, PRODUCTS, OperationTable, of_kinds
from workloads.tensors import Segment, segments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Phase(NamedTuple):
    """The table of a phase at the designs' precision (columns of one model or of many), its distinct operations and which of them
    each row is, and how often it runs.
    """

    table: OperationTable
    shapes: OperationTable
    which: IntArray
    runs: float

    @classmethod
    def of(cls, table: OperationTable, runs: float) -> Phase:
        """A phase with its distinct operations found: those of the table, vector work with other parameters told apart."""
        distinct = table.distinct()
        searched = of_kinds(table.kind, (*PRODUCTS, *ATTENTION))
        parameters = np.broadcast_to(np.where(searched, 0, table.parameters), distinct.index.shape)
        pairs = np.stack([distinct.index.reshape(-1), parameters.reshape(-1)], axis=1)
        each, index = np.unique(pairs, axis=0, return_inverse=True)
        shapes = replace(distinct.table.take(each[:, 0]), parameters=each[:, 1])
        return cls(table, shapes, index.reshape(distinct.index.shape).astype(np.int64), runs)


class Part(NamedTuple):
    """A segment of a model: its table, chain and edges, and how often its phase runs; ``tiles``: the table of its groups' pieces."""

    table: OperationTable
    segment: Segment
    chain: Chain
    edges: Edges
    phase: int
    runs: float
    tiles: OperationTable | None


@dataclass(eq=False)
class _Shapes:
    """What steps need to know of the distinct operations of all phases, one after the other, and of tiles."""

    burst_bytes: int
    kind: list[int] = field(init=False, default_factory=list)
    product: list[int] = field(init=False, default_factory=list)  # row of the kernel's products, -1: none
    work: list[list[float]] = field(init=False, default_factory=list)  # (operations, LANES)
    macs: list[float] = field(init=False, default_factory=list)
    parameters: list[float] = field(init=False, default_factory=list)  # bits
    vector: list[list[float]] = field(init=False, default_factory=list)  # (operations, 4): bits_in, bits_out, row_bits, passes
    whole: list[float] = field(init=False, default_factory=list)  # of products: bits of the first operand, element by element
    _rows: dict[tuple[float, ...], int] = field(init=False, default_factory=dict)

    def add(self, table: OperationTable) -> int:
        """Learn the operations of a table; the number of its first."""
        first = len(self.kind)
        at = np.flatnonzero(~of_kinds(table.kind, (*PRODUCTS, *ATTENTION)))
        lanes = vector.vector_work(table.take(at), self.burst_bytes)
        work, vectors = np.zeros((len(table), len(residency.LANES))), np.zeros((len(table), 4))
        if len(at):
            work[at] = np.column_stack([getattr(lanes, name)[:, 0] for name in residency.LANES])
            columns = (lanes.bits_in, lanes.bits_out, lanes.row_bits, lanes.passes)
            vectors[at] = np.column_stack([column[:, 0] for column in columns])
        self.work += work.tolist()
        self.vector += vectors.tolist()
        self.macs += table.row_macs().astype(np.float64).tolist()
        self.parameters += (table.row_second_elements() * table.weight_bits).astype(np.float64).tolist()
        self.kind += table.kind.tolist()
        numbers, whole = np.full(len(table), -1, dtype=np.int64), np.zeros(len(table))
        searched = np.flatnonzero(of_kinds(table.kind, PRODUCTS))
        some = table.take(searched)
        sizes, shared, bits, _ = products.product_shapes(some)
        windows, spread = products.map_windows(some, sizes, shared)
        for i, place in enumerate(searched.tolist()):
            row = (*sizes[i].tolist(), bool(shared[i]), *bits[i].tolist(), *windows[i].tolist(), bool(spread[i]))
            numbers[place] = self._rows.setdefault(row, len(self._rows))
            whole[place] = float(sizes[i][0] * sizes[i][1] * sizes[i][3]) * float(bits[i][0])
        self.product += numbers.tolist()
        self.whole += whole.tolist()
        return first

    def arrays(self) -> tuple[IntArray, FloatArray]:
        """Products as the mapping search takes them."""
        if not self._rows:
            return np.zeros((0, 12), dtype=np.int64), np.zeros((0, 3))
        every = np.array([[float(v) for v in row] for row in self._rows])
        whole = every.astype(np.int64)
        return mapping.prepare(whole[:, :4], whole[:, 4] > 0, every[:, 5:8], whole[:, 8:13], whole[:, 13] > 0)


@dataclass(eq=False)
class _Form:
    """Chains of one form: their choices, the ways to run each step apart from sizes, and which way each variant is."""

    edges: Edges
    number: int
    ways: list[list[Any]]  # of each step: a variant of each way
    way_of: IntArray  # variant -> step, number of the way; those of groups or within one: step, -1
    held: FloatArray  # (variants, tensors): 1 where held
    tensors: list[int]


@dataclass(eq=False)
class Packer:
    """Fills the arrays for models of ``phases``; ``most_bits``: what the largest design holds; ``tiled``: steps may run tile by tile.
    ``parts``: of each model, once packed.
    """

    phases: Sequence[Phase]
    epilogues: bool
    most_bits: int
    burst_bytes: int
    tiled: bool = False
    parts: dict[int, list[Part]] = field(init=False, default_factory=dict)
    attention: list[OperationTable] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._offsets = np.cumsum([0, *(len(p.shapes) for p in self.phases)]).tolist()
        self._shapes = _Shapes(self.burst_bytes)
        for p in self.phases:
            self._shapes.add(p.shapes)
        self._lanes: list[list[float]] = []
        self._steps: dict[tuple[object, ...], int] = {}  # the first of its prices
        self._step_ints: list[list[int]] = []
        self._step_reals: list[list[float]] = []
        self._price_ints: list[list[int]] = []
        self._price_reals: list[list[float]] = []
        self._forms: dict[tuple[object, ...], list[_Form]] = {}
        self._form_count = 0
        self._graphs: dict[str, list[int]] = {name: [] for name in ("edges", "edge_ends", "states", "exits", "steps")}
        self._chains: dict[tuple[object, ...], int] = {}
        self._chain_graph: list[int] = []
        self._variants: list[tuple[IntArray, FloatArray, FloatArray]] = []
        self._groups: dict[tuple[object, ...], tuple[Groups, int]] = {}
        self._pieces: dict[tuple[object, ...], int] = {}  # a price that follows another, by all that it is
        self._attention: dict[int, int] = {}

    def pack(self, models: int) -> residency.Arrays:
        """The arrays of models 0 .. ``models`` - 1."""
        families: dict[tuple[tuple[int, bool, bool, bool, float], ...], list[tuple[list[int], IntArray]]] = {}
        for alike in self._alike(models):
            parts, repeats = self._parts(alike)
            phases = [-1, *(part.phase for _, part in parts)]
            key = tuple(
                (number, part.segment.enters, part.segment.loops, part.phase == before, part.runs)
                for (number, part), before in zip(parts, phases, strict=False)
            )
            families.setdefault(key, []).append((alike, repeats))
            self.parts |= {model: [part for _, part in parts] for model in alike}
        flat = list(families)
        numbers = {key: [m for alike, _ in groups for m in alike] for key, groups in families.items()}
        several = [np.concatenate([r for _, r in groups]).reshape(-1) for groups in families.values()]
        parts_of = [part for key in flat for part in key]
        price, held, loads = zip(*self._variants, strict=True) if self._variants else ((), (), ())
        graphs = self._graphs
        return residency.Arrays(
            *self._shapes.arrays(),
            _reals(self._lanes, len(residency.LANES)),
            _ints(self._step_ints, len(residency.STEP_INTS)),
            _reals(self._step_reals, len(residency.STEP_REALS)),
            _ints(self._price_ints, len(residency.PRICE_INTS)),
            _reals(self._price_reals, len(residency.PRICE_REALS)),
            np.array(graphs["edges"], dtype=np.int64).reshape(-1, 3),
            np.array(graphs["edge_ends"], dtype=np.int64),
            np.array(graphs["states"], dtype=np.int64),
            np.array(graphs["exits"], dtype=np.int64),
            np.array(graphs["steps"], dtype=np.int64),
            np.array(self._chain_graph, dtype=np.int64),
            np.cumsum([len(p) for p in price], dtype=np.int64),
            np.concatenate(price) if price else np.zeros(0, dtype=np.int64),
            np.concatenate(held) if held else np.zeros(0),
            np.concatenate(loads) if loads else np.zeros(0),
            np.array([part[:4] for part in parts_of], dtype=np.int64).reshape(-1, 4),
            np.array([part[4] for part in parts_of], dtype=np.float64),
            np.cumsum([len(key) for key in flat], dtype=np.int64),
            np.array([m for key in flat for m in numbers[key]], dtype=np.int64),
            np.cumsum([len(numbers[key]) for key in flat], dtype=np.int64),
            np.concatenate(several) if several else np.zeros(0, dtype=np.int64),
            self._weight_bits(models),
            len(self.attention),
        )

    @staticmethod
    def one(arrays: residency.Arrays, model: int) -> residency.Arrays:
        """The arrays of one of the models that ``arrays`` hold."""
        at = int(np.flatnonzero(arrays.models == model)[0])
        family = int(np.searchsorted(arrays.model_ends, at, side="right"))
        first, last = ([0, *ends.tolist()] for ends in (arrays.part_ends, arrays.model_ends))
        parts = slice(first[family], first[family + 1])
        count = parts.stop - parts.start
        # Repeats of the families before: each has as many models as parts in every row.
        widths = np.diff(first)[:family] * np.diff(last)[:family]
        begin = int(widths.sum()) + (at - last[family]) * count
        return arrays._replace(
            part_ints=arrays.part_ints[parts],
            part_runs=arrays.part_runs[parts],
            part_ends=np.array([count]),
            models=np.zeros(1, dtype=np.int64),
            model_ends=np.ones(1, dtype=np.int64),
            repeats=arrays.repeats[begin : begin + count],
            weight_bits=arrays.weight_bits[model : model + 1],
        )

    def _alike(self, models: int) -> list[list[int]]:
        """Models whose segments are the same but for how often they run, together."""
        keys = []
        for phase in self.phases:
            shape = (models, len(phase.table))
            repeat = np.broadcast_to(phase.table.repeat, shape)
            index = np.broadcast_to(phase.which, shape)
            keys.append(np.where(repeat > 0, index, -1))
            keys.append(np.minimum(repeat, 2))
            # Segments end where the number of runs changes, among the rows that run.
            before = np.zeros(models, dtype=np.int64)
            for row in range(shape[1]):
                here = repeat[:, row]
                keys.append(((here > 0) & (here != before))[:, None].astype(np.int64))
                before = np.where(here > 0, here, before)
        every = np.ascontiguousarray(np.concatenate(keys, axis=1))
        groups: dict[bytes, list[int]] = {}
        for model in range(models):
            groups.setdefault(every[model].tobytes(), []).append(model)
        return list(groups.values())

    def _parts(self, alike: list[int]) -> tuple[list[tuple[int, Part]], IntArray]:
        """The chains and parts of models that are alike, and the repeats of each (models, parts)."""
        found, repeats = [], []
        for number, phase in enumerate(self.phases):
            several = phase.table.models is not None
            table = phase.table.model(alike[0]) if several else phase.table
            index = (phase.which[alike[0]] if phase.which.ndim == 2 else phase.which) + self._offsets[number]
            for segment in segments(table):
                chain = chain_of(table, segment, epilogues=self.epilogues)
                groups, first = self._groups_of(chain, table, index.tolist())
                own = self._form(chain, groups.every)
                numbered = self._chain(chain, own, index.tolist(), first)
                found.append((numbered, Part(table, segment, chain, own.edges, number, phase.runs, groups.table)))
                column = phase.table.repeat[..., segment.rows[0].at]
                repeats.append(np.broadcast_to(column[alike] if column.ndim else column, len(alike)))
        return found, np.array(repeats, dtype=np.int64).reshape(len(repeats), len(alike)).T

    def _groups_of(self, chain: Chain, table: OperationTable, index: list[int]) -> tuple[Groups, int]:
        """The groups of a chain, and the number of the first of their pieces' operations."""
        if not self.tiled:
            return Groups((), None), 0
        key = (form(chain), chain.steps, tuple(index[r] for step in chain.steps for r in step.rows))
        if key not in self._groups:
            found = groups_of(chain, table)
            self._groups[key] = found, self._shapes.add(found.table) if found.table is not None else 0
        return self._groups[key]

    def _form(self, chain: Chain, groups: tuple[Group, ...]) -> _Form:
        key = (form(chain), groups, tuple(chain.bits.items()) if groups else ())
        for known in self._forms.get(key, []):
            if known.edges.serve(chain, self.most_bits):
                return known
        edges = edges_of(chain, most_bits=self.most_bits, groups=groups)
        ways: list[dict[tuple[object, ...], int]] = [{} for _ in chain.steps]
        samples: list[list[Any]] = [[] for _ in chain.steps]
        way_of = []
        for v in edges.variants:
            if v.group != NO_GROUP:
                way_of.append((v.step, -1))
                continue
            own = ways[v.step]
            way = (v.resident, v.keeps, v.stores, v.loaded)
            if way not in own:
                own[way] = len(own)
                samples[v.step].append(v)
            way_of.append((v.step, own[way]))
        tensors = list(chain.bits)
        held = np.array([[float(t in v.held) for t in tensors] for v in edges.variants])
        new = _Form(edges, self._form_count, samples, np.array(way_of, dtype=np.int64), held, tensors)
        self._forms.setdefault(key, []).append(new)
        self._form_count += 1
        graphs = self._graphs
        for layer in edges.layers:
            for edge in layer:
                graphs["edges"] += edge
            graphs["edge_ends"].append(len(graphs["edges"]) // 3)
        graphs["states"] += [len(states) for states in edges.states]
        graphs["exits"] += [0 if not state else {ONLY: 1, BOTH: 2}[state[0][1]] for state in edges.states[-1]]
        graphs["steps"].append(len(chain.steps))
        return new

    def _chain(self, chain: Chain, own: _Form, index: list[int], tiles: int) -> int:
        """The number of a chain whose table's rows are these distinct operations; ``tiles``: the first of those of its groups."""
        firsts = [self._step(chain, own, i, step, index) for i, step in enumerate(chain.steps)]
        bits = [chain.bits[t] for t in own.tensors]
        key = (own.number, tiles, *firsts, *bits)
        if key not in self._chains:
            self._chains[key] = len(self._chain_graph)
            self._chain_graph.append(own.number)
            price = np.array(firsts, dtype=np.int64)[own.way_of[:, 0]] + own.way_of[:, 1]
            held = own.held @ np.array(bits, dtype=np.float64)
            if own.edges.groups:
                held = own.edges.held_bits(chain.bits).astype(np.float64)
                for number, v in enumerate(own.edges.variants):
                    if v.group != NO_GROUP:
                        price[number] = -1 if v.group == WITHIN else self._group(own.edges.groups[v.group], v, int(held[number]), tiles)
            self._variants.append((price, held, own.edges.own_bits().astype(np.float64)))
        return self._chains[key]

    def _group(self, group: Group, variant: Variant, held: int, tiles: int) -> int:
        """The price of the last of a group's pieces; each names the one before."""
        before = -1
        for piece in group.pieces:
            step = piece.step
            how = group.condition(piece, variant.held, keeps=variant.keeps, stores=variant.stores, held_bits=held, pinned=False)
            rows = tuple(tiles + r for r in step.rows)
            kind = self._shapes.kind[rows[0]]
            parameters = mapping.KEEP_WEIGHTS if how.holds else 0
            key: tuple[object, ...] = ("tile", rows, step.operands, step.bits, step.own_operands, step.pins, parameters)
            if key not in self._steps:
                self._steps[key] = len(self._step_ints)
                (self._product if kind in PRODUCTS else self._work)(step, rows)
                self._step_ints[-1][residency.STEP_INTS.index("ideal")] |= parameters
            mask, extra, resident = 0, 0.0, 0.0
            if kind in PRODUCTS:
                mask = product_mask(step, how)
                others = zip(step.operands[step.own_operands :], how.resident[step.own_operands :], strict=True)
                extra = float(sum(o.bits for o, there in others if not there))
            else:
                resident = float(sum(o.bits for o, there in zip(step.operands, how.resident, strict=True) if there))
            ints = (self._steps[key], mask, int(how.keeps), int(how.stores), before)
            reals = (float(how.loaded_bits), extra, resident, extra, float(piece.times), float(how.own_bits))
            if (ints, reals) not in self._pieces:
                self._pieces[ints, reals] = len(self._price_ints)
                self._price_ints.append(list(ints))
                self._price_reals.append(list(reals))
            before = self._pieces[ints, reals]
        return before

    def _step(self, chain: Chain, own: _Form, number: int, step: Step, index: list[int]) -> int:
        """The first price of a step, which are in the order of the form's ways."""
        rows = tuple(index[r] for r in step.rows)
        operands = tuple((o.bits, 0 if o.tensor is None else chain.bits[o.tensor]) for o in step.operands)
        key = (own.number, number, rows, operands, step.bits, step.shares, step.own_operands, step.pins)
        if key in self._steps:
            return self._steps[key]
        first = self._steps[key] = len(self._price_ints)
        at = len(self._step_ints)
        kind = self._shapes.kind[rows[0]]
        (self._product if kind in PRODUCTS else self._fused if kind in ATTENTION else self._work)(step, rows)
        for v in own.ways[number]:
            loaded = float(sum(chain.bits[t] for t in v.loaded))
            streamed = [o.bits for o, there in zip(step.operands, v.resident, strict=True) if not there]
            mask, extra, resident, least = 0, 0.0, 0.0, 0.0
            if kind in PRODUCTS:
                mask = mask_of(step, v.resident, v.keeps)
                own_bits = step.own_operands
                extra = float(sum(o.bits for o, there in zip(step.operands[own_bits:], v.resident[own_bits:], strict=True) if not there))
                least = extra + self._least(step, v.resident, rows[0])
            elif kind in ATTENTION:
                query, others = reads_on_chip(step, v.resident)
                sizes = [o.bits for o in step.operands[step.shares : step.own_operands]]
                second = self._step_reals[at][residency.STEP_REALS.index("second_bits")]
                resident = sum(b for b, there in zip(sizes, others, strict=True) if there) / second
                least = float(query)
            else:
                resident = float(sum(o.bits for o in step.operands) - sum(streamed))
            self._price_ints.append([at, mask, v.keeps, v.stores, -1])
            self._price_reals.append([loaded, extra, resident, least, 1.0, 0.0])
        return first

    def _least(self, step: Step, resident: Sequence[bool], shape: int) -> float:
        """Bits of a product's own operands that are read from the DRAM at least once."""
        first = [o.bits for o, there in zip(step.operands[: step.shares], resident, strict=False) if not there and o.tensor is not None]
        second = [
            o.bits
            for o, there in zip(step.operands[step.shares : step.own_operands], resident[step.shares :], strict=False)
            if not there and o.tensor is not None
        ]
        return min(float(sum(first)), self._shapes.whole[shape]) + float(sum(second))

    def _add(self, kind: int, shape: int, ideal: int, pins: int, works: Sequence[int], **reals: float) -> None:
        begin = len(self._lanes)
        self._lanes += [self._shapes.work[row] for row in works]
        self._step_ints.append([kind, shape, ideal, pins, begin, len(self._lanes)])
        self._step_reals.append([float(reals.get(name, 0.0)) for name in residency.STEP_REALS])

    def _product(self, step: Step, rows: tuple[int, ...]) -> None:
        ideal = mask_of(step, [o.tensor is not None for o in step.operands], True)
        self._add(
            residency.PRODUCT,
            self._shapes.product[rows[0]],
            ideal,
            mapping.KEEP_WEIGHTS if step.pins else 0,
            rows[1:],
            bits=step.bits,
            every=sum(o.bits for o in step.operands[step.own_operands :]),
            parameters=sum(self._shapes.parameters[r] for r in rows[1:]),
            macs=self._shapes.macs[rows[0]],
            weight_bits=self._shapes.parameters[rows[0]] if step.pins else 0.0,
        )

    def _work(self, step: Step, rows: tuple[int, ...]) -> None:
        bits_in, bits_out, row_bits, passes = self._shapes.vector[rows[0]]
        parameters = 0.0 if self._shapes.kind[rows[0]] in vector.GATHERS else self._shapes.parameters[rows[0]]
        self._add(
            residency.VECTOR,
            0,
            0,
            0,
            rows[:1],
            bits=step.bits,
            parameters=parameters,
            bits_in=bits_in,
            bits_out=bits_out,
            row_bits=row_bits,
            passes=passes,
        )

    def _fused(self, step: Step, rows: tuple[int, ...]) -> None:
        at = rows[0]
        phase = max(i for i, offset in enumerate(self._offsets[:-1]) if offset <= at)
        row = self.phases[phase].shapes.take([at - self._offsets[phase]])
        if at not in self._attention:
            self._attention[at] = len(self.attention)
            self.attention.append(row)
        sizes = {
            "query_bits": row.row_input_elements() * row.input_bits,
            "second_bits": row.row_second_elements() * row.weight_bits,
            "out_bits": row.row_output_elements() * row.output_bits,
            "head_bits": row.k * row.weight_bits + row.v_dim * row.weight_bits,
            "kv_heads": row.batch // row.kv_share,
            "queries": row.m * row.kv_share,
            "keys": row.n,
            "share": row.attention_pairs().astype(np.float64) / (row.m * row.n),
        }
        self._add(residency.ATTENTION, self._attention[at], 0, 0, (), bits=step.bits, **{name: float(v[0]) for name, v in sizes.items()})

    def _weight_bits(self, models: int) -> FloatArray:
        """Bits of the weights of each model that would stay, shared tensors once."""
        result = np.zeros(models, dtype=np.int64)
        largest: dict[str, IntArray] = {}
        for phase in self.phases:
            table = phase.table
            each = pinned_bits(table) * np.where(table.copies > 0, table.copies, table.repeat) * (table.repeat > 0)
            each = np.broadcast_to(each, (models, len(table)))
            for i in np.flatnonzero(each.any(axis=0)).tolist():
                name = str(table.weight_id[i]) or f"row {i} {table.name[i]}"
                largest[name] = np.maximum(largest[name], each[:, i]) if name in largest else each[:, i]
        for bits in largest.values():
            result = result + bits
        return result.astype(np.float64)


def _ints(rows: list[list[int]], columns: int) -> IntArray:
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def _reals(rows: list[list[float]], columns: int) -> FloatArray:
    return np.array(rows, dtype=np.float64).reshape(-1, columns)
