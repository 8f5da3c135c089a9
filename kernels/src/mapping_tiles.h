// Members of Search: the tiles of every memory level for one choice inside the innermost memory.
#pragma once

#include "mapping_searcher.h"

namespace mapping {

// The order in which ties are settled.
inline bool key_less(const Mapping &a, const Mapping &b, int levels) {
    if (a.spatial.split != b.spatial.split) return a.spatial.split < b.spatial.split;
    if (a.spatial.unroll != b.spatial.unroll) return a.spatial.unroll < b.spatial.unroll;
    if (a.spatial.spread != b.spatial.spread) return a.spatial.spread < b.spatial.spread;
    if (a.spatial.registers != b.spatial.registers) return a.spatial.registers < b.spatial.registers;
    for (int l = 0; l < levels; ++l) {
        if (a.stationary[l] != b.stationary[l]) return a.stationary[l] < b.stationary[l];
        if (l + 1 < levels && a.count[l] != b.count[l]) return a.count[l] < b.count[l];
    }
    return false;
}

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

// Least cost with tiles `outer` in memory `level` and `next` the innermost loop of the block outside it, boundaries inside as
// set.
template <int L>
Cost Search<L>::bound_at(int level, const Triple &outer, int next) {
    const int inside = static_cast<int>(trial_.stationary[level]);
    const Memory &memory = lane_->hw->memory;
    f_[level][inside] = static_cast<double>(outer[inside]);
    f_[level][3] = runs_of(memory, *geometry_.share, level, inside, f_[level][0]);
    for (int d = 0; d < 3; ++d) f_[level + 1][d] = d == next ? 1.0 : static_cast<double>(outer[d]);
    f_[level + 1][3] = runs_of(memory, *geometry_.share, level + 1, next, f_[level + 1][0]);
    for (int l = level + 2; l < L; ++l) f_[l][0] = f_[l][1] = f_[l][2] = f_[l][3] = 1.0;
    return evaluate<L>(*lane_->hw, *outer_, inner_, f_, compute_, criterion_);
}

// All counts of tiles along the innermost loop of this memory's block, the other two given. Without memories further out only
// the least count can be best; with them a finer cut may fit better outside, so go on until the bound says stop.
template <int L>
Cost Search<L>::line(const Geometry &g, const Fit &fit, int level, const Triple &count, const Triple &tile, Triple outer, int next) {
    const int d = static_cast<int>(trial_.stationary[level]);
    double e[3];
    for (int i = 0; i < 3; ++i)
        if (i != d) e[i] = fit.extent(i, ceil_div(count[i], outer[i]) * tile[i]);
    const int64_t most = fit.most_tiles(g, d, e, count[d], tile[d]);
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
        if (level + 2 < L)
            got = level_search(level + 1, outer, trial_.tile[level], bound);
        else if (!probing_)
            offer(got);
        if (got.better_than(found)) found = got;
        if (probing_ && found.first < kInfinity) break;
        if (piece == 1 || level + 2 == L || (got.first == bound.first && got.second == bound.second)) break;
        outer[d] = ceil_div(count[d], piece - 1);
    }
    return found;
}

// Best choice of the tiles of memory `level` and of everything outside it for one lane, given the tiles inside: their number
// along each dimension of a core's share, their elements, and a bound of the cost.
template <int L>
Cost Search<L>::level_search(int level, const Triple &count, const Triple &tile, const Cost &least) {
    const int inside = static_cast<int>(trial_.stationary[level]);
    const Geometry g(geometry_, *lane_->hw);
    const Fit fit(g, level);
    Cost found;
    const auto keep = [&](const Cost &c) {
        if (c.better_than(found)) found = c;
    };
    for (int next = 0; next < 3; ++next) {
        if (found.first == least.first && found.second == least.second) break;  // nothing can be better than the bound
        if (probing_ && found.first < kInfinity) break;
        double e[3];
        for (int d = 0; d < 3; ++d) e[d] = fit.extent(d, tile[d]);
        Triple outer = count;
        if (next != inside) {
            // The dimension that the block outside runs innermost stays cut as it is inside: coarser tiles would gain nothing,
            // since its operand crosses the boundary outside as often whatever the cut, and would take room.
            const int other = 3 - next - inside;
            int64_t most = fit.most_tiles(g, other, e, count[other], tile[other]);
            for (; most > 0; most = ceil_div(count[other], outer[other]) - 1) {
                outer[other] = ceil_div(count[other], most);
                outer[inside] = 1;
                if (lane_->best_cost.better_than(bound_at(level, outer, next))) break;
                keep(line(g, fit, level, count, tile, outer, next));
            }
            continue;
        }
        const int x = (inside + 1) % 3, y = (inside + 2) % 3;
        int64_t most_x = fit.most_tiles(g, x, e, count[x], tile[x]);
        for (; most_x > 0; most_x = ceil_div(count[x], outer[x]) - 1) {
            outer[x] = ceil_div(count[x], most_x);
            outer[y] = outer[inside] = 1;
            if (lane_->best_cost.better_than(bound_at(level, outer, next))) break;
            e[x] = fit.extent(x, ceil_div(count[x], outer[x]) * tile[x]);
            int64_t most_y = fit.most_tiles(g, y, e, count[y], tile[y]);
            for (; most_y > 0; most_y = ceil_div(count[y], outer[y]) - 1) {
                outer[y] = ceil_div(count[y], most_y);
                outer[inside] = 1;
                if (lane_->best_cost.better_than(bound_at(level, outer, next))) break;
                keep(line(g, fit, level, count, tile, outer, next));
            }
        }
    }
    return found;
}

// Whether any cut along the resting dimension that is no coarser than in `outer` could still be best for the lane at hand: the
// memories outside need only hold whole numbers of array tiles along it, so that one probe stands for all cuts of a line.
template <int L>
bool Search<L>::finer_helps(const Triple &count, const Triple &tile, const Triple &outer, int next, double compute) {
    const int free = static_cast<int>(trial_.stationary[0]);
    Triple c = outer, t;
    for (int d = 0; d < 3; ++d) t[d] = ceil_div(count[d], outer[d]) * tile[d];
    c[free] = count[free];
    t[free] = tile[free];
    f_[0][free] = static_cast<double>(outer[free]);
    for (int d = 0; d < 3; ++d) f_[1][d] = d == next ? 1.0 : static_cast<double>(outer[d]);
    f_[1][3] = runs_of(lane_->hw->memory, *geometry_.share, 1, next, f_[1][0]);
    trial_.stationary[1] = next;
    compute_ = compute;
    probing_ = true;
    Cost none;  // no bound to stop at
    none.first = none.second = -1.0;
    const bool helps = level_search(1, c, t, none).first < kInfinity;
    probing_ = false;
    return helps;
}

// Energy of the fetches as `bound_at` has set them over the boundaries 0 and 1, and of what is inside.
template <int L>
double Search<L>::pj_before(int next) const {
    const double *e0 = inner_.e, *e1 = outer_->e[1], *f0 = f_[0], *f1 = f_[1];
    const double inputs = next == 1 ? 1.0 : input_fetches(*outer_, 1, outer_->all, f_);
    return inner_.base_pj + (e0[0] * f0[0] + e0[1] * f0[1] + e0[2] * (f0[2] - 1.0) + e0[3] * f0[2]) +
           (e1[0] * f1[0] + e1[1] * inputs + e1[2] * (f1[2] - 1.0) + e1[3] * f1[2]);
}

// What a lane's best cost leaves to the memories outside the innermost one, `bound` being without them.
template <int L>
Limit Search<L>::limit_of(const Cost &bound, int next) const {
    const Hardware &hw = *lane_->hw;
    double before = pj_before(next);
    for (int l = 3; l < L; ++l) before += outer_->floor_pj[l];
    Limit limit{criterion_,   lane_->best_cost.first, lane_->best_cost.second, before, bound.cycles,
                hw.read_cycles[2], hw.write_cycles[2], {}, {}};
    const double *w0 = outer_->words[0], *r0 = outer_->refill[0], *w1 = outer_->words[1];
    const double *f0 = f_[0], *f1 = f_[1];  // the map of a convolution does not cross these boundaries: see `leaps`
    limit.near[0] = (w0[0] * f0[0] + w0[1] * f0[1] + w0[2] * (f0[2] - 1.0) + r0[2] * f1[2]) * hw.read_cycles[0];
    limit.near[1] = (w0[2] * f0[2] + r0[0] * f1[0] + r0[1] * f1[1] + r0[2] * (f1[2] - 1.0)) * hw.write_cycles[0];
    const double *r1 = outer_->refill[1];
    limit.near[2] = (w1[0] * f1[0] + w1[1] * f1[1] + w1[2] * (f1[2] - 1.0) + r1[2]) * hw.read_cycles[1];
    limit.near[3] = (w1[2] * f1[2] + r1[0] + r1[1]) * hw.write_cycles[1];
    const bool sums = next == 2;
    limit.again[0] = sums ? r0[2] * hw.read_cycles[0] : 0.0;
    limit.again[1] = r0[next] * hw.write_cycles[0];
    limit.again[2] = w1[next] * hw.read_cycles[1];
    limit.again[3] = sums ? w1[2] * hw.write_cycles[1] : 0.0;
    return limit;
}

// The coarsest piece along a line of the innermost memory's tiles, at most `piece`, with which the memories outside could still bring
// a lane to its best cost; `bound` is that of `piece` without them, and grows as pieces get finer. 0: none can. Lanes with the
// same memories share what is known.
template <int L>
int64_t Search<L>::helpful_piece(int lane, const Cost &bound, const Triple &unit, int64_t piece, int next, Helpful *known) {
    const Limit limit = limit_of(bound, next);
    if (limit.most_pj(0.0) < 0.0) return 0;
    Helpful &own = known[lane];
    own = {limit, piece, piece};
    if (lane > 0 && plan_->memory[lanes_[lane - 1].point] == plan_->memory[lane_->point]) {
        const Helpful &other = known[lane - 1];
        if (other.most == piece && other.limit == limit) return own.piece = other.piece;
    }
    const Geometry g(geometry_, *lane_->hw);
    const int line = static_cast<int>(trial_.stationary[0]);
    const double(&floors)[3] = (*lane_->floor)[split_index_].second_pj[next];
    return own.piece = coarsest_piece(g, *outer_, 1, next, line, unit, piece, limit, floors);
}

// Whether tiles `outer` in the innermost memory with `next` the innermost loop outside could still be best in some lane; the
// bound itself in bound_ where there is one lane.
template <int L>
bool Search<L>::any_alive(const Triple &outer, int next, double compute) {
    const Outer &o = lanes_[0].outer[split_index_];  // words are the same in all lanes
    const int st = static_cast<int>(trial_.stationary[0]);
    f_[0][st] = static_cast<double>(outer[st]);
    for (int d = 0; d < 3; ++d) f_[1][d] = d == next ? 1.0 : static_cast<double>(outer[d]);
    f_[1][3] = runs_of(lanes_[0].hw->memory, *geometry_.share, 1, next, f_[1][0]);
    const double *w = o.words[0], *r = o.refill[0];
    Candidate c;
    c.compute = compute;
    c.pj = pj_ + inner_.e[st] * (st == 2 ? f_[0][2] - 1.0 : f_[0][st]) + (st == 2 ? inner_.e[3] * f_[0][2] : 0.0);
    c.reads[0] = w[0] * f_[0][0] + w[1] * f_[0][1] + w[2] * (f_[0][2] - 1.0);
    c.writes[0] = w[2] * f_[0][2];
    c.reads[0] += r[2] * f_[1][2];
    c.writes[0] += r[0] * f_[1][0] + r[1] * input_fetches(o, 1, o.halo[0], f_) + r[2] * (f_[1][2] - 1.0);
    const double *v = o.words[1];
    c.reads[1] = v[0] * f_[1][0] + v[1] * input_fetches(o, 1, o.halo[1], f_) + v[2] * (f_[1][2] - 1.0);
    c.writes[1] = v[2] * f_[1][2];
    if (L > 2) {  // what passes the memory outside does so once at least
        const double *u = o.refill[1];
        c.reads[1] += u[2];
        c.writes[1] += u[0] + u[1];
    }
    c.fetches[0] = f_[1][0];
    c.fetches[1] = input_fetches(o, 1, o.all, f_);
    c.fetches[2] = f_[1][2] - 1.0;
    c.fetches[3] = f_[1][2];
    const SplitLanes &split = split_lanes_[split_index_];
    if (bounds_.count > 1) return alive_lanes(criterion_, bounds_, split, split.first_pj[next], split.rest_pj[next], c) > 0;
    bound_ = bound_of(criterion_, bounds_, split, split.first_pj[next], split.rest_pj[next], c);
    const bool alive = reachable(criterion_, bounds_, bound_);
    bounds_.alive[0] = alive;
    return alive;
}

// The line of `line` for all lanes together; the bound with `outer` as given is known to have hope.
template <int L>
void Search<L>::innermost_line(const Triple &count, const Triple &tile, Triple outer, int next) {
    const int d = static_cast<int>(trial_.stationary[0]);
    const Core &core = lanes_[0].hw->core;
    double e[3];
    int64_t held[3] = {};
    for (int i = 0; i < 3; ++i)
        if (i != d) e[i] = fit_.extent(i, held[i] = ceil_div(count[i], outer[i]) * tile[i]);
    int64_t most = fit_.most_tiles(geometry_, d, e, count[d], tile[d]);
    if (roomiest_ && most > 0) {  // coarser tiles fit no lane's next memory
        for (int i = 0; i < 3; ++i)
            if (i != d) e[i] = next_fit_.extent(i, held[i]);
        most = std::min(most, next_fit_.most_tiles(roomiest_geometry_, d, e, count[d], tile[d]));
    }
    if (most == 0) return;
    const bool pipelined = core.kind == kSystolicPipelined;  // its cycles do not always grow with the number of pieces
    int64_t done[kLanes], cuts = 0;
    std::fill_n(done, bounds_.count, 0);
    const int64_t given = outer[d];
    outer[d] = ceil_div(count[d], most);
    // What the caller has asked for one lane need not be asked again; systolic arrays take longer for more pieces.
    bool known = bounds_.count == 1 && core.kind == kDotProduct && outer[d] == given;
    // What fits the next memory says which pieces are worth a look; one probe, whether all memories outside leave finer ones any.
    const bool leaps = L > 2 && !pipelined && geometry_.share->map_from > 1;  // what a map takes is dear to find out
    Helpful helpful[kLanes];
    int64_t wanted[kLanes];
    std::fill_n(wanted, bounds_.count, std::numeric_limits<int64_t>::max());
    Triple unit;
    for (int i = 0; i < 3; ++i) unit[i] = i == d ? tile[i] : ceil_div(count[i], outer[i]) * tile[i];
    for (;;) {
        const int64_t piece = ceil_div(count[d], outer[d]);
        const double compute = compute_cycles(inner_, core, geometry_.share->core[d], outer[d], piece * tile[d]);
        if (!known && !any_alive(outer, next, pipelined ? inner_.compute : compute)) return;
        int64_t open[kLanes], further = 0;  // the coarsest of the pieces that lanes still want
        if (known)
            open[0] = 1;
        else
            std::copy_n(bounds_.alive, bounds_.count, open);
        known = false;
        for (int i = 0; i < 3; ++i) trial_.tile[0][i] = ceil_div(count[i], outer[i]) * tile[i];
        trial_.count[0] = outer;
        trial_.stationary[1] = next;
        compute_ = compute;
        for (int i = 0; i < bounds_.count; ++i) {
            if (!open[i] || done[i]) continue;
            if (wanted[i] < piece) {
                further = std::max(further, wanted[i]);
                continue;
            }
            lane_ = &lanes_[i];
            outer_ = &lane_->outer[split_index_];
            const Cost bound = bound_at(0, outer, next);
            if (lane_->best_cost.better_than(bound)) {
                if (pipelined) further = piece - 1;
                continue;
            }
            if (leaps && helpful[i].piece != wanted[i]) {
                wanted[i] = helpful_piece(i, bound, unit, piece, next, helpful);
                done[i] = wanted[i] == 0;
                if (wanted[i] < piece) {
                    further = std::max(further, wanted[i]);
                    continue;
                }
            }
            if constexpr (L > 2)
                if ((!leaps || L > 3) && cuts == 1 && !finer_helps(count, tile, outer, next, pipelined ? inner_.compute : compute)) {
                    done[i] = 1;
                    continue;
                }
            Cost got = bound_at(0, outer, next);  // again: the probe has set other fetches
            if constexpr (L == 2)
                offer(got);
            else
                got = level_search(1, outer, trial_.tile[0], bound);
            note_best(i);
            done[i] = !pipelined && (L == 2 || (got.first == bound.first && got.second == bound.second));
            if (!done[i]) further = piece - 1;
            wanted[i] = piece - 1;
        }
        if (further == 0) return;
        outer[d] = ceil_div(count[d], further);
        ++cuts;
    }
}

// Tiles of the innermost memory for all lanes together; the same walk as level_search.
template <int L>
void Search<L>::innermost(const Triple &count, const Triple &tile) {
    const int inside = static_cast<int>(trial_.stationary[0]);
    double fine[3], outside[3];
    geometry_.hw = lanes_[0].hw;
    fit_ = Fit(geometry_, 0);
    if constexpr (L > 2)
        if (roomiest_) {
            roomiest_geometry_ = Geometry(geometry_, *roomiest_);
            next_fit_ = Fit(roomiest_geometry_, 1);
            for (int d = 0; d < 3; ++d) outside[d] = next_fit_.extent(d, tile[d]);
        }
    for (int d = 0; d < 3; ++d) fine[d] = fit_.extent(d, tile[d]);
    Triple least;  // fewest tiles along each dimension, the other two cut as finely as can be
    for (int d = 0; d < 3; ++d) {
        int64_t most = fit_.most_tiles(geometry_, d, fine, count[d], tile[d]);
        if (roomiest_) most = std::min(most, next_fit_.most_tiles(roomiest_geometry_, d, outside, count[d], tile[d]));
        if (most == 0) return;
        least[d] = ceil_div(count[d], most);
    }
    // The most promising loop outside first, where the bounds of one lane tell; each is looked at once.
    const double compute = inner_.compute;
    const bool alone = bounds_.count == 1;
    std::pair<Bound, int> open[3];
    int loops = 0;
    for (int next = 0; next < 3; ++next) {
        if (!any_alive(least, next, compute)) continue;
        int at = loops++;
        for (; alone && at > 0 && promise(bound_) < promise(open[at - 1].first); --at) open[at] = open[at - 1];
        open[at] = {bound_, next};
    }
    for (int i = 0; i < loops; ++i) {
        const int next = open[i].second;
        if (i > 0 && !(alone ? reachable(criterion_, bounds_, open[i].first) : any_alive(least, next, compute))) continue;
        Triple outer = count;
        if (next != inside) {
            const int other = 3 - next - inside;
            for (int64_t c = least[other];;) {
                outer[other] = c;
                outer[inside] = least[inside];
                if (c != least[other] && !any_alive(outer, next, compute)) break;
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
            if (cx != least[x] && !any_alive(outer, next, compute)) break;
            const int64_t piece_x = ceil_div(count[x], cx);
            e[x] = fit_.extent(x, piece_x * tile[x]);
            for (int64_t most_y = fit_.most_tiles(geometry_, y, e, count[y], tile[y]); most_y > 0;
                 most_y = ceil_div(count[y], outer[y]) - 1) {
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
void Search<L>::option(const CoreClass &c, const Block &b, const RegisterTile &t) {
    const Triple &registers = t.registers, &tiles = t.tiles;
    const Share &share = c.shares[b.split];
    trial_.spatial = {c.splits[b.split], b.unroll, registers, b.stationary, b.spread};
    trial_.stationary[0] = b.stationary;
    split_index_ = b.split;
    geometry_ = Geometry(*shape_, c.shares[b.split], c.splits[b.split], b.spread);
    double passes[3], lanes[3];
    for (int d = 0; d < 3; ++d) {
        passes[d] = static_cast<double>(b.passes[d]);
        lanes[d] = lanes_of(b.unroll[d], share.core[d], registers[d]);
    }
    inner_ = inner_of(share, passes, lanes, b.stationary, b.spread, *lanes_[0].hw);
    f_[0][3] = 1.0;
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

}  // namespace mapping
