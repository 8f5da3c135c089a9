"""Triton decode attention on a GPU: checked against the reference, then timed against torch SDPA and, where installed, FlashInfer.

    python benchmarks/gpu_attention.py [--tune] [--tuning FILE] [--json FILE] [--rehearse]

Checks plain, paged and shared decode in float32 and bfloat16 over several maps; ``--tune`` then times what a `Tuning` may hold and writes
the best of each shape to ``--tuning``, from where later runs take it; the table compares microseconds and achieved bandwidth. Every
contender runs in a CUDA graph over as many caches in turn as the L2 cannot hold, so that no launch from the host and no warm cache is in
the times; one column has the time of a call from Python. Needs a CUDA device, else says so and exits 2; ``--rehearse`` runs everything in
Triton's interpreter on tiny shapes, whose times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

if "--rehearse" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from dse_kernels import attention_triton as kernels
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Step = Callable[[int], object]
REHEARSE = "--rehearse" in sys.argv
DEVICE = "cpu" if REHEARSE else "cuda"
SHAPES = ((2, 20), (1, 12)) if REHEARSE else ((1, 1024), (8, 1024), (8, 8192), (64, 1024), (64, 4096))
D = 32 if REHEARSE else 128
UNEQUAL = [0] * 16 + [1] * 8 + [2] * 4 + [3] * 2 + [4, 5]
MAPS = {"32/8": [h // 4 for h in range(32)], "16-8-4-2-1-1": UNEQUAL, "32/1": [0] * 32, "32/32": list(range(32))}
PREFIX, PREFIX_ROWS = (32, (2,)) if REHEARSE else (1024, (8, 64))
PAGE = 4 if REHEARSE else 16
COLD_BYTES = 1.0 if REHEARSE else 256e6
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def main() -> int:
    """Check, tune, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write every time there")
    parser.add_argument("--tune", action="store_true", help="time what a tuning may hold")
    parser.add_argument("--tuning", type=Path, help="the best of each shape: written with --tune, else read where it exists")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU: shows that everything runs")
    parser.add_argument("--no-table", action="store_true", help="check and tune only")
    args = parser.parse_args()
    if not REHEARSE and not torch.cuda.is_available():
        print("no CUDA device: nothing is measured", file=sys.stderr)
        return 2
    name = "rehearsal" if REHEARSE else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, triton {kernels.triton.__version__}", flush=True)
    torch.manual_seed(0)
    check()
    best: dict[str, kernels.Tuning] = {}
    if args.tune:
        best = tune()
        if args.tuning:
            args.tuning.write_text(json.dumps({k: asdict(t) for k, t in best.items()}, indent=1), encoding="utf-8")
    elif args.tuning and args.tuning.is_file():
        best = {k: kernels.Tuning(**t) for k, t in json.loads(args.tuning.read_text(encoding="utf-8")).items()}
    if args.no_table:
        return 0
    results: dict[str, Any] = {"device": name, "torch": torch.__version__, "read_gb_s": read_rate() / 1e9, "rows": []}
    results["tuning"] = {k: asdict(t) for k, t in best.items()}
    print(f"bandwidth of a sum over 1 GB: {results['read_gb_s']:.0f} GB/s", flush=True)
    for title, owners in MAPS.items():
        for rows, tokens in SHAPES:
            if title not in ("32/8", "16-8-4-2-1-1") and (rows, tokens) not in SHAPES[1:4:2]:
                continue
            results["rows"] += measure(owners, title, rows, tokens, best)
    for rows in PREFIX_ROWS:
        results["rows"] += shared(rows, best)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Fresh random numbers on the device."""
    return torch.randn(*shape, device=DEVICE, dtype=torch.float32).to(dtype)


def check() -> None:
    """Compare with the numpy reference on the device; SystemExit where they differ."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        for owners in ([h // 4 for h in range(16)], UNEQUAL):
            check_one(owners, dtype, tolerance)


def check_one(owners: list[int], dtype: torch.dtype, tolerance: float) -> None:
    """One map and format: plain, paged, shared, untuned and twice tuned, each called twice."""
    from dse_kernels.attention_reference import decode_paged_reference, decode_reference, decode_shared_reference

    tokens, page = (40, 10) if REHEARSE else (1000, 100)
    owner, kv_heads = torch.tensor(owners), max(owners) + 1
    q = normal(3, len(owners), D, dtype=dtype)
    k, v = (normal(3, tokens, kv_heads, D, dtype=dtype) for _ in range(2))
    lengths = torch.tensor([tokens, 1, tokens // 2 + 13])
    count = 3 * tokens // page
    table = torch.randperm(count).view(3, -1)
    pages = [x.reshape(count, page, kv_heads, D) for x in (k, v)]
    prefix = [x[0, : 3 * page] for x in (k, v)]

    def plain(*tensors: torch.Tensor) -> list[Any]:
        return [x.float().cpu().numpy() for x in tensors]

    of = owner.numpy(), lengths.numpy()
    reference = {
        "decode": decode_reference(*plain(q, k, v), *of),
        "paged": decode_paged_reference(*plain(q, *pages), table.numpy(), lengths.numpy(), owner.numpy()),
        "shared": decode_shared_reference(*plain(q, *prefix, k, v), *of),
    }
    for tuning in (None, kernels.Tuning(stages=2, parts=5), kernels.Tuning(parts=3, block=32)):
        runs = {
            "decode": partial(kernels.decode, q, k, v, owner, lengths, tuning=tuning),
            "paged": partial(kernels.decode_paged, q, *pages, table.to(DEVICE), lengths, owner, tuning=tuning),
            "shared": partial(kernels.decode_shared, q, *prefix, k, v, owner, lengths, tuning=tuning),
        }
        for what, run in runs.items():
            worst = max(float((run().cpu() - torch.as_tensor(reference[what])).abs().max()) for _ in range(2))
            print(f"{what} {dtype} map of {len(owners)} heads, {tuning}: largest difference {worst:.1e}", flush=True)
            if not worst <= tolerance:
                raise SystemExit(f"{what} differs by {worst:.1e}, must be within {tolerance}")


def graph_us(step: Step, sets: int, replays: int = 20) -> float:
    """Median time of a call inside a CUDA graph of calls over ``sets`` inputs in turn, at least 10 of them."""
    calls = 1 if REHEARSE else max(sets, 10)
    if REHEARSE:
        start = time.perf_counter()
        for i in range(calls):
            step(i % sets)
        return (time.perf_counter() - start) * 1e6 / calls
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(min(sets, 3)):
            step(i)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            step(i % sets)
    graph.replay()
    times = []
    for _ in range(replays):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / calls)
    return statistics.median(times)


def call_us(step: Step, sets: int, calls: int = 60) -> float:
    """Time of a call from Python, by the host's clock over calls that follow one another."""
    calls = 1 if REHEARSE else calls
    for i in range(min(calls, 3)):
        step(i % sets)
    wait()
    start = time.perf_counter()
    for i in range(calls):
        step(i % sets)
    wait()
    return (time.perf_counter() - start) * 1e6 / calls


def wait() -> None:
    """Until the device is done."""
    if not REHEARSE:
        torch.cuda.synchronize()


def read_rate() -> float:
    """Bytes a second of a sum over what no cache holds."""
    big = normal(1 << (10 if REHEARSE else 29))
    return big.nbytes / (graph_us(lambda _: big.sum(), 1) * 1e-6)


class Caches:
    """Queries and caches of one shape, so many of them that the L2 holds none when its turn comes again."""

    def __init__(self, owners: Sequence[int], rows: int, tokens: int, sets: int = 0) -> None:
        self.owners, self.rows, self.tokens, self.kv_heads = owners, rows, tokens, max(owners) + 1
        self.bytes = 2 * rows * tokens * self.kv_heads * D * 2
        self.sets = sets or min(64, max(2, math.ceil(COLD_BYTES / self.bytes)))
        self.q = [normal(rows, len(owners), D) for _ in range(self.sets)]
        self.k = [normal(rows, tokens, self.kv_heads, D) for _ in range(self.sets)]
        self.v = [normal(rows, tokens, self.kv_heads, D) for _ in range(self.sets)]
        self.lengths = torch.full((rows,), tokens, dtype=torch.int32, device=DEVICE)

    def own(self, tuning: kernels.Tuning | None, overlap: bool = True) -> Step:
        """This kernel under a plan."""
        made = kernels.plan(torch.tensor(self.owners), self.rows, self.tokens, device=DEVICE, tuning=tuning)
        made = replace(made, overlap=made.overlap and overlap)
        return lambda i: kernels.run(made, self.q[i], self.k[i], self.v[i], self.lengths)

    def paged(self, tuning: kernels.Tuning | None) -> Step:
        """The same caches as pages in random order."""
        made = kernels.plan(torch.tensor(self.owners), self.rows, self.tokens, device=DEVICE, tuning=tuning)
        blocks = self.tokens // PAGE
        table = torch.randperm(self.rows * blocks).view(self.rows, blocks).to(DEVICE, torch.int32)
        pages = [[x.view(self.rows * blocks, PAGE, self.kv_heads, D) for x in of] for of in (self.k, self.v)]
        return lambda i: kernels.run_paged(made, self.q[i], pages[0][i], pages[1][i], table, self.lengths)


def tune() -> dict[str, kernels.Tuning]:
    """The fastest of a grid of tunings for each map and shape, the grid's times on the way."""
    grid = [kernels.Tuning(b, w, s) for b in (32, 64, 128) for w, s in ((2, 3), (4, 2), (4, 3), (4, 4), (8, 2), (8, 3))]
    parts = (1, 2, 3, 4, 6, 8, 12, 16, 32)
    if REHEARSE:
        grid, parts = [kernels.Tuning(16, 4, 2), kernels.Tuning(32, 4, 2)], (1, 2)
    if not REHEARSE:  # each compiles for a second: in processes, into Triton's cache
        with ProcessPoolExecutor(9, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(compile_some, [grid[i::9] for i in range(9)]))
    best: dict[str, kernels.Tuning] = {}
    for title, owners in MAPS.items():
        for rows, tokens in SHAPES:
            if title not in ("32/8", "16-8-4-2-1-1") and (rows, tokens) not in SHAPES[1:4:2]:
                continue
            caches = Caches(owners, rows, tokens)
            usual = kernels.plan(torch.tensor(owners), rows, tokens, device=DEVICE).own.tuning
            first, second = {}, {}
            for tuning in grid:  # blocks, warps and stages at the usual number of parts, then parts at the best three of those
                try:
                    first[tuning] = graph_us(caches.own(replace(tuning, parts=usual.parts)), caches.sets, 5)
                except Exception as error:  # noqa: BLE001 - too much shared memory, or the like: no candidate
                    print(f"  {tuning}: {type(error).__name__}: {str(error)[:80]}")
            for tuning in sorted(first, key=first.__getitem__)[:3]:
                for p in parts:
                    if p == 1 or rows * caches.kv_heads * p <= 132 * 12:
                        one = replace(tuning, parts=p)
                        second[one] = graph_us(caches.own(one), caches.sets, 8)
            order = sorted(second, key=second.__getitem__)
            best[f"{title} {rows} {tokens}"] = order[0]
            print(f"{title}, {rows} rows of {tokens}: " + ", ".join(f"{show_tuning(t)} {second[t]:.1f}" for t in order[:6]))
            alone = graph_us(caches.own(order[0], overlap=False), caches.sets, 8)
            print(f"    kernels one after the other {alone:.1f}; untuned ({show_tuning(usual)}) ", end="")
            print(f"{graph_us(caches.own(None), caches.sets, 8):.1f}", flush=True)
    for rows in PREFIX_ROWS:
        best[f"shared {rows}"] = tune_shared(rows)
    return best


def compile_some(tunings: Sequence[kernels.Tuning]) -> None:
    """Run each tuning once on a small cache, so that Triton keeps it compiled."""
    for owners in (MAPS["32/8"], MAPS["32/1"]):
        caches = Caches(owners, 2, 256, sets=1)
        for tuning in tunings:
            for parts in (1, 2):
                with contextlib.suppress(Exception):  # the sweep names it
                    caches.own(replace(tuning, parts=parts))(0)
    wait()


def show_tuning(tuning: kernels.Tuning) -> str:
    """A tuning in few letters: block x warps x stages / parts."""
    return f"{tuning.block}x{tuning.warps}x{tuning.stages}/{tuning.parts}"


def tune_shared(rows: int) -> kernels.Tuning:
    """The fastest tuning of the pass over a shared prefix."""
    grid = [kernels.Tuning(b, w, s, p) for b in (32, 64) for w in (4, 8) for s in (2, 3) for p in (2, 4, 8, 16)]
    if REHEARSE:
        grid = [kernels.Tuning(16, 4, 2, 2)]
    found = {}
    of = Shared(rows)
    for tuning in grid:
        try:
            found[tuning] = graph_us(of.own(tuning), of.sets, 5)
        except Exception as error:  # noqa: BLE001 - as above
            print(f"  {tuning}: {type(error).__name__}: {str(error)[:80]}")
    order = sorted(found, key=found.__getitem__)
    print(f"prefix shared by {rows}: " + ", ".join(f"{show_tuning(t)} {found[t]:.1f}" for t in order[:6]), flush=True)
    return order[0]


def show(title: str, times: dict[str, tuple[float, float]], moved_bytes: float) -> list[dict[str, Any]]:
    """Print one comparison and return its rows; ``times``: (in a graph, a call from Python) [us]."""
    print(title)
    own = next(iter(times.values()))[0]
    for label, (us, call) in times.items():
        print(f"  {us:9.1f} us  {moved_bytes / us / 1e3:7.0f} GB/s  {us / own:5.2f}x  a call {call:7.1f} us  {label}", flush=True)
    return [
        {"title": title, "contender": label, "us": us, "call_us": call, "gb_s": moved_bytes / us / 1e3}
        for label, (us, call) in times.items()
    ]


def contend(times: dict[str, tuple[float, float]], label: str, step: Step, sets: int, reference: torch.Tensor | None = None) -> None:
    """Time a contender; one that the device or the shape does not allow is named and left out, one that differs likewise."""
    try:
        found = step(0)
        if reference is not None:
            worst = float((found.reshape(reference.shape).float() - reference).abs().max())  # type: ignore[attr-defined]
            if not worst < 2e-2:
                raise RuntimeError(f"differs by {worst:.1e} from this kernel")
        times[label] = (graph_us(step, sets), call_us(step, sets))
    except Exception as error:  # noqa: BLE001 - a back end that refuses says so in many ways
        print(f"  {label}: not run ({type(error).__name__}: {' '.join(str(error).split())[:90]})")


def backed(backend: SDPBackend, step: Step) -> Step:
    """A step under one back end of SDPA."""

    def run(i: int) -> object:
        with sdpa_kernel(backend):
            return step(i)

    return run


def measure(owners: list[int], title: str, rows: int, tokens: int, best: dict[str, kernels.Tuning]) -> list[dict[str, Any]]:
    """Decode against SDPA (its back ends; heads shared where groups are equal, gathered or repeated where not) and FlashInfer."""
    of = Caches(owners, rows, tokens)
    group, sets = len(owners) // of.kv_heads, of.sets
    equal = owners == [h // group for h in range(len(owners))]
    tuning = best.get(f"{title} {rows} {tokens}")
    times: dict[str, tuple[float, float]] = {}
    contend(times, "this kernel", of.own(tuning), sets)
    if tuning:
        contend(times, "this kernel, untuned", of.own(None), sets)
    reference = of.own(tuning)(0).float()  # type: ignore[attr-defined]
    contend(times, f"this kernel, random pages of {PAGE}", of.paged(tuning), sets)
    kt, vt = ([x.transpose(1, 2) for x in xs] for xs in (of.k, of.v))
    sdpa, on = functional.scaled_dot_product_attention, torch.tensor(owners, device=DEVICE)
    for name, backend in BACKENDS.items():
        if name == "math" and of.bytes > 1.2e8:
            continue  # it writes heads out and needs many times the time
        if equal:
            as_queries = backed(backend, lambda i: sdpa(of.q[i].view(rows, of.kv_heads, group, D), kt[i], vt[i]))
            contend(times, f"SDPA {name}, group as queries", as_queries, sets, reference)
            shared_heads = backed(backend, lambda i: sdpa(of.q[i][:, :, None], kt[i], vt[i], enable_gqa=group > 1))
            if group > 1:
                contend(times, f"SDPA {name}, enable_gqa", shared_heads, sets, reference)
        else:
            contend(
                times,
                f"SDPA {name}, heads gathered",
                backed(backend, lambda i: sdpa(of.q[i][:, :, None], kt[i][:, on], vt[i][:, on])),
                sets,
                reference,
            )
    if of.bytes < 1.2e8 and not (equal and group == 1):
        few = min(sets, 8)
        kr, vr = ([x[:, on].contiguous() for x in xs[:few]] for xs in (kt, vt))
        contend(
            times,
            "SDPA flash, heads repeated beforehand",
            backed(BACKENDS["flash"], lambda i: sdpa(of.q[i % few][:, :, None], kr[i % few], vr[i % few])),
            sets,
        )
        del kr, vr
    if equal and importlib.util.find_spec("flashinfer") and not REHEARSE:
        for cores in (False, True):
            label = f"FlashInfer, pages of {PAGE}" + (", tensor cores" if cores else "")
            try:
                contend(times, label, flashinfer_decode(of, cores), sets, reference)
            except Exception as error:  # noqa: BLE001 - its compiler may fail
                print(f"  {label}: not run ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
    return show(f"map {title}, {rows} rows, {tokens} tokens, bfloat16", times, float(of.bytes))


def flashinfer_decode(of: Caches, cores: bool) -> Step:
    """FlashInfer's batched decode over the same caches as pages."""
    import flashinfer

    blocks = of.tokens // PAGE
    on = {"dtype": torch.int32, "device": DEVICE}
    bounds = torch.arange(of.rows + 1, **on) * blocks
    indices, last = torch.arange(of.rows * blocks, **on), torch.full((of.rows,), PAGE, **on)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.zeros(256 * 2**20, dtype=torch.uint8, device=DEVICE), "NHD", use_cuda_graph=True, use_tensor_cores=cores,
        paged_kv_indptr_buffer=bounds.clone(), paged_kv_indices_buffer=indices.clone(), paged_kv_last_page_len_buffer=last.clone(),
    )  # fmt: skip
    wrapper.plan(bounds, indices, last, len(of.owners), of.kv_heads, D, PAGE, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
    pages = [tuple(x.view(of.rows * blocks, PAGE, of.kv_heads, D) for x in pair) for pair in zip(of.k, of.v, strict=True)]
    return lambda i: wrapper.run(of.q[i], pages[i])


class Shared:
    """A prefix that all rows share and 16 tokens of each row's own, and the same unshared."""

    OWN = 16

    def __init__(self, rows: int) -> None:
        self.rows, self.sets = rows, 2 if REHEARSE else max(2, math.ceil(COLD_BYTES / (4 * 8 * D * (PREFIX + rows * self.OWN))))
        self.sets = min(self.sets, 40)
        self.owner = torch.tensor([h // 4 for h in range(32)])
        self.q = [normal(rows, 32, D) for _ in range(self.sets)]
        self.prefix = [[normal(PREFIX, 8, D) for _ in range(self.sets)] for _ in range(2)]
        self.rest = [[normal(rows, self.OWN, 8, D) for _ in range(self.sets)] for _ in range(2)]
        self.lengths = torch.full((rows,), self.OWN, dtype=torch.int32, device=DEVICE)

    def own(self, tuning: kernels.Tuning | None) -> Step:
        """The kernel for a shared prefix."""
        made = kernels.plan(self.owner, self.rows, self.OWN, device=DEVICE, prefix=PREFIX, prefix_tuning=tuning)
        return lambda i: kernels.run_shared(
            made, self.q[i], self.prefix[0][i], self.prefix[1][i], self.rest[0][i], self.rest[1][i], self.lengths
        )


def shared(rows: int, best: dict[str, kernels.Tuning]) -> list[dict[str, Any]]:
    """A shared prefix against the unshared kernel, and SDPA on stacked queries, which leaves out the rows' own tokens and the merge."""
    of = Shared(rows)
    few = min(of.sets, 4)
    whole = [
        [torch.cat([p.expand(rows, -1, -1, -1), x], dim=1) for p, x in zip(of.prefix[j][:few], of.rest[j][:few], strict=True)]
        for j in range(2)
    ]
    full = torch.full((rows,), PREFIX + of.OWN, dtype=torch.int32, device=DEVICE)
    unshared = kernels.plan(of.owner, rows, PREFIX + of.OWN, device=DEVICE, tuning=best.get(f"32/8 {rows} {PREFIX}"))
    stacked = [q.view(rows, 8, 4, D).transpose(0, 1).reshape(1, 8, rows * 4, D) for q in of.q]
    kt, vt = ([x.transpose(0, 1)[None] for x in of.prefix[j]] for j in range(2))
    own = of.own(best.get(f"shared {rows}"))
    plain: Step = lambda i: kernels.run(unshared, of.q[i % few], whole[0][i % few], whole[1][i % few], full)  # noqa: E731
    times: dict[str, tuple[float, float]] = {}
    contend(times, "shared kernel", own, of.sets, plain(0).float())  # type: ignore[attr-defined]
    if f"shared {rows}" in best:
        contend(times, "shared kernel, untuned", of.own(None), of.sets, plain(0).float())  # type: ignore[attr-defined]
    contend(times, "unshared kernel", plain, of.sets)
    for name, backend in BACKENDS.items():
        step = backed(backend, lambda i: functional.scaled_dot_product_attention(stacked[i], kt[i], vt[i]))
        contend(times, f"SDPA {name} on stacked queries (prefix alone)", step, of.sets)
    return show(f"prefix of {PREFIX} shared by {rows}, bfloat16", times, 4.0 * PREFIX * 8 * D + of.rest[0][0].nbytes * 2)


if __name__ == "__main__":
    sys.exit(main())
