# ruff: noqa: B023  (contenders are called within their turn of the loop)
"""Decode attention on the CPU against torch: milliseconds of processor time, ratios, share of read bandwidth, shared prefixes, bytes.

    python benchmarks/attention.py [--threads 1] [--rounds 9] [--json FILE] [--tables grouped int8 ...]

Every contender of a table runs in turn in one process on the same caches, several of them in rotation so that keys and values come
from memory and not from a cache of the processor; the table shows the least time of all rounds. All results are compared with each other
before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dse_kernels import attention
from torch.nn import functional

Contender = Callable[[int], Any]
TABLES = ("grouped", "int8", "unequal", "paged", "shared_8", "shared_64")


def main() -> None:
    """Print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"instruction sets {attention.instruction_sets()}, {args.threads} thread(s), torch {torch.__version__}, pages: {huge_pages()}")
    bandwidth = read_bandwidth()
    print(f"read bandwidth of one thread, best of four reductions over 256 MB: {bandwidth:.1f} GB/s")
    results: dict[str, Any] = {"read_bandwidth_gb_s": bandwidth, "threads": args.threads, "pages": huge_pages()}
    unequal = [0] * 16 + [1] * 8 + [2] * 4 + [3] * 2 + [4, 5]
    tables: dict[str, Callable[[], Any]] = {
        "grouped": lambda: against_torch(args, bandwidth, equal(32, 8), "32 query / 8 KV heads"),
        "int8": lambda: against_bfloat16(args, equal(32, 8)),
        "unequal": lambda: against_torch(args, bandwidth, unequal, "map 16-8-4-2-1-1"),
        "paged": lambda: paged(args, equal(32, 8)),
        "shared_8": lambda: shared(args, 8),
        "shared_64": lambda: shared(args, 64),
    }
    for name in args.tables:
        results[name] = tables[name]()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def equal(heads: int, kv_heads: int) -> list[int]:
    """The map of grouped-query attention."""
    return [h * kv_heads // heads for h in range(heads)]


def huge_pages() -> str:
    """How the system backs large arrays (numpy asks for huge pages by madvise where they are offered)."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return "transparent huge pages " + (path.read_text().split("[")[1].split("]")[0] if path.is_file() else "unknown")


def time_all(contenders: dict[str, Contender], rounds: int, caches: int) -> dict[str, float]:
    """Least milliseconds of processor time of every contender; contender(i) works on cache i."""
    best = dict.fromkeys(contenders, math.inf)
    for round_ in range(rounds):
        for name, run in contenders.items():
            if round_ > 1 and best[name] > 20 * min(best.values()):
                continue  # seconds for a form that is far behind
            if torch.get_num_threads() > 1:
                settle(run)
            for i in range(caches):
                began = time.perf_counter() if torch.get_num_threads() > 1 else time.process_time()
                run(i)
                ended = time.perf_counter() if torch.get_num_threads() > 1 else time.process_time()
                if round_:
                    best[name] = min(best[name], (ended - began) * 1e3)
    return best


def settle(run: Contender) -> None:
    """Let the threads of the contender before fall asleep, and those of this one come to a core each.

    OpenMP's threads watch for more work for some milliseconds, a core less for whoever comes next; and a busy system moves a thread that
    it woke beside its caller to a core of its own only after tens of milliseconds.
    """
    time.sleep(0.02)
    end = time.perf_counter() + 0.06
    while time.perf_counter() < end:
        run(0)


def read_bandwidth() -> float:
    """GB/s of the fastest of four reductions of one thread."""
    data = np.ones(64 * 2**20, np.float32)
    tensor = torch.from_numpy(data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs: dict[str, Contender] = {
        "add": lambda _: np.add.reduce(data),
        "max": lambda _: np.max(data),
        "dot": lambda _: torch.dot(tensor[: len(tensor) // 2], tensor[len(tensor) // 2 :]),
        "sum": lambda _: tensor.sum(),
    }
    best = min(time_all(runs, 5, 1).values())
    torch.set_num_threads(threads)
    return float(data.nbytes / best / 1e6)


def huge(x: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on an array of numpy (see `make`): torch's own memory lies on small pages."""
    copy = make(tuple(x.shape), x.dtype, 1)[0]
    return copy.copy_(x)


def make(shape: tuple[int, ...], dtype: torch.dtype, count: int) -> list[torch.Tensor]:
    """Random tensors on arrays of numpy, whose memory is backed by huge pages where the system offers them."""
    made = []
    for _ in range(count):
        array = np.empty(shape, np.float32 if dtype == torch.float32 else np.int16)
        tensor = torch.from_numpy(array).view(dtype)
        tensor.copy_(torch.randn(shape, dtype=torch.float32).to(dtype))
        made.append(tensor)
    return made


def against_torch(
    args: argparse.Namespace, bandwidth: float, owners: list[int], title: str, rows: int = 8, tokens: int = 1024, d: int = 128
) -> Any:
    """The kernel on both layouts against every torch formulation."""
    heads, kv_heads = len(owners), max(owners) + 1
    equal_groups = owners == equal(heads, kv_heads)
    group, caches, results = heads // kv_heads, 3, {}
    lengths = torch.full((rows,), tokens)
    owner = torch.tensor(owners)
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.randn(rows, heads, d).to(dtype)
        k, v = (make((rows, tokens, kv_heads, d), dtype, caches) for _ in range(2))
        kt, vt = ([huge(x.transpose(1, 2)) for x in xs] for xs in (k, v))
        runs: dict[str, Contender] = {
            "kernel (rows, tokens, heads, d)": lambda i: attention.decode(q, k[i], v[i], owner, lengths, threads=args.threads),
            "kernel (rows, heads, tokens, d)": lambda i: attention.decode(
                q, kt[i].transpose(1, 2), vt[i].transpose(1, 2), owner, lengths, threads=args.threads
            ),
            "SDPA, heads gathered each step": lambda i: functional.scaled_dot_product_attention(
                q[:, :, None], kt[i][:, owner], vt[i][:, owner]
            )[:, :, 0],
        }
        if equal_groups:
            qg = q.view(rows, kv_heads, group, d)
            runs |= {
                "SDPA enable_gqa": lambda i: functional.scaled_dot_product_attention(q[:, :, None], kt[i], vt[i], enable_gqa=True)[:, :, 0],
                "SDPA enable_gqa on (rows, tokens, heads, d)": lambda i: functional.scaled_dot_product_attention(
                    q[:, :, None], k[i].transpose(1, 2), v[i].transpose(1, 2), enable_gqa=True
                )[:, :, 0],
                "SDPA, group as queries": lambda i: functional.scaled_dot_product_attention(qg, kt[i], vt[i]).reshape(rows, heads, d),
                "SDPA, group as queries, on (rows, tokens, heads, d)": lambda i: functional.scaled_dot_product_attention(
                    qg, k[i].transpose(1, 2), v[i].transpose(1, 2)
                ).reshape(rows, heads, d),
                "grouped matmul, contiguous cache": lambda i: grouped_matmul(qg, kt[i], vt[i]).reshape(rows, heads, d),
            }
        check_equal(runs, 1e-5 if dtype == torch.float32 else 2e-2)
        times = time_all(runs, max(3, args.rounds if equal_groups else args.rounds // 2), caches)
        name = str(dtype).removeprefix("torch.")
        torch_best = min((t, n) for n, t in times.items() if not n.startswith("kernel"))
        gigabytes = 2 * k[0].nbytes / 1e9
        print(f"\n{title}, batch {rows}, context {tokens}, d {d}, {name}: {gigabytes * 1e3:.0f} MB of cache")
        for label, ms in times.items():
            print(f"  {ms:8.2f} ms  {gigabytes / ms * 1e3:5.1f} GB/s  {torch_best[0] / ms:5.2f}x of the best torch  {label}")
        share = gigabytes / min(t for n, t in times.items() if n.startswith("kernel")) * 1e3 / bandwidth
        print(f"  best torch: {torch_best[1]}; kernel reads at {share:.0%} of the bandwidth above")
        results[name] = {"ms": times, "best_torch": torch_best[1], "share_of_bandwidth": share}
    return results


def grouped_matmul(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q (rows, KV heads, group, d) against k and v (rows, KV heads, tokens, d) as two batched products."""
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v


def check_equal(runs: dict[str, Contender], tolerance: float) -> None:
    """Raise unless all contenders give what the last one gives."""
    found = {name: torch.as_tensor(run(0)).float() for name, run in runs.items()}
    last = list(found.values())[-1]
    for name, value in found.items():
        worst = float((value - last).abs().max())
        if not worst <= tolerance:
            raise SystemExit(f"{name} differs by {worst:.2e}, must be within {tolerance}")


def against_bfloat16(args: argparse.Namespace, owners: list[int], rows: int = 8, tokens: int = 1024, d: int = 128) -> Any:
    """The quantised cache against the bfloat16 one, both layouts of it."""
    kv_heads, caches = max(owners) + 1, 4
    q = torch.randn(rows, len(owners), d)
    q16 = q.bfloat16()
    k, v = (make((rows, tokens, kv_heads, d), torch.bfloat16, caches) for _ in range(2))
    kt, vt = ([huge(x.transpose(1, 2)).transpose(1, 2) for x in xs] for xs in (k, v))
    quantised = [attention.Int8Cache.empty(rows, tokens, kv_heads, d) for _ in range(caches)]
    for cache, new_k, new_v in zip(quantised, k, v, strict=True):
        attention.append(cache, new_k, new_v)
    lengths = torch.full((rows,), tokens)
    runs: dict[str, Contender] = {
        "int8": lambda i: attention.decode_int8(q, quantised[i], owners, threads=args.threads),
        "bfloat16 (rows, tokens, heads, d)": lambda i: attention.decode(q16, k[i], v[i], owners, lengths, threads=args.threads),
        "bfloat16 (rows, heads, tokens, d)": lambda i: attention.decode(q16, kt[i], vt[i], owners, lengths, threads=args.threads),
    }
    check_equal(runs, 3e-2)
    times = time_all(runs, args.rounds, caches)
    best = min(t for n, t in times.items() if n != "int8")
    print(f"\nint8 against bfloat16, {quantised[0].nbytes / 1e6:.1f} against {2 * k[0].nbytes / 1e6:.1f} MB of cache")
    for label, ms in times.items():
        print(f"  {ms:8.2f} ms  {label}")
    print(f"  int8 is {best / times['int8']:.2f}x as fast as the better bfloat16 layout")
    return {"ms": times, "speedup": best / times["int8"]}


def paged(args: argparse.Namespace, owners: list[int], rows: int = 8, tokens: int = 1024, d: int = 128) -> Any:
    """Pages in random order against the plain cache."""
    kv_heads, caches, results = max(owners) + 1, 3, {}
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.randn(rows, len(owners), d).to(dtype)
        k, v = (make((rows, tokens, kv_heads, d), dtype, caches) for _ in range(2))
        lengths = torch.full((rows,), tokens)
        runs: dict[str, Contender] = {"plain": lambda i: attention.decode(q, k[i], v[i], owners, lengths, threads=args.threads)}
        for page in (16, 64, 256):
            blocks = tokens // page
            order = torch.randperm(rows * blocks)
            place = torch.empty_like(order)
            place[order] = torch.arange(rows * blocks)
            pages = [tuple(x[i].view(rows * blocks, page, kv_heads, d)[order].contiguous() for x in (k, v)) for i in range(caches)]
            table = place.view(rows, blocks)
            runs[f"pages of {page}"] = lambda i, pages=pages, table=table: attention.decode_paged(
                q, *pages[i], table, lengths, owners, threads=args.threads
            )
        check_equal(runs, 1e-5 if dtype == torch.float32 else 2e-2)
        times = time_all(runs, max(3, args.rounds // 2), caches)
        name = str(dtype).removeprefix("torch.")
        print(f"\npaged cache, {name}: " + ", ".join(f"{label} {ms:.2f} ms" for label, ms in times.items()))
        results[name] = times
    return results


def shared(args: argparse.Namespace, rows: int, prefix: int = 1024, own: int = 16, d: int = 128) -> Any:
    """A prefix shared by all rows: one product of the stacked queries against the prefix in every row's cache."""
    owners = equal(32, 8)
    kv_heads, results, caches = 8, {}, 3 if rows <= 8 else 1
    group = len(owners) // kv_heads
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.randn(rows, len(owners), d).to(dtype)
        pk, pv = (make((prefix, kv_heads, d), dtype, 6) for _ in range(2))
        ptk, ptv = ([huge(x.transpose(0, 1)) for x in xs] for xs in (pk, pv))
        k, v = (make((rows, own, kv_heads, d), dtype, 1)[0] for _ in range(2))
        lengths = torch.full((rows,), own)
        whole = [[torch.cat([p[i].expand(rows, -1, -1, -1), x], dim=1) for i in range(caches)] for p, x in ((pk, k), (pv, v))]
        full = torch.full((rows,), prefix + own)
        stacked = q.view(rows, kv_heads, group, d).transpose(0, 1).reshape(kv_heads, rows * group, d)
        runs: dict[str, Contender] = {
            "shared kernel": lambda i: attention.decode_shared(q, pk[i], pv[i], k, v, owners, lengths, threads=args.threads),
            "unshared kernel": lambda i: attention.decode(
                q, whole[0][i % caches], whole[1][i % caches], owners, full, threads=args.threads
            ),
        }
        check_equal(runs, 1e-5 if dtype == torch.float32 else 2e-2)
        # The torch forms leave out the rows' own tokens and the merge: less work than the kernel does.
        runs |= {
            "stacked matmul (prefix alone)": lambda i: grouped_matmul(stacked, ptk[i], ptv[i]),
            "stacked SDPA (prefix alone)": lambda i: functional.scaled_dot_product_attention(stacked[None], ptk[i][None], ptv[i][None]),
        }
        times = time_all(runs, max(3, args.rounds // (1 if rows <= 8 else 2)), 6)
        name = str(dtype).removeprefix("torch.")
        print(f"\nprefix of {prefix} shared by {rows}, {own} tokens of their own, {name}")
        for label, ms in times.items():
            print(f"  {ms:8.2f} ms  {ms / times['shared kernel']:5.2f}x the shared kernel's time  {label}")
        results[name] = times
    return results


if __name__ == "__main__":
    main()
