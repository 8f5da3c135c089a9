"""Time of one engine step on given chips, as a table over tokens, batch, keys and pieces of prompts.

Per rank, T tokens in the step, n sequences that decode, c keys each; symbols and every formula are in docs/models/serving.md.
Rates come from the device's data sheet; what software adds is a handful of numbers for all models and devices (`Overheads`)
and a few for each engine (`dse.serving.engines`), fitted to published serving runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dse_kernels.serving import StepTable

from dse.serving.model import Attention, ServedModel
from dse.serving.sheet import Sheet

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES = 2  # of an element that chips exchange
ACTIVATION_BITS = 16
HEAD_BITS = 16  # no engine quantises the head
FEW_ROWS = 16.0  # with fewer rows than a tile's least height, kernels split k instead of padding rows
SCALE_BITS = 0.5  # a weight's share of the scales of a 4-bit format (8 bits to 16 weights)
# NCCL on NVLink: a hop of a ring, the low-latency protocol's share of the link rate, and what the bulk protocol costs more to
# start (fitted to published all-reduce measurements, docs/models/serving.md).
HOP_S = 0.7e-6
LOW_LATENCY_EFFICIENCY = 0.25
BULK_START_S = 16e-6
_MIX = 4.0  # how sharply memory time and compute time of a kernel take over from each other


@dataclass(frozen=True)
class Parallelism:
    """How chips share a replica: ``tp`` x ``dp`` ranks of attention (dp: attention-data-parallel), ``pp`` stages, experts dealt
    over ``ep`` ranks and each expert cut in ``moe_tp``; ep x moe_tp = tp x dp where there are experts."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    moe_tp: int = 1

    @property
    def chips(self) -> int:
        """Chips of a replica."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True)
class Precision:
    """Bits of the weights of products, of experts, and of the KV cache; products run in the format of their weights where the
    device has it, else in 16 bits."""

    weight_bits: int = 16
    expert_bits: int = 16
    kv_bits: int = 16


@dataclass(frozen=True)
class Overheads:
    """What no data sheet says, the same for every model, device and engine.

    Attributes:
        dram_efficiency, kv_efficiency: share of the peak DRAM rate for weights and for keys and values.
        tensor_efficiency, expert_efficiency, attention_efficiency: share of the peak rate of tensor cores, of products with
            enough rows, of grouped products and of fused attention over a prompt.
        four_bit_efficiency: further factor of both rates for products with 4-bit weights outside mixtures.
        half_rows, expert_half_rows: rows (beyond the first 16) at which a product reaches half of that rate.
        expert_skew: exponent of the power law by which tokens choose experts (0: uniform).
        imbalance: load of the busiest rank over the mean where experts are dealt over ranks.
        link_efficiency: share of the peak link rate of large exchanges.
        exchange_s: time of a collective beside its hops and bytes.
        product_s: time of a product beside its work. quantise_s: more of it where operands are quantised to 4 bits.
        mixture_s: time of a mixture beside its products (routing, permutation, combination).
        latent_s: time of a layer of latent attention beside the products (small projections' norms, rotations, concatenations).
        rank_wait: in a pool that computes prompts alone, how much longer a step of attention-data-parallel ranks takes because they
            meet at every mixture with prompts of their own: 1 + rank_wait (1 - 1 / ranks at work).
    """

    dram_efficiency: float
    kv_efficiency: float
    tensor_efficiency: float
    expert_efficiency: float
    attention_efficiency: float
    four_bit_efficiency: float
    half_rows: float
    expert_half_rows: float
    expert_skew: float
    imbalance: float
    link_efficiency: float
    exchange_s: float
    product_s: float
    quantise_s: float
    mixture_s: float
    latent_s: float
    rank_wait: float


@dataclass(frozen=True)
class StepModel:
    """Times [s] of the parts of a step; arguments are arrays that broadcast.

    ``busy_ranks``: attention-data-parallel ranks that have work at a time (0: all); the mixture's tokens are theirs.
    """

    model: ServedModel
    sheet: Sheet
    parallel: Parallelism
    precision: Precision
    overheads: Overheads
    layer_s: float = 0.0
    step_s: float = 0.0
    sequence_s: float = 0.0
    busy_ranks: int = 0

    @property
    def ranks_at_work(self) -> int:
        """Ranks whose tokens meet in a mixture."""
        return min(self.busy_ranks or self.parallel.dp, self.parallel.dp)

    # ---- memory ----

    def weight_bytes(self) -> float:
        """Bytes of weights on the fullest chip: its share of products and experts, the head and the embedding at 16 bits."""
        p, bits = self.parallel, self.precision
        whole = sum(x.parameters for x in self.model.products if not x.split)
        split = self.model.dense_parameters - whole
        dense = (whole + split / p.tp) * bits.weight_bits
        experts = self.model.expert_parameters / (p.ep * p.moe_tp) * bits.expert_bits
        tables = 2 * self.model.head_parameters / p.tp * HEAD_BITS
        return (dense + experts + tables) / 8 / p.pp

    def cache_bytes_per_token(self) -> float:
        """Bytes that a token adds to the cache of one chip, windows aside."""
        return (
            sum(a.layers * a.cache_elements / self._cache_split(a) for a in self.model.attention)
            * self.precision.kv_bits
            / 8
            / self.parallel.pp
        )

    def cache_tokens(self, memory_share: float, reserve_bytes: float) -> int:
        """Tokens whose keys and values fit beside the weights in ``memory_share`` of a chip's memory, 0 if none do.

        Layers with a window hold no more than its length of a sequence; they are counted as if they held all (as paged caches
        without a layer-wise pool do).
        """
        room = memory_share * self.sheet.memory_bytes - self.weight_bytes() - reserve_bytes
        return max(int(room / self.cache_bytes_per_token()), 0)

    def _cache_split(self, a: Attention) -> int:
        # Latent caches are whole on every chip; KV heads are dealt until each chip has one.
        return 1 if a.latent else min(self.parallel.tp, a.kv_heads)

    # ---- time ----

    def _kernel(
        self,
        weights: FloatArray | float,
        bits: int,
        flops: FloatArray | float,
        share: float,
        rows: FloatArray,
        half: float,
        slower: float = 1.0,
    ) -> FloatArray:
        """mix(bytes / bandwidth, FLOP / rate x (1 + half / (rows + 16))) of weights of so many bits; ``share`` of the peak rate."""
        moved = np.asarray(weights) * (bits + (SCALE_BITS if bits <= 4 else 0.0)) / 8
        memory = moved / (self.sheet.dram_bytes_per_s * self.overheads.dram_efficiency * slower)
        rate = self.sheet.flops_per_s(bits) * share * slower
        compute = np.asarray(flops) / rate * (1 + half / (rows + FEW_ROWS))
        return np.asarray((memory**_MIX + compute**_MIX) ** (1 / _MIX))

    def linear(self, tokens: npt.ArrayLike) -> FloatArray:
        """Products, mixtures, exchanges and overheads of a step with ``tokens`` tokens (of one rank) [s]."""
        o, p, m = self.overheads, self.parallel, self.model
        # Stages of a pipeline work on parts of the batch at once: a token passes pp stages, each with 1 / pp of the tokens.
        t = np.maximum(np.asarray(tokens, dtype=np.float64) / p.pp, np.minimum(np.asarray(tokens, dtype=np.float64), 1.0))
        bits = self.precision.weight_bits
        total = np.zeros_like(t)
        four_bits = bits <= 4 and self.sheet.has(bits)
        slower, fixed = (o.four_bit_efficiency, o.product_s + o.quantise_s) if four_bits else (1.0, o.product_s)
        for x in m.products:
            if x.head:
                continue
            weights = x.n * x.k * x.groups / (p.tp if x.split else 1)
            own = self._kernel(weights, bits, 2 * weights * t, o.tensor_efficiency, t, o.half_rows, slower)
            total = total + x.copies * (own + fixed)
        total = total + m.layers * self.layer_s + sum(a.layers for a in m.attention if a.latent) * o.latent_s
        if m.mixture:
            total = total + self._experts(t)
        return np.asarray(np.where(t > 0, total + self._exchange(t) + self.step_s, 0.0))

    def _experts(self, t: FloatArray) -> FloatArray:
        o, p, x = self.overheads, self.parallel, self.model.mixture
        assert x is not None
        bits = self.precision.expert_bits
        everyone = t * self.ranks_at_work
        used = active_experts(everyone, x.experts, x.top_k, o.expert_skew)
        # The busiest rank has more of the experts in use than the mean: balls in bins (Raab and Steger 1998), at most all of its own.
        mean = used / p.ep
        busiest = np.minimum(mean + np.sqrt(2 * mean * np.log(p.ep)), np.minimum(x.experts / p.ep, np.maximum(used, mean)))
        weights = 3 * x.hidden * x.ffn / p.moe_tp  # of an expert, on a rank
        rows = everyone * x.top_k / np.maximum(used, 1e-9)
        skew = o.imbalance if p.ep > 1 else 1.0
        flops = 2 * weights * everyone * x.top_k / p.ep * skew
        own = self._kernel(busiest * weights, bits, flops, o.expert_efficiency, rows, o.expert_half_rows)
        return np.asarray(x.layers * (own + o.mixture_s))

    def _exchange(self, t: FloatArray) -> FloatArray:
        """Two all-reduces a layer over the tensor-parallel group, dispatch and combine over the ranks of the mixture."""
        o, p, m = self.overheads, self.parallel, self.model
        total = np.zeros_like(t)

        def all_reduce(group: int) -> FloatArray:
            hops = 2 * (group - 1)
            moved = hops / group * t * m.hidden * ACTIVATION_BYTES
            peak = self.sheet.link_bytes_per_s
            small = moved / (LOW_LATENCY_EFFICIENCY * peak)
            large = BULK_START_S + moved / (o.link_efficiency * peak)
            return np.asarray(o.exchange_s + hops * HOP_S + np.minimum(small, large))

        if p.tp > 1:
            mixtures = m.mixture.layers if m.mixture and p.dp > 1 else 0
            total = total + (2 * m.layers - mixtures) * all_reduce(p.tp)
        if m.mixture and p.dp > 1:
            total = total + m.mixture.layers * all_reduce(p.tp * p.dp) * 2
        if p.pp > 1:
            total = total + p.pp * (o.exchange_s + t * m.hidden * ACTIVATION_BYTES / (self.sheet.link_bytes_per_s * o.link_efficiency))
        return total

    def decode(self, sequences: npt.ArrayLike, keys: npt.ArrayLike, query_tokens: int = 1) -> FloatArray:
        """Attention of ``sequences`` with ``keys`` keys each, their head and what the scheduler does for each [s]."""
        o, p = self.overheads, self.parallel
        n, c = np.broadcast_arrays(np.asarray(sequences, dtype=np.float64), np.asarray(keys, dtype=np.float64))
        n = np.maximum(n / p.pp, np.minimum(n, 1.0))
        total = n * self.sequence_s
        for a in self.model.attention:
            seen = np.minimum(c, a.window) if a.window else c
            moved = n * seen * a.cache_elements / self._cache_split(a) * self.precision.kv_bits / 8
            flops = 2 * n * query_tokens * seen * a.heads / p.tp * a.decode_width
            memory = moved / (self.sheet.dram_bytes_per_s * o.kv_efficiency)
            compute = flops / (self.sheet.flops_per_s(ACTIVATION_BITS) * o.attention_efficiency)
            total = total + a.layers * (memory**_MIX + compute**_MIX) ** (1 / _MIX)
        rows = n * query_tokens
        for x in self.model.products:
            if x.head:
                weights = x.n * x.k * x.groups / p.tp
                own = self._kernel(weights, HEAD_BITS, 2 * weights * rows, o.tensor_efficiency, rows, o.half_rows)
                total = total + x.copies * own
        return np.asarray(np.where(n > 0, total, 0.0))

    def prefill(self, take: npt.ArrayLike, done: npt.ArrayLike) -> FloatArray:
        """Attention of ``take`` tokens of a prompt after ``done`` others [s]."""
        t, d = np.broadcast_arrays(np.asarray(take, dtype=np.float64), np.asarray(done, dtype=np.float64))
        rate = self.sheet.flops_per_s(ACTIVATION_BITS) * self.overheads.attention_efficiency
        total = np.zeros(t.shape)
        for a in self.model.attention:
            pairs = t * (d + t / 2)
            if a.window:
                growing = np.clip(a.window - d, 0, t)
                pairs = growing * (d + growing / 2) + (t - growing) * a.window
            total = total + a.layers * 2 * pairs * a.heads / self.parallel.tp * a.prefill_width / rate
        return total / self.parallel.pp

    # ---- energy of the chips of one rank of attention ----

    def _joules(self, seconds: FloatArray, moved: FloatArray, flops: FloatArray) -> FloatArray:
        """Busy power times time, bytes and operations (``moved``, ``flops`` of one chip), capped by the power limit."""
        chip = self.sheet
        one = (chip.idle_w + chip.active_w) * seconds + chip.byte_j * moved + chip.flop_j * flops
        return np.asarray(np.minimum(one, self.sheet.tdp_w * seconds) * self.parallel.tp * self.parallel.pp)

    def _flop_energy_bits(self, bits: int) -> float:
        # A product of b-bit operands costs b / 16 of one in 16 bits, where the chip has it.
        return (bits if self.sheet.has(bits) else 16) / 16

    def linear_joules(self, tokens: FloatArray, seconds: FloatArray) -> FloatArray:
        """Energy of `linear` [J]."""
        p, bits = self.parallel, self.precision
        t = np.asarray(tokens, dtype=np.float64)
        dense = self.model.dense_parameters / (p.tp * p.pp)
        moved = dense * bits.weight_bits / 8 * (t > 0)
        flops = 2 * dense * t * self._flop_energy_bits(bits.weight_bits)
        x = self.model.mixture
        if x:
            each = 3 * x.hidden * x.ffn * x.layers / (p.ep * p.moe_tp * p.pp)
            used = active_experts(t * self.ranks_at_work, x.experts, x.top_k, self.overheads.expert_skew)
            moved = moved + used * each * bits.expert_bits / 8
            flops = flops + 2 * each * t * self.ranks_at_work * x.top_k * self._flop_energy_bits(bits.expert_bits)
        return self._joules(seconds, np.asarray(moved, dtype=np.float64), np.asarray(flops, dtype=np.float64))

    def decode_joules(self, sequences: FloatArray, keys: FloatArray, seconds: FloatArray) -> FloatArray:
        """Energy of `decode` [J]."""
        n, c = np.broadcast_arrays(np.asarray(sequences, dtype=np.float64), np.asarray(keys, dtype=np.float64))
        moved = np.zeros(n.shape)
        flops = np.zeros(n.shape)
        for a in self.model.attention:
            seen = np.minimum(c, a.window) if a.window else c
            moved = moved + a.layers * n * seen * a.cache_elements / self._cache_split(a) * self.precision.kv_bits / 8
            flops = flops + 2 * a.layers * n * seen * a.heads / self.parallel.tp * a.decode_width
        head = self.model.head_parameters / self.parallel.tp
        moved, flops = moved + head * HEAD_BITS / 8 * (n > 0), flops + 2 * head * n
        return self._joules(seconds, moved / self.parallel.pp, flops / self.parallel.pp)

    def prefill_joules(self, take: FloatArray, done: FloatArray, seconds: FloatArray) -> FloatArray:
        """Energy of `prefill` [J]: its operations at the attention's rate."""
        flops = seconds * self.sheet.flops_per_s(ACTIVATION_BITS) * self.overheads.attention_efficiency
        return self._joules(seconds, np.zeros_like(seconds), flops)

    # ---- table ----

    def table(self, *, tokens: int, sequences: int, keys: int, query_tokens: int = 1) -> StepTable:
        """The step as a table up to these sizes; between knots the error is stated in docs/models/serving.md (below 1 %)."""
        t = _axis(tokens, 4)
        n = _axis(sequences, 4)
        c = _axis(keys, 1, first=256)
        d = _axis(keys, 1, first=1024)
        take = _axis(min(tokens, keys), 2)
        linear = self.linear(t)
        decode = self.decode(n[:, None], c[None, :], query_tokens)
        prefill = self.prefill(take[:, None], d[None, :])
        # No tokens cost nothing; the first knots above 0 are one token apart, so that interpolation from 0 is never used.
        linear_j = self.linear_joules(t, linear)
        decode_j = self.decode_joules(n[:, None], c[None, :], decode)
        prefill_j = self.prefill_joules(take[:, None], d[None, :], prefill)
        return StepTable(t, linear, linear_j, n, c, decode, decode_j, take, d, prefill, prefill_j)


def active_experts(tokens: npt.ArrayLike, experts: int, top_k: int, skew: float) -> FloatArray:
    """Expected number of experts that receive one of ``tokens`` tokens, chosen with probabilities ~ rank ** -skew.

    Each token takes an expert of probability p with chance min(1, top_k p), independently of other tokens.
    """
    weights = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    chance = np.minimum(top_k * weights / weights.sum(), 1.0)
    return np.asarray((1 - (1 - chance) ** np.asarray(tokens, dtype=np.float64)[..., None]).sum(axis=-1))


def _axis(last: int, per_octave: int, first: int = 1) -> FloatArray:
    """0, then ``per_octave`` knots an octave from ``first`` to beyond ``last``."""
    octaves = max(int(np.ceil(np.log2(max(last, 2 * first) / first))), 1)
    knots = first * 2.0 ** (np.arange(octaves * per_octave + 1) / per_octave)
    return np.concatenate([[0.0], np.unique(np.rint(knots))])
