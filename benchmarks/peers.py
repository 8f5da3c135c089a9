"""Peer tools and ours on the same products in one run: process seconds a product, and the ratio to ours.

    python benchmarks/peers.py [--tool scalesim] [--environments DIR] [--json FILE]

Each tool lives in an environment of its own (they conflict in numpy and Python versions), made on first use under
build/peers; a tool that cannot be installed is left out with the reason. What is compared with what:

* scalesim simulates traces; beside it stands `hw_models.systolic.gemm.gemm_counts`, which returns the same counts (checked here).
* zigzag-dse and accelforge search mappings; beside them stands our mapping search (`hw_models.costs.evaluate.unit_costs`) on an
  accelerator of the same array and capacity, one thread. The three models differ, so their cycles are shown, not compared.

Times are process CPU times without imports and a first product (compilation, caches); ratios are of one run on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).resolve().parent / "peer_scripts"
ARRAY = {"rows": 64, "columns": 64, "dataflow": "ws", "ifmap_kib": 512, "filter_kib": 512, "ofmap_kib": 256}
# From the BERT work list: attention scores, a projection of one token, and two shapes that no array size divides. SCALE-Sim
# takes minutes for the large products.
PRODUCTS = {"scores": (512, 512, 64), "gemv_qkv": (1, 768, 768), "odd_33": (33, 65, 129), "odd_7": (7, 1000, 10)}


@dataclass(frozen=True)
class Tool:
    """A peer: what to install, on which Python, and what of ours does the same kind of work."""

    name: str
    requirements: tuple[str, ...]
    python: str
    ours: str


TOOLS = (
    Tool("scalesim", ("scalesim==3.0.0", "numpy==1.26.*"), "python3.11", "closed form"),
    Tool("zigzag", ("zigzag-dse==3.9.1", "six"), "python3.11", "mapping search"),
    Tool("accelforge", ("accelforge==1.0.467",), "python3.12", "mapping search"),
)


def interpreter(wanted: str) -> str | None:
    """Path of a working ``wanted`` (python3.12, ...), or None."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable] if wanted == own else []
    candidates += [found] if (found := shutil.which(wanted)) else []
    candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{wanted.removeprefix('python')}*/bin/python")))
    for path in candidates:
        if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def environment(tool: Tool, folder: Path) -> Path | str:
    """Python of the tool's environment, made if need be, or the reason why there is none."""
    python = folder / tool.name / "bin" / "python"
    if python.exists() and _imports(python, tool):
        return python
    base = interpreter(tool.python)
    if base is None:
        return f"{tool.python} is not on this machine"
    commands = (
        [base, "-m", "venv", str(folder / tool.name)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *tool.requirements],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()
            return f"cannot be installed: {reason[-1] if reason else 'no reason given'}"
    return python


def _imports(python: Path, tool: Tool) -> bool:
    return subprocess.run([str(python), "-c", f"import {tool.name}"], capture_output=True, check=False).returncode == 0


def run_peer(tool: Tool, python: Path, products: dict[str, tuple[int, int, int]]) -> list[dict[str, Any]] | str:
    """The tool's answers, the first product run once more before them and left out; or the reason why there are none."""
    cases = [{**ARRAY, "m": m, "n": n, "k": k} for m, n, k in products.values()]
    lines = "\n".join(json.dumps(case) for case in [cases[-1], *cases])
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    # Some tools leave drawings where they run.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(python), str(SCRIPTS / f"{tool.name}_gemms.py")], cwd=folder,
            input=lines, capture_output=True, text=True, check=False, env=one_thread, timeout=3600,
        )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(answers) != len(cases) + 1:
        reason = done.stderr.strip().splitlines()
        return f"failed: {reason[-1] if reason else 'no reason given'}"
    return answers[1:]


def seconds(function: Callable[[], Any]) -> float:
    """Process seconds of one call: the median of five runs that take a twentieth of a second each."""
    function()
    calls, spent = 1, 0.0
    while spent < 0.05:
        start = time.process_time()
        for _ in range(calls):
            function()
        spent = time.process_time() - start
        calls *= 4
    calls = max(calls // 4, 1)
    runs = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(calls):
            function()
        runs.append((time.process_time() - start) / calls)
    return statistics.median(runs)


def closed_form(m: int, n: int, k: int) -> dict[str, float]:
    """Our counts of a product: cycles, seconds of one call, and seconds of a design inside a call for a million."""
    from hw_models.systolic.gemm import gemm_counts

    counts = gemm_counts(m, n, k, **ARRAY)
    million = np.full(1_000_000, m)
    start = time.process_time()
    gemm_counts(million, n, k, **ARRAY)
    batched = (time.process_time() - start) / len(million)
    return {"cycles": float(counts.cycles), "s": seconds(lambda: gemm_counts(m, n, k, **ARRAY)), "batched_s": batched}


def mapping_search(products: dict[str, tuple[int, int, int]]) -> dict[str, dict[str, float]]:
    """Our mapping search on an accelerator of the same array and capacity: cycles and seconds, one thread."""
    from hw_models.costs.evaluate import unit_costs
    from hw_models.spaces.files import read_document
    from workloads.ops import Kind, Operation, OperationTable

    kib = ARRAY["ifmap_kib"] + ARRAY["filter_kib"] + ARRAY["ofmap_kib"]
    design: Any = read_document(
        {
            "name": "peer", "cores": 1, "frequency_hz": 625e6, "node_nm": 22.0, "voltage_v": 0.8,
            "array": {"rows": ARRAY["rows"], "columns": ARRAY["columns"], "kind": "systolic", "dataflow": "ws"},
            "vector": {"lanes": ARRAY["columns"]},
            "levels": [
                {"name": "sram", "kib": kib, "words_per_cycle": 512},
                {"name": "dram", "kind": "lpddr4", "gib": 1, "words_per_cycle": 128},
            ],
        },
        where="benchmarks/peers.py",
    )  # fmt: skip
    hardware = design.batch()
    found = {}
    for name, (m, n, k) in products.items():
        table = OperationTable.from_rows([Operation(name, Kind.GEMM, m=m, n=n, k=k, second_is_weight=True)])

        def search(table: OperationTable = table) -> Any:
            return unit_costs(table, hardware, criterion="latency", threads=1)

        latency = float(search().latency_s[0, 0])
        found[name] = {"cycles": latency * design.frequency_hz, "s": seconds(search)}
    return found


def compare(tool: Tool, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a product: the peer's time and ours, and their ratio."""
    rows = []
    searched = mapping_search(PRODUCTS) if tool.ours == "mapping search" else {}
    for (name, shape), answer in zip(PRODUCTS.items(), answers, strict=True):
        ours = searched.get(name) or closed_form(*shape)
        row: dict[str, Any] = {
            "tool": tool.name,
            "product": name,
            "m_n_k": shape,
            "peer_s": answer["process_s"],
            "ours": tool.ours,
            "ours_s": ours["s"],
            "ratio": answer["process_s"] / ours["s"],
            "peer_cycles": answer.get("cycles", answer.get("total_cycles", 0) + 1),
            "ours_cycles": ours["cycles"],
        }
        if "batched_s" in ours:
            row["ratio_batched"] = answer["process_s"] / ours["batched_s"]
            assert row["peer_cycles"] == row["ours_cycles"], row  # the same counts, or the times mean nothing
        rows.append(row)
    return rows


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", action="append", choices=[t.name for t in TOOLS], help="this tool only (repeatable)")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers", help="folder of the environments")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    args.environments.mkdir(parents=True, exist_ok=True)

    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for tool in TOOLS:
        if args.tool and tool.name not in args.tool:
            continue
        python = environment(tool, args.environments)
        answers = run_peer(tool, python, PRODUCTS) if isinstance(python, Path) else python
        if isinstance(answers, str):
            skipped[tool.name] = answers
        else:
            rows += compare(tool, answers)
    print(f"{'tool':11} {'product':9} {'peer [s]':>10} {'ours [s]':>10} {'ratio':>9} {'batched':>11}  ours is")
    for r in rows:
        batched = f"{r['ratio_batched']:,.0f}" if "ratio_batched" in r else "-"
        times = f"{r['peer_s']:10.3f} {r['ours_s']:10.2e} {r['ratio']:9,.0f} {batched:>11}"
        print(f"{r['tool']:11} {r['product']:9} {times}  {r['ours']}")
    for name, reason in skipped.items():
        print(f"{name:11} skipped: {reason}")
    if args.json:
        args.json.write_text(json.dumps({"array": ARRAY, "rows": rows, "skipped": skipped}, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
