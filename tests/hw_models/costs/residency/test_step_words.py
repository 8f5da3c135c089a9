"""Words of single steps by their cause, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw_models.costs import vector
from hw_models.costs.attention import attention_parts
from hw_models.costs.residency.states import edges_of, form
from hw_models.costs.residency.steps import CARRIED, Chain, chain_of
from hw_models.costs.residency.units import CAUSES, Condition, Machine, pinned_bits, step_costs
from hw_models.spaces import template
from workloads.operation import Operation
from workloads.ops import Kind, OperationTable
from workloads.tensors import segments

EDGE = template.load("edge22")
BITS = {"input_bits": 8, "weight_bits": 8, "output_bits": 8}


def machine() -> Machine:
    """One core with words of 8 bits."""
    return Machine(EDGE.batch(cores=1, width=32, depth=16, l2_kib=128, l2_words_per_cycle=32, glb_mib=2), "edp", 1)


def words(
    rows: list[Operation], *, epilogues: bool, keeps: bool = False, stores: bool = True, pinned: bool = False
) -> list[dict[str, float]]:
    """Of each step with no operand on chip: words of the DRAM by cause."""
    table, target = OperationTable.from_rows(rows), machine()
    found = []
    for segment in segments(table):
        for step in chain_of(table, segment, epilogues=epilogues).steps:
            condition = Condition((False,) * len(step.operands), keeps, stores, 0, 0, pinned)
            moved = step_costs(table, step, [condition], target).words[0, 0]
            found.append({cause: float(w) for cause, w in zip(CAUSES, moved, strict=True) if w})
    return found


PRODUCT = Operation("p", Kind.GEMM, 3, 5, 7, component="x", parameters=35, second_is_weight=True, reads="-", **BITS)
SCALE = Operation(
    "s", Kind.ELEMENTWISE, 3, 5, function="mul", component="x", operands=1, parameters=5, reads="p", **BITS | {"weight_bits": 4}
)


def test_what_an_epilogue_reads_passes_the_dram_with_its_cause() -> None:
    """3 x 7 inputs, 35 weights and 3 x 5 results of a byte, a word each; the epilogue's 5 factors of 4 bits are 2.5 words of weights."""
    (alone,), (both,) = words([PRODUCT], epilogues=True), words([PRODUCT, SCALE], epilogues=True)
    assert alone == {"inputs": 21.0, "weights": 35.0, "outputs": 15.0}
    assert both == {**alone, "weights": 37.5}


def test_pinned_parameters_stay_and_a_result_that_stays_may_be_stored() -> None:
    assert words([PRODUCT, SCALE], epilogues=True, pinned=True) == [{"inputs": 21.0, "outputs": 15.0}]
    assert words([PRODUCT, SCALE], epilogues=True, keeps=True) == [{"inputs": 21.0, "weights": 37.5, "stores": 15.0}]


def test_vector_work_alone_reads_its_operand_and_its_parameters() -> None:
    assert words([PRODUCT, SCALE], epilogues=False)[1] == {"inputs": 15.0, "weights": 2.5, "outputs": 15.0}
    assert words([PRODUCT, SCALE], epilogues=False, keeps=True, stores=False)[1] == {"inputs": 15.0, "weights": 2.5}


@pytest.mark.parametrize(("keeps", "stores", "moved"), [(False, True, 4096), (True, True, 4096), (True, False, 128)])
def test_the_dram_is_busy_for_what_passes_it_one_way(keeps: bool, stores: bool, moved: int) -> None:
    """An outer product of 64 x 64: 128 bytes in, 4,096 out, both ways at once; what the wider way takes at the DRAM's rate."""
    rows = OperationTable.from_rows([replace(PRODUCT, m=64, n=64, k=1, parameters=64)])
    (step,) = chain_of(rows, segments(rows)[0], epilogues=True).steps
    target = machine()
    found = step_costs(rows, step, [Condition((False,) * len(step.operands), keeps, stores, 0, 0)], target)
    assert found.dram_s[0, 0] == pytest.approx(moved / float(target.hardware.dram_bytes_per_s[0]), rel=1e-12)


@pytest.mark.parametrize(("resident", "inputs"), [((), 3 * 128), ((1,), 2 * 128), ((2,), 2 * 128), ((1, 2), 128), ((0, 1, 2), 0)])
def test_attention_reads_what_is_not_on_chip(resident: tuple[int, ...], inputs: int) -> None:
    """One head of 16 queries and keys of 8 bytes: 128 bytes each of queries, keys and values, and as many of results."""
    row = Operation(
        "a", Kind.ATTENTION_PREFILL, 16, 16, 8, component="x", batch=1, v_dim=8, kv_share=1, function="softmax", reads="-", **BITS
    )
    rows = OperationTable.from_rows([row])
    (step,) = chain_of(rows, segments(rows)[0], epilogues=True).steps
    assert step.own_operands == 3 == len(step.operands)
    condition = Condition(tuple(i in resident for i in range(3)), False, True, 0, 0)
    moved = step_costs(rows, step, [condition], machine()).words[0, 0]
    found = {cause: float(w) for cause, w in zip(CAUSES, moved, strict=True) if w}
    assert found == {"outputs": 128.0} | ({"inputs": float(inputs)} if inputs else {})


def test_tables_behind_gathers_are_not_kept_with_the_weights() -> None:
    gather = Operation("g", Kind.GATHER, 4, 8, component="x", parameters=800, **BITS)
    assert pinned_bits(OperationTable.from_rows([PRODUCT, gather, SCALE])).tolist() == [35 * 8, 0, 5 * 4]


TWO = EDGE.batch(**{"cores": np.array([1, 2]), "width": np.array([32, 64]), "depth": np.array([16, 8]), "l2_kib": np.array([64, 128]),
                    "l2_words_per_cycle": np.array([32, 64]), "glb_mib": np.array([2, 4])})  # fmt: skip
ATTENTION = Operation("a", Kind.ATTENTION_PREFILL, 700, 1300, 48, component="x", batch=8, v_dim=64, kv_share=2, function="softmax",
                      reads="-", causal=True, **BITS)  # fmt: skip
NORM = Operation("n", Kind.NORM, 700, 999, function="layernorm", component="x", parameters=1998, reads="-", **BITS)
LARGE = Operation("p", Kind.GEMM, 700, 500, 300, component="x", parameters=150_000, second_is_weight=True, reads="-", **BITS)


@pytest.mark.parametrize("row", [ATTENTION, NORM, LARGE, PRODUCT], ids=lambda row: row.name)
def test_what_bounds_a_step_is_busy_all_its_time(row: Operation) -> None:
    """On two designs under several conditions: the bound that is named takes the latency, everything else no more; energy is that of the
    words and of what has none; bytes of the DRAM are the words by cause."""
    table = OperationTable.from_rows([row])
    (step,) = chain_of(table, segments(table)[0], epilogues=True).steps
    target = Machine(TWO, "edp", 1)
    count = len(step.operands)
    every = [Condition((there,) * count, *others) for there, *others in (
        (False, False, True, 0, 0, False), (True, False, True, 90_000, 0, False), (False, True, False, 40_000, 8_000, True),
        (True, True, True, 1_000_000, 800_000, False))]  # fmt: skip
    found = step_costs(table, step, every, target)
    names = ("compute", *TWO.level_names, "vector")
    for c in range(len(every)):
        for p in range(2):
            busy = {"compute": found.array_s[c, p], "vector": found.vector_s[c, p], TWO.level_names[-1]: found.dram_s[c, p]}
            assert all(time <= found.latency_s[c, p] * (1 + 1e-12) for time in busy.values())
            bound = names[found.bound[c, p]]
            assert bound not in busy or busy[bound] == pytest.approx(found.latency_s[c, p], rel=1e-12)
            alone = step_costs(table, step, [every[c]], Machine(TWO.take([p]), "edp", 1))
            for name in ("latency_s", "energy_j", "array_s", "vector_s", "dram_s", "bound"):
                assert getattr(alone, name)[0, 0] == pytest.approx(getattr(found, name)[c, p], rel=1e-12)
            assert alone.words[0, 0].tolist() == pytest.approx(found.words[c, p].tolist(), rel=1e-12)


# Rows that no innermost level holds, that the smaller just holds, and that the level of what stays holds only where it is empty.
LONG = [replace(NORM, name=f"n{n}", m=3, n=n, parameters=2 * n) for n in (65_536, 65_537, 140_001)]


@pytest.mark.parametrize("row", [ATTENTION, NORM, *LONG], ids=lambda row: row.name)
def test_words_of_every_level_and_their_energy(row: Operation) -> None:
    """Vector work and attention outside the innermost level, in plain numbers: what is on chip is neither read from the DRAM nor written to
    the level that holds it, what stays is not written out, what is loaded whole passes once."""
    table = OperationTable.from_rows([row])
    (step,) = chain_of(table, segments(table)[0], epilogues=True).steps
    target, last = Machine(TWO, "edp", 1), TWO.levels - 1
    for resident, keeps, stores, held, loaded, pinned in (
        (False, False, True, 0, 0, False), (True, True, False, 900_000, 0, True), (False, True, True, 500_000, 64_000, False),
        (False, True, False, 16_000_000, 0, False), (True, False, True, 16_252_928, 0, False),
    ):  # fmt: skip
        condition = Condition((resident,) * len(step.operands), keeps, stores, held, loaded, pinned)
        found = step_costs(table, step, [condition], target)
        for p in range(2):
            word, rates = float(TWO.word_bits[p]), target.rates
            load, out = loaded / word, float((table.row_output_elements() * table.output_bits)[0]) / word
            stored = out if stores else 0.0
            first = float((table.row_input_elements() * table.input_bits)[0])
            second = float((table.row_second_elements() * table.weight_bits)[0])
            busy, energy = [], 0.0
            if row.kind == Kind.NORM:
                own = first + second - (second if pinned else 0.0) - (first if resident else 0.0)
                refills = float(vector.function(row.function).passes)
                for level in range(last + 1):
                    incoming = refills
                    room = float(rates[level].bits[0, p]) - (held if level == last - 1 else 0)
                    refills = 1.0 if room >= row.n * 8 else refills
                    read = (first + second) / word * incoming if level < last else own / word * incoming + load
                    write = out if level < last else stored
                    if level < last - 1:
                        read, write = read + out, write + (first + second) / word * refills
                    elif level == last - 1:
                        read, write = read + stored, write + own / word * refills + load
                    busy.append((read, write))
                assert found.array_s[0, p] == 0.0
            else:
                parts = attention_parts(table, TWO, "edp", 1)
                energy += float(parts.energy_pj[0, p])
                near = 0.0 if resident else 1.0
                for level in range(1, last + 1):
                    passes = float(parts.second_fetches(level, held if level == last else 0.0)[0, p])
                    if level == last:
                        read, write = (first + second * passes) / word * near + load, stored
                    elif level == last - 1:
                        read, write = (first + second * passes) / word + stored, out + (first + second) / word * near + load
                    else:
                        read, write = (first + second * passes) / word + out, out + (first + second) / word
                    busy.append((read, write))
            seconds = []
            for at, (read, write) in enumerate(busy, start=last + 1 - len(busy)):
                level = rates[at]
                energy += read * float(level.read_pj[0, p]) + write * float(level.write_pj[0, p])
                rate = max(read / float(level.read_words_per_cycle[0, p]), write / float(level.write_words_per_cycle[0, p]))
                seconds.append(rate / float(TWO.frequency_hz[p]))
            assert found.dram_s[0, p] == pytest.approx(seconds[-1], rel=1e-12)
            words_ = dict(zip(CAUSES, found.words[0, p].tolist(), strict=True))
            assert sum(words_.values()) == pytest.approx(busy[-1][0] + busy[-1][1], rel=1e-12)
            assert (words_["loads"], words_["stores"]) == (load, stored if keeps else 0.0)
            lanes = float(found.energy_j[0, p]) * 1e12 - energy
            cycles = lanes / float(vector.lane_pj(TWO.mac_pj)[p])
            work = vector.function(row.function)
            if row.kind == Kind.NORM:
                assert cycles == pytest.approx(row.m * row.n * work.element_cycles + row.m * work.row_cycles, rel=1e-6)
                assert found.latency_s[0, p] == pytest.approx(max(*seconds, found.vector_s[0, p]), rel=1e-12)
            else:
                assert cycles == pytest.approx(float(parts.vector_pj[0, p]) / float(vector.lane_pj(TWO.mac_pj)[p]), rel=1e-6)
                inner = [float(t[0, p]) for t in parts.inner_times]
                assert found.latency_s[0, p] == pytest.approx(max(*seconds, *inner, float(parts.vector_s[0, p])), rel=1e-12)


# ---- which vector work runs in an epilogue ----


def after(*operations: Operation, epilogues: bool = True) -> list[tuple[str, ...]]:
    """The rows of each step, by name."""
    table = OperationTable.from_rows(list(operations))
    return [
        tuple(str(table.name[r]) for r in step.rows)
        for segment in segments(table)
        for step in chain_of(table, segment, epilogues=epilogues).steps
    ]


def plain(name: str, kind: Kind, reads: str, **more: object) -> Operation:
    usual: dict[str, object] = {"m": 4, "n": 6, "component": "x", "reads": reads, **BITS}
    if kind == Kind.GEMM:
        usual |= {"k": 6, "parameters": 36, "second_is_weight": True}
    return Operation(name, kind, **(usual | more))  # type: ignore[arg-type]


GEMM, GELU, ADD = Kind.GEMM, Kind.ACTIVATION, Kind.ELEMENTWISE


@pytest.mark.parametrize(
    ("rows", "steps"),
    [
        ([plain("g", GELU, "p", function="gelu")], [("p", "g")]),
        ([plain("g", GELU, "p", function="gelu"), plain("s", ADD, "g -", function="add", operands=2)], [("p", "g", "s")]),
        ([plain("g", GELU, "-", function="gelu")], [("p",), ("g",)]),  # reads from memory alone
        (
            [plain("g", GELU, "p", function="gelu"), plain("h", GELU, "p", function="gelu")],
            [("p",), ("g",), ("h",)],
        ),  # two read the product
        ([plain("g", GELU, "p", function="gelu", output_bits=16)], [("p",), ("g",)]),  # another width
        ([plain("n", Kind.NORM, "p", function="layernorm")], [("p",), ("n",)]),  # needs rows
        ([plain("r", ADD, "p", function="rope", operands=1)], [("p",), ("r",)]),  # moves elements about
        ([plain("q", GEMM, "p"), plain("s", ADD, "p q", function="add", operands=2)], [("p",), ("q", "s")]),  # the other is made before
        ([plain("n", Kind.NORM, "-", function="layernorm"), plain("s", ADD, "p n", function="add", operands=2)], [("p",), ("n",), ("s",)]),
        (
            [plain("n", Kind.NORM, "-", function="layernorm"), plain("g", GELU, "n", function="gelu")],
            [("p",), ("n",), ("g",)],
        ),  # no product
        (
            [plain("g", GELU, "p", function="gelu"), plain("h", GELU, "g", function="gelu"), plain("q", GEMM, "g")],
            [("p", "g"), ("h",), ("q",)],  # what two read ends the epilogue
        ),
    ],
)
def test_what_may_run_in_the_epilogue_of_a_product(rows: list[Operation], steps: list[tuple[str, ...]]) -> None:
    first = plain("p", GEMM, "-")
    assert after(first, *rows) == steps
    assert after(first, *rows, epilogues=False) == [(one.name,) for one in (first, *rows)]


def test_a_result_that_must_reach_memory_is_a_steps_own() -> None:
    assert after(plain("p", GEMM, "-", writes_cache=True), plain("g", GELU, "p", function="gelu")) == [("p",), ("g",)]
    assert after(plain("p", GEMM, "-", repeat=2), plain("g", GELU, "p", function="gelu", repeat=2)) == [("p", "g")]


def test_tensors_of_a_chain_live_until_their_last_use() -> None:
    """Steps, not rows: the sum stands where its product does; what leaves lives beyond the last step."""
    rows = [
        plain("p", GEMM, "-"), plain("q", GEMM, "p"), plain("s", ADD, "q p", function="add", operands=2),
        plain("n", Kind.NORM, "s", function="layernorm"),
    ]  # fmt: skip
    table = OperationTable.from_rows(rows)
    chain = chain_of(table, segments(table)[0], epilogues=True)
    assert [step.rows for step in chain.steps] == [(0,), (1, 2), (3,)]
    assert chain.last_use == {0: 1, 1: 2, 2: 2} and chain.leaving is None and chain.bits == dict.fromkeys(range(3), 4 * 6 * 8)
    assert [[o.tensor for o in step.operands] for step in chain.steps] == [[None], [0, 0], [1]]
    assert [step.own_operands for step in chain.steps] == [1, 1, 1] and [step.pins for step in chain.steps] == [True, True, False]
    looped = OperationTable.from_rows([replace(row, repeat=3, reads="" if row.name == "p" else row.reads) for row in rows])
    chain = chain_of(looped, segments(looped)[0], epilogues=True)
    assert (chain.leaving is not None) is segments(looped)[0].loops
    if chain.leaving is not None:
        assert chain.last_use[chain.leaving] == len(chain.steps) and CARRIED in chain.bits


def test_choices_of_one_form_serve_chains_whose_refused_tensors_do_not_fit_either() -> None:
    rows = [plain("p", GEMM, "-"), plain("q", GEMM, "p"), plain("s", ADD, "q p", function="add", operands=2)]

    def chain(m: int) -> Chain:
        table = OperationTable.from_rows([replace(row, m=m) for row in rows])
        return chain_of(table, segments(table)[0], epilogues=True)

    small, large = chain(4), chain(400)
    assert form(small) == form(large)
    edges = edges_of(large, most_bits=1000)
    assert edges.refused and not edges.serve(small, 1000) and edges.serve(chain(300), 1000)
    for change in ({"enters": True}, {"carried_bits": 8, "repeat": 2}):
        other = replace(small, segment=replace(small.segment, **change))
        assert form(other) != form(small)
    assert form(replace(small, segment=replace(small.segment, enters=True))) == form(
        replace(small, segment=replace(small.segment, carried_bits=8, repeat=2))
    )
