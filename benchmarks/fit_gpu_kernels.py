"""Fits the parameters of GPU kernels to half of the A100 and H100 rows and prints errors on all others.

    python benchmarks/fit_gpu_kernels.py            # errors of the shipped parameters
    python benchmarks/fit_gpu_kernels.py --fit      # fit anew (some minutes) and write hw_models/data/gpu_kernels.toml

No row of another device, and none of the other half, is part of a fit. The choice of the forms was settled while errors on kept-out
rows and on other devices were seen; docs/models/gpu.md says which.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels import parameters as p
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.devices.gpus import gpu_sheet
from hw_models.devices.kernel_fits import Group, fit
from hw_models.validation import gpu_rows as m
from hw_models.validation.gpu_accuracy import csv_text, table

FloatArray = npt.NDArray[np.float64]
Found = dict[str, tuple[Any, str]]
"""Families by "kind.name": (parameters, rows behind them)."""
TARGET = Path(__file__).parents[1] / "hw_models" / "data" / "gpu_kernels.toml"
ERRORS = TARGET.with_name("gpu_accuracy.csv")
HEADER = """\
# Parameters of GPU kernels, written by benchmarks/fit_gpu_kernels.py --fit. `fitted_on` says which measured rows a family has seen:
# of the rows in hw_models/data/reference/gpu_*.csv (collectors of aiconfigurator 0.12.0, Apache-2.0) the half of A100 and H100 shapes
# that a hash of the shape chooses. hw_models/costs/gpu_kernels/parameters.py says what each number means.
"""


def main() -> int:
    """Fit if asked, then print errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit anew and write the shipped parameters")
    args = parser.parse_args()
    if args.fit:
        TARGET.write_text(toml(fit_all()), encoding="utf-8")
        p.shipped.cache_clear()
        ERRORS.write_text(csv_text(), encoding="utf-8")
    print(table())
    return 0


def sheet(name: str) -> GpuSheet:
    """The sheet of a shipped device."""
    return gpu_sheet(name)


def fit_all() -> Found:
    """All families."""
    found: Found = {}
    products(found)
    low_precision(found)
    attention(found)
    mixtures(found)
    communication(found)
    found["row.kernel"] = rows_of_vidur(found)
    # TensorRT-LLM's kernels for Blackwell multiply as Hopper's for 8-bit caches do, behind a kernel that rotates and writes the cache.
    alike, note = found["decode.trtllm-fp8"]
    gen = replace(alike, launch_s=alike.launch_s + found["row.kernel"][0].launch_s)
    found["decode.trtllm-gen"] = (gen, f"{note}; launch with that of a row kernel, whose rows are vidur's of A100")
    return found


def _rows(kind: str, **equal: str) -> m.Rows:
    every = m.rows(kind)
    return every.where(every.fitted(), **equal)


def _group(name: str, device: str, predict: Callable[[GpuSheet, Any, m.Rows], FloatArray], r: m.Rows) -> Group:
    return Group(name, lambda q: predict(sheet(device), q, r), r.latency_s)


def _narrow(kernel: p.ProductKernel, of: GpuSheet, low: p.LowPrecision, r: m.Rows) -> FloatArray:
    return m.product_latency_s(of, kernel, r, low)


def _mixture(kernel: p.ProductKernel, of: GpuSheet, layer: p.MixtureKernel, r: m.Rows) -> FloatArray:
    return m.mixture_latency_s(of, kernel, layer, r)


def products(found: Found) -> None:
    """bf16 products: launch, DRAM efficiency, split cost and overlap are one value for A100 and H100, the rest one a tensor core."""
    start = p.ProductKernel(2.6e-6, 0.95, 0.6, 700, 1000, 0.8, 3.0, 3300, 18)
    data = {
        "synchronous": ("a100", _rows("products", device="a100", format="bf16")),
        "asynchronous": ("h100", _rows("products", device="h100", format="bf16")),
    }
    groups = [_group(k, d, m.product_latency_s, r) for k, (d, r) in data.items()]
    fitted = fit(dict.fromkeys(data, start), groups, shared=("launch_s", "dram_efficiency", "split_cycles", "overlap"))
    for kind, (device, r) in data.items():
        found[f"product.{kind}"] = (
            fitted[kind],
            f"{len(r)} bf16 products of {device}; launch, DRAM, split and overlap together with the other",
        )


def low_precision(found: Found) -> None:
    """What narrow formats add, each on top of the bf16 parameters of its device."""
    cases = (
        ("fp8-trtllm", "h100", "trtllm", "fp8"), ("fp8-vllm", "h100", "vllm", "fp8"),
        ("fp8-vllm-rows", "h100", "vllm", "fp8"), ("fp8-block", "h100", "trtllm", "fp8_block"),
        ("int8", "a100", "trtllm", "int8"), ("int8-weights", "a100", "trtllm", "int8_wo"), ("int4-weights", "a100", "trtllm", "int4_wo"),
    )  # fmt: skip
    for name, device, framework, number_format in cases:
        r = _rows("products", device=device, framework=framework, format=number_format)
        kernel = found["product." + choice(sheet(device)).product][0]
        group = _group(name, device, partial(_narrow, kernel), r)
        alone = number_format.endswith("_wo")
        start = p.LowPrecision(4e-6, 0.9, 0.0 if alone else 1500.0, name.endswith("-rows"))
        fixed = ("row_cycles",) if alone else ()
        found[f"low_precision.{name}"] = (
            fit({name: start}, [group], fixed=fixed)[name],
            f"{len(r)} {number_format} products of {device}, {framework}",
        )


def attention(found: Found) -> None:
    """Decode and prefill attention of each framework's kernels."""
    decode = (
        ("flash2", "a100", "vllm", "bf16", False), ("flashinfer", "a100", "vllm", "bf16", False),
        ("flash3", "h100", "vllm", "bf16", True), ("flash3-fp8", "h100", "vllm", "fp8", True),
        ("trtllm-a100", "a100", "trtllm", "bf16", True), ("trtllm", "h100", "trtllm", "bf16", True),
        ("trtllm-fp8", "h100", "trtllm", "fp8", True),
    )  # fmt: skip
    for name, device, framework, kv, single in decode:
        r = _rows("decode", device=device, framework=framework, kv_format=kv)
        # FlashAttention has one kernel for groups and single heads, TensorRT-LLM has two.
        one_kernel = framework == "vllm"
        start = p.DecodeKernel(6e-6, 2500, 400, 20, 300, 0.88, 3.0, 2.5e-6, 1.0 if one_kernel else 0.6, 0.0, single)
        note = f"{len(r)} decode rows of {device}, {framework}, {kv} cache"
        fixed: tuple[str, ...] = ("single_factor", "copy_s") if one_kernel else ("copy_s",)
        if name in ("trtllm", "trtllm-fp8"):  # Hopper's kernels reach the whole L2 port; reading and multiplying take turns, as in prefill
            start, fixed = replace(start, port_bytes_per_cycle=64.0, overlap=2.0), (*fixed, "port_bytes_per_cycle", "overlap")
        if name == "flash2":
            start, fixed = replace(start, copy_s=3e-6, shared_memory_tiles=True), ("single_factor",)
        if name == "flashinfer":  # 8-bit caches of A100's kind of tensor core, of which there are no rows: FlashAttention-2's in the
            note += " through FlashAttention-2, whose tiles and copies it does not have"  # common form
        if name == "trtllm-a100":  # its rows above 20 MB exceed the DRAM's peak rate and were dropped: the L2 serves the others
            other = found["decode.flashinfer"][0]
            start = replace(start, dram_efficiency=other.dram_efficiency, overlap=other.overlap)
            fixed, note = ("copy_s", "dram_efficiency", "overlap"), f"{note}; DRAM efficiency and overlap of flashinfer"
        group = _group(name, device, m.decode_latency_s, r)
        found[f"decode.{name}"] = (fit({name: start}, [group], fixed=fixed)[name], note)
    no_choice: dict[str, str] = {}
    prefill = (
        ("flash2", "a100", "vllm", "bf16", no_choice), ("flash3", "h100", "vllm", "bf16", {"kv_format": "bf16"}),
        ("flash3-fp8", "h100", "vllm", "bf16", {"kv_format": "fp8"}), ("trtllm-a100", "a100", "trtllm", "bf16", no_choice),
        ("trtllm", "h100", "trtllm", "bf16", no_choice), ("trtllm-fp8", "h100", "trtllm", "fp8", no_choice),
    )  # fmt: skip
    for name, device, framework, number_format, cache in prefill:
        r = _rows("prefill", device=device, framework=framework, format=number_format, **cache)
        begin = p.PrefillKernel(
            8e-6, 0.55, 3.0, 2500, 0.8, 3.0, 200, framework == "trtllm", packs_groups="flash3" in name, packs_single=name == "flash2"
        )
        group = _group(name, device, m.prefill_latency_s, r)
        note = f"{len(r)} prefill rows of {device}, {framework}, {number_format}" + "".join(f", {kv} cache" for kv in cache.values())
        found[f"prefill.{name}"] = (fit({name: begin}, [group])[name], note)


def mixtures(found: Found) -> None:
    """Layers of experts: TensorRT-LLM's on both devices together, vLLM's Triton kernel by its version, which is the device's."""
    triton = p.MixtureKernel(4e-5, 0.6, 1500, 0.8, 1.5, 0.0, 0.0, triton=True)
    library = p.MixtureKernel(4e-5, 0.6, 1500, 0.8, 1.5, 1e-5, 5e3)
    without_routing = replace(library, top_k_s=0.0, top_k_cycles=0.0)
    cases = (
        (("vllm-a100", "a100", "vllm", "bf16", triton),),
        (("vllm", "h100", "vllm", "bf16", replace(triton, tiles_by_tokens=True)),),
        (("vllm-fp8", "h100", "vllm", "fp8_block", without_routing),),
        (
            ("trtllm-a100", "a100", "trtllm", "bf16", library), ("trtllm", "h100", "trtllm", "bf16", library),
            ("trtllm-fp8", "h100", "trtllm", "fp8", library),
        ),
    )  # fmt: skip
    for together in cases:
        groups, notes = [], {}
        for name, device, framework, number_format, _ in together:
            r = _rows("mixtures", device=device, framework=framework, format=number_format)
            groups.append(_group(name, device, partial(_mixture, found["product." + choice(sheet(device)).product][0]), r))
            notes[name] = f"{len(r)} layers of experts of {device}, {framework}, {number_format}"
        shared = ("launch_s", "dram_efficiency", "activation_factor", "top_k_s", "top_k_cycles") if len(together) > 1 else ()
        fixed = ("top_k_s", "top_k_cycles") if len(together) == 1 else ()
        for name, record in fit({case[0]: case[-1] for case in together}, groups, shared=shared, fixed=fixed).items():
            others = "; all but rate and items together with the others" if shared else ""
            found[f"mixture.{name}"] = (record, notes[name] + others)
    # Blackwell's vLLM runs the same library kernels; it routes before the layer.
    for name in ("trtllm-a100", "trtllm"):
        record, note = found[f"mixture.{name}"]
        found[f"mixture.{name.replace('trtllm', 'flashinfer')}"] = (replace(record, top_k_s=0.0, top_k_cycles=0.0), f"{note}; no routing")


def communication(found: Found) -> None:
    """Library collectives and direct all-reduces over NVLink."""
    for device in m.FIT_DEVICES:
        r = _rows("collectives", device=device, kernel="nccl")
        group = _group(device, device, m.collective_latency_s, r)
        start = p.CollectiveKernel(6e-6, 7e-7, 0.68, 0.7, 0.7, 0.24, 1.5e-5, 1.0)
        found[f"collective.nccl-{device}"] = (fit({device: start}, [group])[device], f"{len(r)} collectives of NCCL on {device}")
        for kernel in ("vllm", "trtllm"):
            r = _rows("collectives", device=device, kernel=kernel)
            group = _group(device, device, m.collective_latency_s, r)
            fitted = fit({device: p.DirectKernel(4.4e-6, 1e-7, 0.64, 7e-6, 0.67)}, [group])[device]
            found[f"direct.{kernel}-{device}"] = (fitted, f"{len(r)} all-reduces of {kernel} on {device}, replayed as a graph")


def rows_of_vidur(found: Found) -> tuple[Any, str]:
    """Norms and elementwise kernels: one set for all, fitted on vidur's llama2-7b kernels of an A100."""
    from hw_models.costs.gpu_kernels.rows import row_kernel_times
    from hw_models.validation.devices import vidur_rows

    moved, latency = [], []
    for operator, each in (("rmsnorm", 2), ("silu_mul", 3), ("add", 3)):
        r = vidur_rows("llama2-7b", operator)
        moved.append(each * 2.0 * r.dims.prod(axis=1))
        latency.append(r.latency_s)
    x, y = np.concatenate(moved), np.concatenate(latency)
    group = Group("row", lambda q: row_kernel_times(sheet("a100"), q, x)[0], y)
    return fit({"row": p.RowKernel(2.2e-6, 0.8, 3.0)}, [group])[
        "row"
    ], f"{len(y)} rmsnorm, silu_mul and add rows of llama2-7b in vidur@7d47513 (A100)"


def toml(found: Found) -> str:
    """The file of shipped parameters."""
    lines = [HEADER]
    for name, (record, note) in found.items():
        kind, family = name.split(".", 1)
        lines.append(f'[{kind}."{family}"]')
        for item in fields(record):
            value = asdict(record)[item.name]
            lines.append(f"{item.name} = {str(value).lower() if isinstance(value, bool) else f'{value:.4g}'}")
        lines += [f'fitted_on = "{note}"', ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
