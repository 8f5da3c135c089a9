"""Small models trained from scratch over space-filling grids of their knobs: the tables that ship, and what they show.

    python benchmarks/trained_tasks.py sweep cmudict --models 30      # trains, appends rows to dse/data/trained_cmudict.csv
    python benchmarks/trained_tasks.py report                         # elasticities and leave-one-out errors of the shipped tables

A grid is a scrambled Sobol sequence over all knobs at once (one knob at a time supports no surrogate: its leverage is near 1). Every
model is measured at 32 bits and at 8, 4 and 3 bits (round to nearest, a scale an output channel, linear layers only). The base model is
trained on further seeds, which is where the noise of training comes from.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

from dse.quality.pruning import quantise
from dse.quality.trained import data as tasks
from dse.quality.trained import surrogate, training
from workloads.cutting import TRAINED

FOLDER = Path(__file__).resolve().parents[1] / "dse" / "data"
WIDTHS, DIMENSIONS, RATIOS = TRAINED["hidden"], TRAINED["head_dim"], TRAINED["ratio"]
BITS = (32, 8, 4, 3)
COLUMNS = [*training.KNOBS, "weight_bits", "seed", "steps", "cross_entropy", "cross_entropy_se", "accuracy", "at_25", "at_50", "cpu_s"]


def grid(task: str, count: int) -> list[dict[str, int]]:
    """``count`` models that fill the space of all knobs: layers 1-4, hidden 32-96, heads 1-8 of 8 or 16, KV heads, FFN ratio .5-4."""
    from scipy.stats import qmc

    points = qmc.Sobol(6, scramble=True, seed=7).random(1 << max(1, (count - 1).bit_length()))[:count]
    models = []
    for a, b, c, d, e, f in points:
        heads = (1, 2, 4, 8)[int(c * 4)]
        hidden = WIDTHS[int(b * len(WIDTHS))]
        shared = [k for k in (1, 2, 4, 8) if heads % k == 0]
        models.append(
            {
                "layers": 1 + int(a * 4),
                "hidden": hidden,
                "heads": heads,
                "head_dim": DIMENSIONS[int(d * 2)],
                "kv_heads": shared[int(e * len(shared))] if task in training.GROUPED else heads,
                "ffn": int(RATIOS[int(f * 4)] * hidden),
            }
        )
    return models


def linear_names(model) -> list[str]:
    """The linear layers inside the transformer layers."""
    import torch

    return [name for name, module in model.named_modules() if (isinstance(module, torch.nn.Linear) and ".layers." in f".{name}.")
            or (isinstance(module, torch.nn.Linear) and ".layer." in f".{name}.")]  # fmt: skip


def sweep(task: str, models: int, base_seeds: int, steps: int | None) -> None:
    """Train what the table does not hold yet; each model's rows are appended when they exist."""
    data = tasks.load(task)
    steps = steps or training.STEPS[task]
    path = FOLDER / f"trained_{task}.csv"
    done = set()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        done = {(*(int(row[k]) for k in training.KNOBS), int(row["seed"])) for row in rows}
    else:
        path.write_text(
            f"# quality of small models trained from scratch; task {task}: {data.source}; {len(data.train_inputs)} training and "
            f"{len(data.test_inputs)} test items\n"
            f"# own measurement, 2026, benchmarks/trained_tasks.py sweep {task}; figures only, no data or weights; MIT\n"
            f"{','.join(COLUMNS)}\n",
            encoding="utf-8",
        )
    wanted = [(training.BASE, seed) for seed in range(base_seeds)] + [(knobs, 0) for knobs in grid(task, models)]
    for number, (knobs, seed) in enumerate(wanted):
        key = (*(knobs[k] for k in training.KNOBS), seed)
        if key in done:
            continue
        done.add(key)
        found = training.train(data, knobs, seed=seed, steps=steps)
        kept = {name: value.clone() for name, value in found.model.state_dict().items()}
        lines = []
        for bits in BITS:
            loss, error, accuracy = found.cross_entropy, found.cross_entropy_se, found.accuracy
            if bits < 32:
                found.model.load_state_dict(kept)
                quantise.quantise_model(found.model, linear_names(found.model), bits)
                loss, error, accuracy = training.evaluate(found.model, data)
            curve = [f"{found.curve[part]:.5f}" for part in training.CURVE] if bits == 32 else ["", ""]
            lines.append([*key[:-1], bits, seed, steps, f"{loss:.5f}", f"{error:.5f}", f"{accuracy:.4f}", *curve,
                          f"{found.cpu_s:.1f}" if bits == 32 else ""])  # fmt: skip
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
        print(number, len(wanted), knobs, seed, f"{found.cross_entropy:.4f}", f"{found.accuracy:.3f}", f"{found.cpu_s:.1f} s", flush=True)


def report() -> None:
    """What the shipped tables say: noise, elasticities with their intervals, leave-one-out errors."""
    everything = {}
    for path in sorted(FOLDER.glob("trained_*.csv")):
        fit = surrogate.load(path.stem.removeprefix("trained_"))
        everything[fit.task] = fit.summary()
        print(surrogate.describe(fit), end="\n\n")
    Path("runs").mkdir(exist_ok=True)
    Path("runs/trained_tasks.json").write_text(json.dumps(everything, indent=2), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sweep")
    one.add_argument("task", choices=tasks.names())
    one.add_argument("--models", type=int, default=30)
    one.add_argument("--base-seeds", type=int, default=3)
    one.add_argument("--steps", type=int)
    commands.add_parser("report")
    args = parser.parse_args()
    if args.command == "sweep":
        np.seterr(all="raise", under="ignore")
        sweep(args.task, args.models, args.base_seeds, args.steps)
    else:
        report()
    sys.exit(0)
