"""The definition of decode attention in plain numpy, float64 inside: what the kernels are tested against.

Query head h of row b attends to the first ``lengths[b]`` tokens of KV head ``kv_of_head[h]``:
``out = softmax(scale * q . K^T) V``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


def decode_reference(
    q: FloatArray, k: FloatArray, v: FloatArray, kv_of_head: IntArray, lengths: IntArray, scale: float | None = None
) -> FloatArray:
    """(rows, heads, d) from q (rows, heads, d), k and v (rows, tokens, KV heads, d); lengths (rows,) or (rows, KV heads)."""
    out = np.empty(q.shape)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    for b, h in np.ndindex(q.shape[:2]):
        kv = int(kv_of_head[h])
        n = int(lengths[b] if np.ndim(lengths) == 1 else lengths[b, kv])
        scores = factor * (k[b, :n, kv].astype(np.float64) @ q[b, h].astype(np.float64))
        weights = np.exp(scores - scores.max())
        out[b, h] = (weights / weights.sum()) @ v[b, :n, kv].astype(np.float64)
    return out


def gather_pages(pages: FloatArray, block_table: IntArray, tokens: int) -> FloatArray:
    """(rows, tokens, KV heads, d) from pages (pages, page tokens, KV heads, d): the cache that a table describes.

    Entries of the table behind the last page in use are not read; they may hold anything.
    """
    page = pages.shape[1]
    used = -(-tokens // page)
    rows = [pages[np.clip(row[:used], 0, len(pages) - 1)].reshape(-1, *pages.shape[2:])[:tokens] for row in block_table]
    return np.stack(rows)


def decode_paged_reference(
    q: FloatArray,
    k_pages: FloatArray,
    v_pages: FloatArray,
    block_table: IntArray,
    lengths: IntArray,
    kv_of_head: IntArray,
    scale: float | None = None,
) -> FloatArray:
    """The same over pages."""
    tokens = int(np.max(lengths))
    k, v = (gather_pages(pages, block_table, tokens) for pages in (k_pages, v_pages))
    return decode_reference(q, k, v, kv_of_head, lengths, scale)


def decode_shared_reference(
    q: FloatArray,
    prefix_k: FloatArray,
    prefix_v: FloatArray,
    k: FloatArray,
    v: FloatArray,
    kv_of_head: IntArray,
    lengths: IntArray,
    scale: float | None = None,
) -> FloatArray:
    """The same where every row's tokens come after a prefix (tokens, KV heads, d) that all rows share."""
    rows = len(q)
    whole_k, whole_v = (np.concatenate([np.broadcast_to(p, (rows, *p.shape)), own], axis=1) for p, own in ((prefix_k, k), (prefix_v, v)))
    return decode_reference(q, whole_k, whole_v, kv_of_head, np.asarray(lengths) + len(prefix_k), scale)


def quantise_reference(x: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """(values of -127..127, scale) of the last axis: the largest magnitude becomes 127; zeros have scale 0."""
    scale = np.abs(x).max(axis=-1).astype(np.float32) / np.float32(127)
    by = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    return np.clip(np.rint(x.astype(np.float32) * by[..., None]), -127, 127).astype(np.int8), scale


def merge_reference(parts: list[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Attention over all keys from (value, log-sum-exp of the scores) of disjoint parts of them: associative."""
    values, sums = [p[0] for p in parts], np.stack([p[1] for p in parts])
    weights = np.exp(sums - sums.max(axis=0))
    total: FloatArray = sum(w[..., None] * value for w, value in zip(weights, values, strict=True)) / weights.sum(axis=0)[..., None]
    return total
