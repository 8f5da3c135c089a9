"""A model served by an engine on chips under a load: the simulation from names to latencies, joules and grams."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels.serving import Cluster, Outcome, Policy, Requests, StepTable, simulate

from carbon.factors import grid as grids
from dse.errors import DseError, UsageError
from dse.serving.engines import EngineTraits, engine, overheads
from dse.serving.model import ServedModel, served_model
from dse.serving.sheet import Sheet, at_clock, sheet
from dse.serving.steps import Parallelism, Precision, StepModel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BLOCK_TOKENS = 16
MEMORY_SHARE = 0.9  # of a chip's memory that an engine may fill (the default of vLLM and TensorRT-LLM)
RESERVED_BYTES = 3e9  # graphs, workspaces and activations beside weights and cache
SPECULATION_SEED = 977
SECONDS_PER_YEAR = 365.25 * 86400
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Speculation:
    """Speculative decoding: ``drafted`` tokens a step, each accepted with probability ``acceptance`` if those before it were.

    ``draft_share``: time of drafting one token as a share of a step; None: one layer of the model (a multi-token module).
    """

    drafted: int
    acceptance: float
    draft_share: float | None = None

    def __post_init__(self) -> None:
        if self.drafted < 1 or not 0 <= self.acceptance < 1:
            raise UsageError(f"drafted is {self.drafted} and acceptance {self.acceptance}, must be from 1 and from 0 to below 1")

    def tokens_per_step(self) -> float:
        """Expected tokens of a step: (1 - a^(g+1)) / (1 - a) (Leviathan et al., ICML 2023, equation 1)."""
        return (1 - self.acceptance ** (self.drafted + 1)) / (1 - self.acceptance)

    def decode_steps(self, output: IntArray, seed: int) -> IntArray:
        """Steps that each request needs for its tokens after the first, drawn."""
        rng = np.random.default_rng([SPECULATION_SEED, seed])
        left = np.maximum(output - 1, 0).astype(np.int64)
        steps = np.zeros_like(left)
        while (alive := left > 0).any():
            # Accepted in a row before the first rejection, at most all drafted; one more token comes from the model itself.
            made = np.minimum(rng.geometric(1 - self.acceptance, alive.sum()), self.drafted + 1)
            left[alive] -= made
            steps[alive] += 1
        return steps


@dataclass(frozen=True)
class Setup:
    """What serves.

    Attributes:
        model, hw, engine: names. parallel: of a replica. replicas: engines side by side.
        weight_bits, kv_bits: kv_bits 0: 8 where weights have fewer than 16 bits, else 16.
        decode_parallel, decode_replicas: chips that only decode, the others then compute prompts alone (None: all do both).
        max_sequences, token_budget: limits of a worker's batch (token_budget 0: the engine's own).
        prefix_cache: leading blocks of prompts are shared. speculation: None for none.
        clock, supply: of the chips, relative to their data sheet (`dse.serving.sheet.at_clock`).
    """

    model: str
    hw: str
    engine: str = "vllm"
    parallel: Parallelism = field(default_factory=Parallelism)
    replicas: int = 1
    weight_bits: int = 16
    kv_bits: int = 0
    decode_parallel: Parallelism | None = None
    decode_replicas: int = 1
    max_sequences: int = 1024
    token_budget: int = 0
    prefix_cache: bool = False
    speculation: Speculation | None = None
    clock: float = 1.0
    supply: float = 1.0

    def __post_init__(self) -> None:
        for name in ("replicas", "decode_replicas", "max_sequences"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name, allowed in (("weight_bits", (4, 8, 16)), ("kv_bits", (0, 4, 8, 16))):
            if getattr(self, name) not in allowed:
                near = min(allowed, key=lambda bits: abs(bits - getattr(self, name)))
                raise UsageError(f"{name} is {getattr(self, name)}, must be one of {allowed}; nearest is {near}")
        _check_parallel(self.parallel, self.model)
        if self.decode_parallel:
            _check_parallel(self.decode_parallel, self.model)

    @property
    def chips(self) -> int:
        """All chips."""
        decode = self.decode_parallel.chips * self.decode_replicas if self.decode_parallel else 0
        return self.parallel.chips * self.replicas + decode

    def precision(self) -> Precision:
        """Bits of each part: experts alone are quantised to 4 bits where there are any (as published checkpoints do)."""
        model = served_model(self.model)
        dense = 16 if self.weight_bits == 4 and model.mixture else self.weight_bits
        return Precision(dense, self.weight_bits, self.kv_bits or (8 if self.weight_bits < 16 else 16))

    def steps(self, parallel: Parallelism, busy_ranks: int = 0) -> StepModel:
        """The step model of a rank; ``busy_ranks``: attention-data-parallel ranks that have work at a time (0: all)."""
        traits = engine(self.engine)
        return StepModel(
            served_model(self.model),
            sheet(self.hw) if self.clock == 1 else at_clock(sheet(self.hw), self.clock, self.supply),
            parallel,
            self.precision(),
            overheads(),
            traits.layer_s,
            traits.step_s,
            traits.sequence_s,
            busy_ranks,
        )


def _check_parallel(p: Parallelism, name: str) -> None:
    for part in ("tp", "pp", "dp", "ep", "moe_tp"):
        if getattr(p, part) < 1:
            raise UsageError(f"{part} is {getattr(p, part)}, must be at least 1")
    model = served_model(name)
    heads = max(a.heads for a in model.attention)
    if p.tp > heads:
        raise UsageError(f"tp is {p.tp}, must be at most the {heads} heads of {name}")
    if p.pp > model.layers:
        raise UsageError(f"pp is {p.pp}, must be at most the {model.layers} layers of {name}")
    if model.mixture is None:
        if p.ep > 1 or p.moe_tp > 1:
            raise UsageError(f"ep is {p.ep}, must be 1 for {name}, which has no experts")
    elif p.ep * p.moe_tp != p.tp * p.dp:
        raise UsageError(f"ep x moe_tp is {p.ep} x {p.moe_tp}, must equal tp x dp = {p.tp * p.dp} where {name} deals its experts")
    elif p.ep > model.mixture.experts:
        raise UsageError(f"ep is {p.ep}, must be at most the {model.mixture.experts} experts of {name}")


@dataclass(frozen=True)
class Served:
    """What the clients saw, and what it cost; arrays of shape (requests,).

    Attributes:
        ttft_s, tpot_s, latency_s: first token; mean time of a token after the first; last token, all from the arrival.
            tpot_s is NaN for one token. energy_j: with the share of idle time.
        makespan_s: from the first arrival to the last token. utilisation: busy share of the workers' time.
        energy_idle_j: part of the energy while nothing ran.
    """

    setup: Setup
    outcome: Outcome
    prompt: IntArray
    output: IntArray
    ttft_s: FloatArray
    tpot_s: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    makespan_s: float
    utilisation: float
    energy_idle_j: float

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second of all chips."""
        return float(self.output.sum()) / self.makespan_s

    def goodput_per_s(self, ttft_s: float = np.inf, tpot_s: float = np.inf) -> float:
        """Requests a second that keep both limits."""
        good = (self.ttft_s <= ttft_s) & (np.nan_to_num(self.tpot_s, nan=0.0) <= tpot_s)
        return float(good.sum()) / self.makespan_s

    def gco2e(self, *, gco2e_per_kwh: float, pue: float, lifetime_years: float, use_share: float = 1.0) -> FloatArray:
        """Grams of each request: energy at the grid's intensity, and embodied carbon by its share of the energy.

        The chips' embodied carbon is spread over ``lifetime_years``, of which they work ``use_share``.
        """
        operational = self.energy_j / JOULES_PER_KWH * pue * gco2e_per_kwh
        embodied = 1000.0 * sheet(self.setup.hw).embodied_kgco2e * self.setup.chips
        used = embodied * self.makespan_s / (lifetime_years * SECONDS_PER_YEAR * use_share)
        return np.asarray(operational + used * self.energy_j / self.energy_j.sum())


def run(setup: Setup, requests: Requests, *, concurrency: int = 0, seed: int = 0, timeline: bool = False) -> Served:
    """Serve the requests.

    Raises DseError where the model does not fit the chips, or a request not the cache.
    """
    model = served_model(setup.model)
    if setup.speculation:
        requests = replace(requests, decode_steps=setup.speculation.decode_steps(requests.output, seed))
    cluster = cluster_of(setup, requests, concurrency)
    try:
        outcome = simulate(requests, cluster, concurrency=concurrency, timeline=timeline)
    except ValueError as error:
        raise DseError(f"{model.name} on {setup.chips} x {setup.hw}: {error}") from error
    return _observed(setup, requests, outcome, engine(setup.engine))


def cluster_of(setup: Setup, requests: Requests, concurrency: int) -> Cluster:
    """The workers: one for each rank of attention data parallelism of each replica."""
    longest = int((requests.prompt + requests.output).max())
    prompt = int(requests.prompt.max())
    traits = engine(setup.engine)
    workers = setup.replicas * setup.parallel.dp
    shared = -(-concurrency // workers)

    def side(parallel: Parallelism, load: int, held: int, replicas: int) -> tuple[Policy, StepTable]:
        # A closed loop with fewer requests than ranks leaves ranks without work.
        steps = setup.steps(parallel, -(-concurrency // replicas))
        tokens = steps.cache_tokens(MEMORY_SHARE, RESERVED_BYTES)
        blocks = tokens // BLOCK_TOKENS
        if blocks * BLOCK_TOKENS < held:
            chip = steps.sheet
            raise DseError(
                f"{setup.model} with {setup.weight_bits}-bit weights takes {steps.weight_bytes() / 1e9:.1f} GB of the "
                f"{chip.memory_bytes / 1e9:.1f} GB of each of {parallel.chips} x {setup.hw} and leaves a cache of {tokens} tokens, "
                f"which does not hold a request of {held}; nearest is more chips or fewer bits"
            )
        speculation = setup.speculation
        queries = 1 + (speculation.drafted if speculation else 0)
        policy = traits.policy(
            concurrency=load,
            blocks=blocks,
            block_tokens=BLOCK_TOKENS,
            max_sequences=setup.max_sequences,
            longest_prompt=prompt,
            prefix_cache=setup.prefix_cache,
            query_tokens=queries,
            token_budget=setup.token_budget,
        )
        sequences = min(setup.max_sequences, load or len(requests.prompt))
        table = steps.table(tokens=policy.token_budget + sequences * queries, sequences=sequences, keys=longest, query_tokens=queries)
        return policy, _drafting(table, speculation, steps.model) if speculation else table

    if not setup.decode_parallel:
        policy, table = side(setup.parallel, shared, longest, setup.replicas)
        return Cluster(policy, table, workers)
    decoders = setup.decode_replicas * setup.decode_parallel.dp
    policy, table = side(setup.parallel, shared, prompt, setup.replicas)
    decode_policy, decode_table = side(setup.decode_parallel, -(-concurrency // decoders), longest, setup.decode_replicas)
    steps = setup.steps(setup.parallel, -(-concurrency // setup.replicas))
    table = _waiting(table, 1 + steps.overheads.rank_wait * (1 - 1 / steps.ranks_at_work))
    # The cache of a prompt goes over the links of the chips that hold it, all at once.
    rate = steps.sheet.link_bytes_per_s * steps.overheads.link_efficiency
    per_token = steps.cache_bytes_per_token() / rate if rate > 0 else 0.0
    return Cluster(policy, table, workers, decoders, decode_policy, decode_table, TRANSFER_S, per_token)


def _waiting(table: StepTable, factor: float) -> StepTable:
    """Steps of ranks that wait for one another; their energy is that of their work."""
    return replace(table, linear_s=table.linear_s * factor, prefill_s=table.prefill_s * factor)


TRANSFER_S = 2e-3  # hand-over of a request between pools beside its bytes: an estimate


def _drafting(table: StepTable, speculation: Speculation, model: ServedModel) -> StepTable:
    """Steps that also draft: each drafted token costs its share of the decoding part of a step."""
    share = speculation.draft_share if speculation.draft_share is not None else 1 / model.layers
    factor = 1 + speculation.drafted * share
    names = ("linear_s", "linear_j", "decode_s", "decode_j")
    return replace(table, **{name: getattr(table, name) * factor for name in names})


def _observed(setup: Setup, requests: Requests, o: Outcome, traits: EngineTraits) -> Served:
    output = requests.output
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(output > 1, (o.last_s - o.first_s) / (output - 1), np.nan)
        step = np.where(requests.decode_steps > 0, (o.last_s - o.first_s) / requests.decode_steps, 0.0)
    seen = traits.first_s + traits.prompt_token_s * requests.prompt + traits.lag_steps * step
    makespan = float(o.last_s.max() - o.arrival_s.min())
    busy = float(o.busy_s.sum())
    capacity = makespan * len(o.busy_s)
    idle_w = sheet(setup.hw).idle_w * setup.chips / len(o.busy_s)
    idle_j = idle_w * max(capacity - busy, 0.0)
    return Served(
        setup,
        o,
        requests.prompt,
        output,
        o.first_s - o.arrival_s + seen,
        tpot,
        o.last_s - o.arrival_s + seen,
        o.energy_j + idle_j / len(output),
        makespan,
        busy / capacity,
        idle_j,
    )


def uniform_lengths(mean: int, ratio: float, count: int, seed: int) -> IntArray:
    """Whole lengths drawn evenly from [ratio x mean, mean], or all ``mean`` where ratio is 1."""
    if not 0 < ratio <= 1:
        raise UsageError(f"length ratio is {ratio}, must be above 0 and at most 1")
    if ratio == 1:
        return np.full(count, mean, dtype=np.int64)
    return np.random.default_rng([seed, mean]).integers(max(int(ratio * mean), 1), mean + 1, count)


def percentiles(values: FloatArray, scale: float = 1.0) -> dict[str, float]:
    """mean, p50, p95, p99 of the finite values, scaled."""
    finite = values[np.isfinite(values)] * scale
    if not len(finite):
        return {"mean": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0}
    middle, high, highest = np.percentile(finite, (50, 95, 99))
    return {"mean": float(finite.mean()), "p50": float(middle), "p95": float(high), "p99": float(highest)}


def rate_percentiles(served: Served, windows: int = 50) -> dict[str, float]:
    """Output tokens a second over equal windows of the makespan: mean, p50, p95, p99 (tokens between a request's first and last
    taken as evenly spaced)."""
    o = served.outcome
    begin, end = float(o.arrival_s.min()), float(o.last_s.max())
    edges = np.linspace(begin, end, windows + 1)
    made = np.zeros(windows + 1)
    for first, last, tokens in zip(o.first_s, o.last_s, served.output, strict=True):
        if last > first:
            made += 1.0 * (edges >= first) + (tokens - 1) * np.clip((edges - first) / (last - first), 0, 1)
        else:
            made += tokens * (edges >= last)
    rates = np.diff(made) / (end - begin) * windows
    return {**percentiles(rates), "mean": served.tokens_per_s}


def summary(served: Served, *, grid: str, pue: float, lifetime_years: float, slo: tuple[float, float] = (np.inf, np.inf)) -> dict[str, Any]:
    """Plain values for JSON: latencies, rates, energy and carbon, each with percentiles, and what produced them.

    Energy is the chips', grams are of the facility: of that energy x ``pue``, and of the chips' making.
    """
    factor = grids.lookup(grid)
    grams = served.gco2e(gco2e_per_kwh=factor.gco2e_per_kwh, pue=pue, lifetime_years=lifetime_years)
    o = served.outcome
    tokens = int(served.output.sum())
    chip: Sheet = sheet(served.setup.hw)
    operational = float(served.energy_j.sum()) / JOULES_PER_KWH * pue * factor.gco2e_per_kwh
    good = served.goodput_per_s(*slo)
    return {
        "ttft_ms": percentiles(served.ttft_s, 1e3),
        "tpot_ms": percentiles(served.tpot_s, 1e3),
        "latency_ms": percentiles(served.latency_s, 1e3),
        "tokens_per_s": rate_percentiles(served),
        "energy_j_per_request": percentiles(served.energy_j),
        "gco2e_per_request": percentiles(grams),
        "energy_j_per_token": float(served.energy_j.sum()) / tokens,
        "gco2e_per_token": float(grams.sum()) / tokens,
        "operational_share": operational / float(grams.sum()),
        "requests": len(served.output),
        "requests_per_s": len(served.output) / served.makespan_s,
        "goodput_per_s": good,
        "limits_ms": {name: limit * 1e3 for name, limit in zip(("ttft", "tpot"), slo, strict=True) if np.isfinite(limit)},
        "utilisation": served.utilisation,
        "makespan_s": served.makespan_s,
        "chips": served.setup.chips,
        "engine_steps": o.steps,
        "prefill_tokens": o.prefill_tokens,
        "cached_tokens": int(o.cached_tokens.sum()),
        "preemptions": int(o.preemptions.sum()),
        "embodied_kgco2e_per_chip": chip.embodied_kgco2e,
        "pue": pue,
        "gco2e_per_kwh": factor.gco2e_per_kwh,
        "grid": factor.name,
        "sources": {"grid": factor.source, "step_time": "dse/data/serving.toml", "device": f"hw_models device {chip.name}"},
    }
