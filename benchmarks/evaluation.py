"""Designs per second of the hardware evaluator: one call a design, and whole spaces; tables loaded, no mapping searched before.

Times are CPU seconds of the process (all threads), so that a busy machine does not blur them; the batched figure divides
them by the threads that were given.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dse_kernels.sums import weighted_sums, weighted_sums_reference

import workloads
from hw_models import spaces as templates
from hw_models.costs.evaluate import evaluate, table_sums, unit_costs
from hw_models.costs.one_design import Evaluator

THREADS = 2
SINGLES = 300


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(points: int) -> list[dict[str, float | str]]:
    """The rows of the table: what, designs, CPU seconds a design, designs a second, goal."""
    template = templates.load("edge22").as_published()
    batch = template.batch(**template.grid())
    family = workloads.load("bert")
    model = family.build()
    order = np.random.default_rng(1).permutation(len(batch)).tolist()

    evaluator = Evaluator(model, batch)
    evaluator(order[-1])
    single = cpu_seconds(lambda: [evaluator(point) for point in order[:SINGLES]]) / SINGLES
    accelerators = [batch.take([point]) for point in order[:30]]
    plain = cpu_seconds(lambda: [evaluate(design, model, threads=1) for design in accelerators]) / len(accelerators)

    chosen = batch.take(np.sort(order[:points]))
    table = family.build(**family.model_grid("catransformers")).phases[0].table

    def whole_space() -> None:
        shapes, index = table.distinct()
        unit = unit_costs(shapes, chosen, threads=THREADS)
        for start in range(0, len(index), 512):
            block = slice(start, start + 512)
            part = type(table)(**{k: v[block] if v.ndim == 2 else v for k, v in vars(table).items()})
            table_sums(part, index[block], unit, names=("latency_s", "energy_j"))

    # The product of counts and unit costs alone, C++ kernel and numpy reference on the same block: the same bits, so a ratio.
    shapes, index = table.distinct()
    unit = unit_costs(shapes, chosen, threads=THREADS).latency_s
    block = np.ascontiguousarray(index[:256])
    weight = np.ascontiguousarray(table.column("repeat")[:256], dtype=np.float64)
    pairs = block.shape[0] * len(chosen)
    kernel = cpu_seconds(lambda: weighted_sums(block, weight, unit)) / pairs
    numpy = cpu_seconds(lambda: weighted_sums_reference(block, weight, unit)) / pairs

    designs = len(chosen) * int(table.models or 1)
    many = cpu_seconds(whole_space) / THREADS / designs
    return [
        {"what": "one call a design (Evaluator)", "designs": SINGLES, "seconds": single, "rate": 1 / single, "goal": 1e4},
        {
            "what": "one call a design (evaluate)",
            "designs": len(accelerators),
            "seconds": plain,
            "rate": 1 / plain,
            "goal": 0.0,
        },
        {"what": "counts x unit costs, C++", "designs": pairs, "seconds": kernel, "rate": 1 / kernel, "goal": 0.0},
        {"what": "counts x unit costs, numpy", "designs": pairs, "seconds": numpy, "rate": 1 / numpy, "goal": 0.0},
        {"what": f"space, {THREADS} threads", "designs": designs, "seconds": many, "rate": 1 / many, "goal": 1e6},
    ]


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--points", type=int, default=3240, help="hardware points of the space (of 3,240)")
    arguments = parser.parse_args()
    rows = measure(arguments.points)
    print(f"{'BERT designs':36s} {'designs':>12s} {'us a design':>12s} {'designs/s':>12s} {'goal':>10s}")
    for row in rows:
        goal = f"{row['goal']:10,.0f}" if row["goal"] else f"{'':>10s}"
        seconds = float(row["seconds"]) * 1e6
        print(f"{row['what']:36s} {row['designs']:12,.0f} {seconds:12.3f} {row['rate']:12,.0f} {goal}")
    ratio = float(rows[3]["seconds"]) / float(rows[2]["seconds"])
    print(f"numpy takes {ratio:.1f} times the CPU time of the C++ kernel for the same product (same bits)")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
