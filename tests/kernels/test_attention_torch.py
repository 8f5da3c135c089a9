"""The torch operator and module, and the Triton kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from dse_kernels.attention_torch import SharedHeadAttention

from tests.kernels.test_attention import MAPS, problem


@pytest.mark.parametrize("owners", [MAPS["gqa"], MAPS["mqa"], MAPS["three"]])
def test_steps_with_a_cache_equal_the_whole_sequence(owners: list[int]) -> None:
    torch.manual_seed(0)
    module = SharedHeadAttention(48, 16, owners)
    x = torch.randn(3, 20, 48)
    cache = module.empty_cache(3, 20)
    steps = torch.stack([module.step(x[:, t], cache) for t in range(20)], dim=1)
    assert (steps - module(x)).abs().max() <= 1e-5
    with pytest.raises(ValueError, match="cache holds 20 tokens, which is its capacity"):
        module.step(x[:, 0], cache)


def test_operator_has_a_fake_and_matches_the_kernel() -> None:
    q, k, v = problem(MAPS["three"], 2, 30, 16)
    owners, lengths = torch.tensor(MAPS["three"]), torch.tensor([30, 7])
    torch.library.opcheck(torch.ops.dse.decode.default, (q, k, v, owners, lengths), test_utils=("test_schema", "test_faketensor"))


def test_map_without_a_head_for_a_kv_head() -> None:
    with pytest.raises(ValueError, match="must name every KV head from 0 at least once"):
        SharedHeadAttention(32, 8, [0, 2])


@pytest.mark.skipif(find_spec("triton") is None, reason="needs the extra triton")
def test_triton_kernels_in_the_interpreter() -> None:
    script = Path(__file__).with_name("triton_interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "42 cases" in done.stdout
