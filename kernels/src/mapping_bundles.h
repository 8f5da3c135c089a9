// Members of Search: points that are searched together, and the choices inside the innermost memory that are worth a look.
#pragma once

#include "mapping_searcher.h"

namespace mapping {

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
        for (size_t s = 0; s < c.splits.size(); ++s)
            f.push_back(floor_of(Geometry(Geometry(*shape_, c.shares[s], c.splits[s]), hw), L, plan_->points.size() >= 32));
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
    for (int d = 0; d < 3; ++d)
        count[d] = ceil_div(c.shares[s].core[d], mapping.spatial.unroll[d] * mapping.spatial.registers[d]);
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

// Set up the lanes of a bundle. Mappings of the bundle before, which had the same array, give costs that are known to be
// reachable.
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
        if (i == 0 || could_be_best(candidate_of(common.with(t.registers, t.tiles), b.split), b))
            option(c, b, t.registers, t.tiles);
    }
}

template <int L>
bool Search<L>::could_be_best(const Candidate &candidate, const Block &b) {
    const SplitLanes &split = split_lanes_[b.split];
    return alive_lanes(criterion_, bounds_, split, split.joint_pj[b.stationary], candidate) > 0;
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
    candidate.reads[0] += w[st] * more * (st == 1 ? shape_->input_expansion : 1.0);
    if (st == 2) candidate.writes[0] += w[2] * more;
    Candidate with_energy = candidate;  // the joint floor has it already
    const Memory &m = lanes_[0].hw->memory;
    if (m.registers_keep[st] != 0.0) {
        const Share &s = *g.share;
        const double words =
            (m.per_core[0] != 0.0 ? s.total[st] * s.copies[st] : s.total[st]) * (st == 1 ? shape_->input_expansion : 1.0);
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

}  // namespace mapping
