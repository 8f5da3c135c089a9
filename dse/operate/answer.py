"""What `dse operate` answers: the scenario, the ladder with the chosen policy in it, the forecast's skill and a week's timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dse.errors import unknown_name
from dse.operate.agents.library import SHIPPED, find
from dse.operate.ladder import RULES, Ladder, build, week_of
from dse.operate.scenario import Prepared, describe
from dse.operate.simulation import Decides


def known_policies() -> tuple[str, ...]:
    """Every word that ``--policy`` takes, besides files."""
    return (*RULES, *SHIPPED)


def policy_of(word: str) -> tuple[str, list[tuple[Decides, str, str]]]:
    """(name in the ladder, what has to be added to it) of a policy's word; UsageError with the nearest known one."""
    if word in RULES:
        return word, []
    if word not in SHIPPED and not word.endswith((".safetensors", ".json")):
        raise unknown_name("policy", word, known_policies())
    found = find(word)
    return found[0].name, [found]


def answer(
    prepared: Prepared,
    policy: str,
    *,
    period: str = "test",
    most: int | None = None,
    learnt: Sequence[tuple[Decides, str, str]] = (),
) -> dict[str, Any]:
    """Everything of one scenario, as plain values."""
    ladder = build(prepared, period=period, most=most, learnt=learnt)
    row = ladder.row(policy)
    week = week_of(prepared, ladder.outcomes[policy], period, most)
    seconds = ladder.weeks * 168 * 3600.0
    return {
        "policy": policy,
        "period": period,
        "weeks": ladder.weeks,
        **describe(prepared),
        "grams": row.grams,
        "kwh": row.kwh,
        "share_of_foresight": row.share,
        "missed_requests": row.missed,
        "deadlines_promised": ladder.promised,
        "foresight_saving": ladder.saving,
        "gco2e_per_request": row.grams / max(sum(float(load.requests.mean()) for load in prepared.loads) / 3600.0 * seconds, 1e-300),
        "ladder": [r.to_dict() for r in ladder.rows],
        "forecast_skill": {word: vars(skill) for word, skill in ladder.skills.items()},
        "timeline": week,
    }


def table(ladder: Ladder | Sequence[dict[str, Any]]) -> list[str]:
    """The ladder as lines of text: grams, relative to always-on, share of foresight's saving, what was late."""
    rows = [row.to_dict() for row in ladder.rows] if isinstance(ladder, Ladder) else list(ladder)
    top = max((row["grams"] for row in rows if row["name"] == "always-on"), default=max(row["grams"] for row in rows)) or 1.0
    lines = [f"{'policy':12} {'gCO2e':>12} {'always-on = 1':>14} {'of foresight':>13} {'late':>9}"]
    for row in rows:
        share = "-" if row["share"] is None else f"{row['share']:.3f}"
        lines.append(f"{row['name']:12} {row['grams']:12.5g} {row['grams'] / top:14.3f} {share:>13} {row['missed']:9.4g}  {row['meaning']}")
    return lines
