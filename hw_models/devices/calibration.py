"""Fitting a GPU's overheads to measurements, and the error on rows that the fit did not see.

Rows are sorted by size and dealt alternately to two halves. Each half is fitted and judged on the other; the overheads that
are kept come from all rows. The fit minimises squared log ratios of model to measurement, so that every row counts by its
relative error whatever its size, with a weak pull towards typical values that decides only what the rows leave open.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.collectives import Link, ring_all_reduce
from hw_models.costs.gpu import (
    ELEMENT_KERNELS,
    ROW_KERNELS,
    GemmOverheads,
    GpuHardware,
    VectorOverheads,
    element_latency_s,
    gemm_candidates,
    gemm_times,
    row_latency_s,
)
from hw_models.errors import HardwareError, unknown_name

FloatArray = npt.NDArray[np.float64]
Overhead = GemmOverheads | VectorOverheads

ALIASES: Final = {"matmul": "gemm", "linear": "gemm", "layer_norm": "layernorm", "rms_norm": "rmsnorm"}
OPERATORS: Final = ("gemm", *ROW_KERNELS, *ELEMENT_KERNELS)
DIMENSIONS: Final = {
    "gemm": ("m", "n", "k"),
    **dict.fromkeys(ROW_KERNELS, ("rows", "columns")),
    **dict.fromkeys(ELEMENT_KERNELS, ("elements",)),
}
MIN_ROWS: Final = 4
# A fit sees at most so many rows, evenly spaced over the sizes: more do not move five parameters and take longer.
MAX_FIT_ROWS: Final = 400

# Typical values, used as starting points and as the weak pull: a few microseconds of launch, nine tenths of peak rates, half of
# the peak L2 rate. They decide only what the rows leave open.
_GEMM_TYPICAL: Final = GemmOverheads(5e-6, 0.9, 0.85, 0.5, 7.0)
_VECTOR_TYPICAL: Final = VectorOverheads(3e-6, 1.5e-5, 0.75)
_GEMM_BOUNDS: Final = ((1e-7, 1e-3), (0.05, 1.0), (0.05, 1.0), (0.05, 1.0), (1e-3, 100.0))
_VECTOR_BOUNDS: Final = ((1e-7, 1e-3), (1e-7, 1e-3), (0.05, 1.0))
_PULL: Final = 0.02


@dataclass(frozen=True)
class Measurements:
    """Rows of one operator and one number format.

    Attributes:
        operator: `gemm`, a row-wise or an elementwise operator.
        dims: dimensions, shape (rows, 3 | 2 | 1), see `DIMENSIONS`.
        batch: products in one kernel, shape (rows,); 1 for vector operators.
        latency_s: measured, shape (rows,).
    """

    operator: str
    dtype: str
    dims: FloatArray
    batch: FloatArray
    latency_s: FloatArray

    def __len__(self) -> int:
        return len(self.latency_s)

    def take(self, index: Any) -> Measurements:
        """The rows at ``index``."""
        return replace(self, dims=self.dims[index], batch=self.batch[index], latency_s=self.latency_s[index])

    def by_size(self) -> Measurements:
        """Rows in ascending order of their work (product of the dimensions), equal sizes as they came."""
        return self.take(np.argsort(self.dims.prod(axis=1) * self.batch, kind="stable"))

    def halves(self) -> tuple[Measurements, Measurements]:
        """Rows sorted by size and dealt alternately."""
        ordered = self.by_size()
        return ordered.take(slice(0, None, 2)), ordered.take(slice(1, None, 2))


@dataclass(frozen=True)
class OperatorReport:
    """Calibration of one operator; errors are means of |model / measured - 1|."""

    operator: str
    dtype: str
    rows: int
    overheads: Overhead
    """Fitted to all rows."""
    error_before: float | None
    """With the overheads that the device shipped with (None: it has none for this operator)."""
    error_all: float
    """In sample."""
    held_out: tuple[float, float]
    """Error on the second half when fitted on the first, and the other way round."""


def relative_errors(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> FloatArray:
    """|predicted / measured - 1| of each row."""
    return np.abs(np.asarray(predicted, dtype=np.float64) / np.asarray(measured, dtype=np.float64) - 1.0)


def predictor(hardware: GpuHardware, rows: Measurements) -> Callable[[Overhead], FloatArray]:
    """A function from overheads to latencies (rows,) [s] that has done once what does not depend on them."""
    op, dtype = rows.operator, rows.dtype
    if op == "gemm":
        m, n, k = rows.dims.T
        candidates = gemm_candidates(hardware, m, n, k, batch=rows.batch, dtype=dtype)

        def gemm(overheads: Overhead) -> FloatArray:
            assert isinstance(overheads, GemmOverheads)
            return gemm_times(hardware, candidates, overheads, dtype)[0]

        return gemm

    def vector(overheads: Overhead) -> FloatArray:
        assert isinstance(overheads, VectorOverheads)
        if op in ROW_KERNELS:
            return row_latency_s(hardware, overheads, op, rows.dims[:, 0], rows.dims[:, 1], dtype=dtype)
        return element_latency_s(hardware, overheads, op, rows.dims[:, 0], dtype=dtype)

    return vector


def fit(hardware: GpuHardware, rows: Measurements) -> Overhead:
    """The overheads of ``rows.operator`` that explain ``rows`` best (deterministic; a few seconds at most).

    Raises HardwareError with fewer than two rows: one row cannot tell a fixed time from a rate.
    """
    from scipy.optimize import least_squares

    if len(rows) < 2:
        raise HardwareError(f"operator {rows.operator} has {len(rows)} measured rows: a fit needs at least 2")
    if len(rows) > MAX_FIT_ROWS:
        rows = rows.by_size().take(np.linspace(0, len(rows) - 1, MAX_FIT_ROWS).round().astype(int))
    kind: type[Overhead] = GemmOverheads if rows.operator == "gemm" else VectorOverheads
    typical: Overhead = _GEMM_TYPICAL if rows.operator == "gemm" else _VECTOR_TYPICAL
    low, high = (np.log(np.array(b)) for b in zip(*(_GEMM_BOUNDS if rows.operator == "gemm" else _VECTOR_BOUNDS), strict=True))
    centre = np.log(np.array(astuple(typical)))
    predict = predictor(hardware, rows)
    measured = np.log(rows.latency_s)

    # A pull on parameters: worth as much as a row that is off by _PULL for each factor e.
    def residuals(logs: FloatArray) -> FloatArray:
        model = np.log(predict(kind(*np.exp(logs))))
        return np.concatenate([model - measured, _PULL * (logs - centre)])

    # max() has flat sides, so the search starts from several fixed times: typical, and near the shortest row.
    shortest = float(rows.latency_s.min())
    best = None
    for launch in (None, 0.5, 0.9):
        for issue in (None, 0.99) if kind is VectorOverheads else (None,):
            start = np.array(astuple(typical))
            at = 1 if kind is VectorOverheads else 0
            if launch is not None:
                start[at] = launch * shortest
            if issue is not None:
                start[0] = issue * shortest
            inside = np.clip(np.log(start), low + 1e-6, high - 1e-6)
            found = least_squares(residuals, inside, bounds=(low, high), x_scale="jac", max_nfev=60, diff_step=1e-4)
            if best is None or found.cost < best.cost - 1e-12:
                best = found
    assert best is not None
    return kind(*(float(v) for v in np.exp(best.x)))


def calibrate(
    hardware: GpuHardware, measured: Sequence[Measurements], shipped: Mapping[str, Overhead] | None = None
) -> list[OperatorReport]:
    """Fit every operator of ``measured``; each half is judged with the other half's fit.

    Raises HardwareError where an operator has fewer than `MIN_ROWS` rows.
    """
    reports = []
    for rows in measured:
        if len(rows) < MIN_ROWS:
            raise HardwareError(
                f"operator {rows.operator} ({rows.dtype}) has {len(rows)} measured rows: fitting one half and judging it "
                f"on the other needs at least {MIN_ROWS}"
            )
        first, second = rows.halves()
        held_out = (
            mean_error(hardware, second, fit(hardware, first)),
            mean_error(hardware, first, fit(hardware, second)),
        )
        overheads = fit(hardware, rows)
        before = (shipped or {}).get(rows.operator)
        reports.append(
            OperatorReport(
                operator=rows.operator,
                dtype=rows.dtype,
                rows=len(rows),
                overheads=overheads,
                error_before=None if before is None else mean_error(hardware, rows, before),
                error_all=mean_error(hardware, rows, overheads),
                held_out=held_out,
            )
        )
    return reports


def mean_error(hardware: GpuHardware, rows: Measurements, overheads: Overhead) -> float:
    """Mean of |model / measured - 1| over ``rows``."""
    return float(relative_errors(predictor(hardware, rows)(overheads), rows.latency_s).mean())


def read_measurements(path: str | Path) -> tuple[list[Measurements], list[str]]:
    """Measured rows of a CSV file by operator and format, and a sentence on the rows that were passed over, if any.

    Columns: op, dtype (fp16 if absent), latency_s, and the dimensions: m, n, k (and batch), or rows, columns, or elements;
    d0, d1, d2 may hold them in that order. Rows without any dimension are passed over and reported. Raises HardwareError
    naming file, line and column for anything else that cannot be used.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise HardwareError(f"measured file {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HardwareError(f"measured file {str(path)!r} cannot be read: {error}") from None
    return parse_measurements(text, where=str(path))


def parse_measurements(text: str, *, where: str) -> tuple[list[Measurements], list[str]]:
    """`read_measurements` of CSV text; ``where`` names it in errors."""
    reader = csv.DictReader(io.StringIO(text))
    header = [name.strip() for name in reader.fieldnames or ()]
    for column in ("op", "latency_s"):
        if column not in header:
            raise HardwareError(f"{where}: column {column} is missing: the header has {', '.join(header) or 'nothing'}")
    groups: dict[tuple[str, str], list[tuple[tuple[float, ...], float, float]]] = {}
    passed: dict[str, int] = {}
    for line, raw in enumerate(reader, start=2):
        row = {(key or "").strip(): (value or "").strip() for key, value in raw.items() if isinstance(value, str)}
        asked = row.get("op", "")  # a row may end before the column
        every = [row.get(f, "") for f in ("m", "n", "k", "rows", "columns", "elements", "d0", "d1", "d2")]
        if not any(every):
            passed[asked] = passed.get(asked, 0) + 1
            continue
        op = ALIASES.get(asked.lower(), asked.lower())
        if op not in OPERATORS:
            raise unknown_name("op", asked, (*OPERATORS, *ALIASES), where=f"{where}, line {line}")
        fields = DIMENSIONS[op]
        values = []
        for i, field in enumerate(fields):
            source = field if row.get(field, "") else f"d{i}"
            values.append(_number(row.get(source, ""), field, f"{where}, line {line}", whole=True))
        batch = _number(row.get("batch", "") or "1", "batch", f"{where}, line {line}", whole=True)
        latency = _number(row.get("latency_s", ""), "latency_s", f"{where}, line {line}", whole=False)
        groups.setdefault((op, row.get("dtype", "") or "fp16"), []).append((tuple(values), batch, latency))
    if not groups:
        raise HardwareError(f"{where}: no row has an operator with dimensions; allowed operators are {', '.join(OPERATORS)}")
    found = [
        Measurements(op, dtype, np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))
        for (op, dtype), rows in groups.items()
    ]
    if not passed:
        return found, []
    shown = ", ".join(list(passed)[:3]) + (", ..." if len(passed) > 3 else "")
    return found, [f"{where}: {sum(passed.values())} row(s) have no dimensions and were not used: {shown}"]


def check_one_format(measured: Sequence[Measurements], *, where: str) -> None:
    """Raise HardwareError where an operator was measured in several number formats: its overheads would be ambiguous."""
    formats: dict[str, list[str]] = {}
    for rows in measured:
        formats.setdefault(rows.operator, []).append(rows.dtype)
    for operator, found in formats.items():
        if len(found) > 1:
            raise HardwareError(f"{where}: operator {operator} has rows in {', '.join(found)}: calibrate one number format at a time")


def _number(text: str, field: str, where: str, *, whole: bool) -> float:
    allowed = "a whole number from 1" if whole else "a positive number of seconds"
    try:
        value = float(text)
    except ValueError:
        raise HardwareError(f"{where}: {field} is {text!r}: it must be {allowed}") from None
    if not (np.isfinite(value) and value > 0) or (whole and value != int(value)):
        raise HardwareError(f"{where}: {field} is {text!r}: it must be {allowed}")
    return value


def fit_link(
    size_bytes: npt.ArrayLike, devices: npt.ArrayLike, latency_s: npt.ArrayLike, *, pj_per_bit: float = 0.0, name: str = "link"
) -> Link:
    """The link (latency, bandwidth, fixed time) that explains measured ring all-reduces best, in squared log ratios.

    A robust loss keeps single outliers, frequent in measured collectives, from moving the fit.
    """
    from scipy.optimize import least_squares

    size, count, measured = np.asarray(size_bytes), np.asarray(devices), np.asarray(latency_s, dtype=np.float64)

    def link(logs: FloatArray) -> Link:
        latency, bandwidth, fixed = (float(v) for v in np.exp(logs))
        return Link(latency, bandwidth, pj_per_bit=pj_per_bit, fixed_s=fixed, name=name)

    def residuals(logs: FloatArray) -> FloatArray:
        return np.asarray(np.log(ring_all_reduce(size, count, link(logs)).latency_s / measured))

    start = np.log([1e-6, float((size / measured).max()), float(measured.min())])
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.1, x_scale="jac", max_nfev=100)
    return link(found.x)
