"""The tree kernel against its numpy reference, against libpecos's own predictions, and its counters against a walk over the matrices."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from dse_kernels import xmc
from dse_kernels.xmc_reference import predict_reference, transform
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from .xmc_models import PECOS_SMALL, bits, random_queries, random_ranker

PREDICTIONS = sorted(PECOS_SMALL.glob("predict_*.npz"))
# expf of the C library, which the kernel calls as PECOS does, may differ from the rounded double in the last place, and the logarithm of
# 1 + exp(-v) magnifies that by at most exp(-v) / (1 + exp(-v)) / log(1 + exp(-v)) < 1.45 near v = 0; three levels are summed.
LIBRARY_EXP = 1e-6


@pytest.mark.parametrize("file", PREDICTIONS, ids=lambda f: f.stem)
def test_same_labels_order_and_bits_as_libpecos(file: Path) -> None:
    named = re.fullmatch(r"predict_b(\d+)_k(\d+)_(.+)", file.stem)
    assert named
    beam, topk, post = int(named[1]), int(named[2]), None if named[3] == "own" else named[3]
    queries = sparse.load_npz(PECOS_SMALL / "queries.npz")
    tree = xmc.load(PECOS_SMALL)
    expected = np.load(file)
    labels, scores = tree.predict(queries, beam, topk, post_processor=post)
    for q in range(queries.shape[0]):
        begin, end = expected["indptr"][q], expected["indptr"][q + 1]
        found = end - begin
        assert labels[q, :found].tolist() == expected["indices"][begin:end].tolist()
        assert (labels[q, found:] == -1).all() and (scores[q, found:] == 0).all()
        if post in ("sigmoid", "log-sigmoid"):  # another C library's expf may round differently from the one that made the file
            np.testing.assert_allclose(scores[q, :found], expected["data"][begin:end], rtol=LIBRARY_EXP)
        else:
            assert bits(scores[q, :found]).tolist() == bits(expected["data"][begin:end]).tolist()


def test_the_reference_predictions_hold_something() -> None:
    assert len(PREDICTIONS) == 10
    assert all(len(np.load(f)["data"]) >= 60 for f in PREDICTIONS)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 10, 50]), st.sampled_from([1, 5, 100, 200]), st.booleans())
def test_equals_the_reference(seed: int, beam: int, topk: int, biased: bool) -> None:
    rng = np.random.default_rng(seed)
    nodes = tuple(int(rng.integers(1, 60)) * int(rng.choice([1, 6])) for _ in range(rng.integers(1, 4)))
    features = int(rng.integers(1, 90))
    ranker = random_ranker(rng, nodes, features, float(rng.choice([0.02, 0.3, 1.0])), 1.0 if biased else -1.0)
    queries = random_queries(rng, 6, features, 0.3)
    for post in ("l3-hinge", "l1-hinge", "l2-hinge", "l4-hinge", "l6-hinge", "log-l3-hinge", "noop"):
        labels, scores = xmc.build(ranker).predict(queries, beam, topk, post_processor=post)
        expected = predict_reference(ranker, queries, beam, topk, post)
        assert np.array_equal(labels, expected[0])
        assert np.array_equal(bits(scores), bits(expected[1]))


@pytest.mark.parametrize("post", ["sigmoid", "log-sigmoid"])
def test_sigmoids_equal_the_reference_but_for_the_librarys_exp(post: str) -> None:
    rng = np.random.default_rng(3)
    ranker = random_ranker(rng, (4, 30, 300), 80, 0.3)
    queries = random_queries(rng, 20, 80, 0.3)
    scores = xmc.build(ranker).predict(queries, post_processor=post)[1]
    np.testing.assert_allclose(scores, predict_reference(ranker, queries, post_processor=post)[1], rtol=LIBRARY_EXP)


def test_hinges_of_every_size_of_margin() -> None:
    # One level, one feature: the margin is the query's value. The exponential from 1 down to below the smallest float.
    values = np.concatenate([np.linspace(-6, 3, 4001), [1.0, 1 - 1e-7, 0.0, -0.0, -1e3, 1e30]]).astype(np.float32)
    w = sparse.csc_matrix(np.ones((1, 1), np.float32))
    ranker = xmc.Ranker((xmc.Level(w, sparse.csc_matrix(np.ones((1, 1), np.float32)), -1.0),))
    x = sparse.csr_matrix((values, np.zeros(len(values), np.int32), np.arange(len(values) + 1)), shape=(len(values), 1))
    for post in ("l1-hinge", "l2-hinge", "l3-hinge", "l4-hinge", "l7-hinge", "log-l2-hinge"):
        scores = xmc.build(ranker).predict(x, 1, 1, post_processor=post)[1][:, 0]
        assert np.array_equal(bits(scores), bits(transform(post, values)))


def test_ties_go_by_the_parents_rank_then_by_the_order_of_c() -> None:
    # Two clusters with interleaved labels and equal scores: the order of C's columns, not of the labels.
    root = xmc.Level(sparse.csc_matrix((3, 2), dtype=np.float32), sparse.csc_matrix(np.ones((2, 1), np.float32)))
    c = sparse.csc_matrix((np.ones(6, np.float32), [5, 1, 3, 4, 0, 2], [0, 3, 6]), shape=(6, 2))
    w = np.zeros((3, 6), np.float32)
    tree = xmc.build(xmc.Ranker((root, xmc.Level(sparse.csc_matrix(w), c))))
    assert tree.predict(sparse.csr_matrix((1, 2), dtype=np.float32), 2, 6)[0].tolist() == [[5, 1, 3, 4, 0, 2]]
    better = sparse.csc_matrix(np.array([[0, 0.5], [0, 0], [0, 0]], np.float32))
    tree = xmc.build(xmc.Ranker((xmc.Level(better, root.parents), xmc.Level(sparse.csc_matrix(w), c))))
    one = sparse.csr_matrix(np.array([[1, 0]], np.float32))
    assert tree.predict(one, 2, 6)[0].tolist() == [[4, 0, 2, 5, 1, 3]]
    assert tree.predict(one, 1, 5)[0].tolist() == [[4, 0, 2, -1, -1]]


def test_negative_zero_ties_with_zero() -> None:
    # log-hinge gives -0.0 for a perfect margin and +0.0 never; noop can give both: they are one score.
    w = sparse.csc_matrix(np.array([[1e-30, 1.0, 0.0]], np.float32))
    ranker = xmc.Ranker((xmc.Level(w, sparse.csc_matrix(np.ones((3, 1), np.float32)), -1.0, "noop"),))
    x = sparse.csr_matrix(np.array([[-1e-30]], np.float32))
    labels, scores = xmc.build(ranker).predict(x, 1, 3)
    assert labels.tolist() == predict_reference(ranker, x, 1, 3)[0].tolist()
    assert np.array_equal(bits(scores), bits(predict_reference(ranker, x, 1, 3)[1]))


def test_labels_that_no_cluster_holds_never_appear() -> None:
    w = sparse.csc_matrix(np.ones((3, 4), np.float32))
    c = sparse.csc_matrix((np.ones(2, np.float32), [3, 1], [0, 2]), shape=(4, 1))
    tree = xmc.build(xmc.Ranker((xmc.Level(w, c),)))
    assert tree.labels == 4
    assert tree.predict(sparse.csr_matrix(np.ones((1, 2), np.float32)), 1, 4)[0].tolist() == [[3, 1, -1, -1]]


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_stored_weights_are_what_their_format_says(weights: str) -> None:
    rng = np.random.default_rng(5)
    ranker = random_ranker(rng, (3, 300), 70, 0.4)
    queries = random_queries(rng, 12, 70, 0.3)
    levels = []
    for level in ranker.levels:
        w = level.weights.copy()
        if weights == "float16":
            bias = w.indices == w.shape[0] - 1
            w.data = np.where(bias, w.data, w.data.astype(np.float16).astype(np.float32))
        levels.append(xmc.Level(w, level.parents, level.bias, level.post_processor, level.only_topk))
    labels, scores = xmc.build(ranker, weights).predict(queries, 5, 40)
    expected = predict_reference(xmc.Ranker(tuple(levels)), queries, 5, 40)
    if weights == "int8":
        # Each weight within half a step of 1/127 of its label's largest, the margin within the sum of |x| times that.
        step = max(abs(level.weights.data).max() for level in ranker.levels) / 254
        margin = float(abs(queries).sum(axis=1).max()) * step
        raw = xmc.build(ranker, "int8").predict(queries, 3, 300, post_processor="noop")
        exact = predict_reference(ranker, queries, 3, 300, "noop")
        for q in range(12):
            by_label = dict(zip(exact[0][q], exact[1][q], strict=True))
            shared = [(s, by_label[label]) for label, s in zip(*(a[q] for a in raw), strict=True) if label >= 0 and label in by_label]
            assert len(shared) > 100
            assert max(abs(a - b) for a, b in shared) <= margin + 1e-5
    else:
        assert np.array_equal(labels, expected[0])
        assert np.array_equal(bits(scores), bits(expected[1]))


def test_float16_conversion_of_every_magnitude() -> None:
    values = np.concatenate([np.geomspace(1e-9, 65504, 3000), [6.1e-5, 5.96e-8, 2.98e-8, 1.0009765625, 65519.0]]).astype(np.float32)
    values = np.concatenate([values, -values])
    w = sparse.csc_matrix(values[None, :])
    c = sparse.csc_matrix(np.ones((len(values), 1), np.float32))
    tree = xmc.build(xmc.Ranker((xmc.Level(w, c, -1.0, "noop"),)), "float16")
    labels, scores = tree.predict(sparse.csr_matrix(np.ones((1, 1), np.float32)), 1, len(values))
    assert np.array_equal(scores[0], values.astype(np.float16).astype(np.float32)[labels[0]])


def test_batches_threads_and_single_queries_agree() -> None:
    rng = np.random.default_rng(11)
    ranker = random_ranker(rng, (5, 40, 900), 200, 0.2)
    queries = random_queries(rng, 333, 200, 0.1)
    tree = xmc.build(ranker)
    labels, scores = tree.predict(queries)
    for threads in (2, 5):
        again = tree.predict(queries, threads=threads)
        assert np.array_equal(labels, again[0]) and np.array_equal(bits(scores), bits(again[1]))
    out = (np.empty(100, np.int32), np.empty(100, np.float32))
    for q in range(0, 333, 7):
        row = slice(queries.indptr[q], queries.indptr[q + 1])
        one = tree.predict_one(queries.indices[row], queries.data[row])
        kept = tree.predict_one(queries.indices[row], queries.data[row], out=out)
        assert kept[0] is out[0]
        for got in (one, kept):
            assert np.array_equal(got[0], labels[q]) and np.array_equal(bits(got[1]), bits(scores[q]))
    listed = tree.predict_one([3, 9], [0.5, 1.0], beam=4, topk=6)  # type: ignore[arg-type]
    assert listed[0].tolist() == tree.predict_one(np.array([3, 9], np.int64), np.array([0.5, 1.0]), beam=4, topk=6)[0].tolist()


def test_a_large_batch_is_sorted_by_chunk_without_changing_a_bit() -> None:
    # A last level above 8 MiB, where products are reordered; single queries never are.
    rng = np.random.default_rng(2)
    ranker = random_ranker(rng, (20, 4000), 3000, 0.15, shuffled=False)
    tree = xmc.build(ranker)
    assert tree.level_table()[-1]["bytes"] > 8 << 20
    queries = random_queries(rng, 50, 3000, 0.02)
    labels, scores = tree.predict(queries)
    for q in range(50):
        row = slice(queries.indptr[q], queries.indptr[q + 1])
        one = tree.predict_one(queries.indices[row], queries.data[row])
        assert np.array_equal(one[0], labels[q]) and np.array_equal(bits(one[1]), bits(scores[q]))


def test_models_own_beams_where_none_is_given() -> None:
    rng = np.random.default_rng(9)
    ranker = random_ranker(rng, (6, 50, 200), 60, 0.4)
    queries = random_queries(rng, 8, 60, 0.3)
    labels, scores = xmc.build(ranker).predict(queries, None, None)
    assert labels.shape == (8, 7)
    expected = predict_reference(ranker, queries, None, None)
    assert np.array_equal(labels, expected[0]) and np.array_equal(bits(scores), bits(expected[1]))


def _counted(ranker: xmc.Ranker, queries: sparse.csr_matrix, beam: int, topk: int) -> list[tuple[int, int, int, int, int]]:
    """Multiply-adds, probes, hits, chunks and scored labels by set arithmetic over the matrices."""
    out = []
    for q in range(queries.shape[0]):
        held = set(queries.indices[queries.indptr[q] : queries.indptr[q + 1]].tolist())
        macs = probes = hits = chunks = scored = 0
        nodes = [0]
        for depth, level in enumerate(ranker.levels):
            for node in nodes:
                children = level.parents.indices[level.parents.indptr[node] : level.parents.indptr[node + 1]]
                parts = -(-len(children) // 256)
                edges = [i * len(children) // parts for i in range(parts + 1)] if parts else [0]
                for a, b in itertools.pairwise(edges):
                    chunks += 1
                    scored += b - a
                    probes += len(held)
                    rows: set[int] = set()
                    for child in children[a:b]:
                        column = set(level.weights.indices[level.weights.indptr[child] : level.weights.indptr[child + 1]].tolist())
                        macs += len(column & held)
                        rows |= column & held
                    hits += len(rows)
            prefix = xmc.Ranker(ranker.levels[: depth + 1])
            last = depth == len(ranker.levels) - 1
            found = predict_reference(prefix, queries[q], beam, topk if last else beam)[0][0]
            nodes = [int(n) for n in found if n >= 0]
        out.append((macs, probes, hits, chunks, scored))
    return out


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_counters_equal_set_arithmetic(weights: str) -> None:
    rng = np.random.default_rng(21)
    ranker = random_ranker(rng, (1, 6, 700), 90, 0.15)
    queries = random_queries(rng, 15, 90, 0.2)
    tree = xmc.build(ranker, weights)
    counts = tree.count(queries, 4, 30)
    assert tuple(counts) == xmc.COUNTERS
    expected = _counted(ranker, queries, 4, 30)
    got = list(zip(*(counts[name].tolist() for name in ("macs", "row_probes", "row_hits", "chunks", "labels_scored")), strict=True))
    assert got == expected
    by_level = tree.count(queries, 4, 30, by_level=True)
    for name in xmc.COUNTERS:
        assert np.array_equal(by_level[name].sum(axis=1), counts[name])
    assert (counts["dependent_depth"] == 4 * tree.depth).all()
    assert (counts["unique_lines"] <= tree.nbytes // 64).all()
    assert counts["bytes"][1] > counts["bytes"][0] > 0


def test_counters_grow_with_the_beam() -> None:
    rng = np.random.default_rng(22)
    tree = xmc.build(random_ranker(rng, (8, 64, 640), 90, 0.15))
    queries = random_queries(rng, 15, 90, 0.2)
    narrow, wide = tree.count(queries, 2), tree.count(queries, 8)
    for name in ("macs", "row_probes", "chunks", "labels_scored", "bytes", "unique_lines"):
        assert (wide[name] >= narrow[name]).all()
