"""Logs of requests: the public formats, and one sentence with the line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dse.errors import DseError
from dse.serving.requests import read_requests, write_requests

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n"
)
OWN = (
    "arrival_s,prompt_tokens,output_tokens,session,prefix,prefix_tokens\n0,100,50,a,,\n1,200,10,a,,\n2,64,8,,system,48\n3,80,8,,system,48\n"
)


def write(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_azure(tmp_path: Path) -> None:
    log = read_requests(write(tmp_path, AZURE))
    assert log.prompt.tolist() == [374, 396] and log.output.tolist() == [44, 109]
    assert log.arrival_s.tolist() == [0, pytest.approx(4.314579, abs=1e-6)]


def test_burstgpt(tmp_path: Path) -> None:
    log = read_requests(write(tmp_path, BURST))
    assert log.arrival_s.tolist() == [0, 40] and log.prompt.tolist() == [472, 1087] and log.output.tolist() == [18, 230]
    assert log.rate_per_s == pytest.approx(1 / 40)


def test_mooncake_blocks_are_shared_by_name(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 1300, "output_length": 10, "hash_ids": [7, 8, 9]},
        {"timestamp": 2500, "input_length": 1024, "output_length": 10, "hash_ids": [7, 8]},
    ]
    log = read_requests(write(tmp_path, "\n".join(map(json.dumps, rows)), "log.jsonl"))
    assert log.arrival_s.tolist() == [0, 2.5] and log.block_tokens == 512
    # The third block of the first prompt is filled in part: it is nobody's.
    assert log.blocks[0].tolist() == [0, 2, 4] and log.blocks[1].tolist() == [7, 8, 7, 8]
    offsets, names = log.requests(16).block_lists
    assert offsets.tolist() == [0, 64, 128]
    assert (names[:64] == names[64:]).all() and len(set(names.tolist())) == 64


def test_own_sessions_and_prefixes(tmp_path: Path) -> None:
    log = read_requests(write(tmp_path, OWN))
    assert log.session.tolist() == [0, 0, -1, -1]
    lists = np.split(log.blocks[1], log.blocks[0][1:-1])
    assert len(lists[0]) == 150 // 16 and (lists[1][: len(lists[0])] == lists[0]).all()  # a turn begins with the turns before it
    assert len(lists[2]) == 3 and (lists[2] == lists[3]).all()
    write_requests(log, tmp_path / "again.csv")
    assert read_requests(tmp_path / "again.csv").output.tolist() == log.output.tolist()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("arrival_s,prompt_tokens,output_tokens\n-1,5,5\n", "a.csv", "line 2: arrival is -1 s, must be at least 0"),
        ("arrival_s,prompt_tokens,output_tokens\n5,5,5\n4,5,5\n", "a.csv", "line 3: arrival 4 s is before the line above"),
        ("arrival_s,prompt_tokens,output_tokens\n0,5,0\n", "a.csv", "line 2: output has 0 tokens, must be from 1"),
        ("arrival_s,prompt_tokens,output_tokens\n0,x,1\n", "a.csv", "line 2: prompt_tokens is 'x', must be a number"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1.5,1\n", "a.csv", "must be a whole number"),
        ("arrival_s,prompt_tokens,output_tokens\n0,nan,1\n", "a.csv", "line 2: prompt_tokens is 'nan'"),
        ("arrival_s,prompt_tokens,output_tokens\n0,5\n", "a.csv", "line 2: 2 values, must be 3"),
        ("arrival_s,prompt_tokens,output_tokens\n", "a.csv", "holds no request"),
        (
            "arrival_s,prompt_tokens,output_tokens,prefix_tokens,prefix\n0,5,1,9,a\n",
            "a.csv",
            "prefix_tokens is 9, must be from 0 to the prompt's 5",
        ),
        (
            "arrival_s,prompt_tokens,output_tokens,session\n0,9223372036854775807,-9223372036854775808,a\n",
            "a.csv",
            "line 2: prompt and output have 9.22337e+18 tokens, must be at most 4194304",
        ),
        ("TIMESTAMP,ContextTokens\n", "a.csv", "column 'GeneratedTokens' is missing"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,5\n", "a.csv", "TIMESTAMP is 'yesterday'"),
        ("", "a.csv", "is empty"),
        ('{"timestamp": 1, "input_length": 5}', "a.jsonl", "line 1: 'output_length' is missing"),
        ("nonsense", "a.jsonl", "line 1 is not JSON"),
        ("[1]", "a.jsonl", "line 1 holds [1], must hold a JSON object"),
        ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": "x"}', "a.jsonl", "hash_ids is 'x'"),
        ('{"timestamp": 1, "input_length": 5, "output_length": true}', "a.jsonl", "output_length is 'True', must be a number"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(DseError) as caught:
        read_requests(write(tmp_path, text, name))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_long_context(tmp_path: Path) -> None:
    with pytest.raises(DseError, match="cannot be read"):
        read_requests(tmp_path / "none.csv")
    log = read_requests(write(tmp_path, AZURE))
    with pytest.raises(DseError, match="line 3: 396 prompt and 109 output tokens are more than the 500 positions of tiny"):
        log.check_context(500, "tiny")


@pytest.mark.parametrize("line", ['{"timestamp": ' + "9" * 5000 + ', "input_length": 1, "output_length": 1}', "[" * 100_000])
def test_json_that_no_reader_holds_is_refused(tmp_path: Path, line: str) -> None:
    sound = '{"timestamp": 0, "input_length": 13, "output_length": 10}\n'
    with pytest.raises(DseError, match="line 2"):
        read_requests(write(tmp_path, sound + line, "log.jsonl"))
