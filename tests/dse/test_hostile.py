"""Every reader against damaged files (see tests/dse/fuzz.py): a result or one sentence, in bounded time and memory.

The slow version reads as many inputs a reader as the environment variable DSE_FUZZ_INPUTS says, 20,000 unless it is set.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dse.errors import shown

HARNESS = Path(__file__).with_name("fuzz.py")


def _harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dse_fuzz", HARNESS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dse_fuzz"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fuzz = _harness()
NEEDS = {"midi": "symusic", "safetensors": "safetensors", "zigzag": "yaml", "timeloop": "yaml", "onnx": "onnx"}


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    findings: list[tuple[int, str]] = []
    fuzz.attack(name, tmp_path, 0, fuzz.TARGETS[name].default, 1, lambda number, text: findings.append((number, text)))
    assert findings == []


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_many_damaged_files(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    assert fuzz.campaign([name], int(os.environ.get("DSE_FUZZ_INPUTS", "20000")), 2)[1] == []


def test_a_message_is_one_printable_line() -> None:
    assert shown("field 'a' is 3") == "field 'a' is 3"
    assert shown("a\x1b[31m\nb") == "a [31m b"
    cut = shown("value " + "9" * 5000 + " is too large")
    assert cut.startswith("value 999")
    assert cut.endswith("... (5000 letters) is too large")
    assert len(cut) < 200
