"""The edge22 template: its grid, its area, its errors."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models import spaces as templates
from hw_models.errors import HardwareError
from hw_models.validation.registry import reference_rows

KNOBS = ("cores", "width", "depth", "l2_kib", "l2_words_per_cycle", "glb_mib")
# Published SRAM areas [um2] (CACTI@1ffd8df, 22 nm), copied by hand from the table of the source, not from our data file.
L2_UM2 = {64: 105_921.0, 128: 219_485.0, 256: 447_768.0, 512: 815_621.0, 1024: 1_642_130.0}
GLB_UM2 = {2: 3_100_860.0, 4: 6_207_510.0, 8: 12_235_100.0}


def area_by_hand(cores: int, width: int, depth: int, l2: int, glb: int) -> float:
    """The published closed form [mm2], written out once more."""
    array_l2 = 256 if (width, depth) == (256, 32) else max(l2, width * depth // 64)
    total = 380.194720 * cores * width * depth + 379.977187 * cores * width
    return (total + cores * (L2_UM2[array_l2] + L2_UM2[l2]) + GLB_UM2[glb]) * 1e-6


def check_grid(template: templates.Template, size: int) -> None:
    grid = template.grid()
    assert tuple(grid) == KNOBS
    assert template.size == size
    rows = np.column_stack(list(grid.values()))
    assert len(np.unique(rows, axis=0)) == size
    assert np.array_equal(rows, rows[np.lexsort(rows.T[::-1])])


def test_grid_is_complete_and_canonical() -> None:
    template = templates.load("edge22")
    check_grid(template, 5832)
    grid = template.grid()
    assert (grid["l2_kib"] <= 1024 * grid["glb_mib"]).all()  # 6,480 less L2 of 512 with 0.25 MiB, of 1,024 with 0.25 and 0.5
    assert template.knobs["glb_mib"] == (0.25, 0.5, 1, 2, 4, 8)
    assert template.defaults == {"cores": 2, "width": 128, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}


def test_the_published_grid_is_as_it_was() -> None:
    """CATransformers has 3 x 4 x 6 x 5 x 3 x 3 designs, which its profile takes as well."""
    template = templates.load("edge22")
    by_name = templates.load("edge22", profile="catransformers22")
    for published in (template.as_published(), by_name, template.with_profile("catransformers22")):
        check_grid(published, 3240)
        assert all(column.dtype == np.int64 for column in published.grid().values())
        assert published.knobs["glb_mib"] == (2, 4, 8)
        assert published.defaults == template.defaults
    own = template.with_knobs(glb_mib=[1, 2])  # who names values means them, whatever the tool had
    assert own.as_published().knobs["glb_mib"] == own.with_profile("catransformers22").knobs["glb_mib"] == (1, 2)
    assert own.defaults["glb_mib"] == 2  # 4 is not listed: the middle


def test_area_equals_the_rows_of_the_runs() -> None:
    template = templates.load("edge22")
    rows = reference_rows("catransformers_runs.csv")
    assert len(rows) == 20
    for row in rows:
        batch = template.batch(
            cores=int(row["num_tc"]),
            width=int(row["width"]),
            depth=int(row["depth"]),
            l2_kib=int(row["L2_KB"]),
            l2_words_per_cycle=int(row["L2_BW"]),
            glb_mib=int(row["GLB_MB"]),
        )
        assert batch.area_mm2[0] * 1e6 == pytest.approx(float(row["area_um2"]), rel=1e-9)


def test_a_buffer_may_be_a_part_of_a_mebibyte() -> None:
    template = templates.load("edge22").with_knobs(glb_mib=[0.25, 0.5, 1, 2])
    knobs = {"cores": 1, "width": 64, "depth": 16, "l2_kib": 64, "l2_words_per_cycle": 64}
    batch = template.batch(**knobs, glb_mib=[0.25, 0.5, 1, 2])
    assert batch.level_bytes[:, 1].tolist() == [256 * 1024, 512 * 1024, 1024 * 1024, 2048 * 1024]
    # The rows of the same sizes in the table of the source: a shared buffer is an SRAM like another.
    sram = [L2_UM2[256], L2_UM2[512], L2_UM2[1024], GLB_UM2[2]]
    np.testing.assert_allclose((batch.area_mm2 - batch.area_mm2[0]) * 1e6, np.array(sram) - sram[0], rtol=1e-6)
    with pytest.raises(HardwareError, match=r"glb_mib = 0\.3 is not valid: it must be a multiple of 0\.0625"):
        template.batch(**knobs, glb_mib=0.3)
    with pytest.raises(HardwareError, match=r"cores = 1\.5 is not valid: it must be a whole number"):
        template.batch(**{**knobs, "cores": 1.5}, glb_mib=1)
    with pytest.raises(HardwareError, match=r"glb_mib = 0\.5 is no whole number, which the closed forms of profile catransformers22"):
        template.with_profile("catransformers22").batch(**knobs, glb_mib=0.5)


@pytest.mark.parametrize("profile", ["default", "catransformers22"])
def test_area_equals_the_closed_form_everywhere(profile: str) -> None:
    template = templates.load("edge22", profile=profile).as_published()
    grid = template.grid()
    area = template.batch(**grid).area_mm2
    expected = [
        area_by_hand(*row) for row in zip(*(grid[k].tolist() for k in ("cores", "width", "depth", "l2_kib", "glb_mib")), strict=True)
    ]
    np.testing.assert_allclose(area, expected, rtol=1e-9)
    assert len(np.unique(np.round(area, 9))) == 1080
    assert np.sum(area > 31.990347) == 45  # 15 of the 1,080 distinct ones, at three bandwidths
    assert (round(area.min(), 2), round(area.max(), 2)) == (3.35, 50.68)


def test_tops_and_bandwidth() -> None:
    template = templates.load("edge22")
    batch = template.batch(**template.grid())
    assert batch.tops.max() == pytest.approx(81.92, rel=1e-12)
    assert set(batch.dram_bytes_per_s) == {80e9}
    assert set(batch.dram_bytes.tolist()) == {2**30}
    assert batch.level_names == ("l2", "glb", "dram")


def test_physical_words_cost_their_bytes_and_compat_words_a_whole_access() -> None:
    knobs = {"cores": 1, "width": 32, "depth": 2, "l2_kib": 64, "l2_words_per_cycle": 32, "glb_mib": 2}
    physical = templates.load("edge22").batch(**knobs)
    compat = templates.load("edge22", profile="catransformers22").batch(**knobs)
    assert physical.level_read_pj_per_word[0].tolist() == pytest.approx([5.428359 / 4, 24.296144 / 4, 64.0], rel=1e-12)
    assert compat.level_read_pj_per_word[0].tolist() == pytest.approx([5.428359, 24.296144, 256.0], rel=1e-12)
    assert (physical.mac_pj[0], compat.mac_pj[0]) == (0.469035, 2.2)
    assert compat.leakage_w[0] == 0.0 < physical.leakage_w[0]
    assert physical.level_shared == (True, True, True)
    assert compat.level_shared == (False, True, True)


def test_one_design_equals_its_place_in_the_grid() -> None:
    template = templates.load("edge22")
    grid = template.grid()
    batch = template.batch(**grid)
    for i in range(0, template.size, 193):
        one = template.batch(**{k: v[i].item() for k, v in grid.items()})
        for name in ("area_mm2", "leakage_w", "level_read_pj_per_word", "level_write_pj_per_word"):
            assert np.array_equal(getattr(one, name)[0], getattr(batch, name)[i])
        taken = batch.take([i])
        assert np.array_equal(taken.level_bytes, one.level_bytes)


def test_settings_are_knobs_too() -> None:
    template = templates.load("edge22")
    knobs = {"cores": 1, "width": 32, "depth": 2, "l2_kib": 64, "l2_words_per_cycle": 32, "glb_mib": 2}
    batch = template.batch(**knobs, frequency_hz=[5e8, 1e9], word_bits=[8, 16])
    assert batch.tops[1] == 2 * batch.tops[0]
    wide = template.with_knobs(frequency_hz=[5e8, 1e9])
    assert wide.size == 2 * template.size == len(wide.grid()["cores"])
    assert "frequency_hz" not in wide.settings


def test_a_space_may_go_beyond_the_shipped_values() -> None:
    template = templates.load("edge22").with_knobs(width=[64, 512], array_kind=["systolic", "dot_product"])
    batch = template.batch(**template.grid())
    assert len(batch) == template.size == 3 * 2 * 6 * 3 * 2 * (5 * 6 - 3)
    assert set(batch.array_columns.tolist()) == {64, 512}
    assert set(batch.array_kind.tolist()) == {0, 2}
    with pytest.raises(HardwareError, match="width = -1"):
        template.with_knobs(width=[64, -1])
    with pytest.raises(HardwareError, match="at least one value"):
        template.with_knobs(width=[])
    with pytest.raises(HardwareError, match="is a knob"):
        template.with_settings(width=64)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"width": 300}, ("width = 300", "between 32 and 256", "nearest valid: 256")),
        ({"depth": 0}, ("depth = 0", "nearest valid: 2")),
        ({"width": 48.5}, ("width = 48.5", "whole number")),
        ({"cores": "two"}, ("cores = 'two'", "a number")),
        ({"widht": 64}, ("widht", "did you mean 'width'")),
        ({"frequency_hz": -1.0}, ("frequency_hz = -1.0", "2e+10 Hz")),
        ({"frequency_hz": float("nan")}, ("frequency_hz = nan", "2e+10 Hz")),
        ({"array_kind": "dot"}, ("array_kind", "dot_product")),
        ({"dram_type": "lpddr9"}, ("lpddr9", "did you mean")),
    ],
)
def test_bad_knobs(change: dict[str, object], parts: tuple[str, ...]) -> None:
    knobs: dict[str, object] = {"cores": 1, "width": 32, "depth": 2, "l2_kib": 64, "l2_words_per_cycle": 32, "glb_mib": 2}
    with pytest.raises(HardwareError) as caught:
        templates.load("edge22").batch(**(knobs | change))  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


def test_missing_knobs_and_unknown_templates() -> None:
    with pytest.raises(HardwareError, match=r"needs a value for glb_mib: glb_mib in 0\.25, 0\.5, 1, 2, 4, 8"):
        templates.load("edge22").batch(cores=1, width=32, depth=2, l2_kib=64, l2_words_per_cycle=32)
    with pytest.raises(HardwareError, match="did you mean 'edge22'"):
        templates.load("egde22")
    with pytest.raises(HardwareError, match="did you mean 'catransformers22'"):
        templates.load("edge22", profile="catransformer22")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('template = "edge22"\n[knobs]\ncores = [1, [nan], 4]\n', "cores"),
        ('template = "edge22"\n[knobs]\ncores = [1, {}]\n', "cores"),
        ('template = "edge22"\n[settings]\nnode_nm = [22, [7]]\n', "node_nm"),
        ('template = "edge22"\n[settings]\nnode_nm = {}\n', "node_nm"),
        ('template = "edge22"\n[knobs]\ncores = 1' + "0" * 400 + "\n", "cores"),
        ('template = "edge22"\n[settings]\nfrequency_hz = 1' + "0" * 400 + "\n", "frequency_hz"),
        ('template = ["edge22"]\n', "template"),
        ('template = "edge22"\nprofile = []\n', "profile"),
        ('template = "edge22"\nknobs = 3\n', "knobs"),
        ('template = "edge22"\nsettings = [1]\n', "settings"),
    ],
)
def test_values_of_a_wrong_kind_are_refused_with_file_and_field(tmp_path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(HardwareError, match=rf"mine\.toml.*{words}"):
        templates.load_file(path, profile=None)
