"""GPUs and links against measured silicon: what is fitted on one part of the data is judged on another.

LLMCompass's A100 rows (one framework call each, host included) are sorted by size and dealt to two halves, each fitted and
judged on the other. Vidur's A100 kernels of llama2-7b give the fit, those of llama3-8b the error.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.collectives import Link, hierarchical_all_reduce, ring_all_reduce
from hw_models.costs.gpu import GemmOverheads, GpuHardware, VectorOverheads, element_latency_s, gemm_latency_s, row_latency_s
from hw_models.devices import library as devices
from hw_models.devices.calibration import (
    Measurements,
    OperatorReport,
    calibrate,
    fit,
    fit_link,
    mean_error,
    parse_measurements,
    relative_errors,
)
from hw_models.validation.registry import Outcome, Spec, reference_rows

FloatArray = npt.NDArray[np.float64]

GEMMS: Final = ("pre_proj", "post_proj", "up_proj", "down_proj")
_LLMCOMPASS: Final = "LLMCompass, measured A100"
_VIDUR: Final = "vidur, measured A100"
_MS: Final = 1e-3


def a100() -> GpuHardware:
    """The A100's data sheet."""
    return devices.load("a100").gpu_hardware()


@cache
def llmcompass_rows() -> dict[str, Measurements]:
    """LLMCompass's measured operators by name."""
    rows = reference_rows("llmcompass_a100.csv")
    fields = ("op", "dtype", "d0", "d1", "d2", "latency_s")
    text = "\n".join([",".join(fields), *(",".join(row[f] for f in fields) for row in rows)])
    found, _ = parse_measurements(text, where="llmcompass_a100.csv")
    return {m.operator: m for m in found}


@cache
def llmcompass_reports() -> dict[str, OperatorReport]:
    """Calibration on LLMCompass's rows: the fit to all, and the error of each half with the other half's fit."""
    return {report.operator: report for report in calibrate(a100(), list(llmcompass_rows().values()))}


@cache
def vidur_rows(model: str, operator: str) -> Measurements:
    """Kernels of one operator of one model in vidur's profile: products of `GEMMS`, rmsnorm, silu_mul or add."""
    rows = [row for row in reference_rows("vidur_a100_operators.csv") if row["model"] == model]
    tokens, parallel, heads, kv_heads, hidden, ffn = (
        np.array([float(row[c]) for row in rows]) for c in ("tokens", "tensor_parallel", "heads", "kv_heads", "hidden", "ffn")
    )
    head = hidden / heads
    dims = {
        "pre_proj": (tokens, (heads + 2 * kv_heads) * head / parallel, hidden),
        "post_proj": (tokens, hidden, hidden / parallel),
        "up_proj": (tokens, 2 * ffn / parallel, hidden),  # gate and up together
        "down_proj": (tokens, hidden, ffn / parallel),
        "rmsnorm": (tokens, hidden),
        "silu_mul": (tokens * ffn / parallel,),
        "add": (tokens * hidden,),
    }[operator]
    latency = _MS * np.array([float(row[f"{operator}_ms"]) for row in rows])
    name = "gemm" if operator in GEMMS else operator
    return Measurements(name, "fp16", np.stack(dims, axis=1), np.ones(len(rows)), latency)


@cache
def vidur_gemm_fit() -> GemmOverheads:
    """Overheads fitted to the four products of llama2-7b."""
    parts = [vidur_rows("llama2-7b", name) for name in GEMMS]
    rows = replace(
        parts[0],
        dims=np.concatenate([p.dims for p in parts]),
        batch=np.concatenate([p.batch for p in parts]),
        latency_s=np.concatenate([p.latency_s for p in parts]),
    )
    found = fit(a100(), rows)
    assert isinstance(found, GemmOverheads)
    return found


@cache
def vidur_vector_fit(operator: str) -> VectorOverheads:
    """Overheads of a vector operator fitted to llama2-7b."""
    found = fit(a100(), vidur_rows("llama2-7b", operator))
    assert isinstance(found, VectorOverheads)
    return found


def all_reduce_rows(*, one_node: bool) -> dict[str, FloatArray]:
    """Measured all-reduces inside one node or across two: columns devices, per_node, size, latency_s, by size."""
    rows = [
        (float(r["devices"]), float(r["devices_per_node"]), float(r["size_bytes"]), _MS * float(r["all_reduce_ms"]))
        for r in reference_rows("vidur_a100_all_reduce.csv")
        if (r["devices"] == r["devices_per_node"]) == one_node
    ]
    table = np.array(sorted(rows, key=lambda row: (row[0], row[2])))
    return dict(zip(("devices", "per_node", "size", "latency_s"), table.T, strict=True))


def all_reduce_errors(train: npt.NDArray[np.bool_]) -> FloatArray:
    """Errors of the one-node rows outside ``train`` with the link fitted inside it."""
    rows = all_reduce_rows(one_node=True)
    link = fit_link(rows["size"][train], rows["devices"][train], rows["latency_s"][train])
    predicted = ring_all_reduce(rows["size"], rows["devices"], link).latency_s
    return relative_errors(predicted, rows["latency_s"])[~train]


def two_node_errors() -> FloatArray:
    """Errors of all-reduces across two nodes: fitted on every second row of each configuration, judged on the others."""
    from scipy.optimize import least_squares

    rows = all_reduce_rows(one_node=False)
    size, inside, measured = rows["size"], rows["per_node"], rows["latency_s"]
    inner = node_link()
    configurations = np.unique(inside)

    def predict(logs: FloatArray) -> FloatArray:
        latency, bandwidth, fixed, adapters = np.exp(logs)
        predicted = np.empty(len(size))
        for n in configurations:
            at = inside == n
            outer = Link(float(latency), float(bandwidth * min(1.0, adapters / n)), fixed_s=float(fixed))
            predicted[at] = hierarchical_all_reduce(size[at], n, 2, inner, outer).latency_s
        return predicted

    order = np.concatenate([np.arange(np.sum(inside == n)) for n in configurations])
    train = order % 2 == 0

    def residuals(logs: FloatArray) -> FloatArray:
        return np.asarray(np.log(predict(logs) / measured)[train])

    best = None
    for adapters in (1.0, 2.0, 4.0, 8.0):
        start = np.log([5e-6, 6e9, 1e-4, adapters])
        found = least_squares(residuals, start, loss="soft_l1", f_scale=0.1, max_nfev=60)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return np.asarray(relative_errors(predict(best.x), measured)[~train])


@cache
def node_link() -> Link:
    """The link inside a node, fitted to all its measured all-reduces."""
    rows = all_reduce_rows(one_node=True)
    return fit_link(rows["size"], rows["devices"], rows["latency_s"])


# One layer of GPT-3 on four A100s (LLMCompass: batch 8, 2,048 tokens, tensor parallel 4). Query, key and value are three
# products. The context of the decode step is taken as 2,048 positions; its file does not say.
def gpt3_layer(phase: str) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """Operators of a layer on one device: row name -> (operator, calls, (batch, m, n, k) | (rows, columns) | (elements,))."""
    tokens, context, hidden, heads = (8 * 2048 if phase == "prefill" else 8), 2048, 12288, 96 // 4
    queries = 2048 if phase == "prefill" else 1
    inner = hidden // 4
    return {
        "Q_K_V": ("gemm", 3, (1, tokens, inner, hidden)),
        "Q_mul_K": ("gemm", 1, (8 * heads, queries, context, 128)),
        "A_mul_V": ("gemm", 1, (8 * heads, queries, 128, context)),
        "Wo_proj": ("gemm", 1, (1, tokens, hidden, inner)),
        "W1_proj": ("gemm", 1, (1, tokens, hidden, hidden)),
        "W2_proj": ("gemm", 1, (1, tokens, hidden, hidden)),
        "Softmax": ("softmax", 1, (8 * heads * queries, context)),
        "LayerNorm_MHA": ("layernorm", 1, (tokens, hidden)),
        "LayerNorm_FFN": ("layernorm", 1, (tokens, hidden)),
        "GeLU": ("gelu", 1, (tokens * hidden,)),
    }


def gpt3_latencies(phase: str) -> dict[str, tuple[float, float]]:
    """Row name -> (ours, measured) [s], with the overheads fitted to LLMCompass's separate operators."""
    prefix = {"prefill": "gpt3layer_prefill_b8_s2048_tp4:", "decode": "gpt3layer_decode_b8_tp4:"}[phase]
    measured = {
        row["op"].removeprefix(prefix): float(row["latency_s"])
        for row in reference_rows("llmcompass_a100.csv")
        if row["op"].startswith(prefix)
    }
    hardware, reports = a100(), llmcompass_reports()
    result = {}
    for name, (operator, calls, shape) in gpt3_layer(phase).items():
        overheads: Any = reports[operator].overheads
        if operator == "gemm":
            batch, m, n, k = shape
            one = gemm_latency_s(hardware, overheads, m, n, k, batch=batch)
        elif operator == "gelu":
            one = element_latency_s(hardware, overheads, operator, shape[0])
        else:
            one = row_latency_s(hardware, overheads, operator, *shape)
        result[name] = (calls * float(one), measured[name])
    return result


def shipped_overheads() -> dict[str, dict[str, dict[str, Any]]]:
    """The contents of data/overheads.toml as these fits give them; a test holds the file to it."""
    reports = llmcompass_reports()
    eager = {
        name: {
            **asdict(report.overheads),
            "fitted_on": f"all {report.rows} {name} rows of LLMCompass@2e015fd ae/figure5 (A100, fp16, PyTorch calls)",
        }
        for name, report in reports.items()
    }
    kernel: dict[str, dict[str, Any]] = {
        "gemm": {
            **asdict(vidur_gemm_fit()),
            "fitted_on": "llama2-7b products of vidur@7d47513 profiling/compute (A100; rows evenly spaced in size)",
        }
    }
    for name in ("rmsnorm", "add", "silu_mul"):
        kernel[name] = {
            **asdict(vidur_vector_fit(name)),
            "fitted_on": f"llama2-7b {name} rows of vidur@7d47513 profiling/compute (A100; rows evenly spaced in size)",
        }
    floor = vidur_vector_fit("rmsnorm")
    for name in ("softmax", "layernorm", "gelu"):
        kernel[name] = {
            "issue_s": floor.issue_s,
            "launch_s": floor.launch_s,
            "dram_efficiency": eager[name]["dram_efficiency"],
            "fitted_on": "not measured as a kernel: efficiency of the eager fit, fixed times of the rmsnorm kernel",
        }
    link = node_link()
    fitted_link = {
        "latency_s": link.latency_s,
        "bandwidth_bytes_per_s": link.bandwidth_bytes_per_s,
        "fixed_s": link.fixed_s,
        "fitted_on": "all-reduces on 2, 4 and 8 devices of one node, vidur@7d47513 profiling/network (A100 DGX), as a ring",
    }
    transferred = {
        kind: {
            name: {**values, "fitted_on": f"not measured: A100 values carried over ({values['fitted_on']})"}
            for name, values in operators.items()
        }
        for kind, operators in (("eager", eager), ("kernel", kernel))
    }
    return {"a100": {"eager": eager, "kernel": kernel, "link": fitted_link}, "h100": transferred}


def _held_out(operator: str, half: int) -> Outcome:
    report = llmcompass_reports()[operator]
    seen = report.rows - report.rows // 2 if half == 0 else report.rows // 2
    return Outcome(report.rows - seen, 100 * report.held_out[half])


def _vidur_gemm(operator: str) -> Outcome:
    rows = vidur_rows("llama3-8b", operator)
    return Outcome(len(rows), 100 * mean_error(a100(), rows, vidur_gemm_fit()))


def _vidur_vector(operator: str) -> Outcome:
    rows = vidur_rows("llama3-8b", operator)
    return Outcome(len(rows), 100 * mean_error(a100(), rows, vidur_vector_fit(operator)))


def _all_reduce_half(half: int) -> Outcome:
    count = len(all_reduce_rows(one_node=True)["size"])
    errors = all_reduce_errors(np.arange(count) % 2 == half)
    return Outcome(len(errors), float(100 * errors.mean()))


def _all_reduce_four() -> Outcome:
    errors = all_reduce_errors(all_reduce_rows(one_node=True)["devices"] != 4)
    return Outcome(len(errors), float(100 * errors.mean()))


def _two_nodes() -> Outcome:
    errors = two_node_errors()
    return Outcome(len(errors), float(100 * errors.mean()))


def _gpt3(phase: str) -> Outcome:
    latencies = gpt3_latencies(phase)
    ours, measured = (sum(pair[i] for pair in latencies.values()) for i in (0, 1))
    return Outcome(len(latencies), 100 * abs(ours / measured - 1))


def _halves(operator: str, title: str, goal: float, bounds: tuple[float, float], peer: str) -> tuple[Spec, ...]:
    def spec(half: int) -> Spec:
        seen, judged = ("first", "second") if half == 0 else ("second", "first")
        name = f"A100 {title}, {judged} half"
        return Spec(name, _LLMCOMPASS, "%", bounds[half], goal, peer, f"{seen} half of the rows", lambda: _held_out(operator, half))

    return spec(0), spec(1)


def _products(operator: str, bound: float, roofline: float) -> Spec:
    return Spec(
        f"A100 llama3-8b {operator}", _VIDUR, "%", bound, 15.0, f"{roofline} % data-sheet roofline", "llama2-7b products",
        lambda: _vidur_gemm(operator),
    )  # fmt: skip


def _vector(operator: str, bound: float) -> Spec:
    return Spec(f"A100 llama3-8b {operator}", _VIDUR, "%", bound, None, "", f"llama2-7b {operator}", lambda: _vidur_vector(operator))


SPECS: Final = (
    *_halves("gemm", "GEMM", 10.9, (2.9, 4.3), "10.9 % LLMCompass, all operators"),
    *_halves("softmax", "softmax", 9.4, (4.3, 5.6), "9.4 % LLMCompass, in sample"),
    *_halves("layernorm", "layernorm", 8.7, (2.2, 2.9), "8.7 % LLMCompass, in sample"),
    *_halves("gelu", "GELU", 5.5, (1.0, 1.0), "5.5 % LLMCompass, in sample"),
    _products("pre_proj", 8.5, 36.9),
    _products("post_proj", 8.5, 38.8),
    _products("up_proj", 6.2, 31.5),
    _products("down_proj", 6.4, 30.1),
    _vector("rmsnorm", 18.5),
    _vector("silu_mul", 8.1),
    _vector("add", 13.5),
    Spec("4 x A100 GPT-3 layer, prefill total", _LLMCOMPASS, "%", 1.7, None, "4.1 % LLMCompass, inference",
         "its separate operators", lambda: _gpt3("prefill")),
    Spec("4 x A100 GPT-3 layer, decode total", _LLMCOMPASS, "%", 6.0, None, "4.1 % LLMCompass, inference",
         "its separate operators", lambda: _gpt3("decode")),
    Spec("all-reduce in a node, odd rows", _VIDUR, "%", 11.1, None, "", "even rows", lambda: _all_reduce_half(0)),
    Spec("all-reduce in a node, even rows", _VIDUR, "%", 11.6, None, "", "odd rows", lambda: _all_reduce_half(1)),
    Spec("all-reduce on 4 devices", _VIDUR, "%", 14.8, None, "", "2 and 8 devices", _all_reduce_four),
    Spec("all-reduce across 2 nodes", _VIDUR, "%", 26.5, None, "", "every second row", _two_nodes),
)  # fmt: skip
