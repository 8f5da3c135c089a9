"""The arrows between packages, rooms and modules, read from the source: who may import whom.

All imports count: at the top of a module, deferred into functions, and for typing only.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "carbon": ROOT / "carbon",
    "workloads": ROOT / "workloads",
    "hw_models": ROOT / "hw_models",
    "dse_kernels": ROOT / "kernels" / "dse_kernels",
    "dse": ROOT / "dse",
}
ALLOWED = {
    "carbon": set(),
    "dse_kernels": set(),
    "workloads": {"dse_kernels"},
    "hw_models": {"dse_kernels", "workloads"},
    "dse": {"carbon", "dse_kernels", "hw_models", "workloads"},
}
# Own imports inside functions (outside faces, public functions and commands) and for typing only: no more than there are.
MOST_DEFERRED = 16
MOST_TYPING_ONLY = 64
# Imported where they are used, never at the top of a module: they cost seconds or are extras.
HEAVY = {
    "torch",
    "ax",
    "botorch",
    "gpytorch",
    "onnx",
    "transformers",
    "pymoo",
    "optuna",
    "plotly",
    "pandas",
    "sklearn",
    "distributed",
    "tornado",
    "gymnasium",
    "stable_baselines3",
    "sb3_contrib",
}
# Modules that are torch (or gymnasium, or Triton) through and through, and are themselves imported where they are used.
OF_TORCH = {
    "operate/federated/dqn.py",
    *(f"operate/{name}.py" for name in ("environment", "agents/learners", "agents/recurrent", "agents/vectorised")),
    "attention_torch.py",
    "attention_triton.py",
    *(f"music/{name}.py" for name in ("model", "training", "decoding", "files")),
    *(f"reasoning/training/{name}.py" for name in ("losses", "model", "resets", "consensus")),
}


def _modules(package: str) -> list[Path]:
    return sorted(SOURCES[package].rglob("*.py"))


def _top_names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module.split(".")[0]}
    return set()


def _is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@pytest.mark.parametrize("package", sorted(SOURCES))
def test_arrows(package: str) -> None:
    assert _modules(package), f"{package} has no modules: the test looks in the wrong place"
    for path in _modules(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            ours = _top_names(node) & set(SOURCES) - {package}
            assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


@pytest.mark.parametrize("package", sorted(SOURCES))
def test_heavy_packages_are_imported_where_they_are_used(package: str) -> None:
    for path in _modules(package):
        if path.relative_to(SOURCES[package]).as_posix() in OF_TORCH:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if not _is_type_checking(node)]
        for statement in top:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                heavy = _top_names(statement) & HEAVY
                assert not heavy, f"{path.relative_to(ROOT)} imports {heavy} at its top"
                named = {getattr(statement, "module", "") or "", *(alias.name for alias in statement.names)}
                of_torch = {name.removesuffix(".py").replace("/", ".") for name in OF_TORCH}
                assert not any(one.endswith(tuple(of_torch)) for one in named), f"{path.relative_to(ROOT)} imports torch through {named}"


def test_nothing_unsafe_reads_user_files() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for package in SOURCES:
        for path in _modules(package):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                # A user's own function goes to the workers of its own process as code; the module says so and reads no file.
                allowed = {"cloudpickle"} if path.relative_to(ROOT).as_posix() == "dse/quality/travelling.py" else set()
                assert not _top_names(node) & (banned - allowed), f"{path.relative_to(ROOT)} imports a pickle-like module"
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), f"{path.relative_to(ROOT)} calls {node.func.id}"
                if isinstance(node, ast.keyword) and node.arg == "shell":
                    assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{path} opens a shell"


def _name(package: str, path: Path) -> str:
    parts = path.relative_to(SOURCES[package].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _files() -> dict[str, Path]:
    return {_name(package, path): path for package in SOURCES for path in _modules(package)}


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_files()[name].read_text(encoding="utf-8"))


def _own_imports(name: str) -> Iterator[tuple[str, ast.AST]]:
    """Every module of ours that a module imports, wherever in it, and the import."""
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names if alias.name in _files())
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] in SOURCES:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in _files() else str(node.module)), node


def test_relative_imports_are_not_used() -> None:
    for name in _files():
        relative = [n for n in ast.walk(_tree(name)) if isinstance(n, ast.ImportFrom) and n.level]
        assert not relative, f"{name} imports relatively, which the walk of imports does not follow"


def test_no_module_is_in_a_circle() -> None:
    waiting = {name: {other for other, _ in _own_imports(name)} - {name} for name in _files()}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"modules that import each other in a circle, or wait for one: {sorted(waiting)}"


def _drawn() -> dict[str, list[list[str]]]:
    """{package: layers of rooms, the highest first} as docs/architecture.md draws them."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = {}
    for package in ("carbon", "hw_models", "dse"):
        block = re.search(rf"^    {package}:(.*(?:\n +(?:->|\w).*)*)", text, re.M)
        assert block, f"docs/architecture.md draws no arrows for {package}"
        found[package] = [re.findall(r"\w+", layer) for layer in block.group(1).split("->")]
    return found


@pytest.mark.parametrize("package", ["carbon", "hw_models", "dse"])
def test_arrows_between_rooms(package: str) -> None:
    floor = {room: i for i, layer in enumerate(_drawn()[package]) for room in layer}
    rooms = {name.split(".")[1] for name in _files() if name.startswith(f"{package}.")}
    assert set(floor) == rooms, f"drawn and built rooms differ: {sorted(set(floor) ^ rooms)}"
    for name in _files():
        if not name.startswith(f"{package}."):
            continue
        mine = name.split(".")[1]
        for other, _ in _own_imports(name):
            theirs = other.split(".")[1] if other.startswith(f"{package}.") else None
            if theirs is not None and theirs != mine:
                assert floor[mine] < floor[theirs], f"{name} imports {other}, against the arrows of docs/architecture.md"


def _is_entry(name: str) -> bool:
    """Where deferring is the rule: the faces of packages, the public functions, and what a command runs."""
    return name.count(".") == 0 or name in ("dse.api", "dse.cli", "dse.run") or name.startswith("dse.commands")


def _deferred() -> list[tuple[str, ast.stmt]]:
    """(module, import) of our own modules inside functions, outside the entries."""
    found = []
    for name in _files():
        tree = _tree(name)
        guarded = {id(n) for block in ast.walk(tree) if isinstance(block, ast.If) and _is_type_checking(block) for n in ast.walk(block)}
        top = {id(n) for n in tree.body}
        once = {id(node): node for _, node in _own_imports(name)}
        found += [(name, node) for node in once.values() if id(node) not in guarded and id(node) not in top and not _is_entry(name)]
    return found


def test_deferred_imports_are_few_and_counted() -> None:
    """Imports inside functions stay where they save start-up; their number may fall, not rise."""
    typing_only = 0
    for name in _files():
        blocks = [node for node in ast.walk(_tree(name)) if isinstance(node, ast.If) and _is_type_checking(node)]
        guarded = {id(n) for block in blocks for n in ast.walk(block)}
        if name.count(".") == 0:
            continue  # the face of a package offers its functions lazily, and by such imports their types
        typing_only += sum(id(node) in guarded for _, node in _own_imports(name))
    inside = len(_deferred())
    assert inside <= MOST_DEFERRED, f"{inside} imports of our own modules are deferred outside the entries: more than {MOST_DEFERRED}"
    assert typing_only <= MOST_TYPING_ONLY, f"{typing_only} imports are for typing only: more than {MOST_TYPING_ONLY}"


def test_a_deferred_import_says_what_it_saves() -> None:
    """A comment that begins with "Start-up:" stands above it, or above the imports that it follows."""
    for name, node in _deferred():
        lines = _files()[name].read_text(encoding="utf-8").splitlines()
        above = [line.strip() for line in lines[: node.lineno - 1]]
        while above and above[-1].startswith(("import ", "from ")):
            above.pop()
        while len(above) > 1 and above[-1].startswith("#") and above[-2].startswith("#"):
            above.pop()
        assert above and above[-1].startswith("# Start-up:"), f"{name}, line {node.lineno}: an import is deferred and does not say why"


def _answers() -> list[tuple[str, str]]:
    """(question, answer) of the table "Where a stranger looks" in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("Where a stranger looks:")[1].split("\n## ")[0]
    return [(row[0].strip(), row[1].strip()) for row in re.findall(r"^\| (.+?) \| (.+) \|$", table, re.M)][1:]


@pytest.mark.parametrize(("question", "answer"), _answers(), ids=lambda text: text[:40])
def test_a_question_is_answered_by_files_that_are_there(question: str, answer: str) -> None:
    """Each answer begins with a file or a folder of ours, and the name in brackets behind a file stands in it."""
    named = re.findall(r"`((?:\w+/)[\w/.]*)`(?: \(`(\w+)`\))?", answer)
    assert named and answer.startswith(f"`{named[0][0]}`"), f"{question}: {answer}"
    for place, name in named:
        path = ROOT / place
        assert path.exists(), f"{question}: there is no {place}"
        if name:
            sources = [path] if path.is_file() else sorted(path.glob("*.py"))
            assert any(re.search(rf"\b{name}\b", source.read_text(encoding="utf-8")) for source in sources), (
                f"{question}: {place} has no {name}"
            )


def test_the_fifteen_questions_of_a_stranger_stand_in_the_table() -> None:
    questions = " ".join(question for question, _ in _answers())
    for word in ("yield", "grid", "tensor", "claimed", "hypervolume", "idle power", "HBM", "softmax", "SRAM leakage", "clock", "KV cache",
                 "max(compute, memory)", "dataflow", "strategy", "export target"):  # fmt: skip
        assert word in questions, f"docs/architecture.md answers no question about {word}"
