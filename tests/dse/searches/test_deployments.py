"""Sweeps whose designs and deployments are held apart: the bytes and counts of a plain sweep, and what they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dse
from dse import cli
from dse.errors import DseError, UsageError
from dse.evaluation.words import make_problem
from dse.searches import deployments, effort
from dse.spaces import sizes as limits
from hw_models.costs.residency import stored

# A part of edge22 that is mapped in a second.
FIXED = {"width": 64, "l2_kib": 256}
YEARS = [1.0, 2.0, 4.0]
CASES: dict[str, dict[str, Any]] = {
    "carbon, a grid without any": {"objective": "carbon", "vary": {"lifetime_years": YEARS, "grid": ["france", "india", "0"]}},
    "making and use": {
        "objective": ["min:kgco2e_per_request", "min:latency_s"],
        "carbon_profile": "default",
        "fixed": {**FIXED, "heads": 8, "hidden": 512},
        "vary": {"rate_per_s": [0.5, 9.0, 200.0], "fab_grid": ["taiwan", "usa"], "package": ["monolithic", "mcm"], "lifetime_years": YEARS},
    },
    "prices, one model on boards": {
        "objective": ["min:usd_per_request", "min:power_w", "max:quality"],
        "hw": "a100,h100",
        "fixed": {},
        "default_constraints": False,
        "vary": {"rate_per_s": [0.5, 30.0], "lifetime_years": [1.0, 5.0]},
    },
    "settings beside deployments, bounds on carbon": {
        "objective": ["min:embodied_kgco2e", "max:array_utilisation", "min:total_kgco2e"],
        "constraints": ["total_kgco2e<=4"],
        "fixed": {**FIXED, "heads": 8},
        "vary": {"node_nm": [22, 14], "fab_grid": ["taiwan", "usa", "30"], "rate_per_s": [0.5, 3.0]},
    },
}


def search(out: Path, **options: Any) -> Any:
    return dse.search("bert", options.pop("objective"), out=out, **{"fixed": FIXED, "threads": 2, **options})


# Several deployments a piece, and several pieces a deployment.
@pytest.mark.parametrize(("case", "piece"), [*((case, 1 << 14) for case in CASES), ("making and use", 100)])
def test_the_front_and_the_counts_of_a_plain_sweep(case: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search(tmp_path / "whole", **CASES[case])
    monkeypatch.setattr(limits, "EASY_POINTS", 1)
    monkeypatch.setattr(deployments, "_PIECE", piece)
    apart = search(tmp_path / "apart", **CASES[case])
    assert (apart.path / "pareto.csv").read_bytes() == (whole.path / "pareto.csv").read_bytes()
    assert vars(apart.summary) == vars(whole.summary)
    for name in ("models", "hardware_points", "shapes", "knob_ranges"):
        assert apart.context[name] == whole.context[name], name


def test_blocks_of_models_and_of_deployments_are_the_same_front(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem("bert", "carbon", fixed={**FIXED, "heads": 8}, vary={"lifetime_years": YEARS, "rate_per_s": [1.0, 2.0]})
    found = []
    for kept in (0, 1 << 21):
        monkeypatch.setattr(deployments, "_KEPT", kept)
        deployed = deployments.Deployed(problem, threads=1)
        blocks = [deployed.block(number, *bounds) for number, bounds in enumerate(deployed.bounds())]
        assert sum(block.points for block in blocks) == deployed.size
        assert [block.points for block in blocks] == [deployed.points_of(*bounds) for bounds in deployed.bounds()]
        front = deployments.merge([deployments.Front(b.front_models, b.front_hardware, b.front_values) for b in blocks], 2)
        found.append((len(blocks), front))
    assert found[0][0] != found[1][0]
    for name in ("models", "hardware", "values"):
        assert np.array_equal(getattr(found[0][1], name), getattr(found[1][1], name))


def test_constraints_of_a_space_file_and_a_resumed_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = tmp_path / "space.toml"
    space.write_text(
        'name = "own"\nconstraints = ["cores * width <= 256", "lifetime_years * rate_per_s <= 6"]\n'
        "[parameters.cores]\nvalues = [1, 2, 4]\n[parameters.width]\nvalues = [64, 128]\n"
        '[parameters.lifetime_years]\nrole = "deployment"\nvalues = [1, 2, 3, 4]\n'
        '[parameters.rate_per_s]\nrole = "deployment"\nvalues = [1, 2, 3]\n'
    )
    words = ["search", "--workload", "bert", "--space", str(space), "--set", "l2_kib=256", "--set", "heads=8", "--threads", "1"]
    assert cli.main([*words, "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(limits, "EASY_POINTS", 1)
    block, left = deployments.Deployed.block, [2]

    def dies(self: Any, *of: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return block(self, *of)

    monkeypatch.setattr(deployments.Deployed, "block", dies)
    assert cli.main([*words, "--out", str(tmp_path / "apart")]) == 130
    monkeypatch.setattr(deployments.Deployed, "block", block)
    assert cli.main(["resume", str(tmp_path / "apart")]) == 0
    assert (tmp_path / "apart" / "pareto.csv").read_bytes() == (tmp_path / "whole" / "pareto.csv").read_bytes()
    space.write_text(space.read_text().replace("lifetime_years * rate_per_s <= 6", "lifetime_years * rate_per_s <= 0.1"))
    assert cli.main([*words, "--out", str(tmp_path / "none")]) == 2


def test_a_front_that_the_space_does_not_have_is_told() -> None:
    deployed = deployments.Deployed(make_problem("bert-tiny", "carbon", fixed=FIXED, vary={"lifetime_years": YEARS}), mapped=False)
    beyond = deployments.Front(np.array([0]), np.array([deployed.hardware_count]), np.zeros((1, 2)))
    with pytest.raises(DseError, match="designs that its space has not"):
        deployed.evaluation_of(beyond)


def test_a_bound_that_no_deployment_meets_is_told_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EASY_POINTS", 1)
    many = {"rate_per_s": [float(rate) for rate in range(5, 50)]}
    with pytest.raises(DseError, match=r"no design of .* is feasible.* nearest, .*rate_per_s=5\.0"):
        search(tmp_path / "run", objective="carbon", fixed={**FIXED, "heads": 8, "hidden": 512}, vary=many, constraints=["power_w<=0.0001"])
    with pytest.raises(DseError, match="no mapping was needed"):
        search(tmp_path / "run", objective="carbon", vary=many, constraints=["embodied_kgco2e<=0.0001"])
    with pytest.raises(UsageError, match="block-points"):
        search(tmp_path / "run", objective="carbon", vary=many, block_points=5)


def test_a_thousand_million_designs_are_no_mapping_search_and_no_list() -> None:
    problem = make_problem(
        "bert-base",
        ["min:total_kgco2e", "min:latency_s"],
        vary={"lifetime_years": [1 + i / 10 for i in range(100)], "rate_per_s": [0.5 + i / 10 for i in range(85)]},
    )
    sizes = effort.sizes_of(problem)
    assert sizes.designs > 1_000_000_000
    assert sizes.apart
    assert sizes.sweepable
    assert sizes.bytes < 2**30
    # Deployments that a space file ties to the hardware cannot be listed apart.
    tied = (
        'name = "x"\nconstraints = ["cores * lifetime_years <= 8"]\n[parameters.cores]\nvalues = [1, 2]\n'
        '[parameters.lifetime_years]\nrole = "deployment"\nvalues = [1, 9]\n'
    )
    assert not effort.sizes_of(replace(problem, space="x", space_toml=tied)).apart


def test_what_a_sweep_would_take_is_mapped_each_time() -> None:
    """Its samples are of fewer designs than what is kept from another time, so that a search decides alike the first time and later."""
    assert effort._HARDWARE < stored._LEAST_DESIGNS
