"""Sums that were found before: the same bits cold and warm, never those of something else, and no harm from a folder in a bad state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dse_kernels import residency

from hw_models.costs.residency import stored
from hw_models.costs.residency.models import Models
from hw_models.costs.residency.solve import Totals
from hw_models.spaces import template
from workloads import library

EDGE = template.load("edge22")
KNOBS = {"cores": [1, 2], "width": [64, 128], "depth": [8, 16], "l2_kib": [64, 256], "l2_words_per_cycle": [64], "glb_mib": [2, 4, 8]}
GRID = EDGE.with_knobs(**{name: tuple(values) for name, values in KNOBS.items()})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(stored.VARIABLE, str(tmp_path / "kept"))
    monkeypatch.setattr(stored, "_LEAST_WORK", 0)
    monkeypatch.setattr(stored, "_LEAST_DESIGNS", 0)
    return tmp_path / "kept"


def totals(level: Any = "weights", criterion: Any = "edp", designs: slice = slice(None), hidden: tuple[int, ...] = (128, 256)) -> Totals:
    family = library.load("bert-tiny")
    workload = family.build(
        hidden=np.array(hidden), heads=np.full(len(hidden), 2), ffn=np.array(hidden) * 4, layers=np.array([1, 3])[: len(hidden)]
    )
    hardware = GRID.batch(**GRID.grid()).take(np.arange(GRID.size)[designs])
    return Models(workload, hardware, level, criterion).totals()


def same(a: Totals, b: Totals) -> bool:
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in stored.COLUMNS)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_warm_is_cold_to_the_last_bit_and_maps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setenv(stored.VARIABLE, stored.OFF)
        without = totals()
        assert not entries(folder)
    cold = totals()
    assert [path.suffix for path in entries(folder)] == [".npz"]
    assert folder.stat().st_mode & 0o077 == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("mapped again")

    monkeypatch.setattr(residency.Problem, "solve", never)
    warm = totals()
    assert same(cold, without) and same(warm, cold)
    assert warm.pinned.any() and not warm.pinned.all() and np.isfinite(warm.energy_j).all()


def test_an_entry_answers_nothing_but_what_it_was_asked(folder: Path) -> None:
    asked: list[dict[str, Any]] = [
        {}, {"level": "epilogue"}, {"level": "activations"}, {"criterion": "energy"}, {"designs": slice(1, None)},
        {"designs": slice(None, None, -1)}, {"hidden": (128, 192)}, {"hidden": (256, 128)}, {"hidden": (128,)},
    ]  # fmt: skip
    found = [totals(**what) for what in asked]
    assert len(entries(folder)) == len(asked)
    assert same(found[0], totals())
    again = totals(designs=slice(None, None, -1))
    assert np.array_equal(again.energy_j[:, ::-1], found[0].energy_j)


def test_another_kernel_has_other_entries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    totals()
    monkeypatch.setattr(stored, "_kernel", lambda: b"another")
    totals()
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "pickled", "columns", "shape", "kind", "folder"])
def test_a_damaged_entry_is_as_good_as_none(folder: Path, damage: str) -> None:
    first = totals()
    path = entries(folder)[0]
    whole = path.read_bytes()
    with np.load(path) as entry:
        columns = {name: entry[name] for name in entry.files}
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        middle = len(whole) // 3
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "pickled":
        np.savez(path, **{**columns, "latency_s": np.array([[print]], dtype=object)})
    elif damage == "columns":
        np.savez(path, **{name: column for name, column in columns.items() if name != "peak_w"})
    elif damage == "shape":
        np.savez(path, **{name: column[:, 1:] for name, column in columns.items()})
    elif damage == "kind":
        np.savez(path, **{name: column.astype(np.float32) for name, column in columns.items()})
    else:
        path.unlink()
        path.mkdir()
    assert same(totals(), first)
    if damage != "folder":  # which nothing can take the place of
        assert same(Totals(**stored.read(path.stem, first.latency_s.shape) or {}), first)


def test_the_folder_is_bounded_and_what_is_not_ours_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    totals()
    size = entries(folder)[0].stat().st_size
    (folder / "notes.npz").write_bytes(bytes(10 * size))
    monkeypatch.setattr(stored, "MOST_BYTES", 2 * size + size // 2)
    first = entries(folder)[0].name
    totals(criterion="energy")
    second = next(path.name for path in entries(folder) if path.name not in (first, "notes.npz"))
    for name, age in ((first, 100), (second, 200)):  # seconds ago
        told = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (told, told))
    totals(criterion="latency")
    names = {path.name for path in entries(folder)}
    assert second not in names and {first, "notes.npz"} < names and len(names) == 3
    monkeypatch.setattr(stored, "MOST_ENTRY_BYTES", 100)
    totals(level="epilogue")
    assert {path.name for path in entries(folder)} == names


def test_a_folder_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(stored.VARIABLE, str(tmp_path / "file"))
    assert same(totals(), totals())


def test_small_answers_are_not_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, least in (("_LEAST_WORK", 10_000), ("_LEAST_DESIGNS", GRID.size + 1)):
        with monkeypatch.context() as changed:
            changed.setattr(stored, name, least)
            totals()
        assert not entries(folder)


def test_the_folder_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(stored.VARIABLE, "OFF")
    assert stored.folder() is None
    monkeypatch.delenv(stored.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert stored.folder() == tmp_path / "dse"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert stored.folder() == tmp_path / "home" / ".cache" / "dse"
