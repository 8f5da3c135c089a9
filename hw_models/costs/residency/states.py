"""The choices of a chain: states of what is resident, and the edges between them.

A tensor is in memory alone, on chip alone, or on both (then it may be given up for nothing, after a step that uses or makes it). A
step reads an operand that is on chip there, streams one that is not, or loads it whole and keeps it; its result goes to memory,
stays on chip, or both. Whatever is on chip while a step runs, its result included, is room that its tiles do not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from hw_models.costs.residency.steps import CARRIED, Chain
from hw_models.costs.residency.tiles import Group

ONLY, BOTH = 1, 2
"""A resident tensor: on chip alone, or also in memory."""
State = tuple[tuple[int, int], ...]
"""The resident tensors in order, each with ONLY or BOTH."""
MEMORY_ALONE: State = ()
MOST_STATES = 256
"""States of a step beyond which the choices are cut (`Edges.exact`)."""
NO_GROUP, WITHIN = -1, -2
"""`Variant.group` of a step by itself, and of one that runs within the group of a later step."""
_RUNS = -9
"""In a state, before its tensors: a group runs, with the numbers of its first and last step as one."""
_MANY_STEPS = 1 << 20


@dataclass(frozen=True)
class Variant:
    """How a step runs: which operands are on chip, whether its result stays there and goes to memory, which tensors are held, and
    which are loaded whole beside what the step streams. ``group``: of `Edges.groups`, if it is the last of one that runs tile by tile;
    then ``held`` says what is on chip for all of it.
    """

    step: int
    resident: tuple[bool, ...]
    keeps: bool
    stores: bool
    held: tuple[int, ...]
    loaded: tuple[int, ...]
    group: int = NO_GROUP


@dataclass(frozen=True)
class Edges:
    """The layered graph of a chain from given entry states.

    ``layers[i]``: the edges of step i as (state before, state after, variant), states numbered within their layer; ``states[i]``
    those before step i, ``states[-1]`` those at the end. ``exact``: no choice was cut. ``refused``: what did not fit together.
    """

    variants: tuple[Variant, ...]
    layers: tuple[tuple[tuple[int, int, int], ...], ...]
    states: tuple[tuple[State, ...], ...]
    exact: bool
    refused: frozenset[tuple[int, ...]]
    groups: tuple[Group, ...] = ()

    def held_bits(self, bits: Mapping[int, int]) -> npt.NDArray[np.int64]:
        """Bits that are held while each variant runs, of tensors of these ``bits``; without parameters of a group (`own_bits`)."""
        found = []
        for v in self.variants:
            own = self.groups[v.group] if v.group >= 0 else None
            found.append(sum(bits[t] for t in v.held) if own is None else own.room_bits(bits, v.held, keeps=v.keeps))
        return np.array(found, dtype=np.int64)

    def own_bits(self) -> npt.NDArray[np.int64]:
        """Bits of parameters that each variant's group holds where parameters do not stay."""
        return np.array([self.groups[v.group].own_bits if v.group >= 0 else 0 for v in self.variants], dtype=np.int64)

    def serve(self, chain: Chain, most_bits: int) -> bool:
        """Whether they are the choices of another chain of the same `form`: what was refused does not fit there either."""
        return all(sum(chain.bits[t] for t in tensors) > most_bits for tensors in self.refused)


def form(chain: Chain) -> tuple[object, ...]:
    """What the choices of a chain depend on but for the sizes of its tensors."""
    steps = tuple((tuple(o.tensor for o in step.operands), step.stored) for step in chain.steps)
    return steps, chain.leaving, chain.segment.enters or chain.segment.loops, CARRIED in chain.bits, tuple(chain.last_use.items())


def edges_of(chain: Chain, *, most_bits: int, groups: Sequence[Group] = ()) -> Edges:
    """Every choice of a chain whose resident tensors fit ``most_bits`` (of the largest design; smaller ones are told later).

    ``groups``: those of the chain that may run tile by tile. What is on chip when a group begins stays until it ends.
    """
    spans: dict[tuple[int, int], list[int]] = {}
    for number, group in enumerate(groups):
        spans.setdefault((group.first, group.last), []).append(number)
    entries: list[State] = [MEMORY_ALONE]
    refused: set[tuple[int, ...]] = set()
    if chain.segment.carried_bits and (chain.segment.enters or chain.segment.loops):
        if chain.segment.carried_bits <= most_bits:
            entries += [((CARRIED, ONLY),), ((CARRIED, BOTH),)]
        else:
            refused.add((CARRIED,))
    variants: dict[Variant, int] = {}
    layers: list[tuple[tuple[int, int, int], ...]] = []
    states: list[tuple[State, ...]] = [tuple(entries)]
    exact = True
    for i in range(len(chain.steps)):
        cut = sum(not s or s[0][0] != _RUNS for s in states[-1]) > MOST_STATES
        exact &= not cut
        after: dict[State, int] = {}
        edges: dict[tuple[int, int, int], None] = {}
        for at, state in enumerate(states[-1]):
            moves: list[tuple[Variant, list[State]]] = []
            begin, tensors = (state[0][1], state[1:]) if state and state[0][0] == _RUNS else (-1, state)
            if begin < 0:
                moves += _moves(chain, i, dict(tensors), most_bits, refused, simple=cut)
                if (i, i) in spans:
                    moves += _ends_of_groups(chain, [(g, groups[g]) for g in spans[i, i]], dict(tensors), most_bits, simple=cut)
                runs = [first * _MANY_STEPS + last for first, last in spans if first == i < last]
            elif begin % _MANY_STEPS == i:
                span = spans[begin // _MANY_STEPS, i]
                moves += _ends_of_groups(chain, [(g, groups[g]) for g in span], dict(tensors), most_bits, simple=cut)
                runs = []
            else:
                runs = [begin]
            if runs:
                moves.append((Variant(i, (), False, False, (), (), WITHIN), [((_RUNS, run), *tensors) for run in runs]))
            for variant, ends in moves:
                number = variants.setdefault(variant, len(variants))
                for end in ends:
                    edges[at, after.setdefault(end, len(after)), number] = None
        layers.append(tuple(edges))
        states.append(tuple(after))
    return Edges(tuple(variants), tuple(layers), tuple(states), exact, frozenset(refused), tuple(groups))


def _moves(
    chain: Chain, i: int, state: dict[int, int], most_bits: int, refused: set[tuple[int, ...]], *, simple: bool
) -> list[tuple[Variant, list[State]]]:
    """The ways to run step i from a state: the variant, and the states that it may end in. What does not fit is added to ``refused``.
    ``simple``: nothing is loaded whole and nothing is both kept and stored.
    """
    step = chain.steps[i]
    absent = sorted({o.tensor for o in step.operands if o.tensor is not None and o.tensor not in state})
    found = []
    outputs = _outputs(chain, i, simple=simple)
    for loads in product((False, True), repeat=0 if simple else len(absent)):
        loaded = [t for t, load in zip(absent, loads, strict=False) if load]
        during = {**state, **dict.fromkeys(loaded, BOTH)}
        resident = tuple(o.tensor is not None and o.tensor in during for o in step.operands)
        for keeps, stores in outputs:
            here = dict(during)
            if keeps:
                here[step.tensor] = BOTH if stores else ONLY
            held = tuple(sorted(here))
            if sum(chain.bits[t] for t in held) > most_bits:
                refused.add(held)
                continue
            variant = Variant(i, resident, keeps, stores, held, tuple(loaded))
            found.append((variant, _ends(chain, i, here)))
    return found


def _outputs(chain: Chain, i: int, *, simple: bool) -> list[tuple[bool, bool]]:
    """Whether the result of step i stays on chip, and goes to memory."""
    step = chain.steps[i]
    if chain.last_use[step.tensor] == i:  # nothing reads it: no use in keeping it
        return [(False, True)]
    if simple:
        return [(False, True), (True, step.stored)]
    # Kept and stored where it need not be, a result is given up between two uses: it must have two, or pass on.
    often = chain.leaving == step.tensor or sum(step.tensor in {o.tensor for o in s.operands} for s in chain.steps) > 1
    return [(False, True), (True, True)] if step.stored else [(False, True), (True, False), *([(True, True)] if often else [])]


def _ends_of_groups(
    chain: Chain, groups: Sequence[tuple[int, Group]], state: dict[int, int], most_bits: int, *, simple: bool
) -> list[tuple[Variant, list[State]]]:
    """The ways to run each of some groups that end with the same step from a state, which nothing is loaded into."""
    found = []
    last = groups[0][1].last
    for number, group in groups:
        outputs = _outputs(chain, last, simple=simple)
        if group.entering is not None:  # its result grows on chip; what need not stay is stored from there, and given up
            outputs = list(dict.fromkeys((True, stores) for _, stores in [(True, True), *outputs]))
        for keeps, stores in outputs:
            here = {**state, **({last: BOTH if stores else ONLY} if keeps else {})}
            held = tuple(sorted(here))
            if group.room_bits(chain.bits, held, keeps=keeps) + group.own_bits > most_bits:
                continue
            ends = _ends(chain, last, here, {last, *group.reads})
            found.append((Variant(last, (), keeps, stores, held, (), number), ends))
    return found


def _ends(chain: Chain, i: int, here: dict[int, int], touched: set[int] | None = None) -> list[State]:
    """What may still be there after step i: the dead are gone, and what this step (or its group, which has ``touched`` these) has used or
    made and is also in memory may be given up. (Later it would only have taken room for nothing.)
    """
    alive = {t: how for t, how in here.items() if chain.last_use[t] > i}
    step = chain.steps[i]
    if touched is None:
        touched = {step.tensor, *(o.tensor for o in step.operands if o.tensor is not None)}
    free = [t for t, how in alive.items() if how == BOTH and t in touched]
    ends = []
    for dropped in product((False, True), repeat=len(free)):
        gone = {t for t, drop in zip(free, dropped, strict=True) if drop}
        ends.append(tuple(sorted((t, how) for t, how in alive.items() if t not in gone)))
    return ends
