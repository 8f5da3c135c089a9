#include "mapping_lanes.h"

// Wide vectors where the machine has them; the arithmetic, and so the result, is the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define MAPPING_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define MAPPING_CLONES
#endif

namespace mapping {

namespace {

// Energies of bounds are summed in another order than those of costs; this much more than covers the rounding of either. Cycles
// are computed by the same operations as those of costs, in the same order, and need no margin.
constexpr double kMargin = 1.0 - 1e-9;

inline double larger(double a, double b) { return a > b ? a : b; }

}  // namespace

MAPPING_CLONES int64_t alive_lanes(int criterion, Lanes &lanes, const SplitLanes &split, const Candidate &c) {
    int64_t total = 0;
    const double latency = criterion == kLatency ? 1.0 : 0.0, energy_only = criterion == kEnergy ? 1.0 : 0.0;
    for (int at = 0; at < lanes.padded; at += kChunk) {
        double first[kChunk], second[kChunk];
        for (int i = 0; i < kChunk; ++i) {
            const int j = at + i;
            const double b1 = split.e[0][j] * c.fetches[0] + split.e[1][j] * c.fetches[1] + split.e[2][j] * c.fetches[2] + split.e[3][j] * c.fetches[3];
            const double energy = (c.pj + larger(b1, split.floor_pj[j]) + split.rest_pj[j]) * kMargin;
            double cycles = larger(c.compute, split.cycles[j]);
            cycles = larger(cycles, larger(c.reads[0] * lanes.read_cycles[0][j], c.writes[0] * lanes.write_cycles[0][j]));
            cycles = larger(cycles, larger(c.reads[1] * lanes.read_cycles[1][j], c.writes[1] * lanes.write_cycles[1][j]));
            const double product = cycles * energy;
            first[i] = latency != 0.0 ? cycles : energy_only != 0.0 ? energy : product;
            second[i] = latency != 0.0 ? energy : 0.0;
        }
        for (int i = 0; i < kChunk; ++i) {
            const int j = at + i;
            const int64_t worse = first[i] > lanes.best_first[j], tied = first[i] == lanes.best_first[j], later = second[i] > lanes.best_second[j];
            const int64_t ok = 1 - (worse | (tied & later));
            lanes.alive[j] = ok;
            total += ok;
        }
    }
    return total;
}

}  // namespace mapping
