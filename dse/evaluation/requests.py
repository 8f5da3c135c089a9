"""What a request of a problem is, in words: settings, batches, and that a design serves them one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.evaluation.evaluation import load_family, load_hardware, run_settings
from dse.problem.problem import Problem
from workloads.errors import WorkloadError


def settings_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Each setting as ``name=value``; where tokens are generated, the sequence is the prompt."""
    generates = settings.get("phase") == "generate" and "new_tokens" in settings
    return {name: f"{name}={value}{' (prompt)' if generates and name == 'sequence' else ''}" for name, value in settings.items()}


def batch_in_words(settings: Mapping[str, Any]) -> str:
    """``a request is a batch of 64 prompts``; empty for a batch of one, which is what everybody takes a request for."""
    batch = settings.get("batch", 1)
    if not isinstance(batch, int) or batch <= 1:
        return ""
    return f"a request is a batch of {batch} {'prompts' if settings.get('phase') == 'generate' else 'inputs'}"


def request_in_words(problem: Problem) -> str:
    """The same of a problem, where its batch is not varied; of a model that generates on shipped devices also that requests queue."""
    if "batch" in problem.vary:
        return "a request is one batch, of whatever size"
    settings = _settings(problem)
    batch = batch_in_words(settings)
    if settings.get("phase") != "generate" or not load_hardware(problem).shipped:
        return batch
    return f"{batch or 'a request is one prompt'}, one after the other; many in flight together: `dse tokens --rate`"


def one_after_the_other(problem: Problem) -> str:
    """The end of the sentence that no shipped device serves the rate of a generating model: what else answers for a stream of prompts."""
    settings = _settings(problem)
    if settings.get("phase") != "generate" or not load_hardware(problem).shipped:
        return ""
    batch = batch_in_words(settings) or "batch=1"
    return (
        f"; a design serves its requests one after the other ({batch}), a serving engine many prompts in flight together: ask "
        f"`dse tokens --workload {problem.workload} --rate {problem.deployment.rate_per_s:g}`, or search fleets for a log of requests "
        f"(`dse search --workload log.csv --model {problem.workload}`)"
    )


def _settings(problem: Problem) -> dict[str, Any]:
    family = load_family(problem)
    try:
        return run_settings(family, {name: value for name, value in problem.fixed.items() if name in family.knobs})
    except WorkloadError:  # of a free dimension that no setting fits yet
        return {}
