"""Quality evaluators: what turns a model into a number with a standard error.

``surrogate`` (the workload's own), ``table:FILE.csv`` (figures that exist), ``trained:TASK`` (the shipped
tables of small models trained from scratch), ``measured:minilm`` or ``measured:FOLDER`` (a real model,
pruned, healed and measured), ``python:module:function`` and ``command:PROGRAM ARGS`` (anything a user can run: parameters in, quality
out). Evaluators are plain records that travel to worker processes; the wrappers of :mod:`dse.quality.noise` make any of them noisy on
purpose.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from dse.errors import DseError, UsageError, nearest
from dse.extensions import from_module, installed
from dse.quality import programs
from dse.quality import surrogate as quality
from dse.quality.measured import Evaluator, Measured
from dse.quality.trained.quality import TrainedEvaluator
from dse.quality.travelling import packed, unpacked
from dse.spaces.parameters import Value
from workloads import library

FORMS = ("surrogate", "table:FILE.csv", "trained:TASK", "measured:minilm", "measured:FOLDER", "python:module:function",
         "command:PROGRAM ARGS")  # fmt: skip
# What a function may call its fidelity and its seed beside their own names.
_SHORT = ("f", "s")
DEFAULT_TIME_LIMIT_S = 3600.0
_TAIL = 300


_given: dict[str, Evaluator] = {}
GROUP = "dse.evaluators"


def name_of(evaluator: str | Evaluator | Callable[..., Any]) -> str:
    """The word of an evaluator given as a word or as an object; an object, or a function, is known here as ``object:NAME``."""
    if isinstance(evaluator, str):
        return evaluator
    if not callable(evaluator):
        raise UsageError(f"quality {evaluator!r} is neither a word nor callable; known are {', '.join(FORMS)}")
    found: Any = evaluator if hasattr(evaluator, "metrics") else FunctionEvaluator(evaluator).checked()
    word = f"object:{getattr(found, 'name', type(found).__name__)}"
    _given[word] = found
    return word


def code_of(word: str) -> str:
    """A sum of the code behind ``object:NAME`` as it was given in this process, with the version of Python that compiled it; empty where
    there is none to be seen (a built-in callable, a word).

    Of the code alone: constants, names and instructions. What a function reads elsewhere (variables around it, files) is not in it.
    """
    given: Any = _given.get(word)
    call = given.call if isinstance(given, FunctionEvaluator) else given
    code = getattr(call, "__code__", None) or getattr(getattr(type(call), "__call__", None), "__code__", None)  # noqa: B004 - its code
    if not isinstance(code, CodeType):
        return ""
    return f"{sys.version_info.major}.{sys.version_info.minor} {hashlib.sha256(_plain_code(code).encode()).hexdigest()}"


def _plain_code(value: Any) -> str:
    """Code, or a constant of it, as a text that is the same in every process: no addresses, no order of a set."""
    if isinstance(value, CodeType):
        parts = (value.co_code.hex(), value.co_consts, value.co_names, value.co_varnames, value.co_freevars)
        return f"code({_plain_code(parts)})"
    if isinstance(value, tuple):
        return f"({','.join(map(_plain_code, value))})"
    return f"{{{','.join(sorted(map(_plain_code, value)))}}}" if isinstance(value, frozenset) else repr(value)


def is_known(word: str) -> bool:
    """Whether the object that a word ``object:NAME`` means was given in this process."""
    return word in _given


def _foreign(kind: str, rest: str) -> Evaluator | None:
    """The evaluator of an installed package: an entry point of the group ``dse.evaluators``, a maker that takes what follows the colon."""
    found = installed(GROUP, kind)
    if found is None or (hasattr(found, "metrics") and not isinstance(found, type)):
        return found
    made: Evaluator = found(rest)
    return made


def parse(text: str, *, workload: str, metric: str = "quality", time_limit_s: float = DEFAULT_TIME_LIMIT_S) -> Evaluator:
    """The evaluator that the words of a command line mean."""
    kind, _, rest = text.partition(":")
    if kind == "surrogate" and not rest:
        return SurrogateEvaluator(workload, metrics=(metric,))
    if kind == "table" and rest:
        return TableEvaluator.read(rest, metric=metric)
    if kind == "trained" and rest:
        return TrainedEvaluator(rest, (metric,))
    if kind == "measured" and rest:
        # Start-up: pruning and healing, which few searches need.
        from dse.quality import model_evaluator

        return model_evaluator.MeasuredEvaluator(model_evaluator.parse(rest), (metric,))
    if kind == "python" and rest.count(":") == 1:
        module, _, function = rest.partition(":")
        evaluator = PythonEvaluator(module, function, (metric,))
        evaluator.function  # noqa: B018 - looked up now, so that a wrong name is told before the search starts
        return evaluator
    if kind == "command" and rest.strip():
        try:
            words = tuple(shlex.split(rest))
        except ValueError as error:
            raise UsageError(f"quality {text!r} is not a command line: {str(error).lower()}") from None
        return CommandEvaluator(words, time_limit_s=time_limit_s, metrics=(metric,))
    if kind == "object":
        if text in _given:
            return _given[text]
        raise UsageError(f"quality {text!r} was given as an object of another process; give it again: dse.resume(PATH, quality=OBJECT)")
    if (foreign := _foreign(kind, rest)) is not None:
        return foreign
    close = nearest(kind, [form.partition(":")[0] for form in FORMS])
    hint = f"; did you mean {next(f for f in FORMS if f.startswith(close))}?" if close else ""
    raise UsageError(f"quality {text!r} is not one of {', '.join(FORMS)}{hint}")


@dataclass(frozen=True)
class SurrogateEvaluator:
    """The workload's own surrogate; its standard error is a model error and is returned as such."""

    workload: str
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        surrogate = quality.for_workload(library.load(self.workload).name)
        if surrogate is None:
            raise UsageError(f"workload {self.workload!r} has no quality surrogate; give one of {', '.join(FORMS[1:])}")
        knobs = {name: np.array([parameters[name]], dtype=np.int64) for name in surrogate.knobs}
        found = surrogate.predict(**knobs)
        # The surrogate is a smooth function: its error is common to all models and no noise of a measurement.
        return {self.metrics[0]: Measured(float(found.mean[0]), 0.0)}


@dataclass(frozen=True)
class TableEvaluator:
    """Figures of a CSV file: one column a parameter, the metric, optionally METRIC_se, fidelity and seed.

    Rows that differ in their seed alone are averaged; their spread gives a standard error where one of them states none. Without a seed
    two figures of one model contradict each other, and are an error. An empty standard error (or ``nan``) is not known: 0 inside.

    Where no row states an error, the spread of repeats is pooled over the models of a fidelity (two repeats of one model tell next
    to nothing): s^2 = sum of squared deviations from each model's mean / sum of (repeats - 1), and a model of n rows has s / sqrt(n),
    those of one row too. ``repeated``: how many models it was pooled over, 0 where it was not.
    """

    path: str
    parameters: tuple[str, ...]
    rows: Mapping[tuple[float, tuple[str, ...]], Measured] = field(repr=False)
    metrics: tuple[str, ...] = ("quality",)
    repeated: int = 0

    @classmethod
    def read(cls, path: str | Path, *, metric: str = "quality") -> TableEvaluator:
        """Read a file; one without the metric, or with a cell that is no number, is an error that names it."""
        try:
            with Path(path).open(encoding="utf-8", newline="") as file:
                text = [(number, line) for number, line in enumerate(file, 1) if not line.startswith("#")]
                reader = csv.DictReader(line for _, line in text)
                header = list(reader.fieldnames or ())
                lines = [(text[reader.line_num - 1][0], line) for line in reader]
        except (OSError, UnicodeDecodeError) as error:
            raise DseError(f"table {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
        if metric not in header:
            close = nearest(metric, header)
            hint = f"; did you mean {close!r}?" if close else ""
            raise UsageError(f"table {path} has no column {metric!r}; it has {', '.join(header) or 'none'}{hint}")
        names = tuple(n for n in header if n not in (metric, f"{metric}_se", "fidelity", "seed", "source"))
        groups: dict[tuple[float, tuple[str, ...]], list[tuple[float, float | None]]] = {}
        known: dict[tuple[float, tuple[str, ...], str], tuple[int, float]] = {}
        for number, line in lines:
            value = _number(path, number, metric, line[metric])
            se = _standard_error(path, number, f"{metric}_se", line.get(f"{metric}_se"))
            fidelity = _number(path, number, "fidelity", line["fidelity"]) if "fidelity" in header else 1.0
            key = (fidelity, tuple(cell(line[n]) for n in names))
            first, told = known.setdefault((*key, cell(line.get("seed"))), (number, value))
            if told != value:
                shown = ", ".join(f"{n}={line[n]}" for n in names) or "the one model"
                raise DseError(
                    f"table {path} lines {first} and {number} are both of {shown}, with {metric} {told:g} and {value:g}; leave one out, "
                    "or give repeated measurements a column seed that differs"
                )
            groups.setdefault(key, []).append((value, se))
        if not groups:
            raise DseError(f"table {path} has no row")
        if any(se is not None for found in groups.values() for _, se in found):
            return cls(str(path), names, {key: _averaged(found) for key, found in groups.items()}, (metric,))
        figures = {key: [value for value, _ in found] for key, found in groups.items()}
        return cls(str(path), names, _pooled(figures), (metric,), sum(len(found) > 1 for found in figures.values()))

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        key = self.key(parameters)
        found = self.rows.get((fidelity, key))
        if found is None:
            shown = ", ".join(f"{n}={v}" for n, v in zip(self.parameters, key, strict=True))
            raise DseError(f"table {self.path} has no row for {shown} at fidelity {fidelity:g}")
        return {self.metrics[0]: found}

    def _check(self, parameters: Mapping[str, Value]) -> None:
        missing = [name for name in self.parameters if name not in parameters]
        if missing:
            raise UsageError(f"table {self.path} has the column {missing[0]!r} and the design has no such parameter")

    def has(self, parameters: Mapping[str, Value], *, fidelity: float = 1.0) -> bool:
        """Whether the table holds a design: a search is limited to those it holds."""
        return (fidelity, self.key(parameters)) in self.rows

    def key(self, parameters: Mapping[str, Value]) -> tuple[str, ...]:
        """What a design and the row of it have in common: the cells of the table's parameters."""
        self._check(parameters)
        return tuple(cell(parameters[name]) for name in self.parameters)


def cell(value: Value | None) -> str:
    """One text a value: 4, 4.0 and '4' are the same cell of a table."""
    try:
        return repr(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value).strip()


def _number(path: str | Path, line: int, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise DseError(f"table {path} line {line}: {column} is {text!r}; a number is needed") from None
    if not math.isfinite(value):
        raise DseError(f"table {path} line {line}: {column} is {text!r}; a finite number is needed")
    return value


def _standard_error(path: str | Path, line: int, column: str, text: str | None) -> float | None:
    """A standard error; None where the cell is empty, missing or ``nan``: of that row it is not known."""
    if (text or "").strip().lower() in ("", "nan", "na", "none", "-"):
        return None
    value = _number(path, line, column, text)
    if value < 0:
        raise DseError(f"table {path} line {line}: {column} is {value}; it cannot be negative")
    return value


def _pooled(figures: Mapping[tuple[float, tuple[str, ...]], Sequence[float]]) -> dict[tuple[float, tuple[str, ...]], Measured]:
    """Means, with standard errors from the spread of repeats pooled over the models of each fidelity; 0 where nothing was repeated."""
    squares: dict[float, float] = {}
    freedom: dict[float, int] = {}
    for (fidelity, _), values in figures.items():
        squares[fidelity] = squares.get(fidelity, 0.0) + float(np.sum(np.square(np.array(values) - np.mean(values))))
        freedom[fidelity] = freedom.get(fidelity, 0) + len(values) - 1
    variance = {fidelity: squares[fidelity] / max(freedom[fidelity], 1) for fidelity in squares}
    return {key: Measured(float(np.mean(values)), math.sqrt(variance[key[0]] / len(values))) for key, values in figures.items()}


def _averaged(found: list[tuple[float, float | None]]) -> Measured:
    values = np.array([value for value, _ in found])
    stated = [error for _, error in found if error is not None]
    if len(stated) == len(found):
        return Measured(float(values.mean()), float(np.sqrt(np.sum(np.square(stated)))) / len(stated))
    return Measured(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class PythonEvaluator:
    """A function of a user's module, called as :class:`FunctionEvaluator` calls one: ``function(parameters, fidelity, seed)`` gives a
    number, (mean, standard error), or a dictionary metric -> either."""

    module: str
    name: str
    metrics: tuple[str, ...] = ("quality",)

    @property
    def function(self) -> Any:
        """The function, imported on first use in each process."""
        found = from_module("quality", f"python:{self.module}:{self.name}")
        if not callable(found):
            raise UsageError(f"quality python:{self.module}:{self.name} is no function")
        return found

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        function = self.function
        by_place, by_name = FunctionEvaluator(function).given(dict(parameters), fidelity, seed)
        result = function(*by_place, **by_name)
        return _measured(result, self.metrics, f"python:{self.module}:{self.name}")


@dataclass(frozen=True)
class CommandEvaluator:
    """A program: ``{"parameters": ..., "fidelity": ..., "seed": ...}`` on its standard input, JSON on its standard output.

    The answer is a number, ``[mean, se]``, or an object metric -> either (``{"quality": 81.2, "quality_se": 0.3}`` also
    does). Lines before the last are the program's own talk. No shell is involved. A program that runs past the limit is
    ended with everything it started.
    """

    command: tuple[str, ...]
    time_limit_s: float = DEFAULT_TIME_LIMIT_S
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        request = json.dumps({"parameters": dict(parameters), "fidelity": fidelity, "seed": seed})
        name = shlex.join(self.command)
        try:
            returned, out, err = programs.run(self.command, request, self.time_limit_s)
        except TimeoutError:
            raise TimeoutError(f"command {name!r} gave no answer in {self.time_limit_s:g} s") from None
        except OSError as error:
            raise DseError(f"command {name!r} cannot be started: {error.strerror}") from error
        if returned:
            raise DseError(f"command {name!r} {programs.ending(returned)}: {err.strip()[-_TAIL:] or 'no message'}")
        lines = out.strip().splitlines()
        try:
            answer = json.loads(lines[-1] if lines else "")
        except (ValueError, RecursionError):  # also an integer of thousands of digits
            last = lines[-1][-_TAIL:] if lines else ""
            raise DseError(f"command {name!r} answered {last!r}; one line of JSON is needed") from None
        return _measured(answer, self.metrics, f"command {name!r}")


def _measured(result: Any, metrics: tuple[str, ...], where: str) -> dict[str, Measured]:
    """Metrics from whatever a user's evaluation returned."""
    if not isinstance(result, Mapping):
        if len(metrics) != 1:
            raise DseError(f"{where} returned one value; an object with {', '.join(metrics)} is needed")
        result = {metrics[0]: result}
    found = {}
    for name in metrics:
        if name not in result:
            raise DseError(f"{where} returned {', '.join(map(str, result)) or 'nothing'}; {name} is needed")
        value = result[name]
        if not isinstance(value, (list, tuple)):
            value = (value, result.get(f"{name}_se", 0.0))
        try:
            mean, se = (float(part) for part in value)
        except (TypeError, ValueError):
            raise DseError(f"{where} returned {name} = {result[name]!r}; a number or [mean, standard error] is needed") from None
        if not (math.isfinite(mean) and math.isfinite(se) and se >= 0):
            raise DseError(f"{where} returned {name} = {mean} with standard error {se}; finite numbers are needed")
        found[name] = Measured(mean, se)
    return found


@dataclass(frozen=True)
class FunctionEvaluator:
    """A callable of this process: of (parameters, fidelity, seed) by position, or of the knobs of a model by name.

    ``quality(parameters)``, ``quality(parameters, fidelity, seed)``: the dictionary first, and what has no default is filled by position.
    ``quality(layers, hidden)``: where its first argument has the name of a knob, knobs are given by their names. ``fidelity`` and
    ``seed`` are given to arguments of these names; other arguments keep their defaults.

    It travels to worker processes as code, so that a function of a notebook does.
    """

    call: Any
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        by_place, by_name = self.given(dict(parameters), fidelity, seed)
        return _measured(self.call(*by_place, **by_name), self.metrics, getattr(self.call, "__name__", "the function"))

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (packed(self.call), self.metrics)

    def checked(self) -> FunctionEvaluator:
        """The same; a function that takes no argument is an error now, not in the middle of a search."""
        if self._takes is not None and not self._takes:
            raise UsageError(f"quality {self.name} takes no argument; it is called with the parameters of a model")
        return self

    @cached_property
    def _takes(self) -> tuple[inspect.Parameter, ...] | None:
        """Its arguments; None where it has no signature (built-in callables) or takes any number by position."""
        try:
            known = tuple(inspect.signature(self.call).parameters.values())
        except (TypeError, ValueError):
            return None
        return None if any(p.kind is p.VAR_POSITIONAL for p in known) else known

    def given(self, knobs: dict[str, Value], fidelity: float, seed: int) -> tuple[list[Any], dict[str, Any]]:
        """What the function is called with, by position and by name.

        Raises:
            UsageError: an argument without a default that is no knob, in a function that takes knobs by name, or one too many.
        """
        further: dict[str, Any] = {"fidelity": fidelity, "seed": seed}
        if self._takes is None:
            return [knobs, *further.values()], {}
        arguments = [p for p in self._takes if p.kind is not p.VAR_KEYWORD]
        if arguments[0].name in knobs and arguments[0].kind is not inspect.Parameter.POSITIONAL_ONLY:
            return [], self._named(arguments, {**knobs, **further})
        by_place = [p for p in arguments if p.kind is not p.KEYWORD_ONLY]
        first, rest = by_place[:1], by_place[1:]
        filled = [p for p in rest if p.default is p.empty]
        # A second argument that nothing gives is rather a knob that the model has not, under its first one's name.
        unknown = len(filled) == 1 and filled[0].name not in (*further, *_SHORT) and not filled[0].name.startswith("_")
        if not first or len(filled) > len(further) or unknown or any(p.name in knobs for p in filled):
            raise self._unfit(knobs)
        named = {p.name: further[p.name] for p in arguments if p.name in further and p not in filled and p.kind is not p.POSITIONAL_ONLY}
        # Arguments without a default stand before those with one: they are the fidelity and the seed, whatever their names.
        return [knobs, *(value for _, value in zip(filled, further.values(), strict=False))], named

    def _named(self, arguments: Sequence[inspect.Parameter], known: dict[str, Any]) -> dict[str, Any]:
        if any(p.name not in known and p.default is p.empty for p in arguments):
            raise self._unfit({name: value for name, value in known.items() if name not in ("fidelity", "seed")})
        return {p.name: known[p.name] for p in arguments if p.name in known}

    def _unfit(self, knobs: Mapping[str, Value]) -> UsageError:
        takes = ", ".join(p.name for p in self._takes or ())
        return UsageError(
            f"quality {self.name} takes {takes}; it is called with one dictionary of knobs ({', '.join(knobs)}) and, where it asks for "
            "them, fidelity and seed, or with knobs by these names"
        )

    @cached_property
    def name(self) -> str:
        """Its name."""
        return str(getattr(self.call, "__name__", "function"))


def _arrived(call: bytes, metrics: tuple[str, ...]) -> FunctionEvaluator:
    """A function that has travelled, in the worker."""
    return FunctionEvaluator(unpacked(call), metrics)
