"""NaturalBench and CameraBench: definitions by brute force, parsing, chance levels, files that are wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workloads
from dse import cli
from workloads import jsonl
from workloads.errors import WorkloadError
from workloads.metrics import camerabench, naturalbench


def by_definition(groups: list[tuple[int, ...]]) -> tuple[float, float, float, float]:
    """The four scores as the paper words them: 2 images x 2 questions, gold yes, no, no, yes."""
    gold = {(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): 1}  # (question, image)
    acc, q_acc, i_acc, g_acc = [], [], [], []
    for group in groups:
        right = {key: answer == gold[key] for key, answer in zip(gold, group, strict=True)}
        acc += right.values()
        q_acc += [all(right[question, image] for image in (0, 1)) for question in (0, 1)]
        i_acc += [all(right[question, image] for question in (0, 1)) for image in (0, 1)]
        g_acc.append(all(right.values()))
    return tuple(float(np.mean(values)) for values in (acc, q_acc, i_acc, g_acc))  # type: ignore[return-value]


@given(st.lists(st.tuples(*[st.sampled_from([-1, 0, 1])] * 4), min_size=1, max_size=30))
def test_naturalbench_by_its_definition(groups: list[tuple[int, ...]]) -> None:
    scores = naturalbench.score(groups)
    found = (scores.accuracy, scores.question_accuracy, scores.image_accuracy, scores.group_accuracy)
    assert found == pytest.approx(by_definition(groups), abs=1e-12)
    assert scores.unreadable == sum(answer == -1 for group in groups for answer in group)
    assert scores.group_accuracy <= min(scores.question_accuracy, scores.image_accuracy) <= scores.accuracy


def test_chance_levels() -> None:
    """All 16 ways to answer, once each: what guessing gives."""
    scores = naturalbench.score(list(itertools.product((0, 1), repeat=4)))
    assert (scores.accuracy, scores.question_accuracy, scores.image_accuracy, scores.group_accuracy) == (0.5, 0.25, 0.25, 0.0625)
    # A model that always says yes is right half the time and never on both pictures of a question.
    scores = naturalbench.score([(1, 1, 1, 1)] * 7)
    assert (scores.accuracy, scores.question_accuracy, scores.image_accuracy, scores.group_accuracy) == (0.5, 0, 0, 0)
    assert naturalbench.score([(1, 0, 0, 1)] * 16).standard_errors()["group_accuracy"] == 0
    assert scores.standard_errors()["accuracy"] == pytest.approx((0.25 / 7) ** 0.5)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("Yes", "yes_no", 1),
        ("no.", "yes_no", 0),
        ("The answer is: No, because yes means more.", "yes_no", 0),
        ("I know nothing", "yes_no", -1),  # "no" inside a word
        ("", "yes_no", -1),
        ("A", "multiple_choice", 1),
        ("(B) the left one", "multiple_choice", 0),
        ("Option B", "multiple_choice", 0),
        ("b", "multiple_choice", 0),
        ("It is a dog", "multiple_choice", -1),
        ("yes", "multiple_choice", -1),
    ],
)
def test_answers_are_parsed(text: str, kind: str, expected: int) -> None:
    assert naturalbench.parse_answer(text, kind) == expected


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40).filter(lambda rows: any(row[1] for row in rows)),
    st.randoms(),
)
def test_average_precision_against_thresholds(rows: list[tuple[int, bool]], order: Any) -> None:
    """Sum over distinct thresholds of (recall step) x precision, by counting."""
    expected, before = 0.0, 0.0
    positives = sum(truth for _, truth in rows)
    for threshold in sorted({score for score, _ in rows}, reverse=True):
        taken = [truth for score, truth in rows if score >= threshold]
        recall, precision = sum(taken) / positives, sum(taken) / len(taken)
        expected += (recall - before) * precision
        before = recall
    order.shuffle(rows)
    scores, truth = [row[0] for row in rows], [row[1] for row in rows]
    assert camerabench.average_precision(scores, truth) == pytest.approx(expected, abs=1e-12)
    pairs = [(a > b) + (a == b) / 2 for a, ta in rows for b, tb in rows if ta and not tb]
    found = camerabench.pair_accuracy(scores, truth)
    assert found == (pytest.approx(np.mean(pairs), abs=1e-12) if pairs else None)


def test_average_precision_known_values() -> None:
    assert camerabench.average_precision([3, 2, 1], [1, 1, 0]) == 1.0
    assert camerabench.average_precision([1, 2, 3], [1, 0, 0]) == pytest.approx(1 / 3)
    assert camerabench.average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.8333333333333333)  # scikit-learn's example
    assert camerabench.vqa_score(2.0, 2.0) == 0.5
    assert camerabench.vqa_score(1e9, -1e9) == 1.0
    with pytest.raises(workloads.WorkloadError, match="at least one positive"):
        camerabench.average_precision([1.0], [0])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def call(suite: str, text: str, *options: str) -> tuple[int, str, str]:
        path = tmp_path / "answers.jsonl"
        path.write_text(text)
        capsys.readouterr()
        code = cli.main(["quality", suite, str(path), *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_naturalbench_command(run: Callable[..., tuple[int, str, str]]) -> None:
    whole = {"q0_i0": "Yes", "q0_i1": "No.", "q1_i0": "no", "q1_i1": "maybe"}
    single = [
        {"group": 7, "question": q, "image": i, "answer": "A" if q == i else "B", "type": "multiple_choice"} for q in (0, 1) for i in (1, 0)
    ]
    text = "\n".join(json.dumps(record) for record in [whole, *single]) + "\n\n"
    code, out, _ = run("naturalbench", text, "--json")
    scores = json.loads(out)
    assert code == 0
    assert (scores["groups"], scores["unreadable"]) == (2, 1)
    assert (scores["accuracy"], scores["question_accuracy"], scores["image_accuracy"], scores["group_accuracy"]) == (
        7 / 8,
        3 / 4,
        3 / 4,
        1 / 2,
    )
    assert scores["group_accuracy_se"] == pytest.approx((0.25 / 2) ** 0.5)
    code, out, _ = run("naturalbench", text)
    assert "group_accuracy      50.00 %" in out
    assert "(chance 6.25 %)" in out


def test_camerabench_command(run: Callable[..., tuple[int, str, str]]) -> None:
    records = [("pan", 0.9, True), ("pan", 0.2, False), ("tilt", 0.3, True), ("tilt", 0.6, False), ("none", 0.5, False)]
    text = "\n".join(json.dumps({"label": a, "score": b, "positive": c}) for a, b, c in records)
    code, out, _ = run("camerabench", text, "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["by_label"] == {"pan": 1.0, "tilt": 0.5}
    assert (scores["average_precision"], scores["pair_accuracy"], scores["labels"], scores["answers"]) == (0.75, 0.5, 2, 5)
    assert "75.00 %" in run("camerabench", text)[1]


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """U+2028 and form feeds stand in texts: a reader that splits there would refuse sound lines. Blank lines count."""
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"a": "one\u2028two"}\n\n{"a": "three\x85"}\r\n{"a": 1}'.encode())
    assert list(jsonl.numbered(file)) == [(1, {"a": "one\u2028two"}), (3, {"a": "three\x85"}), (4, {"a": 1})]
    file.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(WorkloadError, match="line 2 is not text: byte 7 is no UTF-8"):
        list(jsonl.read_lines(file))


@pytest.mark.parametrize(
    ("suite", "text", "words"),
    [
        ("naturalbench", "", "hold no group"),
        ("naturalbench", "{", "line 1 is not JSON"),
        ("naturalbench", "[1]", "line 1 holds [1], must hold a JSON object"),
        ("naturalbench", '{"q0_i0": "Yes"}', "line 1: field 'q0_i1' is None"),
        ("naturalbench", '{"a": 1}', "field 'q0_i0' (a whole group) or 'group' (a single answer) is missing"),
        ("naturalbench", '{"group": 1, "question": 2, "image": 0, "answer": "no"}', "field 'question' is 2, must be 0 or 1"),
        ("naturalbench", '{"group": 1, "question": 0, "image": 0, "answer": "no"}', "group '1' has 1 answers, must have 4"),
        ("naturalbench", '{"group": 1, "question": 0, "image": 0, "answer": "no"}\n' * 2, "twice"),
        ("naturalbench", '{"q0_i0": "Yes", "type": "open"}', "field 'type' is 'open', must be one of yes_no, multiple_choice"),
        ("camerabench", '{"label": "pan", "score": NaN, "positive": 1}', "field 'score' is nan, must be a finite number"),
        ("camerabench", '{"label": "pan", "score": ' + "1" * 400 + ', "positive": 1}', "field 'score' is '1111"),
        ("camerabench", '{"label": "pan", "score": 1, "positive": "yes"}', "field 'positive' is 'yes'"),
        ("camerabench", '{"score": 1, "positive": 1}', "field 'label' is None"),
        ("camerabench", '{"label": "pan", "score": 1, "positive": 0}', "holds no positive answer"),
    ],
)
def test_answers_that_are_wrong(run: Callable[..., tuple[int, str, str]], suite: str, text: str, words: str) -> None:
    code, _, err = run(suite, text)
    assert code == 1
    assert words in err
    assert err.count("\n") == 1


@given(st.binary(max_size=200))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(data)
    message = None
    try:
        naturalbench.score_records(jsonl.read_lines(path), str(path))
    except workloads.WorkloadError as error:
        message = str(error)
    assert message is None or "\n" not in message


def test_a_missing_file() -> None:
    with pytest.raises(workloads.WorkloadError, match="cannot be read"):
        list(jsonl.read_lines(Path("nowhere.jsonl")))
