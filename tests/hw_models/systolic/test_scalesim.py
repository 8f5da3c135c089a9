"""The real SCALE-Sim, in an environment of its own, on shapes that nobody has seen before."""

from __future__ import annotations

import json
import random
import subprocess
import venv
from pathlib import Path

import pytest

from hw_models.systolic.conv import conv_counts
from hw_models.systolic.gemm import gemm_counts
from hw_models.validation.arrays import EXACT, PERCENT

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "peer_scripts" / "scalesim_gemms.py"


@pytest.fixture(scope="module")
def scalesim_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with scalesim 3.0.0 and the last numpy that it runs on."""
    home = tmp_path_factory.mktemp("scalesim")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "scalesim==3.0.0",
        "numpy==1.26.*",
    ]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        pytest.skip(f"scalesim 3.0.0 cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return python


def fresh_cases(seed: int) -> list[dict]:
    """Twenty shapes: fifteen products, of them three large, and five convolutions."""
    rng = random.Random(seed)
    cases = []
    for i in range(20):
        kib = {name: rng.choice([1, 2, 4, 16, 64]) for name in ("ifmap_kib", "filter_kib", "ofmap_kib")}
        case = {"dataflow": ("os", "ws", "is")[i % 3], "rows": rng.randint(1, 32), "columns": rng.randint(1, 32), **kib}
        if i >= 15:
            size = [rng.randint(6, 16), rng.randint(6, 16), rng.randint(1, 4), rng.randint(1, 4)]
            case["convolution"] = [*size, rng.randint(1, 10), rng.randint(1, 24), rng.randint(1, 3)]
        else:
            limit = 400 if i >= 12 else 120
            case |= {name: rng.randint(1, limit) for name in ("m", "n", "k")}
        cases.append(case)
    return cases


@pytest.mark.slow
def test_fresh_shapes_equal_the_simulator(scalesim_python: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)  # new shapes every time; the seed is in the message of a failure
    cases = fresh_cases(seed)
    lines = "\n".join(json.dumps(case) for case in cases)
    done = subprocess.run([str(scalesim_python), str(SCRIPT)], input=lines, capture_output=True, text=True, timeout=1800, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 20
    for result in results:
        array = {k: result[k] for k in ("rows", "columns", "dataflow", "ifmap_kib", "filter_kib", "ofmap_kib")}
        if "convolution" in result:
            h, w, r, s, channels, filters, stride = result["convolution"]
            counts = conv_counts(h, w, channels, filters, r, s, stride=stride, ceil_mode=True, **array)
        else:
            counts = gemm_counts(result["m"], result["n"], result["k"], **array)
        for ours, theirs in EXACT.items():
            assert getattr(counts, ours) == result[theirs], (seed, ours, result)
        for ours, theirs in PERCENT.items():
            assert getattr(counts, ours) == pytest.approx(result[theirs], rel=1e-9), (seed, ours, result)
