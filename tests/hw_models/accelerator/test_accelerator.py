"""Designs as records, as files and as batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models import spaces as templates
from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import ArrayKind
from hw_models.accelerator.levels import MemoryLevel
from hw_models.errors import HardwareError

GOOD = """
name = "npu"
cores = 2
frequency_hz = 8e8
voltage_v = 0.8
node_nm = 22
[array]
rows = 16
columns = 32
kind = "systolic"
[vector]
lanes = 64
[[levels]]
name = "l2"
kib = 128
words_per_cycle = 64
per_core = true
[[levels]]
name = "dram"
kind = "lpddr4"
gib = 1
words_per_cycle = 32
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "npu.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_a_design(tmp_path: Path) -> None:
    design = Accelerator.from_toml(write(tmp_path, GOOD))
    assert (design.cores, design.array_rows, design.array_columns, design.vector_lanes) == (2, 16, 32, 64)
    assert design.array_kind is ArrayKind.SYSTOLIC
    assert [level.bytes for level in design.levels] == [128 * 1024, 1024**3]
    batch = design.batch()
    assert batch.tops[0] == pytest.approx(2 * 2 * 16 * 32 * 8e8 / 1e12, rel=1e-15)
    assert batch.dram_bytes_per_s[0] == 32 * 8e8


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("cores = 2", "cores = 0", ("npu.toml", "cores", "0", "1")),
        ("cores = 2", "cores = -4", ("npu.toml", "cores", "-4")),
        ("cores = 2", "cores = 2.5", ("npu.toml", "cores", "2.5", "whole")),
        ("cores = 2\n", "", ("npu.toml", "cores", "missing")),
        ("frequency_hz = 8e8", "frequency_hz = 8e14", ("npu.toml", "frequency_hz", "2e+10")),
        ("frequency_hz = 8e8", "frequency_hz = nan", ("npu.toml", "frequency_hz", "nan")),
        ("rows = 16", "rows = true", ("npu.toml", "array_rows", "True")),
        ("node_nm = 22", "node_nm = 0.5", ("npu.toml", "node_nm", "0.5")),
        ('kind = "systolic"', 'kind = "sistolic"', ("npu.toml", "sistolic", "did you mean 'systolic'")),
        ("kib = 128", "kib = 128\nbytes = 3", ("npu.toml", "levels.l2", "exactly one of")),
        ("kib = 128\n", "", ("npu.toml", "levels.l2", "exactly one of")),
        ("kib = 128", "kib = -1", ("npu.toml", "levels.l2.kib", "-1")),
        ("words_per_cycle = 64", "word_per_cycle = 64", ("npu.toml", "word_per_cycle", "did you mean 'words_per_cycle'")),
        ("words_per_cycle = 64\n", "", ("npu.toml", "levels.l2.read_words_per_cycle", "missing")),
        ('kind = "lpddr4"', 'kind = "lpddr44"', ("npu.toml", "lpddr44", "did you mean 'lpddr4'")),
        ("lanes = 64", "lane = 64", ("npu.toml", "lane", "did you mean 'lanes'")),
        ("cores = 2", "core = 2", ("npu.toml", "core", "did you mean 'cores'")),
        ('name = "npu"', 'profile = "defalt"', ("npu.toml", "defalt", "did you mean 'default'")),
    ],
)
def test_a_bad_field_is_named_with_its_file_and_remedy(tmp_path: Path, old: str, new: str, parts: tuple[str, ...]) -> None:
    assert old in GOOD
    with pytest.raises(HardwareError) as caught:
        Accelerator.from_toml(write(tmp_path, GOOD.replace(old, new)))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_levels_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="last level is the DRAM"):
        Accelerator.from_toml(write(tmp_path, GOOD.replace('kind = "lpddr4"\n', "")))
    with pytest.raises(HardwareError, match="no more than level dram"):
        Accelerator.from_toml(write(tmp_path, GOOD.replace("kib = 128", "gib = 2")))
    with pytest.raises(HardwareError, match="levels is missing"):
        Accelerator.from_toml(write(tmp_path, GOOD.split("[[levels]]", maxsplit=1)[0]))


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="does not exist"):
        Accelerator.from_toml(tmp_path / "nothing.toml")
    with pytest.raises(HardwareError, match="not valid TOML"):
        Accelerator.from_toml(write(tmp_path, "cores = = 2"))
    with pytest.raises(HardwareError, match="cannot be read"):
        Accelerator.from_toml(tmp_path)


def test_lists_in_a_file_are_a_space(tmp_path: Path) -> None:
    text = GOOD.replace("cores = 2", "cores = [1, 2]").replace("kib = 128", "kib = [64, 128, 256]")
    space = templates.load_file(write(tmp_path, text))
    assert not isinstance(space, Accelerator)
    assert space.knobs == {"cores": (1, 2), "l2_bytes": (65536, 131072, 262144)}
    batch = space.batch(**space.grid())
    assert batch.cores.tolist() == [1, 1, 1, 2, 2, 2]
    assert batch.level_bytes[:, 0].tolist() == [65536, 131072, 262144] * 2
    with pytest.raises(HardwareError, match=r"cores = 0 .*"):
        templates.load_file(write(tmp_path, text.replace("[1, 2]", "[1, 0]")))
    with pytest.raises(HardwareError, match="space of 6 designs"):
        Accelerator.from_toml(write(tmp_path, text))


def test_a_file_may_narrow_a_template(tmp_path: Path) -> None:
    text = 'template = "edge22"\n[knobs]\ncores = [1, 2]\nwidth = 64\n[settings]\nfrequency_hz = 5e8\n'
    space = templates.load_file(write(tmp_path, text))
    assert not isinstance(space, Accelerator)
    assert space.size == 2 * 1 * 6 * 3 * (5 * 6 - 3)
    assert set(space.batch(**space.grid()).frequency_hz) == {5e8}
    with pytest.raises(HardwareError, match=r"npu\.toml: unknown knob.*did you mean 'width'"):
        templates.load_file(write(tmp_path, text.replace("width", "widht")))


@given(
    cores=st.integers(1, 64),
    rows=st.integers(1, 512),
    columns=st.integers(1, 512),
    kib=st.integers(1, 8192),
    bandwidth=st.floats(0.1, 1e4),
    frequency=st.floats(1e6, 5e9),
    kind=st.sampled_from(ArrayKind),
    override=st.none() | st.floats(1e-3, 1e3),
    name=st.text(min_size=1, max_size=20).filter(str.isprintable),
)
def test_toml_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    cores: int,
    rows: int,
    columns: int,
    kib: int,
    bandwidth: float,
    frequency: float,
    kind: ArrayKind,
    override: float | None,
    name: str,
) -> None:
    design = Accelerator(
        name=name,
        cores=cores,
        array_rows=rows,
        array_columns=columns,
        vector_lanes=cores,
        levels=(
            MemoryLevel("l2", kib * 1024, bandwidth, bandwidth / 3, per_core=True, read_pj_per_word=override),
            MemoryLevel("dram", 2**30, 128, 128, kind="lpddr4"),
        ),
        frequency_hz=frequency,
        node_nm=22,
        voltage_v=0.8,
        nominal_v=0.8,
        array_kind=kind,
        area_mm2=override,
    )
    path = tmp_path_factory.mktemp("designs") / "design.toml"
    path.write_text(design.to_toml(), encoding="utf-8")
    assert Accelerator.from_toml(path) == design


def test_a_template_design_and_its_file_have_the_same_numbers(tmp_path: Path) -> None:
    template = templates.load("edge22")
    design = template.accelerator(cores=4, width=256, depth=32, l2_kib=1024, l2_words_per_cycle=64, glb_mib=4)
    direct = template.batch(cores=4, width=256, depth=32, l2_kib=1024, l2_words_per_cycle=64, glb_mib=4)
    path = write(tmp_path, design.to_toml())
    for other in (design.batch(), Accelerator.from_toml(path).batch()):
        for name in ("area_mm2", "leakage_w", "tops", "mac_pj", "level_read_pj_per_word", "level_write_pj_per_word"):
            assert np.array_equal(getattr(other, name), getattr(direct, name))


def test_explicit_values_replace_the_tables(tmp_path: Path) -> None:
    text = GOOD.replace("cores = 2", "cores = 2\narea_mm2 = 12.5\nmac_pj = 0.25\nleakage_w = 0.125")
    text = text.replace("kib = 128", "kib = 128\nread_pj_per_word = 0.5")
    batch = Accelerator.from_toml(write(tmp_path, text)).batch()
    assert (batch.area_mm2[0], batch.mac_pj[0], batch.leakage_w[0]) == (12.5, 0.25, 0.125)
    assert batch.level_read_pj_per_word[0, 0] == 0.5
    assert batch.level_read_pj_per_word[0, 1] == 64.0


def test_a_batch_needs_designs_that_agree() -> None:
    template = templates.load("edge22")
    knobs = {"cores": 1, "width": 32, "depth": 2, "l2_kib": 64, "l2_words_per_cycle": 32, "glb_mib": 2}
    one = template.accelerator(**knobs)
    other = template.with_profile("catransformers22").accelerator(**knobs)
    with pytest.raises(HardwareError, match="agree in their profile"):
        AcceleratorBatch.of([one, other])
    with pytest.raises(HardwareError, match="at least one design"):
        AcceleratorBatch.of([])


HUGE = "1" + "0" * 400  # no float holds it
HUGER = "0x" + "f" * 5000  # an integer that Python will not even print


@pytest.mark.parametrize("value", [HUGE, HUGER, "nan", "inf", "-inf", "[[1]]", "{}", '"1"', "true"])
@pytest.mark.parametrize("field", ["cores", "voltage_v", "words_per_cycle", "kib"])
def test_odd_numbers_are_refused_in_one_short_sentence(tmp_path: Path, field: str, value: str) -> None:
    lines = [f"{field} = {value}" if line.startswith(f"{field} =") else line for line in GOOD.splitlines()]
    path = tmp_path / "odd.toml"
    path.write_text("\n".join(lines))
    with pytest.raises(HardwareError, match=field) as caught:
        templates.load_file(path, profile=None)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_name_of_thousands_of_letters_is_cut_in_the_sentence(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(GOOD.replace('"systolic"', '"' + "x" * 5000 + '"'))
    with pytest.raises(HardwareError, match="array_kind") as caught:
        templates.load_file(path, profile=None)
    assert len(str(caught.value)) < 500


def test_of_the_supply_its_ratio_to_the_nominal_one_alone_bears_on_a_figure(tmp_path: Path) -> None:
    def columns(supply: str) -> dict[str, float]:
        path = tmp_path / "npu.toml"
        path.write_text(GOOD.replace("voltage_v = 0.8\n", supply))
        batch = Accelerator.from_toml(path).batch()
        return {
            "mac_pj": float(batch.mac_pj[0]),
            "sram_pj": float(batch.level_read_pj_per_word[0, 0]),
            "leakage_w": float(batch.leakage_w[0]),
            "area_mm2": float(batch.area_mm2[0]),
        }

    plain = columns("")
    assert columns("voltage_v = 0.8\n") == columns("voltage_v = 0.6\n") == columns("nominal_v = 0.7\n") == plain
    low = columns("voltage_v = 0.7\nnominal_v = 0.8\n")
    assert low["leakage_w"] == pytest.approx(plain["leakage_w"] * 0.875)
    assert low["mac_pj"] < plain["mac_pj"]
    assert low["area_mm2"] == plain["area_mm2"]
    # Of a word's energy the address generator is logic of its own supply; CACTI's part goes with the square.
    assert 0.875**2 * 0.999 <= low["sram_pj"] / plain["sram_pj"] < 1.0
