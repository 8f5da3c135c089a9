"""The report in a real browser: it renders, hover and pins work, nothing is logged, nothing leaves the file.

Needs Playwright and Chromium (DSE_CHROMIUM names it, default /usr/bin/chromium); skipped with the reason where one is absent.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dse.problem.objectives import parse_objective
from dse.reports.html import MAX_BYTES, report_html

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")

CHROMIUM = Path(os.environ.get("DSE_CHROMIUM", "/usr/bin/chromium"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} does not exist; DSE_CHROMIUM may name another"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


class Opened:
    """A page of the browser with all that it said and asked for."""

    def __init__(self, browser: Any, source: str, folder: Path, **context: Any) -> None:
        file = folder / "report.html"
        file.write_text(source, encoding="utf-8")
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.session = self.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.address = file.as_uri()
        self.page.goto(self.address, wait_until="commit")
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def processor_seconds(self) -> float:
        """Processor time of the page's main thread so far."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    def finish(self) -> None:
        self.page.wait_for_selector("html[data-complete]", timeout=60_000)

    def point(self, number: int) -> dict[str, float]:
        """Centre of a mark of the front, on the screen."""
        marks = self.page.locator("#front-plot .scatterlayer .points path.point")
        marks.nth(number).scroll_into_view_if_needed()
        self.page.wait_for_timeout(600)  # the page scrolls smoothly, and scrolling hides the tip
        box = marks.nth(number).bounding_box()
        return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}

    def quiet(self) -> None:
        """Nothing was logged and no request left the file."""
        assert self.said == []
        assert self.asked == [self.address]


@pytest.fixture
def open_report(browser: Any, tmp_path: Path) -> Iterator[Any]:
    opened: list[Opened] = []

    def start(source: str, **context: Any) -> Opened:
        opened.append(Opened(browser, source, tmp_path, **context))
        return opened[-1]

    yield start
    for each in opened:
        each.context.close()


def test_renders_hovers_and_pins(factories: ModuleType, open_report: Any) -> None:
    run = factories.make_run()
    opened = open_report(report_html(run))
    page = opened.page
    opened.finish()
    assert page.locator("#front-plot .points path.point").count() == 37
    assert page.locator("#table tbody tr").count() == 37
    assert page.locator("#carbon-plot .bars .point").count() >= 37
    assert page.locator("#roofline").is_visible()

    # Hover shows the whole design.
    where = opened.point(5)
    page.mouse.move(where["x"] - 40, where["y"] - 40)
    page.mouse.move(where["x"], where["y"], steps=4)
    page.wait_for_selector("#tip:not([hidden])")
    tip = page.locator("#tip").inner_text()
    for expected in ("Design", "surrogate", "layers", "l2_kib", "Latency", "Embodied carbon"):
        assert expected in tip

    # One click pins, a second compares, a third takes the second's place.
    page.mouse.click(where["x"], where["y"])
    page.wait_for_selector(".pin-a")
    name = tip.split("\n")[0]
    assert name.startswith("Design ")
    assert name in page.locator("#pinned-table thead").inner_text()
    assert page.locator(".pin-b").count() == 0
    other = opened.point(20)
    page.mouse.click(other["x"], other["y"])
    page.wait_for_selector(".pin-b")
    assert "B against A" in page.locator("#pinned-table").inner_text()
    assert page.locator("#pinned-plots figure").count() == 2
    # Both stand in the chart of carbon by part, however few of the designs it has room for.
    assert {"A", "B"} <= set(page.locator("#carbon-plot .annotation-text").all_text_contents())
    page.get_by_role("button", name="Unpin").click()
    assert page.locator(".pin-a").count() == 0
    opened.quiet()


def test_comparison_states_the_figures_of_both_designs(factories: ModuleType, open_report: Any) -> None:
    run = factories.make_run(10)
    run.designs[2]["metrics"]["total_kgco2e"], run.designs[7]["metrics"]["total_kgco2e"] = 2.0, 0.5
    opened = open_report(report_html(run))
    opened.page.click("#table tr[data-position='2'] button")
    opened.page.click("#table tr[data-position='7'] button")
    row = opened.page.locator("#pinned-table tr", has_text="Total carbon").inner_text().split("\t")
    assert [cell.strip() for cell in row] == ["Total carbon", "2.000 kgCO₂e", "0.500 kgCO₂e", "−75 % better"]
    opened.quiet()


def test_table_sorts_either_way_and_pages(factories: ModuleType, open_report: Any) -> None:
    run = factories.make_run(180)
    opened = open_report(report_html(run))
    page = opened.page
    assert page.locator("#table tbody tr").count() == 50
    for expected in (sorted, lambda values: sorted(values, reverse=True)):
        page.click("#table button[data-sort='metric latency_s']")
        place = [b.get_attribute("data-sort") for b in page.locator("#table thead button").all()].index("metric latency_s")
        shown = [float(cell) for cell in page.locator(f"#table tbody tr > :nth-child({place + 1})").all_inner_texts()]
        assert shown == expected(shown)
        assert len(set(shown)) > 10
    assert page.locator("#table th[aria-sort='descending']").count() == 1
    page.get_by_role("button", name="Show all 180").click()
    assert page.locator("#table tbody tr").count() == 180
    opened.quiet()


def test_range_on_an_axis_keeps_designs_in_all_views(factories: ModuleType, open_report: Any) -> None:
    opened = open_report(report_html(factories.make_run(100)))
    page = opened.page
    grip = page.locator("#parallel-plot .grip").nth(0)
    grip.scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    box = grip.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.3, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    said = page.locator("#parallel-kept").inner_text()
    kept = int(said.split(" of ")[0])
    # Layers rise along the front: the upper third of the axis (10 and 12 layers) is the first third of the designs.
    expected = sum(d["knobs"]["layers"] >= 10 for d in factories.make_run(100).designs)
    assert kept == expected
    assert page.locator("#table tbody tr").count() == min(kept, 50)
    page.get_by_role("button", name="Keep all").click()
    page.wait_for_timeout(300)
    assert "100 designs" in page.locator("#table-note").inner_text()
    opened.quiet()


def test_pair_of_objectives_can_be_chosen(factories: ModuleType, open_report: Any) -> None:
    opened = open_report(report_html(factories.make_run(50, preset="all")))
    page = opened.page
    opened.finish()
    page.locator("#front-controls select").nth(0).select_option("energy_j")
    page.locator("#front-controls select").nth(1).select_option("latency_s")
    titles = " ".join(page.locator("#front-plot .g-xtitle, #front-plot .g-ytitle").all_text_contents())
    assert "Energy per request" in titles
    assert "Latency" in titles
    opened.quiet()


def test_equal_designs_of_one_objective_are_drawn(factories: ModuleType, open_report: Any) -> None:
    run = factories.make_run(3, objectives=(parse_objective("min:total_kgco2e"),))
    for design in run.designs:
        design["metrics"]["total_kgco2e"] = 1.0
    opened = open_report(report_html(run))
    opened.finish()
    assert opened.page.locator("#table tbody tr").count() == 3
    opened.quiet()


def test_nothing_offers_to_send_data_away(factories: ModuleType, open_report: Any) -> None:
    opened = open_report(report_html(factories.make_run(5)))
    opened.finish()
    titles = [button.get_attribute("data-title") or "" for button in opened.page.locator(".modebar-btn").all()]
    assert titles
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower() or "edit" in title.lower()]


def test_hostile_names_run_nothing(factories: ModuleType, open_report: Any) -> None:
    hostile = "</script><img src=x onerror=alert(1)><b>x</b>\"'&amp;%{y}"
    run = factories.make_run(6)
    for design in run.designs:
        design["knobs"] = {hostile: hostile, **design["knobs"], "width": f"{hostile}{design['design']}"}
        design["embodied_parts_kgco2e"][hostile] = 0.1
        design["components"][0] |= {"component": hostile, "latency_by_bound_s": {hostile: 0.001}}
    run = dataclasses.replace(
        run,
        problem=dataclasses.replace(run.problem, workload=hostile, hardware=hostile),
        provenance={**run.provenance, "command": hostile},
    )
    opened = open_report(report_html(run))
    opened.finish()
    where = opened.point(2)
    opened.page.mouse.move(where["x"], where["y"], steps=4)
    opened.page.wait_for_timeout(300)
    assert opened.page.locator("img").count() == 0
    assert hostile in opened.page.locator("h1").inner_text()
    assert "<b>x</b>" in opened.page.locator("#pinned-plots").inner_text()
    opened.quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_reader_and_turn_light_on_paper(factories: ModuleType, open_report: Any, scheme: str) -> None:
    opened = open_report(report_html(factories.make_run(8)), color_scheme=scheme)
    page = opened.page
    opened.finish()
    brightness = "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    assert (page.locator("body").evaluate(brightness) > 384) == (scheme == "light")
    assert len(page.pdf(format="A4")) > 10_000
    page.emulate_media(media="print")
    assert page.locator("body").evaluate(brightness) > 384
    opened.quiet()


def test_fits_a_phone(factories: ModuleType, open_report: Any) -> None:
    opened = open_report(report_html(factories.make_run(40)), viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    opened.finish()
    # Wide tables scroll inside themselves; the page does not scroll sideways.
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    where = opened.point(3)
    opened.page.touchscreen.tap(where["x"], where["y"])
    opened.page.wait_for_selector(".pin-a")
    other = opened.point(12)
    opened.page.touchscreen.tap(other["x"], other["y"])
    opened.page.wait_for_selector(".pin-b")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.quiet()


def test_later_sections_draw(factories: ModuleType, open_report: Any) -> None:
    count = 30
    middle = [1.0 + i / count for i in range(count)]
    run = factories.make_run(
        count,
        uncertainty={
            "metrics": {"total_kgco2e": {"p5": [0.7 * m for m in middle], "p50": middle, "p95": [1.5 * m for m in middle]}},
            "samples": 1000,
        },
        convergence={"evaluations": list(range(1, 26)), "hypervolume": [1 - 0.8**i for i in range(25)]},
        importance=[{"knob": k, "metric": "quality", "share": s} for k, s in (("layers", 0.7), ("hidden", 0.3))],
    )
    opened = open_report(report_html(run))
    opened.finish()
    for name in ("uncertainty", "convergence", "importance"):
        assert opened.page.locator(f"#{name}-plot .main-svg").count() > 0
    opened.quiet()


def test_tables_and_charts_within_one_second_with_two_thousand_designs(factories: ModuleType, open_report: Any) -> None:
    source = report_html(factories.make_run(2_000, preset="all"))
    assert len(source.encode()) <= MAX_BYTES
    # Processor time of the page's thread until the front answers (a busy machine adds waiting, not work), best of three. The table, the
    # pinned designs and the trade-offs answer before Plotly is unpacked: that part is timed on a page that never unpacks it.
    spent, tables = [], []
    bare = source.replace('type="application/octet-stream" id="plotly">', 'type="application/octet-stream" id="plotly">!', 1)
    assert bare != source
    for _ in range(3):
        opened = open_report(bare)
        tables.append(opened.processor_seconds())
        assert opened.page.locator("#table tbody tr").count() == 50
        opened = open_report(source)
        spent.append(opened.processor_seconds())
    assert min(tables) <= 0.6
    assert opened.page.locator("#front-plot .points path.point").count() == 2_000
    assert min(spent) <= 1.0
    opened.quiet()
