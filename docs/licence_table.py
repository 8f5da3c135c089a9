"""Write docs/licences.md: what the package depends on, and under which licences (`make licences`).

The licences are what each package's own metadata say, read by pip-licenses from the environment that runs this script.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Licences of what we depend on

`dse-toolkit` is MIT. What its base installation pulls in, and what its extras name, with the licence that each package states of itself.
Versions are those of `constraints.txt`. This page is written by `make licences`; `make sbom` writes a software bill of materials of the
whole environment (CycloneDX, `dist/sbom.cdx.json`). Licences of data stand in their files, row by row.
Reports carry Plotly's basic bundle (plotly.js, MIT; `dse/reports/assets/plotly-LICENSE.txt`).

"""


def name_of(requirement: str) -> str:
    """The normal form of the package's name in a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def needed(names: list[str]) -> set[str]:
    """The packages and all that they need without extras, as installed here."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        # A marker that asks for an extra, another system or an older Python does not hold here.
        todo += [name_of(r) for r in requirements if "extra ==" not in r and "platform" not in r and "python_version <" not in r]
    return found


def main() -> None:
    """Print the page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = needed([name_of(r) for r in project["dependencies"]])
    extras: dict[str, list[str]] = {}
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            extras.setdefault(name_of(requirement), []).append(extra)
    listed = subprocess.run(
        [sys.executable, "-m", "piplicenses", "--format=json", "--with-urls", "--from=mixed"], check=True, capture_output=True, text=True
    ).stdout
    rows = []
    for package in json.loads(listed):
        name = name_of(package["Name"])
        if name in base or name in extras:
            needs = "base" if name in base else ", ".join(sorted(extras[name]))
            licence = package["License"] if len(package["License"]) < 80 else package["License"].split("\n")[0][:80]
            rows.append((name, needs, licence.replace("|", "\\|"), package["URL"]))
    print(HEAD + "| package | needed by | licence | home |\n|---|---|---|---|")
    for name, needs, licence, url in sorted(rows, key=lambda row: (row[1] != "base", row[0])):
        print(f"| {name} | {needs} | {licence} | {'' if url == 'UNKNOWN' else f'<{url}>'} |")


if __name__ == "__main__":
    main()
