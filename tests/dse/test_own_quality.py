"""A study with a quality of its own: what it answers about designs, strategies that fail, and objects given again."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dse
from dse import api
from dse.analysis.neighbours import why
from dse.errors import DseError, StrategyError, UsageError
from dse.quality.surrogate import for_workload
from dse.reports.explanation_text import text
from dse.run import Run
from dse.strategies.protocol import proposal_of, taken_rows
from workloads.library import load

SMALL: dict[str, Any] = {"cores": 1, "width": 64, "depth": 16, "l2_kib": 128, "l2_words_per_cycle": 64, "glb_mib": 2}


def negative_loss(model: dict[str, Any]) -> tuple[float, float]:
    """Of a scale that no accuracy has."""
    return -1.0 - 1.0 / model["layers"] - 10.0 / model["hidden"], 0.01


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("own") / "run"
    return api.search("bert", quality=negative_loss, strategy="random", budget=4, fixed=SMALL, no_constraint=["latency_s"], out=out)


def test_an_answer_tells_the_studys_own_measurement(study: Run) -> None:
    assert for_workload(load("bert").name) is not None  # a surrogate of another task is at hand, and is not taken
    for row in (study.best(), study.pareto().iloc[-1]):
        answer = study.evaluate(row)
        assert answer["quality"] == row["quality"] < 0 and answer["quality_se"] == 0.01
        assert answer["quality_support"] == "measured" and answer["quality_surrogate"] is None
    for trial in study.trials().to_dict("records"):  # those off the front too
        knobs = {name: trial[name] for name in ("layers", "hidden", "ffn", "heads")}
        assert study.evaluate(knobs)["quality"] == negative_loss(trial)[0]


def test_what_was_not_measured_has_no_quality(study: Run) -> None:
    measured = set(study.trials().layers)
    other = next(layers for layers in range(2, 13) if layers not in measured)
    answer = study.evaluate({"layers": other, "hidden": 512, "ffn": 2048, "heads": 8})
    assert answer["quality"] is None and answer["quality_reason"] == "not measured in this study"
    assert answer["total_kgco2e"] > 0


def test_why_compares_measurements_and_nothing_else(study: Run) -> None:
    number = study.best("max:quality")["design"]
    found = why(study, number)
    known = {(t["layers"], t["hidden"]): t["quality"] for t in study.trials().to_dict("records")}
    assert found.metrics["quality"] == study.best("max:quality")["quality"]
    models = {"layers", "hidden", "ffn", "heads"}
    assert any(n.verdict == "unmeasured" for n in found.neighbours)
    for n in found.neighbours:
        knobs = {**found.knobs, **n.moved, n.knob: n.value}
        assert n.metrics.get("quality") == known.get((knobs["layers"], knobs["hidden"])) or n.verdict == "infeasible"
        assert n.verdict != "unmeasured" or n.knob in models


def test_a_row_with_another_knob_is_the_changed_design(study: Run) -> None:
    row = study.best()
    assert study.evaluate(row)["total_kgco2e"] == row["total_kgco2e"]
    knobs = study.designs[row["design"] - 1]["knobs"]
    wanted = study.evaluate({**knobs, "width": 32})["total_kgco2e"]
    assert wanted != row["total_kgco2e"]
    frame = study.pareto().query(f"design == {row['design']}").iloc[0].copy()
    frame["width"] = 32
    bare = {name: value for name, value in row.items() if name != "design"}
    for changed in ({**row, "width": 32}, {**bare, "width": 32}, frame):
        found = study.evaluate(changed)
        assert found["design"]["width"] == 32 and found["total_kgco2e"] == wanted
    for given in (row, bare):
        with pytest.raises(DseError, match="widht"):
            study.evaluate({**given, "widht": 32})


def test_best_takes_the_words_of_objective(study: Run) -> None:
    assert study.best("carbon")["total_kgco2e"] == study.pareto().total_kgco2e.min()
    assert study.best("latency")["latency_s"] == study.pareto().latency_s.min()
    with pytest.raises(UsageError, match="name one of min:total_kgco2e, min:latency_s"):
        study.best("hardware")


def test_what_a_study_answers_shows_itself(study: Run) -> None:
    found = study.explain(regions="france,india", depth=1)
    assert found.segments.regions == ("france", "india") and study.explain(regions="france").segments.regions == ("france",)
    assert repr(found) == text(study, found, None) and "svg+xml" in found._repr_html_()
    stands = study.robustness(draws=20)
    assert "20 draws" in repr(stands) and len(repr(stands).splitlines()) <= 24
    said = repr(study.recommend())  # the others are far below its quality
    assert "it alone can be built and serve with a quality within one standard error of the best" in said


def test_known_arguments_are_listed_once() -> None:
    with pytest.raises(UsageError, match="did you mean 'grid'") as caught:
        dse.evaluate("bert", gird="france")  # type: ignore[call-arg]
    names = str(caught.value).partition("known are ")[2].partition(";")[0].split(", ")
    assert len(names) == len(set(names)) and "fixed" in names and "constraints" not in names


class Careless:
    """Reads metrics of trials that have none."""

    name = "careless"

    def propose(self, task: Any, history: Any, number: int, seed: int) -> Any:
        sum(t.metrics["quality"].mean for t in history)
        taken = taken_rows(task, history)
        return proposal_of(task, next(row for row in task.rows if tuple(row.tolist()) not in taken))


class NoProposal(Careless):
    """Gives a dictionary."""

    name = "no-proposal"

    def propose(self, task: Any, history: Any, number: int, seed: int) -> Any:
        return {"layers": 2}


class Repeating(Careless):
    """Knows one design."""

    name = "repeating"

    def propose(self, task: Any, history: Any, number: int, seed: int) -> Any:
        return proposal_of(task, task.rows[0])


def failing(model: dict[str, Any]) -> float:
    raise RuntimeError("no memory")


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Careless(), "strategy 'careless' failed at trial 1: KeyError: 'quality'; trials that failed or are running have no metrics"),
        (NoProposal(), "strategy 'no-proposal' proposed a dict at trial 0"),
        (Repeating(), "strategy 'repeating' proposes nothing but designs that were tried before at trial 1"),
    ],
)
def test_an_error_of_a_strategy_is_one_sentence_and_frees_the_folder(strategy: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(StrategyError) as caught:
        api.search("bert", quality=failing, strategy=strategy, budget=3, fixed=SMALL, out=tmp_path / "run")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


AGAIN = """
import sys, dse
from dse.storage.study import Study
def measure(model): return float(model["layers"])
class Mine:
    "First come."
    name = "mine"
    def propose(self, task, history, number, seed):
        from dse.strategies.protocol import proposal_of
        return proposal_of(task, task.rows[number])
folder, = sys.argv[1:]
for given in ({}, {"quality": measure}, {"quality": lambda model: 1.0, "strategy": Mine()}, {"quality": measure, "strategy": Mine()}):
    try:
        print(len(dse.resume(folder, **given).trials()))
    except dse.errors.DseError as error:
        print(error)
"""


def test_objects_are_given_again_in_another_process(tmp_path: Path) -> None:
    def measure(model: dict[str, Any]) -> float:
        return float(model["layers"])

    class Mine(Careless):
        name = "mine"

        def propose(self, task: Any, history: Any, number: int, seed: int) -> Any:
            return proposal_of(task, task.rows[number])

    folder = tmp_path / "run"
    api.search("bert", quality=measure, strategy=Mine(), budget=2, fixed=SMALL, no_constraint=["latency_s"], out=folder)
    done = subprocess.run([sys.executable, "-c", "import dse.errors\n" + AGAIN, str(folder)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "dse.resume(" in lines[0] and "quality=OBJECT" in lines[0]
    assert "strategy 'mine'" in lines[1] and "strategy=OBJECT" in lines[1]
    assert "object:<lambda>" in lines[2] and "object:measure" in lines[2]
    assert lines[3] == "2"
