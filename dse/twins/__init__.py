"""Closed forms of whole problems with gradients."""
