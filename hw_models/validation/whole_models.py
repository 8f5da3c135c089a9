"""Whole models on devices against published latencies and energies: nothing is fitted, and every figure is what `evaluate` gives.

published_latency.csv: BERT-base with TensorRT (demoBERT), Llama-2-7b with TensorRT-LLM and lmdeploy. The model runs its kernels one
after the other under the device's default engine; queueing, scheduling and the host's work between steps are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Final

from hw_models.accelerator.fields import Engine
from hw_models.costs.evaluate import evaluate
from hw_models.devices import library as devices
from hw_models.validation.registry import Outcome, Spec, reference_rows
from workloads import library

_SOURCE: Final = "published latencies (NVIDIA TensorRT demoBERT; TensorRT-LLM 0.5, 0.6; lmdeploy)"
SHORT_PROMPT: Final = 512
"""Prompts below it wait for weights and not for arithmetic; they are listed apart."""


def latency_s(row: Mapping[str, str]) -> float:
    """What a row's model takes on its device [s]: a BERT's forward pass, a first token, one token, or a whole request.

    lmdeploy 0.1.0a1, whose latencies these are, prefills all tokens of a prompt but the last, which it then decodes
    (InternLM/lmdeploy@v0.1.0a1, src/turbomind/models/llama/LlamaBatch.cc, ContextDecode: "skip last input token"): its first token is
    a prompt and a step of generation. Its own table shows that: 11 ms after 1 token (a step takes 10), 22 after 128.
    """
    bits = int(row["weight_bits"])
    lmdeploy = row["source"] == "lmdeploy"
    design = replace(devices.load(row["device"]).accelerator, engine=Engine.VLLM if lmdeploy else Engine.TRTLLM)
    family = library.load(row["model"])
    knobs: dict[str, int | bool] = {
        "batch": int(row["batch"]), "weight_bits": bits, "activation_bits": bits, "fused_attention": True,
    }  # fmt: skip
    if row["quantity"] == "latency_ms":
        knobs["sequence"] = int(row["prompt"])
        return float(evaluate(design, family.build(**knobs)).latency_s)
    knobs["kv_bits"] = bits
    knobs["sequence"] = int(row["prompt"] or row["context"])
    knobs["new_tokens"] = int(row["output"] or 2)
    workload = family.build(**knobs)
    if row["quantity"] == "tokens_per_s":
        return float(evaluate(design, workload).latency_s)
    prompt, steps = workload.phases[0].table, workload.phases[-1].table
    step_s = float(evaluate(design, steps).latency_s) / 2  # a generation of two tokens
    if row["quantity"] == "tpot_ms":
        return step_s
    if not lmdeploy:
        return float(evaluate(design, prompt).latency_s)
    knobs["sequence"] = int(row["prompt"]) - 1
    return float(evaluate(design, family.build(**knobs).phases[0].table).latency_s) + step_s


def ratio(row: Mapping[str, str]) -> float:
    """Ours over published, of a time (a rate is turned round)."""
    found, published = latency_s(row), float(row["value"])
    if row["quantity"] == "tokens_per_s":
        return found / (int(row["batch"]) * int(row["output"]) / published)
    return 1e3 * found / published


@cache
def ratios() -> tuple[tuple[dict[str, str], float], ...]:
    """Every row on one device with its ratio."""
    return tuple((row, ratio(row)) for row in reference_rows("published_latency.csv") if row["tp"] == "1")


def _mean(quantity: str, *, model: str, device: str = "", short: bool | None = None) -> Outcome:
    chosen = [
        r
        for row, r in ratios()
        if row["quantity"] == quantity
        and row["model"] == model
        and device in ("", row["device"])
        and (short is None or (int(row["prompt"] or row["context"]) < SHORT_PROMPT) == short)
    ]
    return Outcome(len(chosen), 100 * sum(abs(r - 1) for r in chosen) / len(chosen))


def _spec(name: str, bound: float, run: Callable[[], Outcome], goal: float | None = 15.0, peer: str = "") -> Spec:
    return Spec(name, _SOURCE, "%", bound, goal, peer, "nothing of it: kernels of A100 and H100", run)


SPECS: Final = (
    _spec("A100 BERT-base, 16 latencies", 10.9, lambda: _mean("latency_ms", model="bert-base"), peer="42 % as an array"),
    _spec("A100 Llama-2-7b, time per token", 3.9, lambda: _mean("tpot_ms", model="llama2-7b")),
    _spec("A100, H100 Llama-2-7b, first token of long prompts", 11.5, lambda: _mean("ttft_ms", model="llama2-7b", short=False)),
    _spec("A100, H100 Llama-2-7b, first token of short prompts", 10.9, lambda: _mean("ttft_ms", model="llama2-7b", short=True)),
    _spec("A100 Llama-2-7b, tokens a second", 12.3, lambda: _mean("tokens_per_s", model="llama2-7b", device="a100"), None),
    _spec("H100 Llama-2-7b in fp8, tokens a second", 12.3, lambda: _mean("tokens_per_s", model="llama2-7b", device="h100"), None),
)  # fmt: skip
