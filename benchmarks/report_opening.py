"""How long a report takes to open in a browser until it answers, from an empty cache: time by the clock and of the page's thread.

    python benchmarks/report_opening.py [RUN/report.html ...] [--rounds 7] [--json FILE]

Without a file: the report of `dse search --workload bert --objective all`, whose front has some 2,400 designs. Needs Playwright (`pip
install playwright`) and Chromium (DSE_CHROMIUM names it, default /usr/bin/chromium). Every round opens the file in a new context, which
shares no cache with another. ``tables``: the recommendation stands and tables, pins and ranges answer; ``front``: the chart
answers to the mouse; ``all``: every chart is drawn; each in seconds since the navigation began. ``longest``: longest task after the front
answers, during which the page would not. ``processor``: of the page's main thread until the front answers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
COLUMNS = ("tables", "front", "all", "longest", "processor")
# The page tells its states by attributes of its root element; this runs before any script of the page.
WATCH = """
globalThis.seen = {tasks: []};
new PerformanceObserver(list => {
  for (const e of list.getEntries()) seen.tasks.push([e.startTime, e.duration]);
}).observe({type: "longtask", buffered: true});
new MutationObserver(() => {
  const said = document.documentElement?.dataset ?? {};
  for (const [state, name] of [["usable", "tables"], ["ready", "front"], ["complete", "all"]])
    if (said[state] && !(name in seen)) seen[name] = performance.now();
}).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-usable", "data-ready", "data-complete"]});
"""


def opened(browser: Any, file: Path) -> dict[str, float]:
    """Seconds of one opening."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH)
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(file.absolute().as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    spent = next(m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")
    page.wait_for_selector("html[data-complete]", timeout=60_000)
    page.wait_for_timeout(100)  # long tasks are told after they ended
    seen = page.evaluate("seen")
    context.close()
    after = [duration for start, duration in seen["tasks"] if start >= seen["front"]]
    times = {name: seen[name] / 1e3 for name in ("tables", "front", "all")}
    return {**times, "longest": max(after, default=0.0) / 1e3, "processor": float(spent)}


def default_report(folder: Path) -> Path:
    """The report of a search with four objectives."""
    command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--objective", "all", "--out", str(folder / "all")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "all" / "report.html"


def designs_of(file: Path) -> int:
    """Designs that the page embeds."""
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(encoding="utf-8"), re.S)
    if not data:
        return 0
    column = json.loads(data[1])["columns"]["design"]
    return len(column["index"] if isinstance(column, dict) else column)


def main() -> int:
    """Print the medians of the rounds and the worst; write all with --json."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    print(f"{'report':28} {'designs':>7} {'MB':>5}  " + "  ".join(f"{name:>15}" for name in COLUMNS) + "  seconds: median (worst)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=os.environ.get("DSE_CHROMIUM", "/usr/bin/chromium"), args=FLAGS)
        for file in args.reports or [default_report(Path(folder))]:
            rounds = [opened(browser, file) for _ in range(args.rounds)]
            size = file.stat().st_size / 1e6
            row = {"report": f"{file.parent.name}/{file.name}", "designs": designs_of(file), "mb": size, "rounds": rounds}
            found.append(row)
            told = [f"{statistics.median(r[name] for r in rounds):.2f} ({max(r[name] for r in rounds):.2f})" for name in COLUMNS]
            print(f"{row['report']:28} {row['designs']:7,} {size:5.2f}  " + "  ".join(f"{cell:>15}" for cell in told))
        browser.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
