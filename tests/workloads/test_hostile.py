"""Values that no workload file has, found by mutation or what mutations would take long to find: refused in one sentence.

The mutations themselves are in tests/hostile; tests/dse/test_hostile.py gives them to every reader.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import workloads
from workloads.jsonl import read_lines
from workloads.metrics import camerabench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hostile"))  # tests are no package under import mode importlib

from workload_files import MIX, RECORD


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RECORD.replace("sequence = 32", "sequence = [1, 2]"), "field 'sequence' of defaults is [1, 2], must be one value"),
        (RECORD.replace("layers = 2", "layers = " + "9" * 400), "field 'layers' is"),
        (RECORD.replace("layers = 2", "layers = " + "9" * 5000), "is not a TOML file"),
        (RECORD.replace('["perplexity"]', "[1]"), "field 'quality_metrics' is [1], must be a list of texts"),
        (MIX.replace("weight = 2", "weight = " + "9" * 400), "field 'weight' is"),
        (MIX.replace("duty = 0.25", "duty = " + "9" * 400), "field 'duty' of requests is"),
        (MIX.replace("batch = 1", "batch = [1, 2]"), "'batch' is [1, 2], must be one value"),
        (MIX.replace('note = "a mix"', "note = 3"), "field 'note' is 3, must be a text"),
        (MIX.replace('quality_metrics = ["accuracy"]', "quality_metrics = 4"), "field 'quality_metrics' is 4"),
        (RECORD.replace('name = "tiny"', 'name = "\\u001b[2J"'), "must be a text without control characters"),
        ("a = " + "[" * 100000, "is not a TOML file"),
    ],
)
def test_values_that_no_record_has(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(workloads.WorkloadError) as caught:
        workloads.load(str(path)).build()
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_answer_of_hundreds_of_digits(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"label": "pan", "score": ' + "9" * 400 + ', "positive": true}')
    with pytest.raises(workloads.WorkloadError, match="field 'score' is '9999"):
        camerabench.score_records(read_lines(path), str(path))
