"""The kernel's block of bytes, written: a tree's levels into chunks, in memory or into a file that can be mapped.

The layout is told in ``kernels/src/xmc_format.h``. Reference for what it holds: ``xmc_reference``.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels
from dse_kernels.xmc_model import ModelError, Ranker, check_ranker, entries_as_bytes

ByteArray = npt.NDArray[np.uint8]

VALUES = ("float32", "float16", "int8")
CHUNK_COLUMNS = 256
LINE = 64
PART_NONZEROS = 1 << 20
FILE_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("levels", "<u4"),
        ("values", "<u4"),
        ("features", "<u8"),
        ("labels", "<u8"),
        ("leaves", "<u8"),
        ("bytes", "<u8"),
        ("hash_bits", "<u4"),
        ("reserved", "<u4"),
        ("labels_offset", "<u8"),
        ("unused", "<u8", 8),
    ]
)
LEVEL_HEADER = np.dtype(
    [
        *((name, "<u8") for name in ("parents", "nodes", "chunks", "nonzeros", "parent_offset", "chunk_offset", "bias_offset")),
        *((name, "<u8") for name in ("scale_offset", "blob_offset", "blob_bytes")),
        *(("bias", "<f4"), ("only_topk", "<u4"), ("post_processor", "S24")),
    ]
)
CHUNK_HEAD = np.dtype(
    [
        ("start", "<u8"),
        ("first", "<u4"),
        ("rows", "<u4"),
        ("bytes", "<u4"),
        ("nonzeros", "<u4"),
        ("width", "<u2"),
        ("log_buckets", "u1"),
        ("key_bytes", "u1"),
        ("reserved", "<u4"),
    ]
)


@dataclass(frozen=True)
class Columns:
    """A run of a level's nodes: their weights by column and the number of children of each parent, in position order.

    ``order`` (positions,) is the column of each position; ``families`` (parents,) are the children of the parents of this run.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    data: npt.NDArray[np.float32]
    order: npt.NDArray[np.uint32]
    families: npt.NDArray[np.int64]


@dataclass(frozen=True)
class LevelSource:
    """A level to be written: its settings and its nodes, run after run (so that a level need not fit in memory)."""

    rows: int
    bias: float
    post_processor: str
    only_topk: int
    runs: Iterator[Columns]


class _Sink(Protocol):
    def append(self, block: npt.NDArray[Any]) -> None: ...


class _Memory:
    """Bytes side by side from an address that is a multiple of 64. The room is a guess that is made larger where it does not do; pages
    of it that nothing is written to are never taken."""

    def __init__(self, guess: int) -> None:
        self._room, self.used = _lines(guess), 0

    def append(self, block: npt.NDArray[Any]) -> None:
        flat = np.ascontiguousarray(block).view(np.uint8).reshape(-1)
        if self.used + flat.size > self._room.size:
            larger = _lines(2 * (self.used + flat.size))
            larger[: self.used] = self._room[: self.used]
            self._room = larger
        self._room[self.used : self.used + flat.size] = flat
        self.used += flat.size

    def whole(self) -> ByteArray:
        """What was appended."""
        return self._room[: self.used]


def _lines(size: int) -> ByteArray:
    """Room at an address that is a multiple of 64, in pages of the usual size: where a virtual machine's free memory has gone back to its
    host, a huge page (which numpy asks for) takes four milliseconds to come, whole or not; queries are no faster for it."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        room = np.empty(size + LINE, np.uint8)
        begin = -room.ctypes.data % LINE
        return room[begin : begin + size]
    return np.frombuffer(mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8, size)


@dataclass
class _File:
    handle: Any

    def append(self, block: npt.NDArray[Any]) -> None:
        self.handle.write(np.ascontiguousarray(block).view(np.uint8).reshape(-1).data)


def sources_of(ranker: Ranker) -> tuple[list[LevelSource], npt.NDArray[np.uint32]]:
    """The levels of a ranker in position order, and the label of each leaf position."""
    above = np.zeros(1, np.int64)
    sources: list[LevelSource] = []
    for level in ranker.levels:
        starts, ends = level.parents.indptr[above], level.parents.indptr[above + 1]
        sizes = (ends - starts).astype(np.int64)
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = level.parents.indices[np.repeat(starts.astype(np.int64), sizes) + within]
        w = level.weights
        run = Columns(
            w.indptr.astype(np.int64),
            np.ascontiguousarray(w.indices, np.int32),
            np.ascontiguousarray(w.data, np.float32),
            order.astype(np.uint32),
            sizes,
        )
        sources.append(LevelSource(w.shape[0], float(level.bias), level.post_processor, level.only_topk, iter([run])))
        above = order.astype(np.int64)
    return sources, above.astype(np.uint32)


def to_memory(ranker: Ranker, values: str, *, checked: bool = False) -> ByteArray:
    """The ranker as the kernel's bytes, at an address that is a multiple of 64; ``checked`` where ``check_ranker`` has seen it."""
    sources, leaves = sources_of(ranker if checked else check_ranker(ranker))
    above = _header_bytes(len(sources))
    # A weight takes its value, a column, and its share of keys and offsets: 7 to 10 bytes in float32.
    sink = _Memory(above + sum(level.nonzeros * 12 + level.weights.shape[1] * 64 for level in ranker.levels) + 2**16)
    sink.append(np.zeros(above, np.uint8))
    header = _write(sink, sources, leaves, ranker.features, ranker.labels, values)
    out = sink.whole()
    out[:above] = header
    return out


def to_file(
    path: Path, sources: Sequence[LevelSource], leaves: npt.NDArray[np.uint32], features: int, labels: int, values: str = "float32"
) -> None:
    """Write the bytes to ``path``, level by level: the file appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as handle:
            handle.write(bytes(_header_bytes(len(sources))))
            header = _write(_File(handle), sources, leaves, features, labels, values)
            handle.seek(0)
            handle.write(header.tobytes())
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _header_bytes(levels: int) -> int:
    return -(-(FILE_HEADER.itemsize + levels * LEVEL_HEADER.itemsize) // LINE) * LINE


def _write(
    sink: _Sink, sources: Sequence[LevelSource], leaves: npt.NDArray[np.uint32], features: int, labels: int, values: str
) -> ByteArray:
    """Append everything but the headers, which are returned, padded to a line."""
    if values not in VALUES:
        raise ModelError(f"weights {values!r} is not one of {', '.join(VALUES)}")
    if features < 1 or features > 2**31:
        raise ModelError(f"features: {features} is not in 1..2^31")
    code = VALUES.index(values)
    bits = max(1, int(features - 1).bit_length())
    header = np.zeros(_header_bytes(len(sources)), np.uint8)
    heads = header[FILE_HEADER.itemsize : FILE_HEADER.itemsize + len(sources) * LEVEL_HEADER.itemsize].view(LEVEL_HEADER)
    at = header.size

    def put(block: npt.NDArray[Any]) -> int:
        nonlocal at
        begin = at
        sink.append(block)
        at += block.nbytes
        if at % LINE:
            sink.append(np.zeros(-at % LINE, np.uint8))
            at += -at % LINE
        return begin

    nodes_above = 1
    for head, source in zip(heads, sources, strict=True):
        chunks: list[npt.NDArray[Any]] = []
        biases: list[npt.NDArray[np.float32]] = []
        scales: list[npt.NDArray[np.float32]] = []
        families: list[npt.NDArray[np.int64]] = []
        nodes, blob_start = 0, at
        for run in (part for whole in source.runs for part in _parts(whole)):
            first = _split(run.families)
            built = _kernels.xmc_build(
                *(run.indptr, entries_as_bytes(run.indices, np.int32), entries_as_bytes(run.data, np.float32)),
                *(source.rows, run.order, first, code, bits),
                *(source.bias, source.bias > 0, nodes, at - blob_start),
            )
            chunks.append(built[0].view(CHUNK_HEAD))
            biases.append(built[1])
            scales.append(built[2])
            families.append(run.families)
            put(built[3])
            nodes += run.order.size
        put(np.zeros(LINE, np.uint8))
        blob_bytes = at - blob_start
        sizes = np.concatenate(families)
        if sizes.size != nodes_above:
            raise ModelError(f"C: names {sizes.size} parents, the level above has {nodes_above} nodes")
        first_chunk = np.concatenate([[0], np.cumsum(-(-sizes // CHUNK_COLUMNS))]).astype(np.uint32)
        heads_of = np.concatenate(chunks)
        head["parents"], head["nodes"], head["chunks"] = nodes_above, nodes, heads_of.size
        head["nonzeros"] = int(heads_of["nonzeros"].sum(dtype=np.int64))
        head["parent_offset"], head["chunk_offset"] = put(first_chunk), put(heads_of)
        head["bias_offset"] = put(np.concatenate(biases))
        head["scale_offset"] = put(np.concatenate(scales)) if values == "int8" else 0
        head["blob_offset"], head["blob_bytes"] = blob_start, blob_bytes
        head["bias"], head["only_topk"], head["post_processor"] = source.bias, source.only_topk, source.post_processor.encode()
        nodes_above = nodes
    top = header[: FILE_HEADER.itemsize].view(FILE_HEADER)[0]
    top["magic"], top["levels"], top["values"] = b"DSEXMC01", len(sources), code
    top["features"], top["labels"], top["leaves"] = features, labels, leaves.size
    top["hash_bits"], top["labels_offset"] = bits, put(np.ascontiguousarray(leaves, np.uint32))
    top["bytes"] = at
    return header


def _parts(run: Columns) -> Iterator[Columns]:
    """The run in pieces of about ``PART_NONZEROS`` weights, families whole: what is made of one piece is small enough to be made in memory
    that the one before it used."""
    ends = np.cumsum(run.families)
    weights = np.concatenate([[0], np.cumsum(np.diff(run.indptr)[run.order])])[ends] if ends.size else ends
    begin = 0
    while begin < run.families.size:
        done = int(weights[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(weights, done + PART_NONZEROS, side="right")))
        first = int(ends[begin - 1]) if begin else 0
        yield Columns(run.indptr, run.indices, run.data, run.order[first : int(ends[end - 1])], run.families[begin:end])
        begin = end


def _split(families: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """First position of each chunk, and the end: a family in equal parts of at most 256 children; empty families have none."""
    parts = -(-families // CHUNK_COLUMNS)
    ends = np.cumsum(families)
    owner = np.repeat(np.arange(families.size), parts)
    number = np.arange(owner.size) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = ends[owner] - families[owner] + number * families[owner] // np.maximum(parts[owner], 1)
    return np.append(begin, ends[-1] if ends.size else 0).astype(np.uint32)
