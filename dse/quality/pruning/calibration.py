"""What a calibration set says of a model: moments of what its parts put out, how much each layer changes, which tokens occur.

One pass over the unpruned model serves every pruned shape of it. Only real tokens count, padding does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dse.quality.pruning.layout import Layout, Model, layout_of

if TYPE_CHECKING:
    from torch import Tensor

Batch = Mapping[str, "Tensor"]
SAMPLED_TOKENS = 3000  # tokens whose norm inputs and outputs are kept, for a rotation of the hidden width


@dataclass
class Moments:
    """Second moment (n, n) and mean (n,) of vectors, in float64, over ``count`` tokens."""

    second: Tensor
    mean: Tensor
    count: int

    @classmethod
    def none(cls, size: int) -> Moments:
        """Of no token yet."""
        import torch

        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64), 0)

    def add(self, rows: Tensor) -> None:
        """Take in vectors (tokens, n)."""
        total = self.count + len(rows)
        if not len(rows):
            return
        part = (rows.T @ rows).double() / len(rows)
        share = len(rows) / total
        self.second += (part - self.second) * share
        self.mean += (rows.double().mean(0) - self.mean) * share
        self.count = total


@dataclass
class Calibration:
    """Figures of the unpruned model.

    ``heads[i]`` and ``ffn[i]``: moments of what layer i's attention and feed-forward hand to their output projections. ``cosine[i]``: mean
    cosine of layer i's input and output. ``norm_inputs``, ``norm_outputs``: site -> (tokens, hidden) samples; sites are ``embedding``,
    (layer, 0), (layer, 1) and ``final``. ``tokens``: how often each token occurs, or None for pictures.
    """

    heads: list[Moments]
    ffn: list[Moments]
    cosine: list[float]
    norm_inputs: dict[Any, Tensor] = field(default_factory=dict)
    norm_outputs: dict[Any, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None


def calibrate(model: Model, batches: Iterable[Batch], *, hidden: bool = False) -> Calibration:
    """Run a model over batches (what its forward takes; ``attention_mask`` tells padding) and gather its figures.

    ``hidden``: keep the norm samples that a rotation of the hidden width needs.
    """
    import torch

    layout = layout_of(model.config.model_type)
    base = model.base_model
    layers = list(base.get_submodule(layout.layers))
    found = Calibration(
        [Moments.none(_inputs(layer, layout.attention_out)) for layer in layers],
        [Moments.none(_inputs(layer, layout.ffn_out)) for layer in layers],
        [0.0] * len(layers),
    )
    watch = _Watch(layout, found, hidden)
    cosines = [Moments.none(1) for _ in layers]
    with watch.hooks(base, layers, cosines), torch.no_grad():
        model.eval()
        for batch in batches:
            watch.mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
            if "input_ids" in batch:
                ids = batch["input_ids"] if watch.mask is None else batch["input_ids"][watch.mask]
                counted = torch.bincount(ids.flatten(), minlength=model.config.vocab_size)
                found.tokens = counted if found.tokens is None else found.tokens + counted
            model(**batch)
    found.cosine = [float(c.mean[0]) for c in cosines]
    if hidden:
        found.norm_inputs = {site: torch.cat(parts)[:SAMPLED_TOKENS] for site, parts in watch.inputs.items()}
        found.norm_outputs = {site: torch.cat(parts)[:SAMPLED_TOKENS] for site, parts in watch.outputs.items()}
    return found


def _inputs(layer: Model, path: str) -> int:
    return int(layer.get_submodule(path).in_features)


class _Watch:
    """Hooks that gather the figures of one calibration."""

    def __init__(self, layout: Layout, found: Calibration, hidden: bool) -> None:
        self.layout, self.found, self.hidden = layout, found, hidden
        self.mask: Tensor | None = None
        self.inputs: dict[Any, list[Tensor]] = {}
        self.outputs: dict[Any, list[Tensor]] = {}
        self.kept: dict[Any, int] = {}

    def rows(self, value: Tensor) -> Tensor:
        """The vectors of real tokens (tokens, n)."""
        return value[self.mask] if self.mask is not None else value.flatten(0, -2)

    @contextmanager
    def hooks(self, base: Model, layers: list[Model], cosines: list[Moments]) -> Iterator[None]:
        """Watch a model while the context lasts."""
        handles = []
        for i, layer in enumerate(layers):
            for path, into in ((self.layout.attention_out, self.found.heads), (self.layout.ffn_out, self.found.ffn)):
                handles.append(layer.get_submodule(path).register_forward_pre_hook(self._moments(into[i])))
            handles.append(layer.register_forward_hook(self._cosine(cosines[i]), with_kwargs=True))
            if self.hidden:
                for place, path in enumerate(self.layout.norms):
                    handles.append(layer.get_submodule(path).register_forward_hook(self._norm((i, place))))
        if self.hidden:
            for site, name in (("embedding", self.layout.embedding_norm), ("final", self.layout.final_norm)):
                if name is not None:
                    handles.append(base.get_submodule(name).register_forward_hook(self._norm(site)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _moments(self, into: Moments) -> Any:
        def hook(_: Any, args: tuple[Any, ...]) -> None:
            into.add(self.rows(args[0]))

        return hook

    def _cosine(self, into: Moments) -> Any:
        import torch

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            into.add(torch.nn.functional.cosine_similarity(self.rows(before), self.rows(after), dim=-1)[:, None])

        return hook

    def _norm(self, site: Any) -> Any:
        def hook(_: Any, args: tuple[Any, ...], output: Any) -> None:
            if self.kept.get(site, 0) >= SAMPLED_TOKENS:
                return
            rows = self.rows(args[0])
            self.inputs.setdefault(site, []).append(rows)
            self.outputs.setdefault(site, []).append(self.rows(output))
            self.kept[site] = self.kept.get(site, 0) + len(rows)

        return hook


def input_moments(model: Model, names: Iterable[str], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Second moment (in, in) of the input of each named linear layer: what activation-aware quantisation weighs errors by."""
    import torch

    found: dict[str, Moments] = {}
    mask: list[Tensor | None] = [None]
    handles = []
    for name in names:
        layer = model.get_submodule(name)
        found[name] = Moments.none(int(layer.in_features))

        def hook(_: Any, args: tuple[Any, ...], into: Moments = found[name]) -> None:
            value = args[0]
            fits = mask[0] is not None and value.shape[:-1] == mask[0].shape
            into.add(value[mask[0]] if fits else value.flatten(0, -2))

        handles.append(layer.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            model.eval()
            for batch in batches:
                mask[0] = batch["attention_mask"].bool() if "attention_mask" in batch else None
                model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: moments.second for name, moments in found.items()}
