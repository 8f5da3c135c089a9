"""The files that a user takes from a run: pareto.csv, designs/ and report.html, made from the study and made again at will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dse.evaluation.evaluation import Evaluation
from dse.problem.problem import FLEET
from dse.reports.fleet_files import fleet_toml
from dse.reports.kept import of_run
from dse.reports.pages import page_of_run
from dse.storage.run_folder import MAX_DESIGN_FILES, RunRecord, csv_text, design_tomls, write_text
from dse.storage.study import FILE_NAME, Study


def write_files(run: RunRecord, evaluation: Evaluation | None = None) -> list[Path]:
    """Write pareto.csv, designs/ and report.html; returns what was written.

    Without ``evaluation`` (a run loaded from its study) the design files are left as they are; those of fleets need none.
    """
    written = [write_text(run.path / "pareto.csv", csv_text(run))]
    if evaluation is not None:
        folder = run.path / "designs"
        for place, designs in ((folder, run.designs[:MAX_DESIGN_FILES]), (folder / "beside", _named_beside(run))):
            if not designs:
                continue
            place.mkdir(exist_ok=True)
            for design, text in zip(designs, design_tomls(run, designs, evaluation), strict=True):
                written.append(write_text(place / f"design-{design['design']:04d}.toml", text))
    if run.problem.kind == FLEET:
        (run.path / "designs").mkdir(exist_ok=True)
        for design in run.designs[:MAX_DESIGN_FILES]:
            written.append(write_text(run.path / "designs" / f"design-{design['design']:04d}.toml", fleet_toml(run, design)))
    written.append(write_text(run.path / "report.html", page_of_run(run)))
    return written


def _named_beside(run: RunRecord) -> list[dict[str, Any]]:
    """The designs beside the front that the recommendation names: who reads of one shall be able to build it."""
    found = of_run(run)
    named = {found.runner_up, *(change.design for change in found.changes)}
    return [design for design in run.contenders if design["design"] in named]


def keep_alignment(run: RunRecord, found: Mapping[str, Any]) -> RunRecord:
    """Put an alignment (`RunAlignment.to_dict`) into a finished run: its study and its report show it from now on."""
    kept = replace(run, context={**run.context, "alignment": dict(found)})
    with Study.open(run.path / FILE_NAME) as study:
        study.finish({"summary": vars(kept.summary), "designs": kept.designs, "context": kept.context})
    write_files(kept)
    return kept
