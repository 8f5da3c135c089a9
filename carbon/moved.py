"""Old module paths of this package, from before its modules stood in rooms: they still import, with a DeprecationWarning.

They go with version 0.4 (CONTRIBUTING.md has the rule).
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Forwarding(MetaPathFinder, Loader):
    """Finds modules at their old paths: {old: new}."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of an old path, or None."""
        return ModuleSpec(fullname, self) if fullname in self.moved else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new path in place of the old one."""
        old = module.__name__
        new = self.moved[old]
        warnings.warn(f"{old} is now {new}; the old path goes with version 0.4", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(new)


FORWARDING = Forwarding(
    {
        "carbon.batch": "carbon.analysis.batch",
        "carbon.batch_columns": "carbon.analysis.batch_columns",
        "carbon.boavizta": "carbon.embodied.boavizta",
        "carbon.ecochip": "carbon.device.ecochip",
        "carbon.estimate": "carbon.analysis.estimate",
        "carbon.grid": "carbon.factors.grid",
        "carbon.importers": "carbon.factors.grid_files",
        "carbon.llm": "carbon.operational.llm",
        "carbon.memory": "carbon.embodied.memory",
        "carbon.metrics": "carbon.analysis.metrics",
        "carbon.packaging": "carbon.embodied.packaging",
        "carbon.plots": "carbon.analysis.plots",
        "carbon.profiles": "carbon.device.profiles",
        "carbon.recipes": "carbon.device.recipes",
        "carbon.report": "carbon.analysis.report",
        "carbon.robustness": "carbon.analysis.robustness",
        "carbon.threedcarbon": "carbon.embodied.threedcarbon",
        "carbon.traces": "carbon.factors.traces",
        "carbon.uncertainty": "carbon.analysis.uncertainty",
        "carbon.validation": "carbon.analysis.validation",
        "carbon.values": "carbon.factors.values",
        "carbon.water": "carbon.operational.water",
        "carbon.yields": "carbon.embodied.yields",
    }
)
