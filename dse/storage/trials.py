"""Trials: dear evaluations, remembered in the study's own database and claimed in one transaction.

A trial is a row from the moment it is asked for. Its number is the primary key and its parameters are unique within the
study, so two processes that work on one study can neither take the same number nor propose the same design: the loser's
transaction fails, it reads what the other has claimed and proposes again. A row whose owner died is taken over with its
number, parameters and seed, which makes a resumed study the study that it would have been.

The storage is the SQLite file of the study, or any SQLAlchemy URL (PostgreSQL for studies shared over a network,
where SQLite's WAL mode is not safe); ``study`` tells the studies of one database apart.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dse.errors import DseError
from dse.quality.measured import design_key
from dse.storage.study import Study, check_there, file_engine, identity, reader_engine
from dse.storage.trial import CANCELLED, FAILED, RUNNING, TIMED_OUT, Proposal, Trial, trial_of_row, trial_seed

SCHEMA_VERSION = 1
# A claim is renewed by its driver every third of this; a claim on another machine that is older is taken over.
LEASE_SECONDS = 60.0
_NUMBERS_A_QUERY = 500

_metadata = sa.MetaData()
_trials = sa.Table(
    "trials",
    _metadata,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String(1000), nullable=False),  # canonical parameters, fidelity and replicate
    sa.Column("parameters", sa.Text, nullable=False),  # JSON
    sa.Column("fidelity", sa.Double, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("metrics", sa.Text, nullable=False),  # JSON: metric -> [mean, standard error]
    sa.Column("info", sa.Text, nullable=False),  # JSON: why it was proposed
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("lease", sa.Double, nullable=False),  # seconds since the epoch until which the claim holds
    sa.Column("started", sa.Double, nullable=False),
    sa.Column("finished", sa.Double, nullable=True),
    sa.UniqueConstraint("study", "key", name="one_trial_a_design"),
)
_meta = sa.Table(
    "trial_meta",
    _metadata,
    sa.Column("study", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def _key(proposal: Proposal) -> str:
    suffix = f"#{proposal.replicate}" if proposal.replicate else ""
    return f"{design_key(proposal.parameters)}@{proposal.fidelity:g}{suffix}"


def this_owner() -> str:
    """Who claims: host, process and the process's start, so that a recycled process number is not taken for the claimer."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started_at(os.getpid())}"


def _started_at(pid: int) -> str:
    try:
        # Field 22 of /proc/PID/stat; the name in field 2 may hold spaces but ends at the last parenthesis.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"


def _alive(owner: str) -> bool | None:
    """Whether the claimer still runs; None where this machine cannot tell."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return None
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started_at(int(rest)) == owner.rpartition(":")[2]


class Claimed(Exception):  # noqa: N818 - a signal between two functions, not an error that a user meets
    """Another process claimed the number or the design first."""


class TrialStore:
    """The trials of one study in a database."""

    def __init__(
        self, engine: sa.Engine, *, study: str = "main", owner: str | None = None, file: Path | None = None, read_only: bool = False
    ) -> None:
        self._engine = engine
        self.study = study
        self.owner = owner or this_owner()
        self._path = file
        self._file = None if file is None else identity(file)
        self._read: list[Trial] = []  # as last read, by number
        self._open: set[int] = set()  # numbers of those that may still change: a completed trial never does
        self._has_trials = True
        with self._guard("opened"):
            if read_only:
                self._has_trials = sa.inspect(engine).has_table("trials")
                return
            _check_columns(engine)
            try:
                _metadata.create_all(engine)
            except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
                # Two processes may create the tables at once; the loser finds them made.
                _metadata.create_all(engine)
        version = self.meta().get("schema_version")
        if version is None:
            self.set_meta("schema_version", SCHEMA_VERSION)
        elif version != SCHEMA_VERSION:
            raise DseError(f"trials of study {study} have schema version {version!r}; this version reads {SCHEMA_VERSION}")

    @classmethod
    def of_study(cls, study: Study) -> TrialStore:
        """The trials inside a study's own file."""
        return cls(study.engine, file=study.path, read_only=study.read_only)

    @classmethod
    def open(cls, target: str | Path, *, study: str = "main", owner: str | None = None) -> TrialStore:
        """The trials of a SQLite file, or of a database given by its SQLAlchemy URL."""
        text = str(target)
        # A SQLite file by its URL is set up as one by its path: two drivers on it wait for each other's short transactions.
        file = text.removeprefix("sqlite:///") if text.startswith("sqlite:///") else text
        if "://" not in file and file:
            path = Path(file)
            if path.is_file() and path.stat().st_size:  # looked at before it is set up: it may be somebody else's
                _look_at(path)
            store = cls(file_engine(path), study=study, owner=owner, file=path)
            store._file = identity(path)  # it may be new
            return store
        try:
            engine = sa.create_engine(text, pool_pre_ping=True)
        except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
            # The extra brings psycopg; a URL may name another driver.
            hint = "; `pip install 'dse-toolkit[postgres]'` brings psycopg" if isinstance(error, ModuleNotFoundError) else ""
            raise DseError(f"storage {text.partition('@')[0].partition(':')[0]} cannot be used: {error}{hint}") from error
        return cls(engine, study=study, owner=owner)

    # -- settings --------------------------------------------------------------------------------------------------
    def meta(self) -> dict[str, Any]:
        """Settings of the search: strategy, seed, budget and what else was stored."""
        query = sa.select(_meta.c.key, _meta.c.value).where(_meta.c.study == self.study)
        with self._guard("read"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        try:
            return {key: json.loads(value) for key, value in rows}
        except (ValueError, TypeError, RecursionError) as error:
            raise DseError(f"settings of the study are damaged: {error}; search again") from error

    def set_meta(self, key: str, value: Any) -> None:
        """Store a setting; one that is there is replaced."""
        where = (_meta.c.study == self.study) & (_meta.c.key == key)
        text = json.dumps(value)
        with self._guard("written"):
            try:
                with self._engine.begin() as connection:
                    changed = connection.execute(sa.update(_meta).where(where).values(value=text)).rowcount
                    if not changed:
                        connection.execute(sa.insert(_meta), {"study": self.study, "key": key, "value": text})
            except sa.exc.IntegrityError:
                with self._engine.begin() as connection:
                    connection.execute(sa.update(_meta).where(where).values(value=text))

    # -- trials ----------------------------------------------------------------------------------------------------
    def trials(self) -> list[Trial]:
        """All trials in the order of their numbers; what is complete is read once, so that the cost of a trial does not grow with them."""
        if not self._has_trials:
            return []
        last = self._read[-1].number if self._read else -1
        mine = _trials.c.study == self.study
        newer = sa.select(_trials).where(mine & (_trials.c.number > last)).order_by(_trials.c.number)
        waiting = sorted(self._open)
        with self._guard("read"), self._engine.connect() as connection:
            for first in range(0, len(waiting), _NUMBERS_A_QUERY):
                again = _trials.c.number.in_(waiting[first : first + _NUMBERS_A_QUERY])
                for trial in map(_trial, connection.execute(sa.select(_trials).where(mine & again))):
                    self._read[bisect_left(self._read, trial.number, key=_number)] = trial
                    if trial.done:
                        self._open.discard(trial.number)
            for trial in map(_trial, connection.execute(newer)):
                self._read.append(trial)
                if not trial.done:
                    self._open.add(trial.number)
        return list(self._read)

    def claim(self, proposals: Sequence[Proposal], first_number: int, seed: int) -> list[Trial]:
        """Claim proposals as trials first_number, first_number + 1, ... in one transaction.

        Raises Claimed, having written nothing, if another process has taken one of the numbers or designs.
        """
        now = time.time()
        rows = [
            {
                "study": self.study,
                "number": first_number + i,
                "key": _key(proposal),
                "parameters": json.dumps(dict(proposal.parameters)),
                "fidelity": proposal.fidelity,
                "seed": trial_seed(seed, first_number + i),
                "state": RUNNING,
                "metrics": "{}",
                "info": json.dumps(dict(proposal.info)),
                "error": "",
                "attempts": 1,
                "owner": self.owner,
                "lease": now + LEASE_SECONDS,
                "started": now,
            }
            for i, proposal in enumerate(proposals)
        ]
        if not rows:
            return []
        with self._guard("written"):
            try:
                with self._engine.begin() as connection:
                    connection.execute(sa.insert(_trials), rows)
            except sa.exc.IntegrityError as error:
                raise Claimed from error
        return [trial_of_row(row) for row in rows]

    def tell(self, trial: Trial) -> bool:
        """Commit the outcome of a trial that this process holds; False if it has lost the claim meanwhile."""
        where = (
            (_trials.c.study == self.study)
            & (_trials.c.number == trial.number)
            & (_trials.c.state == RUNNING)
            & (_trials.c.owner == self.owner)
        )
        values = {
            "state": trial.state,
            "metrics": json.dumps({name: [m.mean, m.se] for name, m in trial.metrics.items()}),
            "error": trial.error,
            "finished": time.time(),
        }
        with self._guard("written"), self._engine.begin() as connection:
            return bool(connection.execute(sa.update(_trials).where(where).values(**values)).rowcount)

    def renew(self) -> None:
        """Prolong all claims of this process."""
        where = (_trials.c.study == self.study) & (_trials.c.owner == self.owner) & (_trials.c.state == RUNNING)
        with self._guard("written"), self._engine.begin() as connection:
            connection.execute(sa.update(_trials).where(where).values(lease=time.time() + LEASE_SECONDS))

    def release(self) -> None:
        """Give back all claims of this process, so that whoever resumes takes them over at once."""
        where = (_trials.c.study == self.study) & (_trials.c.owner == self.owner) & (_trials.c.state == RUNNING)
        with self._guard("written"), self._engine.begin() as connection:
            connection.execute(sa.update(_trials).where(where).values(owner="", lease=0.0))

    def take_over(self, *, limit: int, retries: int = 0) -> list[Trial]:
        """Claim up to ``limit`` trials that nobody works on: of dead owners, and failed ones with attempts left.

        A trial of a dead owner, or a cancelled one, does not count as an attempt: its evaluation was interrupted, not refused.
        """
        taken: list[Trial] = []
        query = sa.select(_trials).where(_trials.c.study == self.study).order_by(_trials.c.number)
        with self._guard("written"), self._engine.connect() as connection:
            rows = connection.execute(query.where(_trials.c.state.in_((RUNNING, FAILED, TIMED_OUT, CANCELLED)))).all()
        for row in rows:
            if len(taken) >= limit:
                break
            if row.state == RUNNING:
                if row.owner == self.owner:
                    continue
                alive = _alive(row.owner)
                if alive or (alive is None and row.lease > time.time()):
                    continue
                attempts = row.attempts
            elif row.state == CANCELLED:  # given up for the sake of another one: it was not refused
                attempts = row.attempts
            elif row.attempts <= retries:
                attempts = row.attempts + 1
            else:
                continue
            # Compare and set: of two processes that see the abandoned trial, one changes the row.
            where = (
                (_trials.c.study == self.study)
                & (_trials.c.number == row.number)
                & (_trials.c.state == row.state)
                & (_trials.c.owner == row.owner)
                & (_trials.c.attempts == row.attempts)
            )
            now = time.time()
            change = {"owner": self.owner, "lease": now + LEASE_SECONDS, "state": RUNNING, "attempts": attempts, "error": ""}
            with self._guard("written"), self._engine.begin() as connection:
                if connection.execute(sa.update(_trials).where(where).values(**change)).rowcount:
                    taken.append(replace(_trial(row), state=RUNNING, attempts=attempts, error=""))
        return taken

    def close(self) -> None:
        """Release the database; not for a store that shares a study's connection."""
        self._engine.dispose()

    @contextmanager
    def _guard(self, action: str) -> Iterator[None]:
        try:
            if action == "written" and self._path is not None:
                check_there(self._path, self._file)
            yield
        except sa.exc.IntegrityError:
            raise
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            cause = getattr(error, "orig", None) or error
            where = self._engine.url.render_as_string(hide_password=True)
            raise DseError(f"trials in {where} cannot be {action}: {str(cause).strip().rstrip('.')}") from error


def trials_of(study: Study) -> list[Trial]:
    """The trials inside a study's own file, which is not changed; none where it has no table of them."""
    return TrialStore(study.engine, read_only=True).trials()


def _look_at(path: Path) -> None:
    engine = reader_engine(path)
    try:
        _check_columns(engine)
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise DseError(f"trials in {path} cannot be opened: {str(getattr(error, 'orig', None) or error).rstrip('.')}") from error
    finally:
        engine.dispose()


def _check_columns(engine: sa.Engine) -> None:
    """A database of another tool may have a table called trials: nothing is added to it."""
    there = sa.inspect(engine)
    if there.has_table("trials") and (missing := {c.name for c in _trials.columns} - {c["name"] for c in there.get_columns("trials")}):
        where = engine.url.render_as_string(hide_password=True)
        raise DseError(f"database {where} has a table named trials of another tool, without {min(missing)}; give one of its own")


def _number(trial: Trial) -> int:
    return trial.number


def _trial(row: Any) -> Trial:
    return trial_of_row(row._mapping)
