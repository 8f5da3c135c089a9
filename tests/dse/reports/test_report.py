"""The report: self-contained, small, the same bytes for the same run, honest about quality, deaf to hostile names."""

import base64
import dataclasses
import hashlib
import json
import math
import re
import zlib
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.analysis.cautions import cautions
from dse.problem.objectives import Constraint, parse_objective
from dse.problem.wording import number_text
from dse.reports import data as report_data
from dse.reports import plotly_script, text
from dse.reports.html import _SCRIPTS, MAX_BYTES, asset, json_text, report_html
from dse.reports.markup import raw_element, tag
from dse.reports.plotly_script import packed_plotly
from dse.reports.units import column_texts, display_unit

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    '=HYPERLINK("http://example.org")',
    "../../etc/passwd",
    "%{y} $x^2$ <b>bold</b> &amp; \u2028 ]]> <!--",
)


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, texts of scripts, text that is read."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._inside: str | None = None
        self.feed(source)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name in ("script", "style"):
            self._inside = name
            if name == "script":
                self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, name: str) -> None:
        if name == self._inside:
            self._inside = None

    def handle_data(self, found: str) -> None:
        if self._inside == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + found)
        elif self._inside is None:
            self.texts.append(found)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> Any:
        return json.loads(next(body for attributes, body in self.scripts if attributes.get("id") == "data"))

    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.elements if "id" in attributes}


@pytest.fixture(scope="module")
def page(factories: ModuleType) -> Page:
    return Page(report_html(factories.make_run()))


def test_says_what_was_searched_and_what_came_out(page: Page) -> None:
    assert "bert on edge22: MNLI-matched accuracy (surrogate) against total carbon" in page.text
    assert "evaluated 187,920 designs (58 models × 3,240 hardware points)" in page.text
    assert "102,311 (54.4 %) meet every constraint, and 37 of them form the Pareto front" in page.text
    assert "exact for mappings chosen by energy-delay product" in page.text
    assert "12 models of the grid were left out" in page.text
    # The best of each objective: the ends of the front that the factory makes.
    assert "Highest MNLI-matched accuracy, surrogate 84.5 % ± 0.62 Design 1" in page.text
    assert "Lowest total carbon 0.74 kgCO₂e Design 37" in page.text


def test_asks_the_network_for_nothing(page: Page) -> None:
    for name, attributes in page.elements:
        assert name not in ("link", "iframe", "object", "embed", "img", "base", "form"), name
        for attribute in ("src", "srcset", "action", "poster", "data"):
            assert attribute not in attributes
        # Beside its own sections the page links to the file of the design that it recommends, which lies beside it.
        assert re.fullmatch(r"#.*|designs/design-\d+\.toml", attributes.get("href") or "#")


def test_policy_allows_the_scripts_of_the_page_and_no_other(page: Page) -> None:
    policies = [a["content"] or "" for name, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    allowed = set(rules["script-src"].split())
    run = {_policy_hash(body.encode()) for attributes, body in page.scripts if attributes.get("type") is None}
    plotly = next(body for attributes, body in page.scripts if attributes.get("id") == "plotly")
    unpacked = zlib.decompress(base64.b64decode(plotly))  # what the browser makes of it, and puts into a script
    assert b"plotly.js (basic" in unpacked[:200]
    assert run | {_policy_hash(unpacked)} == allowed


def _policy_hash(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def test_the_packed_script_is_the_published_bundle_with_its_licence() -> None:
    text = zlib.decompress(base64.b64decode(packed_plotly().base64))
    assert hashlib.sha256(text).hexdigest() == plotly_script.SHA256
    assert b"plotly.js (basic - minified) v" in text[:200] and b"Licensed under the MIT license" in text[:300]
    assert "plotly" in asset("plotly-LICENSE.txt").lower() and "MIT" in asset("plotly-LICENSE.txt")
    # All that the page's script draws is in it.
    kinds = {kind for name in _SCRIPTS for kind in re.findall(r'type: "(scatter|bar|[a-z]+)", (?:mode|name|orientation)', asset(name))}
    assert kinds == {"scatter", "bar"}


def test_says_by_which_data_it_was_made(factories: ModuleType) -> None:
    """The same factors have the same hash, and a changed value another one."""
    run = factories.make_run(3)

    def data(run: Any) -> str:
        found = re.search(r"Data (3 factors, SHA-256 [0-9a-f]{16})", Page(report_html(run)).text)
        assert found is not None
        return found[1]

    first = data(run)
    assert data(factories.make_run(5)) == first
    changed = [{**run.context["sources"][0], "value": 1.3}, *run.context["sources"][1:]]
    assert data(dataclasses.replace(run, context={**run.context, "sources": changed})) != first


def test_same_run_same_bytes(factories: ModuleType) -> None:
    assert report_html(factories.make_run(12)) == report_html(factories.make_run(12))


def test_holds_the_figures_of_the_run(factories: ModuleType, page: Page) -> None:
    run = factories.make_run()
    columns = page.data["columns"]
    for name in ("latency_s", "total_kgco2e", "quality"):
        shown = _unpacked(columns["metrics"][name])
        # Seven significant digits are kept.
        assert shown == pytest.approx([design["metrics"][name] for design in run.designs], rel=1e-6)
    for knob in ("layers", "width"):
        assert _unpacked(columns["knobs"][knob]) == [design["knobs"][knob] for design in run.designs]
    assert _unpacked(columns["support"]) == [design["quality_support"] for design in run.designs]
    breakdown = page.data["breakdowns"]["designs"]["0"]["components"]
    latency = sum(row[1] for row in breakdown)
    assert latency == pytest.approx(run.designs[0]["metrics"]["latency_s"], rel=1e-6)


def test_quality_is_called_a_surrogate_wherever_it_is_named(factories: ModuleType, page: Page) -> None:
    assert "surrogate" in page.data["metrics"]["quality"]["label"]
    assert "Quality is a surrogate's prediction, not a measurement; its standard error is 0.62 points." in page.text
    assert "leave-one-out root-mean-square error" in page.text
    # A surrogate that does not say so itself, and one of which nothing is known, are called surrogates all the same.
    for surrogate in (None, {"label": "MNLI"}, {}):
        shown = Page(report_html(factories.make_run(5, quality_surrogate=surrogate)))
        assert "surrogate" in shown.data["metrics"]["quality"]["label"]
        assert "(surrogate)" in shown.text or "surrogate" in shown.text.split(":")[1]


def test_infeasible_reasons_setting_and_provenance_are_there(page: Page) -> None:
    for expected in (
        "Die area ≤ 31.99 mm² area_mm2<=31.990347 80,400 42.8 %",
        "Latency ≤ 50 ms latency_s<=0.05 1,210 0.6 %",
        "no mapping fits the buffers 12 < 0.1 %",
        "85,609 of 187,920 designs (45.6 %) break at least one bound",
        "Electricity in use world",
        "dse search --workload bert --objective carbon",
        "fab.22nm.epa_kwh_cm2 1.2 kWh/cm2 ACT (Gupta et al., ISCA 2022) 2022 MIT",
        "ecologits:WOR 458.3 g CO₂e/kWh EcoLogits 2023 MPL-2.0 average, lifecycle",
        "a source that says nothing else",
        "Overlap between operations: each waits for the one before it.",
        "numpy 2.4.6",
    ):
        assert expected in page.text, expected


def test_sections_of_later_stages_appear_with_their_data(factories: ModuleType, page: Page) -> None:
    assert not {"uncertainty", "convergence", "importance"} & page.ids()
    count = 6
    shown = Page(
        report_html(
            factories.make_run(
                count,
                uncertainty={
                    "metrics": {
                        "total_kgco2e": {"p5": [0.5] * count, "p50": [1.0] * count, "p95": [2.0] * count},
                        "latency_s": {"p5": [1.0], "p50": [1.0], "p95": [1.0]},  # not one a design: left out
                    },
                    "samples": 1000,
                    "order": {"same_best_design": 0.93},
                },
                convergence={"evaluations": [1, 2, 3], "hypervolume": [0.1, 0.2, 0.3]},
                importance=[{"knob": "layers", "metric": "quality", "share": 0.7}],
                hypervolume={"value": 12.5, "reference": {"quality": 60.0, "total_kgco2e": 5.0}},
            )
        )
    )
    assert {"uncertainty", "convergence", "importance"} <= shown.ids()
    assert list(shown.data["extras"]["uncertainty"]) == ["total_kgco2e"]
    assert "same best design: 0.93" in shown.text
    assert "Hypervolume of the front: 12.5, measured from quality 60 · total_kgco2e 5." in shown.text


@pytest.mark.parametrize("preset", ["carbon", "latency", "energy", "all", "hardware"])
def test_every_preset_has_a_report(factories: ModuleType, preset: str) -> None:
    shown = Page(report_html(factories.make_run(7, preset=preset)))
    assert [o["metric"] for o in shown.data["objectives"]] == [o.metric for o in factories.make_run(1, preset=preset).problem.objectives]


def test_a_run_that_says_little_has_a_report(factories: ModuleType) -> None:
    run = factories.make_run(3, breakdowns=0)
    designs = [factories.make_design(i + 1, i / 2, quality=False, components=False) for i in range(3)]
    for design in designs:
        del design["embodied_parts_kgco2e"], design["dram_bytes_per_s"]
        design["metrics"]["latency_s"] = math.nan
    bare = dataclasses.replace(
        run,
        designs=designs,
        context={},
        provenance={},
        problem=factories.make_problem("hardware", constraints=()),
        summary=dataclasses.replace(run.summary, reasons={}),
    )
    shown = Page(report_html(bare))
    assert "surrogate" not in shown.text.lower()
    assert _unpacked(shown.data["columns"]["metrics"]["latency_s"]) == [None] * 3
    empty = Page(report_html(dataclasses.replace(bare, designs=[])))
    assert "0 of them form the Pareto front" in empty.text


def test_hostile_names_stay_text(factories: ModuleType) -> None:
    run = factories.make_run(4)
    names = "|".join(HOSTILE)
    for design in run.designs:
        design["knobs"][names] = names
        design["quality_support"] = names
        design["embodied_parts_kgco2e"][names] = 1.0
        design["components"][0] |= {"component": names, "bound": names, "latency_by_bound_s": {names: 1.0}}
        design["metrics"][names] = 1.0
    run = dataclasses.replace(
        run,
        problem=dataclasses.replace(run.problem, workload=names, hardware=names),
        provenance={**run.provenance, "command": names, names: names},
        summary=dataclasses.replace(run.summary, reasons={names: 3}),
        context={
            **run.context,
            "sources": [names, {"key": names, "source": names, "note": names}],
            "not_modelled": [names],
            "deployment": {names: names},
            "quality_surrogate": {"label": names, "points": [{names: names}], "unsupported_knobs": [names]},
        },
    )
    shown = Page(report_html(run))
    found = {name for name, _ in shown.elements}
    assert not found & {"img", "svg", "b", "iframe"}
    assert not [key for _, attributes in shown.elements for key in attributes if key.startswith("on")]
    # The data, Plotly's script packed, and the page's own.
    assert len(shown.scripts) == 3
    assert names in shown.data["knobs"]
    assert names in shown.data["columns"]["parts"]
    assert " ".join(HOSTILE[0].split()) in shown.text


def test_bytes_that_are_no_text_do_not_stop_the_report(factories: ModuleType) -> None:
    run = factories.make_run(2)
    run.provenance["command"] = "dse search --hw caf\udce9.toml"
    source = report_html(run)
    assert "--hw caf?.toml" in Page(source).text
    source.encode("utf-8")


def test_thinned_above_five_thousand_and_says_so(factories: ModuleType) -> None:
    source = report_html(factories.make_run(12_000, preset="all", breakdowns=50))
    assert len(source.encode()) <= MAX_BYTES
    shown = Page(source)
    drawn = len(_unpacked(shown.data["columns"]["design"]))
    assert 4_000 <= drawn <= 5_300
    assert shown.data["total"] == 12_000
    assert f"{drawn:,} of the 12,000 designs of the front are drawn" in shown.text
    assert {1, 12_000} <= set(_unpacked(shown.data["columns"]["design"]))


@pytest.mark.slow
def test_a_hundred_thousand_designs_stay_below_three_megabytes(factories: ModuleType) -> None:
    source = report_html(factories.make_run(100_000, preset="all"))
    assert len(source.encode()) <= MAX_BYTES
    assert "of the 100,000 designs of the front are drawn" in source


def test_cautions_speak_of_extrapolation_and_of_free_knobs(factories: ModuleType) -> None:
    run = factories.make_run(10)
    extrapolated = sum(design["quality_support"] == "extrapolated" for design in run.designs)
    assert f"For {extrapolated} of 10 designs quality is extrapolated: nothing published supports it." in cautions(run)
    free = dataclasses.replace(run, problem=dataclasses.replace(run.problem, allow_unsupported=True))
    assert "heads and ffn do not enter the surrogate, so the search takes a saving there for nothing." in cautions(free)


# Building blocks


def test_a_front_of_evaluated_designs_claims_no_more(factories: ModuleType) -> None:
    """Only a sweep can say that no feasible design of the space is better."""
    swept = " ".join(text.summary_sentences(factories.make_run(5, models=58, hardware_points=3240, strategy="exhaustive")))
    assert "no feasible design is at least as good" in swept and "The whole space was enumerated" in swept
    run = factories.make_run(5, models=58, hardware_points=99_999, sampled=True, strategy={"name": "amoo"})
    part = " ".join(text.summary_sentences(run))
    assert "187,920 of 5,799,942 designs" in part and "each exactly" in part
    assert "no other evaluated design is at least as good" in part and "enumerated" not in part


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.one_of(st.none(), st.integers(-5, 5), st.floats(width=32), st.sampled_from(["a", "<b>", ""])), max_size=60))
def test_columns_unpack_to_what_was_packed(values: list[Any]) -> None:
    packed = report_data.column(values)
    assert _unpacked(packed) == [report_data.rounded(value) for value in values]
    json.dumps(packed, allow_nan=False)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 400), st.integers(1, 60))
def test_thinning_keeps_order_and_the_best(factories: ModuleType, count: int, limit: int) -> None:
    run = factories.make_run(count, breakdowns=0)
    kept = report_data.thinned(run, limit)
    assert kept == sorted(set(kept))
    assert set(report_data.best_designs(run).values()) <= set(kept)
    assert len(kept) == count if count <= limit else limit <= len(kept) <= limit + 3
    assert report_data.recommended_design(run) in kept


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_markup_escapes_text_and_attributes(hostile: str) -> None:
    parsed = Page(tag("p", hostile, title=hostile))
    assert [name for name, _ in parsed.elements] == ["p"]
    # A browser (and this parser) turns carriage returns and NUL into others; nothing else may change.
    if not re.search(r"[\x00\r]", hostile):
        assert "".join(parsed.texts) == hostile
        assert parsed.elements[0][1]["title"] == hostile


def test_raw_text_cannot_end_its_element() -> None:
    with pytest.raises(ValueError, match="would end it early"):
        raw_element("script", "let a = '</SCRIPT>'")


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text(), max_size=3)), max_size=8))
def test_json_text_reads_back_and_cannot_end_a_script(value: Any) -> None:
    dumped = json_text(value)
    assert json.loads(dumped) == value
    assert not set(dumped) & set("<>&\u2028\u2029")


@pytest.mark.parametrize(
    ("name", "values", "unit", "shown"),
    [
        ("latency_s", [0.0123, 0.0004], "ms", "12.3 ms"),
        ("latency_s", [2.5], "s", "2.5 s"),
        ("energy_j", [3.2e-5], "µJ", "32 µJ"),
        ("total_kgco2e", [0.25], "gCO₂e", "250 gCO₂e"),
        ("total_kgco2e", [2500.0], "tCO₂e", "2.5 tCO₂e"),
        ("kgco2e_per_request", [1.5e-8], "µgCO₂e", "15 µgCO₂e"),
        ("macs", [4.3e10], "G", "43 G"),
        ("service_utilisation", [0.012], "%", "1.2 %"),
        ("area_mm2", [31.990347], "mm²", "31.99 mm²"),
        ("tops", [0.512], "TOPS", "0.512 TOPS"),
        ("something_new", [3.0], "", "3"),
        ("latency_s", [math.nan], "s", "–"),
    ],
)
def test_display_units(name: str, values: list[float], unit: str, shown: str) -> None:
    found = display_unit(name, values)
    assert found.unit == unit
    assert found.text(values[0]) == shown


@pytest.mark.parametrize(
    ("evaluator", "unit"), [("surrogate", "%"), ("measured:minilm", ""), ("trained:gloss", ""), ("python:train:score", "")]
)
def test_a_figure_is_per_cent_where_the_workload_says_so_alone(evaluator: str, unit: str) -> None:
    """A mean reciprocal rank, a correlation or nats are none, and a share of right labels is one of 1."""
    for name in ("quality", "quality_se"):
        assert display_unit(name, [0.52], {"quality_evaluator": {"evaluator": evaluator}}).unit == unit


def test_numbers_as_text() -> None:
    assert [number_text(v) for v in (0, 1234567, 12345678.0, 0.00001234, -0.5, math.inf)] == [
        "0",
        "1,234,567",
        "1.235e+07",
        "1.234e-05",
        "-0.5",
        "–",
    ]
    assert column_texts([1.5, 0.25, None, math.nan]) == ["1.500", "0.250", "–", "–"]
    assert column_texts([12, 3.0]) == ["12", "3"]


def test_constraints_and_reasons_in_words() -> None:
    assert text.constraint_text(Constraint("latency_s", "<=", 0.05)) == "Latency ≤ 50 ms"
    assert text.reason_text("power_w<=0.2") == "Average power ≤ 200 mW"
    assert text.reason_text("no mapping fits the buffers") == "no mapping fits the buffers"
    assert text.share(1, 100_000) == "< 0.1 %"
    assert text.share(99_999, 100_000) == "> 99.9 %"


# Figures


def test_front_figure_shows_every_design_and_calls_quality_a_surrogate(factories: ModuleType) -> None:
    from dse.reports.figures import front_figure

    run = factories.make_run(20)
    figure = front_figure(run)
    steps, *groups = figure.data
    assert sum(len(group.x) for group in groups) == 20
    assert len(steps.x) == 20  # every design of a two-objective front is a step of it
    assert {group.marker.symbol for group in groups} == {"diamond", "circle", "x-thin-open"}
    assert "surrogate" in figure.layout.yaxis.title.text
    assert all("surrogate" in group.name for group in groups)
    assert "layers 12" in groups[0].hovertext[0] or "layers 12" in groups[1].hovertext[0]


def test_front_figure_of_four_objectives_thins_colours_and_escapes(factories: ModuleType) -> None:
    from dse.reports.figures import front_figure

    run = factories.make_run(6_000, preset="all", breakdowns=0)
    run.designs[0]["knobs"]["<b>x</b>"] = "<i>"
    figure = front_figure(run)
    assert "of 6,000 designs, evenly thinned" in figure.layout.title.text
    assert figure.layout.coloraxis.colorbar.title.text == "Latency [ms]"
    texts = [text for group in figure.data[1:] for text in group.hovertext]
    assert not [text for text in texts if "<i>" in text]


def test_front_figure_of_free_objectives(factories: ModuleType) -> None:
    from dse.reports.figures import front_figure

    run = factories.make_run(5, objectives=(parse_objective("min:area_mm2"),))
    figure = front_figure(run)
    assert figure.layout.xaxis.title.text == "Die area [mm²]"
    assert front_figure(dataclasses.replace(run, designs=[])).layout.title.text == "The front is empty"


def _unpacked(column: Any) -> list[Any]:
    return column if isinstance(column, list) else [column["values"][code] for code in column["index"]]


def test_parts_of_a_mix_stand_apart(factories: ModuleType) -> None:
    run = factories.make_run(4)
    for i, design in enumerate(run.designs):
        design["parts"] = {
            "chat": {"share": 0.75, "latency_s": 0.01 + i, "energy_j": 0.2},
            "agents": {"share": 0.25, "latency_s": 0.5, "energy_j": 0.9},
        }
    shown = Page(report_html(run))
    mix = shown.data["columns"]["mix"]
    assert list(mix) == ["chat", "agents"] and mix["chat"]["share"] == 0.75
    assert _unpacked(mix["chat"]["latency_s"]) == [0.01, 1.01, 2.01, 3.01] and _unpacked(mix["agents"]["energy_j"]) == [0.9] * 4
    assert "Latency, chat" in shown.text and "Latency, agents" in shown.text  # of the recommended design, in the head


def test_the_head_says_what_a_design_is_for_and_who_else_was_there(factories: ModuleType) -> None:
    said = [
        "Devices by total carbon at equal service, least first: 1 x a (1 kg), 1 x b (2 kg).",
        "a has less than b in 97% of 1,000 draws: settled.",
    ]
    bands = {"total_kgco2e": {"p5": [0.5] * 3, "p50": [1.0] * 3, "p95": [2.0] * 3}}
    uncertainty = {"metrics": bands, "samples": 1000, "notes": ["Drawn so often.", *said], "device_order_said": said}
    shown = Page(report_html(factories.make_run(3, uncertainty=uncertainty)))
    assert "What for 1 request a second for 3 years; world electricity; taiwan fab; latency ≤ 50 ms;" in shown.text
    assert shown.text.count(said[0]) == 1 and shown.text.count("Drawn so often.") == 1
    # Equal designs are one point: no front to draw, no trade-off, and the range is a sentence.
    run = factories.make_run(3, objectives=(parse_objective("min:total_kgco2e"),), uncertainty=uncertainty)
    for design in run.designs:
        design["metrics"]["total_kgco2e"] = 1.0
    same = Page(report_html(run))
    assert not {"front", "parallel"} & same.ids() and "uncertainty-plot" not in same.ids()
    assert "Total carbon lies from 0.5 kgCO₂e to 2 kgCO₂e in nine draws of ten" in same.text


def test_shares_that_the_head_has_said_are_not_drawn_again(factories: ModuleType) -> None:
    row = {"metric": "total_kgco2e", "share": 0.5}
    told = Page(report_html(factories.make_run(4, importance=[{"knob": "layers", **row}, {"knob": "cores", **row}])))
    assert "importance" not in told.ids() and "What moves total carbon over the space" in told.text
    more = [{"knob": name, "metric": "total_kgco2e", "share": 0.2} for name in ("layers", "hidden", "cores", "width", "depth")]
    assert "importance" in Page(report_html(factories.make_run(4, importance=more))).ids()


def test_mappings_are_named_where_there_are_any(factories: ModuleType) -> None:
    kernels = Page(report_html(factories.make_run(4, mapped=False)))
    assert "so the front is exact." in kernels.text and "energy-delay" not in kernels.text
