"""Kernels of GPUs: how long products, attention, mixtures, row-wise kernels and collectives take on a device of given sheet.

Data sheets (`sheet.GpuSheet`) and a few parameters of kernels fitted once on A100 and H100 (`parameters`, data/gpu_kernels.toml)
give every figure; no device has numbers of its own but its sheet. docs/models/gpu.md derives each formula and shows the errors.
"""
