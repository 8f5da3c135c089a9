"""Two runs side by side, as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from dse.analysis.comparison import Comparison, compare, not_comparable_text
from dse.analysis.comparison_of_several import ComparisonOfSeveral, compare_several
from dse.problem.wording import number_text, plural
from dse.reports.terminal import printable
from dse.storage.run_folder import RunRecord


class RunComparison(Comparison):
    """A comparison that shows itself as ``dse compare`` prints it."""

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


class RunsComparison(ComparisonOfSeveral):
    """A comparison of three runs and more that shows itself as ``dse compare`` prints it."""

    def __repr__(self) -> str:
        return text_of_several(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def compared(first: RunRecord, second: RunRecord) -> RunComparison:
    """The comparison of two runs (:func:`dse.analysis.comparison.compare`), which prints as text."""
    return RunComparison(**vars(compare(first, second)))


def compared_several(runs: Sequence[RunRecord]) -> RunsComparison:
    """The comparison of runs (:func:`dse.analysis.comparison_of_several.compare_several`), which prints as text."""
    return RunsComparison(**vars(compare_several(runs)))


def _asked(comparison: Comparison | ComparisonOfSeveral, letters: Sequence[str]) -> list[str]:
    """What was asked differently, a line a setting with a value a run, and the notes."""
    differ = [f"  {printable(name)}: {' | '.join(printable(_told(value)) for value in row)}" for name, row in comparison.settings.items()]
    lines = [f"Settings that differ ({' | '.join(letters)}):", *differ] if differ else ["The settings are the same."]
    apart = ["", f"{printable(not_comparable_text(comparison.not_comparable))}. What follows is of the other objectives"
             f" ({', '.join(o.metric for o in comparison.objectives)})."] if comparison.not_comparable else []  # fmt: skip
    return [*apart, "", *lines, *(f"  note: {printable(note)}" for note in comparison.notes)]


def text_of_several(comparison: ComparisonOfSeveral) -> str:
    """The comparison of three runs and more as text: one column a run, by letters."""
    c = comparison
    letters = [chr(ord("A") + i) for i in range(len(c.runs))]
    lines = [f"{letter}  {printable(run.path)}" for letter, run in zip(letters, c.runs, strict=True)]
    lines += _asked(c, letters)
    rows: list[tuple[str, list[Any]]] = [("designs on the front", [run.designs for run in c.runs])]
    if c.runs[0].hypervolume is not None:
        rows.append(("hypervolume (all together: 100 %)", [f"{run.hypervolume:.2%}" for run in c.runs]))
    rows.append(("on the front of all together", [len(run.on_merged_front) for run in c.runs]))
    rows += [
        (f"dominated by {letter}", ["" if i == at else run.dominated_by[at] for i, run in enumerate(c.runs)])
        for at, letter in enumerate(letters)
    ]
    rows += [(f"best {o.metric}", [number_text(run.best[o.metric]) for run in c.runs]) for o in c.objectives]
    lines += ["", f"{'':<34}" + "".join(f"{letter:>14}" for letter in letters)]
    lines += [f"{label:<34}" + "".join(f"{value!s:>14}" for value in values) for label, values in rows]
    return "\n".join(line.rstrip() for line in lines)


def text(comparison: Comparison, *, limit: int = 8) -> str:
    """The comparison as text."""
    c = comparison
    lines = [f"A  {printable(c.first.path)}", f"B  {printable(c.second.path)}", *_asked(c, "AB")]
    names = [o.metric for o in c.objectives]
    lines += ["", f"{'':<34}{'A':>14}{'B':>14}"]
    rows: list[tuple[str, Any, Any]] = [("designs on the front", c.first.designs, c.second.designs)]
    if c.first.hypervolume is not None and c.second.hypervolume is not None:
        rows.append(("hypervolume (both together: 100 %)", f"{c.first.hypervolume:.2%}", f"{c.second.hypervolume:.2%}"))
    rows += [
        ("dominated by the other", len(c.first.dominated), len(c.second.dominated)),
        ("on the front of both together", c.first.on_merged_front, c.second.on_merged_front),
    ]
    rows += [(f"best {name}", number_text(c.first.best[name], 1.0), number_text(c.second.best[name], 1.0)) for name in names]
    lines += [f"{label:<34}{a!s:>14}{b!s:>14}" for label, a, b in rows]
    for mine, other, side in (("A", "B", c.first), ("B", "A", c.second)):
        if side.dominated:
            pairs = [f"{by} > {design}" for design, by in list(side.dominated.items())[:limit]]
            more = f", ... ({len(side.dominated)} in all)" if len(side.dominated) > limit else ""
            lines.append(f"designs of {other} that dominate designs of {mine}: {', '.join(pairs)}{more}")
    if c.shared:
        lines.append(f"{plural(len(c.shared), 'design')} {'is' if len(c.shared) == 1 else 'are'} in both fronts")
        if c.changes:
            largest = sorted(c.changes.items(), key=lambda item: -abs(item[1]))[:limit]
            lines.append("  their figures differ by at most: " + ", ".join(f"{name} {change:+.2%}" for name, change in largest))
    return "\n".join(lines)


def _told(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value != {} else "-"


def several_as_json(comparison: ComparisonOfSeveral) -> dict[str, Any]:
    """The comparison of three runs and more as plain values."""
    from dataclasses import asdict

    return {**asdict(comparison), "objectives": [str(o) for o in comparison.objectives]}


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values."""
    from dataclasses import asdict

    answer = asdict(comparison)
    answer["objectives"] = [str(o) for o in comparison.objectives]
    answer["settings"] = {name: list(pair) for name, pair in comparison.settings.items()}
    for side in ("first", "second"):
        answer[side]["dominated"] = [{"design": k, "by": v} for k, v in answer[side]["dominated"].items()]
    return answer
