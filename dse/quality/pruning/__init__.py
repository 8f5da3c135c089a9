"""Structured pruning and weight-only quantisation of Hugging Face models held locally."""
