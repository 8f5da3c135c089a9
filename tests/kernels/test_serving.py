"""The serving engine: the event-driven kernel against its step-by-step definition, and the invariants of docs/models/serving.md."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from dse_kernels.serving import Cluster, Outcome, Policy, Requests, StepTable, simulate
from dse_kernels.serving_reference import simulate_reference
from hypothesis import given, settings
from hypothesis import strategies as st

EXACT = ("cached_tokens", "preemptions", "worker", "peak_blocks", "evicted_blocks", "steps", "prefill_tokens", "decode_tokens", "resumed")
TIMES = ("arrival_s", "start_s", "first_s", "last_s", "busy_s")


def linear_table(fixed: float = 1e-3, token: float = 1e-5, key: float = 1e-8, pair: float = 1e-9) -> StepTable:
    """A step of T tokens takes fixed + token T, keys key each, pairs of prompts pair each; J are ten times s."""
    tokens, batch, keys = np.array([0.0, 1e5]), np.array([0.0, 1000.0]), np.array([0.0, 1000.0, 1e5])
    linear, decode = fixed + token * tokens, key * batch[:, None] * keys[None]
    pieces = np.array([0.0, 1.0, 10.0, 100.0, 1e4])
    prefill = pair * pieces[:, None] * (pieces[:, None] / 2 + pieces[None])
    return StepTable(tokens, linear, 10 * linear, batch, keys, decode, 10 * decode, pieces, pieces, prefill, 10 * prefill)


def curved_table() -> StepTable:
    """Tables with bends, so that cells matter."""
    knots = np.array([0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 2000.0])
    linear = 1e-3 + 1e-5 * knots**1.2
    decode = 2e-8 * knots[:, None] ** 0.9 * knots[None] ** 1.1
    return StepTable(knots, linear, 2 * linear, knots, knots, decode, 3 * decode, knots, knots, decode / 7, decode / 5)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Requests, Cluster, int]:
    """Small loads under every policy: closed, open, and with parents; one kind of worker or two; tight caches."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 20))
    prompt, output = rng.integers(1, 80, n), rng.integers(1, 40, n)
    block = draw(st.sampled_from([1, 4, 16]))
    need = int((-(-(prompt + output) // block)).max())
    queries = draw(st.sampled_from([1, 3]))
    policy = Policy(
        draw(st.sampled_from([8, 64, 300])),
        draw(st.sampled_from([1, 3, 16])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from([1, 5])),
        need + draw(st.integers(0, 60)),
        block,
        draw(st.booleans()),
        queries,
    )
    steps = np.maximum(output - 1, 0)
    if queries > 1:
        steps = np.where(output > 1, np.maximum((output - 1) * rng.uniform(0.4, 1, n), 1).astype(int), 0)
    offsets, names = [0], []
    for i in range(n):
        count = int(prompt[i] + output[i]) // block
        cut, base = int(rng.integers(0, count + 1)), int(rng.integers(3)) * 1000
        names += [base + j if j < cut else 10**6 * (i + 1) + j for j in range(count)]
        offsets.append(len(names))
    kind = draw(st.sampled_from(["closed", "open", "parents"]))
    parents = None
    if kind == "parents":
        of, items = [0], []
        for i in range(n):
            if i and rng.random() < 0.5:
                items += sorted(set(rng.integers(0, i, 2).tolist()))
            of.append(len(items))
        parents = (np.array(of), np.array(items, dtype=np.int64))
    arrival = np.zeros(n) if kind == "closed" else np.sort(rng.uniform(0, 0.1, n))
    blocks = (np.array(offsets), np.array(names, dtype=np.int64))
    requests = Requests(arrival, prompt, output, rng.uniform(0, 0.05, n), steps, rng.integers(-1, 3, n), parents, blocks)
    table = linear_table() if draw(st.booleans()) else curved_table()
    cluster = Cluster(policy, table, draw(st.integers(1, 2)), draw(st.integers(0, 2)), transfer_s=0.003, transfer_s_per_token=1e-5)
    return requests, cluster, draw(st.integers(1, 7)) if kind == "closed" else 0


def assert_same(a: Outcome, b: Outcome) -> None:
    for name in EXACT:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in TIMES:  # the sums of a run of steps are closed forms: rounding alone may differ
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_kernel_equals_its_definition(case: tuple[Requests, Cluster, int]) -> None:
    """Invariant 9: events give what steps give, with and without skipping."""
    requests, cluster, concurrency = case
    found = simulate(requests, cluster, concurrency=concurrency)
    assert_same(found, simulate_reference(requests, cluster, concurrency=concurrency))
    stepping = replace(cluster, policy=replace(cluster.policy, skip=False))
    stepped = simulate(requests, stepping, concurrency=concurrency)
    assert_same(found, stepped)
    np.testing.assert_allclose(found.energy_j, stepped.energy_j, rtol=1e-9)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_invariants(case: tuple[Requests, Cluster, int]) -> None:
    requests, cluster, concurrency = case
    o = simulate(requests, cluster, concurrency=concurrency, timeline=True)
    n = len(requests.prompt)
    # 1. No request is lost.
    assert np.isfinite(o.last_s).all() and np.isfinite(o.first_s).all()
    # 2. No token is lost or invented: a first token each, one a decode step, one a recomputation (one token a step without drafts).
    if cluster.policy.query_tokens == 1:
        assert n + o.decode_tokens + o.resumed == requests.output.sum()
    # 3. Every token of a prompt is computed once or found in the cache, but for what gave way.
    computed = o.prefill_tokens + o.cached_tokens.sum()
    assert computed >= requests.prompt.sum() if o.preemptions.any() else computed == requests.prompt.sum()
    # 4. Time never runs back: arrival <= start <= first <= last, events in order.
    assert (o.arrival_s <= o.start_s).all() and (o.start_s < o.first_s).all() and (o.first_s <= o.last_s).all()
    assert (np.diff(o.timeline[:, 0]) >= 0).all()
    # 5. Memory is never over (and is empty in the end: the kernel refuses to return otherwise).
    assert (o.peak_blocks <= cluster.policy.blocks).all() and (o.timeline[:, 4] <= cluster.policy.blocks).all()
    # 6. The limits of a batch are kept.
    assert (o.timeline[:, 2] <= cluster.policy.max_sequences).all()
    if cluster.policy.chunked:
        assert (o.timeline[:, 5] <= cluster.policy.token_budget).all()
    # 7. Parents end before their children arrive, after the gap.
    offsets, items = requests.parent_lists
    for child in range(n):
        for parent in items[offsets[child] : offsets[child + 1]]:
            assert o.arrival_s[child] >= o.last_s[parent] + requests.gap_s[child] - 1e-12
    # 8. A closed loop has no more under way than it may.
    if concurrency:
        begins, ends = np.sort(o.arrival_s), np.sort(o.last_s)
        under_way = np.searchsorted(begins, ends - 1e-12, side="left") - np.arange(n)
        assert under_way.max() <= concurrency
    # 10. The same input gives the same bytes.
    again = simulate(requests, cluster, concurrency=concurrency, timeline=True)
    for item in fields(Outcome):
        np.testing.assert_array_equal(getattr(o, item.name), getattr(again, item.name))


def test_work_is_conserved() -> None:
    """11. A worker with work is never idle: one worker's busy time is the makespan of a burst."""
    o = simulate(Requests(np.zeros(50), np.full(50, 30), np.full(50, 20)), Cluster(Policy(64, 8), linear_table()))
    assert o.busy_s[0] == pytest.approx(o.last_s.max(), rel=1e-12)


def test_first_in_first_out() -> None:
    """12. Requests of a burst are admitted in their order."""
    rng = np.random.default_rng(1)
    o = simulate(Requests(np.zeros(60), rng.integers(1, 90, 60), rng.integers(1, 40, 60)), Cluster(Policy(64, 8), linear_table()))
    assert (np.diff(o.start_s) >= 0).all()


def test_littles_law() -> None:
    """13. Mean in flight = throughput x mean time in the system, over a whole run (Little 1961: an identity)."""
    rng = np.random.default_rng(2)
    arrival = np.cumsum(rng.exponential(0.02, 400))
    o = simulate(Requests(arrival, rng.integers(1, 90, 400), rng.integers(1, 40, 400)), Cluster(Policy(64, 8), linear_table()))
    edges = np.sort(np.concatenate([o.arrival_s, o.last_s]))
    mid = (edges[1:] + edges[:-1]) / 2
    inside = (np.searchsorted(np.sort(o.arrival_s), mid) - np.searchsorted(np.sort(o.last_s), mid)) * np.diff(edges)
    assert inside.sum() == pytest.approx((o.last_s - o.arrival_s).sum(), rel=1e-9)


def test_one_request_is_the_closed_form() -> None:
    """14. Alone, a request takes its prompt's step and then a step a token."""
    a, b, k, q = 1e-3, 1e-5, 1e-8, 1e-9
    o = simulate(Requests(np.zeros(1), np.array([100]), np.array([50])), Cluster(Policy(512, 8), linear_table(a, b, k, q)))
    prompt = a + b * 100 + q * 100 * 50  # the table is exact at its knot of 100
    decode = sum(a + b + k * (100 + j) for j in range(1, 50))
    assert o.first_s[0] == pytest.approx(prompt, rel=1e-12)
    assert o.last_s[0] == pytest.approx(prompt + decode, rel=1e-12)


def test_shared_prefix_is_computed_once() -> None:
    """15. With a prefix cache a chain of requests computes each block once; without one, every prompt whole."""
    n, block, step = 8, 10, 60
    prompt = 450 + step * np.arange(n)
    names = [np.arange((p + step) // block) for p in prompt]
    blocks = (np.concatenate([[0], np.cumsum([len(x) for x in names])]), np.concatenate(names))
    parents = (np.concatenate([[0, 0], np.arange(1, n)]), np.arange(n - 1))
    requests = Requests(np.zeros(n), prompt, np.full(n, step), parents=parents, blocks=blocks)

    def prefill(cache: bool) -> int:
        policy = Policy(8192, 8, block_tokens=block, blocks=1000, prefix_cache=cache)
        return simulate(requests, Cluster(policy, linear_table())).prefill_tokens

    assert prefill(False) == prompt.sum() == 8 * 450 + 60 * 28
    # The last token of a thought is not in the cache yet when it ends: its block is computed again.
    assert prefill(True) == 450 + (n - 1) * block


def test_refusals() -> None:
    requests = Requests(np.zeros(1), np.array([100]), np.array([50]))
    with pytest.raises(ValueError, match="request 0 needs 150 tokens of KV cache, a worker holds 144"):
        simulate(requests, Cluster(Policy(512, 8, blocks=9), linear_table()))
    with pytest.raises(ValueError, match="must be at least 1"):
        simulate(requests, Cluster(Policy(0, 8), linear_table()))
    with pytest.raises(ValueError, match="must increase"):
        simulate(requests, Cluster(Policy(512, 8), replace(linear_table(), tokens=np.array([0.0, 0.0]))))
    with pytest.raises(ValueError, match="parent must come before"):
        Requests(np.zeros(1), np.array([1]), np.array([1]), parents=(np.array([0, 1]), np.array([0])))
    with pytest.raises(ValueError, match="no tokens"):
        simulate(Requests(np.zeros(1), np.array([0]), np.array([1])), Cluster(Policy(512, 8), linear_table()))


# ---- queueing theory: a prompt is the service, one token is produced, nothing is shared ----


def queue(service: np.ndarray, arrival: np.ndarray, servers: int) -> float:
    """Mean wait of FIFO queues whose service is ``service`` tokens of 1 ms each."""
    tokens = np.array([0.0, 1e7])
    zero = np.zeros((2, 2))
    table = StepTable(tokens, tokens * 1e-3, tokens, tokens, tokens, zero, zero, tokens, tokens, zero, zero)
    policy = Policy(10**9, 1, chunked=True)
    o = simulate(Requests(arrival, service, np.ones(len(service), dtype=np.int64)), Cluster(policy, table, servers))
    return float((o.start_s - o.arrival_s).mean())


COUNT = 400_000


@pytest.mark.parametrize("kind", ["M/M/1", "M/D/1"])
def test_single_server_queues(kind: str) -> None:
    """Pollaczek-Khinchine: W = rho / (1 - rho) x mean x (1 + c^2) / 2, at rho 0.7; 2 % covers the noise of 400,000 requests."""
    rng, mean, load = np.random.default_rng(7), 1000, 0.7
    service = np.full(COUNT, mean) if kind == "M/D/1" else np.maximum(np.rint(rng.exponential(mean, COUNT)), 1).astype(np.int64)
    arrival = np.cumsum(rng.exponential(mean * 1e-3 / load, COUNT))
    spread = 0.0 if kind == "M/D/1" else 1.0
    expected = load / (1 - load) * mean * 1e-3 * (1 + spread) / 2
    # Compared with the realised mean of the service, so that the drawn sample's own load enters.
    real = service.mean() * 1e-3 / (arrival[-1] / COUNT)
    expected *= (real / (1 - real)) / (load / (1 - load)) * service.mean() / mean
    assert queue(service, arrival, 1) == pytest.approx(expected, rel=0.02)


def test_many_servers_by_the_recursion() -> None:
    """G/G/k dealt to the worker with fewest requests equals a plain recursion of the same rule."""
    rng = np.random.default_rng(8)
    n, k = 20_000, 3
    service = np.maximum(np.rint(rng.gamma(2.0, 500, n)), 1).astype(np.int64)
    arrival = np.cumsum(rng.exponential(1.0 / k / 0.8, n))
    ends: list[list[float]] = [[] for _ in range(k)]
    waits = []
    for t, s in zip(arrival, service * 1e-3, strict=True):
        inside = [sum(e > t for e in own[-200:]) for own in ends]
        i = int(np.argmin(inside))
        begin = max(t, ends[i][-1] if ends[i] else 0.0)
        waits.append(begin - t)
        ends[i].append(begin + s)
    assert queue(service, arrival, k) == pytest.approx(float(np.mean(waits)), rel=1e-9)


def test_overload_grows_the_queue() -> None:
    service, arrival = np.full(2000, 1000), np.arange(2000) * 0.5
    assert queue(service, arrival, 1) == pytest.approx(np.mean(np.arange(2000) * 0.5), rel=1e-9)


def test_many_slots_are_an_m_g_k_queue() -> None:
    """Slots of a batch with steps of one length are servers: against the recursion of Kiefer and Wolfowitz (1955) on the same sample."""
    rng, n, k, step = np.random.default_rng(9), 60_000, 4, 1e-3
    output = np.maximum(np.rint(rng.gamma(1.5, 400, n)), 2).astype(np.int64)
    arrival = np.cumsum(rng.exponential(output.mean() * step / k / 0.85, n))
    knots, flat, zero = np.array([0.0, 1.0, 1e7]), np.array([0.0, step, step]), np.zeros((3, 3))
    table = StepTable(knots, flat, flat, knots, knots, zero, zero, knots, knots, zero, zero)
    o = simulate(Requests(arrival, np.ones(n, dtype=np.int64), output), Cluster(Policy(1000, k), table))
    free = np.zeros(k)
    waits = np.empty(n)
    for i, (t, s) in enumerate(zip(arrival, output * step, strict=True)):
        first = int(free.argmin())
        begin = max(t, free[first])
        waits[i] = begin - t
        free[first] = begin + s
    # Arrivals wait half a step for the next one on average: 0.1 % of the service.
    assert (o.start_s - o.arrival_s).mean() == pytest.approx(waits.mean(), rel=0.02)
