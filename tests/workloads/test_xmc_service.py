"""Batches of the server: in the order of arrival, as large as the bound and the measured time of a query allow."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workloads.xmc import service
from workloads.xmc.errors import XmcError
from workloads.xmc.folder import Model
from workloads.xmc.service import BATCH_SHARE, Batcher, Settings


class _Slow:
    """A tree whose only label is a query's first feature, and that takes a set time a query by a clock of its own, which is the
    server's in these tests; it notes the sizes of its batches."""

    features = 1000

    def __init__(self, query_s: float) -> None:
        self.query_s, self.sizes, self.now = query_s, [], 0.0

    def perf_counter(self) -> float:
        return self.now

    def predict(self, X: Any, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        self.sizes.append(X.shape[0])
        self.now += self.query_s * X.shape[0]
        return X.indices[X.indptr[:-1]][:, None].astype(np.int32), np.ones((X.shape[0], 1), np.float32)

    def predict_one(self, indices: np.ndarray, values: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        self.sizes.append(1)
        self.now += self.query_s
        return indices[:1], np.ones(1, np.float32)


def _answers(tree: _Slow, bound_s: float, queries: int, max_batch: int = 256) -> tuple[list[int], Batcher]:
    settings = Settings("127.0.0.1", 0, bound_s, max_batch, 10, 1, 1)
    model = SimpleNamespace(tree=tree, vectorizer=None, path=Path("m"), name_of=lambda label: label)

    async def all_at_once() -> tuple[list[int], Batcher]:
        batcher = Batcher(model, settings)  # type: ignore[arg-type]
        worker = asyncio.create_task(batcher.run())
        bodies = [json.dumps({"indices": [i, i + 1], "values": [1, 1]}).encode() for i in range(queries)]
        found = await asyncio.gather(*(batcher.answer(body) for body in bodies))
        worker.cancel()
        return [answer["labels"][0] for answer in found], batcher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "time", tree)
        return asyncio.run(all_at_once())


def test_what_waits_becomes_one_batch_and_everybody_gets_the_own_answer() -> None:
    tree = _Slow(0.0)
    labels, batcher = _answers(tree, 1.0, 300, max_batch=100)
    assert labels == list(range(300)) and max(tree.sizes) == 100 and batcher.batches == len(tree.sizes) <= 6
    assert batcher.answered == 300 and batcher.pending == 0


def test_slow_queries_make_small_batches() -> None:
    tree = _Slow(0.002)
    labels, batcher = _answers(tree, 0.04, 60)
    # All 60 wait at once. The first is answered alone, to know its time; then a batch fits its share of the bound, 5 queries of 2 ms.
    assert labels == list(range(60))
    # Half of the first measurement is believed at first: 10 queries, then fewer.
    assert tree.sizes[:3] == [1, 10, 6] and tree.sizes[-2] == 5 == BATCH_SHARE * 0.04 / 0.002
    assert batcher.query_s == pytest.approx(0.002, rel=0.01)
    assert _answers(_Slow(0.002), 4.0, 60)[1].batches == 2  # a loose bound lets all others in at once


def test_the_estimate_rises_at_once_and_falls_slowly() -> None:
    batcher = Batcher(SimpleNamespace(), Settings("", 0, 0.1, 1000, 1, 1, 1))  # type: ignore[arg-type]
    assert batcher.limit() == 1
    batcher.batches = 1
    batcher.learn(0.01)
    risen = batcher.query_s
    assert batcher.limit() == 5  # a quarter of 100 ms at 5 ms each
    batcher.learn(0.0)
    assert risen == pytest.approx(0.005) and 0.9 * risen < batcher.query_s < risen
    batcher.query_s = 1.0
    assert batcher.limit() == 1  # a query that is over the bound alone is answered all the same


def test_text_needs_a_vectoriser() -> None:
    batcher = Batcher(Model(Path("m"), None, None, None, {}), Settings("", 0, 0.1, 10, 1, 5, 1))  # type: ignore[arg-type]
    with pytest.raises(XmcError, match=r"m: has no vectorizer.json"):
        batcher.parse(b'{"text": "a"}')
