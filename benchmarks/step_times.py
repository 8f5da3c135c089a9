"""Step times of the engine from two models on the same measured runs: data sheets' rates with fitted shares (dse.serving.steps), and
the GPU kernels of hw_models (what `dse evaluate` uses), which never saw a serving run.

    python benchmarks/step_times.py [--out step_times.json]

Dense models in one pool (Llama-3.1 8B and 70B). A token after the first in steady state takes a decode step of all slots at the mean
context, and its share of the prompts computed meanwhile: t(C) + C p / output. The kernels' own launches are in their times; of the
engine's numbers a step then keeps step_s and sequence_s, and one further number an engine (time of a layer beside kernels) is fitted
here, by the median, on the even rows and judged on the odd ones; the data-sheet form keeps all its shipped numbers.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import serving

from dse.serving import runs
from dse.serving.engines import engine
from dse.serving.simulation import Setup
from hw_models.costs.evaluate import evaluate
from hw_models.devices import library as devices
from workloads import load


@cache
def kernel_s(setup: Setup, phase: str, batch: int, tokens: int) -> float:
    """Time of a step by hw_models' kernels: ``batch`` sequences decode at ``tokens`` keys, or a prompt of ``tokens`` tokens is computed."""
    chip = replace(devices.load(setup.hw).accelerator, chips=setup.parallel.tp)
    bits = {"weight_bits": setup.weight_bits, "activation_bits": setup.weight_bits, "kv_bits": setup.kv_bits}
    length = {"context": tokens} if phase == "decode" else {"sequence": tokens}
    table = load(setup.model).build(phase=phase, batch=batch, fused_attention=True, **bits, **length).phases[0].table
    return float(evaluate(chip, table).latency_s)


def form_s(setup: Setup, phase: str, batch: int, tokens: int) -> float:
    """The same by the data-sheet form, engine's numbers included."""
    steps = setup.steps(setup.parallel)
    if phase == "decode":
        return float(steps.linear(batch) + steps.decode(batch, tokens))
    return float(steps.linear(tokens) + steps.prefill(tokens, 0))


def main() -> None:
    """Print and write the errors of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="step_times.json")
    args = parser.parse_args()
    rows = [row for row in serving.measured() if row["mode"] == "agg" and not serving.doubtful(row) and "lama" in row["model_path"]]
    engines, measured, form, kernels, layers, names = [], [], [], [], [], []
    for row in rows:
        case = runs.run_of(row)
        setup, slots = case.setup, case.concurrency
        if setup.parallel.pp > 1 or setup.parallel.dp > 1:
            continue
        mean = 1.0 if case.fixed_lengths else 0.9
        prompt, output = round(mean * case.prompt), round(mean * case.output)
        context = prompt + output // 2
        traits = engine(setup.engine)
        both = [f(setup, "decode", slots, context) + slots * f(setup, "prefill", 1, prompt) / output for f in (form_s, kernel_s)]
        engines.append(setup.engine)
        measured.append(float(row["silicon_tpot_ms"]) / 1e3)
        form.append(both[0])
        kernels.append(both[1] + traits.step_s + slots * traits.sequence_s)
        layers.append((1 + slots / output) * load(setup.model).dimensions["layers"])
        names.append(row["model_path"])
    real, sheet, kernel, depth = (np.array(x) for x in (measured, form, kernels, layers))
    of, even = np.array(engines), np.arange(len(real)) % 2 == 0
    extra = np.zeros(len(real))
    fitted = {}
    for name in sorted(set(engines)):
        seen = (of == name) & even
        fitted[name] = float(np.median((real[seen] - kernel[seen]) / depth[seen]))
        extra[of == name] = fitted[name] * depth[of == name]
    answer = {"rows": len(real), "judged": int((~even).sum()), "layer_s": fitted}
    forms = {"data-sheet form": sheet, "kernels, nothing fitted": kernel, "kernels, a layer's time fitted": kernel + extra}
    for title, predicted in forms.items():
        error, ratio = abs(predicted / real - 1)[~even], (predicted / real)[~even]
        answer[title] = {"median_error": float(np.median(error)), "ratio": float(np.median(ratio))}
        for model in sorted(set(names)):
            own = np.array(names)[~even] == model
            answer[title][model] = float(np.median(error[own]))
        print(title, {k: round(v, 3) for k, v in answer[title].items()})
    beside = ", ".join(f"{name} {value * 1e6:.1f} us" for name, value in fitted.items())
    print(f"{answer['judged']} of {answer['rows']} rows judged; a layer takes beside its kernels: {beside}")
    Path(args.out).write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
