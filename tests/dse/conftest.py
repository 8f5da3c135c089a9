"""Fixtures of the dse room."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module", autouse=True)
def _strategies_of_one_module() -> Iterator[None]:
    """A strategy that a test gives as an object stays known in its process; it is not for the tests of other modules."""
    loaded = sys.modules.get("dse.strategies.registry")
    before = dict(loaded._known) if loaded is not None else None
    yield
    registry = sys.modules.get("dse.strategies.registry")
    if registry is not None:
        kept = before if before is not None else {record.name: record for record in registry._SHIPPED}
        registry._known.clear()
        registry._known.update(kept)


@pytest.fixture(scope="session")
def factories() -> ModuleType:
    """Runs made by hand (factories.py); loaded by path, as tests are no package under import mode importlib."""
    spec = importlib.util.spec_from_file_location("dse_test_factories", Path(__file__).with_name("factories.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tasks() -> ModuleType:
    """The tasks of tasks.py, loaded by path: tests are no package under import mode importlib."""
    name = "dse_strategy_tasks"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("tasks.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def _postgresql_programs() -> Path:
    """Folder of a PostgreSQL server's programs; the test is skipped where there is none."""
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path("/usr/local/pgsql/bin")]
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("PostgreSQL is not installed")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of a database on a PostgreSQL server of its own, which listens on a socket in a temporary folder alone."""
    import pwd

    from dse.errors import DseError
    from dse.storage.trials import TrialStore

    driver = next((name for name in ("psycopg", "psycopg2") if find_spec(name)), None)
    if driver is None:
        pytest.skip("no PostgreSQL driver is installed")
    programs = _postgresql_programs()
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    with tempfile.TemporaryDirectory(prefix="dse-pg-") as folder:
        if user:
            shutil.chown(folder, user)
        made = subprocess.run([programs / "initdb", "-D", f"{folder}/data", "-U", "dse", "-A", "trust"], check=False,
                              capture_output=True, text=True, user=user, cwd=folder)  # fmt: skip
        assert made.returncode == 0, made.stderr
        server = subprocess.Popen([programs / "postgres", "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses="],
                                  user=user, cwd=folder, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            url = f"postgresql+{driver}://dse@/postgres?host={folder}"
            for _ in range(100):
                try:
                    TrialStore.open(url, study="up").close()
                    break
                except DseError:
                    time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait()
