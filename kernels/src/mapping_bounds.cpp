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

Floor floor_of(const Geometry &g, int levels) {
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
                    out.pj[l] = std::min(out.pj[l], o.e[l][0] * f[0] + o.e[l][1] * f[1] + o.e[l][2] * (f[2] - 1.0) + o.e[l][3] * f[2]);
                    out.reads[l] = std::min(out.reads[l], o.words[l][0] * f[0] + o.words[l][1] * f[1] + o.words[l][2] * (f[2] - 1.0));
                    out.writes[l] = std::min(out.writes[l], o.words[l][2] * f[2]);
                    if (most_y == core[y]) break;  // finer cuts along x cannot help any more
                }
                most = piece - 1;
            }
        }
    }
    return out;
}

Terms terms_of(const Shape &shape, const Share &s, const Spatial &sp, const Triple &tiles, const Hardware &hw, int levels) {
    const Memory &m = hw.memory;
    Terms t{};
    const Inner inner = inner_of(shape, s, sp, hw);
    t.compute = inner.compute;
    t.macs = s.macs;
    double f[3], passes[3];
    for (int d = 0; d < 3; ++d) {
        f[d] = d == sp.stationary ? 1.0 : static_cast<double>(tiles[d]);
        passes[d] = static_cast<double>(ceil_div(s.core[d], sp.unroll[d]));
    }
    const bool per_core = m.per_core[0] != 0.0, refills = m.refills != 0.0;
    double busy[3];
    for (int d = 0; d < 3; ++d) {
        const double expansion = d == 1 ? shape.input_expansion : 1.0;
        const double all = per_core ? s.total[d] * s.copies[d] : s.total[d], at_array = s.total[d] * s.copies[d] * expansion;
        busy[d] = per_core && m.pooled_bandwidth[0] == 0.0 ? s.core_words[d] : all;
        const double lanes = static_cast<double>(std::min(sp.unroll[d], ceil_div(s.core[d], sp.registers[d])));
        if (m.registers_keep[d] != 0.0) {
            const double fills = d == 2 ? f[d] - 1.0 : f[d];
            t.read_words += all * expansion * fills;
            t.register_writes += at_array * lanes * fills;
            t.register_reads += s.macs;
            if (d == 2) {
                t.write_words += all * f[d];
                t.register_writes += s.macs;
                if (refills) t.register_reads += at_array * f[d];
            }
        } else if (d == 2) {
            t.write_words += all * passes[d];
            t.read_words += all * (passes[d] - 1.0);
        } else {
            t.read_words += all * expansion * passes[d];
        }
    }
    t.reads = busy[0] * f[0] + busy[1] * (f[1] * shape.input_expansion) + busy[2] * (f[2] - 1.0);
    t.writes = busy[2] * f[2];
    if (levels > 1 && refills) {
        t.reads += busy[2];
        t.writes += busy[0] + busy[1];
    }
    return t;
}

}  // namespace mapping
