"""A tree behind HTTP: queries that wait together are answered as one batch, as large as the bound on their latency allows.

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
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from workloads.xmc.errors import XmcError
from workloads.xmc.folder import Model

REMEDY = "pip install 'dse-toolkit[xmc]'"
REMEMBERED = 10_000  # latencies that the quantiles are taken of
QUIET_S = 0.5  # without a request, after which a draining server ends
# Of the bound that one batch may take: a query that comes just behind a batch waits for it and for its own, half the bound.
BATCH_SHARE = 0.25
# A batch that is shorter than this is computed where it is: handing it to a thread and back takes about as long, up to 5 ms when the
# two threads meet at the interpreter's lock.
INLINE_S = 0.0005
RISE, FALL = 0.5, 0.05  # weight of a new measurement: slower queries are believed at once, faster ones by and by


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


Query = str | tuple[np.ndarray, np.ndarray]  # a text, or features (n,) int32 and their values (n,) float32


@dataclass
class Batcher:
    """Queries into batches. A batch starts as soon as the one before it is done, with what waits by then, in the order of arrival: no
    query is held back for others, since a tree answers one alone nearly as fast as in a batch. It takes no more queries than fit
    ``BATCH_SHARE`` of the bound by the measured time of a query, so that a slow tree or a busy machine makes batches smaller."""

    model: Model
    settings: Settings
    answered: int = 0
    refused: int = 0
    batches: int = 0
    over_bound: int = 0
    query_s: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def __post_init__(self) -> None:
        self._waiting: deque[tuple[Query, asyncio.Future[Any]]] = deque()
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(1)
        self.pending = 0
        self.last = time.perf_counter()

    def limit(self) -> int:
        """Queries of the next batch at most; one while no time was measured."""
        if self.batches == 0:
            return 1
        room = BATCH_SHARE * self.settings.bound_s
        return max(1, int(min(self.settings.max_batch, room / max(self.query_s, 1e-9))))

    def learn(self, spent_s: float) -> None:
        """Take in the time of a query of the batch that is done."""
        self.query_s += (RISE if spent_s > self.query_s else FALL) * (spent_s - self.query_s)

    def parse(self, body: bytes) -> tuple[Query, int]:
        """Query and topk of a request. Raises XmcError in one sentence."""
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
            if self.model.vectorizer is None:
                raise XmcError(f"{self.model.path}: has no vectorizer.json, so that it answers indices and values, not text")
            return held["text"], topk
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
        return (indices.astype(np.int32), values), topk

    async def answer(self, body: bytes) -> dict[str, Any]:
        """The answer of one request."""
        self.last = begin = time.perf_counter()
        query, topk = self.parse(body)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending += 1
        try:
            self._waiting.append((query, future))
            self._arrived.set()
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
            await self._arrived.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.limit()))]
            if not self._waiting:
                self._arrived.clear()
            queries = [query for query, _ in batch]
            self.batches += 1
            begin = time.perf_counter()
            try:
                if len(batch) * self.query_s < INLINE_S:
                    labels, scores = self._predict(queries)
                else:
                    labels, scores = await loop.run_in_executor(self._pool, self._predict, queries)
            except (XmcError, ValueError, MemoryError) as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            self.learn((time.perf_counter() - begin) / len(batch))
            for i, (_, future) in enumerate(batch):
                if not future.done():  # its client may have gone
                    future.set_result((labels[i], scores[i]))
            await asyncio.sleep(0)  # others' turn: to read and to write

    def _predict(self, batch: list[Query]) -> tuple[np.ndarray, np.ndarray]:
        texts = [query for query in batch if isinstance(query, str)]
        parts = [query for query in batch if not isinstance(query, str)]
        if texts:  # all of them at once, which is cheaper than one by one
            rows = self.model.features_of(texts)
            edges, indices, values = rows.indptr, rows.indices.astype(np.int32), rows.data.astype(np.float32)
            found = ((indices[a:b], values[a:b]) for a, b in pairwise(edges))
            parts = [next(found) if isinstance(query, str) else query for query in batch]
        tree, settings = self.model.tree, self.settings
        if len(parts) == 1:
            labels, scores = tree.predict_one(*parts[0], settings.beam, settings.topk)
            return labels[None], scores[None]
        indptr = np.concatenate([[0], np.cumsum([indices.size for indices, _ in parts])])
        held = np.concatenate([values for _, values in parts]), np.concatenate([indices for indices, _ in parts]), indptr
        return tree.predict(sparse.csr_matrix(held, shape=(len(parts), tree.features)), settings.beam, settings.topk, settings.threads)

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
        lines += ["# HELP dse_xmc_query_seconds Time of a query in its batch, as batches are sized by it."]
        lines += ["# TYPE dse_xmc_query_seconds gauge", f"dse_xmc_query_seconds {self.query_s:.9f}"]
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
