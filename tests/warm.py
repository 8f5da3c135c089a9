"""Runs commands of the package in forks of one process that has imported it: each like a fresh one, without half a second of imports.

    python tests/warm.py          # reads lines of JSON: [words after `dse`, or a text of Python; folder; file of the output]

The answer to a line is the exit code. Warnings are errors; a command is ended after 300 s (exit code -14).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import NoReturn

# What most commands of the documentation import; torch, where a space is too large to sweep.
ROOMS = ("dse.commands", "dse.searches", "dse.reports", "dse.analysis")
OTHERS = ("dse.api", "scipy.optimize", "scipy.stats", "sqlalchemy", "sqlite3", "torch")


class Warm:
    """The process; `run` gives the exit code of a command and what it printed."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONWARNINGS": "error",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, what: list[str] | str, folder: Path) -> tuple[int, str]:
        """Run the words behind `dse`, or a text of Python, in a folder."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.NamedTemporaryFile(dir=folder.parent) as output:
            self.process.stdin.write(json.dumps([what, str(folder), output.name]) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            return code, Path(output.name).read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _serve() -> None:
    for room in ROOMS:
        package = importlib.import_module(room)
        for found in pkgutil.iter_modules(package.__path__, f"{room}."):
            importlib.import_module(found.name)
    for name in OTHERS:
        importlib.import_module(name)
    gc.freeze()  # what is imported is not copied by a fork's collections
    for line in sys.stdin:
        what, folder, output = json.loads(line)
        if (child := os.fork()) == 0:
            _end(_one(what, folder, output))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _one(what: list[str] | str, folder: str, output: str) -> int:
    """A command or a text in this process; its exit code."""
    signal.alarm(300)
    for name, places, mode in ((os.devnull, (0,), os.O_RDONLY), (output, (1, 2), os.O_WRONLY)):
        file = os.open(name, mode)
        for place in places:
            os.dup2(file, place)
    os.chdir(folder)
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None
    try:
        if isinstance(what, str):
            sys.path.insert(0, "")
            exec(compile(what, "<block>", "exec"), {"__name__": "__main__"})  # noqa: S102 - the documentation's own text
            return 0
        from dse.cli import main

        sys.argv = ["dse", *what]
        return main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1


def _end(code: int) -> NoReturn:
    """End as an interpreter ends (threads, exit functions, what is not written yet), but free nothing: that would copy all memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
