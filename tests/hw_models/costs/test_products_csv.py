"""CSV in, CSV out: products on designs, whole workloads on designs, and errors that name line and column."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hw_models import spaces as templates
from hw_models.costs.evaluate import unit_costs
from hw_models.costs.products_csv import evaluate_gemms
from hw_models.errors import HardwareError
from workloads.ops import Kind, Operation, OperationTable

HEADER = "cores,width,depth,l2_kib,l2_words_per_cycle,glb_mib,batch,m,n,k\n"
ROWS = "4,64,16,256,64,4,1,512,768,768\n4,64,16,256,64,4,12,512,512,64\n1,128,32,64,128,2,12,197,197,64\n1,128,32,64,128,2,1,1,1000,768\n"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("profile", [None, "catransformers22"])
def test_products_equal_the_unit_costs(tmp_path: Path, profile: str | None) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(HEADER + ROWS)
    assert evaluate_gemms(source, "edge22", profile, target) == 4
    written = rows_of(target)
    template = templates.load("edge22", profile=profile or "default")
    for row in written:
        sizes = {name: int(row[name]) for name in ("batch", "m", "n", "k")}
        table = OperationTable.from_rows([Operation("x", Kind.GEMM, second_is_weight=False, **sizes)])
        design = template.batch(**{name: int(row[name]) for name in template.knobs})
        unit = unit_costs(table, design)
        latency = float(unit.latency_s[0, 0])
        assert float(row["latency_s"]) == latency
        assert float(row["cycles"]) == pytest.approx(latency * 625e6, rel=1e-15)
        assert float(row["energy_j"]) == pytest.approx(float(unit.energy_j[0, 0] + design.leakage_w[0] * latency), rel=1e-14)
        assert row["bound"] == unit.bound_names[unit.bound[0, 0]]
        peak = int(row["cores"]) * int(row["width"]) * int(row["depth"])
        assert float(row["utilisation"]) == pytest.approx(int(table.macs()) / (float(row["cycles"]) * peak), rel=1e-14)
        assert row["mapping"].startswith("cores m")
        assert "glb tile" in row["mapping"]


def test_values_for_all_rows_and_a_shared_operand(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("batch,m,n,k,shared_weights,frequency_hz\n8,16,256,256,1,1e9\n8,16,256,256,0,1e9\n")
    defaults = {"cores": 4, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}
    evaluate_gemms(source, "edge22", None, target, defaults=defaults)
    shared, own = rows_of(target)
    assert float(shared["energy_j"]) < float(own["energy_j"])
    assert float(shared["cycles"]) == pytest.approx(float(shared["latency_s"]) * 1e9, rel=1e-12)


def test_a_file_of_a_single_design(tmp_path: Path) -> None:
    source, target, npu = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "npu.toml"
    knobs = {"cores": 4, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}
    npu.write_text(templates.load("edge22").accelerator(**knobs).to_toml())
    source.write_text("batch,m,n,k,note\n".replace(",note", "") + "1,64,64,64\n")
    assert evaluate_gemms(source, npu, None, target) == 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEADER + ROWS.replace("768,768", "768,0"), ("line 2", "k = 0", "from 1")),
        (HEADER + ROWS.replace("512,64\n", "512,x\n"), ("line 3", "k = 'x'")),
        (HEADER + ROWS.replace("197,197", "197,19.5"), ("line 4", "n = 19.5")),
        (HEADER + ROWS.replace("768,768", f"768,{2**63}"), ("line 2", "k = a number of 64 bits", "to 2^62")),
        (HEADER.replace("width", "widht") + ROWS, ("widht", "did you mean 'width'")),
        (HEADER.replace("width,", "") + "4,16,256,64,4,1,512,768,768\n", ("needs a column for width",)),
        (HEADER.replace(",k", "") + "4,64,16,256,64,4,1,512,768\n", ("column 'k' is missing",)),
        (HEADER + "4,64,16,256,64,4,1,512,768\n", ("line 2", "9 cells under 10 columns")),
        (HEADER + "4,640,16,256,64,4,1,512,768,768\n", ("line 2", "width = 640", "nearest valid: 256")),
        (HEADER, ("at least one row",)),
        ("m,m,n,k\n1,1,1,1\n", ("'m' twice",)),
    ],
)
def test_bad_files(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    source = tmp_path / "in.csv"
    source.write_text(text)
    with pytest.raises(HardwareError) as caught:
        evaluate_gemms(source, "edge22", None, tmp_path / "out.csv")
    for part in parts:
        assert part in str(caught.value)
    assert "in.csv" in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("sizes", ["1099511627776,1099511627776,64,64", "4294967296,4294967296,2,2", "1,2097152,2097152,2097152"])
def test_products_too_large_to_count(tmp_path: Path, sizes: str) -> None:
    """Batch times m alone is beyond int64 in the second: the kernel folds them."""
    source = tmp_path / "in.csv"
    source.write_text(HEADER + "4,64,16,256,64,4," + sizes + "\n")
    with pytest.raises(HardwareError, match="too large to count"):
        evaluate_gemms(source, "edge22", None, tmp_path / "out.csv")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="does not exist"):
        evaluate_gemms(tmp_path / "none.csv", "edge22", None, tmp_path / "out.csv")
    source = tmp_path / "in.csv"
    source.write_text(HEADER + ROWS)
    with pytest.raises(HardwareError, match="cannot be written"):
        evaluate_gemms(source, "edge22", None, tmp_path / "missing" / "out.csv")
    with pytest.raises(HardwareError, match="did you mean 'edge22'"):
        evaluate_gemms(source, "edge2", None, tmp_path / "out.csv")
