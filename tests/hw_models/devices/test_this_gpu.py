"""The GPU of a machine as a record: from what a driver tells; measuring itself needs a device and is refused without one."""

from __future__ import annotations

import pytest

from dse import cli
from hw_models.accelerator.design import Accelerator
from hw_models.devices import library, this_gpu
from hw_models.errors import HardwareError

H100 = {"multiprocessors": 132, "memory_bytes": 85_017_493_504, "l2_bytes": 50 * 2**20, "memory_bytes_per_s": 2 * 2.619e9 * 5120 / 8}


def test_a_board_of_the_library_is_found_and_keeps_what_the_driver_tells(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = this_gpu.described("NVIDIA H100 80GB HBM3", (9, 0), **H100, limit_w=650.0)
    base = library.load("h100").accelerator
    assert (found.cores, found.area_mm2, found.tensor_core, found.frequency_hz) == (132, base.area_mm2, base.tensor_core, base.frequency_hz)
    assert (found.tdp_w, found.levels[-1].bytes, found.levels[-2].bytes) == (650.0, 85_017_493_504, 50 * 2**20)
    batch = found.batch()
    assert float(batch.dram_bytes_per_s[0]) == pytest.approx(3352.32e9, rel=1e-9)  # 2 x 2,619 MHz x 5,120 bits
    path = tmp_path / "mine.toml"
    path.write_text(found.to_toml())
    assert Accelerator.from_toml(path) == found
    assert "132/132 of h100" in found.source


@pytest.mark.parametrize(
    ("capability", "multiprocessors", "gib", "nearest"),
    [
        ((9, 0), 132, 141, "h200"),
        ((9, 0), 114, 80, "h100-pcie"),
        ((8, 0), 108, 40, "a100-40gb"),
        ((8, 9), 58, 24, "l4"),
        ((8, 9), 128, 24, "l40s"),
    ],
)
def test_the_nearest_of_the_generation(capability: tuple[int, int], multiprocessors: int, gib: int, nearest: str) -> None:
    found = this_gpu.described("a board", capability, multiprocessors=multiprocessors, memory_bytes=gib * 2**30)
    base = library.load(nearest).accelerator
    share = multiprocessors / base.cores
    assert found.source.endswith(f"{multiprocessors}/{base.cores} of {nearest}")
    assert found.tdp_w == pytest.approx(base.tdp_w * share) and found.area_mm2 == pytest.approx((base.area_mm2 or 0) * share)
    assert found.levels[-1].read_words_per_cycle == base.levels[-1].read_words_per_cycle


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HardwareError, match=r"compute capability 7\.0, .* known are 8\.0, 8\.9, 9\.0"):
        this_gpu.described("NVIDIA V100", (7, 0), multiprocessors=80, memory_bytes=2**34)
    assert cli.main(["calibrate", "--this-machine", "gpo"]) == 2
    assert "did you mean 'gpu'" in capsys.readouterr().err
    assert cli.main(["calibrate", "--this-machine", "gpu", "--measured", "x.csv"]) == 2
    capsys.readouterr()

    class Cuda:
        @staticmethod
        def is_available() -> bool:
            return False

    class Torch:
        cuda = Cuda

    monkeypatch.setitem(__import__("sys").modules, "torch", Torch)
    assert cli.main(["calibrate", "--this-machine", "gpu"]) == 1
    assert "no CUDA device" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert cli.main(["calibrate", "--this-machine", "gpu"]) == 1
    assert "needs torch" in capsys.readouterr().err
