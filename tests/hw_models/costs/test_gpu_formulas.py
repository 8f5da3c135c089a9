"""Formulas of GPU kernels one at a time, by hand: what errors over thousands of measured rows would hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw_models.accelerator.fields import TensorCore
from hw_models.costs.gpu_kernels import collectives, products
from hw_models.costs.gpu_kernels.kernel_choice import Choice, choice
from hw_models.costs.gpu_kernels.operations import kernel_times, low_precision
from hw_models.costs.gpu_kernels.parameters import CollectiveKernel, DirectKernel, family
from hw_models.devices import gpus
from workloads import library
from workloads.ops import Kind, Operation, OperationTable

H100 = gpus.gpu_sheet("h100")
LIBRARY = CollectiveKernel(
    start_s=10e-6, step_s=1e-6, rate=0.8, all_reduce_rate=0.5, pair_loss=0.4, low_latency_rate=0.1, simple_s=20e-6, all_to_all_steps=3.0
)


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize(
    ("operation", "messages", "rounds", "rate"),
    [("all_reduce", 2, 2, lambda p: 0.5), ("all_gather", 1, 1, lambda p: 0.8 * (1 - 0.4 / p**2)), ("all_to_all", 3, 1, None)],
)
def test_a_library_collective_is_the_better_of_two_protocols(
    operation: str, messages: int, rounds: int, rate: object, devices: int
) -> None:
    """(p - 1) messages a round, each device sends (p - 1) / p of its buffer a round; the low-latency protocol has a tenth of the link at
    once, the simple one its share of it 20 us later.
    """
    link = H100.link_bytes_per_s
    share = rate(devices) if callable(rate) else 0.8 * (1 - 0.4 / devices**2)
    for size in (1e3, 1e6, 1e9):
        fixed = 10e-6 + 1e-6 * messages * (devices - 1)
        sent = rounds * size * (devices - 1) / devices
        expected = min(fixed + sent / (0.1 * link), fixed + 20e-6 + sent / (share * link))
        assert float(collectives.library_s(H100, LIBRARY, operation, size, devices)) == pytest.approx(expected, rel=1e-12)
    assert float(collectives.library_s(H100, LIBRARY, operation, 1e6, 1)) == 0.0


def test_a_direct_all_reduce_is_one_shot_or_two() -> None:
    """One shot reads every peer's whole buffer; two shots move 2 (p - 1) / p of it and begin later."""
    kernel, link, p = (
        DirectKernel(start_s=3e-6, step_s=0.5e-6, one_shot_rate=0.4, two_shot_s=4e-6, two_shot_rate=0.7),
        H100.link_bytes_per_s,
        8,
    )
    for size in (1e4, 1e7):
        fixed = 3e-6 + 0.5e-6 * (p - 1)
        one, two = fixed + (p - 1) * size / (0.4 * link), fixed + 4e-6 + 2 * (p - 1) / p * size / (0.7 * link)
        assert float(collectives.direct_all_reduce_s(H100, kernel, size, p)) == pytest.approx(min(one, two), rel=1e-12)


def test_what_a_narrow_format_adds_to_a_product() -> None:
    """Nothing where weights are as wide as the format; widening for narrower ones; quantising for narrow formats, int8 once."""
    chosen = choice(H100)
    assert low_precision(chosen, "bf16", 16, alone=True) is None
    narrow = {bits: low_precision(chosen, "bf16", bits, alone=True) for bits in (4, 5, 8)}
    assert narrow[4] != narrow[8] and narrow[5] == narrow[8]
    alone, within = (low_precision(chosen, "int8", 8, alone=alone) for alone in (True, False))
    assert alone is not None and within is not None
    assert alone.extra_s > 0 and (within.extra_s, within.row_cycles) == (0.0, 0.0)
    assert low_precision(chosen, "int4", 4, alone=True) == alone
    assert low_precision(chosen, "fp8", 8, alone=False) == low_precision(chosen, "fp8", 8, alone=True) is not None


def test_convolutions_have_calibrated_scales() -> None:
    """No kernel quantises a row for every window of a convolution, whatever the format and the engine, and its tiles are a library's."""
    for sheet in (H100, gpus.gpu_sheet("b200"), gpus.gpu_sheet("l4")):
        for engine in ("vllm", "trtllm"):
            for number_format in ("fp8", "int8", "fp4", "int4"):
                for alone in (True, False):
                    found = low_precision(choice(sheet, engine), number_format, 4, alone=alone, convolution=True)
                    assert found is not None
                    assert (found.extra_s, found.row_cycles, found.tiles_by_rows) == (0.0, 0.0, False)
                    assert 0.5 < found.rate_factor <= 1.0
    # Narrow weights alone are widened on their way in a convolution as in any product, and 16 bits have nothing to add.
    chosen = choice(H100)
    assert low_precision(chosen, "bf16", 4, alone=False, convolution=True) == low_precision(chosen, "bf16", 4, alone=False)
    assert low_precision(chosen, "bf16", 16, alone=False, convolution=True) is None


def _seconds(name: str, device: str, bits: int, batch: int) -> tuple[float, float]:
    """Latency of a model, and of its convolutions alone [s]."""
    (phase,) = library.load(name).build(batch=batch, weight_bits=bits, activation_bits=bits).phases
    latency = kernel_times(phase.table, gpus.gpu_sheet(device)).latency_s * phase.table.repeat
    return float(latency.sum()), float(latency[phase.table.kind == Kind.CONV].sum())


@pytest.mark.parametrize("device", ["h100", "h200", "b200", "l4", "l40s", "rtx-pro-6000", "a100", "jetson-orin"])
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet-50", "efficientnet-b0", "mobilenet-v2"])
def test_large_convnets_are_no_slower_in_eight_bits(name: str, device: str) -> None:
    """Convolutions take less time in 8 bits at every batch, no better than half the bytes and the higher rate give; so do whole models in
    batches (single images of many small products wait for their launches); and more images take no less."""
    sheet = gpus.gpu_sheet(device)
    rate = sheet.rate(sheet.product_format(8, 8))
    assert rate > 1
    before = (0.0, 0.0, 0.0, 0.0)
    for batch in (1, 16, 64, 256):
        (narrow, narrow_products), (wide, wide_products) = (_seconds(name, device, bits, batch) for bits in (8, 16))
        assert wide_products / max(rate, 2.0) * 0.95 < narrow_products < wide_products
        assert narrow < wide or batch < 64
        now = (narrow, wide, narrow_products, wide_products)
        assert all(a >= b for a, b in zip(now, before, strict=True))
        before = now
    # Vgg16 in batches is bound by its tensor cores: what a narrow format gives there is seen, its factor of 0.8 and the L2 ports included.
    assert name != "vgg16" or before[2] < 0.7 * before[3]


def test_equal_shares_are_what_arrays_of_sizes_give() -> None:
    sizes, devices = np.array([[1e3], [1e8]]), np.array([[1, 2, 8]])
    found = collectives.library_s(H100, LIBRARY, "all_gather", sizes, devices)
    assert found.shape == (2, 3)
    assert float(found[1, 2]) == float(collectives.library_s(H100, LIBRARY, "all_gather", 1e8, 8))


def test_which_kernels_a_device_runs() -> None:
    """What engines pick, by tensor core, engine and formats; every name is one that ships."""
    sync, wide, memory = TensorCore.SYNCHRONOUS, TensorCore.ASYNCHRONOUS, TensorCore.TENSOR_MEMORY
    decode = {
        ("vllm", sync, True, "fp8"): "flashinfer",
        ("vllm", sync, False, "bf16"): "flash2",
        ("vllm", wide, True, "fp8"): "flash3-fp8",
        ("vllm", wide, True, "bf16"): "flash3",
        ("vllm", memory, True, "fp8"): "trtllm-fp8",
        ("vllm", memory, True, "bf16"): "trtllm-fp8",
        ("trtllm", memory, True, "fp8"): "trtllm-gen",
        ("trtllm", memory, True, "bf16"): "trtllm-gen",
        ("trtllm", sync, False, "bf16"): "trtllm-a100",
        ("trtllm", sync, True, "fp8"): "trtllm",
        ("trtllm", sync, True, "bf16"): "trtllm-a100",
        ("trtllm", wide, True, "fp8"): "trtllm-fp8",
        ("trtllm", wide, True, "bf16"): "trtllm",
    }
    for (engine, core, fp8, cache), name in decode.items():
        assert Choice(core, engine, fp8).decode(cache) == name, (engine, core, fp8, cache)
    prefill = {
        ("vllm", sync, "bf16"): "flash2",
        ("vllm", wide, "bf16"): "flash3",
        ("vllm", wide, "bf16", "fp8"): "flash3-fp8",
        ("vllm", memory, "bf16", "fp8"): "flash2",
        ("trtllm", sync, "bf16"): "trtllm-a100",
        ("trtllm", wide, "fp8"): "trtllm-fp8",
        ("trtllm", memory, "bf16"): "trtllm",
    }
    for (engine, core, *formats), name in prefill.items():
        assert Choice(core, engine, True).prefill(*formats) == name, (engine, core, formats)
    mixture = {
        ("vllm", sync, False, False, "bf16"): "vllm-a100",
        ("vllm", sync, True, False, "bf16"): "vllm",
        ("vllm", sync, True, True, "bf16"): "flashinfer-a100",
        ("vllm", wide, True, False, "bf16"): "vllm",
        ("vllm", memory, True, True, "bf16"): "flashinfer",
        ("vllm", memory, True, True, "nvfp4"): "vllm-fp8",
        ("trtllm", sync, True, True, "bf16"): "trtllm-a100",
        ("trtllm", memory, True, True, "bf16"): "trtllm",
        ("trtllm", wide, True, False, "fp8"): "trtllm-fp8",
        ("trtllm", sync, True, False, "fp8"): "trtllm-fp8",
    }
    for (engine, core, fp8, fp4, number_format), name in mixture.items():
        assert Choice(core, engine, fp8, fp4).mixture(number_format) == name
    narrow = {
        ("vllm", sync): "fp8-vllm",
        ("vllm", wide): "fp8-vllm-rows",
        ("vllm", memory): "fp8-vllm-rows",
        ("trtllm", wide): "fp8-trtllm",
    }
    for (engine, core), name in narrow.items():
        assert Choice(core, engine, True).low_precision("fp8") == Choice(core, engine, True).low_precision("nvfp4") == name
        family(name, kind="low_precision")
    assert Choice(wide, "vllm", True).low_precision("bf16") is None
    for engine in ("vllm", "trtllm"):
        assert [Choice(core, engine, True).product for core in (sync, wide, memory)] == ["synchronous", "asynchronous", "asynchronous"]
        assert [Choice(core, engine, True).collective for core in (sync, wide, memory)] == ["nccl-a100", "nccl-h100", "nccl-a100"]
        assert [Choice(core, engine, True).direct for core in (sync, wide, memory)] == [f"{engine}-{of}" for of in ("a100", "h100", "a100")]
    # TensorRT-LLM on Blackwell: the kernel that vLLM calls too, behind one more launch.
    gen, alone = (family(name, kind="decode") for name in ("trtllm-gen", "trtllm-fp8"))
    assert replace(gen, launch_s=0.0) == replace(alone, launch_s=0.0)
    assert gen.launch_s == pytest.approx(alone.launch_s + family("kernel", kind="row").launch_s, rel=1e-3)  # four digits in the file
    for kind, names in (("decode", decode), ("prefill", prefill), ("mixture", mixture)):
        for name in names.values():
            family(name, kind=kind)


def test_rows_of_a_table_are_the_kernels_of_their_sizes() -> None:
    """What a row of each kind hands to its kernel; formats, windows, shared heads and warm operands included."""
    rows_of = [
        Operation("narrow", Kind.GEMM, m=100, n=300, k=500, batch=3, input_bits=8, weight_bits=8, output_bits=16, second_is_weight=True),
        Operation("weights", Kind.GEMM, m=100, n=300, k=500, input_bits=16, weight_bits=4, output_bits=16, second_is_weight=True),
        Operation("scores", Kind.GEMM, m=100, n=300, k=500, batch=3, input_bits=16, weight_bits=16, output_bits=16, second_is_weight=False),
    ]
    table = OperationTable.from_rows(rows_of)
    kernel = family("asynchronous", kind="product")
    for warm in (False, True):
        copies, chosen = 6.0 if warm else 0.0, choice(H100)
        expected = [
            products.product_times(
                H100,
                kernel,
                300,
                300,
                500,
                number_format="fp8",
                activation_bytes=1.0,
                weight_bytes=1.0,
                low=low_precision(chosen, "fp8", 8, alone=warm),
                copies=copies,
            ),
            products.product_times(
                H100, kernel, 100, 300, 500, weight_bytes=0.5, low=low_precision(chosen, "bf16", 4, alone=warm), copies=copies
            ),
            products.product_times(H100, kernel, 100, 300, 500, batch=3, second_is_weight=False, copies=copies),
        ]
        found = kernel_times(table, H100, warm=warm)
        assert found.latency_s == pytest.approx([float(x.latency_s) for x in expected], rel=1e-12)
        assert found.dram_bytes == pytest.approx([float(x.dram_bytes) for x in expected], rel=1e-12)
        assert found.macs.tolist() == [3 * 100 * 300 * 500, 100 * 300 * 500, 3 * 100 * 300 * 500]
        assert found.rate.tolist() == [H100.rate("fp8"), 1.0, 1.0]


def test_functions_in_a_kernel_read_what_it_has_not() -> None:
    """A residual sum behind a product reads its other operand alone, beyond the L2; a gate's product and a norm are their own kernels."""
    elements = 400_000_000  # 0.8 GB at 16 bits: no cache holds any of it
    common = {"m": 1000, "n": elements // 1000, "input_bits": 16, "output_bits": 16}
    table = OperationTable.from_rows(
        [
            Operation("sum", Kind.ELEMENTWISE, function="add", operands=2, **common),
            Operation("three", Kind.ELEMENTWISE, function="add", operands=3, **common),
            Operation("gelu", Kind.ACTIVATION, function="gelu", operands=1, **common),
            Operation("gate", Kind.ELEMENTWISE, function="mul", operands=2, **common),
            Operation("norm", Kind.NORM, function="layernorm", operands=1, **common),
        ]
    )
    found = kernel_times(table, H100)
    assert found.dram_bytes == pytest.approx([2.0 * elements, 4.0 * elements, 0.0, 6.0 * elements, 4.0 * elements], rel=1e-12)
    kernel = family("kernel", kind="row")
    launch = kernel.launch_s * 1.6e9 / H100.frequency_hz
    streams = [bytes_ * elements / (H100.dram_bytes_per_s * kernel.dram_efficiency) for bytes_ in (2, 4, 0, 6, 4)]
    assert found.latency_s == pytest.approx([*streams[:3], launch + streams[3], launch + streams[4]], rel=1e-12)


def test_scans_take_the_lanes_and_windows_are_read_once() -> None:
    """A scan takes four operations a state on the vector lanes where those outlast its bytes; windows of a convolution overlap, so that
    its first operand is what the layer stores, not what its product streams.
    """
    scan = Operation("scan", Kind.SCAN, m=512, n=2048, k=256, batch=3, input_bits=16, output_bits=16)
    conv = Operation("conv", Kind.CONV, m=3136, n=64, k=576, batch=2, second_is_weight=True, input_bits=16, weight_bits=16, output_bits=16,
                     input_elements=2 * 58 * 58 * 64)  # fmt: skip
    sheet = replace(H100, l2_bytes=1e5)  # nothing stays: every byte is seen
    found = kernel_times(OperationTable.from_rows([scan, conv]), sheet)
    lanes = sheet.peak_macs_per_s * sheet.rates.get("fp32", min(sheet.rates.values()))
    assert float(found.compute_s[0]) == pytest.approx(4.0 * 3 * 512 * 2048 * 256 / lanes, rel=1e-12)
    assert float(found.dram_bytes[1]) == pytest.approx(2 * (2 * 58 * 58 * 64 + 576 * 64 + 2 * 3136 * 64), rel=1e-12)


def test_copies_that_fill_the_cache_once_stay_in_it() -> None:
    """TensorRT-LLM's benchmark on 96 MiB: weights of 48 MiB as two copies and of 96 as one are read from the L2, of 56 as two are not."""
    sheet = replace(gpus.gpu_sheet("l40s"), l2_bytes=96 * 2**20)
    sizes = np.array([8, 24, 48, 56, 96, 200]) * 2.0**20
    assert products.benchmark_copies("trtllm", sheet, sizes).tolist() == [5, 4, 2, 2, 1, 1]
    assert products.benchmark_copies("vllm", sheet, sizes).tolist() == [6] * 6
    copies = products.benchmark_copies("trtllm", sheet, sizes)
    k = sizes / 2 / 8192
    found = products.product_times(sheet, family("synchronous", kind="product"), 8, 8192, k, copies=copies).dram_bytes / sizes
    assert (found < 0.6).tolist() == [True, True, True, False, True, False]
    two_sides = products.product_times(
        replace(sheet, l2_partitions=2), family("synchronous", kind="product"), 8, 8192, k, copies=copies
    ).dram_bytes
    assert (two_sides[1:] >= sizes[1:]).all()
