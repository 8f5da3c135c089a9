// An imitation of the order in which Sunstone searches, for the profile that compares with it (docs/models/mapping.md, section
// 7).
#pragma once

#include "mapping_search.h"

namespace mapping {

// Sunstone ranks what happens inside the innermost memory by its own energy-delay product, with that memory's bandwidth, and
// drops what is worse than the best product that it has reached with the next memory, for which it forgets bandwidths (and has
// no DRAM yet). Its product is on one core, the other one on all of them.
class FactorsFirst {
 public:
    FactorsFirst(std::vector<Hardware> points, int levels, int criterion, bool want_words);
    // Replace found[at[i]] by the best mapping among those that such a search keeps, where there is one.
    void run(const Shape &shape, const std::vector<size_t> &at, std::vector<Found> &found) const;

 private:
    std::vector<Hardware> points_;
    int levels_, criterion_;
    bool want_words_;
    Plan blind_;
};

}  // namespace mapping
