"""Runs for tests of what is shown, made of plain values by hand: no search, no models, no randomness."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dse.problem.objectives import PRESETS, Constraint, Objective, parse_constraint
from dse.problem.problem import Problem
from dse.run import Run
from dse.storage.summary import SweepSummary

SUPPORT_CYCLE = ("interpolated", "published", "interpolated", "interpolated", "extrapolated")

CONTEXT: dict[str, Any] = {
    "deployment": {
        "rate_per_s": 1.0,
        "lifetime_years": 3.0,
        "grid": "world",
        "fab_grid": "taiwan",
        "pue": 1.0,
        "carbon_profile": "act2",
    },
    "criterion": "edp",
    "hardware_profile": "default",
    "models": 58,
    "models_left_out": 12,
    "hardware_points": 3240,
    "shapes": 656,
    "sources": [
        {
            "key": "fab.22nm.epa_kwh_cm2",
            "value": 1.2,
            "unit": "kWh/cm2",
            "source": "ACT (Gupta et al., ISCA 2022)",
            "vintage": "2022",
            "licence": "MIT",
            "note": "energy of the fab by wafer area",
        },
        {
            "code": "ecologits:WOR",
            "name": "world",
            "gco2e_per_kwh": 458.29,
            "kind": {"signal": "average", "boundary": "lifecycle"},
            "year": 2023,
            "source": "EcoLogits",
            "licence": "MPL-2.0",
        },
        {"source": "a source that says nothing else"},
    ],
    "not_modelled": [
        "Cameras, displays and the rest of the product around the accelerator.",
        "Overlap between operations: each waits for the one before it.",
    ],
    "quality_surrogate": {
        "name": "bert-mnli",
        "label": "MNLI-matched accuracy [%], surrogate",
        "form": "a + b log2(layers) + c log2(hidden)",
        "coefficients": [48.4, 2.5, 2.8],
        "standard_error_percent": 0.62,
        "standard_error_kind": "leave-one-out root-mean-square error",
        "points": [
            {"model": "tiny", "layers": 2, "hidden": 128, "accuracy_percent": 70.2, "source": "BERT miniatures"},
            {"model": "base", "layers": 12, "hidden": 768, "accuracy_percent": 84.6, "source": "BERT paper"},
        ],
        "unsupported_knobs": ["heads", "ffn"],
    },
}


def make_design(rank: int, share: float, *, quality: bool = True, components: bool = True) -> dict[str, Any]:
    """The design that stands ``share`` (0 to 1) along the front: larger models on larger arrays, dearer in every way."""
    layers = 2 + 2 * round(5 * share)
    hidden = 128 * (1 + round(5 * share))
    width = (32, 64, 128, 256)[min(3, int(4 * share))]
    latency_s = 0.0004 * math.exp(4.0 * share)
    energy_j = 0.0005 * math.exp(3.5 * share)
    embodied = {"die": 0.08 + 0.25 * share, "memory": 0.31, "packaging": 0.3}
    operational = 0.05 + 0.9 * share**2
    total = sum(embodied.values()) + operational
    metrics = {
        "latency_s": latency_s,
        "energy_j": energy_j,
        "area_mm2": 4.0 + 20.0 * share,
        "tops": 0.5 * width / 16,
        "power_w": 0.01 + 0.05 * share,
        "peak_power_w": 0.5 + share,
        "service_utilisation": latency_s,
        "embodied_kgco2e": sum(embodied.values()),
        "operational_kgco2e": operational,
        "total_kgco2e": total,
        "kgco2e_per_request": total / 94_672_800,
        "parameters": 4_000_000.0 + 100_000_000.0 * share,
        "macs": 5e8 + 4e10 * share,
        "dram_fill": 0.01 + 0.1 * share,
    }
    if quality:
        metrics = {"quality": 70.0 + 14.5 * share**0.5, "quality_se": 0.62, **metrics}
    design: dict[str, Any] = {
        "design": rank,
        "knobs": {
            "layers": layers,
            "hidden": hidden,
            "ffn": 4 * hidden,
            "heads": hidden // 64,
            "cores": 1 + (rank % 2),
            "width": width,
            "depth": 16,
            "l2_kib": 256,
        },
        "quality_support": SUPPORT_CYCLE[rank % len(SUPPORT_CYCLE)] if quality else None,
        "metrics": metrics,
        "embodied_parts_kgco2e": embodied,
        "dram_bytes_per_s": 8.5e9,
    }
    if components:
        design["components"] = make_components(latency_s, energy_j)
    return design


def make_components(latency_s: float, energy_j: float) -> list[dict[str, Any]]:
    """A breakdown whose latencies add up to ``latency_s`` and whose dynamic energies to 90 % of ``energy_j``."""
    shares = {"embedding": (0.02, {"dram": 1.0}), "attention": (0.38, {"compute": 0.6, "vector": 0.3, "dram": 0.1})}
    shares |= {"ffn": (0.55, {"compute": 0.8, "l2": 0.2}), "norm": (0.05, {"vector": 1.0})}
    found = []
    for name, (share, bounds) in shares.items():
        macs = 0 if name == "norm" else int(latency_s * share * 2e11 * (1.0 + len(name) / 20))
        found.append(
            {
                "component": name,
                "latency_s": latency_s * share,
                "energy_j": 0.9 * energy_j * share,
                "macs": macs,
                # Intensities apart from each other, below the roof of 8.5 GB/s and half a TOPS at any latency made here.
                "dram_bytes": 0.5 * latency_s * share * 8.5e9,
                "bound": max(bounds, key=lambda bound: bounds[bound]),
                "latency_by_bound_s": {bound: latency_s * share * part for bound, part in bounds.items()},
                "operations": [
                    {
                        "name": f"{name}_{bound}",
                        "repeat": 12.0,
                        "latency_s": latency_s * share * part,
                        "energy_j": 0.9 * energy_j * share * part,
                        "bound": bound,
                    }
                    for bound, part in bounds.items()
                ],
            }
        )
    return found


def make_problem(preset: str = "carbon", **changes: Any) -> Problem:
    """A problem of that preset's objectives."""
    values: dict[str, Any] = {
        "workload": "bert",
        "hardware": "edge22",
        "objectives": PRESETS[preset].objectives,
        "constraints": tuple(map(parse_constraint, ("latency_s<=0.05", "area_mm2<=31.990347", "tops<=20.48", "utilisation<=1"))),
        "preset": preset,
    }
    return Problem(**(values | changes))


def make_run(
    count: int = 37,
    *,
    preset: str = "carbon",
    objectives: tuple[Objective, ...] | None = None,
    constraints: tuple[Constraint, ...] | None = None,
    breakdowns: int = 200,
    path: Path = Path("runs/bert-carbon"),
    **context: Any,
) -> Run:
    """A run with ``count`` designs on its front; ``context`` adds to what is common to all, or replaces it."""
    changes: dict[str, Any] = {"objectives": objectives} if objectives else {}
    if constraints is not None:
        changes["constraints"] = constraints
    problem = make_problem(preset, **changes)
    shares = [1.0 - i / max(1, count - 1) for i in range(count)]
    designs = [make_design(i + 1, share, components=i < breakdowns) for i, share in enumerate(shares)]
    return Run(
        path=path,
        problem=problem,
        provenance={
            "command": "dse search --workload bert --objective carbon",
            "seed": 0,
            "version": "0.1.0",
            "versions": {"numpy": "2.4.6", "plotly": "6.0.0"},
            "python": "3.11.2",
            "started": "2025-01-01T12:00:00+00:00",
        },
        summary=SweepSummary(
            points=187_920,
            feasible=102_311,
            reasons={
                "latency_s<=0.05": 1_210,
                "area_mm2<=31.990347": 80_400,
                "tops<=20.48": 55_080,
                "no mapping fits the buffers": 12,
            },
        ),
        designs=designs,
        context={**CONTEXT, **context},
    )
