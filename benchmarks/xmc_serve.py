"""`dse xmc serve` under an offered rate: queries that come when they come, a restart in the middle, and every answer counted.

    python benchmarks/xmc_serve.py [--requests 100000] [--rate 1000] [--bound-ms 50] [--labels 10000] [--clients 64] [--json FILE]

Queries arrive by a Poisson process of the given rate, whatever the server does (an open loop); each takes a free connection of the
pool, and its latency counts from the moment it was due, waiting for a connection included. Half-way a second server starts on the same
port and the first is told to end (SIGTERM). A connection that a server closes while a query is on it costs that query another attempt,
on a new connection; a query is lost if no answer comes. The client is one process, the server another; both share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from dse_kernels.xmc_layout import to_file

from workloads.xmc import generator

ATTEMPTS = 20


def start(model: Path, bound_ms: float, port: int) -> tuple[subprocess.Popen[str], int]:
    """A server that listens, and its port."""
    command = [sys.executable, "-m", "dse", "xmc", "serve", str(model), "--bound-ms", str(bound_ms), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    found = re.search(r":(\d+)$", server.stderr.readline().strip())
    assert found
    return server, int(found[1])


def account(port: int) -> dict[str, float]:
    """What the server itself tells: quantiles of its last 10,000 latencies [ms], from arrival to answer, and all above the bound."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    held = {f"p{float(q) * 100:g}_ms": float(s) * 1e3 for q, s in re.findall(r'latency_seconds{quantile="([\d.]+)"} (\S+)', told)}
    return {**held, "over_bound": float(re.findall(r"over_bound_total (\d+)", told)[-1])}


class Client:
    """A pool of connections to one port, and what happened on them."""

    def __init__(self, port: int, size: int) -> None:
        self.port = port
        self.free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(size):
            self.free.put_nowait(None)
        self.spent: list[float] = []
        self.lost: list[str] = []
        self.renewed = 0

    async def ask(self, body: bytes, due: float) -> None:
        """One query, as often as it takes."""
        connection = await self.free.get()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for attempt in range(ATTEMPTS):
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = connection
                writer.write(head + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?i)content-length: (\d+)", answer)
                held = json.loads(await reader.readexactly(int(length[1]) if length else 0))
                self.spent.append(time.perf_counter() - due)
                if " 200 " not in answer.split("\r\n", 1)[0] or not held["labels"]:
                    self.lost.append(answer.split("\r\n", 1)[0])
                if "connection: close" in answer.lower():
                    writer.close()
                    connection = None
                break
            except (OSError, EOFError):
                self.renewed += 1
                if connection is not None:
                    connection[1].close()
                connection = None
                await asyncio.sleep(0.005 * attempt)
        else:
            self.lost.append("no answer")
        self.free.put_nowait(connection)


async def offer(client: Client, bodies: list[bytes], rate: float, requests: int, halfway: Any) -> float:
    """Send queries when they are due; returns the seconds that it took."""
    due = np.cumsum(np.random.default_rng(0).exponential(1.0 / rate, requests))
    begin = time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()
    swap = None
    for number, at in enumerate(due):
        if number == requests // 2:
            swap = asyncio.create_task(halfway())
        wait = begin + at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(client.ask(bodies[number % len(bodies)], begin + at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.wait(set(tasks))
    spent = time.perf_counter() - begin
    assert swap is not None
    await swap
    return spent


def serve(labels: int, requests: int, rate: float, bound_ms: float, clients: int, folder: Path) -> dict[str, Any]:
    """The record of one run."""
    shape = generator.Shape(labels)
    model = folder / "tree.xmc"
    to_file(model, *generator.sources(shape), shape.features, shape.labels)
    queries = generator.queries(shape, 2000)
    edges = queries.indptr
    rows = [(queries.indices[a:b].tolist(), queries.data[a:b].tolist()) for a, b in itertools.pairwise(edges)]
    bodies = [json.dumps({"indices": i, "values": v, "topk": 10}).encode() for i, v in rows]
    first, port = start(model, bound_ms, 8765)
    client = Client(port, clients)
    ended: list[int] = []
    second: list[subprocess.Popen[str]] = []

    async def halfway() -> None:
        server, _ = await asyncio.to_thread(start, model, bound_ms, port)
        second.append(server)
        first.send_signal(signal.SIGTERM)
        ended.append(await asyncio.to_thread(first.wait, 60))

    wall = asyncio.run(offer(client, bodies, rate, requests, halfway))
    inside = account(port)
    second[0].send_signal(signal.SIGTERM)
    ended.append(second[0].wait(60))
    told = [server.stderr.read().strip().splitlines()[-1] for server in (first, *second) if server.stderr is not None]
    p50, p99, p999 = (float(np.percentile(client.spent, q)) * 1e3 for q in (50, 99, 99.9))
    return {
        "labels": labels,
        "requests": requests,
        "offered_per_s": rate,
        "answered_per_s": len(client.spent) / wall,
        "answered": len(client.spent),
        "lost": len(client.lost),
        "connections_renewed": client.renewed,
        "exit_codes": ended,
        "servers": told,
        "bound_ms": bound_ms,
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "largest_ms": max(client.spent) * 1e3,
        "second_server_itself": inside,
        "load_average": os.getloadavg()[0],
    }


def main() -> int:
    """Run and print the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="queries a second")
    parser.add_argument("--bound-ms", type=float, default=50.0)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64, help="connections at most")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dse-xmc-") as folder:
        record = serve(args.labels, args.requests, args.rate, args.bound_ms, args.clients, Path(folder))
    print(json.dumps(record, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
