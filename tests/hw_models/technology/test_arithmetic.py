"""Profile `silicon`: arithmetic by format, flip-flops, clock and areas of cores, against figures worked by hand from the cited tables."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import Dataflow
from hw_models.costs.evaluate import evaluate
from hw_models.devices import library
from hw_models.technology import arithmetic
from hw_models.technology.tables import logic_area, logic_energy, sram
from hw_models.validation.registry import reference_rows
from workloads.ops import Kind, Operation, OperationTable

NVDLA = library.load("nvdla").accelerator


def test_published_units_at_their_node_and_supply() -> None:
    """Horowitz: 0.2 pJ for 8 x 8 bits and 0.1 for a sum of 32, 3.1 for 32 x 32; 16 bits lie at the geometric mean of both products."""
    assert arithmetic.mac_pj(8, 45.0, 0.9) == pytest.approx(0.2 + 0.1)
    assert arithmetic.mac_pj(16, 45.0, 0.9) == pytest.approx(math.sqrt(0.2 * 3.1) + 0.1)
    sum_of_64 = 0.1 * 2 ** (math.log(0.1 / 0.03) / math.log(4))
    assert arithmetic.mac_pj(32, 45.0, 0.9) == pytest.approx(3.1 + sum_of_64)
    assert arithmetic.mac_um2(8, 45.0) == pytest.approx(282 + 137)
    assert arithmetic.register_bit_pj(40.0, 0.9) == pytest.approx(0.009)
    assert arithmetic.register_bit_um2(40.0) == pytest.approx(5.98)


def test_nodes_and_supplies_follow_the_published_polynomials() -> None:
    """Stillmaker and Baas, energy at 45 nm: 1.018 V^2 - 0.3107 V + 0.1539; at 16 nm: 0.2958 V^2 - 0.1241 V + 0.03024."""
    ratio = (0.2958 * 0.64 - 0.1241 * 0.8 + 0.03024) / (1.018 * 0.81 - 0.3107 * 0.9 + 0.1539)
    assert arithmetic.mac_pj(8, 16.0, 0.8) == pytest.approx(0.3 * ratio)
    nodes = np.array([65.0, 45.0, 32.0, 28.0, 22.0, 16.0, 7.0])
    energy = arithmetic.mac_pj(np.full(7, 8.0), nodes, np.full(7, 0.8))
    assert (np.diff(energy) < 0).all()
    assert (np.diff([arithmetic.mac_pj(bits, 22.0, 0.8).item() for bits in (4, 8, 12, 16, 32)]) > 0).all()
    assert (np.diff([arithmetic.mac_pj(8, 22.0, volt).item() for volt in (0.6, 0.8, 1.0)]) > 0).all()


def energy_of(design: Accelerator) -> float:
    """Dynamic energy of a product whose every word stays on chip but once [J]."""
    rows = [Operation("product", Kind.GEMM, 1, 64, 64, 64, second_is_weight=True, parameters=4096, weight_id="w")]
    return float(evaluate(design, OperationTable.from_rows(rows)).dynamic_j)


def test_a_sum_is_registered_once_a_tree() -> None:
    """64 x 64 x 64 products: without trees every one clocks 32 bits of a sum, with trees of 64 a 64th of them does."""
    bit = 1.75 * arithmetic.register_bit_pj(16.0, 0.8).item() * 1e-12
    apart, tree = (energy_of(replace(NVDLA, adder_tree=n)) for n in (1, 64))
    assert apart - tree == pytest.approx(64**3 * 32 * bit * (1 - 1 / 64), rel=1e-9)


def test_a_unit_clocks_what_moves() -> None:
    """Weights rest: an activation of 8 bits and a sum of 32 a product; outputs rest: both operands. Reads of flip-flops are free."""
    bit, mac = 1.75 * arithmetic.register_bit_pj(28.0, 0.9), 1.75 * arithmetic.mac_pj(8, 28.0, 0.9)
    tpu = library.load("tpu-v1").accelerator
    for dataflow, moving in ((Dataflow.WS, 8 + 32), (Dataflow.OS, 16 + 32)):
        batch = replace(tpu, dataflow=dataflow).batch()
        assert batch.register_read_pj_per_word[0] == 0.0
        a_product = batch.mac_pj[0] + 3 * batch.register_read_pj_per_word[0] + batch.register_write_pj_per_word[0]
        assert a_product == pytest.approx(mac + moving * bit)


def test_registers_beyond_eight_words_are_a_file() -> None:
    """A file is read: three words and a write of one a product, at the energies of the 32-byte register of logic.csv."""
    path, file = (replace(NVDLA, register_bytes=size, adder_tree=1).batch() for size in (8, 9))
    scale = logic_energy(16.0, 0.8).item()
    assert path.register_read_pj_per_word[0] == 0.0
    assert file.register_read_pj_per_word[0] == pytest.approx(0.190888 * scale)
    assert file.register_write_pj_per_word[0] == pytest.approx(0.254518 * scale)
    assert file.mac_pj[0] == pytest.approx(1.75 * arithmetic.mac_pj(8, 16.0, 0.8).item())


def test_area_by_hand() -> None:
    """NVDLA: 2,048 units and 16 lanes with 8 and 12 bytes of registers, 512 KiB with a port of 32 bytes."""
    scale, registers = (logic_area(16.0) / logic_area(45.0)).item(), (logic_area(16.0) / logic_area(40.0)).item()
    unit = 3.92 * (419 * scale + 64 * 5.98 * registers)
    lane = 3.92 * (419 * scale + 96 * 5.98 * registers)
    memory = 3.10 * float(sram("area_um2", 512 * 1024, 16.0, 32))
    found = float(replace(NVDLA, area_mm2=None).batch().area_mm2[0])
    assert found == pytest.approx((2048 * unit + 16 * lane + memory) * 1e-6, rel=1e-9)


def sizes(text: str) -> list[tuple[int, float]]:
    """Memories of a row as (number, bytes): `32;2;2` or `64x10` in KiB."""
    parts = [part.split("x") for part in text.split(";")]
    return [(int(p[0]) if len(p) == 2 else 1, float(p[-1]) * 1024) for p in parts]


def test_area_factors_are_what_the_reference_dies_give() -> None:
    """Both factors again from reference_dies.csv, and how far the five lie from them: 0.65 to 1.61."""
    rows = reference_rows("reference_dies.csv")
    logic, memory, published = (np.zeros(len(rows)) for _ in range(3))
    for i, row in enumerate(rows):
        node, units = float(row["node_nm"]), float(row["macs"])
        cells = arithmetic.mac_um2(float(row["bits"]), node)
        held = float(row["register_bytes"]) * 8 * arithmetic.register_bit_um2(node)
        lane = cells + 96 * arithmetic.register_bit_um2(node)
        logic[i] = (units * (cells + held) + float(row["lanes"]) * lane) * 1e-6
        memory[i] = sum(n * float(sram("area_um2", size, node, 32)) for n, size in sizes(row["sram_kib"])) * 1e-6
        published[i] = float(row["published_mm2"])

    def off(factors: tuple[float, float]) -> float:
        return float((np.log((factors[0] * logic + factors[1] * memory) / published) ** 2).sum())

    grid = [(a, b) for a in np.linspace(3, 6, 121) for b in np.linspace(2, 4, 101)]
    best = min(grid, key=off)
    assert best == pytest.approx((arithmetic.LOGIC_AREA_FACTOR, arithmetic.SRAM_AREA_FACTOR), abs=0.06)
    assert off((arithmetic.LOGIC_AREA_FACTOR, arithmetic.SRAM_AREA_FACTOR)) <= off(best) * 1.01
    ratio = (arithmetic.LOGIC_AREA_FACTOR * logic + arithmetic.SRAM_AREA_FACTOR * memory) / published
    assert (round(float(ratio.min()), 2), round(float(ratio.max()), 2)) == (0.65, 1.61)


def test_other_profiles_know_nothing_of_it() -> None:
    """A tree and another dataflow change no figure of the default profile."""
    design = NVDLA.with_profile("default")
    assert energy_of(replace(design, adder_tree=1)) == energy_of(design)
    assert float(replace(design, area_mm2=None, adder_tree=1).batch().area_mm2[0]) == float(
        replace(design, area_mm2=None).batch().area_mm2[0]
    )


def test_a_file_keeps_the_tree(tmp_path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(NVDLA.to_toml(), encoding="utf-8")
    assert Accelerator.from_toml(path).adder_tree == 64
    assert "adder_tree" not in library.load("tpu-v4i").accelerator.to_toml()
