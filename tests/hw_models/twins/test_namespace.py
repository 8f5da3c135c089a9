"""Formulas over two namespaces, their relaxations, and the design model with gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workloads
from hw_models import spaces as templates
from hw_models.costs.evaluate import evaluate
from hw_models.costs.vector import lane_pj, level_rates, physical, vector_work
from hw_models.costs.vector_unit import LevelRates, VectorWork, vector_unit
from hw_models.errors import HardwareError
from hw_models.technology import namespace as formulas
from hw_models.technology import tables as technology
from hw_models.twins import edge as relaxed
from workloads.ops import PRODUCTS

torch = pytest.importorskip("torch")
KNOBS = {"cores": 4, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}


def test_torch_runs_the_same_lines_to_the_same_numbers() -> None:
    template = templates.load("edge22")
    batch = template.batch(**template.grid()).take(np.arange(0, template.size, 121))
    table = workloads.load("bert").build().phases[0].table
    table = table.take(np.flatnonzero(~np.isin(table.kind, PRODUCTS)))
    exact = physical(table, batch)
    xp = formulas.torch_namespace()
    work = vector_work(table, technology.dram("lpddr4").burst_bytes)

    def tensor(value: object) -> object:
        return torch.as_tensor(np.asarray(value, dtype=np.float64))

    found = vector_unit(
        xp,
        VectorWork(**{name: tensor(value) for name, value in vars(work).items()}),
        lanes=tensor(batch.vector_lanes[None, :]),
        lane_bits=tensor(batch.mac_bits[None, :]),
        lane_pj=tensor(lane_pj(batch.mac_pj)[None, :]),
        word_bits=tensor(batch.word_bits[None, :]),
        frequency_hz=tensor(batch.frequency_hz[None, :]),
        levels=[LevelRates(**{name: tensor(value) for name, value in vars(level).items()}) for level in level_rates(batch)],
    )
    assert np.array_equal(found.lanes_s.numpy(), exact.lanes_s)
    assert np.array_equal(found.energy_j.numpy(), exact.energy_j)
    assert np.array_equal(found.dram_bytes.numpy(), exact.dram_bytes)
    for ours, theirs in zip(found.level_s, exact.level_s, strict=True):
        assert np.array_equal(ours.numpy(), theirs)


@given(x=st.floats(0.001, 1e9))
def test_relaxed_ceil_is_a_lower_bound_within_one(x: float) -> None:
    value = float(formulas.relaxed_ceil(torch.tensor(x, dtype=torch.float64)))
    assert value <= np.ceil(x) < value + 1


@given(a=st.floats(0.0, 1e12), b=st.floats(0.0, 1e12))
def test_smooth_maximum_is_close_above(a: float, b: float) -> None:
    value = float(formulas.smooth_maximum(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)))
    # The p-norm of two numbers exceeds the larger by at most 2^(1/12) = 1.0595.
    assert max(a, b) * (1 - 1e-12) <= value <= max(a, b) * 1.06


def test_smooth_maximum_has_gradients_for_both() -> None:
    a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.1, 0.0], dtype=torch.float64, requires_grad=True)
    formulas.smooth_maximum(a, b).sum().backward()
    assert (a.grad > 0).all()
    assert b.grad[0] > 0
    assert torch.isfinite(b.grad).all()


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.floats(4096, 6e7), min_size=2, max_size=6))
def test_power_law_is_the_table_in_both_namespaces(sizes: list[float]) -> None:
    curve = technology.sram_curve("area_um2", 22, 4)
    x = np.log(np.array(sizes))
    xp = formulas.torch_namespace()
    found = formulas.power_law(xp, xp.asarray(curve.log_bytes), xp.asarray(curve.log_value), torch.as_tensor(x))
    np.testing.assert_allclose(found.numpy(), curve.log(x), rtol=1e-15)


def tensors(points: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, object]:
    grid = templates.load("edge22").as_published().grid()
    return {k: torch.tensor(v[points], dtype=torch.float64, requires_grad=True) for k, v in grid.items()}


def ranks(values: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.argsort(np.argsort(np.asarray(values), kind="stable")).astype(np.float64)


def test_the_relaxed_design_follows_the_exact_one() -> None:
    points = np.random.default_rng(3).permutation(3240)[:150]
    template = templates.load("edge22").as_published()  # with a quarter of a MiB, whose further traffic no bound knows, 0.97
    batch = template.batch(**{k: v[points] for k, v in template.grid().items()})
    workload = workloads.load("bert").build()
    exact = evaluate(batch, workload)
    found = relaxed.edge_cost(workload.phases[0].table, tensors(points))
    latency = found.latency_s.detach().numpy()
    # Rank correlation of latency 0.99, of area above 0.999; the bounds of energy miss the innermost traffic, evenly.
    assert np.corrcoef(ranks(latency), ranks(exact.latency_s))[0, 1] >= 0.98
    assert np.corrcoef(ranks(found.area_mm2.detach().numpy()), ranks(exact.area_mm2))[0, 1] >= 0.999
    ratio = latency / exact.latency_s
    assert 0.95 <= np.median(ratio) <= 1.05
    energy = found.energy_j.detach().numpy() / exact.energy_j
    assert np.quantile(energy, 0.95) / np.quantile(energy, 0.05) <= 1.2
    np.testing.assert_allclose(found.tops.detach().numpy(), batch.tops, rtol=1e-12)


def test_gradients_are_finite_and_have_the_right_sign() -> None:
    points = np.random.default_rng(4).permutation(3240)[:60]
    table = workloads.load("bert").build().phases[0].table
    knobs = tensors(points)
    relaxed.edge_cost(table, knobs).latency_s.sum().backward()
    for name, knob in knobs.items():
        assert torch.isfinite(knob.grad).all()
        assert (knob.grad <= 1e-15).all(), name  # more of anything is never slower
    assert all((knobs[name].grad < 0).all() for name in ("cores", "width"))
    knobs = tensors(points)
    relaxed.edge_cost(table, knobs).area_mm2.sum().backward()
    assert all((knobs[name].grad > 0).all() for name in ("cores", "width", "depth", "glb_mib"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"glb_mib": None}, "glb_mib is missing"), ({"glb_mb": 2.0}, "did you mean 'glb_mib'")],
)
def test_wrong_knobs(change: dict[str, float | None], message: str) -> None:
    table = workloads.load("bert").build(layers=2, hidden=128, heads=2, sequence=32).phases[0].table
    knobs = {name: torch.tensor([float(v)]) for name, v in KNOBS.items()}
    knobs |= {name: torch.tensor([v]) for name, v in change.items() if v is not None}
    knobs = {name: v for name, v in knobs.items() if change.get(name, 0.0) is not None}
    with pytest.raises(HardwareError, match=message):
        relaxed.edge_cost(table, knobs)
