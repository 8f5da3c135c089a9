// The search for the best mapping of one matrix product on one hardware point. Exact in the space that docs/models/mapping.md states.
#pragma once

#include <unordered_map>

#include "mapping_model.h"

namespace mapping {

// Distinct numbers of tiles of a dimension of `units` units, with the smallest tile (in units) that gives each; ascending count.
struct Ladder {
    std::vector<int64_t> count, tile;
};

class Search {
   public:
    explicit Search(int criterion) : criterion_(criterion) {}

    // False if no mapping fits. `best` is the mapping of least (cost, tie-break, canonical key).
    bool run(const Shape &shape, const Hardware &hw, Mapping &best, Cost &cost, Words &words);

   private:
    struct Option {
        Spatial spatial;
        int64_t units[3];    // array tiles of a core along m, n, k
        int64_t extent[3];   // elements of one array tile
        Work work;
        Cost bound;
        double stream_count_min = 0.0;
    };

    const Ladder &ladder(int64_t units);
    void build_options(const Shape &shape, const Hardware &hw);
    void set_work(const Shape &shape, const Hardware &hw, Option &option) const;
    double compute_cycles(const Option &option, const Hardware &hw, int64_t stream_tiles, int64_t stream_tile) const;
    bool fits(int level, const int64_t extent[3]) const;
    Cost level_search(int level, const int64_t counts[3], const int64_t extents[3]);
    Cost consider(int level, const int64_t counts[3], const int64_t extents[3], const int64_t outer[3], int next, Cost &bound);
    void offer(const Cost &cost);

    int criterion_;
    std::unordered_map<int64_t, Ladder> ladders_;
    std::vector<Option> options_;

    // state of the point being searched
    const Shape *shape_ = nullptr;
    const Hardware *hw_ = nullptr;
    const Option *option_ = nullptr;
    int64_t dims_[3], core_dims_[3];
    double operand_words_[3];  // words per element
    double fetches_[kMaxLevels][3];
    double compute_ = 0.0;
    Mapping trial_, best_;
    Cost best_cost_;
};

}  // namespace mapping
