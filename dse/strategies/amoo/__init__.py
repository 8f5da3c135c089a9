"""Aligned multi-objective optimisation: weights, alignment report, descent on the relaxed cost model, exact polish."""

from __future__ import annotations

from typing import Any

__all__ = ["AmooSearch", "alignment", "camoo_weights", "equal_weights", "pamoo_weights"]

_HOME = {
    "AmooSearch": "search",
    "alignment": "alignment",
    "camoo_weights": "weights",
    "equal_weights": "weights",
    "pamoo_weights": "weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"dse.strategies.amoo.{_HOME[name]}"), name)
    raise AttributeError(f"module 'dse.strategies.amoo' has no attribute {name!r}")
