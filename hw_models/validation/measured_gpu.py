"""Rows that the project measured itself on an H100: products, attention, whole models, energy and idle power. Nothing is fitted to them.

measured_gpu.csv is what benchmarks/gpu_models.py wrote (its columns: what, model, method, shape, time of a call, of the same row of a
run before (``first_us``), of seconds of calls (``sustained_us``), energy of a call, mean power, clock, temperature, card, driver, torch,
date). Ours is what `evaluate` gives under the device's default engine; products as lists of them are costed (copies that caches may hold),
attention with a cold cache, as within a model. Methods: `graph` replays a CUDA graph, `eager` issues each call from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from hw_models.accelerator.fields import Launch
from hw_models.costs.evaluate import evaluate
from hw_models.costs.gpu_kernels import attention
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.parameters import family
from hw_models.costs.gpu_kernels.sheet import sheet_of
from hw_models.costs.kernels import ISSUE_S, times_of
from hw_models.devices import library as devices
from hw_models.validation.registry import Outcome, Spec, reference_rows
from workloads import library
from workloads.ops import Kind, Operation, OperationTable

FILE: Final = "measured_gpu.csv"
DEVICE: Final = "h100"
POSITIONS: Final = 8192
"""Of Llama-3-8B; a prompt that fills them is costed one token shorter, as a workload always generates one."""
KINDS: Final = ("product", "prefill attention", "decode attention", "encode", "prefill", "decode", "idle", "call")
"""Values of the column ``what``: kernels alone, models (an encoder's pass, a prompt, a decode step), the board, the host."""


@dataclass(frozen=True)
class Figure:
    """One measured quantity beside ours, in ``unit`` (us, J, W)."""

    what: str
    method: str
    shape: str
    quantity: str
    unit: str
    measured: float
    ours: float

    @property
    def ratio(self) -> float:
        """Ours over measured."""
        return self.ours / self.measured


def _product_us(row: Mapping[str, str]) -> float:
    m, n, k = (int(row[name]) for name in "mnk")
    one = Operation("product", Kind.GEMM, m, n, k, second_is_weight=True, input_bits=16, weight_bits=16, output_bits=16)
    return 1e6 * float(times_of(OperationTable.from_rows([one]), devices.load(DEVICE).accelerator.batch(), 0, warm=True).latency_s[0])


def _attention_us(row: Mapping[str, str]) -> float:
    sheet = sheet_of(devices.load(DEVICE).accelerator.batch(), 0)
    batch, keys, heads, kv_heads, head = (int(row[name]) for name in ("batch", "keys", "heads", "kv_heads", "head_elements"))
    chosen = choice(sheet)
    if row["what"] == "decode attention":
        times = attention.decode_times(sheet, family(chosen.decode("bf16"), kind="decode"), batch, heads, kv_heads, keys, head)
    else:
        kernel = family(chosen.prefill("bf16"), kind="prefill")
        times = attention.prefill_times(sheet, kernel, batch, heads, kv_heads, keys, head, writes_cache=False)
    return 1e6 * float(times.latency_s)


@cache
def _model(model: str, what: str, batch: int, queries: int, keys: int, launch: Launch) -> tuple[float, float]:
    """Time [us] and energy [J] of a pass, a prompt, or a step whose token sees ``keys`` positions, its own included."""
    design = replace(devices.load(DEVICE).accelerator, launch=launch)
    knobs: dict[str, int | bool] = {"batch": batch, "weight_bits": 16, "activation_bits": 16, "fused_attention": True}
    if what != "encode":
        knobs |= {"kv_bits": 16, "new_tokens": 1}
    positions = keys - 1 if what == "decode" else min(queries, POSITIONS - 1)
    workload = library.load(model).build(sequence=positions, **knobs)
    if what == "encode":
        cost = evaluate(design, workload)
    else:
        cost = evaluate(design, workload.phases[-1 if what == "decode" else 0].table)
    return 1e6 * float(cost.latency_s), float(cost.energy_j)


def _figures_of(row: Mapping[str, str]) -> list[Figure]:
    what, method = row["what"], row["method"]
    if what == "idle":
        return [Figure(what, method, "", "power", "W", float(row["power_w"]), devices.load(DEVICE).accelerator.leakage_w or 0.0)]
    measured = float(row["latency_us"])
    if what == "call":
        return [Figure(what, method, "", "time", "us", measured, 1e6 * ISSUE_S)]
    if what == "product":
        return [Figure(what, method, " x ".join(row[name] for name in "mnk"), "time", "us", measured, _product_us(row))]
    if what in ("prefill attention", "decode attention"):
        shape = f"{row['batch']} x {row['keys']}, {row['heads']}/{row['kv_heads']} heads of {row['head_elements']}"
        return [Figure(what, method, shape, "time", "us", measured, _attention_us(row))]
    batch, queries, keys = (int(row[name]) for name in ("batch", "queries", "keys"))
    launch = Launch.EAGER if method.startswith("eager") else Launch.GRAPH
    ours_us, ours_j = _model(row["model"], what, batch, queries, keys, launch)
    shape = f"{row['model']}, {batch} x {keys}"
    found = [Figure(what, method, shape, "time", "us", measured, ours_us)]
    if row["energy_j"]:
        found.append(Figure(what, method, shape, "energy", "J", float(row["energy_j"]), ours_j))
    return found


@cache
def figures() -> tuple[Figure, ...]:
    """Every measured quantity with ours, in the order of the file."""
    return tuple(figure for row in reference_rows(FILE) for figure in _figures_of(row))


HEADER: Final = ("what", "method", "shape", "quantity", "measured", "ours", "ratio")


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the texts of one line."""
    shown = [f"{value:,.0f} {figure.unit}" if value >= 1000 else f"{value:.3g} {figure.unit}" for value in (figure.measured, figure.ours)]
    return (figure.what, figure.method, figure.shape, figure.quantity, *shown, f"{figure.ratio:.2f}")


def markdown(shown: Sequence[Figure]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cells(figure)) + " |" for figure in shown]
    return "\n".join(lines) + "\n"


def _mean(choose: Callable[[Figure], bool]) -> Outcome:
    chosen = [abs(figure.ratio - 1) for figure in figures() if choose(figure)]
    return Outcome(len(chosen), 100 * sum(chosen) / len(chosen))


def _spec(name: str, bound: float, goal: float | None, choose: Callable[[Figure], bool]) -> Spec:
    source = "this project, one H100 80GB HBM3, torch 2.11.0"
    return Spec(
        f"H100 measured by us, {name}", source, "%", bound, goal, "", "nothing of it: kernels of A100 and H100", lambda: _mean(choose)
    )


def _graph(what: str, quantity: str) -> Callable[[Figure], bool]:
    return lambda figure: figure.what == what and figure.method == "graph" and figure.quantity == quantity


SPECS: Final = (
    _spec("bf16 products, cuBLAS in a graph", 8.3, 9.0, _graph("product", "time")),
    _spec("decode attention of torch", 6.8, 16.0, _graph("decode attention", "time")),
    _spec("prefill attention of torch (FlashAttention-2; ours is 3)", 27.1, None, _graph("prefill attention", "time")),
    _spec("BERT-large in a graph, latency", 5.2, 15.0, _graph("encode", "time")),
    _spec("BERT-large in a graph, energy", 18.8, 25.0, _graph("encode", "energy")),
    _spec("Llama-3-8B prompts in a graph, latency", 9.3, 15.0, _graph("prefill", "time")),
    _spec("Llama-3-8B prompts in a graph, energy", 17.0, 25.0, _graph("prefill", "energy")),
    _spec("Llama-3-8B decode steps in a graph, latency", 1.6, 15.0, _graph("decode", "time")),
    _spec("Llama-3-8B decode steps in a graph, energy", 5.7, 25.0, _graph("decode", "energy")),
    _spec("both models eagerly, latency", 33.6, None, lambda f: f.method == "eager"),
    _spec("idle board without a context", 5.9, 25.0, lambda f: f.what == "idle" and f.method == "no context"),
    _spec("idle board with a context open", 38.5, 25.0, lambda f: f.what == "idle" and f.method != "no context"),
)
