"""Trees trained here: data readers, the label tree, training, pruning, the folder, and the generator."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from dse_kernels import xmc
from dse_kernels.xmc_reference import predict_reference
from scipy import sparse

from workloads.xmc import clusters, data, folder, generator, quality, text, training, wordnet_files
from workloads.xmc.errors import XmcError

SYNSETS = {
    "noun": "  1 licence\n"
    "00000001 03 n 01 entity 0 000 | that which exists\n"
    "00000002 03 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | a living organism\n"
    '00000003 03 n 01 dog 0 002 @ 00000002 n 0000 @i 00000001 n 0000 | a barking animal; "the dog | barked"\n',
    "verb": "00000004 30 v 01 bark 0 001 @ 00000005 v 0000 01 + 02 00 | make a barking sound\n00000005 30 v 01 sound 0 000 | make sound\n",
    "adj": "00000006 00 s 01 loud(p) 0 000 | of great volume\n",
    "adv": "00000007 02 r 01 loudly 0 000 | with great volume\n",
}


@pytest.fixture
def wordnet_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, lines in SYNSETS.items():
        (tmp_path / f"data.{name}").write_text(lines)
    monkeypatch.setenv("DSE_WORDNET", str(tmp_path))
    return tmp_path


def test_wordnet_glosses_are_labelled_by_all_their_hypernyms(wordnet_folder: Path) -> None:
    documents = data.read("wordnet-hypernyms")
    assert documents.texts is not None and documents.count == 3
    held = {t: [documents.names[i] for i in documents.labels[d].indices] for d, t in enumerate(documents.texts)}
    assert held["a living organism"] == ["entity.n00000001"]
    assert held['a barking animal; "the dog | barked"'] == ["entity.n00000001", "animal.n00000002"]
    assert held["make a barking sound"] == ["sound.v00000005"]


def test_wordnet_glosses_are_labelled_by_their_words(wordnet_folder: Path) -> None:
    documents = data.read("wordnet-lemmas")
    assert documents.count == 7
    assert set(documents.names) == {"entity", "animal", "beast", "dog", "bark", "sound", "loud(p)", "loudly"}


def test_missing_or_broken_wordnet_is_named(wordnet_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (wordnet_folder / "data.verb").write_text("00000004 30 v zz bark\n")
    with pytest.raises(XmcError, match=r"data\.verb: line 1 is not a synset"):
        data.read("wordnet-lemmas")
    monkeypatch.setenv("DSE_WORDNET", str(tmp_path / "nowhere"))
    monkeypatch.setattr(wordnet_files, "WORDNET_PLACES", ())
    with pytest.raises(XmcError, match="apt install wordnet-base"):
        data.read("wordnet-lemmas")


def test_repository_format(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("3 5 4\n1,3 4:0.5 0:1\n 2:1.5\n0 1:2\n")
    documents = data.read(str(path))
    assert documents.features is not None
    assert documents.features.toarray().tolist() == [[1, 0, 0, 0, 0.5], [0, 0, 1.5, 0, 0], [0, 2, 0, 0, 0]]
    assert documents.labels.toarray().tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    for broken, message in (
        ("3 5\n", "line 1 is not"),
        ("2 5 4\n1 0:1\n", "says 2 documents"),
        ("1 5 4\n4 0:1\n", "line 2: label 4 is not in 0..3"),
        ("1 5 4\n1 5:1\n", "line 2: feature 5"),
        ("1 5 4\n1 0:nan\n", "not finite"),
        ("1 5 4\n1 0:1 0:2\n", "twice"),
        ("1 5 4\n1 0\n", "line 2 is not of the form"),
    ):
        path.write_text(broken)
        with pytest.raises(XmcError, match=message):
            data.read(str(path))


def test_pecos_layout_and_labelled_lines(tmp_path: Path) -> None:
    x = sparse.random(6, 9, 0.4, "csr", np.float32, random_state=0)
    y = sparse.csr_matrix(np.eye(6, 4, dtype=np.float32))
    sparse.save_npz(tmp_path / "X.trn.npz", x)
    sparse.save_npz(tmp_path / "Y.trn.npz", y)
    documents = data.read(str(tmp_path))
    assert documents.features is not None and (documents.features != x).nnz == 0 and (documents.labels != y).nnz == 0
    lines = tmp_path / "d.tsv"
    lines.write_text("red,round\tan apple\n\nyellow\ta lemon\n")
    documents = data.read(str(lines))
    assert documents.texts == ("an apple", "a lemon") and documents.names == ("red", "round", "yellow")
    lines.write_text("no tab here\n")
    with pytest.raises(XmcError, match=r"d\.tsv: line 1 is not of the form"):
        data.read(str(lines))


def test_clusters_are_balanced_and_every_label_has_one() -> None:
    features = clusters.label_features(
        sparse.random(300, 40, 0.2, "csr", random_state=1), sparse.random(300, 77, 0.05, "csr", random_state=2)
    )
    chain = clusters.cluster(features, branch=4, leaf=6)
    assert [c.shape for c in chain] == [(4, 1), (16, 4), (77, 16)]
    assert clusters.tree_shape(77, 4, 6) == (4, 16)
    # What PECOS 1.2.8 makes of these numbers with 16 splits: 2^ceil(log2(labels / leaf)) clusters, the root with what 16s leave.
    assert clusters.tree_shape(20472, 16, 100) == (16, 256) and clusters.tree_shape(20472, 16, 200) == (8, 128)
    assert clusters.tree_shape(147806, 16, 100) == (8, 128, 2048)
    assert clusters.tree_shape(5, 16, 5) == () and clusters.tree_shape(6, 16, 5) == (2,)
    chain = clusters.cluster(features, branch=4, leaf=10)
    assert [c.shape for c in chain] == [(2, 1), (8, 2), (77, 8)] and np.diff(chain[-1].indptr).max() == 10
    sizes = np.diff(chain[-1].indptr)
    assert sizes.max() - sizes.min() <= 1 and sorted(chain[-1].indices) == list(range(77))
    with pytest.raises(XmcError, match="branch 3 is not a power of two"):
        clusters.cluster(features, branch=3, leaf=6)


def test_labels_apart_are_a_branch_of_their_own() -> None:
    features = clusters.label_features(
        sparse.random(300, 40, 0.2, "csr", random_state=1), sparse.random(300, 77, 0.05, "csr", random_state=2)
    )
    apart = np.array([3, 20, 21, 50, 76, 0, 8, 9, 10, 11, 12, 13, 30])
    chain = clusters.cluster(features, branch=4, leaf=6, apart=apart)
    assert [c.shape for c in chain] == [(5, 1), (17, 5), (77, 17)]
    held = [[sorted(c.indices[c.indptr[j] : c.indptr[j + 1]].tolist()) for j in range(c.shape[1])] for c in chain]
    assert held[2][16] == sorted(apart.tolist()) and held[1][4] == [16] and held[0] == [[0, 1, 2, 3, 4]]
    others = held[2][:16]
    assert sorted(label for group in others for label in group) == sorted(set(range(77)) - set(apart.tolist()))
    assert max(map(len, others)) - min(map(len, others)) <= 1
    # As if the others were all there is.
    rest = np.setdiff1d(np.arange(77), apart)
    alone = clusters.cluster(features[rest], branch=4, leaf=6)
    assert [sorted(rest[alone[2].indices[alone[2].indptr[j] : alone[2].indptr[j + 1]]].tolist()) for j in range(16)] == others
    # All of them, none, or so few labels that a cluster holds them: nothing stands apart; others that fill a single cluster: two.
    for none in (np.arange(77), np.array([], int)):
        assert [c.shape for c in clusters.cluster(features, branch=4, leaf=6, apart=none)] == [(4, 1), (16, 4), (77, 16)]
    assert [c.shape for c in clusters.cluster(features, branch=4, leaf=77, apart=apart)] == [(77, 1)]
    assert [c.shape for c in clusters.cluster(features, branch=4, leaf=70, apart=apart)] == [(2, 1), (77, 2)]


def test_the_most_frequent_labels_share_a_cluster() -> None:
    documents = _documents(400, 60)
    assert documents.texts is not None
    X = text.fit(documents.texts, text.TextSettings()).transform(documents.texts)
    common = sparse.hstack([documents.labels, np.ones((400, 1), np.float32)], "csr")  # one label that all documents have
    counts = np.asarray(common.sum(axis=0)).ravel()
    for asked, got in ((4, 4), (100, 6), (0, 0)):  # no more than a tenth of 61
        chosen = clusters.most_frequent(common, asked)
        assert chosen.size == got and sorted(counts[chosen])[::-1] == sorted(counts)[::-1][:got]
    ranker = training.train(X, common, training.TrainSettings(branch=4, leaf=8, frequent=4))
    c = ranker.levels[-1].parents
    assert c.indices[c.indptr[-2] :].tolist() == clusters.most_frequent(common, 4).tolist() and 60 in c.indices[c.indptr[-2] :]
    assert (xmc.build(ranker).predict(X, 3, 6)[0] == 60).any(axis=1).all()
    with pytest.raises(XmcError, match="frequent -1 is negative"):
        training.TrainSettings(frequent=-1)


def test_halving_separates_two_groups() -> None:
    rng = np.random.default_rng(0)
    block = np.zeros((40, 20))
    owner = rng.permutation(40) < 20
    block[owner, :10] = rng.random((20, 10))
    block[~owner, 10:] = rng.random((20, 10))
    (first, second) = clusters._halve(sparse.csr_matrix(block), np.arange(40), np.random.default_rng(1))
    assert set(first) in (set(np.flatnonzero(owner)), set(np.flatnonzero(~owner))) and len(second) == 20


def _documents(count: int, labels: int, seed: int = 0) -> data.Documents:
    rng = np.random.default_rng(seed)
    held = [rng.choice(labels, rng.integers(1, 4), replace=False) for _ in range(count)]
    texts = tuple(" ".join(f"w{label}x{rng.integers(4)}" for label in own for _ in range(4)) for own in held)
    rows = np.repeat(np.arange(count), [len(own) for own in held])
    y = sparse.csr_matrix((np.ones(rows.size, np.float32), (rows, np.concatenate(held))), shape=(count, labels))
    return data.Documents(texts, None, y, tuple(f"label {i}" for i in range(labels)), "digest")


def test_a_level_is_liblinears_own_solution() -> None:
    """Teacher-forced training of a node is liblinear on the documents of its parent, with all features kept."""
    from sklearn.svm import LinearSVC

    documents = _documents(200, 12)
    assert documents.texts is not None
    X = text.fit(documents.texts, text.TextSettings()).transform(documents.texts)
    settings = training.TrainSettings(branch=2, leaf=6, frequent=0, threshold=0.0, tolerance=1e-6, iterations=50_000)
    ranker = training.train(X, documents.labels, settings)
    assert [level.weights.shape[1] for level in ranker.levels] == [2, 12]
    c = ranker.levels[1].parents
    for label in (0, 7):
        parent = int(c.tocsr()[label].indices[0])
        inside = np.asarray(documents.labels[:, c.indices[c.indptr[parent] : c.indptr[parent + 1]]].sum(axis=1)).ravel() > 0
        positive = np.asarray(documents.labels[inside][:, [label]].todense()).ravel() > 0
        model = LinearSVC(tol=1e-6, max_iter=50_000, random_state=0).fit(X[inside].astype(np.float64), positive)
        ours = np.asarray(ranker.levels[1].weights[:, [label]].todense()).ravel()
        # The problem is strictly convex: two orders of descent meet in its one optimum, as near as their tolerance and float32 let them.
        np.testing.assert_allclose(ours, np.append(model.coef_[0], model.intercept_[0]), atol=2e-5)


def test_a_label_of_all_documents_of_its_cluster_is_trained_too() -> None:
    X = sparse.random(30, 12, 0.5, "csr", np.float32, random_state=1)
    Y = sparse.csr_matrix(np.ones((30, 1), np.float32))
    ranker = training.train(X, Y, training.TrainSettings(threshold=0.0))
    margins = X @ ranker.levels[0].weights[:-1] + ranker.levels[0].weights[-1:].toarray()
    assert (np.asarray(margins) > 0.5).all()


def test_documents_without_a_feature_teach_the_bias() -> None:
    ranker = training.train(
        sparse.csr_matrix((6, 5), dtype=np.float32),
        sparse.csr_matrix(np.eye(6, 3, dtype=np.float32)),
        training.TrainSettings(threshold=0.0),
    )
    assert set(ranker.levels[0].weights.indices) == {5}


def test_training_finds_the_labels_and_more_negatives_do_not_spoil_it(tmp_path: Path) -> None:
    documents, test = data.split(_documents(500, 40), 100)
    for negatives in ("tfn", "tfn+man"):
        settings = training.TrainSettings(branch=4, leaf=6, negatives=negatives)
        out = tmp_path / negatives
        record = folder.train_folder(documents, test, out, text.TextSettings(), settings, "float32", ["dse"], lambda line: None)
        assert record["test"]["precision@1"] > 0.97 and record["test"]["recall@10"] > 0.97
        assert not out.with_name(out.name + ".part").exists()
        model = folder.open_model(out)
        assert model.names == documents.names and model.record["data_sha256"] == "digest"
        assert test.texts is not None
        found = model.tree.predict(model.features_of(test.texts))
        again = xmc.build(folder.read_ranker(out)).predict(model.features_of(test.texts))
        assert np.array_equal(found[0], again[0])
    with pytest.raises(XmcError, match="exists already"):
        folder.train_folder(documents, test, out, text.TextSettings(), settings, "float32", ["dse"], lambda line: None)


def test_training_is_the_same_twice_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = _documents(200, 30)
    assert documents.texts is not None
    X = text.fit(documents.texts, text.TextSettings()).transform(documents.texts)
    settings = training.TrainSettings(branch=2, leaf=4)
    whole = training.train(X, documents.labels, settings)
    told: list[str] = []

    def stop(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(X, documents.labels, settings, tmp_path, stop)
    trained = 0
    original = training._train_level

    def counted(*arguments: object) -> sparse.csc_matrix:
        nonlocal trained
        trained += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_train_level", counted)
    resumed = training.train(X, documents.labels, settings, tmp_path)
    assert trained == len(whole.levels) - 2
    for a, b in zip(whole.levels, resumed.levels, strict=True):
        assert (a.weights != b.weights).nnz == 0 and a.parents.indices.tolist() == b.parents.indices.tolist()
    # Other settings do not take the finished levels of these.
    trained = 0
    training.train(X, documents.labels, training.TrainSettings(branch=2, leaf=4, penalty=0.5), tmp_path)
    assert trained == len(whole.levels)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    documents = _documents(60, 12)
    assert documents.texts is not None
    X = text.fit(documents.texts, text.TextSettings()).transform(documents.texts)
    settings = training.TrainSettings(branch=2, leaf=4, frequent=0)
    whole = training.train(X, documents.labels, settings, tmp_path / "checkpoint")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    first, last = "W0.npz", f"C{len(whole.levels) - 1}.npz"
    for name, damaged, message in (
        (first, kept[first][:200], r"W0\.npz: cannot be read as npz .*; remove .* to train anew"),
        (last, None, "the label tree .* not down to 12 labels"),
        (last, kept["C0.npz"], "the label tree .* not down to 12 labels"),
        (first, kept["W1.npz"], "level 0: C has 2 rows, W has 4 columns"),
    ):
        path = tmp_path / "checkpoint" / name
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        with pytest.raises(XmcError, match=message):
            training.train(X, documents.labels, settings, tmp_path / "checkpoint")
        path.write_bytes(kept[name])
    again = training.train(X, documents.labels, settings, tmp_path / "checkpoint")
    assert all((a.weights != b.weights).nnz == 0 for a, b in zip(whole.levels, again.levels, strict=True))


def test_pruning_drops_small_weights_only(tmp_path: Path) -> None:
    ranker = folder.read_ranker(Path(__file__).parents[1] / "reference" / "xmc" / "pecos_small")
    pruned = training.prune(ranker, 0.4)
    for before, after in zip(ranker.levels, pruned.levels, strict=True):
        expected = before.weights.toarray()
        expected[np.abs(expected) < 0.4] = 0
        assert np.array_equal(after.weights.toarray(), expected)
    assert sum(level.nonzeros for level in pruned.levels) < sum(level.nonzeros for level in ranker.levels)
    source = Path(__file__).parents[1] / "reference" / "xmc" / "pecos_small"
    record = folder.prune_folder(source, tmp_path / "out", 0.4, "float16", ["dse"])
    assert record["weights_after"] == sum(level.nonzeros for level in pruned.levels)
    assert folder.open_model(tmp_path / "out").tree.weights == "float16"


def test_vectoriser_is_plain_data(tmp_path: Path) -> None:
    texts = ["The red apple", "a green apple tree", "red tree, green leaf", "the leaf"]
    made = text.fit(texts, text.TextSettings((1, 2), (2, 4), 1))
    made.save(tmp_path / "v.json")
    again = text.Vectorizer.load(tmp_path / "v.json")
    assert (made.transform([*texts, "unknown zzz", ""]) != again.transform([*texts, "unknown zzz", ""])).nnz == 0
    assert again.features == made.features == again.transform([""]).shape[1]
    assert again.transform([]).shape == (0, made.features)
    held = json.loads((tmp_path / "v.json").read_text())
    held["parts"][0]["idf"].pop()
    (tmp_path / "v.json").write_text(json.dumps(held))
    with pytest.raises(XmcError, match=r"v\.json: parts do not fit"):
        text.Vectorizer.load(tmp_path / "v.json")


def test_measures_by_hand() -> None:
    truth = sparse.csr_matrix(np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.float32))
    found = quality.measures(np.array([[2, 1, 0], [0, 1, 2], [3, -1, -1]], np.int32), truth, (1, 3))
    assert found == {"precision@1": 0.5, "recall@1": 0.25, "precision@3": pytest.approx((2 / 3 + 0) / 2), "recall@3": 0.5}


def test_generated_trees(tmp_path: Path) -> None:
    shape = generator.Shape(3000, features=5000, label_features=20, node_features=30)
    assert shape.nodes == (2, 30, 3000)
    assert generator.Shape(1_000_000).nodes == (3, 40, 625, 10_000, 1_000_000)
    ranker = generator.ranker(shape)
    xmc.check_ranker(ranker)
    queries = generator.queries(shape, 12)
    assert (np.diff(queries.indptr) >= 20).all()
    from dse_kernels.xmc_layout import to_file

    parts, leaves = generator.sources(shape)
    to_file(tmp_path / "t.xmc", parts, leaves, shape.features, shape.labels)
    labels, scores = xmc.load(tmp_path / "t.xmc").predict(queries)
    expected = predict_reference(ranker, queries)
    assert np.array_equal(labels, expected[0]) and np.array_equal(scores, expected[1])
    # The law gives rank r the share ((r + 1)^0.1 - r^0.1) / (5001^0.1 - 1) of the draws; a label has it if one of its 20 draws was it.
    leaf = ranker.levels[-1].weights
    counts = np.sort(np.bincount(leaf.indices, minlength=5001)[:-1])[::-1]
    share = np.diff(np.arange(1.0, 5002.0) ** 0.1) / (5001.0**0.1 - 1.0)
    expected_labels = 3000 * (1 - (1 - share) ** 20)
    deviation = np.sqrt(expected_labels * (1 - expected_labels / 3000))
    assert (np.abs(counts - expected_labels)[:5] < 5 * deviation[:5]).all()
    weights = leaf[:-1].data
    assert abs(weights.mean() - 0.4) < 5 * 0.5 / weights.size**0.5 and abs(weights.std() - 0.5) < 0.01
    with pytest.raises(ValueError, match=r"zipf 1\.5"):
        generator.Shape(10, zipf=1.5)


def test_a_generated_parent_has_features_of_its_children() -> None:
    for shape in (
        generator.Shape(3000, 5000, 20, 30),
        generator.Shape(77, 50, 3, 40, leaf=4, branch=3, bias=0),
        generator.Shape(5, 9, leaf=2),
    ):
        levels = generator.ranker(shape).levels
        for above, below in itertools.pairwise(levels):
            for parent in range(above.weights.shape[1]):
                children = below.parents[:, [parent]].indices
                held = set(below.weights[: shape.features, children].indices)
                assert children.size and set(above.weights[: shape.features, [parent]].indices) <= held


def test_a_run_of_a_generated_level_is_the_same_wherever_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = generator.Shape(700, features=300, label_features=5, node_features=12, leaf=7, branch=4)
    whole = [generator._nodes(shape, level, 0, nodes) for level, nodes in enumerate(shape.nodes)]
    for level, nodes in enumerate(shape.nodes):
        for begin, end in itertools.pairwise((0, 1, nodes // 3, nodes // 2, nodes)):
            assert begin == end or np.array_equal(generator._nodes(shape, level, begin, end), whole[level][begin:end])
    monkeypatch.setattr(generator, "RUN_WEIGHTS", 64)  # many runs: the same features, in the same columns
    for held, made in zip(whole, generator.ranker(shape).levels, strict=True):
        for node in (0, 1, held.shape[0] - 1):
            assert made.weights[:300, [node]].indices.tolist() == sorted(set(held[node].tolist()))


@pytest.mark.parametrize(("name", "parts"), [("xmc", {"speed", "growth"}), ("xmc_peers", {"ours", "omikuji", "napkinxc", "hnswlib"})])
def test_benchmarks_run_where_no_part_is_named(name: str, parts: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse of Python 3.11 holds the list that stands for none against the choices as if it were one of them."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ran: set[str] = set()
    monkeypatch.setattr(module, "environment", lambda folder: folder)
    monkeypatch.setattr(module, "prepare", lambda data, folder: (None, None), raising=False)
    monkeypatch.setattr(module, "peer", lambda who, *rest: ran.add(who), raising=False)

    def run(part: str, *rest: object) -> dict[str, object]:
        ran.add(part)
        return {}

    for part in parts:
        if hasattr(module, part):
            monkeypatch.setattr(module, part, functools.partial(run, part))
    monkeypatch.setattr(sys, "argv", [str(path)])
    assert module.main() == 0 and ran == parts
