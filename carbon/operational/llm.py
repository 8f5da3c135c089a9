"""Carbon of language-model requests by ecologits' regressions (ecologits 0.11.3, MPL-2.0: formulas as facts).

The regressions describe H100-class GPUs at a fixed batch of 64, count output tokens only and take embodied carbon as lump sums.
They are here to compare with; :mod:`carbon.operational.service` with a latency and energy of your own says more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carbon.arrays import Numeric, as_number
from carbon.factors.tables import item
from carbon.operational.water import operational_litres

#: Regressions: GPU energy of a token, Wh = alpha exp(beta B) P + gamma; its latency, s = alpha P + beta B + gamma.
ENERGY_ALPHA, ENERGY_BETA, ENERGY_GAMMA = 1.1665273170451914e-06, -0.011205921025579175, 4.052928146734005e-05
LATENCY_ALPHA, LATENCY_BETA, LATENCY_GAMMA = 0.0006785088094353663, 0.0003119310311688259, 0.019473717579473387
GPU_MEMORY_GB = 80.0
GPUS_PER_SERVER = 8.0
SERVER_KW = 1.2
LIFETIME_HOURS = 3.0 * 365.0 * 24.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request: energy at the wall, carbon of use, embodied share, total, and water if asked for."""

    gpus: Numeric
    latency_s: Numeric
    energy_kwh: Numeric
    use_kgco2e: Numeric
    embodied_kgco2e: Numeric
    total_kgco2e: Numeric
    water_l: Numeric


def request(
    active_parameters_b: Numeric,
    total_parameters_b: Numeric,
    output_tokens: Numeric,
    *,
    gco2e_per_kwh: Numeric,
    pue: Numeric = 1.2,
    batch: Numeric = 64.0,
    bits: Numeric = 16.0,
    water_mix_l_per_kwh: Numeric = 0.0,
    wue_l_per_kwh: Numeric = 0.0,
) -> Request:
    """Return the footprint of one request; arrays broadcast.

    Energy of a GPU and latency by the regressions above (B the batch, P active parameters in 1e9); GPUs =
    2^ceil(log2(ceil(1.2 P_total bits / 8 / 80))); server 1.2 kW for 8 GPUs; embodied 5700 kg a server and 273 kg a GPU over
    3 years, shared by the batch.

    Args:
        active_parameters_b, total_parameters_b: in 1e9. batch: requests served together. bits: of a weight.
        water_mix_l_per_kwh, wue_l_per_kwh: water of the electricity and of the data centre.
    """
    active = as_number("active_parameters_b", active_parameters_b, low=0.0, open_low=True)
    whole = as_number("total_parameters_b", total_parameters_b, low=0.0, open_low=True)
    tokens = as_number("output_tokens", output_tokens, low=0.0)
    together = as_number("batch", batch, low=1.0)
    width = as_number("bits", bits, low=1.0)
    overhead = as_number("pue", pue, low=1.0)
    intensity = as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0)
    memory_gb = 1.2 * whole * width / 8.0
    gpus = 2.0 ** np.ceil(np.log2(np.ceil(memory_gb / GPU_MEMORY_GB)))
    latency = tokens * (LATENCY_ALPHA * active + LATENCY_BETA * together + LATENCY_GAMMA)
    gpu_kwh = tokens * (ENERGY_ALPHA * np.exp(ENERGY_BETA * together) * active + ENERGY_GAMMA) / 1000.0
    server_kwh = latency / 3600.0 * SERVER_KW * (gpus / GPUS_PER_SERVER) / together
    it_kwh = server_kwh + gpus * gpu_kwh
    energy = overhead * it_kwh
    use = energy * intensity / 1000.0
    made = gpus / GPUS_PER_SERVER * item("ecologits_server_8gpu_without_gpus").value + gpus * item("ecologits_gpu").value
    embodied = latency / (LIFETIME_HOURS * 3600.0 * together) * made
    water = operational_litres(it_kwh, pue=overhead, wue_l_per_kwh=wue_l_per_kwh, mix_l_per_kwh=water_mix_l_per_kwh)
    return Request(gpus, latency, energy, use, embodied, use + embodied, water)
