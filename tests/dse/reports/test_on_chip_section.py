"""What the files of a run say of tensors that stay on chip: the report, the designs, the same figures as the evaluation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import dse
from dse import api

SMALL = {"cores": 1, "width": 64, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept") / "run"
    dse.search("bert-tiny", objective="carbon", fixed=SMALL, residency="weights", out=out, threads=1)
    return out


def test_a_table_says_where_each_result_of_the_recommended_design_lives(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="on-chip"') :]
    section = section[: section.index("</section>")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", section)]
    (scores,) = [row for row in rows if row[:1] == ["scores"]]
    # 2 heads x 512 x 512 words of 8 bits, made in each of two layers.
    assert scores == ["scores", "512 KiB", "2", "", ""]
    assert "of the DRAM traffic" in section
    assert 'href="#on-chip"' in page


def test_files_of_designs_say_what_is_kept_and_what_that_saves(folder: Path) -> None:
    document = tomllib.loads((folder / "designs" / "design-0001.toml").read_text(encoding="utf-8"))
    kept = document["design"]["on_chip"]
    found = api.evaluate("bert-tiny", str(folder / "designs" / "design-0001.toml"), residency="weights")
    assert found["energy_j"] == document["design"]["metrics"]["energy_j"]  # a front's numbers are those of one design
    assert kept["saved"] == found["residency"]["saved"]
    alone = api.evaluate("bert-tiny", str(folder / "designs" / "design-0001.toml"), residency="none")
    dynamic = {name: sum(part[name] for part in alone["components"]) for name in ("latency_s", "energy_j", "dram_bytes")}
    taken = {name: sum(part[name] for part in found["components"]) for name in dynamic}
    for name, value in kept["saved"].items():
        assert value == pytest.approx(dynamic[name] - taken[name], rel=1e-9)
    assert "scores" in kept["never_in_dram"]


def test_nothing_is_said_where_nothing_is_kept(tmp_path: Path) -> None:
    dse.search("bert-tiny", objective="carbon", fixed={**SMALL, "l2_kib": 64}, residency="none", out=tmp_path / "run", threads=1)
    assert 'id="on-chip"' not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "on_chip" not in (tmp_path / "run" / "designs" / "design-0001.toml").read_text(encoding="utf-8")
