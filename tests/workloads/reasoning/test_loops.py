"""Loops on a scripted model against their closed forms, and on back ends that fail."""

from __future__ import annotations

import http.server
import json
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from workloads import load
from workloads.errors import WorkloadError
from workloads.reasoning import closed_forms as forms
from workloads.reasoning.backends import Completion, Endpoint, ScriptedModel
from workloads.reasoning.loops import (
    IcsLimits,
    maca,
    majority,
    parse_answer,
    parse_place,
    parse_verdict,
    reset_rollouts,
    thought_ics,
)
from workloads.reasoning.traces import Budget, Recorder, mix_of, read_trace

SHORT = IcsLimits(corrections=4)


def right(answer: str | None) -> bool:
    return answer == "yes"


def rates(model: ScriptedModel) -> tuple[np.ndarray, np.ndarray]:
    again = model.error if model.resample_error is None else model.resample_error
    return np.full(model.thoughts, model.error), np.full(model.thoughts, again)


def corrections(model: ScriptedModel, count: int, **options: object) -> np.ndarray:
    """Share of chains that are right after 0 .. 4 corrections."""
    wins = np.zeros(SHORT.corrections + 1)
    for sample in range(count):
        recorder = Recorder(model)
        recorder.sample = sample
        found = thought_ics("p", recorder, limits=SHORT, **options)  # type: ignore[arg-type]
        answers = list(found.answers) + [found.answers[-1]] * (SHORT.corrections + 1 - len(found.answers))
        wins += [right(answer) for answer in answers]
    return wins / count


@pytest.mark.parametrize(("localisation", "again"), [(1.0, None), (0.5, 0.6), (0.0, 0.3)])
def test_repair_is_the_closed_form(localisation: float, again: float | None) -> None:
    """Oracle verdicts, after each correction, within 3 standard errors."""
    model = ScriptedModel(6, 5, 0.2, again, localisation=localisation, seed=3)
    count = 2500
    found = corrections(model, count, level="oracle", correct=right)
    expected = forms.repaired(*rates(model), localisation=localisation, corrections=4)
    assert (abs(found - expected) < 3 * np.sqrt(expected * (1 - expected) / count)).all()


def test_autonomous_is_what_the_verifier_allows() -> None:
    model = ScriptedModel(6, 5, 0.2, true_positive=0.8, false_positive=0.1, localisation=0.7, seed=4)
    count = 2500
    found = corrections(model, count, level="autonomous")
    exact = forms.repaired(*rates(model), localisation=0.7, corrections=4, true_positive=0.8, false_positive=0.1)
    assert (abs(found - exact) < 3 * np.sqrt(exact * (1 - exact) / count)).all()
    assert exact[-1] > exact[0]  # it pays here; a verifier that flags right chains often does not
    worse = forms.repaired(*rates(model), localisation=0.0, corrections=4, true_positive=0.5, false_positive=0.5)
    assert worse[-1] < exact[-1]


def test_oracle_series() -> None:
    """Perfect localisation, er = e: sum over f <= I of C(n + f - 1, f) e^f q^n (.377 .717 .895 .966 at n 6, q .85)."""
    from math import comb

    e, n = 0.15, 6
    series = np.cumsum([comb(n + f - 1, f) * e**f * (1 - e) ** n for f in range(4)])
    assert forms.repaired(np.full(n, e), np.full(n, e), localisation=1.0, corrections=3) == pytest.approx(series)
    assert series == pytest.approx([0.377, 0.717, 0.895, 0.966], abs=1e-3)


def test_suffixes_against_counting() -> None:
    """Success of suffixes from the first wrong thought and from a random one (formulas of both, 3 standard errors)."""
    model = ScriptedModel(6, 5, 0.25, 0.5, seed=5)
    wins: dict[bool, list[float]] = {True: [], False: []}
    for localise in (True, False):
        for sample in range(1500):
            recorder = Recorder(model)
            recorder.sample = sample
            found = reset_rollouts("p", recorder, correct=right, base=1, suffixes=1, localise=localise)
            if found.suffixes:
                wins[localise].append(float(right(parse_answer(found.suffixes[0][-1]))))
    oracle = forms.suffix_success(np.full(6, 0.25), np.full(6, 0.5))[0]
    random = forms.suffix_success(np.full(6, 0.25), np.full(6, 0.25))[1]
    # Without a judge the scripted model does not know what is made anew: random resets fail with the plain rate.
    for expected, drawn in ((oracle, wins[True]), (random, wins[False])):
        assert abs(np.mean(drawn) - expected) < 3 * np.sqrt(expected * (1 - expected) / len(drawn))


# ---- tokens ----


class Flat:
    """Answers of a fixed number of words, one after the other."""

    def __init__(self, words: int, answers: Sequence[str] = ("a",)) -> None:
        self.words, self.answers, self.calls = words, answers, 0

    def count(self, text: str) -> int:
        return len(text.split())

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        found = []
        for _ in prompts:
            answer = self.answers[self.calls % len(self.answers)]
            self.calls += 1
            found.append(Completion("w " * (self.words - 1) + f"\\boxed{{{answer}}}", self.words))
        return found


def test_debate_tokens_and_training_signals() -> None:
    """3 agents, 2 rounds, 150 + 200 tokens: exact, with and without reuse; majority, pairs, rewards."""
    recorder = Recorder(Flat(200, ("a", "a", "b")))
    found = maca("q " * 149 + "q", recorder, wrapper="Peers said:")
    plain = forms.maca_tokens(agents=3, rounds=2, prompt=150, answer=200, wrapper=2, reuse=False)
    assert sum(c.prompt_tokens for c in recorder.calls) == plain.prefill == 3 * 150 + 3 * (2 * 150 + 3 * 200 + 2)
    assert sum(c.output_tokens for c in recorder.calls) == plain.decode == 1200
    shared = forms.maca_tokens(agents=3, rounds=2, prompt=150, answer=200, wrapper=2, reuse=True)
    assert shared.prefill == 150 + 3 * (550 + 2)
    assert found.consensus == "a" and found.agree == (True, True, False) and len(found.preferences) == 2
    assert found.advantages == pytest.approx(np.array([1, 1, -2]) / np.sqrt(2))
    assert all(c.parents == (0, 1, 2) for c in recorder.calls[3:])


def test_chain_and_reset_tokens() -> None:
    model = ScriptedModel(8, 60, 0.0)
    recorder = Recorder(model)
    thought_ics("p " * 448 + "p", recorder, level="oracle", correct=right)
    plain = forms.chain_tokens(prompt=450, thoughts=8, thought=60, reuse=False)
    assert sum(c.prompt_tokens for c in recorder.calls) == plain.prefill == 5280
    assert sum(c.output_tokens for c in recorder.calls) == plain.decode == 480
    assert plain.prefill / forms.chain_tokens(prompt=450, thoughts=8, thought=60, reuse=True).prefill == pytest.approx(11.7, abs=0.1)
    wrong = Recorder(ScriptedModel(8, 60, 1.0))
    reset_rollouts("p", wrong, correct=right)
    tokens = forms.reset_tokens(base=4, suffixes=4, prompt=2, thoughts=8, thought=60, judge=20, at=1)
    assert sum(c.output_tokens for c in wrong.calls) == tokens.decode == 4 * 480 + 20 + 4 * 480


def test_advantages() -> None:
    assert forms.group_advantages(np.array([1.0, 1.0])).tolist() == [0, 0]
    found = forms.group_advantages(np.array([1.0, 0.0, 0.0, 0.0]))
    assert found.mean() == pytest.approx(0) and found.std() == pytest.approx(1)


# ---- malformed text and failing back ends ----


@pytest.mark.parametrize(
    ("text", "answer", "place", "verdict"),
    [
        ("so \\boxed{ 3 }", "3", 3, None),
        ("\\boxed{1} no \\boxed{step 2}", "step 2", 2, None),
        ("\\boxed{9}", "9", None, None),
        ("\\boxed{", None, None, None),
        ("it is Incorrect. No: correct", None, None, True),
        ("incorrect", None, None, False),
        ("\x00\ud800 \\boxed{12345678901}", "12345678901", None, None),
        ("", None, None, None),
    ],
)
def test_parsing_never_fails(text: str, answer: str | None, place: int | None, verdict: bool | None) -> None:
    assert (parse_answer(text), parse_place(text, 5), parse_verdict(text)) == (answer, place, verdict)


def test_majority() -> None:
    assert majority(["a", "b", "b", None]) == "b" and majority([None]) is None and majority(["x", "y"]) == "x"


class Broken:
    """Says one thing for ever."""

    def __init__(self, completion: Completion) -> None:
        self.completion = completion

    def count(self, text: str) -> int:
        return len(text.split())

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        return [self.completion] * len(prompts)


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        (Completion("", 0, "timeout"), "back end: timeout"),
        (Completion("", 0, "empty"), "back end: empty"),
        (Completion("again and again", 3), "back end: repeats"),
        (Completion("\x00\udfff}{", 1), "back end: repeats"),
    ],
)
def test_a_broken_back_end_ends_the_loop(completion: Completion, why: str, tmp_path: Path) -> None:
    recorder = Recorder(Broken(completion))
    assert thought_ics("p", recorder, level="autonomous").ended == why
    recorder.write(tmp_path / "t.jsonl")
    assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[-1])["end"] == why
    assert maca("q", Recorder(Broken(completion))).consensus is None


def test_budgets_end_loops() -> None:
    model = ScriptedModel(50, 10, 0.0)
    recorder = Recorder(model, Budget(calls=5))
    assert thought_ics("p", recorder, level="oracle", correct=right).ended == "calls" and len(recorder.calls) == 5
    assert thought_ics("p", Recorder(model, Budget(tokens=25)), level="oracle", correct=right).ended == "tokens"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = {"choices": [{"text": "well \\boxed{4}"}], "usage": {"completion_tokens": 5}}
        text = {"good": json.dumps(reply), "garbage": "<html>", "empty": json.dumps({"choices": [{"text": " "}]})}[body["prompt"]]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}", "m", timeout_s=5)
    server.shutdown()
    server.server_close()
    thread.join()


def test_endpoint(endpoint: Endpoint) -> None:
    found = endpoint.generate(["good", "garbage", "empty"], max_tokens=8, temperature=0.0, seed=1)
    assert [c.status for c in found] == ["ok", "error", "empty"] and found[0].tokens == 5
    closed = Endpoint("http://127.0.0.1:9", "m", timeout_s=1)
    assert closed.generate(["x"], max_tokens=1, temperature=0, seed=0)[0].status in ("error", "timeout")
    with pytest.raises(WorkloadError, match="must begin with http"):
        Endpoint("file:///etc/passwd", "m")


# ---- traces ----


def test_a_trace_is_a_workload(tmp_path: Path) -> None:
    recorder = Recorder(ScriptedModel(8, 20, 0.3, seed=2))
    for sample in range(20):
        recorder.sample = sample
        thought_ics("a problem of some words", recorder, level="oracle", correct=right)
    path = tmp_path / "t.jsonl"
    recorder.write(path)
    calls = read_trace(path)
    assert calls == recorder.calls
    (tmp_path / "mix.toml").write_text(mix_of([(c.prompt_tokens, c.output_tokens) for c in calls], "llama3-8b", "ics"))
    document = tomllib.loads((tmp_path / "mix.toml").read_text())
    mean = sum(p["weight"] * p["set"]["sequence"] for p in document["part"])
    assert mean == pytest.approx(np.mean([c.prompt_tokens for c in calls]))  # fewer than 64 kinds: exact
    assert load(str(tmp_path / "mix.toml")).build().macs() > 0


def test_many_kinds_are_put_together(tmp_path: Path) -> None:
    recorder = Recorder(Flat(7))
    rng = np.random.default_rng(0)
    for _ in range(500):
        recorder.ask("answer", ["x " * int(rng.integers(1, 900))], max_tokens=9, temperature=0.0)
    document = tomllib.loads(mix_of([(c.prompt_tokens, c.output_tokens) for c in recorder.calls], "llama3-8b", "many"))
    assert len(document["part"]) <= 64 and sum(p["weight"] for p in document["part"]) == pytest.approx(1)
    mean = sum(p["weight"] * p["set"]["sequence"] for p in document["part"])
    assert mean == pytest.approx(np.mean([c.prompt_tokens for c in recorder.calls]), rel=0.002)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 1 is not JSON"),
        ('{"id": 0}', "line 1: 'phase' is missing"),
        ('{"id": 3, "phase": "think", "prompt_tokens": 1, "output_tokens": 1}', "id is 3, must be 0"),
        ('{"id": 0, "phase": "sing", "prompt_tokens": 1, "output_tokens": 1}', "phase is 'sing'"),
        ('{"id": 0, "phase": "think", "prompt_tokens": 0, "output_tokens": 1}', "prompt_tokens is 0"),
        ('{"id": 0, "phase": "think", "prompt_tokens": 1, "output_tokens": 1, "parents": [0]}', "parent 0 does not come before"),
        ("", "holds no call"),
    ],
)
def test_wrong_traces_are_one_sentence(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(line + "\n")
    with pytest.raises(WorkloadError, match=message):
        read_trace(tmp_path / "t.jsonl")
