"""A user's own evaluation data: JSON lines, checked as they are read, split into what is scored and what calibrates.

| task | fields of a line | figure (larger is better) |
|---|---|---|
| classification | ``text`` (and ``text_pair``), ``label`` (number or a name of the model's labels) | share of right labels |
| similarity | ``text``, ``other``, ``score`` | Spearman's correlation of the vectors' cosine with the score |
| retrieval | ``query``, ``document`` | mean reciprocal rank of the own document among all |
| perplexity | ``text`` | mean log likelihood of a token, nats (minus the logarithm of the perplexity) |

One line in five, at least 8 and at most 400, calibrates and heals and is never scored.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.errors import UsageError, unknown_name
from dse.quality.pruning.layout import Model
from dse.quality.tasks.base import Score, Text, batches_of, embed, reciprocal_ranks
from workloads.errors import WorkloadError
from workloads.jsonl import numbered

if TYPE_CHECKING:
    from torch import Tensor

FIELDS: dict[str, Mapping[str, tuple[type, ...]]] = {
    "classification": {"text": (str,), "label": (int, str)},
    "similarity": {"text": (str,), "other": (str,), "score": (int, float)},
    "retrieval": {"query": (str,), "document": (str,)},
    "perplexity": {"text": (str,)},
}
FIGURES = {
    "classification": "share of right labels",
    "similarity": "Spearman correlation of cosine and score",
    "retrieval": "mean reciprocal rank",
    "perplexity": "mean log likelihood of a token (nats)",
}
MAX_BYTES, MAX_LINES = 2**28, 10**6
LONGEST = 256
PERPLEXITY = "the likelihood of a token cannot be compared between vocabularies: task perplexity measures no model with another vocabulary"
MIN_CALIBRATION, MAX_CALIBRATION = 8, 400
MIN_ITEMS = 10


def read(path: str | Path, task: str) -> list[dict[str, Any]]:
    """The records of a file; the first that lacks a field, or is no JSON object, is an error that names the line."""
    if task not in FIELDS:
        raise unknown_name("task", task, FIELDS)
    return [record for _, record in read_lines(Path(path), task, FIELDS[task])]


def read_lines(file: Path, task: str, wanted: Mapping[str, tuple[type, ...]]) -> list[tuple[int, dict[str, Any]]]:
    """The records of a file with the numbers of their lines, each checked for the fields of ``wanted``."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"eval-data {file} is larger than {MAX_BYTES} bytes; a sample of it does as well")
        records = []
        for number, record in numbered(file):
            if number > MAX_LINES:
                raise UsageError(f"eval-data {file} has more than {MAX_LINES} lines; a sample of it does as well")
            records.append((number, _checked(file, number, record, task, wanted)))
    except OSError as error:
        raise UsageError(f"eval-data {file} cannot be read: {error.strerror}") from error
    except WorkloadError as error:
        raise UsageError(f"eval-data {error}") from error
    least = MIN_ITEMS + MIN_CALIBRATION
    if len(records) < least:
        raise UsageError(f"eval-data {file} has {len(records)} lines; at least {least} are needed ({MIN_CALIBRATION} calibrate)")
    return records


def split(count: int) -> tuple[list[int], list[int]]:
    """Positions of the lines that calibrate and of those that are scored."""
    order = np.random.default_rng(0).permutation(count).tolist()
    held = min(MAX_CALIBRATION, max(MIN_CALIBRATION, count // 5))
    return order[:held], sorted(order[held:])


def label_number(label: int | str, labels: Mapping[str, int], classes: int, path: Path) -> int:
    """The number of a label, given as such or by its name."""
    number = labels.get(label) if isinstance(label, str) else label
    if number is None or not 0 <= number < classes:
        known = ", ".join(list(labels)[:10])
        raise UsageError(f"eval-data {path}: label {label!r} is none of the model's {classes} ({known})")
    return int(number)


def _checked(file: Path, number: int, record: dict[str, Any], task: str, wanted: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    for name, kinds in wanted.items():
        if name not in record:
            raise UsageError(f"eval-data {file} line {number} has no field {name!r}; task {task} needs {', '.join(wanted)}")
        value = record[name]
        if not isinstance(value, kinds) or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"eval-data {file} line {number}: {name} is {str(value)[:40]!r}; {_kinds(kinds)} is needed")
        if isinstance(value, str) and not value.strip():
            raise UsageError(f"eval-data {file} line {number}: {name} is empty")
    return record


def _kinds(kinds: tuple[type, ...]) -> str:
    words = {str: "text", int: "a whole number", float: "a number", list: "rows of numbers"}
    return " or ".join(words[kind] for kind in kinds)


class UserTask:
    """A user's task; see the module. ``labels``: the model's label names and their numbers."""

    def __init__(self, path: str | Path, task: str, folder: Path, *, labels: Mapping[str, int], classes: int, longest: int) -> None:
        records = read(path, task)
        self.name, self.metric = task, FIGURES[task]
        self.embeds = task in ("similarity", "retrieval")
        self.text = Text(_tokenizer_of(folder), longest=min(LONGEST, longest))
        held, scored = split(len(records))
        self._held = [records[i] for i in held]
        self._scored = [records[i] for i in scored]
        self.items = len(self._scored)
        self.classes = classes
        if task == "classification":
            self._wanted = np.array([label_number(record["label"], labels, classes, Path(path)) for record in self._scored])

    def with_vocabulary(self, kept: Sequence[int]) -> UserTask:
        """The same lines, written by the tokenizer of a cut vocabulary."""
        if self.name == "perplexity":
            raise UsageError(PERPLEXITY)
        found = copy.copy(self)
        found.__dict__.pop("_columns", None)  # what the source's tokenizer wrote
        found.text = self.text.cut(kept)
        return found

    def _rows(self, records: list[dict[str, Any]], field: str) -> list[list[int]]:
        pairs = field == "text" and "text_pair" in records[0]
        return self.text.encode([(r[field], str(r.get("text_pair", ""))) for r in records] if pairs else [r[field] for r in records])

    def _texts(self, records: list[dict[str, Any]]) -> list[list[int]]:
        fields = {"similarity": ("text", "other"), "retrieval": ("query", "document")}.get(self.name, ("text",))
        return [row for field in fields for row in self._rows(records, field) if len(row) > 1]

    def calibration(self) -> list[dict[str, Tensor]]:
        """The texts that are never scored."""
        return [batch for _, batch in batches_of(self._texts(self._held))]

    def healing(self, batch: int, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """The same texts, in an order drawn from the seed, again and again."""
        rng = np.random.default_rng([seed, 13])
        rows = self._texts(self._held)
        for _ in range(min(count, -(-len(rows) // batch) * 4)):
            chosen = rng.choice(len(rows), size=min(batch, len(rows)), replace=False)
            yield next(batches_of([rows[i] for i in chosen], batch))[1]

    @cached_property
    def _columns(self) -> list[list[list[int]]]:
        fields = {"similarity": ("text", "other"), "retrieval": ("query", "document")}.get(self.name, ("text",))
        return [self._rows(self._scored, field) for field in fields]

    def score(self, model: Model, *, items: int | None = None) -> Score:
        """The figure over the first ``items`` lines that are scored."""
        columns = [rows[:items] for rows in self._columns]
        if self.name == "retrieval":
            return Score.of(reciprocal_ranks(embed(model, columns[0]), embed(model, columns[1])))
        if self.name == "similarity":
            cosine = (embed(model, columns[0]) * embed(model, columns[1])).sum(1).double().numpy()
            wanted = np.array([float(record["score"]) for record in self._scored[:items]])
            return Score.of_statistic(spearman, cosine, wanted)
        if self.name == "classification":
            found = self._logits(model, columns[0]).argmax(-1).numpy()
            return Score.of((found == self._wanted[:items]).astype(np.float64))
        total, count = likelihoods(model, columns[0])
        return Score.of(total * (len(total) / count.sum()))

    def vectors(self, model: Model, *, items: int) -> Tensor:
        """Sentence vectors, logits, or each text's mean log likelihood of a token, a row an item."""
        import torch

        rows = self._columns[0][:items]
        if self.embeds:
            return embed(model, rows)
        if self.name == "classification":
            return self._logits(model, rows)
        total, count = likelihoods(model, rows)
        return torch.from_numpy(total / count)[:, None]

    def _logits(self, model: Model, rows: list[list[int]]) -> Tensor:
        import torch

        found = torch.empty(len(rows), self.classes)
        with torch.no_grad():
            model.eval()
            for chosen, batch in batches_of(rows):
                found[chosen] = model(**batch).logits
        return found


def likelihoods(model: Model, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihood of each text's tokens after the first, summed (items,), and how many there are."""
    import torch

    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    with torch.no_grad():
        model.eval()
        for chosen, batch in batches_of(rows, 16):
            logits = model(**batch, use_cache=False).logits[:, :-1]
            wanted, mask = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:]
            picked = torch.log_softmax(logits, -1).gather(-1, wanted[..., None])[..., 0] * mask
            total[chosen] = picked.double().sum(1).numpy()
            count[chosen] = mask.sum(1).numpy()
    if not count.all():
        raise UsageError("eval-data holds a text of a single token; perplexity needs at least two")
    return total, count


def spearman(a: Any, b: Any) -> Any:
    """Spearman's rank correlation along the last axis (ties share the mean rank); 0 where one side is constant."""
    from scipy.stats import rankdata

    x, y = (rankdata(v, axis=-1) for v in (a, b))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)


def _tokenizer_of(folder: Path) -> Path:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"model folder {folder} has no tokenizer.json; a text task needs one")
    return file
