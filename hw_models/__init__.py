"""Analytical accelerator models: arrays, memory hierarchy, vector units, links, technology; latency, energy and area."""
