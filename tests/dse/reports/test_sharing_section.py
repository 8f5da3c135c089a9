"""Where the report says that sharing pays: the same figures as single evaluations, and the rule by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dse
from dse import api
from dse.analysis.sharing import _against, sharing
from dse.storage import run_folder


def test_each_grouping_stands_against_multi_head_attention_on_the_same_hardware(tmp_path: Path) -> None:
    dse.search("music", objective="latency", hw="a100", out=tmp_path / "run", threads=1)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="sharing"') :]
    section = section[: section.index("</section>")]
    assert 'href="#sharing"' in page
    rows = {row[0]: row for row in (re.findall(r"<td[^>]*>(.*?)</td>", r) for r in re.findall(r"<tr>(.*?)</tr>", section)) if row}
    assert set(rows) == {
        *("gqa4", "gqa2", "mqa", "shared", "attribute", "mixed"),
        *("shared, 1,000 merged tokens", "mqa, 1,000 merged tokens"),
    }
    base, masked = (api.evaluate("music", "a100", fixed={"grouping": g})["latency_s"] for g in (0, 5))
    found = {(row.grouping, row.merges): row for row in sharing(run_folder.load(tmp_path / "run"), 1)}
    assert found["attribute", 0].saved["latency_s"] == pytest.approx(1 - masked / base, rel=1e-9)
    assert found["attribute", 0].verdict == "saves nothing"  # groups that hold different tokens are launched one by one on a GPU
    assert "prediction, not a measurement" not in page  # it is measured


def test_the_rule() -> None:
    base = {"grouping": 0, "bpe_vocabulary": 0, "quality": 100.0, "quality_se": 0.0, "latency_s": 1.0, "energy_j": 1.0, "total_kgco2e": 1.0}

    def verdict(quality: float, latency_s: float) -> str:
        return _against({**base, "grouping": 3, "quality": quality, "quality_se": 0.5, "latency_s": latency_s}, base, ["latency_s"]).verdict

    assert verdict(99.1, 0.9) == "pays"
    assert verdict(98.9, 0.9) == "costs quality"
    assert verdict(101.0, 0.995) == verdict(90.0, 1.2) == "saves nothing"


def test_no_section_without_groupings(tmp_path: Path) -> None:
    dse.search("bert-tiny", objective="carbon", hw="a100", out=tmp_path / "run", threads=1)
    assert 'id="sharing"' not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
