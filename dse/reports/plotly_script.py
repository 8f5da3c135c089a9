"""Plotly's script as a report carries it: deflated and in base64, 2.0 MB for 4.8, which the page unpacks once its tables stand."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path

from dse.errors import DseError

# 6 and 9 save 1 % and cost a third to twice the time.
_LEVEL = 5


@dataclass(frozen=True)
class PackedScript:
    """The script: base64 of its zlib stream, and the SHA-256 of its text in base64, which a page's policy names."""

    base64: str
    sha256: str


@cache
def packed_plotly() -> PackedScript:
    """Plotly's script of the installed package."""
    spec = util.find_spec("plotly")  # found without importing it, which takes longer than all of the rest
    if spec is None or spec.origin is None:
        raise DseError("plotly is not installed, and a report draws with it; pip install plotly")
    text = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()
    digest = hashlib.sha256(text).digest()
    return PackedScript(base64.b64encode(_deflated(text, digest.hex())).decode(), base64.b64encode(digest).decode())


def _deflated(text: bytes, name: str) -> bytes:
    """The zlib stream of ``text``, kept from one report to the next where the cache can be written.

    A kept stream is used only if it ends with the check sum of this text; whatever else it holds, a page runs no script but the one whose
    SHA-256 it names.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = base / "dse" / f"plotly-{name[:32]}.zlib"
    try:
        stream = kept.read_bytes()
        if stream[-4:] == zlib.adler32(text).to_bytes(4, "big"):
            return stream
    except OSError:
        pass
    stream = zlib.compress(text, _LEVEL)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as part:
            part.write(stream)
        os.replace(part.name, kept)
    except OSError:
        pass  # a home that cannot be written costs a tenth of a second a report
    return stream
