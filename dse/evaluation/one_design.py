"""One design, costed: every metric, the breakdown with the bound of each part, and where the numbers come from."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from dse.errors import DseError, UsageError, all_ours, unknown_name
from dse.evaluation import robustness, space_file
from dse.evaluation.device_order import device_order
from dse.evaluation.evaluation import Evaluation, load_family, load_hardware, run_settings
from dse.evaluation.hardware_points import Points
from dse.evaluation.provenance import expected_error, hardware_sources
from dse.evaluation.words import DeploymentOptions, Hardware, beside_the_list, make_problem, many_memories
from dse.evaluation.written_design import criterion_in, deployment_in, elsewhere, model_of, quality_in, workload_of
from dse.problem.deployment import VARIABLE, Deployment
from dse.problem.metrics import METRICS
from dse.problem.problem import Problem
from dse.problem.wording import joined
from dse.quality import surrogate as quality
from dse.quality.surrogate import SUPPORT
from hw_models.accelerator.fields import Execution
from hw_models.devices import library
from hw_models.technology.profiles import profile as find_profile

# What is saved below this is within the models' own error and not worth a line.
_CLEARLY_LESS = 0.05


@all_ours
def evaluate(
    workload: Any = None,
    hw: Hardware = "edge22",
    *,
    example: Any = None,
    fixed: Mapping[str, Any] | None = None,
    deployment: Deployment | None = None,
    criterion: str | None = None,
    residency: str | None = None,
    prefetch: bool | None = None,
    hardware_profile: str | None = None,
    allow_unsupported: bool = False,
    bind: Mapping[str, int] | None = None,
    strict: bool = False,
    **serves: Unpack[DeploymentOptions],
) -> dict[str, Any]:
    """Cost one design: every metric, the breakdown by component with the bound of each, and where the numbers come from.

    Returns a flat dictionary in the units of the names: metrics (``latency_s``, ``energy_j``, ``area_mm2``, ``total_kgco2e``,
    ``embodied_kgco2e``, ``operational_kgco2e``, ``macs``, ``parameters``, ``quality``, ...), ``components`` (a row each), ``design`` and
    ``settings`` (the knobs that it was costed with), ``ranges``, ``deployment``, ``sources``, ``cautions``, ``infeasible_reasons``;
    docs/python.md lists them.
    ``cautions`` are sentences on what a reader may take for granted.
    ``ranges`` tells how far the uncertain factors move its carbon: p5, p50 and p95 of each metric, and the factors.
    ``workload``, ``hw``, ``example`` and the fields of a deployment (``grid="france"``) are as in
    :func:`dse.evaluation.words.make_problem`. Without ``workload`` the one that the file of a design was found for is taken.
    Knobs that ``fixed`` does not name take the workload's and the template's defaults, and of the file of a design that a search wrote for
    this workload what the search chose (``model_from`` names them); so does the deployment (``deployment_from``), field by field, and
    the criterion (None: that of such a file, else edp). Quality without published support
    is None with the reason in ``quality_reason``, unless ``allow_unsupported``; the costs are given all the same. ``residency``
    says what may stay on chip between operations: none, activations, epilogue or weights (None: what is best, and of a design's file
    what its search allowed), ``prefetch`` whether an operation's weights are read during the one before it.

    Several devices (``hw="h100,l40s"``): the
    first is costed, and ``device_order`` says how sure their order by carbon is.
    """
    for name in serves:
        if name not in DeploymentOptions.__annotations__:
            own = [known for known in inspect.signature(evaluate).parameters if known != "serves"]
            raise unknown_name("argument", name, [*own, *DeploymentOptions.__annotations__])
    if workload is None and (workload := workload_of(hw)) is None:
        raise UsageError("workload is missing; name a model, or give as hw the file of a design that a search wrote, which names its own")
    asked = partial(
        make_problem,
        workload,
        "hardware",
        hw=hw,
        example=example,
        hardware_profile=hardware_profile,
        fixed=fixed,
        allow_unsupported=True,
        criterion=criterion or criterion_in(hw) or "edp",
        residency=residency,
        prefetch=prefetch,
        deployment=deployment,
        bind=bind,
        strict=strict,
    )
    problem = asked(**serves)
    of_search = deployment_in(hw, problem.workload) if deployment is None else {}
    of_search = {name: value for name, value in of_search.items() if name not in serves}
    if of_search:
        problem = asked(**{**of_search, **serves})
    written, other_workload = model_of(hw, problem)
    taken = {name: value for name, value in written.items() if name not in problem.fixed}
    problem = replace(problem, fixed={**taken, **problem.fixed})
    chosen = {**load_hardware(problem).defaults, **problem.fixed}
    evaluation = Evaluation(replace(problem, fixed=chosen), threads=1)
    answer = describe_design(evaluation, allow_unsupported=allow_unsupported)
    if taken:
        answer["model_from"] = {"file": Path(hw).name, "knobs": taken}  # type: ignore[arg-type]  # no other hardware says so
    other = another_model(hw, written, answer["design"]) if written else [other_workload] if other_workload else []
    if of_search:
        answer["deployment_from"] = {"file": Path(hw).name, "taken": of_search, "given": sorted(serves)}  # type: ignore[arg-type]
    if written and not other:
        answer |= quality_in(hw)  # the surrogate is of another measurement
    if taken and not other and not (fixed or serves or deployment):
        other = elsewhere(hw, answer)
    answer["cautions"] = [*profile_fell_back(problem), *idle_of_sram(problem), *other, *nothing_kept(problem, {}, answer)]
    order = device_order(problem)
    return answer if order is None else {**answer, "device_order": {**order.to_dict(), "sentences": order.sentences()}}


def evaluate_in(problem: Problem, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of :func:`evaluate` for one design of a problem, in its own deployment; knobs as in :func:`evaluation_of`."""
    return describe_design(evaluation_of(problem, knobs), allow_unsupported=True)


def evaluation_of(problem: Problem, knobs: Mapping[str, Any]) -> Evaluation:
    """An evaluation of one design of a problem, in its own deployment.

    A knob of the model that ``knobs`` leaves out is what all models of the search with the given ones have (the heads and the ffn of a
    width, where each width has but one), and where they differ, or the search has none of them, the model's own; others have defaults.
    """
    deployed = {name: value for name, value in knobs.items() if name in VARIABLE}
    own = {name: value for name, value in knobs.items() if name not in VARIABLE}
    hardware = load_hardware(problem)
    given = {**problem.fixed, **own}
    further = beside_the_list(hardware, given, {})[1] if problem.hardware_toml is None and problem.space_toml is None else {}
    vary = {name: values for name, values in problem.vary.items() if name not in VARIABLE}
    chosen = {**hardware.defaults, **_alike(problem, given), **given}
    one = replace(
        problem, fixed=chosen, fixed_model=True, allow_unsupported=True, deployment=replace(problem.deployment, **deployed),
        vary={**vary, **{name: tuple(values) for name, values in further.items()}}, space="default", space_toml=None,
    )  # fmt: skip
    return Evaluation(one, threads=1)


def nothing_kept(problem: Problem, knobs: Mapping[str, Any], metrics: Mapping[str, float]) -> list[str]:
    """A sentence where every operation reads from the DRAM and writes to it because nothing else was asked for, and a design of these
    ``metrics`` would take clearly less with its data on chip; empty where it would not, or where designs of its kind keep nothing.
    """
    if problem.residency != "none" or problem.kind or problem.models is not None or many_memories(load_hardware(problem)):
        return []
    evaluation = evaluation_of(replace(problem, residency="weights"), knobs)
    if evaluation.on_chip is None or not evaluation.on_chip.able.all():
        return []
    block = evaluation.block(0, 1)
    names = [name for name in ("energy_j", "latency_s", "total_kgco2e") if name in metrics]
    shares = {name: 1.0 - block.metric(name).item() / metrics[name] for name in names}
    told = [f"{100.0 * share:.0f} % less {METRICS[name].label.lower()}" for name, share in shares.items() if share >= _CLEARLY_LESS]
    if not told:
        return []
    return [
        "Every operation reads from the DRAM and writes to it; with its data kept on chip where that is best this design takes "
        f"{joined(told)}: --residency weights."
    ]


def profile_fell_back(problem: Problem) -> list[str]:
    """A sentence where the carbon profile is not act2 because of a memory and nobody asked for that: totals of two profiles differ."""
    if not problem.act_lacks:
        return []
    return [
        f"Costed by carbon profile default since act2 knows no {problem.act_lacks}: compare with designs of --carbon-profile default alone."
    ]


def idle_of_sram(problem: Problem) -> list[str]:
    """A sentence where a user's accelerator file states no idle power: what is counted then is a small part of a chip's."""
    if problem.kind or problem.hardware_toml is None:
        return []
    hardware = load_hardware(problem)
    design = hardware.accelerator(hardware.defaults)
    counted = design.execution == Execution.MAPPED and design.tdp_w == 0 and find_profile(design.profile).leakage
    if not counted or not hardware.own or hardware.ground("leakage_w") != "tables":
        return []
    return [f"Idle power is the SRAM's leakage alone; set leakage_w in {problem.hardware} for the rest."]


def another_model(hw: Any, written: Mapping[str, Any], design: Mapping[str, Any]) -> list[str]:
    """A sentence where a design file of a search is evaluated with another model than the one ``written`` in it."""
    other = {name: value for name, value in written.items() if name in design and design[name] != value}
    if not other:
        return []
    words = joined([f"{name}={value}" for name, value in other.items()])
    return [f"The design of {Path(hw).name} was found for another model, {words}; without --set of these it is costed with that."]


def _alike(problem: Problem, given: Mapping[str, Any]) -> dict[str, int]:
    """Knobs of the model that are not given and have one value in all models of the search that have the given ones."""
    if problem.models is not None:
        grid = {name: np.array(column, dtype=np.int64) for name, column in problem.models.items()}
    else:
        grid, _ = space_file.model_grid(problem.space_toml, problem.space, load_family(problem), problem.fixed)
    keep = np.ones(len(next(iter(grid.values()), ())), dtype=bool)
    for name in grid.keys() & given.keys():
        keep &= grid[name] == given[name]
    values = {name: np.unique(column[keep]) for name, column in grid.items() if name not in given}
    return {name: int(found[0]) for name, found in values.items() if len(found) == 1}


def describe_design(evaluation: Evaluation, *, allow_unsupported: bool) -> dict[str, Any]:
    """The answer of :func:`evaluate` for an evaluation of one model on one hardware point."""
    block = evaluation.block(0, 1)
    design = evaluation.space.design(0, 0)
    if not block.mappable().all():
        raise DseError(f"design {design} has an operation for which no mapping fits the buffers; larger buffers would do")
    names = [name for name in evaluation.metric_names if not name.startswith("quality")]
    answer: dict[str, Any] = {"workload": evaluation.problem.workload, "hardware": evaluation.problem.hardware}
    answer["design"] = design
    if evaluation.problem.asked_as:
        answer["design_as_asked"] = evaluation.problem.shown(design)
    answer["settings"] = {name: value for name, value in run_settings(evaluation.family, evaluation.settings).items() if name not in design}
    answer |= {name: float(block.metric(name).reshape(-1)[0]) for name in names}
    answer["ranges"] = robustness.ranges(evaluation.problem, evaluation.points, {name: answer[name] for name in names})
    answer["infeasible_reasons"] = _reasons(answer, evaluation)
    support = support_name(evaluation, 0)
    answer |= {"quality": None, "quality_se": None, "quality_support": support, "quality_reason": None}
    if evaluation.quality is None or evaluation.surrogate is None:
        answer["quality_reason"] = f"workload {evaluation.problem.workload!r} has no quality surrogate"
    else:
        surrogate = evaluation.surrogate
        answer["quality_label"] = surrogate.label
        if support == quality.SUPPORT[quality.EXTRAPOLATED]:
            answer["quality_reason"] = surrogate.describe_refusal(**{name: design[name] for name in surrogate.knobs})
        if support != quality.SUPPORT[quality.EXTRAPOLATED] or allow_unsupported:
            answer["quality"] = float(evaluation.quality.mean[0])
            answer["quality_se"] = float(evaluation.quality.standard_error[0])
    answer["busy_s"] = evaluation.busy_s(0, 0)
    answer["components"] = evaluation.breakdown(0, 0)
    answer["latency_by_bound_s"] = _by_bound(answer["components"])
    answer["embodied_parts_kgco2e"] = evaluation.carbon_parts(0)
    answer |= context(evaluation)
    answer["hardware_profile"] = evaluation.hardware_space.source_record.profile  # also where a file or a template says it
    answer["residency"] = evaluation.residency(0, 0)
    chip = evaluation.points.batches[0]
    answer["dram_gb_per_s"] = float(chip.dram_bytes_per_s[0]) / 1e9  # of one chip, as data sheets have it, and as the models count it
    answer["dram_words_per_cycle"] = float(chip.level_read_words_per_cycle[0, -1])
    return answer


def _by_bound(components: list[dict[str, Any]]) -> dict[str, float]:
    """Latency [s] of the operations that each bound limits, the largest first; all bounds together are the latency."""
    found: dict[str, float] = {}
    for entry in components:
        for name, latency in entry["latency_by_bound_s"].items():
            found[name] = found.get(name, 0.0) + latency
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _reasons(answer: Mapping[str, Any], evaluation: Evaluation) -> list[str]:
    """Why a design cannot serve at all, whatever a search would constrain: it does not fit, or it is too slow."""
    reasons = []
    if answer["dram_fill"] > 1.0:
        reasons.append(_too_large(answer["dram_fill"], evaluation))
    if answer["service_utilisation"] > 1.0:
        reasons.append(f"the request rate asks for {answer['service_utilisation']:.3g} times what the design can serve")
    return reasons


def _too_large(fill: float, evaluation: Evaluation) -> str:
    """A sentence that names the model and the hardware that cannot hold it, and what would: more chips, or a larger device."""
    problem, points = evaluation.problem, evaluation.points
    held, chips = float(points.dram_bytes[0]), int(points.chips[0])
    needed = fill * held
    hardware = problem.hardware if chips == 1 else f"{chips} x {problem.hardware}"
    said = f"{problem.workload} takes {needed / 2**30:.3g} GiB of weights, cache and activations, {fill:.3g} times what {hardware} holds"
    able = []
    if (points.batches[0].link_bytes_per_s > 0).any():
        # Each further chip holds activations of its own.
        own = float(evaluation.activation_bytes[0])
        room = held / chips - own
        if room > 0:
            able.append(f"{math.ceil((needed - own * chips) / room)} chips")
    memory = {name: library.load(name).accelerator.levels[-1].bytes for name in library.names()}
    larger = [(size, name) for name, size in memory.items() if size >= needed]
    if larger and chips == 1:
        size, name = min(larger)
        able.append(f"{name} ({size / 2**30:.0f} GiB)")
    if problem.fixed.get("weight_bits", 16) > 4:
        able.append("fewer weight_bits")
    return f"{said}; {' or '.join(able)} would hold it" if able else said


def context(evaluation: Evaluation) -> dict[str, Any]:
    """What is common to all designs of an evaluation: deployment, sources, what is not modelled, the surrogate."""
    return {
        "deployment": evaluation.deployment.to_dict(),
        "memory_act_lacks": evaluation.problem.act_lacks,
        "criterion": evaluation.problem.criterion,
        "mapped": any(bool((batch.execution == Execution.MAPPED).any()) for batch in evaluation.points.batches),
        "residency": evaluation.problem.residency,
        **({"prefetch": True} if evaluation.problem.prefetch else {}),
        "hardware_profile": evaluation.problem.hardware_profile,
        "sources": sources(evaluation),
        "left_out": evaluation.workload.left_out_sentence(),
        "not_modelled": list(evaluation.hardware_space.not_modelled),
        "expected_error": expected_error(evaluation.hardware_space),
        "quality_surrogate": evaluation.surrogate.provenance() if evaluation.surrogate else None,
    }


def sources(evaluation: Evaluation, points: Points | None = None, label: str = "") -> list[dict[str, Any]]:
    """Every factor of the carbon figures and the hardware tables: what, value, source, vintage, licence.

    ``points``: whose hardware is told of, under the name ``label``; by default the first design of each kind.
    """
    factors = evaluation.points.sources
    hardware_source = {"name": evaluation.hardware_space.name, "source": evaluation.hardware_space.source}
    file = evaluation.problem.hardware if evaluation.problem.hardware_toml is not None else ""
    hardware = hardware_sources(points or evaluation.points, evaluation.hardware_space, label, file)
    whole = [hardware_source] if hardware_source["source"] else []
    return [*json.loads(json.dumps(factors, default=str)), *hardware, *whole]


def support_name(evaluation: Evaluation, model: int) -> str | None:
    """What supports the quality of a model: published, interpolated, extrapolated, or None without a surrogate."""
    return None if evaluation.quality is None else SUPPORT[int(evaluation.quality.support[model])]
