"""Constraints between parameters: sums of products compared with each other, and divisibility.

    cores * width * depth <= 8192        2e-3 * cores * width <= 20.48 - area        hidden % heads == 0

A side is a sum of terms; a term is a product of numbers and parameters, each with an optional power (``width^2``).
Evaluation is exact double arithmetic on whole columns; there is no ``eval``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_RELATION = re.compile(r"<=|>=|==")
_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>[-+*^]))")
_DIVISIBLE = re.compile(r"^\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)\s*%\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*|\d+)\s*==\s*0\s*$")
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
    divisor_factor: float = 1.0  # of a divisor that is a parameter

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
            divisor = self.divisor_factor * (columns[self.divisor] if isinstance(self.divisor, str) else np.float64(self.divisor))
            return np.asarray(np.mod(self.terms[0].coefficient * value, divisor) == 0)
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

    def renamed(self, names: Mapping[str, tuple[str, int]]) -> SpaceConstraint:
        """The same constraint with parameters by other names: {name: (new name, units of the new one in one of the old)}.

        ``glb_mib == 4`` with {"glb_mib": ("glb_bytes", 1048576)} is ``glb_bytes == 4194304``; one that has none of the names stays.
        """
        if not set(self.names) & set(names):
            return self
        if self.relation == "%":
            ((name, _),) = self.terms[0].powers
            name, unit = names.get(name, (name, 1))
            by, by_unit = names.get(self.divisor, (self.divisor, 1)) if isinstance(self.divisor, str) else (self.divisor, 1)
            left, right = by_unit * self.terms[0].coefficient, unit * self.divisor_factor
            if left >= right and left % right == 0:
                left, right = left / right, 1.0
            elif right % left == 0:
                left, right = 1.0, right / left
            if not isinstance(by, str):
                by, right = f"{by * right:.0f}", 1.0
            return parse_constraint(f"{_times(left)}{name} % {_times(right)}{by} == 0")
        found: list[tuple[float, int, dict[str, float]]] = []
        for term in self.terms:
            powers: dict[str, float] = {}
            per = 1.0
            for name, power in term.powers:
                new, unit = names.get(name, (name, 1))
                per *= float(unit) ** power
                powers[new] = powers.get(new, 0.0) + power
            found.append((term.coefficient, int(per), powers) if per.is_integer() else (term.coefficient / per, 1, powers))
        # Whole units for fractions of them: both sides times what the largest of the new units has of its old one.
        most = max(per for _, per, _ in found)
        sides: tuple[list[str], list[str]] = ([], [])
        for coefficient, per, powers in found:
            number = coefficient * (most / per)
            factors = [name if power == 1 else f"{name} ^ {power:g}" for name, power in powers.items()]
            shown = [] if abs(number) == 1 and factors else [f"{abs(number):.17g}"]
            sides[number < 0].append(" * ".join([*shown, *factors]))
        left_side, right_side = (" + ".join(side) or "0" for side in sides)
        return parse_constraint(f"{left_side} {self.relation} {right_side}")


def meet(constraints: Iterable[SpaceConstraint], columns: Mapping[str, npt.NDArray[Any]]) -> BoolArray:
    """Rows that meet the constraints whose parameters are all among the columns."""
    keep = np.ones(len(next(iter(columns.values()), (0,))), dtype=bool)
    for constraint in constraints:
        if set(constraint.names) <= set(columns):
            keep &= constraint.holds({name: columns[name].astype(np.float64) for name in constraint.names})
    return keep


def parse_constraint(text: str) -> SpaceConstraint:
    """Parse one constraint; see the module's docstring for the form."""
    divisible = _DIVISIBLE.match(text)
    if divisible:
        times, value, by_times, divisor = divisible.groups()
        if divisor.isdigit() and int(divisor) == 0:
            raise UsageError(f"constraint {text!r} divides by zero")
        by = float(divisor) if divisor.isdigit() else divisor
        if not (int(times or 1) and int(by_times or 1)):
            raise UsageError(f"constraint {text!r} has a factor of zero")
        return SpaceConstraint(text.strip(), (Term(float(times or 1), ((value, 1.0),)),), "%", by, float(by_times or 1))
    found = _RELATION.findall(text)
    if len(found) != 1:
        raise UsageError(f"constraint {text!r} needs exactly one of <=, >=, == (or the form NAME % NAME == 0)")
    left, right = text.split(found[0])
    terms = (*_sum(left, 1.0, text), *_sum(right, -1.0, text))
    constraint = SpaceConstraint(text.strip(), terms, found[0])
    if not constraint.names:
        raise UsageError(f"constraint {text!r} names no parameter")
    return constraint


def _times(number: float) -> str:
    return "" if number == 1 else f"{number:.0f} * "


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
