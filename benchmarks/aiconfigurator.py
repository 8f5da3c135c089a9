"""AIConfigurator's estimator beside ours on the same measured serving runs, labels repaired alike.

    python -m venv other && other/bin/pip install aiconfigurator==0.12.0
    python benchmarks/aiconfigurator.py --program other/bin/aiconfigurator [--rows 24] [--out aiconfigurator.json]

Every k-th run in one pool without suspected drafts; `aiconfigurator cli estimate` with the row's model, system, backend, layout and
requests in flight a rank, its latest measured kernel tables, lengths as labelled. What it refuses is counted. Four CPU seconds a row.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import serving

from dse.serving import runs
from dse.serving.model import served_model

# Names under which it keeps configurations of its own.
KNOWN_AS = {"meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B"}


def estimate(program: str, row: dict[str, str]) -> tuple[float, float] | str:
    """TTFT and TPOT [ms] of a row, or why there are none."""
    case = runs.run_of(row)
    p = case.setup.parallel
    words = {
        "model-path": KNOWN_AS.get(row["model_path"], row["model_path"]),
        "system": row["system"],
        "backend": row["backend"],
        "isl": case.prompt,
        "osl": case.output,
        "batch-size": max(case.concurrency // p.dp, 1),
        "tp-size": p.tp,
        "pp-size": p.pp,
        "attention-dp-size": p.dp,
    }
    if served_model(case.setup.model).mixture:
        words |= {"moe-tp-size": p.moe_tp, "moe-ep-size": p.ep}
    # Models whose own configuration does not say it: products in 8 bits, or in 4 of NVIDIA's format.
    quantised = {"fp8": "fp8", "fp4": "nvfp4"}.get(row["precision"])
    if quantised and "Llama" in row["model_path"]:
        words["gemm-quant-mode"] = quantised
    command = [program, "cli", "estimate", "--no-color", *(part for name, value in words.items() for part in (f"--{name}", str(value)))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return "no answer in 300 s"
    found = [re.search(rf"{name}:\s+([\d.,]+) ms", done.stdout + done.stderr) for name in ("TTFT", "TPOT")]
    if found[0] is None or found[1] is None:
        return ((done.stderr or done.stdout).strip().splitlines() or ["no answer"])[-1][:160]
    return float(found[0][1].replace(",", "")), float(found[1][1].replace(",", ""))


def main() -> None:
    """Print and write both errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--out", default="aiconfigurator.json")
    args = parser.parse_args()
    clean = [row for row in serving.measured() if row["mode"] == "agg" and not serving.doubtful(row)]
    chosen = clean[:: max(len(clean) // args.rows, 1)][: args.rows]
    told: list[dict[str, Any]] = []
    for row in chosen:
        theirs = estimate(args.program, row)
        real = float(row["silicon_ttft_ms"]), float(row["silicon_tpot_ms"])
        ours = runs.predict(runs.run_of(row))
        names = {k: row[k] for k in ("backend", "model_path", "system", "precision", "concurrency")}
        told.append({**names, "measured_ms": real, "ours_ms": ours, "theirs_ms": theirs})
        print(told[-1], flush=True)
        Path(args.out).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    both = [t for t in told if not isinstance(t["theirs_ms"], str)]
    print(f"{len(both)} of {len(told)} rows estimated")
    for name in ("theirs_ms", "ours_ms"):
        errors = [np.median([abs(t[name][i] / t["measured_ms"][i] - 1) for t in both]) for i in (1, 0)]
        print(f"{name}: median error TPOT {100 * errors[0]:.1f} %, TTFT {100 * errors[1]:.1f} %")


if __name__ == "__main__":
    main()
