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
    alignas(64) int64_t alive[kLanes];                                   // 1 where the last bound could still be best
};

// One split over cores: what each lane charges beyond the innermost memory.
struct SplitLanes {
    alignas(64) double e[4][kLanes];         // energy of boundary 1, as in Outer
    alignas(64) double floor_pj[kLanes];     // at least, for boundary 1
    alignas(64) double joint_pj[3][kLanes];  // at least, for boundary 1 and what operand d fetches over boundary 0 beyond once
    alignas(64) double rest_pj[kLanes];      // at least, for the boundaries further out
    alignas(64) double cycles[kLanes];       // at least, from the levels 1 and up
};

// A candidate: the same for all lanes.
struct Candidate {
    double compute;              // cycles of the array
    double pj;                   // energy inside the innermost memory and across boundary 0
    double reads[2], writes[2];  // words of the two innermost levels
    double fetches[4];           // of boundary 1: F0, F1, F2 - 1, F2
};

// Number of lanes for which the candidate's bound does not exceed the best cost so far; lanes.alive says which. `floor_pj` is
// one of the arrays of `split`.
int64_t alive_lanes(int criterion, Lanes &lanes, const SplitLanes &split, const double *floor_pj, const Candidate &candidate);

}  // namespace mapping
