"""Decode attention: one new token a row against a cache, query heads sharing KV heads through any map.

``kv_of_head[h]`` is the KV head that query head h reads: multi-head, grouped-query, multi-query and unequal groups are one
function. Caches are float32, bfloat16 (torch tensors, arrays of ml_dtypes, or their bits as uint16) or quantised bytes
(:class:`Int8Cache`). Arrays of numpy and CPU tensors of torch are used where they lie; results have the kind and dtype of
``q``. Any strides but the last axis's, which must be 1: a cache stored (rows, KV heads, tokens, d) is passed transposed.

Every argument is checked before the cache is read: ValueError names it. The code for the machine's instruction set is chosen at
run time (:func:`instruction_sets`); results of two sets agree to 1e-5 in float32 and 1e-2 in bfloat16, and are the same bits for any
number of threads. References: :mod:`dse_kernels.attention_reference`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

# Below this many bytes of cache a thread, starting it costs more than it saves.
BYTES_PER_THREAD = 1 << 20
QUANT_BLOCK = 16
_HUGE_PAGE = 1 << 21


def instruction_sets() -> list[str]:
    """Instruction sets that the kernels are compiled for and this machine has, best first; ``plain`` is always there."""
    return list(_kernels.attention_instruction_sets())


def decode(
    q: Any, k: Any, v: Any, kv_of_head: Any, lengths: Any, *, scale: float | None = None, threads: int | None = None, instructions: str = ""
) -> Any:
    """Return (rows, heads, d): ``softmax(scale * q K^T) V`` of every query head over its KV head.

    ``q`` (rows, heads, d); ``k``, ``v`` (rows, tokens, KV heads, d); ``kv_of_head`` (heads,); ``lengths`` (rows,), or (rows, KV heads)
    where KV heads hold different numbers of tokens: the first that many are read, 1 to all. ``scale``: 1 / sqrt(d) unless given.
    ``threads``: as many as pay unless given. ``instructions``: one of :func:`instruction_sets` (the best). ValueError: see the module.
    """
    q_view, k_view, v_view = _view(q, "q"), _view(k, "k"), _view(v, "v")
    out, result = _like(q, q_view)
    sums = _int64(lengths, "lengths")
    rest = (_scale(scale, q_view), _threads(threads, k_view.nbytes * 2), instructions, out)
    _kernels.attention_decode(q_view, k_view, v_view, _int64(kv_of_head, "kv_of_head"), sums, *rest)
    return result


def decode_paged(
    q: Any,
    k_pages: Any,
    v_pages: Any,
    block_table: Any,
    lengths: Any,
    kv_of_head: Any,
    *,
    scale: float | None = None,
    threads: int | None = None,
    instructions: str = "",
) -> Any:
    """The same over pages: ``k_pages``, ``v_pages`` (pages, page tokens, KV heads, d); ``block_table`` (rows, blocks).

    Token t of row b is token ``t % page`` of page ``block_table[b, t // page]``; entries that no length reaches are not looked at.
    """
    q_view, k_view, v_view = _view(q, "q"), _view(k_pages, "k_pages"), _view(v_pages, "v_pages")
    table = _int64(block_table, "block_table")
    if table.ndim != 2:
        raise ValueError(f"block_table has {table.ndim} axes, must have 2 (rows, blocks)")
    narrow = np.ascontiguousarray(np.clip(table, -1, 2**31 - 1).astype(np.int32))
    out, result = _like(q, q_view)
    rest = (_scale(scale, q_view), _threads(threads, k_view.nbytes * 2), instructions, out)
    _kernels.attention_decode_paged(q_view, k_view, v_view, narrow, _int64(lengths, "lengths"), _int64(kv_of_head, "kv_of_head"), *rest)
    return result


def decode_shared(
    q: Any,
    prefix_k: Any,
    prefix_v: Any,
    k: Any,
    v: Any,
    kv_of_head: Any,
    lengths: Any,
    *,
    scale: float | None = None,
    threads: int | None = None,
    instructions: str = "",
) -> Any:
    """The same where all rows begin with one prefix: ``prefix_k``, ``prefix_v`` (tokens, KV heads, d), then their own ``k``, ``v``.

    The prefix is read once for all rows, as one product of their stacked queries (Hydragen, arXiv:2402.05099), and merged with the
    rest by the sums of exponentials. ``lengths`` count a row's own tokens and may be 0.
    """
    q_view, k_view, v_view = _view(q, "q"), _view(k, "k"), _view(v, "v")
    prefix = (_view(prefix_k, "prefix_k"), _view(prefix_v, "prefix_v"))
    out, result = _like(q, q_view)
    rest = (_scale(scale, q_view), _threads(threads, (k_view.nbytes + prefix[0].nbytes) * 2), instructions, out)
    _kernels.attention_decode_shared(q_view, *prefix, k_view, v_view, _int64(kv_of_head, "kv_of_head"), _int64(lengths, "lengths"), *rest)
    return result


@dataclass(frozen=True, eq=False)
class Int8Cache:
    """Keys and values as bytes with a scale a token and head, in the layout that byte products read.

    Attributes:
        k, v: uint8 (rows, KV heads, capacity, d), value + 128 and the bits of a signed value, opaque inside a KV head (blocks of 16 tokens,
            interleaved).
        k_scale, v_scale: float32 (rows, KV heads, capacity).
        lengths: int64 (rows,): tokens that each row holds; :func:`append` moves it on.
    """

    k: npt.NDArray[np.uint8]
    v: npt.NDArray[np.uint8]
    k_scale: npt.NDArray[np.float32]
    v_scale: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, rows: int, capacity: int, kv_heads: int, d: int) -> Int8Cache:
        """A cache for up to ``capacity`` tokens (rounded up to a multiple of 16); ``d`` a multiple of 4 up to 256."""
        for name, value, most in (("rows", rows, 2**24), ("capacity", capacity, 2**30), ("kv_heads", kv_heads, 4096)):
            if not 1 <= value <= most:
                raise ValueError(f"{name} is {value}, must be 1 to {most}")
        if d % 4 or not 4 <= d <= 256:
            raise ValueError(f"d is {d}, must be a multiple of 4 from 4 to 256; nearest is {min(256, max(4, d // 4 * 4))}")
        whole = -(-capacity // QUANT_BLOCK) * QUANT_BLOCK
        k, v = _one_after_another((rows, kv_heads, whole, d), 2)
        k_scale, v_scale = (np.zeros((rows, kv_heads, whole), np.float32) for _ in range(2))
        return cls(k, v, k_scale, v_scale, np.zeros(rows, np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and scales: 2 d + 8 a token and KV head."""
        return self.k.nbytes + self.v.nbytes + self.k_scale.nbytes + self.v_scale.nbytes

    def dequantised(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Keys and values (rows, capacity, KV heads, d) as float32."""
        rows, kv_heads, capacity, d = self.k.shape
        blocks = capacity // QUANT_BLOCK
        k = (self.k ^ 0x80).view(np.int8).reshape(rows, kv_heads, blocks, d // 4, QUANT_BLOCK, 4).transpose(0, 2, 4, 1, 3, 5)
        v = self.v.view(np.int8).reshape(rows, kv_heads, blocks, 4, d, 4).transpose(0, 2, 3, 5, 1, 4)
        plain = [x.reshape(rows, capacity, kv_heads, d).astype(np.float32) for x in (k, v)]
        return plain[0] * self.k_scale.transpose(0, 2, 1)[..., None], plain[1] * self.v_scale.transpose(0, 2, 1)[..., None]


def append(cache: Int8Cache, k: Any, v: Any) -> None:
    """Quantise tokens behind the last of every row: ``k``, ``v`` (rows, KV heads, d), or (rows, tokens, KV heads, d) for several.

    The largest magnitude of a token and head becomes 127, so that an element is off by at most half its scale. ValueError, and the cache
    as it was, where they do not fit.
    """
    new = [_float32(x, name) for x, name in ((k, "k"), (v, "v"))]
    new = [x[:, None] if x.ndim == 3 else x for x in new]
    for x, name in zip(new, ("k", "v"), strict=True):
        if x.ndim != 4:
            raise ValueError(f"{name} has {x.ndim} axes, must have 3 (rows, KV heads, d) or 4 (rows, tokens, KV heads, d)")
    _kernels.attention_append_int8(cache.k, cache.v, cache.k_scale, cache.v_scale, *new, cache.lengths)
    cache.lengths[:] += new[0].shape[1]


def decode_int8(
    q: Any,
    cache: Int8Cache,
    kv_of_head: Any,
    lengths: Any = None,
    *,
    scale: float | None = None,
    threads: int | None = None,
    instructions: str = "",
) -> Any:
    """Attention over a quantised cache, (rows, heads, d) of the kind of ``q`` (float32 or bfloat16); ``lengths``: the cache's own.

    Probabilities are rounded to 254 steps of the largest of their 64 tokens, which adds about as much error as the rounding of the values;
    docs/models/attention.md states both bounds.
    """
    q_view = _view(q, "q")
    out, result = _like(q, q_view)
    used = cache.lengths if lengths is None else _int64(lengths, "lengths")
    rest = (_scale(scale, q_view), _threads(threads, cache.nbytes), instructions, out)
    _kernels.attention_decode_int8(q_view, cache.k, cache.v, cache.k_scale, cache.v_scale, _int64(kv_of_head, "kv_of_head"), used, *rest)
    return result


def _one_after_another(shape: tuple[int, ...], count: int) -> list[npt.NDArray[np.uint8]]:
    """Arrays of zero bytes in one piece of memory that begins where a huge page does: each by itself would end on small pages."""
    size = math.prod(shape)
    memory = np.zeros(count * size + _HUGE_PAGE, np.uint8)
    first = -memory.ctypes.data % _HUGE_PAGE
    return [memory[first + i * size : first + (i + 1) * size].reshape(shape) for i in range(count)]


def _view(x: Any, name: str) -> npt.NDArray[Any]:
    """The array itself, bfloat16 as its bits; nothing is copied."""
    if type(x).__module__.partition(".")[0] == "torch":
        import torch

        if x.device.type != "cpu":
            raise ValueError(f"{name} is on device {x.device}, must be on the CPU")
        x = x.detach()
        array: npt.NDArray[Any] = x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()
    elif isinstance(x, np.ndarray):
        array = x.view(np.uint16) if x.dtype.name == "bfloat16" else x
    else:
        raise ValueError(f"{name} is a {type(x).__name__}, must be an array of numpy or a tensor of torch")
    if array.dtype not in (np.float32, np.uint16) or not array.dtype.isnative:
        raise ValueError(f"{name} has dtype {x.dtype}, must be float32 or bfloat16")
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise ValueError(
            f"{name} has strides {array.strides} in bytes or an address that are no multiples of its {array.itemsize} bytes an element"
        )
    return array


def _float32(x: Any, name: str) -> npt.NDArray[np.float32]:
    array = _view(x, name)
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array, dtype=np.float32)


def _like(q: Any, view: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Any]:
    """(memory that the kernel writes, what the caller gets)."""
    if isinstance(q, np.ndarray):
        out: npt.NDArray[Any] = np.empty(view.shape, view.dtype)
        return out, out if q.dtype == view.dtype else out.view(q.dtype)
    import torch

    made = torch.empty(q.shape, dtype=q.dtype)
    return _view(made, "out"), made


def _int64(x: Any, name: str) -> npt.NDArray[np.int64]:
    array = x.detach().numpy() if type(x).__module__.partition(".")[0] == "torch" else np.asarray(x)
    if array.dtype.kind not in "iu" or (array.dtype.kind == "u" and array.size and array.max() > 2**63 - 1):
        raise ValueError(f"{name} has dtype {array.dtype}, must be whole numbers")
    return np.ascontiguousarray(array, dtype=np.int64)


def _scale(scale: float | None, q: npt.NDArray[Any]) -> float:
    if scale is None:
        return float(max(1, q.shape[-1] if q.ndim else 1) ** -0.5)
    return float(scale)


def _threads(threads: int | None, cache_bytes: int) -> int:
    if threads is not None:
        return int(threads)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, cache_bytes // BYTES_PER_THREAD))
