"""Head maps of the music decoder by name: which attributes share keys and values, and which heads see which tokens.

Two ways to use attributes (Attribute-Specialized Key-Value Head Sharing is described in arXiv:2510.00395; its grouping rule and sizes
were not readable there, so these are ours):

* ``shared``: heads are grouped by attribute and each group owns its KV heads, but every head sees every token. In bytes and work it
  is grouped-query attention with unequal groups.
* ``attribute``: a head of group a sees only the tokens that tell attribute a, and the token that it stands at. A token's keys and values
  are stored in the groups of its own attribute alone, so that bytes and scores both shrink.
* ``mixed``: as ``attribute``, with one group ``all`` whose heads see every token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workloads.errors import WorkloadError, unknown_name
from workloads.head_map import HeadMap, equal_map, parse_head_map
from workloads.music.tokens import ATTRIBUTES

EVERYTHING = "all"


@dataclass(frozen=True)
class Grouping:
    """A head map and whether its heads see only tokens of their attribute (``masked``)."""

    name: str
    map: HeadMap
    masked: bool = False

    def __post_init__(self) -> None:
        if self.masked:
            for group in self.map.groups:
                if group.name not in (*ATTRIBUTES, EVERYTHING):
                    raise unknown_name(f"group of the masked grouping {self.name}", group.name, (*ATTRIBUTES, EVERYTHING))

    def kv_heads_per_token(self, shares: Mapping[str, float]) -> float:
        """KV heads in which a token is stored, on average: all of them, or, masked, those that see its attribute.

        ``shares``: share of tokens of each attribute (sum 1).
        """
        if not self.masked:
            return float(self.map.kv_heads)
        return sum(group.kv_heads * (1.0 if group.name == EVERYTHING else shares.get(group.name, 0.0)) for group in self.map.groups)

    def scored_heads_per_token(self, shares: Mapping[str, float]) -> float:
        """Query heads that score a cached token, on average."""
        if not self.masked:
            return float(self.map.heads)
        return sum(group.heads * (1.0 if group.name == EVERYTHING else shares.get(group.name, 0.0)) for group in self.map.groups)


# Eight query heads. The counts of heads by attribute follow the share of a note's uncertainty that the attribute carries (pitch most).
_MULTI_TRACK = "time:2/1,instrument:1/1,pitch:4/1,duration:1/1"
_SINGLE_TRACK = "time:2/1,pitch:4/1,duration:2/1"
_MIXED_MULTI = "all:2/1,time:1/1,instrument:1/1,pitch:3/1,duration:1/1"
_MIXED_SINGLE = "all:2/1,time:1/1,pitch:3/1,duration:2/1"


def groupings(attributes: Sequence[str], heads: int = 8) -> dict[str, Grouping]:
    """The named groupings of a decoder of ``heads`` query heads whose tokens tell ``attributes`` (the shipped ones have 8 heads)."""
    plain = {
        "mha": Grouping("mha", equal_map(heads, heads)),
        "gqa4": Grouping("gqa4", equal_map(heads, max(1, heads // 2))),
        "gqa2": Grouping("gqa2", equal_map(heads, max(1, heads // 4))),
        "mqa": Grouping("mqa", equal_map(heads, 1)),
    }
    if heads != 8:
        return plain
    several = "instrument" in attributes
    shared, mixed = (_MULTI_TRACK, _MIXED_MULTI) if several else (_SINGLE_TRACK, _MIXED_SINGLE)
    return {
        **plain,
        "shared": Grouping("shared", parse_head_map(shared)),
        "attribute": Grouping("attribute", parse_head_map(shared), masked=True),
        "mixed": Grouping("mixed", parse_head_map(mixed), masked=True),
    }


def grouping(name: str, attributes: Sequence[str], heads: int = 8) -> Grouping:
    """A grouping by name, or the shared map that a text ``pitch:4/1,time:4/2`` describes (``masked:`` before it: the masked one)."""
    known = groupings(attributes, heads)
    if name in known:
        return known[name]
    if ":" not in name:
        raise unknown_name("grouping", name, known)
    masked = name.startswith("masked:")
    made = Grouping(name, parse_head_map(name.removeprefix("masked:")), masked)
    if made.map.heads != heads:
        raise WorkloadError(f"grouping {name} has {made.map.heads} query heads, must have the model's {heads}")
    return made
