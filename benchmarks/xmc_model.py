"""A cost model of single queries against this machine: sizes, beams and thresholds that it was fitted to, and others.

    python benchmarks/xmc_model.py [--trained FOLDER QUERIES.npz] [--cases FOLDER] [--json FILE]

The time of a query [us], as the median over 500 single calls through Python (process CPU time, the least of three rounds, warm), is
modelled as a sum of counts times a cost each: a call, a chunk, a feature looked up, one found, a multiply-add, a label, and a line of 64
bytes by where the tree down to its level lies (caches of 1 MiB and 32 MiB, or the DRAM). The costs are fitted by non-negative least squares
of relative errors to generated trees of 3,000, 10,000 and 100,000 labels, pruned at 0 and 0.7, beams 3, 10 and 40. Judged are those that
have another size (30,000, 300,000), beam (5, 20) or threshold (0.4, 1.0), by what they differ in, and with --trained a trained tree (a
folder that `dse xmc train` wrote) pruned at 0.1 to 0.7: none of its queries is in the fit. About two minutes on one
core; --cases keeps what is measured of each size and goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from dse_kernels import xmc
from scipy import sparse
from scipy.optimize import nnls

from workloads.xmc import generator, training

SIZES, NEW_SIZES = (3000, 10_000, 100_000), (30_000, 300_000)
BEAMS, NEW_BEAMS = (3, 10, 40), (5, 20)
THRESHOLDS, NEW_THRESHOLDS = (0.0, 0.7), (0.4, 1.0)
TRAINED_THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
QUERY_FEATURES = (12, 36, 72)
QUERIES = 500
CACHES = 2**20, 32 * 2**20  # what the second cache and the third hold
COUNTED = ("chunks", "row_probes", "row_hits", "macs", "labels_scored")
COSTS = ("call", *COUNTED, "lines_in_l2", "lines_in_l3", "lines_in_dram")


def measure(tree: xmc.Tree, queries: sparse.csr_matrix, beam: int, **settings: Any) -> dict[str, Any]:
    """Time of a query and what it touches."""
    edges = queries.indptr
    rows = [(queries.indices[a:b], queries.data[a:b]) for a, b in itertools.pairwise(edges)]
    medians = []
    for _ in range(4):
        spent = []
        for indices, values in rows:
            begin = time.process_time_ns()
            tree.predict_one(indices, values, beam)
            spent.append((time.process_time_ns() - begin) / 1e3)
        medians.append(float(np.median(spent)))
    counts = {name: held.mean(axis=0) for name, held in tree.count(queries[:300], beam, by_level=True).items()}
    below = np.cumsum([level["bytes"] for level in tree.level_table()])
    lines = counts["unique_lines"]
    near, far = below <= CACHES[0], below > CACHES[1]
    where = [float(lines[chosen].sum()) for chosen in (near, ~near & ~far, far)]
    row = [1.0, *(float(counts[name].sum()) for name in COUNTED), *where]
    return {**settings, "beam": beam, "p50_us": min(medians[1:]), "counts": dict(zip(COSTS, row, strict=True))}


def generated(labels: int) -> list[dict[str, Any]]:
    """All cases of one size."""
    shape = generator.Shape(labels)
    ranker = generator.ranker(shape)
    queries = {n: generator.queries(shape, QUERIES, n) for n in QUERY_FEATURES}
    cases = []
    for threshold in sorted(THRESHOLDS + NEW_THRESHOLDS):
        tree = xmc.build(training.prune(ranker, threshold))
        for n, held in queries.items():
            for beam in sorted(BEAMS + NEW_BEAMS):
                cases.append(measure(tree, held, beam, source="generated", labels=labels, threshold=threshold, query_features=n))
    return cases


def trained(folder: Path, queries: Path) -> list[dict[str, Any]]:
    """All cases of a trained tree."""
    ranker, held = xmc.read_pecos(folder), sparse.load_npz(queries)[:QUERIES]
    cases = []
    for threshold in TRAINED_THRESHOLDS:
        tree = xmc.build(training.prune(ranker, threshold))
        for beam in sorted(BEAMS + NEW_BEAMS):
            cases.append(measure(tree, held, beam, source="trained", labels=ranker.labels, threshold=threshold))
    return cases


def judge(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The fit, and errors by what a case has that the fit has not."""
    design = np.array([[case["counts"][name] for name in COSTS] for case in cases])
    measured = np.array([case["p50_us"] for case in cases])
    new = {
        "size": np.array([case["labels"] in NEW_SIZES for case in cases]),
        "beam": np.array([case["beam"] in NEW_BEAMS for case in cases]),
        "threshold": np.array([case["threshold"] in NEW_THRESHOLDS for case in cases]),
    }
    own = np.array([case["source"] == "generated" for case in cases])
    fitted = own & ~np.any(list(new.values()), axis=0)
    costs, _ = nnls(design[fitted] / measured[fitted, None], np.ones(fitted.sum()))
    error = np.abs(design @ costs / measured - 1)
    groups = {"fitted": fitted, "left out": own & ~fitted}
    groups |= {f"another {name}": own & held for name, held in new.items()}
    groups |= {"another size, beam and threshold": own & np.all(list(new.values()), axis=0), "trained tree": ~own}
    errors = {
        name: {"cases": int(held.sum()), "median_error": float(np.median(error[held])), "largest_error": float(error[held].max())}
        for name, held in groups.items()
        if held.any()
    }
    return {"us": dict(zip(COSTS, map(float, costs), strict=True)), "errors": errors}


def main() -> int:
    """Measure, fit, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", nargs=2, type=Path, metavar=("FOLDER", "QUERIES.npz"))
    parser.add_argument("--cases", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = []
    for labels in sorted(SIZES + NEW_SIZES):
        kept = args.cases / f"{labels}.json" if args.cases else None
        if kept is not None and kept.exists():
            cases += json.loads(kept.read_text())
            continue
        found = generated(labels)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found))
        cases += found
    if args.trained:
        cases += trained(*args.trained)
    judged = judge(cases)
    print(json.dumps(judged, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**judged, "cases": cases}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
