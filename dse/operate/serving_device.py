"""A fleet's replica as a device to operate: the engine model says what it serves and draws at every clock and batch limit.

The log of the run is served in a closed loop that keeps the batch full, at the clock and the supply at which logic still closes timing
(`dse.operate.device.supply_at`): products slow down with the clock, memory, links and the scheduler do not, so that decoding, which
memory bounds, loses little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from dse_kernels.serving import Requests

from dse.errors import DseError, UsageError
from dse.operate.device import CLOCKS, HOURS_PER_YEAR, SLEEP_SHARE, Device, OperatingPoint, check_operation, entry_of, supply_at
from dse.serving.fleet import setups
from dse.serving.requests import read_requests
from dse.serving.sheet import sheet
from dse.serving.simulation import run
from dse.storage.run_folder import RunRecord
from hw_models.devices import library

FILLS = 10  # requests a slot of the batch: what begins and ends the closed loop is then a tenth of it
MAX_REQUESTS = 5000


def of_fleet(
    record: RunRecord,
    design: int | None,
    *,
    clocks: Sequence[float] = CLOCKS,
    batches: Sequence[int] = (),
    latency_limit_s: float | None = None,
    sleep_share: float = SLEEP_SHARE,
) -> Device:
    """One replica of a fleet (number ``design``, from 1; None: the first) of a search over a log.

    Args:
        clocks: relative, from 0.1 to 1. batches: limits of sequences in a batch (none: the fleet's own).
        latency_limit_s: points at which a twentieth of the requests takes longer are left out. sleep_share: sleep over idle power.

    Raises UsageError for a fleet that the run has not and for values out of range; DseError where no point keeps the limit.
    """
    entry = entry_of(record, design, "fleets")
    number = entry["design"]
    check_operation(clocks, sleep_share, "chip")
    if bad_batches := [b for b in batches if b < 1]:
        raise UsageError(f"batch is {bad_batches[0]}, must be at least 1")
    knobs = entry["knobs"]
    node_nm = float(library.load(knobs["hw"]).accelerator.node_nm)
    log = read_requests(record.problem.workload)
    chip = sheet(knobs["hw"])
    points = []
    for batch in batches or (int(knobs["max_sequences"]),):
        count = min(FILLS * batch, MAX_REQUESTS)
        at = np.arange(max(count, batch)) % len(log)
        requests = Requests(np.zeros(len(at)), log.prompt[at], log.output[at])
        for clock in sorted({*clocks, 1.0}):
            supply = supply_at(clock, node_nm) if clock < 1 else 1.0
            grid = {name: (knobs[name],) for name in ("tp", "weight_bits")} | {"max_sequences": (batch,), "replicas": (1,)}
            (plain,) = setups(record.problem.request["model"], [knobs["hw"]], grid)
            served = run(replace(plain, clock=clock, supply=supply), requests, concurrency=batch)
            latency = float(np.percentile(served.latency_s, 95))
            if latency_limit_s is not None and latency > latency_limit_s:
                continue
            busy_w = float(served.energy_j.sum()) / served.makespan_s
            points.append(OperatingPoint(clock, supply, batch, latency, 3600.0 * len(at) / served.makespan_s, busy_w / 1e3))
    if not points:
        raise DseError(f"fleet {number} of {record.path} has no operating point with a latency of at most {latency_limit_s:g} s")
    chips = int(knobs["tp"])
    idle_kw = chips * chip.idle_w / 1e3
    return Device(
        name=f"replica of fleet {number} of {record.path.name}",
        points=tuple(points),
        idle_kw=idle_kw,
        sleep_kw=sleep_share * idle_kw,
        embodied_kgco2e=chips * chip.embodied_kgco2e,
        lifetime_h=record.problem.deployment.lifetime_years * HOURS_PER_YEAR,
        notes=(
            "requests, latency (p95) and power at every clock from the engine model with its batch full; "
            "supply at a clock: Stillmaker and Baas 2017",
            f"sleep power is {sleep_share:g} of idle power: an assumption",
        ),
    )
