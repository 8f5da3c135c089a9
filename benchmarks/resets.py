"""Resets at the localised thought against resets at random and uniform credit, and MACA's consensus training, on a tiny verifiable task.

    python benchmarks/resets.py [--out resets.json] [--parts main,maca,dose,map,grid] [--seeds 8]

Protocol: a transformer of 27,000 parameters writes chains of six operations modulo 11. A base model imitates right chains; warm starts
then imitate chains with errors (uneven: .65 or .45 on a hard third of the steps, .05 or .02 elsewhere; even: .27 or .15 everywhere), two
of each kind. Every method makes 1,536 values a step and 30,720 in all. Group sizes (three for each) and Adam's rate (three, and up to two
more while the best is on the edge) are tuned for each method on the first kind of start by final accuracy on a seed that is not used
again, and kept for the others. Then paired seeds
0 .. 7: the same warm start, the same evaluation prompts; differences have Student intervals. Accuracy after as many rollouts as GRPO
makes stands beside accuracy after as many tokens. The part ``grid`` crosses the accuracy of the start (uneven steps: low, middle, high)
with how often the reset is at the first wrong thought, groups and rates as tuned on the first start. Everything is written with all
seeds, and a run that was stopped goes on from its file.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workloads.reasoning.training.consensus import SIGNALS, agreement, train_consensus
from workloads.reasoning.training.model import Policy, Size
from workloads.reasoning.training.resets import Method, Settings, accuracy, paired_interval, train, warm_start
from workloads.reasoning.training.task import ChainTask

TASK = ChainTask(modulus=11, steps=6)
TOKENS = 30_720
STARTS = {"uneven, low": (0.65, 0.05), "uneven, middle": (0.45, 0.02), "even, low": (0.27, 0.27), "even, middle": (0.15, 0.15)}
HIGH = {"uneven, high": (0.2, 0.01)}  # of the grid alone
GROUPS: dict[str, list[Method]] = {
    "GRPO": [Method(4), Method(8), Method(16)],
    "RRPO": [Method(4, 4, "random"), Method(2, 6, "random"), Method(1, 8, "random")],
    "SRPO, oracle": [Method(4, 4, "oracle"), Method(2, 6, "oracle"), Method(1, 8, "oracle")],
    "SRPO, self": [Method(4, 4, "self"), Method(2, 6, "self"), Method(1, 8, "self")],
}
RATES = (5e-4, 1e-3, 2e-3)
TUNING_SEED = 100
DOSES = (0.25, 0.5, 0.75)
# What the part main tuned on the first start: where a file does not hold it, the grid takes it from here.
TUNED = {"GRPO": (4, 0, 1e-3), "RRPO": (4, 4, 1e-3), "SRPO, oracle": (1, 8, 1e-3)}


def base_model() -> Policy:
    """A model that has learnt the task itself."""
    torch.manual_seed(0)
    policy = Policy(TASK.vocabulary, TASK.prompt_tokens + TASK.steps, Size())
    warm_start(policy, TASK, hard=0.0, easy=0.0, steps=550, seed=0, rate=4e-3)
    return policy


def started(base: Policy, start: str) -> list[Policy]:
    """Two models that err as the warm start says."""
    hard, easy = {**STARTS, **HIGH}[start]
    found = []
    for seed in (1, 2):
        policy = copy.deepcopy(base)
        warm_start(policy, TASK, hard=hard, easy=easy, steps=120, seed=seed)
        found.append(policy)
    return found


def run(starts: list[Policy], method: Method, rate: float, seed: int) -> dict[str, Any]:
    """One run on the start of its seed."""
    policy = copy.deepcopy(starts[seed % len(starts)])
    found = train(policy, TASK, method, Settings(rate=rate, tokens=TOKENS), seed=seed, at_rollouts=TOKENS // TASK.steps)
    return {"seed": seed, **vars(found)}


def tuned(starts: list[Policy], methods: list[Method]) -> tuple[Method, float, list[dict[str, Any]]]:
    """The method and rate with the best accuracy; a rate is added while the best lies on the edge, at most twice."""
    tried: dict[tuple[int, float], float] = {}

    def look(which: int, rate: float) -> None:
        if (which, rate) not in tried:
            tried[which, rate] = run(starts, methods[which], rate, TUNING_SEED)["accuracy"]

    for i in range(len(methods)):
        for rate in RATES:
            look(i, rate)
    for _ in range(2):
        which, rate = max(tried, key=lambda key: tried[key])
        known = sorted(r for i, r in tried if i == which)
        if known[0] < rate < known[-1]:
            break
        look(which, rate / 2 if rate == known[0] else rate * 2)
    best = max(tried, key=lambda key: tried[key])
    told = [
        {"base": methods[i].base, "suffixes": methods[i].suffixes, "rate": rate, "accuracy": a} for (i, rate), a in sorted(tried.items())
    ]
    return methods[best[0]], best[1], told


def compare(
    starts: list[Policy], seeds: int, known: dict[str, Any], keep: Callable[[Any], None], chosen: dict[str, Any] | None = None
) -> None:
    """All methods on one kind of start, each kept when it is done; ``chosen``: groups and rates that were tuned elsewhere."""
    known.setdefault("before", [accuracy(policy, TASK) for policy in starts])
    done = known.setdefault("methods", {})
    for name, methods in GROUPS.items():
        if name not in done:
            if chosen is None:
                method, rate, tried = tuned(starts, methods)
            else:
                own = chosen[name]
                localiser = methods[0].localiser
                method, rate, tried = Method(own["base"], own["suffixes"], localiser), own["rate"], []
            runs = [run(starts, method, rate, seed) for seed in range(seeds)]
            done[name] = {"base": method.base, "suffixes": method.suffixes, "rate": rate, "tuning": tried, "runs": runs}
            show(name, done[name])
            keep(known)
    known["differences"] = differences(done)
    keep(known)


def differences(methods: dict[str, Any]) -> dict[str, Any]:
    """Paired differences of the pairs that matter, at equal tokens and at equal rollouts."""
    found = {}
    for first, second in (
        ("SRPO, oracle", "RRPO"),
        ("SRPO, oracle", "GRPO"),
        ("SRPO, self", "GRPO"),
        ("SRPO, self", "RRPO"),
        ("RRPO", "GRPO"),
    ):
        for measure in ("accuracy", "at_rollouts"):
            pairs = [[r[measure] for r in methods[name]["runs"]] for name in (first, second)]
            found[f"{first} - {second}, {measure}"] = paired_interval(*pairs)
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """One line of the table."""
    last, early = ([r[k] for r in found["runs"]] for k in ("accuracy", "at_rollouts"))
    head = f"{name:14} {found['base']}+{found['suffixes']} rate {found['rate']:g}"
    told = f"{np.mean(last):.3f} (sd {np.std(last, ddof=1):.3f}), at equal rollouts {np.mean(early):.3f}"
    print(f"{head}: {told}; seeds {' '.join(f'{x:.3f}' for x in last)}", flush=True)


def maca(starts: list[Policy], seeds: int, known: dict[str, Any], keep: Callable[[Any], None]) -> None:
    """Consensus training, each signal with the rate that gave single agents the best accuracy on a seed of its own."""
    first = [vars(agreement(policy, TASK)) for policy in starts]
    known.setdefault("before", first)
    done = known.setdefault("signals", {})
    for signal in SIGNALS:
        if signal in done:
            continue
        tried = {}
        for rate in (2e-4, 5e-4, 1e-3):
            policy = copy.deepcopy(starts[0])
            train_consensus(policy, TASK, signal, Settings(rate=rate, tokens=TOKENS), seed=TUNING_SEED)
            tried[str(rate)] = agreement(policy, TASK).single
        rate = float(max(tried, key=lambda r: tried[r]))
        runs = []
        for seed in range(seeds):
            policy = copy.deepcopy(starts[seed % len(starts)])
            train_consensus(policy, TASK, signal, Settings(rate=rate, tokens=TOKENS), seed=seed)
            runs.append({"seed": seed, **vars(agreement(policy, TASK))})
        done[signal] = {"rate": rate, "tuning": tried, "runs": runs}
        means = {k: np.mean([r[k] for r in runs]) for k in ("single", "majority", "consistency")}
        print(f"MACA {signal:6} rate {rate:g}: " + ", ".join(f"{k} {v:.3f}" for k, v in means.items()), flush=True)
        keep(known)


def grid(base: Policy, seeds: int, known: dict[str, Any], keep: Callable[[Any], None], chosen: dict[str, Any]) -> None:
    """Accuracy of the start x localisation: each cell paired with GRPO on the same start, kept when it is done."""
    own = {name: (c["base"], c["suffixes"], c["rate"]) for name, c in chosen.items()}
    methods = {name: own.get(name, TUNED[name]) for name in TUNED}
    cells = {name: Method(*methods[name][:2], localiser) for name, localiser in (("GRPO", "none"), ("RRPO", "random"))}
    cells |= {f"SRPO, hit {hit:g}": Method(*methods["SRPO, oracle"][:2], "oracle", hit) for hit in (*DOSES, 1.0)}
    for start in ("uneven, low", "uneven, middle", *HIGH):
        row = known.setdefault(start, {"runs": {}})
        starts: list[Policy] = []
        for name, method in cells.items():
            if len(row["runs"].get(name, ())) >= seeds:
                continue
            starts = starts or started(base, start)
            row.setdefault("before", [accuracy(policy, TASK) for policy in starts])
            rate = methods[name if name in methods else "SRPO, oracle"][2]
            row["runs"][name] = [run(starts, method, rate, seed) for seed in range(seeds)]
            found = [r["accuracy"] for r in row["runs"][name]]
            pair = paired_interval(found, [r["accuracy"] for r in row["runs"]["GRPO"]]) if name != "GRPO" else ""
            before = np.mean(row["before"])
            print(
                f"{start} ({before:.3f}) {name}: {np.mean(found):.3f}, seeds {' '.join(f'{x:.3f}' for x in found)}; less GRPO {pair}",
                flush=True,
            )
            keep(known)


def main() -> None:
    """Run the parts and write what came out after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="resets.json")
    parser.add_argument("--parts", default="main,maca,dose,map")
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted, file = args.parts.split(","), Path(args.out)
    answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"cpu_s": 0.0}
    spent = answer["cpu_s"]
    answer |= {"protocol": __doc__, "task": vars(TASK), "tokens": TOKENS, "starts": STARTS}
    base = base_model()
    print(f"base model {accuracy(base, TASK):.3f}", flush=True)

    def keeper(part: str) -> Callable[[Any], None]:
        def keep(value: Any) -> None:
            answer[part] = value
            answer["cpu_s"] = spent + time.process_time()
            file.write_text(json.dumps(answer, indent=1, default=float) + "\n", encoding="utf-8")

        return keep

    first, *others = STARTS
    if "main" in wanted:
        print(first, flush=True)
        compare(started(base, first), args.seeds, answer.get(first, {}), keeper(first))
    if "maca" in wanted:
        maca(started(base, "uneven, middle"), min(args.seeds, 5), answer.get("maca", {}), keeper("maca"))
    if "dose" in wanted and "SRPO, oracle" in answer.get(first, {}).get("methods", {}):
        chosen, starts, doses = answer[first]["methods"]["SRPO, oracle"], started(base, first), answer.get("dose", {})
        for hit in DOSES:
            if str(hit) not in doses:
                method = Method(chosen["base"], chosen["suffixes"], "oracle", hit)
                doses[str(hit)] = {
                    **chosen,
                    "tuning": [],
                    "runs": [run(starts, method, chosen["rate"], seed) for seed in range(args.seeds)],
                }
                show(f"hit {hit}", doses[str(hit)])
                keeper("dose")(doses)
    if "grid" in wanted:
        grid(base, args.seeds, answer.get("grid", {}), keeper("grid"), answer.get(first, {}).get("methods", {}))
    if "map" in wanted and first in answer:
        for start in sorted(others, key=lambda name: "low" not in name):
            print(start, flush=True)
            compare(started(base, start), args.seeds, answer.get(start, {}), keeper(start), answer[first]["methods"])


if __name__ == "__main__":
    main()
