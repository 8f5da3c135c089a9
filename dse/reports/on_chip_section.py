"""The section of the report that says what the recommended designs keep on chip between operations, and what that saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.problem.wording import number_text, plural, share
from dse.reports import sections
from dse.reports.kept import of_run
from dse.reports.markup import Markup, tag

_SAVED = (("dram_bytes", "DRAM traffic"), ("energy_j", "dynamic energy"), ("latency_s", "latency"))


def shown(run: Any) -> list[dict[str, Any]]:
    """The recommended design and the best of each objective, those of them that keep something on chip."""
    found = of_run(run)
    wanted = dict.fromkeys([found.design, *(extreme.design for extreme in found.extremes)])
    by_number = {design["design"]: design for design in run.designs}
    return [by_number[number] for number in wanted if number is not None and by_number[number].get("on_chip")]


def on_chip(run: Any) -> Markup | None:
    """A table a design: where each tensor lives; None where nothing stays on chip."""
    designs = shown(run)
    if not designs:
        return None
    return sections.section("on-chip", "What stays on chip", *[part for design in designs for part in _of(design)])


def _of(design: Mapping[str, Any]) -> list[Markup]:
    kept = design["on_chip"]
    saved = [
        f"{share(kept['saved'][name], kept['alone'][name])} of the {label}" for name, label in _SAVED if kept["alone"].get(name, 0.0) > 0.0
    ]
    weights = "all weights stay from request to request" if kept["weights_on_chip"] else "weights come from the DRAM"
    sentence = (
        f"{weights[:1].upper()}{weights[1:]}; at most {_size(kept['most_held_bytes'])} of {_size(kept['capacity_bytes'])} are held. "
        f"Saved against every operation by itself: {', '.join(saved)}."
    )
    if ahead := kept.get("prefetch"):
        saved_share = share(ahead["saved_s"], kept["alone"]["latency_s"])
        read = f"{_size(ahead['bytes'])} of weights a request are read during the operation before theirs"
        sentence += f" {read}, which saves {saved_share} of that latency." if ahead["bytes"] else " No weights are read ahead."
    places = {"chip": "On chip alone", "both": "On chip and in DRAM", "dram": "In DRAM alone"}
    if kept["level"] == "tiles":
        places = {"chip": places.pop("chip"), "tiles": "Tiles of it on chip alone", **places}
    rows = [
        (row["made_by"], _size(row["bytes"]), *(f"{number_text(row[place])}" if row[place] else "" for place in places))
        for row in kept["tensors"]
    ]
    head = ("Result of", "Bytes", *places.values())
    caption = f"Design {design['design']}: {plural(len(rows), 'result')}, how often a request makes each, by where it lives"
    return [
        tag("h3", f"Design {design['design']}"),
        tag("p", sentence),
        sections.table(head, rows, caption=caption, numeric=tuple(range(1, len(head)))),
    ]


def _size(count: float) -> str:
    """Bytes in the unit that reads best."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{number_text(round(count / unit, 2))} {name}"
    return f"{number_text(count)} B"
