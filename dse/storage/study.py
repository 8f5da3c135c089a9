"""What a search remembers: one SQLite file a study, every result a transaction of its own.

A sweep is remembered as blocks: each with its local Pareto front, the number of its points and why points of it were
infeasible. A study carries the whole description of its problem and what produced it, so that it can be finished or read
from the file alone. SQLite runs in WAL mode: a process killed at any instant loses nothing that was committed, and two
processes may work on one study (a block recorded twice holds the same result twice, and is kept once). What a sweep needs is a
handful of statements on a local file, by the standard library's driver: SQLAlchemy, which takes longer to import than the sweep of a
small space, is for trials, which may lie in any database.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from dse.errors import DseError

if TYPE_CHECKING:
    import sqlalchemy as sa

SCHEMA_VERSION = 1
FILE_NAME = "study.db"
# Keys of the sums (SHA-256) of what was written, beside it: readers rely on every value that a study holds.
_DESCRIPTION_SUM, _RESULT_SUM = "description_sha256", "result_sha256"
_RENAMED = {"learnt": "measured"}  # keys of a description as studies of before 0.2.0 have them

# The tables of a study. Trials have tables of their own beside them (`dse.storage.trials`).
_SCHEMA = (
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)",
    # first_model..last_model - 1; reasons: JSON, constraint -> points that break it; fronts: little-endian int64, int64 and float64
    # (front, objectives), minimised
    """CREATE TABLE blocks (
        number INTEGER NOT NULL PRIMARY KEY, first_model INTEGER NOT NULL, last_model INTEGER NOT NULL, points BIGINT NOT NULL,
        feasible BIGINT NOT NULL, reasons TEXT NOT NULL,
        front_models BLOB NOT NULL, front_hardware BLOB NOT NULL, front_values BLOB NOT NULL
    )""",
    "CREATE TABLE result (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL)",  # one row, 0: JSON, the front as it was reported
)
# FULL: a block is a few a second at most, so the safety against a power cut costs nothing that is felt.
_PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
_BUSY_SECONDS = 60.0  # two processes on one study wait for each other's short transactions


@dataclass(frozen=True)
class BlockResult:
    """A block of models swept over the whole hardware space."""

    number: int
    first_model: int
    last_model: int
    points: int
    feasible: int
    reasons: dict[str, int]
    front_models: npt.NDArray[np.int64]
    front_hardware: npt.NDArray[np.int64]
    front_values: npt.NDArray[np.float64]


class Study:
    """An open study; use :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, *, read_only: bool = False, file: Path | None = None) -> None:
        """``file`` is where it lies until it has its name."""
        self.path = path
        self.read_only = read_only
        self._at = file or path
        self._file = identity(path)
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = _read_only(self._at) if self.read_only else _writable(self._at, draft=self._at != self.path)
        return self._opened

    @cached_property
    def engine(self) -> sa.Engine:
        """The same file for SQLAlchemy, as the trials in it are stored; released with the study."""
        return reader_engine(self.path) if self.read_only else file_engine(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @classmethod
    def create(cls, path: Path, description: dict[str, Any]) -> Study:
        """Make a new study file that holds ``description``; an existing one is never overwritten."""
        if path.exists():
            raise DseError(f"study {path} exists already; finish it with `dse resume` or choose another --out")
        _clear(path)
        # Written whole under another name first: a kill or a full disk leaves no half study that nothing accepts.
        unborn = path.with_name(f".{path.name}.{os.getpid()}")
        draft = cls(path, file=unborn)
        try:
            with draft._guard("created"), draft._transaction() as connection:
                for statement in _SCHEMA:
                    connection.execute(statement)
                rows = {key: json.dumps(value) for key, value in {"schema_version": SCHEMA_VERSION, **description}.items()}
                rows[_DESCRIPTION_SUM] = json.dumps(_sum(rows))
                connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", list(rows.items()))
            draft.close()
            _flush(unborn)
            _publish(unborn, path)
        except FileExistsError:
            raise DseError(f"study {path} exists already; finish it with `dse resume` or choose another --out") from None
        finally:
            draft.close()
            for left in (unborn, *(unborn.with_name(unborn.name + end) for end in ("-wal", "-shm", "-journal"))):
                left.unlink(missing_ok=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Study:
        """Open an existing study, checking that it is one and that this version can read it; ``read_only`` changes nothing of the file."""
        if not path.is_file():
            raise DseError(f"study {path} does not exist; a run folder holds a file named {FILE_NAME}")
        study = cls(path, read_only=True)  # what is looked at first may be somebody else's file
        try:
            with study._guard("read"):
                if not study._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'"):
                    raise DseError(f"study {path} is not a study: it has no table named meta")
                version = study._schema_version()
            if version != SCHEMA_VERSION:
                raise DseError(f"study {path} has schema version {version!r}; this version reads {SCHEMA_VERSION}")
            study.description()
        except DseError:
            study.close()
            raise
        if read_only:
            return study
        study.close()
        _clear(path)
        return cls(path)

    def _schema_version(self) -> Any:
        value = self._value("SELECT value FROM meta WHERE key = 'schema_version'")
        return None if value is None else json.loads(value)

    def _value(self, query: str, *values: Any) -> Any:
        """The first column of the first row; None where there is none."""
        rows = self._rows(query, *values)
        return rows[0][0] if rows else None

    def description(self) -> dict[str, Any]:
        """What the study was created with."""
        with self._guard("read"):
            rows: dict[str, Any] = dict(self._rows("SELECT key, value FROM meta"))
            sums = {name: rows.pop(name, None) for name in (_DESCRIPTION_SUM, _RESULT_SUM)}
            self._check_sum(sums[_DESCRIPTION_SUM], rows)
            return {_RENAMED.get(key, key): json.loads(value) for key, value in rows.items()}

    def _check_sum(self, known: str | None, rows: Mapping[str, Any]) -> None:
        """DseError where texts are not those that were written; a study of an earlier version has no sum of them."""
        if known is not None and known != json.dumps(_sum(rows)):
            raise DseError(f"study {self.path} is damaged: what it holds is not what was written; search again")

    def record(self, block: BlockResult) -> None:
        """Commit a finished block; one that another process recorded first stays as it is."""
        fronts = (block.front_models.astype("<i8"), block.front_hardware.astype("<i8"), block.front_values.astype("<f8"))
        counts = (block.number, block.first_model, block.last_model, block.points, block.feasible)
        values = (*counts, json.dumps(block.reasons, sort_keys=True), *(part.tobytes() for part in fronts))
        # The primary key: where another process has finished this block first, its row stays. Both are the same.
        with self._guard("written"), suppress(sqlite3.IntegrityError), self._transaction() as connection:
            connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def finished(self) -> set[int]:
        """Numbers of the blocks that are recorded."""
        with self._guard("read"):
            return {number for (number,) in self._rows("SELECT number FROM blocks")}

    def blocks(self) -> Iterator[BlockResult]:
        """All recorded blocks in the order of their numbers; one that cannot be what was recorded is a DseError."""
        description = self.description()
        with self._guard("read"):
            rows = self._rows("SELECT * FROM blocks ORDER BY number")
            for number, first, last, points, feasible, reasons, front_models, front_hardware, front_values in rows:
                models = np.frombuffer(front_models, dtype="<i8").astype(np.int64)
                values = np.frombuffer(front_values, dtype="<f8").astype(np.float64)
                block = BlockResult(
                    number,
                    first,
                    last,
                    points,
                    feasible,
                    json.loads(reasons),
                    models,
                    np.frombuffer(front_hardware, dtype="<i8").astype(np.int64),
                    values.reshape(len(models), -1) if len(models) else values.reshape(0, 0),
                )
                if not _possible(block, description):
                    raise DseError(f"study {self.path} is damaged: block {block.number!r} is none of this search; search again")
                yield block

    def finish(self, result: dict[str, Any]) -> None:
        """Commit the front of a finished search, in the form in which it is reported."""
        value = json.dumps(result)
        with self._guard("written"), self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO result (id, value) VALUES (0, ?)", (value,))
            known = json.dumps(_sum({"result": value}))
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_RESULT_SUM, known))
        check_there(self.path, self._file)

    def result(self) -> dict[str, Any] | None:
        """What :meth:`finish` committed, or None if the search has not finished."""
        with self._guard("read"):
            value = self._value("SELECT value FROM result")
            if value is None:
                return None
            known = self._value("SELECT value FROM meta WHERE key = ?", _RESULT_SUM)
            self._check_sum(known, {"result": value})
            found: dict[str, Any] = json.loads(value)
            return found

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
        if "engine" in self.__dict__:  # made where it was asked for
            self.engine.dispose()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _guard(self, action: str) -> Iterator[None]:
        """Turn what the database reports into one sentence that names the file."""
        try:
            if action == "written":
                check_there(self.path, self._file)
            yield
        except DseError:
            raise
        except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
            # A damaged file also holds text where bytes or JSON belong; what we write ourselves is sound, so there it is a defect.
            if action != "read" and isinstance(error, (ValueError, TypeError, RecursionError)):
                raise
            raise DseError(f"study {self.path} cannot be {action}: {str(error).rstrip('.')}") from error


def _possible(block: BlockResult, description: Mapping[str, Any]) -> bool:
    """Whether the parts of a block agree with each other and with the search that it is of."""
    numbers = (block.number, block.first_model, block.last_model, block.points, block.feasible)
    counts = block.reasons.values() if isinstance(block.reasons, dict) else (None,)
    if not all(isinstance(number, int) and number >= 0 for number in (*numbers, *counts)):
        return False
    if not len(block.front_models) == len(block.front_hardware) == len(block.front_values):
        return False
    bounds, problem = description.get("bounds"), description.get("problem")
    if not len(block.front_models) or not bounds or not isinstance(problem, dict):
        return True
    models = block.last_model - block.first_model
    points = bounds[-1][1] if description.get("shards") else block.points // models if models > 0 else 0
    inside = (block.front_models >= block.first_model) & (block.front_models < block.last_model)
    inside &= (block.front_hardware >= 0) & (block.front_hardware < points)
    objectives = problem.get("objectives")
    if not isinstance(objectives, list) or block.front_values.shape[1] != len(objectives):
        return False
    return bool(inside.all() and np.isfinite(block.front_values).all())


def _sum(rows: Mapping[str, Any]) -> str:
    return hashlib.sha256("\n".join(f"{key}={rows[key]}" for key in sorted(rows)).encode("utf-8", "surrogatepass")).hexdigest()


def _clear(path: Path) -> None:
    """Remove what processes that were killed at the birth of this study have left behind."""
    for left in path.parent.glob(f".{path.name}.*"):
        owner = left.name.removeprefix(f".{path.name}.").partition("-")[0]
        if owner.isdigit() and not _runs(int(owner)):
            left.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another of the same name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_there(path: Path, known: tuple[int, int] | None) -> None:
    """A file that was removed or replaced while it was open takes what is written to it along: DseError."""
    if known is not None and identity(path) != known:
        raise DseError(f"study {path} was removed or replaced while it was being written; what was found since is lost, search again")


def _publish(unborn: Path, path: Path) -> None:
    """Give a file its name; FileExistsError if another process was first. A link, unlike a rename, never replaces a file."""
    try:
        os.link(unborn, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        unborn.rename(path)


def _flush(path: Path) -> None:
    """Have a file's bytes on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _writable(path: Path, *, draft: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Nobody else sees a draft, and it is flushed once, whole: six waits for the disk less.
        for statement in ("PRAGMA synchronous=OFF", "PRAGMA journal_mode=WAL") if draft else _PRAGMAS:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(_frozen_uri(path), uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _frozen_uri(path: Path) -> str:
    """Of a file that is never written, not even its journal mode; without a log nobody has it open, and none is made beside it."""
    wal = path.with_name(path.name + "-wal")
    frozen = "" if wal.exists() else "&immutable=1"
    return f"file:{quote(str(path.absolute()))}?mode=ro{frozen}"


def reader_engine(path: Path) -> sa.Engine:
    """An engine that never writes to a SQLite file."""
    import sqlalchemy as sa

    return sa.create_engine(f"sqlite:///{_frozen_uri(path)}&uri=true", connect_args={"timeout": _BUSY_SECONDS})


def file_engine(path: Path) -> sa.Engine:
    """An engine on a SQLite file, set up as a study is."""
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        try:
            for statement in _PRAGMAS:
                cursor.execute(statement)
        finally:
            cursor.close()

    return engine
