"""Weight-only quantisation: symmetric integers with a scale for each output channel, or each group of inputs of it.

Round to nearest: scale = max|w| / (2^(b-1) - 1) over the channel or group, q = round(w / scale). The stated bound of a weight's error is
half its scale (:func:`error_bound`), because the largest weight is met exactly and nothing is clipped.

Activation-aware scaling after Lin and others, *AWQ* (MLSys 2024, arXiv 2306.00978): inputs of large activation have their weights
multiplied by s = (rms of the input / geometric mean)^alpha before rounding and divided after it; alpha from a grid, by least output error
on the calibration moments. The division is folded into the scales that are kept, one a channel and input, so that the result is again
plain weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dse.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

BITS = (2, 3, 4, 8)
ALPHAS = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class Quantised:
    """Integers and scales of one weight matrix (out, in).

    ``codes`` int8 (out, in) in -(2^(bits-1) - 1) .. 2^(bits-1) - 1; ``scales`` (out, groups) float; ``inputs`` (in,) divisors of the
    activation-aware form, or None.
    """

    codes: Tensor
    scales: Tensor
    bits: int
    group: int | None
    inputs: Tensor | None = None

    def weight(self) -> Tensor:
        """The weights that the integers stand for, (out, in)."""
        columns = self.codes.shape[1]
        scale = self.scales.repeat_interleave(columns // self.scales.shape[1], dim=1)
        weight = self.codes.to(self.scales.dtype) * scale
        return weight if self.inputs is None else weight / self.inputs

    def error_bound(self) -> Tensor:
        """Largest possible error of each weight, (out, in): half a step."""
        scale = self.scales.repeat_interleave(self.codes.shape[1] // self.scales.shape[1], dim=1) / 2
        return scale if self.inputs is None else scale / self.inputs

    @property
    def stored_bits(self) -> int:
        """Bits that the matrix takes: its codes, and 16 for each scale and divisor."""
        divisors = 0 if self.inputs is None else self.inputs.numel()
        return self.codes.numel() * self.bits + 16 * (self.scales.numel() + divisors)


def check_bits(bits: int) -> None:
    """Refuse a width that is not offered."""
    if bits not in BITS:
        near = min(BITS, key=lambda known: abs(known - bits))
        raise UsageError(f"weight_bits is {bits}; one of {', '.join(map(str, BITS))} or 16, 32 (unquantised) is needed; nearest is {near}")


def round_to_nearest(weight: Tensor, bits: int, group: int | None = None) -> Quantised:
    """Quantise a matrix (out, in) with a scale an output channel, or for each ``group`` inputs of it.

    A group that does not divide the inputs is an error; a channel of zeros keeps scale 1.
    """
    import torch

    check_bits(bits)
    out, columns = weight.shape
    width = columns if group is None else group
    if columns % width:
        raise UsageError(f"group is {width} and a weight has {columns} inputs; a divisor of it is needed")
    top = 2 ** (bits - 1) - 1
    blocks = weight.detach().reshape(out, columns // width, width)
    scales = blocks.abs().amax(-1) / top
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    codes = torch.round(blocks / scales[..., None]).clamp(-top, top).to(torch.int8)
    return Quantised(codes.reshape(out, columns), scales, bits, group)


def activation_aware(weight: Tensor, moment: Tensor, bits: int, group: int | None = None) -> Quantised:
    """Quantise a matrix (out, in) so that its output errs least on inputs of second moment ``moment`` (in, in) = mean of x x'.

    alpha = 0 is round to nearest, so the result is never worse than it on the calibration moment.
    """
    import torch

    rms = moment.diagonal().clamp_min(0).sqrt().to(weight.dtype)
    rms = rms.clamp_min(1e-4 * float(rms.max()) if float(rms.max()) > 0 else 1.0)
    relative = rms / torch.exp(torch.log(rms).mean())
    best: tuple[float, Quantised] | None = None
    for alpha in ALPHAS:
        scale = relative**alpha
        plain = round_to_nearest(weight * scale, bits, group)
        found = Quantised(plain.codes, plain.scales, bits, group, None if alpha == 0 else scale)
        error = output_error(weight, found.weight(), moment)
        if best is None or error < best[0]:
            best = (error, found)
    assert best is not None  # the grid is not empty
    return best[1]


def output_error(weight: Tensor, other: Tensor, moment: Tensor) -> float:
    """Mean squared difference of two matrices' outputs, summed over the outputs: trace(D M D') with D their difference."""
    difference = (weight - other).double()
    return float(((difference @ moment.double()) * difference).sum())


def quantise_model(model: Any, names: list[str], bits: int, *, group: int | None = None, moments: Any = None) -> dict[str, Quantised]:
    """Quantise the named linear layers of a model in place (their weights become those that the integers stand for).

    ``moments``: layer name -> (in, in) second moment of its input, for the activation-aware form; None rounds to nearest.
    """
    import torch

    done: dict[str, Quantised] = {}
    for name in names:
        layer = model.get_submodule(name)
        weight = layer.weight.detach()
        width = None if group is None or weight.shape[1] % group else group
        found = round_to_nearest(weight, bits, width) if moments is None else activation_aware(weight, moments[name], bits, width)
        with torch.no_grad():
            layer.weight.copy_(found.weight())
        done[name] = found
    return done
