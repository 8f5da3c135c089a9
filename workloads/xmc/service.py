"""A tree behind HTTP: queries that arrive together are answered as one batch, under a bound on their latency.

    POST /predict   {"text": "..."} or {"indices": [...], "values": [...]}, "topk" at most the server's
                    ->  {"labels": [...], "scores": [...]}
    GET  /health    200 while queries are taken, 503 while the server drains
    GET  /metrics   Prometheus text: counts, batches, latency quantiles of the last 10,000 queries

SIGTERM closes the door, answers what was accepted and what still comes over open connections (with `Connection: close`), and ends when
nothing has come for half a second. The server is tornado's.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from workloads.xmc.errors import XmcError
from workloads.xmc.folder import Model

REMEDY = "pip install 'dse-toolkit[xmc]'"
REMEMBERED = 10_000  # latencies that the quantiles are taken of
QUIET_S = 0.5  # without a request, after which a draining server ends
GATHERED_SHARE = 0.1  # of the bound that the first query of a batch waits for others


@dataclass(frozen=True)
class Settings:
    """Where to listen (``port`` 0: any), the latency bound [s], queries of a batch at most, beam, labels and threads."""

    host: str
    port: int
    bound_s: float
    max_batch: int
    beam: int
    topk: int
    threads: int


@dataclass
class Batcher:
    """Queries into batches: a batch starts when it is full or when its first query has waited its share of the bound, never while
    another one runs."""

    model: Model
    settings: Settings
    answered: int = 0
    refused: int = 0
    batches: int = 0
    over_bound: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def __post_init__(self) -> None:
        self._queue: asyncio.Queue[tuple[np.ndarray, np.ndarray, asyncio.Future[Any], float]] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(1)
        self.pending = 0
        self.last = time.perf_counter()

    def parse(self, body: bytes) -> tuple[np.ndarray, np.ndarray, int]:
        """Indices, values and topk of a request. Raises XmcError in one sentence."""
        try:
            held = json.loads(body)
        except (ValueError, RecursionError):
            raise XmcError("the body is not JSON") from None
        if not isinstance(held, dict):
            raise XmcError("the body is not a JSON object")
        topk = held.get("topk", self.settings.topk)
        if isinstance(topk, bool) or not isinstance(topk, int) or not 1 <= topk <= self.settings.topk:
            raise XmcError(f"topk is not an integer in 1..{self.settings.topk}")
        if "text" in held:
            if not isinstance(held["text"], str):
                raise XmcError("text is not a string")
            row = self.model.features_of([held["text"]])
            return row.indices.astype(np.int32), row.data.astype(np.float32), topk
        try:
            indices = np.asarray(held["indices"])
            values = np.asarray(held["values"], dtype=np.float32)
        except (KeyError, ValueError, TypeError, OverflowError):
            raise XmcError("the body needs text, or indices and values as arrays of numbers") from None
        features = self.model.tree.features
        if indices.size == 0:
            indices = np.zeros(0, np.int64)
        if indices.ndim != 1 or values.shape != indices.shape or indices.dtype.kind not in "iu":
            raise XmcError("indices and values are arrays of one length, of integers and of numbers")
        if indices.size and (indices.min() < 0 or indices.max() >= features or (np.diff(indices) <= 0).any()):
            raise XmcError(f"indices are ascending, distinct and in 0..{features - 1}")
        if not np.isfinite(values).all():
            raise XmcError("values holds a number that is not finite")
        return indices.astype(np.int32), values, topk

    async def answer(self, body: bytes) -> dict[str, Any]:
        """The answer of one request."""
        self.last = begin = time.perf_counter()
        indices, values, topk = self.parse(body)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending += 1
        try:
            await self._queue.put((indices, values, future, begin))
            labels, scores = await future
        finally:
            self.pending -= 1
        spent = time.perf_counter() - begin
        self.answered += 1
        self.latencies.append(spent)
        self.over_bound += spent > self.settings.bound_s
        kept = labels[:topk][labels[:topk] >= 0]
        return {"labels": [self.model.name_of(int(i)) for i in kept], "scores": [float(s) for s in scores[: kept.size]]}

    async def run(self) -> None:
        """Take queries and answer them, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            until = batch[0][3] + GATHERED_SHARE * self.settings.bound_s
            while len(batch) < self.settings.max_batch:
                if not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                    continue
                # Others that are on their way come in within the wait; with nobody else pending there is nothing to wait for.
                left = until - time.perf_counter()
                if left <= 0 or self.pending <= len(batch):
                    break
                await asyncio.sleep(min(left, 0.0002))
            self.batches += 1
            try:
                labels, scores = await loop.run_in_executor(self._pool, self._predict, batch)
            except (XmcError, ValueError, MemoryError) as error:
                for *_, future, _ in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for i, (*_, future, _) in enumerate(batch):
                if not future.done():  # its client may have gone
                    future.set_result((labels[i], scores[i]))

    def _predict(self, batch: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        indptr = np.concatenate([[0], np.cumsum([entry[0].size for entry in batch])])
        parts = (np.concatenate([entry[1] for entry in batch]), np.concatenate([entry[0] for entry in batch]), indptr)
        queries = sparse.csr_matrix(parts, shape=(len(batch), self.model.tree.features))
        return self.model.tree.predict(queries, self.settings.beam, self.settings.topk, self.settings.threads)

    def metrics(self) -> str:
        """Prometheus text (format 0.0.4)."""
        held = np.array(self.latencies) if self.latencies else np.zeros(1)
        lines = ["# HELP dse_xmc_latency_seconds Time of a query in the server.", "# TYPE dse_xmc_latency_seconds summary"]
        lines += [f'dse_xmc_latency_seconds{{quantile="{q}"}} {np.quantile(held, q):.9f}' for q in (0.5, 0.9, 0.99, 0.999)]
        lines += [f"dse_xmc_latency_seconds_count {self.answered}"]
        for name, text, value in (
            ("answered", "Queries that were answered.", self.answered),
            ("refused", "Requests that were refused as malformed.", self.refused),
            ("batches", "Batches that were computed.", self.batches),
            ("over_bound", "Queries that took longer than the bound.", self.over_bound),
        ):
            lines += [f"# HELP dse_xmc_{name}_total {text}", f"# TYPE dse_xmc_{name}_total counter", f"dse_xmc_{name}_total {value}"]
        lines += ["# TYPE dse_xmc_pending gauge", f"dse_xmc_pending {self.pending}"]
        lines += ["# TYPE dse_xmc_bound_seconds gauge", f"dse_xmc_bound_seconds {self.settings.bound_s:.9f}"]
        return "\n".join(lines) + "\n"


def serve(model: Model, settings: Settings, tell: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit code."""
    try:
        import tornado.httpserver
        import tornado.web
    except ImportError:
        raise XmcError(f"tornado is needed to serve: {REMEDY}") from None
    state = {"draining": False}

    class Handler(tornado.web.RequestHandler):
        def write_json(self, status: int, record: dict[str, Any]) -> None:
            self.set_status(status)
            self.set_header("Content-Type", "application/json")
            if state["draining"]:
                self.set_header("Connection", "close")
            self.finish(json.dumps(record))

    class Predict(Handler):
        async def post(self) -> None:
            try:
                self.write_json(200, await batcher.answer(self.request.body))
            except XmcError as error:
                batcher.refused += 1
                self.write_json(400, {"error": str(error)})

    class Health(Handler):
        def get(self) -> None:
            self.write_json(503 if state["draining"] else 200, {"status": "draining" if state["draining"] else "ok"})

    class Metrics(tornado.web.RequestHandler):
        def get(self) -> None:
            self.set_header("Content-Type", "text/plain; version=0.0.4")
            self.finish(batcher.metrics())

    batcher = Batcher(model, settings)

    async def main() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        routes = [("/predict", Predict), ("/health", Health), ("/metrics", Metrics)]
        application = tornado.web.Application(routes, log_function=lambda handler: None)
        server = tornado.httpserver.HTTPServer(application, max_body_size=1 << 20)
        try:
            sockets = tornado.netutil.bind_sockets(settings.port, settings.host, reuse_port=settings.port != 0)
        except OSError as error:
            reason = error.strerror or error
            raise XmcError(f"cannot listen on {settings.host}, port {settings.port}: {reason}") from None
        server.add_sockets(sockets)
        worker = asyncio.create_task(batcher.run())
        tell(f"serving {model.path} on http://{settings.host}:{sockets[0].getsockname()[1]}")
        await stop.wait()
        state["draining"] = True
        server.stop()  # no new connections; those that are open are answered
        begin = time.perf_counter()
        while batcher.pending or time.perf_counter() - max(begin, batcher.last) < QUIET_S:
            await asyncio.sleep(0.005)
        await server.close_all_connections()
        worker.cancel()
        tell(f"answered {batcher.answered:,} queries in {batcher.batches:,} batches")
        return 0

    return asyncio.run(main())
