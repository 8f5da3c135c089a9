"""Every reader against damaged files: read, or refused in one sentence, within 5 s and 2 GB. Run as a program:

    python fuzz.py COUNT SEED [TARGET ...]        # COUNT inputs in all

A target is a reader with sound files (tests/hostile/readers.py), an input one of these, damaged (tests/hostile/mutations.py). It is written
to a file before it is read, so that the input of a crash is known; the program runs each target in a process of its own, which goes
through thousands of inputs, and goes on behind the input that ended it. Of the inputs that are asked for a target gets a share by what one
costs: commands and databases take ten times what a reader of a text takes, and get a tenth.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HOSTILE = Path(__file__).resolve().parents[1] / "hostile"
sys.path.insert(0, str(HOSTILE))  # tests are no package under import mode importlib

from readers import TARGETS, check_sentence  # noqa: E402

ROOT = HOSTILE.parents[1]
SECONDS = 5.0
PEAK_KIB = 2 * 2**20
_MOST_BYTES = 16 * 2**30  # of addresses: a reader that wants all memory ends, not the machine
_MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own is made there
OURS = ("dse", "hw_models", "carbon", "workloads", "dse_kernels")


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where the block takes longer; one that no signal reaches ends the process with a traceback after ten times that."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ours(error: BaseException) -> bool:
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] in OURS


def attack(name: str, folder: Path, first: int, count: int, seed: int, found: Callable[[int, str], None]) -> None:
    """Give inputs ``first`` to ``first + count - 1`` to a reader and tell what is neither success nor a sentence."""
    target = TARGETS[name]
    sound = target.sound(folder)
    assert sound, f"{name} has no sound file"
    path = folder / target.file
    counter = os.open(folder / "number", os.O_WRONLY | os.O_CREAT)
    for data in sound:  # what is sound is read
        path.write_bytes(data)
        try:
            target.read(path)
        except ValueError as error:
            if not ours(error):
                raise
    for number in range(first, first + count):
        source = random.Random(f"{name} {seed} {number}")
        path.write_bytes(target.damage(source.choice(sound), source))
        os.pwrite(counter, b"%012d" % number, 0)
        try:
            with warnings.catch_warnings(), within(SECONDS):
                warnings.simplefilter("ignore")
                target.read(path)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            problem = "" if ours(error) else f"{type(error).__name__}: {str(error)[:300]}"
            if not problem:
                from dse.errors import shown

                try:
                    check_sentence(shown(str(error)))  # as a terminal shows it
                except AssertionError as fault:
                    problem = str(fault)[:300]
            if problem:
                shutil.copy(path, folder / f"finding-{name}-{number}")
                found(number, problem + _place(error))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if peak > PEAK_KIB:
            found(number, f"memory {peak / 2**20:.1f} GiB")
            break
    os.close(counter)


def _place(error: BaseException) -> str:
    """Where in the package an exception came from."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and "tests" not in file.parts:
            place = f" [{file.relative_to(ROOT)}:{trace.tb_lineno}]"
        trace = trace.tb_next
    return place


def _worker(name: str, folder: Path, first: int, count: int, seed: int) -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    attack(name, folder, first, count, seed, lambda number, text: print(json.dumps([name, number, text]), flush=True))


def shares(names: list[str], count: int) -> dict[str, int]:
    """How many of ``count`` inputs each reader gets: the more the less one costs."""
    whole = sum(1.0 / TARGETS[name].cost for name in names)
    return {name: math.ceil(count / TARGETS[name].cost / whole) for name in names}


def campaign(names: list[str], inputs: int, seed: int, keep: Path | None = None) -> tuple[int, list[list[Any]]]:
    """Attack readers, each in processes of its own; inputs that were read and findings [reader, number, what]."""
    read, findings = 0, []
    for name, count in shares(names, inputs).items():
        begun, first = time.monotonic(), 0
        before = len(findings)
        with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as place:
            folder = Path(place)
            while first < count:
                (folder / "number").unlink(missing_ok=True)
                words = [sys.executable, __file__, "--worker", name, str(folder), str(first), str(count - first), str(seed)]
                done = subprocess.run(words, check=False, capture_output=True, text=True)
                findings += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
                reached = int((folder / "number").read_text()) if (folder / "number").exists() else -1
                if done.returncode == 0 and reached == count - 1:
                    first = count
                    break
                if reached < first:
                    findings.append([name, -1, f"does not start: {done.stderr[-600:]}"])
                    break
                if done.returncode:
                    findings.append([name, reached, f"ended with {done.returncode}: {done.stderr[-500:]}"])
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(folder / TARGETS[name].file, keep / f"finding-{name}-{reached}")
                first = reached + 1
            read += first
            if keep:
                for path in folder.glob("finding-*"):
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, keep)
        print(
            f"{name}: {first:,} inputs in {time.monotonic() - begun:.0f} s, {len(findings) - before} findings", file=sys.stderr, flush=True
        )
    return read, findings


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        _worker(sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:7]))
        sys.exit()
    chosen = sys.argv[3:] or list(TARGETS)
    inputs, found = campaign(chosen, int(sys.argv[1]), int(sys.argv[2]), Path("found"))
    for finding in found:
        print(json.dumps(finding))
    print(f"{inputs:,} inputs, {len(found)} findings")
