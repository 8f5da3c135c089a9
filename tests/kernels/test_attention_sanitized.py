"""The attention kernels under the address, undefined-behaviour and thread sanitizers, as a program of their own."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "kernels" / "src"
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"]
FLAGS = {"plain": [], "avx2": ["-mavx2", "-mfma"], "avx512": AVX512, "avx512_bf16": [*AVX512, "-mavx512bf16", "-mavx512vnni"]}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_no_byte_outside_the_arrays_no_undefined_behaviour_no_race(tmp_path: Path, sanitizers: str) -> None:
    common = ["g++", "-std=c++17", "-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-Wno-psabi", f"-I{SOURCES}"]
    if platform.machine() in ("x86_64", "AMD64"):
        common.append("-DDSE_ATTENTION_X86")
    parts = {f"attention_{name}.cpp": flags for name, flags in FLAGS.items()}
    parts |= {"attention_work.cpp": [], "attention_quant.cpp": [], "pool.cpp": []}
    objects = []
    for source, flags in parts.items():
        objects.append(tmp_path / f"{source}.o")
        subprocess.run([*common, *flags, "-c", str(SOURCES / source), "-o", str(objects[-1])], check=True)
    program = tmp_path / "sanitized"
    main = Path(__file__).with_name("attention_sanitized.cpp")
    subprocess.run([*common, str(main), *map(str, objects), "-o", str(program), "-lpthread"], check=True)
    done = subprocess.run([str(program), *(["meet"] if sanitizers == "thread" else [])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
