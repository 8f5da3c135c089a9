"""Structured pruning: a smaller model whose tensors are those of its source, cut to exact new dimensions.

What is kept is chosen by :mod:`dse.quality.pruning.select`. The output projections may then be refitted (least squares on the calibration
moments, no training step), and the hidden width rotated (:mod:`dse.quality.pruning.rotation`); everything else equals its source, element
by element, and nothing is initialised anew.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dse.errors import UsageError
from dse.quality import checkpoint
from dse.quality.pruning import rotation
from dse.quality.pruning.calibration import Calibration, Moments
from dse.quality.pruning.layout import Layout, Model, axes_of, layout_with_head
from dse.quality.pruning.select import Selection, Shape, select, top

if TYPE_CHECKING:
    from torch import Tensor


REFIT_RIDGE = 1e-2  # of the mean second moment: between what 3,000 tokens determine and what they do not


@dataclass(frozen=True)
class Pruned:
    """A pruned model, what was kept of its source, and the tensors that no longer equal it with the reason of each.

    ``turn`` (hidden, source hidden) is the map of a rotated hidden width, or None.
    """

    model: Model
    shape: Shape
    selection: Selection
    changed: dict[str, str]
    turn: Tensor | None = None

    def record(self) -> dict[str, Any]:
        """Plain values for pruning.json."""
        return {"shape": vars(self.shape), "kept": self.selection.to_dict(), "changed": self.changed}


def prune(
    model: Model,
    knobs: Mapping[str, int],
    calibration: Calibration | None,
    *,
    refit: bool = True,
    rotate: bool = True,
    keep_tokens: tuple[int, ...] = (),
) -> Pruned:
    """Cut a model to ``knobs`` (layers, heads, kv_heads, ffn, hidden, vocabulary; those left out stay) and return the smaller model.

    ``refit``: fit the output projections of cut attention and feed-forward parts to what the whole ones gave. ``rotate``: turn the hidden
    channels to principal components before they are cut, else the least important channels go. The source is not changed.
    """
    shape = Shape.of(model).target(knobs)
    return cut(model, shape, select(model, shape, calibration, keep_tokens=keep_tokens), calibration, refit=refit, rotate=rotate)


def cut(
    model: Model, shape: Shape, selection: Selection, calibration: Calibration | None, *, refit: bool = True, rotate: bool = True
) -> Pruned:
    """Cut a model to a shape, keeping what a selection names; see :func:`prune`."""
    own, source = Shape.of(model), model.state_dict()
    layout = layout_with_head(model.config.model_type, source)
    prefix = "" if model is model.base_model else f"{model.base_model_prefix}."
    changed: dict[str, str] = {}
    turn = None
    if shape.hidden < own.hidden and not rotate:
        selection = replace(selection, hidden=top(channel_importance(source, layout, prefix).tolist(), shape.hidden))
    tensors = sliced(source, layout, prefix, selection, own.head_dim)
    settings = settings_for(model.config, layout, shape, selection)
    if refit and calibration is not None:
        _refit(source, tensors, layout, prefix, selection, calibration, own, changed)
    if shape.hidden < own.hidden and rotate:
        if calibration is None or not calibration.norm_inputs:
            raise UsageError(f"hidden is {shape.hidden}: its rotation needs a calibration that kept the norms' inputs")
        turned = rotation.rotate(tensors, layout, prefix, selection.layers, calibration, shape.hidden)
        tensors, untied, turn = turned.tensors, turned.untied, turned.map
        changed |= dict.fromkeys(tensors, "hidden width rotated")
        if untied and getattr(settings, "tie_word_embeddings", False):
            settings.tie_word_embeddings = False
    smaller = checkpoint.build(settings, checkpoint.same_class(model))
    return Pruned(checkpoint.fill(smaller, tensors, "the pruned model"), shape, selection, changed, turn)


def sliced(source: Mapping[str, Tensor], layout: Layout, prefix: str, selection: Selection, head_dim: int) -> dict[str, Tensor]:
    """Every kept tensor under its new name: the source's elements at the kept indices of each of its axes."""
    import torch

    place = {old: new for new, old in enumerate(selection.layers)}
    kept: dict[str, Tensor] = {}
    for name, tensor in source.items():
        axes, layer = axes_of(layout, name, prefix, tensor.ndim)
        if layer is not None and layer not in place:
            continue
        new = 0 if layer is None else place[layer]
        for dimension, axis in enumerate(axes):
            indices = _indices(selection, axis, new, head_dim)
            if indices is not None and len(indices) != tensor.shape[dimension]:
                tensor = tensor.index_select(dimension, torch.tensor(indices))
        kept[_renamed(name, layout, prefix, layer, new)] = tensor.clone()
    return kept


def _renamed(name: str, layout: Layout, prefix: str, layer: int | None, new: int) -> str:
    if layer is None:
        return name
    start = f"{prefix}{layout.layers}."
    return f"{start}{new}.{name.removeprefix(start).partition('.')[2]}"


def _indices(selection: Selection, axis: str, layer: int, head_dim: int) -> list[int] | None:
    if axis in ("heads", "kv"):
        heads = (selection.heads if axis == "heads" else selection.kv_heads)[layer]
        return [h * head_dim + i for h in heads for i in range(head_dim)]
    if axis == "ffn":
        return selection.ffn[layer]
    if axis == "vocabulary":
        return selection.tokens
    return selection.hidden if axis in ("in", "out", "norm", "pool") else None


def settings_for(config: Any, layout: Layout, shape: Shape, selection: Selection) -> Any:
    """The configuration of the smaller model; lists with an entry a layer keep those of the kept layers."""
    settings = copy.deepcopy(config)
    count = config.num_hidden_layers
    for name, value in list(vars(settings).items()):
        if isinstance(value, list) and len(value) == count and name in ("layer_types",):
            setattr(settings, name, [value[i] for i in selection.layers])
    for knob, name in layout.mapped.items():
        if (value := getattr(shape, knob)) is not None:
            setattr(settings, name, value)
    settings.head_dim = shape.head_dim
    if selection.tokens is not None:
        place = {old: new for new, old in enumerate(selection.tokens)}
        for name, value in list(vars(settings).items()):
            if name.endswith("_token_id") and isinstance(value, int):
                setattr(settings, name, place.get(value, value if value < len(place) else None))
    return settings


def channel_importance(source: Mapping[str, Tensor], layout: Layout, prefix: str) -> Tensor:
    """Squared weights that read or write each hidden channel inside the layers, summed."""
    import torch

    total: Tensor = torch.zeros(1, dtype=torch.float64)
    for name, tensor in source.items():
        axes, layer = axes_of(layout, name, prefix, tensor.ndim)
        if layer is None or tensor.ndim != 2:
            continue
        for dimension, axis in enumerate(axes):
            if axis in ("in", "out"):
                total = total + (tensor.double() ** 2).sum(1 - dimension)
    return total


def _refit(
    source: Mapping[str, Tensor],
    tensors: dict[str, Tensor],
    layout: Layout,
    prefix: str,
    selection: Selection,
    calibration: Calibration,
    own: Shape,
    changed: dict[str, str],
) -> None:
    for new, old in enumerate(selection.layers):
        head_inputs = _indices(selection, "heads", new, own.head_dim) or []
        parts = ((layout.attention_out, calibration.heads[old], head_inputs), (layout.ffn_out, calibration.ffn[old], selection.ffn[new]))
        for path, moments, kept in parts:
            weight = source[f"{prefix}{layout.layers}.{old}.{path}.weight"]
            if len(kept) == weight.shape[1]:
                continue
            name = f"{prefix}{layout.layers}.{new}.{path}"
            bias = tensors.get(f"{name}.bias")
            fitted, shift = refitted(weight, moments, kept, with_bias=bias is not None)
            if selection.hidden is not None:
                fitted, shift = fitted[selection.hidden], shift[selection.hidden]
            tensors[f"{name}.weight"] = fitted.to(weight.dtype)
            changed[f"{name}.weight"] = "refitted to the whole part's output"
            if bias is not None:
                tensors[f"{name}.bias"] = (bias.double() + shift).to(bias.dtype)
                changed[f"{name}.bias"] = "refitted to the whole part's output"


def refitted(weight: Tensor, moments: Moments, kept: list[int], *, with_bias: bool, ridge: float = REFIT_RIDGE) -> tuple[Tensor, Tensor]:
    """The output projection (out, kept) that best gives, from the kept inputs, what the whole one gave; and the change of its bias.

    V = argmin mean |(x - m) W' - (x_S - m_S) V'|^2 + ridge mean(diag) |V - W_S|^2, in closed form; without a bias the mean m is 0. The
    ridge pulls towards the slice itself, so that what the calibration does not determine stays as it was.
    """
    import torch

    weight = weight.double()
    second, mean = moments.second, moments.mean
    if with_bias:
        second = second - torch.outer(mean, mean)
    index = torch.tensor(kept)
    inner = second[index][:, index]
    eye = torch.eye(len(kept), dtype=torch.float64) * (ridge * inner.diagonal().mean())
    wanted = second[index] @ weight.T + eye @ weight[:, index].T
    fitted = torch.linalg.solve(inner + eye, wanted).T
    shift = weight @ mean - fitted @ mean[index] if with_bias else torch.zeros(weight.shape[0], dtype=torch.float64)
    return fitted, shift
