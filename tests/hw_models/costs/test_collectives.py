"""Collectives: each closed form against a step-by-step run that moves real buffers over links with a clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.costs.collectives import (
    Link,
    all_gather,
    all_reduce,
    all_to_all,
    hierarchical_all_reduce,
    reduce_scatter,
    ring_all_reduce,
    tree_all_reduce,
)
from hw_models.errors import HardwareError

LINK = Link(latency_s=2e-6, bandwidth_bytes_per_s=1e9, pj_per_bit=10.0, fixed_s=5e-6)
DEVICES = st.integers(1, 9)
BYTES = st.integers(0, 40)


class Machine:
    """Devices with buffers of one-byte words; a step runs its messages at once and lasts as long as the longest."""

    def __init__(self, link: Link) -> None:
        self.link, self.clock, self.moved, self.steps = link, 0.0, 0, 0

    def step(self, messages: list[int]) -> None:
        """Messages of one step, in bytes."""
        self.steps += 1
        self.moved += sum(messages)
        self.clock += self.link.latency_s + max(messages) / self.link.bandwidth_bytes_per_s

    @property
    def seconds(self) -> float:
        return self.clock + (self.link.fixed_s if self.steps else 0.0)


def pieces(size: int, devices: int) -> list[np.ndarray]:
    """Index ranges of ceil(size / devices) words, the last ones shorter or empty."""
    step = -(-size // devices)
    return [np.arange(min(i * step, size), min((i + 1) * step, size)) for i in range(devices)]


def buffers(size: int, devices: int) -> list[np.ndarray]:
    return [np.random.default_rng(d).integers(0, 100, size) for d in range(devices)]


def run_reduce_scatter(machine: Machine, data: list[np.ndarray]) -> None:
    p, parts = len(data), pieces(len(data[0]), len(data))
    for s in range(p - 1):
        sent = [(d, parts[(d - s) % p], data[d][parts[(d - s) % p]].copy()) for d in range(p)]
        machine.step([len(words) for _, words, _ in sent])
        for d, words, values in sent:
            data[(d + 1) % p][words] += values


def run_all_gather(machine: Machine, data: list[np.ndarray], shift: int) -> None:
    p, parts = len(data), pieces(len(data[0]), len(data))
    for s in range(p - 1):
        sent = [(d, parts[(d + shift - s) % p], data[d][parts[(d + shift - s) % p]].copy()) for d in range(p)]
        machine.step([len(words) for _, words, _ in sent])
        for d, words, values in sent:
            data[(d + 1) % p][words] = values


def check(machine: Machine, cost) -> None:
    assert cost.steps == machine.steps
    assert cost.latency_s == pytest.approx(machine.seconds, rel=1e-12, abs=0)
    assert cost.link_bytes == machine.moved
    assert cost.energy_j == pytest.approx(machine.moved * 8 * 10e-12, rel=1e-12)


@given(BYTES, DEVICES)
def test_ring_all_reduce(size: int, devices: int) -> None:
    machine, data = Machine(LINK), buffers(size, devices)
    expected = np.sum(data, axis=0)
    run_reduce_scatter(machine, data)
    run_all_gather(machine, data, shift=1)
    assert all((d == expected).all() for d in data)
    check(machine, ring_all_reduce(size, devices, LINK))


@given(BYTES, DEVICES)
def test_reduce_scatter_and_all_gather(size: int, devices: int) -> None:
    machine, data = Machine(LINK), buffers(size, devices)
    expected, parts = np.sum(data, axis=0), pieces(size, devices)
    run_reduce_scatter(machine, data)
    for d in range(devices):
        words = parts[(d + 1) % devices]
        assert (data[d][words] == expected[words]).all()
    check(machine, reduce_scatter(size, devices, LINK))

    machine, data = Machine(LINK), buffers(size, devices)
    expected = np.concatenate([data[d][parts[d]] for d in range(devices)])
    run_all_gather(machine, data, shift=0)
    assert all((d == expected).all() for d in data)
    check(machine, all_gather(size, devices, LINK))


@given(BYTES, DEVICES)
def test_tree_all_reduce(size: int, devices: int) -> None:
    machine, data = Machine(LINK), buffers(size, devices)
    expected = np.sum(data, axis=0)
    stride = 1
    while stride < devices:
        pairs = [(d, d - stride) for d in range(devices) if d % (2 * stride) == stride]
        machine.step([size] * len(pairs))
        for source, target in pairs:
            data[target] = data[target] + data[source]
        stride *= 2
    while stride > 1:
        stride //= 2
        pairs = [(d - stride, d) for d in range(devices) if d % (2 * stride) == stride]
        machine.step([size] * len(pairs))
        for source, target in pairs:
            data[target] = data[source]
    assert all((d == expected).all() for d in data)
    check(machine, tree_all_reduce(size, devices, LINK))


@given(st.integers(0, 6), DEVICES)
def test_all_to_all_over_a_switch(words: int, devices: int) -> None:
    machine = Machine(LINK)
    data = [np.arange(devices * words) + 1000 * d for d in range(devices)]
    got = [np.full(devices * words, -1) for _ in range(devices)]
    for d in range(devices):
        got[d][d * words : (d + 1) * words] = data[d][d * words : (d + 1) * words]
    for s in range(1, devices):
        machine.step([words] * devices)
        for d in range(devices):
            to = (d + s) % devices
            got[to][d * words : (d + 1) * words] = data[d][to * words : (to + 1) * words]
    for d in range(devices):
        for source in range(devices):
            assert (got[d][source * words : (source + 1) * words] == data[source][d * words : (d + 1) * words]).all()
    check(machine, all_to_all(devices * words, devices, LINK))


@given(st.integers(0, 6), DEVICES)
def test_all_to_all_around_a_ring(words: int, devices: int) -> None:
    """Pieces are handed from neighbour to neighbour in both directions; those for the opposite device go half each way."""
    machine = Machine(LINK)
    travelling = []  # (device that holds it, direction, hops left, words)
    for source in range(devices):
        for distance in range(1, devices):
            if 2 * distance < devices:
                travelling.append([source, +1, distance, words, (source + distance) % devices])
            elif 2 * distance > devices:
                travelling.append([source, -1, devices - distance, words, (source + distance) % devices])
            else:
                travelling.append([source, +1, distance, -(-words // 2), (source + distance) % devices])
                travelling.append([source, -1, distance, words // 2, (source + distance) % devices])
    while any(item[2] for item in travelling):
        load: dict[tuple[int, int], int] = {}
        for item in travelling:
            if item[2]:
                load[item[0], item[1]] = load.get((item[0], item[1]), 0) + item[3]
                item[0], item[2] = (item[0] + item[1]) % devices, item[2] - 1
        machine.step(list(load.values()))
    assert all(item[0] == item[4] for item in travelling)
    check(machine, all_to_all(devices * words, devices, LINK, topology="ring"))


@given(BYTES, st.integers(1, 5), st.integers(1, 4))
def test_hierarchical_all_reduce(size: int, per_node: int, nodes: int) -> None:
    outer_link = Link(latency_s=7e-6, bandwidth_bytes_per_s=1e8, pj_per_bit=10.0)
    data = [buffers(size, per_node * nodes)[n * per_node : (n + 1) * per_node] for n in range(nodes)]
    expected = np.sum([d for node in data for d in node], axis=0)
    parts = pieces(size, per_node)
    scratch = [Machine(LINK) for _ in range(nodes)]
    for n in range(nodes):
        run_reduce_scatter(scratch[n], data[n])
    longest = -(-size // per_node)
    for d in range(per_node):
        words = parts[(d + 1) % per_node]
        total = np.sum([data[n][d][words] for n in range(nodes)], axis=0)
        for n in range(nodes):
            data[n][d][words] = total
    for n in range(nodes):
        run_all_gather(scratch[n], data[n], shift=1)
    assert all((d == expected).all() for node in data for d in node)
    between = ring_all_reduce(longest, nodes, outer_link)
    cost = hierarchical_all_reduce(size, per_node, nodes, LINK, outer_link)
    inner_starts = 2 * LINK.fixed_s if per_node > 1 else 0.0  # two collectives are started inside the node
    assert cost.latency_s == pytest.approx(scratch[0].clock + inner_starts + between.latency_s, rel=1e-12)
    assert cost.steps == scratch[0].steps + between.steps
    assert cost.link_bytes == sum(s.moved for s in scratch) + per_node * between.link_bytes


@given(st.integers(1, 10**9), st.integers(2, 1000))
def test_best_is_the_faster_and_both_move_the_same(size: int, devices: int) -> None:
    ring, tree, best = (all_reduce(size, devices, LINK, algorithm=a) for a in ("ring", "tree", "best"))
    assert best.latency_s == min(ring.latency_s, tree.latency_s)
    assert ring.link_bytes == tree.link_bytes == best.link_bytes == 2 * (devices - 1) * size


COLLECTIVES = (ring_all_reduce, tree_all_reduce, all_reduce, all_gather, reduce_scatter, all_to_all)


@pytest.mark.parametrize("collective", COLLECTIVES)
@given(st.integers(0, 10**8), st.integers(1, 64), st.integers(0, 10**6))
@settings(max_examples=50)
def test_monotone(collective, size: int, devices: int, more: int) -> None:
    cost = collective(size, devices, LINK)
    assert collective(size + more, devices, LINK).latency_s >= cost.latency_s
    assert collective(size, devices, Link(2e-6, 2e9, 10.0, 5e-6)).latency_s <= cost.latency_s
    assert collective(size, devices, Link(1e-6, 1e9, 10.0, 5e-6)).latency_s <= cost.latency_s
    if devices == 1:
        assert cost.latency_s == cost.energy_j == cost.steps == 0


def test_arrays_broadcast() -> None:
    cost = ring_all_reduce(np.array([[8], [1024]]), np.array([1, 2, 8]), LINK)
    assert cost.latency_s.shape == cost.energy_j.shape == cost.steps.shape == cost.link_bytes.shape == (2, 3)
    assert cost.latency_s[1, 2] == ring_all_reduce(1024, 8, LINK).latency_s
    assert cost.latency_s[0, 0] == 0


def test_large_messages_reach_the_bandwidth_bound() -> None:
    # 2 (p - 1) / p buffers cross each link: the textbook bound, approached as the buffer grows.
    cost = ring_all_reduce(8 * 10**10, 8, LINK)
    assert cost.latency_s == pytest.approx(2 * 7 / 8 * 8e10 / 1e9, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ring_all_reduce(-1, 4, LINK), "size_bytes"),
        (lambda: ring_all_reduce(8, 0, LINK), "devices"),
        (lambda: ring_all_reduce(8, 2.5, LINK), "devices"),
        (lambda: ring_all_reduce(float("nan"), 4, LINK), "size_bytes"),
        (lambda: ring_all_reduce("many", 4, LINK), "size_bytes"),
        (lambda: ring_all_reduce(2**39, 2**30, LINK), "more bytes than can be counted"),
        (lambda: all_reduce(8, 4, LINK, algorithm="rign"), "did you mean 'ring'"),
        (lambda: all_to_all(8, 4, LINK, topology="mesh"), "topology"),
        (lambda: Link(-1e-6, 1e9), "latency_s"),
        (lambda: Link(1e-6, 0.0), "bandwidth_bytes_per_s"),
        (lambda: Link(1e-6, 1e9, pj_per_bit=float("nan")), "pj_per_bit"),
    ],
)
def test_bad_arguments_are_named(call, sentence: str) -> None:
    with pytest.raises(HardwareError, match=sentence):
        call()


def test_energy_of_a_hierarchical_all_reduce_is_that_of_every_byte_on_its_link() -> None:
    """4 devices in each of 3 nodes reduce 1,200 bytes. Inside a node 2 x 3 x 1,200 bytes move (scatter and gather), in three nodes; between
    nodes each of the 4 pieces of 300 bytes goes 2 x 2 x 300 bytes around its ring."""
    inner, outer = replace(LINK, pj_per_bit=2.0), replace(LINK, pj_per_bit=10.0)
    cost = hierarchical_all_reduce(1200, 4, 3, inner, outer)
    inside, between = 3 * 2 * 3 * 1200, 4 * 2 * 2 * 300
    assert float(cost.energy_j) == pytest.approx(8e-12 * (2.0 * inside + 10.0 * between), rel=1e-12)
