"""Which layers of a model are alike: those that run the same operations on the same sizes.

The whole model runs once on the meta device, where nothing is computed, and every operation is noted with its sizes under the
layer that runs it. Layers with the same note are exported once and counted as often as they occur. The shortened model runs
likewise, and its notes, multiplied, must be the whole model's note; otherwise no layer is left out.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from workloads.importers.module import quiet

Note = Counter[Any]
Notes = dict[str, Note]
MIN_STACK = 3
OUTSIDE = ""


def leave_out_equal_layers(model: Any, inputs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]] | None:
    """Keep one layer of each kind in every stack of layers of ``model``, in place.

    ``inputs``: keyword arguments of a call on the meta device. Returns how many layers each kept one stands for, by path and by
    parameter; empty where no layers are alike; None where the model cannot run on the meta device, or where the shortened
    model does not do what the whole one does (the model is then spoilt and must be built again).
    """
    import torch

    whole = _notes(model, inputs)
    if whole is None:
        return None
    times: dict[str, int] = {}
    stands_for: dict[str, list[str]] = {}
    done: list[str] = []
    stacks = [(path, part) for path, part in model.named_modules() if isinstance(part, torch.nn.ModuleList) and len(part) >= MIN_STACK]
    for path, stack in stacks:
        if any(path.startswith(f"{other}.") for other in done):
            continue
        kinds: dict[Any, list[int]] = {}
        for index, layer in enumerate(stack):
            kinds.setdefault((_parameters(layer), frozenset(_under(whole, f"{path}.{index}").items())), []).append(index)
        if len(kinds) == len(stack):
            continue
        done.append(path)
        groups = sorted(kinds.values())
        kept = [indices[0] for indices in groups]
        parent_path, _, attribute = path.rpartition(".")
        parent = model.get_submodule(parent_path) if parent_path else model
        setattr(parent, attribute, torch.nn.ModuleList([stack[index] for index in kept]))
        for place, indices in enumerate(groups):
            times[f"{path}.{place}"] = len(indices)
            stands_for[f"{path}.{place}"] = [f"{path}.{index}" for index in indices]
        _keep_layer_types(parent, len(stack), kept)
    if not times:
        return {}, {}
    short = _notes(model, inputs)
    if short is None or not _adds_up(whole, short, stands_for):
        return None
    copies = {name: times[prefix] for name, _ in model.named_parameters() for prefix in times if name.startswith(f"{prefix}.")}
    return times, copies


def _adds_up(whole: Notes, short: Notes, stands_for: dict[str, list[str]]) -> bool:
    """Whether every layer does what the kept one does that stands for it, and the rest of the model the same as before."""
    for place, paths in stands_for.items():
        note = _under(short, place)
        if any(_under(whole, path) != note for path in paths):
            return False
    return _outside(whole, [path for paths in stands_for.values() for path in paths]) == _outside(short, list(stands_for))


def _under(notes: Notes, path: str) -> Note:
    """What a layer runs, with what the stacks inside it run."""
    result: Note = Counter()
    for label, note in notes.items():
        if label == path or label.startswith(f"{path}."):
            result.update({(label[len(path) :], operation): count for operation, count in note.items()})
    return result


def _outside(notes: Notes, paths: list[str]) -> Notes:
    """What runs in none of these layers."""
    return {label: note for label, note in notes.items() if not any(label == path or label.startswith(f"{path}.") for path in paths)}


def _parameters(layer: Any) -> tuple[Any, ...]:
    """Names and shapes of a layer's parameters."""
    return tuple((name, tuple(value.shape)) for name, value in layer.named_parameters())


def _notes(model: Any, inputs: Mapping[str, Any]) -> Notes | None:
    """{path of a layer of a stack, or OUTSIDE: its operations with their sizes and how often}, or None if it cannot run."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    notes: Notes = {}
    inside: list[str] = [OUTSIDE]

    class Noting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            name = str(function)
            plain = name.startswith("dse.")
            sizes = tuple(_size(item, plain) for item in (*args, *(kwargs or {}).values()))
            notes.setdefault(inside[-1], Counter())[(name, sizes)] += 1
            return made

    with _labels(model, inside), quiet(), torch.no_grad(), Noting():  # type: ignore[no-untyped-call]
        try:
            model(**inputs)
        except Exception:  # noqa: BLE001  whatever a model raises that needs values, which the meta device has not
            return None
    return notes


def _size(item: Any, plain: bool) -> Any:
    shape = getattr(item, "shape", None)
    if shape is not None:
        return tuple(int(size) for size in shape)
    if isinstance(item, (list, tuple)):
        return tuple(_size(part, plain) for part in item)
    return item if plain and isinstance(item, (int, float, str, bool, type(None))) else None


@contextlib.contextmanager
def _labels(model: Any, inside: list[str]) -> Iterator[None]:
    """Keep on top of ``inside`` the path of the innermost layer that runs."""
    import torch

    handles = []
    for path, stack in model.named_modules():
        if not isinstance(stack, torch.nn.ModuleList) or len(stack) < MIN_STACK:
            continue
        for index, layer in enumerate(stack):
            label = f"{path}.{index}"
            handles.append(layer.register_forward_pre_hook(lambda *_, label=label: inside.append(label)))
            handles.append(layer.register_forward_hook(lambda *_: (inside.pop(), None)[1], always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep_layer_types(parent: Any, count: int, kept: list[int]) -> None:
    """Shorten per-layer lists of the configuration that the forward pass walks beside the layers."""
    config = getattr(parent, "config", None)
    for key, value in list(vars(config).items()) if config is not None else []:
        if isinstance(value, list) and len(value) == count and count > 2:
            setattr(config, key, [value[index] for index in kept])
