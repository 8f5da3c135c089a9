"""Operation tables: counts against loops, broadcasting against single models, distinct shapes against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workloads
from workloads.ops import INT_COLUMNS, SHAPE_COLUMNS, SHAPE_FLAGS, Kind, Operation, OperationTable, concatenate

sizes = st.integers(1, 40)
operations = st.builds(
    Operation,
    name=st.sampled_from(["a", "b"]),
    kind=st.sampled_from([Kind.GEMM, Kind.SOFTMAX, Kind.NORM, Kind.CONV]),
    m=sizes,
    n=sizes,
    k=st.integers(1, 3),
    batch=st.integers(1, 2),
    repeat=st.integers(0, 3),
    function=st.sampled_from(["", "softmax"]),
    second_is_weight=st.booleans(),
    weight_bits=st.sampled_from([4, 8]),
    causal=st.booleans(),
)


def shape_key(row: Operation) -> tuple[object, ...]:
    """What must be equal for two rows to share a shape, written independently of the table's mixed radix."""
    return (row.function, *(int(getattr(row, name)) for name in (*SHAPE_FLAGS, *SHAPE_COLUMNS)))


@given(st.lists(operations, min_size=1, max_size=12))
def test_distinct_agrees_with_a_dictionary(rows: list[Operation]) -> None:
    table = OperationTable.from_rows(rows)
    shapes, index = table.distinct()
    keys = [shape_key(row) for row in rows]
    assert len(shapes) == len(set(keys))
    for row, place in zip(rows, index, strict=True):
        assert shape_key(next(shapes.take([int(place)]).rows())) == shape_key(row)
    counts = table.counts(index, len(shapes))
    assert counts.sum() == sum(int(row.repeat) for row in rows)
    assert (counts * shapes.row_macs()).sum() == table.macs()


@given(st.lists(st.lists(sizes, min_size=3, max_size=3), min_size=1, max_size=4), st.lists(operations, min_size=1, max_size=3))
def test_models_in_one_table_equal_single_models(models: list[list[int]], fixed: list[Operation]) -> None:
    columns = np.array(models, dtype=np.int64).T

    def build(m: object, n: object, repeat: object) -> OperationTable:
        vary = Operation("v", Kind.GEMM, m, n, 7, repeat=repeat, second_is_weight=True, parameters=7 * n, weight_id="v")  # type: ignore[arg-type, operator]
        return OperationTable.from_rows([vary, *fixed])

    together = build(*columns)
    assert together.shape == (len(models), 1 + len(fixed))
    for i, values in enumerate(models):
        alone = build(*values)
        assert together.model(i).same_as(alone)
        for quantity in ("macs", "parameter_count", "weight_bytes", "activation_bytes", "minimum_bytes"):
            assert getattr(together, quantity)()[i] == getattr(alone, quantity)()
    shapes, index = together.distinct()
    for name in SHAPE_COLUMNS:
        assert np.array_equal(getattr(shapes, name)[index], together.column(name))


def test_distinct_falls_back_to_ranks_where_a_mixed_radix_would_overflow() -> None:
    rows = [
        Operation("x", Kind.NORM, 2**e, 2 ** (20 - e), operands=e + 1, input_elements=3**e * 10**6, held_elements=e, window=7**e)
        for e in range(20)
    ] * 2
    shapes, index = OperationTable.from_rows(rows).distinct()
    assert len(shapes) == 20
    assert np.array_equal(index[:20], index[20:])


def test_distinct_does_not_depend_on_the_order_of_models() -> None:
    family = workloads.load("bert")
    grid = family.model_grid()
    order = np.random.default_rng(0).permutation(len(grid["layers"]))
    one, index_one = family.build(**grid).phases[0].table.distinct()
    other, index_other = family.build(**{name: column[order] for name, column in grid.items()}).phases[0].table.distinct()
    assert one.same_as(other)
    assert np.array_equal(index_one[order], index_other)


@given(st.integers(1, 12), st.integers(0, 12), st.booleans(), st.integers(0, 15))
def test_attention_pairs_against_a_loop(queries: int, earlier: int, causal: bool, window: int) -> None:
    keys = queries + earlier
    row = Operation("a", Kind.ATTENTION_PREFILL, queries, keys, 4, v_dim=4, causal=causal, window=window)
    expected = 0
    for query in range(earlier, keys):
        for key in range(keys):
            seen = key <= query and (window == 0 or key > query - window) if causal else True
            expected += seen
    assert OperationTable.from_rows([row]).attention_pairs()[0] == expected


def test_counts_of_each_kind() -> None:
    rows = [
        Operation("gemm", Kind.GEMM, 3, 5, 7, batch=2, repeat=4, second_is_weight=True, weight_bits=4),
        Operation("scores", Kind.GEMM, 3, 5, 7, batch=2),
        Operation("conv", Kind.CONV, 6, 5, 9, groups=2, second_is_weight=True, input_elements=50),
        Operation("fused", Kind.ATTENTION_PREFILL, 4, 4, 8, batch=6, kv_share=3, v_dim=2, causal=True),
        Operation("latent", Kind.ATTENTION_DECODE, 1, 9, 8, batch=6, kv_share=6, v_dim=6, values_in_keys=True, second_is_cache=True),
        Operation("add", Kind.ELEMENTWISE, 3, 5, operands=2, function="add"),
        Operation("mean", Kind.ELEMENTWISE, 3, 5, function="mean"),
        Operation("top", Kind.TOPK, 3, 50, 2, function="topk"),
    ]
    table = OperationTable.from_rows(rows)
    assert table.row_macs().tolist() == [2 * 3 * 5 * 7 * 4, 2 * 105, 2 * 6 * 5 * 9, 6 * 10 * 10, 6 * 9 * 14, 0, 0, 0]
    assert table.row_input_elements().tolist() == [42, 42, 50, 6 * 4 * 8, 48, 30, 15, 150]
    assert table.row_second_elements().tolist() == [35, 70, 2 * 45, 2 * 4 * 10, 9 * 8, 0, 0, 0]
    assert table.row_output_elements().tolist() == [30, 30, 60, 48, 36, 15, 3, 6]
    assert table.row_bytes()[0] == (42 + 35 / 2 + 30) * 4
    assert table.kv_read_bytes() == 72


def test_shared_weights_count_once_in_a_table_and_over_phases() -> None:
    def row(name: str, parameters: int, weight: str, repeat: int, copies: int = 0) -> Operation:
        return Operation(name, Kind.GEMM, 1, 1, 1, parameters=parameters, weight_id=weight, repeat=repeat, copies=copies, weight_bits=4)

    tied = OperationTable.from_rows([row("embed", 90, "table", 1), row("head", 90, "table", 1), row("own", 5, "", 3)])
    assert tied.parameter_count() == 90 + 15
    assert tied.weight_bytes() == 45 + 3 * 3  # 2.5 bytes an instance, rounded up
    shared = OperationTable.from_rows([row("albert", 7, "layer", 12, copies=1), row("experts", 3, "e", 2, copies=64)])
    assert shared.parameter_count() == 7 + 3 * 64
    workload = workloads.Workload("w", "test", (workloads.Phase("a", tied), workloads.Phase("b", tied.take([0, 1]))))
    assert workload.parameter_count() == 105
    assert tied.with_repeat(10).parameter_count() == 105


def test_activation_bytes_is_the_largest_row() -> None:
    rows = [
        Operation("x", Kind.NORM, 10, 10, input_bits=16, output_bits=16, held_elements=7),
        Operation("y", Kind.GEMM, 10, 2, 10, second_is_weight=True, held_elements=1000, repeat=0),
    ]
    assert OperationTable.from_rows(rows).activation_bytes() == (100 + 100 + 7) * 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Operation("bad", Kind.GEMM, 0, 1, 1), ["m", "'bad'", "at least 1"]),
        (Operation("bad", Kind.GEMM, 1, 1, 0), ["k", "'bad'", "at least 1"]),
        (Operation("bad", Kind.GEMM, 1.5, 1, 1), ["m", "1.5", "whole number"]),  # type: ignore[arg-type]
        (Operation("bad", Kind.GEMM, 2**31, 2**31, 2), ["'bad'", "too large"]),
        (Operation("bad", Kind.GEMM, 1, 1, 1, repeat=-1), ["repeat", "-1", "at least 0"]),
    ],
)
def test_bad_rows_are_named(row: Operation, words: list[str]) -> None:
    with pytest.raises(workloads.WorkloadError) as caught:
        OperationTable.from_rows([Operation("good", Kind.GEMM, 1, 1, 1), row])
    assert all(word in str(caught.value) for word in words)


def test_tables_of_different_models_do_not_join() -> None:
    one = OperationTable.from_rows([Operation("a", Kind.NORM, np.array([1, 2]), 1)])
    two = OperationTable.from_rows([Operation("a", Kind.NORM, np.array([1, 2, 3]), 1)])
    both = concatenate([one, OperationTable.from_rows([Operation("b", Kind.NORM, 4, 4)])])
    assert both.column("m").tolist() == [[1, 4], [2, 4]]
    with pytest.raises(workloads.WorkloadError, match="different numbers of models"):
        concatenate([one, two])
    with pytest.raises(workloads.WorkloadError, match="at least one row"):
        OperationTable.from_rows([])
    with pytest.raises(workloads.WorkloadError, match="one length"):
        OperationTable.from_rows([Operation("a", Kind.NORM, np.array([1, 2]), np.array([1, 2, 3]))])


def test_every_column_of_an_operation_is_a_column_of_the_table() -> None:
    assert set(Operation.__dataclass_fields__) == set(OperationTable.__dataclass_fields__)
    assert set(SHAPE_COLUMNS) < set(INT_COLUMNS)
