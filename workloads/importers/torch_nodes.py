"""What a node of an exported PyTorch graph says: its operator, sizes, arguments, module, and what stands behind it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from workloads.importers.collector import words

_WEIGHTED = words("linear addmm mm conv1d")


def is_ours(node: Any, name: str) -> bool:
    """Whether a node calls the operator ``dse::name``."""
    return str(node.target).startswith(f"dse.{name}")


def behind(node: Any, stop: Callable[[Any], bool], limit: int = 256) -> list[Any]:
    """The nearest nodes behind ``node`` (itself included) for which ``stop`` holds, through everything else."""
    found, seen, waiting = [], {node}, [node]
    while waiting and len(seen) < limit:
        item = waiting.pop(0)
        if stop(item):
            found.append(item)
            continue
        for source in item.all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return found


def products_behind(node: Any) -> list[Any]:
    """The products with weights that make a tensor, nearest first."""
    return behind(node, lambda item: item.op == "call_function" and name_of(item.target) in _WEIGHTED)


def visible(mask: Any, causal: bool, window: int) -> tuple[bool, int, int]:
    """(causal, window, chunk) of an attention with that mask argument: what a ``dse::mask`` behind it says, if there is one."""
    if not hasattr(mask, "all_input_nodes"):
        return causal, window, 0
    masks = {item.args[4:7] for item in behind(mask, lambda item: is_ours(item, "mask")) if len(item.args) >= 7}
    if len(masks) != 1:
        return False, 0, 0
    hidden, near, chunk = masks.pop()
    return bool(hidden), int(near) or (0 if chunk else window), int(chunk)


def reduction_name(name: str) -> str:
    """The vocabulary's name of a reduction."""
    if name.startswith("cum") or name in ("diff", "histc", "bincount"):
        return "cumsum"
    if any(part in name for part in ("max", "min", "any", "all", "search", "bucket", "median", "unique")):
        return "max"
    return "mean" if "mean" in name or "avg" in name or "var" in name or "std" in name else "sum"


def reduced(source: tuple[int, ...], result: tuple[int, ...]) -> tuple[int, int]:
    """(rows, elements of a row) of a reduction, whichever axes it runs over."""
    rows = max(1, math.prod(result))
    return rows, max(1, math.prod(source) // rows)


def power_name(node: Any) -> str:
    """A square or cube is products, a root a root; other powers cost what an exponential does."""
    exponent = node.args[1] if len(node.args) > 1 else None
    return {2: "mul", 3: "mul", 0.5: "sqrt", -0.5: "sqrt"}.get(exponent, "exp") if isinstance(exponent, (int, float)) else "exp"


def name_of(target: Any) -> str:
    """``aten.add_.Tensor`` -> ``add_``; a Python function -> its name."""
    packet = getattr(target, "overloadpacket", None)
    text = str(packet) if packet is not None else getattr(target, "__name__", str(target))
    return text.rsplit(".", 1)[-1]


class UnknownSizeError(Exception):
    """A size that depends on data."""


def shape_of(meta: Any, unknown: int = 0) -> tuple[int, ...]:
    """Sizes of a tensor's record; ``unknown`` stands in for a number that depends on data (0: UnknownSizeError)."""
    return tuple(_size(size, unknown) for size in getattr(meta, "shape", ()))


def _size(size: Any, unknown: int) -> int:
    if isinstance(size, int) or size.node.has_hint():
        return int(size)
    if not unknown:
        raise UnknownSizeError
    return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, unknown)))


def attribute_of(owner: Any, target: str) -> Any:
    """What a dotted path names, from ``owner`` on."""
    for part in target.split("."):
        owner = getattr(owner, part)
    return owner


def module_of(node: Any) -> tuple[str, str, str]:
    """Path of the innermost module that a node comes from, identity of that call, class name of the module."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "", "", ""
    key, (path, kind) = next(reversed(stack.items()))
    kind_name = kind if isinstance(kind, str) else kind.__name__
    clean = re.sub(r"^L\['self'\]\.?|@\d+", "", str(path))
    return clean, f"{key}|{path}", kind_name.rsplit(".", 1)[-1]


def given(node: Any, name: str) -> Any:
    """An argument of an ATen call by name (export gives arguments by position, defaults left out); 1 where it has none."""
    for index, argument in enumerate(node.target._schema.arguments):
        if argument.name == name:
            return node.kwargs.get(name, node.args[index] if index < len(node.args) else argument.default_value)
    return 1


def argument_of(node: Any, name: str) -> int:
    """The same of an integer argument."""
    return int(given(node, name))


def per_axis(value: Any, axes: int) -> list[int]:
    """A stride or dilation of each axis; one number stands for all of them."""
    values = [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
    return values * axes if len(values) == 1 else values


def transposed(node: Any) -> bool:
    """Whether a convolution is a transposed one."""
    name = name_of(node.target)
    if name.startswith("conv_transpose"):
        return True
    return name == "convolution" and bool(argument_of(node, "transposed"))
