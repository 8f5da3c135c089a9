"""The records of dear evaluations: what a strategy asks for, and what a trial holds.

States: running -> complete | failed | timed_out | cancelled. Failed and timed-out trials return to running when they are
retried. Where trials are stored, and how they are claimed: :mod:`dse.storage.trials`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dse.errors import DseError
from dse.quality.measured import Measured
from dse.spaces.parameters import Value

RUNNING, COMPLETE, FAILED, TIMED_OUT, CANCELLED = "running", "complete", "failed", "timed_out", "cancelled"
STATES = (RUNNING, COMPLETE, FAILED, TIMED_OUT, CANCELLED)


@dataclass(frozen=True)
class Proposal:
    """A design that a strategy asks for, and what it says about why (plain values)."""

    parameters: Mapping[str, Value]
    fidelity: float = 1.0
    info: Mapping[str, Any] = field(default_factory=dict)
    replicate: int = 0  # above 0: a repeated measurement of a design, on purpose


@dataclass(frozen=True)
class Trial:
    """One dear evaluation."""

    number: int
    parameters: dict[str, Value]
    seed: int
    state: str = RUNNING
    metrics: dict[str, Measured] = field(default_factory=dict)
    fidelity: float = 1.0
    info: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    attempts: int = 1
    key: str = ""
    started: float = 0.0
    finished: float | None = None

    @property
    def done(self) -> bool:
        """Whether it has its metrics."""
        return self.state == COMPLETE

    def finish(self, metrics: Mapping[str, Measured]) -> Trial:
        """The trial with its metrics; one that is not finite is an error."""
        for name, value in metrics.items():
            if not (math.isfinite(value.mean) and math.isfinite(value.se) and value.se >= 0):
                raise DseError(
                    f"trial {self.number}: {name} is {value.mean} with standard error {value.se}; a finite number with "
                    "a non-negative error is needed"
                )
        return replace(self, state=COMPLETE, metrics=dict(metrics), error="")

    def fail(self, state: str, error: str) -> Trial:
        """The trial without metrics: failed, timed out or cancelled."""
        return replace(self, state=state, metrics={}, error=error)


def trial_seed(seed: int, number: int) -> int:
    """The seed of one trial: depends on the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, dtype=np.uint32)[0])


# What is computed with of what a strategy notes: a note without both is none.
_NUMBERS_OF_INFO = ("gain", "hypervolume", "of")


def _check(trial: Trial) -> Trial:
    """ValueError where a row holds what no search writes."""
    noted = [trial.info[name] for name in _NUMBERS_OF_INFO if name in trial.info]
    measured = [part for value in trial.metrics.values() for part in (value.mean, value.se)]
    for number in (*noted, *measured, trial.fidelity, trial.seed, trial.attempts, trial.started):
        # OverflowError: no float holds it
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{str(number)[:40]!r} is no number of a trial")
    if trial.state not in STATES or ("gain" in trial.info) != ("hypervolume" in trial.info):
        raise ValueError(f"its state is {str(trial.state)[:40]!r} and its notes {', '.join(map(str, trial.info))[:80]}")
    if not all(isinstance(value, (str, int, float)) for value in trial.parameters.values()):
        raise ValueError("its parameters are no plain values")
    return trial


class _Told(dict[str, Measured]):
    """Metrics as a file has them: one that is missing there is a fault of the file, whoever asks for it."""

    def __init__(self, number: Any, metrics: Mapping[str, Measured]) -> None:
        super().__init__(metrics)
        self._number = number

    def __missing__(self, name: str) -> Measured:
        raise DseError(f"trial {self._number} of the study is damaged: it is complete but has no {name}; search again")


def trial_of_row(row: Mapping[str, Any]) -> Trial:
    """A trial from a row of its table; DseError where the row holds what no search writes."""
    try:
        metrics = {name: Measured(*pair) for name, pair in json.loads(row["metrics"]).items()}
        trial = Trial(
            number=row["number"],
            parameters=dict(json.loads(row["parameters"])),
            seed=row["seed"],
            state=row["state"],
            metrics=metrics if row["state"] != COMPLETE else _Told(row["number"], metrics),
            fidelity=row["fidelity"],
            info=dict(json.loads(row["info"])),
            error=row["error"],
            attempts=row["attempts"],
            key=row["key"],
            started=row["started"],
            finished=row.get("finished"),
        )
        return _check(trial)
    except (
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:  # a damaged file holds text that is no JSON, or not ours
        raise DseError(f"trial {row['number']} of the study is damaged: {error}; search again") from error
