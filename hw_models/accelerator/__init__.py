"""One accelerator and many: the record with its table of fields, batches of designs, files, and what technology says of them."""

from __future__ import annotations

from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.accelerator.levels import MemoryLevel

__all__ = ["Accelerator", "AcceleratorBatch", "ArrayKind", "Dataflow", "MemoryLevel"]
