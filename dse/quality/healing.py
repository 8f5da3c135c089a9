"""Healing: a pruned model learns to give what its source gives, on texts without labels.

Losses, each divided by its first value: ``hidden`` (squared difference of the hidden states after every kept layer from what the source
hands to the next kept layer), ``output`` (1 - cosine of the sentence vectors, or Kullback-Leibler divergence of the logits), ``relation``
(divergence of the attention relations query-query, key-key, value-value of the last layer, after MiniLMv2, arXiv 2012.15828). All are 0
where the student equals the teacher, so they share a minimiser.

Weights of the losses are equal, or chosen anew every few steps by a ``weigher`` (CAMOO, PAMOO of ``dse.strategies.amoo.weights``) from
the gradient of each loss. Adam (0.9, 0.98), warm-up over a tenth of the steps, linear decay to zero; token and position tables stay as
they are. ``lora_rank`` trains low-rank additions to the linear layers instead of the layers, and adds them in at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError, unknown_name
from dse.quality.pruning.layout import Model, layout_of
from dse.quality.pruning.prune import Pruned
from dse.quality.tasks.base import pooled

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]
LOSSES = ("hidden", "output", "relation")
NOTHING_LEFT = 1e-6  # losses that half precision of the teacher's answers makes: the student equals its teacher
Weigher = Callable[[FloatArray, FloatArray], FloatArray]
"""(gradients (q, m), loss values (m,)) -> weights (m,); q is m (a factor of the Gram matrix has the same inner products)."""
CurvatureWeigher = Callable[[FloatArray], FloatArray]
"""Diagonal curvature proxies (m, blocks): mean squared gradient of each loss in each parameter tensor -> weights (m,)."""


@dataclass(frozen=True)
class Healing:
    """How a model is healed: see the module. ``time_limit_s`` (CPU seconds) ends it early; ``renew`` steps between new weights."""

    steps: int = 200
    batch: int = 16
    rate: float = 1e-3
    losses: tuple[str, ...] = ("hidden", "output")
    renew: int = 20
    lora_rank: int = 0
    seed: int = 0
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.losses:
            if name not in LOSSES:
                raise unknown_name("loss", name, LOSSES)
        if not self.losses:
            raise UsageError(f"losses is empty; at least one of {', '.join(LOSSES)} is needed")
        for name in ("steps", "lora_rank"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more is needed")
        for name in ("batch", "renew"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"rate is {self.rate}; a positive number is needed")


@dataclass(frozen=True)
class Healed:
    """What happened: steps done, CPU seconds, and the curve: (step, {loss: value over its first}, weights)."""

    steps: int
    cpu_s: float
    curve: list[tuple[int, dict[str, float], list[float]]] = field(default_factory=list)


@dataclass(frozen=True)
class Views:
    """What distillation compares of one batch: hidden states after the kept layers (tokens, hidden) each, the output, relations, the
    mask.
    """

    hidden: list[Tensor]
    output: Tensor
    relations: list[Tensor]


class Teacher:
    """The unpruned model's views, kept per batch in half precision, since every pruned shape is healed on the same batches.

    ``kept``: the tokens of a student whose vocabulary was cut. It is healed on the texts that need no other, which the two write alike;
    ``given`` are the batches with the student's numbers of the tokens.
    """

    def __init__(self, model: Model, batches: Sequence[Mapping[str, Tensor]], *, embeds: bool, kept: Sequence[int] | None = None) -> None:
        self.model, self.embeds = model, embeds
        self.batches, self.given = (batches, batches) if kept is None else of_kept(batches, kept)
        self._kept: dict[int, tuple[list[Tensor], Tensor]] = {}
        self.layers = model.config.num_hidden_layers

    def views(self, number: int, pruned: Pruned, relation: bool) -> Views:
        """What a pruned model should give for a batch: its layer k must hand on what the source hands to the next kept layer."""
        import torch

        relations: list[Tensor] = []
        if number not in self._kept or relation:
            with torch.no_grad():
                hidden, output, relations = run(self.model, self.batches[number], embeds=self.embeds, relation=relation)
            self._kept[number] = ([h.half() for h in hidden], output)
        states, output = self._kept[number]
        kept = pruned.selection.layers
        after = [kept[i + 1] for i in range(len(kept) - 1)] + [self.layers]
        return Views([states[i].float() for i in after], output, relations)


def of_kept(batches: Sequence[Mapping[str, Tensor]], kept: Sequence[int]) -> tuple[list[Mapping[str, Tensor]], list[Mapping[str, Tensor]]]:
    """The rows of batches that consist of kept tokens, and the same rows by the numbers of the cut vocabulary."""
    import torch

    place = torch.full((max(kept) + 1,), -1)
    place[torch.tensor(list(kept))] = torch.arange(len(kept))
    theirs: list[Mapping[str, Tensor]] = []
    mine: list[Mapping[str, Tensor]] = []
    for batch in batches:
        ids, real = batch["input_ids"], batch["attention_mask"].bool()
        numbers = place[ids.clamp(max=len(place) - 1)].masked_fill(ids >= len(place), -1)
        rows = ((numbers >= 0) | ~real).all(1)
        if not rows.any():
            continue
        theirs.append({name: value[rows] for name, value in batch.items()})
        mine.append({**theirs[-1], "input_ids": numbers[rows].clamp(min=0)})
    return theirs, mine


def run(model: Model, batch: Mapping[str, Tensor], *, embeds: bool, relation: bool = False) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Hidden states before every layer and after the last (real tokens, hidden), the output, and the relations of the last layer."""
    layout = layout_of(model.config.model_type)
    layers = model.base_model.get_submodule(layout.layers)
    caught: list[Tensor] = []
    handles = []
    if relation:
        for path in (layout.query, layout.key, layout.value):
            handles.append(layers[-1].get_submodule(path).register_forward_hook(lambda _m, _i, out: caught.append(out)))
    states: list[Tensor] = []

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    def after(_: Any, _args: Any, out: Any) -> None:
        states.append(out[0] if isinstance(out, tuple) else out)

    handles += [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    handles.append(layers[-1].register_forward_hook(after))
    try:
        extra = {"use_cache": False} if hasattr(model.config, "num_key_value_heads") else {}
        found = model(**batch, **extra)
    finally:
        for handle in handles:
            handle.remove()
    mask = batch.get("attention_mask")
    rows = [state[mask.bool()] if mask is not None else state.flatten(0, 1) for state in states]
    if embeds:
        output = pooled(found.last_hidden_state, batch["attention_mask"])
    else:
        logits = found.logits
        output = logits[mask.bool()] if mask is not None and logits.ndim == 3 else logits.flatten(0, -2)
    return rows, output, caught


def heal(
    pruned: Pruned,
    teacher: Teacher,
    settings: Healing,
    *,
    weigh: Weigher | None = None,
    weigh_curvature: CurvatureWeigher | None = None,
) -> Healed:
    """Train ``pruned.model`` in place towards its teacher, whose states are seen through the map of a rotated hidden width.

    A loss that is not finite is an error, not a result.
    """
    import torch

    began = time.process_time()
    if settings.steps == 0 or not teacher.batches:
        return Healed(0, 0.0)
    torch.manual_seed(settings.seed)
    model, turn = pruned.model, pruned.turn
    if turn is None and pruned.shape.hidden != teacher.model.config.hidden_size:
        turn = _axes(pruned, teacher)
    adapters = _adapters(model, settings.lora_rank) if settings.lora_rank else None
    trained = _trained(model) if adapters is None else [p for a in adapters for p in a.parameters()]
    optimizer = torch.optim.Adam(trained, lr=settings.rate, betas=(0.9, 0.98))
    names, relation = settings.losses, "relation" in settings.losses
    first: list[float] = []
    weights = np.full(len(names), 1.0 / len(names))
    curve: list[tuple[int, dict[str, float], list[float]]] = []
    model.train()
    _no_dropout(model)
    done = 0
    order = np.random.default_rng([settings.seed, 19]).permutation(len(teacher.batches))
    for step in range(settings.steps):
        if settings.time_limit_s is not None and time.process_time() - began > settings.time_limit_s:
            break
        number = int(order[step % len(order)])
        wanted = teacher.views(number, pruned, relation)
        states, output, relations = run(model, teacher.given[number], embeds=teacher.embeds, relation=relation)
        losses = _losses(names, wanted, states, output, relations, turn, teacher, number)
        values = [float(loss.detach()) for loss in losses]
        if not all(math.isfinite(v) for v in values):
            raise DseError(f"healing diverged at step {step}: losses are {values}; a smaller rate than {settings.rate:g} is needed")
        if not first and max(values) < NOTHING_LEFT:
            break
        first = first or [max(v, 1e-12) for v in values]
        relative = [loss / start for loss, start in zip(losses, first, strict=True)]
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * _schedule(step, settings.steps)
        optimizer.zero_grad(set_to_none=True)
        if (weigh or weigh_curvature) and step % settings.renew == 0:
            weights = _new_weights(relative, trained, weigh, weigh_curvature)
        else:
            total = torch.stack([w * loss for w, loss in zip(weights.tolist(), relative, strict=True)]).sum()
            torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        done += 1
        if step % max(1, settings.steps // 20) == 0 or step == settings.steps - 1:
            curve.append((step, {n: float(r.detach()) for n, r in zip(names, relative, strict=True)}, weights.tolist()))
    if adapters is not None:
        for adapter in adapters:
            adapter.merge()
    model.eval()
    return Healed(done, time.process_time() - began, curve)


def _axes(pruned: Pruned, teacher: Teacher) -> Tensor:
    """The map of a width that was cut to some of its axes."""
    import torch

    assert pruned.selection.hidden is not None  # cut without a rotation
    return torch.eye(teacher.model.config.hidden_size)[pruned.selection.hidden]


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _no_dropout(model: Model) -> None:
    """The teacher's answers are given without dropout; noise in the student's would be noise in the losses."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


def _trained(model: Model) -> list[Tensor]:
    found = []
    for name, value in model.named_parameters():
        if "embed" in name and "norm" not in name.lower():
            value.requires_grad_(False)
        else:
            value.requires_grad_(True)
            found.append(value)
    return found


def _losses(
    names: Sequence[str],
    wanted: Views,
    states: list[Tensor],
    output: Tensor,
    relations: list[Tensor],
    turn: Tensor | None,
    teacher: Teacher,
    number: int,
) -> list[Tensor]:
    import torch

    f = torch.nn.functional
    found = []
    for name in names:
        if name == "hidden":
            parts = []
            for mine, theirs in zip(states[1:], wanted.hidden, strict=True):
                target = theirs if turn is None else theirs @ turn.T.to(theirs.dtype)
                parts.append(f.mse_loss(mine, target) / target.pow(2).mean().clamp_min(1e-12))
            found.append(torch.stack(parts).mean())
        elif name == "output" and teacher.embeds:
            target = wanted.output if turn is None else wanted.output @ turn.T.to(wanted.output.dtype)
            found.append((1.0 - f.cosine_similarity(output, target, dim=-1)).mean())
        elif name == "output":
            found.append(f.kl_div(f.log_softmax(output, -1), f.log_softmax(wanted.output, -1), log_target=True, reduction="batchmean"))
        else:
            found.append(_relation_loss(relations, wanted.relations, teacher.batches[number].get("attention_mask")))
    return found


def _relation_loss(mine: list[Tensor], theirs: list[Tensor], mask: Tensor | None) -> Tensor:
    """Mean Kullback-Leibler divergence of the relation distributions; relation heads divide both widths."""
    import torch

    f = torch.nn.functional
    total = []
    for own, other in zip(mine, theirs, strict=True):
        heads = math.gcd(own.shape[-1], other.shape[-1])
        rows = []
        for value in (own, other):
            split = value.reshape(*value.shape[:-1], heads, value.shape[-1] // heads).transpose(1, 2)
            scores = split @ split.transpose(-1, -2) / math.sqrt(split.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e9)
            rows.append(f.log_softmax(scores, -1))
        divergence = f.kl_div(rows[0], rows[1], log_target=True, reduction="none").sum(-1)  # (batch, heads, tokens)
        total.append(divergence.transpose(1, 2)[mask.bool()].mean() if mask is not None else divergence.mean())
    return torch.stack(total).mean()


def _new_weights(
    losses: list[Tensor], trained: list[Tensor], weigh: Weigher | None, weigh_curvature: CurvatureWeigher | None
) -> FloatArray:
    """New weights from the gradient of each loss, normalised to sum 1; the weighted gradient is left in the parameters."""
    import torch

    gradients: list[list[Tensor]] = []
    for i, loss in enumerate(losses):
        found = torch.autograd.grad(loss, trained, retain_graph=i < len(losses) - 1, allow_unused=True)
        gradients.append([torch.zeros_like(p) if g is None else g for g, p in zip(found, trained, strict=True)])
    count = len(losses)
    if weigh_curvature is not None:
        squared = np.array([[float((g * g).mean()) for g in parts] for parts in gradients])
        weights = weigh_curvature(squared)
    else:
        assert weigh is not None  # one of the two was given
        gram = np.array([[sum(float((a * b).sum()) for a, b in zip(gradients[i], gradients[j], strict=True)) for j in range(count)]
                         for i in range(count)])  # fmt: skip
        factor = np.linalg.cholesky(gram + 1e-12 * np.trace(gram) * np.eye(count))
        weights = weigh(factor.T, np.array([float(loss.detach()) for loss in losses]))
    total = float(weights.sum())
    weights = weights / total if total > 0 else np.full(count, 1.0 / count)
    for place, parameter in enumerate(trained):
        parameter.grad = sum((float(w) * parts[place] for w, parts in zip(weights, gradients, strict=True)), torch.zeros_like(parameter))
    return np.asarray(weights)


class _Adapter:
    """A low-rank addition B A to a linear layer, twice (alpha = 2 rank); B starts at zero."""

    def __init__(self, layer: Any, rank: int) -> None:
        import torch

        self.layer = layer
        self.down = torch.nn.Parameter(torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features))
        self.up = torch.nn.Parameter(torch.zeros(layer.out_features, rank))
        self._handle = layer.register_forward_hook(self._add)

    def _add(self, _: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
        added: Tensor = 2.0 * (args[0] @ self.down.T) @ self.up.T
        return out + added

    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [self.down, self.up]

    def merge(self) -> None:
        """Put the addition into the layer's weight."""
        import torch

        self._handle.remove()
        with torch.no_grad():
            self.layer.weight += 2.0 * self.up @ self.down


def _adapters(model: Model, rank: int) -> list[_Adapter]:
    import torch

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    layers = model.base_model.get_submodule(layout_of(model.config.model_type).layers)
    return [_Adapter(module, rank) for module in layers.modules() if isinstance(module, torch.nn.Linear)]
