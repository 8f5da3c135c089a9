"""BoTorch's compiled helper: where it is built, who builds it, and what a killed build leaves behind.

The first hypervolume acquisition of BoTorch compiles a C++ helper (tens of seconds), with the machine's own instruction set.
PyTorch guards the build by a file that nobody owns: a process killed meanwhile leaves it, and every later process waits on
it without end. Here the helper is built in a folder of our own, named by the versions and the machine, under a lock of the
operating system that dies with its process. Whoever holds that lock knows that no build is running, so a guard file found
then is stale and is removed.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "TORCH_EXTENSIONS_DIR"
_STALE_NAME = "lock"


def folder() -> Path:
    """Where the helper is built: a user's cache folder, one a combination of versions and machine."""
    from importlib.metadata import version

    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cpu = platform.processor() or platform.machine()
    try:
        # -march=native: a home folder shared by two kinds of machine must not share the build.
        flags = next(line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line[:5] == "flags")
    except (OSError, StopIteration):
        flags = cpu
    key = hashlib.sha256(f"{platform.node()} {cpu} {flags} {platform.python_version()}".encode()).hexdigest()[:12]
    return base / "dse" / f"torch-{version('torch')}-botorch-{version('botorch')}-{key}"


@contextmanager
def owned(path: Path) -> Iterator[list[Path]]:
    """Hold the folder's own lock; yields the stale guard files that were removed."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "owner").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: no such lock; PyTorch's own guard stays as it is
            yield []
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        removed = []
        for stale in path.rglob(_STALE_NAME):
            stale.unlink(missing_ok=True)
            removed.append(stale)
        yield removed


def is_built(path: Path) -> bool:
    """Whether the helper is there."""
    return any(path.rglob("*.so"))


def warm(say: Callable[[str], None] | None = None) -> Path:
    """Build or load the helper, saying so where it takes long; to be called before BoTorch's acquisition is used.

    A user's own TORCH_EXTENSIONS_DIR is respected as the place; without a compiler BoTorch falls back to Python and
    this returns all the same.
    """
    path = Path(os.environ[VARIABLE]) if VARIABLE in os.environ else folder()
    os.environ[VARIABLE] = str(path)
    with owned(path) as removed:
        if say and removed:
            say(f"removed the lock that an interrupted build left in {path}")
        if say and not is_built(path):
            say("compiling BoTorch's helper, once (half a minute)")
        import warnings

        from botorch.acquisition.multi_objective import logei

        load = getattr(logei, "_try_load_fused_kernel", None)  # absent in versions without the helper
        if load is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load()
    return path
