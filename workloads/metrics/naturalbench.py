"""NaturalBench: accuracy over groups of 2 images x 2 questions (arXiv 2410.14669).

A group asks two questions of two images so that the right answers alternate: yes, no, no, yes (or A, B, B, A). Counting
follows the official evaluation: an answer that cannot be read is wrong. Chance is 50 % (accuracy), 25 % (question and image
accuracy) and 6.25 % (group accuracy).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workloads.errors import WorkloadError, shorten, unknown_name

GOLD = (1, 0, 0, 1)
"""Right answers of a group in the order question 0 image 0, question 0 image 1, question 1 image 0, question 1 image 1."""
KEYS = ("q0_i0", "q0_i1", "q1_i0", "q1_i1")
TYPES = ("yes_no", "multiple_choice")
_WORDS = {"yes_no": re.compile(r"\b(yes|no)\b", re.IGNORECASE), "multiple_choice": re.compile(r"\b(A|B)\b")}


@dataclass(frozen=True)
class NaturalBenchScores:
    """Accuracies in 0..1 and what they rest on.

    accuracy: of single answers; question_accuracy: both images of a question right; image_accuracy: both questions of an
    image right; group_accuracy: all four right; groups: how many; unreadable: answers without yes/no or A/B.
    """

    accuracy: float
    question_accuracy: float
    image_accuracy: float
    group_accuracy: float
    groups: int
    unreadable: int

    def standard_errors(self) -> dict[str, float]:
        """Binomial standard errors by metric, groups taken as the independent draws: sqrt(p (1 - p) / groups)."""
        scores = {
            "accuracy": self.accuracy,
            "question_accuracy": self.question_accuracy,
            "image_accuracy": self.image_accuracy,
            "group_accuracy": self.group_accuracy,
        }
        return {name: (p * (1 - p) / self.groups) ** 0.5 for name, p in scores.items()}


def parse_answer(text: str, kind: str = "yes_no") -> int:
    """Return 1 (yes, A), 0 (no, B) or -1 (neither) for a model's answer: the first such word of its text."""
    if kind not in TYPES:
        raise unknown_name("type", kind, TYPES)
    found = _WORDS[kind].search(text)
    if found is None and kind == "multiple_choice":
        found = re.search(r"\b(a|b)\b", text.strip()[:2])
    if found is None:
        return -1
    return 1 if found.group(1).lower() in ("yes", "a") else 0


def score(groups: Iterable[Sequence[int]]) -> NaturalBenchScores:
    """Return the scores of groups of four parsed answers (1, 0, or -1) in the order of :data:`GOLD`."""
    single = question = image = whole = count = unreadable = 0
    for group in groups:
        if len(group) != 4 or any(answer not in (-1, 0, 1) for answer in group):
            raise WorkloadError(f"group {count} is {shorten(list(group))}, must be four answers of 1, 0 or -1")
        right = [answer == gold for answer, gold in zip(group, GOLD, strict=True)]
        single += sum(right)
        question += (right[0] and right[1]) + (right[2] and right[3])
        image += (right[0] and right[2]) + (right[1] and right[3])
        whole += all(right)
        unreadable += sum(answer == -1 for answer in group)
        count += 1
    if not count:
        raise WorkloadError("answers hold no group, at least one group of four answers is needed")
    return NaturalBenchScores(single / (4 * count), question / (2 * count), image / (2 * count), whole / count, count, unreadable)


def score_records(records: Iterable[Mapping[str, Any]], where: str) -> NaturalBenchScores:
    """Return the scores of parsed JSON lines; ``where`` names the file in errors.

    A record is a group: ``{"q0_i0": "Yes", "q0_i1": "No.", "q1_i0": ..., "q1_i1": ..., "type": "yes_no"}`` (``type`` may be
    left out), or one answer of a group: ``{"group": 7, "question": 0, "image": 1, "answer": "No", "type": "yes_no"}``.
    """
    whole: list[list[int]] = []
    loose: dict[str, dict[tuple[int, int], int]] = {}
    for line, record in enumerate(records, start=1):
        kind = record.get("type", "yes_no")
        if kind not in TYPES:
            raise WorkloadError(f"{where} line {line}: field 'type' is {shorten(kind)!r}, must be one of {', '.join(TYPES)}")
        if "q0_i0" in record:
            whole.append([parse_answer(_text(record, key, where, line), kind) for key in KEYS])
            continue
        if "group" not in record:
            raise WorkloadError(f"{where} line {line}: field 'q0_i0' (a whole group) or 'group' (a single answer) is missing")
        place = (_index(record, "question", where, line), _index(record, "image", where, line))
        answers = loose.setdefault(str(record["group"]), {})
        if place in answers:
            raise WorkloadError(
                f"{where} line {line}: group {shorten(record['group'])!r} has question {place[0]} of image {place[1]} twice"
            )
        answers[place] = parse_answer(_text(record, "answer", where, line), kind)
    order = ((0, 0), (0, 1), (1, 0), (1, 1))
    for name, answers in loose.items():
        if len(answers) != 4:
            raise WorkloadError(f"{where}: group {shorten(name)!r} has {len(answers)} answers, must have 4")
        whole.append([answers[place] for place in order])
    return score(whole)


def _text(record: Mapping[str, Any], key: str, where: str, line: int) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise WorkloadError(f"{where} line {line}: field {key!r} is {shorten(value)!r}, must be the text of an answer")
    return value


def _index(record: Mapping[str, Any], key: str, where: str, line: int) -> int:
    value = record.get(key)
    if isinstance(value, bool) or value not in (0, 1):
        raise WorkloadError(f"{where} line {line}: field {key!r} is {shorten(value)!r}, must be 0 or 1")
    return int(value)
