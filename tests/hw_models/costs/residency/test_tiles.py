"""Groups of steps that run tile by tile: against a brute force of plans, against costs piece by piece, and their properties."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from dse_kernels.residency import paths_reference

from hw_models.accelerator.design import Accelerator
from hw_models.costs.residency.models import BY_TILES, model_totals, report
from hw_models.costs.residency.packing import Part, Phase
from hw_models.costs.residency.solve import LEVELS, Solver, Tiled, condition_of
from hw_models.costs.residency.states import WITHIN, edges_of
from hw_models.costs.residency.steps import CARRIED, Chain, Operand, Step, chain_of
from hw_models.costs.residency.tiles import Group, groups_of
from hw_models.costs.residency.units import Machine, pinned_bits, step_costs
from hw_models.errors import HardwareError
from hw_models.spaces import template
from hw_models.spaces.files import read_document
from workloads import library
from workloads.filters import filter_fields
from workloads.operation import Operation
from workloads.ops import Kind, OperationTable
from workloads.records import Phase as WorkloadPhase
from workloads.records import Workload
from workloads.tensors import Segment, segments

EDGE = template.load("edge22").as_published()
SIDE, CHANNELS, WIDE = 28, 32, 192


def designs(count: int, seed: int = 0) -> Any:
    chosen = np.sort(np.random.default_rng(seed).choice(EDGE.size, count, replace=False))
    return EDGE.batch(**{name: column[chosen] for name, column in EDGE.grid().items()})


# ---- the choices, with random costs: a brute force that tries every plan, one step or group after the other ----


def random_chain(seed: int) -> tuple[Chain, tuple[Group, ...], int]:
    """A chain of 2 to 4 steps, most of which read the step before, groups of some of them at random, and a capacity in bits."""
    rng = np.random.default_rng([23, seed])
    count = int(rng.choice([2, 3, 3, 4]))
    carried = bool(rng.random() < 0.3)
    bits = {i: int(rng.integers(1, 6)) for i in range(count)}
    if carried:
        bits[CARRIED] = bits[count - 1] = int(rng.integers(1, 6))
    steps = []
    for i in range(count):
        known = [*([CARRIED] if carried else []), *range(i)]
        first = [i - 1] if i and rng.random() < 0.8 else [CARRIED] if carried and i == 0 else []
        others = [t for t in known if t not in first and rng.random() < 0.25]
        operands = [Operand(t, bits[t]) for t in first + others]
        steps.append(Step(i, (), tuple(operands), len(operands), i, bits[i], bool(rng.random() < 0.1)))
    last = {t: max([i for i, s in enumerate(steps) if t in {o.tensor for o in s.operands}], default=max(t, -1)) for t in bits}
    if carried:
        last[count - 1] = count
    steps = [replace(s, stored=s.stored or last[i] == i) for i, s in enumerate(steps)]
    segment = Segment(2 if carried else 1, [], bits.get(CARRIED, 0), enters=carried)
    chain = Chain(segment, tuple(steps), bits, last, count - 1 if carried else None)
    groups = []
    for i, j in itertools.combinations_with_replacement(range(count), 2):
        inside = range(i, j)
        readers = {t: [(k, n) for k, s in enumerate(steps) for n, o in enumerate(s.operands) if o.tensor == t] for t in inside}
        alone = all(readers[t] == [(t + 1, 0)] for t in inside)
        if not alone or any(steps[t].stored for t in inside) or rng.random() < 0.3:
            continue
        outside = frozenset(o.tensor for s in steps[i : j + 1] for o in s.operands if o.tensor is not None and not i <= o.tensor < j)
        enters = steps[i].operands[0] if steps[i].operands else Operand(None, 2)
        wide = bool(rng.random() < 0.4)
        gives = enters.tensor if not wide and enters.tensor is not None and last[enters.tensor] <= j and rng.random() < 0.5 else None
        for size in range(1, int(rng.integers(2, 4))):
            held, own = int(rng.integers(0, 3)), int(rng.integers(0, 3))
            form: Any = "width" if wide else "rows"
            groups.append(Group(i, j, form, size, size, (), held, own, outside, enters if wide else None, gives, 1))
    return chain, tuple(groups), int(rng.integers(2, 16))


@cache
def amount(seed: int, held: int, *what: object) -> float:
    """A cost at random for each way, never less for less room."""
    rng = np.random.default_rng([29, seed, *np.frombuffer(repr(what).encode(), dtype=np.uint8).tolist()])
    return float(rng.integers(1, 400) + np.cumsum(rng.integers(0, 40, size=60))[held])


def single(seed: int, i: int, resident: tuple[bool, ...], keeps: bool, stores: bool, held: int, loaded: int) -> float:
    cost = amount(seed, held, "step", i) + sum(amount(seed, 0, "reads", i, k) for k, there in enumerate(resident) if not there)
    return cost + 50.0 * stores + 10.0 * loaded


def grouped(seed: int, group: Group, number: int, there: frozenset[int], keeps: bool, stores: bool, held: int) -> float:
    cost = amount(seed, held, "group", number) / 2 + sum(amount(seed, 0, "outside", number, t) for t in group.reads - there)
    return float(np.floor(cost)) + 50.0 * stores + 7.0 * keeps


def by_force(chain: Chain, groups: tuple[Group, ...], capacity: int, seed: int) -> dict[tuple[int, int], float]:
    """Least cost from each place of what comes in (0 memory, 1 chip, 2 both) to each of what leaves, by trying everything.

    Between two runs anything may be dropped that is in memory or dead. Then the next step runs by itself, loading what it likes of what
    it reads, or a group that begins with it runs, beside all that is there.
    """
    steps, bits, n = chain.steps, chain.bits, len(chain.steps)
    best: dict[tuple[int, int], float] = {}

    def drops(here: dict[int, tuple[bool, bool]], i: int) -> Iterator[dict[int, tuple[bool, bool]]]:
        free = [t for t, (chip, memory) in here.items() if chip and (memory or chain.last_use[t] < i)]
        for gone in itertools.product((False, True), repeat=len(free)):
            yield {t: (chip and not (t in free and gone[free.index(t)]), memory) for t, (chip, memory) in here.items()}

    def run(i: int, here: dict[int, tuple[bool, bool]], total: float, begin: int) -> None:
        if i == n:
            place = 0
            if chain.leaving is not None:
                chip, memory = here[chain.leaving]
                place = 0 if not chip else 2 if memory else 1
            best[begin, place] = min(best.get((begin, place), np.inf), total)
            if place == 2:
                best[begin, 0] = min(best.get((begin, 0), np.inf), total)
            return
        for now in drops(here, i):
            on = {t for t, (chip, _) in now.items() if chip}
            step = steps[i]
            reads = {o.tensor for o in step.operands if o.tensor is not None}
            for loads in itertools.product((False, True), repeat=len(reads - on)):
                loaded = {t for t, load in zip(sorted(reads - on), loads, strict=True) if load}
                resident = tuple(o.tensor is not None and o.tensor in on | loaded for o in step.operands)
                for keeps, stores in ((False, True), (True, False), (True, True)):
                    if step.stored and not stores:
                        continue
                    held = sum(bits[t] for t in on | loaded) + (bits[i] if keeps else 0)
                    if held > capacity:
                        continue
                    after = {t: (chip or t in loaded, memory) for t, (chip, memory) in now.items()} | {i: (keeps, stores)}
                    cost = single(seed, i, resident, keeps, stores, held, sum(bits[t] for t in loaded))
                    run(i + 1, after, total + cost, begin)
            for number, g in enumerate(groups):
                if g.first != i:
                    continue
                j = g.last
                for keeps, stores in ((False, True), (True, False), (True, True)):
                    if (steps[j].stored and not stores) or (g.form == "width" and not keeps):
                        continue
                    room = sum(bits[t] for t in on) + (bits[j] if keeps else 0) + g.held_bits
                    if keeps and g.gives_way in on:
                        # While tiles run, rows of one take the place of the other's; the larger of the two is there, and a tile.
                        room += max(bits[g.gives_way], bits[j]) - bits[g.gives_way] - bits[j] + g.tile_bits
                    if g.form == "width" and (g.entering is None or g.entering.tensor not in on):
                        room += g.entering.bits if g.entering is not None else 0
                    if room + g.own_bits > capacity:
                        continue
                    after = dict(now) | dict.fromkeys(range(i, j), (False, False)) | {j: (keeps, stores)}
                    cost = grouped(seed, g, number, frozenset(on), keeps, stores, room)
                    run(j + 1, after, total + cost, begin)

    begins = [(0, False, True)] + ([(1, True, False), (2, True, True)] if CARRIED in bits else [])
    for begin, chip, memory in begins:
        run(0, {CARRIED: (chip, memory)} if CARRIED in bits else {}, 0.0, begin)
    return best


def by_paths(chain: Chain, groups: tuple[Group, ...], capacity: int, seed: int) -> dict[tuple[int, int], float]:
    edges = edges_of(chain, most_bits=capacity, groups=groups)
    costs = []
    for v, held in zip(edges.variants, edges.held_bits(chain.bits).tolist(), strict=True):
        if v.group == WITHIN:
            costs.append(0.0)
        elif v.group >= 0:
            there = frozenset(t for t in v.held if t != v.step)
            costs.append(grouped(seed, groups[v.group], v.group, there, v.keeps, v.stores, held))
        else:
            costs.append(single(seed, v.step, v.resident, v.keeps, v.stores, held, sum(chain.bits[t] for t in v.loaded)))
    ends = [0 if not s else s[0][1] for s in edges.states[-1]]
    first = np.array([costs])
    best = paths_reference(edges.layers, [len(s) for s in edges.states], ends, 3, first, np.zeros_like(first))
    begins = [0 if not s else s[0][1] for s in edges.states[0]]
    found = {(a, b): float(best[0, i, b, 0]) for i, a in enumerate(begins) for b in range(3) if np.isfinite(best[0, i, b, 0])}
    for a, b in list(found):  # what is also in memory may be given up, before it comes in and after it is made
        if b == 2:
            found[a, 0] = min(found[a, 2], found.get((a, 0), np.inf))
    if 2 in begins:
        for b in range(3):
            least = min(found.get((2, b), np.inf), found.get((0, b), np.inf))
            if np.isfinite(least):
                found[2, b] = least
    return found


def compare_plans(seeds: range) -> int:
    """How many plans were compared whose best has a group."""
    tiled = 0
    for seed in seeds:
        chain, groups, capacity = random_chain(seed)
        wanted, found = by_force(chain, groups, capacity, seed), by_paths(chain, groups, capacity, seed)
        assert found == {key: value for key, value in wanted.items() if key[0] in {begin for begin, _ in found}}, seed
        without = by_paths(chain, (), capacity, seed)
        tiled += sum(value < without.get(key, np.inf) for key, value in found.items())
        assert all(value <= without[key] for key, value in found.items() if key in without)
    return tiled


def test_plans_equal_brute_force_on_random_graphs_and_capacities() -> None:
    assert compare_plans(range(40)) > 20


@pytest.mark.slow
def test_plans_equal_brute_force_on_many_random_graphs_and_capacities() -> None:
    assert compare_plans(range(40, 1260)) > 600


# ---- the costs: the kernel against every piece costed by itself ----


def workload(*tables: OperationTable) -> Workload:
    return Workload(name="x", family="imported", phases=tuple(WorkloadPhase(f"p{i}", table) for i, table in enumerate(tables)))


def random_table(seed: int) -> OperationTable:
    """A run of products, convolutions, norms and sums of which most read the one before; or attention's products over heads."""
    rng = np.random.default_rng([31, seed])
    loop = int(rng.choice([1, 1, 2]))
    made: list[Operation] = []
    if seed % 3 == 0:
        side, channels = int(rng.integers(4, 9)), int(rng.choice([4, 8]))
        for i in range(int(rng.integers(2, 5))):
            taps, wide = int(rng.choice([1, 3])), int(rng.choice([4, 12]))
            stride = 2 if taps == 3 and side > 5 and rng.random() < 0.3 else 1
            deep = taps == 3 and rng.random() < 0.7
            after, k = -(-side // stride), (1 if deep else channels) * taps**2
            out, groups = (1, channels) if deep else (wide, 1)
            made.append(
                Operation(
                    f"r{i}", Kind.CONV, after**2, out, k, groups=groups, second_is_weight=True, parameters=k * out * groups, repeat=loop,
                    input_elements=side**2 * channels, reads=f"r{i - 1}" if i else "-",
                    **filter_fields([side, side], [taps, taps], [stride, stride]),
                )
            )  # fmt: skip
            side, channels = after, out * groups
            if rng.random() < 0.3:
                made.append(Operation(f"a{i}", Kind.ACTIVATION, side**2 * channels, 1, function="relu", repeat=loop, reads=f"r{i}"))
                made[-1] = replace(made[-1], name=f"r{i}x")
        names = [op.name for op in made]
        return OperationTable.from_rows([replace(op, reads=names[n - 1] if n and op.reads != "-" else "-") for n, op in enumerate(made)])
    rows, width, heads = int(rng.integers(9, 40)), int(rng.choice([16, 24])), 2

    def product(name: str, reads: str, n: int, k: int) -> None:
        made.append(Operation(name, Kind.GEMM, rows, n, k, second_is_weight=True, parameters=n * k, reads=reads, repeat=loop))

    if seed % 3 == 1:
        product("in", "-", width, 16)
        for name in "vkq":
            product(name, "in", width, width)
        made.append(Operation("s", Kind.GEMM, rows, rows, width // heads, batch=heads, reads="q k", repeat=loop))
        made.append(Operation("p", Kind.SOFTMAX, rows, rows, batch=heads, function="softmax", reads="s", repeat=loop))
        made.append(Operation("c", Kind.GEMM, rows, width // heads, rows, batch=heads, reads="p v", repeat=loop))
        product("o", "c", width, width)
        made.append(Operation("sum", Kind.ELEMENTWISE, rows, width, function="add", operands=2, reads="o in", repeat=loop))
        return OperationTable.from_rows(made)
    for i in range(int(rng.integers(2, 5))):
        wide = int(rng.choice([16, 40, 72]))
        product(f"r{i}", made[-1].name if made else "-", wide, width)
        width = wide
        if rng.random() < 0.5:
            made.append(
                Operation(
                    f"a{i}", Kind.ACTIVATION, rows, width, function="gelu", reads=made[-1].name, repeat=loop,
                )
            )  # fmt: skip
        if rng.random() < 0.3:
            made.append(
                Operation(
                    f"n{i}", Kind.NORM, rows, width, function="layernorm", parameters=2 * width, reads=made[-1].name, repeat=loop,
                )
            )  # fmt: skip
    return OperationTable.from_rows(made)


Sum = tuple[float, float, float, float]


def by_reference(table: OperationTable, hardware: Any, criterion: Any, pinned: int | None) -> tuple[list[Sum], int]:
    """Value, tie-break, latency and energy of the best way on each design, and how often it has a group: every variant costed piece by
    piece, one run of a segment after the other.
    """
    machine = Machine(hardware, criterion, 1)
    nowhere = (np.inf,) * 4
    states: list[dict[int, tuple[Sum, int]]] = [{0: ((0.0,) * 4, 0)} for _ in range(len(hardware))]
    for segment in segments(table):
        chain = chain_of(table, segment, epilogues=True)
        groups = groups_of(chain, table)
        edges = edges_of(chain, most_bits=int(machine.capacity_bits.max()), groups=groups.every)
        part = Part(table, segment, chain, edges, 0, 1.0, groups.table)
        costs: list[list[Sum]] = []
        for v in edges.variants:
            how = condition_of(part, v, pinned)
            if how is None:
                costs.append([(0.0,) * 4] * len(hardware))
                continue
            if isinstance(how, Tiled):
                assert groups.table is not None
                pieces = [(p.times, step_costs(groups.table, p.step, [c], machine)) for p, c in how.pieces]
            else:
                pieces = [(1, step_costs(table, chain.steps[v.step], [how], machine))]
            costs.append([])
            for p in range(len(hardware)):
                total: Sum = (0.0,) * 4
                for times, found in pieces:
                    t, e = float(found.latency_s[0, p]), float(found.energy_j[0, p])
                    fits = how.held_bits <= machine.capacity_bits[p] and np.isfinite(t)
                    pair = {"edp": ((e * t) ** 0.5, e), "energy": (e, t), "latency": (t, e)}[criterion] if fits else (np.inf, np.inf)
                    more = (*pair, t, e)
                    total = (total[0] + times * more[0], total[1] + times * more[1], total[2] + times * t, total[3] + times * e)
                costs[-1].append(total)
        places = [0 if not s else s[0][1] for s in edges.states[0]]
        ends = [0 if not s else s[0][1] for s in edges.states[-1]]
        for p in range(len(hardware)):
            now = states[p]
            for run in range(segment.repeat):
                if not (segment.enters if run == 0 else segment.loops):
                    now = {0: min(now.get(0, (nowhere, 0)), now.get(2, (nowhere, 0)))}
                layer = {i: now[place] for i, place in enumerate(places) if place in now}
                for row in edges.layers:
                    after: dict[int, tuple[Sum, int]] = {}
                    for a, b, n in row:
                        if a in layer:
                            (w, x, y, z), one = layer[a][0], costs[n][p]
                            sums = (w + one[0], x + one[1], y + one[2], z + one[3])
                            after[b] = min(after.get(b, (nowhere, 0)), (sums, layer[a][1] + (edges.variants[n].group >= 0)))
                    layer = after
                now = {}
                for i, reached in layer.items():
                    now[ends[i]] = min(now.get(ends[i], (nowhere, 0)), reached)
            states[p] = now
    best = [min(now.get(0, (nowhere, 0)), now.get(2, (nowhere, 0))) for now in states]
    return [sums for sums, _ in best], sum(count for _, count in best)


def compare_tables(seeds: range) -> tuple[int, int]:
    """Sums compared, and groups on the best ways."""
    checked = tiled = 0
    for seed in seeds:
        rng = np.random.default_rng([37, seed])
        hardware = designs(2, seed=seed)
        levels = hardware.level_bytes.copy()
        levels[:, -2] = np.sort(rng.integers(700, 6000, size=2))
        levels[:, 0] = rng.choice([512, 2048])
        hardware = replace(hardware, level_bytes=levels, level_shared_bus=(False, seed % 4 == 1, seed % 2 == 1))
        criterion: Any = ("edp", "energy", "latency")[seed // 3 % 3]
        table = random_table(seed)
        found = Solver([Phase.of(table, 1.0)], Machine(hardware, criterion, 1), "tiles").totals()
        ways = [by_reference(table, hardware, criterion, None)]
        ways.append(by_reference(table, hardware, criterion, int((pinned_bits(table) * table.repeat).sum())))
        tiled += sum(count for _, count in ways)
        for p in range(2):
            wanted = min(sums[p] for sums, _ in ways)
            if not np.isfinite(wanted[0]):
                assert not np.isfinite(found.latency_s[0, p])
                continue
            assert np.isclose(found.latency_s[0, p], wanted[2], rtol=1e-9), (seed, p)  # the same terms in another order
            assert np.isclose(found.energy_j[0, p], wanted[3], rtol=1e-9), (seed, p)
            checked += 1
    return checked, tiled


def test_the_kernel_equals_pieces_costed_one_by_one() -> None:
    checked, tiled = compare_tables(range(6))
    assert checked > 6
    assert tiled > 2


@pytest.mark.slow
def test_the_kernel_equals_pieces_costed_one_by_one_on_many_tables() -> None:
    checked, tiled = compare_tables(range(6, 66))
    assert checked > 60
    assert tiled > 50


# ---- the rules ----


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_rows_that_a_convolution_keeps_hold_all_that_its_windows_need(size: int, stride: int) -> None:
    """Walked over maps: the step before makes whole tiles as late as it may; what it has made and a later window reads is never more
    than is held.
    """
    for height, width, rows in itertools.product((9, 14), (8, 11, 16), (8, 16)):
        pad = size // 2
        high, wide = -(-height // stride), -(-width // stride)
        fields = filter_fields([height, width], [size, size], [stride, stride])
        made = Operation(
            "b", Kind.CONV, high * wide, 1, size**2, groups=4, second_is_weight=True, parameters=4 * size**2, reads="a",
            input_elements=height * width * 4, **fields,
        )  # fmt: skip
        first = Operation("a", Kind.GEMM, height * width, 4, 4, second_is_weight=True, parameters=16, reads="-")
        table = OperationTable.from_rows([first, made])
        chain = chain_of(table, segments(table)[0], epilogues=True)
        group = next(g for g in groups_of(chain, table).every if g.size == rows and g.last == 1)
        tile = min(rows * stride**2, height * width)
        reads = []
        for y, x in itertools.product(range(high), range(wide)):
            ys = [v for v in range(y * stride - pad, y * stride - pad + size) if 0 <= v < height]
            xs = [v for v in range(x * stride - pad, x * stride - pad + size) if 0 <= v < width]
            reads.append([v * width + u for v in ys for u in xs])
        most = there = 0
        for begin in range(0, len(reads), rows):
            need = max(max(window) for window in reads[begin : begin + rows]) + 1
            there = max(there, min(-(-need // tile) * tile, height * width))
            oldest = min(min(window) for window in reads[begin:])
            most = max(most, there - oldest)
        assert most * 4 * 8 <= group.held_bits, (height, width, rows)


def test_pieces_are_the_whole_of_each_step() -> None:
    """Rows, columns, parameters and multiply-adds of the tiles of a step add up to its own: nothing is made twice or left out."""
    seen = set()
    for seed in range(30):
        table = random_table(seed)
        for segment in segments(table):
            chain = chain_of(table, segment, epilogues=True)
            groups = groups_of(chain, table)
            for group in groups.every:
                assert groups.table is not None
                seen.add(group.form)
                for i in range(group.first, group.last + 1):
                    step = chain.steps[i]
                    pieces = [p for p in group.pieces if p.member == i]
                    macs = groups.table.row_macs()
                    assert sum(p.times * macs[p.step.row] for p in pieces) == (table.row_macs() // table.repeat)[step.row]
                    if group.form == "rows" or i == group.first:
                        assert sum(p.times * p.step.bits for p in pieces) == step.bits
                    elements = groups.table.row_output_elements()
                    work = sum(p.times * elements[r] for p in pieces for r in p.step.epilogue)
                    sums = step.bits // 8 * (group.count - 1) if group.form == "width" and i == group.last else 0
                    assert work == sums + sum(table.row_output_elements()[r] for r in step.epilogue)
                    own = sum(p.own_bits * p.times for p in pieces)
                    assert own == (table.row_second_elements()[step.row] * 8 if group.holds and step.pins else 0)
    assert seen == {"rows", "width"}


def block(kib: int) -> Any:
    design = read_document(
        {
            "name": "block", "cores": 1, "frequency_hz": 1e9, "node_nm": 22.0, "voltage_v": 0.8,
            "array": {"rows": 16, "columns": 16, "kind": "dot_product", "dataflow": "any", "register_bytes": 32}, "vector": {"lanes": 16},
            "levels": [
                {"name": "buffer", "kib": kib, "words_per_cycle": 64, "double_buffered": False},
                {"name": "dram", "kind": "lpddr4", "gib": 1, "words_per_cycle": 16},
            ],
        },
        where=__file__,
    )  # fmt: skip
    assert isinstance(design, Accelerator)
    return design.batch()


def inverted() -> OperationTable:
    def conv(name: str, inputs: int, outputs: int, taps: int, groups: int, reads: str) -> Operation:
        k = inputs // groups * taps**2
        return Operation(
            name, Kind.CONV, SIDE**2, outputs // groups, k, groups=groups, second_is_weight=True, parameters=k * outputs, reads=reads,
            input_elements=SIDE**2 * inputs, **filter_fields([SIDE, SIDE], [taps, taps], [1, 1]),
        )  # fmt: skip

    middle = conv("depthwise", WIDE, WIDE, 3, WIDE, "expand")
    return OperationTable.from_rows([conv("expand", CHANNELS, WIDE, 1, 1, "-"), middle, conv("project", WIDE, CHANNELS, 1, 1, "depthwise")])


def feed_forward() -> OperationTable:
    up = Operation("up", Kind.GEMM, 128, 512, 128, second_is_weight=True, parameters=2**16, reads="-")
    return OperationTable.from_rows([up, replace(up, name="down", n=128, k=512, reads="up")])


def never_fits() -> OperationTable:
    """Parameters that keep those of a block from staying over requests."""
    return OperationTable.from_rows([Operation("beside", Kind.GEMM, 1, 4096, 4096, second_is_weight=True, parameters=4096**2)])


@pytest.mark.parametrize(("table", "kib", "form"), [(inverted(), 32, "rows"), (feed_forward(), 64, "width")])
def test_a_block_whose_tensors_do_not_fit_moves_what_it_must_alone(table: OperationTable, kib: int, form: str) -> None:
    """What goes in, all weights and what comes out, once each."""
    whole = workload(table, never_fits())
    whole = replace(whole, phases=(whole.phases[0], replace(whole.phases[1], runs=0.0)))
    told = report(whole, block(kib), point=0, level="tiles", criterion="energy")
    less = report(whole, block(kib), point=0, level="weights", criterion="energy")
    steps = told["steps"][:-1]
    assert {s["tiles"]["form"] for s in steps} == {form}
    assert [s["result"] for s in steps[:-1]] == [BY_TILES] * (len(steps) - 1)
    weights = int(table.row_second_elements().sum())
    enters, leaves = int(table.row_input_elements()[0]), int(table.row_output_elements()[-1])
    assert told["dram_bytes"] == weights + enters + leaves
    causes = told["dram_bytes_by_cause"]
    assert causes["weights"] == weights
    assert causes["inputs"] + causes["loads"] == enters
    assert causes["outputs"] + causes["stores"] == leaves
    assert less["dram_bytes"] > 1.5 * told["dram_bytes"]
    assert all(s["held_bytes"] <= told["capacity_bytes"] for s in steps)


def test_rows_of_a_result_take_the_place_of_those_it_is_made_from() -> None:
    """Narrow products, one after the other: of 32 KiB each, two tensors fit 36 KiB only with rows of one in place of the other's."""
    made = [Operation("p0", Kind.ELEMENTWISE, 1024, 32, function="scale", reads="-")]
    made += [Operation(f"p{i}", Kind.GEMM, 1024, 32, 32, second_is_weight=True, parameters=2**10, reads=f"p{i - 1}") for i in range(1, 6)]
    made.append(Operation("sum", Kind.ELEMENTWISE, 1024, 32, function="add", operands=2, reads="p5 p4"))
    made.append(replace(made[1], name="end", reads="sum"))
    whole = workload(OperationTable.from_rows(made), never_fits())
    whole = replace(whole, phases=(whole.phases[0], replace(whole.phases[1], runs=0.0)))
    told = report(whole, block(36), point=0, level="tiles", criterion="energy")
    apart = report(whole, block(36), point=0, level="weights", criterion="energy")["dram_bytes"]
    alone = [s for s in told["steps"] if len(s.get("tiles", {}).get("steps", ())) == 1]
    assert alone
    assert all(s["result"] == "chip" and 2**15 < s["held_bytes"] <= 36 * 2**10 for s in alone)
    assert told["dram_bytes"] < apart


def test_never_worse_than_whole_tensors_and_monotone_in_capacity() -> None:
    """By the criterion, here the energy, which adds; energies of a word stay: capacity alone changes."""
    hardware = designs(2, seed=9)
    last = hardware.level_bytes.copy()
    for whole in (workload(inverted()), library.load("bert-tiny").build(layers=1)):
        before = np.full(2, np.inf)
        for size in (2**14, 2**15, 2**16, 2**17, 2**20):
            last[:, -2] = size
            here = replace(hardware, level_bytes=last.copy())
            less, more = (model_totals(whole, here, level=level, criterion="energy").energy_j[0] for level in ("weights", "tiles"))
            assert (more <= less * (1 + 1e-12)).all()
            assert (more <= before * (1 + 1e-12)).all()
            before = more


def test_a_batch_of_models_and_designs_equals_each_alone_and_its_report() -> None:
    family = library.load("bert")
    sizes = [(2, 64, 2, 128), (3, 64, 2, 128), (2, 96, 3, 256)]
    columns = (np.array(column) for column in zip(*sizes, strict=True))
    whole = family.build(sequence=32, **dict(zip(("layers", "hidden", "heads", "ffn"), columns, strict=True)))
    hardware = designs(2, seed=4)
    hardware = replace(hardware, level_bytes=hardware.level_bytes * np.array([1.0, 0.01, 1.0]))
    found = model_totals(whole, hardware, level="tiles")
    tiles = 0
    for model, chosen in enumerate(sizes):
        one = family.build(sequence=32, **dict(zip(("layers", "hidden", "heads", "ffn"), chosen, strict=True)))
        for point in range(2):
            alone = model_totals(one, hardware.take(np.array([point])), level="tiles")
            assert alone.energy_j[0, 0] == found.energy_j[model, point]
            assert alone.latency_s[0, 0] == found.latency_s[model, point]
            told = report(one, hardware, point=point, level="tiles")
            assert sum(s["energy_j"] for s in told["steps"]) == pytest.approx(alone.energy_j[0, 0], rel=1e-12)
            assert sum(s["latency_s"] for s in told["steps"]) == pytest.approx(alone.latency_s[0, 0], rel=1e-12)
            assert sum(told["dram_bytes_by_cause"].values()) == pytest.approx(told["dram_bytes"], rel=1e-12)
            assert sum(s["dram_bytes"] for s in told["steps"]) == pytest.approx(told["dram_bytes"], rel=1e-12)
            tiles += sum("tiles" in s for s in told["steps"])
    assert tiles > 0


def test_tiles_are_asked_for_and_nothing_is_read_ahead_beside_them() -> None:
    assert LEVELS[-1] == "tiles"
    with pytest.raises(HardwareError, match="leave prefetch out"):
        model_totals(workload(inverted()), block(64), level="tiles", prefetch=True)
