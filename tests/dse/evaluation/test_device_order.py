"""The order of devices by carbon and how sure it is: paired draws, errors of each device, and through search and evaluate."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dse import api, cli
from dse.evaluation import device_order as order
from dse.evaluation.device_order import device_order
from hw_models.devices.accuracy import UNMEASURED, mean_error


def of(hw: str, **deployed: object) -> order.DeviceOrder | None:
    fixed = {"weight_bits": 16, "activation_bits": 16, "kv_bits": 16, "new_tokens": 32, "sequence": 128}
    return device_order(api.make_problem("llama3.2-1b", "hardware", hw=hw, fixed=fixed, allow_unsupported=True, **deployed))  # type: ignore[arg-type]


def test_an_order_and_its_shares() -> None:
    found = of("h100,l40s,b200", rate_per_s=0.5)
    assert found is not None
    assert list(found.total_kgco2e) == sorted(found.total_kgco2e)
    assert sum(found.least) == pytest.approx(1.0)
    for low, point, high in zip(found.p5, found.total_kgco2e, found.p95, strict=True):
        assert low < point < high
    for pair, (first, second) in zip(found.pairs, zip(found.devices, found.devices[1:], strict=False), strict=True):
        assert (pair.first, pair.second) == (first, second) and pair.settled == (pair.share >= order.SETTLED)
    # Whoever has the least in all draws precedes its neighbour in all draws; the whole order is no surer than any pair of it.
    assert found.whole <= min(pair.share for pair in found.pairs) + 1e-12


def test_draws_are_paired() -> None:
    """A board and another with the same figures but a little more of everything: with draws of factors of their own the order would be
    open; the same draw for both leaves their own errors only, and the first stays ahead more often than not."""
    alike = of("a100,a100-40gb")
    assert alike is not None
    spread = (alike.p95[0] - alike.p5[0]) / alike.total_kgco2e[0]
    gap = alike.total_kgco2e[1] / alike.total_kgco2e[0] - 1
    assert gap < spread / 2  # ranges that overlap nearly whole
    assert alike.pairs[0].share > 0.6


def test_far_apart_is_settled_and_the_same_seed_says_the_same() -> None:
    far = of("l4,b200", rate_per_s=0.01)
    assert far is not None and far.devices == ("l4", "b200") and far.pairs[0].settled and far.pairs[0].share > 0.99
    assert far == of("l4,b200", rate_per_s=0.01)


def test_devices_that_cannot_serve_are_named() -> None:
    problem = api.make_problem("llama3-8b", "hardware", hw="h100,b200", allow_unsupported=True, rate_per_s=50.0)
    found = device_order(problem)
    assert found is not None and set(found.cannot) | set(found.devices) == {"h100", "b200"}
    assert all("rate" in reason or "memory" in reason for reason in found.cannot.values())


def test_one_device_has_no_order() -> None:
    assert of("h100") is None and of("edge22") is None


def test_lognormal_errors_have_the_stated_mean() -> None:
    share = (np.arange(4000) + 0.5) / 4000
    assert np.abs(np.log(order._lognormal(share, 0.25))).mean() == pytest.approx(0.25, rel=0.01)


def test_errors_come_from_the_table() -> None:
    assert mean_error("h100") < mean_error("l40s") < 0.3
    assert mean_error("h100-pcie") == mean_error("h100")
    assert mean_error("mi300x") == mean_error("tpu-v5e") == UNMEASURED


def test_search_and_evaluate_print_it(tmp_path, capsys) -> None:
    words = ["--workload", "llama3.2-1b", "--hw", "h100,l40s", "--allow-unsupported"]
    assert cli.main(["evaluate", *words]) == 0
    assert "Devices by total carbon" in capsys.readouterr().out
    assert cli.main(["search", *words, "--objective", "min:total_kgco2e", "--out", str(tmp_path / "run"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["device_order"]
    assert set(told["devices"]) == {"h100", "l40s"} and told["draws"] == 1000
    assert "of 1,000 draws" in (tmp_path / "run" / "report.html").read_text()
