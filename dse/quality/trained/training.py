"""Training of one small model: the same recipe for every shape, so that what differs is the shape.

Language tasks train a Llama-style decoder (RMSNorm, rotary positions, gated feed-forward, grouped keys), vision tasks a ViT, series a BERT
with a class for every token (norms after the blocks); all are classes of transformers, so that what is trained can be pruned, exported and
costed like any other checkpoint.
AdamW (0.9, 0.98), weight decay 0.05, gradient norm at most 1, learning rate 4e-3 sqrt(64 / hidden), 1/15 of the steps warm-up, constant to
one half, then linear to 2 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dse.errors import UsageError
from dse.quality import checkpoint
from dse.quality.pruning.layout import Model
from dse.quality.trained.data import IGNORED, TaskData, masked

KNOBS = ("layers", "hidden", "heads", "head_dim", "kv_heads", "ffn")
BASE = {"layers": 2, "hidden": 64, "heads": 4, "head_dim": 16, "kv_heads": 4, "ffn": 128}
LEARNING_RATE = 4e-3
STEPS = {"mnist": 600, "digits": 600, "cmudict": 300, "gloss": 600, "series": 600}
BATCH = {"mnist": 48, "digits": 48, "cmudict": 96, "gloss": 32, "series": 32}
PATCH = {"mnist": 7, "digits": 2}
GROUPED = ("cmudict", "gloss")  # tasks of decoders, whose heads may share keys and values
CURVE = (0.25, 0.5)  # parts of the steps after which the test loss is noted


@dataclass(frozen=True)
class Trained:
    """A trained model and its test figures.

    ``cross_entropy`` in nats a label with its standard error over the test items; ``accuracy`` the share of items that are right in every
    label; ``curve`` part of the steps -> cross entropy.
    """

    model: Model
    cross_entropy: float
    cross_entropy_se: float
    accuracy: float
    cpu_s: float
    curve: Mapping[float, float] = field(default_factory=dict)


def build(data: TaskData, knobs: Mapping[str, int]) -> Model:
    """The untrained model of a task with the given knobs; those left out are the base's."""
    import transformers

    unknown = [name for name in knobs if name not in KNOBS]
    if unknown:
        raise UsageError(f"knob {unknown[0]!r} is none of a trained model's; they are {', '.join(KNOBS)}")
    k = {**BASE, **knobs}
    if "kv_heads" not in knobs:
        k["kv_heads"] = k["heads"]
    if k["heads"] % k["kv_heads"]:
        raise UsageError(f"kv_heads is {k['kv_heads']} and must divide heads = {k['heads']}")
    common: dict[str, Any] = {
        "hidden_size": k["hidden"],
        "num_hidden_layers": k["layers"],
        "num_attention_heads": k["heads"],
        "intermediate_size": k["ffn"],
        "initializer_range": 0.5 / math.sqrt(k["hidden"]),
    }
    if data.kind == "vision":
        if k["kv_heads"] != k["heads"]:
            raise UsageError(f"kv_heads is {k['kv_heads']} and a vision transformer has as many as heads, {k['heads']}")
        common |= {"num_labels": data.vocabulary, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        picture: Any = transformers.ViTConfig(**common, image_size=data.length, patch_size=PATCH[data.name], num_channels=1)
        picture.head_dim = k["head_dim"]
        return transformers.ViTForImageClassification(picture)
    if data.kind == "series":
        if k["kv_heads"] != k["heads"]:
            raise UsageError(f"kv_heads is {k['kv_heads']} and an encoder has as many as heads, {k['heads']}")
        return _encoder(data, common | {"num_labels": data.vocabulary}, k["head_dim"])
    config = transformers.LlamaConfig(**common, vocab_size=data.vocabulary, num_key_value_heads=k["kv_heads"], head_dim=k["head_dim"],
                                      max_position_embeddings=data.length, tie_word_embeddings=False)  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def _encoder(data: TaskData, common: dict[str, Any], head_dim: int) -> Model:
    import torch
    import transformers

    config: Any = transformers.BertConfig(
        **common,
        vocab_size=data.vocabulary + 1,
        max_position_embeddings=data.length,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.head_dim = head_dim
    model = checkpoint.build(config, transformers.BertForTokenClassification)
    for module in model.modules():  # the layers of another head dimension than the class's own have not its initial weights
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=config.initializer_range)
            torch.nn.init.zeros_(module.bias)
    return model


def train(data: TaskData, knobs: Mapping[str, int], *, seed: int = 0, steps: int | None = None, batch: int | None = None) -> Trained:
    """Train one model of a task from a seed (initial weights and order of the items) and measure it on the test items."""
    import torch

    steps, batch = steps or STEPS[data.name], batch or BATCH[data.name]
    began = time.process_time()
    torch.manual_seed(seed)
    model = build(data, knobs).train()
    rng = np.random.default_rng([seed, 17])
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    rate = LEARNING_RATE * math.sqrt(64 / int({**BASE, **knobs}["hidden"]))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}], lr=rate,
                                  betas=(0.9, 0.98))  # fmt: skip
    notes = {max(1, round(part * steps)): part for part in CURVE}
    curve: dict[float, float] = {}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps)
        rows = rng.integers(0, len(data.train_inputs), size=batch)
        inputs, wanted = data.train_inputs[rows], data.train_labels[rows]
        if data.kind == "vision":
            inputs = shifted(inputs, rng)
        elif data.kind == "series":
            inputs, wanted = masked(wanted, rng)
        loss = _loss(model, data, inputs, torch.from_numpy(wanted))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step + 1 in notes:
            curve[notes[step + 1]] = evaluate(model, data)[0]
            model.train()
    spent = time.process_time() - began
    loss_mean, error, accuracy = evaluate(model, data)
    return Trained(model, loss_mean, error, accuracy, spent, {**curve, 1.0: loss_mean})


def schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: warm-up over 1/15 of the steps, constant to one half, linear to 2 % at the end."""
    warm = max(1, steps // 15)
    if step < warm:
        return (step + 1) / warm
    half = steps // 2
    return 1.0 if step < half else 1.0 - 0.98 * (step - half) / max(1, steps - 1 - half)


def shifted(pictures: Any, rng: np.random.Generator) -> Any:
    """Pictures moved by up to a fourteenth of their side, at random, zeros moving in: the only augmentation."""
    most = max(1, pictures.shape[1] // 14)
    moved = np.zeros_like(pictures)
    side = pictures.shape[1]
    for row, (dy, dx) in enumerate(rng.integers(-most, most + 1, size=(len(pictures), 2))):
        moved[row, max(0, dy) : side + min(0, dy), max(0, dx) : side + min(0, dx)] = pictures[
            row, max(0, -dy) : side + min(0, -dy), max(0, -dx) : side + min(0, -dx)
        ]
    return moved


def _logits(model: Model, data: TaskData, inputs: Any) -> Any:
    import torch

    if data.kind == "vision":
        return model(pixel_values=torch.from_numpy(inputs)[:, None]).logits
    if data.kind == "series":
        return model(input_ids=torch.from_numpy(inputs)).logits
    return model(input_ids=torch.from_numpy(inputs), use_cache=False).logits


def _loss(model: Model, data: TaskData, inputs: Any, labels: Any) -> Any:
    import torch

    logits = _logits(model, data, inputs)
    smoothing = 0.05 if data.kind == "vision" else 0.0
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing)


def evaluate(model: Model, data: TaskData, *, items: int | None = None, batch: int = 500) -> tuple[float, float, float]:
    """Test cross entropy in nats a label, its standard error over items (a ratio estimate), and the share of items wholly right."""
    import torch

    model.eval()
    losses, counts, right = [], [], []
    inputs, labels = data.test_inputs[:items], data.test_labels[:items]
    with torch.no_grad():
        for first in range(0, len(inputs), batch):
            wanted = torch.from_numpy(labels[first : first + batch])
            logits = _logits(model, data, inputs[first : first + batch])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=IGNORED, reduction="none")
            counted = (wanted != IGNORED).reshape(len(wanted), -1)
            losses.append(loss.reshape(len(wanted), -1).double().sum(1).numpy())
            counts.append(counted.sum(1).numpy())
            right.append(((logits.argmax(-1) == wanted).reshape(len(wanted), -1) | ~counted).all(1).numpy())
    loss_sum, count = np.concatenate(losses), np.concatenate(counts)
    mean = float(loss_sum.sum() / count.sum())
    residual = loss_sum - mean * count
    error = float(np.sqrt(np.sum(residual**2)) / count.sum())
    return mean, error, float(np.concatenate(right).mean())
