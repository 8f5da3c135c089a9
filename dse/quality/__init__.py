"""Quality of a model: surrogates of published figures, evaluators that measure, noise."""

from __future__ import annotations

from dse.quality.surrogate import (
    KNOBS,
    SUPPORT,
    BertMnliSurrogate,
    PublishedModel,
    Quality,
    bert_mnli,
    for_workload,
)

__all__ = ["KNOBS", "SUPPORT", "BertMnliSurrogate", "PublishedModel", "Quality", "bert_mnli", "for_workload"]
