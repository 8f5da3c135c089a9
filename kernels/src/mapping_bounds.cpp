#include "mapping_bounds.h"

namespace mapping {

int64_t Geometry::most_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const {
    const Memory &m = hw->memory;
    const double *capacity = m.capacity[level];
    const int x = (d + 1) % 3, y = (d + 2) % 3;
    const bool shared = m.per_core[level] == 0.0;
    const double batch = shared ? static_cast<double>(std::min((*split)[3], shape->batch)) : 1.0;
    const double *word = share->words;
    const double fixed = batch * e[x] * e[y] * word[d];
    if (fixed > capacity[d]) return 0;
    const double px = batch * e[y] * word[x], py = batch * e[x] * word[y];  // words of operands x and y per element along d
    const double most = std::min(std::min(capacity[x] / px, capacity[y] / py), (capacity[3] - fixed) / (px + py));
    if (most >= static_cast<double>(shape->dim[d])) return count;
    if (most < 1.0) return 0;
    int64_t elements = static_cast<int64_t>(most);
    if (shared) elements /= (*split)[d];
    if (elements >= share->core[d]) return count;
    return std::min(elements / tile, count);
}

Floor floor_of(const Geometry &g, int levels, bool joint) {
    Floor out;
    Outer o;
    set_outer(*g.share, *g.hw, levels, o);
    const Triple &core = g.share->core;
    for (int l = 1; l < levels; ++l) {
        out.pj[l] = out.reads[l] = out.writes[l] = kInfinity;
        // The best integer tiles that fit the memory inside the boundary, with no array and no other memory in the way.
        for (int s = 0; s < 3; ++s) {
            const int x = (s + 1) % 3, y = (s + 2) % 3;
            double e[3];
            for (int d = 0; d < 3; ++d) e[d] = g.extent(l - 1, d, 1);
            for (int64_t most = g.most_tiles(l - 1, x, e, core[x], 1); most > 0;) {
                const int64_t cx = ceil_div(core[x], most), piece = ceil_div(core[x], cx);
                e[x] = g.extent(l - 1, x, piece);
                const int64_t most_y = g.most_tiles(l - 1, y, e, core[y], 1);
                if (most_y > 0) {
                    double f[3];
                    f[s] = 1.0;
                    f[x] = static_cast<double>(cx);
                    f[y] = static_cast<double>(ceil_div(core[y], most_y));
                    out.pj[l] =
                        std::min(out.pj[l], o.e[l][0] * f[0] + o.e[l][1] * f[1] + o.e[l][2] * (f[2] - 1.0) + o.e[l][3] * f[2]);
                    out.reads[l] =
                        std::min(out.reads[l], o.words[l][0] * f[0] + o.words[l][1] * f[1] + o.words[l][2] * (f[2] - 1.0));
                    out.writes[l] = std::min(out.writes[l], o.words[l][2] * f[2]);
                    if (most_y == core[y]) break;  // finer cuts along x cannot help any more
                }
                most = piece - 1;
            }
        }
    }
    for (int d = 0; d < 3 && levels > 1; ++d) out.joint_pj[d] = joint ? joint_floor(g, levels, d) : out.pj[1];
    return out;
}

double joint_floor(const Geometry &g, int levels, int resting) {
    const Memory &m = g.hw->memory;
    const Share &s = *g.share;
    Outer o;
    set_outer(s, *g.hw, levels, o);
    // One more fetch over boundary 0: read from the innermost memory, written to one array unit at least; outputs also go back.
    double again = 0.0;
    if (m.registers_keep[resting] != 0.0) {
        const double level = m.per_core[0] != 0.0 ? s.total[resting] * s.copies[resting] : s.total[resting];
        const double expansion = resting == 1 ? g.shape->input_expansion : 1.0;
        again = level * expansion * (m.read_pj[0] + (resting == 2 ? m.write_pj[0] : 0.0));
    }
    const Triple &core = s.core;
    double fine[3];
    for (int d = 0; d < 3; ++d) fine[d] = g.extent(0, d, 1);
    double best = kInfinity;
    const auto value = [&](const double (&f)[3], double pieces) {
        return o.e[1][0] * f[0] + o.e[1][1] * f[1] + o.e[1][2] * (f[2] - 1.0) + o.e[1][3] * f[2] + again * (pieces - 1.0);
    };
    // Walk over cuts along x (and y); the cut along `resting` is then the coarsest that fits.
    const auto finish = [&](const double (&e)[3], double (&f)[3], bool inner_too) {
        const int64_t most = g.most_tiles(0, resting, e, core[resting], 1);
        if (most == 0) return;
        const double pieces = static_cast<double>(ceil_div(core[resting], most));
        f[resting] = inner_too ? 1.0 : pieces;
        best = std::min(best, value(f, pieces));
    };
    for (int next = 0; next < 3; ++next) {
        const int x = next == resting ? (resting + 1) % 3 : 3 - next - resting, y = 3 - x - resting;
        double e[3] = {fine[0], fine[1], fine[2]}, f[3] = {1.0, 1.0, 1.0};
        for (int64_t most = g.most_tiles(0, x, e, core[x], 1); most > 0;) {
            const int64_t cut = ceil_div(core[x], most), piece = ceil_div(core[x], cut);
            f[x] = static_cast<double>(cut);
            f[y] = f[resting] = 1.0;
            if (value(f, 1.0) >= best) break;
            e[x] = g.extent(0, x, piece);
            if (next != resting) {
                finish(e, f, false);
            } else {
                e[y] = fine[y];
                for (int64_t most_y = g.most_tiles(0, y, e, core[y], 1); most_y > 0;) {
                    const int64_t cut_y = ceil_div(core[y], most_y), piece_y = ceil_div(core[y], cut_y);
                    f[y] = static_cast<double>(cut_y);
                    f[resting] = 1.0;
                    if (value(f, 1.0) >= best) break;
                    e[y] = g.extent(0, y, piece_y);
                    finish(e, f, true);
                    e[y] = fine[y];
                    most_y = piece_y - 1;
                }
            }
            e[x] = fine[x];
            most = piece - 1;
        }
    }
    return best;
}

BlockTerms block_terms(const Shape &shape, const Share &s, const Split &split, const Block &block, const Hardware &hw,
                       int levels) {
    const Memory &m = hw.memory;
    const bool per_core = m.per_core[0] != 0.0, refills = levels > 1 && m.refills != 0.0;
    BlockTerms b{};
    b.share = &s;
    b.unroll = block.unroll;
    b.stationary = block.stationary;
    b.expansion = shape.input_expansion;
    if (hw.core.kind == kDotProduct) {
        b.compute = s.batch_core;
        for (int d = 0; d < 3; ++d) b.compute *= static_cast<double>(ceil_div(s.core[d], block.unroll[d]));
    } else {
        b.compute = inner_of(shape, s, {split, block.unroll, {1, 1, 1}, block.stationary}, hw).compute;
    }
    for (int d = 0; d < 3; ++d) {
        const double expansion = d == 1 ? b.expansion : 1.0, words = per_core ? s.total[d] * s.copies[d] : s.total[d];
        b.keep[d] = m.registers_keep[d];
        b.all[d] = words * expansion;
        b.array[d] = s.total[d] * s.copies[d] * expansion;
        b.busy[d] = per_core && m.pooled_bandwidth[0] == 0.0 ? s.core_words[d] : words;
        if (b.keep[d] != 0.0) {
            b.register_reads += s.macs;
            if (d == 2) b.register_writes += s.macs;
            continue;
        }
        const double passes = static_cast<double>(ceil_div(s.core[d], block.unroll[d]));
        b.read_words += b.all[d] * (d == 2 ? passes - 1.0 : passes);
        if (d == 2) b.write_words += b.all[d] * passes;
    }
    if (refills) {
        b.refill_reads = b.busy[2];
        b.refill_writes = b.busy[0] + b.busy[1];
    }
    return b;
}

Terms BlockTerms::with(const Triple &registers, const Triple &tiles) const {
    double f[3], lanes[3];
    for (int d = 0; d < 3; ++d) {
        f[d] = d == stationary ? 1.0 : static_cast<double>(tiles[d]);
        lanes[d] = unroll[d] == 1 ? 1.0 : static_cast<double>(std::min(unroll[d], ceil_div(share->core[d], registers[d])));
    }
    return with(f, lanes);
}

Terms BlockTerms::with(const double (&f)[3], const double (&lanes)[3]) const {
    Terms t{compute, 0.0, 0.0, read_words, write_words, register_reads, register_writes};
    const double fills[3] = {f[0], f[1], f[2] - 1.0};
    for (int d = 0; d < 3; ++d) {
        t.read_words += keep[d] * all[d] * fills[d];
        t.register_writes += keep[d] * array[d] * lanes[d] * fills[d];
    }
    t.write_words += keep[2] * all[2] * f[2];
    t.reads = busy[0] * f[0] + busy[1] * (f[1] * expansion) + busy[2] * (f[2] - 1.0) + refill_reads;
    t.writes = busy[2] * f[2] + refill_writes;
    return t;
}

double inner_product(const Shape &shape, const Triple &unroll, const Triple &registers, const Hardware &hw) {
    const Share s = share_of(shape, {1, 1, 1, 1}, hw.memory.word_bits);
    double best = kInfinity;
    for (int64_t stationary = 0; stationary < 3; ++stationary) {
        const Inner inner = inner_of(shape, s, {{1, 1, 1, 1}, unroll, registers, stationary}, hw);
        double f[3];
        for (int d = 0; d < 3; ++d)
            f[d] = d == stationary ? 1.0 : static_cast<double>(ceil_div(s.core[d], unroll[d] * registers[d]));
        const double energy =
            inner.base_pj + inner.e[0] * f[0] + inner.e[1] * f[1] + inner.e[2] * (f[2] - 1.0) + inner.e[3] * f[2];
        const double reads = s.total[0] * f[0] + s.total[1] * f[1] * inner.expansion + s.total[2] * (f[2] - 1.0);
        const double cycles =
            std::max(inner.compute, std::max(reads * hw.read_cycles[0], s.total[2] * f[2] * hw.write_cycles[0]));
        best = std::min(best, energy * cycles);
    }
    return best;
}

}  // namespace mapping
