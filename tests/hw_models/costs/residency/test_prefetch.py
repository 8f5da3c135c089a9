"""Weights that are read during the operation before theirs: the rule against a simulation word by word, the kernel against the rule, what
a step leaves free against its mapping, and bounds that hold whatever is read when.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dse_kernels import mapping
from dse_kernels.residency import Slack, prefetched_s

from hw_models.costs import products
from hw_models.costs.residency import packing
from hw_models.costs.residency.models import model_totals, report
from hw_models.costs.residency.prefetch import bits_per_s, saved_s
from hw_models.costs.residency.solve import Solver
from hw_models.costs.residency.units import Machine, mask_of, step_costs
from hw_models.spaces import template
from workloads import library
from workloads.operation import Operation
from workloads.ops import PRODUCTS, Kind, OperationTable
from workloads.records import Phase, Workload

EDGE = template.load("edge22").as_published()


def designs(count: int, seed: int = 0) -> Any:
    grid = EDGE.grid()
    chosen = np.sort(np.random.default_rng(seed).choice(EDGE.size, count, replace=False))
    return EDGE.batch(**{name: column[chosen] for name, column in grid.items()})


# ---- the rule ----


def random_steps(seed: int) -> list[Slack]:
    """2 to 5 steps in whole ticks and words; the DRAM and the level move a word a tick."""
    rng = np.random.default_rng([3, seed])
    found = []
    for _ in range(int(rng.integers(2, 6))):
        other, reads = (int(v) for v in rng.integers(0, 9, size=2))
        latency = max(other, reads)
        weights = int(rng.integers(0, reads + 1))
        found.append(Slack(latency, other, reads, int(rng.integers(0, latency + 1)), weights, int(rng.integers(0, 7))))
    return found


def simulated(steps: list[Slack]) -> int:
    """Ticks of a chain whose bus and level take a word a tick, own words first; in a tick in which both are idle the bus fetches a word of
    the next step's weights, if that has room beside both steps and the next step, by itself, waits for the bus.
    """
    ticks, ahead = 0, 0
    for i, step in enumerate(steps):
        own, near, work, fetched = int(step.reads_s) - ahead, int(step.near_s), int(step.other_s), 0
        after = steps[i + 1] if i + 1 < len(steps) else None
        wanted = 0 if after is None else min(step.free_bits, after.free_bits, after.weight_bits, max(after.reads_s - after.other_s, 0))
        while own > 0 or work > 0:
            if own == 0 and near == 0 and fetched < wanted:
                fetched += 1
            own, near, work, ticks = max(own - 1, 0), max(near - 1, 0), max(work - 1, 0), ticks + 1
        ahead = fetched
    return ticks


def test_a_chain_takes_what_a_simulation_word_by_word_takes() -> None:
    shorter = 0
    for seed in range(2000):
        steps = random_steps(seed)
        saved = sum(prefetched_s(a, b, 1.0, 1.0) for a, b in itertools.pairwise(steps))
        assert sum(s.latency_s for s in steps) - saved == simulated(steps), seed
        shorter += saved > 0
    assert shorter > 300


def test_no_way_to_read_ahead_is_below_the_bounds_and_the_rule_is_one_of_them() -> None:
    """Every number of words that could be read ahead in each step, also for others than the next step's sake: none is below the sum of
    the work or the sum of the bus, and with the rule's own numbers the time is the rule's.
    """
    for seed in range(150):
        steps = random_steps(seed)[:4]
        pairs = list(itertools.pairwise(steps))
        most = [int(min(a.free_bits, b.free_bits, b.weight_bits)) for a, b in pairs]

        def time(read: tuple[int, ...], steps: list[Slack] = steps) -> float:
            moved = (0, *read, 0)
            return sum(max(s.other_s, s.reads_s - moved[i] + moved[i + 1]) for i, s in enumerate(steps))

        best = min(time(read) for read in itertools.product(*(range(m + 1) for m in most)))
        own = tuple(int(prefetched_s(a, b, 1.0, 1.0)) for a, b in pairs)
        assert time(own) == sum(s.latency_s for s in steps) - sum(own)
        assert max(sum(s.other_s for s in steps), sum(s.reads_s for s in steps)) <= best <= time(own)


def test_more_of_anything_that_is_free_never_saves_less() -> None:
    rng = np.random.default_rng(5)
    for seed in range(300):
        a, b = random_steps(seed)[:2]
        before = prefetched_s(a, b, 1.0, 1.0)
        more = float(rng.integers(1, 5))
        for x, y in (
            (a._replace(free_bits=a.free_bits + more), b),
            (a, b._replace(free_bits=b.free_bits + more)),
            (a, b._replace(weight_bits=b.weight_bits + more)),
            (a._replace(latency_s=a.latency_s + more), b),
            (a, b._replace(reads_s=b.reads_s + more)),
        ):
            assert prefetched_s(x, y, 1.0, 1.0) >= before
        assert 0.0 <= before <= min(a.latency_s, b.latency_s)
        assert prefetched_s(a, b._replace(weight_bits=0.0), 1.0, 1.0) == 0.0


# ---- what steps leave free ----


def solver(workload: Workload, hardware: Any, level: Any) -> Solver:
    phases = [packing.Phase.of(p.table, float(p.runs)) for p in workload.phases]
    return Solver(phases, Machine(hardware, "edp", 1), level, prefetch=True)


def test_the_slack_of_products_is_that_of_their_mappings() -> None:
    """On one core, where no share is larger than another: times of words and cycles of the mapping that the search finds, and room that it
    does without.
    """
    workload = library.load("bert").build(sequence=32, layers=2, fused_attention=False)
    hardware = designs(200, seed=2)
    hardware = hardware.take(np.flatnonzero(hardware.cores == 1)[:3])
    seen = 0
    for point in range(3):
        one = hardware.take(np.array([point]))
        machine = Machine(one, "edp", 1)
        for run in solver(workload, one, "activations").runs():
            table = run.part.table
            for step, condition, slack in zip(run.part.chain.steps, run.conditions, run.slack, strict=True):
                costs = step_costs(table, step, [condition], machine)
                assert slack.latency_s == pytest.approx(costs.latency_s[0, 0], rel=1e-12)
                assert max(slack.other_s, slack.reads_s) == slack.latency_s
                if int(table.kind[step.row]) not in PRODUCTS:
                    assert slack.weight_bits == 0.0
                    continue
                row = table.take([step.row])
                sizes, shared, bits, _ = products.product_shapes(row)
                found = mapping.search(
                    sizes, shared, machine.target, operand_bits=bits, criterion="edp", threads=1, return_words=True,
                    resident=np.array([mask_of(step, condition.resident, condition.keeps)]), held_bits=np.array([condition.held_bits]),
                )  # fmt: skip
                assert found.read_words is not None
                assert found.write_words is not None
                word, hz = float(one.word_bits[0]), float(one.frequency_hz[0])
                load, store = condition.loaded_bits / word, condition.keeps * condition.stores * step.bits / word
                last = one.levels - 1
                reads, writes = found.read_words[0, 0].copy(), found.write_words[0, 0].copy()
                reads[last], writes[last] = reads[last] + load, writes[last] + store
                reads[last - 1], writes[last - 1] = reads[last - 1] + store, writes[last - 1] + load
                read_s, write_s = (
                    words / rate[0] / hz
                    for words, rate in ((reads, one.level_read_words_per_cycle), (writes, one.level_write_words_per_cycle))
                )
                others = [float(found.compute_cycles[0, 0]) / hz, *read_s[:last], *write_s]
                assert slack.reads_s == pytest.approx(read_s[last], rel=1e-12)
                assert slack.other_s == pytest.approx(max(others), rel=1e-12)
                assert slack.near_s == pytest.approx(write_s[last - 1], rel=1e-12)
                batch, _, n, k = sizes[0].tolist()
                assert slack.weight_bits == (float(batch if not shared[0] else 1) * n * k * bits[0, 1] if step.pins else 0.0)
                # What is free is free: the same mapping is the best where that is held too.
                again = mapping.search(
                    sizes, shared, machine.target, operand_bits=bits, criterion="edp", threads=1,
                    resident=np.array([mask_of(step, condition.resident, condition.keeps)]),
                    held_bits=np.array([condition.held_bits + int(slack.free_bits)]),
                )  # fmt: skip
                assert again.cycles[0, 0] == found.cycles[0, 0]
                assert again.energy_pj[0, 0] == found.energy_pj[0, 0]
                seen += 1
    assert seen > 20


def test_where_weights_stay_none_are_read_ahead() -> None:
    workload = library.load("bert-tiny").build(sequence=64)
    hardware = designs(1, seed=3)
    hardware = replace(hardware, level_bytes=np.array([[65536, 8 << 20, 2**30]]))
    runs = solver(workload, hardware, "weights").runs()
    assert all(run.pinned for run in runs)
    assert all(slack.weight_bits == 0.0 for run in runs for slack in run.slack)


# ---- whole models ----


def slow_dram(count: int, seed: int) -> Any:
    """Designs whose DRAM gives a quarter of its words a cycle, so that much waits for it."""
    hardware = designs(count, seed)
    share = np.where(np.arange(hardware.levels) == hardware.levels - 1, 0.25, 1.0)
    return replace(
        hardware,
        level_read_words_per_cycle=hardware.level_read_words_per_cycle * share,
        level_write_words_per_cycle=hardware.level_write_words_per_cycle * share,
    )


@pytest.mark.parametrize(("name", "settings"), [("bert", {"sequence": 32, "layers": 4}), ("mobilenet-v2", {})])
@pytest.mark.parametrize("level", ["activations", "weights"])
def test_sums_are_those_of_the_steps_and_keep_the_bounds(name: str, settings: dict[str, int], level: Any) -> None:
    workload = library.load(name).build(**settings)
    hardware = slow_dram(6, seed=1)
    without = model_totals(workload, hardware, level=level)
    found = model_totals(workload, hardware, level=level, prefetch=True)
    assert (found.energy_j == without.energy_j).all()
    assert (found.pinned == without.pinned).all()
    assert (found.latency_s <= without.latency_s).all()
    assert (found.peak_w >= without.peak_w).all()  # the same energy of a step in less time
    assert (found.latency_s < without.latency_s * (1 - 1e-6)).any() or level == "weights"
    for point in range(len(hardware)):
        told = report(workload, hardware, point=point, level=level, prefetch=True)
        plain = report(workload, hardware, point=point, level=level)
        assert "prefetch" not in plain
        steps, before = told["steps"], plain["steps"]
        assert sum(s["latency_s"] for s in steps) == pytest.approx(found.latency_s[0, point], rel=1e-12)
        assert told["prefetch"]["saved_s"] == pytest.approx(without.latency_s[0, point] - found.latency_s[0, point], abs=1e-15)
        assert told["dram_bytes"] == plain["dram_bytes"]
        assert told["prefetch"]["bytes"] <= told["dram_bytes_by_cause"]["weights"] * (1 + 1e-12)
        for unit in ("array_s", "vector_s", "dram_s"):
            assert sum(s[unit] for s in steps) <= found.latency_s[0, point] * (1 + 1e-12), unit
            assert all(s[unit] <= b["latency_s"] * (1 + 1e-12) for s, b in zip(steps, before, strict=True))
        assert all(s["latency_s"] == b["latency_s"] - s["prefetch_saved_s"] for s, b in zip(steps, before, strict=True))


def product(name: str, m: int, n: int, k: int, repeat: int = 1) -> Operation:
    bits = {"input_bits": 8, "weight_bits": 8, "output_bits": 8}
    return Operation(name, Kind.GEMM, m, n, k, component="x", repeat=repeat, parameters=n * k, second_is_weight=True, reads="-", **bits)


def workload_of(rows: list[Operation], *more: list[Operation], runs: int = 1) -> Workload:
    """A workload of a phase that runs so often, and further ones that run once."""
    tables = [OperationTable.from_rows(own) for own in (rows, *more)]
    return Workload("w", "test", tuple(Phase(f"p{i}", table, 1 if i else runs) for i, table in enumerate(tables)))


@pytest.mark.parametrize("waits_first", [False, True])
def test_pairs_of_a_loop_count_as_often_as_they_run(waits_first: bool) -> None:
    """A pair inside as often as the loop runs, the last and the first once less: a product of many rows, which the array bounds, and one
    of a single row, which waits for its weights.
    """
    hardware = designs(3, seed=4)
    found = []
    for repeat in (1, 2, 7):
        rows = [product("many", 8192, 256, 512, repeat), product("one", 1, 2048, 512, repeat)]
        workload = workload_of(rows[::-1] if waits_first else rows)
        for point in range(3):
            one = hardware.take(np.array([point]))
            machine = Machine(one, "edp", 1)
            runs = solver(workload, one, "activations").runs()
            first, last = runs[0].slack
            dram, near = bits_per_s(machine)
            inside, around = prefetched_s(first, last, dram, near), prefetched_s(last, first, dram, near)
            assert (inside if waits_first else around) == 0.0
            expected = repeat * inside + (repeat - 1) * around
            found.append(expected)
            assert sum(map(sum, saved_s(runs, machine))) == pytest.approx(expected, rel=1e-12)
            plain, ahead = (model_totals(workload, one, level="activations", prefetch=on).latency_s[0, 0] for on in (False, True))
            assert plain - ahead == pytest.approx(expected, rel=1e-9, abs=1e-12 * plain)
    assert sum(saved > 0.0 for saved in found) >= 4


def test_nothing_is_read_ahead_from_one_phase_to_the_next() -> None:
    """A step before another phase's: its own phase runs again before it, or it has run to its end."""
    workload = workload_of([product("first", 4096, 256, 256)], [product("second", 1, 2048, 1024)], runs=3)
    hardware = slow_dram(1, seed=4)
    plain, ahead = (model_totals(workload, hardware, level="activations", prefetch=on).latency_s for on in (False, True))
    assert plain == ahead
    together = workload_of([product("first", 4096, 256, 256), product("second", 1, 2048, 1024, repeat=2)])
    plain, ahead = (model_totals(together, hardware, level="activations", prefetch=on).latency_s for on in (False, True))
    assert ahead < plain  # segments of one phase


def test_a_batch_of_models_and_designs_equals_each_alone() -> None:
    family = library.load("bert")
    knobs = {"layers": [2, 3, 2], "hidden": [128, 128, 192], "heads": [2, 2, 3], "ffn": [256, 256, 512]}
    workload = family.build(sequence=32, **{name: np.array(values) for name, values in knobs.items()})
    hardware = slow_dram(4, seed=4)
    whole = model_totals(workload, hardware, level="epilogue", prefetch=True)
    for model in range(3):
        one = family.build(sequence=32, **{name: values[model] for name, values in knobs.items()})
        for point in range(4):
            alone = model_totals(one, hardware.take(np.array([point])), level="epilogue", prefetch=True)
            for name in ("latency_s", "energy_j", "peak_w"):
                assert getattr(alone, name)[0, 0] == getattr(whole, name)[model, point]
