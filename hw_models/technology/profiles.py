"""Technology profiles: which energies, which vector model, what a word costs.

`default` is physical: a word moves its own bytes, SRAM leaks, the vector unit is charged for the memory it streams
through. `catransformers22` reproduces the constants of facebookresearch/CATransformers@ad8c859, artefacts included,
so that our results can be held against that tool: 2.2 pJ a MAC whatever the node, every 8-bit word charged a whole
32-bit access (256 pJ at the DRAM), three separate L2 buffers a core, no leakage, and its vector model. It is there
for comparison, not for decisions. `silicon` has arithmetic by format, flip-flops and clock network in place of Accelergy's unit, and
areas with what dies have beside units and SRAM: the profile of the library's edge chips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from hw_models.errors import unknown_name


@dataclass(frozen=True)
class Profile:
    """The technology choices of one profile (profiles.toml says where each comes from)."""

    name: str
    title: str
    source: str
    mac_pj: float | None
    """Energy of an array MAC [pJ] whatever node and width; None: the logic table, scaled."""
    word_costs: Literal["bytes", "access"]
    """`bytes`: a word costs its share of a 4-byte access; `access`: a word costs the whole access."""
    operand_buffers: bool
    """The innermost level holds its capacity once for each operand."""
    leakage: bool
    mapper: Literal["physical", "sunstone"]
    """Rules of the mapping search: ours, or those of the mapper that CATransformers uses."""
    vector_model: Literal["physical", "catransformers"]
    logic: Literal["accelergy", "arithmetic"]
    """Energy and area of units: logic.csv, or `hw_models.technology.arithmetic`, with the area that dies have beside units and SRAM."""


@cache
def profiles() -> dict[str, Profile]:
    """All profiles by name."""
    import tomllib

    text = (files("hw_models") / "data" / "profiles.toml").read_text(encoding="utf-8")
    return {
        name: Profile(
            name=name,
            title=str(row["title"]),
            source=str(row["source"]),
            mac_pj=None if row["mac_pj"] == "table" else float(row["mac_pj"]),
            word_costs=row["word_costs"],
            operand_buffers=bool(row["operand_buffers"]),
            leakage=bool(row["leakage"]),
            mapper=row["mapper"],
            vector_model=row["vector_model"],
            logic=row["logic"],
        )
        for name, row in tomllib.loads(text).items()
    }


def profile(name: str) -> Profile:
    """The profile called ``name``; an unknown name is an error naming the nearest."""
    known = profiles()
    if name not in known:
        raise unknown_name("hardware profile", name, known)
    return known[name]
