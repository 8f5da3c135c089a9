// The search as a class: one instantiation for each number of memory levels, so that the loops over levels are unrolled.
#pragma once

#include "mapping_bounds.h"
#include "mapping_lanes.h"
#include "mapping_search.h"

namespace mapping {

// A point of a bundle and the best mapping found for it so far.
struct Lane {
    const Hardware *hw = nullptr;
    int point = 0;
    std::vector<Outer> outer;  // by split
    const std::vector<Floor> *floor = nullptr;
    Cost best_cost;
    Mapping best;
    double least_cycles = kInfinity;  // see note_cycles
    bool owned = false;  // `best` was found for this point; else best_cost is only known to be reachable
};

// What `helpful_piece` has found for a lane.
struct Helpful {
    Limit limit{};
    int64_t most = 0, piece = 0;
};

template <int L>
class Search final : public Searcher {
 public:
    void run(const Plan &plan, const Shape &shape, std::vector<Found> &found) override;

 private:
    // What the points of one core class share for the shape at hand. All but the shares depends on the core and on the sizes of the
    // product alone: it serves again when the same product is searched in another room or with other operands resident.
    struct CoreClass {
        std::vector<Split> splits;
        std::vector<Share> shares;
        std::vector<Block> blocks;
        std::vector<RegisterTiles> tiles;  // of each block, found when first needed
        Ladders ladders;
        Core core;
        Triple dim{};
        int64_t batch = 0;  // 0: nothing is there
        bool spread = false;
        bool serves(const Core &of, const Shape &s) const {
            return batch == s.batch && dim == s.dim && spread == s.spread && core == of;
        }
    };
    // The same for every shape that may spread, or may not.
    struct Unrolls {
        Core core;
        std::vector<Units> all;
    };
    struct Option {
        double promise;
        Bound bound;
        RegisterTile tile;
        Candidate candidate;
    };
    struct Todo {
        double promise;
        int block;
        Bound bound;
    };

    CoreClass &prepare(const Hardware &hw);
    void open(CoreClass &c, const std::vector<int> &points);
    void bundle(CoreClass &c);
    void block(CoreClass &c, int index);
    template <typename Pair>
    void seed(const CoreClass &c, const Block &b, const RegisterTiles &tiles, const Pair &pair);
    template <typename Admit>
    void pairs(const CoreClass &c, const Block &b, const RegisterTiles &tiles, const Admit &admit);
    double promise(const Bound &b) const { return criterion_ == kLatency ? b.first * b.second : b.first; }
    Bound least_of(const Candidate &candidate, const Block &b) const;
    bool still_best(const Bound &bound, const Candidate &candidate, const Block &b);
    bool could_be_best(const Candidate &candidate, const Block &b);
    bool tighten(Candidate &candidate, const Geometry &g, const Block &b, const RegisterTile &t);
    Candidate candidate_of(const Block &b) const { return inside_[b.split].candidate(b, b.fetches, b.lanes); }
    void note_best(int lane);
    void note_cycles(const Candidate &candidate, const Block &b);
    const std::vector<Floor> &floors(const CoreClass &c, const Hardware &hw, int cores_class, int memory_class);

    void option(const CoreClass &c, const Block &b, const RegisterTile &t);
    void innermost(const Triple &count, const Triple &tile);
    void innermost_line(const Triple &count, const Triple &tile, Triple outer, int next);
    bool any_alive(const Triple &outer, int next, double compute);
    bool finer_helps(const Triple &count, const Triple &tile, const Triple &outer, int next, double compute);
    double pj_before(int next) const;
    Limit limit_of(const Cost &bound, int next) const;
    int64_t helpful_piece(int lane, const Cost &bound, const Triple &unit, int64_t piece, int next, Helpful *known);

    Cost level_search(int level, const Triple &count, const Triple &tile, const Cost &least);
    Cost line(const Geometry &g, const Fit &fit, int level, const Triple &count, const Triple &tile, Triple outer, int next);
    Cost bound_at(int level, const Triple &outer, int next);
    void offer(const Cost &cost);
    // Whether the limit of factors_first leaves a choice inside the innermost memory; one that it drops is no hint either.
    bool allowed(const Spatial &choice, const Hardware &hw) const {
        return hw.inner_limit == kInfinity || inner_product(*shape_, choice, hw) <= hw.inner_limit;
    }
    Cost cost_of(const CoreClass &c, const Lane &lane, const Mapping &mapping);
    void cut_to_least_room(const CoreClass &c, Lane &lane);

    const Plan *plan_ = nullptr;
    int criterion_ = kEnergyDelay;
    const Shape *shape_ = nullptr;
    std::vector<std::vector<Floor>> floors_;  // by cores class and memory class

    static constexpr size_t kKept = 8;  // about as many as a model has products of different sizes
    std::array<CoreClass, kKept> core_classes_;
    size_t oldest_ = 0;
    std::array<Unrolls, 2> unrolls_;
    // the bundle at hand
    std::vector<Lane> lanes_;
    Lanes bounds_;
    // The lane with the most room in the next memory, where that may not hold what the innermost ones do; else null.
    const Hardware *roomiest_ = nullptr;
    std::vector<SplitLanes> split_lanes_;
    std::vector<Inside> inside_;  // by split
    std::vector<Todo> todo_;      // blocks
    std::vector<Option> options_;
    // the option at hand
    int split_index_ = 0;
    Geometry geometry_, roomiest_geometry_;
    Fit fit_, next_fit_;  // of the innermost memory, and of the next one of the roomiest lane
    Inner inner_;
    double pj_ = 0.0;  // energy inside the innermost memory but for what the resting operand fetches
    Fetches f_;
    Bound bound_{};  // see any_alive
    double compute_ = 0.0;
    bool probing_ = false;  // see finer_helps
    Mapping trial_;
    // the lane at hand
    Lane *lane_ = nullptr;
    const Outer *outer_ = nullptr;
};

}  // namespace mapping
