"""Pruning and healing: what each knob costs on all-MiniLM-L6-v2, and whether aligned weights of the losses heal faster.

    python benchmarks/healing.py minilm                 # one-shot rows, refit, rotation, bits: seconds each
    python benchmarks/healing.py minilm --heal 200      # and the mix healed
    python benchmarks/healing.py recovered             # heads, units, a layer: what 200 steps bring back, on 2,400 nouns
    python benchmarks/healing.py weights --seeds 5      # equal, CAMOO, PAMOO on three trained models, equal steps and equal CPU seconds

Nothing was tuned on the items that are judged: learning rate, batch and losses come from trials on other draws of the glosses, the learning
rate of the small models is that of MiniLM.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from dse.quality import checkpoint
from dse.quality.healing import Healing, Teacher, heal
from dse.quality.model_evaluator import GROUP, Settings, linear_layers
from dse.quality.pruning.calibration import calibrate, input_moments
from dse.quality.pruning.prune import cut, prune
from dse.quality.pruning.quantise import quantise_model
from dse.quality.pruning.select import Selection, Shape, select
from dse.quality.tasks import minilm
from dse.quality.tasks.base import agreement
from dse.quality.trained import data as tasks
from dse.quality.trained import training
from dse.strategies.amoo.weights import camoo_weights, pamoo_weights

MIX = {"heads": 6, "ffn": 768, "layers": 5}
SLICED = ({"heads": 8}, {"heads": 6}, {"heads": 3}, {"ffn": 1152}, {"ffn": 768}, {"ffn": 384}, {"hidden": 352}, {"hidden": 320},
          {"hidden": 256}, {"heads": 8, "ffn": 1152})  # fmt: skip
WHOLE = ({"heads": 6}, {"ffn": 768}, {"layers": 5}, {"hidden": 320}, MIX, {**MIX, "hidden": 320})
BITS = ((8, None, "nearest"), (4, None, "nearest"), (4, GROUP, "nearest"), (4, GROUP, "aware"), (3, GROUP, "nearest"), (3, GROUP, "aware"))
STEPS, BATCHES, BATCH = 60, 60, 16
METHODS = {"equal": {}, "camoo every 20": {"weigh_curvature": camoo_weights}, "pamoo every 20": {"weigh": pamoo_weights},
           "pamoo every step": {"weigh": pamoo_weights}}  # fmt: skip


def of_minilm(heal_steps: int, slices: bool) -> list[dict]:
    """Rows of the table of all-MiniLM-L6-v2."""
    task, model = minilm.MiniLmTask(), checkpoint.load(minilm.model_folder(), base=True)
    calibration = calibrate(model, task.calibration(), hidden=True)
    base, vectors = task.score(model), task.vectors(model, items=200)
    rows = []

    def note(name, found, began, turn=None):
        score, mine = task.score(found), task.vectors(found, items=200)
        theirs = vectors if turn is None else vectors @ turn.T.float()
        close = agreement(mine, theirs) if mine.shape == theirs.shape else float("nan")
        row = {"config": name, "mrr": score.mean, "se": score.se, "loss": base.mean - score.mean, "loss_se": score.difference_se(base),
               "agreement": close, "cpu_s": time.process_time() - began}  # fmt: skip
        rows.append(row)
        print(f"{name:<44} {score.mean:.4f} ± {score.se:.4f}  loss {row['loss']:+.4f} ± {row['loss_se']:.4f}  agreement {close:.3f}"
              f"  {row['cpu_s']:.1f} s", flush=True)  # fmt: skip

    note("unpruned", model, time.process_time())
    if slices:
        for knobs in SLICED:
            began = time.process_time()
            note(f"sliced {knobs}", prune(model, knobs, calibration, refit=False, rotate=False).model, began)
        own = Shape.of(model)
        for count in (5, 4, 3, 1):
            began, shape = time.process_time(), own.target({"layers": count})
            kept = select(model, own, calibration)
            first = Selection(list(range(count)), kept.heads[:count], kept.kv_heads[:count], kept.ffn[:count])
            note(f"the first {count} layers", cut(model, shape, first, calibration).model, began)
        note(f"sliced {MIX}", prune(model, MIX, calibration, refit=False).model, time.process_time())
    for knobs in WHOLE:
        began = time.process_time()
        found = prune(model, knobs, calibration)
        note(f"refitted, rotated {knobs}", found.model, began, found.turn)
    for bits, group, rounding in BITS:
        began = time.process_time()
        found = prune(model, {}, calibration).model
        names = linear_layers(found)
        moments = input_moments(found, names, task.calibration()) if rounding == "aware" else None
        quantise_model(found, names, bits, group=group, moments=moments)
        note(f"{bits} bits, {'channel' if group is None else f'group {group}'}, {rounding}", found, began)
    if heal_steps:
        teacher = Teacher(model, list(task.healing(BATCH, 200, 0)), embeds=True)
        for knobs in (MIX, {"heads": 6}, {"ffn": 768}):
            began, found = time.process_time(), prune(model, knobs, calibration)
            heal(found, teacher, Healing(steps=heal_steps))
            note(f"healed {heal_steps} steps {knobs}", found.model, began)
    return rows


def other_nouns(task: minilm.MiniLmTask, seed: int = 7, count: int = 2) -> list[minilm.MiniLmTask]:
    """Tasks of 800 further nouns each, from another draw and none of those that the task judges, calibrates or heals by."""
    mine = {noun.lemma.lower() for noun in task.drawn}
    drawn = [noun for noun in minilm.MiniLmTask(draw_seed=seed).drawn if noun.lemma.lower() not in mine]
    found = []
    for first in range(0, count * minilm.JUDGED, minilm.JUDGED):
        further = object.__new__(minilm.MiniLmTask)
        further.text, further.drawn = task.text, drawn[first : first + minilm.JUDGED]
        found.append(further)
    return found


def of_recovered(steps: int, rate: float, cuts: tuple[dict, ...]) -> list[dict]:
    """Losses of one knob each, sliced, refitted and healed: means over three pools of 800 nouns, of which none chose anything."""
    task, model = minilm.MiniLmTask(), checkpoint.load(minilm.model_folder(), base=True)
    calibration = calibrate(model, task.calibration(), hidden=True)
    pools = [task, *other_nouns(task)]
    bases = [pool.score(model) for pool in pools]
    teacher = Teacher(model, list(task.healing(BATCH, 200, 0)), embeds=True)
    rows = []
    for knobs in cuts:
        first = 0.0
        for name in ("sliced", "refitted", f"healed {steps} steps at {rate:g}"):
            found, seconds = prune(model, knobs, calibration, refit=name != "sliced"), 0.0
            if name.startswith("healed"):
                seconds = heal(found, teacher, Healing(steps=steps, rate=rate)).cpu_s
            scores = [pool.score(found.model) for pool in pools]
            loss = float(np.mean([base.mean - score.mean for base, score in zip(bases, scores, strict=True)]))
            error = float(np.sqrt(sum(base.difference_se(score) ** 2 for base, score in zip(bases, scores, strict=True)))) / len(pools)
            first = first or loss
            rows.append({"knobs": knobs, "config": name, "loss": loss, "loss_se": error, "recovered": 1 - loss / first, "cpu_s": seconds,
                         "by_pool": [base.mean - score.mean for base, score in zip(bases, scores, strict=True)]})  # fmt: skip
            print(f"{knobs!s:<16} {name:<28} loss {loss:.4f} ± {error:.4f}, recovered {100 * (1 - loss / first):.0f} %, {seconds:.0f} s",
                  flush=True)  # fmt: skip
    return rows


def of_weights(seeds: int) -> list[dict]:
    """Test cross entropy of three pruned models after healing, by what weighs the three losses."""
    rows = []
    for name, steps in (("mnist", 400), ("cmudict", 300), ("gloss", 400)):
        data = tasks.load(name)
        model = training.train(data, training.BASE, seed=0, steps=steps).model.eval()
        rng = np.random.default_rng(1)
        batches = [_inputs(data, rng.integers(0, len(data.train_inputs), size=BATCH)) for _ in range(BATCHES)]
        calibration = calibrate(model, batches[:12])
        base = training.evaluate(model, data)[0]
        knobs = {"ffn": 64, "layers": 1} if name == "gloss" else {"ffn": 48, "heads": 2}
        cut_loss = training.evaluate(prune(model, knobs, calibration).model, data)[0]
        teacher = Teacher(model, batches, embeds=False)
        for equal_time in (False, True):
            cost: dict[str, float] = {}
            for seed in range(seeds):
                for method, weigher in METHODS.items():
                    renew = 1 if method.endswith("every step") else 20
                    count = STEPS if not equal_time else max(2, round(STEPS * of_steps[name]["equal"] / of_steps[name][method]))
                    found = prune(model, knobs, calibration)
                    recipe = Healing(steps=count, losses=("hidden", "output", "relation"), renew=renew, seed=seed)
                    healed = heal(found, teacher, recipe, **weigher)
                    cost[method] = cost.get(method, 0.0) + healed.cpu_s / count / seeds
                    loss = training.evaluate(found.model, data)[0]
                    row = {"model": name, "equal": "seconds" if equal_time else "steps", "method": method, "seed": seed, "steps": count}
                    row |= {"cpu_s": healed.cpu_s, "cross_entropy": loss, "recovered": (cut_loss - loss) / (cut_loss - base)}
                    rows.append(row)
            of_steps[name] = cost
            for method in METHODS:
                say(rows, name, "seconds" if equal_time else "steps", method, (base, cut_loss))
    return rows


def say(rows, name, equal, method, ends):
    """One line of the table: means over the seeds, and the paired difference from equal weights."""
    mine, equals = ([r for r in rows if (r["model"], r["equal"], r["method"]) == (name, equal, m)] for m in (method, "equal"))
    paired = [r["recovered"] - e["recovered"] for r, e in zip(mine, equals, strict=True)]
    spread = statistics.stdev(paired) / len(paired) ** 0.5 if len(paired) > 1 else float("nan")
    means = {key: float(np.mean([r[key] for r in mine])) for key in ("cpu_s", "cross_entropy", "recovered")}
    print(f"{name:<8} equal {equal:<8} {method:<17} {mine[0]['steps']:>3} steps {means['cpu_s']:5.2f} s  "
          f"CE {ends[0]:.3f} -> {ends[1]:.3f} -> "
          f"{means['cross_entropy']:.4f}  recovered {100 * means['recovered']:5.1f} %  over {100 * np.mean(paired):+.1f} ± "
          f"{100 * spread:.1f}", flush=True)  # fmt: skip


of_steps: dict[str, dict[str, float]] = {}  # CPU seconds of one step, by model and method, from the run at equal steps


def _inputs(data, rows):
    if data.kind == "vision":
        return {"pixel_values": torch.from_numpy(data.train_inputs[rows])[:, None]}
    tokens = torch.from_numpy(data.train_inputs[rows])
    mask = torch.ones_like(tokens) if data.name == "gloss" else (tokens != 0).long()
    return {"input_ids": tokens, "attention_mask": mask}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("minilm")
    one.add_argument("--heal", type=int, default=0, metavar="STEPS")
    one.add_argument("--no-slices", action="store_true")
    two = commands.add_parser("weights")
    two.add_argument("--seeds", type=int, default=5)
    three = commands.add_parser("recovered")
    three.add_argument("--heal", type=int, default=200, metavar="STEPS")
    three.add_argument("--rate", type=float, default=Settings("minilm").rate)
    three.add_argument("--only", choices=("heads", "ffn", "layers"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with checkpoint.quiet():
        if args.command == "minilm":
            found = of_minilm(args.heal, not args.no_slices)
        elif args.command == "recovered":
            found = of_recovered(args.heal, args.rate, tuple({k: v} for k, v in MIX.items() if args.only in (None, k)))
        else:
            found = of_weights(args.seeds)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(0)
