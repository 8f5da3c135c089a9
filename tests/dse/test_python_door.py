"""Python as users meet it: objects in place of words, one sentence for every mistake, a study that shows itself."""

import io
import subprocess
import sys
import threading
import tomllib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dse
from carbon.errors import CarbonError
from carbon.factors import grid
from dse import api
from dse.errors import UsageError
from dse.exporters import export
from dse.problem.deployment import Deployment
from dse.quality.evaluators import FunctionEvaluator
from dse.quality.measured import Measured
from dse.reports import notebook
from dse.run import Run
from dse.spaces import starters
from dse.spaces.toml_text import toml_text
from dse.strategies.protocol import taken_rows
from hw_models import spaces
from hw_models.errors import HardwareError
from workloads import library
from workloads.errors import WorkloadError
from workloads.families import BUILDERS

SMALL: dict[str, Any] = {"cores": 1, "l2_words_per_cycle": 64, "glb_mib": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.search("bert", out=tmp_path_factory.mktemp("door") / "run", fixed=SMALL, grid="france")


def test_a_study_shows_itself_as_a_small_card(study: Run) -> None:
    lines = repr(study).splitlines()
    assert len(lines) == 3 and "bert on edge22" in lines[0] and study.recommend().sentence in lines[1]
    assert lines[0].endswith("residency weights")
    card = study._repr_html_()
    assert study.recommend().phrase in card and len(card) < 5_000
    assert "<script" not in card


def test_names_in_a_card_stay_text(factories: types.ModuleType) -> None:
    run = factories.make_run(3)
    for design in run.designs:
        design["knobs"]["width"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in run._repr_html_()


def test_best_is_what_pandas_finds(study: Run) -> None:
    frame = study.pareto()
    assert study.best()["design"] == study.recommend().design
    assert study.best("latency_s")["latency_s"] == frame.latency_s.min()
    assert study.best("quality")["quality"] == frame.quality.max()  # the direction of the search
    assert study.best("max:latency_s")["latency_s"] == frame.latency_s.max()
    bound = float(frame.quality.median())
    like = frame[frame.quality >= bound]
    assert study.best("area_mm2", f"quality>={bound!r}")["area_mm2"] == like.area_mm2.min()


def test_a_design_of_the_front_costs_what_the_front_says(study: Run) -> None:
    """In the study's own deployment: electricity of France, not the default."""
    row = study.best()
    answer = study.evaluate(row["design"])
    for name in ("total_kgco2e", "operational_kgco2e", "latency_s", "quality"):
        assert answer[name] == pytest.approx(row[name], rel=1e-12), name
    by_knobs = study.evaluate({name: row[name] for name in study.recommend().knobs})
    assert by_knobs["total_kgco2e"] == answer["total_kgco2e"]
    elsewhere = dse.evaluate("bert", fixed=dict(study.recommend().knobs))
    assert elsewhere["operational_kgco2e"] > 2 * answer["operational_kgco2e"]  # 44 against 458 gCO2e/kWh


def test_other_questions_of_a_study(study: Run) -> None:
    found = study.explain(depth=1)
    assert len(found.candidates) >= 1
    assert 0.0 <= study.robustness(draws=50).stability.whole_front <= 1.0
    assert study.recommend() == dse.load(study.path).recommend()


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: s.trials(), "and has no trials; pareto() is its front"),
        (lambda s: s.evaluate(10_000), "design 10000 is not on the front"),
        (lambda s: s.evaluate({"widht": 64}), "'widht'"),
        (lambda s: s.best("latncy_s"), "did you mean 'latency_s'?"),
        (lambda s: s.best("least:latency_s"), "allowed are min and max"),
        (lambda s: s.best("latency_s", "latency_s<=0"), "no design of the front meets latency_s<=0"),
        (lambda s: dse.search("bert", gird="france"), "did you mean 'grid'?"),
        (lambda s: dse.search("bert", grid="franse"), "france"),
        (lambda s: dse.search("bert", budget=5), "budget is 5 and all"),
        (lambda s: dse.search("bert", quality=lambda: 3.0), "takes no argument"),
        (lambda s: dse.search("bert", quality=3), "neither a word nor callable"),
        (lambda s: dse.search(s.problem, "carbon"), "objective is not used"),
        (lambda s: dse.search(s.problem, grid="france"), "grid is not used"),
        (lambda s: dse.search("bert", grid="france", deployment=Deployment()), "grid and deployment are both given"),
        (lambda s: dse.search("bert", example=[1]), "example is of a torch module"),
        (lambda s: dse.search(dict, example=[1]), "workload is the class dict, and a search takes one module"),
        (lambda s: dse.search(lambda layers: None, example=[1]), "workload is the function <lambda>, and a search takes one module"),
        (lambda s: dse.search([1, 2], example=[1]), "workload is a list, and a search takes one module"),
        (lambda s: dse.search(3), "workload is 3 of type int"),
        (lambda s: dse.search("bert", hw=[1]), "hw is of type list"),
        (lambda s: dse.search("bert", hw={"template": "edge22", "knobs": {"widht": [64]}}), "did you mean 'width'?"),
        (lambda s: dse.search("bert", hw={"template": "edge22", "knobs": {"width": [object()]}}), "hw has knobs.width = <object"),
        (lambda s: dse.search("bert", strategy="nestd"), "did you mean 'nested'?"),
        (lambda s: dse.search("bert", rate_per_s=-1), "rate is -1"),
    ],
)
def test_every_mistake_is_one_sentence(study: Run, ask: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        ask(study)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()  # told before anything is written


def test_objects_stand_for_their_words(tmp_path: Path) -> None:
    """Each object gives the front that its word gives."""
    chosen = {"cores": 1, "width": 64, "depth": 32, "l2_kib": 128, "l2_words_per_cycle": 64, "glb_mib": 2}
    by_word = api.search("bert", out=tmp_path / "a", fixed=chosen)
    design = api.search("bert", out=tmp_path / "b", hw=spaces.load("edge22").accelerator(**chosen), constraints=by_word.problem.constraints)
    same = ["layers", "hidden", "quality", "total_kgco2e"]
    pd.testing.assert_frame_equal(by_word.pareto()[same], design.pareto()[same])
    family = library.load("bert")
    document = {"template": "edge22", "knobs": {name: [value] for name, value in chosen.items()}}
    by_document = api.search(family.name, out=tmp_path / "c", hw=document, grid=grid.lookup("world"))
    pd.testing.assert_frame_equal(by_word.pareto()[same], by_document.pareto()[same])
    (tmp_path / "hw.toml").write_text(toml_text(document), encoding="utf-8")
    by_path = api.search("bert", out=tmp_path / "d", hw=tmp_path / "hw.toml", grid=grid.lookup("world").gco2e_per_kwh)
    pd.testing.assert_frame_equal(by_word.pareto()[same], by_path.pareto()[same])


def test_toml_text_reads_back_equal() -> None:
    document = {"name": 'a "b" \\ é', "n": 3, "x": 2.5e-9, "on": True, "list": [1, 2], "t": {"u": {"v": "w"}},
                "levels": [{"name": "a", "bytes": 4}, {"name": "b", "bytes": np.int64(8)}], "odd key": 1}  # fmt: skip
    assert tomllib.loads(toml_text(document)) == document


def _accuracy(model: dict[str, Any]) -> tuple[float, float]:
    return 70.0 + model["layers"] + model["hidden"] / 100.0, 0.5


def test_a_function_of_the_model_is_a_quality(tmp_path: Path) -> None:
    run = api.search("bert", out=tmp_path / "run", quality=_accuracy, strategy="random", budget=4, fixed=SMALL)
    frame = run.trials()
    assert len(frame) == 4 and set(frame.state) == {"complete"}
    np.testing.assert_allclose(frame.quality, 70.0 + frame.layers + frame.hidden / 100.0)
    assert (frame.quality_se == 0.5).all()
    assert run.recommend().matters  # what moves carbon is known of the whole space


def test_as_many_arguments_as_the_function_takes() -> None:
    def one(model: dict[str, Any]) -> float:
        return float(model["x"])

    def three(model: dict[str, Any], fidelity: float, seed: int) -> float:
        return model["x"] + fidelity + seed

    assert FunctionEvaluator(one)({"x": 2}, fidelity=1.0, seed=7)["quality"].mean == 2.0
    assert FunctionEvaluator(three)({"x": 2}, fidelity=1.0, seed=7)["quality"].mean == 10.0
    assert FunctionEvaluator(lambda *a: len(a))({"x": 2}, fidelity=1.0, seed=7)["quality"].mean == 3.0


def _keeps_its_own(p: dict[str, Any], batch_size: int = 32) -> float:
    return 100.0 * p["layers"] + batch_size


def _seed_has_a_default(p: dict[str, Any], batch_size: int = 32, seed: int = 3) -> float:
    return 100.0 * p["layers"] + batch_size + 1000.0 * seed


def _by_name(layers: int, hidden: int, *, seed: int) -> float:
    return 1000.0 * seed + 100.0 * layers + hidden


def _by_name_with_default(hidden: int, scale: float = 2.0) -> float:
    return hidden * scale


def _short_names(p: dict[str, Any], f: float, s: int) -> float:
    return p["layers"] + f + s


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (_keeps_its_own, 632.0),
        (_seed_has_a_default, 7632.0),
        (_by_name, 7728.0),
        (_by_name_with_default, 256.0),
        (_short_names, 13.5),
    ],
)
def test_a_function_keeps_its_defaults_and_may_take_knobs_by_name(quality: Any, expected: float) -> None:
    """An argument with a default that is neither fidelity nor seed is the function's own: it was filled with the fidelity, silently."""
    assert FunctionEvaluator(quality)({"layers": 6, "hidden": 128}, fidelity=0.5, seed=7)["quality"].mean == expected


@pytest.mark.parametrize(
    "quality",
    [lambda layers, width: 1.0, lambda width, depth: 1.0, lambda p, hidden: 1.0, lambda p, fidelity, seed, more: 1.0, lambda *, scale: 1.0],
    ids=["name", "names", "second", "four", "keyword"],
)
def test_a_function_that_does_not_fit_the_knobs_is_told_what_it_gets(quality: Any) -> None:
    with pytest.raises(UsageError, match=r"takes .*; it is called with one dictionary of knobs \(layers, hidden\)"):
        FunctionEvaluator(quality)({"layers": 6, "hidden": 128}, fidelity=1.0, seed=7)


def test_a_function_of_a_notebook_reaches_a_worker() -> None:
    """A function that no module holds: another interpreter unpacks and calls it."""
    pytest.importorskip("cloudpickle")
    space: dict[str, Any] = {"__name__": "__main__"}
    source = "base = 5.0\ndef quality(model):\n    return base + model['x']\n"
    exec(compile(source, "<cell>", "exec"), space)  # noqa: S102 - what a notebook does with a cell
    call, rest = FunctionEvaluator(space["quality"]).__reduce__()[1]
    program = (
        "import sys; from dse.quality.evaluators import _arrived; "
        "print(_arrived(sys.stdin.buffer.read(), ('quality',))({'x': 2}, fidelity=1.0, seed=0)['quality'].mean)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=call, capture_output=True, check=True)
    assert done.stdout.strip() == b"7.0" and rest == ("quality",)


def test_what_cannot_travel_is_told() -> None:
    pytest.importorskip("cloudpickle")
    handle = io.StringIO()
    lock = __import__("threading").Lock()

    def quality(model: dict[str, Any]) -> float:
        return len(handle.getvalue()) + lock.locked()

    with pytest.raises(UsageError, match=r"quality quality cannot travel to worker processes .*; leave workers at 1"):
        FunctionEvaluator(quality).__reduce__()


class Locked:
    """An evaluator that nothing can copy."""

    name, metrics = "locked", ("quality",)

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, parameters: dict[str, Any], *, fidelity: float, seed: int) -> dict[str, Measured]:
        return {"quality": Measured(float(self.lock.locked()), 0.0)}


@pytest.mark.parametrize("how", ["missing", "locked", "object"])
def test_what_cannot_travel_is_told_before_the_search(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after ten failed trials: nothing is written, nothing measured. With one worker nothing has to travel."""
    if how == "missing":
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    lock = threading.Lock()

    def quality(model: dict[str, Any]) -> float:
        return 80.0 + model["layers"] + (how == "locked" and lock.locked())

    given: Any = Locked() if how == "object" else quality
    told = "not installed: pip install cloudpickle" if how == "missing" else "cannot travel to worker processes"
    with pytest.raises(dse.DseError, match=told) as raised:
        api.search("bert", quality=given, strategy="random", budget=10, workers=2, fixed=SMALL, out=tmp_path / "run")
    assert "leave workers at 1" in str(raised.value) and "\n" not in str(raised.value) and not (tmp_path / "run").exists()
    if how == "missing":
        FunctionEvaluator(taken_rows).__reduce__()  # of a module: a worker imports it


@pytest.mark.slow
def test_a_script_without_a_guard_is_searched_once(tmp_path: Path) -> None:
    """What a script defines reaches two workers, an object of its own class too, and no worker begins the script's search again."""
    pytest.importorskip("cloudpickle")
    script = tmp_path / "own.py"
    script.write_text(
        "import dse\nfrom dse.quality.measured import Measured\nclass Own:\n    name, metrics = 'own', ('quality',)\n"
        "    def __call__(self, model, *, fidelity, seed):\n        return {'quality': Measured(80.0 + model['layers'], 0.1)}\n"
        "study = dse.search('bert', quality=Own(), strategy='random', budget=2, workers=2, out='run',\n"
        f"                   fixed={SMALL!r})\nprint(sorted(study.trials().quality - study.trials().layers))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[80.0, 80.0]"


def test_a_torch_module_is_a_workload(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 16))
    with pytest.raises(ValueError, match=r"give .*example=TENSOR"):
        api.search(net, "hardware", out=tmp_path / "none")
    run = api.search(net, "hardware", out=tmp_path / "run", example=torch.zeros(4, 256), fixed=SMALL)
    assert run.designs[0]["metrics"]["macs"] == 4 * (256 * 512 + 512 * 16)
    assert run.designs[0]["metrics"]["parameters"] == 256 * 512 + 512 + 512 * 16 + 16
    # Another process knows the name alone.
    script = "import sys; from dse.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "export", str(run.path), "--to", "scalesim"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "workload 'Sequential' was given as an object of another process" in done.stderr
    api.make_problem(net, "hardware", example=torch.zeros(4, 256))
    assert export(dse.load(run.path), 1, "scalesim")
    table = tmp_path / "acc.csv"
    table.write_text("width,quality\n512,90\n", encoding="utf-8")
    with pytest.raises(ValueError, match="column 'width', and Sequential has no such model knob; it is one model without knobs"):
        api.search(net, "carbon", quality=f"table:{table}", out=tmp_path / "table", example=torch.zeros(4, 256), fixed=SMALL)


def test_a_space_file_around_devices_lists_the_model_alone(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(starters.space("bert"), encoding="utf-8")
    with pytest.raises(
        ValueError, match="devices as they are sold, around which a space file lists knobs of the model alone; delete cores,"
    ):
        api.make_problem("bert", hw="edge-tpu,nvdla", space=file)


def test_names_that_are_allowed_are_listed_once() -> None:
    with pytest.raises(ValueError, match="must be one of") as caught:
        library.family_from_record({"name": "a", "family": "encoder", "dimensions": {"lyers": 2}}, "a.toml")
    listed = str(caught.value).partition("must be one of ")[2].partition(";")[0].partition(", ...")[0].split(", ")
    assert len(listed) == len(set(listed)) > 5


def test_progress_is_shown_in_notebooks_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, value: Any) -> None:
            shown.append(value._repr_html_())

    def display(value: Any, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(value._repr_html_())
        return Handle()

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    with notebook.told(None, None) as say:
        assert say is not None
        say("designs", 1, 3, "<b>best</b>")
        say("designs", 3, 3, "")
    assert "Designs 1 of 3" in shown[0] and "&lt;b&gt;" in shown[0]
    assert "Designs 3 of 3" in shown[1] and shown[-1] == ""


def test_outside_notebooks_nothing_is_shown_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with notebook.told(None, None) as say:
        assert say is None
    with notebook.told(None, True) as say:
        assert say is not None


USER_SCRIPT = """
from typing import Any

import pandas as pd

import dse
from dse.analysis.recommendation import Recommendation

def quality(model: dict[str, Any]) -> float:
    return float(model["layers"])

study = dse.search("bert", objective="carbon", quality=quality, budget=5, grid=120.0, hw={"template": "edge22"}, fixed={"cores": 1})
front: pd.DataFrame = study.pareto()
found: Recommendation = study.recommend()
number: int | None = found.design
row: dict[str, Any] = study.best("latency_s", "quality>=80")
kilograms: float = dse.evaluate("bert")["total_kgco2e"]
again = dse.load(study.path)
reveal_type(again.recommend().kept_share)
dse.search("bert", gird="france")
dse.search("bert", rate_per_s="often")
"""


@pytest.mark.slow  # mypy reads the whole package without a cache
def test_types_are_complete_for_a_users_script(tmp_path: Path) -> None:
    """mypy --strict knows the types of what it calls, and finds a wrong name and a wrong type."""
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT, encoding="utf-8")
    options = ["--strict", "--ignore-missing-imports", "--follow-imports=silent", "--no-error-summary"]
    done = subprocess.run([sys.executable, "-m", "mypy", *options, str(script)], check=False, capture_output=True, text=True, cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if "Revealed" in line or "error:" in line]
    assert 'Revealed type is "float | None"' in lines[0].replace("builtins.", "").replace("Union[float, None]", "float | None")
    assert len(lines) == 3, done.stdout
    assert 'Unexpected keyword argument "gird"' in lines[1]
    assert 'Argument "rate_per_s"' in lines[2]


def test_hardware_in_a_dictionary_is_called_by_its_name_else_by_its_template() -> None:
    from dse.evaluation.words import _hardware_word

    assert _hardware_word({"name": "mine", "template": "edge22"})[0] == "mine"
    assert _hardware_word({"template": "edge22"})[0] == "edge22"
    assert _hardware_word({})[0] == "hw"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"workload": "bret"}, WorkloadError),
        ({"workload": "bert-tiny", "hw": "nowhere.toml"}, dse.DseError),
        ({"workload": "bert-tiny", "hw": {"cores": 1}}, HardwareError),
        ({"workload": "bert-tiny", "fixed": {"node_nm": 1}}, HardwareError),
        ({"workload": "bert-tiny", "grid": "frnace"}, CarbonError),
        ({"workload": "bert-tiny", "carbon_profile": "act3"}, CarbonError),
        ({"workload": "bert-tiny", "hw": "edge23"}, UsageError),
    ],
)
@pytest.mark.parametrize("door", [dse.evaluate, dse.search, api.make_problem])
def test_every_sentence_is_a_dse_error_of_its_own_kind(
    door: Any, options: dict[str, Any], kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if door is api.make_problem and options.keys() & {"fixed", "carbon_profile"}:
        return  # told where a design is built
    with pytest.raises(dse.DseError) as told:
        door(**options)
    assert isinstance(told.value, kind) and isinstance(told.value, ValueError) and "\n" not in str(told.value)
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_a_study_answers_with_dse_errors_too(study: Run) -> None:
    for ask in (
        lambda: study.explain(regions="atlantis"),
        lambda: study.evaluate({"layers": 12, "hidden": 10**9}),
        lambda: study.best("beauty"),
    ):
        with pytest.raises(dse.DseError):
            ask()
    assert issubclass(HardwareError, dse.DseError) and issubclass(WorkloadError, dse.DseError)


def test_the_page_has_the_dimensions_of_every_family() -> None:
    """Those without a default are the required ones, for a record without them is refused."""
    page = (Path(__file__).parents[2] / "docs" / "models" / "workloads.md").read_text(encoding="utf-8")
    for name, made in BUILDERS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |") and line.count("|") == 4)
        required, optional = ({word.strip("`") for word in cell.strip().split(", ")} - {"-"} for cell in row.split("|")[2:4])
        assert required == {knob for knob, found in made.knobs.items() if not found.setting and knob not in made.defaults}
        settings = {knob for knob, found in made.knobs.items() if found.setting}
        assert optional == set(made.defaults) - settings
