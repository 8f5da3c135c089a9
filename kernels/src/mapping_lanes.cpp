#include "mapping_lanes.h"

// Wide vectors where the machine has them; the arithmetic, and so the result, is the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define MAPPING_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define MAPPING_CLONES
#endif

namespace mapping {

namespace {

typedef double Vector __attribute__((vector_size(kChunk * sizeof(double))));
typedef int64_t Mask __attribute__((vector_size(kChunk * sizeof(int64_t))));

#define LOAD(array) (*reinterpret_cast<const Vector *>((array) + at))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

}  // namespace

MAPPING_CLONES int64_t alive_lanes(int criterion, Lanes &lanes, const SplitLanes &split, const double *floor_pj,
                                   const double *rest_pj, const Candidate &c) {
    Mask total = {};
    for (int at = 0; at < lanes.padded; at += kChunk) {
        const Vector b1 = LOAD(split.e[0]) * c.fetches[0] + LOAD(split.e[1]) * c.fetches[1] + LOAD(split.e[2]) * c.fetches[2] +
                          LOAD(split.e[3]) * c.fetches[3];
        const Vector floor = LOAD(floor_pj);
        const Vector energy = (c.pj + LARGER(b1, floor) + LOAD(rest_pj)) * kMargin;
        const Vector reads0 = c.reads[0] * LOAD(lanes.read_cycles[0]), writes0 = c.writes[0] * LOAD(lanes.write_cycles[0]);
        const Vector reads1 = c.reads[1] * LOAD(lanes.read_cycles[1]), writes1 = c.writes[1] * LOAD(lanes.write_cycles[1]);
        const Vector least = LOAD(split.cycles), compute = Vector{} + c.compute;
        const Vector a = LARGER(reads0, writes0), b = LARGER(reads1, writes1), d = LARGER(least, compute);
        const Vector e = LARGER(a, b), cycles = LARGER(e, d);
        const Vector best = LOAD(lanes.best_first);
        Mask ok;
        if (criterion == kLatency)
            ok = (cycles < best) | ((cycles == best) & (energy <= LOAD(lanes.best_second)));
        else
            ok = (criterion == kEnergy ? energy : cycles * energy) <= best;
        *reinterpret_cast<Mask *>(lanes.alive + at) = ok;
        total -= ok;
    }
    int64_t sum = 0;
    for (int i = 0; i < kChunk; ++i) sum += total[i];
    return sum;
}

}  // namespace mapping
