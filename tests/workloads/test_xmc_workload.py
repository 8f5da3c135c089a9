"""The workload `xmc`: what its table says is what its operations cost, and a search of it knows measured quality."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from dse import api
from workloads import library
from workloads.errors import WorkloadError
from workloads.ops import Kind
from workloads.xmc.workload import KNOBS

TABLE = Path(__file__).parents[2] / "workloads" / "xmc" / "wordnet_hypernyms.csv"
OWN = {"ngrams": 2, "branch": 16, "leaf": 100, "threshold_milli": 100, "weight_bits": 32, "beam": 10}
ENGINE = {"cores": 1, "lanes": 16, "tree_sram_kib": 1024, "gather_line_bytes": 64}


def _lines(**knobs: int) -> list[dict[str, str]]:
    with TABLE.open() as stream:
        return [line for line in csv.DictReader(stream) if all(int(line[k]) == v for k, v in knobs.items())]


def test_operations_are_the_lines_of_the_table() -> None:
    table = library.load("xmc").build().phases[0].table
    lines = _lines(**OWN)
    assert len(table) == len(lines) == 3 and (table.kind == Kind.SPARSE_BEAM).all()
    for row, line in zip(table.rows(), lines, strict=True):
        assert row.sparse_macs == round(float(line["macs"])) and row.unique_lines == round(float(line["unique_lines"]))
        assert row.parameters == int(line["stored"])
        assert row.m * row.n == pytest.approx(float(line["labels_scored"]), rel=0.05)
    assert int(table.table_bytes[-1]) == sum(int(line["bytes"]) for line in lines)
    # The weights with their index, to the rounding of bits a weight.
    assert float(table.weight_bytes()) == pytest.approx(sum(int(line["bytes"]) for line in lines), rel=0.02)


def test_many_trees_at_once_are_the_trees_one_by_one() -> None:
    family = library.load("xmc-wordnet")
    grid = family.model_grid()
    assert set(grid) == set(KNOBS) and len(grid["beam"]) == len({tuple(int(line[k]) for k in KNOBS) for line in _lines()})
    many = family.build(**grid).phases[0].table
    for i in range(0, len(grid["beam"]), 17):
        one = family.build(**{k: int(v[i]) for k, v in grid.items()}).phases[0].table
        assert float(np.sum(many.model(i).row_macs())) == float(np.sum(one.row_macs()))
        assert int((many.model(i).repeat > 0).sum()) == len(one)


def test_trees_that_were_not_measured_are_refused() -> None:
    with pytest.raises(WorkloadError, match=r"no tree was measured with .*beam=11; nearest is .*beam=10"):
        library.load("xmc").build(beam=11)


def test_int8_and_pruning_take_less_and_beams_find_more() -> None:
    def recall(**changed: int) -> float:
        return float(_lines(**{**OWN, **changed})[0]["recall_100"])

    def size(**changed: int) -> int:
        return sum(int(line["bytes"]) for line in _lines(**{**OWN, **changed}))

    assert size(weight_bits=8) < 0.7 * size() and abs(recall(weight_bits=8) - recall()) < 0.5
    assert size(threshold_milli=300) < size(threshold_milli=200) < size()
    assert recall(beam=40) > recall(beam=20) > recall() > recall(beam=5)


@pytest.mark.parametrize("objective", ["latency", "carbon"])
def test_a_search_gives_a_front(tmp_path: Path, objective: str) -> None:
    run = api.search(api.make_problem("xmc", objective, hw="lookup", fixed=ENGINE), out=tmp_path / "run", threads=1)
    front = run.pareto()
    assert len(front) > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The measured quality" in page and "Quality was measured, model by model" in page and '"measured":true' in page


def test_recall_against_latency_is_a_front_of_models_and_machines(tmp_path: Path) -> None:
    problem = api.make_problem("xmc", ["max:quality", "min:latency_s", "min:area_mm2"], hw="lookup", fixed=ENGINE)
    front = api.search(problem, out=tmp_path / "run", threads=1).pareto()
    assert front["quality"].nunique() > 5 and front["banks"].nunique() > 1
    best = front.sort_values("latency_s")
    assert best["quality"].iloc[0] < best["quality"].max()
    assert set(np.round(front["quality"], 3)) <= {round(float(line["recall_100"]), 3) for line in _lines()}
