"""Stand-in data-centre problem: an inner hardware space of some 1e14 designs, exactly and differentiably costed.

Ten knobs of a multi-chip accelerator (chips, cores, array rows and columns, SRAM, HBM stacks, links, node, frequency,
voltage) serve one fixed transformer layer stack by tensor parallelism. The formulas are written once over an array namespace:
`costs(columns, numpy)` is exact (ceil, max), `costs(columns, torch, soft=True)` is the relaxation (ceil(x) -> x + 0.5,
max -> p-norm with p = 6) whose gradients torch gives.

The constants are plausible, not calibrated: the problem ranks search strategies and says nothing about real hardware.
Objectives: minimise embodied carbon, operational carbon, latency. Latency and operational carbon pull mostly the same way,
embodied carbon the other.
"""

CHIPS = [1, 2, 4, 8, 16, 32, 64]
SPACE = {
    "chips": ("power_of_two", CHIPS),
    "cores": ("log", list(range(2, 129, 2))),
    "rows": ("log", list(range(8, 257, 8))),
    "columns": ("log", list(range(8, 257, 8))),
    "sram_mib": ("log", list(range(4, 257, 4))),
    "hbm_stacks": ("log", [1, 2, 3, 4, 5, 6, 7, 8]),
    "links": ("log", list(range(1, 19))),
    "node_nm": ("log", [3.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0]),
    "frequency_ghz": ("linear", [round(0.4 + 0.04 * i, 2) for i in range(41)]),
    "voltage_v": ("linear", [round(0.5 + 0.02 * i, 2) for i in range(31)]),
}
LAYERS, HIDDEN, FFN, TOKENS = 48, 6144, 24576, 2048
LIFETIME_REQUESTS = 2.0e7
KGCO2_PER_J = 0.45 / 3.6e6
AREA_MAX_MM2 = 800.0
LATENCY_MAX_S = 2.0


def costs(columns, xp, soft=False):
    """Metrics of designs given as a dict of arrays: latency_s, energy_j, area_mm2 (a chip), power_w, timing, embodied,
    operational (kg CO2e)."""

    def ceil(x):
        return x + 0.5 if soft else xp.ceil(x)

    def most(*values):
        if not soft:
            out = values[0]
            for v in values[1:]:
                out = xp.maximum(out, v)
            return out
        total = 0.0
        scale = sum(values)
        for v in values:
            total = total + (v / scale) ** 6
        return scale * total ** (1 / 6)

    c = columns
    chips, cores, rows, cols = c["chips"], c["cores"], c["rows"], c["columns"]
    node, freq, volt = c["node_nm"], c["frequency_ghz"] * 1e9, c["voltage_v"]
    shrink = (node / 7.0) ** 1.6
    seconds = joules = 0.0
    for k, n in ((HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, FFN), (FFN, HIDDEN)):
        share = n / chips
        tiles = ceil(share / cols) * ceil(k / rows)
        cycles = ceil(tiles / cores) * (TOKENS + rows + cols)
        held = c["sram_mib"] * 2.0**20 / (2.0 * (k + share))
        rounds = ceil(TOKENS / held)
        dram = 2.0 * k * share * rounds + 2.0 * TOKENS * (k + share)
        link = 2.0 * TOKENS * n * (chips - 1.0) / chips
        seconds = seconds + most(cycles / freq, dram / (c["hbm_stacks"] * 8e11)) + link / (c["links"] * 5e10)
        macs = 1.0 * TOKENS * k * share
        sram = 2.0 * macs / cols + 2.0 * macs / rows
        dynamic = macs * 0.35e-12 * shrink**0.7 + sram * 0.8e-12 * (c["sram_mib"] / 32.0) ** 0.3
        joules = joules + dynamic * (volt / 0.75) ** 2 + dram * 32e-12 + link * 10e-12
    latency = LAYERS * seconds
    area = (
        cores * rows * cols * 7e-4 * shrink
        + cores * 0.15 * shrink
        + c["sram_mib"] * 0.45 * (node / 7.0) ** 1.1
        + c["hbm_stacks"] * 12.0
        + c["links"] * 3.0
    )
    leakage = area * 0.05 * (volt / 0.75) ** 3 / (node / 7.0) ** 0.3
    energy = chips * (LAYERS * joules + leakage * latency)
    per_mm2 = 0.016 * (7.0 / node) ** 0.55
    defects = 0.001 * (7.0 / node) ** 0.4
    embodied = chips * (area * per_mm2 * (1.0 + area * defects / 3.0) ** 3 + c["hbm_stacks"] * 12.0 + 4.0)
    # Alpha-power law: how much faster the clock is than this voltage allows, at most 1.
    speed = 2.6e9 * (7.0 / node) ** 0.25 * (volt - 0.32) ** 1.3 / volt
    return {
        "latency_s": latency,
        "energy_j": energy,
        "area_mm2": area,
        "timing": freq / speed,
        "power_w": energy / latency / chips,
        "embodied": embodied,
        "operational": energy * KGCO2_PER_J * LIFETIME_REQUESTS,
    }
