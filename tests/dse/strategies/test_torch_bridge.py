"""The compiled helper's folder and lock, and the bridge to Ax."""

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from dse.strategies import make
from dse.strategies.protocol import simulate
from dse.strategies.surrogates import torch_extensions


def test_stale_lock_is_removed_and_a_living_owner_waited_for(tmp_path: Path) -> None:
    build = tmp_path / "logei_fused_ext"
    build.mkdir()
    (build / "lock").touch()  # what a killed build leaves
    with torch_extensions.owned(tmp_path) as removed:
        assert removed == [build / "lock"]
    assert not (build / "lock").exists()
    code = (
        "import sys, time; from pathlib import Path; from dse.strategies import torch_extensions as t\n"
        "with t.owned(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    (build / "lock").touch()  # the living builder's
    waiter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert waiter.stdout is not None
    time.sleep(1.0)
    assert (build / "lock").exists(), "the guard of a living build was removed"
    process.kill()  # its lock of the operating system dies with it
    process.wait()
    assert waiter.stdout.readline() == "held\n"
    assert not (build / "lock").exists()
    waiter.kill()
    waiter.wait()
    process.stdout.close()
    waiter.stdout.close()


def test_folder_is_private_and_named_by_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("botorch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = torch_extensions.folder()
    assert found.parent == tmp_path / "dse"
    assert "botorch" in found.name


def test_light_import() -> None:
    heavy = ("torch", "ax", "botorch", "pymoo", "optuna", "distributed", "pandas", "plotly")
    code = (
        "import sys, dse.strategies, dse.searches.measured_search, dse.strategies.nested, dse.strategies.flat, dse.strategies.ax\n"
        "import dse.strategies.amoo.search, dse.strategies.nsga2, dse.quality.evaluators, dse.commands.refine, dse.searches.refine\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ax_client_holds_the_study_and_goes_on(tasks: ModuleType) -> None:
    pytest.importorskip("ax")
    from dse.strategies.ax import client

    task = tasks.standin_flat()
    trials = simulate(task, make("random"), budget=8, seed=0)
    made = client(task, trials)
    frame = made.summarize()
    assert len(frame) == 8
    assert {"log2_width", "num_layers", "accuracy", "carbon"} <= set(frame.columns)
    [(_, parameters)] = made.get_next_trials(1).items()
    assert parameters["log2_width"] in (5, 6, 7, 8)
    # The pitfall: without the settings of client() the first trial after a warm start still comes from the Sobol node.
    assert made._generation_strategy.current_node_name == "MBM"
