"""Every reader of files, with sound files of its kind and what reads them whole."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import workload_files as workload
from mutations import damaged, damaged_bytes

from workloads.importers.huggingface.config import read_config

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


@dataclass(frozen=True)
class Target:
    """A reader: the name of its file, sound contents, and what reads it (from its path)."""

    file: str
    sound: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    damage: Callable[[bytes, random.Random], bytes] = damaged
    default: int = 60  # inputs of the default tests
    cost: int = 1  # of an input, in times that of a small text


def texts(*found: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in found]


def files(*names: str, lines: int = 12) -> Callable[[Path], list[bytes]]:
    """The first lines of reference files."""
    return lambda folder: [b"\n".join((REFERENCE / name).read_bytes().splitlines()[:lines]) + b"\n" for name in names]


def files_of(package: str, name: str) -> Callable[[Path], list[bytes]]:
    """A file that comes with a package."""
    return lambda folder: [resources.files(package).joinpath(name).read_bytes()]


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


DRIVE = "time_s,legal_limit_kmh,pedestrians,distance_m\n" + "".join(f"{t},50,{t % 3},{40 - t if t % 3 else ''}\n" for t in range(8))
HOURS = "timestamp_utc,gco2e_per_kwh,price\n" + "".join(f"2024-01-0{1 + h // 24}T{h % 24:02d}:00:00Z,{300 + h},40\n" for h in range(50))
LOAD = "timestamp_utc,requests\n" + "".join(f"2024-01-0{1 + h // 24}T{h % 24:02d}:00:00Z,{100 + h}\n" for h in range(50))
TREE = json.dumps(
    {"format": "dse-operate-tree-1", "tree": {"feature": "due_within_6_h", "at_most": 3.5, "yes": {"level": 0.0}, "no": {"level": 1.0}}}
)
LOOP = "model,samples,accuracy,accuracy_se\nsmall,1,0.5,0.01\nsmall,4,0.6,0.01\nlarge,1,0.7,0.02\n"


def _vehicle(path: Path) -> None:
    from dse.operate.driving.vehicle import load_vehicle

    load_vehicle(path)


def _drive(path: Path) -> None:
    from dse.operate.driving.trace import read_trace

    read_trace(path)


def _hours(path: Path) -> None:
    from dse.operate.traces import read_grid

    read_grid(path)


def _load(path: Path) -> None:
    from datetime import UTC, datetime

    from dse.operate.traces import load_of_file

    load_of_file(path, datetime(2024, 1, 1, tzinfo=UTC), 168)


def _policy(path: Path) -> None:
    from dse.operate.agents.library import find

    find(str(path))


def _loop_table(path: Path) -> None:
    from types import SimpleNamespace

    from dse.serving.loop_quality import source_of

    source_of(f"table:{path}", SimpleNamespace(knobs=("samples", "rounds")))


TARGETS: dict[str, Target] = {
    "carbon-spec": Target("spec.toml", texts(SPEC, BOARD, CHIPLETS), _estimate),
    "carbon-estimate": Target("spec.toml", texts(SPEC, BOARD), command("carbon", "estimate", "FILE"), default=15, cost=40),
    **{
        f"batch-{kind}": Target("rows.csv", files(f"carbon/{name}", lines=5), _batch(kind), default=30)
        for kind, name in (("die", "ref_act_logic.csv"), ("memory", "ref_act_memory_storage.csv"), ("operation", "ref_act_op.csv"),
                           ("pcb", "ref_act_pcb.csv"), ("llm", "ref_ecologits_llm.csv"))
    },
    "grid": Target("grid.csv", texts(*GRIDS), _grid),
    "hardware": Target("hw.toml", texts(DESIGN), _hardware),
    "gemms": Target("gemms.csv", texts(GEMMS), command("evaluate", "--gemms", "FILE", "--out", "OUT.csv"), default=30, cost=40),
    "designs": Target("designs.csv", texts(DESIGNS), command("evaluate", "--workload", "bert", "--designs", "FILE", "--out", "OUT.csv"), default=10, cost=40),
    "table": Target("table.csv", texts(TABLE), _table),
    "measured": Target("measured.csv", texts(MEASURED), _measured),
    "overheads": Target("overheads.toml", texts(OVERHEADS), _overheads),
    "space": Target("space.toml", texts(SPACE), _space),
    "config": Target("search.toml", texts(CONFIG), _config, default=15, cost=40),
    **{f"requests-{name}": Target("log.csv", texts(text), _requests, default=40) for name, text in REQUESTS.items()},
    "requests-mooncake": Target("log.jsonl", texts(MOONCAKE), _requests),
    "serving-runs": Target("runs.csv", files("serving/silicon_runs.csv", lines=4), _runs),
    "reasoning-trace": Target("trace.jsonl", texts(TRACE), _trace),
    "user-data": Target("items.jsonl", lambda folder: [20 * line.encode() for line in USER.values()], _user),
    "scalesim": Target("x.cfg", texts(SCALESIM), _import("scalesim")),
    "topology": Target("x.csv", texts(TOPOLOGY, TOPOLOGY_GEMM), _topology),
    "timeloop": Target("arch.yaml", files("exports/timeloop_arch.yaml", lines=400), _import("timeloop"), default=20, cost=3),
    "zigzag": Target("hw.yaml", _exported("zigzag", "*hardware*.y*ml"), _import("zigzag"), default=20, cost=6),
    "xmc-repository": Target("data.txt", texts(REPOSITORY), _xmc_data),
    "xmc-labelled": Target("data.tsv", texts(LABELLED), _xmc_data),
    "xmc-npz": Target("x.npz", _npz_sound, _npz, damaged_bytes),
    "xmc-tree": Target("t.xmc", _tree_sound, _tree, damaged_bytes),
    "midi": Target("a.mid", _midi_sound, _midi, damaged_bytes),
    "words": Target("words.txt", texts(LINES), _lines),
    "safetensors": Target("model.safetensors", _safetensors, _checkpoint, damaged_bytes),
    "checkpoint-config": Target("config.json", texts('{"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2}'), _checkpoint_config),
    "vehicle": Target("car.toml", files_of("dse", "operate/driving/data/shuttle.toml"), _vehicle),
    "drive": Target("drive.csv", texts(DRIVE), _drive),
    "operate-grid": Target("grid.csv", texts(HOURS), _hours),
    "operate-load": Target("load.csv", texts(LOAD, REQUESTS["own"], REQUESTS["azure"], REQUESTS["burst"]), _load),
    "policy-tree": Target("tree.json", texts(TREE), _policy),
    "policy": Target("policy.safetensors", files_of("dse", "data/operate/bandit.safetensors"), _policy, damaged_bytes),
    "loop-table": Target("table.csv", texts(LOOP), _loop_table),
    "model-config": Target("config.json", lambda folder: [json.dumps(workload.CONFIG, indent=1).encode()], read_config, default=200),
    "model-record": Target("model.toml", texts(workload.RECORD, workload.MIX), workload.read_record, default=150),
    "naturalbench": Target("answers.jsonl", texts(workload.NATURAL), workload.read_natural, default=150),
    "camerabench": Target("answers.jsonl", texts(workload.CAMERA), workload.read_camera, default=150),
    "onnx": Target("model.onnx", lambda folder: workload.graphs(), workload.read_graph, damaged_bytes, default=300, cost=2),
    "study": Target("study.db", _studies, _study, damaged_bytes, default=30, cost=6),
}  # fmt: skip
