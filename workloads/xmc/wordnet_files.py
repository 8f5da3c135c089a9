"""Where WordNet's files are: known without the libraries that reading them as documents takes."""

from __future__ import annotations

import os
from pathlib import Path

WORDNET_PLACES = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/opt/homebrew/share/wordnet/dict")
WORDNET_REMEDY = "install WordNet's files (Debian: apt install wordnet-base) or name their folder in DSE_WORDNET"
WORDNET_PARTS = (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r"))


def find_wordnet() -> Path | None:
    """The folder with WordNet's data files, or None."""
    for place in filter(None, (os.environ.get("DSE_WORDNET"), *WORDNET_PLACES)):
        if all((Path(place) / f"data.{name}").is_file() for name, _ in WORDNET_PARTS):
            return Path(place)
    return None
