"""Bandits that send requests to places: which site, with which card, takes each request of a language model.

    python benchmarks/routing.py [--requests 20000] [--seeds 5] [--out routing.json]

Llama-3-8B with 8-bit weights on three cards at three sites: an L40S at CISO, an A100 at ERCO, an H100 at NYIS. Requests of log-normal
lengths (median 512 tokens in, 128 out, deviations 1 and 0.8: a choice) come evenly over the hours of 2022, ten at a time. What one takes on
a card is what `dse evaluate` says of its lengths (linear between ``LENGTHS``), times a log-normal factor of 20 %: what else runs there.
Intensities are known; energies are learnt from what was chosen. The bandit sees tokens in, tokens out and their product.

Beside it: any place; the cleanest place now; the least mean energy; the least (intensity x mean energy), with mean energies known; and the
oracle, which knows what every request takes. Grams above the oracle's, in % of the oracle's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

PLACES = (("CISO", "l40s"), ("ERCO", "a100"), ("NYIS", "h100"))
LENGTHS = ((16, 128, 512, 2048, 4096), (1, 32, 128, 512, 2048))
NOISE = 0.2


def energies() -> np.ndarray:
    """kWh of a request (cards, tokens in, tokens out)."""
    import dse

    def one(card: str, tokens_in: int, tokens_out: int) -> float:
        knobs = {"sequence": tokens_in, "new_tokens": tokens_out, "batch": 8}
        return float(dse.evaluate("llama3-8b", card, fixed=knobs)["energy_j"]) / 8 / 3.6e6

    return np.array([[[one(card, a, b) for b in LENGTHS[1]] for a in LENGTHS[0]] for _, card in PLACES])


def main() -> None:
    """Print a line a way to choose."""
    from scipy.interpolate import RegularGridInterpolator

    from dse.operate.agents.bandits import KINDS, Chooser, Router
    from dse.operate.traces import grid_trace

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out")
    args = parser.parse_args()
    table = energies()
    axes = tuple(np.log(np.array(axis, dtype=float)) for axis in LENGTHS)
    of_card = [RegularGridInterpolator(axes, np.log(kwh)) for kwh in table]
    hours = np.stack([grid_trace(site).gco2e_per_kwh[:8760] for site, _ in PLACES], axis=1)
    told: dict[str, list[dict[str, Any]]] = {}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        n = args.requests
        tokens = np.stack([512 * np.exp(rng.normal(0, 1.0, n)), 128 * np.exp(rng.normal(0, 0.8, n))], axis=1)
        tokens = np.clip(tokens, [axis[0] for axis in LENGTHS], [axis[-1] for axis in LENGTHS])
        expected = np.exp(np.stack([of(np.log(tokens)) for of in of_card], axis=1))
        took = expected * np.exp(rng.normal(-(NOISE**2) / 2, NOISE, expected.shape))
        intensity = hours[np.arange(n) * len(hours) // n]
        scaled = tokens / [1024, 256]
        seen = np.column_stack([np.ones(n), scaled, scaled.prod(axis=1)])
        chosen = {
            "any place": rng.integers(0, len(PLACES), n),
            "cleanest now": intensity.argmin(axis=1),
            "least mean energy": np.full(n, expected.mean(axis=0).argmin()),
            "intensity x mean energy": (intensity * expected.mean(axis=0)).argmin(axis=1),
        }
        seconds = dict.fromkeys(chosen, 0.0)
        for kind in KINDS:
            begin = time.process_time()
            router, arms = Router(seen.shape[1], len(PLACES), chooser=Chooser(kind), seed=seed), []
            for first in range(0, n, 10):
                part = slice(first, first + 10)
                arm = router.choose(seen[part], intensity[part])
                router.told(seen[part], arm, took[part][np.arange(len(arm)), arm])
                arms.append(arm)
            chosen[kind], seconds[kind] = np.concatenate(arms), time.process_time() - begin
        grams = expected * intensity
        rows = np.arange(n)
        best = grams.min(axis=1)
        for name, arm in chosen.items():
            above, late = grams[rows, arm] - best, slice(n // 2, None)
            told.setdefault(name, []).append(
                {
                    "all": 100 * above.sum() / best.sum(),
                    "second_half": 100 * above[late].sum() / best[late].sum(),
                    "first_thousand": 100 * above[:1000].sum() / best[:1000].sum(),
                    "shares": np.bincount(arm, minlength=len(PLACES)).tolist(),
                    "cpu_s": seconds[name],
                }
            )
    print("grams above the oracle's, %: median (least ... most) of all requests, of the second half, of the first thousand; CPU s")
    for name, found in told.items():
        cells = []
        for part in ("all", "second_half", "first_thousand"):
            values = np.array([f[part] for f in found])
            cells.append(f"{np.median(values):.2f} ({values.min():.2f} ... {values.max():.2f})")
        print(f"| {name} | {' | '.join(cells)} | {np.median([f['cpu_s'] for f in found]):.1f} |")
    if args.out:
        Path(args.out).write_text(json.dumps({"kwh": table.tolist(), "runs": told}))


if __name__ == "__main__":
    main()
