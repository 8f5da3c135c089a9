"""What stays on chip between operations: against a brute force of its own, against the costs without it, and its properties."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dse_kernels.residency import paths_reference

from hw_models.costs.evaluate import evaluate, unit_costs
from hw_models.costs.residency.models import model_totals, report
from hw_models.costs.residency.packing import Phase
from hw_models.costs.residency.solve import LEVELS, Solver
from hw_models.costs.residency.states import edges_of
from hw_models.costs.residency.steps import CARRIED, Chain, Operand, Step, chain_of
from hw_models.costs.residency.units import Condition, Machine, pinned_bits, step_costs
from hw_models.spaces import template
from workloads import library
from workloads.operation import Operation
from workloads.ops import Kind, OperationTable
from workloads.records import Workload
from workloads.tensors import Segment, segments

FloatArray = npt.NDArray[np.float64]
EDGE = template.load("edge22")


def designs(count: int, seed: int = 0) -> Any:
    grid = EDGE.grid()
    chosen = np.sort(np.random.default_rng(seed).choice(EDGE.size, count, replace=False))
    return EDGE.batch(**{name: column[chosen] for name, column in grid.items()})


# ---- the choices, with random costs ----


def random_chain(seed: int) -> tuple[Chain, int]:
    """A chain of 2 to 4 steps with random operands, sizes and results that must be stored, and a capacity in bits."""
    rng = np.random.default_rng([7, seed])
    count = int(rng.choice([2, 2, 2, 3, 3, 3, 3, 4])) if seed % 10 else 4
    carried = bool(rng.random() < (0.5 if count < 4 else 0.15))
    bits = {i: int(rng.integers(1, 6)) for i in range(count)}
    if carried:
        bits[CARRIED] = bits[count - 1] = int(rng.integers(1, 6))
    steps = []
    for i in range(count):
        known = [*([CARRIED] if carried else []), *range(i)]
        wanted = int(rng.integers(1 if carried and i == 0 else 0, 3)) if known else 0  # what comes in is read
        operands = [Operand(t, bits[t]) for t in rng.permutation(known)[:wanted].tolist()]
        if rng.random() < 0.3:
            operands.append(Operand(None, 3))
        steps.append(Step(i, (), tuple(operands), len(operands), i, bits[i], bool(rng.random() < 0.2)))
    last = dict.fromkeys(bits, -1)
    for i, step in enumerate(steps):
        last[step.tensor] = i
        for operand in step.operands:
            if operand.tensor is not None:
                last[operand.tensor] = i
    leaving = count - 1 if carried else None
    if leaving is not None:
        last[leaving] = count
    unread = {i: last[i] == i and i != leaving for i in range(count)}
    steps = [replace(step, stored=step.stored or unread[i]) for i, step in enumerate(steps)]
    segment = Segment(2 if carried else 1, [], bits.get(CARRIED, 0), enters=carried)
    return Chain(segment, tuple(steps), bits, last, leaving), int(rng.integers(2, 14))


def cost_of(seed: int, i: int, resident: tuple[bool, ...], keeps: bool, stores: bool, held: int, loaded: int) -> float:
    """The cost of a way to run step i: whole numbers at random, more for more words and never less for less room."""
    rng = np.random.default_rng([11, seed, i])
    streamed = rng.integers(1, 200, size=8)
    store, load, room = rng.integers(1, 300), rng.integers(1, 100), np.cumsum(rng.integers(0, 60, size=100))
    cost = sum(int(streamed[k]) for k, there in enumerate(resident) if not there)
    cost += int(store) * stores + int(load) * loaded + (int(room[held]) if sum(resident) % 2 else int(room[held]) // 2)
    return float(cost)


def by_force(chain: Chain, capacity: int, seed: int) -> dict[tuple[str, str], float]:
    """Least cost from each place of the entering tensor to each place of the leaving one, by trying every plan.

    A plan says of every tensor, for the time before each step from its making on, whether it is on chip; and of every result whether
    it is written to memory. It holds if a tensor that is on chip nowhere is in memory, if what comes onto the chip is loaded by a step
    that reads it, and if everything that is on chip while a step runs fits.
    """
    steps, n = chain.steps, len(chain.steps)
    begins = ["memory"] + (["chip", "both"] if CARRIED in chain.bits else [])
    tensors = sorted(chain.bits)
    best: dict[tuple[str, str], float] = {}
    spans = {}
    for t in tensors:
        first = 0 if t == CARRIED else t
        spans[t] = range(first, n)  # steps during which it may be on chip; at its own step if it is kept
    reads = {t: {i for i, s in enumerate(steps) if t in {o.tensor for o in s.operands}} for t in tensors}

    def sensible(t: int, plan: tuple[bool, ...]) -> bool:  # comes on chip when made, when it comes in, or where it is read; not dead
        times = list(spans[t])
        comes = [i for k, i in enumerate(times) if plan[k] and (k == 0 or not plan[k - 1])]
        return all(i == times[0] or i in reads[t] for i in comes) and not any(
            plan[k] and i > chain.last_use[t] for k, i in enumerate(times)
        )

    patterns = {t: [p for p in itertools.product((False, True), repeat=len(spans[t])) if sensible(t, p)] for t in tensors}
    for begin in begins:
        for chosen in itertools.product(*(patterns[t] for t in tensors)):
            on = {t: dict(zip(spans[t], c, strict=True)) for t, c in zip(tensors, chosen, strict=True)}
            for written in itertools.product(*((True,) if s.stored else (False, True) for s in steps)):
                got = _cost(chain, on, dict(enumerate(written)), begin, capacity, seed)
                for end, total in got:
                    best[begin, end] = min(best.get((begin, end), np.inf), total)
    return best


def _cost(
    chain: Chain, on: dict[int, dict[int, bool]], written: dict[int, bool], begin: str, capacity: int, seed: int
) -> list[tuple[str, float]]:
    steps = chain.steps
    total = 0.0
    for i, step in enumerate(steps):
        reads = {o.tensor for o in step.operands if o.tensor is not None}
        loaded = 0
        for t in chain.bits:
            if not on[t].get(i, False):
                continue
            if chain.last_use[t] < i or (chain.last_use[t] == i and t not in reads):
                return []  # dead, or kept though nothing reads it
            if t == i:
                continue
            before = on[t].get(i - 1, False) if i - 1 in on[t] else (t == CARRIED and i == 0 and begin in ("chip", "both"))
            if not before:
                if t not in reads:
                    return []
                in_memory = written[t] if t >= 0 else begin != "chip"
                if not in_memory:
                    return []
                loaded += chain.bits[t]
        for t in reads:
            if not on[t].get(i, False):
                in_memory = written[t] if t >= 0 else begin != "chip"
                if not in_memory:
                    return []
        keeps = on[i].get(i, False)
        if not keeps and not written[i]:
            return []
        held = sum(chain.bits[t] for t in chain.bits if on[t].get(i, False))
        if held > capacity:
            return []
        resident = tuple(o.tensor is not None and on[o.tensor].get(i, False) for o in step.operands)
        total += cost_of(seed, i, resident, keeps, written[i], held, loaded)
    if chain.leaving is None:
        return [("memory", total)]
    t = chain.leaving
    if on[t].get(len(steps) - 1, False):
        return [("both", total), ("memory", total)] if written[t] else [("chip", total)]
    return [("memory", total)]


def by_paths(chain: Chain, capacity: int, seed: int) -> dict[tuple[str, str], float]:
    edges = edges_of(chain, most_bits=capacity)
    bits = chain.bits
    costs = np.array(
        [
            [
                cost_of(seed, v.step, v.resident, v.keeps, v.stores, sum(bits[t] for t in v.held), sum(bits[t] for t in v.loaded))
                for v in edges.variants
            ]
        ]
    )
    ends = [0 if not s else s[0][1] for s in edges.states[-1]]
    best = paths_reference(edges.layers, [len(s) for s in edges.states], ends, 3, costs, np.zeros_like(costs))
    places = ("memory", "chip", "both")
    begins = ["memory" if not s else places[s[0][1]] for s in edges.states[0]]
    found = {}
    for a, begin in enumerate(begins):
        for b, end in enumerate(places):
            if np.isfinite(best[0, a, b, 0]):
                found[begin, end] = float(best[0, a, b, 0])
    for end in places:  # what is also in memory may be given up before it comes in
        least = min(found.get((begin, end), np.inf) for begin in ("both", "memory"))
        if "both" in begins and np.isfinite(least):
            found["both", end] = least
    return found


def compare(seeds: range) -> int:
    checked = 0
    for seed in seeds:
        chain, capacity = random_chain(seed)
        wanted, found = by_force(chain, capacity, seed), by_paths(chain, capacity, seed)
        begins = {begin for begin, _ in found}
        assert found == {key: value for key, value in wanted.items() if key[0] in begins}, seed
        checked += len(found)
    return checked


def test_paths_equal_brute_force_on_random_graphs_and_capacities() -> None:
    """The brute force knows plans of tensors, nothing of states and edges. Costs never fall with what is held, as those of mappings:
    the rules leave out what only then could pay.
    """
    assert compare(range(120)) > 120


@pytest.mark.slow
def test_paths_equal_brute_force_on_many_random_graphs_and_capacities() -> None:
    assert compare(range(120, 1320)) > 1200


# ---- costs of real steps ----


def totals(workload: Workload, hardware: Any, level: Any, criterion: Any = "edp") -> Any:
    phases = [Phase.of(p.table, float(p.runs)) for p in workload.phases]
    return Solver(phases, Machine(hardware, criterion, 1), level).totals()


Sum = tuple[float, float, float, float]


def by_reference(workload: Workload, hardware: Any, level: Any, criterion: Any) -> list[Sum]:
    """Value, tie-break, latency and energy of the best way on each design: every variant costed by the closed forms and the mapping
    search of `step_costs`, one run of a segment after the other.
    """
    found = [_by_reference(workload, hardware, level, criterion, 0)]
    bits = 0
    for phase in workload.phases:
        table = phase.table
        own = pinned_bits(table) * np.where(table.copies > 0, table.copies, table.repeat) * (table.repeat > 0)
        assert len(set(table.weight_id[own > 0].tolist()) - {""}) == np.count_nonzero(table.weight_id[own > 0] != "")  # none is shared
        bits += int(own.sum())
    if level == "weights" and bits:
        found.append(_by_reference(workload, hardware, level, criterion, bits))
    return [min(way[p] for way in found) for p in range(len(hardware))]


def _by_reference(workload: Workload, hardware: Any, level: Any, criterion: Any, pinned: int) -> list[Sum]:
    machine = Machine(hardware, criterion, 1)
    nowhere = (np.inf,) * 4
    states: list[dict[int, Sum]] = [{0: (0.0,) * 4} for _ in range(len(hardware))]
    for phase in workload.phases:
        for segment in segments(phase.table):
            chain = chain_of(phase.table, segment, epilogues=level != "activations")
            edges = edges_of(chain, most_bits=int(machine.capacity_bits.max()))
            conditions = [
                Condition(v.resident, v.keeps, v.stores, held + pinned, sum(chain.bits[t] for t in v.loaded), pinned > 0)
                for v, held in zip(edges.variants, edges.held_bits(chain.bits).tolist(), strict=True)
            ]
            latency, energy = (np.full((len(conditions), len(hardware)), np.inf) for _ in range(2))
            for i, step in enumerate(chain.steps):
                own = [n for n, v in enumerate(edges.variants) if v.step == i]
                costs = step_costs(phase.table, step, [conditions[n] for n in own], machine)
                latency[own], energy[own] = costs.latency_s, costs.energy_j
            places = [0 if not s else s[0][1] for s in edges.states[0]]
            ends = [0 if not s else s[0][1] for s in edges.states[-1]]
            for p in range(len(hardware)):
                costs_of = []
                for n, c in enumerate(conditions):
                    t, e = float(latency[n, p]), float(energy[n, p])
                    fits = c.held_bits <= machine.capacity_bits[p] and np.isfinite(t)
                    first, second = (
                        {"edp": ((e * t) ** 0.5, e), "energy": (e, t), "latency": (t, e)}[criterion] if fits else (np.inf, np.inf)
                    )
                    costs_of.append((first * phase.runs, second * phase.runs, t * phase.runs, e * phase.runs))
                now = states[p]
                for run in range(segment.repeat):
                    if not (segment.enters if run == 0 else segment.loops):
                        now = {0: min(now.get(0, nowhere), now.get(2, nowhere))}
                    layer = {i: now[place] for i, place in enumerate(places) if place in now}
                    for row in edges.layers:
                        after: dict[int, Sum] = {}
                        for a, b, v in row:
                            if a in layer:
                                total: Sum = tuple(x + y for x, y in zip(layer[a], costs_of[v], strict=True))  # type: ignore[assignment]
                                after[b] = min(after.get(b, nowhere), total)
                        layer = after
                    now = {}
                    for i, total in layer.items():
                        now[ends[i]] = min(now.get(ends[i], nowhere), total)
                states[p] = now
    return [min(now.get(0, nowhere), now.get(2, nowhere)) for now in states]


def same(workload: Workload, hardware: Any, level: Any, criterion: Any) -> int:
    """How many sums of the kernel were compared, by value and by what they are made of."""
    found = totals(workload, hardware, level, criterion)
    wanted = by_reference(workload, hardware, level, criterion)
    for p, (first, _, _, _) in enumerate(wanted):
        t, e = found.latency_s[0, p], found.energy_j[0, p]
        if criterion == "edp":  # the value is no function of the sums; those of one way with the least value are
            assert np.isfinite(first) == np.isfinite(t)
            alike = [w for w in (wanted[p],) if np.isfinite(first)]
            assert all(np.isclose(t, w[2], rtol=1e-9) and np.isclose(e, w[3], rtol=1e-9) for w in alike), (p, t, e, wanted[p])
        else:
            assert np.isclose({"energy": e, "latency": t}[criterion], first, rtol=1e-12), (p, t, e, wanted[p])
    return len(wanted)


def random_table(seed: int) -> Workload:
    """Two to six rows of products, sums, norms and activations that read each other at random, run once or in a loop."""
    rng = np.random.default_rng([13, seed])
    count, rows, loop = int(rng.integers(2, 7)), int(rng.integers(8, 40)), int(rng.choice([1, 1, 3]))
    widths = [int(rng.choice([16, 48]))]  # of what comes from memory, then of each row's result
    made = []
    for i in range(count):
        source = int(rng.integers(0, len(widths)))
        width = widths[source]
        alike = [j for j in range(1, len(widths)) if widths[j] == width and j != source]
        usual: dict[str, Any] = {"component": "x", "m": rows, "n": width, "repeat": loop, "reads": f"r{source - 1}" if source else "-"}
        kind = rng.choice(["gemm", "gemm", "norm", "act", "add"])
        if kind == "gemm":
            out = int(rng.choice([16, 48]))
            product = {"n": out, "k": width, "parameters": out * width, "second_is_weight": True}
            made.append(Operation(f"r{i}", Kind.GEMM, **(usual | product)))
            widths.append(out)
            continue
        if kind == "add" and alike and source:
            reads = f"{usual['reads']} r{alike[0] - 1}"
            made.append(Operation(f"r{i}", Kind.ELEMENTWISE, **(usual | {"function": "add", "operands": 2, "reads": reads})))
        elif kind == "norm":
            made.append(Operation(f"r{i}", Kind.NORM, function="layernorm", **usual))
        else:
            made.append(Operation(f"r{i}", Kind.ACTIVATION, function="gelu", **usual))
        widths.append(width)
    return one_phase(made)


def wide_table(seed: int) -> Workload:
    """Two phases of segments that run a different number of times, with what random tables lack: attention of heads that share keys, sums
    and scalings with parameters in epilogues, results that two rows read, and ones that a segment hands on or begins with.
    """
    rng = np.random.default_rng([19, seed])
    phases = []
    for _ in range(2):
        m, heads, head = int(rng.integers(8, 40)), int(rng.choice([2, 4])), int(rng.choice([8, 12]))
        share, width = int(rng.choice([1, 2])), heads * head
        made: list[Operation] = []

        def row(name: str, kind: Kind, reads: str, repeat: int, *, m: int = m, made: list[Operation] = made, **more: Any) -> None:
            made.append(Operation(name, kind, component="x", m=m, repeat=repeat, reads=reads, **more))

        def product(name: str, reads: str, repeat: int, n: int, k: int, **more: Any) -> None:
            row(name, Kind.GEMM, reads, repeat, n=n, k=k, parameters=n * k, second_is_weight=True, **more)

        product("in", "-", 1, width, 16)
        times = int(rng.choice([1, 3]))
        product("q", "in" if times == 1 else "in end", times, width, width)
        if times > 1:
            made[-1] = replace(made[-1], reads="")  # what comes before the loop, and what its last run made
        product("k", "q", times, width // share, width)
        product("v", "q", times, width // share, width, output_bits=int(rng.choice([8, 16])))
        row("a", Kind.ATTENTION_PREFILL, "q k v", times, n=m, k=head, batch=heads, v_dim=head, kv_share=share, function="softmax",
            causal=bool(rng.random() < 0.5))  # fmt: skip
        product("o", "a", times, width, width)
        if rng.random() < 0.7:
            row("bias", Kind.ELEMENTWISE, "o", times, n=width, function="add", operands=1, parameters=width)
        row("sum", Kind.ELEMENTWISE, f"{made[-1].name} {rng.choice(['q', '-'])}", times, n=width, function="add", operands=2)
        row("norm", Kind.NORM, "sum", times, n=width, function="layernorm", parameters=2 * width)
        product("end", "norm", times, width, width)
        product("out", "" if times > 1 else "end", 1, 24, width)
        phases.append((OperationTable.from_rows(made), float(rng.choice([1.0, 4.0]))))
    base = library.load("bert-tiny").build()
    return replace(base, phases=tuple(replace(base.phases[0], table=table, runs=runs) for table, runs in phases))


def one_phase(rows: list[Operation]) -> Workload:
    base = library.load("bert-tiny").build()
    return replace(base, phases=(replace(base.phases[0], table=OperationTable.from_rows(rows)),))


def compare_tables(seeds: range, table: Callable[[int], Workload] = random_table) -> int:
    checked = 0
    for seed in seeds:
        rng = np.random.default_rng([17, seed])
        hardware = designs(3, seed=seed)
        capacities = np.sort(rng.integers(600, 9000, size=3))
        levels = hardware.level_bytes.copy()
        levels[:, -2] = capacities
        levels[:, 0] = rng.choice([512, 2048])
        criterion = ("edp", "energy", "latency")[seed % 3]
        level = LEVELS[1 + seed % 3]
        buses = (False, seed % 4 == 1, seed % 2 == 1)
        checked += same(table(seed), replace(hardware, level_bytes=levels, level_shared_bus=buses), level, criterion)
    return checked


def test_the_kernel_equals_the_reference_on_random_tables_and_capacities() -> None:
    """Small levels, so that most of the rooms are too narrow for something."""
    assert compare_tables(range(60)) == 180


def test_the_kernel_equals_the_reference_on_tables_with_attention_in_phases_and_loops() -> None:
    assert compare_tables(range(4), wide_table) == 12


@pytest.mark.slow
def test_the_kernel_equals_the_reference_on_many_random_tables_and_capacities() -> None:
    assert compare_tables(range(60, 1100)) == 3120


@pytest.mark.parametrize("name", ["bert-tiny", "gpt2"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shared_bus", [False, True])
def test_with_nothing_resident_every_step_costs_what_it_costs_alone(name: str, fused: bool, shared_bus: bool) -> None:
    settings = {"phase": "prefill", "sequence": 64} if name == "gpt2" else {}
    workload = library.load(name).build(fused_attention=fused, **settings)
    hardware = replace(designs(12, seed=2), level_shared_bus=(False, False, shared_bus))
    alone = evaluate(hardware, workload)
    assert alone.rows is not None
    machine = Machine(hardware, "edp", 1)
    table = workload.phases[0].table
    for segment in segments(table):
        chain = chain_of(table, segment, epilogues=False)
        for step in chain.steps:
            condition = Condition((False,) * len(step.operands), False, True, 0, 0)
            found = step_costs(table, step, [condition], machine)
            runs = alone.rows.runs[step.row]
            # 1e-12: the same terms summed in another order
            assert np.allclose(found.latency_s[0] * runs, alone.rows.latency_s[step.row], rtol=1e-12), step
            assert np.allclose(found.energy_j[0] * runs, alone.rows.energy_j[step.row], rtol=1e-12), step
            moved = found.words[0].sum(axis=-1) * hardware.word_bits / 8 * runs
            assert np.allclose(moved, alone.rows.dram_bytes[step.row], rtol=1e-12), step
            unit = unit_costs(table.take([step.row]), hardware)
            for busy in ("array_s", "vector_s", "dram_s"):
                assert np.allclose(getattr(found, busy)[0], getattr(unit, busy)[0], rtol=1e-12), (step, busy)


@pytest.mark.parametrize("criterion", ["edp", "energy", "latency"])
@pytest.mark.parametrize("name", ["bert-tiny", "gpt2"])
def test_the_kernel_equals_the_reference_on_models(name: str, criterion: Any) -> None:
    settings = (
        {"phase": "prefill", "sequence": 32, "fused_attention": True} if name == "gpt2" else {"sequence": 64, "hidden": 64, "heads": 1}
    )
    workload = library.load(name).build(**settings)
    hardware = replace(designs(3, seed=5), level_bytes=np.tile([[65536, 40000, 2**30]], (3, 1)))
    assert same(workload, hardware, "epilogue", criterion) == 3


def test_never_worse_than_less_residency_and_monotone_in_capacity() -> None:
    """By the criterion: of a whole model here the energy, which adds, so that nothing is left to how values are made."""
    workload = library.load("bert-tiny").build()
    hardware = designs(4, seed=9)
    last = hardware.level_bytes.copy()
    before: FloatArray | None = None
    for size in (2**16, 2**18, 2**21):
        last[:, -2] = size
        here = replace(hardware, level_bytes=last.copy())  # energies of a word stay: capacity alone changes
        none = evaluate(here, workload, criterion="energy").dynamic_j
        costs = [none] + [model_totals(workload, here, level=level, criterion="energy").energy_j[0] for level in LEVELS[1:]]
        for less, more in itertools.pairwise(costs):
            assert (more <= less * (1 + 1e-12)).all()
        if before is not None:
            assert (costs[-1] <= before * (1 + 1e-12)).all()
        before = costs[-1]


def test_a_batch_of_models_and_designs_equals_each_alone() -> None:
    family = library.load("bert")
    workload = family.build(
        layers=np.array([2, 3, 2]), hidden=np.array([128, 128, 192]), heads=np.array([2, 2, 3]), ffn=np.array([256, 256, 512])
    )
    hardware = designs(5, seed=4)
    whole = model_totals(workload, hardware, level="weights")
    for model, sizes in enumerate([(2, 128, 2, 256), (3, 128, 2, 256), (2, 192, 3, 512)]):
        one = family.build(**dict(zip(("layers", "hidden", "heads", "ffn"), sizes, strict=True)))
        for point in range(5):
            alone = model_totals(one, hardware.take(np.array([point])), level="weights")
            assert alone.energy_j[0, 0] == whole.energy_j[model, point]
            assert alone.latency_s[0, 0] == whole.latency_s[model, point]


@pytest.mark.parametrize("name", ["bert-tiny", "vit-b16"])
def test_every_byte_of_the_dram_has_a_cause_and_the_steps_are_the_totals(name: str) -> None:
    workload = library.load(name).build()
    hardware = designs(4, seed=1)
    totals = model_totals(workload, hardware, level="weights")
    for point in range(4):
        told = report(workload, hardware, point=point, level="weights")
        assert sum(told["dram_bytes_by_cause"].values()) == pytest.approx(told["dram_bytes"], rel=1e-12)
        assert sum(s["dram_bytes"] for s in told["steps"]) == pytest.approx(told["dram_bytes"], rel=1e-12)
        assert sum(s["energy_j"] for s in told["steps"]) == pytest.approx(totals.energy_j[0, point], rel=1e-12)
        assert sum(s["latency_s"] for s in told["steps"]) == pytest.approx(totals.latency_s[0, point], rel=1e-12)
        assert told["weights_on_chip"] == totals.pinned[0, point]


@pytest.mark.parametrize("level", ["activations", "weights"])
def test_a_report_names_the_operands_of_products_that_do_not_pass_the_dram(level: Any) -> None:
    """What is named moves no word: the words of each operand by its sizes, where the row reads it once."""
    workload = library.load("bert-tiny").build(fused_attention=False)
    table = workload.phases[0].table
    hardware = designs(4, seed=1)
    seen: set[str] = set()
    for point in range(4):
        told = report(workload, hardware, point=point, level=level)
        for step in told["steps"]:
            row, named = table.take([step["row"]]), step["operands_on_chip"]
            seen |= set(named)
            if int(row.kind[0]) != Kind.GEMM:
                assert named == []
                continue
            bits = {
                "inputs": float((row.row_input_elements() * row.input_bits)[0]),
                "weights": float((row.row_second_elements() * row.weight_bits)[0]),
                "outputs": float((row.row_output_elements() * row.output_bits)[0]),
            }
            assert ("outputs" in named) == (step["result"] != "DRAM")
            if bool(row.second_is_weight[0]):
                assert ("weights" in named) == told["weights_on_chip"]
            least = sum(size for name, size in bits.items() if name not in named) / 8.0
            assert step["dram_bytes"] >= step["runs"] * least * (1 - 1e-12)
            if len(named) == 3 and not step["epilogue"] and step["result"] == "chip":
                assert step["dram_bytes"] == 0.0
    assert seen == {"inputs", "weights", "outputs"}


def test_a_report_of_several_phases_names_rows_of_the_whole_workload() -> None:
    """Rows count through all phases; runs are those of the phase too; where results live adds up to how often they are made."""
    hardware = designs(2, seed=3)
    for seed in (0, 1):
        workload = wide_table(seed)
        names = [str(name) for phase in workload.phases for name in phase.table.name]
        runs = [float(r) * phase.runs for phase in workload.phases for r in phase.table.repeat]
        whole = model_totals(workload, hardware, level="weights")
        for point in range(2):
            told = report(workload, hardware, point=point, level="weights")
            made: dict[int, float] = {}
            for step in told["steps"]:
                assert step["name"] == names[step["row"]]
                made[step["row"]] = made.get(step["row"], 0.0) + step["runs"]
                unit = {"compute": "array", "vector": "vector", "dram": "dram"}.get(step["bound"])
                assert unit is None or step[f"{unit}_s"] == pytest.approx(step["latency_s"])
                assert step["held_bytes"] <= told["capacity_bytes"]
                assert (step["result"] == "DRAM") or step["held_bytes"] > 0
            assert all(count == pytest.approx(runs[row]) for row, count in made.items())
            assert sum(sum(t["places"].values()) for t in told["tensors"]) == pytest.approx(sum(made.values()))
            assert sum(s["latency_s"] for s in told["steps"]) == pytest.approx(whole.latency_s[0, point], rel=1e-9)
            assert sum(s["energy_j"] for s in told["steps"]) == pytest.approx(whole.energy_j[0, point], rel=1e-9)
            powers = [s["energy_j"] / s["latency_s"] for s in told["steps"] if s["latency_s"] > 0]
            assert whole.peak_w[0, point] == pytest.approx(max(powers), rel=1e-9)
