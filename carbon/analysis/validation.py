"""What the estimator is held against: outputs of the peers, published footprints, closed facts. ``dse carbon validate``.

Peer outputs live in ``tests/reference/carbon`` of the source tree; published products with their inputs in the package data.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from carbon.analysis import estimate, metrics
from carbon.device import device, ecochip
from carbon.embodied import act as embodied
from carbon.embodied import boavizta, packaging, threedcarbon, yields
from carbon.errors import CarbonError
from carbon.factors import tables as factors
from carbon.operational import llm
from carbon.operational import service as operational


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the validation table: what, how many rows, the measured figure, the goal, and whether it holds.

    ``passed`` is None for a line that informs only (no goal was set for it).
    """

    name: str
    rows: int
    measured: str
    goal: str
    passed: bool | None


@dataclass(frozen=True, slots=True)
class Product:
    """A published footprint beside the estimate: inputs are in the specification."""

    name: str
    group: str
    published_kgco2e: float
    estimate_kgco2e: float
    p5: float
    p50: float
    p95: float
    calibration: bool
    status: str
    boundary: str
    source: str

    @property
    def inside(self) -> bool:
        """Whether the published figure lies between p5 and p95."""
        return self.p5 <= self.published_kgco2e <= self.p95


def reference_folder(given: str | Path | None = None) -> Path:
    """Return the folder of the peers' outputs: the given one, that of the source tree, or that below the working folder.

    Raises:
        CarbonError: none of them holds the tables.
    """
    tried = [Path(given)] if given is not None else []
    if given is None:
        tried = [base / "tests" / "reference" / "carbon" for base in (Path(__file__).resolve().parents[2], Path.cwd())]
    for folder in tried:
        if (folder / "ref_act_logic.csv").is_file():
            return folder
    raise CarbonError(f"reference tables are not in {tried[-1]}; give the folder tests/reference/carbon of the source tree")


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO((folder / name).read_text(encoding="utf-8"))))
    except OSError as problem:
        raise CarbonError(f"reference table {name} cannot be read: {problem.strerror}") from None


def _worst(pairs: Iterable[tuple[float, float]]) -> tuple[float, int]:
    """Largest relative error and how many pairs there were; zero expected means zero needed."""
    worst, count = 0.0, 0
    for found, expected in pairs:
        count += 1
        worst = max(worst, abs(found - expected) / abs(expected) if expected else abs(found))
    return worst, count


def _exact(name: str, pairs: Iterable[tuple[float, float]], goal: float) -> Check:
    worst, count = _worst(pairs)
    return Check(name, count, f"max relative error {worst:.1e}", f"<= {goal:.0e}", worst <= goal)


def _device(profile: str, **inputs: Any) -> float:
    return float(device.device_embodied(profile, **inputs).embodied_kgco2e)


def act_checks(folder: Path) -> list[Check]:
    """ACT v2: logic, memory and storage, operation, boards (profile act2)."""
    logic = [
        (
            _device(
                "act2",
                area_mm2=float(row["area_mm2"]),
                node_nm=row["node"],
                fab_grid=row["fab_ci"],
                abatement_pct=float(row["gpa_abatement_pct"]),
                fab_yield=float(row["fab_yield"]),
                n_ics=float(row["n_ics"]),
            ),
            float(row["total_kgco2"]),
        )
        for row in _rows(folder, "ref_act_logic.csv")
    ]
    stored = []
    for row in _rows(folder, "ref_act_memory_storage.csv"):
        of = row["kind"]
        kind = factors.memory(row["process"], source_id="act") if of == "dram" else factors.storage(of, row["process"])
        kg = embodied.capacity(float(row["capacity_gb"]), kind.per_gb.value, float(row["fab_yield"]))
        stored.append((float(kg + embodied.ic_packaging(float(row["n_ics"]))), float(row["total_kgco2"])))
    operation = [
        (
            float(
                operational.power_hours(
                    float(row["op_power_w"]),
                    duty_cycle=float(row["duty_cycle"]),
                    lifetime_years=float(row["lifetime_year"]),
                    gco2e_per_kwh=float(row["ci_g_per_kwh"]),
                )
            ),
            float(row["total_kgco2"]),
        )
        for row in _rows(folder, "ref_act_op.csv")
    ]
    boards = [
        (float(embodied.pcb_act(float(row["area_cm2"]), float(row["layers"]))), float(row["total_kgco2"]))
        for row in _rows(folder, "ref_act_pcb.csv")
    ]
    return [
        _exact("ACT v2 logic", logic, 1e-12),
        _exact("ACT v2 memory and storage", stored, 1e-12),
        _exact("ACT v2 operation", operation, 1e-12),
        _exact("ACT v2 boards (known slip of units, kept)", boards, 1e-12),
    ]


@cache
def ecochip_cases() -> dict[str, tuple[tuple[ecochip.Chiplet, ...], str]]:
    """ECO-CHIP's public test cases: name -> chiplets and note (ASU-VDA-Lab/ECO-CHIP@fe998d9 testcases, BSD-3)."""
    text = resources.files("carbon").joinpath("data", "ecochip_cases.toml").read_text(encoding="utf-8")
    found = {}
    for case in tomllib.loads(text)["case"]:
        total = sum(chiplet["area_mm2_at_7nm"] for chiplet in case["chiplet"])
        chiplets = tuple(
            ecochip.Chiplet(
                chiplet["name"],
                chiplet["type"],
                chiplet["area_mm2_at_7nm"],
                chiplet["node_nm"],
                case["power_w"] * chiplet["area_mm2_at_7nm"] / total,
            )
            for chiplet in case["chiplet"]
        )
        found[case["name"]] = (chiplets, case["note"])
    return found


def ecochip_checks(folder: Path) -> list[Check]:
    """ECO-CHIP: yields, dies with waste, every part of its test cases."""
    rates = [
        (
            float(yields.negative_binomial(float(row["area_mm2"]), float(row["d0_per_cm2"]), float(row["alpha"]))),
            float(row["yield_negbin"]),
        )
        for row in _rows(folder, "ref_ecochip_yield.csv")
    ]
    dies = [
        (
            _device("ecochip", area_mm2=float(row["area_mm2"]), node_nm=row["node"], wafer_mm=float(row["wafer_mm"])),
            float(row["die_with_waste_g"]) / 1000.0,
        )
        for row in _rows(folder, "ref_ecochip_die.csv")
    ]
    cases = []
    for row in _rows(folder, "ref_ecochip_cases.csv"):
        part = ecochip.system(ecochip_cases()[row["testcase"]][0], row["package"])[row["part"]]
        found = {
            "manufacture": part.manufacture_kgco2e,
            "design": part.design_kgco2e,
            "operational": part.operational_kgco2e,
            "total": part.total_kgco2e,
        }[row["kind"]]
        cases.append((found, float(row["kgco2"])))
    return [
        _exact("ECO-CHIP yields", rates, 1e-12),
        _exact("ECO-CHIP dies with waste", dies, 1e-12),
        _exact("ECO-CHIP test cases (5 packages, all parts)", cases, 1e-9),
    ]


def other_peer_checks(folder: Path) -> list[Check]:
    """3D-Carbon dies, ecologits requests, codecarbon conversions, boaviztapi components, SCI's worked example."""
    dies = []
    for row in _rows(folder, "ref_3dcarbon_die.csv"):
        one = threedcarbon.die(float(row["area_mm2"]), row["node"], d0_per_cm2=float(row["d0_per_mm2"]) * 100.0, alpha=float(row["alpha"]))
        dies.append((float(one.die_kgco2e + one.package_kgco2e), float(row["total_g"]) / 1000.0))
    requests = []
    for row in _rows(folder, "ref_ecologits_llm.csv"):
        answer = llm.request(
            float(row["active_b"]),
            float(row["total_b"]),
            float(row["out_tokens"]),
            gco2e_per_kwh=float(row["mix_gwp_kg_kwh"]) * 1000.0,
            pue=float(row["pue"]),
            batch=float(row["batch"]),
            bits=float(row["bits"]),
            water_mix_l_per_kwh=float(row["mix_wue"]),
            wue_l_per_kwh=float(row["dc_wue"]),
        )
        requests += [
            (float(answer.energy_kwh), float(row["energy_kwh"])),
            (float(answer.total_kgco2e), float(row["gwp_total_kg"])),
            (float(answer.embodied_kgco2e), float(row["gwp_embodied_kg"])),
            (float(answer.water_l), float(row["water_l"])),
        ]
    share = metrics.embodied_share(1000.0, hours=1.0, lifetime_years=4.0) * 1000.0
    return [
        _exact("3D-Carbon dies with package", dies, 1e-9),
        _exact("ecologits requests (energy, carbon, embodied, water)", requests, 1e-12),
        Check("SCI worked example", 1, f"{share:.4f} g", "28.5 g", round(share, 1) == 28.5),
        boavizta_check(folder),
    ]


def boavizta_check(folder: Path) -> Check:
    """boaviztapi components with published formulas; its GPUs are left out (facts say why)."""
    wrong, count = [], 0
    for row in _rows(folder, "ref_boaviztapi.csv"):
        found = boavizta.component(row["endpoint"], row["request"])
        if found is None:
            continue
        count += 1
        if f"{found:.4g}" != f"{float(row['gwp_embedded_kg']):.4g}":
            wrong.append(f"{row['case']}: {found:.4g} for {row['gwp_embedded_kg']}")
    text = "all equal to 4 digits" if not wrong else "; ".join(wrong)
    return Check("boaviztapi components (without its GPUs)", count, text, "4 significant digits", not wrong)


def crossover(defect_densities: Any, *, package: str = "rdl", chiplets: int = 4, area_mm2: float = 814.0) -> tuple[Any, Any]:
    """Return the carbon of one die and of the same area in chiplets over defect densities (per cm2), default profile, 5 nm."""
    d0 = np.asarray(defect_densities, dtype=np.float64)
    whole = device.device_embodied("default", area_mm2=area_mm2, node_nm=5, d0_per_cm2=d0).embodied_kgco2e
    part = packaging.split_area(area_mm2, float(chiplets))
    split = device.device_embodied("default", area_mm2=part, node_nm=5, d0_per_cm2=d0, dies=chiplets, package=package)
    return whole, split.embodied_kgco2e


def crossover_check() -> Check:
    """Chiplets against one die of 814 mm2: where the order turns."""
    d0 = np.linspace(0.01, 0.4, 391)
    whole, split = crossover(d0)
    wins = split < whole
    holds = bool(not wins[0] and wins[-1] and np.diff(wins.astype(int)).min() >= 0)
    at = float(d0[np.argmax(wins)])
    return Check(
        "814 mm2 at 5 nm against 4 chiplets (fan-out)", d0.size, f"one die below D0 = {at:.3f} /cm2, chiplets above",
        "one die wins at low D0, chiplets at high", holds,
    )  # fmt: skip


def products(draws: int = 20000) -> list[Product]:
    """Return every published footprint of the package beside its estimate under the default profile."""
    text = resources.files("carbon").joinpath("data", "validation.toml").read_text(encoding="utf-8")
    found = []
    for item in tomllib.loads(text)["product"]:
        answer = estimate.estimate({**item["spec"], "uncertainty": {"draws": draws}})
        found.append(_product(item, answer))
    return found


def servers(draws: int = 4000) -> list[Product]:
    """Return Dell's server totals (no breakdown published) beside the estimate: a sanity band, not a goal."""
    found = []
    for row in factors.table("validation_servers"):
        cpus, gb = float(row["cpus"]), float(row["memory_gb"])
        server = {
            "name": "server",
            "system": "server",
            "cpu_packages": cpus,
            "memory_type": "ddr4",
            "memory_gb": gb,
            "memory_modules": max(1.0, gb // 16.0),
            "memory_year": 2017,
            "hdds": float(row["hdds"]),
            "storage_gb": float(row["ssd_gb"]),
            "storage_drives": float(row["ssds"]),
            "storage_year": 2017,
        }
        cpu = {"name": "cpu", "count": cpus, "area_mm2": [325.0, 485.0, 694.0], "node_nm": 14}
        spec = {"component": [server, cpu], "uncertainty": {"draws": draws}}
        item = {
            "name": row["product"],
            "group": "server total",
            "published_kgco2e": float(row["published_kgco2e"]),
            "calibration": False,
            "status": "primary or direct page read",
            "boundary": "manufacturing",
            "source": row["source"],
        }
        found.append(_product(item, estimate.estimate(spec)))
    return found


def _product(item: dict[str, Any], answer: estimate.Estimate) -> Product:
    return Product(
        name=item["name"],
        group=item["group"],
        published_kgco2e=float(item["published_kgco2e"]),
        estimate_kgco2e=answer.embodied_kgco2e,
        p5=float(answer.embodied.p5),
        p50=float(answer.embodied.p50),
        p95=float(answer.embodied.p95),
        calibration=bool(item["calibration"]),
        status=item["status"],
        boundary=item["boundary"],
        source=item["source"],
    )


def product_checks(listed: list[Product]) -> list[Check]:
    """H100 silicon and HBM, R740 memory, and the coverage of the ranges, by group."""
    by_name = {product.name: product for product in listed}
    silicon = by_name["NVIDIA H100 SXM: integrated circuits"]
    memory = by_name["NVIDIA H100 SXM: memory"]
    published = silicon.published_kgco2e + memory.published_kgco2e
    error = (silicon.estimate_kgco2e + memory.estimate_kgco2e) / published - 1.0
    dram = by_name["Dell R740: 12 x 32 GB DDR4"]
    dram_error = dram.estimate_kgco2e / dram.published_kgco2e - 1.0
    checks = [
        Check("H100 silicon + HBM (HBM is calibrated on it)", 1, f"{100 * error:+.1f} %", "within 35 %", abs(error) <= 0.35),
        Check("Dell R740 DRAM (density by date)", 1, f"{100 * dram_error:+.1f} %", "within 20 %", abs(dram_error) <= 0.20),
    ]
    for group in dict.fromkeys(product.group for product in listed):
        members = [product for product in listed if product.group == group and not product.calibration]
        if members:
            checks.append(_coverage(group, members))
    return checks


def _coverage(group: str, members: list[Product]) -> Check:
    inside = sum(product.inside for product in members)
    ratio = float(np.median([product.p95 / product.p5 for product in members]))
    measured = f"inside p5-p95: {inside} of {len(members)}, median p95/p5 {ratio:.2f}"
    name = f"products: {group}, calibration left out"
    if group != "breakdown":
        return Check(name, len(members), measured, "information", None)
    held = inside / len(members) >= 0.8 and ratio <= 4.0
    return Check(name, len(members), measured, ">= 80 % inside, median p95/p5 <= 4", held)


def everything(reference: str | Path | None = None, *, draws: int = 20000) -> tuple[list[Check], list[Product]]:
    """Return the whole table and the products behind it."""
    folder = reference_folder(reference)
    listed = products(draws)
    checks = [
        *act_checks(folder),
        *ecochip_checks(folder),
        *other_peer_checks(folder),
        crossover_check(),
        *product_checks(listed),
    ]
    return checks, listed
