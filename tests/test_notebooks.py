"""The notebooks run from top to bottom, are committed without outputs, and what their prose claims is what they compute."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

# Expressions over a notebook's names that its sentences rest on. Bounds leave room where the prose says "about".
CLAIMS: dict[str, list[str]] = {
    "01-first-pareto-front": [
        "study.summary.points == study.context['models'] * study.context['hardware_points']",
        "len(front) >= 20",
        # "at the top of the front the electricity dominates, at the bottom the device itself"
        "best['operational_kgco2e'] > best['embodied_kgco2e']",
        "front['embodied_kgco2e'].iloc[-1] > 5 * front['operational_kgco2e'].iloc[-1]",
        # "the package and the DRAM are most of it"
        "sum(study.designs[-1]['embodied_parts_kgco2e'][p] for p in ('memory', 'packaging')) > 0.5 * front['total_kgco2e'].iloc[-1]",
        "saving > 0.2 and frugal['quality'] >= best['quality'] - best['quality_se']",
        "{'study.db', 'pareto.csv', 'report.html', 'designs'} <= {path.name for path in study.path.iterdir()}",
    ],
    "02-carbon-latency-energy": [
        "len(table) >= 20",
        # "nearly a fifth", "as much", "for a quarter more energy"
        "0.15 < saving_over_latency.median() < 0.22",
        "abs(saving_over_energy.median() / saving_over_latency.median() - 1) < 0.05",
        "0.22 < extra_energy.median() < 0.28",
        "(saving_over_latency >= 0).all() and (saving_over_energy >= 0).all()",
        # "costs much speed"; "the same models end up on smaller accelerators"
        "slowdown.median() > 5",
        "(table['carbon', 'area_mm2'] < table['latency', 'area_mm2']).all()",
        # "much of that speed can be bought back for a few percent of carbon"
        "speed_up > 3",
    ],
    "03-embodied-operational": [
        # "whoever may choose takes the clean grid, and the smallest node"
        "set(free.pareto()['grid']) == {'france'} and set(free.pareto()['node_nm']) == {7}",
        # the shortcut is algebra: sums in another order differ by rounding alone
        "abs(direct['total_kgco2e'].iloc[0] / best(22, 'india', 8)['total_kgco2e'] - 1) < 1e-12",
        "best(22, 'iceland', 3)['embodied_share'] > 0.8 and best(22, 'india', 8)['embodied_share'] < 0.3",
        # "with one request a second the two are of one size"
        "0.3 < best(22, 'world', 3)['embodied_share'] < 0.7",
        # "on a clean grid doubling the life nearly halves the carbon of a request; on a dirty grid it helps less"
        "best(22, 'iceland', 2)['mg_per_1000_requests'] < 0.55 * best(22, 'iceland', 1)['mg_per_1000_requests']",
        "best(22, 'india', 8)['mg_per_1000_requests'] > 0.7 * best(22, 'india', 4)['mg_per_1000_requests']",
        "all(best(7, place, years)['total_kgco2e'] < best(22, place, years)['total_kgco2e'] for place in grids for years in lives)",
        # "a long life on a clean grid is worth more than any knob"
        "best(22, 'iceland', 8)['mg_per_1000_requests'] < 0.3 * best(22, 'world', 3)['mg_per_1000_requests']",
    ],
    "04-decode-against-prefill": [
        "not any(fits[1, bits] for bits in (16, 8, 4)) and fits[8, 8] and not fits[8, 16] and fits[16, 16]",
        # "prefill uses every weight five hundred times, decode once": attention adds a little, the embedding takes away
        "400 < phases['prefill'].macs() / phases['prefill'].weight_bytes() < 600",
        "0.8 < phases['decode'].macs() / phases['decode'].weight_bytes() < 1.2",
        # "prefill wants the largest array, decode is as fast on a fraction"
        "batch.tops[choices['for prefill']] == batch.tops.max()",
        "batch.tops[choices['for decode']] < batch.tops.max() / 50",
        "batch.area_mm2[choices['for decode']] < batch.area_mm2[choices['for prefill']] / 10",
        # "decode waits for the DRAM in everything that takes time; prefill, nearly everywhere, for the array"
        "all(e['bound'] == 'dram' for e in cost.evaluate(middling, phases['decode']).components().values() if e['latency_s'] > 1e-3)",
        "[cost.evaluate(middling, phases['prefill']).components()[n]['bound'] for n in ('attention', 'ffn')] == ['compute', 'compute']",
        # "the device chosen for decode is at balance": its array is busy and half the bandwidth halves its speed
        "costs['decode'].utilisation[choices['for decode']] > 0.9 and speeds['small'][40.0] < 0.6 * speeds['small'][80.0]",
        "speeds['small'][160.0] < 1.02 * speeds['small'][80.0] and speeds['middling'][160.0] > 1.8 * speeds['middling'][80.0]",
        # "the carbon hardly differs along most of the front"
        "front['total_kgco2e'].median() < 1.05 * front['total_kgco2e'].min() and front['latency_s'].min() < 0.2 * front['latency_s'].max()",
        "joules[4] < 0.6 * joules[8]",
    ],
    "07-which-gpu": [
        # "at 64 requests in flight a B200 is best in grams and in dollars; one at a time the older A100"
        "best['64 at once'] == 'b200' and by_load.loc['64 at once', 'usd_per_million_tokens'].idxmin() == 'b200'",
        "best['1 at once'] == 'a100' and by_load.loc['1 at once', 'usd_per_million_tokens'].idxmin() == 'a100'",
        "least.iloc[0] > 20 * least.iloc[-1] and grams.loc['64 at once'].max() < 2 * grams.loc['64 at once'].min()",
        # "a card that works one hour in twenty has about half of its grams behind it"
        "made.loc['sweden'].loc['5% busy', 'embodied_share'].between(0.4, 0.7).all()",
    ],
    "08-is-a-chiplet-greener": [
        # "at 800 mm2 four dies take about half"; "at 100 no difference"; "an interposer never pays below some 400"
        "0.45 < table.loc['four, organic', 800] / table.loc['one die', 800] < 0.65",
        "abs(table.loc['four, organic', 100] / table.loc['one die', 100] - 1) < 0.05",
        "(table.loc['four, interposer', [100, 200, 400]] > table.loc['one die', [100, 200, 400]]).all()",
        "yields['one die'] < 0.55 and yields['four, organic'] > 0.75",
        # "a mature process and generous links turn the sign"
        "saving(400, 1.3, 0.05) < 0 < saving(400, 1.1, 0.1)",
    ],
    "09-how-long-to-keep-a-server": [
        # "one for one never"
        "(kept['years'] == float('inf')).all() and (kept['new W'] > kept['old W']).all()",
        # "of four in the United States in under a year, in Sweden of eight in some two and of four not within a life"
        "(merged.loc['usa', '4 for 1'] < 1).all() and (merged.loc['sweden', '4 for 1'] > life).all()",
        "merged.loc['sweden', '8 for 1'].between(1.5, 3).all()",
        "4 < token_cost('llama3-8b', 'b200', 'usa', load=Load(), site=site).tokens_per_s / rate < 5",
    ],
    "06-operating-a-design": [
        # "more than half is gone before any carbon data are looked at"
        "all(made.row('now').grams < 0.5 * made.row('always-on').grams for made in found.values())",
        # "planning with an honest forecast saves nine tenths ... on New York's flat one there is little to save"
        "found['CISO'].row('mpc').share > 0.85 and saving['NYIS'] < 0.5 * saving['CISO']",
        "all(row.missed == 0 for made in (*found.values(), learnt) for row in made.rows)",
        "learnt.row('tree').share > 0.9 * learnt.row('mpc').share and tree.depth <= 4",
        # "the least carbon lies between"
        "smaller['chips'] <= smaller['chips_least_carbon'] <= smaller['chips_least_carbon_run_now'] == smaller['chips_run_now']",
        "smaller['chips_saved_share'] > 0.2 and smaller['grams_saved_share'] > 0",
    ],
    "05-your-own-onnx": [
        # products of the block: 4 of width x width, scores and context, the feed-forward and the head
        "workload.macs() == 98 * (4 * 128**2 + 2 * 98 * 128 + 8 * 128**2 + 128 * 12)",
        "study.pareto()['area_mm2'].nunique() == 1",
        "study.pareto()['embodied_kgco2e'].iloc[0] > 10 * study.pareto()['operational_kgco2e'].iloc[0]",
        "len(front) > len(study) and fastest['area_mm2'] > greenest['area_mm2']",
    ],
}

# What a notebook does with a cell: run it, and show the value of a last expression.
RUNNER = """
import ast, json, sys
cells, claims = json.load(sys.stdin)
names = {"__name__": "__main__"}
for number, source in enumerate(cells, 1):
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        print(len(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)))
failed = [claim for claim in claims if not eval(claim, names)]
if failed:
    sys.exit("not true: " + "; ".join(failed))
"""


def _cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_every_notebook_has_claims() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(CLAIMS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_has_no_outputs(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in _cells(path, "code"))
    first = "".join(_cells(path, "markdown")[0]["source"])
    assert first.startswith("# ") and "**Question.**" in first and "**Answer.**" in first
    for cell in _cells(path, "code"):
        ast.parse("".join(cell["source"]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_claims_hold(path: Path, tmp_path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in _cells(path, "code")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    begin = os.times()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=json.dumps([cells, CLAIMS[path.stem]]),
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False,
    )  # fmt: skip
    end = os.times()
    assert done.returncode == 0, done.stderr
    # Processor time, so that a busy machine fails no test: less than a minute of it is less than a minute on two cores.
    assert end.children_user + end.children_system - begin.children_user - begin.children_system < 60
