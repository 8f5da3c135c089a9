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
from hw_models.costs.evaluate import Cost, evaluate
from hw_models.devices import library as devices
from hw_models.validation.registry import Outcome, Spec, reference_rows
from workloads import library

_SOURCE: Final = "published latencies (NVIDIA TensorRT demoBERT; TensorRT-LLM 0.5, 0.6; lmdeploy)"
SHORT_PROMPT: Final = 512
"""Prompts below it spend most of their published time on the host, which no kernel model sees; they are listed apart."""


def cost(row: Mapping[str, str]) -> Cost:
    """What a row's model costs on its device: a BERT's forward pass, a prompt, one token, or a whole request."""
    bits = int(row["weight_bits"])
    engine = Engine.VLLM if row["source"] == "lmdeploy" else Engine.TRTLLM
    design = replace(devices.load(row["device"]).accelerator, engine=engine)
    family = library.load(row["model"])
    knobs: dict[str, int | bool] = {
        "batch": int(row["batch"]), "weight_bits": bits, "activation_bits": bits, "fused_attention": True,
    }  # fmt: skip
    if row["quantity"] == "latency_ms":
        knobs["sequence"] = int(row["prompt"])
        return evaluate(design, family.build(**knobs))
    knobs["kv_bits"] = bits
    knobs["sequence"] = int(row["prompt"] or row["context"])
    knobs["new_tokens"] = int(row["output"] or 2)
    workload = family.build(**knobs)
    if row["quantity"] == "ttft_ms":
        return evaluate(design, workload.phases[0].table)
    if row["quantity"] == "tpot_ms":
        return evaluate(design, workload.phases[-1].table)
    return evaluate(design, workload)


def ratio(row: Mapping[str, str]) -> float:
    """Ours over published, of a time (a rate is turned round)."""
    found, published = float(cost(row).latency_s), float(row["value"])
    if row["quantity"] == "tokens_per_s":
        return found / (int(row["batch"]) * int(row["output"]) / published)
    if row["quantity"] == "tpot_ms":
        found /= 2  # a generation of two tokens
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
    _spec("A100 Llama-2-7b, time per token", 4.1, lambda: _mean("tpot_ms", model="llama2-7b")),
    _spec("A100, H100 Llama-2-7b, first token of long prompts", 14.1, lambda: _mean("ttft_ms", model="llama2-7b", short=False)),
    _spec("A100, H100 Llama-2-7b, first token of short prompts", 26.0, lambda: _mean("ttft_ms", model="llama2-7b", short=True), None),
    _spec("A100 Llama-2-7b, tokens a second", 12.8, lambda: _mean("tokens_per_s", model="llama2-7b", device="a100"), None),
    _spec("H100 Llama-2-7b in fp8, tokens a second", 12.3, lambda: _mean("tokens_per_s", model="llama2-7b", device="h100"), None),
)  # fmt: skip
