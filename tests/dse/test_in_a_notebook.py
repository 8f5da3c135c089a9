"""What a study of a notebook says for itself: what only its functions could know, and what they cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dse
from dse import api
from dse.errors import DseError, UsageError
from dse.quality import evaluators
from dse.run import Run
from dse.searches.plan import MeasuredSettings

SMALL: Any = {"space": "catransformers", "strategy": "random", "fixed": {"cores": 1, "width": 64}, "progress": False}


def by_layers(layers: int, hidden: int) -> float:
    return 60.0 + layers + hidden / 64


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.search("bert", quality=by_layers, budget=4, out=tmp_path_factory.mktemp("notebook") / "run", **SMALL)


def test_an_explanation_without_a_standard_error_says_that_only_the_best_was_kept(study: Run) -> None:
    found = study.explain(depth=1)
    assert found.only_best and "no standard error is known, so only the best quality was kept" in str(found)
    low = study.explain(depth=1, min_quality=0.0)
    assert not low.only_best and len(low.candidates) > len(found.candidates) and "designs of like quality" in str(low)


def test_an_explanation_says_which_mean_its_excess_is(study: Run) -> None:
    found = study.explain(depth=0, min_quality=0.0)
    served = found.total_kgco2e[..., found.single][found.possible]
    least = found.total_kgco2e.min(axis=-1)[found.possible]
    assert found.policies[0].mean_excess == pytest.approx(float((served / least)[served < float("inf")].mean() - 1.0), rel=1e-12)
    assert "over oracle*" in str(found) and "mean of each segment's own excess" in str(found)


def test_what_data_on_chip_would_save_is_told_wherever_a_design_is(study: Run) -> None:
    number = study.recommend().design
    assert number is not None
    told = [line for line in study.evaluate(number)["cautions"] if "--residency weights" in line]
    assert told == [line for line in dse.evaluate("bert", hw=study.recommend().file)["cautions"] if "--residency weights" in line] != []
    assert f"{told[0]} Another design may then be the best." in study.recommend().warnings
    assert "residency none" in repr(study) and "residency none" in study._repr_html_()


def _stopping(after: int) -> Callable[..., float]:
    calls: list[int] = []

    def measured(layers: int, hidden: int) -> float:
        calls.append(layers)
        if len(calls) == after:
            raise KeyboardInterrupt
        return 60.0 + layers + hidden / 64

    return measured


def test_an_interrupted_run_says_how_python_finishes_it_and_refuses_other_code(tmp_path: Path) -> None:
    run, own = tmp_path / "run", _stopping(3)
    with pytest.raises(KeyboardInterrupt):
        api.search("bert", quality=own, budget=4, out=run, **SMALL)
    with pytest.raises(DseError, match=re.escape(f"dse.resume({str(run)!r}, quality=OBJECT) finishes it")):
        dse.load(run)

    def measured(layers: int, hidden: int) -> float:
        return 61.0 + layers + hidden / 64

    with pytest.raises(UsageError, match="measured has other code than the measured with which"):
        dse.resume(run, quality=measured)
    assert len(dse.resume(run, quality=_stopping(0)).trials()) == 4  # what is around a function is no code of it
    dse.resume(run, quality=measured)  # finished: nothing is measured any more


def test_the_sum_of_code_is_of_the_code() -> None:
    def sums(*lines: str) -> str:
        space: dict[str, Any] = {}
        exec("\n".join(lines), space)  # noqa: S102 - a cell of this test's own
        return evaluators.code_of(evaluators.name_of(space["f"]))

    one = sums("def f(layers):", "    return sum(x for x in (1, layers) if x in {'a', 'b', 1})")
    assert one == sums("", "# a line more", "def f(layers):", "    return sum(x for x in (1, layers) if x in {'b', 1, 'a'})")
    assert one != sums("def f(layers):", "    return sum(x for x in (1, layers) if x in {'a', 'b', 2})")

    class Given:
        metrics = ("quality",)

        def __call__(self, parameters: Any, *, fidelity: float, seed: int) -> dict[str, Any]:
            return {}

    assert evaluators.code_of(evaluators.name_of(Given())) and not evaluators.code_of("surrogate")


def noisy(layers: int, hidden: int, seed: int) -> tuple[float, float]:
    return 60.0 + layers + hidden / 64 + 2.0 * float(np.random.default_rng(seed).normal()), 2.0


def test_confirmations_stand_beside_the_trials(study: Run, tmp_path: Path) -> None:
    run = api.search("bert", quality=noisy, budget=5, whole_budget=True, confirm=2, out=tmp_path / "run", **SMALL)
    trials = run.trials()
    again = trials[trials["confirms"].notna()]
    assert len(trials) - len(again) == 5 and len(again) == run.context["strategy"]["confirmations"]
    assert set(again["confirms"].value_counts()) == {2}
    own = {row["trial"]: row for row in trials.to_dict("records")}
    for row in again.to_dict("records"):
        assert all(own[row["confirms"]][name] == row[name] for name in ("layers", "hidden"))
    assert f"5 of 5 trials + {len(again)} confirmations of random" in repr(run)
    assert run.context["quality_evaluator"]["evaluations"] == 5
    assert "confirms" not in study.trials()
    with pytest.raises(UsageError, match="confirm is 2 and this search measures no quality"):
        api.search("bert", confirm=2, out=tmp_path / "none")
    with pytest.raises(UsageError, match="confirm is 2 and that of the measured settings 3"):
        api.search("bert", confirm=2, measured=MeasuredSettings(noisy, confirm=3), out=tmp_path / "none")


def test_a_row_of_trials_is_a_design(study: Run) -> None:
    row = study.trials().iloc[2]
    answer = study.evaluate(row)
    assert answer["quality"] == row["quality"]
    assert {name: answer["design"][name] for name in ("layers", "hidden")} == {"layers": row["layers"], "hidden": row["hidden"]}
    assert "glb_mib" in answer["by_default"]  # a trial is a model


def test_an_unknown_argument_names_the_nearest_alone() -> None:
    with pytest.raises(UsageError) as found:
        api.search("bert", confirms=3)  # type: ignore[call-arg]
    assert "did you mean 'confirm'?" in str(found.value) and len(str(found.value)) < 120


def test_fronts_of_noisy_measurements_are_told_as_claims(study: Run, tmp_path: Path) -> None:
    run = api.search("bert", quality=noisy, budget=3, out=tmp_path / "run", **SMALL)
    told = str(study.compare(run))
    assert f"of {run.path} the front holds the best of noisy measurements" in told and "winner's curse" in told
    assert "quality was measured by object:by_layers and object:noisy" in told
    assert "noisy" not in str(study.compare(study))
