"""Mixture of experts: router, expert products at their expected load, combination.

The load of an expert depends on the data. Modelled: every token chooses ``top_k`` of ``experts`` independently and
uniformly among an effective number of experts, E_eff = max(top_k, experts / imbalance); then the expected number of experts
that receive a token is E_eff (1 - (1 - top_k / E_eff)^tokens), rounded, and the tokens x top_k assignments spread over
these as evenly as whole numbers allow. The number of products is exact (tokens x top_k rows in all) for every imbalance;
the imbalance, the busiest expert's load over the mean, changes how many experts' weights are read and how full their
products are. Rows from the dispatch on also carry the layer's experts, choices and tokens (``moe_...``): machines that run all experts'
products in one kernel cost the layer as that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from workloads.blocks import Bits, linear, vector
from workloads.errors import WorkloadError
from workloads.ops import IntLike, Kind, Operation, Parallel


def active_experts(tokens: IntLike, experts: IntLike, top_k: IntLike, imbalance: Any = 1.0) -> Any:
    """Expected number of experts that receive at least one of ``tokens`` tokens, a whole number (or an array of them)."""
    t, e, k = (np.asarray(value, dtype=np.float64) for value in (tokens, experts, top_k))
    effective = np.maximum(k, e / np.asarray(imbalance, dtype=np.float64))
    missed = np.where(k >= effective, 0.0, (1.0 - k / effective) ** t)
    expected = np.rint(effective * (1.0 - missed))
    active = np.clip(expected, np.minimum(k, e), np.minimum(e, t * k)).astype(np.int64)
    return int(active) if active.ndim == 0 else active


def expert_loads(tokens: IntLike, experts: IntLike, top_k: IntLike, imbalance: Any = 1.0) -> tuple[Any, Any, Any, Any]:
    """Return (rows, experts) of the fuller and of the emptier experts; rows x experts add up to tokens x top_k.

    The emptier group may have no expert.
    """
    active = active_experts(tokens, experts, top_k, imbalance)
    assigned = tokens * top_k
    low = assigned // active
    more = assigned - low * active
    return low + 1, more, low, active - more


def moe_rows(
    *,
    hidden: IntLike,
    expert_ffn: IntLike,
    experts: IntLike,
    top_k: IntLike,
    tokens: IntLike,
    bits: Bits,
    repeat: IntLike,
    activation: str,
    scoring: str = "softmax",
    bias: bool = False,
    router_bias: bool = False,
    correction_bias: bool = False,
    imbalance: Any = 1.0,
    held: IntLike = 0,
) -> list[Operation]:
    """Rows of ``repeat`` mixture layers with gated experts.

    ``correction_bias``: one number per expert that steers the choice (counted as a parameter, as published counts do).
    """
    if np.any(np.asarray(top_k) > np.asarray(experts)):
        raise WorkloadError(f"top_k is {top_k}, must be at most the number of experts = {experts}; nearest is {experts}")
    common: dict[str, Any] = {"bits": bits, "repeat": repeat, "component": "ffn"}
    assigned = tokens * top_k
    router = linear("router", tokens, experts, hidden, bias=router_bias, held=held, **common)
    extra = experts if correction_bias else 0
    rows = [
        router,
        vector(
            "router_scores",
            Kind.SOFTMAX if scoring == "softmax" else Kind.ACTIVATION,
            scoring,
            tokens,
            experts,
            parameters=extra,
            weight_id="router_correction" if correction_bias else "",
            held=held,
            **common,
        ),
        Operation(
            "router_top_k",
            Kind.TOPK,
            tokens,
            experts,
            top_k,
            repeat=repeat,
            component="ffn",
            function="topk",
            input_bits=bits.activations,
            weight_bits=bits.weights,
            output_bits=bits.activations,
            held_elements=held,
        ),
    ]
    fuller, many, emptier, few = expert_loads(tokens, experts, top_k, imbalance)
    groups = [
        ("", fuller, many),
        ("_light", np.maximum(emptier, 1) if isinstance(emptier, np.ndarray) else max(emptier, 1), few),
    ]
    groups = [group for group in groups if not (isinstance(group[2], int) and group[2] == 0)]
    copies = repeat * experts
    inside = held + assigned * hidden

    def products(name: str, n: IntLike, k: IntLike, waiting: IntLike, parallel: Parallel = Parallel.COLUMN) -> list[Operation]:
        return [
            linear(
                f"{name}{suffix}",
                load,
                n,
                k,
                bits=bits,
                repeat=repeat * count,
                bias=bias,
                component="ffn",
                weight_id=name,
                held=waiting,
                copies=copies,
                parallel=parallel,
            )
            for suffix, load, count in groups
        ]

    permille: Any = np.rint(1000 * np.asarray(imbalance, dtype=np.float64)).astype(np.int64)
    layer: dict[str, Any] = {
        "moe_experts": experts,
        "moe_chosen": top_k,
        "moe_tokens": tokens,
        "moe_active": active_experts(tokens, experts, top_k, imbalance),
        "moe_imbalance_permille": int(permille) if permille.ndim == 0 else permille,
    }
    routed = [
        Operation(
            "dispatch",
            Kind.GATHER,
            assigned,
            hidden,
            repeat=repeat,
            component="ffn",
            function="gather",
            input_bits=bits.activations,
            weight_bits=bits.weights,
            output_bits=bits.activations,
            held_elements=held,
        ),
    ]
    # Several chips: each has some of the inner columns of every expert, and the experts' partial sums are reduced once, after
    # they are combined.
    dealt: dict[str, Any] = {**common, "parallel": Parallel.COLUMN}
    routed += products("expert_gate", expert_ffn, hidden, inside)
    routed += products("expert_up", expert_ffn, hidden, inside + assigned * expert_ffn)
    routed.append(vector(f"expert_{activation}", Kind.ACTIVATION, activation, assigned, expert_ffn, held=inside, **dealt))
    routed.append(vector("expert_mul", Kind.ELEMENTWISE, "mul", assigned, expert_ffn, operands=2, held=held, **dealt))
    routed += products("expert_down", hidden, expert_ffn, held + assigned * expert_ffn, Parallel.PARTIAL)
    # Each token's top_k results, weighted and added.
    routed.append(vector("combine_scale", Kind.ELEMENTWISE, "mul", assigned, hidden, held=held, **common))
    add: dict[str, Any] = {**common, "operands": top_k, "held": held, "parallel": Parallel.ROW}
    routed.append(vector("combine_add", Kind.ELEMENTWISE, "add", tokens, hidden, **add))
    rows += [replace(row, **layer, moe_joined=_joined(row)) for row in routed]
    return rows


def _joined(row: Operation) -> int:
    """Products of an expert that one grouped kernel runs: gate and up are one, down another; nothing else is a product."""
    return 0 if row.kind != Kind.GEMM else 1 if row.name.startswith("expert_down") else 2
