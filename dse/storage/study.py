"""What a search remembers: one SQLite file a study, every result a transaction of its own.

A sweep is remembered as blocks: each with its local Pareto front, the number of its points and why points of it were
infeasible. A study carries the whole description of its problem and what produced it, so that it can be finished or read
from the file alone. SQLite runs in WAL mode: a process killed at any instant loses nothing that was committed, and two
processes may work on one study (a block recorded twice holds the same result twice, and is kept once).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from dse.errors import DseError

SCHEMA_VERSION = 1
FILE_NAME = "study.db"
# Keys of the sums (SHA-256) of what was written, beside it: readers rely on every value that a study holds.
_DESCRIPTION_SUM, _RESULT_SUM = "description_sha256", "result_sha256"
_RENAMED = {"learnt": "measured"}  # keys of a description as studies of before 0.2.0 have them

_metadata = sa.MetaData()
_meta = sa.Table(
    "meta",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_blocks = sa.Table(
    "blocks",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first_model", sa.Integer, nullable=False),
    sa.Column("last_model", sa.Integer, nullable=False),  # one past the end
    sa.Column("points", sa.BigInteger, nullable=False),
    sa.Column("feasible", sa.BigInteger, nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),  # JSON: constraint -> points that break it
    sa.Column("front_models", sa.LargeBinary, nullable=False),  # little-endian int64
    sa.Column("front_hardware", sa.LargeBinary, nullable=False),  # little-endian int64
    sa.Column("front_values", sa.LargeBinary, nullable=False),  # little-endian float64, (front, objectives), minimised
)
_result = sa.Table(
    "result",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # one row, 0
    sa.Column("value", sa.Text, nullable=False),  # JSON: the front as it was reported
)


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

    def __init__(self, engine: sa.Engine, path: Path, *, read_only: bool = False) -> None:
        self._engine = engine
        self.path = path
        self.read_only = read_only
        self._file = identity(path)

    @classmethod
    def create(cls, path: Path, description: dict[str, Any]) -> Study:
        """Make a new study file that holds ``description``; an existing one is never overwritten."""
        if path.exists():
            raise DseError(f"study {path} exists already; finish it with `dse resume` or choose another --out")
        _clear(path)
        # Written whole under another name first: a kill or a full disk leaves no half study that nothing accepts.
        unborn = path.with_name(f".{path.name}.{os.getpid()}")
        draft = cls(_engine(unborn), path)
        try:
            with draft._guard("created"), draft._engine.begin() as connection:
                _metadata.create_all(connection)
                rows = {key: json.dumps(value) for key, value in {"schema_version": SCHEMA_VERSION, **description}.items()}
                rows[_DESCRIPTION_SUM] = json.dumps(_sum(rows))
                connection.execute(sa.insert(_meta), [{"key": key, "value": value} for key, value in rows.items()])
            draft.close()
            _publish(unborn, path)
        except FileExistsError:
            raise DseError(f"study {path} exists already; finish it with `dse resume` or choose another --out") from None
        finally:
            draft.close()
            for left in (unborn, *(unborn.with_name(unborn.name + end) for end in ("-wal", "-shm", "-journal"))):
                left.unlink(missing_ok=True)
        return cls(_engine(path), path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Study:
        """Open an existing study, checking that it is one and that this version can read it; ``read_only`` changes nothing of the file."""
        if not path.is_file():
            raise DseError(f"study {path} does not exist; a run folder holds a file named {FILE_NAME}")
        study = cls(_reader(path), path, read_only=True)  # what is looked at first may be somebody else's file
        try:
            with study._guard("read"):
                if not sa.inspect(study._engine).has_table("meta"):
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
        return cls(_engine(path), path)

    def _schema_version(self) -> Any:
        with self._engine.connect() as connection:
            value = connection.execute(sa.select(_meta.c.value).where(_meta.c.key == "schema_version")).scalar_one_or_none()
            return None if value is None else json.loads(value)

    def description(self) -> dict[str, Any]:
        """What the study was created with."""
        with self._guard("read"), self._engine.connect() as connection:
            rows = {key: value for key, value in connection.execute(sa.select(_meta.c.key, _meta.c.value))}  # noqa: C416 - rows are no pairs
            sums = {name: rows.pop(name, None) for name in (_DESCRIPTION_SUM, _RESULT_SUM)}
            self._check_sum(sums[_DESCRIPTION_SUM], rows)
            return {_RENAMED.get(key, key): json.loads(value) for key, value in rows.items()}

    def _check_sum(self, known: str | None, rows: Mapping[str, Any]) -> None:
        """DseError where texts are not those that were written; a study of an earlier version has no sum of them."""
        if known is not None and known != json.dumps(_sum(rows)):
            raise DseError(f"study {self.path} is damaged: what it holds is not what was written; search again")

    def record(self, block: BlockResult) -> None:
        """Commit a finished block; one that another process recorded first stays as it is."""
        values = {
            "number": block.number,
            "first_model": block.first_model,
            "last_model": block.last_model,
            "points": block.points,
            "feasible": block.feasible,
            "reasons": json.dumps(block.reasons, sort_keys=True),
            "front_models": block.front_models.astype("<i8").tobytes(),
            "front_hardware": block.front_hardware.astype("<i8").tobytes(),
            "front_values": block.front_values.astype("<f8").tobytes(),
        }
        with self._guard("written"):
            try:
                with self._engine.begin() as connection:
                    connection.execute(sa.insert(_blocks), values)
            except sa.exc.IntegrityError:
                # The primary key: another process finished this block. Blocks are deterministic, so both are the same.
                return

    def finished(self) -> set[int]:
        """Numbers of the blocks that are recorded."""
        with self._guard("read"), self._engine.connect() as connection:
            return set(connection.execute(sa.select(_blocks.c.number)).scalars())

    def blocks(self) -> Iterator[BlockResult]:
        """All recorded blocks in the order of their numbers; one that cannot be what was recorded is a DseError."""
        description = self.description()
        with self._guard("read"), self._engine.connect() as connection:
            for row in connection.execute(sa.select(_blocks).order_by(_blocks.c.number)):
                models = np.frombuffer(row.front_models, dtype="<i8").astype(np.int64)
                values = np.frombuffer(row.front_values, dtype="<f8").astype(np.float64)
                block = BlockResult(
                    row.number,
                    row.first_model,
                    row.last_model,
                    row.points,
                    row.feasible,
                    json.loads(row.reasons),
                    models,
                    np.frombuffer(row.front_hardware, dtype="<i8").astype(np.int64),
                    values.reshape(len(models), -1) if len(models) else values.reshape(0, 0),
                )
                if not _possible(block, description):
                    raise DseError(f"study {self.path} is damaged: block {block.number!r} is none of this search; search again")
                yield block

    def finish(self, result: dict[str, Any]) -> None:
        """Commit the front of a finished search, in the form in which it is reported."""
        value = json.dumps(result)
        with self._guard("written"), self._engine.begin() as connection:
            connection.execute(sa.delete(_result))
            connection.execute(sa.insert(_result), {"id": 0, "value": value})
            connection.execute(sa.delete(_meta).where(_meta.c.key == _RESULT_SUM))
            connection.execute(sa.insert(_meta), {"key": _RESULT_SUM, "value": json.dumps(_sum({"result": value}))})
        check_there(self.path, self._file)

    def result(self) -> dict[str, Any] | None:
        """What :meth:`finish` committed, or None if the search has not finished."""
        with self._guard("read"), self._engine.connect() as connection:
            value = connection.execute(sa.select(_result.c.value)).scalar_one_or_none()
            if value is None:
                return None
            known = connection.execute(sa.select(_meta.c.value).where(_meta.c.key == _RESULT_SUM)).scalar_one_or_none()
            self._check_sum(known, {"result": value})
            found: dict[str, Any] = json.loads(value)
            return found

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()

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
        except (sa.exc.DatabaseError, sqlite3.DatabaseError, ValueError, TypeError, RecursionError) as error:
            # A damaged file also holds text where bytes or JSON belong; what we write ourselves is sound, so there it is a defect.
            if action != "read" and isinstance(error, (ValueError, TypeError, RecursionError)):
                raise
            cause = getattr(error, "orig", None) or error
            raise DseError(f"study {self.path} cannot be {action}: {str(cause).rstrip('.')}") from error


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
    return block.front_values.shape[1] == len(problem["objectives"]) and bool(inside.all() and np.isfinite(block.front_values).all())


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


def _reader(path: Path) -> sa.Engine:
    """An engine that never writes, not even the journal mode; without a log nobody has the file open, and none is made beside it."""
    wal = path.with_name(path.name + "-wal")
    frozen = "" if wal.exists() else "&immutable=1"
    return sa.create_engine(f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro{frozen}&uri=true", connect_args={"timeout": 60.0})


def _engine(path: Path) -> sa.Engine:
    # A long busy time-out: two processes on one study wait for each other's short transactions.
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60.0})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            # FULL: a block is a few a second at most, so the safety against a power cut costs nothing that is felt.
            cursor.execute("PRAGMA synchronous=FULL")
        finally:
            cursor.close()

    return engine
