"""Constraints between parameters: sums of products compared with each other, and divisibility.

    cores * width * depth <= 8192        2e-3 * cores * width <= 20.48 - area        hidden % heads == 0

A side is a sum of terms; a term is a product of numbers and parameters, each with an optional power (``width^2``).
Evaluation is exact double arithmetic on whole columns; there is no ``eval``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_RELATION = re.compile(r"<=|>=|==")
_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>[-+*^]))")
_DIVISIBLE = re.compile(r"^\s*([A-Za-z_]\w*)\s*%\s*([A-Za-z_]\w*|\d+)\s*==\s*0\s*$")
# Relative slack of a comparison: the bound itself, computed in another order of operations, still counts as met.
_SLACK = 1e-12


@dataclass(frozen=True)
class Term:
    """coefficient times the product of parameters, each to a power."""

    coefficient: float
    powers: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class SpaceConstraint:
    """A sum of terms that is at most, at least or exactly zero; or a parameter that another divides."""

    text: str
    terms: tuple[Term, ...]
    relation: str  # "<=", ">=", "==" against zero, or "%"
    divisor: str | float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that the constraint ties."""
        found = [name for term in self.terms for name, _ in term.powers]
        if isinstance(self.divisor, str):
            found.append(self.divisor)
        return tuple(dict.fromkeys(found))

    def holds(self, columns: Mapping[str, FloatArray]) -> BoolArray:
        """Which designs meet it, given the values of the parameters as arrays of one shape."""
        if self.relation == "%":
            value = columns[self.terms[0].powers[0][0]]
            divisor = columns[self.divisor] if isinstance(self.divisor, str) else np.float64(self.divisor)
            return np.asarray(np.mod(value, divisor) == 0)
        total: FloatArray = np.zeros(1)
        scale: FloatArray = np.zeros(1)
        for term in self.terms:
            product: FloatArray = np.full(1, term.coefficient)
            for name, power in term.powers:
                product = product * columns[name] ** power
            total = total + product
            scale = np.maximum(scale, np.abs(product))
        slack = _SLACK * scale
        if self.relation == "<=":
            return np.asarray(total <= slack)
        if self.relation == ">=":
            return np.asarray(total >= -slack)
        return np.asarray(np.abs(total) <= slack)


def parse_constraint(text: str) -> SpaceConstraint:
    """Parse one constraint; see the module's docstring for the form."""
    divisible = _DIVISIBLE.match(text)
    if divisible:
        value, divisor = divisible.groups()
        if divisor.isdigit() and int(divisor) == 0:
            raise UsageError(f"constraint {text!r} divides by zero")
        by = float(divisor) if divisor.isdigit() else divisor
        return SpaceConstraint(text.strip(), (Term(1.0, ((value, 1.0),)),), "%", by)
    found = _RELATION.findall(text)
    if len(found) != 1:
        raise UsageError(f"constraint {text!r} needs exactly one of <=, >=, == (or the form NAME % NAME == 0)")
    left, right = text.split(found[0])
    terms = (*_sum(left, 1.0, text), *_sum(right, -1.0, text))
    constraint = SpaceConstraint(text.strip(), terms, found[0])
    if not constraint.names:
        raise UsageError(f"constraint {text!r} names no parameter")
    return constraint


def _sum(side: str, sign: float, text: str) -> list[Term]:
    tokens = _tokens(side, text)
    terms: list[Term] = []
    position = 0
    while position < len(tokens):
        factor_sign = sign
        while position < len(tokens) and tokens[position] in ("+", "-"):
            factor_sign *= -1.0 if tokens[position] == "-" else 1.0
            position += 1
        term, position = _product(tokens, position, factor_sign, text)
        terms.append(term)
        if position < len(tokens) and tokens[position] not in ("+", "-"):
            raise _malformed(text)
    if not terms:
        raise _malformed(text)
    return terms


def _product(tokens: list[str], position: int, coefficient: float, text: str) -> tuple[Term, int]:
    powers: dict[str, float] = {}
    while True:
        if position >= len(tokens) or tokens[position] in "+-*^":
            raise _malformed(text)
        token = tokens[position]
        position += 1
        power = 1.0
        if position + 1 < len(tokens) and tokens[position] == "^":
            try:
                power = float(tokens[position + 1])
            except ValueError:
                raise _malformed(text) from None
            position += 2
        if token[0].isdigit() or token[0] == ".":
            coefficient *= float(token) ** power
        else:
            powers[token] = powers.get(token, 0.0) + power
        if position < len(tokens) and tokens[position] == "*":
            position += 1
            continue
        return Term(coefficient, tuple(powers.items())), position


def _tokens(side: str, text: str) -> list[str]:
    tokens, position = [], 0
    side = side.rstrip()
    while position < len(side):
        match = _TOKEN.match(side, position)
        if not match:
            raise _malformed(text)
        tokens.append(match.group().strip())
        position = match.end()
    return tokens


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"constraint {text!r} is not a comparison of sums of products of numbers and parameters, like "
        "'2 * cores * width <= 512' or 'hidden % heads == 0'"
    )
