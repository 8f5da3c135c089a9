"""Models of images and text from dimensions: CLIP and SigLIP (two towers), vision-language models (tower, decoder)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.blocks import attention_core, bits_of, embedding, feed_forward, linear, norm, residual, vector
from workloads.decoder import Pass, decoder_phases, decoder_rows
from workloads.errors import WorkloadError
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase
from workloads.training import training_phase
from workloads.vision import embedding_positions, patch_embedding, tower_layers, window_tower_rows


def two_tower_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """A forward pass (or a training step) on ``batch`` pairs of an image and a text: both towers and all similarities."""
    rows = [*text_tower_rows(d), *image_tower_rows(d, images=d["batch"]), *_similarity_rows(d)]
    if d["phase"] == "train":
        return (training_phase(rows, d),)
    return (Phase("forward", OperationTable.from_rows(rows)),)


def text_tower_rows(d: Mapping[str, Any]) -> list[Operation]:
    """Embeddings, layers, final norm and projection of the text tower."""
    bits = bits_of(d)
    hidden, batch, length = d["hidden"], d["batch"], d["sequence"]
    tokens = batch * length
    rows = [embedding("text.token_embedding", tokens, hidden, d["vocabulary"], bits=bits)]
    rows += embedding_positions("text.", tokens, hidden, d["positions"], bits)
    rows += tower_layers(
        "text.",
        layers=d["layers"],
        hidden=hidden,
        heads=d["heads"],
        head_dim=d["head_dim"],
        ffn=d["ffn"],
        activation=d["activation"],
        images=batch,
        tokens=length,
        bits=bits,
        fused=d["fused_attention"],
        causal=d["causal_text"],
    )
    rows.append(norm("text.final_norm", tokens, hidden, function="layernorm", bits=bits, component="head"))
    rows.append(linear("text.projection", batch, d["joint"], hidden, bits=bits, bias=d["projection_bias"], component="head"))
    return rows


def image_tower_rows(d: Mapping[str, Any], *, images: IntLike, features_only: bool = False) -> list[Operation]:
    """Patches, layers and the end of an image tower of CLIP or SigLIP.

    ``features_only``: the patch vectors of layer ``vision_layers_used`` are the result (a tower of a vision-language model);
    layers and norms behind it are loaded, as published counts have them, but do not run.
    """
    bits = bits_of(d)
    hidden, heads = d["vision_hidden"], d["vision_heads"]
    clip = d["vision_tower"] == "clip"
    patches = (d["vision_image"] // d["vision_patch"]) ** 2
    tokens = patches + (1 if clip else 0)
    layers = d["vision_layers"]
    used = (d["vision_layers_used"] or layers) if features_only else layers
    rows = patch_embedding(
        images=images,
        patches=patches,
        taps=d["vision_channels"] * d["vision_patch"] ** 2,
        pixels=d["vision_channels"] * d["vision_image"] ** 2,
        hidden=hidden,
        bias=not clip,
        extra_tokens=1 if clip else 0,
        bits=bits,
        prefix="vision.",
    )
    if clip:
        rows.append(norm("vision.pre_norm", images * tokens, hidden, function="layernorm", bits=bits))
    rows += tower_layers(
        "vision.",
        layers=used,
        hidden=hidden,
        heads=heads,
        head_dim=_head_dim(d),
        ffn=d["vision_ffn"],
        activation=d["vision_activation"],
        images=images,
        tokens=tokens,
        bits=bits,
        fused=d["fused_attention"],
        loaded=layers,
    )
    if features_only:
        post = norm("vision.post_norm", images * tokens, hidden, function="layernorm", bits=bits)
        # CLIP features are taken before the last norm, SigLIP's after it.
        return [*rows, replace(post, repeat=0, copies=1) if clip else post]
    if clip:
        rows.append(norm("vision.post_norm", images, hidden, function="layernorm", bits=bits, component="head"))
        rows.append(linear("vision.projection", images, d["joint"], hidden, bits=bits, bias=False, component="head"))
        return rows
    rows.append(norm("vision.post_norm", images * tokens, hidden, function="layernorm", bits=bits, component="head"))
    return [*rows, *_attention_pool_rows(d, images, tokens)]


def _head_dim(d: Mapping[str, Any]) -> IntLike:
    """Width of a head of the image tower: its own, or its share of the tower's."""
    own, share = np.asarray(d["vision_head_dim"]), np.asarray(d["vision_hidden"]) // np.asarray(d["vision_heads"])
    width = np.where(own > 0, own, share)
    return int(width) if width.ndim == 0 else width


def _attention_pool_rows(d: Mapping[str, Any], images: IntLike, tokens: IntLike) -> list[Operation]:
    """SigLIP's head: one learnt query per image attends to its patches, then a feed-forward network (arXiv 2303.15343)."""
    bits = bits_of(d)
    hidden, heads = d["vision_hidden"], d["vision_heads"]
    wide = heads * _head_dim(d)
    common: dict[str, Any] = {"bits": bits, "component": "head"}
    query = linear("vision.pool.q_proj", images, wide, hidden, **common)
    core = attention_core(
        "vision.pool.",
        batch=images,
        heads=heads,
        kv_heads=heads,
        q_len=1,
        kv_len=tokens,
        qk_dim=_head_dim(d),
        v_dim=_head_dim(d),
        bits=bits,
        repeat=1,
        fused=d["fused_attention"],
    )
    return [
        replace(query, parameters=query.parameters + hidden),  # the learnt query itself
        linear("vision.pool.k_proj", images * tokens, wide, hidden, **common),
        linear("vision.pool.v_proj", images * tokens, wide, hidden, **common),
        *core,
        linear("vision.pool.o_proj", images, hidden, wide, **common),
        norm("vision.pool.norm", images, hidden, function="layernorm", **common),
        *feed_forward(
            hidden=hidden,
            ffn=d["vision_ffn"],
            tokens=images,
            activation=d["vision_activation"],
            bits=bits,
            repeat=1,
            prefix="vision.pool.",
            component="head",
        ),
        residual("vision.pool.residual", images, hidden, bits=bits, repeat=1, component="head"),
    ]


def _similarity_rows(d: Mapping[str, Any]) -> list[Operation]:
    """Unit vectors of both towers and the product of every text with every image, scaled (and shifted)."""
    bits = bits_of(d)
    batch, joint = d["batch"], d["joint"]
    product = Operation(
        "similarity",
        Kind.GEMM,
        batch,
        batch,
        joint,
        component="head",
        input_bits=bits.activations,
        weight_bits=bits.activations,
        output_bits=bits.activations,
    )
    return [
        vector("normalise", Kind.NORM, "rmsnorm", 2 * batch, joint, bits=bits, component="head"),
        product,
        vector(
            "similarity_scale",
            Kind.ELEMENTWISE,
            "scale",
            batch,
            batch,
            bits=bits,
            component="head",
            parameters=1 if d["vision_tower"] == "clip" else 2,
        ),
    ]


def vlm_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """Phases of a vision-language model: ``vision``, then those of its decoder over picture and text tokens.

    ``sequence`` is the text of the prompt; ``images`` pictures of ``image_height`` x ``image_width`` (towers with a fixed
    resolution resize them: ``views`` crops of a picture), or ``frames`` frames of a video.
    """
    rows, seen = vision_rows(d)
    inner = {**d, "sequence": d["sequence"] + seen}
    if d["phase"] == "train":
        return (training_phase([*rows, *decoder_rows(inner, Pass(inner["sequence"], inner["sequence"]))], d),)
    language = decoder_phases(inner)
    vision = Phase("vision", OperationTable.from_rows(rows), runs=0.0 if isinstance(seen, int) and seen == 0 else 1.0)
    if d["phase"] == "decode":
        vision = replace(vision, runs=0.0)
    return (vision, *[replace(phase, after=phase.after or ("vision",)) for phase in language])


def vision_rows(d: Mapping[str, Any]) -> tuple[list[Operation], IntLike]:
    """Rows of tower and projector for one batch of requests, and the language tokens that a request gets from them."""
    if d["vision_tower"] == "window":
        return _native_resolution_rows(d)
    pictures = d["frames"] if d["frames"] else d["images"] * d["views"]
    shown = d["batch"] * (pictures if not isinstance(pictures, int) else max(pictures, 1))
    rows = image_tower_rows(d, images=shown, features_only=True)
    patches = (d["vision_image"] // d["vision_patch"]) ** 2
    tokens = d["video_tokens"] if d["frames"] else d["image_tokens"]
    tokens = tokens or patches
    rows += _projector_rows(d, shown, patches, tokens)
    return rows, pictures * tokens


def _projector_rows(d: Mapping[str, Any], pictures: IntLike, patches: IntLike, tokens: IntLike) -> list[Operation]:
    bits = bits_of(d)
    wide, hidden = d["vision_hidden"], d["hidden"]
    common: dict[str, Any] = {"bits": bits, "component": "vision"}
    rows: list[Operation] = []
    if d["projector"] == "pool_norm_linear":
        rows.append(vector("vision.pool", Kind.ELEMENTWISE, "add", pictures * patches, wide, **common))
        rows.append(norm("vision.projector_norm", pictures * tokens, wide, function="rmsnorm", **common))
        rows.append(linear("vision.projector", pictures * tokens, hidden, wide, bias=False, **common))
        return rows
    # LLaVA projects every patch; where a video gets fewer tokens, they are pooled after it.
    total = pictures * patches
    extra = hidden if d["newline_token"] else 0
    first = linear("vision.projector_up", total, hidden, wide, **common)
    rows.append(replace(first, parameters=first.parameters + extra))
    rows.append(vector("vision.projector_gelu", Kind.ACTIVATION, "gelu", total, hidden, **common))
    rows.append(linear("vision.projector_down", total, hidden, hidden, **common))
    if d["frames"] and d["video_tokens"]:
        rows.append(vector("vision.pool", Kind.ELEMENTWISE, "add", total, hidden, **common))
    return rows


def _native_resolution_rows(d: Mapping[str, Any]) -> tuple[list[Operation], IntLike]:
    """Qwen's tower: pictures are resized to multiples of patch x merge pixels; two frames of a video make one grid."""
    side = d["vision_patch"] * d["vision_merge"]
    high, wide = -(-d["image_height"] // side), -(-d["image_width"] // side)
    grids = -(-d["frames"] // d["vision_temporal_patch"]) if d["frames"] else d["images"]
    if isinstance(grids, int) and isinstance(high, int) and isinstance(wide, int) and not d["frames"]:
        limit = d["max_image_tokens"]
        if high * wide > limit:
            raise WorkloadError(
                f"image_height x image_width is {d['image_height']} x {d['image_width']}, which is {high * wide} tokens, "
                f"must be at most {limit} tokens of {side} x {side} pixels; nearest is to scale both sides by "
                f"{(limit / (high * wide)) ** 0.5:.3f}"
            )
    shown = d["batch"] * (grids if not isinstance(grids, int) else max(grids, 1))
    rows = window_tower_rows(d, images=shown, height=high * d["vision_merge"], width=wide * d["vision_merge"])
    return rows, grids * high * wide
