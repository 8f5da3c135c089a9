"""The built wheel: what it installs, and that nothing of it shadows another project's package."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from dse.exporters import onnx

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {"dse", "hw_models", "carbon", "workloads", "dse_kernels"}


def test_wheel_installs_only_our_names(tmp_path: Path) -> None:
    # Built in an environment of its own from the declared build requirements, as an installer would.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "--wheel-dir", str(tmp_path), str(ROOT)]
    command += ["-C", f"build-dir={tmp_path / 'build'}"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    (wheel,) = tmp_path.glob("dse_toolkit-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    installed = {name for name in top if not name.endswith(".dist-info")}
    assert installed == TOP_LEVEL
    # Data files and the compiled module travel with it.
    assert any(name.startswith("dse_kernels/_kernels") for name in names)
    assert "dse/data/quality_bert_mnli.csv" in names
    assert "hw_models/data/templates/edge22.toml" in names
    assert not any(name.startswith(("tests/", "kernels/", "benchmarks/")) for name in names)


def test_every_extra_that_a_sentence_names_exists_and_export_is_all_that_onnx_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for package in ("dse", "hw_models", "carbon", "workloads"):
        for path in (ROOT / package).rglob("*.py"):
            for named in re.findall(r"dse-toolkit\[([\w,]+)\]", path.read_text(encoding="utf-8")):
                assert set(named.split(",")) <= extras.keys(), path
    brought = {re.match(r"[\w-]+", requirement)[0] for requirement in extras["export"]}  # type: ignore[index]
    assert set(onnx._NEEDED) <= brought and "dse-toolkit[export]" in (ROOT / "dse/exporters/onnx.py").read_text(encoding="utf-8")
