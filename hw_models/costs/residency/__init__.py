"""Data that stays on chip between operations: what is chosen, and what it costs (docs/models/residency.md)."""
