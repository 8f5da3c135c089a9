"""The arrows between the packages, read from the source: who may import whom."""

import ast
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
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if not _is_type_checking(node)]
        for statement in top:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                heavy = _top_names(statement) & HEAVY
                assert not heavy, f"{path.relative_to(ROOT)} imports {heavy} at its top"


def test_nothing_unsafe_reads_user_files() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for package in SOURCES:
        for path in _modules(package):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                assert not _top_names(node) & banned, f"{path.relative_to(ROOT)} imports a pickle-like module"
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), f"{path.relative_to(ROOT)} calls {node.func.id}"
                if isinstance(node, ast.keyword) and node.arg == "shell":
                    assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{path} opens a shell"
