"""The page of a search over a loop, and what it says of reuse of prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.reports.kept import of_run
from dse.reports.markup import Markup, tag
from dse.reports.plain_page import plain_page
from dse.reports.recommended import plain_header
from dse.reports.scatter import Mark, scatter
from dse.reports.sections import section, table

_KINDS = {"none": "no reuse", "prefix": "prefix cache", "tree": "tree"}
_SHOWN = ("quality", "latency_s", "latency_p95_s", "energy_j", "energy_j_per_solved", "gco2e_per_problem", "gco2e_per_solved",
          "total_kgco2e", "prefill_tokens", "decode_tokens", "service_utilisation")  # fmt: skip
_FIRST = ("model", "device", "chips", "kv", "samples", "agents", "rounds", "votes", "corrections", "suffixes", "problems")


def said_of_prefix_cache(answer: Mapping[str, Any]) -> list[str]:
    """Sentences on how far reuse of prefixes moves the front; empty where no configuration without it was searched."""
    told = []
    names = {"prefix": "a prefix cache", "tree": "a prefix cache with shared attention (tree)"}
    for policy in ("prefix", "tree"):
        found = answer["prefix_cache"].get(policy)
        if not found:
            continue
        parts = [
            f"{100 * saved['median']:.1f} % less {metric} at no less quality (median along the front without reuse; "
            f"{100 * saved['least']:.1f} to {100 * saved['most']:.1f} %)"
            for metric, saved in found["saved_at_equal_quality"].items()
        ]
        if "prefill_tokens_ratio" in found:
            ratio = found["prefill_tokens_ratio"]
            parts.append(f"{ratio['median']:.2g} times fewer prompt tokens in the same configuration (at most {ratio['most']:.3g})")
        if "hypervolume" in found:
            parts.append(f"{found['hypervolume']:.3f} times the hypervolume")
        told.append(f"The front moves with {names[policy]}: " + "; ".join(parts) + ".")
    return told


def page_of_run(run: Any) -> str:
    """The page of a run of `dse.served`."""
    answer = {**run.context["answer"], "front": [{**design["metrics"], **design["knobs"]} for design in run.designs]}
    found = of_run(run)
    title = f"{answer['workload']} with {', '.join(answer['models'])} on {answer['hw']}"
    head = [name for name in _FIRST if name in answer["front"][0]]
    head += [name for name in _SHOWN if name in answer["front"][0]]
    rows = [[f"{v:.4g}" if isinstance(v := row.get(name, ""), float) else str(v) for name in head] for row in answer["front"]]
    quality = (
        "Quality is that of a scripted model with the rates below: a stand-in, not a measurement of any language model."
        if answer["quality"] == "scripted"
        else f"Quality is from {answer['quality']}."
    )
    stated = [(name, f"{value:g}") for name, value in {**answer["lengths"], **answer["rates"]}.items()]
    counts = f"{answer['configurations']} configurations, {answer['feasible']} feasible; the front is exact on this grid."
    left = [(name, str(count)) for name, count in answer["infeasible_reasons"].items() if count]
    sources = [(str(source.get("name", "")), str(source.get("source", ""))) for source in answer["sources"]]
    body = tag(
        "main",
        plain_header(found, title, f"{answer['title']}. {counts} {quality}"),
        section(
            "cache", "What reuse of prefixes moves", [tag("p", text) for text in said_of_prefix_cache(answer)] or tag("p", "Not varied.")
        ),
        section(
            "front",
            f"Front: {', '.join(answer['objectives'])}",
            _scatter(answer),
            table(head, rows, caption="Front", numeric=range(len(head))),
        ),
        section("rates", "Tokens and stated rates", table(("name", "value"), stated, caption="Tokens and rates", numeric=(1,))),
        section("left", "Left out", table(("why", "configurations"), left, caption="Left out", numeric=(1,))),
        section("sources", "Sources of carbon figures", table(("name", "source"), sources, caption="Sources")),
    )
    return plain_page(title, "search", body)


def _scatter(answer: Mapping[str, Any]) -> Markup | None:
    """The front over its first two objectives, marks by policy."""
    names = [text.partition(":")[2] for text in answer["objectives"]][:2]
    if len(names) < 2:
        return None
    y, x = names
    marks = [
        Mark(float(row[x]), float(row[y]), str(row["kv"]), f"{row['kv']}: {y} {row[y]:.4g}, {x} {row[x]:.4g}") for row in answer["front"]
    ]
    return scatter(marks, x, y, _KINDS)
