// The search for the best mappings of one shape on many hardware points. Exact in the space that docs/models/mapping.md states.
#pragma once

#include "mapping_options.h"

namespace mapping {

// The hardware points of a call, with what they have in common found once: points of one `core` class share the choices inside
// the innermost memory, points of one `memory` class share capacities and energies and so the bounds on traffic, and the points
// of a bundle also share the innermost memory: they are searched together.
struct Plan {
    std::vector<Hardware> points;
    std::vector<int> core, memory;          // class of each point
    std::vector<int> cores;                 // class of each point by number of cores (and whether k may be split over them)
    std::vector<std::vector<int>> bundles;  // of points; those of a core class follow each other
    int core_classes = 0, memory_classes = 0, cores_classes = 0;
    int levels = 0, criterion = kEnergyDelay;
    bool want_words = false;
    bool least_room = false;  // of equal mappings one whose tiles take little of the last memory below DRAM
};
Plan make_plan(std::vector<Hardware> points, int levels, int criterion);

struct Found {
    bool feasible = false;
    Cost cost;
    Mapping mapping;
    double read[kMaxLevels], write[kMaxLevels], operand[4];
    double least_cycles;  // no mapping takes fewer; where the plan wants `least_room`
};

class Searcher {
 public:
    virtual ~Searcher() = default;
    // Best mapping of `shape` on every point of the plan, in the order of the points.
    virtual void run(const Plan &plan, const Shape &shape, std::vector<Found> &found) = 0;
};
Searcher &searcher(int levels);  // of this thread

}  // namespace mapping
