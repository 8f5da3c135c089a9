"""What users bring and ask for: own quality on its own scale, options that bear on nothing, errors that name file, key and choices."""

from pathlib import Path
from typing import Any

import pytest

import dse
from dse.cli import main
from dse.errors import DseError, InfeasibleError, UsageError
from dse.problem.objectives import Constraint
from dse.searches.nearest import excess, in_words
from dse.searches.plan import MeasuredSettings

SMALL: dict[str, Any] = {"fixed": {"hidden": 512, "heads": 8, "cores": 1, "glb_mib": 2}, "threads": 1}
WORDS = ["--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2", "--threads", "1"]


def share(parameters: Any, fidelity: float, seed: int) -> float:
    return 0.5 + 0.01 * float(parameters.get("layers", 15))


def _measured(tmp_path: Path, quality: Any = share, budget: int = 3, **options: Any) -> Any:
    measured = MeasuredSettings(quality=quality, budget=budget, stop_early=False)
    return dse.search("bert", measured=measured, out=tmp_path / "run", **{**SMALL, **options})


def test_a_share_is_not_shown_as_per_cent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _measured(tmp_path, constraints=["quality>=0.4"])
    from dse.reports.console import show_run

    show_run(found, as_json=False)
    page = (found.path / "report.html").read_text(encoding="utf-8")
    best = max(design["metrics"]["quality"] for design in found.designs)
    for text in (capsys.readouterr().out, page):
        assert f"{best:.4g}" in text
        assert f"{best:.4g} %" not in text
        assert f"{best:.2f} %" not in text
    assert "≥ 0.4 %" not in page


def test_a_surrogate_is_still_in_per_cent(tmp_path: Path) -> None:
    found = dse.search("bert", out=tmp_path / "run", **SMALL)
    assert " %" in (found.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("workload", ["minilm-l6", "distilbert"])
def test_a_preset_keeps_measured_quality_of_a_single_model(tmp_path: Path, workload: str) -> None:
    measured = MeasuredSettings(quality=lambda parameters, fidelity, seed: 0.65, budget=3)
    found = dse.search(workload, "carbon", measured=measured, out=tmp_path / "run", fixed={"cores": 1, "glb_mib": 2}, threads=1)
    assert [str(objective) for objective in found.problem.objectives] == ["max:quality", "min:total_kgco2e"]
    assert {design["metrics"]["quality"] for design in found.designs} == {0.65}


def test_a_model_without_knobs_is_measured_once(tmp_path: Path) -> None:
    """An imported file is one model: the evaluator is told its name."""
    file = tmp_path / "tiny.toml"
    file.write_text(
        'name = "tiny"\nfamily = "encoder"\n[dimensions]\nlayers = 1\nhidden = 64\nheads = 2\nffn = 128\nvocabulary = 100\npositions = 64\n'
        '[defaults]\nsequence = 16\n[published]\nstatus = "exact"\nparameters = 1\n[sources]\ndimensions = "made up"\n'
    )
    asked = []

    def quality(parameters: Any, fidelity: float, seed: int) -> float:
        asked.append(dict(parameters))
        return 0.5

    found = dse.search(str(file), measured=MeasuredSettings(quality=quality, budget=3), out=tmp_path / "run", threads=1)
    assert len(asked) == 1
    assert len(found) >= 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget", "5"], "budget is 5 and all"),
        (["--whole-budget"], "whole-budget is for trials of a measured quality"),
        (["--no-screening"], "no-screening is for trials of a measured quality"),
        (["--trial-memory", "2"], "trial-memory is for trials of a measured quality"),
        (["--strategy", "random", "--objective", "min:latency_s"], "hold nothing that surrogate tells; add max:quality"),
        (["--strategy", "random", "--block-points", "9"], "block-points is 9"),
    ],
)
def test_an_option_that_bears_on_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["search", *WORDS, *words, "--out", str(tmp_path / "run")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_seed_that_draws_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *WORDS, "--seed", "3", "--out", str(tmp_path / "run")]) == 0
    assert "a sweep draws nothing" in capsys.readouterr().err


def test_a_strategy_object_is_used_or_refused(tmp_path: Path) -> None:
    class Third:
        """The first models of the list."""

        name = "first-of-a-test"
        asked = 0

        def propose(self, task: Any, history: Any, number: int, seed: int) -> Any:
            from dse.strategies.protocol import proposal_of

            Third.asked += 1
            return proposal_of(task, task.rows[number]) if number < len(task.rows) else None

    found = dse.search("bert", strategy=Third(), budget=2, out=tmp_path / "one", **SMALL)
    assert Third.asked >= 2
    assert found.context["strategy"]["name"] == "first-of-a-test"
    measured = MeasuredSettings(quality=share, strategy="random", budget=2)
    with pytest.raises(UsageError, match="strategy is first-of-a-test and that of the measured settings random"):
        dse.search("bert", strategy=Third(), measured=measured, out=tmp_path / "two", **SMALL)
    with pytest.raises(UsageError, match="budget is 7 and that of the measured settings 2"):
        dse.search("bert", budget=7, measured=measured, out=tmp_path / "two", **SMALL)
    assert not (tmp_path / "two").exists()
    own = MeasuredSettings(quality=share)
    assert len(dse.search("bert", strategy=Third(), budget=2, measured=own, out=tmp_path / "three", **SMALL)) >= 1


def test_a_miss_is_a_share_of_the_bound() -> None:
    upper, lower = Constraint("latency_s", "<=", 0.05), Constraint("quality", ">=", 80.0)
    assert excess(upper, 0.06) == pytest.approx(0.2)
    assert excess(upper, 0.05) == 0.0
    assert excess(lower, 60.0) == pytest.approx(0.25)
    assert excess(Constraint("area_mm2", "<=", 0.0), 3.0) == 3.0
    assert excess(upper, float("nan")) == float("inf")
    assert in_words([upper, lower], {"latency_s": 0.06, "quality": 90.0}) == "latency_s 0.06 (<=0.05 missed by 20.0%)"


def test_infeasible_says_how_near_the_nearest_came(tmp_path: Path) -> None:
    """The nearest by brute force: the least latency of all designs is what the sentence holds."""
    whole = dse.search("bert", ["min:latency_s"], out=tmp_path / "whole", default_constraints=False, **SMALL)
    least = min(design["metrics"]["latency_s"] for design in whole.designs)
    with pytest.raises(InfeasibleError) as caught:
        dse.search(
            "bert", ["min:latency_s"], out=tmp_path / "none", default_constraints=False, constraints=[f"latency_s<={least / 2!r}"], **SMALL
        )
    said = str(caught.value)
    assert f"has latency_s {least:.4g}" in said
    assert "missed by 100.0%" in said
    assert not (tmp_path / "none").exists()


def test_trials_of_an_infeasible_search_are_kept_for_the_next(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"the nearest, layers=.*, has quality .* \(>=0.9 missed by") as caught:
        _measured(tmp_path, constraints=["quality>=0.9"], budget=4)
    kept = tmp_path / "run" / "unfinished-1.db"
    assert f"--from {kept} takes them" in str(caught.value)
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    measured = MeasuredSettings(quality=share, budget=3, warm_start=(str(kept),))
    assert len(dse.search("bert", measured=measured, out=tmp_path / "run", **SMALL)) >= 1


def test_nothing_is_measured_of_models_that_no_hardware_serves(tmp_path: Path) -> None:
    def never(parameters: Any, fidelity: float, seed: int) -> float:
        raise AssertionError

    with pytest.raises(DseError, match="no model has a feasible hardware point; the nearest, "):
        _measured(tmp_path, never, constraints=["latency_s<=1e-9"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('profile = "defalt"\n[device]\narea_mm2 = 1\nnode_nm = 5\n', "profile 'defalt' is unknown; nearest known: default"),
        ("[device]\narea_mm = 1\nnode_nm = 5\n", "key of device 'area_mm' is unknown; nearest known: area_mm2"),
        (
            '[device]\narea_mm2 = 1\nnode_nm = 5\nmemory_type = "hbm33"\nmemory_gb = 8\n',
            "memory_type 'hbm33' is unknown; nearest known: hbm3",
        ),
        ('[device]\narea_mm2 = 1\nnode_nm = 5\n[use]\ngrid = "frnce"\npower_w = 4\n', "grid of use: region 'frnce' is unknown"),
        ("[device]\narea_mm2 = 1\nnode_nm = 5\nchiplets = 4\n", "chiplets of device is 4, but a list of tables"),
        ("uncertainty = 3\n[device]\narea_mm2 = 1\nnode_nm = 5\n", "uncertainty"),
    ],
)
def test_a_carbon_specification_names_file_key_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    file = tmp_path / "board.toml"
    file.write_text(text)
    assert main(["carbon", "estimate", str(file), "--draws", "20"]) == 1
    said = capsys.readouterr().err
    assert str(file) in said
    assert says in said
