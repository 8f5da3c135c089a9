"""What an evaluation may do to its surroundings: its processes end with the search that started it, and its memory is bounded.

A search marks what it starts by a variable of the environment, which children inherit whatever group or session they enter. When the
process of the search ends without saying so (a kill, a crash), its *warden*, a small process that waits on a pipe, ends everything that
bears the mark. A search that another one has started (a command in a notebook, an evaluation that searches) adds a mark of its own to that
of the other, so that either warden finds what it started. Marks are read from ``/proc``: on systems without it, groups of processes are all
that is ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

MARK = "DSE_SEARCH"
TRIAL_MARK, WORKER_MARK = "DSE_TRIAL", "DSE_WORKER"
# Of the memory that is free when an evaluation begins; the rest is the search's own and everybody else's.
_MEMORY_SHARE = 0.9
# The kernel that runs out of memory ends an evaluation before anything else of the user's: 0 is usual, 1000 the first.
_OOM_SCORE = "800"

# The warden's whole program; it imports nothing of ours. It outlives signals that a terminal sends to the group of the search.
_WARDEN = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
start, word = sys.argv[1].encode(), sys.argv[2].encode()
def marked(entry):
    return entry.startswith(start) and word in entry[len(start):].split(b":")
if not os.read(0, 1):
    # A program that is being loaded shows no environment for a moment, longer on a busy machine: quiet is 0.4 s without a find.
    deadline, quiet = time.monotonic() + 5, 0
    while quiet < 20 and time.monotonic() < deadline:
        found = 0
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and any(map(marked, open("/proc/" + name + "/environ", "rb").read().split(bytes(1)))):
                    os.kill(int(name), signal.SIGKILL)
                    found += 1
            except OSError:
                pass
        quiet = 0 if found else quiet + 1
        time.sleep(0.02)
"""

_pipe: int | None = None


def mark() -> None:
    """Mark what this process starts from now on, and start its warden; nothing in a worker of a search, which has one."""
    global _pipe  # noqa: PLW0603 - one warden a process
    worker = os.environ.get(WORKER_MARK, "").endswith(f"-{os.getpid()}")
    if _pipe is not None or worker or not Path("/proc/self/environ").exists():
        return
    word = f"{os.getpid()}-{uuid.uuid4().hex}"
    reading, writing = os.pipe()
    try:
        subprocess.Popen(  # noqa: S603 - this interpreter, our own program
            [sys.executable, "-I", "-S", "-c", _WARDEN, f"{MARK}=", word],
            stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        ).returncode = 0  # nobody waits for it: it ends after this process  # fmt: skip
    except OSError:  # no process more to be had: the search itself will say so
        os.close(writing)
        return
    finally:
        os.close(reading)
    _pipe = writing
    os.environ[MARK] = ":".join(filter(None, (os.environ.get(MARK), word)))
    os.register_at_fork(after_in_child=_let_go)
    atexit.register(_dismiss, os.getpid())


def _let_go() -> None:
    """A copy of this process holds no end of the pipe: its life is not the search's."""
    global _pipe  # noqa: PLW0603
    if _pipe is not None:
        os.close(_pipe)
        _pipe = None


def _dismiss(owner: int) -> None:
    """The search ends in order: whatever still runs was meant to."""
    if _pipe is not None and os.getpid() == owner:
        with contextlib.suppress(OSError):
            os.write(_pipe, b".")


def bound(pid: int = 0, memory_bytes: int | None = None) -> None:
    """Bound the memory of a process (0: this one) and what it starts, and make it the first that ends where none is left (Linux).

    The bound is ``memory_bytes``, or what is free, and never above one that holds already.
    """
    if sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(OSError, ValueError):
        Path(f"/proc/{pid or 'self'}/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    free = free_bytes()
    limit = memory_bytes if memory_bytes is not None else None if free is None else int(_MEMORY_SHARE * free)
    if limit is None:
        return
    # Private memory that can be written: files that are mapped and reserved addresses do not count.
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        held = [number for number in (soft, hard) if number != resource.RLIM_INFINITY]
        resource.prlimit(pid, resource.RLIMIT_DATA, (min([limit, *held]), hard))


def free_bytes() -> int | None:
    """Memory that can be had: of the machine or of this process's control group, whichever is less; None where nobody says."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(min(found), 1 << 28) if found else None


def end_group(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal a group of processes, also one whose leader has ended; where it leads none yet, the process alone."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(leader, number)


def end_marked(word: str) -> None:
    """End every process whose environment holds ``word`` (``NAME=VALUE``), until none is left that can be ended."""
    wanted = word.encode()
    for _ in range(50):
        found = 0
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in entry.read_bytes().split(b"\0") and int(entry.parent.name) != os.getpid():
                    os.kill(int(entry.parent.name), signal.SIGKILL)
                    found += 1
        if not found:
            return
