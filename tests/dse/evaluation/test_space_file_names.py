"""A space file beside an accelerator file: constraints hold by whichever name of a field they are written."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from dse.errors import DseError, UsageError
from dse.evaluation.evaluation import build_space, load_family, load_hardware
from dse.evaluation.words import make_problem
from dse.spaces import hardware
from dse.spaces.constraints import parse_constraint

HARDWARE = """
name = "own"
cores = 1
frequency_hz = 8e8
node_nm = 16
mac_bits = 8
dram_gb_per_s = 25.6
[array]
rows = [32, 48, 64]
columns = [32, 48, 64]
kind = "systolic"
[vector]
lanes = 48
[[levels]]
name = "l1"
kib = 128
words_per_cycle = 96
per_core = true
[[levels]]
name = "glb"
mib = [0.5, 1, 2, 3, 4]
words_per_cycle = 128
[[levels]]
name = "dram"
kind = "lpddr5"
gib = 2
"""
SIZES = (32, 48, 64)
MIBS = (0.5, 1, 2, 3, 4)


def designs(folder: Path, space: str, text: str = HARDWARE, **options: Any) -> dict[str, list[Any]]:
    """The columns of the hardware points that a search of the space has."""
    (folder / "own.toml").write_text(text)
    (folder / "space.toml").write_text(space)
    problem = make_problem("bert", "hardware", hw=str(folder / "own.toml"), space=folder / "space.toml", **options)
    # As a study has it: from its dictionary alone.
    problem = type(problem).from_dict(problem.to_dict())
    found = build_space(problem, load_family(problem), load_hardware(problem)).hardware
    return {name: column.tolist() for name, column in found.items()}


def count(*arguments: Any, **options: Any) -> int:
    """How many they are."""
    return len(next(iter(designs(*arguments, **options).values())))


def listed(**values: Any) -> str:
    """Tables of parameters."""
    return "".join(f"[parameters.{name}]\nvalues = {list(chosen)}\n" for name, chosen in values.items())


@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        ("{r} == {c}", lambda r, c, g: r == c),
        ("{r} <= {c}", lambda r, c, g: r <= c),
        ("{r} * {c} <= 2048", lambda r, c, g: r * c <= 2048),
        ("{r} + 16 == {c}", lambda r, c, g: r + 16 == c),
        ("{c} % {r} == 0", lambda r, c, g: c % r == 0),
        ("{g} * 32 <= {r}", lambda r, c, g: g * 32 <= r),
        ("{g} * {g} * 16 <= {r}", lambda r, c, g: g * g * 16 <= r),
        ("{g} % 2 == 0", lambda r, c, g: g % 2 == 0),
        ("{r} % {g} == 0", lambda r, c, g: r % g == 0),
    ],
)
@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize(("r", "c"), [("rows", "columns"), ("array_rows", "array_columns"), ("rows", "array_columns")])
def test_pairs_of_knobs_by_each_name(tmp_path: Path, constraint: str, holds: Any, tables: bool, r: str, c: str) -> None:
    expected = sorted((a, b, int(m * 2**20)) for a, b, m in itertools.product(SIZES, SIZES, MIBS) if holds(a, b, m))
    space = f'constraints = ["{constraint.format(r=r, c=c, g="glb_mib")}"]\n' + (listed(**{r: SIZES, c: SIZES}) if tables else "")
    found = designs(tmp_path, space)
    assert sorted(zip(found["array_rows"], found["array_columns"], found["glb_bytes"], strict=True)) == expected


@pytest.mark.parametrize("constraint", ["rows == columns * 5", "columns == 5 * array_rows", "glb_mib == 64", "glb_kib * 2 <= l1_kib"])
def test_what_no_design_meets_is_told(tmp_path: Path, constraint: str) -> None:
    space = f'constraints = ["{constraint}"]\n' + listed(rows=SIZES, columns=SIZES, l1_kib=(64, 128))
    with pytest.raises(UsageError, match="no hardware point meets the constraints"):
        count(tmp_path, space)


def test_a_field_of_one_value_follows_from_a_knob(tmp_path: Path) -> None:
    found = designs(tmp_path, 'constraints = ["lanes == rows", "l1_words_per_cycle == 2 * rows", "columns == rows"]\n' + listed(rows=SIZES))
    rows = found["array_rows"]
    assert len(rows) == len(SIZES) * len(MIBS) and found["array_columns"] == found["vector_lanes"] == rows
    assert found["l1_words_per_cycle"] == [2 * r for r in rows]
    assert count(tmp_path, 'constraints = ["lanes == rows"]') == len(SIZES) ** 2 * len(MIBS)  # in the file, not in the space


def _second() -> list[str]:
    return sorted(hardware.second_names(HARDWARE))


@pytest.mark.parametrize("name", _second())
def test_every_second_name_is_bounded(tmp_path: Path, name: str) -> None:
    knob, unit = hardware.second_names(HARDWARE)[name]
    first: Any = {"array_rows": 32, "array_columns": 32, "vector_lanes": 48, "l1_bytes": 2**17, "glb_bytes": 2**21, "dram_bytes": 2**31,
                  "gather_line_bytes": 16, "node_chips": 1}.get(knob, 2)  # fmt: skip
    kinds = {"array_kind": ["dot_product", "systolic"], "dataflow": ["ws", "os"]}
    if isinstance(hardware_value := kinds.get(knob), list):
        with pytest.raises(UsageError, match="strings"):
            count(tmp_path, f'constraints = ["{name} <= 2"]\n' + listed(**{name: hardware_value}))
        return
    low, high = first / unit, 2 * first / unit
    low, high = (int(v) if v == int(v) else v for v in (low, high))
    values = listed(**{name: (low, high)})
    try:
        whole = count(tmp_path, values)
    except DseError as error:  # a field of boards or of text, which this file cannot have
        pytest.skip(str(error))
    for relation, other, kept in (("<=", low, 1), (">=", high, 1), ("==", high, 1), (">=", low, 2)):
        found = designs(tmp_path, f'constraints = ["{name} {relation} {other:.17f}"]\n{values}')
        assert len(found[knob]) == whole * kept // 2 and set(found[knob]) <= {first, 2 * first}
    for other in (f"{name} >= {3 * high:.17f}", f"{knob} == {5 * first}"):
        with pytest.raises(UsageError, match="no hardware point meets"):
            count(tmp_path, f'constraints = ["{other}"]\n{values}')


@pytest.mark.parametrize("name", ["rows", "columns", "lanes", "l1_kib", "glb_mib", "dram_gib", "array_rows", "nonsense"])
def test_a_bound_of_the_command_line_is_of_metrics(tmp_path: Path, name: str) -> None:
    with pytest.raises(DseError, match=f"constraint '{name}' is unknown"):
        count(tmp_path, listed(rows=SIZES), constraints=[f"{name}<=64"])


@pytest.mark.parametrize("name", ["nonsense", "row", "glb_kb", "latency_s"])
def test_a_name_that_nothing_has_is_an_error(tmp_path: Path, name: str) -> None:
    for relation in ("<=", ">="):
        with pytest.raises(UsageError, match=name):
            count(tmp_path, f'constraints = ["{name} {relation} rows"]\n' + listed(rows=SIZES))
        with pytest.raises(UsageError, match=name):
            count(tmp_path, f'constraints = ["{name} {relation} rows"]')


def test_what_is_set_or_varied_beside_it_counts(tmp_path: Path) -> None:
    equal = 'constraints = ["rows == columns", "lanes == rows"]\n'
    assert count(tmp_path, equal, fixed={"rows": 48}) == len(MIBS)
    assert count(tmp_path, equal, fixed={"rows": 48, "glb_mib": 2}, vary={"lanes": [32, 48, 96]}) == 1
    assert count(tmp_path, 'constraints = ["rows <= columns"]', vary={"array_columns": [48]}) == 2 * len(MIBS)
    with pytest.raises(UsageError, match="rows is in space space too"):
        count(tmp_path, listed(array_rows=SIZES), vary={"rows": [32]})
    with pytest.raises(UsageError, match="array_rows twice"):
        count(tmp_path, listed(rows=SIZES, array_rows=SIZES))


def test_constraints_alone_need_lists_somewhere(tmp_path: Path) -> None:
    assert count(tmp_path, 'constraints = ["rows == columns"]') == len(SIZES) * len(MIBS)
    single = HARDWARE.replace("[32, 48, 64]", "48").replace("[0.5, 1, 2, 3, 4]", "2")
    with pytest.raises(UsageError, match="give at least one"):
        count(tmp_path, 'constraints = ["rows == columns"]', single)
    with pytest.raises(UsageError, match="give at least one"):
        count(tmp_path, "constraints = []")


def test_a_template_with_constraints_alone(tmp_path: Path) -> None:
    (tmp_path / "pair.toml").write_text('constraints = ["width == depth"]')
    problem = make_problem("bert", "hardware", hw="edge22", space=tmp_path / "pair.toml")
    space, knobs = build_space(problem, load_family(problem), load_hardware(problem)), hardware.load("edge22", profile=None).grid()
    assert len(space.hardware["width"]) == int((knobs["width"] == knobs["depth"]).sum()) > 0


SIDES = (
    "a_kib <= 3", "2 * a_kib ^ 2 + b <= 9", "a_kib % 3 == 0", "a_kib % b == 0", "b % a_kib == 0",
    "a_kib * b == 8", "a_kib == b", "c_mib >= a_kib", "c_mib % a_kib == 0", "a_kib - b >= 0 - c_mib",
)  # fmt: skip


@pytest.mark.parametrize("text", SIDES)
def test_renamed_constraints_hold_where_the_old_ones_do(text: str) -> None:
    import numpy as np

    old = parse_constraint(text)
    new = old.renamed({"a_kib": ("a_bytes", 1024), "c_mib": ("c_bytes", 2**20)})
    assert not {"a_kib", "c_mib"} & set(new.names) and parse_constraint(new.text) == new
    a, b, c = (axis.reshape(-1) for axis in np.meshgrid([0.5, 1, 2, 3, 4], [1, 2, 3, 4096, 6144], [0.25, 1, 2, 3], indexing="ij"))
    kept = old.holds({"a_kib": a, "b": b, "c_mib": c})
    assert np.array_equal(np.broadcast_to(kept, a.shape), np.broadcast_to(new.holds({"a_bytes": 1024 * a, "b": b, "c_bytes": 2**20 * c}),
                                                                          a.shape))  # fmt: skip
