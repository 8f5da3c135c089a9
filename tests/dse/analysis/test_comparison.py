"""Two runs side by side, what is installed, and completion scripts."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import api
from dse.analysis import comparison, comparison_of_several
from dse.cli import main
from dse.commands import checks as doctor
from dse.commands.completion_scripts import commands_of, script
from dse.commands.parser import build_parser
from dse.errors import UsageError
from dse.fronts.pareto import hypervolume
from dse.problem.deployment import Deployment
from dse.reports import comparison_text
from dse.run import Run
from dse.storage.run_folder import distinct

SMALL = {"cores": 2, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 2}


def search(folder: Path, objective: object = "carbon", **options: object) -> Run:
    problem = api.make_problem("bert", objective, fixed=options.pop("fixed", SMALL), **options)  # type: ignore[arg-type]
    return api.search(problem, out=folder, threads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The same search with one and with two sizes of the global buffer."""
    folder = tmp_path_factory.mktemp("compare")
    larger = {name: value for name, value in SMALL.items() if name != "glb_mib"}
    return search(folder / "a", fixed={**SMALL, "glb_mib": 4}), search(folder / "b", fixed=larger)


def test_a_run_and_itself(runs: tuple[Run, Run]) -> None:
    found = comparison.compare(runs[0], runs[0])
    assert found.settings == {}
    assert (found.first.hypervolume, found.second.hypervolume) == (1.0, 1.0)
    assert not found.first.dominated
    assert found.first.on_merged_front == len(runs[0].designs)
    assert len(found.shared) == len(runs[0].designs)
    assert found.changes == {}
    assert "The settings are the same." in comparison_text.text(found)


def test_a_larger_space_dominates(runs: tuple[Run, Run]) -> None:
    small, large = runs
    found = comparison.compare(small, large)
    assert found.settings["fixed.glb_mib"] == (4, None)
    assert found.second.hypervolume == 1.0
    assert found.first.hypervolume is not None
    assert found.first.hypervolume < 1.0
    assert not found.second.dominated
    by_rank = {design["design"]: design["metrics"] for design in large.designs}
    own = {design["design"]: design["metrics"] for design in small.designs}
    assert found.first.dominated
    for beaten, by in found.first.dominated.items():
        assert by_rank[by]["quality"] >= own[beaten]["quality"]
        assert by_rank[by]["total_kgco2e"] <= own[beaten]["total_kgco2e"]
    # The other way round it says the same.
    swapped = comparison.compare(large, small)
    assert swapped.second.dominated == found.first.dominated
    assert swapped.second.hypervolume == found.first.hypervolume


def test_three_runs_stand_on_one_front(runs: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted by hand: who dominates whom pair by pair, and who stays when all are together; two of the three are compared as before."""
    small, large = runs
    third = search(tmp_path / "c", fixed={**SMALL, "cores": 4})
    found = comparison_of_several.compare_several([small, large, third])
    fronts = [[(d["metrics"]["quality"], d["metrics"]["total_kgco2e"]) for d in distinct(run.designs)] for run in (small, large, third)]

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    for one, own in zip(found.runs, fronts, strict=True):
        assert one.dominated_by == tuple(sum(any(beats(a, b) for a in other) for b in own) for other in fronts)
        free = [b for b in own if not any(beats(a, b) for rows in fronts for a in rows)]
        assert len(one.on_merged_front) == len(free)
        assert one.best["total_kgco2e"] == min(row[1] for row in own) and 0 < (one.hypervolume or 0) <= 1
    assert found.settings["fixed.glb_mib"] == (4, None, 2) and found.settings["fixed.cores"] == (2, 2, 4)
    pair = comparison.compare(small, large)
    both = comparison_of_several.compare_several([small, large])
    assert [one.hypervolume for one in both.runs] == [pair.first.hypervolume, pair.second.hypervolume]
    assert both.runs[0].dominated_by == (0, len(pair.first.dominated))
    assert repr(small.compare(large, third)) == comparison_text.text_of_several(found)
    assert main(["compare", *(str(run.path) for run in (small, large, third)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["designs"] for row in told["runs"]] == [one.designs for one in found.runs]
    with pytest.raises(UsageError, match="from 2 to 26"):
        comparison_of_several.compare_several([small] * 27)


def test_hypervolumes_are_those_of_the_fronts(runs: tuple[Run, Run]) -> None:
    found = comparison.compare(*runs)
    reference = np.array([-found.reference["quality"], found.reference["total_kgco2e"]])
    points = [np.array([[-d["metrics"]["quality"], d["metrics"]["total_kgco2e"]] for d in run.designs]) for run in runs]
    together = hypervolume(np.concatenate(points), reference)
    # A share does not depend on the scale of the axes.
    assert found.first.hypervolume == pytest.approx(hypervolume(points[0], reference) / together, rel=1e-9)


def test_other_deployments_and_objectives_are_told(runs: tuple[Run, Run], tmp_path: Path) -> None:
    other = search(tmp_path / "c", "latency", deployment=Deployment(grid="france"))
    found = comparison.compare(runs[0], other)
    told = comparison_text.text(found)
    assert "deployment.grid: world | france" in told
    assert "different objectives" in told
    assert [o.metric for o in found.objectives] == ["quality", "latency_s"]
    assert list(found.not_comparable) == ["total_kgco2e"]
    assert told.splitlines()[3].startswith("not comparable: total_kgco2e, for the runs differ in grid (world and france)")
    assert comparison_text.as_json(found)["not_comparable"] == dict(found.not_comparable)
    assert found.changes == {} or "total_kgco2e" in found.changes or not found.shared
    assert json.dumps(comparison_text.as_json(found), allow_nan=False)


def test_no_verdict_on_carbon_of_two_profiles(runs: tuple[Run, Run]) -> None:
    """The same designs with all carbon halved dominate nothing where another profile counted it, and would where the same did."""

    def halved(profile: str) -> Run:
        designs = [{**d, "metrics": {**d["metrics"], "total_kgco2e": 0.5 * d["metrics"]["total_kgco2e"]}} for d in runs[0].designs]
        deployment = replace(runs[0].problem.deployment, carbon_profile=profile)
        return replace(runs[0], designs=designs, problem=replace(runs[0].problem, deployment=deployment))

    assert len(comparison.compare(runs[0], halved("act2")).first.dominated) == len(distinct(runs[0].designs))
    found = comparison.compare(runs[0], halved("default"))
    assert ([o.metric for o in found.objectives], list(found.not_comparable)) == (["quality"], ["total_kgco2e"])
    assert "total_kgco2e" not in found.first.best
    told = comparison_text.text(found)
    assert "name one --carbon-profile for all of them" in told
    several = comparison_of_several.compare_several([*runs, halved("default")])
    assert list(several.not_comparable) == ["total_kgco2e"]
    assert "not comparable: total_kgco2e" in comparison_text.text_of_several(several)
    alone = [replace(run, problem=replace(run.problem, objectives=run.problem.objectives[1:])) for run in (runs[0], halved("default"))]
    with pytest.raises(UsageError, match="not comparable: total_kgco2e, for the runs differ in carbon profile"):
        comparison.compare(*alone)


def test_runs_that_cannot_be_compared(runs: tuple[Run, Run]) -> None:
    a, b = runs
    opposed = replace(b, problem=replace(b.problem, objectives=tuple(replace(o, direction="max") for o in b.problem.objectives)))
    with pytest.raises(UsageError, match="opposite directions"):
        comparison.compare(a, opposed)
    with pytest.raises(UsageError, match="empty front"):
        comparison.compare(a, replace(b, designs=[]))


def test_hostile_names_in_a_comparison(runs: tuple[Run, Run]) -> None:
    a, b = runs
    hostile = replace(b, problem=replace(b.problem, workload="x\x1b[31m\n=cmd"))
    told = comparison_text.text(comparison.compare(a, hostile))
    assert all(line.isprintable() for line in told.splitlines())


# What is installed


@pytest.mark.parametrize(
    ("version", "wanted", "kept"),
    [
        ("2.4.6", ">=1.26", True),
        ("1.25.9", ">=1.26", False),
        ("1.26", ">=1.26.0", True),
        ("3.0", ">=2,<3", False),
        ("2.13.0+cpu", ">=2.4", True),
        ("2.0.0rc1", ">=2.0", True),
        ("1.10", ">=1.9", True),
        ("5", "", True),
        ("5", "~=4.0", True),
    ],
)
def test_versions(version: str, wanted: str, kept: bool) -> None:
    assert doctor.satisfies(version, wanted) is kept


def test_doctor_knows_every_extra_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = doctor.examine()
    groups = {f.group for f in findings}
    assert {"base", "search", "onnx", "hf", "programs"} <= groups
    assert all(f.status == "ok" for f in findings if f.needed)
    real = doctor.metadata.version

    def version(name: str) -> str:
        if name == "torch":
            raise doctor.metadata.PackageNotFoundError
        return "0.1" if name == "botorch" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    changed = {(f.group, f.name): f for f in doctor.examine()}
    assert changed["search", "torch"].status == "missing"
    assert changed["search", "botorch"].status == "old"
    told = doctor.text(list(changed.values()))
    assert "pip install 'dse-toolkit[search]'" in told
    assert "Searches and evaluations can run." in told


def test_doctor_fails_where_a_search_could_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version

    def version(name: str) -> str:
        if name == "sqlalchemy":
            raise doctor.metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert "cannot run: sqlalchemy" in doctor.text(doctor.examine())
    from dse.commands import doctor as command

    class Args:
        json = False

    assert command.run(Args()) == 1  # type: ignore[arg-type]


# Completion


def test_scripts_hold_every_command_and_option() -> None:
    parser = build_parser()
    commands = commands_of(parser)
    names = {command.name for command in commands}
    assert {"search", "export"} <= names
    for shell in ("bash", "zsh", "fish"):
        text = script(shell, parser)
        for command in commands:
            assert command.name in text
            for option in command.options:
                for name in option.names:
                    assert (name if shell != "fish" else f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}") in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sea"], "search"),
        (["search", "--object"], "--objective"),
        (["search", "--objective", "car"], "carbon"),
        (["export", "run", "--to", "zig"], "zigzag"),
        (["export", "--from"], None),
        (["search", "--workload", "bert-lar"], "bert-large"),
        (["search", "--workload", "mine."], "mine.onnx"),
        (["evaluate", "--hw", "jet"], "jetson-orin"),
        (["evaluate", "--grid", "franc"], "france"),
        (["search", "--strategy", "nest"], "nested"),
        (["evaluate", "--set", "l2_k"], "l2_kib="),
    ],
)
def test_bash_completes(words: list[str], expected: str | None, tmp_path: Path) -> None:
    (tmp_path / "dse.bash").write_text(script("bash", build_parser()))
    (tmp_path / "mine.onnx").touch()
    typed = " ".join(["dse", *words])
    code = (
        f'source {tmp_path}/dse.bash; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; COMPREPLY=(); _dse; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=30)
    replies = done.stdout.split()
    assert replies == ([expected] if expected else [])


def test_unknown_shells_are_answered_with_the_nearest() -> None:
    from dse.commands import completion

    class Args:
        shell = "bsh"

    with pytest.raises(UsageError, match="did you mean 'bash'"):
        completion.run(Args())  # type: ignore[arg-type]


def test_starting_these_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys, importlib\n"
        "import argparse\n"
        "commands = argparse.ArgumentParser().add_subparsers()\n"
        "for name in ('export', 'import_hw', 'explain', 'compare', 'doctor', 'completion'):\n"
        "    importlib.import_module(f'dse.commands.{name}').register(commands)\n"
        "heavy = {'numpy', 'pandas', 'torch', 'yaml', 'plotly', 'sqlalchemy', 'rich', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
