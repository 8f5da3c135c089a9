"""What is kept of a model: layers, heads with their key/value groups, feed-forward units, hidden channels, tokens.

Importance of a head: sum over its channels c of mean(x_c^2) |W_o[:, c]|^2, x what the attention hands to its output projection; of a
feed-forward unit the same with the output projection of the feed-forward: the expected squared change of the residual stream if it alone
went. Importance of a layer: 1 - mean cosine of its input and output. Figures from the calibration of the unpruned model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dse.errors import UsageError, nearest
from dse.quality.pruning.calibration import Calibration
from dse.quality.pruning.layout import Model, layout_of

if TYPE_CHECKING:
    from torch import Tensor


KNOBS = ("layers", "heads", "kv_heads", "ffn", "hidden", "vocabulary")


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model: what knobs speak of."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int | None

    @classmethod
    def of(cls, model: Model) -> Shape:
        """A model's own."""
        return cls.of_settings(model.config)

    @classmethod
    def of_settings(cls, c: Any) -> Shape:
        """That of a configuration."""
        heads = c.num_attention_heads
        return cls(
            c.num_hidden_layers,
            c.hidden_size,
            heads,
            getattr(c, "num_key_value_heads", None) or heads,
            getattr(c, "head_dim", None) or c.hidden_size // heads,
            c.intermediate_size,
            getattr(c, "vocab_size", None),
        )

    def target(self, knobs: Mapping[str, int]) -> Shape:
        """The shape that knobs ask for; one that this model cannot be cut to is an error that says what is allowed.

        ``heads`` alone keeps the key/value groups whole: it must be a multiple of their size, and ``kv_heads`` follows. With ``kv_heads``
        each kept group loses query heads alike.
        """
        for name in knobs:
            if name not in KNOBS:
                close = nearest(name, KNOBS)
                hint = f"; did you mean {close!r}?" if close else ""
                raise UsageError(f"knob {name!r} is none that pruning turns; they are {', '.join(KNOBS)}{hint}")
        own = {name: getattr(self, name) for name in KNOBS}
        for name, value in knobs.items():
            if own[name] is None:
                raise UsageError(f"{name} is {value} and this model has none")
            if not 1 <= value <= own[name]:
                raise UsageError(f"{name} is {value}; pruning needs 1 to {own[name]}; nearest is {min(max(1, value), own[name])}")
        want = {**own, **knobs}
        group = self.heads // self.kv_heads
        if "kv_heads" not in knobs:
            if want["heads"] % group:
                near = max(1, round(want["heads"] / group)) * group
                raise UsageError(
                    f"heads is {want['heads']} and the {group} query heads of a key/value head stay together; nearest is {near}"
                )
            want["kv_heads"] = want["heads"] // group
        elif "heads" not in knobs:
            want["heads"] = want["kv_heads"] * group
        if want["heads"] % want["kv_heads"] or want["heads"] // want["kv_heads"] > group:
            near = min(group, max(1, round(want["heads"] / want["kv_heads"]))) * want["kv_heads"]
            raise UsageError(
                f"heads is {want['heads']} and kv_heads {want['kv_heads']}; a key/value head serves a whole number of query heads, at most "
                f"{group}; nearest is heads={near}"
            )
        return Shape(**want, head_dim=self.head_dim)


@dataclass(frozen=True)
class Selection:
    """Indices that are kept, in rising order: ``layers``; per kept layer ``heads``, ``kv_heads`` and ``ffn``; ``hidden`` and ``tokens``
    (None: all).
    """

    layers: list[int]
    heads: list[list[int]]
    kv_heads: list[list[int]]
    ffn: list[list[int]]
    hidden: list[int] | None = None
    tokens: list[int] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for pruning.json."""
        return {name: getattr(self, name) for name in ("layers", "heads", "kv_heads", "ffn", "hidden", "tokens")}


def select(model: Model, shape: Shape, calibration: Calibration | None, *, keep_tokens: tuple[int, ...] = ()) -> Selection:
    """What to keep of ``model`` for a shape. Ties go to the lower index.

    ``keep_tokens`` are kept whatever their frequency. Without a calibration only what needs no choice can be kept (an error otherwise).
    """
    layout = layout_of(model.config.model_type)
    own = Shape.of(model)
    base = model.base_model
    everything = list(base.get_submodule(layout.layers))
    if calibration is None and (shape != own):
        raise UsageError("pruning chooses by what a calibration set shows, and none is given")
    layers = list(range(own.layers))
    if shape.layers < own.layers:
        assert calibration is not None  # checked above
        layers = top([1.0 - c for c in calibration.cosine], shape.layers)
    heads, groups, ffn = [], [], []
    for i in layers:
        kept_heads, kept_groups = list(range(own.heads)), list(range(own.kv_heads))
        kept_units = list(range(own.ffn))
        if calibration is not None:
            if (shape.heads, shape.kv_heads) != (own.heads, own.kv_heads):
                scores = part_importance(everything[i].get_submodule(layout.attention_out), calibration.heads[i].second)
                kept_heads, kept_groups = select_heads(scores.reshape(own.heads, own.head_dim).sum(1).tolist(), own, shape)
            if shape.ffn < own.ffn:
                kept_units = top(
                    part_importance(everything[i].get_submodule(layout.ffn_out), calibration.ffn[i].second).tolist(), shape.ffn
                )
        heads.append(kept_heads)
        groups.append(kept_groups)
        ffn.append(kept_units)
    tokens = None
    if shape.vocabulary is not None and own.vocabulary is not None and shape.vocabulary < own.vocabulary:
        assert calibration is not None and calibration.tokens is not None  # models with a vocabulary were calibrated on tokens
        tokens = select_tokens(calibration.tokens.tolist(), shape.vocabulary, keep_tokens)
    return Selection(layers, heads, groups, ffn, None, tokens)


def part_importance(projection: Model, second_moment: Tensor) -> Tensor:
    """mean(x_c^2) |W[:, c]|^2 for every input channel c of an output projection (out, in)."""
    weight: Tensor = projection.weight.detach().double()
    return second_moment.diagonal() * (weight**2).sum(0)


def top(scores: list[float], count: int) -> list[int]:
    """Indices of the ``count`` largest scores in rising order; of equal ones the lower index."""
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def select_heads(scores: list[float], own: Shape, shape: Shape) -> tuple[list[int], list[int]]:
    """Query heads and key/value heads to keep: the most important groups, and in each its most important query heads."""
    group, kept = own.heads // own.kv_heads, shape.heads // shape.kv_heads
    best = [top(scores[g * group : (g + 1) * group], kept) for g in range(own.kv_heads)]
    worth = [sum(scores[g * group + i] for i in inside) for g, inside in enumerate(best)]
    groups = top(worth, shape.kv_heads)
    return [g * group + i for g in groups for i in best[g]], groups


def select_tokens(counts: list[int], size: int, keep: tuple[int, ...]) -> list[int]:
    """The most frequent tokens of the calibration set, with those that must stay."""
    if len(set(keep)) > size:
        raise UsageError(f"vocabulary is {size} and {len(set(keep))} tokens must stay; nearest is {len(set(keep))}")
    must = set(keep)
    order = sorted(range(len(counts)), key=lambda i: (i not in must, -counts[i], i))
    return sorted(order[:size])
