"""Extreme multi-label trees: data, training, files and the workload that they are."""
