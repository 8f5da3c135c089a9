"""The frame of a page without script or outside file."""

from __future__ import annotations

from dse.reports.html import asset
from dse.reports.markup import Markup, raw_element, tag
from dse.version import __version__


def plain_page(title: str, command: str, body: Markup) -> str:
    """The page of what ``dse COMMAND`` found."""
    top = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · dse {command}"),
        raw_element("style", asset("report.css")),
    )
    page = "<!doctype html>\n" + tag("html", top, tag("body", body, tag("footer", tag("p", f"dse {__version__}"))), lang="en") + "\n"
    # A name with bytes that are no UTF-8 reaches here as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")
