"""Predicted against measured serving runs: errors by group, on configurations not fitted, and the speed of the engine.

    python benchmarks/serving.py                       # the shipped numbers against the 1,036 runs of tests/reference/serving
    python benchmarks/serving.py --fit half            # fit on half of the configurations, judge the other half
    python benchmarks/serving.py --fit without:h100    # fit without the rows whose system, model or backend holds the word, judge those
    python benchmarks/serving.py --fit all --write     # what dse/data/serving.toml holds
    python benchmarks/serving.py --fit client --write  # then its numbers between client and engine; also judged on rows left out

Loss: mean of min(|ln TPOT error|, 0.5) + 0.25 min(|ln TTFT error|, 1), DeepSeek's rows at half weight, coordinate search over the
logarithms. The three numbers between client and engine (first_s, prompt_token_s, lag_steps) add to the first token alone and are
fitted after that with errors cut at 0.35, so that runs whose recipe is not labelled do not pull. rank_wait was chosen on runs with
pools apart that name their workers. Rows that look like unlabelled speculative decoding and gpt-oss at 512 in flight (faster than
at 64) are left out of fits.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
import tomllib
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from dse_kernels.serving import Requests
from scipy.optimize import minimize

from dse.serving import engines, runs
from dse.serving.simulation import Setup, run, uniform_lengths

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "tests" / "reference" / "serving" / "silicon_runs.csv"
TOML = ROOT / "dse" / "data" / "serving.toml"
SHARES = ("dram_efficiency", "kv_efficiency", "tensor_efficiency", "expert_efficiency", "attention_efficiency", "link_efficiency")
BOUNDS = dict.fromkeys(SHARES, (0.0, 0.95)) | {
    "four_bit_efficiency": (0.0, 1.0),
    "expert_skew": (0.0, 1.5),
    "imbalance": (1.0, 1.8),
    "expert_half_rows": (1.0, math.inf),
}
FIXED = ("chunked", "mixed", "reserve", "token_budget", "poll_low", "poll_high")
CONFIGURATION = ("backend", "model_path", "system", "precision", "tp_size", "moe_tp_size", "moe_ep_size", "attention_dp_size")
GROUPS = ("system", "model_path", "backend", "mode", "concurrency")


def measured() -> list[dict[str, str]]:
    """Rows of one pool or two, runs that stand under two labels once; with the concurrency as a column."""
    seen, rows = set(), []
    table_rows = sorted(csv.DictReader(RUNS.read_text().splitlines()), key=lambda row: not runs.workers_labelled(row))
    for row in table_rows:
        # One run stands under two labels with its last digits rounded otherwise; the row that names its workers is kept.
        key = (f"{float(row['silicon_ttft_ms']):.9g}", f"{float(row['silicon_tpot_ms']):.9g}")
        if key not in seen:
            seen.add(key)
            case = runs.run_of(row)
            rows.append({**row, "concurrency": str(case.concurrency)})
    return rows


def doubtful(row: dict[str, str]) -> bool:
    """Rows that no fit sees."""
    return runs.unlabelled_speculation(row) or ("gpt-oss" in row["model_path"] and row["concurrency"] == "512")


def use(document: dict[str, Any]) -> None:
    """Let the simulation take its numbers from ``document``."""
    engines._document = lambda: document  # type: ignore[assignment]
    for cached in (engines.overheads, engines.engine, runs.predict):
        cached.cache_clear()


def log_errors(rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """ln(predicted / measured) of TTFT and TPOT, shape (rows,) each."""
    found = np.array([runs.predict(runs.run_of(row)) for row in rows])
    real = np.array([[float(row["silicon_ttft_ms"]), float(row["silicon_tpot_ms"])] for row in rows])
    with np.errstate(divide="ignore"):
        both = np.log(found / real)
    return both[:, 0], both[:, 1]


def loss(rows: list[dict[str, str]], document: dict[str, Any]) -> float:
    """See the head of the file."""
    use(document)
    ttft, tpot = log_errors(rows)
    weight = np.array([0.5 if "DeepSeek" in row["model_path"] else 1.0 for row in rows])
    each = np.minimum(abs(tpot), 0.5) + 0.25 * np.minimum(abs(ttft), 1.0)
    return float((weight * each).sum() / weight.sum())


def fit(rows: list[dict[str, str]], document: dict[str, Any], cpu_s: float) -> dict[str, Any]:
    """Coordinate search from ``document`` for ``cpu_s`` seconds of processor time."""
    places = [("overheads", None, name) for name in document["overheads"]]
    places += [("engine", e, name) for e, values in document["engine"].items() for name in values if name not in FIXED]
    step = dict.fromkeys(places, 0.25)
    best, begin = loss(rows, document), time.process_time()
    while time.process_time() - begin < cpu_s and max(step.values()) > 0.02:
        for place in places:
            for sign in (1, -1):
                trial = json.loads(json.dumps(document))
                table = trial[place[0]] if place[1] is None else trial[place[0]][place[1]]
                low, high = BOUNDS.get(place[2], (0.0, math.inf))
                table[place[2]] = min(max(table[place[2]] * math.exp(sign * step[place]), low), high)
                if trial != document and (value := loss(rows, trial)) < best - 1e-6:
                    best, document, step[place] = value, trial, step[place] * 1.3
                    break
            else:
                step[place] /= 2
        print(f"loss {best:.4f} after {time.process_time() - begin:.0f} s", flush=True)
    return document


CLIENT = ("first_s", "prompt_token_s", "lag_steps")
CLIENT_CUT = 0.35


def client_terms(rows: list[dict[str, str]]) -> np.ndarray:
    """Of each run: first token in the engine, mean prompt, mean decode step, measured first token (rows, 4) [s, tokens, s, s]."""
    found = []
    for row in rows:
        case = runs.run_of(row)
        count = min(runs.PROMPTS_PER_SLOT * case.concurrency, runs.MAX_REQUESTS)
        ratio = 1.0 if case.fixed_lengths else runs.LENGTH_RATIO
        prompt, output = uniform_lengths(case.prompt, ratio, count, 1), uniform_lengths(case.output, ratio, count, 2)
        o = run(case.setup, Requests(np.zeros(count), prompt, output), concurrency=case.concurrency).outcome
        step = (o.last_s - o.first_s) / np.maximum(output - 1, 1)
        found.append(((o.first_s - o.arrival_s).mean(), prompt.mean(), step.mean(), float(row["silicon_ttft_ms"]) / 1e3))
    return np.array(found)


def fit_client(terms: np.ndarray, weight: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The three numbers of one engine that bring first tokens near the measured ones: cut absolute log errors, simplex search."""

    def loss_of(logs: np.ndarray) -> float:
        first, per_token, lag = np.exp(logs)
        error = np.log((terms[:, 0] + first + per_token * terms[:, 1] + lag * terms[:, 2]) / terms[:, 3])
        return float((weight * np.minimum(abs(error), CLIENT_CUT)).sum())

    logs = np.log(np.maximum(start, 1e-9))
    for _ in range(4):
        logs = minimize(loss_of, logs, method="Nelder-Mead", options={"maxiter": 2000}).x
    return np.where(np.exp(logs) < 1e-9, 0.0, np.exp(logs))


def client(rows: list[dict[str, str]], document: dict[str, Any]) -> dict[str, Any]:
    """Fit every engine's numbers, print how they do on halves of configurations and on models left out; returns the document."""
    use(document)
    terms = client_terms(rows)
    engine_of, model_of = (np.array([row[k] for row in rows]) for k in ("backend", "model_path"))
    half = np.array([zlib.crc32("|".join(row[k] for k in CONFIGURATION).encode()) % 2 for row in rows])
    weight = np.array([0.5 if "DeepSeek" in row["model_path"] else 1.0 for row in rows])

    def errors(numbers: np.ndarray, which: np.ndarray) -> list[float]:
        first, per_token, lag = numbers
        t = terms[which]
        return list(abs((t[:, 0] + first + per_token * t[:, 1] + lag * t[:, 2]) / t[:, 3] - 1))

    for name, groups in (("other half", half), ("model left out", model_of)):
        found: list[float] = []
        for value in np.unique(groups):
            for e, values in document["engine"].items():
                seen, judged = (engine_of == e) & (groups != value), (engine_of == e) & (groups == value)
                if judged.any() and seen.sum() >= 20:
                    found += errors(fit_client(terms[seen], weight[seen], np.array([values[k] for k in CLIENT])), judged)
        print(f"TTFT, {name} (step times as shipped): median error {100 * np.median(found):.1f} % of {len(found)} rows")
    for e, values in document["engine"].items():
        own = engine_of == e
        values |= dict(zip(CLIENT, fit_client(terms[own], weight[own], np.array([values[k] for k in CLIENT])).tolist(), strict=True))
    return document


def table(rows: list[dict[str, str]], title: str) -> list[dict[str, Any]]:
    """Print median |error| and median ratio of TPOT and TTFT by group; returns the lines."""
    ttft, tpot = log_errors(rows)
    lines = []
    for group in ("all", *GROUPS):
        by = defaultdict(list)
        for i, row in enumerate(rows):
            by["all" if group == "all" else row[group]].append(i)
        for name, members in sorted(by.items(), key=lambda item: item[0].zfill(9) if item[0].isdigit() else item[0]):
            if group == "concurrency" and len(members) < 10:
                continue
            p, f = np.exp(tpot[members]), np.exp(ttft[members])
            lines.append(
                {
                    "rows": title,
                    "group": group,
                    "value": name,
                    "n": len(members),
                    "tpot_error_pct": 100 * float(np.median(abs(p - 1))),
                    "tpot_ratio": float(np.median(p)),
                    "ttft_error_pct": 100 * float(np.median(abs(f - 1))),
                    "ttft_ratio": float(np.median(f)),
                }
            )
    print(f"\n{title}\n{'group':12} {'value':36} {'n':>4} {'TPOT %':>7} {'ratio':>6} {'TTFT %':>7} {'ratio':>6}")
    for x in lines:
        print(
            f"{x['group']:12} {x['value'][:36]:36} {x['n']:4} {x['tpot_error_pct']:7.1f} {x['tpot_ratio']:6.2f} "
            f"{x['ttft_error_pct']:7.1f} {x['ttft_ratio']:6.2f}"
        )
    return lines


def written(document: dict[str, Any]) -> str:
    """The text of dse/data/serving.toml, its head kept."""
    head = [line for line in TOML.read_text().splitlines() if line.startswith("#")]

    def lines(values: dict[str, Any]) -> list[str]:
        return [f"{k} = {str(v).lower() if isinstance(v, bool) else v if isinstance(v, int) else f'{v:.4g}'}" for k, v in values.items()]

    parts = [*head, "", "[overheads]", *lines(document["overheads"])]
    for name, values in document["engine"].items():
        parts += ["", f"[engine.{name}]", *lines(values)]
    return "\n".join(parts) + "\n"


def speed() -> dict[str, float]:
    """100,000 requests of about 500 tokens on one core."""
    count = 100_000
    requests = Requests(np.zeros(count), uniform_lengths(500, 0.8, count, 1), uniform_lengths(550, 0.82, count, 2))
    begin = time.process_time()
    served = run(Setup("llama3-8b", "h100"), requests, concurrency=256)
    spent = time.process_time() - begin
    mean, steps = served.output.mean(), served.outcome.steps
    print(f"\n100,000 requests, mean output {mean:.0f} tokens: {spent:.2f} s of one core, {steps:,} engine steps")
    return {"cpu_s": spent, "engine_steps": float(served.outcome.steps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", metavar="all|half|without:WORD|client")
    parser.add_argument("--cpu-s", type=float, default=120.0, help="budget of the fit")
    parser.add_argument("--write", action="store_true", help="write dse/data/serving.toml")
    parser.add_argument("--out", default="serving.json")
    args = parser.parse_args()
    rows = measured()
    pool = [row for row in rows if row["mode"] == "agg"]
    clean = [row for row in pool if not doubtful(row)]
    results: dict[str, Any] = {}
    if args.fit:
        document = tomllib.loads(TOML.read_text())
        if args.fit == "half":
            sides = [zlib.crc32("|".join(row[k] for k in CONFIGURATION).encode()) % 2 for row in clean]
            seen, judged = ([row for row, side in zip(clean, sides, strict=True) if side == s] for s in (0, 1))
        elif args.fit.startswith("without:"):
            word = args.fit.removeprefix("without:")
            hit = [any(word in row[k] for k in ("system", "model_path", "backend")) for row in clean]
            seen, judged = ([row for row, h in zip(clean, hit, strict=True) if h is side] for side in (False, True))
        else:
            seen, judged = clean, clean
        document = client(seen, document) if args.fit == "client" else fit(seen, document, args.cpu_s)
        use(document)
        results["judged"] = table(judged, f"fit {args.fit}: rows judged")
        if args.write:
            TOML.write_text(written(document))
    else:
        results["clean"] = table(clean, "one pool, no suspected drafts")
        results["without_deepseek"] = table([r for r in clean if "DeepSeek" not in r["model_path"]], "the same without DeepSeek")
        results["doubtful"] = table([r for r in pool if doubtful(r)], "suspected drafts and runs that cannot be, shown apart")
        apart = [r for r in rows if r["mode"] == "disagg"]
        results["apart"] = table([r for r in apart if runs.workers_labelled(r)], "pools apart, workers labelled (drafts not)")
        results["unlabelled"] = table([r for r in apart if not runs.workers_labelled(r)], "pools apart, workers not labelled: one of each")
        results["speed"] = speed()
    Path(args.out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
