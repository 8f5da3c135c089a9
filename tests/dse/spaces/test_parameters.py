"""Spaces: cardinality against brute force, codings, constraints, files, errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import UsageError
from dse.spaces import parameters as space
from dse.spaces.constraints import parse_constraint
from dse.spaces.parameters import Parameter, Space, parse

TEXT = """
name = "tiny"
constraints = ["a * b <= 12", "c % a == 0", "a^2 + 2 * b >= 3 + 0.5 * c - c"]
[parameters.a]
values = [1, 2, 3, 4]
[parameters.b]
role = "model"
values = [1, 2, 4, 8]
[parameters.c]
values = [6, 8, 9]
[parameters.f]
from = 0.5
to = 1.5
steps = 11
[parameters.kind]
values = ["lpddr4", "hbm2"]
"""


def test_cardinality_and_feasibility_equal_brute_force() -> None:
    found = parse(TEXT, where="tiny.toml")
    expected = sum(
        a * b <= 12 and c % a == 0 and a**2 + 2 * b >= 3 - 0.5 * c for a, b, c in itertools.product([1, 2, 3, 4], [1, 2, 4, 8], [6, 8, 9])
    )
    assert found.size == 4 * 4 * 3 * 11 * 2
    assert found.cardinality() == expected * 11 * 2
    assert int(found.feasible(found.unrank(np.arange(found.size))).sum()) == expected * 11 * 2


def test_round_trips() -> None:
    found = parse(TEXT, where="tiny.toml")
    assert parse(found.to_toml(), where="again") == found
    numbers = np.arange(0, found.size, 7)
    rows = found.unrank(numbers)
    assert (found.rank(rows) == numbers).all()
    assert (found.index(found.values(rows[5])) == rows[5]).all()
    assert (found.nearest(found.coded(rows)) == rows).all()


def test_built_in_space_is_the_template() -> None:
    edge = space.load("edge22")
    assert edge.size == edge.cardinality() == 6480
    assert {p.coding for p in edge.parameters} == {"power_of_two"}
    # The exponent coding: equal steps for equal factors.
    assert np.allclose(edge.parameter("width").code, [0, 1 / 3, 2 / 3, 1])


def test_constraint_at_its_bound_holds_in_any_order_of_operations() -> None:
    # 3 * 0.1 is 0.30000000000000004; the user who writes 0.3 means equality.
    constraint = parse_constraint("3 * x <= 0.3")
    assert constraint.holds({"x": np.array([0.1])})[0]
    assert not constraint.holds({"x": np.array([0.1000001])})[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=5, unique=True), st.integers(1, 900), st.sampled_from(["<=", ">="]))
def test_product_constraints(values: list[int], bound: int, relation: str) -> None:
    ordered = tuple(sorted(values))
    tied = Space("s", (Parameter("x", ordered), Parameter("y", ordered)), (parse_constraint(f"2 * x * y^2 {relation} {bound}"),))
    expected = sum((2 * x * y * y <= bound) if relation == "<=" else (2 * x * y * y >= bound) for x in ordered for y in ordered)
    assert tied.cardinality() == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[parameters.a]\nvalues = []", "parameter a has no value"),
        ("[parameters.a]\nvalues = [2, 1]", "ascending"),
        ("[parameters.a]\nvalues = [1, 3]\ncoding = 'power_of_two'", "powers of two"),
        ("[parameters.a]\nvalues = [1, 2]\ncoding = 'logs'", "did you mean 'log'"),
        ("[parameters.a]\nvalues = [1, 2]\nrole = 'modell'", "did you mean 'model'"),
        ("[parameters.a]\nvalues = [1, 2]\nvalue = 3", "did you mean 'values'"),
        ("[parameters.a]\nfrom = 2\nto = 1\nsteps = 3", "from < to"),
        ("constraints = ['b <= 2']\n[parameters.a]\nvalues = [1, 2]", "'b' is unknown"),
        ("constraints = ['a <= ']\n[parameters.a]\nvalues = [1, 2]", "is not a comparison"),
        ("constraints = ['a <= 1 <= 2']\n[parameters.a]\nvalues = [1, 2]", "exactly one of"),
        ("constraints = ['__import__(a) <= 2']\n[parameters.a]\nvalues = [1, 2]", "is not a comparison"),
        ("constraints = ['k >= 2']\n[parameters.k]\nvalues = ['x', 'y']", "strings"),
        ("name = 3 =", "not valid TOML"),
        ("name = 'x'", "no [parameters.NAME]"),
    ],
)
def test_errors_are_one_sentence(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, where="file.toml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value).replace("at line", "")


def test_unknown_value_names_the_nearest() -> None:
    edge = space.load("edge22")
    with pytest.raises(UsageError, match="nearest is 64"):
        edge.index({"cores": 1, "width": 70, "depth": 2, "l2_kib": 64, "l2_words_per_cycle": 32, "glb_mib": 2})
    with pytest.raises(UsageError, match="edge22"):
        space.load("edge2")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("values = [22, [1, 2], 7]", "neither a number nor a string"),
        ("values = [22, {}, 7]", "neither a number nor a string"),
        ("values = [1, 1" + "0" * 400 + "]", "63 bits are the most"),
        ("values = [" + "9" * 5000 + "]", "not valid TOML"),
        ("from = 1\nto = 5\nsteps = 1e300", "2 to 1,000,000"),
        ("from = 1\nto = 5\nsteps = 1000001", "2 to 1,000,000"),
        ("from = 1\nto = 5\nsteps = inf", "finite"),
        ("from = 1\nto = nan\nsteps = 3", "finite"),
        ("from = 1\nto = 1" + "0" * 400 + "\nsteps = 3", "finite"),
    ],
)
def test_values_of_a_wrong_kind_or_size_are_refused(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(f"[parameters.a]\n{line}\n", where="odd.toml")


def test_a_name_of_thousands_of_letters_is_cut_in_the_sentence() -> None:
    with pytest.raises(UsageError, match="role") as caught:
        parse('[parameters.a]\nvalues = [1, 2]\nrole = "' + "x" * 5000 + '"\n', where="odd.toml")
    assert len(str(caught.value)) < 500


def test_an_equation_gives_a_parameter_that_is_not_listed() -> None:
    text = """constraints = ["ffn == 4 * hidden", "64 * heads == hidden", "lanes == 2 * cores + 0.5"]
[parameters.hidden]
role = "model"
values = [128, 160, 192]
[parameters.cores]
values = [1, 2]
"""
    found = parse(text, where="own")
    assert found.names == ("hidden", "cores", "ffn", "heads", "lanes")
    assert found.parameter("ffn").values == (512, 640, 768)
    assert found.parameter("heads").values == (2, 3)  # 160 has no whole number of heads of 64, and no design
    assert found.parameter("heads").role == "model"
    assert found.parameter("lanes").values == (2.5, 4.5)
    assert found.cardinality() == 4  # two widths on two core counts
    assert parse(found.to_toml(), where="own").parameters == found.parameters


@pytest.mark.parametrize(
    "constraint", ["ffn <= 4 * hidden", "ffn * ffn == hidden", "ffn == heads * hidden", "ffn % hidden == 0", "ffn == 4 * cores * hidden"]
)
def test_a_constraint_on_what_is_not_listed_and_does_not_follow(constraint: str) -> None:
    text = f'constraints = ["{constraint}"]\n[parameters.hidden]\nrole = "model"\nvalues = [128]\n[parameters.cores]\nvalues = [1, 2]\n'
    with pytest.raises(UsageError, match=r"parameter '\w+' is unknown, space own lists hidden, cores"):
        parse(text, where="own")
