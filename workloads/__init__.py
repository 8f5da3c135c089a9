"""Workloads as tables of operations: what a model computes and moves, whatever accelerator runs it."""
