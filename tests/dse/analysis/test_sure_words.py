"""What "how sure" says beside the share: whose factors were drawn, a design that more draws name, what the other profile names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import api
from dse.analysis import sureness
from dse.analysis.recommendation import Front
from dse.reports.explanation_text import knob_text


@pytest.fixture(scope="module")
def own_buffers(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    from dse.cli import main

    folder = tmp_path_factory.mktemp("sure")
    assert main(["init", "accelerator", str(folder / "my.toml")]) == 0
    return api.search("bert", hw=folder / "my.toml", vary={"glb_mib": [1, 2, 4]}, out=folder / "run")


def test_a_design_that_more_draws_name_is_told(own_buffers: api.Run) -> None:
    found = own_buffers.recommend()
    assert found.kept_share is not None and found.ahead is not None and found.ahead_share is not None
    assert found.ahead != found.design and found.ahead_share > found.kept_share
    assert f"design {found.ahead} is named in more of them" in found.sure_text
    assert "named in more" not in replace(found, ahead=None).sure_text


def test_the_profile_is_told_and_what_the_other_one_names(own_buffers: api.Run) -> None:
    found = own_buffers.recommend()
    assert found.carbon_profile == "act2" and "within carbon profile act2" in found.sure_text
    by_other = api.search("bert", hw=own_buffers.path.parent / "my.toml", vary={"glb_mib": [1, 2, 4]}, carbon_profile="default",
                          out=own_buffers.path.parent / "other").recommend()  # fmt: skip
    entry = own_buffers.entry(found.other_profile_design or 0)
    assert found.other_profile == "default" and entry is not None
    assert dict(entry["knobs"]) == dict(by_other.knobs)


def test_a_choice_of_devices_is_as_sure_as_the_weaker_draws(tmp_path: Path) -> None:
    fixed = {"new_tokens": 32, "sequence": 128}
    run = api.search("llama3.2-1b", "min:total_kgco2e", hw="h100,l40s,b200", fixed=fixed, rate_per_s=0.5, out=tmp_path / "run")
    found, order = run.recommend(), run.device_order()
    assert order is not None and found.device == order.devices[0] == run.designs[0]["knobs"]["device"]
    assert found.device_share == order.least[0] and found.device_settled == (order.least[0] >= 0.95)
    unsure = replace(found, device_share=0.61, device_settled=False)
    assert unsure.sure_text.startswith("not settled: 61 % of draws that also move each device's latency and energy")
    assert "with those held, " in unsure.sure_text and "(quality, latency and energy held)" not in unsure.sure_text
    both = api.search("llama3.2-1b", ["min:total_kgco2e", "min:latency_s"], hw="h100,l40s", fixed=fixed, out=tmp_path / "both")
    assert both.recommend().device_share is None  # a choice that carbon alone does not make


def test_a_recommendation_is_a_card(own_buffers: api.Run) -> None:
    found = replace(own_buffers.recommend(), reason="a <b> & c")
    card = found._repr_html_()
    assert "a &lt;b&gt; &amp; c" in card and "how sure" in card and card.count("<div") == card.count("</div>")


def test_explanations_name_knobs_as_they_were_asked_for(own_buffers: api.Run) -> None:
    told = knob_text(own_buffers, own_buffers.designs[0]["design"])
    assert "glb_mib=" in told and "glb_bytes" not in told


def test_without_contenders_the_answers_are_told_to_be_of_the_front_alone(own_buffers: api.Run) -> None:
    found = own_buffers.recommend()
    assert found.contenders_kept and not any("were not kept" in line for line in found.warnings)
    left = {name: value for name, value in own_buffers.context.items() if name not in ("contenders", "recommendation")}
    bare = replace(own_buffers, context=left).recommend()
    told = "Designs of equal quality beside this front were not kept, so how sure and what would change speak of this front alone"
    assert bare.kept_share is not None and bare.contenders_kept is False and bare.to_dict()["contenders_kept"] is False
    assert any(line.startswith(told) for line in bare.warnings) and f"careful: {told}" in str(bare) and told in bare._repr_html_()


def test_one_design_alike_of_many_is_no_front_of_one(own_buffers: api.Run) -> None:
    left = {name: value for name, value in own_buffers.context.items() if name not in ("contenders", "recommendation")}
    designs = [{**d, "metrics": {**d["metrics"], "quality_se": 1e-9}} for d in own_buffers.designs]
    found = replace(own_buffers, context=left, designs=designs).recommend()
    assert found.alone and found.front_designs > 1
    assert f"not told: of the {found.front_designs} designs of the front that differ it alone has a quality within" in str(found)
    assert "the front is this one design" in str(replace(found, front_designs=1))


def test_a_last_digit_changes_nothing(own_buffers: api.Run) -> None:
    """A twin that costs a last bit less is no other choice; one that costs a millionth less is."""
    run = replace(own_buffers, context={**own_buffers.context, "contenders": {"of": "all", "designs": []}})
    own, front = run.entry(run.recommend().design or 0), Front.of(run)
    assert own is not None
    for share, told in ((1e-16, 0), (1e-6, 1)):
        twin = {**own, "design": 900, "metrics": {**own["metrics"], "total_kgco2e": own["metrics"]["total_kgco2e"] * (1.0 - share)}}
        case = sureness._Case(run, front, [own, twin], [], weighed=False)
        totals = {"total_kgco2e": np.array([[own["metrics"]["total_kgco2e"], np.nextafter(twin["metrics"]["total_kgco2e"], 0.0)]])}
        assert case.choose(totals, np.ones((1, 2), dtype=bool), own=0)[0] == told
        assert case.choose(totals, np.ones((1, 2), dtype=bool))[0] == 1
