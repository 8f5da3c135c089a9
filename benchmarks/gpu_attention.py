"""Triton decode attention on a GPU: checked against the reference, then timed against torch SDPA and, where installed, FlashInfer.

    python benchmarks/gpu_attention.py [--json FILE]

One call checks plain, paged and shared decode in float32 and bfloat16 over several maps, then prints microseconds, achieved bandwidth and
ratios. Needs a CUDA device; without one it says so and exits 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

SHAPES = ((8, 1024), (8, 8192), (64, 1024), (64, 4096))
UNEQUAL = [0] * 16 + [1] * 8 + [2] * 4 + [3] * 2 + [4, 5]


def main() -> int:
    """Check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing is measured", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}")
    check()
    results: dict[str, Any] = {"device": name, "rows": []}
    for owners, title in (([h // 4 for h in range(32)], "32/8"), (UNEQUAL, "16-8-4-2-1-1"), ([0] * 32, "32/1")):
        for rows, tokens in SHAPES:
            results["rows"] += measure(owners, title, rows, tokens)
    results["rows"] += shared(8) + shared(64)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def check() -> None:
    """Compare with the numpy reference on the device; SystemExit where they differ."""
    from dse_kernels import attention_triton as kernels
    from dse_kernels.attention_reference import decode_paged_reference, decode_reference, decode_shared_reference

    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        for owners in ([h // 4 for h in range(16)], UNEQUAL):
            owner, kv_heads = torch.tensor(owners), max(owners) + 1
            q = torch.randn(3, len(owners), 128, device="cuda").to(dtype)
            k, v = (torch.randn(3, 1000, kv_heads, 128, device="cuda").to(dtype) for _ in range(2))
            lengths = torch.tensor([1000, 1, 513])
            plain = [x.float().cpu().numpy() for x in (q, k, v)]
            table = torch.randperm(3 * 10).view(3, 10)
            pages = [x.reshape(3 * 10, 100, kv_heads, 128) for x in (k, v)]
            prefix = [x[0, :300] for x in (k, v)]
            found = {
                "decode": (kernels.decode(q, k, v, owner, lengths), decode_reference(*plain, owner.numpy(), lengths.numpy())),
                "paged": (
                    kernels.decode_paged(q, *pages, table.cuda(), lengths, owner),
                    decode_paged_reference(
                        plain[0], *(x.float().cpu().numpy() for x in pages), table.numpy(), lengths.numpy(), owner.numpy()
                    ),
                ),
                "shared": (
                    kernels.decode_shared(q, *prefix, k, v, owner, lengths),
                    decode_shared_reference(
                        plain[0], *(x.float().cpu().numpy() for x in prefix), plain[1], plain[2], owner.numpy(), lengths.numpy()
                    ),
                ),
            }
            for what, (value, reference) in found.items():
                worst = float((value.cpu() - torch.as_tensor(reference)).abs().max())
                print(f"{what} {dtype} map of {len(owners)} heads: largest difference {worst:.1e}")
                if worst > tolerance:
                    raise SystemExit(f"{what} differs by {worst:.1e}, must be within {tolerance}")


def microseconds(run: Callable[[], object], repeats: int = 50) -> float:
    """Median time of a call on the device, by events, after warm-up, the second cache flushed before each."""
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return sorted(times)[repeats // 2]


def show(title: str, times: dict[str, float], moved_bytes: float) -> list[dict[str, Any]]:
    """Print one comparison and return its rows."""
    print(title)
    own = next(iter(times.values()))
    for label, us in times.items():
        print(f"  {us:9.1f} us  {moved_bytes / us / 1e3:7.0f} GB/s  {us / own:5.2f}x  {label}")
    return [{"title": title, "contender": label, "us": us, "gb_s": moved_bytes / us / 1e3} for label, us in times.items()]


def measure(owners: list[int], title: str, rows: int, tokens: int, d: int = 128) -> list[dict[str, Any]]:
    """Decode against SDPA (heads shared where the groups are equal, gathered where not) and FlashInfer (equal groups)."""
    from dse_kernels import attention_triton as kernels

    owner, kv_heads = torch.tensor(owners), max(owners) + 1
    q = torch.randn(rows, len(owners), d, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(rows, tokens, kv_heads, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    lengths = torch.full((rows,), tokens)
    on_device = owner.cuda()
    times = {"this kernel": microseconds(lambda: kernels.decode(q, k, v, owner, lengths))}
    kt, vt = (x.transpose(1, 2) for x in (k, v))
    if owners == [h * kv_heads // len(owners) for h in range(len(owners))]:
        times["SDPA enable_gqa"] = microseconds(lambda: functional.scaled_dot_product_attention(q[:, :, None], kt, vt, enable_gqa=True))
        if importlib.util.find_spec("flashinfer"):
            times["FlashInfer"] = microseconds(flashinfer_decode(q, k, v, rows, tokens, len(owners), kv_heads, d))
    else:
        times["SDPA, heads gathered"] = microseconds(
            lambda: functional.scaled_dot_product_attention(q[:, :, None], kt[:, on_device], vt[:, on_device])
        )
    return show(f"map {title}, {rows} rows, {tokens} tokens, bfloat16", times, 2.0 * k.nbytes)


def flashinfer_decode(q: Any, k: Any, v: Any, rows: int, tokens: int, heads: int, kv_heads: int, d: int) -> Callable[[], object]:
    """FlashInfer's batched decode over the same cache as one page a row."""
    import flashinfer

    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(torch.empty(128 * 2**20, dtype=torch.uint8, device="cuda"), "NHD")
    bounds = torch.arange(rows + 1, dtype=torch.int32, device="cuda")
    last = torch.full((rows,), tokens, dtype=torch.int32, device="cuda")
    wrapper.plan(bounds, bounds[:-1], last, heads, kv_heads, d, tokens, data_type=torch.bfloat16, q_data_type=torch.bfloat16)
    return lambda: wrapper.run(q, (k, v))


def shared(rows: int, prefix: int = 1024, d: int = 128) -> list[dict[str, Any]]:
    """A shared prefix against the unshared kernel and against SDPA on stacked queries."""
    from dse_kernels import attention_triton as kernels

    owner = torch.tensor([h // 4 for h in range(32)])
    q = torch.randn(rows, 32, d, device="cuda", dtype=torch.bfloat16)
    pk, pv = (torch.randn(prefix, 8, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    k, v = (torch.randn(rows, 16, 8, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    own, full = torch.full((rows,), 16), torch.full((rows,), prefix + 16)
    whole = [torch.cat([p.expand(rows, -1, -1, -1), x], dim=1) for p, x in ((pk, k), (pv, v))]
    stacked = q.view(rows, 8, 4, d).transpose(0, 1).reshape(1, 8, rows * 4, d)
    times = {
        "shared kernel": microseconds(lambda: kernels.decode_shared(q, pk, pv, k, v, owner, own)),
        "unshared kernel": microseconds(lambda: kernels.decode(q, *whole, owner, full)),
        "stacked SDPA (prefix alone)": microseconds(
            lambda: functional.scaled_dot_product_attention(stacked, pk.transpose(0, 1)[None], pv.transpose(0, 1)[None])
        ),
    }
    return show(f"prefix of {prefix} shared by {rows}, bfloat16", times, 2.0 * pk.nbytes)


if __name__ == "__main__":
    sys.exit(main())
