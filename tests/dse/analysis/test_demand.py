"""Which fleet is recommended, against fronts whose answer follows from docs/recommendation.md by hand."""

import dataclasses
from types import ModuleType
from typing import Any

from dse.analysis.demand import ASKED, MOST, demand
from dse.analysis.recommendation import NEAREST, recommend
from dse.problem.objectives import Constraint, Objective
from dse.problem.problem import FLEET

GOODPUT, GRAMS = Objective("max", "goodput_per_s"), Objective("min", "gco2e_per_request")


def front(
    factories: ModuleType,
    rows: list[tuple[float, float]],
    bounds: tuple[Constraint, ...] = (),
    objectives: Any = (GOODPUT, GRAMS),
    **limits: float,
) -> Any:
    """A front of (good requests a second, grams a request), most goodput first, as a search for fleets orders it."""
    run = factories.make_run(len(rows))
    problem = dataclasses.replace(
        run.problem, objectives=objectives, constraints=bounds, kind=FLEET, request={"limits": limits, "region": "", "settings": {}}
    )
    for replicas, (design, (good, grams)) in enumerate(zip(run.designs, rows, strict=True), start=1):
        design["knobs"] = {"hw": "h100", "tp": 2, "weight_bits": 16, "max_sequences": 64, "replicas": replicas}
        design["metrics"] = {"goodput_per_s": good, "gco2e_per_request": grams, "chips": 2.0 * replicas + 1}
        design["quality_support"] = None
    return dataclasses.replace(run, problem=problem, context={})


ROWS = [(20.0, 9.0), (19.9, 3.0), (19.0, 1.0)]


def test_what_is_asked_is_served_at_the_least_grams(factories: ModuleType) -> None:
    # All three keep the share that was asked; the nearest to the best of both would be the middle one.
    found = recommend(front(factories, ROWS, (Constraint("goodput_share", ">=", 0.95),), ttft_s=0.5))
    assert (found.design, found.rule, found.runner_up) == (3, ASKED, 2)
    assert found.reason == (
        "serves what was asked (ttft_ms<=500, goodput_share>=0.95) with the least gco2e_per_request; "
        "5 % more goodput_per_s is to be had for 9 times the gco2e_per_request"
    )
    assert found.why == "7 chips stand, 1 of them an idle spare"  # three replicas of two, and one
    assert found.toml == "designs/design-0003.toml"


def test_where_nothing_is_asked_one_per_cent_of_goodput_is_the_same(factories: ModuleType) -> None:
    found = recommend(front(factories, ROWS))
    assert (found.design, found.rule, found.runner_up) == (2, MOST, 1)  # 19.9 is within 1 % of 20, 19 is not
    assert found.reason.startswith("within one per cent of the most goodput, and of these with the least gco2e_per_request")


def test_several_costs_are_weighed_among_fleets_that_serve(factories: ModuleType) -> None:
    chips = Objective("min", "chips")
    run = front(factories, ROWS, (Constraint("goodput_per_s", ">=", 18.0),), (GOODPUT, GRAMS, chips))
    # Grams 9, 3, 1 and chips 3, 5, 7 by their logarithms over their ranges: (1, 0), (.5, .60), (0, 1); squares 1, .61, 1.
    assert recommend(run).design == 2


def test_other_searches_have_no_demand(factories: ModuleType) -> None:
    run = front(factories, ROWS, objectives=(GRAMS,))
    assert demand(run.problem, run.designs) is None
    assert demand(factories.make_run(3).problem, factories.make_run(3).designs) is None
    other = front(factories, ROWS)
    assert recommend(dataclasses.replace(other, problem=dataclasses.replace(other.problem, kind="loop"))).rule == NEAREST
