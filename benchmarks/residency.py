"""Designs a second with what is best kept on chip, processor time: BERT on designs of edge22, one at a time and many together.

python benchmarks/residency.py [--designs 200]
python benchmarks/residency.py --savings     # what a request takes less with data on chip, by the size of the buffer
python benchmarks/residency.py --tiles       # what passing tiles between operations saves beside whole tensors, likewise
python benchmarks/residency.py --prefetch    # what weights that are read ahead save, and what they could at most
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dse import api
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs.residency.packing import Phase
from hw_models.costs.residency.solve import Solver
from hw_models.costs.residency.units import Machine
from hw_models.spaces import template
from workloads import library


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=200)
    parser.add_argument("--savings", action="store_true", help="energy and DRAM bytes of a request by buffer, with and without")
    parser.add_argument("--tiles", action="store_true", help="energy and DRAM bytes of a request by buffer, whole tensors and tiles")
    parser.add_argument("--prefetch", action="store_true", help="latency that reading weights ahead saves, on the designs of edge22")
    args = parser.parse_args()
    if args.prefetch:
        prefetch()
        return
    if args.savings:
        savings()
        return
    if args.tiles:
        tiles()
        return
    edge = template.load("edge22").as_published()
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


def savings() -> None:
    """Print the table of one accelerator with buffers of four sizes."""
    edge, own = template.load("edge22"), {"cores": 1, "width": 64, "depth": 32, "l2_kib": 64, "l2_words_per_cycle": 64}
    print("model      sequence  buffer    energy [mJ]     DRAM [MB]   latency  weights stay")
    for name in ("bert-base", "bert-tiny"):
        for sequence in (128, 512):
            for mib in (0.25, 0.5, 1, 2):
                hw = edge.with_knobs(glb_mib=[mib]).accelerator(**own, glb_mib=mib)
                alone, kept = (api.evaluate(name, hw, fixed={"sequence": sequence}, residency=level) for level in ("none", "weights"))
                moved = [sum(part["dram_bytes"] for part in answer["components"]) / 1e6 for answer in (alone, kept)]
                joules = [1e3 * answer["energy_j"] for answer in (alone, kept)]
                print(
                    f"{name:10} {sequence:8} {mib:5} MiB  {joules[0]:6.2f} -> {joules[1]:6.2f}  {moved[0]:6.2f} -> {moved[1]:6.2f}  "
                    f"{100 * (kept['latency_s'] / alone['latency_s'] - 1):+6.0f} %  {kept['residency']['weights_on_chip']}"
                )


def tiles() -> None:
    """Print the table of the accelerator of `savings` with residency weights and tiles."""
    edge, own = template.load("edge22"), {"cores": 1, "width": 64, "depth": 32, "l2_kib": 64, "l2_words_per_cycle": 64}
    print("model          settings            buffer    energy [mJ]        DRAM [MB]   latency  steps by tiles, of all   CPU [s]")
    for name, settings in (
        ("bert-base", {"sequence": 128}),
        ("bert-base", {"sequence": 512}),
        ("bert-tiny", {"sequence": 512}),
        ("mobilenet-v2", {}),
        ("resnet-50", {}),
    ):
        for mib in (0.25, 0.5, 1, 2):
            hw = edge.with_knobs(glb_mib=[mib]).accelerator(**own, glb_mib=mib)
            whole = api.evaluate(name, hw, fixed=settings, residency="weights")
            begin = time.process_time()
            tiled = api.evaluate(name, hw, fixed=settings, residency="tiles")
            taken = time.process_time() - begin
            joules = [1e3 * answer["energy_j"] for answer in (whole, tiled)]
            moved = [answer["residency"]["dram_bytes"] / 1e6 for answer in (whole, tiled)]
            steps = tiled["residency"]["steps"]
            print(
                f"{name:14} {settings!s:18} {mib:5} MiB  {joules[0]:6.2f} -> {joules[1]:6.2f}  {moved[0]:7.2f} -> {moved[1]:7.2f}  "
                f"{100 * (tiled['latency_s'] / whole['latency_s'] - 1):+6.1f} %  {sum('tiles' in s for s in steps):4} of {len(steps):3}"
                f"  {taken:8.2f}",
                flush=True,
            )


def prefetch() -> None:
    """Print the table of models on the designs of edge22 with 2, 4 and 8 MiB, with their DRAM and with a quarter of its words a cycle.

    The bound is max(work, DRAM), on 24 random ones of them: no order of reading makes a model shorter than the sum of all that is not a
    read of the DRAM, or than these reads.
    """
    edge = template.load("edge22").as_published()
    hardware = edge.batch(**edge.grid())
    chosen = np.sort(np.random.default_rng(0).choice(edge.size, 24, replace=False))
    dram = np.arange(hardware.levels) == hardware.levels - 1
    print("model         settings                    DRAM  saved: mean, largest   designs above 1 %   at most, mean of 24 (saved)")
    for name, settings in (
        ("bert-base", {"sequence": 32}),
        ("bert-base", {"sequence": 128}),
        ("gpt2", {"phase": "prefill", "sequence": 64}),
        ("gpt2", {"phase": "decode"}),
        ("mobilenet-v2", {}),
        ("resnet-50", {}),
        ("vgg16", {}),
    ):
        phases = [Phase.of(p.table, float(p.runs)) for p in library.load(name).build(**settings).phases]
        for share in (1.0, 0.25):
            rates = {f"level_{way}_words_per_cycle": getattr(hardware, f"level_{way}_words_per_cycle") for way in ("read", "write")}
            slower = replace(hardware, **{field: rate * np.where(dram, share, 1.0) for field, rate in rates.items()})
            plain, ahead = (Solver(phases, Machine(slower, "edp", 1), "weights", on).totals().latency_s[0] for on in (False, True))
            saved = 100.0 * (1.0 - ahead / plain)
            most = [100.0 * (1.0 - _bound_s(phases, slower.take(np.array([point]))) / plain[point]) for point in chosen]
            told = " ".join(f"{knob}={value}" for knob, value in settings.items())
            print(
                f"{name:13} {told:27} {share:4} {saved.mean():8.2f} % {saved.max():8.1f} % {100 * np.mean(saved > 1.0):16.1f} % "
                f"{np.mean(most):16.2f} % ({saved[chosen].mean():.2f})",
                flush=True,
            )


def _bound_s(phases: Sequence[Phase], design: AcceleratorBatch) -> float:
    """Sums of a model's steps: the longer of all work and all reads of the DRAM."""
    runs = Solver(phases, Machine(design, "edp", 1), "weights", prefetch=True).runs()
    slack = [(own, run.times) for run in runs for own in run.slack]
    return max(sum(own.other_s * times for own, times in slack), sum(own.reads_s * times for own, times in slack))


if __name__ == "__main__":
    main()
