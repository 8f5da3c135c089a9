"""Texts to features: scikit-learn's TF-IDF of word and character n-grams, kept as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from workloads.xmc.errors import XmcError

REMEDY = "pip install 'dse-toolkit[xmc]'"


@dataclass(frozen=True)
class TextSettings:
    """Knobs of the features: n-grams of words, and of characters inside words (0, 0: none); terms in fewer than ``min_df`` documents
    are left out; ``sublinear`` takes 1 + log of a term's count."""

    words: tuple[int, int] = (1, 2)
    characters: tuple[int, int] = (0, 0)
    min_df: int = 2
    sublinear: bool = True

    def __post_init__(self) -> None:
        for name in ("words", "characters"):
            low, high = getattr(self, name)
            if (low, high) != (0, 0) and not 1 <= low <= high <= 8:
                raise XmcError(f"n-grams of {name} {low}..{high} is not a range within 1..8, nor 0 0 for none")
        if self.words == (0, 0) == self.characters:
            raise XmcError("n-grams of words and of characters are both left out: one is needed")
        if self.min_df < 1:
            raise XmcError(f"min_df {self.min_df} is not positive")


class Vectorizer:
    """Fitted TF-IDF: ``transform(texts)`` gives CSR float32, rows of length 1. Several analysers stand side by side."""

    def __init__(self, settings: TextSettings, parts: list[Any]) -> None:
        self.settings = settings
        self._parts = parts

    @property
    def features(self) -> int:
        """Columns of what ``transform`` gives."""
        return sum(len(part.vocabulary_) for part in self._parts)

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Features (texts, features) of texts; a text without a known term is an empty row."""
        if not texts:  # scikit-learn refuses to weigh nothing
            return sparse.csr_matrix((0, self.features), dtype=np.float32)
        blocks = [part.transform(texts) for part in self._parts]
        matrix = sparse.hstack(blocks, "csr") if len(blocks) > 1 else blocks[0].tocsr()
        if len(blocks) > 1:  # each block has rows of length 1
            matrix /= np.sqrt(len(blocks))
        matrix = sparse.csr_matrix(matrix.astype(np.float32))
        matrix.sort_indices()
        return matrix

    def save(self, path: Path) -> None:
        """Write settings, terms and weights as JSON."""
        parts = []
        for part in self._parts:
            terms = sorted(part.vocabulary_, key=part.vocabulary_.__getitem__)
            parts.append({"analyzer": part.analyzer, "terms": terms, "idf": [float(v) for v in part.idf_]})
        settings = {"words": self.settings.words, "characters": self.settings.characters, "min_df": self.settings.min_df}
        path.write_text(json.dumps({**settings, "sublinear": self.settings.sublinear, "parts": parts}), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vectorizer:
        """Read what ``save`` wrote. Raises XmcError naming file and field."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            settings = TextSettings(tuple(held["words"]), tuple(held["characters"]), int(held["min_df"]), bool(held["sublinear"]))
            parts = []
            for part, (analyzer, ngrams) in zip(held["parts"], _analyzers(settings), strict=True):
                if part["analyzer"] != analyzer or len(part["terms"]) != len(part["idf"]):
                    raise XmcError(f"{path}: parts do not fit the settings")
                made = _tfidf(settings, analyzer, ngrams, vocabulary={term: i for i, term in enumerate(part["terms"])})
                made.idf_ = np.array(part["idf"], dtype=np.float64)
                parts.append(made)
        except XmcError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise XmcError(f"{path}: is not a vectoriser's description ({type(error).__name__}: {error})") from None
        return cls(settings, parts)


def fit(texts: Sequence[str], settings: TextSettings) -> Vectorizer:
    """Learn terms and their weights from training texts."""
    parts = []
    for analyzer, ngrams in _analyzers(settings):
        made = _tfidf(settings, analyzer, ngrams)
        try:
            made.fit(texts)
        except ValueError as error:
            raise XmcError(f"texts: no term is left ({error})") from None
        parts.append(made)
    return Vectorizer(settings, parts)


def _analyzers(settings: TextSettings) -> list[tuple[str, tuple[int, int]]]:
    found = [("word", settings.words), ("char_wb", settings.characters)]
    return [(name, ngrams) for name, ngrams in found if ngrams != (0, 0)]


def _tfidf(settings: TextSettings, analyzer: str, ngrams: tuple[int, int], **more: Any) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise XmcError(f"scikit-learn is needed for texts: {REMEDY}") from None
    return TfidfVectorizer(
        analyzer=analyzer, ngram_range=ngrams, min_df=settings.min_df, sublinear_tf=settings.sublinear, dtype=np.float32, **more
    )
