"""Spaces: parameters, constraints, sizes, the hardware side."""
