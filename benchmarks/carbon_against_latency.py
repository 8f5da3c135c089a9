"""What designing for total carbon saves against designing for latency, at equal measured quality and within the same latency limit.

    python benchmarks/carbon_against_latency.py --measured runs/measured_search      # minilm from `measured_search.py run`; two tables

The published claim: models and accelerators optimised for carbon have "up to 30 %" less total carbon than those optimised for latency
(CATransformers, arXiv 2505.01386: 30 % against its latency mode, at equal accuracy and 7.7 times the latency).

Candidates are models whose quality was *measured*, each on every accelerator of the template edge22 (3,240; area, throughput and latency
bounds are its own): minilm pruned and healed (`measured_search.py`), the ViT of digits and the music decoder trained from scratch (tables
that ship). The latency design is the fastest of all designs whose model reaches the wanted quality; among equals it has the least carbon.
The carbon design has the least total carbon of all whose model is at least as good *as the latency design's model* and whose latency
keeps the limit.

Confidence: 1,000 draws. In each the quality of every model is drawn from its measured mean and standard error, both designs are chosen
anew by what was drawn, and the carbon of the two is that of one draw of the carbon factors from their ranges, shared by both (the choice
is made by the nominal factors: nobody knows the draw). Shown: median and 2.5 to 97.5 % of the saving.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

from dse.evaluation.evaluation import Evaluation, Space  # noqa: E402
from dse.evaluation.feasibility import feasible  # noqa: E402
from dse.evaluation.robustness import drawn, points_of  # noqa: E402
from dse.evaluation.words import make_problem  # noqa: E402
from dse.quality.music import music_quality  # noqa: E402
from dse.quality.trained.quality import trained_quality  # noqa: E402

DRAWS = 1000
RATES = (1.0, 10.0)  # requests a second over three years: the share of operation grows with it
METRICS = ("total_kgco2e", "embodied_kgco2e", "operational_kgco2e", "kgco2e_per_request", "latency_s")


@dataclass(frozen=True)
class Candidates:
    """Measured models of one workload: knobs as columns, quality and its standard error, the levels of quality that are asked for."""

    workload: str
    space: str
    knobs: Mapping[str, Any]
    quality: Any
    error: Any
    levels: tuple[float, ...]
    source: str


def of_minilm(folder: Path) -> Candidates:
    """Healed and measured models of the runs of `measured_search.py`."""
    from measured_search import measurements, runs_of

    found = measurements(runs_of(folder))
    names = [n for n in found[0]["parameters"] if n != "head_dim"]
    knobs = {n: np.array([t["parameters"][n] for t in found], dtype=np.int64) for n in names}
    quality, error = np.array([t["quality"] for t in found]), np.array([t["se"] for t in found])
    return Candidates("minilm", "pruned", knobs, quality, error, _levels(quality), f"{len(found)} models pruned, healed and measured")


def of_digits() -> Candidates:
    """Rows of the shipped table; figures between them are not used."""
    table = trained_quality("mnist").table
    count = len(table.cross_entropy)
    bits = np.repeat([8, 4], count)
    knobs = {n: np.tile(table.knobs[n].astype(np.int64), 2) for n in table.names} | {"weight_bits": bits}
    found = trained_quality("mnist").predict(**knobs)
    return Candidates("mnist-vit", "default", knobs, found.mean, found.standard_error, _levels(found.mean),
                      f"{count} trained models at 8 and 4 bits, shipped table")  # fmt: skip


def of_music() -> Candidates:
    """Groupings of the shipped table of trained decoders."""
    known = music_quality(several_tracks=True)
    keys = list(known.measured)
    knobs = {"grouping": np.array([g for g, _ in keys]), "bpe_vocabulary": np.array([b for _, b in keys])}
    knobs |= {"layers": np.full(len(keys), known.layers), "hidden": np.full(len(keys), known.hidden)}
    quality, error = (np.array([known.measured[k][i] for k in keys]) for i in (0, 1))
    return Candidates("music", "default", knobs, quality, error, _levels(quality), f"{len(keys)} trained decoders, shipped table")


def _levels(quality: Any) -> tuple[float, ...]:
    """The best quarter, the better half, everything but the worst quarter."""
    return tuple(float(np.quantile(quality, part)) for part in (0.75, 0.5, 0.25))


class Designs:
    """Every candidate on every accelerator: what is feasible, latency and carbon (models, points)."""

    def __init__(self, own: Candidates, rate: float) -> None:
        self.own = own
        self.problem = make_problem(own.workload, "carbon", space=own.space, keep_quality=True, rate_per_s=rate, residency="none",
                                    vary={"glb_mib": [2, 4, 8]})  # fmt: skip
        whole = Evaluation(self.problem, mapped=False).space
        knobs = {n: np.asarray(column, dtype=np.int64) for n, column in own.knobs.items()}
        if "head_dim" in whole.models and "head_dim" not in knobs:
            knobs["head_dim"] = np.full(len(own.quality), int(whole.models["head_dim"][0]))
        evaluation = Evaluation(self.problem, space=Space(knobs, whole.hardware, 0, whole.settings))
        block = evaluation.block(0, len(own.quality))
        self.feasible, _ = feasible(block, [c for c in self.problem.constraints if c.metric != "quality"])
        self.metrics = {n: np.array(np.broadcast_to(block.metric(n), block.shape)) for n in METRICS}
        self.hardware = whole.hardware

    def fastest(self, good: Any) -> tuple[int, int]:
        """Least latency of the models that are good, and of those the least carbon."""
        latency = np.where(self.feasible & good[:, None], self.metrics["latency_s"], np.inf)
        first = np.where(latency == latency.min(), self.metrics["total_kgco2e"], np.inf)
        return tuple(int(i) for i in np.unravel_index(np.argmin(first), first.shape))  # type: ignore[return-value]

    def cleanest(self, good: Any, limit_s: float) -> tuple[int, int]:
        """Least total carbon of the models that are good within a latency limit."""
        allowed = self.feasible & good[:, None] & (self.metrics["latency_s"] <= limit_s)
        total = np.where(allowed, self.metrics["total_kgco2e"], np.inf)
        return tuple(int(i) for i in np.unravel_index(np.argmin(total), total.shape))  # type: ignore[return-value]

    def pair(self, quality: Any, level: float, times: float | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """The latency design and the carbon design; ``times``: the limit over the former's latency (None: the problem's own bound)."""
        level = min(level, float(quality[self.feasible.any(1)].max()))  # a draw may leave no model at the level: then the best
        fast = self.fastest(quality >= level)
        limit = np.inf if times is None else times * self.metrics["latency_s"][fast]
        return fast, self.cleanest(quality >= quality[fast[0]], limit)

    def carbon(self, chosen: list[tuple[int, int]]) -> dict[tuple[int, int], Any]:
        """Total carbon of designs under each draw of the factors, (draws,) each; one seed, so that all meet the same draws."""
        designs = [
            {
                "knobs": {n: column[h].item() for n, column in self.hardware.items()},
                "metrics": {n: float(self.metrics[n][m, h]) for n in METRICS},
            }
            for m, h in chosen
        ]
        moved, _ = drawn(self.problem, designs, points_of(self.problem, designs), draws=DRAWS, seed=0)
        return {key: moved["total_kgco2e"][:, i] for i, key in enumerate(chosen)}


def compare(own: Candidates, rate: float) -> list[dict[str, Any]]:
    """The savings of one workload at one rate of requests."""
    designs = Designs(own, rate)
    rng = np.random.default_rng(0)
    quality = own.quality + own.error * rng.normal(size=(DRAWS, len(own.quality)))
    rows = []
    for level in own.levels:
        for times in (1.5, 4.0, None):
            nominal = designs.pair(own.quality, level, times)
            pairs = [designs.pair(row, level, times) for row in quality]
            carbon = designs.carbon(sorted({design for pair in (*pairs, nominal) for design in pair}))
            savings = np.array([1.0 - carbon[clean][i] / carbon[fast][i] for i, (fast, clean) in enumerate(pairs)])
            fast, clean = nominal
            total, latency = designs.metrics["total_kgco2e"], designs.metrics["latency_s"]
            row = {"workload": own.workload, "source": own.source, "rate_per_s": rate, "quality": level, "limit_times": times,
                   "saving": float(1.0 - total[clean] / total[fast]), "median": float(np.median(savings)),
                   "low": float(np.quantile(savings, 0.025)), "high": float(np.quantile(savings, 0.975)),
                   "latency_ratio": float(latency[clean] / latency[fast]), "latency_s": float(latency[fast]),
                   "embodied_share": float(designs.metrics["embodied_kgco2e"][fast] / total[fast]),
                   "quality_difference": float(own.quality[clean[0]] - own.quality[fast[0]])}  # fmt: skip
            rows.append(row)
            limit = "the bound of 50 ms" if times is None else f"{times:g} x"
            print(f"{own.workload:<10} {rate:>5g}/s  quality >= {level:7.4g}  limit {limit:<18}  saving {100 * row['saving']:5.1f} %  "
                  f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]  latency x {row['latency_ratio']:5.2f} of "
                  f"{1e3 * row['latency_s']:.3g} ms  "
                  f"embodied {100 * row['embodied_share']:.0f} %", flush=True)  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, help="folder of `measured_search.py run`; without it minilm is left out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    candidates = [of_digits(), of_music(), *([of_minilm(args.measured)] if args.measured else [])]
    found = [row for own in candidates for rate in RATES for row in compare(own, rate)]
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(0)
