// What fits where, and lower bounds: of the traffic that capacities allow, and of one choice inside the innermost memory.
#pragma once

#include "mapping_lanes.h"
#include "mapping_options.h"

namespace mapping {

// Sizes of tiles in the memories of one hardware point, for one shape and split.
struct Geometry {
    const Shape *shape = nullptr;
    const Share *share = nullptr;
    const Split *split = nullptr;
    const Hardware *hw = nullptr;
    int64_t spread = 1;  // array units along the batch

    Geometry() = default;
    Geometry(const Shape &a, const Share &b, const Split &c, int64_t d) : shape(&a), share(&b), split(&c), spread(d) {}
    Geometry(const Geometry &g, const Hardware &h)
        : shape(g.shape), share(g.share), split(g.split), hw(&h), spread(g.spread) {}

    // Elements of a tile along d as the level holds them: the tiles of all cores side by side where the level is shared.
    double extent(int level, int d, int64_t elements) const {
        int64_t x = std::min(elements, share->core[d]);
        if (hw->memory.per_core[level] == 0.0) x = std::min(x * (*split)[d], shape->dim[d]);
        return static_cast<double>(x);
    }

    // How many tiles inside (of `tile` elements, `count` of them cover a core's share) fit side by side along d, the extents of
    // the other two dimensions given; 0 if not even one.
    int64_t most_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const;
    // The same where the level holds a convolution's map.
    int64_t most_map_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const;
    // Words of an element of operand d in the tile that a level holds: a resident operand has its room already.
    double word(int level, int d) const { return share->crosses(level + 1, d) ? share->words[d] : 0.0; }
    // Entries of the batch whose tiles lie side by side in a level.
    double side_by_side(int level) const {
        const int64_t core = std::min(spread, share->batch_core);
        const bool shared = hw->memory.per_core[level] == 0.0;
        return static_cast<double>(shared ? std::min(std::min((*split)[3], shape->batch) * core, shape->batch) : core);
    }
    // Words that tiles of these extents take together.
    double words(int level, const double (&e)[3]) const;

 private:
    // Words of operands 0, 1, 2.
    void take(int level, const double (&e)[3], double (&words)[3]) const;
    // Whether tiles of these extents fit a memory that holds a map: what it takes is no product of extents.
    bool fits(int level, const double (&e)[3]) const;
};

// `most_tiles` and `extent` of one level with all that does not change made ready: the search asks them more than anything else.
class Fit {
 public:
    Fit() = default;
    Fit(const Geometry &g, int level)
        : level_(level),
          core_(g.share->core),
          shared_(g.hw->memory.per_core[level] == 0.0),
          maps_(level >= g.share->map_from),
          batch_(g.side_by_side(level)) {
        const double *capacity = g.hw->memory.capacity[level];
        for (int d = 0; d < 3; ++d) {
            word_[d] = g.word(level, d);
            split_[d] = (*g.split)[d];
            dim_[d] = g.shape->dim[d];
            capacity_[d] = capacity[d];
        }
        capacity_[3] = capacity[3];
        apart_ = capacity[0] != kInfinity || capacity[1] != kInfinity || capacity[2] != kInfinity;
    }
    double extent(int d, int64_t elements) const {
        int64_t x = std::min(elements, core_[d]);
        if (shared_) x = std::min(x * split_[d], dim_[d]);
        return static_cast<double>(x);
    }
    int64_t most_tiles(const Geometry &g, int d, const double (&e)[3], int64_t count, int64_t tile) const {
        if (maps_) return g.most_map_tiles(level_, d, e, count, tile);
        const int x = (d + 1) % 3, y = (d + 2) % 3;
        const double fixed = batch_ * e[x] * e[y] * word_[d];
        if (fixed > capacity_[3]) return 0;
        const double px = batch_ * e[y] * word_[x], py = batch_ * e[x] * word_[y];  // words of operands x and y per element along d
        double most = capacity_[3] == kInfinity || px + py == 0.0 ? kInfinity : (capacity_[3] - fixed) / (px + py);
        if (apart_) {
            if (fixed > capacity_[d]) return 0;
            if (capacity_[x] != kInfinity || capacity_[y] != kInfinity)
                most = std::min(std::min(capacity_[x] / px, capacity_[y] / py), most);
        }
        if (most >= static_cast<double>(dim_[d])) return count;
        if (most < 1.0) return 0;
        int64_t elements = static_cast<int64_t>(most);
        if (shared_ && split_[d] != 1) elements = quotient(elements, split_[d]);
        if (elements >= core_[d]) return count;
        return std::min(tile == 1 ? elements : quotient(elements, tile), count);
    }

 private:
    int level_ = 0;
    Triple core_{}, dim_{}, split_{};
    bool shared_ = false, maps_ = false, apart_ = false;
    double batch_ = 1.0, word_[3] = {}, capacity_[4] = {};
};

inline int64_t Geometry::most_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const {
    return Fit(*this, level).most_tiles(*this, d, e, count, tile);
}

// Least energy and words across the boundaries outside the innermost memory, whatever happens inside.
struct Floor {
    double pj[kMaxLevels], reads[kMaxLevels], writes[kMaxLevels];  // of each boundary by itself
    double first_pj[3];    // boundary 1, by the loop that is innermost outside the innermost memory
    double rest_pj[3];     // the boundaries further out, by the same loop; see joint_floors
    double apart_pj;       // all of them
    double outside_pj[3];  // all of them, with what the operand that rests in the array fetches over boundary 0 beyond once
    double second_pj[3][3];  // boundary 2 and refetches over boundary 1, by the innermost loops outside memories 0 and 1
};
// `joint`: with the joint floors, which take longer and pay where many points share them.
Floor floor_of(const Geometry &geometry, int levels, bool joint);

// Least energy of boundary level + 1 together with what operand `resting`, which the loop outside memory `level - 1` leaves in
// place (level 0: which rests in the array), fetches over boundary `level` beyond once: large tiles along its loop leave less
// room for the others. By the loop that is innermost outside memory `level`.
void joint_floors(const Geometry &geometry, const Outer &outer, int level, int resting, double (&by_next)[3]);

// What a cost may not exceed, for costs of which energy `before_pj` and `cycles` are there already.
struct Limit {
    int criterion;
    double first, second;  // as in Cost
    double before_pj, cycles;
    double read_cycles, write_cycles;  // a word, of the memory outside
    // Cycles of reads and writes of the memories beside the boundary inside when all crosses it as often as there, and for each further
    // time that `resting` does.
    double near[4], again[4];

    bool operator==(const Limit &o) const {
        return criterion == o.criterion && first == o.first && second == o.second && before_pj == o.before_pj &&
               cycles == o.cycles && read_cycles == o.read_cycles && write_cycles == o.write_cycles && std::equal(near, near + 4, o.near) &&
               std::equal(again, again + 4, o.again);
    }
    // Cycles at least when `resting` crosses `pieces` times.
    double least_cycles(double pieces) const {
        double most = cycles;
        for (int i = 0; i < 4; ++i) most = std::max(most, (near[i] + again[i] * (pieces - 1.0)) * (1.0 - 1e-12));  // another order
        return most;
    }
    // The most times that `resting` may cross when `pj` come on top in any case.
    double most_pieces(double pj) const {
        if (criterion == kEnergy) return kInfinity;
        const double slowest = (criterion == kLatency ? first : first / (kMargin * (before_pj + pj))) * (1.0 + 1e-9);
        double most = kInfinity;
        for (int i = 0; i < 4; ++i)
            if (again[i] > 0.0) most = std::min(most, 1.0 + (slowest - near[i]) / again[i]);
        return most;
    }
    // The energy that may come on top when that memory takes `far` cycles.
    double most_pj(double far) const {
        const double slower = std::max(cycles, far);
        if (criterion == kLatency) return slower > first ? -1.0 : slower < first ? kInfinity : second / kMargin - before_pj;
        return (criterion == kEnergy ? first : first / slower) / kMargin - before_pj;
    }
};

// Tiles of memory `level - 1` along one dimension, the other two given: with which of them can the energy of boundary level + 1
// and what `resting` fetches over boundary `level` beyond once stay within the limit? Memory `level` holds whole tiles of `unit`
// elements; along `line` any whole number of pieces of `piece` units; `floors` are those of `joint_floors`. Returns the largest
// `piece` <= `most` that can; 0: none.
int64_t coarsest_piece(const Geometry &geometry, const Outer &outer, int level, int resting, int line, const Triple &unit,
                       int64_t most, const Limit &limit, const double (&floors)[3]);

// What happens inside the innermost memory under one split, as linear forms in the fetches over boundary 0: `inner_of` and
// `evaluate` for many choices at once. Energies are summed in another order, words in the same.
struct Inside {
    double base_pj;        // multiply-accumulates and registers
    double level_pj[3];    // at the innermost memory, for each fetch of operand d
    double lane_pj[3];     // in the registers, for each fetch and each unit that holds the same word
    double drain_pj;       // for each time that the outputs go back
    double pass_pj[3];     // for each pass of the array, where operand d is not kept in the registers
    const double *words;  // for each fetch, as in Outer
    double refill_reads, refill_writes;
    double far_reads, far_writes;  // words of the level outside when everything crosses once

    Inside() = default;
    Inside(const Share &share, const Hardware &hw, const Outer &outer, int levels);
    // One choice with everything outside crossing once.
    Candidate candidate(const Block &block, const double (&fetches)[3], const double (&lanes)[3]) const;
};

// Energy-delay product of the array and the innermost memory alone, one core doing all of the work, the best operand resting.
double inner_product(const Shape &shape, const Spatial &choice, const Hardware &hw);

}  // namespace mapping
