"""Measures what the workload `xmc-wordnet` is made of: trees on WordNet's glosses and hypernyms, by their knobs.

    python benchmarks/xmc_table.py [--out workloads/xmc/wordnet_hypernyms.csv]

Every tree is trained on all but 5,000 documents and measured on those: recall and precision on all of them, counts on the first 500.
About three minutes on one core; needs WordNet's files (`dse doctor` says how to get them).
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from dse_kernels import xmc

from workloads.xmc import data, quality, text, training

TREES = ((16, 100), (4, 100))  # branch, leaf: 16-256 and 4-16-64-256 clusters
NGRAMS = (1, 2)
THRESHOLDS = (100, 200, 300, 500)  # thousandths
WEIGHTS = {32: "float32", 16: "float16", 8: "int8"}
BEAMS = (5, 10, 20, 40)
COUNTED = ("chunks", "labels_scored", "row_probes", "row_hits", "macs", "unique_lines", "dependent_depth")
FIELDS = ("ngrams", "branch", "leaf", "threshold_milli", "weight_bits", "beam", "level", "recall_100", "recall_100_sem", "precision_1")
FIELDS += ("stored", "bytes", *COUNTED)


def main() -> None:
    """Train, prune, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="workloads/xmc/wordnet_hypernyms.csv")
    args = parser.parse_args()
    documents = data.read("wordnet-hypernyms")
    train, test = data.split(documents, 5000, 0)
    assert train.texts is not None and test.texts is not None
    rows = []
    for ngrams in NGRAMS:
        vectorizer = text.fit(train.texts, text.TextSettings(words=(1, ngrams)))
        X, queries = vectorizer.transform(train.texts), vectorizer.transform(test.texts)
        for branch, leaf in TREES if ngrams == 2 else TREES[:1]:
            ranker = training.train(
                X,
                train.labels,
                training.TrainSettings(branch=branch, leaf=leaf, frequent=0, post_processor="l3-hinge"),
                tell=lambda t: print(t, file=sys.stderr),
            )
            for threshold in THRESHOLDS:
                pruned = training.prune(ranker, threshold / 1000)
                for bits, weights in WEIGHTS.items():
                    tree = xmc.build(pruned, weights)
                    for beam in BEAMS:
                        rows += measure(tree, queries, test.labels, (ngrams, branch, leaf, threshold, bits, beam))
    with Path(args.out).open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows)


def measure(tree: xmc.Tree, queries: object, truth: object, knobs: tuple[int, ...]) -> list[list[object]]:
    """A line for each level."""
    labels, _ = tree.predict(queries, knobs[-1], 100)
    found = quality.measures(labels, truth, (1, 100))
    of_each = quality.hits(labels, truth).sum(axis=1) / np.maximum(np.diff(truth.indptr), 1)
    sem = float(np.std(of_each, ddof=1) / np.sqrt(len(of_each)))
    counts = tree.count(queries[:500], knobs[-1], 100, by_level=True)
    lines = []
    for level, held in enumerate(tree.level_table()):
        means = [round(float(counts[name][:, level].mean()), 2) for name in COUNTED]
        percent = [round(100 * v, 3) for v in (found["recall@100"], sem, found["precision@1"])]
        lines.append([*knobs, level, *percent, held["nonzeros"], held["bytes"], *means])
    return lines


if __name__ == "__main__":
    main()
