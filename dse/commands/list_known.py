"""``dse list``: the names that the other commands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workloads.family import Family

TOPICS = ("workloads", "loops", "templates", "regions", "strategies", "presets", "metrics", "profiles", "memories")


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "list",
        help="show the known workloads, loops, templates, regions, strategies, presets, metrics and memories",
        description="Show the names that the other commands take.",
        allow_abbrev=False,
    )
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--format", default="text", metavar="NAME", help="text, csv, json or markdown (default text)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one topic, or all."""
    import json

    from dse.errors import unknown_name
    from dse.reports.tables import check_format, table

    check_format(args.format)
    if args.topic is not None and args.topic not in TOPICS:
        raise unknown_name("topic", args.topic, TOPICS)
    chosen = [args.topic] if args.topic else list(TOPICS)
    known = {topic: _known(topic) for topic in chosen}
    if args.format == "json":
        print(json.dumps(known, indent=2))
        return 0
    if args.format != "text":
        rows = [{"topic": topic, "name": name, "meaning": meaning} for topic, entries in known.items() for name, meaning in entries.items()]
        print(table(rows, args.format))
        return 0
    for topic, entries in known.items():
        if len(chosen) > 1 and topic == "regions":
            print(f"regions ({len(entries)}; `dse list regions` shows all)\n  world, taiwan, usa, france, US-CA, ...\n")
            continue
        print(topic)
        width = max(len(name) for name in entries)
        for name, meaning in entries.items():
            print(f"  {name:<{width}}  {meaning}")
        print()
    return 0


def _known(topic: str) -> dict[str, str]:
    if topic == "workloads":
        from workloads import library

        lines = {name: _workload_line(library.load(name)) for name in (*library.ALIASES, *library.names())}
        return {name: f"the same as {library.ALIASES[name]}" if name in library.ALIASES else line for name, line in lines.items()}
    if topic == "loops":
        from workloads.reasoning.plans import LOOPS

        return {name: f"{loop.title}; knobs {', '.join(loop.knobs)}, chips (a model is named with --model)" for name, loop in LOOPS.items()}
    if topic == "templates":
        from hw_models import spaces as templates
        from hw_models.devices import library as devices

        spaces = {name: templates.load(name).title for name in templates.names()}
        return spaces | {name: f"a single device: {devices.load(name).title}" for name in devices.names()}
    if topic == "regions":
        import carbon.factors.grid

        return {
            factor.code: f"{factor.name}: {factor.gco2e_per_kwh:g} g/kWh, {factor.year}, {factor.source}"
            for factor in carbon.factors.grid.everything()
        }
    if topic == "strategies":
        from dse.strategies import registry

        return {registry.AUTO: registry.AUTO_SUMMARY} | {record.name: record.summary for record in registry.records()}
    if topic == "presets":
        from dse.problem.objectives import PRESETS

        return {name: f"{preset.meaning} ({', '.join(map(str, preset.objectives))})" for name, preset in PRESETS.items()}
    if topic == "metrics":
        from dse.problem.metrics import METRICS

        return {name: f"[{metric.unit}] {metric.meaning}" for name, metric in METRICS.items()}
    if topic == "memories":
        return _memories()
    import carbon.device.profiles
    from hw_models.technology.profiles import profiles

    found = {f"hardware: {name}": profile.title for name, profile in profiles().items()}
    return found | {f"carbon: {name}": carbon.device.profiles.get(name).summary for name in carbon.device.profiles.names()}


def _memories() -> dict[str, str]:
    """Values of ``memory_type`` in a carbon specification: those of the profile ``default`` first, then those of ``act2``."""
    from carbon.embodied import memory
    from carbon.factors import memories

    own = {name: factor for name, factor in memory.per_gb().items() if name != "nand"}
    found = {name: f"{f.value:.3g} kgCO2e/GB ({f.low:.3g} to {f.high:.3g}); {f.note}" for name, f in own.items()}
    for name, kind in memories().items():
        if kind.source_id == "act":
            act = f"{kind.per_gb.value:.3g} kgCO2e/GB with carbon profile act2"
            found[name] = f"{found[name]}; {act}" if name in found else act
    return found


def _workload_line(family: Family) -> str:
    count = family.published.get("parameters")
    size = f", {count:,} parameters published" if isinstance(count, int) else ""
    from dse.problem.wording import joined

    free = [name for name, column in family.model_grid().items() if len(set(column.tolist())) > 1] if family.model_spaces else []
    return f"{family.name}: {family.family}{size}" + (f"; a search varies its {joined(free)}" if free else "")
