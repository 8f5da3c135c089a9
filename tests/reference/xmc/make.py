"""Makes pecos_small/: a model that libpecos trained, queries, and its predictions. Run with libpecos 1.2.8, numpy 1.26.4, scipy 1.11.4:

python tests/reference/xmc/make.py
"""

from pathlib import Path

import numpy as np
import scipy.sparse as smat
from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel

FOLDER = Path(__file__).parent / "pecos_small"
LABELS, FEATURES, DOCUMENTS, QUERIES = 240, 500, 1200, 60
CASES = [
    (10, 20, None),
    (3, 10, None),
    (1, 1, None),
    (50, 200, None),
    (10, 20, "sigmoid"),
    (25, 50, "log-sigmoid"),
    (10, 20, "l2-hinge"),
    (10, 20, "l5-hinge"),
    (10, 20, "log-l3-hinge"),
    (4, 30, "noop"),
]


def main() -> None:
    rng = np.random.default_rng(7)
    topics = rng.integers(0, FEATURES, (LABELS, 12))
    rows, columns, owners = [], [], []
    for d in range(DOCUMENTS):
        held = rng.choice(LABELS, rng.integers(1, 4), replace=False)
        words = np.concatenate([rng.choice(topics[label], 8) for label in held] + [rng.integers(0, FEATURES, 5)])
        rows += [d] * len(words)
        columns += list(words)
        owners += [(d, label) for label in held]
    X = smat.csr_matrix((rng.random(len(rows)) + 0.1, (rows, columns)), shape=(DOCUMENTS, FEATURES), dtype=np.float32)
    X.data /= np.repeat(np.sqrt(np.asarray(X.multiply(X).sum(1)).ravel()), np.diff(X.indptr))
    d, label = np.array(owners).T
    Y = smat.csr_matrix((np.ones(len(d), np.float32), (d, label)), shape=(DOCUMENTS, LABELS))
    train, test = X[:-QUERIES], X[-QUERIES:].tolil()
    test[0] = 0  # a query without features: only the biases speak
    test = smat.csr_matrix(test, dtype=np.float32)
    features = LabelEmbeddingFactory.create(Y[:-QUERIES], train, method="pifa")
    chain = Indexer.gen(features, indexer_type="hierarchicalkmeans", nr_splits=4, max_leaf_size=20, seed=0, threads=1)
    model = XLinearModel.train(train, Y[:-QUERIES], C=chain, threshold=0.1, threads=1)
    model.save(str(FOLDER))
    for file in FOLDER.rglob("*.npz"):  # small files for a repository; PECOS itself wants them uncompressed
        smat.save_npz(file, smat.load_npz(file), compressed=True)
    smat.save_npz(FOLDER / "queries.npz", test)
    model.save(str(FOLDER.with_name("scratch")))
    served = XLinearModel.load(str(FOLDER.with_name("scratch")), is_predict_only=True, weight_matrix_type="BINARY_SEARCH_CHUNKED")
    for beam, topk, post in CASES:
        options = {"post_processor": post} if post else {}
        p = served.predict(test, beam_size=beam, only_topk=topk, threads=1, **options)
        np.savez_compressed(FOLDER / f"predict_b{beam}_k{topk}_{post or 'own'}.npz", indptr=p.indptr, indices=p.indices, data=p.data)


main()
