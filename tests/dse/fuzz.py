"""Every reader against damaged files: read, or refused in one sentence, within 5 s and 2 GB. Run as a program:

    python fuzz.py COUNT SEED [TARGET ...]        # COUNT inputs a target

A target is a reader with sound files. An input is one of these with bytes changed, cut or doubled, or with a value replaced by what no
file should hold (numbers of hundreds of digits, infinities, lists, deep nesting, control characters). It is written to a file before it
is read, so that the input of a crash is known; the program runs each target in a process of its own and goes on behind the input that
ended it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
SECONDS = 5.0
PEAK_KIB = 2 * 2**20
OURS = ("dse", "hw_models", "carbon", "workloads", "dse_kernels")
NUMBERS = (
    *("-1", "0", "1", "2", "1e308", "-1e-308", "nan", "inf", "-inf", "9" * 25, "9" * 400, "9" * 5000, "0.5", "4294967296", "true"),
    *("9223372036854775807", "-9223372036854775808", "18446744073709551616", "1e19", "1e-320", "2147483648", "0x7fffffff", "1_0", "١"),
)
TEXTS = ('""', '"\\u0000"', '"' + "x" * 5000 + '"', "[" * 200 + "]" * 200, "{}", "[[1]]", "null", '"../../etc/passwd"', '"\\u001b[2J"', "[]",
         "[1, 2]", "{a = 1}", "1979-05-27", "'", '"""', "\x1b[31m", "&a [*a]", "!!python/object:os.system", "=1+1")  # fmt: skip


def damaged(sound: bytes, source: random.Random) -> bytes:
    """A text with some of its bytes, lines, words or values changed."""
    data = bytearray(sound)
    for _ in range(source.choice((1, 1, 1, 2, 3, 5))):
        way = source.random()
        at = source.randrange(len(data) + 1)
        if way < 0.12 and data:
            data[at % len(data)] = source.randrange(256)
        elif way < 0.17:
            data[at:at] = source.randbytes(source.randint(1, 8))
        elif way < 0.25:
            del data[at : at + source.randint(1, 40)]
        elif way < 0.3:
            data[at:at] = data[at : at + source.randint(1, 200)] * source.randint(1, 3)
        elif way < 0.38:
            _change_line(data, source)
        elif way < 0.4:
            del data[at:]
        else:
            _change_value(data, source)
    return bytes(data[: 1 << 20])


def _change_line(data: bytearray, source: random.Random) -> None:
    """Leave a line out, say it twice or change places with another."""
    lines = data.split(b"\n")
    i, j = source.randrange(len(lines)), source.randrange(len(lines))
    way = source.randrange(3)
    if way == 0:
        del lines[i]
    elif way == 1:
        lines.insert(j, lines[i])
    else:
        lines[i], lines[j] = lines[j], lines[i]
    data[:] = b"\n".join(lines)


def _change_value(data: bytearray, source: random.Random) -> None:
    """Replace what stands between two marks by something odd."""
    marks = [i for i, byte in enumerate(data) if byte in b":=,[\n"]
    if not marks:
        return
    start = source.choice(marks) + 1
    end = start
    while end < len(data) and data[end] not in b",\n}]":
        end += 1
    data[start:end] = source.choice(("", " ")).encode() + source.choice((*NUMBERS, *TEXTS)).encode()


def damaged_bytes(sound: bytes, source: random.Random) -> bytes:
    """A binary file with bits turned, cut, doubled, or numbers made huge."""
    data = bytearray(sound)
    for _ in range(source.choice((1, 1, 2, 4))):
        way, at = source.random(), source.randrange(max(1, len(data)))
        if way < 0.4 and data:
            data[at] ^= 1 << source.randrange(8)
        elif way < 0.6 and data:
            data[at] = source.randrange(256)
        elif way < 0.7:
            data[at : at + 8] = b"\xff" * source.randint(1, 8)
        elif way < 0.8:
            del data[at : at + source.randint(1, 30)]
        elif way < 0.9:
            data[at:at] = data[at : at + source.randint(1, 60)]
        else:
            del data[at:]
    return bytes(data)


@dataclass(frozen=True)
class Target:
    """A reader: the name of its file, sound contents, and what reads it (from its path)."""

    file: str
    sound: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    damage: Callable[[bytes, random.Random], bytes] = damaged
    default: int = 60  # inputs of the default tests


def texts(*found: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in found]


def files(*names: str, lines: int = 12) -> Callable[[Path], list[bytes]]:
    """The first lines of reference files."""
    return lambda folder: [b"\n".join((REFERENCE / name).read_bytes().splitlines()[:lines]) + b"\n" for name in names]


def command(*words: str) -> Callable[[Path], None]:
    """A command of the command line, FILE for the file and OUT for one to write; exit codes but 0, 1 and 2 are findings."""

    def run(path: Path) -> None:
        from dse import cli

        out, err = io.StringIO(), io.StringIO()
        given = [
            str(path) if word == "FILE" else word.replace("FILE", str(path)).replace("OUT", str(path.parent / "out")) for word in words
        ]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(given)
            except SystemExit as ended:
                code = int(ended.code or 0)
        assert code in (0, 1, 2), f"exit code {code}"
        said = err.getvalue()
        assert "Traceback" not in said, said
        if code:
            check_sentence(said.strip().splitlines()[-1] if said.strip() else "", said)

    return run


def check_sentence(message: str, whole: str = "") -> None:
    assert message.strip(), "failed without a word"
    assert "\n" not in message, f"more than a line: {message!r}"
    assert len(message) < 2500, f"{len(message)} letters: {message[:200]!r}"
    assert all(c.isprintable() for c in message), f"control characters: {message!r}"
    assert not any(0 <= ord(c) < 32 and c not in "\n\t\r" for c in whole), f"control characters: {whole!r}"


SPEC = """name = "H100 SXM"
profile = "default"
[device]
area_mm2 = 814
node_nm = 5
harvest = { units = 144, needed = 132, fraction = 0.6 }
memory_type = "hbm3"
memory_gb = 80
system = "card"
[use]
grid = "US-CA"
power_w = 500
duty_cycle = 0.6
idle_w = 90
lifetime_years = 4
pue = [1.05, 1.1, 1.3]
[functional_unit]
name = "token"
total = 1e12
[uncertainty]
draws = 40
seed = 1
"""
BOARD = """name = "board"
[[component]]
name = "soc"
count = 1
area_mm2 = 100
node_nm = 7
[[component]]
name = "ram"
memory_type = "ddr4"
memory_gb = 32
memory_modules = 2
[use]
gco2e_per_kwh = 400
source = "me"
kind = "average"
rate_per_s = 3
latency_s = 0.1
energy_j_per_request = 2
lifetime_years = 3
[uncertainty]
draws = 40
"""
CHIPLETS = 'profile = "ecochip"\n[device]\narea_mm2 = [80, 100, 120]\nnode_nm = 7\nmemory_type = "lpddr4"\nmemory_gb = 8\n[uncertainty]\ndraws = 40\n'
DESIGN = """name = "b"
cores = 4
frequency_hz = 1e9
voltage_v = 0.8
node_nm = 22
[array]
rows = 16
columns = 16
kind = "dot_product"
dataflow = "any"
[vector]
lanes = 16
[[levels]]
name = "l2"
kib = 64
words_per_cycle = 64
per_core = true
[[levels]]
name = "glb"
mib = 2
words_per_cycle = 64
[[levels]]
name = "dram"
kind = "lpddr4"
gib = 4
words_per_cycle = 64
"""
SPACE = """name = "mine"
[[parameter]]
name = "layers"
values = [4, 8, 12]
role = "model"
[[parameter]]
name = "cores"
values = [1, 2]
role = "hardware"
coding = "power_of_two"
[[parameter]]
name = "lifetime_years"
low = 1
high = 4
step = 1
role = "deployment"
[[constraint]]
text = "cores * 2 <= 4"
"""
GRIDS = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon Intensity gCO₂eq/kWh (direct),Data source\n"
    + "".join(f"2024-01-01 {h:02d}:00:00,France,France,FR,{40 + h},x\n" for h in range(12)),
    "point_time,value,frequency,market,ba\n" + "".join(f"2024-01-01T{h:02d}:00:00Z,{900 + h},300,RTM,CAISO\n" for h in range(12)),
    '{"data": [' + ", ".join(f'{{"point_time": "2024-01-01T{h:02d}:00:00Z", "value": {800 + h}}}' for h in range(8))
    + '], "meta": {"signal_type": "co2_moer", "units": "lbs_co2_per_mwh", "region": "CAISO_NORTH"}}',
    "Balancing Authority,UTC Time at End of Hour,Net Generation (MW) from Coal,Net Generation (MW) from Natural Gas,Net Generation (MW) from Solar\n"
    + "".join(f"CISO,01/01/2024 {h % 12 + 1}:00:00 AM,100,{200 + h},50\n" for h in range(6)),
)  # fmt: skip
GEMMS = "batch,m,n,k,cores,width,depth,shared_weights\n1,64,64,64,2,32,16,1\n4,16,32,8,1,64,16,0\n"
DESIGNS = "layers,hidden,heads,ffn,cores,width,depth\n4,512,8,2048,1,64,16\n12,768,12,3072,2,64,16\n"
TABLE = "# c\nlayers,hidden,quality,quality_se,fidelity,source\n2,128,70.1,0.1,1,me\n4,128,72.1,0.1,1,me\n"
MEASURED = "op,dtype,latency_s,m,n,k,rows,columns,elements\n" + "".join(
    f"gemm,fp16,{1e-5 * i},{64 * i},64,128,,,\nsoftmax,fp16,{1e-6 * i},,,,{8 * i},64,\n" for i in range(1, 4)
)
REQUESTS = {
    "own": "arrival_s,prompt_tokens,output_tokens,session,prefix,prefix_tokens\n0,100,5,a,p,32\n0.5,20,3,a,p,32\n1,30,4,b,,\n",
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
    "burst": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type,Session ID\n5,ChatGPT,472,18,490,c,1\n45,ChatGPT,1087,230,1317,c,1\n",
}
MOONCAKE = '{"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 3]}\n{"timestamp": 900, "input_length": 700, "output_length": 9, "hash_ids": [1, 4]}\n'
TRACE = "".join(
    json.dumps({"id": i, "parents": [i - 1] if i else [], "phase": "think", "prompt_sha256": "a" * 64, "prompt_tokens": 40, "output_tokens": 9,
                "wall_s": 0.1, "status": "ok", "sample": 0, "blocks": [1, 2 + i]}) + "\n" for i in range(3)
) + '{"end": "done", "calls": 3}\n'  # fmt: skip
SCALESIM = "[general]\nrun_name = x\n[architecture_presets]\nArrayHeight: 32\nArrayWidth: 16\nIfmapSramSzkB: 64\nFilterSramSzkB: 64\nOfmapSramSzkB: 64\nBandwidth : 10\nDataflow : ws\n[run_presets]\nInterfaceBandwidth: CALC\n"
TOPOLOGY = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\nConv1, 224, 224, 7, 7, 3, 64, 2,\nConv2, 56, 56, 3, 3, 64, 64, 1,\n"
TOPOLOGY_GEMM = "Layer, M, N, K,\nQK, 128, 128, 64,\nFF, 128, 512, 128,\n"
CONFIG = """workload = "bert"
objective = ["min:latency_s", "max:quality"]
constraint = ["latency_s<=0.05"]
out = "OUT"
threads = 1
budget = 3
trial-timeout = 2.5
no-default-constraints = true
nothing = 1
[set]
heads = 8
"""
USER = {"classification": '{"text": "a b", "label": 1}\n', "similarity": '{"text": "a", "other": "b", "score": 0.5}\n',
        "retrieval": '{"query": "a", "document": "b"}\n', "perplexity": '{"text": "a b c"}\n'}  # fmt: skip
REPOSITORY = "3 5 4\n0,1 0:1.0 2:0.5\n2 1:0.3\n1,3 3:2 4:1\n"
LABELLED = "a,b\tsome words here\nb\tmore words\nc\tlast words\n"
LINES = "quality>=0.5\nlatency_s<=0.02\ncores * width <= 64\nlayers + 2 * hidden >= 3\n"
OVERHEADS = '[gemm]\nlaunch_s = 4e-06\nfixed_s = 1e-06\ncompute_efficiency = 0.8\nmemory_efficiency = 0.7\nfitted_on = "me"\n'


def _estimate(path: Path) -> None:
    from carbon.analysis import estimate, report

    answer = estimate.estimate(estimate.load(path))
    report.estimate_text(answer)
    json.dumps(report.estimate_data(answer), allow_nan=False)


def _batch(kind: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from carbon.analysis import batch

        batch.run(str(path), kind, "default")

    return read


def _grid(path: Path) -> None:
    from carbon.factors import grid_files

    grid_files.read(path)
    grid_files.as_grid(str(path))


def _hardware(path: Path) -> None:
    import numpy as np

    from dse.spaces import hardware
    from hw_models.accelerator.design import AcceleratorBatch
    from hw_models.costs.evaluate import evaluate
    from workloads.ops import Kind, Operation, OperationTable

    found = hardware.load_path_or_name(str(path), profile=None)
    if not found.knobs:
        table = OperationTable.from_rows([Operation(kind=Kind.GEMM, name="a", component="a", m=8, n=16, k=32)])
        cost = evaluate(AcceleratorBatch.of([found.accelerator({})]), table)
        assert not np.isnan(np.asarray(cost.latency_s)).any()


def _measured(path: Path) -> None:
    from hw_models.devices import calibration

    calibration.check_one_format(calibration.read_measurements(path)[0], where=str(path))


def _overheads(path: Path) -> None:
    from hw_models.devices import library

    library.read_overheads(path)


def _table(path: Path) -> None:
    from dse.quality.evaluators import TableEvaluator

    TableEvaluator.read(path).has({"layers": 2, "hidden": 128})


def _requests(path: Path) -> None:
    from dse.serving.requests import read_requests

    log = read_requests(path)
    if sum(log.prompt.tolist()) < 1e7:
        log.requests(16)


def _runs(path: Path) -> None:
    from dse.serving import runs

    rows, _ = runs.read_rows(path)
    for row in rows[:3]:
        with contextlib.suppress(ValueError):
            runs.run_of(row)


def _trace(path: Path) -> None:
    from workloads.reasoning.traces import read_trace

    read_trace(path)


def _import(tool: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from dse import importers

        importers.read(path, tool).accelerator.to_toml()

    return read


def _topology(path: Path) -> None:
    from dse.importers.scalesim import read_topology

    read_topology(path).macs()


def _user(path: Path) -> None:
    from dse.quality import user_data

    task = next((name for name, line in USER.items() if next(iter(json.loads(line))) in path.read_text(errors="replace")), "perplexity")
    user_data.read(path, task)


def _xmc_data(path: Path) -> None:
    from workloads.xmc import data

    data.read(str(path))


def _npz(path: Path) -> None:
    from workloads.xmc.data import read_queries

    read_queries(path)


def _npz_sound(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((REFERENCE / "xmc").rglob("*.npz"))[:4]]


def _tree_sound(folder: Path) -> list[bytes]:
    from dse_kernels import xmc
    from dse_kernels.xmc_pecos import read_pecos

    xmc.save(read_pecos(REFERENCE / "xmc" / "pecos_small"), folder / "t.xmc")
    return [(folder / "t.xmc").read_bytes()]


def _tree(path: Path) -> None:
    import numpy as np
    from dse_kernels import xmc
    from scipy import sparse

    from workloads.xmc import folder
    from workloads.xmc.errors import XmcError

    model = folder.open_model(path)
    if model.tree.features < 10_000:
        rows = sparse.csr_matrix(np.ones((1, model.tree.features), np.float32))
        with contextlib.suppress(XmcError, xmc.ModelError):
            model.tree.predict(rows)


def _midi_sound(folder: Path) -> list[bytes]:
    import struct

    track = b"".join(b"\x00\x90" + bytes((60 + i, 80)) + b"\x30\x80" + bytes((60 + i, 0)) for i in range(6)) + b"\x00\xff\x2f\x00"
    head = b"MThd" + struct.pack(">IHHH", 6, 1, 1, 96)
    return [head + b"MTrk" + struct.pack(">I", len(track)) + track]


def _midi(path: Path) -> None:
    from workloads.music.corpus import read_midi

    read_midi(path)


def _lines(path: Path) -> None:
    """Words of a command line, a line each."""
    from dse.errors import DseError
    from dse.problem import objectives
    from dse.spaces import constraints
    from workloads.errors import WorkloadError
    from workloads.head_map import parse_head_map

    for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[:8]:
        for parse in (objectives.parse_constraint, objectives.parse_objective, constraints.parse_constraint, parse_head_map):
            with contextlib.suppress(DseError, WorkloadError):
                parse(line[:4000])


def _space(path: Path) -> None:
    from dse.evaluation import space_file

    space_file.read(str(path))[1].cardinality()


def _config(path: Path) -> None:
    command("search", "--config", "FILE", "--budget", "0")(path)  # a budget of 0: nothing is searched


def _checkpoint(path: Path) -> None:
    from dse.quality import checkpoint

    folder = path.parent / "checkpoint"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    checkpoint.read_tensors(folder)


def _checkpoint_config(path: Path) -> None:
    from dse.quality import checkpoint

    folder = path.parent / "checkpoint"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "config.json")
    checkpoint.read_config(folder)


def _safetensors(folder: Path) -> list[bytes]:
    import numpy as np
    from safetensors.numpy import save

    return [save({"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)})]


def _studies(folder: Path) -> list[bytes]:
    return [(REFERENCE / "runs" / "schema-1" / name / "study.db").read_bytes() for name in ("finished", "measured", "interrupted")]


def _study(path: Path) -> None:
    from dse.storage import run_folder
    from dse.storage.study import Study
    from dse.storage.trials import trials_of

    with Study.open(path, read_only=True) as study:
        list(study.blocks())
        trials_of(study)
    run_folder.load(path)


def _exported(tool: str, pattern: str) -> Callable[[Path], list[bytes]]:
    def sound(folder: Path) -> list[bytes]:
        from dse.exporters import export
        from dse.storage.run_folder import load

        written = export(load(REFERENCE / "runs" / "schema-1" / "finished"), 1, tool, str(folder / tool))
        return [path.read_bytes() for path in written if path.match(pattern)][:2]

    return sound


TARGETS: dict[str, Target] = {
    "carbon-spec": Target("spec.toml", texts(SPEC, BOARD, CHIPLETS), _estimate),
    "carbon-estimate": Target("spec.toml", texts(SPEC, BOARD), command("carbon", "estimate", "FILE"), default=15),
    **{
        f"batch-{kind}": Target("rows.csv", files(f"carbon/{name}", lines=5), _batch(kind), default=30)
        for kind, name in (("die", "ref_act_logic.csv"), ("memory", "ref_act_memory_storage.csv"), ("operation", "ref_act_op.csv"),
                           ("pcb", "ref_act_pcb.csv"), ("llm", "ref_ecologits_llm.csv"))
    },
    "grid": Target("grid.csv", texts(*GRIDS), _grid),
    "hardware": Target("hw.toml", texts(DESIGN), _hardware),
    "gemms": Target("gemms.csv", texts(GEMMS), command("evaluate", "--gemms", "FILE", "--out", "OUT.csv"), default=30),
    "designs": Target("designs.csv", texts(DESIGNS), command("evaluate", "--workload", "bert", "--designs", "FILE", "--out", "OUT.csv"), default=10),
    "table": Target("table.csv", texts(TABLE), _table),
    "measured": Target("measured.csv", texts(MEASURED), _measured),
    "overheads": Target("overheads.toml", texts(OVERHEADS), _overheads),
    "space": Target("space.toml", texts(SPACE), _space),
    "config": Target("search.toml", texts(CONFIG), _config, default=15),
    **{f"requests-{name}": Target("log.csv", texts(text), _requests, default=40) for name, text in REQUESTS.items()},
    "requests-mooncake": Target("log.jsonl", texts(MOONCAKE), _requests),
    "serving-runs": Target("runs.csv", files("serving/silicon_runs.csv", lines=4), _runs),
    "reasoning-trace": Target("trace.jsonl", texts(TRACE), _trace),
    "user-data": Target("items.jsonl", lambda folder: [20 * line.encode() for line in USER.values()], _user),
    "scalesim": Target("x.cfg", texts(SCALESIM), _import("scalesim")),
    "topology": Target("x.csv", texts(TOPOLOGY, TOPOLOGY_GEMM), _topology),
    "timeloop": Target("arch.yaml", files("exports/timeloop_arch.yaml", lines=400), _import("timeloop"), default=20),
    "zigzag": Target("hw.yaml", _exported("zigzag", "*hardware*.y*ml"), _import("zigzag"), default=20),
    "xmc-repository": Target("data.txt", texts(REPOSITORY), _xmc_data),
    "xmc-labelled": Target("data.tsv", texts(LABELLED), _xmc_data),
    "xmc-npz": Target("x.npz", _npz_sound, _npz, damaged_bytes),
    "xmc-tree": Target("t.xmc", _tree_sound, _tree, damaged_bytes),
    "midi": Target("a.mid", _midi_sound, _midi, damaged_bytes),
    "words": Target("words.txt", texts(LINES), _lines),
    "safetensors": Target("model.safetensors", _safetensors, _checkpoint, damaged_bytes),
    "checkpoint-config": Target("config.json", texts('{"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2}'), _checkpoint_config),
    "study": Target("study.db", _studies, _study, damaged_bytes, default=30),
}  # fmt: skip


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where the block takes longer; one that no signal reaches ends the process with a traceback after ten times that."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ours(error: BaseException) -> bool:
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] in OURS


def attack(name: str, folder: Path, first: int, count: int, seed: int, found: Callable[[int, str], None]) -> None:
    """Give inputs ``first`` to ``first + count - 1`` to a reader and tell what is neither success nor a sentence."""
    target = TARGETS[name]
    sound = target.sound(folder)
    assert sound, f"{name} has no sound file"
    path = folder / target.file
    for data in sound:  # what is sound is read
        path.write_bytes(data)
        try:
            target.read(path)
        except ValueError as error:
            if not ours(error):
                raise
    for number in range(first, first + count):
        source = random.Random(f"{name} {seed} {number}")
        path.write_bytes(target.damage(source.choice(sound), source))
        (folder / "number").write_text(str(number), encoding="ascii")
        try:
            with warnings.catch_warnings(), within(SECONDS):
                warnings.simplefilter("ignore")
                target.read(path)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            problem = "" if ours(error) else f"{type(error).__name__}: {str(error)[:300]}"
            if not problem:
                from dse.errors import shown

                try:
                    check_sentence(shown(str(error)))  # as a terminal shows it
                except AssertionError as fault:
                    problem = str(fault)[:300]
            if problem:
                shutil.copy(path, folder / f"finding-{name}-{number}")
                found(number, problem + _place(error))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if peak > PEAK_KIB:
            found(number, f"memory {peak / 2**20:.1f} GiB")
            return


def _place(error: BaseException) -> str:
    """Where in the package an exception came from."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and "tests" not in file.parts:
            place = f" [{file.relative_to(ROOT)}:{trace.tb_lineno}]"
        trace = trace.tb_next
    return place


def _worker(name: str, folder: Path, first: int, count: int, seed: int) -> None:
    faulthandler.enable()
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    attack(name, folder, first, count, seed, lambda number, text: print(json.dumps([name, number, text]), flush=True))


def campaign(names: list[str], count: int, seed: int, keep: Path | None = None) -> tuple[int, list[list[Any]]]:
    """Attack readers, each in processes of its own; inputs that were read and findings [reader, number, what]."""
    read, findings = 0, []
    for name in names:
        begun, first = time.monotonic(), 0
        before = len(findings)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            while first < count:
                (folder / "number").unlink(missing_ok=True)
                words = [sys.executable, __file__, "--worker", name, str(folder), str(first), str(count - first), str(seed)]
                done = subprocess.run(words, check=False, capture_output=True, text=True)
                findings += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
                reached = int((folder / "number").read_text()) if (folder / "number").exists() else -1
                if done.returncode == 0 and reached == count - 1:
                    first = count
                    break
                if reached < first:
                    findings.append([name, -1, f"does not start: {done.stderr[-600:]}"])
                    break
                if done.returncode:
                    findings.append([name, reached, f"ended with {done.returncode}: {done.stderr[-500:]}"])
                    if keep:
                        keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(folder / TARGETS[name].file, keep / f"finding-{name}-{reached}")
                first = reached + 1
            read += first
            if keep:
                for path in folder.glob("finding-*"):
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, keep)
        print(
            f"{name}: {first:,} inputs in {time.monotonic() - begun:.0f} s, {len(findings) - before} findings", file=sys.stderr, flush=True
        )
    return read, findings


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        _worker(sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:7]))
        sys.exit()
    chosen = sys.argv[3:] or list(TARGETS)
    inputs, found = campaign(chosen, int(sys.argv[1]), int(sys.argv[2]), Path("found"))
    for finding in found:
        print(json.dumps(finding))
    print(f"{inputs:,} inputs, {len(found)} findings")
