"""One operation: its kind and its fields, with units and meaning of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
IntLike = int | IntArray
"""A dimension: one number, or an array of shape (models,)."""


class Kind(IntEnum):
    """What an operation is; the hardware model chooses the unit and the formula by it."""

    GEMM = 0
    ATTENTION_PREFILL = 1
    ATTENTION_DECODE = 2
    CONV = 3
    NORM = 4
    SOFTMAX = 5
    ACTIVATION = 6
    ELEMENTWISE = 7
    EMBEDDING = 8
    GATHER = 9
    TOPK = 10
    SCAN = 11
    COLLECTIVE = 12
    OPTIMIZER_STEP = 13
    SPARSE_BEAM = 14


class Parallel(IntEnum):
    """How chips that share a request divide an operation (tensor parallelism).

    The names are those of Megatron-LM's layers (Shoeybi et al., arXiv:1909.08053): an operation that says nothing is right in
    any place, for its input is whole on every chip and so is its result; paired ones save the exchange between them.
    """

    AUTO = 0
    """GATHERED for products and attention, REPLICATED for the others."""
    REPLICATED = 1
    """Every chip does all of it."""
    GATHERED = 2
    """Dealt by columns of the result (products of activations: by batch); the result is gathered on every chip."""
    COLUMN = 3
    """Dealt likewise, and the result stays dealt; vector operations take their share of rows or columns."""
    ROW = 4
    """Dealt along k, since the input is dealt, and the chips' partial sums are reduced on every chip; a vector operation on
    partial sums runs whole, and its result is reduced."""
    PARTIAL = 5
    """Dealt along k, the sums left partial for a later ROW operation to reduce."""


PRODUCTS = (Kind.GEMM, Kind.CONV)
ATTENTION = (Kind.ATTENTION_PREFILL, Kind.ATTENTION_DECODE)


@cache
def _among(kinds: tuple[Kind, ...]) -> npt.NDArray[np.bool_]:
    return np.isin(np.arange(len(Kind)), kinds)


def of_kinds(column: npt.NDArray[np.integer[Any]], kinds: tuple[Kind, ...]) -> npt.NDArray[np.bool_]:
    """Where a column of kinds holds one of ``kinds``: `np.isin`, whose start costs more than a short column does."""
    return np.asarray(_among(kinds)[column])


@dataclass(frozen=True, eq=False)
class Operation:
    """One row of a table; a dimension may be an array of shape (models,).

    Attributes:
        name, component, function: what the row is (``ffn_up``), the group it belongs to in a breakdown (``ffn``) and
            the function a vector unit evaluates (``gelu``; empty for products).
        kind: a :class:`Kind`.
        m, n, k, batch: sizes. GEMM and CONV (as its im2col product, per group): see the module. Vector kinds: ``m`` rows
            of ``n`` elements, ``batch`` times, ``k`` = 0. EMBEDDING, GATHER: ``m`` rows of ``n`` elements are read from a
            table. TOPK: ``k`` of ``n`` candidates in each of ``m`` rows. OPTIMIZER_STEP: ``n`` parameters, ``operands``
            tensors of that size read and ``k`` written. ATTENTION (fused): ``batch`` query heads of
            ``m`` queries against ``n`` keys of size ``k`` and values of size ``v_dim``; ``kv_share`` query heads use one
            KV head; the queries are the last ``m`` of the ``n`` positions. SCAN: ``m`` steps of ``n`` channels with ``k``
            states.
        groups: independent products side by side, each with weights of its own (depthwise convolution: the channels).
        repeat: how often the row runs in its phase (layers).
        second_is_weight: the second operand is a parameter, shared by the batch, or else an activation, different for
            each batch entry.
        second_is_cache: that activation is read from a KV cache in memory.
        writes_cache: the output is written to the KV cache.
        input_bits, weight_bits, output_bits: precision of the first operand, the second operand and the result.
        parameters: parameters of one instance (weights and biases).
        weight_id: name of the parameter tensor; rows that share it, in any phase, count its parameters once.
        copies: how many instances of the tensor exist (0: as many as ``repeat``; 1 for weights shared by all layers;
            experts x layers for a mixture of experts that does not use all of them).
        operands: number of inputs of a vector operation (2 for a residual addition).
        input_elements: elements of the first operand where they do not follow from the sizes (CONV: the feature map
            itself, not its im2col copy), else 0.
        filter_taps, filter_overlap, filter_step: of a CONV the positions of its filter (0: unknown; k counts the taps of the
            first channel, then those of the second), the positions of the map that two neighbouring runs of outputs both
            read, and those from one output to the next (:func:`workloads.filters.filter_fields`).
        reads: names of the rows whose results it reads, one an operand, separated by blanks; ``=name`` is what the row of that
            name reads first, ``-`` comes from memory (empty: :mod:`workloads.tensors` says what is assumed). In a loop (rows with the same
            ``repeat`` above 1) the last row's name is what the run before made; a row before the loop is read from memory in every run.
        held_elements: activation elements that must stay in memory while the row runs beside its own operands.
        v_dim, kv_share, causal, window: attention fields (window 0: none).
        values_in_keys: the values are the first ``v_dim`` elements of the keys (latent attention): read once.
        row_probes, row_hits, sparse_macs, unique_lines, dependent_depth, table_bytes: SPARSE_BEAM, one level of a tree of sparse
            linear models for one query: features looked up in chunks, those found, multiply-adds of a feature with a stored weight,
            lines of 64 bytes touched, reads that wait for one another, and bytes from the root of the tree to the end of this level.
            ``m`` chunks of ``n`` children are scored, the ``k`` best kept; ``weight_bits`` are those of a stored weight with its
            share of the index.
        moe_experts, moe_chosen, moe_tokens, moe_active: of a row of a layer of routed experts: all experts, those that a token
            chooses, the tokens, and the experts with work, so that a machine with kernels for grouped products can run the layer's
            products (``moe_active`` of each) in one (0: no such row).
        moe_joined: products of one expert that such a kernel joins: 2 for gate and up, 1 for down, 0 for what runs inside it.
        moe_imbalance_permille: load of the busiest expert over the mean, in thousandths.
        parallel: how several chips divide the row, a :class:`Parallel`; it does not matter on one chip. COLLECTIVE rows: ``m``
            rows of ``n`` elements that every chip holds at the beginning, and ``function`` says what becomes of them
            (``all_reduce``, ``reduce_scatter``, ``all_to_all``; ``all_gather``: what every chip holds at the end).
    """

    name: str
    kind: Kind
    m: IntLike
    n: IntLike
    k: IntLike = 0
    batch: IntLike = 1
    groups: IntLike = 1
    repeat: IntLike = 1
    component: str = ""
    function: str = ""
    second_is_weight: bool = False
    second_is_cache: bool = False
    writes_cache: bool = False
    input_bits: IntLike = 8
    weight_bits: IntLike = 8
    output_bits: IntLike = 8
    parameters: IntLike = 0
    weight_id: str = ""
    reads: str = ""
    copies: IntLike = 0
    operands: IntLike = 1
    input_elements: IntLike = 0
    held_elements: IntLike = 0
    v_dim: IntLike = 0
    kv_share: IntLike = 1
    causal: bool = False
    window: IntLike = 0
    values_in_keys: bool = False
    row_probes: IntLike = 0
    row_hits: IntLike = 0
    sparse_macs: IntLike = 0
    unique_lines: IntLike = 0
    dependent_depth: IntLike = 0
    table_bytes: IntLike = 0
    parallel: Parallel = Parallel.AUTO
    filter_taps: IntLike = 0
    filter_overlap: IntLike = 0
    filter_step: IntLike = 0
    moe_experts: IntLike = 0
    moe_chosen: IntLike = 0
    moe_tokens: IntLike = 0
    moe_active: IntLike = 0
    moe_joined: IntLike = 0
    moe_imbalance_permille: IntLike = 0
