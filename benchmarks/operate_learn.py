"""Policies that learn to operate the example card on four grids: every seed, shares on judged weeks, CPU seconds.

``python benchmarks/operate_learn.py [--seeds N] [--ship FOLDER] [NAME ...]``; ``lstm`` imitates with a memory, ``bandit`` has linear
models on the imitation's last hidden layer, ``bandit-linear`` on the observation; ``--ship`` writes seed 0 of each, which are the files of
dse/data/operate. One policy is learnt on the training weeks of all four grids together; DQN and PPO keep the
network that is best on the validation weeks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from dse.operate import device, distil, ladder, optimum, policies, scenario, simulation, weeks
from dse.operate.agents import bandits, learners, library, recurrent
from dse.operate.agents.network import Learnt, Network

GRIDS = ("CISO", "ERCO", "BPAT", "NYIS")
SEEDS = 5  # unless --seeds says fewer
STEPS = {"dqn": 30_000, "ppo": 60_000, "sac": 30_000}


def main(names: list[str], ship: str | None, seeds: int) -> None:
    """Print a line a learner and seed: share of foresight's saving (share of planning's) on each grid."""
    torch.set_num_threads(1)
    prepared = {name: scenario.Scenario(device.example(), (name,)).prepared() for name in GRIDS}

    def together(period: str, forecast: str = "ridge") -> weeks.Weeks:
        return weeks.concatenate([p.weeks(period, forecast) for p in prepared.values()])

    train, validation, truth = together("train"), together("validation"), together("train", "truth")
    judged = {}
    for name, p in prepared.items():
        w = p.weeks("test")
        grams = [simulation.simulate(w, policy).total_grams for policy in (policies.Now(), policies.Plan())]
        judged[name] = (w, grams[0], grams[1], optimum.foresight(w).total_grams)
    print(f"| learnt by | seed | CPU s | {' | '.join(GRIDS)} |")
    for by in names:
        for seed in range(seeds):
            begin = time.process_time()
            network = _learn(by, seed, train, validation, truth)
            seconds = time.process_time() - begin
            _line(by, seed, seconds, Learnt(network, by), judged)
            if ship and seed == 0:
                network.save(Path(ship) / f"{by}.safetensors")
                root = distil.fit(train, Learnt(network, by))
                _line(f"tree of {by}", seed, time.process_time() - begin - seconds, distil.TreePolicy(root), judged)


def trees() -> None:
    """Print what the trees of the shipped policies keep, each fitted on the training weeks of the grid."""
    for name in GRIDS:
        prepared = scenario.Scenario(device.example(), (name,)).prepared()
        for word in ("imitation", "ppo", "dqn"):
            shipped = library.find(word)
            tree = distil.TreePolicy(distil.fit(prepared.weeks("train"), shipped[0]))
            found = ladder.build(prepared, steps=[], learnt=[shipped, (tree, "", "ridge")])
            own, kept = (found.row(row).share or 0.0 for row in (word, "tree"))
            print(f"{name} {word}: {own:.3f} -> {kept:.3f}, {100 * (1 - kept / own):.1f} % lost", flush=True)


def _learn(by: str, seed: int, train: weeks.Weeks, validation: weeks.Weeks, truth: weeks.Weeks) -> Network:
    if by == "imitation":
        return learners.imitation(train, seed=seed)
    if by == "lstm":
        return recurrent.imitation(train, seed=seed)
    if by.startswith("bandit"):
        trunk = learners.imitation(train, seed=seed) if by == "bandit" else None
        return bandits.learn(train, truth, chooser=bandits.Chooser("squarecb"), seed=seed, trunk=trunk)
    learner = {"dqn": learners.dqn, "ppo": learners.ppo, "sac": learners.sac}[by]
    return learner(train, learners.Parts(seed=seed, steps=STEPS[by]), validation)


def _line(by: str, seed: int, seconds: float, policy: simulation.Decides, judged: dict[str, Any]) -> None:
    cells = []
    for w, now, plan, best in judged.values():
        found = simulation.simulate(w, policy)
        late = "" if found.missed.max() == 0 else " LATE"
        cells.append(f"{(now - found.total_grams) / (now - best):.3f} ({(now - found.total_grams) / (now - plan):.3f}){late}")
    print(f"| {by} | {seed} | {seconds:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ship")
    parser.add_argument("--trees", action="store_true", help="trees of the shipped policies, in place of learning")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("names", nargs="*", default=["imitation", "dqn", "ppo", "sac", "bandit", "bandit-linear", "lstm"])
    given = parser.parse_args()
    if given.trees:
        trees()
    else:
        main(given.names, given.ship, given.seeds)
