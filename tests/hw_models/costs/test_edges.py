"""Edges of what costs take: the last value inside is taken, the first outside is refused and named; cells, links and sheets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_models.accelerator.fields import TensorCore
from hw_models.costs import collectives, gpu, products_csv
from hw_models.costs.collectives import Link
from hw_models.costs.gpu_kernels import collectives as kernels
from hw_models.costs.gpu_kernels.parameters import CollectiveKernel, DirectKernel
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.costs.mapping import usable_words
from hw_models.costs.products import search_products
from hw_models.costs.unit_costs import empty_costs, fill
from hw_models.errors import HardwareError
from hw_models.spaces import load

EDGE = load("edge22")
LINK = Link(1e-6, 1e9)


@pytest.mark.parametrize(
    ("size", "devices", "fine"),
    [(0, 1, True), (-1, 1, False), (1, 0, False), (0.5, 2, False), (2, 1.5, False), (2**40 - 1, 1, True), (2**40, 1, False),
     (1, 2**30, True), (3, 2**30, False), (math.nan, 1, False), (math.inf, 1, False), (2.0, 2.0, True), ("a", 1, False),
     (2**31, 2**15, True), (2**31 + 1, 2**15, False)],
)  # fmt: skip
def test_sizes_and_numbers_of_devices(size: Any, devices: Any, fine: bool) -> None:
    """Whole, from none (one device) to 2^40, and no more bytes together than can be counted: devices squared times size up to 2^61."""
    if fine:
        collectives.all_gather(size, devices, LINK)
    else:
        with pytest.raises(HardwareError, match=r"size_bytes|devices"):
            collectives.all_gather(size, devices, LINK)


@pytest.mark.parametrize(
    ("field", "value", "fine"),
    [("latency_s", 0.0, True), ("latency_s", -0.5, False), ("pj_per_bit", 0.5, True), ("pj_per_bit", -0.5, False),
     ("fixed_s", math.nan, False), ("bandwidth_bytes_per_s", 0.5, True),
     ("bandwidth_bytes_per_s", 0.0, False), ("bandwidth_bytes_per_s", math.inf, False)],
)  # fmt: skip
def test_links(field: str, value: float, fine: bool) -> None:
    given = {"latency_s": 1e-6, "bandwidth_bytes_per_s": 1e9, field: value}
    if fine:
        assert getattr(Link(**given), field) == value
    else:
        with pytest.raises(HardwareError, match=field):
            Link(**given)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 5, 8, 9, 2**20, 2**20 + 1])
def test_depth_of_a_tree_and_time_of_nothing(devices: int) -> None:
    """Smallest depth whose tree has as many leaves; one device sends nothing and does not even start."""
    assert int(collectives._ceil_log2(np.array(devices))) == math.ceil(math.log2(devices))
    link = Link(1e-6, 1e9, 7.0, 3e-6)
    found = collectives.tree_all_reduce(1000, devices, link)
    steps = 2 * math.ceil(math.log2(devices))
    assert int(found.steps) == steps
    assert float(found.latency_s) == pytest.approx(steps * (1e-6 + 1000 / 1e9) + (3e-6 if devices > 1 else 0.0))
    assert float(found.energy_j) == pytest.approx(2 * (devices - 1) * 1000 * 8 * 7e-12)
    one = collectives.all_reduce(1000, devices, link)
    ring = collectives.ring_all_reduce(1000, devices, link)
    assert float(one.latency_s) == min(float(ring.latency_s), float(found.latency_s)) and int(one.link_bytes) == 2 * (devices - 1) * 1000


LIBRARY = CollectiveKernel(**{name: 0.37 + i / 10 for i, name in enumerate(CollectiveKernel.__dataclass_fields__)})
DIRECT = DirectKernel(**{name: 0.37 + i / 10 for i, name in enumerate(DirectKernel.__dataclass_fields__)})


def sheet(**given: Any) -> GpuSheet:
    usual: dict[str, Any] = {"name": "s", "tensor_core": TensorCore.SYNCHRONOUS, "multiprocessors": 10, "frequency_hz": 1e9,
                             "macs_per_cycle": 512, "l2_bytes": 1e7, "dram_bytes_per_s": 1e12,
                             "tdp_w": 300.0, "link_bytes_per_s": 3.7e3}  # fmt: skip
    return GpuSheet(**(usual | given))


@pytest.mark.parametrize("operation", kernels.OPERATIONS)
@pytest.mark.parametrize("devices", [1, 2, 5, 8])
def test_protocols_of_a_library_and_shots_of_an_engine(operation: str, devices: int) -> None:
    for size in (7.0, 9_000.0, 4e6):
        k, p, rate = LIBRARY, devices, 3.7e3
        reduce, exchange = operation == "all_reduce", operation == "all_to_all"
        steps = (p - 1) * (2 if reduce else k.all_to_all_steps if exchange else 1)
        volume = (p - 1) / p * size * (2 if reduce else 1)
        fast = k.all_reduce_rate if reduce else k.rate * (1 - k.pair_loss / p**2)
        fixed = k.start_s + k.step_s * steps
        wanted = min(fixed + volume / (k.low_latency_rate * rate), fixed + k.simple_s + volume / (fast * rate)) if p > 1 else 0.0
        assert float(kernels.library_s(sheet(), k, operation, size, devices)) == pytest.approx(wanted, rel=1e-12)
        d, fixed = DIRECT, DIRECT.start_s + DIRECT.step_s * (p - 1)
        one = fixed + (p - 1) * size / (d.one_shot_rate * rate)
        two = fixed + d.two_shot_s + 2 * (p - 1) / p * size / (d.two_shot_rate * rate)
        assert float(kernels.direct_all_reduce_s(sheet(), d, size, devices)) == pytest.approx(min(one, two) if p > 1 else 0.0, rel=1e-12)
    unlinked = sheet(link_bytes_per_s=0.0)
    if devices > 1:
        with pytest.raises(HardwareError, match=f"{devices} of it"):
            kernels.library_s(unlinked, LIBRARY, operation, 7.0, devices)


@pytest.mark.parametrize(
    "field", ["multiprocessors", "frequency_hz", "macs_per_cycle", "l2_bytes", "dram_bytes_per_s", "tdp_w", "l2_partitions"]
)
def test_numbers_of_a_sheet(field: str) -> None:
    assert getattr(sheet(**{field: 0.5}), field) == 0.5
    for value in (0, -0.5, math.inf, math.nan):
        with pytest.raises(HardwareError, match=field):
            sheet(**{field: value})


def test_rates_of_a_sheet() -> None:
    one = sheet(rates={"bf16": 1.0, "fp8": 2.0, "fp32": 0.5})
    assert one.peak_macs_per_s == 10 * 512 * 1e9 and one.port_bytes_per_cycle == 64.0
    assert sheet(l2_bytes_per_s=5e11).port_bytes_per_cycle == 50.0 and sheet(l2_bytes_per_s=7e11).port_bytes_per_cycle == 64.0
    formats = {(8, 8): "fp8", (4, 8): "fp8", (4, 4): "fp8", (16, 4): "bf16", (9, 8): "bf16", (17, 8): "fp32", (32, 32): "fp32"}
    assert {widths: one.product_format(*widths) for widths in formats} == formats
    with pytest.raises(HardwareError, match="at most 32 bits, got 33"):
        one.product_format(8, 33)
    assert sheet(rates={"int4": 4.0, "int8": 2.0, "fp16": 1.0}).product_format(4, 4) == "int4"
    for value in (0.5, 0.0, 1.5, math.nan):
        with pytest.raises(HardwareError, match="m = "):
            gpu._sizes("m", value)
    assert gpu._sizes("m", [1, 2.0]).tolist() == [1.0, 2.0]


# ---- tables of products ----


def table(text: str, folder: Path) -> products_csv.Table:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return products_csv.read_csv(folder / "t.csv")


def test_cells_of_a_table(tmp_path: Path) -> None:
    found = table("a, b\n\n 1 ,2.5\n\n3e3,-7\n", tmp_path)
    assert found.columns == ("a", "b") and len(found.rows) == 2
    assert [(type(v), v) for v in (found.number(0, "a"), found.number(0, "b"), found.number(1, "a"), found.number(1, "b"))] == [
        (int, 1), (float, 2.5), (int, 3000), (int, -7),
    ]  # fmt: skip
    for text, words in (("a,b\n1,x\n", "line 2: b = 'x'"), ("a,b\n1,2\n1,nan\n", "line 3: b = 'nan'")):
        bad = table(text, tmp_path)
        with pytest.raises(HardwareError, match=words):
            [bad.number(row, "b") for row in range(len(bad.rows))]
    for text, words in (("a,b\n", "got 1 lines"), ("a,a\n1,2\n", "'a' twice"), ("a,b\n1,2\n3\n", "line 3: 1 cells under 2")):
        with pytest.raises(HardwareError, match=words):
            table(text, tmp_path)
    sizes = table(f"m\n1\n{2**62 - 1024}\n0\n1.5\n{2**62}\n", tmp_path)
    assert products_csv._dimension(sizes, 0, "m") == 1 and products_csv._dimension(sizes, 1, "m") == 2**62 - 1024
    for row in (2, 3, 4):
        with pytest.raises(HardwareError, match=f"line {row + 2}: m = "):
            products_csv._dimension(sizes, row, "m")
    cells = [products_csv._cell(value) for value in (True, np.bool_(False), 0.1, np.float64(3), None, 7, "x")]
    assert cells == ["true", "false", "0.1", "3.0", "", 7, "x"]
    products_csv.write_csv(tmp_path / "o.csv", found, {"b": [5, None], "c": [0.5, True]})
    assert (tmp_path / "o.csv").read_text() == "a,b,c\n 1 ,5,0.5\n3e3,,true\n"


@pytest.mark.parametrize("products", [1, 2, 5])
def test_rows_of_products_on_the_designs_that_they_name(products: int, tmp_path: Path) -> None:
    """More designs than products and more products than designs: every row costs its product on its design."""
    rows = [(8 * (1 + i % products), 24, 40, 1 + i % 2, [1, 2, 4][i % 3], i % 2) for i in range(6)]
    text = "m,n,k,batch,cores,shared_weights\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "in.csv").write_text(text, encoding="utf-8")
    others = {"width": 32, "depth": 16, "l2_kib": 64, "l2_words_per_cycle": 32, "glb_mib": 2}
    assert products_csv.evaluate_gemms(tmp_path / "in.csv", "edge22", None, tmp_path / "out.csv", defaults=others, threads=1) == 6
    found = products_csv.read_csv(tmp_path / "out.csv")
    for i, (m, n, k, batch, cores, shared) in enumerate(rows):
        one = EDGE.batch(cores=cores, **others)
        wanted = search_products(np.array([[batch, m, n, k]]), np.array([shared == 1]), one)
        cycles, latency = float(wanted.cycles[0, 0]), float(wanted.cycles[0, 0] / one.frequency_hz[0])
        assert found.number(i, "cycles") == cycles and found.number(i, "latency_s") == pytest.approx(latency, rel=1e-12)
        energy = float(wanted.energy_pj[0, 0]) * 1e-12 + float(one.leakage_w[0]) * latency
        assert found.number(i, "energy_j") == pytest.approx(energy, rel=1e-12)
        peak = cores * int(one.array_rows[0]) * int(one.array_columns[0])
        assert found.number(i, "utilisation") == pytest.approx(batch * m * n * k / (cycles * peak), rel=1e-12)
        cells = dict(zip(found.columns, found.rows[i], strict=True))
        assert cells["bound"] == wanted.bound(0, 0)
        assert wanted.mapping is not None
        assert cells["mapping"] == products_csv.mapping_text(wanted.mapping, 0, 0, one.level_names)
        split, unroll = wanted.mapping.split[0, 0].tolist(), wanted.mapping.unroll[0, 0].tolist()
        assert cells["mapping"].startswith(
            f"cores m{split[0]} n{split[1]} k{split[2]} b{split[3]}; array m{unroll[0]} n{unroll[1]} k{unroll[2]}"
        )
        assert cells["mapping"].endswith(f"{one.level_names[-1]} inner {'mnk'[int(wanted.mapping.stationary[0, 0][-1])]}")


def test_words_that_a_tile_may_take_and_columns_that_are_filled() -> None:
    """Half of a level that is double buffered, whole words; costs of some designs in the columns of all, bounds by name."""
    batch = EDGE.batch(cores=np.array([1, 2]), width=32, depth=16, l2_kib=64, l2_words_per_cycle=32, glb_mib=2, word_bits=np.array([8, 16]))
    for p in range(2):
        for level in range(batch.levels):
            words = math.floor(float(batch.level_bytes[p, level]) * 8 / int(batch.word_bits[p]))
            assert usable_words(batch)[p, level] == math.floor(words / (2 if batch.level_double_buffered[level] else 1))
    costs, some = empty_costs(1, batch), empty_costs(1, batch.take([0]))
    some.latency_s[0, 0], some.bound[0, 0] = 7.0, some.bound_names.index("vector")
    fill(costs, np.array([1]), some)
    assert costs.latency_s.tolist() == [[0.0, 7.0]] and costs.bound_names[costs.bound[0, 1]] == "vector"
