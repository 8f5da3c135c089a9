"""Operation tables: what a model computes and moves, one row an operation, whatever accelerator runs it.

A product is ``out[batch, group, m, n] = in[batch, group, m, k] x second[(batch), group, k, n]``. A vector operation works
on ``batch`` times ``m`` rows of ``n`` elements. Every column of an :class:`OperationTable` has shape ``(rows,)`` or, where
a builder was given arrays of dimensions, ``(models, rows)``: one code path for one model and for thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.columns import append_digit, stack
from workloads.errors import WorkloadError
from workloads.operation import ATTENTION, PRODUCTS, IntArray, IntLike, Kind, Operation, Parallel, of_kinds

__all__ = [
    "ATTENTION",
    "PRODUCTS",
    "Distinct",
    "IntArray",
    "IntLike",
    "Kind",
    "Operation",
    "OperationTable",
    "Parallel",
    "concatenate",
    "of_kinds",
]

SPARSE_COLUMNS = ("row_probes", "row_hits", "sparse_macs", "unique_lines", "dependent_depth", "table_bytes")
MOE_COLUMNS = ("moe_experts", "moe_chosen", "moe_tokens", "moe_active", "moe_joined", "moe_imbalance_permille")
STRING_COLUMNS = ("name", "component", "function", "weight_id", "reads")
BOOL_COLUMNS = ("second_is_weight", "second_is_cache", "writes_cache", "causal", "values_in_keys")
INT_COLUMNS = (
    *("m", "n", "k", "batch", "groups", "repeat", "input_bits", "weight_bits", "output_bits", "parameters", "copies"),
    *("operands", "input_elements", "held_elements", "v_dim", "kv_share", "window", "filter_taps", "filter_overlap", "filter_step"),
    *SPARSE_COLUMNS,
    *MOE_COLUMNS,
)
# What two operations must have in common to cost the same on any hardware, once. Names, parameters and repeats are not
# part of it; the parameters of a vector operation follow from its function and sizes.
SHAPE_COLUMNS = (
    *("m", "n", "k", "batch", "groups", "input_bits", "weight_bits", "output_bits", "operands", "input_elements"),
    *("v_dim", "kv_share", "window", "filter_taps", "filter_overlap", "filter_step"),
    *SPARSE_COLUMNS,
    *MOE_COLUMNS,
)
SHAPE_FLAGS = ("kind", *BOOL_COLUMNS)
_POSITIVE = ("m", "n", "batch", "groups", "kv_share", "operands")


@dataclass(frozen=True, eq=False)
class Distinct:
    """The distinct shapes of a table and, for each of its (model, row) or (row), the index of its shape.

    It unpacks: ``shapes, index = table.distinct()``.
    """

    table: OperationTable
    index: npt.NDArray[np.int64]

    def __iter__(self) -> Iterator[Any]:
        yield self.table
        yield self.index


@dataclass(frozen=True, eq=False)
class OperationTable:
    """A struct of columns, one row an operation; the columns are the fields of :class:`Operation`.

    String and flag columns have shape ``(rows,)``, the others ``(rows,)`` or ``(models, rows)``. Build it with
    :meth:`from_rows`. Two tables are compared by :meth:`same_as`, not by ``==``.
    """

    name: npt.NDArray[np.str_]
    component: npt.NDArray[np.str_]
    function: npt.NDArray[np.str_]
    weight_id: npt.NDArray[np.str_]
    reads: npt.NDArray[np.str_]
    kind: IntArray
    parallel: IntArray
    second_is_weight: npt.NDArray[np.bool_]
    second_is_cache: npt.NDArray[np.bool_]
    writes_cache: npt.NDArray[np.bool_]
    causal: npt.NDArray[np.bool_]
    values_in_keys: npt.NDArray[np.bool_]
    m: IntArray
    n: IntArray
    k: IntArray
    batch: IntArray
    groups: IntArray
    repeat: IntArray
    input_bits: IntArray
    weight_bits: IntArray
    output_bits: IntArray
    parameters: IntArray
    copies: IntArray
    operands: IntArray
    input_elements: IntArray
    held_elements: IntArray
    v_dim: IntArray
    kv_share: IntArray
    window: IntArray
    row_probes: IntArray
    row_hits: IntArray
    sparse_macs: IntArray
    unique_lines: IntArray
    dependent_depth: IntArray
    table_bytes: IntArray
    filter_taps: IntArray
    filter_overlap: IntArray
    filter_step: IntArray
    moe_experts: IntArray
    moe_chosen: IntArray
    moe_tokens: IntArray
    moe_active: IntArray
    moe_joined: IntArray
    moe_imbalance_permille: IntArray

    @classmethod
    def from_rows(cls, rows: Sequence[Operation]) -> OperationTable:
        """Stack rows into a table; a column becomes (models, rows) if a row gives an array of shape (models,).

        Raises WorkloadError if there is no row, if arrays differ in length, or if a size is not a whole number in range.
        """
        if not rows:
            raise WorkloadError("an operation table needs at least one row, got none")
        columns: dict[str, Any] = {name: np.array([getattr(row, name) for row in rows]) for name in STRING_COLUMNS}
        for name in BOOL_COLUMNS:
            columns[name] = np.array([bool(getattr(row, name)) for row in rows])
        columns["kind"] = np.array([int(row.kind) for row in rows], dtype=np.int64)
        columns["parallel"] = _parallel(columns["kind"], np.array([int(row.parallel) for row in rows], dtype=np.int64))
        for name in INT_COLUMNS:
            columns[name] = stack(name, [getattr(row, name) for row in rows])
        models = {column.shape[0] for name in INT_COLUMNS if (column := columns[name]).ndim == 2}
        if len(models) > 1:
            raise WorkloadError(f"arrays of dimensions must have one length, got lengths {sorted(models)}")
        return cls(**columns)._checked(rows)

    def _checked(self, rows: Sequence[Operation]) -> OperationTable:
        for name in INT_COLUMNS:
            column = getattr(self, name)
            low = 1 if name in _POSITIVE else 0
            if column.size and int(column.min()) < low:
                bad = int(np.argwhere(column < low)[0][-1])
                raise WorkloadError(f"{name} of operation {rows[bad].name!r} is {int(column[..., bad].min())}, must be at least {low}")
        products = of_kinds(self.kind, (*PRODUCTS, *ATTENTION))
        if products.any() and int(self.k[..., products].min()) < 1:
            bad = int(np.flatnonzero(products & (self.k.reshape(-1, len(self)).min(axis=0) < 1))[0])
            raise WorkloadError(f"k of product {rows[bad].name!r} is 0, must be at least 1")
        # Sums stay in int64: refuse sizes whose products would not.
        estimate = self.batch.astype(np.float64) * self.groups * self.m * self.n * np.maximum(self.k + self.v_dim, 1) * self.repeat
        if float(np.max(estimate)) * len(self) >= 2.0**62:
            bad = int(np.unravel_index(int(np.argmax(estimate)), estimate.shape)[-1])
            raise WorkloadError(f"operation {rows[bad].name!r} is too large to count exactly: its products exceed 2^62")
        return self

    def __len__(self) -> int:
        return len(self.name)

    @property
    def models(self) -> int | None:
        """The number of models that the table describes, or None for a table of one model."""
        for name in INT_COLUMNS:
            column: IntArray = getattr(self, name)
            if column.ndim == 2:
                return int(column.shape[0])
        return None

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows,) or (models, rows)."""
        return (len(self),) if self.models is None else (self.models, len(self))

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column broadcast to :attr:`shape` (a read-only view)."""
        return np.broadcast_to(getattr(self, name), self.shape)

    def rows(self, model: int | None = None) -> Iterator[Operation]:
        """Yield the rows as scalar operations (of one model, where the table holds several)."""
        table = self if self.models is None else self.model(0 if model is None else model)
        for i in range(len(table)):
            values: dict[str, Any] = {name: getattr(table, name)[i].item() for name in (*STRING_COLUMNS, *BOOL_COLUMNS)}
            values |= {name: int(getattr(table, name)[i]) for name in INT_COLUMNS}
            yield Operation(kind=Kind(int(table.kind[i])), parallel=Parallel(int(table.parallel[i])), **values)

    def model(self, index: int) -> OperationTable:
        """Return the table of one model, all columns (rows,)."""
        return self._map(lambda column: column[index] if column.ndim == 2 else column)

    def take(self, rows: npt.NDArray[Any] | Sequence[int] | slice) -> OperationTable:
        """Return the table of the given rows."""
        return self._map(lambda column: column[..., rows])

    def with_repeat(self, factor: IntLike) -> OperationTable:
        """Return the table with every repeat multiplied; the number of parameter instances stays as it was."""
        scale = np.asarray(factor, dtype=np.int64)
        scale = scale[:, None] if scale.ndim else scale
        copies = np.where(self.copies > 0, self.copies, self.repeat)
        return replace(self, repeat=self.repeat * scale, copies=copies)

    def _map(self, function: Any) -> OperationTable:
        return OperationTable(**{name: function(getattr(self, name)) for name in _COLUMNS})

    def same_as(self, other: OperationTable) -> bool:
        """Whether every column holds the same values."""
        return self.shape == other.shape and all(np.array_equal(self.column(item.name), other.column(item.name)) for item in fields(self))

    # ---- counts, per row: arrays of shape (rows,) or (models, rows), repeats included where the name says total ----

    def attention_pairs(self) -> IntArray:
        """Visible (query, key) pairs of one head: m x n, less what causality and the window hide. Exact."""
        m, n = self.column("m"), self.column("n")
        window = np.where(self.window > 0, np.minimum(self.window, n), n)
        first = n - m + 1  # keys that the first query sees; each later query sees one more, up to the window
        growing = np.clip(window - first, 0, m)
        pairs = np.where(
            self.causal & (n >= m),
            growing * np.minimum(first, window) + growing * (growing - 1) // 2 + (m - growing) * window,
            m * n,
        )
        return np.asarray(pairs, dtype=np.int64)

    def row_macs(self) -> IntArray:
        """Multiply-accumulates of the products of each row, repeats included.

        GEMM, CONV: batch groups m n k. Fused attention: batch pairs (k + v_dim). SCAN: the contraction with the output
        matrix, batch m n k (its recurrence is elementwise work). SPARSE_BEAM: those counted. Other kinds: 0.
        """
        kind = self.kind
        dense = self.batch * self.groups * self.m * self.n * self.k
        counted = of_kinds(kind, (Kind.GEMM, Kind.CONV, Kind.SCAN))
        macs = np.where(counted, dense, 0)
        if of_kinds(kind, ATTENTION).any():
            fused = self.batch * self.attention_pairs() * (self.k + self.v_dim)
            macs = np.where(of_kinds(kind, ATTENTION), fused, macs)
        macs = np.where(self.kind == Kind.SPARSE_BEAM, self.batch * self.sparse_macs, macs)
        return np.asarray(np.broadcast_to(macs * self.repeat, self.shape), dtype=np.int64)

    def row_input_elements(self) -> IntArray:
        """Elements of the first operand (all inputs of a vector operation), one execution."""
        product = self.batch * self.groups * self.m * self.k
        vector = self.batch * self.m * self.n * self.operands
        attention = self.batch * self.m * self.k
        usual = np.where(of_kinds(self.kind, PRODUCTS), product, np.where(of_kinds(self.kind, ATTENTION), attention, vector))
        return np.asarray(np.broadcast_to(np.where(self.input_elements > 0, self.input_elements, usual), self.shape))

    def row_second_elements(self) -> IntArray:
        """Elements of the second operand, one execution: weights, or K and V; parameters of a vector operation (norm)."""
        product = np.where(self.second_is_weight, 1, self.batch) * self.groups * self.n * self.k
        values = np.where(self.values_in_keys, 0, self.v_dim)
        attention = self.batch // self.kv_share * self.n * (self.k + values)
        vector = np.where(of_kinds(self.kind, (Kind.EMBEDDING, Kind.GATHER, Kind.OPTIMIZER_STEP)), 0, self.parameters)
        second = np.where(of_kinds(self.kind, PRODUCTS), product, np.where(of_kinds(self.kind, ATTENTION), attention, vector))
        return np.asarray(np.broadcast_to(second, self.shape))

    def row_output_elements(self) -> IntArray:
        """Elements of the result, one execution."""
        usual = self.batch * self.groups * self.m * self.n
        attention = self.batch * self.m * self.v_dim
        output = np.where(of_kinds(self.kind, ATTENTION), attention, usual)
        reduced = (self.kind == Kind.ELEMENTWISE) & np.isin(self.function, ("mean", "sum", "max"))
        output = np.where(reduced, self.batch * self.m, output)
        output = np.where(self.kind == Kind.TOPK, self.batch * self.m * self.k, output)
        output = np.where(self.kind == Kind.OPTIMIZER_STEP, self.batch * self.m * self.n * self.k, output)
        return np.asarray(np.broadcast_to(output, self.shape))

    def row_bytes(self) -> npt.NDArray[np.float64]:
        """Bytes that each row must move at least (operands in, second operand, result out), repeats included."""
        bits = (
            self.row_input_elements() * self.input_bits
            + self.row_second_elements() * self.weight_bits
            + self.row_output_elements() * self.output_bits
        )
        return np.asarray(bits * self.repeat / 8.0, dtype=np.float64)

    def row_live_bytes(self) -> npt.NDArray[np.float64]:
        """Activation bytes in memory while the row runs: its inputs and output, and what is held for later rows."""
        # A KV cache and the table behind a gather are not activations.
        second = np.where(self.second_is_weight | self.second_is_cache, 0, self.row_second_elements())
        second = np.where(of_kinds(self.kind, (*PRODUCTS, *ATTENTION)), second, 0)
        gathers = of_kinds(self.kind, (Kind.EMBEDDING, Kind.OPTIMIZER_STEP))
        bits = (
            np.where(gathers, 0, self.row_input_elements()) * self.input_bits
            + second * self.weight_bits
            + (self.row_output_elements() + self.held_elements) * self.output_bits
        )
        return np.asarray(np.where(self.repeat > 0, bits / 8.0, 0.0), dtype=np.float64)

    # ---- totals: a number, or an array of shape (models,) ----

    def macs(self) -> Any:
        """Multiply-accumulates of one run of the table: an int, or int64 (models,)."""
        return _total(self.row_macs())

    def parameter_count(self) -> Any:
        """Parameters behind the table, shared tensors counted once: an int, or int64 (models,)."""
        return _total(self._instances(self.parameters))

    def weight_bytes(self) -> Any:
        """Bytes of these parameters at ``weight_bits``, rounded up to whole bytes per tensor: an int, or int64 (models,)."""
        return _total(self._instances(-(-self.parameters * self.weight_bits // 8)))

    def activation_bytes(self) -> Any:
        """Peak of live activations (bytes), an estimate: a float, or float64 (models,).

        The maximum over rows of inputs + output + ``held_elements``, rows run one after the other and nothing is
        recomputed; every operand counts whole (no tiling between operations). KV caches and weights are not included.
        """
        peak = self.row_live_bytes().max(axis=-1)
        return float(peak) if peak.ndim == 0 else peak

    def kv_read_bytes(self) -> Any:
        """Bytes read from KV caches in one run of the table: a float, or float64 (models,)."""
        bits = np.where(self.second_is_cache, self.row_second_elements() * self.weight_bits * self.repeat, 0)
        return _total(bits) / 8.0

    def kv_write_bytes(self) -> Any:
        """Bytes written to KV caches in one run of the table: a float, or float64 (models,)."""
        bits = np.where(self.writes_cache, self.row_output_elements() * self.output_bits * self.repeat, 0)
        return _total(bits) / 8.0

    def minimum_bytes(self) -> Any:
        """Bytes that one run must move if every row reads and writes memory once: a float, or float64 (models,)."""
        total = self.row_bytes().sum(axis=-1)
        return float(total) if total.ndim == 0 else total

    def _instances(self, amount: IntArray) -> IntArray:
        """``amount`` of one instance times the instances, each shared tensor at the first row that is largest."""
        held = np.broadcast_to(amount * np.where(self.copies > 0, self.copies, self.repeat), self.shape)
        total = np.array(held, dtype=np.int64)
        names, first = np.unique(self.weight_id, return_index=True)
        for name, at in zip(names, first, strict=True):
            if not name:
                continue
            sharers = np.flatnonzero(self.weight_id == name)
            if len(sharers) > 1:
                largest = held[..., sharers].max(axis=-1)
                total[..., sharers] = 0
                total[..., at] = largest
        return total

    def by_weight(self) -> dict[str, tuple[Any, Any]]:
        """Parameters and bytes of each named tensor and of each row without a name: {key: (parameters, bytes)}."""
        parameters = self._instances(self.parameters)
        size = self._instances(-(-self.parameters * self.weight_bits // 8))
        result: dict[str, tuple[Any, Any]] = {}
        for i, name in enumerate(self.weight_id):
            key = str(name) or f"row {i} {self.name[i]}"
            old = result.get(key, (0, 0))
            result[key] = (old[0] + parameters[..., i], old[1] + size[..., i])
        return result

    # ---- distinct shapes ----

    def distinct(self, *, parallel: bool = False) -> Distinct:
        """Return the distinct cost-relevant shapes and the index of each (model, row), or (row), into them.

        Two operations share a shape if every column that a hardware model may read is equal (:data:`SHAPE_COLUMNS`, kind,
        function and flags). How chips divide them is told apart only where ``parallel`` asks for it, as one chip needs
        no telling; else the shapes' column holds AUTO. The shapes come in a canonical order; a shape bears the name of its
        first row, repeat 1 and the parameters of that row.
        """
        codes, flags = self._row_signature((*SHAPE_FLAGS, "parallel") if parallel else SHAPE_FLAGS)
        key = np.asarray(codes, dtype=np.int64)
        size = int(codes.max()) + 1
        for name in SHAPE_COLUMNS:
            key, size = append_digit(key, size, getattr(self, name), flags)
        flat = np.ascontiguousarray(np.broadcast_to(key, self.shape)).reshape(-1)
        _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        row = first % len(self)
        columns: dict[str, Any] = {
            item.name: (column[row] if (column := getattr(self, item.name)).ndim == 1 else np.ascontiguousarray(column).reshape(-1)[first])
            for item in fields(self)
        }
        columns["repeat"] = np.ones(len(first), dtype=np.int64)
        if not parallel:
            columns["parallel"] = np.full(len(first), int(Parallel.AUTO), dtype=np.int64)
        return Distinct(OperationTable(**columns), inverse.reshape(self.shape).astype(np.int64))

    def _row_signature(self, names: Sequence[str]) -> tuple[IntArray, IntArray]:
        """Integer codes of the columns that are (rows,) by nature: kind, flags, function."""
        function = np.unique(self.function, return_inverse=True)[1]
        key = function.astype(np.int64)
        for name in names:
            key = key * 64 + getattr(self, name).astype(np.int64)
        codes = np.unique(key, return_inverse=True)[1].astype(np.int64)
        return codes, codes

    def counts(self, index: npt.NDArray[np.int64], shapes: int) -> IntArray:
        """Return how often each model runs each shape of :meth:`distinct`: int64 (models, shapes), or (shapes,)."""
        repeat = self.column("repeat").reshape(-1, len(self))
        models = repeat.shape[0]
        where = (index.reshape(models, -1) + np.arange(models)[:, None] * shapes).reshape(-1)
        # Sums of repeats are far below 2^53, so that the float sums of bincount (ten times add.at's speed) are exact.
        counted = np.bincount(where, weights=repeat.reshape(-1), minlength=models * shapes).astype(np.int64)
        return counted.reshape((shapes,) if self.models is None else (models, shapes))


_COLUMNS = tuple(item.name for item in fields(OperationTable))


def concatenate(tables: Sequence[OperationTable]) -> OperationTable:
    """Return one table with the rows of all, in order; the tables describe the same models."""
    models = {table.models for table in tables if table.models is not None}
    if len(models) > 1:
        raise WorkloadError(f"tables of different numbers of models cannot be joined, got {sorted(models)}")
    shape = (*models, 1) if models else (1,)
    columns: dict[str, Any] = {}
    for item in fields(OperationTable):
        parts = [getattr(table, item.name) for table in tables]
        if any(part.ndim == 2 for part in parts):
            parts = [np.broadcast_to(part, (shape[0], part.shape[-1])) for part in parts]
        columns[item.name] = np.concatenate(parts, axis=-1)
    return OperationTable(**columns)


def _parallel(kind: IntArray, parallel: IntArray) -> IntArray:
    """The column with every AUTO decided by the kind."""
    decided = np.where(of_kinds(kind, (*PRODUCTS, *ATTENTION)), Parallel.GATHERED, Parallel.REPLICATED)
    return np.where(parallel == Parallel.AUTO, decided, parallel).astype(np.int64)


def _total(rows: npt.NDArray[Any]) -> Any:
    total = rows.sum(axis=-1)
    return int(total) if total.ndim == 0 else total
