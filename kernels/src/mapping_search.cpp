#include "mapping_search.h"

#include <cstring>

namespace mapping {

namespace {

bool key_less(const Mapping &a, const Mapping &b, int levels) {
    const auto less = [](const int64_t *x, const int64_t *y, int n, int &order) {
        for (int i = 0; i < n && order == 0; ++i) order = x[i] < y[i] ? -1 : x[i] > y[i] ? 1 : 0;
    };
    int order = 0;
    less(a.spatial.split, b.spatial.split, 4, order);
    less(a.spatial.unroll, b.spatial.unroll, 3, order);
    less(a.spatial.registers, b.spatial.registers, 3, order);
    for (int l = 0; l < levels && order == 0; ++l) {
        order = a.stationary[l] < b.stationary[l] ? -1 : a.stationary[l] > b.stationary[l] ? 1 : 0;
        if (l + 1 < levels) less(a.count[l], b.count[l], 3, order);
    }
    return order < 0;
}

}  // namespace

const Ladder &Search::ladder(int64_t units) {
    auto found = ladders_.find(units);
    if (found != ladders_.end()) return found->second;
    Ladder made;
    for (int64_t tile = units; tile >= 1;) {
        const int64_t count = ceil_div(units, tile);
        const int64_t least = ceil_div(units, count);  // the smallest tile with this count
        made.count.push_back(count);
        made.tile.push_back(least);
        tile = least - 1;
    }
    return ladders_.emplace(units, std::move(made)).first->second;
}

void Search::set_work(const Shape &s, const Hardware &hw, Option &option) const {
    Work &w = option.work;
    const Spatial &sp = option.spatial;
    const int64_t dim[3] = {s.m, s.n, s.k};
    int64_t core[3];
    double active[3], passes[3];
    for (int d = 0; d < 3; ++d) {
        core[d] = ceil_div(dim[d], sp.split[d]);
        active[d] = static_cast<double>(ceil_div(dim[d], core[d]));
        passes[d] = static_cast<double>(ceil_div(core[d], sp.unroll[d]));
        option.extent[d] = sp.unroll[d] * sp.registers[d];
        option.units[d] = ceil_div(core[d], option.extent[d]);
        w.lanes[d] = static_cast<double>(std::min(sp.unroll[d], ceil_div(core[d], sp.registers[d])));
    }
    const double batch = static_cast<double>(s.batch);
    const double batch_core = static_cast<double>(ceil_div(s.batch, sp.split[3]));
    const double D[3] = {static_cast<double>(s.m), static_cast<double>(s.n), static_cast<double>(s.k)};
    const double C[3] = {static_cast<double>(core[0]), static_cast<double>(core[1]), static_cast<double>(core[2])};
    for (int d = 0; d < 3; ++d) {
        const int x = (d + 1) % 3, y = (d + 2) % 3;
        w.operand[d] = batch * D[x] * D[y] * operand_words_[d];
        w.operand_core[d] = batch_core * C[x] * C[y] * operand_words_[d];
        w.copies[d] = active[d];
        w.expansion[d] = d == 1 ? s.input_expansion : 1.0;
    }
    const double macs = batch * D[0] * D[1] * D[2];
    double energy = macs * hw.mac_pj;
    for (int d = 0; d < 2; ++d)
        energy += hw.registers_keep[d] ? macs * hw.register_read_pj
                                       : w.operand[d] * w.expansion[d] * w.copies[d] * passes[d] * hw.level[0].read_pj;
    energy += hw.registers_keep[2]
                  ? macs * (hw.register_read_pj + hw.register_write_pj)
                  : w.operand[2] * w.copies[2] * (passes[2] * hw.level[0].write_pj + (passes[2] - 1.0) * hw.level[0].read_pj);
    w.base_energy = energy;
    w.stream = 0.0;
    if (hw.kind == kDotProduct) {
        w.compute = batch_core * passes[0] * passes[1] * passes[2];
        return;
    }
    // Systolic: one fold for every resting tile and every piece of the streamed dimension (sp.stationary).
    const int d = sp.stationary;
    const double folds = batch_core * passes[(d + 1) % 3] * passes[(d + 2) % 3];
    const double rows = static_cast<double>(hw.rows), columns = static_cast<double>(hw.columns);
    const double fill_drain = (d == 2 ? rows : 2.0 * rows) + columns - 2.0;
    if (hw.kind == kSystolic) {
        w.compute = folds * C[d];
        w.stream = folds * fill_drain;
    } else {
        w.compute = folds;
        w.stream = fill_drain;
    }
}

// Cycles of the array when the streamed dimension of a core is cut into `tiles` pieces of `tile` elements (the last one the rest).
double Search::compute_cycles(const Option &option, const Hardware &hw, int64_t tiles, int64_t tile) const {
    const Work &w = option.work;
    if (hw.kind == kDotProduct) return w.compute;
    if (hw.kind == kSystolic) return w.compute + w.stream * static_cast<double>(tiles);
    // The next resting tile is loaded during this fold, one row a cycle: a fold lasts at least `rows` cycles.
    const int64_t length = core_dims_[option.spatial.stationary];
    const int64_t rest = length - (tiles - 1) * tile;
    const double fold = static_cast<double>((tiles - 1) * std::max(tile, hw.rows) + std::max(rest, hw.rows));
    return w.compute * fold + w.stream;
}

void Search::build_options(const Shape &s, const Hardware &hw) {
    options_.clear();
    Option option;
    std::memset(&option, 0, sizeof option);
    const int64_t c = hw.cores;
    std::vector<std::array<int64_t, 3>> unrolls;
    const auto add_unroll = [&](int64_t m, int64_t n, int64_t k) {
        const std::array<int64_t, 3> u{m, n, k};
        if (std::find(unrolls.begin(), unrolls.end(), u) == unrolls.end()) unrolls.push_back(u);
    };
    if (hw.kind == kDotProduct) {
        std::vector<std::array<int64_t, 3>> axis[2];
        for (int a = 0; a < 2; ++a) {
            const int64_t size = a == 0 ? hw.rows : hw.columns;
            for (int64_t m = 1; m <= size; ++m)
                if (size % m == 0)
                    for (int64_t n = 1; n <= size / m; ++n)
                        if (size / m % n == 0) {
                            const int64_t k = size / m / n;
                            if (hw.split_axes || (m > 1) + (n > 1) + (k > 1) <= 1) axis[a].push_back({m, n, k});
                        }
        }
        for (const auto &r : axis[0])
            for (const auto &q : axis[1]) add_unroll(r[0] * q[0], r[1] * q[1], r[2] * q[2]);
    }
    for (int64_t sm = 1; sm <= c; ++sm) {
        if (c % sm) continue;
        for (int64_t sn = 1; sn <= c / sm; ++sn) {
            if (c / sm % sn) continue;
            for (int64_t sk = 1; sk <= c / sm / sn; ++sk) {
                if (c / sm / sn % sk || (sk > 1 && !hw.split_k_over_cores)) continue;
                const int64_t sb = c / sm / sn / sk;
                if (sb > 1 && s.batch == 1 && c > 1 && !(sm == 1 && sn == 1 && sk == 1)) continue;
                if (sb > 1 && s.batch == 1) continue;
                const int64_t split[4] = {sm, sn, sk, sb};
                std::memcpy(option.spatial.split, split, sizeof split);
                const int64_t core[3] = {ceil_div(s.m, sm), ceil_div(s.n, sn), ceil_div(s.k, sk)};
                for (int st = 0; st < 3; ++st) {
                    option.spatial.stationary = st;
                    if (hw.kind != kDotProduct) {
                        // st = 2: outputs rest (rows m, columns n); 0: weights rest (rows k, columns n); 1: inputs rest (rows k, columns m)
                        const int flow = st == 2 ? kOutputStationary : st == 0 ? kWeightStationary : kInputStationary;
                        if (hw.dataflow != kAnyDataflow && hw.dataflow != flow) continue;
                        int64_t u[3] = {1, 1, 1};
                        u[st == 2 ? 0 : 2] = hw.rows;
                        u[st == 1 ? 0 : 1] = hw.columns;
                        std::memcpy(option.spatial.unroll, u, sizeof u);
                        for (int d = 0; d < 3; ++d) option.spatial.registers[d] = 1;
                        set_work(s, hw, option);
                        options_.push_back(option);
                        continue;
                    }
                    const int x = (st + 1) % 3, y = (st + 2) % 3;
                    for (const auto &u : unrolls) {
                        std::memcpy(option.spatial.unroll, u.data(), sizeof option.spatial.unroll);
                        option.spatial.registers[st] = 1;
                        if (hw.fill_registers && u[st] > 1) continue;
                        // Filling the registers comes before the split over cores: a core's share is then at least one array tile.
                        const int64_t dim[3] = {s.m, s.n, s.k};
                        const Ladder lx = ladder(ceil_div(hw.fill_registers ? dim[x] : core[x], u[x]));
                        const Ladder ly = ladder(ceil_div(hw.fill_registers ? dim[y] : core[y], u[y]));
                        for (size_t i = 0; i < lx.tile.size(); ++i)
                            for (size_t j = 0; j < ly.tile.size(); ++j) {
                                const int64_t rx = lx.tile[i], ry = ly.tile[j];
                                const auto holds = [&](int64_t a, int64_t b) { return (a == 1 && b == 1) || a * b + a + b <= hw.register_words; };
                                if (!holds(rx, ry)) continue;
                                // Ladders descend in tile: the entry before is the next larger tile.
                                if (hw.fill_registers && ((i > 0 && holds(lx.tile[i - 1], ry)) || (j > 0 && holds(rx, ly.tile[j - 1])))) continue;
                                if (hw.fill_registers && (split[x] > ceil_div(dim[x], rx * u[x]) || split[y] > ceil_div(dim[y], ry * u[y]))) continue;
                                option.spatial.registers[x] = rx;
                                option.spatial.registers[y] = ry;
                                set_work(s, hw, option);
                                options_.push_back(option);
                            }
                    }
                }
            }
        }
    }
}

bool Search::fits(int level, const int64_t extent[3]) const {
    const Level &lv = hw_->level[level];
    double e[3];
    for (int d = 0; d < 3; ++d) {
        int64_t x = std::min(extent[d], core_dims_[d]);
        if (!lv.per_core) x = std::min(x * option_->spatial.split[d], dims_[d]);
        e[d] = static_cast<double>(x);
    }
    const double batch = lv.per_core ? 1.0 : static_cast<double>(std::min(option_->spatial.split[3], shape_->batch));
    double total = 0.0;
    for (int d = 0; d < 3; ++d) {
        const double words = batch * e[(d + 1) % 3] * e[(d + 2) % 3] * operand_words_[d];
        if (words > lv.capacity[d]) return false;
        total += words;
    }
    return total <= lv.capacity[3];
}

void Search::offer(const Cost &cost) {
    if (best_cost_.better_than(cost)) return;
    if (!cost.better_than(best_cost_) && !key_less(trial_, best_, hw_->levels)) return;
    best_cost_ = cost;
    best_ = trial_;
}

// Try tiles `outer` (counts) of memory `level`, whose block's innermost loop is given by fetches already set for the boundary inside it;
// `next` is the innermost loop of the block outside. Returns the best cost found below, `bound` what it could be at best.
Cost Search::consider(int level, const int64_t counts[3], const int64_t extents[3], const int64_t outer[3], int next, Cost &bound) {
    const int levels = hw_->levels;
    const int inside = trial_.stationary[level];
    int64_t tile[3];
    for (int d = 0; d < 3; ++d) {
        tile[d] = ceil_div(counts[d], outer[d]) * extents[d];
        trial_.tile[level][d] = tile[d];
        trial_.count[level][d] = outer[d];
    }
    fetches_[level][inside] = static_cast<double>(outer[inside]);
    for (int d = 0; d < 3; ++d) fetches_[level + 1][d] = d == next ? 1.0 : static_cast<double>(outer[d]);
    for (int l = level + 2; l < levels; ++l)
        for (int d = 0; d < 3; ++d) fetches_[l][d] = 1.0;
    trial_.stationary[level + 1] = next;
    double compute = compute_;
    if (level == 0 && hw_->kind != kDotProduct) compute = compute_cycles(*option_, *hw_, outer[inside], ceil_div(counts[inside], outer[inside]));
    bound = evaluate(*hw_, option_->work, fetches_, compute, criterion_);
    if (best_cost_.better_than(bound)) return Cost();
    if (level + 2 == levels) {
        offer(bound);
        return bound;
    }
    const double saved = compute_;
    compute_ = compute;
    const Cost found = level_search(level + 1, outer, tile);
    compute_ = saved;
    return found;
}

// Best choice of the tiles of memory `level` and of everything outside it, given the tiles inside (counts, extents of one core).
Cost Search::level_search(int level, const int64_t counts[3], const int64_t extents[3]) {
    const int inside = trial_.stationary[level];
    Cost found;
    const auto keep = [&](const Cost &c) {
        if (c.better_than(found)) found = c;
    };
    for (int next = 0; next < 3; ++next) {
        // The dimension that the block outside streams through this memory is cut as finely as the tiles inside: that costs nothing,
        // since its operand then crosses the outer boundary once whatever the cut, and it leaves the most room.
        int order[3];  // outermost enumeration first, the line last
        order[2] = inside;
        order[0] = next != inside ? next : (inside + 1) % 3;
        order[1] = 3 - order[0] - order[2];
        const Ladder ladders[3] = {ladder(counts[order[0]]), ladder(counts[order[1]]), ladder(counts[order[2]])};
        int64_t outer[3], tile[3];
        const auto set = [&](int i, size_t at) {
            const int d = order[i];
            outer[d] = ladders[i].count[at];
            tile[d] = ladders[i].tile[at] * extents[d];
        };
        const size_t first = next != inside ? ladders[0].count.size() - 1 : 0;
        for (size_t a = first; a < ladders[0].count.size(); ++a) {
            set(0, a);
            for (size_t b = 0; b < ladders[1].count.size(); ++b) {
                set(1, b);
                set(2, ladders[2].count.size() - 1);
                if (!fits(level, tile)) continue;
                size_t c = 0;
                for (;; ++c) {
                    set(2, c);
                    if (fits(level, tile)) break;
                }
                for (; c < ladders[2].count.size(); ++c) {
                    set(2, c);
                    Cost bound;
                    const Cost got = consider(level, counts, extents, outer, next, bound);
                    keep(got);
                    if (hw_->kind == kSystolicPipelined && level == 0) continue;
                    if (best_cost_.better_than(bound)) break;
                    if (got.first == bound.first && got.second == bound.second) break;
                    if (level + 2 == hw_->levels) break;
                }
            }
        }
    }
    return found;
}

bool Search::run(const Shape &shape, const Hardware &hw, Mapping &best, Cost &cost, Words &words) {
    shape_ = &shape;
    hw_ = &hw;
    dims_[0] = shape.m;
    dims_[1] = shape.n;
    dims_[2] = shape.k;
    for (int d = 0; d < 3; ++d) operand_words_[d] = shape.operand_bits[d] / hw.word_bits;
    best_cost_ = Cost();
    std::memset(&trial_, 0, sizeof trial_);
    build_options(shape, hw);
    std::vector<std::pair<Cost, size_t>> order;
    const auto bind = [&](const Option &option) {
        option_ = &option;
        for (int d = 0; d < 3; ++d) core_dims_[d] = ceil_div(dims_[d], option.spatial.split[d]);
        const int st = option.spatial.stationary;
        for (int d = 0; d < 3; ++d) fetches_[0][d] = d == st ? 1.0 : static_cast<double>(option.units[d]);
        trial_.spatial = option.spatial;
        trial_.stationary[0] = st;
        // A lower bound of the array's cycles; the streamed dimension in one piece.
        compute_ = hw.kind == kSystolicPipelined ? option.work.compute * static_cast<double>(std::max(core_dims_[st], hw.rows)) + option.work.stream
                                                 : compute_cycles(option, hw, 1, option.units[st]);
    };
    order.reserve(options_.size());
    for (size_t i = 0; i < options_.size(); ++i) {
        bind(options_[i]);
        for (int l = 1; l < hw.levels; ++l)
            for (int d = 0; d < 3; ++d) fetches_[l][d] = 1.0;
        order.emplace_back(evaluate(hw, options_[i].work, fetches_, compute_, criterion_), i);
    }
    std::sort(order.begin(), order.end(), [](const auto &a, const auto &b) {
        return a.first.better_than(b.first) || (!b.first.better_than(a.first) && a.second < b.second);
    });
    for (const auto &[bound, index] : order) {
        if (best_cost_.better_than(bound)) break;
        const Option &option = options_[index];
        bind(option);
        if (hw.levels == 1) {
            // The array works straight from DRAM.
            fetches_[0][option.spatial.stationary] = 1.0;
            offer(bound);
        } else {
            level_search(0, option.units, option.extent);
        }
    }
    if (best_cost_.first == kInfinity) return false;
    best = best_;
    cost = best_cost_;
    // Words of the winner.
    for (size_t i = 0; i < options_.size(); ++i)
        if (std::memcmp(&options_[i].spatial, &best_.spatial, sizeof(Spatial)) == 0) {
            bind(options_[i]);
            const int levels = hw.levels;
            double compute = compute_;
            for (int l = 0; l < levels; ++l) {
                const int st = best_.stationary[l];
                for (int d = 0; d < 3; ++d) {
                    const double in = static_cast<double>(l == 0 ? options_[i].units[d] : best_.count[l - 1][d]);
                    const double out = l + 1 < levels ? static_cast<double>(best_.count[l][d]) : 1.0;
                    fetches_[l][d] = d == st ? out : in;
                }
            }
            if (hw.kind != kDotProduct && levels > 1) {
                const int st = best_.stationary[0];
                compute = compute_cycles(options_[i], hw, best_.count[0][st], ceil_div(options_[i].units[st], best_.count[0][st]));
            }
            evaluate(hw, options_[i].work, fetches_, compute, criterion_, &words);
            break;
        }
    return true;
}

}  // namespace mapping
