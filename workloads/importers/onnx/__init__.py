"""ONNX files as workloads: wire format, shapes, rows, and the walk over the graph."""

from __future__ import annotations

from workloads.importers.onnx.graph import dynamic_axes, import_onnx

__all__ = ["dynamic_axes", "import_onnx"]
