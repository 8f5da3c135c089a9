"""The rule for deprecation: what goes works as before for two minor releases, and says what takes its place."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import carbon.moved
import dse
import dse.moved
import hw_models.moved
from dse.fronts.pareto import Front
from dse.problem.objectives import Objective
from dse.searches import plan
from dse.spaces.parameters import from_columns
from dse.storage.study import Study
from dse.strategies.task import Task

MOVED = {old: new for room in (carbon, dse, hw_models) for old, new in room.moved.FORWARDING.moved.items()}


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_leads_to_a_module_that_is_there(old: str) -> None:
    assert importlib.util.find_spec(MOVED[old]), f"{old} forwards to {MOVED[old]}, which is nowhere"


def test_an_old_path_is_the_module_of_the_new_one_and_says_so() -> None:
    sys.modules.pop("dse.pareto", None)
    with pytest.warns(DeprecationWarning, match=r"dse\.pareto is now dse\.fronts\.pareto"):
        old = importlib.import_module("dse.pareto")
    assert old.Front is Front


def test_settings_of_measured_quality_are_found_by_their_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="LearntSettings is now MeasuredSettings"):
        assert plan.LearntSettings is plan.MeasuredSettings
    with pytest.raises(AttributeError, match="has no attribute 'Learnt'"):
        plan.Learnt  # noqa: B018


def test_search_takes_the_old_keyword(tmp_path: Path) -> None:
    """The settings arrive: three trials in place of a sweep."""
    settings = plan.MeasuredSettings(quality="surrogate", strategy="random", budget=3)
    with pytest.warns(DeprecationWarning, match="learnt is now measured"):
        run = dse.search(
            "bert", learnt=settings, fixed={"hidden": 512, "heads": 8}, out=tmp_path / "run", threads=1, allow_unsupported=True
        )
    assert run.context["strategy"]["name"] == "random"
    with Study.open(tmp_path / "run" / "study.db") as study:
        assert plan.MeasuredSettings.from_dict(study.description()["measured"]) == settings


def test_a_task_has_its_old_names() -> None:
    class Told:
        metrics = ("accuracy",)

        def __call__(self, parameters: object, *, fidelity: float, seed: int) -> dict[str, Any]:
            raise AssertionError("nothing is evaluated here")

    task = Task("told", from_columns("one", {"layers": (1, 2)}, "model"), (Objective("max", "accuracy"),), Told())
    assert task.measured == ("accuracy",)
    with pytest.warns(DeprecationWarning, match=r"Task\.measured"):
        assert task.learnt == task.measured
    with pytest.warns(DeprecationWarning, match=r"Task\.measured_objectives"):
        assert task.learnt_objectives == task.measured_objectives == task.objectives
