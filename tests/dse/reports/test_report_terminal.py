"""What a terminal shows: a front table that fits, progress that does not flood a log."""

import io
import re
import sys
from types import ModuleType

import pytest

from dse.reports import terminal
from dse.reports.terminal import ProgressReporter, duration_text, front_table, printable


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("preset", ["carbon", "all", "hardware"])
def test_table_fits_the_width(factories: ModuleType, width: int, preset: str) -> None:
    run = factories.make_run(37, preset=preset)
    lines = front_table(run, width=width, color=False).splitlines()
    # Objectives are never left out, however narrow the terminal is.
    if not (preset == "all" and width < 80):
        assert max(map(len, lines)) <= width
    assert lines[0].startswith("design")


def test_table_shows_the_figures_and_calls_quality_a_surrogate(factories: ModuleType) -> None:
    run = factories.make_run(5)
    shown = front_table(run, width=200, color=False)
    head, units, _, first, *_ = shown.splitlines()
    assert "surrogate" in units
    assert "quality: MNLI-matched accuracy, surrogate, ± its standard error" in shown
    assert head.split()[:2] == ["design", "quality"]
    # Design 1 of the factory: quality 84.5, total 0.94 embodied + 0.95 operational.
    assert first.split()[:5] == ["1", "84.50", "±", "0.62", "1.890"]
    assert "the same for all: depth=16, l2_kib=256" in shown


def test_table_thins_and_says_so(factories: ModuleType) -> None:
    run = factories.make_run(500)
    lines = front_table(run, 10, width=120, color=False).splitlines()
    rows = [line for line in lines if re.match(r"\s+\d+\s", line)]
    assert rows[0].split()[0] == "1"
    assert rows[-1].split()[0] == "500"
    assert f"{len(rows)} of 500 designs, evenly thinned; pareto.csv has all" in lines
    assert 10 <= len(rows) <= 12


def test_no_color_and_dumb_terminals_get_no_escapes(factories: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Tty())
    assert "\x1b[1m" in front_table(factories.make_run(3))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in front_table(factories.make_run(3))


def test_table_in_ascii_where_the_terminal_has_no_more(factories: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    shown = front_table(factories.make_run(3), width=120, color=False)
    assert shown.isascii()
    assert "[kgCO2e]" in shown
    assert "+-" in shown


def test_hostile_names_send_no_control_characters(factories: ModuleType) -> None:
    run = factories.make_run(3)
    for design in run.designs:
        design["knobs"]["a\x1b[31m\nb"] = f"\x07{design['design']}"
    shown = front_table(run, width=200, color=False)
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    assert "a\\x1b[31m\\nb" in shown
    assert printable("\u202ex") == "\\u202ex"


def test_empty_front(factories: ModuleType) -> None:
    assert front_table(factories.make_run(0)) == "The front is empty."


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_log_lines_come_every_few_seconds_with_the_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    with ProgressReporter(out, interval_s=5.0, clock=clock) as progress:
        for done in range(0, 101):
            progress.update("designs", done, 100, f"{done} feasible")
            clock.now += 0.5
    lines = out.getvalue().splitlines()
    # 50 s of work: a line every 5 s, and the end.
    assert lines[0] == "Designs: 10 of 100 (10%), 45 s left, 10 feasible"
    assert lines[-1] == "Designs: 100 of 100 (100%), 100 feasible"
    assert 10 <= len(lines) <= 11


def test_short_work_logs_nothing() -> None:
    out, clock = io.StringIO(), Clock()
    with ProgressReporter(out, interval_s=5.0, clock=clock) as progress:
        progress.update("mappings", 0, 10)
        clock.now += 1
        progress.update("mappings", 10, 10)
        progress.update("something else", 0, 0)
    assert out.getvalue() == ""


def test_time_left_of_a_resumed_stage_counts_from_where_it_began() -> None:
    out, clock = io.StringIO(), Clock()
    with ProgressReporter(out, interval_s=5.0, clock=clock) as progress:
        progress.update("designs", 900, 1000)
        clock.now += 10
        progress.update("designs", 950, 1000)
    assert out.getvalue() == "Designs: 950 of 1,000 (95%), 10 s left\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Tty()
    with ProgressReporter(out) as progress:
        progress.update("mappings", 3, 10)
        progress("designs", 5, 10, "[red]7 feasible[/red]")
        progress.update("designs", 10, 10, "9 feasible")
    shown = out.getvalue()
    assert "Mappings" in shown
    assert "Designs" in shown
    assert "9 feasible" in shown


def test_an_error_inside_passes_and_stops_the_bar() -> None:
    progress = ProgressReporter(io.StringIO())

    def work() -> None:
        with progress:
            progress.update("designs", 1, 2)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        work()
    assert progress._bar is None


def test_durations() -> None:
    assert [duration_text(s) for s in (7.6, 125, 3 * 3600 + 720)] == ["8 s", "2 min 05 s", "3 h 12 min"]


def test_import_is_light() -> None:
    import subprocess

    code = "import sys, dse.reports.terminal; print(sorted({'rich', 'numpy', 'plotly', 'pandas'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"
    assert terminal.LOG_INTERVAL_S > 0
