"""ONNX: the model of a design as a graph, made with torch and transformers: the checkpoint that was measured for it where the run keeps
one, else an encoder of its dimensions with random weights.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

from dse.errors import DseError, UsageError
from dse.exporters.base import Export
from dse.exporters.design import ExportDesign
from dse.problem.wording import joined
from dse.quality import checkpoint
from dse.quality.pruning import onnx_file

TOOL = "ONNX"
FLOAT_BYTES = 4
# A file of protocol buffers ends there.
MAX_GRAPH_BYTES = 2**31 - 2**24
_NEEDED = ("torch", "transformers", "onnx", "onnxscript")


def export(design: ExportDesign) -> Export:
    """The graph of the design's model; DseError where a package is missing or the model is of a kind that is not built here."""
    _check_packages()
    if design.checkpoint is not None:
        return _measured(design, design.checkpoint)
    config, kept = bert_settings(design)
    dimensions = design.workload.dimensions
    graph = _graph(config, int(dimensions["batch"]), int(dimensions["sequence"]), int(design.workload.parameter_count()))
    return Export(
        tool=TOOL,
        files={"model.onnx": graph},
        expressed=[
            f"`model.onnx`: the encoder of this design, {', '.join(kept)}; inputs are token identifiers, mask and token types of one "
            "request.",
        ],
        assumed=[
            "Weights are random: the search counts operations and predicts quality from published models, it trains nothing.",
            "32-bit floats; the design's own precision is a property of the accelerator's words.",
        ],
        lost=["The accelerator.", "A trained state: fine-tune the graph's model in its own framework."],
        run=["python -c \"import onnx; print(onnx.load('model.onnx').graph.node[0])\""],
        checked="The tests load the graph with the onnx package, check it, and count its parameters against the workload's.",
    )


def _measured(design: ExportDesign, folder: Path) -> Export:
    """The graph of the checkpoint that was measured for the design."""
    dimensions = design.workload.dimensions
    model = checkpoint.load(folder)
    parameters = sum(tensor.numel() for tensor in model.state_dict().values())
    _check_size(parameters)
    with tempfile.TemporaryDirectory() as place:
        file = onnx_file.write(
            model, Path(place) / "model.onnx", sequence=int(dimensions.get("sequence", 1)), batch=int(dimensions.get("batch", 1))
        )
        graph = file.read_bytes()
    return Export(
        tool=TOOL,
        files={"model.onnx": graph},
        expressed=[
            f"`model.onnx`: the model that was measured for this design (`designs/{design.number}/model` of the run, {parameters:,} "
            "numbers), weights and all, for inputs of the shape that the search costed.",
        ],
        assumed=[
            "32-bit floats: weights have the values that their bits allow; the width itself is a property of the accelerator's words."
        ],
        lost=["The accelerator.", "The tokenizer, which lies beside the checkpoint."],
        run=["python -c \"import onnxruntime; print(onnxruntime.InferenceSession('model.onnx').get_inputs())\""],
        checked="The tests run the graph of a pruned model in onnxruntime and compare it with torch.",
    )


def _check_size(parameters: int) -> None:
    if parameters * FLOAT_BYTES > MAX_GRAPH_BYTES:
        raise DseError(
            f"the design's model has {parameters:,} parameters; a graph with its weights inside holds at most "
            f"{MAX_GRAPH_BYTES // FLOAT_BYTES:,}"
        )


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise DseError(
            f"export to onnx needs {joined(missing)}, not installed here; pip install 'dse-toolkit[export]' brings all that it needs"
        )


def bert_settings(design: ExportDesign) -> tuple[dict[str, Any], list[str]]:
    """The settings of transformers' ``BertConfig``, and the dimensions that they say."""
    d = design.workload.dimensions
    needed = ("layers", "hidden", "heads", "ffn", "vocabulary", "positions")
    if design.workload.family != "encoder" or any(name not in d for name in needed):
        raise UsageError(
            f"workload {design.workload_name!r} is of the family {design.workload.family!r}; export to onnx builds encoders (bert)"
        )
    head_dim = int(d.get("head_dim") or int(d["hidden"]) // int(d["heads"]))
    if head_dim * int(d["heads"]) != int(d["hidden"]):
        raise DseError(
            f"design {design.number} has {d['heads']} heads of {head_dim} in a hidden size of {d['hidden']}; the exported encoder needs "
            "heads x head size = hidden size"
        )
    settings = {
        "num_hidden_layers": int(d["layers"]),
        "hidden_size": int(d["hidden"]),
        "num_attention_heads": int(d["heads"]),
        "intermediate_size": int(d["ffn"]),
        "vocab_size": int(d["vocabulary"]),
        "max_position_embeddings": int(d["positions"]),
        "type_vocab_size": int(d.get("token_types") or 1),
        "hidden_act": "gelu" if str(d.get("activation", "gelu")) == "gelu" else str(d["activation"]),
    }
    return settings, [f"{d[name]} {name}" for name in ("layers", "hidden", "heads", "ffn")]


def _graph(settings: dict[str, Any], batch: int, sequence: int, parameters: int) -> bytes:
    """The serialised ONNX model, weights inside."""
    import torch
    from transformers import BertConfig, BertModel

    _check_size(parameters)
    # The exporter tells of packages that it would like and of deprecations of its own; neither is the user's.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        chosen: Any = {**settings, "attn_implementation": "eager"}
        model: Any = BertModel(BertConfig(**chosen))
        model.eval()
        tokens = torch.zeros((batch, sequence), dtype=torch.long)
        mask = torch.ones((batch, sequence), dtype=torch.long)
        program = torch.onnx.export(
            model,
            (tokens, mask, torch.zeros_like(tokens)),
            input_names=["input_ids", "attention_mask", "token_type_ids"],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())
