"""libpecos in an environment of its own: answers JSON lines on stdin with JSON lines on stdout. Run by benchmarks/xmc.py and tests.

open {folder, queries, format} -> load_s, rss_mb;  batch {beam, topk, post_processor, threads} -> cpu_s, wall_s;
online {count, beam, topk} -> cpu_us of each call;  save {path, ...} -> predictions as npz, in PECOS's order;
train {data, folder, seed, threads, leaf} -> cpu_s, wall_s.
"""

import json
import os
import resource
import sys
import time

import numpy as np
import scipy.sparse as smat
from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel

FORMATS = {"csc": "CSC", "hash": "HASH_CHUNKED", "binary": "BINARY_SEARCH_CHUNKED"}
state = {}


def rss_mb():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 1e6


def open_model(folder, queries, format):
    before = rss_mb()
    cpu = time.process_time()
    model = XLinearModel.load(folder, is_predict_only=True, weight_matrix_type=FORMATS[format])
    spent = time.process_time() - cpu
    state["model"] = model
    X = smat.load_npz(queries).astype(np.float32)
    state["X"], state["rows"] = X, [X[i] for i in range(X.shape[0])]
    return {"load_s": spent, "rss_mb": rss_mb(), "before_mb": before}


def predict(X, beam, topk, post_processor=None, threads=1):
    kwargs = {"beam_size": beam, "only_topk": topk, "threads": threads}
    if post_processor:
        kwargs["post_processor"] = post_processor
    return state["model"].predict(X, **kwargs)


def batch(beam=10, topk=100, post_processor=None, threads=1):
    cpu, wall = time.process_time(), time.perf_counter()
    predict(state["X"], beam, topk, post_processor, threads)
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def online(count, beam=10, topk=100):
    rows, out = state["rows"], []
    for i in range(count):
        x = rows[i % len(rows)]
        begin = time.process_time_ns()
        predict(x, beam, topk)
        out.append((time.process_time_ns() - begin) / 1e3)
    return {"us": out}


def save(path, beam=10, topk=100, post_processor=None):
    p = predict(state["X"], beam, topk, post_processor)
    np.savez(path, indptr=p.indptr, indices=p.indices, data=p.data)
    return {}


def train(data, folder, seed=0, threads=1, leaf=100):
    with np.load(data) as f:
        X = smat.csr_matrix((f["x_data"], f["x_indices"], f["x_indptr"]), shape=tuple(f["x_shape"]))
        Y = smat.csr_matrix((np.ones(len(f["y_indices"]), np.float32), f["y_indices"], f["y_indptr"]), shape=tuple(f["y_shape"]))
    cpu, wall = time.process_time(), time.perf_counter()
    features = LabelEmbeddingFactory.create(Y, X, method="pifa")
    chain = Indexer.gen(features, indexer_type="hierarchicalkmeans", nr_splits=16, max_leaf_size=leaf, seed=seed, threads=threads)
    indexed = time.process_time() - cpu
    model = XLinearModel.train(X, Y, C=chain, threshold=0.1, threads=threads)
    spent = {"index_cpu_s": indexed, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    model.save(folder)
    return spent


def main():
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        message = json.loads(line)
        do = {"open": open_model, "batch": batch, "online": online, "save": save, "train": train}[message.pop("do")]
        stdout.write(json.dumps(do(**message)) + "\n")
        stdout.flush()


main()
