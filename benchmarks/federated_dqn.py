"""Deep Q-learning at several grids: a shared trunk with own heads, FedAvg, one policy for all, each alone, for 1 to 16 sites.

    python benchmarks/federated_dqn.py [--passes 10] [--weeks 4] [--seeds 0 1 2] [--out federated_dqn.json] [--join]

Share of what foresight saves over *sleep + clock, run now*, on the 13 test weeks of each grid; the example device, 30 % flexible within
24 h; nobody starts from the plan's values. Sites 9 to 16 are the same grids under another load (seed 1). About three CPU minutes a seed; a
run that was stopped goes on from its file. ``alone`` at 16 sites is every site by itself, and its first one N = 1. ``--join``: one of the
first four grids with the trunk of the seven others, which stays (frozen), stays for the first half (freed), or is its own (alone), after 1
to 10 passes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from dse.operate import device, optimum, scenario
from dse.operate.federated.dqn import SitePolicy, join, train
from dse.operate.policies import Now, Plan
from dse.operate.simulation import simulate

GRIDS = ("CISO", "ERCO", "BPAT", "NYIS", "MISO", "PJM", "AZPS", "SOCO")
WAYS = ("personal", "fedavg", "one for all")
JOIN_PASSES = (1, 2, 4, 10)
RUNS = (("alone", 16), *((way, count) for count in (8, 16, 4, 2) for way in WAYS))


def main() -> None:
    """Train, run test weeks, print."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--weeks", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="federated_dqn.json")
    parser.add_argument("--join", action="store_true")
    args = parser.parse_args()
    kept = Path(args.out)
    known = json.loads(kept.read_text()) if kept.exists() else {}
    prepared = [scenario.Scenario(device.example(), (name,), seed=load).prepared() for load in (0, 1) for name in GRIDS]
    learnt_on = [p.weeks("train", most=args.weeks) for p in prepared]
    judged_on = [p.weeks("test") for p in prepared]
    now, plan = ([simulate(w, policy).total_grams for w in judged_on] for policy in (Now(), Plan()))
    best = [optimum.foresight(w).total_grams for w in judged_on]
    planned = [(a - c) / (a - b) for a, b, c in zip(now, best, plan, strict=True)]
    print("planning with the same forecast:", " ".join(f"{share:.2f}" for share in planned), flush=True)
    if args.join:
        joining(args, prepared[: len(GRIDS)], now, best, kept, known)
        return
    for seed in args.seeds:
        for way, count in RUNS:
            key = f"{way}, {count}, seed {seed}"
            if key not in known:
                begin = time.process_time()
                learnt = train(learnt_on[:count], way=way, passes=args.passes, seed=seed)
                outcomes = [simulate(judged_on[i], SitePolicy(learnt, i)) for i in range(count)]
                shares = [(now[i] - o.total_grams) / (now[i] - best[i]) for i, o in enumerate(outcomes)]
                missed = sum(float(o.missed.sum()) for o in outcomes)
                known[key] = {"shares": shares, "missed": missed, "cpu_s": time.process_time() - begin}
                kept.write_text(json.dumps(known, indent=1))
            found = known[key]
            told = " ".join(f"{GRIDS[i % len(GRIDS)]} {share:.2f}" for i, share in enumerate(found["shares"]))
            mean = np.mean(found["shares"])
            print(
                f"seed {seed} {way:<12} N = {count}: mean {mean:.2f}; {told}; missed {found['missed']:g}; {found['cpu_s']:.0f} s",
                flush=True,
            )


def joining(
    args: argparse.Namespace,
    prepared: list[scenario.Prepared],
    now: list[float],
    best: list[float],
    kept: Path,
    known: dict[str, dict[str, float]],
) -> None:
    """A line a grid and seed: shares of the new site by way and passes."""
    weeks = [p.weeks("train", most=args.weeks) for p in prepared]
    for seed in args.seeds:
        for i, grid in enumerate(GRIDS[:4]):
            key = f"join {grid}, seed {seed}"
            if key not in known:
                others = train([w for j, w in enumerate(weeks) if j != i], passes=args.passes, seed=seed)
                judged, found = prepared[i].weeks("test"), {}
                for passes in JOIN_PASSES:
                    made = {
                        "frozen": join(others, weeks[i], passes=passes, seed=seed),
                        "freed": join(others, weeks[i], passes=passes, frozen_passes=passes // 2, seed=seed),
                        "alone": train([weeks[i]], passes=passes, seed=seed),
                    }
                    for way, networks in made.items():
                        outcome = simulate(judged, SitePolicy(networks, 0))
                        assert outcome.missed.sum() == 0
                        found[f"{way} {passes}"] = (now[i] - outcome.total_grams) / (now[i] - best[i])
                known[key] = found
                kept.write_text(json.dumps(known, indent=1))
            print(key, " ".join(f"{name} {share:.2f}" for name, share in known[key].items()), flush=True)


if __name__ == "__main__":
    main()
