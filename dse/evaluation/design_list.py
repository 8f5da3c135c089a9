"""A list of whole designs, a row each, costed with every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError, unknown_name
from dse.evaluation.evaluation import Evaluation, Space, load_family, load_hardware
from dse.evaluation.hardware_columns import as_knobs
from dse.problem.metrics import METRICS
from dse.problem.problem import Problem
from dse.quality.surrogate import EXTRAPOLATED, SUPPORT
from dse.spaces.hardware import fields_of
from dse.text_values import TRUTH
from hw_models.costs.products_csv import Table, read_csv, write_csv
from workloads.errors import WorkloadError
from workloads.family import Family

IntArray = npt.NDArray[np.int64]

# Columns of our own tables that are not knobs: a front can be fed back as it is.
_PASSED_ON = ("equal_to", "design", "name", "id", "quality_support", "quality_reason", "feasible", "bound", *METRICS)


def evaluate_designs(problem: Problem, path_in: str, path_out: str, *, allow_unsupported: bool) -> int:
    """Cost the designs of a CSV file and write them with all metrics to ``path_out``; returns the number of rows.

    Columns in: knobs of the workload and of the hardware; knobs without a column take ``problem.fixed``, else the
    workload's own value and the middle of the hardware's. Quality that no published figure supports is left empty, with
    the reason beside it, unless ``allow_unsupported``. Distinct models meet distinct hardware once.

    Raises UsageError naming file, line and column.
    """
    table = read_csv(path_in)
    family, asked = load_family(problem), table
    if problem.hardware_toml is not None:
        others = {*family.model_grid(), *family.knobs, *_PASSED_ON, *load_hardware(problem).settings}
        text, table = as_knobs(problem.hardware_toml, table, others)
        problem = replace(problem, hardware_toml=text)
    hardware = load_hardware(problem)
    # Where both sides know a name (weight_bits), it is the model's: the hardware follows what the model was built with.
    model_names = list(dict.fromkeys([*family.model_grid(), *(name for name in table.columns if name in family.knobs)]))
    settings = {name for name in table.columns if name in hardware.settings and name not in model_names}
    known = [*model_names, *(n for n in family.knobs if n not in model_names), *hardware.knobs, *hardware.settings]
    for column in table.columns:
        if column not in known and column not in _PASSED_ON:
            raise unknown_name(f"{table.path}: column", column, [*known, *fields_of(problem.hardware_toml)])
    # A setting of the hardware that the file varies is a knob of this list.
    vary = {name: tuple(dict.fromkeys(table.number(row, name) for row in range(len(table.rows)))) for name in settings}
    problem = replace(problem, vary={**problem.vary, **vary})
    own = {**family.values(), **hardware.defaults, **problem.fixed}
    models, model_of = _distinct(table, model_names, own)
    points, point_of = _distinct(table, [*hardware.knobs, *settings], own)
    _check_models(table, family, models, model_of)
    rest = {name: value for name, value in problem.fixed.items() if name in family.knobs and name not in model_names}
    evaluation = Evaluation(problem, space=Space(models, points, 0, rest), threads=None)

    names = evaluation.metric_names
    columns: dict[str, list[Any]] = {name: [0.0] * len(table.rows) for name in names}
    for model in range(evaluation.space.model_count):
        rows = np.flatnonzero(model_of == model)
        block = evaluation.block(model, model + 1)
        for name in names:
            values = np.broadcast_to(block.metric(name), block.shape)[0]
            for row in rows:
                columns[name][row] = float(values[point_of[row]])
    added: dict[str, Sequence[object]] = dict(columns)
    if evaluation.quality is not None and evaluation.surrogate is not None:
        support = evaluation.quality.support[model_of]
        unsupported = (support == EXTRAPOLATED) & (not allow_unsupported)
        for name in ("quality", "quality_se"):
            added[name] = [None if hidden else value for hidden, value in zip(unsupported, columns[name], strict=True)]
        added["quality_support"] = [SUPPORT[int(code)] for code in support]
    write_csv(path_out, asked, added)
    return len(table.rows)


def _check_models(table: Table, family: Family, models: dict[str, npt.NDArray[Any]], model_of: IntArray) -> None:
    """A model that does not exist is an error that names its line."""
    try:
        family.values(**models)
    except WorkloadError:
        for row, model in enumerate(model_of.tolist()):
            try:
                family.values(**{name: _plain(column[model]) for name, column in models.items()})
            except WorkloadError as error:
                raise UsageError(f"{table.path}, line {row + 2}: {error}") from error
        raise


def _plain(value: Any) -> Any:
    """A Python number: a column of integers that no 64 bits hold has them already."""
    return value.item() if isinstance(value, np.generic) else value


def _cell(table: Table, row: int, name: str, own: Any) -> Any:
    """The value of a knob in a row, ``own`` where the file has no column of it; a name where the knob is of names, or true or false."""
    if name not in table.columns:
        return own
    if isinstance(own, (bool, str)):
        text = table.rows[row][table.columns.index(name)].strip()
        return TRUTH.get(text, text) if isinstance(own, bool) else text
    return table.number(row, name)


def _distinct(table: Table, names: list[str], own: dict[str, Any]) -> tuple[dict[str, npt.NDArray[Any]], IntArray]:
    """Distinct combinations of the named columns (columns the file lacks take ``own``), and which one each row is."""
    if not names:
        return {}, np.zeros(len(table.rows), dtype=np.int64)
    rows = range(len(table.rows))
    columns = [np.array([_cell(table, row, name, own.get(name)) for row in rows]) for name in names]
    codes = np.column_stack([np.unique(column, return_inverse=True)[1].reshape(-1) for column in columns])
    _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    return {name: column[first] for name, column in zip(names, columns, strict=True)}, inverse.reshape(-1)
