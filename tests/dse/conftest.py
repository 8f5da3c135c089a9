"""Fixtures of the dse room."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def factories() -> ModuleType:
    """Runs made by hand (factories.py); loaded by path, as tests are no package under import mode importlib."""
    spec = importlib.util.spec_from_file_location("dse_test_factories", Path(__file__).with_name("factories.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
