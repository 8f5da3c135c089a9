"""Estimates, ranges, decision metrics, validation and reports over the models."""
