"""Vision transformers and image towers from dimensions: ViT, DeiT, CLIP's and SigLIP's towers, Qwen-VL's window tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.blocks import (
    Bits,
    attention_core,
    bits_of,
    embedding,
    feed_forward,
    linear,
    norm,
    residual,
    self_attention,
    vector,
)
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase
from workloads.training import training_phase

Group = tuple[str, IntLike, IntLike, IntLike]
"""Prefix of the rows, layers, batch and length of attention products of one size."""


def vit_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """A forward pass (or a training step) of an image classifier."""
    rows = vit_rows(d)
    if d["phase"] == "train":
        return (training_phase(rows, d),)
    return (Phase("forward", OperationTable.from_rows(rows)),)


def vit_rows(d: Mapping[str, Any]) -> list[Operation]:
    """Patches, class token, positions, pre-norm layers, final norm, classifier on the class token."""
    bits = bits_of(d)
    hidden, batch = d["hidden"], d["batch"]
    patches = (d["image"] // d["patch"]) ** 2
    rows = patch_embedding(
        images=batch,
        patches=patches,
        taps=d["channels"] * d["patch"] ** 2,
        pixels=d["channels"] * d["image"] ** 2,
        hidden=hidden,
        bias=True,
        extra_tokens=1,
        bits=bits,
    )
    rows += tower_layers(
        "",
        layers=d["layers"],
        hidden=hidden,
        heads=d["heads"],
        head_dim=d["head_dim"],
        ffn=d["ffn"],
        activation=d["activation"],
        images=batch,
        tokens=patches + 1,
        bits=bits,
        fused=d["fused_attention"],
    )
    rows.append(norm("final_norm", batch * (patches + 1), hidden, function="layernorm", bits=bits, component="head"))
    if d["classes"]:
        rows.append(linear("classifier", batch, d["classes"], hidden, bits=bits, component="head"))
    return rows


def patch_embedding(
    *,
    images: IntLike,
    patches: IntLike,
    taps: IntLike,
    pixels: IntLike,
    hidden: IntLike,
    bias: bool,
    bits: Bits,
    extra_tokens: int = 0,
    positions: bool = True,
    prefix: str = "",
) -> list[Operation]:
    """The strided convolution that makes one vector of a patch, and learnt positions (with room for a class token)."""
    rows = [
        Operation(
            f"{prefix}patch_embedding",
            Kind.CONV,
            patches,
            hidden,
            taps,
            batch=images,
            component="embedding",
            second_is_weight=True,
            input_bits=bits.activations,
            weight_bits=bits.weights,
            output_bits=bits.activations,
            parameters=taps * hidden + (hidden if bias else 0) + extra_tokens * hidden,
            weight_id=f"{prefix}patch_embedding",
            input_elements=images * pixels,
            filter_taps=1,  # patches do not overlap: each element of the picture is one of a single product row
        )
    ]
    if positions:
        tokens = patches + extra_tokens
        rows.append(
            vector(
                f"{prefix}position_add",
                Kind.ELEMENTWISE,
                "add",
                images * tokens,
                hidden,
                bits=bits,
                component="embedding",
                operands=2,
                parameters=tokens * hidden,
            )
        )
    return rows


def tower_layers(
    prefix: str,
    *,
    layers: IntLike,
    hidden: IntLike,
    heads: IntLike,
    head_dim: IntLike,
    ffn: IntLike,
    activation: str,
    images: IntLike,
    tokens: IntLike,
    bits: Bits,
    fused: bool,
    function: str = "layernorm",
    causal: bool = False,
    bias_qkv: tuple[bool, bool, bool] = (True, True, True),
    loaded: IntLike = 0,
) -> list[Operation]:
    """Pre-norm layers with biases and full attention among the ``tokens`` of each image (or text).

    ``loaded``: layers whose weights are there, where fewer of them run.
    """
    total = images * tokens
    stream = total * hidden
    common: dict[str, Any] = {"bits": bits, "repeat": layers}
    rows = [
        norm(f"{prefix}attention_norm", total, hidden, function=function, held=stream, **common),
        *self_attention(
            hidden=hidden,
            heads=heads,
            head_dim=head_dim,
            batch=images,
            q_len=tokens,
            prefix=prefix,
            bias_qkv=bias_qkv,
            pre_norm=True,
            causal=causal,
            fused=fused,
            **common,
        ),
        residual(
            f"{prefix}attention_residual",
            total,
            hidden,
            component="attention",
            reads=f"{prefix}o_proj ={prefix}attention_norm",
            **common,
        ),
        norm(f"{prefix}ffn_norm", total, hidden, function=function, held=stream, **common),
        *feed_forward(hidden=hidden, ffn=ffn, tokens=total, activation=activation, pre_norm=True, prefix=prefix, **common),
        residual(f"{prefix}ffn_residual", total, hidden, component="ffn", reads=f"{prefix}ffn_down ={prefix}ffn_norm", **common),
    ]
    return [replace(row, copies=loaded) if row.weight_id else row for row in rows]


def window_tower_rows(d: Mapping[str, Any], *, images: IntLike, height: IntLike, width: IntLike) -> list[Operation]:
    """The tower of Qwen2-VL and Qwen2.5-VL: patches of two frames, rotary positions, layers whose attention is full or
    within windows, and the merger that makes one language token of 2 x 2 patches.

    ``height`` x ``width`` patches per image (two frames of a video are an image here). ``vision_full_layers`` layers attend
    to the whole image, the others within windows of ``vision_window`` x ``vision_window`` patches.
    """
    patches = height * width
    bits = bits_of(d)
    hidden, heads, layers = d["vision_hidden"], d["vision_heads"], d["vision_layers"]
    head_dim = hidden // heads
    function = d["vision_norm"]
    total = images * patches
    stream = total * hidden
    full = d["vision_full_layers"]
    taps = d["vision_channels"] * d["vision_temporal_patch"] * d["vision_patch"] ** 2
    common: dict[str, Any] = {"bits": bits, "repeat": layers}
    weights: dict[str, Any] = {**common, "component": "vision"}
    rows = patch_embedding(
        images=images,
        patches=patches,
        taps=taps,
        pixels=taps * patches,
        hidden=hidden,
        bias=False,
        bits=bits,
        positions=False,
        prefix="vision.",
    )
    rows.append(norm("vision.attention_norm", total, hidden, function=function, held=stream, **common))
    for index, which in enumerate("qkv"):
        rows.append(linear(f"vision.{which}_proj", total, hidden, hidden, held=stream + index * total * hidden, **weights))
    rows.append(vector("vision.rope", Kind.ELEMENTWISE, "rope", total, 2 * hidden, held=2 * stream, **weights))
    cores: list[Group] = [("vision.full.", full, images, patches)]
    if not (isinstance(layers - full, int) and layers == full):
        cores += window_groups(layers - full, images, height, width, d["vision_window"])
    for prefix, count, batch, length in cores:
        if isinstance(count, int) and count == 0:
            continue
        rows += attention_core(
            prefix,
            batch=batch,
            heads=heads,
            kv_heads=heads,
            q_len=length,
            kv_len=length,
            qk_dim=head_dim,
            v_dim=head_dim,
            bits=bits,
            repeat=count,
            held=stream,
            fused=d["fused_attention"],
        )
    rows.append(linear("vision.o_proj", total, hidden, hidden, held=stream, **weights))
    rows.append(residual("vision.attention_residual", total, hidden, **weights))
    rows.append(norm("vision.ffn_norm", total, hidden, function=function, held=stream, **common))
    rows += feed_forward(
        hidden=hidden,
        ffn=d["vision_ffn"],
        tokens=total,
        activation=d["vision_activation"],
        gated=d["vision_gated"],
        pre_norm=True,
        prefix="vision.",
        **common,
    )
    rows.append(residual("vision.ffn_residual", total, hidden, **weights))
    merged = d["vision_merge"] ** 2
    out = total // merged
    rows.append(norm("vision.merger_norm", total, hidden, function=function, bits=bits, component="vision"))
    rows.append(linear("vision.merger_up", out, merged * hidden, merged * hidden, bits=bits, component="vision"))
    rows.append(vector("vision.merger_gelu", Kind.ACTIVATION, "gelu", out, merged * hidden, bits=bits, component="vision"))
    rows.append(linear("vision.merger_down", out, d["hidden"], merged * hidden, bits=bits, component="vision"))
    return rows


def window_groups(layers: IntLike, images: IntLike, height: IntLike, width: IntLike, window: IntLike) -> list[Group]:
    """(prefix, layers, batch, length) of attention within square windows of a ``height`` x ``width`` grid of patches.

    The windows at the lower and right edge are cut: up to four sizes, exact.
    """
    rows, below = height // window, height % window
    columns, beside = width // window, width % window
    lower, right = _whole(np.asarray(below) > 0), _whole(np.asarray(beside) > 0)
    groups: list[tuple[str, IntLike, Any, Any]] = [
        ("vision.window.", layers, images * rows * columns, window * window),
        ("vision.window_right.", layers, images * rows * right, window * np.maximum(beside, 1)),
        ("vision.window_lower.", layers, images * lower * columns, window * np.maximum(below, 1)),
        ("vision.window_corner.", layers, images * lower * right, np.maximum(below, 1) * np.maximum(beside, 1)),
    ]
    # A group of no window runs in no layer (a batch must be at least 1).
    return [
        (prefix, _whole(count * (np.asarray(batch) > 0)), _whole(np.maximum(batch, 1)), _whole(length))
        for prefix, count, batch, length in groups
    ]


def _whole(value: Any) -> IntLike:
    array = np.asarray(value, dtype=np.int64)
    return int(array) if array.ndim == 0 else array


def embedding_positions(prefix: str, tokens: IntLike, hidden: IntLike, entries: IntLike, bits: Bits) -> list[Operation]:
    """A learnt position table read and added."""
    return [
        embedding(f"{prefix}position_embedding", tokens, hidden, entries, bits=bits, held=tokens * hidden),
        vector(f"{prefix}embedding_add", Kind.ELEMENTWISE, "add", tokens, hidden, bits=bits, component="embedding", operands=2),
    ]
