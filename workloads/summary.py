"""What a workload computes and moves, as rows, as JSON-ready records, and as text with a roofline picture."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from typing import Any

import numpy as np

from workloads.ops import Kind
from workloads.records import Phase, Workload

ROW_FIELDS = (
    *("phase", "runs", "name", "kind", "component", "function", "m", "n", "k", "batch", "groups", "repeat"),
    *("macs", "input_bytes", "second_bytes", "output_bytes", "macs_per_byte", "parameters", "second_is_weight"),
)


def operation_rows(workload: Workload) -> list[dict[str, Any]]:
    """Return one record per operation of each phase, quantities of all its repeats in one run of the phase."""
    records = []
    for phase in workload.phases:
        table = phase.table
        macs = table.row_macs()
        sizes = {
            "input_bytes": table.row_input_elements() * table.input_bits * table.repeat / 8.0,
            "second_bytes": table.row_second_elements() * table.weight_bits * table.repeat / 8.0,
            "output_bytes": table.row_output_elements() * table.output_bits * table.repeat / 8.0,
        }
        for i in range(len(table)):
            amounts = {name: float(column[i]) for name, column in sizes.items()}
            moved = sum(amounts.values())
            records.append(
                {
                    "phase": phase.name,
                    "runs": phase.runs,
                    "name": str(table.name[i]),
                    "kind": Kind(int(table.kind[i])).name.lower(),
                    "component": str(table.component[i]),
                    "function": str(table.function[i]),
                    **{name: int(getattr(table, name)[i]) for name in ("m", "n", "k", "batch", "groups", "repeat")},
                    "macs": int(macs[i]),
                    **amounts,
                    "macs_per_byte": int(macs[i]) / moved if moved else 0.0,
                    "parameters": int(table.parameters[i]),
                    "second_is_weight": bool(table.second_is_weight[i]),
                }
            )
    return records


def summary(workload: Workload) -> dict[str, Any]:
    """Return the totals of a workload and of its phases and components, ready for JSON."""
    return {
        "name": workload.name,
        "family": workload.family,
        "macs": workload.macs(),
        "parameters": workload.parameter_count(),
        "weight_bytes": workload.weight_bytes(),
        "activation_bytes": workload.activation_bytes(),
        "kv_cache_bytes": workload.kv_cache_bytes(),
        "minimum_bytes": workload.minimum_bytes(),
        "macs_per_byte": _ratio(workload.macs(), workload.minimum_bytes()),
        "dimensions": {name: _plain(value) for name, value in workload.dimensions.items()},
        "quality_metrics": list(workload.quality_metrics),
        "requests": dict(workload.requests),
        "phases": [_phase(phase) for phase in workload.phases],
        "left_out": [asdict(item) for item in workload.left_out],
        "not_understood": dict(workload.not_understood),
        "assumptions": list(workload.assumptions),
    }


def _phase(phase: Phase) -> dict[str, Any]:
    table = phase.table
    macs, moved = table.row_macs(), table.row_bytes()
    components = {}
    for name in dict.fromkeys(str(item) for item in table.component):
        mine = table.component == name
        components[name] = {
            "macs": int(macs[mine].sum()),
            "minimum_bytes": float(moved[mine].sum()),
            "macs_per_byte": _ratio(int(macs[mine].sum()), float(moved[mine].sum())),
        }
    return {
        "name": phase.name,
        "runs": phase.runs,
        "after": list(phase.after),
        "macs": table.macs(),
        "minimum_bytes": table.minimum_bytes(),
        "macs_per_byte": _ratio(table.macs(), table.minimum_bytes()),
        "kv_read_bytes": table.kv_read_bytes(),
        "kv_write_bytes": table.kv_write_bytes(),
        "kv_cache_bytes": float(phase.kv_cache_bytes),
        "activation_bytes": table.activation_bytes(),
        "components": components,
    }


def _ratio(macs: float, moved: float) -> float:
    return macs / moved if moved else 0.0


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def as_csv(workload: Workload) -> str:
    """Return the operations as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ROW_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(operation_rows(workload))
    return stream.getvalue()


def as_text(workload: Workload, *, peak_tops: float, bandwidth_gb_s: float) -> str:
    """Return a report for a terminal: totals, components of each phase, operations, roofline picture."""
    info = summary(workload)
    lines = [
        f"{info['name']} ({info['family']})",
        f"  {_count(info['macs'])}MAC a request, {info['parameters']:,} parameters, "
        f"weights {_count(info['weight_bytes'])}B{_bits(workload)}, "
        f"peak activations {_count(info['activation_bytes'])}B, KV cache {_count(info['kv_cache_bytes'])}B",
    ]
    for name, amount in info["requests"].items():
        lines.append(f"  {name} = {amount:g}")
    ridge = _ridge(peak_tops, bandwidth_gb_s)
    for phase in workload.phases:
        lines += ["", *_phase_lines(phase, ridge)]
    lines += ["", *roofline(workload, peak_tops=peak_tops, bandwidth_gb_s=bandwidth_gb_s)]
    if info["not_understood"]:
        listed = ", ".join(f"{item.operation} ({item.count}; {item.reason})" for item in workload.left_out)
        lines += ["", f"not understood and not counted: {listed}"]
    lines += ["", *(f"assumed: {sentence}" for sentence in workload.assumptions)] if workload.assumptions else []
    return "\n".join(lines)


def _bits(workload: Workload) -> str:
    """At which precision the weights are counted: that of the request, whatever the file of a model stores."""
    found = sorted({int(bits) for phase in workload.phases for bits in phase.table.weight_bits[phase.table.parameters > 0]})
    return f" at {' and '.join(map(str, found)) if len(found) < 3 else f'{found[0]} to {found[-1]}'} bits" if found else ""


def _phase_lines(phase: Phase, ridge: float) -> list[str]:
    info = _phase(phase)
    total = max(info["macs"], 1)
    lines = [
        f"phase {phase.name} (x {phase.runs:g})",
        f"  {'component':<12}{'MAC':>10}{'share':>8}{'bytes':>10}{'MAC/byte':>10}  bound",
    ]
    for name, part in info["components"].items():
        bound = "compute" if part["macs_per_byte"] >= ridge else "memory"
        lines.append(
            f"  {name:<12}{_count(part['macs']):>10}{part['macs'] / total:>8.1%}{_count(part['minimum_bytes']):>10}"
            f"{part['macs_per_byte']:>10.2f}  {bound}"
        )
    lines.append(f"  {'all':<12}{_count(info['macs']):>10}{1:>8.0%}{_count(info['minimum_bytes']):>10}{info['macs_per_byte']:>10.2f}")
    lines += ["", f"  {'operation':<34}{'kind':<18}{'m x n x k':<24}{'batch':>7}{'times':>7}{'MAC':>10}{'bytes':>10}"]
    table = phase.table
    macs, moved = table.row_macs(), table.row_bytes()
    for i in range(len(table)):
        kind = Kind(int(table.kind[i])).name.lower()
        sizes = f"{int(table.m[i])} x {int(table.n[i])}" + (f" x {int(table.k[i])}" if int(table.k[i]) else "")
        batch = int(table.batch[i]) * int(table.groups[i])
        lines.append(
            f"  {str(table.name[i])[:33]:<34}{(str(table.function[i]) or kind)[:17]:<18}{sizes:<24}{batch:>7}"
            f"{int(table.repeat[i]):>7}{_count(int(macs[i])):>10}{_count(float(moved[i])):>10}"
        )
    return lines


def _ridge(peak_tops: float, bandwidth_gb_s: float) -> float:
    """MAC per byte at which a device's array and memory take equally long (two operations a MAC)."""
    return peak_tops * 1e12 / 2 / (bandwidth_gb_s * 1e9)


def roofline(workload: Workload, *, peak_tops: float, bandwidth_gb_s: float, width: int = 64, height: int = 14) -> list[str]:
    """Return the lines of a roofline picture: attainable GMAC/s over MAC per byte, both logarithmic.

    A letter stands for a component of a phase, at its own intensity, under the roof of a device with that peak and bandwidth.
    """
    peak = peak_tops * 1e12 / 2
    points: list[tuple[str, float]] = []
    for phase in workload.phases:
        for name, part in _phase(phase)["components"].items():
            if part["macs"]:
                points.append((f"{phase.name}: {name}", part["macs_per_byte"]))
    if not points:
        return ["no products: nothing to draw"]
    ridge = _ridge(peak_tops, bandwidth_gb_s)
    low = math.floor(math.log10(min(ridge, *(x for _, x in points)))) - 0.2
    high = math.ceil(math.log10(max(ridge, *(x for _, x in points)))) + 0.2
    top, bottom = math.log10(peak), math.log10(min(10**low * bandwidth_gb_s * 1e9, peak)) - 0.1
    canvas = [[" "] * width for _ in range(height)]

    def place(x: float) -> tuple[int, int]:
        attainable = min(peak, x * bandwidth_gb_s * 1e9)
        column = round((math.log10(x) - low) / (high - low) * (width - 1))
        row = round((top - math.log10(attainable)) / max(top - bottom, 1e-9) * (height - 1))
        return min(max(row, 0), height - 1), min(max(column, 0), width - 1)

    for column in range(width):
        row, _ = place(10 ** (low + (high - low) * column / (width - 1)))
        canvas[row][column] = "-" if 10 ** (low + (high - low) * column / (width - 1)) >= ridge else "/"
    legend = []
    for index, (name, x) in enumerate(points):
        letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index % 26]
        row, column = place(x)
        while canvas[row][column].isalpha() and column < width - 1:
            column += 1
        canvas[row][column] = letter
        legend.append(f"  {letter}  {name}: {x:.2f} MAC/byte, at most {_count(min(peak, x * bandwidth_gb_s * 1e9))}MAC/s")
    axis = f"  +{'-' * width}"
    ends = f"   {10**low:.2g} MAC/byte{' ' * max(1, width - 24)}{10**high:.2g}"
    return [
        f"roofline at {peak_tops:g} TOPS and {bandwidth_gb_s:g} GB/s (ridge at {ridge:.1f} MAC/byte)",
        *(f"  |{''.join(line).rstrip()}" for line in canvas),
        axis,
        ends,
        *legend,
    ]


def _count(amount: float) -> str:
    """A number with a metric prefix: 11.17 G."""
    for factor, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= factor:
            return f"{amount / factor:.2f} {letter}"
    return f"{amount:.0f} "
