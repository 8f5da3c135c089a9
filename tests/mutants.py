"""Mutants of the formulas: a seeded sample of single faults, each run against the tests that call the function it is in.

    make mutants                  # 300 faults over hw_models/costs, carbon and dse/evaluation
    python tests/mutants.py --sample 50 --seed 1

The faults are those of cosmic-ray's operators. Its runner, and mutmut's, start an interpreter (or a copy of the tree) for every fault:
neither fits an editable install whose compiled module finds the sources itself, nor two cores. Here the tests are collected once, and
every fault is a forked process that puts the faulty code into the functions of the imported modules and runs, until the first failure,
the tests that reach that function, the quickest first. No file is changed.

A position in a function's body is drawn first, then one of the operators that apply to it, so that `a + b` with its many replacements
weighs no more than `not a`. Left out: shifts and bit operations in place of arithmetic (a TypeError on floats says nothing about tests),
annotations, decorators, what runs at import, and by their kind the faults that nothing could notice: formatted texts and texts of errors
(words are not asserted) with the private functions that only they call, `strict=` of zip (the lengths are equal), how many threads compute
(the results are the same by contract), which line a warning names, and what `Same` can prove to be the same program.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import difflib
import functools
import gc
import importlib
import io
import itertools
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "hw_models/costs": ("tests/hw_models", "tests/kernels/test_mapping_residency.py"),
    "carbon": ("tests/carbon",),
    "dse/evaluation": (
        *(f"tests/dse/{room}" for room in ("evaluation", "fronts", "problem", "exporters", "reports")),
        *(f"tests/dse/test_{name}.py" for name in ("road", "devices_door", "python_door", "carbon_specifications")),
        "tests/dse/searches/test_large_space.py",
    ),
}
FORMULAS = tuple(f"{room}/" for room in ROOMS)
OURS = ("workloads.", "hw_models.", "carbon.", "dse.")
# Faces of files and pages, not formulas.
NOT_FORMULAS = ("moved.py", "plots.py", "report.py", "errors.py", "__init__.py")
# Functions that make the text of an error, and keywords that change no result: how many threads work, the line that a warning names.
TEXTS, NO_RESULT = ("bad_value", "unknown_name", "unknown", "CarbonError", "warn"), ("threads", "max_workers", "stacklevel")
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Pow")
QUICK_TEST_S, QUICK_RUN_S, LONGEST_TEST_S, LONGEST_RUN_S, CONTROLS = 3.0, 8.0, 30.0, 60.0, 8
KILLED, SURVIVED, SLOW, UNCALLED = "killed", "survived", "time limit", "no test calls it"


@dataclass(frozen=True)
class Mutant:
    """One fault: the file, the operator and its occurrence, where it is, and the function (first line) around it."""

    path: str
    operator: str
    occurrence: int
    line: int
    function: int


# ---- faults ----


@functools.cache
def operators() -> dict[str, Any]:
    """The operators of cosmic-ray that are used, by name."""
    from cosmic_ray import plugins

    found = {}
    for name in sorted(plugins.operator_names()):
        short = name.split("/")[1]
        if short.startswith("ReplaceBinaryOperator"):
            if not all(part in ARITHMETIC for part in short.split("_")[1:]):
                continue
        elif short.startswith(("ExceptionReplacer", "RemoveDecorator", "Variable")) or "Invert" in short or "_Is" in short:
            continue
        found[name] = plugins.get_operator(name)
    return found


def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def bodies(source: str) -> tuple[dict[int, int], list[tuple[tuple[int, int], tuple[int, int]]]]:
    """{line of a body: first line of the innermost function}, and the spans (start, end) inside bodies that no fault is put into."""
    tree = ast.parse(source)
    lines: dict[int, int] = {}
    for node in sorted(functions(tree), key=lambda one: one.lineno):
        for line in range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1):
            lines[line] = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    left_out: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr)):
            left_out.append(node)
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            left_out += [x for x in (node.returns, *(a.annotation for a in arguments), *node.decorator_list) if x]
        if isinstance(node, ast.AnnAssign):
            left_out.append(node.annotation)
        if isinstance(node, (ast.Compare, ast.BoolOp)) and _names_threads(node):
            left_out.append(node)
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            left_out += [node] if called in TEXTS else []
            left_out += [k.value for k in node.keywords if k.arg in NO_RESULT or (called, k.arg) == ("zip", "strict")]
    left_out += _makers_of_texts(tree, left_out)
    return lines, [_span(node) for node in left_out]


def _span(node: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


def _makers_of_texts(tree: ast.Module, texts: list[ast.AST]) -> list[ast.FunctionDef]:
    """Private functions that are named in texts alone: what they return is words of an error."""
    spans = [_span(node) for node in texts]
    found = []
    for maker in functions(tree):
        used = [node for node in ast.walk(tree) if maker.name == getattr(node, "id", getattr(node, "attr", ""))]
        if maker.name.startswith("_") and used and all(any(a <= _span(one)[0] < b for a, b in spans) for one in used):
            found.append(maker)
    return found


class Same(ast.NodeTransformer):
    """Writes what is provably the same program in one way, so that a fault that changes nothing is seen to be none.

    * lengths, sizes, dimensions, counts and remainders are never negative: `> 0` is `!= 0`, `<= 0` is `== 0`;
    * zeros that give a sum its shape (`+ 0.0 * x`, `+ np.zeros(n)`) may as well be taken away;
    * numpy's `reshape` takes any negative length for the one that is not known;
    * the floor of a quotient is the floor of that quotient's floor; the first part of a split text stands before all cuts.
    """

    NEVER_NEGATIVE = ("len", "size", "ndim", "count_nonzero")

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and self._never_negative(node.left) and self._number(node.comparators[0]) == 0:
            node.ops = [{ast.Gt: ast.NotEq, ast.LtE: ast.Eq}.get(type(node.ops[0]), type(node.ops[0]))()]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Sub) and self._zeros(node.right):
            node.op = ast.Add()
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "attr", "")
        if name == "reshape":
            node.args = [ast.Constant(-1) if (self._number(x) or 0) < 0 else x for x in node.args]
        if name == "floor" and isinstance(node.args[0], ast.BinOp) and isinstance(node.args[0].op, ast.FloorDiv):
            node.args[0].op = ast.Div()
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Call) and getattr(node.value.func, "attr", "") == "split" and self._number(node.slice) == 0:
            node.value.args = [ast.Constant(1) if (self._number(x) or 0) > 1 else x for x in node.value.args]
        return node

    def _never_negative(self, node: ast.AST) -> bool:
        if isinstance(node, ast.BinOp):
            return isinstance(node.op, ast.Mod)
        called = node.func if isinstance(node, ast.Call) else node
        return getattr(called, "id", getattr(called, "attr", "")) in self.NEVER_NEGATIVE

    def _zeros(self, node: ast.AST) -> bool:
        if isinstance(node, ast.BinOp):
            return isinstance(node.op, ast.Mult) and self._number(node.left) == 0
        return isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("zeros", "zeros_like")

    @staticmethod
    def _number(node: ast.AST) -> float | None:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inside = Same._number(node.operand)
            return None if inside is None else -inside
        value = getattr(node, "value", None)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _names_threads(node: ast.Compare | ast.BoolOp) -> bool:
    """Whether an operand is a number of threads: `threads == 1`, `threads or os.cpu_count() or 1`."""
    for operand in node.values if isinstance(node, ast.BoolOp) else (node.left, *node.comparators):
        named = operand.func if isinstance(operand, ast.Call) else operand
        if getattr(named, "id", getattr(named, "attr", "")) in (*NO_RESULT, "cpu_count"):
            return True
    return False


def mutants_of(path: str, known: dict[str, Any]) -> dict[tuple[int, int], list[Mutant]]:
    """The faults of a file by position."""
    import parso

    source = (ROOT / path).read_text(encoding="utf-8")
    lines, left_out = bodies(source)
    nodes = list(_walk(parso.parse(source)))
    found: dict[tuple[int, int], list[Mutant]] = {}
    for name, operator in known.items():
        one, occurrence = operator(), -1
        for node in nodes:
            for start, _ in one.mutation_positions(node):
                occurrence += 1
                if start[0] in lines and not any(first <= start < last for first, last in left_out):
                    found.setdefault(start, []).append(Mutant(path, name, occurrence, start[0], lines[start[0]]))
    return found


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _walk(child)


def sample(size: int, seed: int, rooms: dict[str, tuple[str, ...]]) -> list[Mutant]:
    """So many faults: positions first, then an operator of each; the same for the same seed and sources."""
    known, chance = operators(), random.Random(seed)
    positions: list[list[Mutant]] = []
    for room in rooms:
        for file in sorted((ROOT / room).rglob("*.py")):
            if not file.name.endswith(NOT_FORMULAS):
                found = mutants_of(file.relative_to(ROOT).as_posix(), known)
                positions += [found[place] for place in sorted(found)]
    drawn = chance.sample(positions, min(size, len(positions)))
    chosen = (next((one for one in chance.sample(choices, len(choices)) if _is_fault(one)), None) for choices in drawn)
    return [one for one in chosen if one is not None]


def _is_fault(mutant: Mutant) -> bool:
    """Whether a fault is Python at all (`if not x := f()` is none) and another program."""
    try:
        before, after = (ast.dump(Same().visit(ast.parse(text))) for text in mutated(mutant))
    except SyntaxError:
        return False
    return before != after


# ---- the code of a fault ----


@functools.cache
def mutated(mutant: Mutant) -> tuple[str, str]:
    """The source as it is and with the fault; kept, for parsing takes longer than most tests."""
    from cosmic_ray.mutating import mutate_code

    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    changed = mutate_code(source, operators()[mutant.operator](), mutant.occurrence)
    if changed is None:
        raise RuntimeError(f"{mutant} is no fault")
    return source, changed


def codes(source: str | ast.Module, file: str) -> dict[tuple[str, int], CodeType]:
    """The code objects of functions by qualified name and first line."""
    found: dict[tuple[str, int], CodeType] = {}
    waiting = [compile(source, file, "exec")]
    while waiting:
        for constant in waiting.pop().co_consts:
            if isinstance(constant, CodeType):
                found[constant.co_qualname, constant.co_firstlineno] = constant
                waiting.append(constant)
    return found


def put_in(mutant: Mutant) -> int:
    """Give the functions of this process the faulty code; how many have another one now."""
    file = str(ROOT / mutant.path)
    # A module that only a test's body imports is not here yet.
    importlib.import_module(mutant.path.removesuffix(".py").replace("/", "."))
    before, after = (codes(source, file) for source in mutated(mutant))
    changed = exchange({file: {place: after[place] for place, code in before.items() if place in after and after[place] != code}})
    for kept in caches():
        kept.cache_clear()  # what was kept from before a fault would hide it
    return changed


def exchange(others: dict[str, dict[tuple[str, int], CodeType]]) -> int:
    """Give functions other code, by file, qualified name and first line; how many have it now."""
    changed = 0
    for item in gc.get_objects():
        if type(item) is FunctionType and item.__code__.co_filename in others:
            code = others[item.__code__.co_filename].get((item.__code__.co_qualname, item.__code__.co_firstlineno))
            if code is not None:
                item.__code__ = code
                changed += 1
    return changed


def our_modules() -> list[Any]:
    return [module for name, module in list(sys.modules.items()) if name.startswith(OURS) and getattr(module, "__file__", None)]


def caches() -> list[Any]:
    """The functions of ours that keep what they returned."""
    return [x for module in our_modules() for x in list(vars(module).values()) if type(x) is functools._lru_cache_wrapper]


@functools.cache
def shown(mutant: Mutant) -> str:
    """The line as it is and with the fault."""
    before, after = (text.splitlines() for text in mutated(mutant))
    lines = [x for x in difflib.unified_diff(before, after, lineterm="", n=0) if x[0] in "+-" and x[:3] not in ("+++", "---")]
    return " | ".join(f"{x[0]} {x[1:].strip()}" for x in lines)


# ---- which function a test calls ----

Place = tuple[str, int]


class Calls:
    """Functions of the rooms that are called, told by a line put in at the head of each.

    What stood behind a cache or a fixture when it was filled counts as called by every test that uses it: each test of a fault
    begins with empty caches and no fixture.
    """

    def __init__(self) -> None:
        self.called: set[Place] = set()
        self.behind: dict[Any, set[Place]] = {}
        self.known: set[str] = set()
        self.kept: list[tuple[Place, Any]] = []
        self.waiting: list[tuple[set[Place], list[int]]] = []
        builtins.__dict__["__calls__"] = self

    def follow(self) -> None:
        """Put the lines into the modules that are loaded and have none yet, and empty the caches among them."""
        files = {str(module.__file__) for module in our_modules()} - self.known
        if not files:
            return
        self.known |= files
        exchange({file: codes(self._told(file), file) for file in files if file.startswith(str(ROOT)) and self._matters(file)})
        self.kept = [(self._place(kept.__wrapped__.__code__), kept) for kept in caches()]
        for place, kept in self.kept:
            if str(ROOT / place[0]) in files:
                kept.cache_clear()

    @staticmethod
    def _place(code: CodeType) -> Place:
        return os.path.relpath(code.co_filename, ROOT), code.co_firstlineno

    @staticmethod
    def _matters(file: str) -> bool:
        return os.path.relpath(file, ROOT).startswith(FORMULAS) or "cache" in Path(file).read_text(encoding="utf-8")

    @staticmethod
    def _told(file: str) -> ast.Module:
        """The module with a call in front of the functions of the rooms, and around those that keep what they return."""
        path, tree = os.path.relpath(file, ROOT), ast.parse(Path(file).read_text(encoding="utf-8"))
        for node in functions(tree):
            place = (path, min([node.lineno, *(one.lineno for one in node.decorator_list)]))
            keeps = any("cache" in ast.unparse(one) for one in node.decorator_list)
            if keeps or path.startswith(FORMULAS):
                node.body.insert(1 if ast.get_docstring(node) else 0, ast.parse(f"__calls__.called.add({place!r})").body[0])
            if keeps:
                begin, end = ast.parse(f"__calls__.begin(); __calls__.end({place!r})").body
                node.body = [begin, ast.Try(body=node.body, handlers=[], orelse=[], finalbody=[end])]
        return ast.fix_missing_locations(tree)

    def _hits(self) -> list[int]:
        return [kept.cache_info().hits for _, kept in self.kept]

    def begin(self) -> None:
        """What is called from now on stands behind a cache, a fixture or a test."""
        self.waiting.append((self.called, self._hits()))
        self.called = set()

    def end(self, what: Any) -> set[Place]:
        """What has been called since `begin`, through caches too."""
        outer, hits = self.waiting.pop()
        for (place, _), before, now in zip(self.kept, hits, self._hits(), strict=False):
            if now != before:
                self.called |= self.behind.get(place, set())
        found, self.called = self.called, outer | self.called
        self.behind[what] = found
        return found


# ---- tests ----


class Runner:
    """A pytest plugin that takes over where tests would run: they are collected, and forked processes run them."""

    def __init__(self, wanted: list[Mutant], out: Path, jobs: int) -> None:
        self.wanted, self.out, self.jobs = wanted, out, jobs
        self.failed = False
        self.record: Calls | None = None

    def pytest_configure(self) -> None:
        import hypothesis

        # The same examples every time; a failing one is not shrunk, for nobody reads it.
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases)
        hypothesis.settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= bool(report.failed)

    def run_one(self, item: Any, following: Any) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            raise session.Interrupted("collection failed")
        started = time.monotonic()
        reached = self.calls(session.items)
        # Without a fault the same tests must pass, or what they say of faults is nothing.
        firsts = [reached.get((mutant.path, mutant.function), [])[:50] for mutant in self.wanted[:CONTROLS]]
        running = {self.apart([session.items[number] for _, number in tests], LONGEST_RUN_S, None): i for i, tests in enumerate(firsts)}
        while running:
            number, outcome = self._ended(running)
            if outcome != SURVIVED:
                raise RuntimeError(f"the tests of {self.wanted[number]} fail without it")
        say(f"{CONTROLS} runs without a fault pass")
        # All faults meet the quick tests first: what lives is seen long before the slow ones, which only those meet, are through.
        outcomes: dict[int, str] = {}
        for part in ("quick", "slow"):
            left = [number for number in range(len(self.wanted)) if outcomes.get(number, SURVIVED) == SURVIVED]
            say(f"{part} tests: {len(left)} faults")
            for count, (number, outcome) in enumerate(self.outcomes(left, session.items, reached, part), start=1):
                mutant, outcomes[number] = self.wanted[number], outcome
                if outcomes[number] not in (KILLED, SLOW):
                    place = f"{mutant.path}:{mutant.line} {mutant.operator.split('/')[1]}"
                    say(f"{number:>4}  {outcomes[number]}: {place}: {shown(mutant)}")
                elif count % 20 == 0:
                    say(f"{count:>4} of {len(left)}, {time.monotonic() - started:.0f} s")
                found = [{**vars(self.wanted[k]), "outcome": outcomes[k], "shown": shown(self.wanted[k])} for k in sorted(outcomes)]
                self.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        return True

    def calls(self, items: list[Any]) -> dict[tuple[str, int], list[tuple[float, int]]]:
        """{(file, first line of a function): [(seconds, number of a test that calls it)]}, the quickest first."""
        file = self.out.with_suffix(".calls.json")
        earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if new := [item for item in items if item.nodeid not in earlier]:
            if (child := os.fork()) == 0:
                with told(self.out.with_suffix(".error.txt")), quiet():
                    self._record(new, earlier, file)
                os._exit(0)
            os.waitpid(child, 0)
        places: dict[str, int] = {item.nodeid: i for i, item in enumerate(items)}
        found: dict[tuple[str, int], list[tuple[float, int]]] = {}
        left_out = 0
        for name, (seconds, passed, called) in json.loads(file.read_text(encoding="utf-8")).items():
            if not passed or seconds > LONGEST_TEST_S or name not in places:
                left_out += 1
                continue
            for path, line in called:
                found.setdefault((path, line), []).append((seconds, places[name]))
        say(f"{len(places)} tests, {left_out} of them left out (longer than {LONGEST_TEST_S:g} s, or failing without a fault)")
        return {place: sorted(tests) for place, tests in found.items()}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        """A fixture that several tests share is recorded once, for all of them."""
        if self.record is None or fixturedef.scope == "function":
            return (yield)
        self.record.begin()
        try:
            return (yield)
        finally:
            self.record.end(fixturedef)

    def _record(self, items: list[Any], earlier: dict[str, Any], file: Path) -> None:
        for room in ROOMS:
            for source in sorted((ROOT / room).rglob("*.py")):
                importlib.import_module(source.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"))
        self.record, table = Calls(), dict(earlier)
        for i, item in enumerate(items):
            self.record.follow()
            self.failed, began = False, time.process_time()
            self.record.begin()
            self.run_one(item, items[i + 1] if i + 1 < len(items) else None)
            called = self.record.end(item.nodeid)
            for fixtures in item._fixtureinfo.name2fixturedefs.values():
                called |= self.record.behind.get(fixtures[-1], set())
            table[item.nodeid] = (time.process_time() - began, not self.failed, sorted(called))
        file.write_text(json.dumps(table), encoding="utf-8")

    def outcomes(
        self, left: list[int], items: list[Any], reached: dict[Place, list[tuple[float, int]]], part: str
    ) -> Iterator[tuple[int, str]]:
        """(number of a fault, what becomes of it by its quick tests, or by those that are left after them), as they end."""
        running: dict[int, int] = {}
        for number in left:
            mutant = self.wanted[number]
            tests = reached.get((mutant.path, mutant.function), [])
            quick, slow = self._within(tests, QUICK_TEST_S, QUICK_RUN_S), self._within(tests, LONGEST_TEST_S, LONGEST_RUN_S)
            chosen = quick if part == "quick" else slow[len(quick) :]
            if not chosen:
                yield number, SURVIVED if slow else UNCALLED
                continue
            while len(running) >= self.jobs:
                yield self._ended(running)
            running[self.apart([items[test] for _, test in chosen], sum(cost for cost, _ in chosen), mutant)] = number
        while running:
            yield self._ended(running)

    def _ended(self, running: dict[int, int]) -> tuple[int, str]:
        child, status = os.wait()
        number = running.pop(child)
        return number, self.verdict(status, self.wanted[number])

    @staticmethod
    def _within(tests: list[tuple[float, int]], longest: float, together: float) -> list[tuple[float, int]]:
        """The first of the tests, none longer and all together no longer than so many seconds."""
        sums = itertools.accumulate(cost for cost, _ in tests)
        return [test for test, total in zip(tests, sums, strict=True) if test[0] <= longest and total <= together]

    def apart(self, chosen: list[Any], seconds: float, mutant: Mutant | None) -> int:
        """Run tests until one fails, in a process of their own, with a fault or without; the number of the process."""
        if (child := os.fork()) == 0:
            code = 4
            with told(self.out.with_suffix(".error.txt")), quiet():
                # Ended by the system where a fault never ends: processor time, so that a busy machine fails no test.
                resource.setrlimit(resource.RLIMIT_CPU, (int(3 * seconds) + 10, int(3 * seconds) + 12))
                code = 0 if mutant is None or put_in(mutant) else 3
                for i, item in enumerate(chosen if code == 0 else ()):
                    self.run_one(item, chosen[i + 1] if i + 1 < len(chosen) else None)
                    if self.failed:
                        code = 1
                        break
            os._exit(code)
        return child

    def verdict(self, status: int, mutant: Mutant) -> str:
        if os.WIFSIGNALED(status):
            return SLOW if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else KILLED
        code = os.WEXITSTATUS(status)
        if code > 1:
            raise RuntimeError(f"{mutant} could not be put in or run (code {code}; {self.out.with_suffix('.error.txt')})")
        return KILLED if code else SURVIVED


def say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


@contextlib.contextmanager
def told(file: Path) -> Iterator[None]:
    """An exception is written into a file and goes no further: the process that it ends has no other way out."""
    try:
        yield
    except BaseException:  # noqa: BLE001
        file.write_text(traceback.format_exc(), encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What tests print goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time (default: 2)")
    parser.add_argument("--room", choices=ROOMS, action="append", help="these rooms alone (default: all)")
    parser.add_argument("--again", action="store_true", help="take over which test calls what from the last run: no function has moved")
    parser.add_argument(
        "--survivors", action="store_true", help="only what lived in the last run, with the tests of today; no formula has changed"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json")
    args = parser.parse_args()
    rooms = {room: tests for room, tests in ROOMS.items() if not args.room or room in args.room}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.again:
        args.out.with_suffix(".calls.json").unlink(missing_ok=True)
    wanted = sample(args.sample, args.seed, rooms)
    earlier = json.loads(args.out.read_text(encoding="utf-8")) if args.survivors else []
    noticed = [one for one in earlier if one["outcome"] in (KILLED, SLOW)]
    wanted = [one for one in wanted if vars(one) not in [{name: old[name] for name in vars(one)} for old in noticed]]
    tests = [str(ROOT / place) for places in rooms.values() for place in places]
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal", "-s"]
    pytest.main([*options, "--rootdir", str(ROOT), *tests], plugins=[Runner(wanted, args.out, args.jobs)])
    found = noticed + json.loads(args.out.read_text(encoding="utf-8"))
    args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for room in rooms:
        mine = [one for one in found if one["path"].startswith(f"{room}/")]
        print(f"{room}: {sum(one['outcome'] in (KILLED, SLOW) for one in mine)} of {len(mine)} killed")
    killed = sum(one["outcome"] in (KILLED, SLOW) for one in found)
    print(f"all: {killed} of {len(found)} killed ({killed / max(1, len(found)):.1%}), seed {args.seed}")
    return 0 if len(found) == len(wanted) + len(noticed) else 1


if __name__ == "__main__":
    sys.exit(main())
