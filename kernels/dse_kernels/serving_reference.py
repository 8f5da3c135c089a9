"""The serving engine step by step: the plain definition of what `dse_kernels.serving.simulate` computes.

Every worker takes one step after the other, every block of its cache is an object with an owner list, and nothing is skipped or
summed in closed form. Slow; for tests and for reading.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dse_kernels.serving import Cluster, Outcome, Policy, Requests, StepTable

FloatArray = npt.NDArray[np.float64]


def interpolate(knots: FloatArray, values: FloatArray, x: float) -> float:
    """Linear between knots and, with the slope of the last cell, beyond."""
    i = min(max(int(np.searchsorted(knots, x, side="right")), 1), len(knots) - 1) - 1
    return float(values[i] + (x - knots[i]) / (knots[i + 1] - knots[i]) * (values[i + 1] - values[i]))


def surface(rows: FloatArray, columns: FloatArray, values: FloatArray, row: float, column: float) -> float:
    """Bilinear in the cell of a point."""
    lines = [interpolate(columns, line, column) for line in np.asarray(values).reshape(len(rows), len(columns))]
    return interpolate(rows, np.array(lines), row)


@dataclass
class _Sequence:
    request: int
    target: int
    steps_left: int
    resumed: bool
    computed: bool
    order: int = 0
    done: int = 0
    chunk: int = 0
    taken: int = 0
    grow: Fraction = Fraction(0)
    blocks: list[_Block] = field(default_factory=list)

    def context(self, later: int = 0) -> Fraction:
        """Tokens in the cache ``later`` steps from now."""
        return self.target + (self.taken + later) * self.grow


@dataclass(eq=False)
class _Block:
    """A block of the cache: private while ``name`` is None; ``owners`` sequences use it; ``stamp``: when it was last freed."""

    name: int | None = None
    owners: int = 1
    stamp: int = 0


class _Worker:
    def __init__(self, policy: Policy, table: StepTable, role: str) -> None:
        self.policy, self.table, self.role = policy, table, role
        self.inbox: deque[_Sequence] = deque()
        self.waiting: deque[_Sequence] = deque()
        self.prompts: list[_Sequence] = []
        self.decoding: list[_Sequence] = []
        self.blocks: list[_Block] = []  # every block that holds something
        self.event_s = math.inf
        self.begin_s = self.busy_s = 0.0
        self.with_prompts = False
        self.steps = self.assigned = self.order = self.clock = self.peak = self.evicted = 0

    def available(self) -> int:
        return self.policy.blocks - sum(b.owners > 0 for b in self.blocks)

    def named(self, name: int) -> _Block | None:
        return next((b for b in self.blocks if b.name == name), None)

    def allocate(self, count: int) -> list[_Block]:
        fresh = [_Block() for _ in range(count)]
        while len(self.blocks) + count > self.policy.blocks:
            oldest = min((b for b in self.blocks if b.owners == 0), key=lambda b: b.stamp)
            self.blocks.remove(oldest)
            self.evicted += 1
        self.blocks += fresh
        self.note_peak()
        return fresh

    def note_peak(self) -> None:
        self.peak = max(self.peak, sum(b.owners > 0 for b in self.blocks))

    def free(self, s: _Sequence) -> None:
        for b in reversed(s.blocks):
            b.owners -= 1
            assert b.owners >= 0
            if b.owners == 0 and b.name is None:
                self.blocks.remove(b)
            elif b.owners == 0:
                self.clock += 1
                b.stamp = self.clock
        s.blocks = []

    def growth(self) -> int:
        size = self.policy.block_tokens
        return sum(max(0, math.ceil(math.ceil(s.context(1)) / size) - len(s.blocks)) for s in self.decoding)


def simulate_reference(requests: Requests, cluster: Cluster, *, concurrency: int = 0) -> Outcome:
    """The same outcome as `dse_kernels.serving.simulate`, without the timeline; energy is left out (zeros)."""
    n = len(requests.prompt)
    arrival, start, first, last = (np.full(n, np.nan) for _ in range(4))
    cached, preemptions, worker_of = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.full(n, -1)
    counts = {"steps": 0, "prefill": 0, "decode": 0, "resumed": 0}
    apart = cluster.decode_workers > 0
    workers = [_Worker(cluster.policy, cluster.table, "prefill" if apart else "both") for _ in range(cluster.workers)]
    for _ in range(cluster.decode_workers):
        workers.append(_Worker(cluster.decode_policy or cluster.policy, cluster.decode_table or cluster.table, "decode"))
    parents = [
        set(requests.parent_lists[1][a:b].tolist())
        for a, b in zip(requests.parent_lists[0][:-1], requests.parent_lists[0][1:], strict=True)
    ]
    names = [requests.block_lists[1][a:b].tolist() for a, b in zip(requests.block_lists[0][:-1], requests.block_lists[0][1:], strict=True)]
    children: list[list[int]] = [[] for _ in range(n)]
    for i, own in enumerate(parents):
        for p in own:
            children[p].append(i)
    missing = [len(own) for own in parents]
    queue: list[tuple[float, int, int, bool]] = []
    serial = 0
    upcoming = concurrency
    home: dict[int, int] = {}

    def arrive(time: float, request: int, computed: bool = False) -> None:
        nonlocal serial
        heapq.heappush(queue, (time, serial, request, computed))
        serial += 1

    for i in range(min(concurrency, n) if concurrency else n):
        if concurrency or not missing[i]:
            arrive(float(requests.arrival_s[i]), i)

    def publish(w: _Worker, s: _Sequence, tokens: int) -> None:
        if not w.policy.prefix_cache:
            return
        for i in range(min(tokens // w.policy.block_tokens, len(names[s.request]))):
            if s.blocks[i].name is None:
                if w.named(names[s.request][i]) is not None:
                    return
                s.blocks[i].name = names[s.request][i]

    def finish(w: _Worker, s: _Sequence, now: float) -> None:
        nonlocal upcoming
        r = s.request
        publish(w, s, math.floor(s.context()))
        w.free(s)
        w.assigned -= 1
        last[r] = now
        if concurrency and upcoming < n:
            arrive(max(now, float(requests.arrival_s[upcoming])), upcoming)
            upcoming += 1
        for child in children[r]:
            missing[child] -= 1
            if missing[child] == 0:
                arrive(max(float(requests.arrival_s[child]), now + float(requests.gap_s[child])), child)

    def complete(w: _Worker, now: float) -> None:
        w.event_s = math.inf
        w.busy_s += now - w.begin_s
        w.steps += 1
        counts["steps"] += 1
        ended: list[_Sequence] = []
        if w.decoding and (w.policy.mixed or not w.with_prompts):
            counts["decode"] += len(w.decoding)
            for s in w.decoding:
                s.taken += 1
                need = math.ceil(math.ceil(s.context()) / w.policy.block_tokens) - len(s.blocks)
                s.blocks += w.allocate(max(need, 0))
                s.steps_left -= 1
            ended = [s for s in w.decoding if s.steps_left == 0]
            w.decoding = [s for s in w.decoding if s.steps_left > 0]
        left = []
        for s in w.prompts if w.with_prompts else ():
            s.done += s.chunk
            counts["prefill"] += s.chunk
            s.chunk = 0
            if s.done < s.target:
                left.append(s)
                continue
            publish(w, s, s.target)
            if s.resumed:
                s.steps_left -= 1
                counts["resumed"] += 1
            elif w.role != "prefill":
                first[s.request] = now
            if w.role == "prefill":
                w.free(s)
                w.assigned -= 1
                arrive(now + cluster.transfer_s + cluster.transfer_s_per_token * s.target, s.request, True)
            elif s.steps_left == 0:
                finish(w, s, now)
            else:
                w.decoding.append(s)
        if w.with_prompts:
            w.prompts = left
        for s in ended:
            finish(w, s, now)

    def deliver(time: float, request: int, computed: bool) -> None:
        group = range(cluster.workers, len(workers)) if computed else range(cluster.workers)
        best = min(group, key=lambda i: workers[i].assigned)
        session = int(requests.session[request])
        if session >= 0 and not computed:
            best = home.setdefault(session, best)
        w = workers[best]
        w.assigned += 1
        worker_of[request] = best
        if not computed:
            arrival[request] = time
        w.inbox.append(_Sequence(request, int(requests.prompt[request]), int(requests.decode_steps[request]), False, computed))

    def preempt(w: _Worker) -> None:
        s = max([*w.decoding, *w.prompts], key=lambda x: x.order)
        preemptions[s.request] += 1
        w.free(s)
        if s in w.decoding:
            w.decoding.remove(s)
            s = _Sequence(s.request, math.floor(s.context()) + 1, s.steps_left, True, False)
        else:
            w.prompts.remove(s)
            s = _Sequence(s.request, s.target, s.steps_left, s.resumed, False)
        w.waiting.appendleft(s)

    def admit(w: _Worker, budget: int, any_prompt: bool, set_aside: int, now: float) -> int | None:
        """The tokens taken by the first that waits, None if it must go on waiting."""
        p, s = w.policy, w.waiting[0]
        r = s.request
        shared: list[_Block] = []
        if p.prefix_cache:
            for name in names[r][: (s.target - 1) // p.block_tokens]:
                block = w.named(name)
                if block is None:
                    break
                shared.append(block)
        steps = int(requests.decode_steps[r])
        s.grow = Fraction(int(requests.output[r]) - 1, steps) if steps else Fraction(0)
        # What was computed elsewhere decodes in this very step.
        held = int(requests.prompt[r] + requests.output[r]) if p.reserve and w.role != "prefill" else math.ceil(s.context(int(s.computed)))
        total = math.ceil(held / p.block_tokens)
        if total - len(shared) > w.available() - set_aside - sum(b.owners == 0 for b in shared):
            return None
        rest = 0 if s.computed else s.target - len(shared) * p.block_tokens
        if not s.computed and (budget <= 0 or (not p.chunked and rest > budget and any_prompt)):
            return None
        w.waiting.popleft()
        s.order = w.order
        w.order += 1
        for b in shared:
            b.owners += 1
        w.note_peak()
        s.blocks = shared + w.allocate(total - len(shared))
        if s.computed:
            first[r] = now
            if s.steps_left == 0:
                finish(w, s, now)
            else:
                w.decoding.append(s)
            return 0
        if not s.resumed:
            start[r], cached[r] = now, len(shared) * p.block_tokens
        s.done = s.target - rest
        s.chunk = min(rest, budget) if p.chunked else rest
        w.prompts.append(s)
        return s.chunk

    def plan(w: _Worker, now: float) -> None:
        p, t = w.policy, w.table
        nothing = not (w.decoding or w.prompts or w.waiting)
        if w.inbox and (nothing or w.steps % p.poll_steps == 0):
            w.waiting.extend(w.inbox)
            w.inbox.clear()
        gave_way = False
        while w.decoding and len(w.decoding) + len(w.prompts) > 1 and w.growth() > w.available():
            preempt(w)
            gave_way = True
        budget = p.token_budget - (len(w.decoding) * p.query_tokens if p.mixed else 0)
        for s in w.prompts:
            s.chunk = min(s.target - s.done, max(budget, 0))
            budget -= s.chunk
        set_aside = min(w.growth(), w.available())
        while not gave_way and w.waiting and len(w.decoding) + len(w.prompts) < p.max_sequences:
            taken = admit(w, budget, any(s.chunk for s in w.prompts), set_aside, now)
            if taken is None:
                break
            budget -= taken
        chunks = [s for s in w.prompts if s.chunk]
        w.with_prompts = bool(chunks)
        decoding = w.decoding if p.mixed or not chunks else []
        if not chunks and not decoding:
            return
        seconds = interpolate(t.tokens, t.linear_s, len(decoding) * p.query_tokens + sum(s.chunk for s in chunks))
        if decoding:
            keys = float(sum(s.context() for s in decoding) / len(decoding)) + 1.0
            seconds += surface(t.batch, t.keys, t.decode_s, len(decoding), keys)
        for s in chunks:
            seconds += surface(t.take, t.done, t.prefill_s, s.chunk, s.done)
        w.begin_s, w.event_s = now, now + seconds

    events = 0
    while True:
        now = min([queue[0][0] if queue else math.inf, *(w.event_s for w in workers)])
        if now == math.inf:
            break
        events += 1
        for w in workers:
            if w.event_s == now:
                complete(w, now)
        while queue and queue[0][0] <= now:
            time, _, request, computed = heapq.heappop(queue)
            deliver(time, request, computed)
        for w in workers:
            if w.event_s == math.inf and (w.inbox or w.waiting or w.prompts or w.decoding):
                plan(w, now)
    return Outcome(
        arrival, start, first, last, np.zeros(n), cached, preemptions, worker_of,
        np.array([w.busy_s for w in workers]), np.array([w.peak for w in workers]), np.array([w.evicted for w in workers]),
        np.zeros((0, 6)),
        counts["steps"], events, counts["prefill"], counts["decode"], counts["resumed"],
    )  # fmt: skip
