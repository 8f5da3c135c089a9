"""Old module paths of this package, from before its modules stood in rooms (see `hw_models.moved`), and names that are others now."""

from __future__ import annotations

import warnings

from hw_models.moved import Forwarding

FORWARDING = Forwarding(
    {
        "dse.alignment": "dse.analysis.alignment",
        "dse.comparison": "dse.analysis.comparison",
        "dse.completion": "dse.commands.completion_scripts",
        "dse.deployment": "dse.problem.deployment",
        "dse.design_list": "dse.evaluation.design_list",
        "dse.doctor": "dse.commands.checks",
        "dse.evaluators": "dse.quality.evaluators",
        "dse.execution": "dse.strategies.executors",
        "dse.explanation": "dse.analysis.explanation",
        "dse.explanation_text": "dse.reports.explanation_text",
        "dse.hardware": "dse.spaces.hardware",
        "dse.learnt": "dse.searches.measured",
        "dse.metrics": "dse.problem.metrics",
        "dse.neighbours": "dse.analysis.neighbours",
        "dse.noise": "dse.quality.noise",
        "dse.objectives": "dse.problem.objectives",
        "dse.pareto": "dse.fronts.pareto",
        "dse.points": "dse.evaluation.hardware_points",
        "dse.policy_tree": "dse.analysis.policy_tree",
        "dse.robustness": "dse.evaluation.robustness",
        "dse.shards": "dse.searches.shards",
        "dse.show": "dse.reports.console",
        "dse.space": "dse.spaces.parameters",
        "dse.space_constraints": "dse.spaces.constraints",
        "dse.space_file": "dse.evaluation.space_file",
        "dse.strategies.amoo.feasible": "dse.strategies.drawing",
        "dse.strategies.base": "dse.strategies.protocol",
        "dse.strategies.design_costs": "dse.evaluation.design_costs",
        "dse.strategies.evolution": "dse.strategies.nsga2",
        "dse.strategies.gp": "dse.strategies.surrogates.gp",
        "dse.strategies.improvement": "dse.strategies.surrogates.improvement",
        "dse.strategies.large_space": "dse.searches.large_space",
        "dse.strategies.marginals": "dse.strategies.surrogates.marginals",
        "dse.strategies.problem_view": "dse.strategies.views",
        "dse.strategies.refine": "dse.searches.refine",
        "dse.strategies.search": "dse.searches.measured_search",
        "dse.strategies.torch_extensions": "dse.strategies.surrogates.torch_extensions",
        "dse.strategies.twin": "dse.twins.datacenter",
        "dse.study": "dse.storage.study",
        "dse.sweep": "dse.searches.sweep",
        "dse.terminal": "dse.reports.terminal",
        "dse.trials": "dse.storage.trials",
    }
)


def warn_renamed(old: str, new: str) -> None:
    """Say to the caller of a caller that a name it used is another now."""
    warnings.warn(f"{old} is now {new}; the old name goes with version 0.4", DeprecationWarning, stacklevel=3)
