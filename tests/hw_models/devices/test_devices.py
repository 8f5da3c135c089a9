"""Devices: data-sheet numbers, a plain reference of the operator model, its properties, and the shipped overheads."""

from __future__ import annotations

import math
import tomllib
from dataclasses import astuple, replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hw_models.costs import gpu
from hw_models.costs.evaluate import unit_costs
from hw_models.devices import library as devices
from hw_models.devices.calibration import GemmOverheads, VectorOverheads
from hw_models.errors import HardwareError
from hw_models.validation.devices import shipped_overheads
from workloads.ops import Kind, Operation, OperationTable

NAMES = ("a100", "eyeriss", "gemmini", "h100", "tpu-v1", "tpu-v4i")
BOUGHT = (
    *("a100", "a100-40gb", "h100", "h100-pcie", "h100-nvl", "h200", "b200", "gb200", "l4", "l40s", "rtx-pro-6000", "mi210", "mi300x"),
    *("gaudi3", "tpu-v4i", "tpu-v5e", "tpu-v5p", "tpu-v6e", "trainium2", "inferentia2", "jetson-orin", "edge-tpu", "server-cpu"),
)


def test_the_devices_are_there() -> None:
    assert set(NAMES) <= set(devices.names())
    assert set(BOUGHT) <= set(devices.names())


@pytest.mark.parametrize("name", devices.names())
def test_every_number_has_a_source(name: str) -> None:
    text = (files("hw_models") / "data" / "devices" / f"{name}.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    sources = document["sources"]
    assert all(isinstance(s, str) and len(s) > 10 for s in sources.values())
    needed = {"array", "vector"} | {level["name"] for level in document["accelerator"]["levels"]}
    given = {k for k, v in document["accelerator"].items() if isinstance(v, (int, float)) and k != "word_bits"}
    needed |= {"link" if k.startswith("link_") else k for k in given}
    needed |= {k for k in ("gpu", "link", "embodied", "capital_usd", "published_kgco2e") if k in document} | ({"tdp_w"} & document.keys())
    execution = document["accelerator"].get("execution", {})
    needed |= {"tdp_w"} & execution.keys() | ({"gpu"} if execution.get("model") == "gpu" else set())
    assert needed <= sources.keys()


# Peak rates as the makers print them: 10^12 operations a second and 10^9 bytes a second (1 % covers their rounding).
@pytest.mark.parametrize(
    ("name", "tops", "gb_per_s", "mm2", "capacity_gib"),
    [
        ("a100", 312, 2039, 826, 80),
        ("h100", 989.4, 3350, 814, 80),
        ("h200", 989.4, 4800, 814, 141),
        ("h100-pcie", 756, 2000, 814, 80),
        ("h100-nvl", 835, 3900, 814, 94),
        ("b200", 2250, 7700, 1600, 180),
        ("gb200", 2500, 8000, 1600, 185),
        ("l4", 121, 300, 294, 24),
        ("l40s", 366, 864, 609, 48),
        ("rtx-pro-6000", 468, 1792, 750, 96),
        ("mi210", 181, 1638, 724, 64),
        ("mi300x", 1307, 5300, 920, 192),
        ("gaudi3", 1835, 3700, 1600, 128),
        ("tpu-v5e", 197, 819, 325, 16),
        ("tpu-v5p", 459, 2765, 700, 95),
        ("tpu-v6e", 918, 1640, 700, 32),
        ("trainium2", 667, 2900, 800, 96),
        ("tpu-v1", 92, 34, 331, 8),
        ("tpu-v4i", 138, 614, 400, 8),
        ("gemmini", 0.512, 16, 1.029, 1),
        ("eyeriss", 0.0672, 0.48, 12.25, 1),
    ],
)
def test_peak_rates_are_those_of_the_data_sheet(name, tops, gb_per_s, mm2, capacity_gib) -> None:
    device = devices.load(name)
    batch = device.accelerator.batch()
    assert batch.tops[0] == pytest.approx(tops, rel=0.01)
    assert batch.dram_bytes_per_s[0] == pytest.approx(gb_per_s * 1e9, rel=0.01)
    assert batch.area_mm2[0] == device.die_mm2 * device.embodied.get("dies", 1) == mm2
    assert batch.dram_bytes[0] == capacity_gib * 2**30


@pytest.mark.parametrize("name", NAMES)
def test_devices_are_costed_like_any_accelerator(name: str) -> None:
    product = Operation("qkv", Kind.GEMM, m=512, n=768, k=768, second_is_weight=True)
    batch = devices.load(name).accelerator.batch()
    costs = unit_costs(OperationTable.from_rows([product]), batch, threads=1)
    assert costs.latency_s[0, 0] >= 2 * 512 * 768 * 768 / (batch.tops[0] * 1e12) * (1 - 1e-12)
    assert costs.energy_j[0, 0] > 0


def test_gpu_view_of_the_a100() -> None:
    hardware = devices.load("a100").gpu_hardware()
    assert (hardware.multiprocessors, hardware.macs_per_cycle, hardware.threads) == (108, 1024, 2048)
    assert hardware.l2_bytes == 41_943_040  # as cudaDeviceProp reports it
    assert hardware.l2_bytes_per_s == pytest.approx(7219e9, rel=1e-3)


def plain_gemm(hardware: gpu.GpuHardware, o: GemmOverheads, m: int, n: int, k: int, batch: int, dtype: str) -> float:
    """The model in plain numbers, one candidate after the other."""
    size = hardware.dtype_bytes[dtype]
    best = math.inf
    for tm, tn in gpu.TILES:
        for split in gpu.SPLITS:
            if split > 1 and split > -(-k // gpu.MIN_SPLIT_K):
                continue
            depth = -(-k // (split * gpu.K_STEP)) * gpu.K_STEP
            if split > 1:
                depth = max(depth, gpu.MIN_SPLIT_K)
            tiles = batch * -(-m // tm) * -(-n // tn) * split
            waves = -(-tiles // hardware.multiprocessors)
            rate = hardware.macs_per_cycle * hardware.frequency_hz * hardware.dtype_rates[dtype] * o.tensor_efficiency
            compute = waves * depth * (tm * tn + o.operand_load_macs * (tm + tn)) / rate
            partial = 8 * split * batch * m * n if split > 1 else 0
            outputs = batch * m * n * size
            l2 = tiles * (tm + tn) * depth * size + outputs + partial
            dram = batch * (m * k + k * n) * size + outputs + (partial if partial > hardware.l2_bytes else 0)
            time = max(
                compute,
                l2 / (hardware.l2_bytes_per_s * o.l2_efficiency),
                dram / (hardware.dram_bytes_per_s * o.dram_efficiency),
            )
            best = min(best, time)
    return o.launch_s + best


@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.integers(1, 200),
    st.sampled_from(["fp16", "tf32", "int8"]),
)
@settings(max_examples=150, deadline=None)
def test_gemm_equals_its_plain_reference(m: int, n: int, k: int, batch: int, dtype: str) -> None:
    hardware = devices.load("a100").gpu_hardware()
    overheads = GemmOverheads(5e-6, 0.85, 0.7, 0.6, 6.0)
    expected = plain_gemm(hardware, overheads, m, n, k, batch, dtype)
    assert gpu.gemm_latency_s(hardware, overheads, m, n, k, batch=batch, dtype=dtype) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 40000), st.integers(1, 40000), st.sampled_from(sorted(gpu.ROW_KERNELS)))
@example(1, 1032, "softmax")  # half of 129 loads: 64.5 threads, which is more than 64
@settings(max_examples=150, deadline=None)
def test_row_operators_equal_their_plain_reference(rows: int, columns: int, operator: str) -> None:
    hardware = devices.load("a100").gpu_hardware()
    o = VectorOverheads(3e-6, 1e-5, 0.6)
    kernel = gpu.ROW_KERNELS[operator]
    threads = kernel.threads
    if not threads:
        threads = 32
        while threads < 512 and threads < columns / 16:
            threads *= 2
    if columns <= kernel.register_columns:
        passes, loads = 1, 1
    else:
        passes = kernel.passes
        loads = passes * -(-columns // (threads * 8))
    in_flight = min(rows, 108 * (2048 // threads))
    missed = min(max(in_flight * columns * 2 / hardware.l2_bytes - 0.5, 0), 1)
    dealt = -(-rows // 108) * 108
    traffic = (2 + (passes - 1) * missed) * dealt * columns * 2
    expected = max(3e-6, 1e-5 + loads * hardware.memory_latency_s + traffic / (hardware.dram_bytes_per_s * 0.6))
    assert gpu.row_latency_s(hardware, o, operator, rows, columns) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000))
@example(1, 1, 145)  # a longer k could be split where a shorter one could not
@settings(max_examples=80, deadline=None)
def test_more_of_anything_is_never_slower(m: int, n: int, k: int) -> None:
    hardware = devices.load("a100").gpu_hardware()
    overheads = GemmOverheads(5e-6, 0.85, 0.7, 0.6, 6.0)
    time = gpu.gemm_latency_s(hardware, overheads, m, n, k)
    for better in (
        replace(hardware, dram_bytes_per_s=2 * hardware.dram_bytes_per_s),
        replace(hardware, l2_bytes_per_s=2 * hardware.l2_bytes_per_s),
        replace(hardware, l2_bytes=2 * hardware.l2_bytes),
        replace(hardware, frequency_hz=2 * hardware.frequency_hz),
        replace(hardware, multiprocessors=2 * hardware.multiprocessors),
    ):
        assert gpu.gemm_latency_s(better, overheads, m, n, k) <= time
    for more in ((2 * m, n, k), (m, 2 * n, k), (m, n, 2 * k)):
        assert gpu.gemm_latency_s(hardware, overheads, *more) >= time
    assert gpu.gemm_latency_s(hardware, overheads, m, n, k, batch=2) >= time


@given(st.integers(1, 20000), st.integers(1, 20000), st.sampled_from(sorted(gpu.ROW_KERNELS)))
@settings(max_examples=80, deadline=None)
def test_row_operators_are_monotone(rows: int, columns: int, operator: str) -> None:
    hardware = devices.load("a100").gpu_hardware()
    o = VectorOverheads(3e-6, 1e-5, 0.6)
    time = gpu.row_latency_s(hardware, o, operator, rows, columns)
    assert gpu.row_latency_s(hardware, o, operator, 2 * rows, columns) >= time
    for better in (
        replace(hardware, dram_bytes_per_s=2 * hardware.dram_bytes_per_s),
        replace(hardware, l2_bytes=2 * hardware.l2_bytes),
    ):
        assert gpu.row_latency_s(better, o, operator, rows, columns) <= time


def test_splitting_k_helps_where_there_are_few_tiles() -> None:
    hardware = devices.load("a100").gpu_hardware()
    overheads = devices.load("a100").overhead_set().operators["gemm"]
    assert isinstance(overheads, GemmOverheads)
    candidates = gpu.gemm_candidates(hardware, [64], 64, 65536)
    split_one = np.tile(np.array(gpu.SPLITS) == 1, len(gpu.TILES))[:, None]
    unsplit = replace(candidates, allowed=candidates.allowed & split_one)
    times = [gpu.gemm_times(hardware, c, overheads)[0] for c in (candidates, unsplit)]
    assert times[0] < 0.5 * times[1]


def test_waves_are_whole() -> None:
    # 108 tiles of 256 x 128 fill the A100 once. One column more costs a step, the next thirty nothing.
    device = devices.load("a100")
    one, step, flat = (device.gemm_latency_s(256 * 12, 128 * 9 + more, 8192) for more in (0, 1, 31))
    assert step > 1.1 * one
    assert flat == step


def test_bounds_are_named() -> None:
    hardware = devices.load("a100").gpu_hardware()
    overheads = GemmOverheads(5e-6, 0.85, 0.7, 0.6, 6.0)
    shapes = [np.array([1, 8192]), np.array([8192, 8192]), np.array([8192, 8192])]
    _, bound = gpu.gemm_times(hardware, gpu.gemm_candidates(hardware, *shapes), overheads)
    assert [gpu.BOUNDS[b] for b in bound] == ["dram", "compute"]


def test_shipped_overheads_are_the_fits() -> None:
    """The file holds six digits of what the fits give; 1e-3 leaves room for another platform's arithmetic."""
    fresh = shipped_overheads()
    text = (files("hw_models") / "data" / "overheads.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    assert document.keys() == fresh.keys()
    for name, sets in fresh.items():
        assert document[name].keys() == sets.keys()
        for kind, operators in sets.items():
            tables = {"": operators} if kind == "link" else operators
            held = {"": document[name][kind]} if kind == "link" else document[name][kind]
            assert held.keys() == tables.keys()
            for operator, values in tables.items():
                for field, value in values.items():
                    if isinstance(value, str):
                        assert held[operator][field] == value
                    else:
                        assert held[operator][field] == pytest.approx(value, rel=1e-3), (name, kind, operator, field)


def test_overheads_survive_a_file(tmp_path) -> None:
    overheads = devices.load("a100").overhead_set("eager")
    path = tmp_path / "mine.toml"
    path.write_text(devices.overheads_toml(overheads), encoding="utf-8")
    back = devices.read_overheads(path, name="eager")
    assert back == overheads
    mine = devices.load("a100").with_overheads(replace(back, name="mine"))
    assert mine.gemm_latency_s(64, 64, 64, overheads="mine") == mine.gemm_latency_s(64, 64, 64, overheads="eager")


def test_a_device_under_another_profile() -> None:
    device = devices.load("tpu-v1", profile="catransformers22")
    assert device.accelerator.profile == "catransformers22"
    assert device.die_mm2 == devices.load("tpu-v1").die_mm2


def test_h100_is_faster_than_a100() -> None:
    for shape in ((4096, 4096, 4096), (8, 12288, 12288), (64, 4096, 4096)):
        a100, h100 = (devices.load(n).gemm_latency_s(*shape) for n in ("a100", "h100"))
        assert h100 < a100
    assert devices.load("h100").gemm_latency_s(8192, 8192, 8192, dtype="fp8") < devices.load("h100").gemm_latency_s(8192, 8192, 8192)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: devices.load("a10"), "did you mean 'a100'"),
        (lambda: devices.load("tpu-v1").gemm_latency_s(1, 1, 1), "no operator model"),
        (lambda: devices.load("eyeriss").gpu_hardware(), "devices with one are a100, h100"),
        (lambda: devices.load("a100").overhead_set("kernl"), "did you mean 'kernel'"),
        (lambda: devices.load("a100").gemm_latency_s(0, 1, 1), "m = 0"),
        (lambda: devices.load("a100").gemm_latency_s(1, 1, 1, dtype="fp17"), "dtype of device a100"),
        (lambda: devices.load("a100").row_latency_s("gelu", rows=1, columns=1), "row-wise operator"),
        (lambda: devices.load("a100").row_latency_s("rmsnorm", rows=1, columns=1, overheads="eager"), "eager overheads"),
        (lambda: devices.load("a100").element_latency_s("gelo", elements=4), "did you mean 'gelu'"),
        (lambda: devices.load("a100").element_latency_s("gelu", elements=float("nan")), "elements"),
        (lambda: devices.overhead_set_from("x", {"gemm": {"launch_s": 1.0}}, where="f"), "tensor_efficiency"),
        (
            lambda: devices.overhead_set_from("x", {"gelu": {"issue_s": 0.0, "launch_s": 1.0, "dram_efficiency": 1.5}}, where="f"),
            "at most 1",
        ),
        (lambda: devices.overhead_set_from("x", {"conv": {}}, where="f"), "operator 'conv'"),
        (lambda: devices.read_overheads("nowhere.toml"), "nowhere.toml"),
    ],
)
def test_bad_arguments_are_named(call, sentence: str) -> None:
    with pytest.raises(HardwareError, match=sentence):
        call()


def test_records_are_plain_numbers() -> None:
    for overheads in devices.load("a100").overheads.values():
        for values in overheads.operators.values():
            assert all(type(v) is float and math.isfinite(v) for v in astuple(values))
