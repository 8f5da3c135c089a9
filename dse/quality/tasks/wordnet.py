"""WordNet's noun glosses from the files that Debian's package wordnet-base installs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dse.errors import DseError
from workloads.xmc.wordnet_files import WORDNET_REMEDY, find_wordnet


@dataclass(frozen=True)
class Noun:
    """One sense: its first lemma, with spaces, and its gloss without the examples."""

    lemma: str
    gloss: str


def find_folder() -> Path:
    """The folder that holds WordNet's data files; a missing one is an error that says how to get it."""
    found = find_wordnet()
    if found is None or not (found / "data.noun").is_file():
        raise DseError(f"WordNet's nouns are not here: no data.noun {'in ' + str(found) if found else 'was found'}; {WORDNET_REMEDY}")
    return found


@lru_cache(maxsize=2)
def nouns(folder: Path) -> tuple[Noun, ...]:
    """All noun senses in file order.

    A line of data.noun: offset, file number, type, count of lemmas (hexadecimal), first lemma, ... ``|`` gloss; examples follow the
    first ``; "``. The licence stands in lines that begin with two spaces.
    """
    found = []
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        head, bar, gloss = line.partition(" | ")
        if line.startswith("  ") or not bar:
            continue
        lemma = head.split(" ", 5)[4].replace("_", " ")
        found.append(Noun(lemma, gloss.partition('; "')[0].strip()))
    if not found:
        raise DseError(f"{folder / 'data.noun'} holds no noun; it is not a data file of WordNet")
    return tuple(found)
