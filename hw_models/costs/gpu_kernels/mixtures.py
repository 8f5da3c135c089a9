"""One layer of experts on a GPU: routing, two grouped products over the experts' tokens, activation and weighted sum.

Experts get unequal numbers of tokens: `expert_tokens` gives the quantiles of a power law (as measured loads follow, exponents
1.0-1.2) or an even split, and of several ranks the one with most tokens, which the others wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.parameters import MixtureKernel, ProductKernel
from hw_models.costs.gpu_kernels.products import ProductTimes, staged_depth, sustained_clock
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.errors import HardwareError

FloatArray = npt.NDArray[np.float64]

TILE_M: Final = np.array([16, 32, 64, 128, 256], dtype=np.float64)
TILE_N: Final = np.array([32, 64, 128, 256], dtype=np.float64)
ROUTED_EXPERTS, ROUTED_CHOICES = 128.0, 8.0  # what TensorRT-LLM's own routing kernel knows; else a general top-k
HEAVIEST_SHARE: Final = 0.8  # of the tokens that one expert may get before scaling; with the power law from one token on
MILDEST, STEEPEST = -50.0, 4.0  # exponents of the power laws of loads that an imbalance may ask for
DEALING_SEED: Final = 0  # a fixed shuffle deals heavy and light experts to ranks


@lru_cache(maxsize=4096)
def expert_tokens(tokens: int, experts: int, chosen: int, ranks: int = 1, exponent: float = 0.0) -> tuple[float, ...]:
    """Tokens of each expert of the rank that has most: whole numbers, ``tokens x chosen`` over all ranks, none above ``tokens``.

    ``exponent`` 0 deals evenly. Raises HardwareError where more experts are chosen than there are, or ranks than experts.
    """
    if not 1 <= chosen <= experts or not 1 <= ranks <= experts:
        raise HardwareError(f"a mixture of {experts} experts cannot choose {chosen} of them on {ranks} ranks")
    total = tokens * chosen
    if exponent == 0:
        load = np.full(experts, float(total // experts))
        load[: total % experts] += 1
    else:
        share = _power_law(experts, max(HEAVIEST_SHARE * tokens, 1.0001), exponent)
        load = _capped(share / share.sum() * total, float(tokens))
        load = _whole(load, total, tokens)
        load = load[np.random.default_rng(DEALING_SEED).permutation(experts)]
    each = experts // ranks
    by_rank = load[: each * ranks].reshape(ranks, each)
    return tuple(by_rank[by_rank.sum(axis=1).argmax()].tolist())


def _power_law(count: int, highest: float, exponent: float) -> FloatArray:
    """Quantiles of a power law on [1, highest], ascending."""
    at = (np.arange(count) + 0.5) / count
    if abs(exponent - 1) < 1e-9:
        return np.asarray(highest**at)
    a = 1 - exponent
    return np.asarray((1 + at * (highest**a - 1)) ** (1 / a))


def _capped(load: FloatArray, cap: float) -> FloatArray:
    """No load above ``cap``; what is cut off goes to the others in proportion."""
    for _ in range(8):
        over = load > cap
        if not over.any():
            break
        excess = float((load[over] - cap).sum())
        load = np.where(over, cap, load)
        free = load < cap
        if not free.any():
            break
        load = load + np.where(free, load, 0.0) * (excess / load[free].sum())
    return np.minimum(load, cap)


def _whole(load: FloatArray, total: int, cap: int) -> FloatArray:
    """Whole loads with the same total: the largest remainders are rounded up."""
    result = np.floor(load)
    left = round(total - float(result.sum()))
    for i in np.argsort(result - load, kind="stable"):
        if left <= 0:
            break
        if result[i] < cap:
            result[i] += 1
            left -= 1
    return np.asarray(result)


@lru_cache(maxsize=4096)
def exponent_of(tokens: int, experts: int, chosen: int, imbalance: float) -> float:
    """Exponent of the power law whose busiest expert has ``imbalance`` times the mean load, found by bisection.

    A law with exponent 0 is uniform from one token to the heaviest load, a ratio of 2; milder ones have exponents below 0. An
    imbalance beyond what ``tokens`` allow (an expert sees a token once) gives the steepest law that is considered, `STEEPEST`.
    """
    low, high = MILDEST, STEEPEST
    for _ in range(20):
        middle = (low + high) / 2
        heaviest = max(expert_tokens(tokens, experts, chosen, 1, middle))
        low, high = (middle, high) if heaviest < imbalance * tokens * chosen / experts else (low, middle)
    return high


def layer_loads(tokens: int, experts: int, chosen: int, active: int, ranks: int = 1, imbalance: float = 1.0) -> tuple[float, ...]:
    """Tokens of the experts with work on the rank that has most, of a layer of a model.

    ``imbalance`` 1: the ``active`` experts that a random choice leaves with work have equal shares, and ranks equal numbers of them,
    rounded up. Above: a power law with that ratio of the busiest expert to the mean.
    """
    if imbalance > 1:
        return expert_tokens(tokens, experts, chosen, ranks, exponent_of(tokens, experts, chosen, imbalance))
    total = tokens * chosen
    return tuple(float(total // active + (i < total % active)) for i in range(-(-active // ranks)))


@dataclass(frozen=True)
class MixtureTimes:
    """Parts of layers of experts (layers,): of the first and second grouped product latency, busiest multiprocessor and DRAM [s] and
    DRAM bytes; latency and DRAM bytes of activations that pass between kernels, and the kernels' fixed time [s].
    """

    first: ProductTimes
    second: ProductTimes
    passing_s: FloatArray
    passing_bytes: FloatArray
    fixed_s: FloatArray

    @property
    def latency_s(self) -> FloatArray:
        """Of the whole layer."""
        return np.asarray(self.fixed_s + self.first.latency_s + self.second.latency_s + self.passing_s)


def mixture_times(
    sheet: GpuSheet,
    products: ProductKernel,
    kernel: MixtureKernel,
    loads: Sequence[Sequence[float]],
    tokens: npt.ArrayLike,
    hidden: npt.ArrayLike,
    inner: npt.ArrayLike,
    experts: npt.ArrayLike,
    chosen: npt.ArrayLike,
    *,
    gated: npt.ArrayLike = True,
    number_format: str = "bf16",
    activation_bytes: float = 2.0,
    weight_bytes: float = 2.0,
    cold: bool = False,
    in_turn: npt.ArrayLike | None = None,
) -> MixtureTimes:
    """Parts of layers on one rank, whose experts have ``loads`` tokens (layers, experts of the rank); sizes are (layers,).

    ``inner`` is the width of one expert on this device (tensor parallelism divides it before). ``cold``: experts' weights come from the
    DRAM whatever the cache could hold, as in a model; a benchmark repeats one layer. ``in_turn``: experts whose weights it reads until
    it reads the first one's again (None: those with work), which a cache would have to hold.
    """
    t, h, i, e, c, g = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (tokens, hidden, inner, experts, chosen, gated))
    )
    dealt = np.array([_tally(tuple(load)) for load in loads])
    both = np.where(g > 0, 2.0, 1.0) * i
    resident = (dealt[:, 1] if in_turn is None else np.asarray(in_turn, dtype=np.float64)) * (both + i) * h * weight_bytes
    common = (dealt, _usual(kernel, t, dealt[:, 0]), resident, number_format, activation_bytes, weight_bytes, cold)
    first = _grouped(sheet, products, kernel, both, h, *common)
    second = _grouped(sheet, products, kernel, h, i, *common)
    carried = t * c if kernel.triton else dealt[:, 2]
    moved = kernel.activation_factor * carried * (2.0 * h + 6.0 * i)
    general = kernel.top_k_s + t * kernel.top_k_cycles / sheet.multiprocessors / sheet.frequency_hz
    fixed = kernel.launch_s + np.where((e > ROUTED_EXPERTS) | (c > ROUTED_CHOICES), general, 0.0)
    return MixtureTimes(first, second, moved / sheet.dram_bytes_per_s, moved, fixed)


@lru_cache(maxsize=65536)
def _tally(load: tuple[float, ...]) -> tuple[float, ...]:
    """Experts of the rank, those with work, their tokens, and tiles of rows for each of `TILE_M`."""
    each = np.asarray(load, dtype=np.float64)
    return (float(len(load)), float((each > 0).sum()), float(each.sum()), *np.ceil(each / TILE_M[:, None]).sum(axis=1).tolist())


def _usual(kernel: MixtureKernel, tokens: FloatArray, experts: FloatArray) -> npt.NDArray[np.bool_]:
    """Which tiles the kernel may take (layers, tiles): of a library any of 64 columns or more, of vLLM's Triton kernel its default.

    By tokens: 16, 32, 64, 128 rows up to 32, 96, 512 tokens and above, 64 columns up to 64 tokens, else 128. Older versions: 16 x 32
    where tokens are no more than the experts of the rank, else 64 x 64. (The older default is recalled of vLLM's source; its tables
    of tuned tiles for some shapes and devices are not followed.)
    """
    rows, columns = np.repeat(TILE_M, len(TILE_N)), np.tile(TILE_N, len(TILE_M))
    if not kernel.triton:
        return np.repeat(columns[None, :] >= 64, len(tokens), axis=0)
    t, few = tokens[:, None], (tokens <= experts)[:, None]
    if not kernel.tiles_by_tokens:
        return np.asarray(np.where(few, (rows == 16) & (columns == 32), (rows == 64) & (columns == 64)))
    named = np.select([t <= 32, t <= 96, t <= 512], [16, 32, 64], 128)
    return np.asarray((rows == named) & (columns == np.where(t <= 64, 64, 128)))


def _grouped(
    sheet: GpuSheet,
    products: ProductKernel,
    kernel: MixtureKernel,
    n: FloatArray,
    k: FloatArray,
    dealt: FloatArray,
    usual: npt.NDArray[np.bool_],
    resident: FloatArray,
    number_format: str,
    activation_bytes: float,
    weight_bytes: float,
    cold: bool,
) -> ProductTimes:
    """Products of all experts in one kernel (layers,)."""
    tiles_of = np.repeat(dealt[:, 3:], len(TILE_N), axis=1)
    tile_m, tile_n = np.repeat(TILE_M, len(TILE_N)), np.tile(TILE_N, len(TILE_M))
    n, k, active, local = n[:, None], k[:, None], dealt[:, 1:2], dealt[:, 2:3]
    waves = np.ceil(tiles_of * np.ceil(n / tile_n) / sheet.multiprocessors)
    depth = np.ceil(k / staged_depth(sheet)) * staged_depth(sheet)
    rate = sheet.macs_per_cycle * sheet.rate(number_format) * products.tensor_efficiency * sustained_clock(sheet) * kernel.rate_factor
    port = min(64.0 * products.port_efficiency, sheet.port_bytes_per_cycle)
    inner = depth * np.maximum(tile_m * tile_n / rate, (tile_m * activation_bytes + tile_n * weight_bytes) / port)
    written = np.minimum(tile_m, local / np.maximum(active, 1)) * tile_n * 2.0 / products.out_bytes_per_cycle
    busy = waves * (kernel.item_cycles + inner + written) / sheet.frequency_hz
    weights, passing = active * n * k * weight_bytes, local * k * activation_bytes
    held = sheet.near_l2_bytes
    missed = 1.0 if cold else np.clip((resident[:, None] + passing) / held - 0.5, 0, 1)
    traffic = weights * missed + passing * np.clip((weights + passing) / held - 0.5, 0, 1)
    dram = traffic / (sheet.dram_bytes_per_s * kernel.dram_efficiency)
    p = products.overlap
    total = (busy**p + dram**p) ** (1 / p)
    total = np.where(usual, total, np.inf)
    best = np.argmin(total, axis=1)
    at = (np.arange(len(best)), best)
    return ProductTimes(total[at], busy[at], np.broadcast_to(dram, total.shape)[at], np.broadcast_to(traffic, total.shape)[at])
