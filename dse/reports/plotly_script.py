"""Plotly's script as a report carries it: deflated and in base64, 0.5 MB for 1.2, which the page unpacks once its tables stand.

It is the *basic* bundle (scatter and bars, which is all that a report draws): the whole library takes a browser half a second more to read.
The file is kept deflated in the package, as the page carries it. `FROM` names the published file that it was made of, byte for byte.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

FROM: Final = "plotly.js-basic-dist-min 4.1.1 (npm), plotly-basic.min.js"
SHA256: Final = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"  # of the text
LEVEL: Final = 9  # of the deflation: zlib.compress(text, LEVEL) is the file


@dataclass(frozen=True)
class PackedScript:
    """The script: base64 of its zlib stream, and the SHA-256 of its text in base64, which a page's policy names."""

    base64: str
    sha256: str


@cache
def packed_plotly() -> PackedScript:
    """Plotly's basic bundle."""
    stream = resources.files("dse.reports").joinpath("assets", "plotly-basic.min.js.zlib").read_bytes()
    digest = hashlib.sha256(zlib.decompress(stream)).digest()
    return PackedScript(base64.b64encode(stream).decode(), base64.b64encode(digest).decode())
