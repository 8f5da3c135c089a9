"""A device's kernels set right by measurements: the numbers are found, applied where they belong, and carried by files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw_models.accelerator.design import Accelerator
from hw_models.costs.kernels import times_of
from hw_models.devices import kernel_calibration as kc
from hw_models.devices import library, this_machine
from hw_models.devices.calibration import Measurements, parse_measurements
from hw_models.errors import HardwareError
from workloads import library as models
from workloads.ops import ATTENTION, PRODUCTS, Kind

SHAPES = np.array([(m, n, k) for m in (1, 64, 512, 4096) for n, k in ((1024, 1024), (4096, 1024), (1024, 4096), (8192, 8192))], dtype=float)
ROWS = np.array([(r, c) for r in (128, 1024, 8192) for c in (512, 4096, 16384)], dtype=float)


def planted(name: str, *, product: tuple[float, float], vector: tuple[float, float]) -> list[Measurements]:
    """Rows that take scale x model + fixed on the device."""
    device = library.load(name).accelerator
    bare = [
        Measurements("gemm", "fp16", SHAPES, np.ones(len(SHAPES)), np.ones(len(SHAPES))),
        Measurements("softmax", "fp16", ROWS, np.ones(len(ROWS)), np.ones(len(ROWS))),
    ]
    return [
        replace(rows, latency_s=scale * kc._model_s(device, rows) + fixed)
        for rows, (scale, fixed) in zip(bare, (product, vector), strict=True)
    ]


@pytest.mark.parametrize("name", ["h100", "l4", "server-cpu"])
def test_what_was_planted_is_found(name: str) -> None:
    found, unused = kc.fit(library.load(name).accelerator, planted(name, product=(1.3, 5e-6), vector=(0.7, 2e-6)))
    by = {f.kernels: f for f in found}
    assert (by["product"].scale, by["product"].fixed_s) == (pytest.approx(1.3, rel=1e-3), pytest.approx(5e-6, rel=1e-2))
    assert (by["vector"].scale, by["vector"].fixed_s) == (pytest.approx(0.7, rel=1e-3), pytest.approx(2e-6, rel=1e-2))
    assert max(by["product"].held_out) < 1e-3 < by["product"].error_before
    assert unused == []


def test_measurements_that_the_model_has_already_leave_it_alone() -> None:
    found, _ = kc.fit(library.load("h100").accelerator, planted("h100", product=(1.0, 0.0), vector=(1.0, 0.0)))
    for f in found:
        assert f.scale == pytest.approx(1.0, abs=1e-4) and f.fixed_s < 1e-9


def test_products_and_the_others_are_scaled_and_only_launched_kernels_take_the_fixed_time() -> None:
    device = library.load("h100").accelerator
    table = models.load("bert-tiny").build().phases[0].table
    plain = times_of(table, device.batch(), 0)
    tensor = np.isin(table.kind, (*PRODUCTS, *ATTENTION))
    scaled = times_of(table, replace(device, product_scale=2.0, vector_scale=3.0).batch(), 0)
    np.testing.assert_allclose(scaled.latency_s, np.where(tensor, 2.0, 3.0) * plain.latency_s, rtol=1e-15)
    fixed = times_of(table, replace(device, product_fixed_s=1e-5, vector_fixed_s=2e-5).batch(), 0)
    added = fixed.latency_s - plain.latency_s
    np.testing.assert_allclose(added[tensor], 1e-5, rtol=1e-9)
    activation = table.kind == Kind.ACTIVATION  # it runs inside the product before it
    assert activation.any() and (added[activation] == 0).all()
    np.testing.assert_allclose(added[table.kind == Kind.NORM], 2e-5, rtol=1e-9)


def test_a_record_with_a_calibration_is_read_back_equal(tmp_path) -> None:  # type: ignore[no-untyped-def]
    device = replace(library.load("h100").accelerator, product_scale=1.25, vector_fixed_s=3e-6)
    path = tmp_path / "mine.toml"
    path.write_text(device.to_toml())
    assert Accelerator.from_toml(path) == device
    assert "[calibration]" not in library.load("h100").accelerator.to_toml()


def test_devices_that_are_mapped_have_no_kernels() -> None:
    with pytest.raises(HardwareError, match="no kernels to calibrate"):
        kc.fit(library.load("eyeriss").accelerator, planted("h100", product=(1.0, 0.0), vector=(1.0, 0.0)))


def test_too_few_rows_and_rows_of_fused_functions_are_said() -> None:
    device = library.load("h100").accelerator
    rows = planted("h100", product=(1.0, 0.0), vector=(1.0, 0.0))
    with pytest.raises(HardwareError, match="product kernels have 3 measured rows"):
        kc.fit(device, [rows[0].take(slice(0, 3))])
    gelu = Measurements("gelu", "fp16", np.full((8, 1), 1e6), np.ones(8), np.full(8, 1e-5))
    with pytest.raises(HardwareError, match="nothing to calibrate"):
        kc.fit(device, [gelu])
    assert "gelu" in kc.fit(device, [*rows, gelu])[1][0]


def test_this_machine_is_measured_and_its_rows_are_read_back() -> None:
    measured = this_machine.measure(products=((4, 64, 64), (64, 64, 64)), rows=((16, 64),))
    assert all((rows.latency_s > 0).all() for rows in measured)
    back, passed = parse_measurements(this_machine.as_csv(measured), where="rows")
    assert passed == []
    for ours, theirs in zip(measured, back, strict=True):
        assert (ours.operator, ours.dtype) == (theirs.operator, theirs.dtype)
        np.testing.assert_array_equal(ours.dims, theirs.dims)
        np.testing.assert_array_equal(ours.latency_s, theirs.latency_s)
