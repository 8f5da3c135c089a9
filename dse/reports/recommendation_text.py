"""The recommendation as a terminal shows it: first, and short."""

from __future__ import annotations

import textwrap
from typing import Any

from dse.evaluation.written_design import command_of
from dse.reports import terminal
from dse.reports.kept import of_run


def command(run: Any, found: Any) -> str:
    """The command that gives the recommended design's numbers from its file; empty where there is none."""
    path, entry = run.path / found.toml, run.entry(found.design)
    if not found.toml or entry is None or not path.is_file():
        return ""
    return command_of(run.problem, entry["knobs"], path)


def recommendation_text(run: Any, *, width: int | None = None) -> str:
    """What to build, in a few lines, before the table: the sentence, what stands behind it, and what to be careful about."""
    found = of_run(run)
    lines = [found.sentence, *(f"  {line}" for line in found.lines), *(f"  careful: {line}" for line in found.warnings)]
    if found.toml and (run.path / found.toml).exists():
        lines.append(f"  its file: {run.path / found.toml}")
        lines += [f"  its numbers again: {line}" for line in [command(run, found)] if line]
    width = width or terminal.stdout_width()
    # A number and its per cent stay on one line, and a path is whole, to be copied.
    wrapped = (
        textwrap.wrap(terminal.printable(line).replace(" %", "\0%"), width, subsequent_indent="    ", break_on_hyphens=False,
                      break_long_words=False)
        for line in lines
    )  # fmt: skip
    return terminal.for_stdout("\n".join(part for parts in wrapped for part in parts).replace("\0", " "))
