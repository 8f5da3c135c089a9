"""Trees beside libpecos 1.2.8 in one run: bits, batch and online times, memory and opening, two threads, growth, training.

    python benchmarks/xmc.py [speed] [opening] [threads] [growth] [train] [lemmas] [--labels 10000 100000] [--leaf 100 200]
                            [--frequent 0 100] [--as-measured] [--weights int8] [--label-features 20] [--plot FILE.svg]
                            [--environments DIR] [--json FILE]

PECOS lives in an environment of its own (numpy 1.26, scipy 1.11), made on first use under build/peers, and answers the same model and the
same queries in turn with ours; each contender is timed by its own process CPU time. Generated trees (workloads.xmc.generator) in the shape
of the PECOS benchmarks; `train` needs WordNet's files. One thread, beam 10, top 100, unless said otherwise.

* speed: bits of labels, order and scores against the format BINARY_SEARCH_CHUNKED; batch of 2,000; single queries through Python;
  resident memory of a fresh process, and the time to open.
* opening: CPU time to open PECOS's folder of the largest size, ours and PECOS's, in fresh processes in turn.
* growth: time a query over sizes, with fitted exponents of the labels and of their logarithm; no PECOS needed. 100 million labels take
  45 GB of disk with int8 weights (TMPDIR says where), 2 GB of memory and some eight minutes of CPU, a fifth of it with
  `--label-features 20`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dse_kernels import xmc
from dse_kernels.xmc_layout import VALUES, to_file
from scipy import sparse

from workloads.xmc import data, generator, quality, text, training

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).resolve().parent / "peer_scripts" / "xmc_pecos.py"
REQUIREMENTS = ("numpy==1.26.4", "scipy==1.11.4", "scikit-learn==1.4.2")
QUERIES = 2000
ROUNDS = 7
OPENINGS = 5
CASES = [(10, 100, None), (1, 1, None), (50, 200, None), (10, 100, "sigmoid"), (10, 100, "log-sigmoid"), (10, 100, "l2-hinge"),
         (10, 100, "l5-hinge"), (10, 100, "log-l3-hinge"), (3, 200, "noop")]  # fmt: skip
FRESH = """
import json, os, resource, sys, time
import numpy as np
from dse_kernels import xmc
from scipy import sparse
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
X = sparse.load_npz(sys.argv[2])
before, begin, cpu = rss(), time.perf_counter(), time.process_time()
tree = xmc.load(sys.argv[1], sys.argv[3])
opened, spent = time.perf_counter() - begin, time.process_time() - cpu
tree.predict(X)
print(json.dumps({"open_s": opened, "open_cpu_s": spent, "rss_mb": rss(), "before_mb": before, "bytes_mb": tree.nbytes / 1e6}))
"""


def environment(folder: Path) -> Path:
    """Python with libpecos, made if need be. Without its own dependencies: they would bring a plain torch."""
    python = folder / "pecos" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "pecos")], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        subprocess.run([*pip, "--no-deps", "libpecos==1.2.8"], check=True)
    return python


class Peer:
    """libpecos behind a pipe."""

    def __init__(self, python: Path) -> None:
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([str(python), str(SCRIPT)], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=one)

    def __call__(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def speed(labels: int, python: Path, folder: Path) -> dict[str, Any]:
    """Bits, times, memory of one size."""
    shape = generator.Shape(labels)
    ranker = generator.ranker(shape)
    queries = generator.queries(shape, QUERIES)
    file = folder / "X.npz"
    sparse.save_npz(file, queries, compressed=False)
    xmc.write_pecos(ranker, folder / "pecos")
    for weights in ("float32", "int8"):
        xmc.save(ranker, folder / weights, weights)
    del ranker
    fresh = {name: _fresh(folder / name, file, "float32") for name in ("float32", "int8")}
    fresh["from PECOS's folder"] = _fresh(folder / "pecos", file, "float32")
    tree = xmc.load(folder / "float32")
    peers = {name: Peer(python) for name in ("binary", "hash")}
    opened = {name: peer("open", folder=str(folder / "pecos"), queries=str(file), format=name) for name, peer in peers.items()}
    equal = {f"beam {b}, top {k}, {p or 'l3-hinge'}": _equal(peers["binary"], tree, queries, folder, b, k, p) for b, k, p in CASES}
    times: dict[str, list[float]] = {"ours": [], "binary": [], "hash": []}
    for _ in range(ROUNDS):
        begin = time.process_time()
        tree.predict(queries)
        times["ours"].append(time.process_time() - begin)
        for name, peer in peers.items():
            times[name].append(peer("batch")["cpu_s"])
    single: dict[str, list[float]] = {"ours": [], "binary": [], "hash": []}
    for _ in range(3):
        single["ours"] += _online(tree, queries)
        for name, peer in peers.items():
            single[name] += peer("online", count=1000)["us"]
    for peer in peers.values():
        peer.close()
    small = xmc.load(folder / "int8").predict(queries)[0]
    exact = tree.predict(queries)[0]
    overlap = np.mean([len(set(a[a >= 0]) & set(b[b >= 0])) / max(1, (a >= 0).sum()) for a, b in zip(exact, small, strict=True)])
    batch = {name: min(v) / QUERIES * 1e3 for name, v in times.items()}
    online = {name: [float(np.percentile(v, q)) for q in (50, 99)] for name, v in single.items()}
    best = min(batch["binary"], batch["hash"])
    return {
        "labels": labels,
        "queries_with_equal_bits": equal,
        "batch_cpu_ms": batch,
        "batch_ratio": batch["ours"] / best,
        "batch_ratio_by_round": [a / min(b, h) for a, b, h in zip(times["ours"], times["binary"], times["hash"], strict=True)],
        "online_cpu_us_p50_p99": online,
        "online_ratio_p50": online["ours"][0] / min(online["binary"][0], online["hash"][0]),
        "online_ratio_p99": online["ours"][1] / min(online["binary"][1], online["hash"][1]),
        "pecos_open": opened,
        "ours_open": fresh,
        "int8_overlap_of_top_100": float(overlap),
    }


def _fresh(folder: Path, queries: Path, weights: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", FRESH, str(folder), str(queries), weights], check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _equal(peer: Peer, tree: xmc.Tree, queries: sparse.csr_matrix, folder: Path, beam: int, topk: int, post: str | None) -> int:
    """Queries whose labels, order and bits of scores are the same."""
    peer("save", path=str(folder / "p.npz"), beam=beam, topk=topk, post_processor=post)
    held = np.load(folder / "p.npz")
    labels, scores = tree.predict(queries, beam, topk, post_processor=post)
    same = 0
    for q in range(queries.shape[0]):
        begin, end = held["indptr"][q], held["indptr"][q + 1]
        n = end - begin
        bits = scores[q, :n].view(np.int32) == held["data"][begin:end].view(np.int32)
        same += bool((labels[q, :n] == held["indices"][begin:end]).all() and bits.all() and (labels[q, n:] == -1).all())
    return same


def _rows(queries: sparse.csr_matrix) -> list[tuple[Any, Any]]:
    edges = queries.indptr
    return [(queries.indices[edges[i] : edges[i + 1]], queries.data[edges[i] : edges[i + 1]]) for i in range(queries.shape[0])]


def _online(tree: xmc.Tree, queries: sparse.csr_matrix, beam: int = 10) -> list[float]:
    spent = []
    for indices, values in _rows(queries):
        begin = time.process_time_ns()
        tree.predict_one(indices, values, beam)
        spent.append((time.process_time_ns() - begin) / 1e3)
    return spent


def opening(labels: int, python: Path, folder: Path) -> dict[str, Any]:
    """CPU time to open PECOS's own folder, each time in a fresh process and in turn: memory that a machine hands out for the first time
    costs its first user several times as much, whoever that is."""
    shape = generator.Shape(labels)
    sparse.save_npz(folder / "X.npz", generator.queries(shape, 10), compressed=False)
    xmc.write_pecos(generator.ranker(shape), folder / "pecos")
    spent: dict[str, list[float]] = {"ours": [], "ours, int8": [], "binary": [], "hash": []}
    for _ in range(OPENINGS):
        for name, weights in (("ours", "float32"), ("ours, int8", "int8")):
            spent[name].append(_fresh(folder / "pecos", folder / "X.npz", weights)["open_cpu_s"])
        for name in ("binary", "hash"):
            peer = Peer(python)
            spent[name].append(peer("open", folder=str(folder / "pecos"), queries=str(folder / "X.npz"), format=name)["load_s"])
            peer.close()
    best = {name: min(v) for name, v in spent.items()}
    return {
        "labels": labels,
        "open_cpu_s": spent,
        "load_average": os.getloadavg()[0],
        "least": best,
        "ratio_of_least": best["ours"] / min(best["binary"], best["hash"]),
        "ratio_of_medians": float(np.median(spent["ours"]) / min(np.median(spent["binary"]), np.median(spent["hash"]))),
        "ratio_by_round": [a / min(b, h) for a, b, h in zip(spent["ours"], spent["binary"], spent["hash"], strict=True)],
    }


def threads(labels: int, folder: Path) -> dict[str, Any]:
    """Wall time of a batch with one thread and two, in turn."""
    path, queries = _generated(labels, folder)
    tree = xmc.load(path)
    spent: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(9):
        for count, walls in spent.items():
            begin = time.perf_counter()
            tree.predict(queries, threads=count)
            walls.append(time.perf_counter() - begin)
    load = os.getloadavg()[0]
    return {
        "labels": labels,
        "speedup": min(spent[1]) / min(spent[2]),
        "load_average": load,
        "wall_s": {str(k): v for k, v in spent.items()},
    }


def _generated(labels: int, folder: Path, weights: str = "float32", features: int = 100) -> tuple[Path, sparse.csr_matrix]:
    shape = generator.Shape(labels, label_features=features)
    path = folder / f"{labels}-{weights}.xmc"
    if not path.exists():
        parts, leaves = generator.sources(shape)
        to_file(path, parts, leaves, shape.features, shape.labels, weights)
    return path, generator.queries(shape, QUERIES)


def growth(sizes: list[int], weights: str, features: int, folder: Path, plot: Path | None) -> dict[str, Any]:
    """Time of a query over sizes, on the mapped file; exponents a of time ~ labels^a and b of time ~ log(labels)^b by least squares of
    logarithms. Before the first batch the file is put out of the page cache (the pages of its head, which opening read, stay): `cold` is
    that batch, the other times are warm."""
    rows: list[dict[str, Any]] = []
    for labels in sizes:
        begin = time.process_time()
        path, queries = _generated(labels, folder, weights, features)
        made = time.process_time() - begin
        with path.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        opened = _spent(partial(xmc.load, path))
        reopened = _spent(partial(xmc.load, path))
        tree = xmc.load(path)
        cold = _spent(partial(tree.predict, queries))
        batch = [_spent(partial(tree.predict, queries))["cpu_s"] for _ in range(5)]
        single = _online(tree, queries) and _online(tree, queries)
        counts = {name: float(v.mean()) for name, v in tree.count(queries[:300]).items()}
        rows.append(
            {
                **{
                    "labels": labels,
                    "label_features": features,
                    "weights": weights,
                    "file_gb": path.stat().st_size / 1e9,
                    "made_cpu_s": made,
                },
                **{"batch_cpu_us": min(batch) / QUERIES * 1e6, "online_p50_us": float(np.median(single))},
                **{"online_p99_us": float(np.percentile(single, 99)), "open_cold": opened, "open": reopened, "cold": cold, **counts},
            }
        )
        print(rows[-1], flush=True)
        del tree
        path.unlink()
    fits = {}
    for name in ("batch_cpu_us", "online_p50_us"):
        y = np.log([row[name] for row in rows])
        x = np.log([float(row["labels"]) for row in rows])
        fits[name] = {"exponent_of_labels": float(np.polyfit(x, y, 1)[0]), "exponent_of_log_labels": float(np.polyfit(np.log(x), y, 1)[0])}
    if plot is not None:
        plot.write_text(draw(rows))
    return {"rows": rows, "fits": fits}


def _spent(call: Callable[[], object]) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def draw(rows: list[dict[str, Any]]) -> str:
    """CPU time a query over the logarithm of the labels, as SVG."""
    decades = np.log10([row["labels"] for row in rows])
    first, last = int(np.floor(decades.min())), int(np.ceil(decades.max()))
    most = 20 * int(np.ceil(max(row["online_p50_us"] for row in rows) / 20))

    def x(decade: float) -> float:
        return 60 + 550 * (decade - first) / (last - first)

    def y(us: float) -> float:
        return 260 - 230 * us / most

    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" font-family="sans-serif" font-size="12">']
    out.append('<rect width="640" height="300" fill="white"/>')
    for v in range(0, most + 1, 20):
        out.append(f'<line x1="60" x2="610" y1="{y(v):.0f}" y2="{y(v):.0f}" stroke="#ddd"/>')
        out.append(f'<text x="52" y="{y(v) + 4:.0f}" text-anchor="end">{v}</text>')
    for d in range(first, last + 1):
        out.append(f'<text x="{x(d):.0f}" y="278" text-anchor="middle">10^{d}</text>')
    for name, title, colour in (("batch_cpu_us", "batch", "#1f6fb4"), ("online_p50_us", "online, p50", "#c2571a")):
        points = [(x(d), y(row[name])) for d, row in zip(decades, rows, strict=True)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        out.append(f'<text x="{points[-1][0] - 4:.0f}" y="{points[-1][1] - 8:.0f}" text-anchor="end" fill="{colour}">{title}</text>')
    out.append('<text x="335" y="296" text-anchor="middle">labels</text>')
    out.append('<text x="14" y="145" text-anchor="middle" transform="rotate(-90 14 145)">CPU us a query</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def train(name: str, python: Path | None, folder: Path, leaves: list[int], frequents: list[int], as_measured: bool) -> dict[str, Any]:
    """Training on WordNet, one thread each, on the same features, ours and PECOS's in turn with the same sizes of leaf; quality on 5,000
    documents that neither saw, answered by the same kernel. The vectoriser is fitted on the training documents alone; ``as_measured``
    on all, and the documents held out are those of the measurement of PECOS that gave Recall@100 87.4 % and P@1 89.9 %."""
    documents = data.read(f"wordnet-{name}")
    kept, test = data.split(documents, 5000, 0)
    if as_measured:
        order = np.random.RandomState(0).permutation(documents.count)
        kept, test = documents.take(order[5000:]), documents.take(order[:5000])
    assert documents.texts is not None and kept.texts is not None and test.texts is not None
    vectorizer = text.fit(documents.texts if as_measured else kept.texts, text.TextSettings())
    X, queries, y = vectorizer.transform(kept.texts), vectorizer.transform(test.texts), kept.labels
    arrays = {f"x_{n}": getattr(X, n) for n in ("data", "indices", "indptr", "shape")}
    np.savez(folder / "t.npz", **arrays, y_indices=y.indices, y_indptr=y.indptr, y_shape=y.shape)
    rows: list[dict[str, Any]] = []

    def judge(tree: xmc.Tree, **told: Any) -> None:
        for beam, post in ((10, "l3-hinge"), (10, "l4-hinge"), (20, "l3-hinge"), (20, "l4-hinge")):
            found = quality.measures(tree.predict(queries, beam, 100, post_processor=post)[0], test.labels, (1, 100))
            begin = time.process_time()
            tree.predict(queries, beam, 100, post_processor=post)
            batch_us = (time.process_time() - begin) / queries.shape[0] * 1e6
            rows.append({**told, "weights": tree.weights, "beam": beam, "post_processor": post, **found, "batch_cpu_us": batch_us})
            print(rows[-1], flush=True)

    for leaf in leaves:
        for frequent in frequents:
            begin = time.process_time()
            settings = training.TrainSettings(leaf=leaf, frequent=frequent)
            ranker = training.train(X, y, settings, tell=lambda line: print(line, flush=True))
            spent = time.process_time() - begin
            for weights in ("float32", "int8"):
                judge(xmc.build(ranker, weights), who="ours", leaf=leaf, frequent=frequent, cpu_s=spent)
        if python is not None:
            peer = Peer(python)
            held = peer("train", data=str(folder / "t.npz"), folder=str(folder / f"trained-{leaf}"), leaf=leaf)
            peer.close()
            judge(xmc.load(folder / f"trained-{leaf}"), who="pecos", leaf=leaf, cpu_s=held["cpu_s"], index_cpu_s=held["index_cpu_s"])
    return {"data": name, "as_measured": as_measured, "documents": X.shape[0], "features": X.shape[1], "labels": y.shape[1], "rows": rows}


def main() -> int:
    """Run the parts that are named, speed and growth if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # The default is a word, not a list: Python 3.11 holds it against the choices as a whole.
    parts = ("speed", "opening", "threads", "growth", "train", "lemmas")
    parser.add_argument("parts", nargs="*", default="usual", choices=(*parts, "usual"), help="usual: speed growth")
    parser.add_argument("--labels", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--weights", default="float32", choices=VALUES, help="of the growth")
    parser.add_argument("--label-features", type=int, default=100, help="features drawn for a label, of the growth")
    parser.add_argument("--leaf", type=int, nargs="+", default=[100, 200], help="labels of a cluster at most, of the training")
    parser.add_argument("--frequent", type=int, nargs="+", default=[training.TrainSettings.frequent], help="of ours, of the training")
    parser.add_argument("--as-measured", action="store_true", help="training: terms of all documents and the split of PECOS's 87.4 %%")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="the growth, drawn")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="dse-xmc-"))
    try:
        for part in ("speed", "growth") if "usual" in args.parts else args.parts:
            if part == "speed":
                results[part] = []
                for labels in args.labels:
                    (folder / str(labels)).mkdir()
                    results[part].append(speed(labels, environment(args.environments), folder / str(labels)))
                    print(json.dumps(results[part][-1], indent=1), flush=True)
                    shutil.rmtree(folder / str(labels))
                continue
            calls = {
                "opening": lambda: opening(max(args.labels), environment(args.environments), folder),
                "threads": lambda: threads(max(args.labels), folder),
                "growth": lambda: growth(args.labels, args.weights, args.label_features, folder, args.plot),
                "train": lambda: train("hypernyms", environment(args.environments), folder, args.leaf, args.frequent, args.as_measured),
                "lemmas": lambda: train("lemmas", environment(args.environments), folder, args.leaf, args.frequent, args.as_measured),
            }
            results[part] = calls[part]()
            print(part, json.dumps({k: v for k, v in results[part].items() if k not in ("cases",)}, indent=1), flush=True)
    finally:
        shutil.rmtree(folder)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
