"""The CLIP models of CATransformers' table 3 under its own profiles: total carbon beside the published figure."""

from __future__ import annotations

import json

import numpy as np
import pytest

import workloads
from dse import cli

# arXiv 2505.01386, table 3: kg; cores, width, depth, L2 KiB, L2 words a cycle, buffer MiB; layers, ffn, hidden, heads of text and image.
PUBLISHED = {
    "CLIP-B/16": (0.54, (1, 256, 8, 64, 128, 2), (12, 2048, 512, 8), (12, 3072, 768, 12)),
    "TinyCLIP-8M/16": (0.34, (2, 256, 4, 64, 32, 2), (3, 1024, 256, 4), (10, 1024, 256, 4)),
    "TinyCLIP-39M/16": (0.44, (1, 256, 8, 64, 128, 2), (6, 2048, 512, 8), (12, 2048, 512, 8)),
    "CarbonCLIP-XS": (0.32, (1, 256, 4, 64, 32, 2), (6, 1024, 284, 4), (6, 1536, 576, 6)),
    "CarbonCLIP-S": (0.36, (1, 256, 4, 64, 64, 2), (6, 1024, 512, 6), (8, 1920, 672, 6)),
    "CarbonCLIP-M": (0.39, (1, 256, 4, 64, 128, 2), (8, 1536, 512, 6), (9, 2304, 672, 6)),
    "CarbonCLIP-L": (0.42, (1, 256, 8, 64, 128, 2), (6, 1280, 384, 5), (10, 2688, 768, 7)),
    "CarbonCLIP-XL": (0.49, (1, 256, 8, 64, 128, 2), (12, 2048, 512, 4), (12, 3072, 768, 5)),
}
# The goal is 8 %; with the layers that the models have both TinyCLIPs are 9 % low, as that tool's released code is 7 % low on the larger.
ALLOWED = {"TinyCLIP-8M/16": 0.095, "TinyCLIP-39M/16": 0.095}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("counted_again", [0, 1])
def test_kilograms(name: str, counted_again: int, capsys: pytest.CaptureFixture[str]) -> None:
    """With the layers of the model, and as that tool counts them: one more a tower, with which all are within 8 %."""
    kg, hardware, text, image = PUBLISHED[name]
    knobs = dict(zip(("cores", "width", "depth", "l2_kib", "l2_words_per_cycle", "glb_mib"), hardware, strict=True))
    knobs |= dict(zip(("layers", "ffn", "hidden", "heads"), text, strict=True))
    knobs |= dict(zip(("vision_layers", "vision_ffn", "vision_hidden", "vision_heads"), image, strict=True))
    knobs |= {"head_dim": 64, "vision_head_dim": 64}
    for layers in ("layers", "vision_layers"):
        knobs[layers] += counted_again
    words = [
        "evaluate",
        "--workload",
        "clip-vit-b16",
        "--hw",
        "edge22",
        "--profile",
        "catransformers22",
        "--carbon-profile",
        "catransformers",
    ]
    # Its grids in g/kWh, and 30 million inferences at one a second.
    words += ["--fab-grid", "583", "--grid", "262.66632", "--rate", "1", "--lifetime-years", str(3e7 / (365.25 * 86400)), "--json"]
    assert cli.main(words + [part for knob, value in knobs.items() for part in ("--set", f"{knob}={value}")]) == 0
    found = json.loads(capsys.readouterr().out)["total_kgco2e"]
    assert abs(found / kg - 1) <= (0.08 if counted_again else ALLOWED.get(name, 0.08))


def test_a_pruned_head_takes_its_products_along() -> None:
    """Seven of twelve heads of 64 in the image tower: every projection and both products of attention shrink by 5 / 12."""
    family = workloads.load("clip-vit-b16")
    full, pruned = family.build(), family.build(vision_heads=7, vision_head_dim=64)
    tokens, gone = 197, 5 * 64
    assert full.macs() - pruned.macs() == 12 * (4 * tokens * 768 * gone + 2 * tokens * tokens * gone)
    assert full.parameter_count() - pruned.parameter_count() == 12 * (4 * 768 * gone + 3 * gone)
    both = family.build(vision_heads=np.array([12, 7]), vision_head_dim=np.array([0, 64]))
    assert [int(v) for v in both.macs()] == [full.macs(), pruned.macs()]
    assert family.build(vision_head_dim=64).macs() == full.macs()


@pytest.mark.parametrize(
    ("knobs", "told"), [({"vision_heads": 7}, "nearest is vision_hidden = 770"), ({"vision_head_dim": -1}, "vision_head_dim")]
)
def test_heads_that_do_not_divide_need_a_width(knobs: dict[str, int], told: str) -> None:
    with pytest.raises(workloads.WorkloadError, match=told):
        workloads.load("clip-vit-b16").build(**knobs)
