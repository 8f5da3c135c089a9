"""Run folders damaged in every way that files are, and every command that reads them. Run as a program: ``python damage.py COUNT SEED``.

Damage: the file cut, bits turned, bytes overwritten, empty, another kind of file, a database of another tool; tables and columns that are
missing, of another type or empty; JSON that is none, of another shape, huge or deep; numbers that nothing holds; files that are missing.
Every command must succeed or say one sentence, and no reader may change the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

READERS = (
    ("report", "RUN", "--out", "OUT.html"),
    ("explain", "RUN", "--no-why", "--out", "OUT.svg"),
    ("compare", "RUN", "SOUND", "--json"),
    ("compare", "SOUND", "RUN"),
    ("export", "RUN", "--to", "scalesim", "--out", "OUT"),
    ("carbon", "robustness", "RUN", "--draws", "20"),
    ("search", "--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2",
     "--quality", "table:TABLE", "--budget", "2", "--from", "RUN", "--out", "OUT-warm"),
)  # fmt: skip
WRITERS = (("resume", "RUN"), ("refine", "RUN", "--rounds", "1", "--resolution", "1", "--out", "OUT-refined"))
ODD = (
    "",
    "{",
    "[]",
    "3",
    "null",
    '"x"',
    "{}",
    "[1]",
    "9" * 5000,
    "[" * 100_000,
    '{"a": 1}',
    "NaN",
    "1e999",
    '"\\u0000"',
    "\x1b[2J",
    "[[[1]]]",
)
VALUES: tuple[Any, ...] = (None, "", "x", b"\x00\xff", -1, 2**62, 1e308, float("inf"), *ODD)


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]


def _cells(connection: sqlite3.Connection, table: str) -> tuple[list[int], list[str]]:
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table}")]
    return rows, [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def database(file: Path, source: random.Random) -> str:
    """Change tables, columns or cells; what was done."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode=DELETE")
    try:
        table = source.choice(_tables(connection))
        way = source.randrange(6)
        rows, columns = _cells(connection, table)
        column = source.choice(columns)
        if way == 0:
            connection.execute(f"DROP TABLE {table}")
            return f"no table {table}"
        if way == 1:
            connection.execute(f"DELETE FROM {table}")
            return f"table {table} is empty"
        if way == 2:
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO {column}_")
            return f"no column {table}.{column}"
        if not rows:
            connection.execute(f"CREATE TABLE IF NOT EXISTS other_{table} (a)")
            return f"another table beside {table}"
        row = source.choice(rows)
        if way == 3:
            value = source.choice(VALUES)
            with contextlib.suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
            return f"{table}.{column} of row {row} is {str(value)[:20]!r}"
        return _inside(connection, table, row, columns, source)
    finally:
        connection.commit()
        connection.close()


def _inside(connection: sqlite3.Connection, table: str, row: int, columns: list[str], source: random.Random) -> str:
    """Change a value inside a cell of JSON, or the length of one of bytes."""
    cells = dict(
        zip(columns, connection.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE rowid = ?", (row,)).fetchone(), strict=True)
    )
    for column in source.sample(columns, len(columns)):
        value = cells[column]
        if isinstance(value, bytes):
            changed: Any = (
                value[: source.randrange(len(value) + 1)] if source.random() < 0.5 else value + b"\x01" * source.choice((1, 8, 16))
            )
        elif isinstance(value, str) and value.startswith(("{", "[")):
            try:
                held = json.loads(value)
            except ValueError:  # a key that begins as JSON does
                continue
            place = _change(held, source)
            changed, column_said = json.dumps(held), place
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
            return f"{table}.{column} of row {row}: {column_said}"
        else:
            continue
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
        return f"{table}.{column} of row {row} has {len(changed)} bytes in place of {len(value)}"
    return "nothing"


def _change(held: Any, source: random.Random) -> str:
    """Take out or replace a value somewhere inside lists and tables; where."""
    at, path = held, ""
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return path
        key = source.choice(keys)
        path += f".{key}"
        inner = at[key]
        if isinstance(inner, (dict, list)) and inner and source.random() < 0.8:
            at = inner
            continue
        if source.random() < 0.35:
            del at[key]
            return f"{path} is missing"
        at[key] = source.choice((None, [], {}, "x", -1, 0, 1e308, True, [1, 2], {"a": 1}, "\x1b[31m", "9" * 400, 10**400, 2**63))
        return f"{path} is {str(at[key])[:20]!r}"


def raw(file: Path, source: random.Random) -> str:
    """Change bytes of the file itself; what was done."""
    data = bytearray(file.read_bytes())
    way = source.randrange(8)
    if way == 0:
        del data[source.randrange(len(data)) :]
        said = f"cut to {len(data)} bytes"
    elif way == 1:
        for _ in range(source.choice((1, 8, 64))):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        said = "bits turned"
    elif way == 2:
        at = source.randrange(len(data))
        data[at : at + 512] = source.randbytes(512)
        said = f"512 bytes overwritten at {at}"
    elif way == 3:
        at = source.randrange(100)
        data[at] = source.randrange(256)
        said = f"byte {at} of the header"
    elif way == 4:
        data, said = bytearray(), "empty"
    elif way == 5:
        data, said = bytearray(b"PK\x03\x04" + source.randbytes(500)), "another kind of file"
    elif way == 6:
        page = source.randrange(max(1, len(data) // 4096)) * 4096
        data[page : page + 4096] = bytes(4096)
        said = f"a page of zeros at {page}"
    else:
        data += source.randbytes(5000)
        said = "bytes behind its end"
    file.write_bytes(data)
    return said


def surroundings(file: Path, source: random.Random) -> str:
    """Change what lies around the study; what was done."""
    way = source.randrange(6)
    if way == 0:
        file.unlink()
        return "no study.db"
    if way == 1:
        file.unlink()
        file.mkdir()
        return "study.db is a folder"
    if way == 2:
        file.unlink()
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE trials (trial_id INTEGER, state VARCHAR(8))")
        connection.execute("CREATE TABLE meta (id INTEGER)")
        connection.commit()
        connection.close()
        return "a database of another tool"
    if way == 3:
        file.with_name("study.db-wal").write_bytes(source.randbytes(4096))
        return "a log that is none"
    if way == 4:
        file.unlink()
        file.symlink_to("study.db")
        return "a link to itself"
    for other in file.parent.iterdir():
        if other != file:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    return "only study.db"


WAYS: tuple[tuple[Callable[[Path, random.Random], str], float], ...] = ((database, 0.62), (raw, 0.26), (surroundings, 0.12))


def say(words: list[str]) -> tuple[int, str]:
    """Run a command here: its exit code and what it said on stderr; a traceback is code 70."""
    from dse import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return cli.main(words), err.getvalue()
        except SystemExit as ended:
            return int(ended.code or 0), err.getvalue()
        except BaseException:  # noqa: BLE001 - what a user would see
            return 70, traceback.format_exc()[-1500:]


def runs(folder: Path) -> dict[str, Path]:
    """Sound run folders: a sweep, measured trials, interrupted ones; made by commands."""
    small = ["--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2", "--threads", "1"]
    table = folder / "table.csv"
    table.write_text("layers,ffn,quality\n" + "".join(f"{n},2048,{70 + n}\n" for n in range(2, 13)), encoding="utf-8")
    made = {}
    for name, words in (("sweep", ["--block-points", "3000"]), ("measured", ["--quality", f"table:{table}", "--budget", "5"])):
        made[name] = folder / name
        code, said = say(["search", *small, *words, "--out", str(made[name])])
        assert code == 0, said
    for name in ("sweep", "measured"):  # as a kill leaves it: no result yet
        made[f"{name}-unfinished"] = folder / f"{name}-unfinished"
        shutil.copytree(made[name], made[f"{name}-unfinished"])
        connection = sqlite3.connect(made[f"{name}-unfinished"] / "study.db")
        connection.execute("DELETE FROM result")
        connection.execute("DELETE FROM blocks WHERE number > 1")
        connection.commit()
        connection.close()
    return made


def one(sound: dict[str, Path], folder: Path, source: random.Random) -> tuple[str, list[str]]:
    """Damage a copy of a run and give it to all commands: what was done and what went wrong."""
    name = source.choice(sorted(sound))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = folder / "run"
    shutil.copytree(sound[name], run)
    way = source.choices([way for way, _ in WAYS], [share for _, share in WAYS])[0]
    said = f"{name}: {way(run / 'study.db', source)}"
    wrong = []
    names = {"RUN": str(run), "SOUND": str(sound["sweep"]), "TABLE": str(sound["sweep"].parent / "table.csv")}
    before = _digest(run)
    for command in (*READERS, *WRITERS):
        words = [names.get(w, w.replace("OUT", str(folder / "out")).replace("TABLE", names["TABLE"])) for w in command]
        code, heard = say(words)
        last = heard.strip().splitlines()[-1] if heard.strip() else ""
        if code not in (0, 1, 2) or "Traceback" in heard:
            wrong.append(f"{command[0]}: {heard[-700:]}")
        elif code and not (last.startswith("dse") and len(last) < 2500 and last.isprintable()):
            wrong.append(f"{command[0]} said {heard[-300:]!r}")
        if command in READERS and (now := _digest(run)) != before:
            wrong.append(f"{command[0]} changed the run")
            before = now
        shutil.rmtree(folder / "out-warm", ignore_errors=True)
        shutil.rmtree(folder / "out-refined", ignore_errors=True)
    return said, wrong


def _digest(run: Path) -> str:
    """Content of a run's files, but for the shared memory of a log, which a reader of SQLite may make."""
    found = hashlib.sha256()
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.name.endswith("-shm"):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def campaign(count: int, seed: int, folder: Path, tell: Callable[[str], None] = lambda text: None) -> list[str]:
    """Damage ``count`` runs; what went wrong, a text each."""
    sound, findings = runs(folder), []
    for number in range(count):
        done, wrong = one(sound, folder / "case", random.Random(f"{seed} {number}"))
        for text in wrong:
            findings.append(f"{number} ({done}): {text}")
            tell(findings[-1])
    return findings


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = campaign(int(sys.argv[1]), int(sys.argv[2]), Path(place), lambda text: print(text, flush=True))
    print(f"{sys.argv[1]} damaged runs, {len(found)} findings")
