"""The study file: what goes in comes out, twice is once, and a file that is no study is said to be none."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from dse.errors import DseError
from dse.storage.study import BlockResult, Study


def _block(number: int, size: int = 3) -> BlockResult:
    rng = np.random.default_rng(number)
    return BlockResult(
        number,
        number * 4,
        number * 4 + 4,
        400,
        17,
        {"latency_s<=0.05": 3},
        rng.integers(0, 9, size),
        rng.integers(0, 9, size),
        rng.random((size, 2)),
    )


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with Study.create(path, {"problem": {"a": 1}}) as study:
        for number in (2, 0, 1):
            study.record(_block(number, size=number))
        study.record(_block(1, size=1))  # another process finished it too
    with Study.open(path) as study:
        assert study.description()["problem"] == {"a": 1}
        assert study.finished() == {0, 1, 2}
        for number, block in enumerate(study.blocks()):
            expected = _block(number, size=number)
            assert block.number == number
            assert block.reasons == expected.reasons
            assert np.array_equal(block.front_models, expected.front_models)
            assert np.array_equal(block.front_hardware, expected.front_hardware)
            assert block.front_values.size == expected.front_values.size
            assert np.array_equal(block.front_values.ravel(), expected.front_values.ravel())
        assert study.result() is None
        study.finish({"designs": [1, 2]})
        assert study.result() == {"designs": [1, 2]}


def test_an_existing_study_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    Study.create(path, {}).close()
    with pytest.raises(DseError, match="exists already"):
        Study.create(path, {})


def test_missing_foreign_and_corrupt_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DseError, match="does not exist"):
        Study.open(tmp_path / "study.db")
    text = tmp_path / "text.db"
    text.write_bytes(b"this is no database" * 100)
    with pytest.raises(DseError, match=r"text\.db cannot be read: file is not a database"):
        Study.open(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table t (x)")
    connection.close()
    with pytest.raises(DseError, match="no table named meta"):
        Study.open(other)
    cut = tmp_path / "cut.db"
    with Study.create(cut, {"problem": "x" * 20000}) as study:
        study.record(_block(0, size=500))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2 - 100])
    with pytest.raises(DseError, match=r"cut\.db"), Study.open(cut) as study:
        list(study.blocks())


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    Study.create(path, {}).close()
    with sqlite3.connect(path) as connection:
        connection.execute("update meta set value = '99' where key = 'schema_version'")
    connection.close()
    with pytest.raises(DseError, match="schema version 99"):
        Study.open(path)


def test_reading_changes_nothing_of_a_foreign_file(tmp_path: Path) -> None:
    """A database of another program keeps its bytes and its journal mode, and stays alone in its folder."""
    import sqlite3

    from dse.storage.run_folder import load

    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE things (x INTEGER)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(DseError, match="not a study"):
        load(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_study_is_born_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails at birth leaves a folder that the next search accepts."""
    file = tmp_path / "study.db"
    with pytest.raises(TypeError):
        Study.create(file, {"problem": object()})
    assert list(tmp_path.iterdir()) == []
    Study.create(file, {"problem": {}}).close()
    with pytest.raises(DseError, match="exists already"):
        Study.create(file, {"problem": {}})
    with Study.open(file, read_only=True) as study:
        assert study.description()["problem"] == {}


@pytest.mark.parametrize("value", ['{"designs": [1,', "9" * 5000, "[" * 100_000, b"\x80\x00", "\x00"])
def test_damaged_result_is_one_sentence(tmp_path: Path, value: str | bytes) -> None:
    path = tmp_path / "study.db"
    with Study.create(path, {}) as study:
        study.finish({"designs": []})
    connection = sqlite3.connect(path)
    connection.execute("UPDATE result SET value = ?", (value,))
    connection.commit()
    connection.close()
    with Study.open(path, read_only=True) as study, pytest.raises(DseError, match=r"cannot be read|is damaged"):
        study.result()


def test_damaged_block_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with Study.create(path, {}) as study:
        study.record(_block(0))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE blocks SET front_models = ?", (b"\x01\x02\x03",))
    connection.commit()
    connection.close()
    with Study.open(path, read_only=True) as study, pytest.raises(DseError, match=r"cannot be read|is damaged"):
        list(study.blocks())


def test_blocks_of_a_description_that_lost_its_objectives_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with Study.create(path, {"bounds": [[0, 4]], "problem": {"a": 1}}) as study:
        study.record(_block(0))
    with Study.open(path, read_only=True) as study, pytest.raises(DseError, match=r"is damaged"):
        list(study.blocks())
