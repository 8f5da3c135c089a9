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
    s.batch = static_cast<double>(shape.batch);
    s.batch_core = static_cast<double>(ceil_div(shape.batch, split[3]));
    s.macs = s.batch * D[0] * D[1] * D[2];
    for (int d = 0; d < 3; ++d) {
        const int x = (d + 1) % 3, y = (d + 2) % 3;
        s.words[d] = shape.operand_bits[d] / word_bits;
        s.total[d] = s.batch * D[x] * D[y] * s.words[d];
        s.core_words[d] = s.batch_core * C[x] * C[y] * s.words[d];
    }
    return s;
}

namespace {

// Words that leave a level for one fetch of operand d: a shared level is read once for all cores that need the same words.
double words_at(const Share &s, const Memory &m, int level, int d) {
    return m.per_core[level] != 0.0 ? s.total[d] * s.copies[d] : s.total[d];
}

}  // namespace

void set_outer(const Share &s, const Hardware &hw, int levels, Outer &o) {
    const Memory &m = hw.memory;
    o.cycles = 0.0;
    for (int l = 0; l < levels; ++l) {
        o.floor_pj[l] = 0.0;
        for (int d = 0; d < 3; ++d) {
            o.words[l][d] = m.per_core[l] != 0.0 && m.pooled_bandwidth[l] == 0.0 ? s.core_words[d] : words_at(s, m, l, d);
            o.refill[l][d] = m.refills != 0.0 ? o.words[l][d] : 0.0;
        }
        if (l == 0) continue;
        for (int d = 0; d < 3; ++d)  // read here, written inside
            o.e[l][d] = words_at(s, m, l, d) * m.read_pj[l] + words_at(s, m, l - 1, d) * m.write_pj[l - 1];
        o.e[l][3] =
            words_at(s, m, l, 2) * m.write_pj[l] + (m.refills != 0.0 ? words_at(s, m, l - 1, 2) * m.read_pj[l - 1] : 0.0);
    }
}

Inner inner_of(const Shape &shape, const Share &s, const Spatial &sp, const Hardware &hw) {
    double passes[3], lanes[3];
    for (int d = 0; d < 3; ++d) {
        passes[d] = static_cast<double>(ceil_div(s.core[d], sp.unroll[d]));
        lanes[d] = lanes_of(sp.unroll[d], s.core[d], sp.registers[d]);
    }
    return inner_of(shape, s, passes, lanes, sp.stationary, hw);
}

Inner inner_of(const Shape &shape, const Share &s, const double (&passes)[3], const double (&lanes)[3], int64_t stationary,
               const Hardware &hw) {
    const Memory &m = hw.memory;
    Inner in;
    in.expansion = shape.input_expansion;
    double base = s.macs * m.mac_pj;
    for (int d = 0; d < 3; ++d) {
        const double expansion = d == 1 ? in.expansion : 1.0;
        const double at_level = words_at(s, m, 0, d) * expansion, at_array = s.total[d] * s.copies[d] * expansion;
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
    set_array(hw.core, s, passes, stationary, in);
    return in;
}

void set_array(const Core &core, const Share &s, const double (&passes)[3], int64_t stationary, Inner &in) {
    in.folds = in.extra = 0.0;
    if (core.kind == kDotProduct) {
        in.compute = s.batch_core * passes[0] * passes[1] * passes[2];
        return;
    }
    const int d = static_cast<int>(stationary);
    in.folds = s.batch_core * passes[(d + 1) % 3] * passes[(d + 2) % 3];
    // Outputs that rest are drained in rows + columns - 2 cycles after the last product; weights or inputs are loaded first.
    const double fill_drain = static_cast<double>((d == 2 ? core.rows : 2 * core.rows) + core.columns - 2);
    in.extra = core.kind == kSystolic ? in.folds * fill_drain : fill_drain;
    in.compute = compute_cycles(in, core, s.core[d], 1, s.core[d]);
}

void traffic(const Share &s, const Memory &m, double expansion, int levels, const double (&f)[kMaxLevels][3], double *read,
             double *write) {
    for (int l = 0; l < levels; ++l) {
        double w[3];
        for (int d = 0; d < 3; ++d) w[d] = words_at(s, m, l, d);
        read[l] = w[0] * f[l][0] + w[1] * (l == 0 ? f[l][1] * expansion : f[l][1]) + w[2] * (f[l][2] - 1.0);
        write[l] = w[2] * f[l][2];
        if (l + 1 < levels) {
            read[l] += w[2] * f[l + 1][2];
            write[l] += w[0] * f[l + 1][0] + w[1] * f[l + 1][1] + w[2] * (f[l + 1][2] - 1.0);
        }
    }
}

}  // namespace mapping
