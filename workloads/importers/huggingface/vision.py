"""The image tower and projector of a vision-language model: what they take, and how many tokens they give the text."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.importers.huggingface.attention import IMPLEMENTATION, PACKED_IMPLEMENTATION
from workloads.importers.module import ImportedGraph
from workloads.importers.torch_nodes import shape_of

Graph = Callable[..., tuple[ImportedGraph, Any]]
Call = tuple[Callable[..., Any], dict[str, Any]]
"""What to call with which inputs."""


@dataclass(frozen=True)
class Pictures:
    """``images`` pictures of a request, of ``height`` x ``width`` pixels where the tower takes them as they are; ``batch`` requests."""

    images: int
    height: int
    width: int
    batch: int

    @property
    def all(self) -> int:
        """Pictures of all requests."""
        return self.images * self.batch


@dataclass(frozen=True)
class Tower:
    """The graph of a tower with its projector, and the tokens that a request gets from it."""

    graph: ImportedGraph
    tokens: int


_NOT_THUS = "takes no pictures in a way that is known"


def tower_of(graph: Graph, pictures: Pictures, file: str) -> Tower:
    """Return the tower of a configured model; ``graph`` exports what a prepared model runs. Raises WorkloadError."""
    problems: list[str] = []
    for way in _WAYS:

        def prepare(model: Any, settings: Any, way: Callable[..., Call | None] = way) -> dict[str, Any]:
            made = way(model, settings, pictures)
            if made is None:
                raise WorkloadError(f"{file} {_NOT_THUS}")
            call, inputs = made
            names = list(inputs)
            model.forward = _tensors_of(call, names)
            return inputs

        try:
            made, program = graph(prepare, "vision", unused=False, pictures=pictures.all)
        except WorkloadError as error:
            problems.append(str(error))
            continue
        return Tower(made, _tokens(program, pictures))
    raise WorkloadError(next((problem for problem in problems if _NOT_THUS not in problem), problems[0]))


def _tensors_of(call: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """A forward function of these inputs whose result is the features alone."""

    def forward(**inputs: Any) -> Any:
        return tuple(_features(call(**inputs)))

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


def _features(made: Any) -> list[Any]:
    """The image features among the results: the pooled (projected) ones of an output record, or the tensors themselves."""
    for name in ("pooler_output", "last_hidden_state"):
        if getattr(made, name, None) is not None:
            return _features(getattr(made, name))
    if isinstance(made, (list, tuple)):
        return [item for part in made for item in _features(part)]
    return [made] if hasattr(made, "shape") and len(made.shape) >= 2 else []


def _tokens(program: Any, pictures: Pictures) -> int:
    """Vectors of the language model's width that come out, a request."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    shapes = [shape_of(node.meta["val"], pictures.all) for node in output.all_input_nodes]
    if not shapes:
        raise WorkloadError("the tower makes no tensor of features")
    width = shapes[0][-1]
    return sum(_product(shape) // width for shape in shapes if shape[-1] == width) // pictures.batch


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


# ---- ways to hand a picture over ----


def _grids(model: Any, settings: Any, pictures: Pictures, grid_device: str = "cpu") -> Call | None:
    """Towers that take the patches of pictures of any size, with the grid of each (Qwen-VL, GLM-V and others)."""
    import torch

    found = next(
        (
            (tower, name)
            for tower in model.modules()
            for name in ("grid_thw", "image_grid_thw")
            if name in (accepted := _accepted(tower.forward)) and "input_ids" not in accepted
        ),
        None,
    )
    if found is None:
        return None
    tower, argument = found
    config = getattr(tower, "config", settings.vision_config)
    if config._attn_implementation == IMPLEMENTATION:
        config._attn_implementation = PACKED_IMPLEMENTATION
    patch = int(getattr(config, "patch_size", 14))
    merge = int(getattr(config, "spatial_merge_size", getattr(config, "merge_size", 1)) or 1)
    frames = int(getattr(config, "temporal_patch_size", 1) or 1)
    channels = int(getattr(config, "in_channels", getattr(config, "in_chans", getattr(config, "num_channels", 3))) or 3)
    high, wide = (-(-pixels // (patch * merge)) * merge for pixels in (pictures.height, pictures.width))
    grid = torch.tensor([[1, high, wide]] * pictures.all)
    known = {argument: grid.to(grid_device), **_precomputed(tower, config, grid)}
    patches = torch.zeros(pictures.all * high * wide, channels * frames * patch * patch, device="meta")

    def call(patches: Any) -> Any:
        return tower(patches, **known)

    return call, {"patches": patches}


def _precomputed(tower: Any, config: Any, grid: Any) -> dict[str, Any]:
    """What the tower would compute from the values of the grid: a graph has no values, so it is handed in."""
    from transformers import vision_utils

    used = vars(sys.modules[type(tower).__module__])
    merge = int(getattr(config, "spatial_merge_size", 1) or 1)
    made: dict[str, Any] = {}
    if "get_vision_position_ids" in used:
        made["position_ids"] = vision_utils.get_vision_position_ids(grid, merge)
    ends = vision_utils.get_vision_cu_seqlens(grid)
    made |= {"cu_seqlens": ends, "max_seqlen": int((ends[1:] - ends[:-1]).max())}
    if "get_vision_window_index" in used:
        index, ends = vision_utils.get_vision_window_index(grid, merge, config.window_size, config.patch_size)
        made |= {"window_index": index, "cu_window_seqlens": ends, "max_window_seqlen": int((ends[1:] - ends[:-1]).max())}
    side = int(getattr(config, "num_position_embeddings", 0) ** 0.5)
    if "get_vision_interpolation_indices_and_weights" in used and side:
        index, weights = vision_utils.get_vision_interpolation_indices_and_weights(grid, side, align_corners=True, spatial_merge_size=merge)
        made |= {"interp_indices": index, "interp_weights": weights}
    # Only the boundaries are looked at for their values; the rest stands beside the pixels.
    return {name: item if name in _BOUNDARIES or isinstance(item, int) else item.to("meta") for name, item in made.items()}


_BOUNDARIES = ("cu_seqlens", "cu_window_seqlens")


def _pixels(model: Any, settings: Any, pictures: Pictures, together: bool = False) -> Call | None:
    """Towers that take pictures of one size: (pictures, channels, height, width), or all ``together`` as those of one request."""
    import torch

    take = getattr(model, "get_image_features", None)
    if take is None:
        return None
    size = _side(settings)
    pixels = torch.zeros(*((1,) if together else ()), pictures.all, *size, device="meta")
    accepted = _accepted(take) | _accepted(getattr(getattr(model, "model", model), "get_image_features", take))
    known: dict[str, Any] = {}
    for name in ("vision_feature_layer", "vision_feature_select_strategy"):
        if name in accepted and hasattr(settings, name):
            known[name] = getattr(settings, name)

    def call(pixel_values: Any) -> Any:
        return take(pixel_values=pixel_values, **known)

    return call, {"pixel_values": pixels}


def _crops(model: Any, settings: Any, pictures: Pictures) -> Call | None:
    """Towers that cut a picture into crops after its size (LLaVA-NeXT, LLaVA-OneVision)."""
    import torch

    take = getattr(model, "get_image_features", None)
    count = vars(sys.modules[type(model).__module__]).get("image_size_to_num_patches")
    if take is None or count is None or "image_sizes" not in _accepted(take):
        return None
    sizes = [[pictures.height, pictures.width]] * pictures.all
    crops = count(sizes[0], settings.image_grid_pinpoints, _side(settings)[1])
    pixels = torch.zeros(pictures.all, crops, *_side(settings), device="meta")
    known = {
        name: getattr(settings, name) for name in ("vision_feature_layer", "vision_feature_select_strategy") if hasattr(settings, name)
    }

    def call(pixel_values: Any) -> Any:
        return take(pixel_values=pixel_values, image_sizes=np.array(sizes), **known)  # no tensor: the crops follow from it

    return call, {"pixel_values": pixels}


def _tower_and_projector(model: Any, settings: Any, pictures: Pictures) -> Call | None:
    """A tower and a projector by their usual names, where the model's own way needs the values of a picture."""
    import torch

    inner = getattr(model, "model", model)
    tower = next(
        (getattr(inner, name) for name in ("vision_tower", "vision_model", "vision_encoder", "visual") if hasattr(inner, name)), None
    )
    projector = next(
        (
            getattr(inner, name)
            for name in ("multi_modal_projector", "connector", "projector", "aligner", "embed_vision")
            if hasattr(inner, name)
        ),
        None,
    )
    if tower is None or projector is None:
        return None
    pixels = torch.zeros(pictures.all, *_side(settings), device="meta")

    def call(pixel_values: Any) -> Any:
        made = tower(pixel_values)
        return projector(getattr(made, "last_hidden_state", made))

    return call, {"pixel_values": pixels}


def _side(settings: Any) -> tuple[int, int, int]:
    """(channels, height, width) of the pictures of a tower of one size."""
    vision = settings.vision_config
    size = getattr(vision, "image_size", 224)
    high, wide = (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)
    return int(getattr(vision, "num_channels", 3)), int(high), int(wide)


def _accepted(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()


_WAYS: tuple[Callable[..., Call | None], ...] = (
    _grids,
    lambda model, settings, pictures: _grids(model, settings, pictures, "meta"),
    _crops,
    _pixels,
    lambda model, settings, pictures: _pixels(model, settings, pictures, together=True),
    _tower_and_projector,
)
