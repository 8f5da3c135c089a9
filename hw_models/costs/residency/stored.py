"""Sums of models on designs that were found before, in the user's cache folder: a search that is begun again does not map again.

What is stored is what the kernel answered, under a hash of everything that it was given (the models and designs as arrays, the criterion)
and of the kernel itself, so that an entry holds for ever or is never asked for again; no version needs to be told. Bits are those of the
first time. An entry is a `.npz` of plain arrays, whose checksums are read with it: one that is damaged, of another form or of another shape
is as good as none. Where the folder cannot be written nothing is stored, and nothing is said.

`DSE_CACHE` names the folder; `DSE_CACHE=off` stores and reads nothing. Without it, it is `dse` in `XDG_CACHE_HOME`, or in `~/.cache`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels import _kernels, residency

VARIABLE = "DSE_CACHE"
OFF = "off"
FORM = "residency-1"
"""Of an entry; another one where its columns change."""
COLUMNS: dict[str, type[np.generic]] = {"latency_s": np.float64, "energy_j": np.float64, "peak_w": np.float64, "pinned": np.bool_}
"""What an entry holds, arrays (models, designs)."""
MOST_BYTES, MOST_ENTRY_BYTES = 256 << 20, 64 << 20
"""Of the folder, beyond which the entries that were used longest ago go, and of one entry, beyond which it is not stored."""
_LEAST_WORK, _LEAST_DESIGNS = 5000, 64
"""Distinct products times designs, and designs, below which nothing is stored: a search of so few is about as fast as the disk. Samples of
a space whose time tells what a sweep would take are of fewer designs, so that they tell the same each time.
"""


def folder() -> Path | None:
    """Where entries are, or None where nothing is stored."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() == OFF:
        return None
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of the variable: a path that is not absolute is ignored.
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dse"
    except RuntimeError:  # nobody's home
        return None


@cache
def _kernel() -> bytes:
    """The kernel that answers, as a hash of its file."""
    return hashlib.blake2b(Path(str(_kernels.__file__)).read_bytes(), digest_size=32).digest()


def key(arrays: residency.Arrays, points: residency.Points, *settings: object) -> str:
    """The name of the entry for these models on these designs: a hash of all that the answer depends on."""
    told = hashlib.blake2b(_kernel(), digest_size=32)
    told.update(repr((FORM, settings)).encode())
    for value in (*arrays, *points):
        column = np.ascontiguousarray(value)
        told.update(repr((column.dtype.str, column.shape)).encode())
        told.update(column.data)
    return told.hexdigest()


def worth_it(arrays: residency.Arrays, designs: int) -> bool:
    """Whether an answer is dear enough to be stored and small enough."""
    width = sum(np.dtype(kind).itemsize for kind in COLUMNS.values())
    enough = designs >= _LEAST_DESIGNS and len(arrays.shapes) * designs >= _LEAST_WORK
    return enough and len(arrays.weight_bits) * designs * width <= MOST_ENTRY_BYTES


def read(name: str, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]] | None:
    """The columns of an entry, or None where there is none that can be used."""
    where = folder()
    if where is None:
        return None
    path = where / f"{name}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            found = {column: entry[column] for column in COLUMNS}
    except Exception:  # noqa: BLE001  (whatever is wrong with it, the answer is found again)
        return None
    if any(found[column].dtype != kind or found[column].shape != shape for column, kind in COLUMNS.items()):
        return None
    with suppress(OSError):
        os.utime(path)  # used last of all
    return found


def write(name: str, columns: dict[str, Any]) -> None:
    """Store an entry of arrays, whole or not at all, and let go of the oldest beyond what the folder may hold."""
    where = folder()
    if where is None:
        return
    with suppress(OSError):
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=where, prefix=f"{name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **columns)
            Path(part).replace(where / f"{name}.npz")
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        _prune(where)


def _prune(where: Path) -> None:
    entries = []
    for path in _mine(where.iterdir()):
        with suppress(OSError):  # another process was faster
            told = path.stat()
            entries.append((told.st_mtime_ns, told.st_size, path))
    held = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if held <= MOST_BYTES:
            break
        with suppress(OSError):
            path.unlink()
        held -= size


def _mine(paths: Iterable[Path]) -> Iterable[Path]:
    """Entries and what was left of one that was not written to its end; a folder that is named may hold other files."""
    for path in paths:
        hashed = path.name.partition(".")[0]
        if path.suffix in (".npz", ".part") and len(hashed) == 64 and set(hashed) <= set("0123456789abcdef"):
            yield path
