"""Grams, joules and dollars of a million tokens: a model served on one node, in bursts of so many at once or at a steady rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from dse_kernels.serving import Requests

from carbon.factors import grid as grids
from carbon.factors.grid_files import as_grid
from dse.errors import DseError, UsageError
from dse.serving.model import served_model
from dse.serving.sheet import sheet
from dse.serving.simulation import JOULES_PER_KWH, SECONDS_PER_YEAR, FloatArray, Served, Setup, run
from dse.serving.steps import Parallelism
from hw_models.devices import library
from hw_models.errors import HardwareError
from workloads.errors import WorkloadError

MILLION = 1e6
NODE_CHIPS = (1, 2, 4, 8)  # chips of one node that can share a model
_ROUNDS = 8  # requests of each client of the closed loop; figures of 16 rounds differ by less than 2 %


_LEAST_REQUESTS, _TURNS = 1000, 20  # of a steady demand: requests, and how often those in flight are replaced
_FULL = 1024  # the engine's most, requests in flight of the closed loop that says the most a layout serves


MOST_CONCURRENCY = 100_000  # requests of a closed loop, ten thousand times what an engine runs at once; each is simulated


@dataclass(frozen=True)
class Load:
    """What the chips do.

    Attributes:
        concurrency: requests in flight, one after the other (a closed loop). prompt_tokens, output_tokens: of each request.
        busy_share: share of the lifetime in which this load runs; in the rest the chips idle, and what they draw, cost and embody is
            carried by the tokens all the same.
        rate_per_s: requests that arrive a second (Poisson) for the whole lifetime, in place of a concurrency and a share.
    """

    concurrency: int = 64
    prompt_tokens: int = 1024
    output_tokens: int = 256
    busy_share: float = 1.0
    rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and not 1e-6 <= self.rate_per_s <= 1e6:
            raise UsageError(f"rate is {self.rate_per_s:g}, must be from 1e-6 to 1e6 requests a second")
        if self.rate_per_s is not None and self.busy_share != 1:
            raise UsageError(f"busy-share is {self.busy_share:g} beside a rate, which is there all the time; give one of them")
        for name in ("concurrency", "prompt_tokens", "output_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.concurrency > MOST_CONCURRENCY:
            raise UsageError(f"concurrency is {self.concurrency}, must be at most {MOST_CONCURRENCY:,}")
        if not 0 < self.busy_share <= 1:
            raise UsageError(f"busy-share is {self.busy_share:g}, must be above 0 and at most 1")


@dataclass(frozen=True)
class Site:
    """Where the chips stand: facility power over chip power, years of use, price of a kWh [USD]."""

    pue: float = 1.2
    lifetime_years: float = 5.0
    electricity_usd_per_kwh: float = 0.12

    def __post_init__(self) -> None:
        if not 1 <= self.pue <= 100:
            raise UsageError(f"pue is {self.pue:g}; facility power over chip power is at least 1 and at most 100")
        if not 0 < self.lifetime_years <= 1000:
            raise UsageError(f"lifetime-years is {self.lifetime_years:g}, must be above 0 and at most 1000")
        if not 0 <= self.electricity_usd_per_kwh <= 1000:
            raise UsageError(f"electricity-usd is {self.electricity_usd_per_kwh:g}, must be from 0 to 1000")


@dataclass(frozen=True)
class TokenCost:
    """What a million output tokens take; the prompts that they answer are included.

    Attributes:
        energy_j: at the wall of the facility. usd: boards over their lifetime and electricity; None where a board has no public price.
        gco2e_per_request: of one request, its prompt and output tokens together.
        embodied_share: share of the grams that was spent before the chips ran.
        chips: in all. replicas: groups of chips side by side, each with the whole model and an even share of a rate.
        requests_in_flight: the mean; of a rate by Little's law, rate x mean time of a request.
    """

    workload: str
    hw: str
    chips: int
    grid: str
    gco2e_per_million_tokens: float
    energy_j_per_million_tokens: float
    usd_per_million_tokens: float | None
    embodied_share: float
    tokens_per_s: float
    tpot_ms: float
    gco2e_per_kwh: float
    grid_source: str
    gco2e_per_request: float
    requests_in_flight: float
    replicas: int = 1


def token_cost(
    workload: str, hw: str, grid: str, *, load: Load, site: Site, weight_bits: int = 16, tp: int | None = None, engine: str = "vllm"
) -> TokenCost:
    """Grams, joules and dollars a million output tokens of ``workload`` on ``hw`` in ``grid``.

    Args:
        tp: chips that share the model; None tries 1, 2, 4 and 8 and takes the least grams. A rate above what they serve is divided
            evenly over the fewest groups of so many chips that serve it.

    Raises UsageError for unknown names and values out of range, DseError where no number of chips holds the model.
    """
    factor = grids.lookup(as_grid(grid))
    model = served_model(workload)
    positions = load.prompt_tokens + load.output_tokens
    if positions > model.positions:
        raise UsageError(f"prompt + output is {positions} tokens, must be at most the {model.positions} positions of {model.name}")
    found: list[TokenCost] = []
    refused: DseError | None = None
    for chips in (tp,) if tp is not None else NODE_CHIPS:
        parallel = Parallelism(chips, moe_tp=chips if model.mixture is not None else 1)
        setup = Setup(workload, hw, engine, parallel=parallel, weight_bits=weight_bits)
        try:
            served, replicas = (
                (_bursts(setup, load, load.concurrency), 1) if load.rate_per_s is None else _steady(setup, load, load.rate_per_s)
            )
        except (HardwareError, UsageError, WorkloadError):
            raise
        except DseError as error:
            refused = error
        else:
            found.append(_cost(served, replicas, workload, factor, load, site))
    if not found and refused is not None:
        raise refused
    return min(found, key=lambda cost: cost.gco2e_per_million_tokens)


def _requests(load: Load, arrival_s: FloatArray) -> Requests:
    return Requests(arrival_s, np.full(len(arrival_s), load.prompt_tokens), np.full(len(arrival_s), load.output_tokens))


def _bursts(setup: Setup, load: Load, concurrency: int) -> Served:
    """A closed loop: so many in flight all the time that the load is there."""
    return run(setup, _requests(load, np.zeros(concurrency * _ROUNDS)), concurrency=concurrency)


def _steady(setup: Setup, load: Load, rate_per_s: float) -> tuple[Served, int]:
    """An open loop at a rate: as many requests that time is long against one of them, stretched to arrive at just the rate; and how many
    replicas share it, the fewest that each have less than the throughput of a full closed loop, above which a queue would grow for ever.
    """
    full = _bursts(setup, load, _FULL)
    most = len(full.output) / full.makespan_s
    replicas = math.floor(rate_per_s / most) + 1
    own = rate_per_s / replicas
    in_flight = own * float(full.outcome.last_s.max()) / _ROUNDS  # at most: a request takes no longer than in a full loop
    count = max(_LEAST_REQUESTS, math.ceil(_TURNS * min(in_flight, _FULL)))
    arrival = np.cumsum(np.random.default_rng(0).exponential(1.0, count))
    return run(setup, _requests(load, arrival * (count / own / arrival[-1]))), replicas


def _cost(served: Served, replicas: int, workload: str, factor: grids.GridFactor, load: Load, site: Site) -> TokenCost:
    """Of one replica, which serves its share of a rate; a token costs the same on each."""
    hw, chips = served.setup.hw, served.setup.chips
    chip = sheet(hw)
    tokens = float(served.output.sum())
    per_million = MILLION / tokens
    # One second of this load stands for 1 / busy_share seconds of the chips' life. A rate is there for all of it: its requests take
    # count / rate seconds, and what the last ones run beyond that stands beside the next ones.
    count = len(served.output)
    seconds = served.makespan_s / load.busy_share if load.rate_per_s is None else count * replicas / load.rate_per_s
    latency_s = float(np.mean(served.outcome.last_s - served.outcome.arrival_s))
    in_flight = load.concurrency if load.rate_per_s is None else load.rate_per_s * latency_s
    idle_j = chip.idle_w * chips * (seconds - served.makespan_s)
    joules = (float(served.energy_j.sum()) + max(idle_j, -served.energy_idle_j)) * site.pue
    life_share = seconds / (site.lifetime_years * SECONDS_PER_YEAR)
    embodied_g = 1e3 * chip.embodied_kgco2e * chips * life_share
    operational_g = joules / JOULES_PER_KWH * factor.gco2e_per_kwh
    price = library.load(hw).capital_usd
    usd = None if price is None else price * chips * life_share + joules / JOULES_PER_KWH * site.electricity_usd_per_kwh
    return TokenCost(
        workload=workload,
        hw=hw,
        chips=chips * replicas,
        grid=factor.name,
        gco2e_per_million_tokens=(embodied_g + operational_g) * per_million,
        energy_j_per_million_tokens=joules * per_million,
        usd_per_million_tokens=None if usd is None else usd * per_million,
        embodied_share=embodied_g / (embodied_g + operational_g),
        tokens_per_s=served.tokens_per_s if load.rate_per_s is None else replicas * tokens / seconds,
        tpot_ms=1e3 * float(np.nanmean(served.tpot_s)) if load.output_tokens > 1 else 0.0,
        gco2e_per_kwh=factor.gco2e_per_kwh,
        grid_source=factor.source,
        gco2e_per_request=(embodied_g + operational_g) / count,
        requests_in_flight=in_flight,
        replicas=replicas,
    )
