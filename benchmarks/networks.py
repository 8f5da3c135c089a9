"""ResNet-50, MobileNetV2 and EfficientNet-B0 on one design of edge22, layer by layer, beside SCALE-Sim and ZigZag.

    python benchmarks/networks.py [--run] [--tool scalesim] [--environments DIR] [--json FILE]

Without --run the table is made from what the tools answered (hw_models/data/reference/network_layers.csv); with it the tools run, each in
an environment of its own (made on first use under build/peers), and the file is written anew: about 2 minutes of ZigZag, 5 of SCALE-Sim.
What is the same and what is not: hw_models/validation/networks.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers

from hw_models.validation import networks

ROOT = Path(__file__).resolve().parents[1]
CSV = ROOT / "hw_models" / "data" / "reference" / networks.FILE
SCALESIM = ("total_cycles", "ifmap_sram_reads", "filter_sram_reads", "ofmap_sram_writes", "ifmap_dram_reads", "filter_dram_reads",
            "ofmap_dram_writes")  # fmt: skip
ZIGZAG = ("compute_cycles", "cycles_without_load_and_store", "cycles", "dram_read_words", "dram_write_words", "glb_words", "l2_words",
          "energy_pj")  # fmt: skip


def scalesim_case(shape: tuple[int, ...]) -> dict[str, Any]:
    """A layer as SCALE-Sim is told: padding is stored, one group stands for all."""
    high, channels, filters, taps, stride, groups = shape
    padded = high + 2 * ((taps - 1) // 2)
    return {
        "rows": networks.ROWS, "columns": networks.COLUMNS, "dataflow": "ws", **networks.SCALESIM_KIB,
        "convolution": [padded, padded, taps, taps, channels // groups, filters // groups, stride],
    }  # fmt: skip


def zigzag_case(shape: tuple[int, ...], ours: networks.Counts) -> dict[str, Any]:
    """A layer as ZigZag is told: our units along rows and columns, our memories and energies."""
    high, channels, filters, taps, stride, groups = shape
    out = networks.outputs(shape)
    per_group = channels // groups
    if groups > 1:  # what our dot-product array found: groups on one axis, outputs or taps on the other
        m, _, k = ours.unroll
        rest = _taps(taps, k) if k > 1 else _outputs(out, m)
        if ours.spread > networks.COLUMNS:  # both axes
            beyond = next((b for b in range(2, networks.ROWS + 1) if groups % b == 0 and groups // b <= networks.COLUMNS), 1)
            spatial = {"D1": [f"G, {min(networks.COLUMNS, groups // beyond)}"], "D2": [f"G, {beyond}"] if beyond > 1 else []}
        elif ours.spread == networks.COLUMNS:
            spatial = {"D1": [f"G, {min(ours.spread, groups)}"], "D2": rest}
        else:
            spatial = {"D1": rest, "D2": [f"G, {min(ours.spread, groups)}"] if ours.spread > 1 else []}
    elif per_group >= networks.ROWS:
        spatial = {"D1": [f"K, {min(filters, networks.COLUMNS)}"], "D2": [f"C, {networks.ROWS}"]}
    else:  # the first layer: rows take channels and as many taps of a row of the filter as there is room for
        along = min(taps, networks.ROWS // per_group)
        spatial = {"D1": [f"K, {min(filters, networks.COLUMNS)}"], "D2": [f"C, {per_group}", *([f"FX, {along}"] if along > 1 else [])]}
    batch = networks.accelerator("dot_product").batch()
    # Every multiply-accumulate here has an input written to its register, reads an input, a weight and a sum, and writes a sum; the tool
    # counts the weight's register itself.
    unit = float(batch.mac_pj[0] + 2 * batch.register_read_pj_per_word[0] + 2 * batch.register_write_pj_per_word[0])
    memories = [
        {
            "name": name, "bits": int(batch.level_bytes[0, i]) * 8,
            "read_bits": int(batch.level_read_words_per_cycle[0, i]) * 8, "write_bits": int(batch.level_write_words_per_cycle[0, i]) * 8,
            "read_pj": float(batch.level_read_pj_per_word[0, i]), "write_pj": float(batch.level_write_pj_per_word[0, i]),
            "double": bool(batch.level_double_buffered[i]),
        }
        for i, name in enumerate(batch.level_names)
    ]  # fmt: skip
    return {
        "name": str(shape), "axes": [networks.COLUMNS, networks.ROWS], "mac_pj": unit, "word_bits": 8,
        "register_pj": float(batch.register_read_pj_per_word[0]), "memories": memories, "stride": stride, "input": high,
        "sizes": {"G": groups, "K": filters // groups, "C": per_group, "OX": out, "OY": out, "FX": taps, "FY": taps},
        "pad": (taps - 1) // 2, "spatial": spatial, "lpf_limit": 5,
    }  # fmt: skip


def _taps(taps: int, units: int) -> list[str]:
    along = min(taps, units)
    return [f"FX, {along}"] + ([f"FY, {min(taps, units // along)}"] if units // along > 1 else [])


def _outputs(out: int, units: int) -> list[str]:
    """The rectangle of outputs, at most ``units``, that takes the fewest passes."""
    sides = [(a, b) for a in range(1, min(out, units) + 1) for b in range(1, min(out, units // a) + 1)]
    a, b = min(sides, key=lambda s: (-(-out // s[0]) * -(-out // s[1]), s[0] * s[1]))
    return [f"{name}, {side}" for name, side in (("OX", a), ("OY", b)) if side > 1]


def ask(tool: str, script: str, cases: list[dict[str, Any]], environments: Path) -> list[dict[str, Any]] | str:
    """The tool's answers, or the reason why there are none."""
    python = peers.environment(next(t for t in peers.TOOLS if t.name == tool), environments)
    if not isinstance(python, Path):
        return python
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(python), str(peers.SCRIPTS / script)], cwd=folder, input="".join(json.dumps(case) + "\n" for case in cases),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return answers if len(answers) == len(cases) else f"failed: {done.stderr.strip().splitlines()[-1:]}"


def zigzag_row(answer: dict[str, Any]) -> dict[str, float]:
    """The columns of a row from an answer; the DRAM reads towards the chip and writes what comes back."""
    dram = answer["words"]["dram"]
    return {
        **{name: answer[name] for name in ZIGZAG[:3]},
        "dram_read_words": sum(v["down"] for v in dram.values()), "dram_write_words": sum(v["from_below"] for v in dram.values()),
        **{f"{level}_words": sum(sum(v.values()) for v in answer["words"][level].values()) for level in ("glb", "l2")},
        "energy_pj": answer["energy_pj"],
    }  # fmt: skip


def run(tools: list[str], environments: Path) -> dict[str, str]:
    """Run the tools on every distinct layer and write the file; what failed, with the reason."""
    shapes = list(networks.layers())
    held = {tuple(int(row[c]) for c in networks.SHAPE): row for row in _read()}
    rows = [{**dict(zip(networks.SHAPE, shape, strict=True)), **networks.layers()[shape]} for shape in shapes]
    failed = {}
    grouped = [shape[5] > 1 for shape in shapes]
    ours = [
        networks.counts([shape], "dot_product" if many else "systolic_pipelined")[0] for shape, many in zip(shapes, grouped, strict=True)
    ]
    cases = {
        "scalesim": [scalesim_case(shape) for shape in shapes],
        "zigzag": [zigzag_case(shape, count) for shape, count in zip(shapes, ours, strict=True)],
    }
    for tool, columns in (("scalesim", SCALESIM), ("zigzag", ZIGZAG)):
        answers = ask(tool, {"scalesim": "scalesim_gemms.py", "zigzag": "zigzag_convolutions.py"}[tool], cases[tool], environments) \
            if tool in tools else "not asked"  # fmt: skip
        if isinstance(answers, str):
            failed[tool] = answers
        for i, shape in enumerate(shapes):
            if isinstance(answers, str):
                found: dict[str, Any] = {column: held.get(shape, {}).get(f"{tool}_{column}", "") for column in columns}
            else:
                found = zigzag_row(answers[i]) if tool == "zigzag" else {column: answers[i][column] for column in columns}
            if tool == "scalesim":
                rows[i]["scalesim_by"] = held.get(shape, {}).get("scalesim_by", "") if isinstance(answers, str) else "run"
            rows[i] |= {f"{tool}_{column}": _plain(found[column]) for column in columns}
    with CSV.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return failed


def _plain(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, float) else value


def _read() -> list[dict[str, str]]:
    if not CSV.exists():
        return []
    with CSV.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def main() -> int:
    """Run the tools if asked, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="ask the tools and write their answers")
    parser.add_argument("--tool", action="append", choices=("scalesim", "zigzag"), help="this tool only (repeatable)")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers", help="folder of the environments")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.run:
        options.environments.mkdir(parents=True, exist_ok=True)
        for tool, reason in run(options.tool or ["scalesim", "zigzag"], options.environments).items():
            print(f"{tool}: {reason}")
    print(networks.markdown(), end="")
    if options.json:
        rows = [dict(zip(networks.HEADER, row, strict=True)) for row in networks.cells()]
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
