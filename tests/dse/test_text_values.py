"""What text stands for: one rule for the command line and for cells of files."""

from __future__ import annotations

import math

import pytest

from dse.text_values import number_or_name, value_of


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("4.0", 4.0), ("1e3", 1000.0), ("decode", "decode"), ("9007199254740993", 2**53 + 1), ("true", "true")]
)
def test_numbers_keep_their_kind(text: str, value: object) -> None:
    found = number_or_name(text)
    assert found == value
    assert type(found) is type(value)


def test_what_no_float_holds_is_infinite() -> None:
    assert number_or_name("1" + 400 * "0") == number_or_name("1e400") == math.inf


def test_truth_is_spelled_as_in_toml() -> None:
    assert value_of("true") is True
    assert value_of("false") is False
    assert value_of("True") == "True"
    assert value_of("0") == 0
