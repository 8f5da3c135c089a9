"""Pareto fronts: filter, merge, hypervolume."""
