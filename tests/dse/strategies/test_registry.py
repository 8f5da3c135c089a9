"""A strategy, and everything else that can be given, comes in without an edit of the package."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import dse
from carbon.factors import grid
from dse import extensions
from dse.commands.list_known import _known
from dse.errors import DseError, UsageError
from dse.problem.deployment import Deployment
from dse.quality import evaluators
from dse.searches.plan import MeasuredSettings
from dse.strategies import registry
from hw_models import spaces as templates
from workloads import families, library

ROOT = Path(__file__).resolve().parents[3]
MODULE = '''
from dse.strategies.protocol import proposal_of, taken_rows


class DeepestFirst:
    """Models from the most layers to the fewest."""

    name = "deepest"

    def propose(self, task, history, number, seed):
        taken = taken_rows(task, history)
        free = [row for row in task.rows if tuple(row.tolist()) not in taken]
        return proposal_of(task, max(free, key=lambda row: task.space.values(row)["layers"])) if free else None


def accuracy(parameters, fidelity, seed):
    return 70 + 2 * parameters["layers"] ** 0.5
'''


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "own_search.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("own_search", None)
    import own_search  # type: ignore[import-not-found]

    return own_search


@pytest.fixture
def entry_points(own_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("deepest-installed", "own_search:DeepestFirst", "dse.strategies")
    monkeypatch.setattr(extensions, "_entry_points", lambda group: {point.name: point} if group == "dse.strategies" else {})


def _search(tmp_path: Path, own_module: Any, strategy: Any) -> Any:
    settings = MeasuredSettings(quality=own_module.accuracy, strategy=strategy, budget=3, stop_early=False)
    return dse.search("bert", fixed={"hidden": 512, "heads": 8}, measured=settings, out=tmp_path / "run", threads=1, allow_unsupported=True)


def test_a_strategy_of_the_recipe_has_models_as_trials(own_module: Any, tmp_path: Path) -> None:
    """The failing example: the recipe's strategy ran with whole designs as trials and ended infeasible."""
    command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--budget", "3"]
    command += ["--strategy", "python:own_search:DeepestFirst", "--quality", "python:own_search:accuracy", "--json", "--out", "run"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    layers = {design["layers"] for design in json.loads(done.stdout)["front"]}
    assert layers and layers <= {12, 11, 10}, "the three deepest models of the space are all that was tried"
    assert "the hardware of a model is exact" in done.stderr


def test_a_strategy_given_as_an_object(own_module: Any, tmp_path: Path) -> None:
    run = _search(tmp_path, own_module, own_module.DeepestFirst())
    assert run.context["strategy"]["name"] == "deepest"
    assert run.context["strategy"]["trials"] == 3
    assert "deepest" in _known("strategies")


def test_a_strategy_of_an_installed_package(entry_points: None, own_module: Any, tmp_path: Path) -> None:
    assert _known("strategies")["deepest-installed"] == "Models from the most layers to the fewest."
    assert registry.find("deepest-installed").trial == "model"
    assert len(_search(tmp_path, own_module, "deepest-installed").designs)


def test_the_list_is_the_registry() -> None:
    assert list(_known("strategies")) == [registry.AUTO, *(record.name for record in registry.records())]
    assert all(registry.find(name).large for name in registry.large_names())


@pytest.mark.parametrize("name", ["nestd", "python:own_search:DeepestFrist", "python:no_such_module:X", "python:json"])
def test_a_wrong_name_is_one_sentence(own_module: Any, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.find(name)
    assert "\n" not in str(caught.value) and name.rsplit(":", 1)[-1] in str(caught.value)


def test_a_name_of_the_package_cannot_be_taken_over(own_module: Any) -> None:
    class Random(own_module.DeepestFirst):  # type: ignore[misc, name-defined]
        name = "random"

    with pytest.raises(UsageError, match="another name"):
        registry.register(Random())


def test_a_strategy_needs_propose() -> None:
    with pytest.raises(UsageError, match="propose"):
        registry.register(object())


def test_an_evaluator_of_another_process_is_asked_for_again() -> None:
    with pytest.raises(UsageError, match="give it again"):
        evaluators.parse("object:of-another-process", workload="bert")


def test_an_evaluator_of_an_installed_package(own_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Maker:
        def load(self) -> Any:
            return lambda rest: made.append(rest) or evaluators.FunctionEvaluator(own_module.accuracy)

    monkeypatch.setattr(extensions, "_entry_points", lambda group: {"bench": Maker()} if group == evaluators.GROUP else {})
    found = evaluators.parse("bench:mmlu", workload="bert")
    assert made == ["mmlu"] and found({"layers": 4}, fidelity=1.0, seed=0)["quality"].mean == 74.0


def test_a_template_and_a_grid_given_as_objects(tmp_path: Path) -> None:
    from dataclasses import replace

    mine = replace(templates.load("edge22").with_knobs(cores=(1,), width=(64,)), name="mine22")
    site = grid.custom(123.0, signal="average", boundary="lifecycle", source="my utility", name="my-site")
    deployment = Deployment(grid=site)
    problem = dse.api.make_problem("bert", hw=mine, deployment=deployment)
    assert problem.hardware == "mine22" and problem.deployment.grid == "123.0 (my-site: my utility)"
    answer = dse.evaluate("bert", hw=mine, deployment=deployment)
    assert answer["design"]["cores"] == 1 and answer["deployment"]["grid"] == "123.0 (my-site: my utility)"
    # kg = J x g/kWh / 3.6e6 / 1000: a grid enters operational carbon linearly.
    world = dse.evaluate("bert", hw=mine)
    assert answer["operational_kgco2e"] / world["operational_kgco2e"] == pytest.approx(123.0 / grid.lookup("world").gco2e_per_kwh)
    with pytest.raises(ValueError, match="another name"):
        templates.register(templates.load("edge22"))


def test_a_workload_given_as_an_object_and_a_kind_of_model_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    mine = replace(library.load("bert-small" if "bert-small" in library.names() else "bert"), name="my-own-encoder")
    assert dse.api.make_problem(mine, "hardware").workload == "my-own-encoder"
    point = EntryPoint("my-kind", "workloads.families:BUILDERS", "dse.families")
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group, name: [point] if (group, name) == ("dse.families", "my-kind") else []
    )
    assert families.builder("my-kind") is families.BUILDERS
    with pytest.raises(ValueError, match="encoder"):
        families.builder("encodr")


def test_an_export_target_given_as_an_object(own_module: Any, tmp_path: Path) -> None:
    from dse.exporters import export
    from dse.exporters.base import Export

    class Names:
        name = "names"

        def export(self, design: Any) -> Export:
            return Export("a list of names", {"design.txt": "here"}, expressed=["the name"], assumed=[], lost=[])

    run = _search(tmp_path, own_module, "random")
    written = export(run, 1, Names())
    assert written[0].parent.name == "names-0001"
    with pytest.raises(DseError, match="scalesim"):
        export(run, 1, "scalesm")
