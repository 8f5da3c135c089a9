"""A run: the folder of a search, what it found, and the files that a user takes from it.

The folder holds ``study.db`` (everything, and enough to finish an interrupted search), ``pareto.csv`` (the front, one
design a row), ``designs/*.toml`` (one file a design) and ``report.html``. The files are made from the study and can be made
again; each is written beside its place and moved there, so that none is ever half written.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.evaluation.careful import part_costs
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.one_design import support_name
from dse.evaluation.written_design import deployment_of
from dse.fronts.pareto import Front, rounded
from dse.problem.problem import Problem
from dse.storage.study import FILE_NAME, Study
from dse.storage.summary import SweepSummary
from hw_models.accelerator.design import Accelerator

if TYPE_CHECKING:
    import pandas as pd
# A folder of more files than this serves nobody; the front is whole in pareto.csv and in the study all the same.
MAX_DESIGN_FILES = 500
# Component breakdowns are kept for this many designs; a report shows no more.
MAX_BREAKDOWNS = 200
_BLOCK_POINTS = 1 << 18  # designs whose metrics are held at a time

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RunRecord:
    """A finished search."""

    path: Path
    problem: Problem
    provenance: dict[str, Any]
    summary: SweepSummary
    designs: list[dict[str, Any]]  # one a design of the front, in canonical order; see `describe_front`
    context: dict[str, Any]  # what is common to all designs: sources, space, hardware notes

    def pareto(self) -> pd.DataFrame:
        """The front as a frame: one row a design, knobs first, then every metric."""
        import pandas as pd

        return pd.DataFrame([flat_row(design) for design in self.designs])

    def __len__(self) -> int:
        return len(self.designs)

    @property
    def contenders(self) -> list[dict[str, Any]]:
        """Designs that are not on the front and could be the best in another deployment, numbered after those that are."""
        known = self.context.get("contenders")
        return list(known["designs"]) if isinstance(known, dict) else []

    def entry(self, number: int) -> dict[str, Any] | None:
        """The design of that number, on the front or a contender beside it; None where there is none."""
        return next((design for design in (*self.designs, *self.contenders) if design["design"] == number), None)


def flat_row(design: dict[str, Any]) -> dict[str, Any]:
    """A design as one row of a table."""
    return {
        "design": design["design"],
        "equal_to": design.get("equal_to"),
        **design["knobs"],
        "quality_support": design["quality_support"],
        **design["metrics"],
    }


def describe_front(evaluation: Evaluation, front: Front, *, breakdowns: int = MAX_BREAKDOWNS) -> list[dict[str, Any]]:
    """Everything that files and reports say of the designs of a front, as plain values.

    Each entry: ``design`` (rank, from 1), ``equal_to`` (the first of the designs that have the same objective values, None where this is
    it), ``knobs``, ``quality_support``, ``metrics`` (every metric), ``embodied_parts_kgco2e``, ``dram_bytes_per_s``, and, for
    ``breakdowns`` of them evenly spaced, ``components``, of a mix ``parts`` (what one request of each takes) and, where something stays
    on chip between operations, ``on_chip`` (`dse.evaluation.on_chip.in_short`). Equal designs are ordered by latency, energy and area.
    """
    names = evaluation.metric_names
    values: dict[int, dict[str, np.ndarray]] = {}
    most = max(1, _BLOCK_POINTS // max(1, evaluation.space.hardware_count))
    for start, end in _runs(np.unique(front.models), most):
        block = evaluation.block(start, end)
        columns = {name: np.broadcast_to(block.metric(name), block.shape) for name in names}
        values |= {model: {name: column[model - start] for name, column in columns.items()} for model in range(start, end)}
    mix = evaluation.family.family == "mix"
    detailed = set(np.linspace(1, max(1, len(front)), breakdowns).round().astype(int).tolist())
    designs = []
    order, first = _with_ties_ordered(front, values)
    for rank, (at, of_group) in enumerate(zip(order, first, strict=True), 1):
        model, hardware = int(front.models[at]), int(front.hardware[at])
        entry: dict[str, Any] = {
            "design": rank,
            "equal_to": None if of_group == rank else of_group,
            "knobs": evaluation.space.design(model, hardware),
            "quality_support": support_name(evaluation, model),
            "metrics": {name: float(values[model][name][hardware]) for name in names},
            "embodied_parts_kgco2e": evaluation.carbon_parts(hardware),
            "dram_bytes_per_s": float(evaluation.points.dram_bytes_per_s[hardware]),
        }
        if rank in detailed:
            entry["components"] = evaluation.breakdown(model, hardware)
            if kept := evaluation.kept_on_chip(model, hardware):
                entry["on_chip"] = kept
            if mix and (parts := part_costs(evaluation, model, hardware, entry["metrics"]["latency_s"])):
                entry["parts"] = parts
        designs.append(entry)
    return designs


def _runs(models: IntArray, most: int) -> Iterator[tuple[int, int]]:
    """First and one-past-last of the runs of consecutive models, of at most ``most`` each."""
    for run in np.split(models, np.flatnonzero(np.diff(models) != 1) + 1):
        for first in range(0, len(run), most):
            yield int(run[first]), int(run[min(first + most, len(run)) - 1]) + 1


def _with_ties_ordered(front: Front, metrics: dict[int, dict[str, np.ndarray]]) -> tuple[list[int], list[int]]:
    """Positions in the front with equal designs by latency, energy and area, and for each the rank of the first of its equals."""
    compared = rounded(front.values)
    changes = np.any(compared[1:] != compared[:-1], axis=1)
    group = np.concatenate([[0], np.cumsum(changes)]) if len(front) else np.zeros(0)

    def key(at: int) -> tuple[float, ...]:
        own = metrics[int(front.models[at])]
        return (float(group[at]), *(float(own[name][front.hardware[at]]) for name in ("latency_s", "energy_j", "area_mm2")), float(at))

    order = sorted(range(len(front)), key=key)
    return order, (np.searchsorted(group, group[order]) + 1).tolist()


def distinct(designs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The designs that are not equal to one before them."""
    return [design for design in designs if design.get("equal_to") is None]


def equals(designs: list[dict[str, Any]]) -> dict[int, int]:
    """{design: how many further ones equal it}."""
    return Counter(design["equal_to"] for design in designs if design.get("equal_to") is not None)


def csv_text(run: RunRecord) -> str:
    """The front as CSV; numbers in the shortest form that reads back to the same bits."""
    import csv

    rows = [flat_row(design) for design in run.designs]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else ["design"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: repr(value) if isinstance(value, float) else value for key, value in row.items()})
    return buffer.getvalue()


def design_tomls(run: RunRecord, designs: Sequence[dict[str, Any]], evaluation: Evaluation) -> list[str]:
    """Designs as TOML files: metrics and model as tables, the accelerator in the form that ``--hw`` reads."""
    hardware = evaluation.hardware_space
    columns = {name: np.array([design["knobs"][name] for design in designs]) for name in hardware.knobs}
    accelerators = hardware.accelerators(columns, len(designs))
    kernels = hardware.kernels_run(columns, len(designs)).tolist()
    run_with = {kind: evaluation.run_with_on(kernels=kind) for kind in set(kernels)}
    return [
        _design_toml(run, design, accelerator, evaluation, run_with[kind])
        for design, accelerator, kind in zip(designs, accelerators, kernels, strict=True)
    ]


def _design_toml(
    run: RunRecord, design: dict[str, Any], accelerator: Accelerator, evaluation: Evaluation, run_with: Mapping[str, Any]
) -> str:
    knobs = design["knobs"]
    model = {name: knobs[name] for name in evaluation.space.models}
    boards = evaluation.hardware_space.shipped or (evaluation.hardware_space.board,)
    device = str(knobs.get("device", boards[0]))
    lines = [
        f"# Design {design['design']} of the front of: {json.dumps(run.provenance.get('command', ''))}",
        f"# dse {run.provenance.get('version', '')}",
        accelerator.to_toml().rstrip(),
        "",
        "[design]",
        f"workload = {json.dumps(run.problem.workload)}",
        f"quality_support = {json.dumps(design['quality_support'] or 'none')}",
        *([f"device = {json.dumps(device)}"] if device else []),
        *([f"residency = {json.dumps(run.problem.residency)}"] if run.problem.residency != "none" else []),
        *(["prefetch = true"] if run.problem.prefetch else []),
        f"criterion = {json.dumps(run.problem.criterion)}",
        "",
        "[design.deployment]",  # as well: whoever evaluates the file elsewhere says so
        *(f"{name} = {json.dumps(value)}" for name, value in deployment_of(run.problem, knobs).items()),
        "",
        "[design.model]",
        *(f"{name} = {value}" for name, value in model.items()),
        "",
        "[design.run_with]",  # of the workload: a design is as good as its numbers say at this length and batch
        *(f"{name} = {json.dumps(value)}" for name, value in run_with.items()),
        "",
        "[design.metrics]",
        *(f"{name} = {value!r}" for name, value in design["metrics"].items()),
        "",
        *_on_chip_lines(design.get("on_chip")),
    ]
    return "\n".join(lines)


def _on_chip_lines(kept: dict[str, Any] | None) -> list[str]:
    """What a design keeps on chip, as a table of its file."""
    if not kept:
        return []
    names = [r["made_by"] for r in kept["tensors"] if r["chip"] + r.get("tiles", 0.0) > 0 and r["both"] == r["dram"] == 0]
    tiles = [r["made_by"] for r in kept["tensors"] if r.get("tiles", 0.0) > 0]
    return [
        "[design.on_chip]",
        f"residency = {json.dumps(kept['level'])}",
        f"weights = {json.dumps(kept['weights_on_chip'])}",
        f"most_held_bytes = {kept['most_held_bytes']!r}",
        f"never_in_dram = {json.dumps(list(dict.fromkeys(names)))}",
        *([f"by_tiles = {json.dumps(list(dict.fromkeys(tiles)))}"] if kept["level"] == "tiles" else []),
        "",
        "[design.on_chip.saved]",
        *(f"{name} = {value!r}" for name, value in kept["saved"].items()),
        "",
        *_prefetch_lines(kept.get("prefetch")),
    ]


def _prefetch_lines(found: dict[str, float] | None) -> list[str]:
    if found is None:
        return []
    return ["[design.on_chip.prefetch]", *(f"{name} = {value!r}" for name, value in found.items()), ""]


def write_text(path: Path, text: str) -> Path:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise DseError(f"{path} cannot be written: {error.strerror}") from error
    return path


def take_back(study: Study, *, keep: bool, made: bool) -> Path | None:
    """Free the folder of a search that cannot be finished; with ``keep`` its study stays under another name, which is returned.

    ``made``: the folder was made for it and goes too where nothing else is in it.
    """
    study.close()
    folder, kept = study.path.parent, None
    if keep:
        number = 1
        while (free := folder / f"unfinished-{number}.db").exists():
            number += 1
        with suppress(OSError):
            kept = study.path.rename(free)
    for name in ("", "-wal", "-shm"):
        with suppress(OSError):
            study.path.with_name(study.path.name + name).unlink()
    if made and not keep:
        with suppress(OSError):
            folder.rmdir()
    return kept


def load(path: str | Path) -> RunRecord:
    """Read a finished run from its folder (or its study file); an unfinished one is an error that says how to go on."""
    folder = Path(path)
    file = folder if folder.is_file() else folder / FILE_NAME
    with Study.open(file, read_only=True) as study:
        description = study.description()
        result = study.result()
    if result is None:
        word = str((description["measured"] or {}).get("quality", ""))
        if word.startswith("object:"):  # no command has the object
            raise DseError(
                f"run {folder} is not finished; its quality was an object of Python: dse.resume({str(folder)!r}, quality=OBJECT) finishes "
                "it (and strategy=OBJECT where that was one)"
            )
        raise DseError(f"run {folder} is not finished; `dse resume {folder}` finishes it")
    try:
        for design in result["designs"]:  # readers rely on these; a damaged file is found here and not in the middle of a report
            design["design"], design["knobs"].items(), design["metrics"].items()
        result["context"].items()
        return RunRecord(
            path=file.parent,
            problem=Problem.from_dict(description["problem"]),
            provenance=description["provenance"],
            summary=SweepSummary(**result["summary"]),
            designs=result["designs"],
            context=result["context"],
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DseError(f"study {file} is damaged: {type(error).__name__} at {error}; search again") from error
