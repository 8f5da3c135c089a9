"""Einstein summation as products: which indices are batch, rows, columns and summed; more operands from left to right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Contraction:
    """The product of the result so far (at first the first operand) with the next operand.

    batch: size of the indices of both and the result; m, n: of the left or the right one and the result; k: of both alone.
    shape: sizes of the result, in the order of its indices.
    """

    batch: int
    m: int
    n: int
    k: int
    shape: tuple[int, ...]


def contractions(equation: str, shapes: Sequence[Sequence[int]]) -> list[Contraction] | None:
    """Return the products of an einsum of two or more operands, or None if the equation does not fit the shapes.

    The order is from left to right, as onnxruntime and torch.einsum (without opt_einsum) contract: a result keeps the indices
    that a later operand or the final result needs. An index that one operand alone has and nothing later needs is summed
    before the product and counts nothing here.
    """
    parsed = _parse(equation, shapes)
    if parsed is None or len(parsed[0]) < 2:
        return None
    operands, result, sizes = parsed

    def size(of: set[str]) -> int:
        return math.prod(sizes[letter] for letter in of)

    made: list[Contraction] = []
    left = set(operands[0])
    for index, right_letters in enumerate(operands[1:], start=1):
        right = set(right_letters)
        later = set(result).union(*operands[index + 1 :])
        last = index == len(operands) - 1
        kept = (left | right) & later
        order = result if last else [letter for letter in dict.fromkeys([*operands[0], *right_letters, *sorted(kept)]) if letter in kept]
        made.append(
            Contraction(
                size(left & right & kept),
                size((left - right) & kept),
                size((right - left) & kept),
                size((left & right) - kept),
                tuple(sizes[letter] for letter in order),
            )
        )
        left = kept
    return made


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
