"""What a table of figures and the space that is searched leave of each other: sentences for whoever reads the front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.problem.wording import plural
from dse.quality.evaluators import TableEvaluator, cell


def cautions(table: TableEvaluator, models: Mapping[str, npt.NDArray[Any]], *, own_space: bool) -> list[str]:
    """Rows outside of the space, models without a row, knobs that the table does not see; none where each row is one model.

    ``models``: the knobs of the models that are searched, a column (models,) each; columns of the table that are of the hardware are
    passed over. ``own_space``: they come from a space file.
    """
    name = Path(table.path).name
    at = [place for place, knob in enumerate(table.parameters) if knob in models]
    seen = [table.parameters[place] for place in at]
    keys = [tuple(map(cell, values)) for values in zip(*(models[knob].tolist() for knob in seen), strict=True)]
    rows = {tuple(key[place] for place in at) for fidelity, key in table.rows if fidelity == 1.0}
    varied = [knob for knob, column in models.items() if len(np.unique(column)) > 1]
    found = []
    if outside := len(rows - set(keys)):
        values = dict(zip(seen, zip(*rows, strict=True), strict=True))
        still = [knob for knob in seen if knob not in varied and len(set(values[knob])) > 1]
        why = f" ({', '.join(still)} not searched)" if still else ""
        verb = "is" if outside == 1 else "are"
        remedy = "list their values in the space file" if own_space else "list their values in a space file (`dse init space`, --space)"
        found.append(f"{outside:,} of {plural(len(rows), 'row')} of {name} {verb} outside the space{why}; {remedy} to search them.")
    if bare := sum(key not in rows for key in keys):
        verb = "has" if bare == 1 else "have"
        found.append(f"{bare:,} of {plural(len(keys), 'model')} of the space {verb} no row in {name} and could not be searched.")
    if unseen := _alone(models, keys, [knob for knob in varied if knob not in table.parameters]):
        found.append(
            f"The table {name} does not see {', '.join(unseen)}: models that differ in {'it' if len(unseen) == 1 else 'them'} alone have "
            "one quality, whether they were measured or not, so the search takes a saving there for nothing."
        )
    return found


def _alone(models: Mapping[str, npt.NDArray[Any]], keys: list[tuple[str, ...]], knobs: list[str]) -> list[str]:
    """Those of ``knobs`` in which models that exist differ while the table has one key for them: a constraint may leave none."""
    values: dict[tuple[str, ...], dict[str, set[Any]]] = {}
    for place, key in enumerate(keys):
        of_key = values.setdefault(key, {knob: set() for knob in knobs})
        for knob in knobs:
            of_key[knob].add(models[knob][place].item())
    return [knob for knob in knobs if any(len(of_key[knob]) > 1 for of_key in values.values())]
