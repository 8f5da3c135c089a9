"""Which key-value head each query head reads: multi-head, grouped, multi-query and attribute groups are one map.

A head map is the list ``kv_of_head`` with one index of a KV head for every query head. Groups name runs of query heads that own
KV heads together (``pitch:4/1`` is four query heads of the group ``pitch`` that share one KV head). Equal groups are grouped-query
attention (Ainslie et al., arXiv:2305.13245), one group with one KV head is multi-query attention (Shazeer, arXiv:1911.02150), a
KV head for every query head is multi-head attention. Keys and values of a token take
``2 x layers x kv_heads x head_dim x bits / 8`` bytes, whatever the map. A group may store a share of the tokens only (``pitch:4/1@0.3``:
those that tell its attribute); its heads then score that share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from workloads.errors import WorkloadError, shorten

MAX_HEADS = 4096
_GROUP = re.compile(r"([A-Za-z][A-Za-z0-9_+-]*):(\d{1,5})/(\d{1,5})(?:@([01](?:\.\d{1,9})?))?\Z", re.ASCII)


@dataclass(frozen=True)
class HeadGroup:
    """``heads`` query heads that own ``kv_heads`` KV heads; query heads are dealt to them in runs as equal as can be.

    ``share``: share of the tokens that the group stores and sees.
    """

    name: str
    heads: int
    kv_heads: int
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.heads <= MAX_HEADS:
            raise WorkloadError(
                f"heads of group {self.name} is {self.heads}, must be 1 to {MAX_HEADS}; nearest is {max(1, min(self.heads, MAX_HEADS))}"
            )
        if not 1 <= self.kv_heads <= self.heads:
            near = max(1, min(self.kv_heads, self.heads))
            raise WorkloadError(
                f"kv_heads of group {self.name} is {self.kv_heads}, must be 1 to its heads = {self.heads}; nearest is {near}"
            )

        if not 0 < self.share <= 1:
            raise WorkloadError(f"share of group {self.name} is {self.share:g}, must be above 0 and at most 1; nearest is 1")

    def owners(self) -> list[int]:
        """KV head, counted from the group's first, of each of its query heads."""
        return [i * self.kv_heads // self.heads for i in range(self.heads)]


@dataclass(frozen=True)
class HeadMap:
    """Groups in the order of their heads.

    Attributes:
        groups: the groups; query heads and KV heads are numbered through them.
    """

    groups: tuple[HeadGroup, ...]

    def __post_init__(self) -> None:
        if not self.groups:
            raise WorkloadError("head map has no group, must have at least one")
        if self.heads > MAX_HEADS:
            raise WorkloadError(f"head map has {self.heads} query heads, must be at most {MAX_HEADS}; nearest is {MAX_HEADS}")
        twice = [name for name, count in Counter(group.name for group in self.groups).items() if count > 1]
        if twice:
            raise WorkloadError(f"group {twice[0]} of the head map is named twice, must be named once")

    @property
    def heads(self) -> int:
        """Query heads."""
        return sum(group.heads for group in self.groups)

    @property
    def kv_heads(self) -> int:
        """KV heads."""
        return sum(group.kv_heads for group in self.groups)

    @property
    def stored_heads(self) -> float:
        """KV heads in which a token is stored, on average."""
        return sum(group.kv_heads * group.share for group in self.groups)

    @property
    def kv_of_head(self) -> tuple[int, ...]:
        """KV head of every query head."""
        result: list[int] = []
        first = 0
        for group in self.groups:
            result += [first + owner for owner in group.owners()]
            first += group.kv_heads
        return tuple(result)

    @property
    def group_of_head(self) -> tuple[int, ...]:
        """Index of the group of every query head."""
        return tuple(index for index, group in enumerate(self.groups) for _ in range(group.heads))

    def sharing(self) -> tuple[tuple[int, int, float], ...]:
        """(query heads that read one KV head, how many KV heads are read by that many, share of tokens), most shared first."""
        readers = Counter(self.kv_of_head)
        shares = [group.share for group in self.groups for _ in range(group.kv_heads)]
        kinds = Counter((readers[kv], shares[kv]) for kv in range(self.kv_heads))
        return tuple((heads, count, share) for (heads, share), count in sorted(kinds.items(), reverse=True))

    def kv_bytes_per_token(self, layers: int, head_dim: int, kv_bits: int) -> float:
        """Bytes of keys and values of one token in all layers, on average over tokens where groups store a share of them."""
        return 2 * layers * self.stored_heads * head_dim * kv_bits / 8

    def __str__(self) -> str:
        return ",".join(f"{g.name}:{g.heads}/{g.kv_heads}" + ("" if g.share == 1 else f"@{g.share:g}") for g in self.groups)


def parse_head_map(text: str) -> HeadMap:
    """The map that a text ``name:heads/kv_heads,...`` describes; WorkloadError names the part that does not."""
    groups = []
    for part in text.split(","):
        found = _GROUP.match(part.strip())
        if not found:
            raise WorkloadError(f"part {shorten(part)!r} of the head map must be NAME:HEADS/KV_HEADS, as in pitch:4/1, or with @SHARE")
        groups.append(HeadGroup(found[1], int(found[2]), int(found[3]), float(found[4] or 1)))
    return HeadMap(tuple(groups))


def equal_map(heads: int, kv_heads: int, name: str = "all") -> HeadMap:
    """The map of multi-head (``kv_heads == heads``), grouped-query and multi-query (1) attention."""
    return HeadMap((HeadGroup(name, heads, kv_heads),))


def map_from_owners(kv_of_head: Sequence[int]) -> HeadMap:
    """The map with a group for every KV head (``kv0``, ``kv1``, ...), from the list itself.

    The list must number KV heads from 0 without a gap, each read by a run of query heads; WorkloadError if not.
    """
    owners = [int(owner) for owner in kv_of_head]
    if not owners:
        raise WorkloadError("kv_of_head is empty, must name a KV head for at least one query head")
    runs = [owners[0]]
    for owner in owners[1:]:
        if owner != runs[-1]:
            runs.append(owner)
    if runs != list(range(len(runs))):
        raise WorkloadError(f"kv_of_head is {shorten(owners)}, must number KV heads from 0 without a gap, query heads of one side by side")
    readers = Counter(owners)
    return HeadMap(tuple(HeadGroup(f"kv{owner}", readers[owner], 1) for owner in runs))
