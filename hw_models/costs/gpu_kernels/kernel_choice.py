"""Which family of kernels a device runs under an engine.

Families are fitted on A100 and H100 alone; other devices run those of the nearest tensor cores, as the engines themselves do: vLLM
has FlashAttention-2 on synchronous tensor cores, FlashAttention-3 on Hopper, and TensorRT-LLM's kernels on B200.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hw_models.accelerator.fields import TensorCore
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.errors import unknown_name

ENGINES: Final = ("vllm", "trtllm")


@dataclass(frozen=True)
class Choice:
    """Names of families (keys of data/gpu_kernels.toml) for one device under one engine."""

    tensor_core: TensorCore
    engine: str
    has_fp8: bool
    has_fp4: bool = False

    @property
    def product(self) -> str:
        """Products: by the tensor core."""
        return "synchronous" if self.tensor_core is TensorCore.SYNCHRONOUS else "asynchronous"

    def low_precision(self, number_format: str) -> str | None:
        """What a format adds to products; None for bf16."""
        fp8 = f"fp8-{self.engine}"
        if self.engine == "vllm" and self.tensor_core is not TensorCore.SYNCHRONOUS:
            fp8 = "fp8-vllm-rows"  # its kernels for Hopper and later take their tile by the rows
        names = {
            "fp8": fp8,
            "fp8_block": "fp8-block",
            "int8": "int8",
            "int8_wo": "int8-weights",
            "int4_wo": "int4-weights",
            "nvfp4": fp8,
        }
        return names.get(number_format)

    def decode(self, kv_format: str) -> str:
        """Decode attention by the format of the cache."""
        narrow = kv_format == "fp8"
        if self.engine == "vllm" and self.tensor_core is TensorCore.SYNCHRONOUS:
            return "flashinfer" if narrow else "flash2"  # FlashAttention-2 reads no 8-bit cache
        if self.engine == "vllm" and self.tensor_core is TensorCore.ASYNCHRONOUS:
            return "flash3-fp8" if narrow else "flash3"
        if self.tensor_core is TensorCore.TENSOR_MEMORY:
            # One kernel for all formats and both engines, asynchronous as Hopper's for 8-bit caches; TensorRT-LLM runs one more before.
            return "trtllm-gen" if self.engine == "trtllm" else "trtllm-fp8"
        if self.tensor_core is TensorCore.SYNCHRONOUS and not (narrow and self.has_fp8):
            return "trtllm-a100"  # as prefill and mixtures
        # Of 8-bit caches on synchronous tensor cores nothing was fitted: A100's rows have none.
        return "trtllm-fp8" if narrow and self.tensor_core is not TensorCore.SYNCHRONOUS else "trtllm"

    def prefill(self, number_format: str, kv_format: str = "bf16") -> str:
        """Prefill attention by the formats of its queries and of the cache: vLLM's FlashAttention-3 multiplies in that of the cache."""
        if self.engine == "vllm" and self.tensor_core is TensorCore.ASYNCHRONOUS:
            return "flash3-fp8" if kv_format == "fp8" else "flash3"
        if self.engine == "vllm":
            return "flash2"
        if self.tensor_core is TensorCore.SYNCHRONOUS:
            return "trtllm-a100"
        return "trtllm-fp8" if number_format == "fp8" else "trtllm"

    def mixture(self, number_format: str) -> str:
        """Layers of experts: vLLM runs FlashInfer's library kernels on Blackwell, its newer Triton kernel on Ada and Hopper."""
        if number_format != "bf16":
            return f"{self.engine}-fp8"
        synchronous = self.tensor_core is TensorCore.SYNCHRONOUS
        if self.engine == "vllm" and self.has_fp4:
            return "flashinfer-a100" if synchronous else "flashinfer"
        if synchronous and (self.engine == "trtllm" or not self.has_fp8):
            return f"{self.engine}-a100"
        return self.engine

    @property
    def collective(self) -> str:
        """Library collectives: H100's host and version for Hopper, A100's for the rest."""
        return "nccl-h100" if self.tensor_core is TensorCore.ASYNCHRONOUS else "nccl-a100"

    @property
    def direct(self) -> str:
        """All-reduce of the engine over peers' memory."""
        return f"{self.engine}-h100" if self.tensor_core is TensorCore.ASYNCHRONOUS else f"{self.engine}-a100"


def choice(sheet: GpuSheet, engine: str | None = None) -> Choice:
    """The families of a device under an engine (None: the sheet's); an unknown engine is an error that names the known ones."""
    engine = engine or sheet.engine
    if engine not in (*ENGINES, "nccl"):
        raise unknown_name("engine", engine, ENGINES)
    return Choice(sheet.tensor_core, engine, "fp8" in sheet.rates, "fp4" in sheet.rates)
