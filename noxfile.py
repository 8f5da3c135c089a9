"""The matrix: the base install and the tests that need no more, on every supported Python and on the oldest allowed versions.

`make matrix` runs it. A Python that is not installed is skipped and said; the whole suite with all extras is `make test` on one Python.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["newest", "oldest"]
nox.options.error_on_missing_interpreters = False
PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# Rooms whose tests import the base dependencies alone.
TESTS = (
    *(f"tests/kernels/test_{name}.py" for name in ("pareto", "sums", "mapping", "design")),
    *(f"tests/hw_models/{room}" for room in ("technology", "accelerator", "spaces", "costs", "systolic")),
    *("tests/carbon", "tests/dse/problem", "tests/dse/storage/test_study.py", "tests/dse/test_road.py", "tests/test_architecture.py"),
)


def _check(session: nox.Session, *pins: str) -> None:
    session.install("--no-cache-dir", ".", *pins, "pytest", "pytest-xdist", "hypothesis")
    session.run("dse", "search", "--workload", "bert", "--objective", "carbon", "--out", f"{session.create_tmp()}/run-{session.name}",
                silent=True)  # fmt: skip
    # Import the installed package, not the checkout: the compiled module is in the former.
    session.run("python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *(session.posargs or TESTS))


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest versions that a Python gets."""
    _check(session)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The oldest versions that pyproject.toml allows, all at once."""
    pins = []
    for requirement in PROJECT["dependencies"]:
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        assert match, f"dependency {requirement!r} names no oldest version"
        pins.append(f"{match[1]}=={match[2]}" + ("" if match[2].count(".") > 1 else ".*"))
    _check(session, *pins)
