"""Selective state-space models (Mamba, arXiv 2312.00752) from dimensions.

The recurrence h = a h + b x, y = c h over ``inner`` channels with ``state`` states each is one SCAN row: the contraction
with c is its product, the rest elementwise work. Phases as in :mod:`workloads.decoder`; the state does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.blocks import bits_of, embedding, linear, norm, residual, times, vector
from workloads.decoder import Pass
from workloads.filters import filter_fields
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase
from workloads.training import training_phase


def mamba_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases that ``d["phase"]`` asks for."""
    prompt, new = d["sequence"], d["new_tokens"]
    if d["phase"] == "train":
        return (training_phase(mamba_rows(d, Pass(prompt, prompt)), d),)
    prefill = Phase("prefill", _table(d, Pass(prompt, prompt if d["all_logits"] else 1)), kv_cache_bytes=_state_bytes(d))
    if d["phase"] == "prefill":
        return (prefill,)
    if d["phase"] == "decode":
        return (Phase("decode", _table(d, Pass(1, 1, cached=True)), kv_cache_bytes=_state_bytes(d)),)
    steps = _table(d, Pass(1, 1, cached=True, steps=new))
    return (prefill, Phase("generation", steps, after=("prefill",), kv_cache_bytes=_state_bytes(d)))


def _table(d: Mapping[str, Any], way: Pass) -> OperationTable:
    return OperationTable.from_rows(mamba_rows(d, way))


def _state_bytes(d: Mapping[str, Any]) -> Any:
    """Bytes of recurrent and convolution states of ``batch`` requests: (state + taps) per channel and layer."""
    return d["batch"] * d["layers"] * d["inner"] * (d["state"] + d["taps"]) * d["kv_bits"] / 8.0


def mamba_rows(d: Mapping[str, Any], way: Pass) -> list[Operation]:
    """Rows of one pass: embedding, layers, final norm, language-model head."""
    bits = bits_of(d)
    hidden, inner, state, rank = d["hidden"], d["inner"], d["state"], d["delta_rank"]
    tokens = d["batch"] * way.q_len
    stream, gate = tokens * hidden, tokens * inner
    common: dict[str, Any] = {"bits": bits, "repeat": d["layers"], "component": "ssm"}
    vectors = d["batch"] * way.logits
    rows = [
        embedding("token_embedding", tokens, hidden, d["vocabulary"], bits=bits),
        norm("norm", tokens, hidden, function="rmsnorm", bits=bits, repeat=d["layers"], held=stream),
        linear("in_proj", tokens, 2 * inner, hidden, bias=False, held=stream, **common),
        _depthwise(d, way.q_len, stream + gate),
        vector("conv_silu", Kind.ACTIVATION, "silu", tokens, inner, held=stream + gate, **common),
        linear("x_proj", tokens, rank + 2 * state, inner, bias=False, held=stream + gate, **common),
        linear("dt_proj", tokens, inner, rank, held=stream + 2 * gate, **common),
        vector("dt_softplus", Kind.ACTIVATION, "softplus", tokens, inner, held=stream + 2 * gate, **common),
        _scan(d, way, stream + 2 * gate),
        vector("gate_silu", Kind.ACTIVATION, "silu", tokens, inner, held=stream + gate, **common),
        vector("gate_mul", Kind.ELEMENTWISE, "mul", tokens, inner, operands=2, held=stream, **common),
        linear("out_proj", tokens, hidden, inner, bias=False, held=stream, **common),
        residual("residual", tokens, hidden, **common),
        norm("final_norm", tokens, hidden, function="rmsnorm", bits=bits, component="head"),
        linear(
            "lm_head",
            vectors,
            d["vocabulary"],
            hidden,
            bits=bits,
            bias=False,
            component="head",
            weight_id="token_embedding" if d["tied"] else "lm_head",
        ),
    ]
    return times(rows, way.steps)


def _depthwise(d: Mapping[str, Any], length: IntLike, held: IntLike) -> Operation:
    bits, inner = bits_of(d), d["inner"]
    return Operation(
        "conv1d",
        Kind.CONV,
        length,
        1,
        d["taps"],
        batch=d["batch"],
        groups=inner,
        repeat=d["layers"],
        component="ssm",
        second_is_weight=True,
        input_bits=bits.activations,
        weight_bits=bits.weights,
        output_bits=bits.activations,
        parameters=inner * (d["taps"] + 1),
        weight_id="conv1d",
        input_elements=d["batch"] * inner * length,
        **filter_fields([length], [d["taps"]]),
        held_elements=held,
    )


def _scan(d: Mapping[str, Any], way: Pass, held: IntLike) -> Operation:
    bits, inner, state = bits_of(d), d["inner"], d["state"]
    return Operation(
        "scan",
        Kind.SCAN,
        way.q_len,
        inner,
        state,
        batch=d["batch"],
        repeat=d["layers"],
        component="ssm",
        function="selective_scan",
        input_bits=bits.activations,
        weight_bits=bits.weights,
        output_bits=bits.activations,
        operands=2,  # the input and its step size; b and c are small beside them
        parameters=inner * (state + 1),
        weight_id="scan",
        held_elements=held,
    )
