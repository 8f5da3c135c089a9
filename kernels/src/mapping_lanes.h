// Lower bounds for several hardware points at once. Points that differ only outside the innermost memory and in bandwidth are
// searched together, one lane each: they share the tiles that fit, and a candidate is dropped when it is hopeless for all of
// them.
#pragma once

#include "mapping_model.h"

namespace mapping {

constexpr int kLanes = 16;
constexpr int kChunk = 4;  // lanes are handled in whole chunks

struct Lanes {
    int count = 0, padded = 0;
    alignas(64) double read_cycles[2][kLanes], write_cycles[2][kLanes];  // of the two innermost levels
    alignas(64) double best_first[kLanes], best_second[kLanes];          // -1 in lanes that are not used
    alignas(64) double nothing[kLanes] = {};                             // no energy beyond what a floor has
    alignas(64) int64_t alive[kLanes];                                   // 1 where the last bound could still be best
};

// One split over cores: what each lane charges beyond the innermost memory.
struct SplitLanes {
    alignas(64) double e[4][kLanes];                             // energy of boundary 1, as in Outer
    alignas(64) double first_pj[3][kLanes], rest_pj[3][kLanes];  // as in Floor
    alignas(64) double outside_pj[3][kLanes], apart_pj[kLanes];
    alignas(64) double cycles[kLanes];  // at least, from the levels 1 and up
};

// A candidate: the same for all lanes.
struct Candidate {
    double compute;              // cycles of the array
    double pj;                   // energy inside the innermost memory and across boundary 0
    double reads[2], writes[2];  // words of the two innermost levels
    double fetches[4];           // of boundary 1: F0, F1, F2 - 1, F2
};

// Number of lanes for which the candidate's bound does not exceed the best cost so far; lanes.alive says which. `floor_pj` and
// `rest_pj` are arrays of `split`: the first is a floor of what the candidate itself has for boundary 1, the other comes on
// top.
int64_t alive_lanes(int criterion, Lanes &lanes, const SplitLanes &split, const double *floor_pj, const double *rest_pj,
                    const Candidate &candidate);

// Energies of bounds are summed in another order than those of costs; this much more than covers the rounding of either. Cycles
// are computed by the same operations as those of costs, in the same order, and need no margin.
constexpr double kMargin = 1.0 - 1e-9;

// The bound itself for the first lane: criterion, and energy as tie-break for latency.
struct Bound {
    double first, second;
};

inline Bound bound_of(int criterion, const Lanes &lanes, const SplitLanes &split, const double *floor_pj, const double *rest_pj,
                      const Candidate &c) {
    const double b1 = split.e[0][0] * c.fetches[0] + split.e[1][0] * c.fetches[1] + split.e[2][0] * c.fetches[2] +
                      split.e[3][0] * c.fetches[3];
    const double energy = (c.pj + std::max(b1, *floor_pj) + *rest_pj) * kMargin;
    const double a = std::max(c.reads[0] * lanes.read_cycles[0][0], c.writes[0] * lanes.write_cycles[0][0]);
    const double b = std::max(c.reads[1] * lanes.read_cycles[1][0], c.writes[1] * lanes.write_cycles[1][0]);
    const double cycles = std::max(std::max(a, b), std::max(split.cycles[0], c.compute));
    return {criterion == kLatency ? cycles : criterion == kEnergy ? energy : cycles * energy, energy};
}

inline bool reachable(int criterion, const Lanes &lanes, const Bound &bound) {
    const double best = *lanes.best_first;
    return bound.first < best || (bound.first == best && (criterion != kLatency || bound.second <= *lanes.best_second));
}

// Whether the bound could be best in some lane. One lane alone is faster without the wide vectors.
inline bool any_lane(int criterion, Lanes &lanes, const SplitLanes &split, const double *floor_pj, const double *rest_pj,
                     const Candidate &c) {
    if (lanes.count > 1) return alive_lanes(criterion, lanes, split, floor_pj, rest_pj, c) > 0;
    return reachable(criterion, lanes, bound_of(criterion, lanes, split, floor_pj, rest_pj, c));
}

}  // namespace mapping
