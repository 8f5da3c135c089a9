"""A pruned model as an ONNX file: float weights, or the integers of its quantised linear layers with DequantizeLinear before their use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dse.errors import DseError
from dse.quality import checkpoint
from dse.quality.pruning.layout import Model
from dse.quality.pruning.quantise import Quantised

_OPSET = 21  # the first with scales for blocks and 4-bit integers


def example_inputs(model: Model, *, sequence: int, batch: int = 1) -> dict[str, Any]:
    """Inputs of the shapes that a graph is made for: tokens and their mask, or pictures."""
    import torch

    config = model.config
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.zeros(batch, config.num_channels, config.image_size, config.image_size)}
    tokens = torch.zeros(batch, sequence, dtype=torch.long)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def write(model: Model, file: str | Path, *, sequence: int, batch: int = 1, quantised: Mapping[str, Quantised] | None = None) -> Path:
    """Write the graph of a model for inputs of one shape; with ``quantised`` its integers in place of the weights they stand for.

    Raises DseError where a package is missing, or where a quantised weight is not found in the graph.
    """
    import torch

    try:
        import onnx
    except ModuleNotFoundError as error:
        raise DseError(f"export to ONNX needs the package onnx, which is not installed; {checkpoint.EXTRA}") from error
    inputs = example_inputs(model, sequence=sequence, batch=batch)
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"  # plain products and a softmax, which every reader knows
    extra = {"use_cache": False} if hasattr(model.config, "num_key_value_heads") else {}
    try:
        with checkpoint.quiet(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(_Plain(model, list(inputs), extra), tuple(inputs.values()), input_names=list(inputs), dynamo=True,
                                        opset_version=_OPSET, verbose=False, optimize=True)  # fmt: skip
    finally:
        model.config._attn_implementation = before
    assert program is not None  # a program is returned where no file is named
    proto = program.model_proto
    if quantised:
        _put_integers(proto.graph, quantised)
    path = Path(file)
    path.write_bytes(proto.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


def _Plain(model: Model, names: list[str], extra: dict[str, Any]) -> Any:  # noqa: N802 - builds a class that needs torch
    """The model as a function of its inputs in order, giving one tensor."""
    import torch

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: Any) -> Any:
            return self.model(**dict(zip(names, args, strict=True)), **extra)[0]

    return Plain().eval()


def _put_integers(graph: Any, quantised: Mapping[str, Quantised]) -> None:
    from onnx import TensorProto, helper, numpy_helper

    left = dict(quantised)
    for initializer in list(graph.initializer):
        value = numpy_helper.to_array(initializer)
        if value.ndim != 2:
            continue
        for name, q in list(left.items()):
            weight = q.weight().float().numpy()
            turned = value.shape != weight.shape or not np.array_equal(value, weight)
            if turned and not (value.shape == weight.T.shape and np.array_equal(value, weight.T)):
                continue
            codes, scales = q.codes.numpy(), q.scales.float().numpy()
            if q.inputs is not None:
                # One scale a weight's channel and input is no form of DequantizeLinear: the divisors stay, as a division of the weight.
                break
            if turned:
                codes, scales = codes.T, scales.T
            axis, block = (1 if turned else 0), 0
            if q.group is not None:
                axis, block = (0 if turned else 1), q.group
            else:
                scales = scales.reshape(-1)
            kind = TensorProto.INT4 if q.bits <= 4 else TensorProto.INT8
            packed = helper.make_tensor(f"{initializer.name}_codes", kind, codes.shape, codes.flatten().tolist())
            scale = numpy_helper.from_array(np.ascontiguousarray(scales), f"{initializer.name}_scales")
            attributes: dict[str, Any] = {"axis": axis, **({"block_size": block} if block else {})}
            node = helper.make_node("DequantizeLinear", [packed.name, scale.name], [initializer.name], f"{initializer.name}_dequantize",
                                    **attributes)  # fmt: skip
            graph.initializer.remove(initializer)
            graph.initializer.extend([packed, scale])
            graph.node.insert(0, node)
            del left[name]
            break
    missing = [name for name, q in left.items() if q.inputs is None]
    if missing:
        raise DseError(f"the graph has no weight of {missing[0]!r}; its integers cannot be written")
