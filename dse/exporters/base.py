"""What an export is: files of a target, notes of what they say and what they cannot, and how to run them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from dse.errors import DseError
from dse.exporters import on_chip
from dse.exporters.design import ExportDesign
from dse.exporters.names import quoted
from dse.storage.run_folder import write_text

NOTES_FILE = "EXPORT-NOTES.md"
OPERATIONS_FILE = "operations.csv"
MAPPINGS_FILE = "mappings.json"


@dataclass(frozen=True)
class Export:
    """The files of one export, by their names in its folder, and what is to be known about them.

    Attributes:
        tool: what reads them, with the version that the format was taken from.
        files: {name: text}; names are the exporter's own, never made from a user's text.
        expressed: what of the design they say. assumed: what they needed and the design does not say. lost: what the target
            cannot express.
        run: command lines that run them.
        checked: how this export is checked in the project's tests.
        on_chip: how the files carry what stays on chip between operations; empty: they do not.
        careful: what of it makes the files another machine than the design, told at once and not in the notes alone.
    """

    tool: str
    files: Mapping[str, str | bytes]
    expressed: Sequence[str]
    assumed: Sequence[str]
    lost: Sequence[str]
    run: Sequence[str] = ()
    checked: str = ""
    on_chip: str = ""
    careful: Sequence[str] = ()


def write(export: Export, design: ExportDesign, folder: Path) -> list[Path]:
    """Write the files, the list of operations and the notes into ``folder`` (made if need be); returns what was written."""
    files = {
        **export.files,
        OPERATIONS_FILE: operations_csv(design),
        MAPPINGS_FILE: mappings_json(design),
        NOTES_FILE: notes_text(export, design),
    }
    if design.on_chip is not None:
        files[on_chip.FILE] = on_chip.text(design)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DseError(f"out {folder} cannot be made: {error.strerror}") from error
    written = []
    for name, content in files.items():
        path = _inside(folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
                written.append(path)
                continue
        except OSError as error:
            raise DseError(f"{path} cannot be written: {error.strerror}") from error
        written.append(write_text(path, content))
    return written


def _inside(folder: Path, name: str) -> Path:
    """The place of an exported file; a folder that leads elsewhere through a link is refused."""
    root = folder.resolve()
    path = folder / name
    if not path.resolve().is_relative_to(root):
        raise DseError(f"out {folder} holds a link at {name} that leads out of it; take an empty folder")
    return path


def script(name: str) -> str:
    """The text of a run script that goes with an export."""
    # Kept as text: they run in the target's environment, and nothing here may import them.
    return resources.files("dse.exporters").joinpath("scripts").joinpath(f"{name}.txt").read_text(encoding="utf-8")


def operations_csv(design: ExportDesign) -> str:
    """One row a product: its name in the files, the operations that it is, its sizes, how often it runs, and its cost here."""
    rows = [
        {
            "layer": p.name,
            "operations": " ".join(_word(name) for name in p.operations),
            "batch": p.batch,
            "m": p.m,
            "n": p.n,
            "k": p.k,
            "second_operand": "weight" if p.second_is_weight else "activation",
            "runs_per_request": repr(p.runs),
            "dse_cycles": repr(p.latency_s * design.accelerator.frequency_hz),
            "dse_latency_s": repr(p.latency_s),
            "dse_bound": _word(p.bound),
        }
        for p in design.products
    ]
    return csv_text(rows)


def mappings_json(design: ExportDesign) -> str:
    """The mapping that the cost of each product stands for: cores, array, registers, and the tile of every level."""
    found = {name: nest.as_dict() for name, nest in design.mappings.items()}
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def _word(name: str) -> str:
    """An operation's name as one word that a spreadsheet takes for text."""
    word = "_".join("".join(c if c.isprintable() else " " for c in name).split())
    return f"'{word}" if word[:1] in "=+-@" else word


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def notes_text(export: Export, design: ExportDesign) -> str:
    """EXPORT-NOTES.md."""
    a = design.accelerator
    levels = ", ".join(f"{quoted(v.name)} {size_text(v.bytes)}" + (" a core" if v.per_core else "") for v in a.levels)
    lines = [
        f"# Design {design.number} for {export.tool}",
        "",
        f"Workload {quoted(design.workload_name)}; accelerator {quoted(a.name)}: {a.cores} x ({a.array_rows} x {a.array_columns}) "
        f"multiply-accumulators, {a.frequency_hz / 1e6:g} MHz, {levels}.",
    ]
    if design.command:
        lines.append(f"Made from the run of {quoted(design.command)} (dse {quoted(design.version or 'unknown')}).")
    lines += ["", "## What the files say", "", *(f"* {text}" for text in export.expressed)]
    lines += ["", "## What was assumed", "", *(f"* {text}" for text in export.assumed or ["nothing"])]
    lines += ["", "## What this target cannot express", "", *(f"* {text}" for text in export.lost)]
    if design.others:
        listed = ", ".join(f"{quoted(o.function)} ({o.count:g})" for o in design.others)
        lines.append(
            f"* Operations that are no matrix product (runs a request): {listed}; here they take {design.others_share:.1%} of the "
            "time of a request."
        )
    lines += [f"* {text}" for text in design.notes]
    lines += _on_chip_lines(export, design)
    if export.run:
        lines += ["", "## How to run", "", "```sh", *export.run, "```"]
    if export.checked:
        lines += ["", "## How this export is checked", "", export.checked]
    lines += [
        "",
        f"`{OPERATIONS_FILE}` lists every product once: its name in these files, the operations of the model that it is, how often a "
        f"request runs it, and what it costs on this design by our own model. `{MAPPINGS_FILE}` has the mapping that this cost "
        "stands for, for targets that cannot be told it.",
        "",
    ]
    return "\n".join(lines)


def _on_chip_lines(export: Export, design: ExportDesign) -> list[str]:
    """The section of the notes on what stays on chip between operations."""
    found = design.on_chip
    if found is None:
        return []
    carried = export.on_chip or (
        "The target's files do not say it: there every product reads its operands from the DRAM and writes its result there."
    )
    return [
        "",
        "## What stays on chip between operations",
        "",
        f"* {carried}",
        f"* `{on_chip.FILE}` has it whole (residency {found['level']}): where each tensor lives, each step with what is on chip while it "
        "runs, and each product in every condition that it runs in, with its mapping beside what is held.",
        f"* With it a request moves {size_text(found['dram_bytes'])} over the DRAM's boundary; latencies and cycles in "
        f"`{OPERATIONS_FILE}`, and `{MAPPINGS_FILE}`, are of products by themselves.",
    ]


def size_text(size: float) -> str:
    """Bytes in the unit that divides them."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"
