"""Arrays out of npz archives, read or mapped, with plain numpy and never pickle."""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dse_kernels.xmc_model import ModelError

PIECE_BYTES = 1 << 18  # of a file read at once: what is copied on from it is still in the second cache
LOCAL_HEADER = 30  # bytes, the last four of them the lengths of the name and of the extra field that follow it (PKWARE's APPNOTE, 4.3.7)


def read_npz(path: Path, names: Collection[str], *, mapped: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Named arrays of an npz file. Those of ``mapped`` that stand in it uncompressed are views of the file, read-only and at any
    address: what takes them must not need aligned ones, and a file that is cut short under them ends the process, as with every mapped
    file. Raises ModelError naming file and field."""
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: cannot be read as npz (not a zip archive; truncated?)")
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:  # a broken archive is closed too
            held = set(archive.namelist())
            missing = [name for name in names if f"{name}.npy" not in held]
            if missing:
                raise ModelError(f"{path}: {missing[0]} is missing")
            whole = _map(raw) if mapped else None
            return {name: _member(archive, name, whole if name in mapped else None) for name in names}
    except FileNotFoundError:
        raise ModelError(f"{path}: is missing") from None
    except ModelError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, MemoryError, SyntaxError) as error:
        raise ModelError(f"{path}: cannot be read as npz ({type(error).__name__}: {error})") from None
    except Exception as error:  # noqa: BLE001 - zlib.error and whatever else a broken archive raises
        raise ModelError(f"{path}: cannot be read as npz ({type(error).__name__})") from None


def _map(raw: IO[bytes]) -> mmap.mmap | None:
    """The file in memory; None where the system has no map of it (some network file systems)."""
    try:
        whole = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        return None
    if hasattr(mmap, "MADV_WILLNEED"):
        whole.madvise(mmap.MADV_WILLNEED)
    return whole


def _member(archive: zipfile.ZipFile, name: str, whole: mmap.mmap | None) -> npt.NDArray[Any]:
    """An array of the archive: a view of ``whole``, the archive in memory, where it is stored as it is, else read."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        shape, dtype = _header(member, info, name)
        if whole is not None and info.compress_type == zipfile.ZIP_STORED:
            return _view(whole, info, member.tell(), shape, dtype)
        return _read(member, name, shape, dtype)


def _header(member: IO[bytes], info: zipfile.ZipInfo, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type as the member's npy header has them; that they fit the member is seen before room is made for it."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name}: version {version} of the npy format is not read")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(member)
    if dtype.hasobject or (fortran and len(shape) > 1) or info.file_size - member.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: {dtype} of shape {shape} is not what the member holds ({info.file_size} bytes)")
    return shape, dtype


def _read(member: IO[bytes], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The array straight into its own memory (numpy copies the small pieces of an archive twice). zipfile compares the CRC with the last
    piece."""
    out = np.empty(shape, dtype)
    size = out.nbytes
    into = out.reshape(-1).view(np.uint8).data if size else memoryview(b"")
    at = 0
    while at < size:
        piece = member.read(min(PIECE_BYTES, size - at))
        if not piece:
            raise EOFError(f"{name}: ends after {at} of {size} bytes")
        into[at : at + len(piece)] = piece
        at += len(piece)
    return out


def _view(whole: mmap.mmap, info: zipfile.ZipInfo, header_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The array where it stands in the file, its CRC compared. ``header_bytes`` of npy header come before it in the member."""
    lengths = struct.unpack_from("<2H", whole, info.header_offset + LOCAL_HEADER - 4)
    begin = info.header_offset + LOCAL_HEADER + sum(lengths)
    if begin + info.file_size > len(whole) or info.compress_size != info.file_size:
        raise EOFError(f"{info.filename}: {info.file_size} bytes leave the file")
    with memoryview(whole) as held, held[begin : begin + info.file_size] as member:
        if zlib.crc32(member) != info.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
    return np.frombuffer(whole, dtype, math.prod(shape), begin + header_bytes).reshape(shape)
