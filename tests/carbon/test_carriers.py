"""Carriers of packages (3D stacks, EMIB bridges, interposers, RDL) worked out by hand from the methods' constants.

ECO-CHIP (Sudarshan et al., HPCA 2024) and 3D-Carbon (Zhao et al., arXiv:2307.08060); the constants are those of carbon/data/packaging.csv.
"""

import pytest

from carbon.embodied import packaging, yields
from carbon.factors.values import Values

INTENSITY = 0.5  # kgCO2e/kWh
SILICON, TOTAL, LARGEST, JOINED = 10.0, 300.0, 100.0, 3.0


def _parts(kind: str, **options: float) -> dict[str, float]:
    found = packaging.assemble(
        Values(), kind, silicon_kgco2e=SILICON, total_mm2=TOTAL, largest_mm2=LARGEST, joined=JOINED, ci_g_per_kwh=500.0, **options
    )
    good = 0.99**JOINED  # one bond a die
    assert float(found.bonding_yield) == pytest.approx(good)
    return {name: float(part) * good if name in ("carrier", "bonding") else float(part) for name, part in found.parts.items()}


def test_a_stack_loses_the_silicon_of_its_vias() -> None:
    """Vias of 5 um at a pitch of 25 um take 4 % of every die but one; 0.25 kWh bond each cm2 of a further die."""
    parts = _parts("3d")
    assert parts["carrier"] == pytest.approx(0.2**2 * SILICON * 2 / 3)
    assert parts["bonding"] == pytest.approx(0.25 * 1.0 * 2 * INTENSITY)


def test_bridges_are_small_dies_without_transistors() -> None:
    """A bridge between neighbours: 25 mm2 at 22 nm with the metal's share of a wafer's carbon and a quarter of its defects."""
    values = Values()
    epa, gas, material, beol, d0 = (
        float(values.fab(name, 22.0))
        for name in ("epa_kwh_cm2", "gpa_97_kgco2e_cm2", "mpa_kgco2e_cm2", "beol_fraction_ecochip", "d0_ecochip_per_cm2")
    )
    good = float(yields.negative_binomial(25.0, d0 / 4))
    bridge = float(yields.wafer_share_mm2(25.0)) / 100 * (INTENSITY * epa + gas + material) * beol / good
    parts = _parts("emib")
    assert parts["carrier"] == pytest.approx(2 * bridge)
    assert parts["bonding"] == pytest.approx(2 * 0.25 * 0.09 * INTENSITY)
    assert _parts("emib", bridges=5.0)["carrier"] == pytest.approx(5 * bridge)


@pytest.mark.parametrize(("kind", "active"), [("interposer", False), ("active_interposer", True)])
def test_an_interposer_is_a_die_of_old_silicon(kind: str, active: bool) -> None:
    """1.1 x the dies at 65 nm: 1.2 kWh, 0.1 kg of gas and 0.25 kg of material a cm2; without transistors the metal's share alone, and a
    quarter of the defects.
    """
    values = Values()
    beol, d0, alpha = (float(values.fab(name, 65.0)) for name in ("beol_fraction_ecochip", "d0_ecochip_per_cm2", "alpha_ecochip"))
    area = 1.1 * TOTAL
    good = float(yields.negative_binomial(area, d0 if active else d0 / 4, alpha))
    made = float(yields.wafer_share_mm2(area)) / 100 * (INTENSITY * 1.2 + 0.1 + 0.25) * (1 if active else beol) / good
    parts = _parts(kind)
    assert parts["carrier"] == pytest.approx(made)
    assert parts["bonding"] == pytest.approx(area / 100 * 0.09 * INTENSITY)


def test_a_redistribution_layer_is_larger_than_its_dies() -> None:
    """1.2 x the dies, 1.1 kWh a cm2 over a yield of (1 + A D0 / 3)^-3 with 0.05 defects a cm2."""
    area = 1.2 * TOTAL
    good = (1 + area / 100 * 0.05 / 3) ** -3
    assert _parts("rdl")["carrier"] == pytest.approx(area / 100 * 1.1 * INTENSITY / good)


def test_what_a_failed_bond_and_a_failed_test_lose() -> None:
    """All silicon on the carrier over the bonds that hold; a package that fails its test takes everything with it."""
    good = 0.99**JOINED
    parts = _parts("3d")
    assert parts["bonding_loss"] == pytest.approx(SILICON * (1 / good - 1))
    tested = _parts("3d", test_yield=0.8)
    spent = SILICON + sum(part / good if name in ("carrier", "bonding") else part for name, part in parts.items())
    assert tested["test_loss"] == pytest.approx(spent * 0.25)


@pytest.mark.parametrize("kind", ["monolithic", "mcm", "3d", "emib", "rdl", "interposer", "active_interposer"])
def test_a_substrate_is_larger_than_what_stands_on_it(kind: str) -> None:
    """1.2 x the footprint at 0.135 kWh a cm2; the footprint of a stack is its largest die, of all others the dies side by side."""
    footprint = LARGEST if kind == "3d" else TOTAL
    found = packaging.assemble(Values(), kind, silicon_kgco2e=1.0, total_mm2=TOTAL, largest_mm2=LARGEST, joined=JOINED, ci_g_per_kwh=500.0)
    assert float(found.parts["substrate"]) == pytest.approx(1.2 * footprint / 100 * 0.135 * INTENSITY)
