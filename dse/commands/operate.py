"""``dse operate``: a design of a finished search, hour by hour on a grid, by rules or planning, against the exact optimum."""

from __future__ import annotations

import argparse
from typing import Any

from dse.commands import lists

EPILOG = """\
examples:
  dse operate RUN --design 3 --site CISO --policy mpc
  dse operate RUN --design 3 --site france --trace requests.csv --policy rule --json
  dse operate compare RUN --site CISO,ERCO,BPAT,NYIS --design 1,3

sites: a balancing authority with measured hours of 2022 (AZPS, BPAT, CISO, ERCO, MISO, NYIS, PJM, SOCO), a file of hours
(timestamp_utc, gco2e_per_kwh; Electricity Maps, WattTime, EIA-930), or a place of `dse carbon grids` (synthetic hours around its mean);
sites joined by + share the work that may wait
traces: hours (timestamp_utc, requests) or a request log of `dse simulate`; without one, a synthetic week
"""


def register(commands: Any) -> None:
    """Add the command and its own commands; a first word that is none of them is a run."""
    group = commands.add_parser(
        "operate",
        help="run a design hour by hour: when, where and at what clock",
        description="Run a design of a finished search on a grid, hour by hour: chips awake, clock, and what waits for cleaner hours.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group.default_command = "design"
    actions = group.add_subparsers(dest="operate_command", metavar="COMMAND")
    one = actions.add_parser(
        "design",
        help="one design, one site, one policy (the command where none is named)",
        description="Run one design by one policy and print the ladder around it; the word `design` may be left out.",
        allow_abbrev=False,
    )
    one.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    one.add_argument("--policy", default="mpc", metavar="NAME", help="always-on, best-clock, sleep, now, threshold, timetable, rule, mpc, "
                     "mpc-true, optimum; learnt: imitation, dqn, ppo, bandit, or a file of `learn` or `tree` (default mpc)")  # fmt: skip
    one.add_argument("--design", type=int, metavar="K", help="a design of the front, by its number (default 1)")
    one.add_argument("--resize", action="store_true", help="also: how few chips keep the same deadlines, and what a search should be told")
    one.add_argument("--report", metavar="FILE.html", help="also write a page with a week's timeline")
    _scenario_options(one)
    one.set_defaults(run=run)
    several = actions.add_parser(
        "compare",
        help="the ladder for several designs and sites",
        description="The ladder of every design at every site: one line a policy, shares of what foresight saves over running now.",
        allow_abbrev=False,
    )
    several.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    several.add_argument("--design", default="1", metavar="K,K,...", help="designs of the front (default 1)")
    _scenario_options(several)
    several.set_defaults(run=compare)
    learns = actions.add_parser(
        "learn",
        help="learn a policy on the training weeks of a site",
        description="Learn a policy on the training weeks of one site and write it as a safetensors file; needs the extra `operate`.",
        allow_abbrev=False,
    )
    learns.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    learns.add_argument("--design", type=int, metavar="K", help="a design of the front, by its number (default 1)")
    learns.add_argument("--by", default="imitation", metavar="NAME", help="imitation, dqn, ppo, sac or bandit (default imitation)")
    learns.add_argument("--exploration", default="epsilon", metavar="NAME", help="dqn: epsilon, boltzmann, thompson or squarecb; bandit: "
                        "linucb, lints, epsilon, boltzmann or squarecb (default epsilon)")  # fmt: skip
    learns.add_argument("--history", default="1", metavar="HOURS|lstm", help="dqn and ppo: observations seen at once (default 1); "
                        "imitation: lstm, a memory that is learnt")  # fmt: skip
    learns.add_argument("--safety", default="filter", metavar="NAME", help="dqn and ppo: filter, or lagrangian (a price on misses)")
    learns.add_argument("--replay", default="plain", metavar="NAME", help="dqn: plain, or hindsight (hours run again with other actions)")
    learns.add_argument("--steps", type=int, default=40_000, metavar="N", help="dqn and ppo: hours of experience (default 40000)")
    learns.add_argument("--out", required=True, metavar="FILE.safetensors", help="where the policy goes")
    _scenario_options(learns)
    learns.set_defaults(run=learn)
    trees = actions.add_parser(
        "tree",
        help="a learnt policy as a tree that can be read",
        description="Distil a policy into a tree of at most four questions, as text, JSON or C, and say what it loses on judged weeks.",
        allow_abbrev=False,
    )
    trees.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    trees.add_argument("--design", type=int, metavar="K", help="a design of the front, by its number (default 1)")
    trees.add_argument("--policy", default="imitation", metavar="NAME", help="the teacher: a learnt policy or a rule (default imitation)")
    trees.add_argument("--depth", type=int, default=4, metavar="N", help="most questions, up to 4 (default 4)")
    trees.add_argument("--out", metavar="FILE", help="write FILE.json (which --policy takes), FILE.c or FILE.txt")
    _scenario_options(trees)
    trees.set_defaults(run=tree)
    group.set_defaults(run=lambda args: _usage(group))


def _usage(group: argparse.ArgumentParser) -> int:
    group.print_help()
    return 2


def _scenario_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", default="CISO", metavar="PLACE", help="see below; several with commas for compare (default CISO)")
    parser.add_argument("--trace", metavar="FILE", help="load of each site: hours or a request log (default a synthetic week)")
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="PER_S", help="mean requests a second of a site (default: 10 busy chips)"
    )
    parser.add_argument("--chips", type=int, default=0, metavar="N", help="chips of a site (default: a quarter more than the load needs)")
    parser.add_argument("--flexible", action="append", default=[], metavar="HOURS:SHARE",
                        help="share of the requests that may wait so many hours; repeatable (default 24:0.3)")  # fmt: skip
    parser.add_argument("--temperature", metavar="AMBIENT:LIMIT:K_PER_KW:HOURS", help="temperature budget of each site: C without power, "
                        "C that is allowed, steady rise a kW, time constant, like 25:45:1.5:3 (default none)")  # fmt: skip
    parser.add_argument("--batches", default="", metavar="N,N,...", help="requests served together, where the workload has a batch")
    parser.add_argument("--latency-limit", type=float, metavar="SECONDS", help="longest time of a batch: slower clocks are left out")
    parser.add_argument("--sleep-share", type=float, default=0.2, metavar="X", help="sleep over idle power, an assumption (default 0.2)")
    parser.add_argument("--utilisation-cap", type=float, default=0.8, metavar="X", help="most that an awake chip is busy (default 0.8)")
    parser.add_argument("--pue", type=float, default=1.0, help="facility power over device power (default 1)")
    parser.add_argument(
        "--period", default="test", metavar="NAME", help="weeks that are run: test, validation, train or all (default test)"
    )
    parser.add_argument("--weeks", type=int, default=0, metavar="N", help="at most so many weeks of the period (default all)")
    parser.add_argument("--seed", type=int, default=0, help="of synthetic hours and loads (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run one policy and print the ladder."""
    import json

    from dse.operate.answer import answer, policy_of, table

    policy, learnt = policy_of(args.policy)
    prepared = _prepared(args, args.design, args.site)
    found = answer(prepared, policy, period=args.period, most=args.weeks or None, learnt=learnt)
    if args.resize:
        from dse.operate.resize import resize

        found["resize"] = resize(prepared.scenario, period=args.period, most=args.weeks or None)
    if args.report:
        from dse.reports.operate import write_report

        found["report"] = str(write_report(found, args.report))
    if args.json:
        print(json.dumps(found, indent=2, allow_nan=False))
        return 0
    _head(found)
    print("\n".join(table(found["ladder"])))
    _foot(found)
    if "resize" in found:
        _resized(found["resize"])
    if "report" in found:
        print(f"report: {found['report']}")
    return 0


def _resized(found: dict[str, Any]) -> None:
    print(f"chips for the declared load: {found['chips_run_now']} run now, {found['chips']} where work may wait "
          f"({100 * found['chips_saved_share']:.3g} % fewer)")  # fmt: skip
    print(f"least carbon, making included: {found['chips_least_carbon_run_now']} run now, {found['chips_least_carbon']} where work may "
          f"wait ({100 * found['grams_saved_share']:.3g} % less)")  # fmt: skip
    print(f"a device then serves {found['requests_per_s_per_device']:.6g} requests/s: {found['search']}")


def compare(args: argparse.Namespace) -> int:
    """The ladders of designs and sites."""
    import json

    from dse.operate.agents.library import SHIPPED, find
    from dse.operate.answer import answer, table

    designs = lists.numbers("design", args.design, int, "1,3")
    found = []
    for design in designs:
        for place in lists.names("site", args.site):
            prepared = _prepared(args, design, place)
            learnt = [find(name) for name in SHIPPED] if len(prepared.scenario.places) == 1 else []
            one = answer(prepared, "mpc", period=args.period, most=args.weeks or None, learnt=learnt)
            one.pop("timeline")
            found.append({"design": design, **one})
            if not args.json:
                _head(one)
                print("\n".join(table(one["ladder"])))
                _foot(one)
    if args.json:
        print(json.dumps(found, indent=2, allow_nan=False))
    return 0


def learn(args: argparse.Namespace) -> int:
    """Learn a policy and write it."""
    import json

    from dse.errors import UsageError, unknown_name
    from dse.operate.agents.network import Learnt
    from dse.operate.ladder import build

    if args.by not in ("imitation", "dqn", "ppo", "sac", "bandit"):
        raise unknown_name("by", args.by, ("imitation", "dqn", "ppo", "sac", "bandit"))
    if not args.out.endswith(".safetensors"):
        raise UsageError(f"out is {args.out!r}, must end in .safetensors")
    allowed = {"imitation": "1 or lstm", "bandit": "1", "sac": "1"}.get(args.by, "hours from 1 to 24")
    if args.history not in allowed.split(" or ") and (args.by in ("imitation", "bandit", "sac") or not args.history.isdecimal()):
        raise UsageError(f"history is {args.history!r} for {args.by}, must be {allowed}")
    if args.steps < 1000:
        raise UsageError(f"steps is {args.steps}, must be at least 1000")
    prepared = _prepared(args, args.design, args.site)
    weeks = prepared.weeks("train")
    if args.by == "bandit":
        from dse.operate.agents import bandits

        kind = "squarecb" if args.exploration == "epsilon" else args.exploration
        if len(prepared.scenario.places) > 1:
            raise UsageError(f"bandit is of one site, got {len(prepared.scenario.places)}; imitation, dqn, ppo and sac take several")
        from dse.operate.agents.learners import imitation

        outcomes, trunk = prepared.weeks("train", "truth"), imitation(weeks, seed=args.seed)
        network = bandits.learn(weeks, outcomes, chooser=bandits.Chooser(kind), seed=args.seed, trunk=trunk)
    else:
        from dse.operate.agents import learners

        if args.by == "imitation" and args.history == "lstm":
            from dse.operate.agents import recurrent

            network = recurrent.imitation(weeks, seed=args.seed)
        elif args.by == "imitation":
            network = learners.imitation(weeks, seed=args.seed)
        else:
            parts = learners.Parts(args.exploration, int(args.history), args.safety, args.replay, steps=args.steps, seed=args.seed)
            network = getattr(learners, args.by)(weeks, parts, prepared.weeks("validation"))
    network.save(args.out)
    ladder = build(
        prepared, period=args.period, most=args.weeks or None, steps=["mpc"], learnt=[(Learnt(network, args.by), "learnt", "ridge")]
    )
    rows = {name: ladder.row(name) for name in (args.by, "mpc")}
    told = {"out": args.out, "share_of_foresight": rows[args.by].share, "share_of_mpc": rows["mpc"].share, "missed": rows[args.by].missed}
    if args.json:
        print(json.dumps(told, allow_nan=False))
    else:
        shown = ["-" if share is None else f"{share:.3f}" for share in (told["share_of_foresight"], told["share_of_mpc"])]
        print(f"{args.out}: {args.by} reaches {shown[0]} of foresight's saving on {ladder.weeks} {args.period} weeks, planning {shown[1]}")
    return 0


def tree(args: argparse.Namespace) -> int:
    """Distil and print."""
    import json
    from pathlib import Path

    from dse.errors import UsageError
    from dse.operate import distil
    from dse.operate.answer import policy_of
    from dse.operate.ladder import RULES, build
    from dse.storage.run_folder import write_text

    name, learnt = policy_of(args.policy)
    writers = {".json": distil.json_text, ".c": distil.c_text, ".txt": distil.text}
    if args.out and Path(args.out).suffix not in writers:
        raise UsageError(f"out is {args.out!r}, must end in .json, .c or .txt")
    if not learnt and (RULES[name].make is None or RULES[name].mode != "sleep+clock"):
        raise UsageError(f"policy {name!r} cannot be distilled: it does not decide hour by hour; mpc or a learnt one can")
    prepared = _prepared(args, args.design, args.site)
    teacher = learnt[0][0] if learnt else RULES[name].make(name=name)  # type: ignore[misc]
    root = distil.fit(prepared.weeks("train", learnt[0][2] if learnt else RULES[name].forecast), teacher, depth=args.depth)
    rows = [*learnt, (distil.TreePolicy(root), f"tree of depth {root.depth} that was distilled from {name}", "ridge")]
    found = build(prepared, period=args.period, most=args.weeks or None, steps=[] if learnt else [name], learnt=rows)
    before, after = found.row(name).share, found.row("tree").share
    lost = None if not before or after is None else 1.0 - after / before
    if args.out:
        write_text(Path(args.out), writers[Path(args.out).suffix](root))
    if args.json:
        told = {
            "teacher": name,
            "depth": root.depth,
            "share_of_teacher": before,
            "share_of_tree": after,
            "lost": lost,
            "tree": root.to_dict(),
        }
        print(json.dumps(told, indent=2, allow_nan=False))
        return 0
    print(distil.text(root), end="")
    if lost is not None and before is not None and after is not None:
        print(f"on {found.weeks} {args.period} weeks: {name} {before:.3f} of foresight's saving, tree {after:.3f}: {100 * lost:.3g} % lost")
    return 0


def _prepared(args: argparse.Namespace, design: int | None, places: str) -> Any:
    from dse.errors import UsageError
    from dse.operate.device import of_run
    from dse.operate.scenario import DEADLINE_H, FLEXIBLE_SHARE, Scenario
    from dse.operate.serving_device import of_fleet
    from dse.operate.thermal import Thermal
    from dse.operate.weeks import Flexible
    from dse.storage.run_folder import load

    shares: dict[int, float] = {}
    for word in args.flexible or [f"{DEADLINE_H}:{FLEXIBLE_SHARE}"]:
        hours, _, share = word.partition(":")
        try:
            shares[int(hours)] = float(share)
        except ValueError:
            raise UsageError(f"flexible is {word!r}, must be HOURS:SHARE; nearest is '24:0.3'") from None
    batches = lists.numbers("batches", args.batches, int, "1,4") if args.batches else []
    record = load(args.run_folder)
    of_record = of_fleet if record.problem.kind == "fleet" else of_run
    device = of_record(record, design, batches=batches, latency_limit_s=args.latency_limit, sleep_share=args.sleep_share)
    return Scenario(
        device,
        tuple(place.strip() for place in places.split("+")),
        chips=args.chips,
        rate_per_s=args.rate,
        flexible=Flexible.of(shares),
        trace_file=args.trace,
        pue=args.pue,
        utilisation_cap=args.utilisation_cap,
        seed=args.seed,
        thermal=Thermal.of(args.temperature) if args.temperature else None,
    ).prepared()


def _head(found: dict[str, Any]) -> None:
    for site in found["sites"]:
        print(f"{found['device']}: {found['chips']} chips at {site['site']}, {site['grid']} ({site['mean_gco2e_per_kwh']:.4g} g/kWh; "
              f"{site['grid_source']})")  # fmt: skip
        if site["grid_note"].startswith("careful"):
            print(f"  {site['grid_note']}")
        print(f"  load: {site['load']}, mean {site['mean_requests_per_s']:.4g} requests/s")
    if "temperature" in found:
        heat = found["temperature"]
        print(f"  at most {heat['limit_c']:g} C; {heat['ambient_c']:g} C without power, {heat['k_per_kw']:g} K a kW, time constant "
              f"{heat['time_constant_h']:g} h: {heat['sustained_kw']:.4g} kW for good")  # fmt: skip
    print(
        f"{found['weeks']} weeks of the {found['period']} period; shares are of what foresight saves over running now with sleep and clock"
    )


def _foot(found: dict[str, Any]) -> None:
    print(f"foresight saves {100 * found['foresight_saving']:.3g} % over running now; {found['policy']}: {found['grams']:.5g} gCO2e")
    for site, skill in found["forecast_skill"].items():
        print(f"forecast of {site}: error {100 * skill['mape']:.3g} % of the mean, {100 * skill['over_timetable']:.3g} % less than the "
              f"timetable's, rank correlation {skill['rank']:.2f}")  # fmt: skip
    row = next(row for row in found["ladder"] if row["name"] == found["policy"])
    if "hottest_c" in row:
        print(f"highest temperature: {row['hottest_c']:.4g} C; of the whole ladder {max(r['hottest_c'] for r in found['ladder']):.4g} C")
    if not found["deadlines_promised"]:
        print("load or arrivals left their declared envelope: deadlines are not promised")
    for note in found["device_notes"]:
        print(f"note: {note}")
