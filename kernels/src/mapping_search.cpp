#include "mapping_search.h"

#include "mapping_bounds.h"
#include "mapping_lanes.h"

namespace mapping {

namespace {

bool key_less(const Mapping &a, const Mapping &b, int levels) {
    if (a.spatial.split != b.spatial.split) return a.spatial.split < b.spatial.split;
    if (a.spatial.unroll != b.spatial.unroll) return a.spatial.unroll < b.spatial.unroll;
    if (a.spatial.registers != b.spatial.registers) return a.spatial.registers < b.spatial.registers;
    for (int l = 0; l < levels; ++l) {
        if (a.stationary[l] != b.stationary[l]) return a.stationary[l] < b.stationary[l];
        if (l + 1 < levels && a.count[l] != b.count[l]) return a.count[l] < b.count[l];
    }
    return false;
}

// A point of a bundle and the best mapping found for it so far.
struct Lane {
    const Hardware *hw = nullptr;
    int point = 0;
    std::vector<Outer> outer;  // by split
    std::vector<std::array<double, 3>> joint_pj;
    Cost best_cost;
    Mapping best;
    bool owned = false;  // `best` was found for this point; else best_cost is only known to be reachable
};

template <int L>
class Search final : public Searcher {
   public:
    void run(const Plan &plan, const Shape &shape, std::vector<Found> &found) override;

   private:
    // What the points of one core class share for the shape at hand.
    struct CoreClass {
        std::vector<Split> splits;
        std::vector<Share> shares;
        std::vector<Block> blocks;
        std::vector<BlockTerms> common;
        std::vector<Terms> terms;          // bounds of each block
        std::vector<RegisterTiles> tiles;  // of each block, found when first needed
    };
    struct Option {
        double promise;
        RegisterTile tile;
    };

    void prepare(CoreClass &c, const Hardware &hw);
    void open(CoreClass &c, const std::vector<int> &points);
    void bundle(CoreClass &c);
    void block(CoreClass &c, int index);
    double promise(const Candidate &candidate, const Block &b) const;
    bool could_be_best(const Candidate &candidate, const Block &b);
    bool tighten(Candidate &candidate, const Geometry &g, const Block &b, const RegisterTile &t);
    Candidate candidate_of(const Terms &terms, int split) const;
    void note_best(int lane);
    const std::vector<Floor> &floors(const CoreClass &c, const Hardware &hw, int cores_class, int memory_class);

    void option(const CoreClass &c, const Block &b, const Triple &registers, const Triple &tiles);
    void innermost(const Triple &count, const Triple &tile);
    void innermost_line(const Triple &count, const Triple &tile, Triple outer, int next);
    bool any_alive(const Triple &outer, int next, double compute);

    Cost level_search(int level, const Triple &count, const Triple &tile, const Cost &least);
    Cost line(int level, const Triple &count, const Triple &tile, Triple outer, int next);
    Cost bound_at(int level, const Triple &outer, int next);
    void offer(const Cost &cost);
    Cost cost_of(const CoreClass &c, const Lane &lane, const Mapping &mapping);

    const Plan *plan_ = nullptr;
    int criterion_ = kEnergyDelay;
    const Shape *shape_ = nullptr;
    double macs_ = 0.0;
    std::vector<std::vector<Floor>> floors_;  // by cores class and memory class

    CoreClass core_class_;
    // the bundle at hand
    std::vector<Lane> lanes_;
    Lanes bounds_;
    std::vector<SplitLanes> split_lanes_;
    std::vector<std::pair<double, int>> todo_;  // promise and index of blocks
    std::vector<Option> options_;
    // the option at hand
    int split_index_ = 0;
    Geometry geometry_;
    Inner inner_;
    double pj_ = 0.0;  // energy inside the innermost memory but for what the resting operand fetches
    double f_[kMaxLevels][3];
    double compute_ = 0.0;
    Mapping trial_;
    // the lane at hand
    Lane *lane_ = nullptr;
    const Outer *outer_ = nullptr;
};

template <int L>
void Search<L>::note_best(int lane) {
    bounds_.best_first[lane] = lanes_[lane].best_cost.first;
    bounds_.best_second[lane] = lanes_[lane].best_cost.second;
}

template <int L>
void Search<L>::offer(const Cost &cost) {
    Lane &lane = *lane_;
    if (lane.best_cost.better_than(cost)) return;
    if (!cost.better_than(lane.best_cost) && lane.owned && !key_less(trial_, lane.best, L)) return;
    lane.best_cost = cost;
    lane.best = trial_;
    lane.owned = true;
}

// Least cost with tiles `outer` in memory `level` and `next` the innermost loop of the block outside it, boundaries inside as set.
template <int L>
Cost Search<L>::bound_at(int level, const Triple &outer, int next) {
    const int inside = static_cast<int>(trial_.stationary[level]);
    f_[level][inside] = static_cast<double>(outer[inside]);
    for (int d = 0; d < 3; ++d) f_[level + 1][d] = d == next ? 1.0 : static_cast<double>(outer[d]);
    for (int l = level + 2; l < L; ++l) f_[l][0] = f_[l][1] = f_[l][2] = 1.0;
    return evaluate<L>(*lane_->hw, *outer_, inner_, f_, compute_, criterion_);
}

// All counts of tiles along the innermost loop of this memory's block, the other two given. Without memories further out only the
// least count can be best; with them a finer cut may fit better outside, so go on until the bound says stop.
template <int L>
Cost Search<L>::line(int level, const Triple &count, const Triple &tile, Triple outer, int next) {
    const int d = static_cast<int>(trial_.stationary[level]);
    const Geometry g(geometry_, *lane_->hw);
    double e[3];
    for (int i = 0; i < 3; ++i)
        if (i != d) e[i] = g.extent(level, i, ceil_div(count[i], outer[i]) * tile[i]);
    const int64_t most = g.most_tiles(level, d, e, count[d], tile[d]);
    Cost found;
    if (most == 0) return found;
    outer[d] = ceil_div(count[d], most);
    for (;;) {
        const int64_t piece = ceil_div(count[d], outer[d]);
        const Cost bound = bound_at(level, outer, next);
        if (lane_->best_cost.better_than(bound)) break;
        for (int i = 0; i < 3; ++i) trial_.tile[level][i] = ceil_div(count[i], outer[i]) * tile[i];
        trial_.count[level] = outer;
        trial_.stationary[level + 1] = next;
        Cost got = bound;
        if (level + 2 == L)
            offer(got);
        else
            got = level_search(level + 1, outer, trial_.tile[level], bound);
        if (got.better_than(found)) found = got;
        if (piece == 1 || level + 2 == L || (got.first == bound.first && got.second == bound.second)) break;
        outer[d] = ceil_div(count[d], piece - 1);
    }
    return found;
}

// Best choice of the tiles of memory `level` and of everything outside it for one lane, given the tiles inside: their number along
// each dimension of a core's share, their elements, and a bound of the cost.
template <int L>
Cost Search<L>::level_search(int level, const Triple &count, const Triple &tile, const Cost &least) {
    const int inside = static_cast<int>(trial_.stationary[level]);
    const Geometry g(geometry_, *lane_->hw);
    Cost found;
    const auto keep = [&](const Cost &c) {
        if (c.better_than(found)) found = c;
    };
    for (int next = 0; next < 3; ++next) {
        if (found.first == least.first && found.second == least.second) break;  // nothing can be better than the bound
        double e[3];
        for (int d = 0; d < 3; ++d) e[d] = g.extent(level, d, tile[d]);
        Triple outer = count;
        if (next != inside) {
            // The dimension that the block outside runs innermost stays cut as it is inside: coarser tiles would gain nothing, since
            // its operand crosses the boundary outside as often whatever the cut, and would take room.
            const int other = 3 - next - inside;
            int64_t most = g.most_tiles(level, other, e, count[other], tile[other]);
            for (; most > 0; most = ceil_div(count[other], outer[other]) - 1) {
                outer[other] = ceil_div(count[other], most);
                outer[inside] = 1;
                if (lane_->best_cost.better_than(bound_at(level, outer, next))) break;
                keep(line(level, count, tile, outer, next));
            }
            continue;
        }
        const int x = (inside + 1) % 3, y = (inside + 2) % 3;
        int64_t most_x = g.most_tiles(level, x, e, count[x], tile[x]);
        for (; most_x > 0; most_x = ceil_div(count[x], outer[x]) - 1) {
            outer[x] = ceil_div(count[x], most_x);
            outer[y] = outer[inside] = 1;
            if (lane_->best_cost.better_than(bound_at(level, outer, next))) break;
            e[x] = g.extent(level, x, ceil_div(count[x], outer[x]) * tile[x]);
            int64_t most_y = g.most_tiles(level, y, e, count[y], tile[y]);
            for (; most_y > 0; most_y = ceil_div(count[y], outer[y]) - 1) {
                outer[y] = ceil_div(count[y], most_y);
                outer[inside] = 1;
                if (lane_->best_cost.better_than(bound_at(level, outer, next))) break;
                keep(line(level, count, tile, outer, next));
            }
        }
    }
    return found;
}

// Whether tiles `outer` in the innermost memory with `next` the innermost loop outside could still be best in some lane.
template <int L>
bool Search<L>::any_alive(const Triple &outer, int next, double compute) {
    const Outer &o = lanes_[0].outer[split_index_];  // words are the same in all lanes
    const int st = static_cast<int>(trial_.stationary[0]);
    f_[0][st] = static_cast<double>(outer[st]);
    for (int d = 0; d < 3; ++d) f_[1][d] = d == next ? 1.0 : static_cast<double>(outer[d]);
    const double *w = o.words[0], *r = o.refill[0];
    Candidate c;
    c.compute = compute;
    c.pj = pj_ + inner_.e[st] * (st == 2 ? f_[0][2] - 1.0 : f_[0][st]) + (st == 2 ? inner_.e[3] * f_[0][2] : 0.0);
    c.reads[0] = w[0] * f_[0][0] + w[1] * (f_[0][1] * inner_.expansion) + w[2] * (f_[0][2] - 1.0);
    c.writes[0] = w[2] * f_[0][2];
    c.reads[0] += r[2] * f_[1][2];
    c.writes[0] += r[0] * f_[1][0] + r[1] * f_[1][1] + r[2] * (f_[1][2] - 1.0);
    const double *v = o.words[1];
    c.reads[1] = v[0] * f_[1][0] + v[1] * f_[1][1] + v[2] * (f_[1][2] - 1.0);
    c.writes[1] = v[2] * f_[1][2];
    c.fetches[0] = f_[1][0];
    c.fetches[1] = f_[1][1];
    c.fetches[2] = f_[1][2] - 1.0;
    c.fetches[3] = f_[1][2];
    return alive_lanes(criterion_, bounds_, split_lanes_[split_index_], split_lanes_[split_index_].floor_pj, c) > 0;
}

// The line of `line` for all lanes together; the bound with `outer` as given is known to have hope.
template <int L>
void Search<L>::innermost_line(const Triple &count, const Triple &tile, Triple outer, int next) {
    const int d = static_cast<int>(trial_.stationary[0]);
    const Geometry g(geometry_, *lanes_[0].hw);
    const Core &core = lanes_[0].hw->core;
    double e[3];
    for (int i = 0; i < 3; ++i)
        if (i != d) e[i] = g.extent(0, i, ceil_div(count[i], outer[i]) * tile[i]);
    const int64_t most = g.most_tiles(0, d, e, count[d], tile[d]);
    if (most == 0) return;
    const bool pipelined = core.kind == kSystolicPipelined;  // its cycles do not always grow with the number of pieces
    int64_t done[kLanes] = {};
    outer[d] = ceil_div(count[d], most);
    for (;;) {
        const int64_t piece = ceil_div(count[d], outer[d]);
        const double compute = compute_cycles(inner_, core, geometry_.share->core[d], outer[d], piece * tile[d]);
        if (!any_alive(outer, next, pipelined ? inner_.compute : compute)) return;
        int64_t open[kLanes], more = 0;
        std::copy_n(bounds_.alive, bounds_.padded, open);
        for (int i = 0; i < 3; ++i) trial_.tile[0][i] = ceil_div(count[i], outer[i]) * tile[i];
        trial_.count[0] = outer;
        trial_.stationary[1] = next;
        compute_ = compute;
        for (int i = 0; i < bounds_.count; ++i) {
            if (!open[i] || done[i]) continue;
            lane_ = &lanes_[i];
            outer_ = &lane_->outer[split_index_];
            const Cost bound = bound_at(0, outer, next);
            if (lane_->best_cost.better_than(bound)) {
                more += pipelined;
                continue;
            }
            Cost got = bound;
            if constexpr (L == 2)
                offer(got);
            else
                got = level_search(1, outer, trial_.tile[0], bound);
            note_best(i);
            done[i] = !pipelined && (L == 2 || (got.first == bound.first && got.second == bound.second));
            more += !done[i];
        }
        if (piece == 1 || more == 0) return;
        outer[d] = ceil_div(count[d], piece - 1);
    }
}

// Tiles of the innermost memory for all lanes together; the same walk as level_search.
template <int L>
void Search<L>::innermost(const Triple &count, const Triple &tile) {
    const int inside = static_cast<int>(trial_.stationary[0]);
    const Geometry g(geometry_, *lanes_[0].hw);
    double fine[3];
    for (int d = 0; d < 3; ++d) fine[d] = g.extent(0, d, tile[d]);
    Triple least;  // fewest tiles along each dimension, the other two cut as finely as can be
    for (int d = 0; d < 3; ++d) {
        const int64_t most = g.most_tiles(0, d, fine, count[d], tile[d]);
        if (most == 0) return;
        least[d] = ceil_div(count[d], most);
    }
    const double compute = inner_.compute;
    if (!any_alive(least, inside, compute)) {
        bool some = false;
        for (int next = 0; next < 3 && !some; ++next)
            if (next != inside) some = any_alive(least, next, compute);
        if (!some) return;
    }
    for (int next = 0; next < 3; ++next) {
        Triple outer = count;
        if (next != inside) {
            const int other = 3 - next - inside;
            for (int64_t c = least[other];;) {
                outer[other] = c;
                outer[inside] = least[inside];
                if (!any_alive(outer, next, compute)) break;
                innermost_line(count, tile, outer, next);
                const int64_t piece = ceil_div(count[other], c);
                if (piece == 1) break;
                c = ceil_div(count[other], piece - 1);
            }
            continue;
        }
        const int x = (inside + 1) % 3, y = (inside + 2) % 3;
        double e[3] = {fine[0], fine[1], fine[2]};
        for (int64_t cx = least[x];;) {
            outer[x] = cx;
            outer[y] = least[y];
            outer[inside] = least[inside];
            if (!any_alive(outer, next, compute)) break;
            const int64_t piece_x = ceil_div(count[x], cx);
            e[x] = g.extent(0, x, piece_x * tile[x]);
            for (int64_t most_y = g.most_tiles(0, y, e, count[y], tile[y]); most_y > 0; most_y = ceil_div(count[y], outer[y]) - 1) {
                outer[y] = ceil_div(count[y], most_y);
                outer[inside] = least[inside];
                if (outer[y] != least[y] && !any_alive(outer, next, compute)) break;
                innermost_line(count, tile, outer, next);
            }
            if (piece_x == 1) break;
            cx = ceil_div(count[x], piece_x - 1);
        }
    }
}

template <int L>
void Search<L>::option(const CoreClass &c, const Block &b, const Triple &registers, const Triple &tiles) {
    trial_.spatial = {c.splits[b.split], b.unroll, registers, b.stationary};
    trial_.stationary[0] = b.stationary;
    split_index_ = b.split;
    geometry_ = Geometry(*shape_, c.shares[b.split], c.splits[b.split]);
    inner_ = inner_of(*shape_, c.shares[b.split], trial_.spatial, *lanes_[0].hw);
    for (int d = 0; d < 3; ++d) f_[0][d] = d == b.stationary ? 1.0 : static_cast<double>(tiles[d]);
    if constexpr (L == 1) {
        for (int i = 0; i < bounds_.count; ++i) {
            lane_ = &lanes_[i];
            outer_ = &lane_->outer[split_index_];
            offer(evaluate<L>(*lane_->hw, *outer_, inner_, f_, inner_.compute, criterion_));
            note_best(i);
        }
    } else {
        pj_ = inner_.base_pj;
        for (int d = 0; d < 2; ++d)
            if (d != b.stationary) pj_ += inner_.e[d] * f_[0][d];
        if (b.stationary != 2) pj_ += inner_.e[2] * (f_[0][2] - 1.0) + inner_.e[3] * f_[0][2];
        innermost(tiles, {b.unroll[0] * registers[0], b.unroll[1] * registers[1], b.unroll[2] * registers[2]});
    }
}

template <int L>
Candidate Search<L>::candidate_of(const Terms &t, int split) const {
    const Memory &m = lanes_[0].hw->memory;
    const Outer &o = lanes_[0].outer[split];
    Candidate c;
    c.compute = t.compute;
    c.pj = t.read_words * m.read_pj[0] + t.write_words * m.write_pj[0] + t.register_writes * m.register_write_pj +
           t.register_reads * m.register_read_pj + macs_ * m.mac_pj;
    c.reads[0] = t.reads;
    c.writes[0] = t.writes;
    c.reads[1] = L > 1 ? o.words[1][0] + o.words[1][1] : 0.0;
    c.writes[1] = L > 1 ? o.words[1][2] : 0.0;
    c.fetches[0] = c.fetches[1] = c.fetches[3] = L > 1 ? 1.0 : 0.0;
    c.fetches[2] = 0.0;
    return c;
}

template <int L>
void Search<L>::prepare(CoreClass &c, const Hardware &hw) {
    c.splits = splits_of(hw.core, *shape_);
    c.shares.clear();
    for (const Split &split : c.splits) c.shares.push_back(share_of(*shape_, split, hw.memory.word_bits));
    macs_ = c.shares[0].macs;
    blocks_of(hw.core, *shape_, c.splits, c.blocks);
    c.tiles.resize(c.blocks.size());
    for (RegisterTiles &t : c.tiles) t.ready = false;
    c.common.clear();
    c.terms.clear();
    for (const Block &b : c.blocks) {
        c.common.push_back(block_terms(*shape_, c.shares[b.split], c.splits[b.split], b, hw, L));
        c.terms.push_back(c.common.back().with(b.largest_registers, b.least_tiles));
    }
}

template <int L>
const std::vector<Floor> &Search<L>::floors(const CoreClass &c, const Hardware &hw, int cores_class, int memory_class) {
    std::vector<Floor> &f = floors_[static_cast<size_t>(cores_class) * plan_->memory_classes + memory_class];
    if (f.empty())
        for (size_t s = 0; s < c.splits.size(); ++s) f.push_back(floor_of(Geometry(Geometry(*shape_, c.shares[s], c.splits[s]), hw), L, plan_->points.size() >= 32));
    return f;
}

// The cost of a given mapping in a lane; infinite where a tile does not fit.
template <int L>
Cost Search<L>::cost_of(const CoreClass &c, const Lane &lane, const Mapping &mapping) {
    const Hardware &hw = *lane.hw;
    const size_t s = std::find(c.splits.begin(), c.splits.end(), mapping.spatial.split) - c.splits.begin();
    const Geometry g(Geometry(*shape_, c.shares[s], c.splits[s]), hw);
    inner_ = inner_of(*shape_, c.shares[s], mapping.spatial, hw);
    Triple count;
    for (int d = 0; d < 3; ++d) count[d] = ceil_div(c.shares[s].core[d], mapping.spatial.unroll[d] * mapping.spatial.registers[d]);
    double compute = inner_.compute;
    for (int l = 0; l < L; ++l) {
        const int st = static_cast<int>(mapping.stationary[l]);
        for (int d = 0; d < 3; ++d) f_[l][d] = static_cast<double>(d == st ? (l + 1 < L ? mapping.count[l][d] : 1) : count[d]);
        if (l + 1 == L) break;
        double e[3];
        for (int d = 0; d < 3; ++d) e[d] = g.extent(l, d, mapping.tile[l][d]);
        if (g.most_tiles(l, 0, e, mapping.count[l][0], mapping.tile[l][0]) == 0) return Cost();
        if (l == 0) compute = compute_cycles(inner_, hw.core, c.shares[s].core[st], mapping.count[0][st], mapping.tile[0][st]);
        count = mapping.count[l];
    }
    return evaluate<L>(hw, lane.outer[s], inner_, f_, compute, criterion_);
}

// Set up the lanes of a bundle. Mappings of the bundle before, which had the same array, give costs that are known to be reachable.
template <int L>
void Search<L>::open(CoreClass &c, const std::vector<int> &points) {
    std::vector<Mapping> hints;
    for (const Lane &lane : lanes_)
        if (lane.owned && plan_->core[lane.point] == plan_->core[points[0]]) hints.push_back(lane.best);
    const size_t splits = c.splits.size();
    lanes_.resize(points.size());
    split_lanes_.resize(splits);
    bounds_.count = static_cast<int>(points.size());
    bounds_.padded = (bounds_.count + kChunk - 1) / kChunk * kChunk;
    for (int i = 0; i < bounds_.padded; ++i) {
        bounds_.best_first[i] = bounds_.best_second[i] = -1.0;
        const int from = std::min(i, bounds_.count - 1);  // lanes that are not used hold harmless numbers
        Lane &lane = lanes_[from];
        const Hardware &hw = plan_->points[points[from]];
        if (i == from) {
            const std::vector<Floor> &floor = floors(c, hw, plan_->cores[points[i]], plan_->memory[points[i]]);
            lane.hw = &hw;
            lane.point = points[i];
            lane.best_cost = Cost();
            lane.owned = false;
            lane.outer.resize(splits);
            lane.joint_pj.resize(splits);
            for (size_t s = 0; s < splits; ++s) {
                Outer &o = lane.outer[s];
                set_outer(c.shares[s], hw, L, o);
                std::copy_n(floor[s].joint_pj, 3, lane.joint_pj[s].begin());
                for (int l = 1; l < L; ++l) {
                    o.floor_pj[l] = floor[s].pj[l];
                    o.cycles = std::max(o.cycles, std::max(floor[s].reads[l] * hw.read_cycles[l], floor[s].writes[l] * hw.write_cycles[l]));
                }
            }
        }
        for (int l = 0; l < 2; ++l) {
            bounds_.read_cycles[l][i] = l < L ? hw.read_cycles[l] : 0.0;
            bounds_.write_cycles[l][i] = l < L ? hw.write_cycles[l] : 0.0;
        }
        for (size_t s = 0; s < splits; ++s) {
            const Outer &o = lane.outer[s];
            SplitLanes &v = split_lanes_[s];
            for (int d = 0; d < 4; ++d) v.e[d][i] = L > 1 ? o.e[1][d] : 0.0;
            v.floor_pj[i] = L > 1 ? o.floor_pj[1] : 0.0;
            for (int d = 0; d < 3; ++d) v.joint_pj[d][i] = L > 1 ? lane.joint_pj[s][d] : 0.0;
            v.rest_pj[i] = 0.0;
            for (int l = 2; l < L; ++l) v.rest_pj[i] += o.floor_pj[l];
            v.cycles[i] = o.cycles;
        }
    }
    for (int i = 0; i < bounds_.count; ++i) {
        Lane &lane = lanes_[i];
        if (!hints.empty()) lane.best_cost = cost_of(c, lane, hints[std::min<size_t>(i, hints.size() - 1)]);
        note_best(i);
    }
}

// All options of a block that are not hopeless, the most promising first.
template <int L>
void Search<L>::block(CoreClass &c, int index) {
    const Block &b = c.blocks[index];
    const Hardware &hw = *lanes_[0].hw;
    RegisterTiles &tiles = c.tiles[index];
    if (!tiles.ready) register_tiles(hw.core, *shape_, c.splits, b, tiles);
    options_.clear();
    const Geometry g(Geometry(*shape_, c.shares[b.split], c.splits[b.split]), hw);
    const BlockTerms &common = c.common[index];
    const auto consider = [&](const Terms &terms, const RegisterTile &t) {
        Candidate candidate = candidate_of(terms, b.split);
        if (!could_be_best(candidate, b)) return false;
        if (L > 1 && !tighten(candidate, g, b, t)) return true;
        if (hw.inner_limit < kInfinity && inner_product(*shape_, b.unroll, t.registers, hw) > hw.inner_limit) return true;
        options_.push_back({promise(candidate, b), t});
        return true;
    };
    for (const RegisterTile &t : tiles.listed) consider(common.with(t.registers, t.tiles), t);
    // The more elements a unit holds along x or y, the lower the bound: go down from the most, and stop where there is no hope.
    double f[3] = {1.0, 1.0, 1.0}, lanes[3] = {1.0, 1.0, 1.0};
    if (tiles.listed.empty()) {
        const int st = static_cast<int>(b.stationary);
        if (b.unroll[st] > 1) lanes[st] = static_cast<double>(std::min(b.unroll[st], c.shares[b.split].core[st]));
    }
    const auto pair = [&](const RegisterStep &x, const RegisterStep &y) {
        f[tiles.x] = x.tiles;
        lanes[tiles.x] = x.lanes;
        f[tiles.y] = y.tiles;
        lanes[tiles.y] = y.lanes;
        return common.with(f, lanes);
    };
    for (size_t i = tiles.along_x.size(); i-- > 0;) {
        const RegisterStep &a = tiles.along_x[i];
        size_t j = tiles.along_y.size();
        while (j > 0 && !registers_hold(hw.core, a.elements, tiles.along_y[j - 1].elements)) --j;
        const bool whole = j == tiles.along_y.size();
        bool some = false;
        for (; j > 0; --j) {
            const RegisterStep &o = tiles.along_y[j - 1];
            if (!consider(pair(a, o), tiles.pair(a, o))) break;
            some = true;
        }
        if (some) continue;
        if (whole || !could_be_best(candidate_of(pair(a, tiles.along_y.back()), b.split), b)) break;
    }
    std::sort(options_.begin(), options_.end(), [](const Option &p, const Option &q) {
        return p.promise != q.promise ? p.promise < q.promise : p.tile.registers < q.tile.registers;
    });
    for (size_t i = 0; i < options_.size(); ++i) {
        const RegisterTile t = options_[i].tile;
        if (i == 0 || could_be_best(candidate_of(common.with(t.registers, t.tiles), b.split), b)) option(c, b, t.registers, t.tiles);
    }
}

template <int L>
bool Search<L>::could_be_best(const Candidate &candidate, const Block &b) {
    const SplitLanes &split = split_lanes_[b.split];
    return alive_lanes(criterion_, bounds_, split, split.joint_pj[b.stationary], candidate) > 0;
}

// Charge the resting operand for the cuts along its loop that the innermost memory forces even when the other two dimensions are cut
// as finely as can be. False if not even that fits, or is hopeless.
template <int L>
bool Search<L>::tighten(Candidate &candidate, const Geometry &g, const Block &b, const RegisterTile &t) {
    const int st = static_cast<int>(b.stationary);
    double fine[3];
    for (int d = 0; d < 3; ++d) fine[d] = g.extent(0, d, b.unroll[d] * t.registers[d]);
    const int64_t most = g.most_tiles(0, st, fine, t.tiles[st], b.unroll[st] * t.registers[st]);
    if (most == 0) return false;
    const double more = static_cast<double>(ceil_div(t.tiles[st], most) - 1);
    if (more == 0.0) return true;
    const Outer &o = lanes_[0].outer[b.split];
    const double *w = o.words[0];
    candidate.reads[0] += w[st] * more * (st == 1 ? shape_->input_expansion : 1.0);
    if (st == 2) candidate.writes[0] += w[2] * more;
    Candidate with_energy = candidate;  // the joint floor has it already
    const Memory &m = lanes_[0].hw->memory;
    if (m.registers_keep[st] != 0.0) {
        const Share &s = *g.share;
        const double words = (m.per_core[0] != 0.0 ? s.total[st] * s.copies[st] : s.total[st]) * (st == 1 ? shape_->input_expansion : 1.0);
        with_energy.pj += words * more * (m.read_pj[0] + (st == 2 ? m.write_pj[0] : 0.0));
    }
    // Sums in another order than those of costs: leave a margin on the words too.
    for (double *v : {&candidate.reads[0], &candidate.writes[0]}) *v *= 1.0 - 1e-12;
    with_energy.reads[0] = candidate.reads[0];
    with_energy.writes[0] = candidate.writes[0];
    if (!could_be_best(candidate, b)) return false;
    const SplitLanes &split = split_lanes_[b.split];
    return alive_lanes(criterion_, bounds_, split, split.floor_pj, with_energy) > 0;
}

template <int L>
double Search<L>::promise(const Candidate &c, const Block &b) const {
    const SplitLanes &split = split_lanes_[b.split];
    const double cycles = std::max(std::max(c.compute, split.cycles[0]),
                                   std::max(c.reads[0] * bounds_.read_cycles[0][0], c.writes[0] * bounds_.write_cycles[0][0]));
    const double energy = c.pj + split.joint_pj[b.stationary][0] + split.rest_pj[0];
    return criterion_ == kEnergy ? energy : cycles * energy;
}

// The most promising first: a good cost early prunes the rest. The result does not depend on the order.
template <int L>
void Search<L>::bundle(CoreClass &c) {
    todo_.clear();
    for (size_t i = 0; i < c.blocks.size(); ++i) {
        const Candidate candidate = candidate_of(c.terms[i], c.blocks[i].split);
        if (could_be_best(candidate, c.blocks[i])) todo_.push_back({promise(candidate, c.blocks[i]), static_cast<int>(i)});
    }
    std::sort(todo_.begin(), todo_.end());
    for (size_t t = 0; t < todo_.size(); ++t) {
        const int i = todo_[t].second;
        if (t == 0 || could_be_best(candidate_of(c.terms[i], c.blocks[i].split), c.blocks[i])) block(c, i);
    }
}

template <int L>
void Search<L>::run(const Plan &plan, const Shape &shape, std::vector<Found> &found) {
    plan_ = &plan;
    criterion_ = plan.criterion;
    shape_ = &shape;
    floors_.resize(static_cast<size_t>(plan_->cores_classes) * plan_->memory_classes);
    for (std::vector<Floor> &f : floors_) f.clear();
    found.resize(plan_->points.size());
    for (Lane &lane : lanes_) lane.owned = false;
    CoreClass &c = core_class_;
    int current = -1;
    for (const std::vector<int> &points : plan_->bundles) {
        if (plan_->core[points[0]] != current) {
            current = plan_->core[points[0]];
            prepare(c, plan_->points[points[0]]);
        }
        open(c, points);
        bundle(c);
        for (const Lane &lane : lanes_) {
            Found &f = found[lane.point];
            f.feasible = lane.owned;
            f.cost = Cost();
            if (!lane.owned) continue;
            f.mapping = lane.best;
            f.cost = lane.best_cost;
            if (!plan_->want_words) continue;
            cost_of(c, lane, lane.best);  // sets the fetches
            const size_t s = std::find(c.splits.begin(), c.splits.end(), lane.best.spatial.split) - c.splits.begin();
            traffic(c.shares[s], lane.hw->memory, shape.input_expansion, L, f_, f.read, f.write);
        }
    }
}

}  // namespace

Searcher &searcher(int levels) {
    // One of each kind a thread: what they have allocated is used again from shape to shape and from call to call.
    thread_local Search<1> one;
    thread_local Search<2> two;
    thread_local Search<3> three;
    thread_local Search<4> four;
    thread_local Search<5> five;
    thread_local Search<6> six;
    Searcher *const all[] = {&one, &two, &three, &four, &five, &six};
    return *all[levels - 1];
}

}  // namespace mapping
