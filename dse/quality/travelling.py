"""A user's own objects on their way to worker processes of the same search.

A function of a notebook cannot be imported by a worker, so that it travels as code. It goes through the pipe between a process and its own
children and nowhere else: nothing is read from a file or a study this way.
"""

from __future__ import annotations

from typing import Any

from dse.errors import UsageError


def packed(value: Any) -> bytes:
    """Bytes that :func:`unpacked` turns into an equal object in a worker; an object that cannot travel is an error that says so."""
    try:
        import cloudpickle
    except ModuleNotFoundError:
        raise UsageError(
            "a function of this process reaches worker processes by the package cloudpickle, which is not installed; use workers=1"
        ) from None
    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever an object of a user raises
        raise UsageError(f"quality {value!r} cannot travel to worker processes ({type(error).__name__}: {error}); use workers=1") from None
    return data


def unpacked(data: bytes) -> Any:
    """The object of :func:`packed`."""
    import cloudpickle

    return cloudpickle.loads(data)
