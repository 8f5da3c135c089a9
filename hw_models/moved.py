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
        "hw_models.accelerator_files": "hw_models.spaces.files",
        "hw_models.area": "hw_models.technology.floorplan",
        "hw_models.attention": "hw_models.costs.attention",
        "hw_models.batch_files": "hw_models.costs.products_csv",
        "hw_models.batching": "hw_models.accelerator.resolve",
        "hw_models.calibration": "hw_models.devices.calibration",
        "hw_models.cost": "hw_models.costs.evaluate",
        "hw_models.datacenter": "hw_models.spaces.datacenter",
        "hw_models.edge": "hw_models.spaces.edge",
        "hw_models.evaluator": "hw_models.costs.one_design",
        "hw_models.formulas": "hw_models.technology.namespace",
        "hw_models.gemm": "hw_models.costs.products",
        "hw_models.gpu": "hw_models.costs.gpu",
        "hw_models.interconnect": "hw_models.costs.collectives",
        "hw_models.memory": "hw_models.costs.mapping",
        "hw_models.parallel": "hw_models.costs.chips",
        "hw_models.precision": "hw_models.costs.precision",
        "hw_models.profiles": "hw_models.technology.profiles",
        "hw_models.relaxed": "hw_models.twins.edge",
        "hw_models.relaxed_datacenter": "hw_models.twins.datacenter",
        "hw_models.relaxed_products": "hw_models.twins.product_bounds",
        "hw_models.relaxed_technology": "hw_models.twins.technology",
        "hw_models.systolic_conv": "hw_models.systolic.conv",
        "hw_models.templates": "hw_models.spaces",
        "hw_models.validation_arrays": "hw_models.validation.arrays",
        "hw_models.validation_costs": "hw_models.validation.costs",
        "hw_models.validation_devices": "hw_models.validation.devices",
        "hw_models.vector": "hw_models.costs.vector",
        "hw_models.vector_compat": "hw_models.costs.vector_catransformers",
    }
)
