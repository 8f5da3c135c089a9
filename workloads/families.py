"""The kinds of model by name: their knobs, limits, valid combinations and model spaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workloads.convnet import CONVNET
from workloads.cutting import cut_grid, trained_grid
from workloads.decoder import decoder_phases
from workloads.detector import DETECTOR
from workloads.encdec import encdec_phases
from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.family import Builder, Grid
from workloads.head_map import parse_head_map
from workloads.knobs import Knob, TextKnob, require_at_most, require_divisible
from workloads.multimodal import two_tower_phases, vlm_phases
from workloads.music.family import music_builder
from workloads.ssm import mamba_phases
from workloads.training import OPTIMIZERS
from workloads.transformer import encoder_phases
from workloads.vision import vit_phases
from workloads.xmc.workload import check_trees, default_grid, xmc_phases

_BITS = (1, 2, 3, 4, 6, 8, 16, 32)
_NARROWEST_BERT = 128


def _named(knobs: Iterable[Knob]) -> dict[str, Knob]:
    return {knob.name: knob for knob in knobs}


_COMMON_SETTINGS = (
    Knob("batch", "requests that are computed together", 1, 2**20, setting=True),
    Knob("weight_bits", "bits of a parameter", choices=_BITS, setting=True),
    Knob("activation_bits", "bits of an activation", choices=(4, 8, 16, 32), setting=True),
    Knob("kv_bits", "bits of an element of the KV cache", choices=(2, 3, 4, 8, 16, 32), setting=True),
    Knob("fused_attention", "attention as one operation that never writes its scores", choices=(True, False), setting=True),
    Knob("lora_rank", "rank of the trained adapters on a frozen base (0: train everything)", 0, 2**14, setting=True),
    Knob("optimizer", "optimizer of a training step", choices=tuple(OPTIMIZERS), setting=True),
)
_COMMON_DEFAULTS: dict[str, Any] = {
    "batch": 1,
    "weight_bits": 8,
    "activation_bits": 8,
    "kv_bits": 8,
    "fused_attention": False,
    "lora_rank": 0,
    "optimizer": "adamw",
}
_SEQUENCE = Knob("sequence", "tokens of one request (of its prompt, where tokens are generated)", 1, 2**24, setting=True)
_GENERATION_SETTINGS = (
    Knob("new_tokens", "tokens that are generated", 1, 2**24, setting=True),
    Knob("context", "keys that a decode step attends to (0: the sequence)", 0, 2**24, setting=True),
    Knob("kv_growth", "how a generation is laid out", choices=("summed", "stepwise"), setting=True),
)
_GENERATION_DEFAULTS: dict[str, Any] = {"new_tokens": 128, "context": 0, "kv_growth": "summed"}
_ALL_LOGITS = Knob("all_logits", "logits of every prompt token, not of the last alone", choices=(True, False), setting=True)
_FORWARD = Knob("phase", "what is run", choices=("forward", "train"), setting=True)
_LANGUAGE = Knob("phase", "what is run", choices=("prefill", "decode", "generate", "train"), setting=True)

_LAYERS = Knob("layers", "transformer layers", 1, 4096)
_HIDDEN = Knob("hidden", "width of the residual stream", 1, 2**20)
_HEADS = Knob("heads", "query heads", 1, 2**14)
_KV_HEADS = Knob("kv_heads", "key and value heads", 1, 2**14)
_HEAD_DIM = Knob("head_dim", "width of one head", 1, 2**14)
_FFN = Knob("ffn", "width inside the feed-forward network", 1, 2**22)
_VOCABULARY = Knob("vocabulary", "entries of the token table", 1, 2**26)
_POSITIONS = Knob("positions", "longest sequence of the model", 1, 2**26)


def plain_head_dim(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """Multi-head attention at full width: head_dim = hidden / heads unless it is given."""
    if "head_dim" not in given and (given & {"hidden", "heads"} or not values.get("head_dim")):
        require_divisible(values, "hidden", "heads", model)
        values["head_dim"] = values["hidden"] // values["heads"]


# ---- encoders ----


def _check_encoder(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    plain_head_dim(values, given, model)
    require_at_most(values, "sequence", "positions", model, "the position table holds no more")


def _encoder_default_grid(values: Mapping[str, Any]) -> Grid:
    # The narrowest BERT that was published is 128 wide; what is narrower was trained from scratch.
    return trained_grid(values) if values["hidden"] < _NARROWEST_BERT else _bert_default_grid(values)


def _bert_default_grid(values: Mapping[str, Any]) -> Grid:
    layers, hidden = (axis.reshape(-1) for axis in np.meshgrid(np.arange(2, 13), np.arange(128, 769, 64), indexing="ij"))
    columns = {"layers": layers, "hidden": hidden, "ffn": 4 * hidden, "heads": hidden // 64}
    return {name: column.astype(np.int64) for name, column in columns.items()}


def _bert_catransformers_grid(values: Mapping[str, Any]) -> Grid:
    # That tool's space: layers 6..12; ffn and hidden 1..16 sixteenths of 3072 and 768; heads {4, 6, 8, 12}, head_dim
    # hidden/heads (facebookresearch/CATransformers@ad8c859). The grid is given in physical values.
    sixteenths = np.arange(1, 17)
    axes = np.meshgrid(np.arange(6, 13), 48 * sixteenths, 192 * sixteenths, np.array([4, 6, 8, 12]), indexing="ij")
    return {name: axis.reshape(-1).astype(np.int64) for name, axis in zip(("layers", "hidden", "ffn", "heads"), axes, strict=True)}


ENCODER = Builder(
    name="encoder",
    knobs=_named((_LAYERS, _HIDDEN, _FFN, _HEADS, _HEAD_DIM, _VOCABULARY, _POSITIONS, _SEQUENCE, _FORWARD, *_COMMON_SETTINGS)),
    defaults={
        "head_dim": 0,
        "token_types": 2,
        "position_offset": 0,
        "pooler": True,
        "token_classes": 0,
        "activation": "gelu",
        "sequence": 512,
        "phase": "forward",
        **_COMMON_DEFAULTS,
    },
    check=_check_encoder,
    phases=encoder_phases,
    grids={"default": _encoder_default_grid, "catransformers": _bert_catransformers_grid, "pruned": cut_grid},
)

# ---- decoders ----

_DECODER_KNOBS = (
    *(_LAYERS, _HIDDEN, _FFN, _HEADS, _KV_HEADS, _HEAD_DIM, _VOCABULARY, _POSITIONS),
    TextKnob("head_map", "query heads by KV head in unequal groups, name:heads/kv_heads,... (empty: equal groups)", parse=parse_head_map),
    Knob("window", "keys that a layer with a window attends to (0: no window)", 0, 2**24),
    Knob("experts", "experts of a mixture layer (0: dense)", 0, 2**16),
    Knob("top_k", "experts that a token uses", 0, 2**16),
    Knob("expert_ffn", "width inside an expert", 0, 2**22),
    Knob("shared_experts", "experts that every token uses", 0, 2**10),
    Knob("dense_layers", "first layers with a dense feed-forward network", 0, 4096),
    Knob("mla_q_lora", "rank of the latent queries (0: none)", 0, 2**16),
    Knob("mla_kv_lora", "rank of the latent keys and values (0: no latent attention)", 0, 2**16),
    Knob("mla_rope", "rotary elements of a latent-attention head", 0, 2**12),
    Knob("mla_nope", "other key elements of a latent-attention head", 0, 2**12),
    Knob("mla_v", "value elements of a latent-attention head", 0, 2**12),
)
_DECODER_SETTINGS = (
    _SEQUENCE,
    *_GENERATION_SETTINGS,
    _ALL_LOGITS,
    _LANGUAGE,
    Knob("imbalance", "load of the busiest expert over the mean", 1, 2**16, setting=True, real=True),
    *_COMMON_SETTINGS,
)
_DECODER_DEFAULTS: dict[str, Any] = {
    "norm": "rmsnorm",
    "post_norm": False,
    "sandwich_norms": False,
    "parallel_block": False,
    "final_norm": True,
    "position": "rope",
    "position_offset": 0,
    "rotary_dim": 0,
    "embedding": 0,
    "scale_embeddings": False,
    "qkv_bias": False,
    "out_bias": False,
    "qk_norm": False,
    "sinks": False,
    "attention_softcap": False,
    "logit_softcap": False,
    "window": 0,
    "window_period": 1,
    "local_per_period": 1,
    "ffn": 1,
    "gated": True,
    "ffn_bias": False,
    "activation": "silu",
    "head": True,
    "tied": False,
    "experts": 0,
    "top_k": 0,
    "expert_ffn": 0,
    "shared_experts": 0,
    "dense_layers": 0,
    "expert_bias": False,
    "router_bias": False,
    "router_correction": False,
    "router_scoring": "softmax",
    "mla_q_lora": 0,
    "mla_kv_lora": 0,
    "mla_rope": 0,
    "mla_nope": 0,
    "mla_v": 0,
    "head_dim": 0,
    "kv_heads": 0,
    "head_map": "",
    "sequence": 512,
    "all_logits": False,
    "phase": "generate",
    "imbalance": 1.0,
    **_GENERATION_DEFAULTS,
    **_COMMON_DEFAULTS,
}


def _check_head_map(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """A head map says the KV heads; it must have the model's query heads."""
    chosen = parse_head_map(values["head_map"])
    if not isinstance(values["heads"], int) or chosen.heads != values["heads"]:
        raise WorkloadError(f"head_map of {model} has {chosen.heads} query heads, must have heads = {shorten(values['heads'])}")
    if "kv_heads" in given and not np.all(np.asarray(values["kv_heads"]) == chosen.kv_heads):
        raise WorkloadError(
            f"kv_heads of {model} is {shorten(values['kv_heads'])}, must be {chosen.kv_heads} as its head_map has; "
            f"nearest is {chosen.kv_heads}"
        )
    for name, what in (("mla_kv_lora", "latent attention"), ("sinks", "attention sinks")):
        if not _is_zero(values[name]) and values[name] is not False:
            raise WorkloadError(f"head_map of {model} is given, must be left out with {what}")
    values["kv_heads"] = chosen.kv_heads


def _check_decoder(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    own_width = isinstance(values["head_dim"], int) and values["head_dim"] > 0
    plain = own_width and not ("hidden" in given or "heads" in given)
    if not plain and "head_dim" not in given and values["width_follows_heads"]:
        # Heads that split the residual stream keep on doing so.
        require_divisible(values, "hidden", "heads", model)
        values["head_dim"] = values["hidden"] // values["heads"]
    if _is_zero(values["kv_heads"]) or ("heads" in given and "kv_heads" not in given and values["multi_head"]):
        values["kv_heads"] = values["heads"]
    if values["head_map"]:
        _check_head_map(values, given, model)
    else:
        require_divisible(values, "heads", "kv_heads", model)
    if values["phase"] == "generate":
        longest = {"sequence + new_tokens": values["sequence"] + values["new_tokens"], "positions": values["positions"]}
        require_at_most(longest, "sequence + new_tokens", "positions", model, "the model knows no more positions")
    else:
        require_at_most(values, "sequence", "positions", model, "the model knows no more positions")
        require_at_most(values, "context", "positions", model, "the model knows no more positions")
    if not _is_zero(values["experts"]):
        require_at_most(values, "top_k", "experts", model, "a token uses an expert once")
        require_at_most(values, "dense_layers", "layers", model, "there are no more layers")
        for name in ("top_k", "expert_ffn"):
            if np.any(np.asarray(values[name]) < 1):
                raise WorkloadError(f"{name} of {model} is 0, must be at least 1 where experts are used; nearest is 1")


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0


DECODER = Builder(
    name="decoder",
    knobs=_named((*_DECODER_KNOBS, *_DECODER_SETTINGS)),
    # width_follows_heads: heads x head_dim = hidden by construction; multi_head: as many key as query heads.
    defaults={**_DECODER_DEFAULTS, "width_follows_heads": False, "multi_head": False},
    check=_check_decoder,
    phases=decoder_phases,
    grids={"default": trained_grid, "pruned": cut_grid},
)


def _check_mamba(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    if "inner" not in given and ("hidden" in given or _is_zero(values["inner"])):
        values["inner"] = 2 * values["hidden"]
    if "delta_rank" not in given and ("hidden" in given or _is_zero(values["delta_rank"])):
        values["delta_rank"] = -(-values["hidden"] // 16)


MAMBA = Builder(
    name="mamba",
    knobs=_named(
        (
            _LAYERS,
            _HIDDEN,
            _VOCABULARY,
            Knob("inner", "channels of the recurrence (default 2 x hidden)", 1, 2**22),
            Knob("state", "states of a channel", 1, 2**12),
            Knob("taps", "taps of the causal convolution", 1, 64),
            Knob("delta_rank", "rank of the step size (default hidden / 16)", 1, 2**16),
            _SEQUENCE,
            *_GENERATION_SETTINGS,
            _ALL_LOGITS,
            _LANGUAGE,
            *_COMMON_SETTINGS,
        )
    ),
    defaults={
        "inner": 0,
        "state": 16,
        "taps": 4,
        "delta_rank": 0,
        "tied": True,
        "sequence": 512,
        "all_logits": False,
        "phase": "generate",
        **_GENERATION_DEFAULTS,
        **_COMMON_DEFAULTS,
    },
    check=_check_mamba,
    phases=mamba_phases,
)

# ---- encoder-decoders ----


def _check_encdec(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    if values["width_follows_heads"]:
        plain_head_dim(values, given, model)
    if values["audio"]:
        require_at_most(values, "sequence", "source_positions", model, "frames of the longest recording")
    if values["target_positions"]:
        longest = "target" if values["phase"] in ("forward", "train") else "new_tokens"
        require_at_most(values, longest, "target_positions", model, "the position table holds no more")


ENCDEC = Builder(
    name="encoder-decoder",
    knobs=_named(
        (
            Knob("encoder_layers", "layers of the encoder", 1, 4096),
            Knob("decoder_layers", "layers of the decoder", 1, 4096),
            *(_HIDDEN, _FFN, _HEADS, _HEAD_DIM, _VOCABULARY),
            Knob("mels", "channels of the spectrogram", 1, 2**12),
            Knob(
                "sequence",
                "tokens of the source, or encoder frames of the recording (two spectrogram frames each)",
                1,
                2**24,
                setting=True,
            ),
            Knob("target", "tokens of the decoder, where it runs over all at once", 1, 2**24, setting=True),
            *_GENERATION_SETTINGS,
            Knob("phase", "what is run", choices=("forward", "decode", "generate", "train"), setting=True),
            *_COMMON_SETTINGS,
        )
    ),
    defaults={
        "head_dim": 0,
        "width_follows_heads": True,
        "norm": "layernorm",
        "bias": True,
        "key_bias": True,
        "gated": False,
        "activation": "gelu",
        "tied": True,
        "scale_logits": False,
        "audio": False,
        "mels": 80,
        "source_positions": 0,
        "target_positions": 0,
        "relative_buckets": 0,
        "sequence": 512,
        "target": 128,
        "phase": "generate",
        **_GENERATION_DEFAULTS,
        **_COMMON_DEFAULTS,
    },
    check=_check_encdec,
    phases=encdec_phases,
)

# ---- pictures ----

_IMAGE = Knob("image", "pixels of a side of the picture", 1, 2**16)
_PATCH = Knob("patch", "pixels of a side of a patch", 1, 2**12)


def _check_vit(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    plain_head_dim(values, given, model)
    require_divisible(values, "image", "patch", model)


VIT = Builder(
    name="vit",
    knobs=_named((_LAYERS, _HIDDEN, _FFN, _HEADS, _HEAD_DIM, _IMAGE, _PATCH, _FORWARD, *_COMMON_SETTINGS)),
    defaults={"head_dim": 0, "channels": 3, "classes": 1000, "activation": "gelu", "phase": "forward", **_COMMON_DEFAULTS},
    check=_check_vit,
    phases=vit_phases,
    grids={"default": trained_grid, "pruned": cut_grid},
)

_VISION_KNOBS = (
    Knob("vision_layers", "layers of the image tower", 1, 4096),
    Knob("vision_hidden", "width of the image tower", 1, 2**20),
    Knob("vision_heads", "heads of the image tower", 1, 2**14),
    Knob("vision_head_dim", "width of one of them (0: vision_hidden / vision_heads)", 0, 2**14),
    Knob("vision_ffn", "width inside its feed-forward networks", 1, 2**22),
    Knob("vision_image", "pixels of a side of the picture that the tower sees", 1, 2**16),
    Knob("vision_patch", "pixels of a side of a patch", 1, 2**12),
)


def _vision_head_dim(values: dict[str, Any], model: str) -> None:
    """Heads that have no width of their own split the tower's."""
    hidden, heads, own = np.broadcast_arrays(values["vision_hidden"], values["vision_heads"], values["vision_head_dim"])
    shared = own == 0
    if shared.any():
        require_divisible({"vision_hidden": hidden[shared], "vision_heads": heads[shared]}, "vision_hidden", "vision_heads", model)


def _check_two_tower(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    plain_head_dim(values, given, model)
    _vision_head_dim(values, model)
    require_at_most(values, "sequence", "positions", model, "the position table holds no more")


TWO_TOWER = Builder(
    name="two-tower",
    knobs=_named(
        (
            *(_LAYERS, _HIDDEN, _FFN, _HEADS, _HEAD_DIM, _VOCABULARY, _POSITIONS),
            *_VISION_KNOBS,
            Knob("joint", "width of the space that both towers share", 1, 2**16),
            *(_SEQUENCE, _FORWARD, *_COMMON_SETTINGS),
        )
    ),
    defaults={
        "head_dim": 0,
        "vision_head_dim": 0,
        "vision_channels": 3,
        "vision_tower": "clip",
        "vision_activation": "quick_gelu",
        "activation": "quick_gelu",
        "causal_text": True,
        "projection_bias": False,
        "sequence": 77,
        "phase": "forward",
        **_COMMON_DEFAULTS,
    },
    check=_check_two_tower,
    phases=two_tower_phases,
)


def _check_vlm(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    _check_decoder(values, given, model)
    _vision_head_dim(values, model)
    if values["vision_tower"] == "window":
        if np.any(values["vision_head_dim"]):
            raise WorkloadError(
                f"vision_head_dim of {model} is {shorten(values['vision_head_dim'])}, must be 0: its window tower splits its width"
            )
        require_at_most(values, "vision_full_layers", "vision_layers", model, "there are no more layers")


VLM = Builder(
    name="vlm",
    knobs=_named(
        (
            *_DECODER_KNOBS,
            *_VISION_KNOBS,
            Knob("images", "pictures of a request", 0, 2**12, setting=True),
            Knob("views", "crops (and overview) that the tower sees of a picture", 1, 2**8, setting=True),
            Knob("frames", "frames of a request's video, in place of pictures (0: none)", 0, 2**20, setting=True),
            Knob("image_height", "pixels, where the tower takes pictures as they are", 1, 2**16, setting=True),
            Knob("image_width", "pixels, where the tower takes pictures as they are", 1, 2**16, setting=True),
            *_DECODER_SETTINGS,
        )
    ),
    defaults={
        **DECODER.defaults,
        "vision_head_dim": 0,
        "vision_channels": 3,
        "vision_tower": "clip",
        "vision_layers_used": 0,
        "vision_activation": "gelu",
        "vision_norm": "layernorm",
        "vision_gated": False,
        "vision_image": 0,
        "vision_temporal_patch": 2,
        "vision_merge": 2,
        "vision_window": 8,
        "vision_full_layers": 0,
        "projector": "mlp",
        "newline_token": False,
        "image_tokens": 0,
        "video_tokens": 0,
        "max_image_tokens": 1280,
        "images": 1,
        "views": 1,
        "frames": 0,
        "image_height": 448,
        "image_width": 448,
        "sequence": 32,
    },
    check=_check_vlm,
    phases=vlm_phases,
)

# ---- extreme multi-label trees ----

XMC = Builder(
    name="xmc",
    knobs=_named(
        (
            Knob("ngrams", "longest n-gram of words among the features", 1, 8),
            Knob("branch", "children of a node of the tree", 2, 2**16),
            Knob("leaf", "labels of a cluster at most", 1, 2**20),
            Knob("threshold_milli", "weights below this many thousandths are pruned", 0, 10**6),
            Knob("weight_bits", "bits of a stored weight's value", choices=(8, 16, 32)),
            Knob("beam", "nodes kept at each level", 1, 2**20),
            Knob("batch", "queries that are answered together", 1, 2**20, setting=True),
        )
    ),
    # table: which measured trees.
    defaults={"table": "xmc-wordnet", "batch": 1},
    check=check_trees,
    phases=xmc_phases,
    grids={"default": default_grid},
)

MUSIC = music_builder(DECODER)

BUILDERS: dict[str, Builder] = {
    item.name: item for item in (ENCODER, DECODER, MAMBA, ENCDEC, VIT, TWO_TOWER, VLM, XMC, MUSIC, DETECTOR, CONVNET)
}


def builder(name: str) -> Builder:
    """Return the builder of that name: the package's, or an entry point of an installed package in the group ``dse.families``."""
    if name in BUILDERS:
        return BUILDERS[name]
    from importlib.metadata import entry_points  # 20 ms

    found: Builder | None = next((point.load() for point in entry_points(group="dse.families", name=name)), None)
    if found is None:
        raise unknown_name("family", name, BUILDERS)
    return found
