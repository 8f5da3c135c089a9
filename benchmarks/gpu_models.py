"""Models, products and attention measured on a GPU: times and energy that the hardware models are held to and that nothing is fitted to.

    python benchmarks/gpu_models.py --out ROWS.csv [--parts idle,host,products,attention,bert,llama] [--first OTHER.csv] [--rehearse]

Plain torch with random weights: a Llama-3-8B-shaped decoder (prompts, and decode steps over a full cache) and a BERT-large-shaped
encoder, eager and in a CUDA graph; products by cuBLAS in a graph over 6 copies of their operands; attention by SDPA's FlashAttention in a
graph over as many caches in turn as the L2 cannot hold. Energy is the board's own counter (NVML) over seconds of work. In the decoder's
graph the rotation and the gated activation are one Triton kernel each, as serving engines have them; eagerly they are torch calls.
``--first`` puts the time of the same row of an earlier run beside it. ``--rehearse`` runs tiny shapes on the CPU.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_torch_models import DECODER, DEVICE, ENCODER, REHEARSE, Bert, Llama, normal
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

COLD_BYTES = 1e6 if REHEARSE else 256e6
ENERGY_S = 0.2 if REHEARSE else 2.5
FIELDS = (
    "what", "model", "method", "batch", "queries", "keys", "heads", "kv_heads", "head_elements", "m", "n", "k", "latency_us", "first_us",
    "sustained_us", "energy_j", "power_w", "sm_mhz", "temperature_c", "card", "driver", "torch", "date",
)  # fmt: skip
Step = Callable[[int], Any]


class Board:
    """The board's counters through NVML; without one (rehearsal) everything reads 0."""

    def __init__(self) -> None:
        self.handle: Any = None
        if not REHEARSE:
            import pynvml

            self.nvml = pynvml
            pynvml.nvmlInit()
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def energy_j(self) -> float:
        """Energy since the driver was loaded; it moves in steps."""
        return 1e-3 * float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) if self.handle else time.perf_counter()

    def state(self) -> tuple[float, float, float]:
        """Power [W], SM clock [MHz], temperature [C] now."""
        if not self.handle:
            return 0.0, 0.0, 0.0
        return (
            1e-3 * self.nvml.nvmlDeviceGetPowerUsage(self.handle),
            float(self.nvml.nvmlDeviceGetClockInfo(self.handle, self.nvml.NVML_CLOCK_SM)),
            float(self.nvml.nvmlDeviceGetTemperature(self.handle, self.nvml.NVML_TEMPERATURE_GPU)),
        )

    def words(self) -> dict[str, str]:
        """Names and limits, for the record."""
        if not self.handle:
            return {"card": "rehearsal"}
        n, h = self.nvml, self.handle
        found = {"card": n.nvmlDeviceGetName(h), "driver": n.nvmlSystemGetDriverVersion()}
        for name, call in {
            "limit_w": lambda: n.nvmlDeviceGetPowerManagementLimit(h) / 1e3,
            "most_sm_mhz": lambda: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM),
            "memory_mhz": lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM),
            "persistence": lambda: n.nvmlDeviceGetPersistenceMode(h),
            "throttle": lambda: hex(n.nvmlDeviceGetCurrentClocksThrottleReasons(h)),
        }.items():
            try:
                found[name] = str(call())
            except Exception as error:  # noqa: BLE001 - a counter that this board lacks
                found[name] = f"not read: {error}"
        return found

    def over(self, work: Callable[[], None], seconds: float = ENERGY_S) -> dict[str, float]:
        """Mean power, clock, temperature and the calls of ``work`` in ``seconds``; ``work`` ends when the device is done."""
        work()
        seen: list[tuple[float, float, float]] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.05):
                seen.append(self.state())

        before = first = self.energy_j()
        limit = time.perf_counter() + 1.0
        while first == before and time.perf_counter() < limit:  # begin and end on a step of the counter
            work()
            first = self.energy_j()
        thread = threading.Thread(target=watch)
        thread.start()
        begin, calls = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            work()
            calls += 1
        last = energy = self.energy_j()
        limit = time.perf_counter() + 1.0
        while energy == last and time.perf_counter() < limit:
            work()
            calls += 1
            energy = self.energy_j()
        spent = time.perf_counter() - begin
        stop.set()
        thread.join()
        each = list(zip(*(seen or [(0.0, 0.0, 0.0)]), strict=True))
        return {
            "power_w": (energy - first) / spent, "energy_j": (energy - first) / calls, "latency_us": 1e6 * spent / calls,
            "sm_mhz": statistics.median(each[1]), "temperature_c": each[2][-1],
        }  # fmt: skip


def wait() -> None:
    """Until the device is done."""
    if not REHEARSE:
        torch.cuda.synchronize()


def recorded(step: Step, calls: int) -> Callable[[], None]:
    """A graph of ``calls`` calls; replaying it does not wait."""
    if REHEARSE:
        return lambda: [step(i) for i in range(calls)] and None
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(min(calls, 2)):
            step(i)
    torch.cuda.current_stream().wait_stream(side)
    wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            step(i)
    return graph.replay


def events_us(run: Callable[[], Any], repeats: int = 15) -> float:
    """Median time of a call on the device, after two that warm up; the host's clock in a rehearsal."""
    run()
    run()
    wait()
    times = []
    for _ in range(2 if REHEARSE else repeats):
        if REHEARSE:
            start = time.perf_counter()
            run()
            times.append(1e6 * (time.perf_counter() - start))
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        wait()
        times.append(1e3 * begin.elapsed_time(end))
    return statistics.median(times)


def copies(size: float) -> int:
    """Operands of ``size`` bytes in turn that the L2 cannot hold."""
    return int(min(64, max(10, math.ceil(COLD_BYTES / size))))


def llama(board: Board, note: Callable[..., None]) -> None:
    """Prompts and decode steps."""
    model = Llama(DECODER)
    s = model.size
    for batch, tokens in ((1, 8), (2, 16)) if REHEARSE else ((1, 128), (1, 512), (1, 2048), (4, 1024), (1, 8192)):
        words = torch.randint(s.words, (batch, tokens), device=DEVICE)
        rotation, cache = model.rotation(torch.arange(tokens, device=DEVICE)), model.cache(batch, tokens)
        shape = {"batch": batch, "queries": tokens, "keys": tokens, "model": "llama3-8b"}
        for fused in (False, True):
            model.fused = fused and not REHEARSE
            step: Step = lambda _: model.forward(words, cache, rotation, None)  # noqa: B023, E731
            if not fused:
                note("prefill", "eager", events_us(lambda: step(0), 8), {}, **shape)  # noqa: B023
                continue
            run = recorded(step, 1)
            us = events_us(run, 10)
            note("prefill", "graph", us, energy(board, run, us), **shape)
    for batch, context in ((1, 32), (2, 32)) if REHEARSE else ((1, 1024), (8, 1024), (64, 1024), (16, 4096)):
        words = torch.randint(s.words, (batch, 1), device=DEVICE)
        rotation, cache = model.rotation(torch.tensor([context - 1], device=DEVICE)), model.cache(batch, context)
        step = lambda _: model.forward(words, cache, rotation, context - 1)  # noqa: B023, E731
        shape = {"batch": batch, "queries": 1, "keys": context, "model": "llama3-8b"}
        model.fused, model.attend = False, None
        note("decode", "eager", events_us(lambda: step(0), 8), {}, **shape)  # noqa: B023
        model.fused = not REHEARSE
        run = recorded(step, 1)
        us = events_us(run)
        note("decode", "graph", us, energy(board, run, us), **shape)
        first = step(0).float()
        try:
            from dse_kernels import attention_triton as kernels

            plan = kernels.plan(torch.tensor([h * s.kv_heads // s.heads for h in range(s.heads)]), batch, context, device=DEVICE)
            lengths = torch.full((batch,), context, dtype=torch.int32, device=DEVICE)
            model.attend = lambda q, k, v: kernels.run(plan, q, k, v, lengths)  # noqa: B023
            off = float((step(0).float() - first).abs().max() / first.abs().max())
            print(f"  logits with our attention differ by {off:.1e} of the largest", flush=True)
            run = recorded(step, 1)
            us = events_us(run)
            note("decode", "graph, Triton attention", us, energy(board, run, us), **shape)
        except Exception as error:  # noqa: BLE001 - the other rows stand without it
            print(f"  Triton attention: {type(error).__name__}: {error}", flush=True)
        model.attend = None


def energy(board: Board, run: Callable[[], None], us: float, seconds: float = ENERGY_S) -> dict[str, float]:
    """Energy of a call over seconds of calls, some 20 ms of them between looks at the clock."""
    many = max(1, round(2e4 / us))

    def work() -> None:
        for _ in range(many):
            run()
        wait()

    found = board.over(work, seconds)
    return {**found, "energy_j": found["energy_j"] / many, "latency_us": found["latency_us"] / many}


def bert(board: Board, note: Callable[..., None]) -> None:
    """Forward passes."""
    model = Bert(ENCODER)
    for batch, tokens in [(b, t) for t in ((16,) if REHEARSE else (128, 384)) for b in ((1, 2) if REHEARSE else (1, 8, 32))]:
        words = torch.randint(model.size.words, (batch, tokens), device=DEVICE)
        shape = {"batch": batch, "queries": tokens, "keys": tokens, "model": "bert-large"}
        step: Step = lambda _: model.forward(words)  # noqa: B023, E731
        note("encode", "eager", events_us(lambda: step(0)), {}, **shape)  # noqa: B023
        run = recorded(step, 1)
        us = events_us(run)
        note("encode", "graph", us, energy(board, run, us, ENERGY_S / 2), **shape)


COPIES = 6  # of the operands of a product, as the list of products of `dse evaluate --gemms` is costed
CALLS = 4 * COPIES  # in one graph
PRODUCT_SHAPES = [
    (m, n, k)
    for m in (1, 8, 32, 64, 200, 512, 2048, 8192)
    for n, k in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (3072, 1024), (1024, 4096), (2560, 2560), (11008, 4096))
    if not (m == 8192 and n == 11008)
]


def products(board: Board, note: Callable[..., None]) -> None:
    """bfloat16 products by cuBLAS over a few copies of operands in turn; the energy of some."""
    shapes = [(4, 64, 64), (16, 64, 128)] if REHEARSE else PRODUCT_SHAPES
    for m, n, k in shapes:
        sets = COPIES
        a, w = [normal(m, k) for _ in range(sets)], [normal(n, k) for _ in range(sets)]
        out = torch.empty(m, n, device=DEVICE, dtype=torch.bfloat16)
        run = recorded(lambda i: torch.mm(a[i % sets], w[i % sets].t(), out=out), CALLS)  # noqa: B023
        us = events_us(run) / CALLS
        far = {}
        if (m, n, k) in ((8192, 28672, 4096), (2048, 4096, 14336), (8, 28672, 4096), (1, 4096, 14336)):
            found = energy(board, run, us * CALLS, ENERGY_S / 1.25)
            far = {**found, "energy_j": found["energy_j"] / CALLS, "latency_us": found["latency_us"] / CALLS}
        note("product", "graph", us, far, m=m, n=n, k=k)


def attention(board: Board, note: Callable[..., None]) -> None:
    """Prompts and decode steps of FlashAttention through SDPA, caches cold; heads of a group as queries in decode."""
    sdpa = functional.scaled_dot_product_attention
    prompts = [
        (b, t, h, kv, d) for b, t in ((1, 512), (1, 2048), (4, 1024), (1, 8192), (8, 512)) for h, kv, d in ((32, 8, 128), (16, 16, 64))
    ]
    steps = [
        (b, t, h, kv) for b, t in ((1, 2048), (8, 1024), (8, 4096), (64, 1024), (32, 3000), (128, 512)) for h, kv in ((32, 8), (32, 32))
    ]
    if REHEARSE:
        prompts, steps = [(1, 16, 4, 2, 16)], [(2, 16, 4, 2)]
    backends = [SDPBackend.FLASH_ATTENTION, *([SDPBackend.MATH] if REHEARSE else [])]
    with sdpa_kernel(backends):
        for b, t, h, kv, d in prompts:
            sets = copies(2.0 * b * t * d * (2 * h + 2 * kv))
            of = [[normal(b, count, t, d) for count in (h, kv, kv)] for _ in range(sets)]
            run = recorded(lambda i: sdpa(*of[i % sets], is_causal=True, enable_gqa=h != kv), sets)  # noqa: B023
            note("prefill attention", "graph", events_us(run) / sets, {}, batch=b, queries=t, keys=t, heads=h, kv_heads=kv, head_elements=d)
        for b, t, h, kv in steps:
            d = 128
            sets = copies(4.0 * b * t * kv * d)
            if sets * 4.0 * b * t * kv * d > 12e9:
                sets = max(2, int(12e9 / (4.0 * b * t * kv * d)))
            q = [normal(b, kv, h // kv, d) for _ in range(sets)]
            of = [[normal(b, t, kv, d).transpose(1, 2) for _ in range(2)] for _ in range(sets)]
            run = recorded(lambda i: sdpa(q[i % sets], *of[i % sets]), sets)  # noqa: B023
            note("decode attention", "graph", events_us(run) / sets, {}, batch=b, queries=1, keys=t, heads=h, kv_heads=kv, head_elements=d)


def idle(board: Board, note: Callable[..., None]) -> None:
    """Power with a context that runs nothing, some seconds and longer after work."""
    normal(64, 64) @ normal(64, 64)
    wait()
    for seconds in (0.1,) if REHEARSE else (4, 15):
        time.sleep(seconds)
        found = board.over(lambda: time.sleep(0.02), 0.1 if REHEARSE else 3.0)
        still = {k: v for k, v in found.items() if k not in ("latency_us", "energy_j")}
        note("idle", f"context open, {seconds} s without work", 0.0, still)


def host(board: Board, note: Callable[..., None]) -> None:
    """What the host takes to issue a call: small calls that follow one another, by its clock."""
    x, w, q = normal(16, 64), normal(64, 64), normal(1, 4, 16, 64)
    for name, call in {
        "softmax": lambda: torch.softmax(x, -1), "linear": lambda: functional.linear(x, w), "add": lambda: x + x,
        "sdpa": lambda: functional.scaled_dot_product_attention(q, q, q), "layer_norm": lambda: functional.layer_norm(x, (64,)),
    }.items():  # fmt: skip
        for _ in range(50):
            call()
        wait()
        start, calls = time.perf_counter(), 20 if REHEARSE else 1500
        for _ in range(calls):
            call()
        us = 1e6 * (time.perf_counter() - start) / calls
        wait()
        note("call", f"eager, {name}", us, {})


PARTS = {"idle": idle, "host": host, "products": products, "attention": attention, "bert": bert, "llama": llama}


SHAPE = FIELDS[: FIELDS.index("latency_us")]


def text(value: object) -> str:
    """A field of a row."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Measure the parts that are asked for, writing rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=Path, metavar="CSV", help="rows of an earlier run, whose times are put beside these")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU: shows that everything runs")
    args = parser.parse_args()
    board = Board()
    before = board.over(lambda: time.sleep(0.02), 0.1 if REHEARSE else 2.0)  # torch has opened no context yet
    if not REHEARSE and not torch.cuda.is_available():
        print("no CUDA device: nothing is measured", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    found = board.words()
    print(found, flush=True)
    head = {"card": found["card"], "driver": found.get("driver", ""), "torch": torch.__version__, "date": f"{datetime.date.today()}"}
    start = time.perf_counter()

    earlier: dict[tuple[str, ...], str] = {}
    if args.first:
        with args.first.open(newline="", encoding="utf-8") as file:
            earlier = {tuple(r[f] for f in SHAPE): r["latency_us"] for r in csv.DictReader(file)}

    def note(what: str, method: str, us: float, more: dict[str, float], **shape: Any) -> None:
        # What the board did for seconds is what its energy belongs to; the median of single calls stays the time.
        power = {("sustained_us" if name == "latency_us" else name): value for name, value in more.items()}
        row = {"what": what, "method": method, "latency_us": us, **shape, **power}
        row["first_us"] = earlier.get(tuple(str(row.get(f, "")) for f in SHAPE), "")
        rows.append(row)
        print(f"{time.perf_counter() - start:5.0f} s  " + "  ".join(f"{name}={text(x)}" for name, x in row.items()), flush=True)
        with args.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**{name: text(x) for name, x in r.items()}, **head} for r in rows)

    note("idle", "no context", 0.0, {k: v for k, v in before.items() if k not in ("latency_us", "energy_j")})
    torch.manual_seed(0)
    with torch.inference_mode():
        for part in args.parts.split(","):
            try:
                PARTS[part](board, note)
            except Exception as error:  # noqa: BLE001 - the other parts are still worth their time
                print(f"{part}: {type(error).__name__}: {error}", flush=True)
            if not REHEARSE:
                torch.cuda.empty_cache()
    print(board.words(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
