"""Attention that says what it is: one operator in place of what a model of transformers would run, with its mask spelled out.

Models of transformers hand queries, keys and values to a function that is looked up by name, and masks to another. Ours
keep attention as one node of the exported graph: the key and value heads as they are stored (no copies for the query heads),
whether it is causal, its window or chunk, its learnt sinks. Models that do not ask for such a function export what they run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

IMPLEMENTATION = "dse_attention"
# A name with "flash", by which models hand over packed sequences whole, with their lengths, in place of cutting them up.
PACKED_IMPLEMENTATION = "dse_flash_attention"


def register() -> str:
    """Make the operators and the functions known to torch and transformers; return the name to ask for them. Idempotent."""
    import torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if IMPLEMENTATION in AttentionInterface._global_mapping:
        return IMPLEMENTATION

    attention = torch.library.custom_op("dse::attention", _attention_shape, mutates_args=(), schema=_ATTENTION)
    attention.register_fake(_attention_shape)
    mask = torch.library.custom_op("dse::mask", _mask_shape, mutates_args=(), schema=_MASK)
    mask.register_fake(_mask_shape)
    for name in (IMPLEMENTATION, PACKED_IMPLEMENTATION):
        AttentionInterface.register(name, _attention)
        AttentionMaskInterface.register(name, _mask)
    return IMPLEMENTATION


_ATTENTION = (
    "(Tensor query, Tensor key, Tensor value, Tensor? mask, Tensor? sinks, Tensor? ends, bool causal, int window, bool softcap) -> Tensor"
)
_MASK = "(Tensor like, int batch, int queries, int keys, bool causal, int window, int chunk) -> Tensor"


def _attention_shape(query: Any, key: Any, value: Any, mask: Any, sinks: Any, ends: Any, causal: bool, window: int, softcap: bool) -> Any:
    """Shapes only: (batch, heads, queries, width) to (batch, queries, heads, value width)."""
    return query.new_empty((query.shape[0], query.shape[2], query.shape[1], value.shape[3]))


def _mask_shape(like: Any, batch: int, queries: int, keys: int, causal: bool, window: int, chunk: int) -> Any:
    """Stands for a mask (batch, 1, queries, keys); what it hides is in its arguments."""
    import torch

    return torch.empty((batch, 1, queries, keys), dtype=torch.bool, device=like.device)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: Any = None,
    s_aux: Any = None,
    cu_seq_lens_q: Any = None,
    **others: Any,
) -> tuple[Any, None]:
    """The attention function; arguments and result as those of transformers."""
    import torch

    if position_bias is not None:
        attention_mask = position_bias if attention_mask is None else position_bias + attention_mask
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is not None and cu_seq_lens_q is None:
        causal = False  # the mask says it
    window = sliding_window if isinstance(sliding_window, int) and sliding_window > 0 else 0
    made = torch.ops.dse.attention(
        query, key, value, attention_mask, s_aux, cu_seq_lens_q, bool(causal), window, softcap is not None
    )  # fmt: skip
    return made, None


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any] | None = None,
    allow_is_bidirectional_skip: bool = False,
    local_size: int | None = None,
    device: Any = None,
    **others: Any,
) -> Any:
    """The mask function: which pairs are visible is read off the functions that make up ``mask_function``."""
    import torch

    parts = _names(mask_function)
    causal = any("causal_mask_function" in part for part in parts)
    local = local_size if isinstance(local_size, int) and local_size > 0 else 0
    chunked = any("chunked" in part for part in parts)
    if not causal and not local and allow_is_bidirectional_skip:
        return None
    like = torch.empty((), device=device if device is not None else "meta")
    window, chunk = (0, local) if chunked else (local, 0)
    return torch.ops.dse.mask(like, int(batch_size), int(q_length), int(kv_length), causal, window, chunk)


def _names(function: Any, depth: int = 0) -> list[str]:
    """Names of a function and of those that it closes over."""
    if not callable(function) or depth > 8:
        return []
    names = [str(getattr(function, "__qualname__", ""))]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        for item in content if isinstance(content, (list, tuple)) else (content,):
            names += _names(item, depth + 1)
    return names
