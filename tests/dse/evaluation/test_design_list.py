"""A CSV of whole designs: each row costs what the design costs by itself, and errors name their line."""

import csv
from pathlib import Path

import pytest

from dse import api
from dse.errors import UsageError
from dse.evaluation.design_list import evaluate_designs

HEADER = "layers,hidden,ffn,heads,cores,width,depth,l2_kib,l2_words_per_cycle,glb_mib"


def _cost(tmp_path: Path, text: str, **options: bool) -> list[dict[str, str]]:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(text)
    problem = api.make_problem("bert", "hardware", allow_unsupported=True)
    count = evaluate_designs(problem, str(source), str(target), allow_unsupported=options.get("allow_unsupported", False))
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert len(rows) == count
    return rows


def test_rows_equal_single_designs(tmp_path: Path) -> None:
    rows = _cost(tmp_path, f"{HEADER}\n6,384,1536,6,4,64,16,256,64,4\n2,128,512,2,4,64,16,256,64,4\n6,384,1536,6,1,32,2,64,32,2\n")
    for row in rows:
        alone = api.evaluate("bert", fixed={name: int(row[name]) for name in HEADER.split(",")}, residency="none")
        for name in ("latency_s", "energy_j", "area_mm2", "tops", "peak_power_w", "total_kgco2e", "quality"):
            assert float(row[name]) == alone[name], name


def test_settings_of_the_hardware_may_be_columns(tmp_path: Path) -> None:
    rows = _cost(tmp_path, "layers,hidden,ffn,heads,frequency_hz\n4,256,1024,4,625e6\n4,256,1024,4,400e6\n4,256,1024,4,625e6\n")
    fast, slow, again = (float(row["latency_s"]) for row in rows)
    assert fast == again
    assert slow > fast


def test_quality_without_support_is_left_empty_unless_allowed(tmp_path: Path) -> None:
    text = "layers,hidden,ffn,heads\n10,480,1920,6\n"
    (row,) = _cost(tmp_path, text)
    assert row["quality"] == ""
    assert row["quality_support"] == "extrapolated"
    (row,) = _cost(tmp_path, text, allow_unsupported=True)
    assert float(row["quality"]) > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hidden,heads\n480,12\n100,12\n", r"line 3: hidden of bert"),
        ("hiden,cores\n480,4\n", "did you mean 'hidden'"),
        ("hidden,heads,cores\n480,12,9\n", "cores"),
        ("hidden,heads\n480,twelve\n", "line 2"),
    ],
)
def test_errors_name_file_and_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _cost(tmp_path, text)


def test_usage_errors_have_their_exit_code(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        _cost(tmp_path, "hiden,cores\n480,4\n")
