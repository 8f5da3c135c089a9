// Members of Search: points that are searched together, and the choices inside the innermost memory that are worth a look.
#pragma once

#include "mapping_searcher.h"

namespace mapping {

template <int L>
typename Search<L>::CoreClass &Search<L>::prepare(const Hardware &hw) {
    size_t at = 0;
    while (at < kKept && !core_classes_[at].serves(hw.core, *shape_)) ++at;
    const bool known = at < kKept;
    CoreClass &c = core_classes_[known ? at : oldest_];
    if (!known) {
        oldest_ = (oldest_ + 1) % kKept;
        c.batch = 0;  // until all of it is there
        c.splits = splits_of(hw.core, *shape_);
    }
    c.shares.clear();
    for (const Split &split : c.splits) c.shares.push_back(share_of(*shape_, split, hw.memory.word_bits));
    if (known) return c;
    Unrolls &unrolls = unrolls_[shape_->spread ? 1 : 0];
    if (unrolls.all.empty() || !(unrolls.core == hw.core)) unrolls = {hw.core, unrolls_of(hw.core, shape_->spread)};
    blocks_of(hw.core, *shape_, c.splits, c.shares, unrolls.all, c.blocks);
    c.ladders.clear();
    c.tiles.resize(c.blocks.size());
    for (RegisterTiles &t : c.tiles) t.ready = false;
    c.core = hw.core;
    c.dim = shape_->dim;
    c.batch = shape_->batch;
    c.spread = shape_->spread;
    return c;
}

template <int L>
const std::vector<Floor> &Search<L>::floors(const CoreClass &c, const Hardware &hw, int cores_class, int memory_class) {
    std::vector<Floor> &f = floors_[static_cast<size_t>(cores_class) * plan_->memory_classes + memory_class];
    if (f.empty())
        for (size_t s = 0; s < c.splits.size(); ++s)
            f.push_back(floor_of(Geometry(Geometry(*shape_, c.shares[s], c.splits[s], 1), hw), L, plan_->points.size() >= 32));
    return f;
}

// The cost of a given mapping in a lane; infinite where a tile does not fit.
template <int L>
Cost Search<L>::cost_of(const CoreClass &c, const Lane &lane, const Mapping &mapping) {
    const Hardware &hw = *lane.hw;
    const size_t s = std::find(c.splits.begin(), c.splits.end(), mapping.spatial.split) - c.splits.begin();
    const Geometry g(Geometry(*shape_, c.shares[s], c.splits[s], mapping.spatial.spread), hw);
    inner_ = inner_of(c.shares[s], mapping.spatial, hw);
    Triple count;
    for (int d = 0; d < 3; ++d)
        count[d] = ceil_div(c.shares[s].core[d], mapping.spatial.unroll[d] * mapping.spatial.registers[d]);
    double compute = inner_.compute;
    for (int l = 0; l < L; ++l) {
        const int st = static_cast<int>(mapping.stationary[l]);
        for (int d = 0; d < 3; ++d) f_[l][d] = static_cast<double>(d == st ? (l + 1 < L ? mapping.count[l][d] : 1) : count[d]);
        f_[l][3] = runs_of(hw.memory, c.shares[s], l, st, f_[l][0]);
        if (l + 1 == L) break;
        double e[3];
        for (int d = 0; d < 3; ++d) e[d] = g.extent(l, d, mapping.tile[l][d]);
        if (g.most_tiles(l, 0, e, mapping.count[l][0], mapping.tile[l][0]) == 0) return Cost();
        if (l == 0) compute = compute_cycles(inner_, hw.core, c.shares[s].core[st], mapping.count[0][st], mapping.tile[0][st]);
        count = mapping.count[l];
    }
    return evaluate<L>(hw, lane.outer[s], inner_, f_, compute, criterion_);
}

// Cut the tiles of the last memory below DRAM of the best mapping as finely as costs nothing. Costs grow with every cut, so that
// along each dimension the finest that costs the same is found by halving.
template <int L>
void Search<L>::cut_to_least_room(const CoreClass &c, Lane &lane) {
    if constexpr (L > 2) {
        constexpr int last = L - 2;
        Mapping &best = lane.best;
        for (int d = 0; d < 3; ++d) {
            const int64_t tile = best.tile[last - 1][d], all = best.count[last - 1][d];
            const auto set = [&](Mapping &to, int64_t piece) {
                to.count[last][d] = ceil_div(all, piece);
                to.tile[last][d] = ceil_div(all, to.count[last][d]) * tile;
            };
            const auto same = [&](int64_t piece) {
                Mapping trial = best;
                set(trial, piece);
                const Cost cost = cost_of(c, lane, trial);
                return cost.cycles == lane.best_cost.cycles && cost.energy == lane.best_cost.energy;
            };
            const int64_t now = ceil_div(all, best.count[last][d]);
            if (now == 1 || !same(now - 1)) continue;
            int64_t coarse = now - 1;
            if (same(1)) coarse = 1;
            for (int64_t fine = 1; coarse - fine > 1;) {
                const int64_t middle = fine + (coarse - fine) / 2;
                (same(middle) ? coarse : fine) = middle;
            }
            set(best, coarse);
        }
    }
}

// Set up the lanes of a bundle. Mappings of the bundle before, which had the same array, give costs that are known to be
// reachable.
template <int L>
void Search<L>::open(CoreClass &c, const std::vector<int> &points) {
    std::vector<Mapping> hints;
    for (const Lane &lane : lanes_)
        if (lane.owned && plan_->core[lane.point] == plan_->core[points[0]] &&
            allowed(lane.best.spatial, plan_->points[points[0]]))
            hints.push_back(lane.best);
    const size_t splits = c.splits.size();
    lanes_.resize(points.size());
    split_lanes_.resize(splits);
    bounds_.count = static_cast<int>(points.size());
    bounds_.padded = bounds_.count == 1 ? 1 : (bounds_.count + kChunk - 1) / kChunk * kChunk;
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
            lane.least_cycles = kInfinity;
            lane.outer.resize(splits);
            lane.floor = &floor;
            for (size_t s = 0; s < splits; ++s) {
                Outer &o = lane.outer[s];
                set_outer(c.shares[s], hw, L, o);
                for (int l = 1; l < L; ++l) {
                    o.floor_pj[l] = floor[s].pj[l];
                    o.cycles = std::max(
                        o.cycles, std::max(floor[s].reads[l] * hw.read_cycles[l], floor[s].writes[l] * hw.write_cycles[l]));
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
            const Floor &floor = (*lane.floor)[s];
            for (int d = 0; d < 4; ++d) v.e[d][i] = L > 1 ? o.e[1][d] : 0.0;
            for (int d = 0; d < 3; ++d) {
                v.first_pj[d][i] = L > 1 ? floor.first_pj[d] : 0.0;
                v.rest_pj[d][i] = L > 1 ? floor.rest_pj[d] : 0.0;
                v.outside_pj[d][i] = L > 1 ? floor.outside_pj[d] : 0.0;
            }
            v.apart_pj[i] = L > 1 ? floor.apart_pj : 0.0;
            v.cycles[i] = o.cycles;
        }
    }
    roomiest_ = nullptr;
    if constexpr (L > 2) {
        for (const Lane &lane : lanes_)
            if (!roomiest_ || lane.hw->memory.capacity[1][3] > roomiest_->memory.capacity[1][3]) roomiest_ = lane.hw;
        const Hardware &hw = *roomiest_;
        const double inside = hw.memory.capacity[0][3], cores = static_cast<double>(hw.core.cores);
        if (hw.memory.capacity[1][3] == kInfinity || hw.memory.capacity[1][3] >= inside * cores) roomiest_ = nullptr;
    }
    inside_.clear();
    for (size_t s = 0; s < splits; ++s) inside_.emplace_back(c.shares[s], *lanes_[0].hw, lanes_[0].outer[s], L);
    for (int i = 0; i < bounds_.count; ++i) {
        Lane &lane = lanes_[i];
        if (!hints.empty()) lane.best_cost = cost_of(c, lane, hints[std::min<size_t>(i, hints.size() - 1)]);
        note_best(i);
    }
}

// Before the first block is listed, try one of its register tiles: with a cost to compare with, most of the others are dropped
// before anything is done with them.
template <int L>
template <typename Pair>
void Search<L>::seed(const CoreClass &c, const Block &b, const RegisterTiles &tiles, const Pair &pair) {
    const Ladders::Steps &along_x = *tiles.along_x, &along_y = *tiles.along_y;
    const Core &core = lanes_[0].hw->core;
    size_t best_x = 0, best_y = 0, held = 0;
    double least = kInfinity;
    for (size_t i = along_x.size(); i-- > 0 && held < along_y.size();) {
        const size_t before = held;
        while (held < along_y.size() && registers_hold(core, along_x[i].elements, along_y[held].elements)) ++held;
        if (held == before) continue;
        const double value = promise(least_of(pair(along_x[i], along_y[held - 1]), b));
        if (value >= least) continue;
        least = value;
        best_x = i;
        best_y = held - 1;
    }
    if (least < kInfinity) option(c, b, tiles.pair(along_x[best_x], along_y[best_y]));
}

// All options of a block that are not hopeless, the most promising first.
template <int L>
void Search<L>::block(CoreClass &c, int index) {
    const Block &b = c.blocks[index];
    const Hardware &hw = *lanes_[0].hw;
    const Share &share = c.shares[b.split];
    const Inside &inside = inside_[b.split];
    RegisterTiles &tiles = c.tiles[index];
    if (!tiles.ready) register_tiles(hw.core, *shape_, c.splits, share, b, c.ladders, tiles);
    options_.clear();
    const Geometry g(Geometry(*shape_, share, c.splits[b.split], b.spread), hw);
    const auto admit = [&](Candidate candidate, const RegisterTile &t) {
        if (L > 1 && !tighten(candidate, g, b, t)) return;
        if (!allowed({c.splits[b.split], b.unroll, t.registers, b.stationary, b.spread}, hw)) return;
        const Bound bound = least_of(candidate, b);
        options_.push_back({promise(bound), bound, t, candidate});
    };
    double f[3] = {1.0, 1.0, 1.0}, lanes[3];
    for (const RegisterTile &t : tiles.listed) {
        for (int d = 0; d < 3; ++d) {
            f[d] = d == b.stationary ? 1.0 : static_cast<double>(t.tiles[d]);
            lanes[d] = lanes_of(b.unroll[d], share.core[d], t.registers[d]);
        }
        const Candidate candidate = inside.candidate(b, f, lanes);
        if (could_be_best(candidate, b)) admit(candidate, t);
    }
    if (tiles.along_x) pairs(c, b, tiles, admit);
    std::sort(options_.begin(), options_.end(), [](const Option &p, const Option &q) {
        return p.promise != q.promise ? p.promise < q.promise : p.tile.registers < q.tile.registers;
    });
    for (size_t i = 0; i < options_.size(); ++i)
        if (i == 0 || still_best(options_[i].bound, options_[i].candidate, b)) option(c, b, options_[i].tile);
}

// The more elements a unit holds along x or y, the lower the bound: go down from the most, and stop where there is no hope.
template <int L>
template <typename Admit>
void Search<L>::pairs(const CoreClass &c, const Block &b, const RegisterTiles &tiles, const Admit &admit) {
    const Core &core = lanes_[0].hw->core;
    const Inside &inside = inside_[b.split];
    const Ladders::Steps &along_x = *tiles.along_x, &along_y = *tiles.along_y;
    double f[3] = {1.0, 1.0, 1.0}, lanes[3];
    lanes[b.stationary] = b.lanes[b.stationary];
    const auto pair = [&](const RegisterStep &x, const RegisterStep &y) {
        f[tiles.x] = x.tiles;
        lanes[tiles.x] = x.lanes;
        f[tiles.y] = y.tiles;
        lanes[tiles.y] = y.lanes;
        return inside.candidate(b, f, lanes);
    };
    if (bounds_.count == 1 && lanes_[0].best_cost.first == kInfinity && lanes_[0].hw->inner_limit == kInfinity)
        seed(c, b, tiles, pair);
    size_t held = 0;  // steps along y that fit: more of them the fewer elements along x
    for (size_t i = along_x.size(); i-- > 0;) {
        const RegisterStep &a = along_x[i];
        while (held < along_y.size() && registers_hold(core, a.elements, along_y[held].elements)) ++held;
        bool some = false;
        for (size_t j = held; j > 0; --j) {
            const RegisterStep &o = along_y[j - 1];
            const Candidate candidate = pair(a, o);
            if (!could_be_best(candidate, b)) break;
            admit(candidate, tiles.pair(a, o));
            some = true;
        }
        if (some) continue;
        if (held == along_y.size() || !could_be_best(pair(a, along_y.back()), b)) break;
    }
}

// Bound of the first lane.
template <int L>
Bound Search<L>::least_of(const Candidate &candidate, const Block &b) const {
    const SplitLanes &split = split_lanes_[b.split];
    return bound_of(criterion_, bounds_, split, split.outside_pj[b.stationary], bounds_.nothing, candidate);
}

// `could_be_best` where the bound of the first lane is known.
template <int L>
bool Search<L>::still_best(const Bound &bound, const Candidate &candidate, const Block &b) {
    return bounds_.count == 1 ? reachable(criterion_, bounds_, bound) : could_be_best(candidate, b);
}

template <int L>
bool Search<L>::could_be_best(const Candidate &candidate, const Block &b) {
    const SplitLanes &split = split_lanes_[b.split];
    return any_lane(criterion_, bounds_, split, split.outside_pj[b.stationary], bounds_.nothing, candidate);
}

// Charge the resting operand for the cuts along its loop that the innermost memory forces even when the other two dimensions
// are cut as finely as can be. False if not even that fits, or is hopeless.
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
    candidate.reads[0] += w[st] * more;
    if (st == 2) candidate.writes[0] += w[2] * more;
    Candidate with_energy = candidate;  // the joint floor has it already
    const Memory &m = lanes_[0].hw->memory;
    if (m.registers_keep[st] != 0.0) {
        const Share &s = *g.share;
        const double words = m.per_core[0] != 0.0 ? s.array_total[st] * s.copies[st] : s.array_total[st];
        with_energy.pj += words * more * (m.read_pj[0] + (st == 2 ? m.write_pj[0] : 0.0));
    }
    // Sums in another order than those of costs: leave a margin on the words too.
    for (double *v : {&candidate.reads[0], &candidate.writes[0]}) *v *= 1.0 - 1e-12;
    with_energy.reads[0] = candidate.reads[0];
    with_energy.writes[0] = candidate.writes[0];
    if (!could_be_best(candidate, b)) return false;
    const SplitLanes &split = split_lanes_[b.split];
    return any_lane(criterion_, bounds_, split, split.apart_pj, bounds_.nothing, with_energy);
}

// The fewest cycles of any mapping in each lane, by what happens inside the innermost memory.
template <int L>
void Search<L>::note_cycles(const Candidate &candidate, const Block &b) {
    const SplitLanes &split = split_lanes_[b.split];
    for (int i = 0; i < bounds_.count; ++i) {
        double cycles = std::max(candidate.compute, split.cycles[i]);
        for (int l = 0; l < std::min(L, 2); ++l)
            cycles = std::max(cycles, std::max(candidate.reads[l] * bounds_.read_cycles[l][i], candidate.writes[l] * bounds_.write_cycles[l][i]));
        lanes_[i].least_cycles = std::min(lanes_[i].least_cycles, cycles);
    }
}

// The most promising first: a good cost early prunes the rest. The result does not depend on the order.
template <int L>
void Search<L>::bundle(CoreClass &c) {
    todo_.clear();
    for (size_t i = 0; i < c.blocks.size(); ++i) {
        const Block &b = c.blocks[i];
        const Candidate candidate = candidate_of(b);
        if (plan_->least_room) note_cycles(candidate, b);
        const Bound bound = least_of(candidate, b);
        if (still_best(bound, candidate, b)) todo_.push_back({promise(bound), static_cast<int>(i), bound});
    }
    if (todo_.empty()) return;
    const auto hopeless = [&](const Todo &t) {
        const Block &b = c.blocks[t.block];
        return bounds_.count == 1 ? !reachable(criterion_, bounds_, t.bound) : !could_be_best(candidate_of(b), b);
    };
    const auto before = [](const Todo &p, const Todo &q) {
        return p.promise != q.promise ? p.promise < q.promise : p.block < q.block;
    };
    // After the first few most of the others are hopeless: drop these before the rest is sorted.
    constexpr size_t kFirst = 2;
    for (size_t t = 0; t < std::min(kFirst, todo_.size()); ++t) {
        std::iter_swap(todo_.begin() + t, std::min_element(todo_.begin() + t, todo_.end(), before));
        if (t == 0 || !hopeless(todo_[t])) block(c, todo_[t].block);
        todo_.erase(std::remove_if(todo_.begin() + t + 1, todo_.end(), hopeless), todo_.end());
    }
    if (todo_.size() <= kFirst) return;
    std::sort(todo_.begin() + kFirst, todo_.end(), before);
    for (size_t t = kFirst; t < todo_.size(); ++t)
        if (t == kFirst || !hopeless(todo_[t])) block(c, todo_[t].block);
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
    CoreClass *core_class = nullptr;
    int current = -1;
    for (const std::vector<int> &points : plan_->bundles) {
        if (plan_->core[points[0]] != current) {
            current = plan_->core[points[0]];
            core_class = &prepare(plan_->points[points[0]]);
        }
        CoreClass &c = *core_class;
        open(c, points);
        bundle(c);
        for (Lane &lane : lanes_) {
            if (plan_->least_room && lane.owned) cut_to_least_room(c, lane);
            Found &f = found[lane.point];
            f.feasible = lane.owned;
            f.least_cycles = lane.least_cycles;
            f.cost = Cost();
            if (!lane.owned) continue;
            f.mapping = lane.best;
            f.cost = lane.best_cost;
            if (!plan_->want_words) continue;
            cost_of(c, lane, lane.best);  // sets the fetches
            const size_t s = std::find(c.splits.begin(), c.splits.end(), lane.best.spatial.split) - c.splits.begin();
            traffic(c.shares[s], lane.outer[s], lane.hw->memory, L, f_, f.read, f.write, f.operand);
        }
    }
}

}  // namespace mapping
