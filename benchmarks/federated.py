"""Federated temporal differences with a shared representation, against one policy for all, FedAvg and each site alone: all seeds.

    python benchmarks/federated.py [--seeds 20] [--steps 20000] [--json FILE]

Step sizes are fixed beforehand (`constant`, `decaying`); nothing is tuned on what is shown. About two minutes of one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from dse.operate.federated.linear import WAYS, constant, decaying, draw_sites, join, learn

COUNTS = (4, 8, 16, 32)


def speed_up(seeds: int, steps: int) -> list[dict[str, Any]]:
    """Error of the subspace by number of sites, and its slope."""
    rows = []
    for spread in (True, False):
        for name, schedule in (("constant", constant()), ("decaying", decaying)):
            errors = []
            for n in COUNTS:
                sites = draw_sites(seeds, n, spread=spread)
                errors.append(learn(sites, steps, schedule=schedule).subspace_error(sites))
            slopes = {
                kind: float(np.polyfit(np.log2(COUNTS), np.log2([function(e) for e in errors]), 1)[0])
                for kind, function in (("mean", np.mean), ("median", np.median))
            }
            rows.append(
                {
                    "heads": "spread" if spread else "Gaussian",
                    "steps": name,
                    **{f"mean N={n}": float(e.mean()) for n, e in zip(COUNTS, errors, strict=True)},
                    **{f"worst N={n}": float(e.max()) for n, e in zip(COUNTS, errors, strict=True)},
                    **{f"slope of {kind}": slope for kind, slope in slopes.items()},
                }
            )
    return rows


def ways(seeds: int, steps: int) -> list[dict[str, Any]]:
    """Error of the values of 16 sites by way."""
    rows = []
    for alike in (False, True):
        sites = draw_sites(seeds, 16, alike=alike)
        for way in WAYS:
            learnt = learn(sites, steps, way=way)
            error = learnt.value_error(sites)
            rows.append(
                {
                    "sites": "alike" if alike else "different",
                    "way": way,
                    "mean": float(error.mean()),
                    "median": float(np.median(error)),
                    "worst": float(error.max()),
                    "numbers sent a site": learnt.sent,
                }
            )
    return rows


def joining(seeds: int, steps: int) -> list[dict[str, Any]]:
    """A seventeenth site with the representation of sixteen."""
    rows = []
    for d in (8, 16, 32):
        for rounds in (steps, steps // 40):
            sites = draw_sites(seeds, 17, d=d, states=max(20, 2 * d))
            learnt = learn(sites.take(0, 16), rounds)
            joined = join(sites.take(16, 17), learnt.subspace[:, 0], 6_000)
            frozen, alone = (np.where(n < 0, 6_001, n) for n in (joined.frozen_samples, joined.alone_samples))
            rows.append(
                {
                    "d": d,
                    "steps of the sixteen": rounds,
                    "subspace error": float(learnt.subspace_error(sites.take(0, 16)).mean()),
                    "samples frozen": float(np.median(frozen)),
                    "samples alone": float(np.median(alone)),
                    "ratio": float(np.median(frozen) / np.median(alone)),
                    "never frozen": int((joined.frozen_samples < 0).sum()),
                    "end frozen": float(np.median(joined.frozen_error)),
                    "end freed": float(np.median(joined.freed_error)),
                    "end alone": float(np.median(joined.alone_error)),
                }
            )
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {}
    for name, function in (("speed-up", speed_up), ("ways", ways), ("joining", joining)):
        found[name] = function(args.seeds, args.steps)
        print(name)
        for row in found[name]:
            print("  " + ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
