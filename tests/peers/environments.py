"""An environment of its own for each peer tool: they pin numpy and Python versions that exclude each other.

They are made once, under a cache folder (``DSE_PEERS``, or ``~/.cache/dse-peers``), by the exact versions that the exports name. Where one
cannot be made, the tests that need it are skipped with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL_TIMEOUT_S = 1500


@dataclass(frozen=True)
class Peer:
    """A tool: what is installed (``alone``: without what it asks for), on which Python, and which programs it needs beside."""

    requirements: tuple[str, ...]
    python: str = "3.11"
    programs: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


PEERS = {
    "scalesim": Peer(("scalesim==3.0.0", "numpy==1.26.4")),
    "zigzag": Peer(("zigzag-dse==3.9.1", "six==1.17.0")),
    "accelforge": Peer(("accelforge==1.0.467",), "3.12", ("dot",)),
    "genz": Peer(("genz-llm==0.0.16", "torch==2.13.0")),
    # By itself: it asks for torch, which what is tested does not use.
    "pecos": Peer(("numpy==1.26.4", "scipy==1.11.4", "scikit-learn==1.4.2"), alone=("libpecos==1.2.8",)),
    "stream": Peer(("stream-dse==2.1.1", "six==1.17.0"), "3.12"),
}


def python_of(tool: str) -> Path:
    """The Python of a tool's environment, made if need be; skips the test where that is not possible."""
    peer = PEERS[tool]
    for program in peer.programs:
        if shutil.which(program) is None:
            pytest.skip(f"{tool} needs the program {program}")
    base = _interpreter(peer.python)
    if base is None:
        pytest.skip(f"{tool} needs Python {peer.python}")
    key = hashlib.sha256(" ".join((*peer.requirements, *peer.alone, peer.python)).encode()).hexdigest()[:12]
    root = Path(os.environ.get("DSE_PEERS") or Path.home() / ".cache" / "dse-peers")
    folder = root / f"{tool}-{key}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with open(root / f"{tool}-{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "complete").exists():
                _install(base, folder, peer)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{tool} cannot be installed: {_told(error)}")
    return folder / "bin" / "python"


def _install(base: str, folder: Path, peer: Peer) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([base, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=300)
    command = [str(folder / "bin" / "pip"), "install", "--quiet", *peer.requirements]
    subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
    if peer.alone:
        command = [*command[:3], "--no-deps", *peer.alone]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
    (folder / "complete").touch()


def _interpreter(version: str) -> str | None:
    """A Python of a version that starts: ours, one on the path, or one that pyenv keeps."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return sys.executable
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, kept)):
        if candidate is None:
            continue
        done = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0 and f"Python {version}." in done.stdout:
            return candidate
    return None


def _told(error: Exception) -> str:
    output = getattr(error, "stderr", None) or b""
    last = output.decode(errors="replace").strip().splitlines()[-1:] if isinstance(output, bytes) else [str(output)]
    return f"{type(error).__name__}: {last[0] if last else error}"
