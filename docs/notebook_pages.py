"""A hook of mkdocs: the notebooks as pages, their text and code as they are committed (without outputs).

Links between the pages and the notebooks work in the repository as well as on the site: ``../notebooks/X.ipynb`` in a page
becomes the notebook's page, and ``../docs/X.md`` in a notebook the page.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "notebooks"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add one page a notebook."""
    from mkdocs.structure.files import File

    for path in sorted(FOLDER.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links of a page to notebooks, as links to their pages."""
    return re.sub(r"\]\(\.\./notebooks/([\w.-]+)\.ipynb\)", r"](notebooks/\1.md)", markdown)


def notebook_page(path: Path) -> str:
    """A notebook as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(_relinked(source) if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    first, *others = parts
    run = f"*This page is the notebook `notebooks/{path.name}`; run it to see the figures.*"
    return "\n\n".join([first, run, *others]) + "\n"


def _relinked(text: str) -> str:
    text = re.sub(r"\]\(([\w.-]+)\.ipynb\)", r"](\1.md)", text)
    return re.sub(r"\]\(\.\./docs/([\w./-]+)\)", r"](../\1)", text)
