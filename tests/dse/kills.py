"""Searches that are killed at random moments, and what must hold afterwards.

Run as a program: ``python kills.py FOLDER COUNT SEED [KIND ...]``.

A warmed process forks a copy for every command, which runs ``dse.cli.main`` in a session of its own and is killed by SIGKILL, at a random
time, or at a random one of its file operations and SQL statements (the first of them are the birth of a study). Then:

* no process that it started is alive;
* ``dse resume``, or the same search again where no study was born, ends with code 0 (and may be killed itself before);
* what was committed at the kill is there unchanged; no number and no design is doubled; no committed trial was evaluated again;
* the front is, byte for byte, that of a search that nobody killed;
* the folder holds the files of a run and nothing else.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVALUATOR = """
import os

def quality(parameters, fidelity, seed):
    with open(os.environ["EVALUATIONS"], "a") as log:
        log.write(",".join(f"{name}={value}" for name, value in sorted(parameters.items())) + "\\n")
    return 70.0 + parameters["layers"] + parameters["ffn"] / 1000
"""
# A program that leaves a child behind while it thinks, and one in a session of its own.
PROGRAM = """#!/bin/sh
read request
sleep 300 > /dev/null 2>&1 &
one=$!
setsid sleep 300 > /dev/null 2>&1 &
two=$!
echo "$request" >> "$EVALUATIONS"
sleep 0.02
echo 71.5
kill $one $two
"""
# Limits of time here are multiplied by DSE_PATIENCE, for campaigns that run in idle time only.
PATIENCE = float(os.environ.get("DSE_PATIENCE", "1"))
SMALL = ["--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2", "--threads", "1"]
LARGE = ["--workload", "bert-tiny", "--hw", "datacenter", "--objective", "min:latency_s", "--objective", "min:area_mm2", "--threads", "1"]


@dataclass
class Kind:
    """A search: its words, how often it is drawn, and what is known of one that nobody kills."""

    name: str
    words: list[str]
    share: float
    seconds: float = 0.0
    events: int = 0
    front: bytes = b""
    resumed: list[str] = field(default_factory=lambda: ["resume", "run", "--threads", "1"])


def kinds(folder: Path) -> list[Kind]:
    measured = [*SMALL, "--retries", "0", "--whole-budget"]
    table = folder / "table.csv"
    table.write_text("layers,ffn,quality\n" + "".join(f"{n},2048,{70 + n}\n" for n in range(2, 13)), encoding="utf-8")
    inline = ["--quality", "python:killed_evaluator:quality", "--executor", "inline"]
    own = ["--quality", "python:killed_evaluator:quality"]
    program = ["--quality", f"command:{folder / 'program.sh'}"]
    return [
        Kind("sweep", [*SMALL, "--block-points", "300"], 0.3),
        Kind("nested", [*measured, *inline, "--budget", "6"], 0.2),
        Kind("table", [*measured, "--quality", f"table:{table}", "--strategy", "random", "--budget", "8"], 0.1),
        Kind("large", [*LARGE, "--strategy", "random", "--budget", "160"], 0.1),
        Kind("amoo", [*LARGE, "--strategy", "amoo", "--budget", "130"], 0.06),
        Kind("command", [*measured, *program, "--strategy", "random", "--budget", "4"], 0.14),
        Kind("process", [*measured, *own, "--strategy", "random", "--budget", "4"], 0.05),
        Kind("shards", [*SMALL, "--workers", "2"], 0.05),
    ]


def warm(names: Sequence[str]) -> None:
    """Import what the commands import, so that a fork costs none of it."""
    import importlib

    for name in ("pandas", "plotly.graph_objects", "dse.cli", "dse.api", "dse.reports.html", "dse.reports.console"):
        importlib.import_module(name)
    for name in ("nested", "sampling", *(("amoo.search", "amoo.screened") if "amoo" in names else ())):
        importlib.import_module(f"dse.strategies.{name}")


def fork(words: list[str], folder: Path, word: str, kill_at: int | None = None) -> int:
    """Run ``dse WORDS`` in a copy of this process; with ``kill_at`` it kills itself at that event. Returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["DSE_KILLED"] = word
        os.environ["EVALUATIONS"] = str(folder / "evaluations")
        out = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _count_events(folder, kill_at)
        sys.argv = ["dse", *words]
        from dse.cli import main

        code = main(words)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - told by the exit code
        import traceback

        traceback.print_exc()
    finally:
        # As an interpreter ends: what was registered for that runs, and no more of this copy's caller.
        import atexit

        atexit._run_exitfuncs()
        os._exit(code)


def _count_events(folder: Path, kill_at: int | None) -> None:
    """Count file operations that change something and SQL statements; kill this process at one of them."""
    import sqlalchemy as sa

    seen = 0

    def event(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(name: str, given: tuple[Any, ...]) -> None:
        writes = name == "open" and isinstance(given[1], str) and set("wax+") & set(given[1])
        if writes or name in ("os.rename", "os.link", "os.remove", "os.mkdir", "sqlite3.connect"):
            event()

    sys.addaudithook(audited)
    for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
        sa.event.listen(sa.engine.Engine, moment, event)
    if kill_at is None:
        import atexit

        atexit.register(lambda: (folder / "events").write_text(str(seen), encoding="utf-8"))


def ended(pid: int, seconds: float = 60.0) -> int:
    """Wait for a copy; its exit code, or minus the signal that ended it."""
    until = time.monotonic() + seconds * PATIENCE
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 71
        time.sleep(0.005)


def left_behind(word: str) -> list[str]:
    """Processes that bear the mark of a command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"DSE_KILLED={word}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def committed(folder: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Completed trials and blocks of a study, each by its number."""
    connection = sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        blocks = {row[0]: repr(row) for row in connection.execute("SELECT * FROM blocks ORDER BY number")}
        trials: dict[int, str] = {}
        if "trials" in tables:
            query = "SELECT number, parameters, metrics, seed FROM trials WHERE state = 'complete'"
            trials = {row[0]: repr(row) for row in connection.execute(query)}
        return trials, blocks
    finally:
        connection.close()


def check_numbers(folder: Path) -> None:
    connection = sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True)
    try:
        if "trials" not in {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}:
            return
        rows = list(connection.execute("SELECT number, parameters, fidelity, state FROM trials ORDER BY number"))
    finally:
        connection.close()
    assert [row[0] for row in rows] == list(range(len(rows))), "a trial's number is lost or doubled"
    assert len({row[1:3] for row in rows}) == len(rows), "a design is doubled"
    assert {row[3] for row in rows} <= {"complete", "failed"}, f"a trial was left { ({row[3] for row in rows}) }"


def one(kind: Kind, folder: Path, source: random.Random) -> Counter[str]:
    """Kill a search (and sometimes the one that goes on), finish it and hold it against the unkilled one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seen: Counter[str] = Counter()
    run = folder / "run"
    words = ["search", *kind.words, "--out", "run"]
    before: tuple[dict[int, str], dict[int, str]] = ({}, {})
    log = folder / "evaluations"
    while True:
        word = uuid.uuid4().hex
        way = source.random()
        if way < 0.25:
            pid = fork(words, folder, word, kill_at=source.randint(1, 24))  # at birth
            code, how = ended(pid), "birth"
        elif way < 0.55:
            pid = fork(words, folder, word, kill_at=source.randint(1, max(2, kind.events)))
            code, how = ended(pid), "write"
        else:
            pid = fork(words, folder, word)
            time.sleep(source.uniform(0.0, 1.1 * kind.seconds))
            os.kill(pid, signal.SIGKILL)
            code, how = ended(pid), "time"
        if code == -signal.SIGKILL:
            seen[f"killed at {how}"] += 1
        until = time.monotonic() + 8.0 * PATIENCE
        while (alive := left_behind(word)) and time.monotonic() < until:
            time.sleep(0.02)
        assert not alive, f"left behind: {alive}"
        born = (run / "study.db").exists()
        if born:
            trials, blocks = committed(run)
            for kept, now in zip(before, (trials, blocks), strict=True):
                assert all(now.get(number) == row for number, row in kept.items()), "what was committed is lost or changed"
            before = trials, blocks
            words = kind.resumed
        else:
            seen["never born"] += 1
        if code == -signal.SIGKILL and source.random() < 0.25:
            continue
        break
    evaluated = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
    code = ended(fork(words, folder, uuid.uuid4().hex))
    assert code == 0, f"not finished (code {code}): {(folder / 'said').read_text(encoding='utf-8', errors='replace')[-2000:]}"
    trials, blocks = committed(run)
    for kept, now in zip(before, (trials, blocks), strict=True):
        assert all(now.get(number) == row for number, row in kept.items()), "what was committed is lost or changed"
    check_numbers(run)
    if log.exists():
        again = len(log.read_text(encoding="utf-8").splitlines()) - evaluated
        assert again <= len(trials) - len(before[0]), "a committed trial was evaluated again"
    assert (run / "pareto.csv").read_bytes() == kind.front, "the front is not that of an unkilled search"
    extra = {path.name for path in run.iterdir()} - {"study.db", "study.db-wal", "study.db-shm", "pareto.csv", "report.html", "designs"}
    assert not extra, f"files left behind: {extra}"
    assert not list(run.glob("designs/*.part")), "half a design is left behind"
    return seen


def campaign(
    folder: Path, count: int, seed: int, names: Sequence[str] = (), say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Kill ``count`` times searches of the named kinds (default all); figures and findings as plain values."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "killed_evaluator.py").write_text(EVALUATOR, encoding="utf-8")
    (folder / "program.sh").write_text(PROGRAM, encoding="utf-8")
    (folder / "program.sh").chmod(0o755)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    every = [kind for kind in kinds(folder) if not names or kind.name in names]
    warm([kind.name for kind in every])
    for kind in every:
        place = folder / "unkilled" / kind.name
        place.mkdir(parents=True)
        start = time.monotonic()
        code = ended(fork(["search", *kind.words, "--out", "run"], place, "-"), 240)
        if code:
            raise SystemExit(f"{kind.name} fails unkilled: {(place / 'said').read_text(encoding='utf-8')}")
        kind.seconds = time.monotonic() - start
        kind.events = int((place / "events").read_text(encoding="utf-8"))
        kind.front = (place / "run" / "pareto.csv").read_bytes()
        say(f"{kind.name}: {kind.seconds:.2f} s, {kind.events} events, {len(kind.front.splitlines()) - 1} designs on the front")
    kills: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    findings: list[str] = []
    number = 0
    while sum(v for k, v in kills.items() if k.startswith("killed")) < count:
        source = random.Random(f"{seed} {number}")
        kind = source.choices(every, [kind.share for kind in every])[0]
        try:
            seen = one(kind, folder / "case", source)
        except AssertionError as found:
            seen = Counter({"killed and not well": 1})
            findings.append(f"{kind.name}, number {number}: {found}")
            say(findings[-1])
            shutil.copytree(folder / "case", folder / f"finding-{number}", dirs_exist_ok=True)
        kills += seen
        by_kind[kind.name] += sum(v for k, v in seen.items() if k.startswith("killed"))
        number += 1
        if number % 50 == 0:
            say(f"{number} searches: {dict(kills)}")
    return {"searches": number, "kills": dict(kills), "by_kind": dict(by_kind), "findings": findings}


if __name__ == "__main__":
    told = campaign(
        Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:], lambda text: print(text, file=sys.stderr, flush=True)
    )
    print(json.dumps(told))
