"""Running a program that answers on its standard output: bounded in time, memory and in what of its talk is kept."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence

from dse.quality import containment

# An answer is a line; of what a program prints, this much of its end is kept.
KEPT_BYTES = 1 << 20
_CHUNK = 1 << 16
# A program that has ended may have left a child that holds its pipes open: that child's talk is no answer.
_AFTER_SECONDS = 0.2


def run(command: Sequence[str], request: str, time_limit_s: float) -> tuple[int, str, str]:
    """Run a program with ``request`` on its standard input: exit code, end of its output, end of its errors.

    Raises OSError where it cannot be started and TimeoutError where it runs past its time; it is then ended with all that it started.
    """
    containment.mark()
    trial = uuid.uuid4().hex
    process = subprocess.Popen(  # noqa: S603 - the user's own program
        tuple(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, containment.TRIAL_MARK: trial},
    )  # fmt: skip
    ended = False
    try:
        containment.bound(process.pid)
        talk = _talk(process, request.encode(), time.monotonic() + time_limit_s)
        ended = True
        return process.returncode, *talk
    finally:
        if not ended:
            containment.end_group(process.pid)
            containment.end_marked(f"{containment.TRIAL_MARK}={trial}")  # what left the group
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _talk(process: subprocess.Popen[bytes], request: bytes, until: float) -> tuple[str, str]:
    """Give the request and keep the end of both outputs until the program has ended."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    left = memoryview(request)
    last_seen: float | None = None
    with selectors.DefaultSelector() as waiting:
        os.set_blocking(process.stdin.fileno(), False)
        waiting.register(process.stdin, selectors.EVENT_WRITE)
        for pipe in kept:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            now = time.monotonic()
            if now >= until:
                raise TimeoutError
            if process.poll() is not None:
                last_seen = last_seen or now
                if now - last_seen > _AFTER_SECONDS:
                    break
            for key, _ in waiting.select(min(0.05, until - now)):
                if key.fileobj is process.stdin:
                    with contextlib.suppress(BrokenPipeError):  # a program need not read what it is told
                        left = left[os.write(process.stdin.fileno(), left) :]
                        if left:
                            continue
                    waiting.unregister(process.stdin)
                    with contextlib.suppress(OSError):
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, _CHUNK)
                if not piece:
                    waiting.unregister(key.fileobj)
                    continue
                held = kept[key.fd]
                held += piece
                if len(held) > 2 * KEPT_BYTES:
                    del held[:-KEPT_BYTES]
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    out, err = (bytes(held[-KEPT_BYTES:]).decode("utf-8", "replace") for held in kept.values())
    return out, err


def ending(code: int) -> str:
    """How a program ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
