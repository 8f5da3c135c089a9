"""Every example of the documentation runs, every link leads somewhere, and the page of commands is what the parsers say.

How a page is read: ```` ```console ```` blocks hold commands after ``$ `` (other lines are output, for the eye), ```` ```python ````
blocks run as they are, and a block with a ``title`` is a file that the blocks after it may use. The blocks of a page run in
order, in one folder. ``<!-- not run: REASON -->`` above a block leaves it out. Indented blocks are for reading.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_FENCE = re.compile(r"(?P<before>[^\n]*)\n+```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<body>.*?)\n```", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_BUDGET, MOST_TRIALS = re.compile(r"--budget (\d+)"), 100
# The largest space of all takes half a minute.
SLOW = "catransformers"


@dataclass(frozen=True)
class Block:
    """One fenced block that is run or written."""

    language: str
    body: str
    title: str | None

    @property
    def commands(self) -> list[str]:
        """Commands of a console block; a trailing backslash continues one."""
        joined = self.body.replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def _blocks(page: Path) -> list[Block]:
    found = []
    for match in _FENCE.finditer("\n" + page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', match["info"])
        wanted = title is not None or match["language"] in ("console", "python")
        if wanted and not match["before"].startswith("<!-- not run:"):
            found.append(Block(match["language"], match["body"], title.group(1) if title else None))
    return found


@pytest.fixture(scope="module")
def warm() -> Iterator[Any]:
    """A process that has imported the package, whose forks run commands (warm.py); by path, as tests are no package."""
    spec = importlib.util.spec_from_file_location("dse_test_warm", Path(__file__).with_name("warm.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Warm()
    yield made
    made.close()


def _run(command: str, folder: Path, warm: Any) -> None:
    """Run a command: the package's own alone in a fork of a warm process, any other in a shell that finds this environment's `dse`.

    Searches evaluate no more designs than MOST_TRIALS here; `test_the_longest_searches_run_in_full` runs those that ask for more.
    """
    command = _BUDGET.sub(lambda found: f"--budget {min(int(found[1]), MOST_TRIALS)}", command)
    words = shlex.split(command, comments=True)
    if words[0] == "dse" and not {"|", ">", "&&", ";", "<"} & set(words):
        _run_warm(words[1:], folder, warm)
        return
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONWARNINGS": "error",
        "TMPDIR": str(folder),
    }
    shell = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def _run_warm(what: list[str] | str, folder: Path, warm: Any) -> None:
    code, output = warm.run(what, folder)
    assert code == 0, f"{what}\n{output[-4000:]}"


def _run_block(block: Block, folder: Path, warm: Any) -> None:
    if block.title:
        (folder / block.title).write_text(block.body + "\n", encoding="utf-8")
    elif block.language == "python":
        _run_warm(block.body, folder, warm)
    else:
        assert block.commands, f"a console block without a command:\n{block.body}"
        for command in block.commands:
            _run(command, folder, warm)


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page)], ids=lambda page: str(page.relative_to(DOCS)))
def test_examples_of_a_page_run(page: Path, tmp_path: Path, warm: Any) -> None:
    for block in _blocks(page):
        _run_block(block, tmp_path, warm)


def _long(command: str) -> bool:
    found = _BUDGET.search(command)
    return found is not None and int(found[1]) > MOST_TRIALS


@pytest.mark.slow
def test_the_longest_searches_run_in_full(tmp_path: Path, warm: Any) -> None:
    commands = [command for page in PAGES for block in _blocks(page) if block.language == "console" for command in block.commands]
    chosen = [command for command in (*commands, *_readme_commands()) if _long(command)]
    assert chosen
    for command in chosen:
        _run_warm(shlex.split(command, comments=True)[1:], tmp_path, warm)


def _readme_commands() -> list[str]:
    """Indented lines of the README that call the package's command, without their comments."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return [re.sub(r"\s{2,}#.*", "", line.strip()) for line in lines if line.startswith("    dse ")]


def _readme_python() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return "\n".join(line[4:] for line in re.findall(r"^    import dse\n(?:    .*\n)*", text, re.MULTILINE)[0].splitlines())


def _own_files(folder: Path) -> None:
    """The files of a reader that the README's commands name: a model, an accelerator, products, a device, a quality function."""
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 64], [0.0] * 4096)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "own",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 64])],
        [weight],
    )
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    (folder / "mine.toml").write_text('template = "edge22"\n[knobs]\ncores = [2]\ndepth = [16, 32]\n')
    (folder / "products.csv").write_text("batch,m,n,k\n1,512,768,768\n")
    (folder / "device.toml").write_text("[device]\narea_mm2 = 100.0\nnode_nm = 7\n")
    (folder / "train.py").write_text("def score(parameters, fidelity, seed):\n    return {'quality': (60.0 + parameters['layers'], 0.5)}\n")


def test_readme_examples_run(tmp_path: Path, warm: Any) -> None:
    """In the README's order, so that the run that is resumed is there."""
    pytest.importorskip("onnx")
    _own_files(tmp_path)
    commands = [command for command in _readme_commands() if SLOW not in command]
    assert len(commands) >= 5
    for command in commands:
        _run(command, tmp_path, warm)
    _run_warm(_readme_python(), tmp_path, warm)


@pytest.mark.slow
def test_slow_readme_examples_run(tmp_path: Path, warm: Any) -> None:
    commands = [command for command in _readme_commands() if SLOW in command]
    assert commands
    for command in commands:
        _run(command, tmp_path, warm)


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as mkdocs makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "notebooks" / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.name} links {match['target']}"
        if anchor and place.suffix == ".md":
            assert anchor in _anchors(place), f"{page.name} links {match['target']}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", navigation.partition("\nnav:")[2]))
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert listed == {str(page.relative_to(DOCS)) for page in PAGES} | notebooks


def test_page_of_commands_is_what_the_parsers_say() -> None:
    made = subprocess.run([sys.executable, DOCS / "cli_reference.py"], capture_output=True, text=True, check=True).stdout
    committed = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert committed == made, "an option has changed: python docs/cli_reference.py > docs/cli.md"


def test_every_command_is_documented() -> None:
    """The generator itself: a command or option that it leaves out shows here, because argparse's own help names it."""
    from dse.commands.parser import COMMANDS, build_parser

    committed = (DOCS / "cli.md").read_text(encoding="utf-8").replace("\\|", "|")
    for name in COMMANDS:
        command = {"list_known": "list"}.get(name, name.replace("_", "-"))
        assert f"## dse {command}\n" in committed
    search = next(a for a in build_parser()._actions if a.dest == "command").choices["search"]
    for option in re.findall(r"^\s+(--[a-z-]+)", search.format_help(), re.MULTILINE):
        assert f"`{option}" in committed


def test_figures_in_the_prose_are_what_the_code_says() -> None:
    from dse.api import make_problem
    from dse.evaluation.evaluation import build_space, load_family, load_hardware
    from dse.quality.surrogate import bert_mnli

    problem = make_problem("bert", "carbon")
    space = build_space(problem, load_family(problem), load_hardware(problem))
    first = " ".join((DOCS / "first-search.md").read_text(encoding="utf-8").split())
    assert f"the {space.model_count} BERT models" in first and f"the {space.hardware_count:,} accelerators" in first
    concepts = " ".join((DOCS / "concepts.md").read_text(encoding="utf-8").split())
    assert f"standard error of {bert_mnli().standard_error:.1f} points" in concepts
    assert len(bert_mnli().points) == 6 and "six published models" in concepts


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    for needed in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(needed)
    # mkdocs and its plugins are not ours: their own deprecations must not fail it, its warnings about our pages do (--strict).
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "cli" / "index.html").is_file()
    assert "Parameters" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    # The pages ask no other server for anything: links are allowed, loaded resources are not.
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?://[^"]+)"', page.read_text(encoding="utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"
