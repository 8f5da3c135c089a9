"""The kernel model of a device (GPU or processor) set right by the user's own measurements, with the error on rows not fitted.

Two numbers for products and two for the other kernels: time = scale x model + fixed. They are fitted in squared log ratios, so that a
row counts by its relative error whatever its size. Rows are sorted by size and dealt to two halves; each half is fitted and judged on
the other, and what is kept comes from all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import Execution
from hw_models.costs.gpu import ROW_KERNELS
from hw_models.costs.gpu_kernels.sheet import FORMATS
from hw_models.costs.kernels import times_of
from hw_models.devices.calibration import MIN_ROWS, Measurements, relative_errors
from hw_models.errors import HardwareError
from workloads.ops import Kind, Operation, OperationTable

FloatArray = npt.NDArray[np.float64]
CLASSES: Final = ("product", "vector")
_SCALES: Final = (1e-3, 1e3)


@dataclass(frozen=True)
class Fitted:
    """One class of kernels; errors are medians of |model / measured - 1|: before, on halves fitted on the other, in sample."""

    kernels: str
    rows: int
    scale: float
    fixed_s: float
    error_before: float
    held_out: tuple[float, float]
    error_all: float


def fit(accelerator: Accelerator, measured: Sequence[Measurements]) -> tuple[list[Fitted], list[str]]:
    """Fit the classes that ``measured`` has rows of; also a sentence on operators that were not used.

    Raises HardwareError for a device that no kernels run on, or where a class has fewer than four rows.
    """
    if accelerator.execution == Execution.MAPPED:
        raise HardwareError(
            f"device {accelerator.name} is costed by a search of mappings: it has no kernels to calibrate, as those of execution.model gpu "
            "and cpu have"
        )
    bare = replace(accelerator, product_scale=1.0, product_fixed_s=0.0, vector_scale=1.0, vector_fixed_s=0.0)
    groups: dict[str, list[tuple[FloatArray, FloatArray]]] = {name: [] for name in CLASSES}
    unused: list[str] = []
    for rows in measured:
        if rows.operator not in ("gemm", *ROW_KERNELS):
            unused.append(rows.operator)
            continue
        groups["product" if rows.operator == "gemm" else "vector"].append((_model_s(bare, rows), rows.latency_s))
    found = []
    for name, parts in groups.items():
        if not parts:
            continue
        model, latency = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(model) < MIN_ROWS:
            raise HardwareError(
                f"{name} kernels have {len(model)} measured rows: fitting one half and judging it on the other needs {MIN_ROWS}"
            )
        found.append(_fit_class(name, model, latency))
    if not found:
        raise HardwareError(f"no measured row is a product or one of {', '.join(ROW_KERNELS)}: there is nothing to calibrate")
    said = [f"{', '.join(unused)}: functions that run inside other kernels here, their rows were not used"] if unused else []
    return found, said


_DOUBTED: Final = 0.5


def doubts(found: Sequence[Fitted], dtypes: Sequence[str]) -> list[str]:
    """Sentences on what a reader of the calibration must know: fits that miss the rows they have not seen, and formats that are wide."""
    said = [
        f"{f.kernels} kernels were off by {100 * max(f.held_out):.0f} % (median) on rows that their fit had not seen; do not rely on "
        "their times"
        for f in found
        if max(f.held_out) > _DOUBTED
    ]
    wide = sorted({dtype for dtype in dtypes if FORMATS.get(dtype, 0) > 16})
    if wide:
        said.append(
            f"measured at {', '.join(wide)}; a model at 8 bits is costed at its own format's rate times the same factor, which nothing "
            "measured"
        )
    return said


def calibrated(accelerator: Accelerator, found: Sequence[Fitted]) -> Accelerator:
    """The accelerator with what was fitted."""
    values: dict[str, Any] = {f"{f.kernels}_{part}": getattr(f, part) for f in found for part in ("scale", "fixed_s")}
    return replace(accelerator, **values)


def calibration_toml(device: str, found: Sequence[Fitted], careful: Sequence[str] = ()) -> str:
    """TOML text of a calibration of a device of the library: ``--hw FILE`` and ``--calibration FILE`` take it.

    ``careful``: what whoever costs with it is told (:func:`doubts`).
    """
    told = ", ".join(f'"{sentence}"' for sentence in careful)
    lines = [f'device = "{device}"', *([f"careful = [{told}]"] if told else []), "", "[calibration]"]
    for f in found:
        lines += [
            f"# {f.rows} rows; median error {100 * f.error_before:.1f} % before, "
            f"{100 * f.held_out[0]:.1f} and {100 * f.held_out[1]:.1f} % on halves fitted on the other",
            f"{f.kernels}_scale = {f.scale!r}",
            f"{f.kernels}_fixed_s = {f.fixed_s!r}",
        ]
    return "\n".join(lines) + "\n"


def _fit_class(name: str, model: FloatArray, measured: FloatArray) -> Fitted:
    order = np.argsort(model, kind="stable")
    model, measured = model[order], measured[order]
    first, second = slice(0, None, 2), slice(1, None, 2)
    errors = []
    for fitted, judged in ((first, second), (second, first)):
        scale, fixed = _two_numbers(model[fitted], measured[fitted])
        errors.append(_median_error(scale * model[judged] + fixed, measured[judged]))
    scale, fixed = _two_numbers(model, measured)
    return Fitted(
        name,
        len(model),
        scale,
        fixed,
        _median_error(model, measured),
        (errors[0], errors[1]),
        _median_error(scale * model + fixed, measured),
    )


def _two_numbers(model: FloatArray, measured: FloatArray) -> tuple[float, float]:
    from scipy.optimize import least_squares

    ratio = float(np.clip(np.median(measured / model), 2 * _SCALES[0], 0.5 * _SCALES[1]))

    def residuals(x: FloatArray) -> FloatArray:
        return np.asarray(np.log((np.exp(x[0]) * model + x[1] * shortest) / measured))

    # The fixed time is at least 0 and at most the shortest row: a row is never shorter than what each of them takes.
    shortest = float(measured.min())
    low, high = (np.log(_SCALES[0]), 0.0), (np.log(_SCALES[1]), 1.0)
    found = least_squares(residuals, [np.log(ratio), 0.1], bounds=(low, high), loss="soft_l1", f_scale=0.3)
    return float(np.exp(found.x[0])), float(found.x[1] * shortest)


def _median_error(predicted: FloatArray, measured: FloatArray) -> float:
    return float(np.median(relative_errors(predicted, measured)))


def _model_s(accelerator: Accelerator, rows: Measurements) -> FloatArray:
    """Times of the kernel model (rows,) [s], as benchmarks run kernels."""
    bits = FORMATS.get(rows.dtype)
    if bits is None:
        raise HardwareError(f"dtype {rows.dtype!r} is unknown; known are {', '.join(FORMATS)}")
    table = OperationTable.from_rows([_operation(rows, i, int(bits)) for i in range(len(rows))])
    return times_of(table, accelerator.batch(), 0, warm=True).latency_s


def _operation(rows: Measurements, i: int, bits: int) -> Operation:
    wide: dict[str, Any] = {"input_bits": bits, "weight_bits": bits, "output_bits": max(bits, 16)}
    if rows.operator == "gemm":
        m, n, k = (int(v) for v in rows.dims[i])
        batch = int(rows.batch[i])
        return Operation(f"row {i}", Kind.GEMM, m, n, k, batch=batch, second_is_weight=batch == 1, **wide)
    m, n = (int(v) for v in rows.dims[i])
    kind = Kind.SOFTMAX if rows.operator == "softmax" else Kind.NORM
    return Operation(f"row {i}", kind, m, n, 1, function=rows.operator, **wide)
