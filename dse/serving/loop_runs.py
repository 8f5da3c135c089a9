"""A reasoning loop served by an engine: the loop runs on the scripted model, its calls are the load, and what a solved problem costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from dse.errors import UsageError, unknown_name
from dse.serving.simulation import Served, percentiles
from workloads.reasoning.backends import ScriptedDebater, ScriptedModel
from workloads.reasoning.loops import IcsLimits, maca, majority, parse_answer, reset_rollouts, thought_ics
from workloads.reasoning.plans import Lengths, Loop, check_knob, loop
from workloads.reasoning.rates import Rates
from workloads.reasoning.traces import Budget, Recorder

# Where a search lists several values, a single run takes these.
DEFAULTS: dict[str, Any] = {"samples": 1, "votes": 1, "corrections": 2, "agents": 3, "rounds": 2, "suffixes": 4, "level": "autonomous"}
MAX_PROBLEMS = 100_000


def chosen(name: str, fixed: Mapping[str, Any]) -> tuple[Loop, dict[str, Any], Lengths, Rates]:
    """The loop called ``name`` with knobs, lengths and rates of ``fixed`` in place; unknown names are errors."""
    of = loop(name)
    knobs: dict[str, Any] = {knob: DEFAULTS.get(knob, values[0]) for knob, values in of.knobs.items() if knob not in ("problems", "train")}
    knobs["kv"] = "prefix"
    if name == "srpo":
        knobs["samples"] = 4
    lengths = {item.name: getattr(of.lengths, item.name) for item in fields(Lengths)}
    rates = {item.name: getattr(Rates(), item.name) for item in fields(Rates)}
    for key, value in fixed.items():
        if key in knobs:
            knobs[key] = check_knob(of, key, value)
        elif key in of.used and key != "judge_prompt":
            lengths[key] = value
        elif key in rates:
            rates[key] = value
        else:
            raise unknown_name(f"set of {name}", key, [*knobs, *of.used, *rates])
    if knobs["kv"] == "tree":
        raise UsageError("kv is 'tree', must be none or prefix where an engine is simulated; nearest is 'prefix'")
    return of, knobs, Lengths(**lengths), Rates(**rates)


def run_loops(of: Loop, knobs: Mapping[str, Any], lengths: Lengths, rates: Rates, *, problems: int, seed: int) -> Recorder:
    """Run the loop on ``problems`` problems with the scripted model; the recorder holds calls and results."""
    if not 1 <= problems <= MAX_PROBLEMS:
        raise UsageError(f"requests is {problems}, must be from 1 to {MAX_PROBLEMS} problems")
    rng = np.random.default_rng([seed, 1])
    wrapper = "Peers said:"
    backend: ScriptedModel | ScriptedDebater
    if of.name == "maca":
        backend = ScriptedDebater(lengths.answer, rates.accuracy, rates.persuasion, rates.wrong_answers, wrapper, seed)
    else:
        if lengths.thought < 5 or lengths.judge < 2:
            raise UsageError(f"thought is {lengths.thought} and judge {lengths.judge} tokens, must be at least 5 and 2")
        backend = ScriptedModel(
            lengths.thoughts,
            lengths.thought,
            rates.error,
            rates.resample_error,
            rates.true_positive,
            rates.false_positive,
            rates.localisation,
            lengths.judge,
            seed,
            rates.vote_correlation,
            rates.wrong_answers,
        )
    recorder = Recorder(backend, Budget(2**62, 2**62), seed)  # loops end by their own limits
    for sample in range(problems):
        recorder.sample = sample
        # The first word is the loop's own tag ("[solve]"); words of a problem are its own, so that no cache mistakes one for another.
        words = lengths.prompt - (0 if of.name == "maca" else 1)
        text = " ".join(f"q{sample}w{int(x)}" for x in rng.integers(0, 10_000, max(words, 1)))
        if of.name == "maca":
            _debate(text, recorder, knobs, lengths, wrapper)
        elif of.name == "srpo":
            base, suffixes = knobs["samples"], knobs["suffixes"]
            result = reset_rollouts(text, recorder, correct=_right, base=base, suffixes=max(suffixes, 1), limits=_limits(knobs, lengths))
            chains = [*result.base, *(result.suffixes if suffixes else ())]
            recorder.result([any(_right(_answer(chain)) for chain in chains)])
        else:
            _chains(text, recorder, knobs, lengths)
    return recorder


def _chains(text: str, recorder: Recorder, knobs: Mapping[str, Any], lengths: Lengths) -> None:
    """Samples of thought-ICS of one problem and its result after each correction."""
    oracle = knobs["level"] == "oracle"
    answers = []
    for _ in range(knobs["samples"]):
        found = thought_ics(text, recorder, level=knobs["level"], correct=_right if oracle else None, limits=_limits(knobs, lengths))
        answers.append(found.answers)
    solved = []
    for step in range(knobs["corrections"] + 1):
        now = [given[min(step, len(given) - 1)] for given in answers]
        solved.append(any(map(_right, now)) if oracle else _right(majority(now)))
    recorder.result(solved)


def _debate(text: str, recorder: Recorder, knobs: Mapping[str, Any], lengths: Lengths, wrapper: str) -> None:
    # The words between rounds are the wrapper's two and padding, so that their number is the stated one.
    padded = wrapper if lengths.wrapper <= 2 else " ".join(["so"] * (lengths.wrapper - 2)) + f" {wrapper}"
    result = maca(text, recorder, agents=knobs["agents"], rounds=knobs["rounds"], max_tokens=lengths.answer, wrapper=padded)
    recorder.result([_right(majority(turn)) for turn in result.answers])


def _limits(knobs: Mapping[str, Any], lengths: Lengths) -> IcsLimits:
    votes = knobs.get("votes", 1)
    return IcsLimits(lengths.thoughts, lengths.thought, knobs.get("corrections", 0), votes, votes, lengths.judge)


def _right(answer: str | None) -> bool:
    return answer == "yes"


def _answer(chain: tuple[str, ...]) -> str | None:
    return parse_answer(chain[-1]) if chain else None


def summary_of_problems(served: Served, recorder: Recorder, grams: float) -> dict[str, Any]:
    """Figures of problems: latency on the engine (arrival to the last token of any call), share solved, joules and grams a solved one."""
    sample = np.array([call.sample for call in recorder.calls])
    count = int(sample.max()) + 1
    o = served.outcome
    begin, end = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(begin, sample, o.arrival_s)
    np.maximum.at(end, sample, o.last_s)
    solved = sum(result[-1] for _, result in recorder.results)
    joules = float(served.energy_j.sum())
    return {
        "problems": count,
        "solved": solved,
        "solved_share": solved / count,
        "calls": len(recorder.calls),
        "problem_latency_s": percentiles(end - begin),
        "energy_j_per_problem": joules / count,
        "energy_j_per_solved": joules / solved if solved else None,
        "gco2e_per_problem": grams / count,
        "gco2e_per_solved": grams / solved if solved else None,
        "prompt_tokens_per_problem": float(served.outcome.prefill_tokens) / count,
        "output_tokens_per_problem": float(served.output.sum()) / count,
    }
