"""Traces of loops: one JSON line a call of the model, prompts by hash. A trace is data: it names no secret and can be a workload."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, is_number, shorten
from workloads.jsonl import numbered
from workloads.reasoning.backends import Backend, Completion

BLOCK_TOKENS = 16
PHASES = ("think", "verify", "localise", "answer", "rollout", "suffix")


@dataclass(frozen=True)
class Call:
    """One call of the model.

    Attributes:
        id, parents: place in the trace; calls that had to end before this one began.
        phase: one of `PHASES`. prompt_sha256: of the prompt. prompt_tokens, output_tokens. wall_s: time of the batch it was in.
        blocks: names of the leading blocks of 16 tokens of prompt and output; equal where everything up to there is equal.
        status: ok, empty, timeout or error; sample: number of the problem.
    """

    id: int
    parents: tuple[int, ...]
    phase: str
    prompt_sha256: str
    prompt_tokens: int
    output_tokens: int
    wall_s: float
    status: str
    sample: int
    blocks: tuple[int, ...] = ()


@dataclass
class Budget:
    """What a loop may use: calls and output tokens. ``why`` says what ended it, empty while nothing has."""

    calls: int = 10_000
    tokens: int = 10_000_000
    why: str = ""

    def spend(self, tokens: int) -> None:
        """Take one call that made ``tokens`` tokens."""
        self.calls -= 1
        self.tokens -= tokens

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        if not self.why and (self.calls <= 0 or self.tokens <= 0):
            self.why = "calls" if self.calls <= 0 else "tokens"
        return bool(self.why)


@dataclass
class Recorder:
    """Calls a back end and writes down what happened."""

    backend: Backend
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    sample: int = 0
    results: list[tuple[int, tuple[bool, ...]]] = field(default_factory=list)

    def result(self, solved: Sequence[bool]) -> None:
        """Write down whether the problem was solved: after 0, 1, ... corrections, after each round of a debate, or in the end."""
        self.results.append((self.sample, tuple(bool(x) for x in solved)))

    def ask(
        self, phase: str, prompts: Sequence[str], *, parents: Sequence[int] = (), max_tokens: int, temperature: float
    ) -> tuple[list[Completion], list[int]]:
        """Completions of the prompts and the numbers of their calls; fewer where the budget ends."""
        prompts = list(prompts)[: max(min(len(prompts), self.budget.calls), 0)]
        begin = time.perf_counter()
        found = self.backend.generate(prompts, max_tokens=max_tokens, temperature=temperature, seed=self.seed + len(self.calls))
        wall = time.perf_counter() - begin
        numbers = []
        for prompt, completion in zip(prompts, found, strict=True):
            number = len(self.calls)
            tokens = max(self.backend.count(prompt), 1)
            self.budget.spend(completion.tokens)
            digest = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()
            blocks = block_names(prompt.split() + completion.text.split())
            made = max(completion.tokens, 1)
            self.calls.append(Call(number, tuple(parents), phase, digest, tokens, made, wall, completion.status, self.sample, blocks))
            numbers.append(number)
        return found, numbers

    def write(self, path: str | Path) -> None:
        """One JSON line a call, one a problem whose result is known, and a last one that says how the loop ended."""
        with Path(path).open("w", encoding="utf-8") as stream:
            for call in self.calls:
                stream.write(json.dumps(asdict(call)) + "\n")
            for sample, solved in self.results:
                stream.write(json.dumps({"result": sample, "solved": solved}) + "\n")
            stream.write(json.dumps({"end": self.budget.why or "done", "calls": len(self.calls)}) + "\n")


def block_names(words: Sequence[str]) -> tuple[int, ...]:
    """Names (48 bits) of the whole blocks of a text, each of everything up to its end."""
    digest = hashlib.sha256()
    names = []
    for i, word in enumerate(words, start=1):
        digest.update(word.encode("utf-8", "replace") + b"\0")
        if i % BLOCK_TOKENS == 0:
            names.append(int.from_bytes(digest.copy().digest()[:6], "big"))
    return tuple(names)


def read_trace(path: str | Path) -> list[Call]:
    """The calls of a trace; WorkloadError with the line for anything that is none."""
    file = Path(path)
    calls: list[Call] = []
    for line, row in numbered(file):
        if "end" not in row and "result" not in row:
            calls.append(_call(row, f"{file} line {line}", len(calls)))
    if not calls:
        raise WorkloadError(f"{file} holds no call, must hold at least one")
    return calls


def read_results(path: str | Path) -> list[tuple[bool, ...]]:
    """Whether each problem of a trace was solved after each step of its loop; WorkloadError where no line says."""
    file = Path(path)
    found: list[tuple[bool, ...]] = []
    for line, row in numbered(file):
        if "result" not in row:
            continue
        solved = row.get("solved")
        if not isinstance(solved, list) or not solved or not all(isinstance(x, bool) for x in solved):
            raise WorkloadError(f"{file} line {line}: solved is {shorten(solved)!r}, must be a list of true and false")
        found.append(tuple(solved))
    if not found:
        raise WorkloadError(f"{file} holds no result, must hold lines with 'result' and 'solved' to tell a quality")
    return found


def _call(row: dict[str, Any], where: str, number: int) -> Call:
    def whole(name: str, low: int, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**53:
            raise WorkloadError(f"{where}: {name} is {shorten(value)!r}, must be a whole number from {low}")
        return value

    for name in ("id", "phase", "prompt_tokens", "output_tokens"):
        if name not in row:
            raise WorkloadError(f"{where}: {name!r} is missing, must hold id, phase, prompt_tokens, output_tokens (and parents, blocks)")
    if whole("id", 0, row["id"]) != number:
        raise WorkloadError(f"{where}: id is {row['id']}, must be {number} (calls are numbered in order)")
    if row["phase"] not in PHASES:
        raise WorkloadError(f"{where}: phase is {shorten(row['phase'])!r}, must be one of {', '.join(PHASES)}")
    parents, blocks = row.get("parents", []), row.get("blocks", [])
    if not isinstance(parents, list) or not isinstance(blocks, list):
        raise WorkloadError(f"{where}: parents and blocks must be lists")
    for parent in parents:
        if whole("parent", 0, parent) >= number:
            raise WorkloadError(f"{where}: parent {parent} does not come before call {number}")
    wall_s = row.get("wall_s", 0.0)
    if wall_s is not None and not (is_number(wall_s) and wall_s >= 0):
        raise WorkloadError(f"{where}: wall_s is {shorten(wall_s)!r}, must be a number of seconds from 0")
    return Call(
        number,
        tuple(parents),
        row["phase"],
        str(row.get("prompt_sha256", "")),
        whole("prompt_tokens", 1, row["prompt_tokens"]),
        whole("output_tokens", 1, row["output_tokens"]),
        float(wall_s or 0.0),
        str(row.get("status", "ok")),
        whole("sample", 0, row.get("sample", 0)),
        tuple(whole("block", 0, b) for b in blocks),
    )


MAX_PARTS = 64


def mix_of(lengths: Sequence[tuple[int, int]], model: str, name: str) -> str:
    """A mix (see `workloads.mix`) whose requests have these (prompt, output) tokens, batch 1 and no shared prefixes.

    At most 64 pairs of lengths stand as they are; more are put together by neighbours of equal work, whose mean prompt and output
    are rounded to whole tokens.
    """
    pairs: dict[tuple[int, int], int] = {}
    for key in lengths:
        pairs[key] = pairs.get(key, 0) + 1
    parts = [(p, o, count) for (p, o), count in sorted(pairs.items())]
    if len(parts) > MAX_PARTS:
        work = sum((p + o) * c for p, o, c in parts)
        merged: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(MAX_PARTS)]
        done = 0.0
        for p, o, c in sorted(parts, key=lambda x: (x[0] + x[1], x)):
            at = merged[min(int(done / work * MAX_PARTS), MAX_PARTS - 1)]
            at[0], at[1], at[2] = at[0] + p * c, at[1] + o * c, at[2] + c
            done += (p + o) * c
        parts = [(max(round(p / c), 1), max(round(o / c), 1), int(c)) for p, o, c in merged if c]
    total = sum(c for _, _, c in parts)
    lines = [f"name = {json.dumps(name)}", f'note = "{total} requests of a trace in {len(parts)} kinds; prefixes are not shared here"', ""]
    for i, (p, o, c) in enumerate(parts):
        lines += ["[[part]]", f'name = "kind{i}"', f"workload = {json.dumps(model)}", f"weight = {c / total!r}", ""]
        lines += ["[part.set]", f"sequence = {p}", f"new_tokens = {o}", ""]
    return "\n".join(lines)
