#include "mapping_model.h"

namespace mapping {

Share share_of(const Shape &shape, const Split &split, double word_bits) {
    Share s;
    double D[3], C[3];
    for (int d = 0; d < 3; ++d) {
        s.core[d] = ceil_div(shape.dim[d], split[d]);
        D[d] = static_cast<double>(shape.dim[d]);
        C[d] = static_cast<double>(s.core[d]);
        s.copies[d] = static_cast<double>(ceil_div(shape.dim[d], s.core[d]));
    }
    s.resident = shape.resident;
    s.batch = static_cast<double>(shape.batch);
    s.batch_core = ceil_div(shape.batch, split[3]);
    s.macs = s.batch * D[0] * D[1] * D[2];
    const double batch_core = static_cast<double>(s.batch_core);
    for (int d = 0; d < 3; ++d) {
        const int x = (d + 1) % 3, y = (d + 2) % 3;
        s.words[d] = shape.operand_bits[d] / word_bits;
        s.total[d] = s.array_total[d] = s.batch * D[x] * D[y] * s.words[d];
        s.core_words[d] = s.array_core_words[d] = batch_core * C[x] * C[y] * s.words[d];
    }
    s.map_from = shape.windowed() ? shape.window.from : kMaxLevels;
    if (!shape.windowed()) return s;
    const double overlap = static_cast<double>(shape.window.overlap);
    const auto halo = [&](int64_t m, int64_t k, double runs_k) {
        Halo h;
        h.full = static_cast<double>(m) * static_cast<double>(k);
        h.pixels = static_cast<double>(shape.map_pixels(m, 1));
        h.channels = static_cast<double>(shape.map_channels(k, 1));
        h.overlap = overlap;
        h.runs_k = runs_k;
        h.stored = std::min(h.full, h.pixels * h.channels);
        return h;
    };
    s.all = halo(shape.dim[0], shape.dim[2], s.copies[2]);
    s.busy = halo(s.core[0], s.core[2], 1.0);
    s.total[1] = s.batch * s.all.stored * s.words[1];
    s.core_words[1] = batch_core * s.busy.stored * s.words[1];
    return s;
}

namespace {

// Words that one fetch of operand d over a boundary moves in a level beside it: a shared level is read once for all cores that
// need the same words.
double words_at(const Share &s, const Memory &m, int level, int boundary, int d) {
    if (!s.crosses(boundary, d)) return 0.0;
    const double words = s.maps(boundary) ? s.total[d] : s.array_total[d];
    return m.per_core[level] != 0.0 ? words * s.copies[d] : words;
}

double core_words_at(const Share &s, int boundary, int d) {
    if (!s.crosses(boundary, d)) return 0.0;
    return s.maps(boundary) ? s.core_words[d] : s.array_core_words[d];
}

}  // namespace

void set_outer(const Share &s, const Hardware &hw, int levels, Outer &o) {
    const Memory &m = hw.memory;
    o.cycles = 0.0;
    o.all = &s.all;
    o.map_from = s.map_from;
    for (int l = 0; l < levels; ++l) {
        o.floor_pj[l] = 0.0;
        const bool own = m.per_core[l] != 0.0 && m.pooled_bandwidth[l] == 0.0;
        o.halo[l] = own ? &s.busy : &s.all;
        for (int d = 0; d < 3; ++d) {
            o.words[l][d] = own ? core_words_at(s, l, d) : words_at(s, m, l, l, d);
            const double refill = own ? core_words_at(s, l + 1, d) : words_at(s, m, l, l + 1, d);
            o.refill[l][d] = m.refills != 0.0 ? refill : 0.0;
        }
        if (l == 0) continue;
        for (int d = 0; d < 3; ++d)  // read here, written inside
            o.e[l][d] = words_at(s, m, l, l, d) * m.read_pj[l] + words_at(s, m, l - 1, l, d) * m.write_pj[l - 1];
        o.e[l][3] = words_at(s, m, l, l, 2) * m.write_pj[l] +
                    (m.refills != 0.0 ? words_at(s, m, l - 1, l, 2) * m.read_pj[l - 1] : 0.0);
    }
}

Inner inner_of(const Share &s, const Spatial &sp, const Hardware &hw) {
    double passes[3], lanes[3];
    for (int d = 0; d < 3; ++d) {
        passes[d] = static_cast<double>(ceil_div(s.core[d], sp.unroll[d]));
        lanes[d] = lanes_of(sp.unroll[d], s.core[d], sp.registers[d]);
    }
    return inner_of(s, passes, lanes, sp.stationary, sp.spread, hw);
}

Inner inner_of(const Share &s, const double (&passes)[3], const double (&lanes)[3], int64_t stationary, int64_t spread,
               const Hardware &hw) {
    const Memory &m = hw.memory;
    Inner in;
    double base = s.macs * m.mac_pj;
    for (int d = 0; d < 3; ++d) {
        const double at_level = words_at(s, m, 0, 0, d), at_array = s.array_total[d] * s.copies[d];
        in.e[d] = 0.0;
        if (d == 2) in.e[3] = 0.0;
        if (m.registers_keep[d] != 0.0) {
            in.e[d] = at_level * m.read_pj[0] + at_array * lanes[d] * m.register_write_pj;
            base += s.macs * m.register_read_pj;
            if (d == 2) {
                in.e[3] = at_level * m.write_pj[0] + (m.refills != 0.0 ? at_array * m.register_read_pj : 0.0);
                base += s.macs * m.register_write_pj;
            }
        } else if (d == 2) {
            base += at_level * (passes[d] * m.write_pj[0] + (passes[d] - 1.0) * m.read_pj[0]);
        } else {
            base += at_level * passes[d] * m.read_pj[0];
        }
    }
    in.base_pj = base;
    set_array(hw.core, s, passes, stationary, spread, in);
    return in;
}

void set_array(const Core &core, const Share &s, const double (&passes)[3], int64_t stationary, int64_t spread, Inner &in) {
    in.folds = in.extra = 0.0;
    const double turns = static_cast<double>(ceil_div(s.batch_core, spread));
    if (core.kind == kDotProduct) {
        in.compute = turns * passes[0] * passes[1] * passes[2];
        return;
    }
    const int d = static_cast<int>(stationary);
    in.folds = turns * passes[(d + 1) % 3] * passes[(d + 2) % 3];
    // Outputs that rest are drained in rows + columns - 2 cycles after the last product; weights or inputs are loaded first.
    const double fill_drain = static_cast<double>((d == 2 ? core.rows : 2 * core.rows) + core.columns - 2);
    in.extra = core.kind == kSystolic ? in.folds * fill_drain : fill_drain;
    in.compute = compute_cycles(in, core, s.core[d], 1, s.core[d]);
}

void traffic(const Share &s, const Outer &o, const Memory &m, int levels, const Fetches &f, double *read, double *write,
             double *operand) {
    for (int l = 0; l < levels; ++l) {
        double w[3], outside[3];
        for (int d = 0; d < 3; ++d) {
            w[d] = words_at(s, m, l, l, d);
            outside[d] = words_at(s, m, l, l + 1, d);
        }
        read[l] = w[0] * f[l][0] + w[1] * input_fetches(o, l, o.all, f) + w[2] * (f[l][2] - 1.0);
        write[l] = w[2] * f[l][2];
        if (l + 1 < levels) {
            read[l] += outside[2] * f[l + 1][2];
            write[l] += outside[0] * f[l + 1][0] + outside[1] * input_fetches(o, l + 1, o.all, f) + outside[2] * (f[l + 1][2] - 1.0);
        } else {
            operand[0] = w[1] * input_fetches(o, l, o.all, f);
            operand[1] = w[0] * f[l][0];
            operand[2] = w[2] * f[l][2];
            operand[3] = w[2] * (f[l][2] - 1.0);
        }
    }
}

}  // namespace mapping
