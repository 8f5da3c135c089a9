"""JSON lines, read one by one with the line named in every error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, shorten

MAX_LINE_BYTES = 2**22


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file; blank lines are skipped. Raises WorkloadError naming file and line."""
    return (record for _, record in numbered(path))


def numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_lines`, each object with the number of its line from 1. Lines end at a line feed alone: texts may hold other breaks."""
    try:
        with path.open("rb") as stream:
            number = 0
            while True:
                raw = stream.readline(MAX_LINE_BYTES + 1)
                if not raw:
                    return
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise WorkloadError(f"{path} line {number} is longer than {MAX_LINE_BYTES} bytes")
                if raw.strip():
                    yield number, _object(raw, path, number)
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read: {error.strerror or error}") from error


def _object(raw: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path} line {number} is not text: byte {error.start} is no UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{path} line {number} is not JSON: {shorten(str(error))}") from error
    if not isinstance(record, dict):
        raise WorkloadError(f"{path} line {number} holds {shorten(record)!r}, must hold a JSON object")
    return record
