"""A smaller hidden width by rotation: principal components of the residual stream, turned to the nearest axes.

The residual stream x (hidden) is replaced by Q x with Q (r, hidden), rows orthonormal. Everything that writes is multiplied by Q,
everything that reads by Q' (its bias takes up the mean of what is lost), and every norm's slope and intercept are fitted per coordinate
to the calibration.

* Q spans the top eigenvectors of the summed, normalised covariances of all norm inputs and outputs.
* Inside that subspace Q is turned so that it comes nearest to a selection of r axes (orthogonal Procrustes). A norm's slope acts on axes
  and does not commute with a rotation (SliceGPT, arXiv 2401.15024, has no slopes: it folds them away, which only norms before a block
  allow); near the axes the diagonal that is fitted says almost the same. No further multiplication is left in the model.
* A norm that subtracts the mean does so in the smaller model too, so that rows of Q are kept orthogonal to the vector of ones on both
  sides (r - 1 directions), where subtracting changes nothing.

Where norms stand before the blocks, their slopes and intercepts are folded into what reads them first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dse.quality.pruning.calibration import Calibration
from dse.quality.pruning.layout import Layout, axes_of

if TYPE_CHECKING:
    from torch import Tensor


Site = Any  # "embedding", (layer, place), "final"
_EPSILON = 1e-12


@dataclass(frozen=True)
class Rotated:
    """The tensors of the smaller model, the map Q (r, hidden), and whether a tied output table had to be written out."""

    tensors: dict[str, Tensor]
    map: Tensor
    untied: bool


def rotate(tensors: Mapping[str, Tensor], layout: Layout, prefix: str, layers: list[int], calibration: Calibration, width: int) -> Rotated:
    """Turn and cut the hidden channels of sliced tensors (their layers already renumbered) to ``width``."""
    import torch

    sites = _sites(layout, layers)
    inputs = {new: calibration.norm_inputs[old].double() for new, old in sites.items()}
    read = {new: calibration.norm_outputs[old].double() for new, old in sites.items()}
    folded: dict[Site, tuple[Tensor, Tensor | None]] = {}
    if not layout.post_norm:
        for site in sites:
            slope, intercept = _norm_of(tensors, layout, prefix, site)
            folded[site] = (slope.double(), None if intercept is None else intercept.double())
            read[site] = normalised(inputs[site], layout.rms)
    turn, chosen = map_for(list(inputs.values()), list(read.values()), width, centred=not layout.rms)
    lost = {site: rows.mean(0) - turn.T @ (turn @ rows.mean(0)) for site, rows in read.items()}
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        axes, layer = axes_of(layout, name, prefix, tensor.ndim)
        result[name] = _turned(name, tensor, axes, turn, chosen, folded.get(_read_by(layout, name, prefix, layer, len(layers))))
    for name, tensor in tensors.items():
        axes, layer = axes_of(layout, name, prefix, tensor.ndim)
        bias = name.removesuffix("weight") + "bias"
        if "in" in axes and bias in tensors:
            site = _read_by(layout, name, prefix, layer, len(layers))
            result[bias] = _shifted(result[bias], tensor.double(), lost[site], folded.get(site), chosen if axes[0] == "pool" else None)
    for site in sites:
        slope, intercept = fitted_norm(inputs[site] @ turn.T, read[site] @ turn.T, rms=layout.rms)
        path = _norm_name(layout, prefix, site)
        result[f"{path}.weight"] = slope.to(torch.float32)
        if f"{path}.bias" in tensors:
            result[f"{path}.bias"] = intercept.to(torch.float32)
    return Rotated(result, turn, untied=not layout.post_norm)


def map_for(inputs: list[Tensor], outputs: list[Tensor], width: int, *, centred: bool) -> tuple[Tensor, list[int]]:
    """Q (width, hidden) for samples (tokens, hidden) of norm inputs and outputs, and the axes that it lies nearest to.

    ``centred``: rows orthogonal to the vector of ones, on both sides (rank width - 1).
    """
    import torch

    size = inputs[0].shape[1]
    total = torch.zeros(size, size, dtype=torch.float64)
    for rows in (*inputs, *outputs):
        moved = rows - rows.mean(1, keepdim=True) if centred else rows
        moved = moved - moved.mean(0) if centred else moved
        covariance = moved.T @ moved
        total += covariance / covariance.diagonal().sum().clamp_min(_EPSILON)
    if centred:  # the vector of ones has no variance left; it must not be among the components either
        total -= torch.ones(size, size, dtype=torch.float64) / size
    rank = width - 1 if centred else width
    components = torch.linalg.eigh(total).eigenvectors[:, -rank:]  # (hidden, rank)
    chosen = sorted(torch.argsort((components**2).sum(1), descending=True, stable=True)[:width].tolist())
    basis = ones_complement(width) if centred else torch.eye(width, dtype=torch.float64)  # (width, rank)
    left, _, right = torch.linalg.svd(basis.T @ components[chosen])
    return basis @ left @ right @ components.T, chosen


def ones_complement(size: int) -> Tensor:
    """An orthonormal basis (size, size - 1) of the vectors whose components sum to 0."""
    import torch

    start = torch.cat([torch.ones(size, 1, dtype=torch.float64), torch.eye(size, dtype=torch.float64)[:, : size - 1]], dim=1)
    basis: Tensor = torch.linalg.qr(start).Q
    return basis[:, 1:]


def normalised(rows: Tensor, rms: bool) -> Tensor:
    """Rows over their root mean square, their mean removed first unless ``rms``: a norm without slope and intercept."""
    if not rms:
        rows = rows - rows.mean(-1, keepdim=True)
    return rows / rows.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(_EPSILON)


def fitted_norm(inputs: Tensor, wanted: Tensor, *, rms: bool) -> tuple[Tensor, Tensor]:
    """Slope and intercept (width,) each, by least squares, with which the norm of ``inputs`` gives ``wanted`` (tokens, width).

    An RMS norm has no intercept.
    """
    import torch

    own = normalised(inputs, rms)
    if rms:
        return (own * wanted).sum(0) / (own * own).sum(0).clamp_min(_EPSILON), torch.zeros(own.shape[1], dtype=own.dtype)
    centre, target = own.mean(0), wanted.mean(0)
    deviation = own - centre
    slope = (deviation * (wanted - target)).sum(0) / (deviation * deviation).sum(0).clamp_min(_EPSILON)
    return slope, target - slope * centre


def _sites(layout: Layout, layers: list[int]) -> dict[Site, Site]:
    """Norms of the smaller model -> the same norm of its source."""
    found: dict[Site, Site] = {} if layout.embedding_norm is None else {"embedding": "embedding"}
    for new, old in enumerate(layers):
        found |= {(new, place): (old, place) for place in range(len(layout.norms))}
    return found if layout.final_norm is None else {**found, "final": "final"}


def _norm_name(layout: Layout, prefix: str, site: Site) -> str:
    if site == "embedding":
        return f"{prefix}{layout.embedding_norm}"
    if site == "final":
        return f"{prefix}{layout.final_norm}"
    return f"{prefix}{layout.layers}.{site[0]}.{layout.norms[site[1]]}"


def _norm_of(tensors: Mapping[str, Tensor], layout: Layout, prefix: str, site: Site) -> tuple[Tensor, Tensor | None]:
    path = _norm_name(layout, prefix, site)
    return tensors[f"{path}.weight"], tensors.get(f"{path}.bias")


def _read_by(layout: Layout, name: str, prefix: str, layer: int | None, count: int) -> Site:
    """The norm whose output a reading tensor gets."""
    if layer is None:
        return "final" if layout.final_norm else (count - 1, len(layout.norms) - 1)
    inside = re.sub(re.escape(f"{prefix}{layout.layers}.") + r"\d+\.", "", name)
    feeds_ffn = any(inside.startswith(f"{path}.") for path in layout.ffn_in)
    if not layout.post_norm:
        return (layer, 1 if feeds_ffn else 0)
    if feeds_ffn:
        return (layer, 0)
    return (layer - 1, 1) if layer else "embedding"


def _turned(
    name: str, tensor: Tensor, axes: tuple[str, ...], turn: Tensor, chosen: list[int], folded: tuple[Tensor, Tensor | None] | None
) -> Tensor:
    value = tensor.double()
    if "in" in axes and folded is not None:
        value = value * folded[0]  # reading axes come last
    for dimension, axis in enumerate(axes):
        if axis in ("in", "out"):
            moved = value.movedim(dimension, -1) @ turn.T
            value = moved.movedim(-1, dimension)
        elif axis == "pool":
            value = value.movedim(dimension, 0)[chosen].movedim(0, dimension)
    return value.contiguous().to(tensor.dtype)


def _shifted(bias: Tensor, weight: Tensor, lost: Tensor, folded: tuple[Tensor, Tensor | None] | None, rows: list[int] | None) -> Tensor:
    """A reading tensor's bias with the intercept that was folded and the mean of what its input lost."""
    slope, intercept = folded if folded is not None else (None, None)
    change = (weight if slope is None else weight * slope) @ lost
    if intercept is not None:
        change = change + weight @ intercept
    return (bias.double() + (change if rows is None else change[rows])).to(bias.dtype)
