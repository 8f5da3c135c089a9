"""Layers of three networks in the real SCALE-Sim and ZigZag: a sample gives the counts that the shipped file holds. Slow."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hw_models.validation import networks as compared
from hw_models.validation.registry import reference_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 1500
# A first layer of three channels, 3 x 3 in the middle, 1 x 1 at the end, and depthwise layers of each way to lie on the array.
SAMPLE = ((7, 512, 512, 3, 1, 1), (7, 960, 160, 1, 1, 1), (7, 960, 960, 3, 1, 960), (14, 672, 672, 5, 2, 672), (1, 2048, 1000, 1, 1, 1))


def _module(path: Path) -> ModuleType:
    """A module by its path: neither tests nor benchmarks are packages."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"{path.parent.name}.{path.stem}"] = module
    spec.loader.exec_module(module)
    return module


environments = _module(Path(__file__).with_name("environments.py"))
benchmark = _module(ROOT / "benchmarks" / "networks.py")


def answers(tool: str, script: str, cases: list[dict]) -> list[dict]:
    python = environments.python_of(tool)
    done = subprocess.run(
        [str(python), str(ROOT / "benchmarks" / "peer_scripts" / script)], input="".join(json.dumps(case) + "\n" for case in cases),
        capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def held() -> dict[tuple[int, ...], dict[str, str]]:
    return {tuple(int(row[name]) for name in compared.SHAPE): row for row in reference_rows(compared.FILE)}


def test_scalesim() -> None:
    shapes = [shape for shape in SAMPLE if held()[shape]["scalesim_total_cycles"]]
    assert shapes
    for shape, found in zip(shapes, answers("scalesim", "scalesim_gemms.py", [benchmark.scalesim_case(s) for s in shapes]), strict=True):
        for column in benchmark.SCALESIM:
            assert found[column] == int(held()[shape][f"scalesim_{column}"]), (shape, column)


def test_zigzag() -> None:
    ours = [compared.counts([s], "dot_product" if s[5] > 1 else "systolic_pipelined")[0] for s in SAMPLE]
    cases = [benchmark.zigzag_case(shape, count) for shape, count in zip(SAMPLE, ours, strict=True)]
    for shape, found in zip(SAMPLE, answers("zigzag", "zigzag_convolutions.py", cases), strict=True):
        for column, value in benchmark.zigzag_row(found).items():
            assert value == pytest.approx(float(held()[shape][f"zigzag_{column}"]), rel=1e-9), (shape, column)


def test_accelforge_keeps_a_block_on_chip() -> None:
    """Where the whole tensors of a MobileNetV2 block fit, its fused mapper moves what ours does: input, weights, result once."""
    fusion = _module(ROOT / "benchmarks" / "fusion.py")
    block = fusion.BLOCKS["inverted"]
    case = {"name": "inverted", "einsums": block["einsums"], "ranks": block["ranks"], "sram_bytes": 512 * 1024, "mac_pj": 0.0}
    case |= {"dram_pj_per_byte": fusion.DRAM_PJ_PER_BYTE, "sram_pj_per_byte": 0.0}
    (found,) = answers("accelforge", "accelforge_blocks.py", [case])
    theirs = found["energy_j"] / (fusion.DRAM_PJ_PER_BYTE * 1e-12)
    assert fusion.ours("inverted", 512) == pytest.approx(theirs, rel=1e-6)
    assert theirs == pytest.approx(fusion.least_bytes("inverted"), rel=1e-6)
