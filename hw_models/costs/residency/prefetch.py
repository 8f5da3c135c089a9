"""Parameters of the next step that are read from the DRAM during this one's work: by how much every step of a model is shorter.

A pair of steps that follow each other saves what `dse_kernels.residency.prefetched_s` says, whatever stands around it, since a step that
waits for the DRAM has no idle time of the DRAM to give; so a model saves the sum over its pairs of how often each runs
(docs/models/residency.md). The sums of sweeps have it from the kernel; here it is told by step, for one model on one design.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from dse_kernels.residency import prefetched_s

from hw_models.costs.residency.solve import Run
from hw_models.costs.residency.units import Machine


def saved_s(runs: Sequence[Run], machine: Machine) -> list[list[float]]:
    """Seconds that each step of each run is shorter, all its times together; ``machine``: of one design.

    Where a part runs in several ways, what is saved from one run to the next is the least of any two of them.
    """
    dram, near = bits_per_s(machine)
    found = []
    for run in runs:
        inside = [run.times * prefetched_s(a, b, dram, near) for a, b in pairwise(run.slack)]
        found.append([0.0, *inside])
    before: list[int] = []
    for _, group in groupby(range(len(runs)), key=lambda i: runs[i].number):
        here = list(group)
        part, every = runs[here[0]].part, sum(runs[i].times for i in here)
        if every <= 0.0:
            continue

        def least(first: list[int], then: list[int] = here) -> float:
            return min(prefetched_s(runs[a].slack[-1], runs[b].slack[0], dram, near) for a in first for b in then)

        total = (every - part.runs) * least(here)
        if before and runs[before[0]].part.phase == part.phase:
            total += part.runs * least(before)
        for i in here:
            found[i][0] += total * runs[i].times / every
        before = here
    return found


def bits_per_s(machine: Machine) -> tuple[float, float]:
    """What the DRAM reads and what the level below it takes in, of the first design."""
    hw = machine.hardware
    far, near = machine.rates[machine.last], machine.rates[machine.last - 1]
    words = far.read_words_per_cycle[0, 0], near.write_words_per_cycle[0, 0]
    dram, level = (float(w) * float(hw.frequency_hz[0]) * float(hw.word_bits[0]) for w in words)
    return dram, level
