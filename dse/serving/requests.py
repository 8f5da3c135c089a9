"""Logs of requests: the public trace formats and our own, checked line by line, as what an engine is asked for.

| format | file | columns or keys |
|---|---|---|
| own | .csv | arrival_s, prompt_tokens, output_tokens; optional session, prefix, prefix_tokens, region |
| azure | .csv | TIMESTAMP (date and time), ContextTokens, GeneratedTokens |
| burstgpt | .csv | Timestamp [s], Request tokens, Response tokens; optional Session ID |
| mooncake | .jsonl | timestamp [ms], input_length, output_length, hash_ids (names of blocks of 512 tokens of the prompt) |

In our own format requests of one ``session`` are turns of a conversation, each prompt beginning with the turns before it, and
``prefix`` names a beginning of ``prefix_tokens`` tokens that requests share. A file is known by its columns.
Azure: Patel et al., ISCA 2024 (CC-BY); BurstGPT: arXiv 2401.17644; Mooncake: arXiv 2407.00079.
"""

from __future__ import annotations

import csv
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels.serving import Requests

from dse.errors import DseError
from workloads.errors import WorkloadError
from workloads.jsonl import numbered

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOONCAKE_BLOCK = 512
OWN_BLOCK = 16
MAX_BYTES = 2**31
MAX_TOKENS = 10**8
MAX_NAMED_TOKENS = 2**22

OWN_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURST_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
MOONCAKE_KEYS = ("timestamp", "input_length", "output_length")


@dataclass(frozen=True)
class RequestLog:
    """Requests in order of arrival; arrays of shape (requests,).

    Attributes:
        arrival_s: since the first. prompt, output: tokens. session: number of the session, -1 for none.
        blocks: (offsets, names): named blocks of the prompt, ``block_tokens`` each; names are equal where contents are.
        line: of the file, for errors. source: the file and its format. region: of each request, empty where the log has none.
    """

    arrival_s: FloatArray
    prompt: IntArray
    output: IntArray
    session: IntArray
    blocks: tuple[IntArray, IntArray]
    block_tokens: int
    line: IntArray
    source: str
    region: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def rate_per_s(self) -> float:
        """Mean rate of arrivals; 0 for requests that all arrive at once."""
        span = float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) else 0.0
        return (len(self) - 1) / span if span > 0 else 0.0

    def requests(self, block_tokens: int) -> Requests:
        """What an engine with blocks of so many tokens takes; a longer named block is cut into pieces with names of their own."""
        offsets, names = self.blocks
        pieces, rest = divmod(self.block_tokens, block_tokens)
        if rest:
            raise DseError(f"block_tokens is {block_tokens}, must divide the log's blocks of {self.block_tokens} tokens")
        if pieces > 1:
            with np.errstate(over="ignore"):
                names = (names[:, None] * np.int64(pieces) + np.arange(pieces)).ravel()
            offsets = offsets * pieces
        return Requests(self.arrival_s, self.prompt, self.output, session=self.session, blocks=(offsets, names))

    def take(self, count: int) -> RequestLog:
        """The first ``count`` requests."""
        offsets, names = self.blocks
        cut = {name: getattr(self, name)[:count] for name in ("arrival_s", "prompt", "output", "session", "line")}
        kept = names[: offsets[min(count, len(self))]]
        return replace(self, blocks=(offsets[: count + 1], kept), region=self.region[:count], **cut)

    def where(self, chosen: npt.NDArray[np.bool_]) -> RequestLog:
        """The chosen requests, at their own times."""
        offsets, names = self.blocks
        counts = np.diff(offsets)
        cut = {name: getattr(self, name)[chosen] for name in ("arrival_s", "prompt", "output", "session", "line")}
        kept = np.concatenate([[0], np.cumsum(counts[chosen])]).astype(np.int64), names[np.repeat(chosen, counts)]
        return replace(self, blocks=kept, region=tuple(itertools.compress(self.region, chosen.tolist())), **cut)

    def check_context(self, positions: int, model: str) -> None:
        """DseError with the line of the first request that is longer than the model's context."""
        long = np.flatnonzero(self.prompt + self.output > positions)
        if len(long):
            i = int(long[0])
            raise DseError(
                f"{self.source}, line {int(self.line[i])}: {int(self.prompt[i])} prompt and {int(self.output[i])} output tokens are more "
                f"than the {positions} positions of {model}"
            )


def read_requests(path: str | Path) -> RequestLog:
    """Read a log of requests in any of the formats of the module.

    Raises DseError, one sentence with the file and the line: a missing column, a negative or decreasing time, a request without
    tokens, a value that is no number, a file that is none of the formats.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DseError(f"{file} is larger than {MAX_BYTES} bytes, which no log of requests may be")
        if file.suffix in (".jsonl", ".json", ".ndjson"):
            return _mooncake(file)
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DseError(f"request log {str(file)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DseError(f"{file} is not a text file: byte {error.start} is no UTF-8") from error
    except WorkloadError as error:
        raise DseError(str(error)) from error
    lines = text.splitlines()
    if not lines:
        raise DseError(f"{file} is empty, must have a line of columns and requests below it")
    columns = [name.strip() for name in next(csv.reader(lines[:1]))]
    readers: tuple[tuple[tuple[str, ...], Callable[..., RequestLog]], ...] = (
        (OWN_COLUMNS, _own),
        (AZURE_COLUMNS, _azure),
        (BURST_COLUMNS, _burst),
    )
    for wanted, reader in readers:
        if set(wanted) <= set(columns):
            return reader(_rows(lines, columns, str(file)), str(file))
    best = max((wanted for wanted, _ in readers), key=lambda wanted: len(set(wanted) & set(columns)))
    missing = [name for name in best if name not in columns]
    raise DseError(
        f"{file}, line 1: column {missing[0]!r} is missing, columns must hold {', '.join(best)} (or those of another known format, "
        f"see `dse simulate --help`)"
    )


def write_requests(log: RequestLog, path: str | Path) -> None:
    """Write the log in our own format, prefixes left out."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow((*OWN_COLUMNS, "session"))
        for row in zip(log.arrival_s.tolist(), log.prompt.tolist(), log.output.tolist(), log.session.tolist(), strict=True):
            writer.writerow(row)


Row = tuple[int, Mapping[str, str]]


def _rows(lines: list[str], columns: list[str], where: str) -> Iterator[Row]:
    for number, fields in enumerate(csv.reader(lines[1:]), start=2):
        if not fields:
            continue
        if len(fields) < len(columns):
            raise DseError(f"{where}, line {number}: {len(fields)} values, must be {len(columns)} as line 1 names")
        yield number, dict(zip(columns, fields, strict=False))


def _number(text: Any, field: str, where: str, line: int, *, whole: bool = False) -> float:
    try:
        if isinstance(text, bool):
            raise ValueError
        value = float(text)
    except (TypeError, ValueError, OverflowError):  # the last: an integer of hundreds of digits in JSON
        shown = "an integer of many digits" if isinstance(text, int) and not isinstance(text, bool) else repr(str(text)[:40])
        raise DseError(f"{where}, line {line}: {field} is {shown}, must be a number") from None
    if not np.isfinite(value) or (whole and value != int(value)):
        raise DseError(f"{where}, line {line}: {field} is {str(text)[:40]!r}, must be a {'whole' if whole else 'finite'} number")
    return value


@dataclass
class _Reading:
    """A log as it is read: what every format tells of a request, checked row by row, and the whole at the end.

    ``columns`` are the format's words for the time of arrival, the tokens of the prompt and those of the output.
    """

    where: str
    columns: tuple[str, str, str]
    lines: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)
    output: list[float] = field(default_factory=list)
    session: list[int] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    _sessions: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, row: Mapping[str, Any], *, moment: float | None = None, session: str = "") -> None:
        """Take the time, the tokens and the session of a row; ``moment`` where its time is not a number of seconds."""
        time, prompt, output = self.columns
        self.lines.append(line)
        self.times.append(_number(row[time], time, self.where, line) if moment is None else moment)
        self.prompt.append(_number(row[prompt], prompt, self.where, line, whole=True))
        self.output.append(_number(row[output], output, self.where, line, whole=True))
        self.session.append(self._sessions.setdefault(session, len(self._sessions)) if session else -1)

    def finish(self, kind: str, block_tokens: int = OWN_BLOCK) -> RequestLog:
        """The log; DseError for times that fall, no request, or a request without tokens."""
        where, lines = self.where, self.lines
        if not lines:
            raise DseError(f"{where} holds no request, must hold at least one")
        t = np.array(self.times)
        for i in np.flatnonzero(t < 0)[:1]:
            raise DseError(f"{where}, line {lines[i]}: arrival is {t[i]:g} s, must be at least 0")
        for i in np.flatnonzero(np.diff(t) < 0)[:1]:
            raise DseError(
                f"{where}, line {lines[i + 1]}: arrival {t[i + 1]:g} s is before the line above ({t[i]:g} s), must be sorted by time"
            )
        for name, column in (("prompt", self.prompt), ("output", self.output)):
            values = np.array(column)
            for i in np.flatnonzero((values < 1) | (values > MAX_TOKENS))[:1]:
                raise DseError(f"{where}, line {lines[i]}: {name} has {values[i]:g} tokens, must be from 1 to {MAX_TOKENS}")
        lists = self.blocks or [[] for _ in lines]
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
        names = np.array([name for x in lists for name in x], dtype=np.int64)
        return RequestLog(
            t - t[0],
            np.array(self.prompt, dtype=np.int64),
            np.array(self.output, dtype=np.int64),
            np.array(self.session, dtype=np.int64),
            (offsets, names),
            block_tokens,
            np.array(lines, dtype=np.int64),
            f"{where} ({kind})",
        )


def _name(*parts: Any) -> int:
    """A number that stands for a block: equal for equal parts, 63 bits."""
    data = "\x1f".join(str(part) for part in parts).encode()
    return (zlib.crc32(data) << 31) ^ zlib.adler32(data[::-1])


def _check_named(where: str, line: int, prompt: float, output: float) -> None:
    """Blocks that are shared are named one by one: a request of them has a context that some model might have."""
    tokens = prompt + max(output, 0.0)  # less than no output is told when all lines are read
    if not tokens <= MAX_NAMED_TOKENS:
        raise DseError(
            f"{where}, line {line}: prompt and output have {tokens:g} tokens, must be at most {MAX_NAMED_TOKENS} where requests "
            "share a beginning"
        )


def _turn(session: str, first: int, prompt: float, output: float) -> list[int]:
    """Blocks of a turn of a conversation: its prompt begins with the turns before it, so that block i is the same in all."""
    return [_name("session", session, i) for i in range(first, int(prompt + output) // OWN_BLOCK)] if session else []


def _own(rows: Iterator[Row], where: str) -> RequestLog:
    log = _Reading(where, OWN_COLUMNS)
    regions: list[str] = []
    for line, row in rows:
        if "region" in row:
            regions.append(row["region"].strip())
            if not regions[-1]:
                raise DseError(f"{where}, line {line}: region is empty, must be named where the log has the column")
        key, prefix = row.get("session", "").strip(), row.get("prefix", "").strip()
        log.add(line, row, session=key)
        prompt, output = log.prompt[-1], log.output[-1]
        shared = _number(row.get("prefix_tokens") or (prompt if prefix else 0), "prefix_tokens", where, line, whole=True)
        if not 0 <= shared <= prompt:
            raise DseError(f"{where}, line {line}: prefix_tokens is {shared:g}, must be from 0 to the prompt's {prompt:g}")
        if key or prefix:
            _check_named(where, line, prompt, output)
        own = [_name("prefix", prefix, i) for i in range(int(shared) // OWN_BLOCK)] if prefix else []
        log.blocks.append(own + _turn(key, len(own), prompt, output))
    return replace(log.finish("own"), region=tuple(regions))


def _azure(rows: Iterator[Row], where: str) -> RequestLog:
    log = _Reading(where, AZURE_COLUMNS)
    for line, row in rows:
        text = row["TIMESTAMP"].strip()
        try:
            # Seven digits of a second are written; six are what a datetime holds.
            head, dot, tail = text.partition(".")
            moment = datetime.fromisoformat(head + dot + tail[:6].ljust(6, "0") if dot and "+" not in tail else text)
        except ValueError:
            raise DseError(
                f"{where}, line {line}: TIMESTAMP is {text[:40]!r}, must be a date and time like 2023-11-16 18:15:46.68"
            ) from None
        log.add(line, row, moment=(moment.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds())
    return log.finish("azure")


def _burst(rows: Iterator[Row], where: str) -> RequestLog:
    log = _Reading(where, BURST_COLUMNS)
    for line, row in rows:
        key = row.get("Session ID", "").strip()
        log.add(line, row, session=key)
        if key:
            _check_named(where, line, log.prompt[-1], log.output[-1])
        log.blocks.append(_turn(key, 0, log.prompt[-1], log.output[-1]))
    return log.finish("burstgpt")


def _mooncake(file: Path) -> RequestLog:
    where = str(file)
    log = _Reading(where, MOONCAKE_KEYS)
    for line, row in numbered(file):
        for key in MOONCAKE_KEYS:
            if key not in row:
                raise DseError(f"{where}, line {line}: {key!r} is missing, must hold {', '.join(MOONCAKE_KEYS)} (and hash_ids)")
        log.add(line, row, moment=_number(row["timestamp"], "timestamp", where, line) / 1000)
        ids = row.get("hash_ids", [])
        if not isinstance(ids, list) or not all(isinstance(x, int) and not isinstance(x, bool) and abs(x) < 2**52 for x in ids):
            raise DseError(f"{where}, line {line}: hash_ids is {str(ids)[:40]!r}, must be a list of whole numbers")
        # The last name may stand for a block that the prompt fills in part: it is not shared.
        log.blocks.append(ids[: int(log.prompt[-1]) // MOONCAKE_BLOCK])
    return log.finish("mooncake", MOONCAKE_BLOCK)
