"""``dse xmc`` as users meet it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from dse.cli import main

PECOS_SMALL = Path(__file__).parents[1] / "reference" / "xmc" / "pecos_small"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("xmc") / "lines.tsv"
    with path.open("w") as stream:
        for _ in range(300):
            held = rng.choice(30, rng.integers(1, 3), replace=False)
            stream.write(
                ",".join(f"topic{i}" for i in held) + "\t" + " ".join(f"w{i}x{rng.integers(3)}" for i in held for _ in range(4)) + "\n"
            )
    return path


@pytest.fixture(scope="module")
def model(lines: Path) -> Path:
    out = lines.parent / "model"
    assert main(["xmc", "train", "--data", str(lines), "--out", str(out), "--branch", "2", "--leaf", "8", "--test-documents", "50"]) == 0
    return out


def test_train_writes_what_produced_it(model: Path) -> None:
    record = json.loads((model / "model.json").read_text())
    assert record["command"][:3] == ["dse", "xmc", "train"] and len(record["data_sha256"]) == 64
    assert record["versions"]["numpy"] == np.__version__ and record["test"]["precision@1"] > 0.9
    assert sorted(p.name for p in model.iterdir()) == ["labels.json", "model.json", "param.json", "ranker", "tree.xmc", "vectorizer.json"]


def test_predict_text_and_npz(model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("w3x1 w3x2\n\nw7x0 w9x1\n")
    assert main(["xmc", "predict", str(model), str(queries), "--topk", "2"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 3 and answers[0]["labels"][0] == "topic3" and set(answers[2]["labels"]) == {"topic7", "topic9"}
    assert answers[0]["scores"][0] > answers[0]["scores"][1]
    assert (
        main(["xmc", "predict", str(PECOS_SMALL), str(PECOS_SMALL / "queries.npz"), "--topk", "20", "--out", str(tmp_path / "a.jsonl")])
        == 0
    )
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    expected = np.load(PECOS_SMALL / "predict_b10_k20_own.npz")
    assert [label for a in answers for label in a["labels"]] == expected["indices"].tolist()


def test_inspect_bench_and_prune(model: Path, lines: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["xmc", "inspect", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == 30
    assert main(["xmc", "bench", str(model), "--data", str(lines), "--documents", "40", "--topk", "10", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["queries"] == 40 and measured["online_p50_us"] > 0 and measured["quality"]["recall@10"] > 0.9
    table = ["xmc", "prune", str(model), "--threshold", "0.1", "--threshold", "0.5", "--data", str(lines), "--topk", "10", "--json"]
    assert main(table) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[1]["weights"] < rows[0]["weights"] and rows[1]["bytes"] < rows[0]["bytes"] and rows[1]["macs"] < rows[0]["macs"]
    assert main(["xmc", "prune", str(model), "--threshold", "0.5", "--out", str(tmp_path / "pruned"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == (tmp_path / "pruned" / "tree.xmc").stat().st_size
    assert main(["xmc", "bench", "--synthetic", "500", "--documents", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["labels_scored"] > 100


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["predict", "nowhere", "-"], 1, "neither tree.xmc nor a PECOS ranker"),
        (["train", "--data", "nowhere", "--out", "x"], 1, "data 'nowhere' is neither"),
        (["bench"], 2, "bench needs a MODEL or --synthetic"),
        (["prune", str(PECOS_SMALL), "--threshold", "0.2"], 2, "prune needs --out FOLDER, or --data"),
        (["predict", str(PECOS_SMALL), str(PECOS_SMALL / "param.json")], 1, "no vectorizer.json"),
        (["predict", str(PECOS_SMALL), str(PECOS_SMALL / "queries.npz"), "--post-processor", "l3"], 1, "post_processor 'l3'"),
        (["predict", str(PECOS_SMALL), str(PECOS_SMALL / "queries.npz"), "--beam", "0"], 1, "beam 0"),
        (["serve", str(PECOS_SMALL), "--bound-ms", "0"], 2, "bound-ms 0"),
        (["serve", str(PECOS_SMALL), "--port", "70000"], 2, "port 70000"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xmc", *words]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def _post(url: str, body: bytes) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:  # noqa: S310 - our own server
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_serve_answers_batches_counts_and_drains(model: Path) -> None:
    command = [sys.executable, "-m", "dse", "xmc", "serve", str(model), "--port", "0", "--topk", "5"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as server:
        assert server.stderr is not None
        found = re.search(r"on (http://127\.0\.0\.1:\d+)", server.stderr.readline())
        assert found
        url = found[1]
        bodies = [json.dumps({"text": f"w{i % 30}x1"}).encode() for i in range(60)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: _post(url + "/predict", body), bodies))
        assert all(status == 200 for status, _ in answers)
        assert [a["labels"][0] for _, a in answers] == [f"topic{i % 30}" for i in range(60)]
        assert _post(url + "/predict", json.dumps({"indices": [0, 2], "values": [1, 0.5], "topk": 2}).encode())[1]["labels"]
        for broken in (b"{", b"[]", b'{"text": 3}', b'{"indices": [2, 1], "values": [1, 1]}', b'{"text": "a", "topk": 6}', b"{}",
                       b'{"indices": [99999999], "values": [1]}', b'{"indices": [1], "values": [NaN]}'):  # fmt: skip
            status, answer = _post(url + "/predict", broken)
            assert status == 400 and answer["error"]
        with urllib.request.urlopen(url + "/metrics", timeout=30) as stream:  # noqa: S310 - our own server
            metrics = stream.read().decode()
        assert "dse_xmc_answered_total 61" in metrics and "dse_xmc_refused_total 8" in metrics
        assert float(re.findall(r'quantile="0.99"} ([0-9.]+)', metrics)[0]) > 0
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert "answered 61 queries" in server.stderr.read()


def test_an_interrupted_training_goes_on(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from workloads.xmc import training

    original, calls = training._train_level, []

    def interrupted(*arguments: object) -> sparse.csc_matrix:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_train_level", interrupted)
    command = ["xmc", "train", "--data", str(lines), "--out", str(tmp_path / "m"), "--branch", "2", "--leaf", "8"]
    assert main(command) == 130
    assert not (tmp_path / "m").exists() and (tmp_path / "m.part" / "checkpoint").is_dir()
    assert main(command) == 0 and (tmp_path / "m" / "tree.xmc").is_file()
    assert len(calls) == 2 + 2  # the first level was kept
