"""Einstein summation as one product: which indices are batch, rows, columns and summed."""

from __future__ import annotations

import math
from collections.abc import Sequence


def einsum_product(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[int, int, int, int] | None:
    """Return (batch, m, n, k) of an einsum of two operands, or None if it is not one product.

    batch: indices of both operands and the result; m, n: of one operand and the result; k: of both operands alone. An index
    that only one operand has and the result lacks is summed before the product and counts nothing here.
    """
    parsed = _parse(equation, shapes)
    if parsed is None or len(parsed[0]) != 2:
        return None
    (left, right), result, sizes = parsed
    a, b, output = set(left), set(right), set(result)

    def size(of: set[str]) -> int:
        return math.prod(sizes[letter] for letter in of)

    return size(a & b & output), size((a - b) & output), size((b - a) & output), size((a & b) - output)


def einsum_result(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    """Return the shape of the result, or None if the equation does not fit the shapes."""
    parsed = _parse(equation, shapes)
    if parsed is None:
        return None
    _, result, sizes = parsed
    return tuple(sizes[letter] for letter in result)


def _parse(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[list[str]], list[str], dict[str, int]] | None:
    """Indices of the operands and of the result, in order, and the size of each."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes) or not terms:
        return None
    sizes: dict[str, int] = {}
    named: list[list[str]] = []
    for term, shape in zip(terms, shapes, strict=True):
        letters = _spell_ellipsis(term, len(shape))
        if letters is None:
            return None
        for letter, size in zip(letters, shape, strict=True):
            if sizes.get(letter, 1) not in (1, size) and size != 1:
                return None
            sizes[letter] = max(sizes.get(letter, 1), size)
        named.append(letters)
    dots = sorted((letter for letter in sizes if len(letter) > 1), key=lambda letter: -int(letter[3:]))
    if not arrow:
        every = [letter for letters in named for letter in letters if len(letter) == 1]
        return named, [*dots, *sorted(letter for letter in every if every.count(letter) == 1)], sizes
    before, ellipsis, after = result.partition("...")
    output = [*before, *(dots if ellipsis else []), *after]
    return (named, output, sizes) if all(letter in sizes for letter in output) else None


def _spell_ellipsis(term: str, rank: int) -> list[str] | None:
    """Letters of a term, an ellipsis spelled as names of its own from the right."""
    if "..." not in term:
        return list(term) if len(term) == rank else None
    before, _, after = term.partition("...")
    hidden = rank - len(before) - len(after)
    if hidden < 0:
        return None
    return [*before, *(f"dot{index}" for index in range(hidden, 0, -1)), *after]
