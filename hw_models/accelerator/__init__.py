"""One accelerator and many: the record with its table of fields, batches of designs, files, and what technology says of them."""

from __future__ import annotations

from hw_models.accelerator.design import Accelerator, AcceleratorBatch, MemoryLevel
from hw_models.accelerator.fields import ArrayKind, Dataflow

__all__ = ["Accelerator", "AcceleratorBatch", "ArrayKind", "Dataflow", "MemoryLevel"]
