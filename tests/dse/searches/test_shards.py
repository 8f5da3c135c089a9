"""Sweeps in shards: the bytes of a sweep in one process, whatever runs them and whatever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse import api
from dse.errors import DseError, UsageError
from dse.evaluation.design_costs import sizes
from dse.evaluation.evaluation import build_space, load_family, load_hardware
from dse.problem.problem import Problem
from dse.searches import shards
from dse.searches.plan import ShardSettings
from dse.searches.sweep import front_of
from dse.spaces.sizes import Sizes
from dse.storage.study import Study
from dse.strategies.executors import workers

# A part of edge22 that is swept in a second: 4 x 1 x 2 x 1 x 3 x 3 designs.
FIXED = {"width": 64, "l2_kib": 256}


def problem(**options: Any) -> Problem:
    return api.make_problem("bert", "carbon", **{"fixed": FIXED, "vary": {"glb_mib": [2, 4, 8]}, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a sweep in one process."""
    return api.search(problem(), out=tmp_path_factory.mktemp("whole") / "run").path


def study_of(folder: Path, problem_: Problem, count: int) -> tuple[Study, list[tuple[int, int]]]:
    bounds = shards.shard_bounds(problem_, sizes(problem_), count)
    return Study.create(folder / "study.db", {"problem": problem_.to_dict()}), bounds


# ---- the parts of a space ----


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fixed": {}},
        {"fixed": {"cores": 2}, "vary": {"node_nm": [22, 14], "grid": ["france", "india"], "lifetime_years": [2.0, 5.0, 8.0]}},
        {"hw": "a100", "fixed": {}, "vary": {}, "default_constraints": False},
        {"fixed": {"cores": 1}, "vary": {"grid": ["france", "india"]}},  # L2 above the buffer are left out
    ],
)
def test_parts_are_those_of_the_listed_space(options: dict[str, Any]) -> None:
    own = problem(**options)
    listed = build_space(own, load_family(own), load_hardware(own))
    count = listed.hardware_count
    points = np.unique(np.linspace(0, count - 1, 7).astype(np.int64))
    part = shards.part_of(own, points)
    assert list(part.hardware) == list(listed.hardware)
    for name, column in listed.hardware.items():
        assert part.hardware[name].tolist() == column[points].tolist(), name
    assert {name: column.tolist() for name, column in part.models.items()} == {n: c.tolist() for n, c in listed.models.items()}
    assert (part.models_left_out, part.settings) == (listed.models_left_out, listed.settings)


def test_shards_cover_the_points_once_and_stay_small() -> None:
    own = problem(fixed={}, space="catransformers")
    for found, count in ((Sizes(38, 3240, 57), 2), (Sizes(10, 3_000_000, 500), 4), (Sizes(1, 3, 5), 8)):
        bounds = shards.shard_bounds(own, found, count)
        assert [first for first, _ in bounds] == [0, *(last for _, last in bounds[:-1])]
        assert bounds[-1][1] == found.hardware
        assert max(last - first for first, last in bounds) * found.shapes <= 4_000_000


# ---- the same bytes ----


@pytest.mark.parametrize("settings", [ShardSettings("inline"), ShardSettings("inline", 3), ShardSettings("processes", 2)])
def test_the_front_is_the_same_bytes(whole: Path, tmp_path: Path, settings: ShardSettings) -> None:
    found = api.search(problem(), out=tmp_path / "run", sharded=settings)
    assert (found.path / "pareto.csv").read_bytes() == (whole / "pareto.csv").read_bytes()
    one = api.load(whole)
    assert vars(found.summary) == vars(one.summary)
    for name in ("models", "hardware_points", "shapes"):
        assert found.context[name] == one.context[name], name


def test_constraints_of_a_space_file_leave_points_out_of_shards_too(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        """
        name = "own"
        constraints = ["width * depth <= 1024"]
        [parameters.cores]
        values = [1, 2]
        role = "hardware"
        [parameters.width]
        values = [32, 64, 128]
        role = "hardware"
        [parameters.depth]
        values = [8, 16, 32]
        role = "hardware"
        """,
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--space", str(file), "--set", "l2_kib=256"]
    for name, more in (("whole", []), ("shards", ["--executor", "inline", "--workers", "2"])):
        subprocess.run([*command, *more, "--out", str(tmp_path / name)], check=True, capture_output=True)
    assert (tmp_path / "whole" / "pareto.csv").read_bytes() == (tmp_path / "shards" / "pareto.csv").read_bytes()


def test_an_infeasible_sweep_in_shards_says_how_near_the_nearest_design_comes(tmp_path: Path) -> None:
    impossible = problem(constraints=["latency_s<=1e-9"])
    said = []
    for name, sharded in (("whole", None), ("shards", ShardSettings("inline", 2))):
        with pytest.raises(DseError, match=r"the nearest, .* has latency_s") as caught:
            api.search(impossible, out=tmp_path / name, sharded=sharded)
        said.append(str(caught.value).partition("; the nearest")[2])
    assert said[0] == said[1]


# ---- what dies ----


def test_a_killed_driver_is_resumed_without_sweeping_twice(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []
    sweep = shards.sweep_shard

    def counted(told: Any, number: int, *rest: Any) -> Any:
        if len(swept) == 2:
            raise KeyboardInterrupt
        swept.append(number)
        return sweep(told, number, *rest)

    monkeypatch.setattr(shards, "sweep_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        api.search(problem(), out=tmp_path / "run", sharded=ShardSettings("inline", 2))
    assert swept == [0, 1]
    with Study.open(tmp_path / "run" / "study.db") as study:
        kept = study.finished()

    def again(told: Any, number: int, *rest: Any) -> Any:
        swept.append(number)
        return sweep(told, number, *rest)

    monkeypatch.setattr(shards, "sweep_shard", again)
    found = api.resume(tmp_path / "run")
    # What was swept but not committed yet when the driver died is swept again, the rest is not.
    assert not kept & set(swept[2:])
    assert (found.path / "pareto.csv").read_bytes() == (whole / "pareto.csv").read_bytes()


def test_a_killed_process_loses_no_shard(whole: Path, tmp_path: Path) -> None:
    own = problem()
    study, bounds = study_of(tmp_path, own, 2)
    killed: list[int] = []
    with study, workers("processes", 2) as pool:

        def kill_one(_: object) -> None:
            if not killed and pool._executor is not None:
                processes = list(pool._executor._processes.values())  # type: ignore[attr-defined]
                if processes:
                    processes[0].kill()
                    killed.append(1)

        shards.run(own, study, bounds, pool, retries=2, on_progress=kill_one)
        assert killed
        assert study.finished() == set(range(len(bounds)))
        front, summary = front_of(study.blocks(), 2)
    one = api.load(whole)
    assert (len(front), vars(summary)) == (len(one.designs), vars(one.summary))


def test_a_shard_lost_too_often_ends_the_sweep_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = problem()
    study, bounds = study_of(tmp_path, own, 2)
    sweep = shards.sweep_shard

    def lose_the_second(told: Any, number: int, *rest: Any) -> Any:
        if number == 1:
            raise RuntimeError("out of memory")
        return sweep(told, number, *rest)

    monkeypatch.setattr(shards, "sweep_shard", lose_the_second)
    with (
        study,
        workers("inline") as pool,
        pytest.raises(DseError, match=r"shard 1 .* lost 2 times \(RuntimeError: out of memory\).*dse resume"),
    ):
        shards.run(own, study, bounds, pool, retries=1)
    with Study.open(tmp_path / "study.db") as study:
        assert 0 in study.finished()


@pytest.mark.slow
def test_a_dask_cluster_loses_a_worker_and_no_shard(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    own = problem()
    study, bounds = study_of(tmp_path, own, 8)
    with cluster(tmp_path) as (address, first), study, workers("dask", 2, address) as pool:
        killed: list[int] = []

        def kill_one(progress: Any) -> None:
            if progress.blocks_done == 2 and not killed:
                first.kill()
                killed.append(1)

        shards.run(own, study, bounds, pool, retries=3, on_progress=kill_one)
        assert killed
        front, summary = front_of(study.blocks(), 2)
    one = api.load(whole)
    assert (len(front), vars(summary)) == (len(one.designs), vars(one.summary))


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A scheduler and two workers on loopback: its address and the first worker."""
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5"}
    processes: list[subprocess.Popen[str]] = []

    def start(module: str, *args: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *args],
                cwd=folder,
                env=environment,
                text=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return processes[-1]

    file = folder / "scheduler.json"
    try:
        start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        nanny = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder))
        first = start("distributed.cli.dask_worker", address, *nanny)
        start("distributed.cli.dask_worker", address, *nanny)
        yield address, first
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


# ---- errors ----


def test_errors_say_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'processes'"):
        ShardSettings("process")
    with pytest.raises(UsageError, match="workers is 0"):
        ShardSettings("processes", 0)
    with pytest.raises(UsageError, match="strategy nested"):
        api.search(problem(), out=tmp_path / "a", sharded=ShardSettings("inline"), strategy="nested")
    with pytest.raises(UsageError, match="without --workers"):
        api.search(api.make_problem("bert", "carbon", hw="datacenter"), out=tmp_path / "b", sharded=ShardSettings("inline"))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
