"""omikuji, napkinxc or hnswlib in an environment of their own: trains, predicts, and prints JSON. Run by benchmarks/xmc_peers.py.

    python xmc_others.py NAME FOLDER [SETTINGS as JSON]

FOLDER has train.txt (Extreme Classification repository's form), X.npz, Y.npz, Q.npz (CSR: documents, labels, queries) and, for hnswlib,
labels.npy (labels, d), map.npy (features, d): embeddings of labels, and of a query as the sum of its features' rows. Printed: a list with a
record of each run; `labels` names its file with what was found, (queries, 100) int32, -1 where there is none. CPU times of one thread.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import itertools

import numpy as np
import scipy.sparse as smat

TOP = 100


def timed_calls(call, rows):
    out, spent = [], []
    for row in rows:
        begin = time.process_time_ns()
        out.append(call(row))
        spent.append((time.process_time_ns() - begin) / 1e3)
    return out, {"online_p50_us": float(np.percentile(spent, 50)), "online_p99_us": float(np.percentile(spent, 99))}


def omikuji(folder, queries, settings):
    import omikuji as library

    chosen = library.Model.default_hyper_param()
    for name, value in settings.items():
        setattr(chosen, name, value)
    begin = time.process_time()
    model = library.Model.train_on_data(str(folder / "train.txt"), chosen, 1)
    train_s = time.process_time() - begin
    rows = [list(zip(q.indices.tolist(), q.data.tolist(), strict=False)) for q in queries]
    found, times = timed_calls(lambda row: model.predict(row, beam_size=10, top_k=TOP), rows)
    return [([[label for label, _ in row] for row in found], {"train_cpu_s": train_s, **times})]


def napkinxc(folder, queries, settings):
    from napkinxc.models import PLT

    X = smat.load_npz(folder / "X.npz").astype(np.float32)
    Y = smat.load_npz(folder / "Y.npz").astype(np.float32)
    model = PLT(str(folder / "napkinxc-model"), threads=1, seed=0, **settings)
    begin = time.process_time()
    model.fit(X, Y)
    train_s = time.process_time() - begin
    model.predict(queries[:1], top_k=TOP)  # reads the model
    begin = time.process_time()
    found = model.predict(queries, top_k=TOP)
    batch = (time.process_time() - begin) / queries.shape[0] * 1e3
    few = [queries[i] for i in range(min(200, queries.shape[0]))]
    _, times = timed_calls(lambda row: model.predict(row, top_k=TOP), few)
    return [(found, {"train_cpu_s": train_s, "batch_cpu_ms": batch, **times})]


def hnswlib(folder, queries, settings):
    import hnswlib as library

    labels, embed = np.load(folder / "labels.npy"), np.load(folder / "map.npy")
    index = library.Index(space="cosine", dim=labels.shape[1])
    begin = time.process_time()
    index.init_index(max_elements=labels.shape[0], M=settings["M"], ef_construction=settings["ef_construction"], random_seed=0)
    index.add_items(labels, num_threads=1)
    built = time.process_time() - begin
    rows = [(queries.indices[a:b], queries.data[a:b]) for a, b in itertools.pairwise(queries.indptr)]
    runs = []
    for ef in settings["ef"]:
        index.set_ef(ef)
        begin = time.process_time()
        found, _ = index.knn_query(queries @ embed, k=TOP, num_threads=1)
        batch = (time.process_time() - begin) / queries.shape[0] * 1e3
        _, times = timed_calls(lambda row: index.knn_query(row[1] @ embed[row[0]], k=TOP, num_threads=1), rows[:1000])
        runs.append((found, {"ef": ef, "train_cpu_s": built, "batch_cpu_ms": batch, **times}))
    return runs


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    settings = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is not the answer
    queries = smat.csr_matrix(smat.load_npz(folder / "Q.npz").astype(np.float32))
    runs = {"omikuji": omikuji, "napkinxc": napkinxc, "hnswlib": hnswlib}[name](folder, queries, settings)
    records = []
    for number, (found, record) in enumerate(runs):
        out = np.full((queries.shape[0], TOP), -1, np.int32)
        for i, row in enumerate(found):
            out[i, : min(len(row), TOP)] = list(row)[:TOP]
        np.save(folder / f"{name}-{number}.npy", out)
        records.append({"labels": f"{name}-{number}.npy", **record})
    told.write(json.dumps(records) + "\n")
    told.flush()


main()
