#include "mapping_options.h"

namespace mapping {

namespace {

// Factors of `size` along m, n, k, and the batch where `spread`, whose product is `size`; on one dimension alone unless
// `shared`.
std::vector<Units> axis_factors(int64_t size, bool shared, bool spread) {
    if (size == 1) return {{1, 1, 1, 1}};
    std::vector<Units> out;
    if (!shared) {
        out = {{1, 1, size, 1}, {1, size, 1, 1}, {size, 1, 1, 1}};
        if (spread) out.push_back({1, 1, 1, size});
        return out;
    }
    for (int64_t m = 1; m <= size; ++m)
        for (int64_t n = 1; size % m == 0 && n <= size / m; ++n)
            for (int64_t k = 1; size / m % n == 0 && k <= size / m / n; ++k) {
                if (size / m / n % k) continue;
                const int64_t batch = size / m / n / k;
                if (batch == 1 || spread) out.push_back({m, n, k, batch});
            }
    return out;
}

bool triple_holds(const Core &core, const Triple &r) {
    return (r[0] == 1 && r[1] == 1 && r[2] == 1) || r[0] * r[2] + r[2] * r[1] + r[0] * r[1] <= core.register_words;
}

// Unrolls that fill the array with exact divisors of the dimensions; of two at most: what Sunstone tries first (`factors_first`
// in dse_kernels/mapping.py).
template <typename Unroll>
bool fills_exactly(const Core &core, const Shape &shape, const Unroll &u) {
    for (int d = 0; d < 3; ++d)
        if (shape.dim[d] % u[d]) return false;
    return u[0] * u[1] * u[2] == core.rows * core.columns;
}

template <typename Unroll>
bool exact_unroll(const Core &core, const Shape &shape, const Unroll &u) {
    return (u[0] == 1 || u[1] == 1 || u[2] == 1) && fills_exactly(core, shape, u);
}

// Of all unrolls those that such a search considers. For each pair of dimensions the exact ones; for a pair that has none all
// of its padded ones and the exact ones of three dimensions; all where no pair has any.
std::vector<Units> factors_first(const Core &core, const Shape &shape, const std::vector<Units> &unrolls) {
    bool exact[3] = {}, any = false;  // by the dimension that is not unrolled
    for (const Units &u : unrolls)
        for (int d = 0; d < 3; ++d)
            if (u[d] == 1 && exact_unroll(core, shape, u)) exact[d] = any = true;
    if (!any) return unrolls;
    const bool complete = exact[0] && exact[1] && exact[2];
    std::vector<Units> out;
    for (const Units &u : unrolls) {
        bool open = !complete && fills_exactly(core, shape, u);
        for (int d = 0; d < 3; ++d) open |= u[d] == 1 && !exact[d];
        if (open || exact_unroll(core, shape, u)) out.push_back(u);
    }
    return out;
}

bool exact_split(const Shape &shape, const Split &split, const Triple &unit) {
    for (int d = 0; d < 3; ++d)
        if (shape.dim[d] % (unit[d] * split[d])) return false;
    return shape.batch % split[3] == 0;
}

// Maximal register tiles of exact factors: grown along the unrolled dimensions first, then along the third.
std::vector<Triple> filled_registers(const Core &core, const Shape &shape, const Triple &unroll) {
    std::vector<Triple> out;
    for (int third = 0; third < 3; ++third) {
        if (unroll[third] > 1) continue;
        const int p = (third + 1) % 3, q = (third + 2) % 3;
        const Triple units{shape.dim[0] / unroll[0], shape.dim[1] / unroll[1], shape.dim[2] / unroll[2]};
        const auto larger = [&](Triple r, int d) {  // the next exact factor along d that fits, or the same
            for (int64_t f = r[d] + 1; f <= units[d] && f <= core.register_words; ++f)
                if (units[d] % f == 0) {
                    r[d] = f;
                    return r;
                }
            r[d] = 0;
            return r;
        };
        const auto grows = [&](const Triple &r, int d) {
            const Triple next = larger(r, d);
            return next[d] > 0 && triple_holds(core, next);
        };
        for (int64_t a = 1; a <= units[p] && a <= core.register_words; ++a)
            for (int64_t b = 1; units[p] % a == 0 && b <= units[q] && b <= core.register_words; ++b) {
                if (units[q] % b) continue;
                Triple r{1, 1, 1};
                r[p] = a;
                r[q] = b;
                if (!triple_holds(core, r) || grows(r, p) || grows(r, q)) continue;
                while (grows(r, third)) r = larger(r, third);
                out.push_back(r);
            }
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

// Elements of an array unit along one dimension at most: one word for the operand that rests and one for each that streams
// past, (a + 1)(b + 1) <= words + 1 with b = 1.
int64_t largest_register(const Core &core) {
    return core.kind == kDotProduct ? std::max<int64_t>(1, (core.register_words - 1) / 2) : 1;
}

}  // namespace

std::vector<Split> splits_of(const Core &core, const Shape &shape) {
    std::vector<Split> out;
    const int64_t c = core.cores;
    for (int64_t m = 1; m <= c; ++m)
        for (int64_t n = 1; c % m == 0 && n <= c / m; ++n)
            for (int64_t k = 1; c / m % n == 0 && k <= c / m / n; ++k) {
                if (c / m / n % k || (k > 1 && !core.split_k_over_cores)) continue;
                const int64_t batch = c / m / n / k;
                if (batch > 1 && shape.batch == 1) continue;
                out.push_back({m, n, k, batch});
            }
    return out;
}

std::vector<Units> unrolls_of(const Core &core, bool spread) {
    std::vector<Units> out;
    const std::vector<Units> rows = axis_factors(core.rows, core.split_axes != 0, spread),
                             columns = axis_factors(core.columns, core.split_axes != 0, spread);
    for (const Units &r : rows)
        for (const Units &c : columns) out.push_back({r[0] * c[0], r[1] * c[1], r[2] * c[2], r[3] * c[3]});
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

void blocks_of(const Core &core, const Shape &shape, const std::vector<Split> &splits, const std::vector<Share> &shares,
               const std::vector<Units> &unrolls, std::vector<Block> &out) {
    out.clear();
    const std::vector<Units> kept = core.factors_first ? factors_first(core, shape, unrolls) : std::vector<Units>();
    const int64_t room = largest_register(core);
    const auto add = [&](int split, const Units &unroll, int64_t from, int64_t to, bool any_register) {
        const Triple &share = shares[split].core;
        Triple passes;
        double count[3], fetches[3], whole[3], shared[3];  // with one element a unit, and with as many as there can be
        for (int d = 0; d < 3; ++d) {
            passes[d] = ceil_div(share[d], unroll[d]);
            const int64_t most = std::min(room, passes[d]);
            count[d] = static_cast<double>(passes[d]);
            fetches[d] = most == passes[d] ? 1.0 : static_cast<double>(ceil_div(passes[d], most));
            whole[d] = lanes_of(unroll[d], share[d], 1);
            shared[d] = lanes_of(unroll[d], share[d], most);
        }
        for (int64_t st = from; st < to; ++st) {
            Inner inner;
            set_array(core, shares[split], count, st, unroll[3], inner);
            Block &b = out.emplace_back();  // filled in place: a copy of what was just written would wait for the writes
            b.split = split;
            b.unroll = {unroll[0], unroll[1], unroll[2]};
            b.spread = unroll[3];
            b.stationary = st;
            b.passes = passes;
            b.compute = inner.compute;
            for (int d = 0; d < 3; ++d) {
                b.fetches[d] = d == st ? 1.0 : fetches[d];
                b.lanes[d] = d == st && !any_register ? whole[d] : shared[d];
            }
        }
    };
    for (int s = 0; s < static_cast<int>(splits.size()); ++s) {
        if (core.kind == kDotProduct) {
            for (const Units &u : core.factors_first ? kept : unrolls)
                add(s, u, 0, 3, core.factors_first && exact_unroll(core, shape, u));
            continue;
        }
        for (int64_t stationary = 0; stationary < 3; ++stationary) {
            // Systolic: outputs rest on rows m x columns n, weights on k x n, inputs on k x m; the third dimension streams.
            const int64_t flow = stationary == 2 ? kOutputStationary : stationary == 0 ? kWeightStationary : kInputStationary;
            if (core.dataflow != kAnyDataflow && core.dataflow != flow) continue;
            // Several entries of the batch lie along the diagonal, each on rows and columns of its own.
            const int64_t most = shape.spread ? std::min({core.rows, core.columns, shares[s].batch_core}) : 1;
            for (int64_t side_by_side = 1; side_by_side <= most; ++side_by_side) {
                Units u{1, 1, 1, side_by_side};
                u[stationary == 2 ? 0 : 2] = core.rows / side_by_side;
                u[stationary == 1 ? 0 : 1] = core.columns / side_by_side;
                add(s, u, stationary, stationary + 1, false);
            }
        }
    }
}

const Ladders::Steps *Ladders::find(int64_t core, int64_t unroll, int64_t passes, int64_t limit) {
    for (size_t i = 0; i < used_; ++i)
        if (ladders_[i].core == core && ladders_[i].unroll == unroll) return &ladders_[i].steps;
    if (used_ == ladders_.size()) ladders_.emplace_back();
    Ladder &ladder = ladders_[used_++];
    ladder.core = core;
    ladder.unroll = unroll;
    ladder.steps.clear();
    // The smallest number of elements for each number of tiles.
    for (int64_t r = 1; r == 1 || r <= limit;) {
        const int64_t tiles = ceil_div(passes, r);
        ladder.steps.push_back({r, static_cast<double>(tiles), lanes_of(unroll, core, r)});
        if (tiles == 1) break;
        r = ceil_div(passes, tiles - 1);
    }
    return &ladder.steps;
}

void register_tiles(const Core &core, const Shape &shape, const std::vector<Split> &splits, const Share &share,
                    const Block &block, Ladders &ladders, RegisterTiles &out) {
    out.ready = true;
    out.listed.clear();
    out.along_x = out.along_y = nullptr;
    out.passes = block.passes;
    if (core.kind != kDotProduct) {
        out.listed.push_back({{1, 1, 1}, out.passes});
        return;
    }
    if (core.factors_first && exact_unroll(core, shape, block.unroll)) {
        for (const Triple &r : filled_registers(core, shape, block.unroll)) {
            const Triple unit{r[0] * block.unroll[0], r[1] * block.unroll[1], r[2] * block.unroll[2]};
            bool some = false;
            for (const Split &other : splits) some |= exact_split(shape, other, unit);
            if (some && !exact_split(shape, splits[block.split], unit)) continue;
            RegisterTile t{r, {}};
            for (int d = 0; d < 3; ++d) t.tiles[d] = ceil_div(out.passes[d], r[d]);
            out.listed.push_back(t);
        }
        return;
    }
    out.x = static_cast<int>((block.stationary + 1) % 3);
    out.y = static_cast<int>((block.stationary + 2) % 3);
    const auto along = [&](int d) {
        return ladders.find(share.core[d], block.unroll[d], block.passes[d], largest_register(core));
    };
    out.along_x = along(out.x);
    out.along_y = along(out.y);
}

}  // namespace mapping
