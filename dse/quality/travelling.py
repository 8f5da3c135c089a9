"""A user's own objects on their way to worker processes of the same search.

What a notebook or a script defines cannot be imported by a worker, so that it travels as code. It goes through the pipe between a process
and its own children and nowhere else: nothing is read from a file or a study this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

from dse.errors import UsageError

_HOME = "__main__"


def packed(value: Any) -> bytes:
    """Bytes that :func:`unpacked` turns into an equal object in a worker; an object that cannot travel is an error that says so."""
    try:
        import cloudpickle
    except ModuleNotFoundError:
        if getattr(value, "__module__", _HOME) != _HOME and "<" not in getattr(value, "__qualname__", ""):
            return bytes(ForkingPickler.dumps(value))  # a worker imports it by its name
        raise UsageError(
            f"quality {_shown(value)} reaches worker processes as code, by the package cloudpickle, which is not installed: "
            "pip install cloudpickle, or leave workers at 1"
        ) from None
    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever an object of a user raises
        raise _stays(value, error) from None
    return data


def unpacked(data: bytes) -> Any:
    """The object of :func:`packed`."""
    return ForkingPickler.loads(data)


@dataclass(frozen=True)
class Carried:
    """An object whose class no worker can import; it arrives as the object itself."""

    value: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return unpacked, (packed(self.value),)


def carried(evaluator: Any) -> Any:
    """What to hand to a pool of processes in place of an evaluator, so that it arrives there."""
    return Carried(evaluator) if type(evaluator).__module__ == _HOME else evaluator


def check_travels(evaluator: Any) -> None:
    """Raise UsageError, before a search begins, unless an evaluator can be sent to worker processes."""
    try:
        ForkingPickler.dumps(carried(evaluator))
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an object of a user raises
        raise _stays(evaluator, error) from None


def _shown(value: Any) -> str:
    return str(getattr(value, "__name__", None) or f"of class {type(value).__name__}")


def _stays(value: Any, error: Exception) -> UsageError:
    told = " ".join(str(error).split())
    return UsageError(f"quality {_shown(value)} cannot travel to worker processes ({type(error).__name__}: {told}); leave workers at 1")
