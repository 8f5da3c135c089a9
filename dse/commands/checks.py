"""What is installed, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

DISTRIBUTION = "dse-toolkit"
# What each extra is for; extras that are not listed here are shown all the same.
EXTRAS = {
    "search": "searches with a measured quality (Ax, BoTorch, NSGA-II), AMOO",
    "onnx": "workloads from ONNX files",
    "hf": "workloads from torch modules and transformers, export to ONNX",
    "export": "accelerator files of other tools (YAML), export to ONNX",
    "measured": "a real model pruned, healed and measured (--quality measured:...)",
    "trained": "small models trained from scratch (benchmarks/trained_tasks.py)",
    "series": "the data of the trained encoder of series (task series of the same script)",
    "operate": "policies that learn (dse operate)",
    "dask": "evaluation on a Dask cluster",
    "xmc": "training and serving of extreme multi-label trees",
    "postgres": "studies in PostgreSQL",
    "docs": "the documentation pages",
    "notebooks": "the notebooks",
    "test": "the test suite",
    "lint": "the checks of the code",
}
# Programs that some things use: (names, what for, how to get it).
PROGRAMS = (
    (("c++", "g++", "clang++"), "building the kernels from source, faster BoTorch", "install a C++ compiler (Debian: apt install g++)"),
    (("cmake",), "building the kernels from source", "pip install cmake"),
    (("ninja",), "building the kernels, BoTorch's compiled acquisition", "pip install ninja"),
    (("chromium", "chromium-browser", "google-chrome", "chrome"), "tests of the report in a browser",
     "install Chromium (Debian: apt install chromium)"),
    (("dot",), "exported designs in accelforge", "install graphviz (Debian: apt install graphviz)"),
    (("python3.12",), "exported designs in accelforge and Stream", "install Python 3.12"),
)  # fmt: skip
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;\s*(.*))?$")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Finding:
    """One line: ``status`` is ok, missing or old; ``needed`` findings that are not ok make the toolkit unusable."""

    group: str
    name: str
    status: str
    detail: str
    remedy: str = ""
    needed: bool = False


def examine() -> list[Finding]:
    """Everything that is looked at, in the order in which it is told."""
    return [*_basics(), *_packages(), *_programs(), _wordnet()]


def _basics() -> list[Finding]:
    python = sys.version_info >= (3, 11)
    found = [
        Finding(
            "base",
            "python",
            "ok" if python else "old",
            platform.python_version(),
            "" if python else "install Python 3.11 or later",
            True,
        )
    ]
    try:
        import dse_kernels.pareto

        place = os.path.dirname(str(dse_kernels.pareto.__file__))
        found.append(Finding("base", "compiled kernels", "ok", place, "", True))
    except ImportError as failure:
        found.append(Finding("base", "compiled kernels", "missing", str(failure), f"pip install --force-reinstall {DISTRIBUTION}", True))
    cores = os.cpu_count() or 1
    found.append(Finding("base", "processor cores", "ok", f"{cores}; a search uses up to 8"))
    return found


def _packages() -> list[Finding]:
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [Finding("base", DISTRIBUTION, "missing", "not installed as a package", f"pip install {DISTRIBUTION}", True)]
    found = []
    for text in requirements:
        match = _REQUIREMENT.match(text)
        if match is None:
            continue
        name, wanted, marker = match[1], match[2].strip("() "), match[3] or ""
        extra = _EXTRA.search(marker)
        group = extra[1] if extra else "base"
        # A core package may be missing or too old in an environment that was changed by hand.
        remedy = f"pip install '{DISTRIBUTION}[{group}]'" if extra else f"pip install '{name}{wanted}'"
        found.append(_package(group, name, wanted, remedy, needed=extra is None))
    order = ["base", *EXTRAS]
    return sorted(found, key=lambda f: order.index(f.group) if f.group in order else len(order))


def _package(group: str, name: str, wanted: str, remedy: str, *, needed: bool) -> Finding:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(group, name, "missing", f"needs {wanted or 'any version'}", remedy, needed)
    if not satisfies(version, wanted):
        return Finding(group, name, "old", f"{version}, needs {wanted}", remedy, needed)
    return Finding(group, name, "ok", version, "", needed)


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version meets bounds such as ``>=2.4,<3``; other kinds of bounds are taken as met."""
    own = _numbers(version)
    for bound in wanted.split(","):
        match = re.match(r"^\s*(>=|<=|==|<|>)\s*([0-9][0-9.]*)\s*$", bound)
        if match is None:
            continue
        other = _numbers(match[2])
        length = max(len(own), len(other))
        a, b = (tuple(part + [0] * (length - len(part))) for part in (own, other))
        kept = {">=": a >= b, "<=": a <= b, "==": a == b, "<": a < b, ">": a > b}[match[1]]
        if not kept:
            return False
    return True


def _numbers(version: str) -> list[int]:
    match = re.match(r"^[0-9]+(?:\.[0-9]+)*", version)
    return [int(part) for part in match[0].split(".")] if match else [0]


def _wordnet() -> Finding:
    from workloads.xmc.wordnet_files import WORDNET_REMEDY, find_wordnet

    place = find_wordnet()
    if place is None:
        return Finding(
            "data", "wordnet", "missing", "for --quality measured:minilm and dse xmc train --data wordnet-hypernyms", WORDNET_REMEDY
        )
    return Finding("data", "wordnet", "ok", str(place))


def _programs() -> list[Finding]:
    found = []
    for names, purpose, remedy in PROGRAMS:
        place = next((where for name in names if (where := shutil.which(name)) is not None and _starts(where)), None)
        found.append(
            Finding("programs", names[0], "ok", place) if place else Finding("programs", names[0], "missing", f"for {purpose}", remedy)
        )
    return found


def _starts(program: str) -> bool:
    """Whether a program starts: managers of several versions leave names on the path that lead nowhere."""
    if "python" not in os.path.basename(program):
        return True
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False


def text(findings: list[Finding]) -> str:
    """The findings as text, a group a paragraph."""
    from dse.version import __version__

    lines = [f"dse {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    for group in dict.fromkeys(f.group for f in findings):
        rows = [f for f in findings if f.group == group]
        purpose = EXTRAS.get(group, "")
        lines += ["", group + (f": {purpose}" if purpose else "")]
        wide = max(len(f.name) for f in rows)
        lines += [f"  {'ok' if f.status == 'ok' else f.status.upper():<8}{f.name:<{wide}}  {f.detail}" for f in rows]
        remedies = list(dict.fromkeys(f.remedy for f in rows if f.status != "ok" and f.remedy))
        lines += [f"  -> {remedy}" for remedy in remedies]
    broken = [f.name for f in findings if f.needed and f.status != "ok"]
    lines += [
        "",
        f"Searches and evaluations cannot run: {', '.join(broken)}." if broken else "Searches and evaluations can run.",
    ]
    return "\n".join(lines)
