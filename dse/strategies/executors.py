"""Where dear evaluations run: in this process, in worker processes here, or on a Dask cluster.

Everything is a ``concurrent.futures.Executor``: submit returns a future. A worker that dies breaks its future (here the
pool is made anew; Dask moves the work to another worker first) and the trial is recorded as failed and retried.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from dse.errors import DseError, UsageError, unknown_name
from dse.quality import containment

EXECUTORS = ("inline", "processes", "dask")


_GRACE_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _own_group(memory_bytes: int | None) -> None:
    """A worker leads a group of processes, so that what it starts can be ended with it, and ends when its driver is killed.

    An evaluation that wants more memory than there is gets an error, or loses its worker before anything else of the user's is lost. What
    it prints is talk and goes to stderr, for stdout may be a document (``--json``).
    """
    os.setsid()
    os.dup2(2, 1)
    os.environ[containment.WORKER_MARK] = f"{os.getppid()}-{os.getpid()}"
    containment.bound(memory_bytes=memory_bytes)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(pid: int | None, number: int) -> None:
    if pid is not None:
        containment.end_group(pid, number)


@contextmanager
def _main_left_out() -> Iterator[None]:
    """Processes that start meanwhile do not run the user's script, as Python's would: without ``if __name__ == "__main__"`` it would begin
    the search again in each. They need nothing of it, for what it defines travels as code (:mod:`dse.quality.travelling`).
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class InlineExecutor(Executor):
    """Runs a call when it is submitted, in this thread: the one-worker case, with nothing to lose or to order."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call now; an exception of the call is kept in the future, an interrupt of the user is not."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever a user's evaluation raises is the trial's outcome
            future.set_exception(error)
        return future


class Workers:
    """An executor that can be made anew when it broke or when a call in it must be ended."""

    def __init__(self, kind: str, count: int = 1, address: str | None = None, *, memory_bytes: int | None = None) -> None:
        if kind not in EXECUTORS:
            raise unknown_name("executor", kind, EXECUTORS)
        if count < 1:
            raise UsageError(f"workers is {count}; a whole number of at least 1 is needed")
        self.kind, self.count = kind, 1 if kind == "inline" else count
        self._address, self._memory_bytes = address, memory_bytes
        self._client: Any = None
        self.generation = 0  # how often the executor was made anew
        self._executor: Executor | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call on a worker."""
        if self._executor is None:
            self._executor = self._make()
        if self.kind != "processes":
            return self._executor.submit(fn, *args, **kwargs)
        with _main_left_out():  # its processes start as calls come
            return self._executor.submit(fn, *args, **kwargs)

    def _make(self) -> Executor:
        if self.kind == "inline":
            return InlineExecutor()
        if self.kind == "processes":
            containment.mark()
            # Spawned, not forked: a fork of a process with threads (numpy, torch) can hang.
            spawned = multiprocessing.get_context("spawn")
            return ProcessPoolExecutor(self.count, mp_context=spawned, initializer=_own_group, initargs=(self._memory_bytes,))
        return self._dask()

    def _dask(self) -> Executor:
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise DseError("executor dask needs the package distributed; install dse-toolkit[dask]") from error
        if self._address is None:
            raise UsageError("executor dask needs the address of a scheduler, like --address tcp://127.0.0.1:8786")
        try:
            client: Any = Client
            self._client = client(self._address, timeout="10s", set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise DseError(f"address {self._address!r} has no Dask scheduler that answers: {error}") from error
        # A pure call with equal arguments would be answered from memory; a retried trial must run again.
        executor: Executor = self._client.get_executor(pure=False)
        return executor

    def renew(self) -> None:
        """Drop the executor and whatever still runs in it; the next call makes a new one. Dask looks after itself."""
        if self.kind == "dask":
            return
        executor, self._executor = self._executor, None
        self.generation += 1
        if executor is not None:
            # The processes of the pool itself: a call that runs past its time has to end.
            processes = list((getattr(executor, "_processes", None) or {}).values())
            for process in processes:
                _end(process.pid, signal.SIGTERM)
            executor.shutdown(wait=False, cancel_futures=True)
            until = time.monotonic() + _GRACE_SECONDS
            for process in processes:
                process.join(max(0.0, until - time.monotonic()))
                _end(process.pid, signal.SIGKILL)  # one that ignores SIGTERM, and whatever it started
                containment.end_marked(f"{containment.WORKER_MARK}={os.getpid()}-{process.pid}")  # also what left its group

    @property
    def cancels_one(self) -> bool:
        """Whether a single running call can be given up without the others (Dask), or only the pool as a whole."""
        return self.kind == "dask"

    def close(self) -> None:
        """End everything."""
        self.renew()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        if self._client is not None:
            self._client.close()
            self._client = None


def kind_of(kind: str | None, count: int, address: str | None) -> str:
    """The executor that is named; without one, Dask where there is an address, this process for one worker, processes for more."""
    return kind or ("dask" if address else "inline" if count == 1 else "processes")


@contextmanager
def workers(kind: str | None = None, count: int = 1, address: str | None = None, *, memory_bytes: int | None = None) -> Iterator[Workers]:
    """Workers by name, or of `kind_of`. ``memory_bytes`` bounds each of the processes."""
    pool = Workers(kind_of(kind, count, address), count, address, memory_bytes=memory_bytes)
    try:
        yield pool
    finally:
        pool.close()
