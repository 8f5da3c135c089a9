"""The engine's numbers fitted without one model, or without one GPU, and judged on exactly the runs that the fit did not see.

    python benchmarks/serving_holdout.py [--groups all,h100,...] [--rows 100] [--out serving_holdout.json]

All 34 numbers (16 for every engine and 6 of each; rank_wait belongs to pools apart) start at ``NEUTRAL``, which looks at no run, so that
nothing of a run left out is known: the shipped numbers were fitted to all of them. The loss is that of benchmarks/serving.py, the search
Gauss-Newton on logarithms with weights that make squares of absolute errors, on ``--rows`` of the runs that are seen, evenly over engine,
model, GPU and concurrency; the three numbers between client and engine then as in serving.py, on all runs that are seen. DeepSeek-V3 and
-R1 are one architecture and are left out together. An engine without a run that is seen (sglang without DeepSeek) takes the geometric
means of the others. ``all`` leaves nothing out: how far the search itself gets from the neutral start. About twenty CPU seconds a
group; a run that was stopped goes on from its file.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from serving import BOUNDS, CLIENT, TOML, client_terms, doubtful, fit_client, log_errors, measured, use

FloatArray = npt.NDArray[np.float64]

GROUPS = {
    "all": (),
    "Llama-3.1-70B": ("70B",),
    "Llama-3.1-8B": ("Llama-3.1-8B",),
    "gpt-oss-120b": ("gpt-oss",),
    "Qwen3-235B": ("Qwen3-235B",),
    "DeepSeek": ("DeepSeek",),
    "h100": ("h100",),
    "b200": ("b200",),
}
NEUTRAL = {
    "dram_efficiency": 0.7, "kv_efficiency": 0.7, "tensor_efficiency": 0.6, "expert_efficiency": 0.4, "attention_efficiency": 0.4,
    "four_bit_efficiency": 0.8, "half_rows": 128.0, "expert_half_rows": 32.0, "expert_skew": 0.5, "imbalance": 1.1, "link_efficiency": 0.4,
    "exchange_s": 5e-6, "product_s": 3e-6, "quantise_s": 1e-6, "mixture_s": 1e-5, "latent_s": 3e-5,
}  # fmt: skip
NEUTRAL_ENGINE = {"layer_s": 2e-5, "step_s": 1e-4, "sequence_s": 2e-5, "first_s": 2e-2, "prompt_token_s": 3e-6, "lag_steps": 2.0}
CUTS = (0.5, 1.0)  # of TPOT and TTFT, and the weight of TTFT, as in serving.py's loss
TTFT_WEIGHT = 0.25
ITERATIONS = 3


class Numbers:
    """The numbers as one vector of logarithms: those for every engine, then those of each engine."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.engines = tuple(document["engine"])
        self.names = [(None, name) for name in NEUTRAL] + [(e, name) for e in self.engines for name in NEUTRAL_ENGINE]
        starts = [NEUTRAL[name] if e is None else NEUTRAL_ENGINE[name] for e, name in self.names]
        bounds = [BOUNDS.get(name, (0.0, np.inf)) for _, name in self.names]
        self.start = np.log(np.array(starts))
        with np.errstate(divide="ignore"):
            self.low, self.high = (np.log(np.array([pair[i] for pair in bounds])) for i in (0, 1))

    def told(self, logs: FloatArray) -> dict[str, Any]:
        """The document that holds these numbers."""
        document = json.loads(json.dumps(self.document))
        for (e, name), value in zip(self.names, np.exp(logs).tolist(), strict=True):
            (document["overheads"] if e is None else document["engine"][e])[name] = value
        return document


def spread(rows: list[dict[str, str]], most: int) -> list[dict[str, str]]:
    """At most ``most`` rows, evenly over engine, model, GPU and concurrency."""
    order = sorted(rows, key=lambda r: (r["backend"], r["model_path"], r["system"], r["tp_size"], r["isl"], int(r["concurrency"])))
    return [order[i] for i in np.unique(np.linspace(0, len(order) - 1, most).round().astype(int))]


def residuals(rows: list[dict[str, str]], numbers: Numbers, logs: FloatArray) -> FloatArray:
    """ln(predicted / measured) of TPOT and TTFT (rows, 2)."""
    use(numbers.told(logs))
    ttft, tpot = log_errors(rows)
    return np.column_stack([tpot, ttft])


def fit(rows: list[dict[str, str]], numbers: Numbers) -> FloatArray:
    """See the head of the file."""
    engine = np.array([row["backend"] for row in rows])
    weight = np.array([0.5 if "DeepSeek" in row["model_path"] else 1.0 for row in rows])[:, None] * np.array([1.0, TTFT_WEIGHT])

    def loss_of(found: FloatArray) -> float:
        return float((weight * np.minimum(abs(found), CUTS)).sum() / weight[:, 0].sum())

    logs, step, damping = numbers.start.copy(), 0.05, 0.03
    found = residuals(rows, numbers, logs)
    best = loss_of(found)
    for turn in range(ITERATIONS):
        slopes = np.zeros((len(rows), 2, len(logs)))
        shared = [i for i, (e, _) in enumerate(numbers.names) if e is None]
        # An engine's number moves that engine's runs alone, so that one look moves it in all engines at once.
        own = [[i for i, (e, n) in enumerate(numbers.names) if e is not None and n == name] for name in NEUTRAL_ENGINE]
        for places in [[i] for i in shared] + own:
            other = logs.copy()
            sign = np.where(logs[places] + step > numbers.high[places], -step, step)
            other[places] += sign
            change = residuals(rows, numbers, other) - found
            for i, by in zip(places, sign, strict=True):
                mine = slice(None) if numbers.names[i][0] is None else engine == numbers.names[i][0]
                slopes[mine, :, i] = change[mine] / by
        # 1 / |error| makes squares of absolute errors; beyond its cut a run pulls less, and after the first turns hardly.
        pull = weight / np.maximum(abs(found), 0.03) * np.where(abs(found) > CUTS, 1.0 if turn < 3 else 0.1, 1.0)
        flat, pulls, errors = slopes.reshape(-1, len(logs)), pull.ravel(), found.ravel()
        curvature = flat.T @ (pulls[:, None] * flat)
        slope = flat.T @ (pulls * errors)
        scale = np.diag(curvature) + 1e-3 * np.diag(curvature).max()
        for _ in range(4):
            move = -np.linalg.solve(curvature + damping * np.diag(scale), slope)
            trial = np.clip(logs + np.clip(move, -1.0, 1.0), np.maximum(numbers.low, -30.0), numbers.high)
            seen = residuals(rows, numbers, trial)
            if (value := loss_of(seen)) < best:
                gain, best, logs, found, damping = best - value, value, trial, seen, max(damping / 4, 1e-3)
                break
            damping *= 4
        else:
            break
        print(f"  turn {turn + 1}: loss {best:.4f}", flush=True)
        if gain < 5e-4:
            break
    return logs


def fitted(rows: list[dict[str, str]], numbers: Numbers, most: int) -> dict[str, Any]:
    """The document fitted to these rows."""
    document = numbers.told(fit(spread(rows, most), numbers))
    use(document)
    terms, engine_of = client_terms(rows), np.array([row["backend"] for row in rows])
    weight = np.array([0.5 if "DeepSeek" in row["model_path"] else 1.0 for row in rows])
    seen = [e for e in numbers.engines if (engine_of == e).any()]
    for e in seen:
        own, values = engine_of == e, document["engine"][e]
        values |= dict(zip(CLIENT, fit_client(terms[own], weight[own], np.array([values[k] for k in CLIENT])).tolist(), strict=True))
    for e in set(numbers.engines) - set(seen):
        for name in NEUTRAL_ENGINE:
            document["engine"][e][name] = float(np.exp(np.mean([np.log(document["engine"][s][name] + 1e-9) for s in seen])))
    return document


def main() -> None:
    """Fit and judge every group; print a line each and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--out", default="serving_holdout.json")
    args = parser.parse_args()
    clean = [row for row in measured() if row["mode"] == "agg" and not doubtful(row)]
    numbers = Numbers(tomllib.loads(TOML.read_text()))
    shipped = numbers.document
    answer: dict[str, Any] = json.loads(Path(args.out).read_text()) if Path(args.out).exists() else {}
    for name in (name for name in args.groups.split(",") if name not in answer):
        begin, words = time.process_time(), GROUPS[name]
        hit = [any(word in row[k] for word in words for k in ("model_path", "system")) for row in clean]
        seen = [row for row, h in zip(clean, hit, strict=True) if not h]
        judged = [row for row, h in zip(clean, hit, strict=True) if h] or clean
        document = fitted(seen, numbers, args.rows)
        lines = {}
        for told, which in (("without it", document), ("as shipped", shipped)):
            use(which)
            ttft, tpot = (np.exp(errors) - 1 for errors in log_errors(judged))
            lines[told] = {
                "tpot_error_pct": 100 * float(np.median(abs(tpot))),
                "tpot_ratio": 1 + float(np.median(tpot)),
                "ttft_error_pct": 100 * float(np.median(abs(ttft))),
                "ttft_ratio": 1 + float(np.median(ttft)),
                "errors": [ttft.tolist(), tpot.tolist()],
            }
            x = lines[told]
            print(
                f"{name:14} {told:11} n {len(judged):3}: TPOT {x['tpot_error_pct']:.1f} % ({x['tpot_ratio']:.2f}), "
                f"TTFT {x['ttft_error_pct']:.1f} % ({x['ttft_ratio']:.2f})",
                flush=True,
            )
        answer[name] = {"n": len(judged), "cpu_s": time.process_time() - begin, "numbers": document, **lines}
        Path(args.out).write_text(json.dumps(answer, indent=1))
    for kind, members in (("models", [g for g in GROUPS if g not in ("all", "h100", "b200")]), ("GPUs", ["h100", "b200"])):
        if all(m in answer for m in members):
            ttft, tpot = (np.concatenate([answer[m]["without it"]["errors"][i] for m in members]) for i in (0, 1))
            print(f"unseen {kind}, {len(tpot)} runs: TPOT {100 * np.median(abs(tpot)):.1f} %, TTFT {100 * np.median(abs(ttft)):.1f} %")


if __name__ == "__main__":
    main()
