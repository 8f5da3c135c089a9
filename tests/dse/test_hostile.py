"""Every reader against damaged files (see tests/dse/fuzz.py): a result or one sentence, in bounded time and memory.

The slow version reads as many inputs a reader as the environment variable DSE_FUZZ_INPUTS says, 20,000 unless it is set.
"""

import importlib.util
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

import carbon
from carbon.factors import grid
from dse import cli
from dse.errors import DseError, UsageError, shown
from dse.operate.traces import load_of_file
from dse.problem.objectives import parse_constraint
from workloads.errors import WorkloadError
from workloads.reasoning.traces import read_trace

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("search", "--workload", "bert-tiny", "--threads", "9" * 30),
            "is too large; a whole number of at most 9007199254740992 is needed",
        ),
        (("search", "--workload", "bert-tiny", "--threads", "9" * 5000), "is no whole number"),
        (
            ("search", "--workload", "bert-tiny", "--threads", "4294967296"),
            "threads is 4294967296; a whole number of at most 1,024 is needed",
        ),
        (("search", "--workload", "bert-tiny", "--workers", "4294967296"), "workers is 4294967296; a whole number of at most 1,024"),
        (("search", "--workload", "bert-tiny", "--seed", "-1"), "seed is -1; a whole number from 0 is needed"),
        (("resume", "nowhere", "--threads", "0"), "threads is 0; a whole number of at least 1"),
        (("evaluate", "--workload", "bert-tiny", "--grid", "1e308"), "gco2e_per_kwh is 1e+308, but it must be finite"),
        (
            ("evaluate", "--workload", "bert-tiny", "--pue", "1e300"),
            "pue is 1e+300; facility power over device power is at least 1",
        ),
        (("simulate", "--workload", "llama3-8b", "--hw", "h100", "--concurrency", "9007199254740992"), "at most 10,000,000 requests"),
        (("tokens", "--workload", "llama3-8b", "--hw", "h100", "--concurrency", "9007199254740992"), "must be at most 100,000"),
    ],
)
def test_numbers_that_nothing_computes_with_are_refused(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(list(words))
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code in (1, 2)
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told
    assert len(told) < 300


@pytest.mark.parametrize(
    "text", ["latency_s<=" + "9" * 5000 + "#", "latency_s<=" + "9" * 2500 + "." + "9" * 2500 + "!", "a" * 5000 + "<=1 #"]
)
def test_words_of_thousands_of_letters_are_told_in_no_time(text: str) -> None:
    start = time.process_time()
    with pytest.raises(UsageError):
        parse_constraint(text)
    with pytest.raises(carbon.CarbonError):
        grid.lookup(text.partition("=")[2])
    assert time.process_time() - start < 0.5  # milliseconds; a regular expression that tries all divisions takes minutes


def test_a_trace_has_seconds(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    for odd in ("9" * 400, "-1", '"x"', "NaN"):
        file.write_text(fuzz.TARGETS["reasoning-trace"].sound(tmp_path)[0].decode().replace('"wall_s": 0.1', f'"wall_s": {odd}'))
        with pytest.raises(WorkloadError, match=r"wall_s is .* must be a number of seconds"):
            read_trace(file)


def test_a_log_of_requests_has_hours_that_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    for first, last in ((0, "1e19"), (-1e9, "4e5")):
        file.write_text(f"arrival_s,prompt_tokens,output_tokens\n{first},100,5\n{last},20,3\n")
        with pytest.raises(DseError, match="arriv"):
            load_of_file(file, datetime(2024, 1, 1, tzinfo=UTC), 168)


def test_a_message_is_one_printable_line() -> None:
    assert shown("field 'a' is 3") == "field 'a' is 3"
    assert shown("a\x1b[31m\nb") == "a [31m b"
    cut = shown("value " + "9" * 5000 + " is too large")
    assert cut.startswith("value 999")
    assert cut.endswith("... (5000 letters) is too large")
    assert len(cut) < 200
