"""What a task is: items in three parts that never mix, batches for a model, and a score with its standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.quality.pruning import tokens
from dse.quality.pruning.layout import Model

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]
RESAMPLES = 1000  # the standard error itself is then known to 1 / sqrt(2000) = 2 %
BATCH = 64


@dataclass(frozen=True)
class Score:
    """A figure, its bootstrap standard error over the items, and its value in each resample (the same items are drawn for every model)."""

    mean: float
    se: float
    resampled: FloatArray

    @classmethod
    def of(cls, by_item: FloatArray) -> Score:
        """The mean of per-item figures."""
        return cls.of_statistic(lambda values: values.mean(axis=-1), by_item)

    @classmethod
    def of_statistic(cls, statistic: Callable[..., Any], *columns: FloatArray) -> Score:
        """A statistic of columns (items,) each; it must take columns (resamples, items) too and reduce the last axis."""
        drawn = draws(len(columns[0]))
        resampled = np.asarray(statistic(*(column[drawn] for column in columns)), dtype=np.float64)
        return cls(float(statistic(*columns)), float(resampled.std(ddof=1)), resampled)

    def difference_se(self, other: Score) -> float:
        """Standard error of the difference of two models' figures on the same items: what both owe to the choice of items cancels."""
        return float((self.resampled - other.resampled).std(ddof=1))


def draws(items: int) -> npt.NDArray[np.int64]:
    """Resampled item numbers (resamples, items), the same for every model."""
    return np.random.default_rng([11, items]).integers(0, items, size=(RESAMPLES, items))


class MeasuredTask(Protocol):
    """A task on which a model held locally is measured.

    ``metric`` names the figure and its unit, larger is better. ``items`` are those that a whole measurement scores. ``embeds``: the
    model's output is the mean-pooled sentence vector, not logits.
    """

    name: str
    metric: str
    items: int
    embeds: bool

    def calibration(self) -> list[dict[str, Tensor]]:
        """Batches that say which parts matter; never scored."""
        ...

    def healing(self, batch: int, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """``count`` batches to distil on; never scored."""
        ...

    def score(self, model: Model, *, items: int | None = None) -> Score:
        """The figure of a model over the first ``items`` items."""
        ...

    def vectors(self, model: Model, *, items: int) -> Tensor:
        """What a model gives for the first ``items`` items, a row each: for the agreement with the unpruned model."""
        ...


class TextTask(MeasuredTask, Protocol):
    """A task of texts: its model has a vocabulary, which can be cut."""

    text: Text

    def with_vocabulary(self, kept: Sequence[int]) -> MeasuredTask:
        """The same task on the texts as the tokenizer of a cut vocabulary writes them."""
        ...


class Text:
    """A tokenizer read from ``tokenizer.json``: texts to padded batches. ``kept``: the tokens of a vocabulary that was cut."""

    def __init__(self, file: Any, *, longest: int, kept: Sequence[int] | None = None) -> None:
        from tokenizers import Tokenizer

        self.file, self.longest = Path(file), longest
        try:
            made = Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - the library raises its own kinds and plain Exception
            raise UsageError(f"{file} is not a tokenizer.json: {str(error)[:120]}") from None
        self._tokenizer = made if kept is None else Tokenizer.from_str(json.dumps(tokens.cut(self.record, kept)))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(longest)

    def cut(self, kept: Sequence[int]) -> Text:
        """The same for a vocabulary of which ``kept`` is left."""
        return Text(self.file, longest=self.longest, kept=kept)

    @cached_property
    def record(self) -> dict[str, Any]:
        """``tokenizer.json`` as it is."""
        found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return found

    def encode(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token identifiers of each text (or pair of texts), special tokens in place."""
        return [found.ids for found in self._tokenizer.encode_batch(list(texts))]


def batches_of(
    rows: Sequence[Sequence[int]], size: int = BATCH, *, by_length: bool = True
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Padded batches and the positions of their rows; ``by_length`` puts rows of like length together, so that little is padding."""
    import torch

    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i)) if by_length else list(range(len(rows)))
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        length = max(len(rows[i]) for i in chosen)
        ids = torch.zeros(len(chosen), length, dtype=torch.long)
        mask = torch.zeros(len(chosen), length, dtype=torch.long)
        for place, i in enumerate(chosen):
            ids[place, : len(rows[i])] = torch.tensor(rows[i], dtype=torch.long)
            mask[place, : len(rows[i])] = 1
        yield chosen, {"input_ids": ids, "attention_mask": mask}


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """Sentence vectors: the mean over real tokens, at unit length (n, hidden)."""
    import torch

    weight = mask[..., None].to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1).clamp_min(1.0), dim=-1)


def embed(model: Model, rows: Sequence[Sequence[int]]) -> Tensor:
    """Unit sentence vectors of tokenised texts, (n, hidden), in the order given."""
    import torch

    vectors = torch.empty(len(rows), model.config.hidden_size)
    with torch.no_grad():
        model.eval()
        for chosen, batch in batches_of(rows):
            vectors[chosen] = pooled(model(**batch).last_hidden_state, batch["attention_mask"])
    return vectors


def reciprocal_ranks(queries: Tensor, documents: Tensor) -> FloatArray:
    """1 / rank of document i for query i by dot product among all documents; equal scores rank the right one last."""
    scores = queries @ documents.T
    right = scores.diagonal()[:, None]
    ranks = (scores >= right).sum(1)  # the right one counts itself
    return np.asarray(1.0 / ranks.double().numpy())


def agreement(mine: Tensor, theirs: Tensor) -> float:
    """Mean cosine of two sets of vectors (n, d)."""
    import torch

    return float(torch.nn.functional.cosine_similarity(mine, theirs, dim=-1).mean())
