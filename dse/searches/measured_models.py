"""Measured models of a run: where their records and checkpoints lie, what a report says of them, and which go with the front's designs.

While a search runs, every healed model's checkpoint lies in ``measured/KEY/model``; when it ends, those of the front are moved to
``designs/N/model`` and the others are removed. Records (``measured/KEY/record.json``) stay.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dse.quality.measured import Evaluator
from dse.quality.model_evaluator import FOLDER, MeasuredEvaluator
from dse.quality.pruning.select import KNOBS
from dse.storage.run_folder import RunRecord

_LEAST_FOR_EFFECTS = 8  # records, below which an effect of a knob says nothing


def kept_in(evaluator: Evaluator, run_folder: Path) -> Evaluator:
    """The evaluator with its records in a run's folder; one that keeps none stays as it is."""
    return replace(evaluator, folder=str(run_folder / FOLDER)) if isinstance(evaluator, MeasuredEvaluator) else evaluator


def records(run_folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every record of a run and the folder that it lies in, in the order of their keys."""
    for file in sorted((run_folder / FOLDER).glob("*/record.json")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # half a record of a killed process: the measurement is made again
        if isinstance(found, dict):
            yield file.parent, found


def summary(evaluator: MeasuredEvaluator, run_folder: Path) -> dict[str, Any]:
    """What a report says of the measurements: how each was made, how dear they were, what the looks saved, what quality answered to."""
    looks: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    for _, record in records(run_folder):
        (measured if "unpruned" in record else looks).append(record)
    items = max((r["items"] for r in measured), default=0)
    whole = [r for r in measured if r["items"] == items]  # a lower fidelity scores fewer
    partial_s = sum(r["cpu_s"] for r in measured) - sum(r["cpu_s"] for r in whole)
    seconds = sum(r["cpu_s"] for r in whole)
    mean = seconds / len(whole) if whole else 0.0
    spent_looking = sum(r["cpu_s"] for r in looks)
    return {
        "source": evaluator.settings.source,
        "metric": next((r["metric"] for r in whole), None),
        "unpruned": next((r["unpruned"] for r in whole), None),
        "sampling_se": next((r["sampling_se"] for r in whole), None),
        "items": items,
        "looks": len(looks),
        "look_cpu_s": spent_looking,
        "measurements": len(whole),
        "measurement_cpu_s": seconds,
        "partial": len(measured) - len(whole),
        "partial_cpu_s": partial_s,
        # Against measuring every model that was looked at, or every model of the first rung where there were no looks.
        "saved_cpu_s": max(0.0, max(len(looks), len(measured) - len(whole)) * mean - spent_looking - partial_s - seconds),
        "effects": knob_effects(looks if len(looks) >= len(whole) else whole),
        "models": [
            {
                name: r[name]
                for name in ("shape", "weight_bits", "figure", "figure_se", "items", "steps", "seed", "cpu_s", "heal_cpu_s", "curve")
            }
            for r in sorted(whole, key=lambda r: -r["figure"])
        ],
    }


def knob_effects(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Standardised effect of each knob that varies: least squares of the figure on ln(knob), with its standard error.

    ``effect`` is the change of the figure when the knob doubles. Too few records, or knobs that cannot be told apart, give none.
    """
    names = [n for n in (*KNOBS, "weight_bits") if len({_knob(r, n) for r in found}) > 1]
    if "kv_heads" in names and "heads" in names:  # whole groups: one knob under two names
        names.remove("kv_heads")
    if len(found) < max(_LEAST_FOR_EFFECTS, len(names) + 3) or not names:
        return []
    design = np.array([[1.0, *(np.log2(_knob(r, n)) for n in names)] for r in found])
    figures = np.array([r["figure"] for r in found])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return []
    coefficients, *_ = np.linalg.lstsq(design, figures, rcond=None)
    residual = figures - design @ coefficients
    variance = float(residual @ residual) / (len(found) - design.shape[1])
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * variance)
    return [{"knob": n, "effect": float(c), "se": float(e)} for n, c, e in zip(names, coefficients[1:], errors[1:], strict=True)]


def _knob(record: Mapping[str, Any], name: str) -> int:
    return int(record["weight_bits"] if name == "weight_bits" else record["shape"][name] or 1)


def keep_models(run: RunRecord) -> list[Path]:
    """Put the checkpoint of every design of the front beside its file (``designs/N/model``) and remove the others; returns the folders.

    Designs that share a model share its files (hard links where the file system has them). A model that was measured by another driver of
    a shared study is not here; its design has no checkpoint.
    """
    if "measured" not in run.context:
        return []
    models = [(place, record) for place, record in records(run.path) if (place / "model").is_dir()]
    kept = []
    for design in run.designs:
        place = run.path / "designs" / str(design["design"]) / "model"
        if place.is_dir():
            kept.append(place)
            continue
        found = [(record["steps"], folder) for folder, record in models if _is_of(record, design["knobs"])]
        if found:
            place.mkdir(parents=True)
            for file in sorted((max(found)[1] / "model").iterdir()):
                _link(file, place / file.name)
            kept.append(place)
    for folder, _ in models:
        shutil.rmtree(folder / "model")
    return kept


def _is_of(record: Mapping[str, Any], knobs: Mapping[str, Any]) -> bool:
    own = {**record["shape"], "weight_bits": record["weight_bits"]}
    return all(own[name] == value for name, value in knobs.items() if name in own)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
