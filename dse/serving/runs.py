"""Measured serving runs: a table of configurations in, the same rows with predicted TTFT and TPOT out.

The columns are those of aiconfigurator's silicon sample. What its labels leave open is decided by stated rules (docs/models/
serving.md): how the load was driven, which labels of mixtures are wrong, and which rows look like unlabelled speculation.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from dse_kernels.serving import Requests

from dse.errors import DseError, unknown_name
from dse.serving import sheet as sheets
from dse.serving.model import served_model
from dse.serving.simulation import Setup, run, uniform_lengths
from dse.serving.steps import Parallelism

NEEDED = ("backend", "model_path", "system", "precision", "mode", "isl", "osl")
ADDED = ("ttft_ms", "tpot_ms", "note")
PROMPTS_PER_SLOT = 10  # requests of a run over its concurrency
LENGTH_RATIO = 0.8  # lengths drawn evenly from [0.8 L, L]
MAX_REQUESTS = 20_000

# Names in the table -> (workload of the library, bits of the KV cache under quantised weights).
MODELS: dict[str, tuple[str, int]] = {
    "deepseek-r1": ("deepseek-v3", 8),
    "deepseek-v3": ("deepseek-v3", 8),
    "gpt-oss-120b": ("gpt-oss-120b", 16),
    "gpt-oss-20b": ("gpt-oss-20b", 16),
    "llama-3.1-70b": ("llama3-70b", 8),
    "llama-3.3-70b": ("llama3-70b", 8),
    "llama-3.1-8b": ("llama3-8b", 8),
    "meta-llama-3.1-8b": ("llama3-8b", 8),
    "qwen3-235b-a22b": ("qwen3-235b-a22b", 8),
    "qwen3-30b-a3b": ("qwen3-30b-a3b", 8),
    "qwen3-32b": ("qwen3-32b", 8),
    "qwen3-8b": ("qwen3-8b", 8),
    "qwen3-14b": ("qwen3-14b", 8),
    "qwen3.5-397b-a17b": ("qwen3.5-397b-a17b", 8),
    "kimi-k2": ("kimi-k2", 8),
    "kimi-k2.5": ("kimi-k2", 8),
    "minimax-m2": ("minimax-m2", 8),
    "minimax-m2.5": ("minimax-m2", 8),
    "minimax-m2.7": ("minimax-m2", 8),
    "glm-5": ("glm-5", 8),
    "mixtral-8x7b": ("mixtral-8x7b", 8),
}
_SUFFIX = re.compile(r"(-instruct.*|-chat|-thinking.*|-base|-fp8.*|-nvfp4.*|-fp4.*|-mxfp4.*|-0528.*|-0324.*|-\d{4}|-it)$")
BITS = {"": 16, "bf16": 16, "fp16": 16, "bfloat16": 16, "float16": 16, "fp8": 8, "int8": 8, "fp4": 4, "nvfp4": 4, "mxfp4": 4, "int4": 4}
STAND_INS = ("qwen3.5-397b-a17b",)
FIXED_SOURCE = "gap-analysis"  # runs of another origin: full lengths, right labels
_CONCURRENCY = re.compile(r"silicon_concurrency=(\d+)")
_MEASURED = re.compile(r"measured=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class Run:
    """One row, its labels repaired.

    Attributes:
        fixed_lengths: every prompt and output has the full length. note: what was repaired or looks wrong.
    """

    setup: Setup
    concurrency: int
    prompt: int
    output: int
    fixed_lengths: bool
    note: str


def predict_file(source: str | Path, target: str | Path) -> int:
    """Write the rows of ``source`` with ``ttft_ms``, `tpot_ms` [ms] and ``note`` to ``target``; returns their number.

    A row that cannot be simulated (model or system unknown, a configuration that does not fit) keeps its place with empty values
    and the reason in ``note``. Raises DseError for a file that is no such table, with the line.
    """
    rows, columns = read_rows(source)
    with Path(target).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*columns, *(name for name in ADDED if name not in columns)])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, **predict_row(row)})
    return len(rows)


def read_rows(source: str | Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table of runs and its columns."""
    path = Path(source)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            for name in NEEDED:
                if name not in columns:
                    raise DseError(f"{path}, line 1: column {name!r} is missing, columns must hold {', '.join(NEEDED)}")
            rows = []
            for line, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise DseError(f"{path}, line {line}: {len(row)} values, must be {len(columns)} as line 1 names")
                rows.append(row)
    except OSError as error:
        raise DseError(f"table of runs {str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DseError(f"{path} is not a text file: byte {error.start} is no UTF-8") from error
    if not rows:
        raise DseError(f"{path} holds no run, must hold at least one")
    return rows, columns


def predict_row(row: Mapping[str, str]) -> dict[str, str]:
    """The added columns of one row."""
    try:
        case = run_of(row)
        ttft_ms, tpot_ms = predict(case)
    except ValueError as error:
        return {"ttft_ms": "", "tpot_ms": "", "note": str(error)}
    return {"ttft_ms": f"{ttft_ms:.4f}", "tpot_ms": f"{tpot_ms:.5f}", "note": case.note}


@functools.lru_cache(maxsize=8192)
def predict(case: Run) -> tuple[float, float]:
    """Mean TTFT and TPOT [ms] of a run: a burst of ``concurrency`` requests, then a closed loop."""
    count = min(PROMPTS_PER_SLOT * case.concurrency, MAX_REQUESTS)
    ratio = 1.0 if case.fixed_lengths else LENGTH_RATIO
    prompt, output = uniform_lengths(case.prompt, ratio, count, 1), uniform_lengths(case.output, ratio, count, 2)
    served = run(case.setup, Requests(np.zeros(count), prompt, output), concurrency=case.concurrency)
    tpot = float(np.nanmean(served.tpot_s)) if case.output > 1 else 0.0
    return float(served.ttft_s.mean()) * 1e3, tpot * 1e3


def run_of(row: Mapping[str, str]) -> Run:
    """A row with its labels repaired; DseError for names that are not known."""
    model, kv = _model(row["model_path"])
    hw = _system(row["system"])
    label = row["precision"].strip().lower()
    if label not in BITS:
        raise unknown_name("precision", label, [name for name in BITS if name])
    bits = BITS[label]
    source = row.get("silicon_data_source", "")
    prompt, output = _whole(row, "isl"), _whole(row, "osl")
    notes: list[str] = []
    common: dict[str, Any] = {
        "model": model,
        "hw": hw,
        "engine": row["backend"].strip().lower(),
        "weight_bits": bits,
        "kv_bits": kv if bits < 16 else 16,
    }
    if Path(model).stem in STAND_INS:
        notes.append("the model is a stand-in")
    if row["mode"].strip() == "disagg":
        prefill, decode = _layout(row, "prefill_", notes), _layout(row, "decode_", notes)
        workers, decoders = _whole(row, "prefill_num_workers", 1), _whole(row, "decode_num_workers", 1)
        setup = Setup(**common, parallel=prefill, replicas=workers, decode_parallel=decode, decode_replicas=decoders)
        slots = _whole(row, "decode_batch_size", 1) * decoders * decode.dp
        if not workers_labelled(row):
            notes.append("workers of the pools are not labelled: one of each assumed")
    else:
        layout = _layout(row, "", notes)
        setup = Setup(**common, parallel=layout)
        slots = _whole(row, "batch_size", 1) * layout.dp
    driven = _CONCURRENCY.search(source)
    concurrency = int(driven[1]) if driven else slots
    if unlabelled_speculation(row):
        notes.append("looks like unlabelled speculative decoding")
    return Run(setup, max(concurrency, 1), prompt, output, FIXED_SOURCE in source, "; ".join(notes))


def workers_labelled(row: Mapping[str, str]) -> bool:
    """Whether a run with pools apart says how many workers each has; without that its load a worker is not known."""
    return all(row.get(name, "").strip().lower() not in ("", "nan") for name in ("prefill_num_workers", "decode_num_workers"))


def unlabelled_speculation(row: Mapping[str, str]) -> bool:
    """Whether a run looks like multi-token prediction that no column tells: DeepSeek's on one version and one day."""
    if "deepseek" not in row["model_path"].lower():
        return False
    day = _MEASURED.search(row.get("silicon_data_source", ""))
    return row.get("backend_version", "") == "1.2.0rc6.post3" or (day is not None and day[1] == "2026-01-14")


def _model(path: str) -> tuple[str, int]:
    name = path.strip().rsplit("/", 1)[-1].lower()
    while name not in MODELS and (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    if name not in MODELS:
        raise unknown_name("model_path", path, MODELS)
    workload, kv = MODELS[name]
    if workload in STAND_INS:
        with as_file(files("dse") / "data" / "serving_models" / f"{workload}.toml") as file:
            return str(file), kv
    return workload, kv


def _system(name: str) -> str:
    plain = name.strip().lower().replace("_", "-")
    plain = re.sub(r"-sxm\d?$", "", plain)
    if plain not in sheets.names():
        raise unknown_name("system", name, sheets.names())
    return plain


def _whole(row: Mapping[str, str], column: str, missing: int = 0) -> int:
    text = row.get(column, "").strip()
    if not text or text.lower() == "nan" or (missing and text in ("0", "0.0")):
        if missing:
            return missing
        raise DseError(f"{column} is empty, must be a whole number from 1")
    try:
        value = float(text)
    except ValueError:
        raise DseError(f"{column} is {text[:40]!r}, must be a whole number from 1") from None
    if not (1 <= value < 2**53 and value == int(value)):
        raise DseError(f"{column} is {text[:40]!r}, must be a whole number from 1")
    return int(value)


def _layout(row: Mapping[str, str], side: str, notes: list[str]) -> Parallelism:
    """Chips of a replica. In rows of InferenceX moe_tp = moe_ep > 1 is a mapping error: the chips are moe_ep, and so is the
    product of attention's ranks."""
    tp, pp, dp = (_whole(row, side + name, 1) for name in ("tp_size", "pp_size", "attention_dp_size"))
    moe_tp, ep = _whole(row, side + "moe_tp_size", 1), _whole(row, side + "moe_ep_size", 1)
    model = served_model(_model(row["model_path"])[0])
    if model.mixture is None:
        return Parallelism(tp, pp, dp)
    if moe_tp == ep > 1 and FIXED_SOURCE not in row.get("silicon_data_source", ""):
        notes.append(f"{side}moe_tp = moe_ep = {ep} read as {ep} chips")
        return Parallelism(1, pp, ep, ep, 1) if dp > 1 else Parallelism(ep, pp, 1, ep, 1)
    if moe_tp * ep != tp * dp:
        # Without a label for the mixture its experts are cut like the rest of the model.
        ep = ep if (tp * dp) % ep == 0 else 1
        moe_tp = tp * dp // ep
    return Parallelism(tp, pp, dp, ep, moe_tp)
