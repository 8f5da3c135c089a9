"""One representation over workloads, a head each, as a surrogate of quality: against the multi-task process of a warm start.

    python benchmarks/shared_representation.py [--seeds 8] [--json FILE]

Other workloads have ``PRIOR`` measurements each; of the target m are known, drawn at random, and all its other models are predicted. Each
learner gets the same numbers:

* alone: the Gaussian process of `nested`, on the m alone;
* multi-task: the same with the other workloads as groups (what ``dse search --from RUN`` does);
* frozen: a network d -> 32 -> 4 (tanh) learnt on the other workloads together, a linear head each; the target's head by least squares,
  drawn to the mean of the others' heads as if that were one measurement;
* freed: the same network and heads learnt further, with the target's m among the others' measurements.

Settings: the three tasks trained for the package (dse/data/trained_*.csv: log cross entropy of 93 or more models; the two others are the
prior), NAS-Bench-BERT (GLUE from MNLI and MNLI from GLUE), and the stand-in with 1, 2 and 8 drawn workloads. The network's sizes, steps and
rates were set once and not tuned. Error is the root mean square over the standard deviation of the target; rank is Spearman's.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parent))
ROOT = Path(__file__).resolve().parents[1]
PRIOR = 30
KNOWN = (2, 4, 8, 16)
HIDDEN, FEATURES, STEPS, RATE = 32, 4, 600, 1e-2
KNOBS = ("layers", "hidden", "heads", "ffn", "weight_bits")

Setting = tuple[str, list[tuple[np.ndarray, np.ndarray]]]  # name, (inputs in [0, 1], values) of the target and then of the others


def trained() -> list[Setting]:
    """The package's trained tasks: each of the three is the target once."""
    tables = {}
    for name in ("cmudict", "gloss", "mnist"):
        with (ROOT / "dse" / "data" / f"trained_{name}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        tables[name] = (
            np.log2(np.array([[float(row[knob]) for knob in KNOBS] for row in rows])),
            np.log(np.array([float(row["cross_entropy"]) for row in rows])),
        )
    every = np.concatenate([x for x, _ in tables.values()])
    low, span = every.min(axis=0), np.ptp(every, axis=0)
    coded = {name: ((x - low) / span, y) for name, (x, y) in tables.items()}
    return [(name, [coded[name], *(table for other, table in coded.items() if other != name)]) for name in coded]


def nas_bench_bert() -> list[Setting]:
    """GLUE from MNLI and MNLI from GLUE."""
    import noise

    d = noise.data()
    x = (d.rows - d.rows.min(axis=0)) / np.ptp(d.rows, axis=0)
    return [("GLUE from MNLI", [(x, d.glue), (x, d.mnli)]), ("MNLI from GLUE", [(x, d.mnli), (x, d.glue)])]


def stand_in(seed: int) -> list[Setting]:
    """The stand-in's models with 1, 2 and 8 drawn workloads, as in benchmarks/transfer.py."""
    import transfer

    grid = np.array(np.meshgrid(*[np.linspace(0, 1, 8)] * 3, indexing="ij")).reshape(3, -1).T
    models = [{"hidden": 1 + 15 * a, "ffn": 1 + 15 * b, "num_layers": 6 + 6 * c} for a, b, c in grid]

    def workload(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return grid, np.array([transfer.saturating(p, rates) for p in models])

    rng = np.random.default_rng([seed, 7])
    drawn = [workload(rng.uniform(0.6, 1.6, 3)) for _ in range(8)]
    return [(f"stand-in, {count} others", [workload(np.ones(3)), *drawn[:count]]) for count in (1, 2, 8)]


class Shared:
    """A trunk over all workloads and a linear head each, learnt on values with mean 0 and deviation 1 a workload."""

    def __init__(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        self.trunk = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, FEATURES), torch.nn.Tanh()
        )  # fmt: skip
        self.heads = (0.1 * torch.randn(int(groups.max()) + 1, FEATURES + 1)).requires_grad_()
        self.learn(x, y, groups)

    def features(self, x: np.ndarray) -> Any:
        """With a one for the offset (n, FEATURES + 1)."""
        import torch

        inner = self.trunk(torch.as_tensor(2.0 * x - 1.0, dtype=torch.float32))
        return torch.cat([inner, torch.ones(len(x), 1)], dim=1)

    def learn(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
        """Every workload counts the same, whatever its number of measurements."""
        import torch

        of, target = torch.as_tensor(groups), torch.as_tensor(y, dtype=torch.float32)
        weight = torch.as_tensor(1.0 / np.bincount(groups)[groups], dtype=torch.float32)
        optimiser = torch.optim.AdamW([*self.trunk.parameters(), self.heads], lr=RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        for _ in range(STEPS):
            loss = (weight * ((self.features(x) * self.heads[of]).sum(dim=1) - target) ** 2).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()

    def head(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of a new workload in the frozen representation."""
        seen = self.features(x).detach().numpy().astype(np.float64)
        mean = self.heads.detach().numpy().astype(np.float64).mean(axis=0)
        return np.asarray(mean + np.linalg.solve(seen.T @ seen + np.eye(seen.shape[1]), seen.T @ (y - seen @ mean)))

    def joined(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, head: np.ndarray) -> None:
        """Learn further with the new workload as the last group."""
        import torch

        last = torch.as_tensor(head[None], dtype=torch.float32)
        self.heads = torch.cat([self.heads.detach(), last]).requires_grad_()
        self.learn(x, y, groups)


def predictions(setting: list[tuple[np.ndarray, np.ndarray]], known: np.ndarray, others: list[np.ndarray], seed: int) -> dict[str, Any]:
    """(predicted values of all the target's models, CPU seconds) by each learner."""
    from dse.strategies.surrogates import gp

    (x, y), *prior = setting
    theirs_x = np.concatenate([a[rows] for (a, _), rows in zip(prior, others, strict=True)])
    theirs_y = np.concatenate([b[rows] for (_, b), rows in zip(prior, others, strict=True)])
    group = np.repeat(np.arange(len(prior)), [len(rows) for rows in others])
    found: dict[str, Any] = {}

    begin = time.process_time()
    found["alone"] = gp.fit(x[known], y[known]).predict(x)[0], time.process_time() - begin

    begin = time.process_time()
    groups = np.concatenate([np.zeros(len(known), dtype=np.int64), group + 1])
    both = np.concatenate([x[known], theirs_x]), np.concatenate([y[known], theirs_y])
    found["multi-task"] = gp.fit(*both, 0.0, groups).predict(x)[0], time.process_time() - begin

    begin = time.process_time()
    means = np.array([theirs_y[group == g].mean() for g in range(len(prior))])
    spreads = np.array([theirs_y[group == g].std() for g in range(len(prior))])
    scaled = (theirs_y - means[group]) / spreads[group]
    shared = Shared(theirs_x, scaled, group, seed)
    # as the process: a target of few measurements takes the others' spread; its level is in the head
    middle, spread = y[known].mean(), y[known].std() if len(known) >= 5 else float(np.median(spreads))
    own = (y[known] - middle) / spread
    head = shared.head(x[known], own)
    found["frozen"] = middle + spread * (shared.features(x).detach().numpy() @ head), time.process_time() - begin

    shared.joined(
        np.concatenate([theirs_x, x[known]]), np.concatenate([scaled, own]), np.concatenate([group, np.full(len(known), len(prior))]), head
    )  # fmt: skip
    last = shared.heads[-1].detach().numpy()
    found["freed"] = middle + spread * (shared.features(x).detach().numpy() @ last), time.process_time() - begin
    return found


def main() -> None:
    """Print medians over seeds; all of them go to JSON."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json")
    args = parser.parse_args()
    told: list[dict[str, Any]] = []
    fixed = [*trained(), *nas_bench_bert()]
    for seed in range(args.seeds):
        for number, (name, setting) in enumerate([*fixed, *stand_in(seed)]):
            rng = np.random.default_rng([seed, number])
            others = [rng.permutation(len(b))[:PRIOR] for _, b in setting[1:]]
            order = rng.permutation(len(setting[0][1]))
            for m in KNOWN:
                y = setting[0][1]
                rest = np.setdiff1d(np.arange(len(y)), order[:m])
                for by, (value, seconds) in predictions(setting, order[:m], others, seed).items():
                    error = float(np.sqrt(np.mean((value[rest] - y[rest]) ** 2)) / y.std())
                    rank = float(spearmanr(value[rest], y[rest]).statistic)
                    told.append({"setting": name, "seed": seed, "known": m, "by": by, "error": error, "rank": rank, "cpu_s": seconds})
        print(f"seed {seed} done", flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps(told))
    names, ways = list(dict.fromkeys(t["setting"] for t in told)), ("alone", "multi-task", "frozen", "freed")
    for value in ("error", "rank"):
        print(f"\nmedian {value} over {args.seeds} seeds, of {' / '.join(ways)}\n| target | {' | '.join(f'm = {m}' for m in KNOWN)} |")
        for name in names:
            cells = []
            for m in KNOWN:
                of = [[t[value] for t in told if (t["setting"], t["known"], t["by"]) == (name, m, way)] for way in ways]
                cells.append(" / ".join(f"{np.median(v):.2f}" for v in of))
            print(f"| {name} | {' | '.join(cells)} |")
    for way in ways[1:]:
        print(f"CPU s a fit, {way}: median {np.median([t['cpu_s'] for t in told if t['by'] == way]):.2f}")


if __name__ == "__main__":
    main()
