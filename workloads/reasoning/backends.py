"""Back ends of the loops: anything that completes prompts. A scripted one with stated rates, an HTTP endpoint, a local model."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from workloads.errors import WorkloadError

SOLVE, VERIFY, LOCALISE = "[solve]", "[verify]", "[localise]"
THOUGHT = re.compile(r"<thought>(.*?)</thought>", re.DOTALL)
MAX_REPLY_BYTES = 2**24


@dataclass(frozen=True)
class Completion:
    """What a back end answered: ``status`` is ok, empty, timeout or error, ``tokens`` what it made."""

    text: str
    tokens: int
    status: str = "ok"


class Backend(Protocol):
    """Completes prompts; never raises for what a model or a network does wrong (see `Completion.status`)."""

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        """One completion for each prompt."""

    def count(self, text: str) -> int:
        """Tokens of a text."""


@dataclass
class ScriptedModel:
    """A stand-in with stated rates, for tests and simulation: a chain of ``thoughts`` thoughts of ``thought_tokens`` words.

    Attributes:
        error, resample_error: chance that a thought is wrong given a right chain; of the first wrong one when it is made anew.
        true_positive, false_positive: chance that the verifier flags a wrong and a right chain.
        localisation: chance of naming the first wrong thought, else one of all evenly (right chains: always evenly).
        judge_tokens: words of a verdict. vote_correlation: chance that all votes of a judgement are the same draw.
        wrong_answers: a wrong chain's answer is one of so many. One problem at a time: it remembers the chain that was localised.
    """

    thoughts: int
    thought_tokens: int
    error: float
    resample_error: float | None = None
    true_positive: float = 1.0
    false_positive: float = 0.0
    localisation: float = 1.0
    judge_tokens: int = 20
    seed: int = 0
    vote_correlation: float = 0.0
    wrong_answers: int = 1

    def __post_init__(self) -> None:
        if self.thoughts < 1 or self.thought_tokens < 5 or self.judge_tokens < 2:
            raise WorkloadError("a scripted model needs at least 1 thought of 5 tokens and verdicts of 2")
        for name in ("error", "true_positive", "false_positive", "localisation", "vote_correlation"):
            if not 0 <= getattr(self, name) <= 1:
                raise WorkloadError(f"{name} is {getattr(self, name)}, must be from 0 to 1")
        self._rng = np.random.default_rng(self.seed)
        self._hard = 0  # first wrong thought of the chain that was localised, until the chain made anew from it ends

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        """A thought, a verdict or the number of a thought, by what the prompt asks for."""
        votes = len(prompts) > 1 and len(set(prompts)) == 1 and (VERIFY in prompts[0] or LOCALISE in prompts[0])
        if votes and self._rng.random() < self.vote_correlation:
            return [self._one(prompts[0], max_tokens)] * len(prompts)
        return [self._one(prompt, max_tokens) for prompt in prompts]

    def _one(self, prompt: str, max_tokens: int) -> Completion:
        chain = THOUGHT.findall(prompt)
        wrong = first_wrong(chain)
        if VERIFY in prompt:
            flagged = self._rng.random() < (self.true_positive if wrong else self.false_positive)
            return self._words("incorrect" if flagged else "correct", self.judge_tokens)
        if LOCALISE in prompt:
            self._hard = wrong
            hit = wrong and self._rng.random() < self.localisation
            place = wrong if hit else int(self._rng.integers(1, len(chain) + 1))
            return self._words(f"\\boxed{{{place}}}", self.judge_tokens)
        hard = len(chain) + 1 == self._hard and self.resample_error is not None
        rate = self.resample_error if hard and self.resample_error is not None else self.error
        mark = "wrong" if self._rng.random() < rate else "right"
        last = len(chain) + 1 == self.thoughts
        final = not wrong and mark == "right"
        if last:
            self._hard = 0
        wrong_answer = f"no{int(self._rng.integers(self.wrong_answers))}" if self.wrong_answers > 1 else "no"
        answer = f"\\boxed{{{'yes' if final else wrong_answer}}}" if last else "on"
        text = f"<thought> {mark} {answer} {len(chain) + 1} " + "so " * (self.thought_tokens - 5) + "</thought>"
        made = self.count(text)
        return Completion(text, made) if made <= max_tokens else Completion(" ".join(text.split()[:max_tokens]), max_tokens)

    def _words(self, answer: str, tokens: int) -> Completion:
        return Completion("thus " * (tokens - 1) + answer, tokens)


ANSWER = re.compile(r"\\boxed\{([^{}]{1,200})\}")


@dataclass
class ScriptedDebater:
    """A stand-in with stated rates for debates: answers of ``answer_tokens`` words.

    Attributes:
        accuracy: chance that a first answer is right, else it is one of ``wrong_answers`` evenly. persuasion: chance that the answer which
        more peers gave than any other, one's own included, is taken over. wrapper: the words after which peers' answers stand in a prompt.
    """

    answer_tokens: int
    accuracy: float
    persuasion: float
    wrong_answers: int = 4
    wrapper: str = "Peers said:"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.answer_tokens < 1 or self.wrong_answers < 1 or not (0 <= self.accuracy <= 1 and 0 <= self.persuasion <= 1):
            raise WorkloadError("a scripted debater needs answers of at least 1 token, 1 wrong answer, and rates from 0 to 1")
        self._rng = np.random.default_rng(self.seed)

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        """An answer to each prompt."""
        return [self._one(prompt, max_tokens) for prompt in prompts]

    def _one(self, prompt: str, max_tokens: int) -> Completion:
        before, wrapper, after = prompt.rpartition(self.wrapper)
        if wrapper:
            own = ANSWER.findall(before)[-1]
            peers = ANSWER.findall(after)
            counts = {name: peers.count(name) for name in {*peers, own}}
            top = max(counts.values())
            leading = [name for name, n in counts.items() if n == top]
            taken = len(leading) == 1 and leading[0] != own and self._rng.random() < self.persuasion
            answer = leading[0] if taken else own
        else:
            right = self._rng.random() < self.accuracy
            answer = "yes" if right else f"no{int(self._rng.integers(self.wrong_answers))}"
        made = min(self.answer_tokens, max_tokens)
        return Completion("so " * (made - 1) + f"\\boxed{{{answer}}}", made)


def first_wrong(chain: Sequence[str]) -> int:
    """Place (from 1) of the first thought of a scripted chain that is wrong, 0 if none is."""
    for place, thought in enumerate(chain, start=1):
        if thought.split()[:1] == ["wrong"]:
            return place
    return 0


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible ``/v1/completions`` endpoint. ``key`` goes into the header alone and into no trace."""

    url: str
    model: str
    timeout_s: float = 60.0
    key: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise WorkloadError(f"endpoint is {self.url[:60]!r}, must begin with http:// or https://")

    def count(self, text: str) -> int:
        """An estimate, four characters a token; completions carry the server's own count."""
        return max(len(text) // 4, 1)

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        """One request a prompt."""
        return [self._one(prompt, max_tokens, temperature, seed) for prompt in prompts]

    def _one(self, prompt: str, max_tokens: int, temperature: float, seed: int) -> Completion:
        values = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            self.url.rstrip("/") + "/v1/completions", json.dumps(values).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:  # noqa: S310 - the scheme is checked above
                answer = json.loads(reply.read(MAX_REPLY_BYTES))
            text = str(answer["choices"][0]["text"])
            usage = answer.get("usage")
            tokens = int(usage["completion_tokens"]) if isinstance(usage, dict) and "completion_tokens" in usage else self.count(text)
        except TimeoutError:
            return Completion("", 0, "timeout")
        except (urllib.error.URLError, OSError) as error:
            return Completion("", 0, "timeout" if isinstance(getattr(error, "reason", None), TimeoutError) else "error")
        except (ValueError, KeyError, IndexError, TypeError):
            return Completion("", 0, "error")
        return Completion(text, min(max(tokens, 0), max_tokens), "ok" if text.strip() else "empty")


class LocalModel:
    """A causal model of transformers on this machine, greedy at temperature 0."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def count(self, text: str) -> int:
        """Tokens of its tokenizer."""
        return len(self._tokenizer(text)["input_ids"])

    def generate(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[Completion]:
        """Prompt by prompt: batches would pad, and padding would be counted as work."""
        import torch

        torch.manual_seed(seed)
        found = []
        for prompt in prompts:
            inputs = self._tokenizer(prompt, return_tensors="pt")
            sampled: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
            with torch.no_grad():
                out = self._model.generate(**inputs, max_new_tokens=max_tokens, **sampled)
            new = out[0, inputs["input_ids"].shape[1] :]
            text = str(self._tokenizer.decode(new, skip_special_tokens=True))
            found.append(Completion(text, len(new), "ok" if text.strip() else "empty"))
        return found
