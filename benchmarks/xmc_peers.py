"""omikuji, napkinxc and an HNSW index beside our tree: WordNet's hypernyms, the same documents, features and queries for all.

    python benchmarks/xmc_peers.py [ours] [omikuji] [napkinxc] [hnswlib] [--environments DIR] [--data NAME]
                                  [--folder DIR] [--json FILE]

Each peer lives in an environment made on first use under build/peers; what does not install is told with its error. One thread, top 100,
CPU time; `online` is single calls through Python, the peer's own conversion of the query included.

* omikuji: its defaults (Parabel's tree, three of them in a forest), and one tree; beam 10.
* napkinxc: a probabilistic label tree by hierarchical 2-means (its defaults), searched exactly and with a beam of 10.
* hnswlib: documents reduced to 256 numbers by a randomised SVD of their features; a label is the ridge regression of "has this label" on
  them, so that the inner product with a query estimates it. One more number makes all labels equally long (and is 0 in a query), so
  that the index's cosine orders as the inner product does. Reducing the query is part of its time. ef from 100 to 1,600, and all
  labels compared (`exact`): what no setting of the index can exceed. Our tree is shown by beams, some with recalls near to it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from dse_kernels import xmc
from scipy import sparse

from workloads.xmc import data, quality, text, timing, training

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).resolve().parent / "peer_scripts" / "xmc_others.py"
REQUIREMENTS = {"omikuji": ("omikuji==0.5.2",), "napkinxc": ("napkinxc==0.7.2",), "hnswlib": ("hnswlib==0.8.0",)}
DIMENSIONS = 256
RIDGE = 1.0
RUNS: dict[str, tuple[dict[str, Any], ...]] = {
    "omikuji": ({"n_trees": 1}, {}),
    "napkinxc": ({}, {"tree_search_type": "beam", "beam_search_width": 10, "load_as": "map"}),
    "hnswlib": ({"M": 16, "ef_construction": 200, "ef": [100, 200, 400, 1600]},),
}
BEAMS = (1, 2, 3, 5, 10, 20)


def environment(folder: Path, name: str) -> Path | str:
    """Python with the peer, made if need be; or the last line of why not."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    tried = subprocess.run([str(python), "-c", f"import {name}, scipy"], check=False, capture_output=True)
    if tried.returncode:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy", "scipy", *REQUIREMENTS[name]]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            return ([line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"])[-1]
    return python


def prepare(name: str, folder: Path) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Write what the peers read; returns the features and the labels of the documents that are held out."""
    if (folder / "train.txt").exists():
        return sparse.load_npz(folder / "Q.npz").tocsr(), sparse.load_npz(folder / "T.npz").tocsr()
    kept, test = data.split(data.read(name), 5000, 0)
    assert kept.texts is not None and test.texts is not None
    vectorizer = text.fit(kept.texts, text.TextSettings())
    X, queries, y = vectorizer.transform(kept.texts), vectorizer.transform(test.texts), kept.labels
    for file, matrix in (("X", X), ("Y", y), ("Q", queries), ("T", test.labels)):
        sparse.save_npz(folder / f"{file}.npz", matrix, compressed=False)
    with (folder / "train.part").open("w") as stream:
        print(X.shape[0], X.shape[1], y.shape[1], file=stream)
        for i in range(X.shape[0]):
            a, b = X.indptr[i], X.indptr[i + 1]
            labels = ",".join(map(str, y.indices[y.indptr[i] : y.indptr[i + 1]]))
            print(labels, *(f"{f}:{v:.6g}" for f, v in zip(X.indices[a:b], X.data[a:b], strict=True)), file=stream)
    (folder / "train.part").rename(folder / "train.txt")
    return queries, test.labels


def embed(folder: Path) -> None:
    """Embeddings for the index."""
    if (folder / "labels.npy").exists():
        return
    from sklearn.utils.extmath import randomized_svd

    X, y = sparse.load_npz(folder / "X.npz").tocsr(), sparse.load_npz(folder / "Y.npz").tocsr()
    _, _, across = randomized_svd(X, DIMENSIONS, n_iter=2, random_state=0)
    held = np.ascontiguousarray(across.T, np.float32)
    reduced = (X @ held).astype(np.float64)
    labels = np.linalg.solve(reduced.T @ reduced + RIDGE * np.eye(DIMENSIONS), (y.T @ reduced).T).T
    lengths = np.linalg.norm(labels, axis=1)
    rest = np.sqrt(np.maximum(lengths.max() ** 2 - lengths**2, 0.0))
    np.save(folder / "map.npy", np.hstack([held, np.zeros((held.shape[0], 1), np.float32)]))
    np.save(folder / "labels.npy", np.hstack([labels, rest[:, None]]).astype(np.float32))


def ours(folder: Path, queries: sparse.csr_matrix, truth: sparse.csr_matrix) -> list[dict[str, Any]]:
    """Our tree by beams."""
    X, y = sparse.load_npz(folder / "X.npz").tocsr(), sparse.load_npz(folder / "Y.npz").tocsr()
    if not (folder / "tree.xmc").exists():
        xmc.save(training.train(X, y, training.TrainSettings(frequent=0, post_processor="l3-hinge")), folder)
    tree = xmc.load(folder)
    rows = []
    for beam in BEAMS:
        spent = timing.bench(tree, queries, beam, 100)
        found = quality.measures(tree.predict(queries, beam, 100)[0], truth, (1, 100))
        rows.append({"beam": beam, **found, **{k: spent[k] for k in ("batch_cpu_ms", "online_p50_us", "online_p99_us")}})
    return rows


def exact(folder: Path, queries: sparse.csr_matrix, truth: sparse.csr_matrix) -> dict[str, float]:
    """Quality of the nearest labels by comparison with all of them."""
    labels, held = np.load(folder / "labels.npy"), queries @ np.load(folder / "map.npy")
    found = np.empty((held.shape[0], 100), np.int32)
    for begin in range(0, held.shape[0], 500):
        scores = held[begin : begin + 500] @ labels.T
        first = np.argpartition(-scores, 100, axis=1)[:, :100]
        order = np.argsort(-np.take_along_axis(scores, first, 1), axis=1, kind="stable")
        found[begin : begin + 500] = np.take_along_axis(first, order, 1)
    return quality.measures(found, truth, (1, 100))


def main() -> int:
    """Run who is named, all if nobody is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", nargs="*", default="all", choices=("ours", *RUNS, "all"))
    parser.add_argument("--data", default="wordnet-hypernyms")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--folder", type=Path, help="keep what is prepared and trained here, and take what is there already")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dse-xmc-") as held:
        folder = args.folder or Path(held)
        folder.mkdir(parents=True, exist_ok=True)
        queries, truth = prepare(args.data, folder)
        for who in ("ours", *RUNS) if "all" in args.who else args.who:
            if who == "ours":
                results[who] = ours(folder, queries, truth)
            else:
                results[who] = peer(who, args.environments, folder, queries, truth)
            print(who, json.dumps(results[who], indent=1), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))
    return 0


def peer(who: str, environments: Path, folder: Path, queries: sparse.csr_matrix, truth: sparse.csr_matrix) -> Any:
    """All runs of one peer."""
    python = environment(environments, who)
    if isinstance(python, str):
        return {"does not install": python}
    rows: list[dict[str, Any]] = []
    if who == "hnswlib":
        embed(folder)
        rows.append({"exact": True, **exact(folder, queries, truth)})
    for settings in RUNS[who]:
        command = [str(python), str(SCRIPT), who, str(folder), json.dumps(settings)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            rows.append({**settings, "failed": ([line for line in done.stderr.splitlines() if line.strip()] or ["?"])[-1]})
            continue
        for record in json.loads(done.stdout.splitlines()[-1]):
            labels = np.load(folder / record.pop("labels"))
            rows.append({**settings, **record, **quality.measures(labels, truth, (1, 100))})
    return rows


if __name__ == "__main__":
    sys.exit(main())
