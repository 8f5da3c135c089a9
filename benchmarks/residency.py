"""Designs a second with what is best kept on chip, processor time: BERT on designs of edge22, one at a time and many together.

python benchmarks/residency.py [--designs 200]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from hw_models.costs.residency.packing import Phase
from hw_models.costs.residency.solve import Solver
from hw_models.costs.residency.units import Machine
from hw_models.spaces import template
from workloads import library


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=200)
    args = parser.parse_args()
    edge = template.load("edge22")
    chosen = np.sort(np.random.default_rng(0).choice(edge.size, args.designs, replace=False))
    hardware = edge.batch(**{name: column[chosen] for name, column in edge.grid().items()})
    print("model       level        one a call [1/s]   together [1/s]   searches a design")
    for name in ("bert-tiny", "bert-base", "vit-b16"):
        workload = library.load(name).build()
        for level in ("activations", "epilogue", "weights"):
            solver = Solver([Phase.of(p.table, float(p.runs)) for p in workload.phases], Machine(hardware, "edp", 1), level)
            problem, _ = solver.problem
            points = [solver.machine.points(np.array([i]), []) for i in range(len(hardware))]
            every = solver.machine.points(np.arange(len(hardware)), [])
            begin = time.process_time()
            searches = sum(problem.solve(one, "edp", weights=level == "weights").searches for one in points)
            single = time.process_time() - begin
            begin = time.process_time()
            problem.solve(every, "edp", weights=level == "weights")
            together = time.process_time() - begin
            count = len(hardware)
            print(f"{name:11} {level:11} {count / single:15,.0f} {count / together:16,.0f} {searches / count:16.1f}")


if __name__ == "__main__":
    main()
