#include "mapping_bounds.h"

#include <cmath>

namespace mapping {

void Geometry::take(int level, const double (&e)[3], double (&words)[3]) const {
    const bool shared = hw->memory.per_core[level] == 0.0;
    const double batch = side_by_side(level);
    double inputs = e[0] * e[2];
    if (level >= share->map_from)
        inputs = static_cast<double>(shape->map_pixels(static_cast<int64_t>(e[0]), shared ? (*split)[0] : 1) *
                                     shape->map_channels(static_cast<int64_t>(e[2]), shared ? (*split)[2] : 1));
    words[0] = batch * e[2] * e[1] * word(level, 0);
    words[1] = batch * inputs * word(level, 1);
    words[2] = batch * e[0] * e[1] * word(level, 2);
}

double Geometry::words(int level, const double (&e)[3]) const {
    double each[3];
    take(level, e, each);
    return each[0] + each[1] + each[2];
}

bool Geometry::fits(int level, const double (&e)[3]) const {
    const double *capacity = hw->memory.capacity[level];
    double each[3];
    take(level, e, each);
    return each[0] <= capacity[0] && each[1] <= capacity[1] && each[2] <= capacity[2] && each[0] + each[1] + each[2] <= capacity[3];
}

int64_t Geometry::most_map_tiles(int level, int d, const double (&e)[3], int64_t count, int64_t tile) const {
    double trial[3] = {e[0], e[1], e[2]};
    const auto held = [&](int64_t tiles) {
        trial[d] = extent(level, d, tiles * tile);
        return fits(level, trial);
    };
    if (held(count)) return count;
    int64_t low = 0, high = count;  // low fits (0 is none), high does not
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        (held(middle) ? low : high) = middle;
    }
    return low;
}

namespace {

double least_of(const Geometry &g, const Outer &o, int level, int resting, double (&by_next)[3]) {
    joint_floors(g, o, level, resting, by_next);
    return *std::min_element(by_next, by_next + 3);
}

}  // namespace

Floor floor_of(const Geometry &g, int levels, bool joint) {
    Floor out;
    Outer o;
    set_outer(*g.share, *g.hw, levels, o);
    const Triple &core = g.share->core;
    for (int l = 1; l < levels; ++l) {
        const Fit fit(g, l - 1);
        out.pj[l] = out.reads[l] = out.writes[l] = kInfinity;
        double along[3] = {kInfinity, kInfinity, kInfinity};  // energy by the loop that is innermost outside
        // The best integer tiles that fit the memory inside the boundary, with no array and no other memory in the way.
        for (int s = 0; s < 3; ++s) {
            const int x = (s + 1) % 3, y = (s + 2) % 3;
            double e[3];
            for (int d = 0; d < 3; ++d) e[d] = fit.extent(d, 1);
            for (int64_t most = fit.most_tiles(g, x, e, core[x], 1); most > 0;) {
                const int64_t cx = ceil_div(core[x], most), piece = ceil_div(core[x], cx);
                e[x] = fit.extent(x, piece);
                const int64_t most_y = fit.most_tiles(g, y, e, core[y], 1);
                if (most_y > 0) {
                    double f[3];
                    f[s] = 1.0;
                    f[x] = static_cast<double>(cx);
                    f[y] = static_cast<double>(ceil_div(core[y], most_y));
                    along[s] =
                        std::min(along[s], o.e[l][0] * f[0] + o.e[l][1] * f[1] + o.e[l][2] * (f[2] - 1.0) + o.e[l][3] * f[2]);
                    out.reads[l] =
                        std::min(out.reads[l], o.words[l][0] * f[0] + o.words[l][1] * f[1] + o.words[l][2] * (f[2] - 1.0));
                    out.writes[l] = std::min(out.writes[l], o.words[l][2] * f[2]);
                    if (most_y == core[y]) break;  // finer cuts along x cannot help any more
                }
                most = piece - 1;
            }
            out.pj[l] = std::min(out.pj[l], along[s]);
        }
        if (l == 1) std::copy_n(along, 3, out.first_pj);
    }
    if (levels == 1) return out;  // nothing is outside, and nobody asks
    out.apart_pj = kInfinity;
    for (int next = 0; next < 3; ++next) {
        out.rest_pj[next] = levels > 2 ? least_of(g, o, 1, next, out.second_pj[next]) : 0.0;
        for (int l = 3; l < levels; ++l) out.rest_pj[next] += out.pj[l];
        out.apart_pj = std::min(out.apart_pj, out.first_pj[next] + out.rest_pj[next]);
    }
    const double rest = *std::min_element(out.rest_pj, out.rest_pj + 3);
    double by_next[3];
    for (int resting = 0; resting < 3; ++resting)
        out.outside_pj[resting] = joint ? std::max(out.apart_pj, least_of(g, o, 0, resting, by_next) + rest) : out.apart_pj;
    return out;
}

namespace {

// Least of per_y cuts_y + again (pieces - 1) over real tiles in one room of `capacity` words, where tiles of ex x ey x er elements
// take ex ey wr + er (ey wx + ex wy) of it, cuts_y = y / ey and pieces = r / er, none of them below 1. Both terms are convex in
// ey, one falls and one rises, so that the least lies where their slopes cancel.
double least_of_cuts(double per_y, double again, double ex, double y, double r, double wr, double wx, double wy,
                     double capacity) {
    const double once = (capacity - r * ex * wy) / (ex * wr + r * wx);  // largest ey with a single piece
    const double slope = again * r * (wx * capacity + ex * wy * ex * wr);
    double ey = slope > 0.0 ? capacity / (ex * wr + std::sqrt(slope / (per_y * y))) : y;
    ey = std::min(std::max(std::max(ey, once), 1.0), y);
    const double room = capacity - ex * ey * wr;
    if (room <= 0.0) return kInfinity;
    return per_y * (y / ey) + again * std::max(0.0, r * (ey * wx + ex * wy) / room - 1.0);
}

}  // namespace

void joint_floors(const Geometry &g, const Outer &o, int level, int resting, double (&by_next)[3]) {
    const Memory &m = g.hw->memory;
    const Share &s = *g.share;
    double again = 0.0;  // energy of one more fetch over boundary `level`
    if (level > 0) {
        again = o.e[level][resting] + (resting == 2 ? o.e[level][3] : 0.0);
    } else if (m.registers_keep[resting] != 0.0) {
        // Read from the innermost memory, written to one array unit at least; outputs also go back.
        const double words = m.per_core[0] != 0.0 ? s.array_total[resting] * s.copies[resting] : s.array_total[resting];
        again = words * (m.read_pj[0] + (resting == 2 ? m.write_pj[0] : 0.0));
    }
    const Triple &core = s.core;
    const double *e1 = o.e[level + 1];
    const Fit fit(g, level);
    double fine[3];
    for (int d = 0; d < 3; ++d) fine[d] = fit.extent(d, 1);
    double best = kInfinity;
    const auto value = [&](const double (&f)[3], double pieces) {
        return e1[0] * f[0] + e1[1] * f[1] + e1[2] * (f[2] - 1.0) + e1[3] * f[2] + again * (pieces - 1.0);
    };
    // Walk over cuts along x (and y); the cut along `resting` is then the coarsest that fits.
    const auto finish = [&](const double (&e)[3], double (&f)[3], bool inner_too) {
        const int64_t most = fit.most_tiles(g, resting, e, core[resting], 1);
        if (most == 0) return;
        const double pieces = static_cast<double>(ceil_div(core[resting], most));
        f[resting] = inner_too ? 1.0 : pieces;
        best = std::min(best, value(f, pieces));
    };
    for (int next = 0; next < 3; ++next) {
        const int x = next == resting ? (resting + 1) % 3 : 3 - next - resting, y = 3 - x - resting;
        double e[3] = {fine[0], fine[1], fine[2]}, f[3] = {1.0, 1.0, 1.0};
        best = kInfinity;
        for (int64_t most = fit.most_tiles(g, x, e, core[x], 1); most > 0;) {
            const int64_t cut = ceil_div(core[x], most), piece = ceil_div(core[x], cut);
            f[x] = static_cast<double>(cut);
            f[y] = f[resting] = 1.0;
            if (value(f, 1.0) >= best) break;
            e[x] = fit.extent(x, piece);
            if (next != resting) {
                finish(e, f, false);
            } else if (m.capacity[level][3] != kInfinity && level < s.map_from && level + 1 != s.resident.dram) {
                const double batch = g.side_by_side(level), per_y = e1[y] + (y == 2 ? e1[3] : 0.0);
                const double least = least_of_cuts(per_y, again, e[x], fit.extent(y, core[y]),
                                                   fit.extent(resting, core[resting]), batch * g.word(level, resting),
                                                   batch * g.word(level, x), batch * g.word(level, y), m.capacity[level][3]);
                f[y] = 1.0;
                best = std::min(best, (value(f, 1.0) - per_y + least) * (1.0 - 1e-9));
            } else {
                e[y] = fine[y];
                for (int64_t most_y = fit.most_tiles(g, y, e, core[y], 1); most_y > 0;) {
                    const int64_t cut_y = ceil_div(core[y], most_y), piece_y = ceil_div(core[y], cut_y);
                    f[y] = static_cast<double>(cut_y);
                    f[resting] = 1.0;
                    if (value(f, 1.0) >= best) break;
                    e[y] = fit.extent(y, piece_y);
                    finish(e, f, true);
                    e[y] = fine[y];
                    most_y = piece_y - 1;
                }
            }
            e[x] = fine[x];
            most = piece - 1;
        }
        by_next[next] = best;
    }
}

namespace {

// The loops of `coarsest_piece`: counts of tiles along two dimensions are tried, fewest first, and what is left of the energy says
// how many the third may have.
class PieceSearch {
 public:
    PieceSearch(const Geometry &g, const Outer &o, int level, int resting, int line, const Triple &unit, int64_t most,
                const Limit &limit, const double (&floors)[3])
        : g_(g),
          fit_(g, level),
          floors_(floors),
          limit_(limit),
          e1_(o.e[level + 1]),
          words_(o.words[level + 1]),
          resting_(resting),
          line_(line),
          unit_(unit),
          most_(most),
          near_pj_(limit.most_pj(0.0)) {
        again_ = o.e[level][resting] + (resting == 2 ? o.e[level][3] : 0.0);
    }

    int64_t run() {
        if (floors_[0] > near_pj_ && floors_[1] > near_pj_ && floors_[2] > near_pj_) return 0;
        for (int d = 0; d < 3; ++d) {
            units_[d] = ceil_div(g_.share->core[d], unit_[d]);
            e_[d] = fine_[d] = extent(d, 1);
        }
        const int64_t held = fit_.most_tiles(g_, resting_, e_, units_[resting_], unit_[resting_]);
        fewest_ = held == 0 ? 0 : ceil_div(units_[resting_], held);
        if (fewest_ == 0) return 0;
        cycles_ = limit_.least_cycles(static_cast<double>(fewest_));
        near_pj_ = limit_.most_pj(cycles_);
        for (int next = 0; fewest_ > 0 && next < 3 && best_ < most_; ++next) {
            if (floors_[next] > near_pj_) continue;
            const bool far = next != resting_;  // whether pieces along the resting dimension are fetched from further out too
            per_piece_ = again_ + (far ? e1_[resting_] + (resting_ == 2 ? e1_[3] : 0.0) : 0.0);
            far_pieces_ = far ? static_cast<double>(fewest_ - 1) : 0.0;
            f_[0] = f_[1] = f_[2] = 1.0;
            // Along `next`, but for the resting dimension, tiles stay as they are inside.
            int a = -1, b = -1;
            for (int d = 0; d < 3; ++d)
                if (d != resting_ && d != next) (a < 0 ? a : b) = d;
            if (a == line_ && b >= 0) std::swap(a, b);
            walk(a, b);
        }
        return best_;
    }

 private:
    double extent(int d, int64_t units) const { return fit_.extent(d, units * unit_[d]); }
    double value() const { return e1_[0] * f_[0] + e1_[1] * f_[1] + e1_[2] * (f_[2] - 1.0) + e1_[3] * f_[2]; }
    double most_pj() const {
        const double more = words_[resting_] * far_pieces_;
        const double reads = words_[0] * f_[0] + words_[1] * f_[1] + words_[2] * (f_[2] - 1.0) + more;
        const double writes = words_[2] * f_[2] + (resting_ == 2 ? more : 0.0);
        const double far = std::max(reads * limit_.read_cycles, writes * limit_.write_cycles) * (1.0 - 1e-12);  // another order
        return far <= cycles_ ? near_pj_ : limit_.most_pj(far);
    }
    bool hopeless() const { return value() + per_piece_ * static_cast<double>(fewest_ - 1) > most_pj(); }
    // Pieces along the resting dimension that the energy allows.
    int64_t pieces() const {
        const double pj = value(), spare = (most_pj() - pj) / per_piece_;  // not a number where both are 0
        const double timely = limit_.most_pieces(pj + per_piece_ * static_cast<double>(fewest_ - 1)) - 1.0;
        const double more = spare < timely ? spare : timely;
        if (!(more < static_cast<double>(units_[resting_]))) return units_[resting_];
        return 1 + static_cast<int64_t>(std::max(more, 0.0) * (1.0 + 1e-9) + 1e-6);  // room for its rounding
    }
    // The most tiles along d beside the coarsest pieces along the resting dimension that the energy needs.
    int64_t room(int d) {
        if (d != resting_) e_[resting_] = extent(resting_, ceil_div(units_[resting_], pieces()));
        const int64_t most = fit_.most_tiles(g_, d, e_, units_[d], unit_[d]);
        e_[resting_] = fine_[resting_];
        return most;
    }

    // Numbers of tiles along a, then along b (-1: none), those of the line last.
    void walk(int a, int b) {
        if (a == line_ || a < 0) return along_line(a == line_);
        for (int64_t most = room(a); most > 0;) {
            const int64_t cut = ceil_div(units_[a], most), piece = ceil_div(units_[a], cut);
            f_[a] = static_cast<double>(cut);
            if (hopeless()) break;
            e_[a] = extent(a, piece);
            if (b == line_ || b < 0)
                along_line(b == line_);
            else
                walk(b, -1);
            if (best_ == most_) break;
            most = piece - 1;
        }
        e_[a] = fine_[a];
        f_[a] = 1.0;
    }

    // `looped`: the line is cut into tiles that cost fetches; else it is the resting dimension, or stays as it is inside.
    void along_line(bool looped) {
        if (!looped) {
            const bool rests = line_ == resting_;
            const int64_t held = room(line_);
            if (rests)
                offer(ceil_div(units_[line_], pieces()), held);
            else
                best_ = std::max(best_, std::min(held, most_));
            return;
        }
        for (int64_t most = room(line_); most > 0;) {
            const int64_t cut = ceil_div(units_[line_], most), least = ceil_div(units_[line_], cut);
            f_[line_] = static_cast<double>(cut);
            if (hopeless()) break;
            const int64_t held = room(line_);
            offer(least, held);
            if (best_ == most_) break;
            // Finer cuts hold no more. A whole number of larger pieces within what is held is no larger than `number`, and covers no more
            // than so many of the largest: coarser cuts are passed over. (Above held / most_ what is held says more.)
            const int64_t number = std::min(quotient(held, best_ + 1), quotient(held, most_) + 1);
            most = std::min({least - 1, held, number * most_});
        }
        f_[line_] = 1.0;
    }

    // Whole numbers of pieces may cover `least` to `held` units.
    void offer(int64_t least, int64_t held) {
        if (held < least) return;
        int64_t piece = most_;
        if (held < units_[line_])  // else all of the line is there, and the last piece is clipped
            for (int64_t number = ceil_div(least, most_);; ++number) {
                piece = std::min(most_, quotient(held, number));
                if (piece <= best_) return;
                number = quotient(held, piece);
                if (piece * number >= least) break;
            }
        best_ = std::max(best_, piece);
    }

    const Geometry &g_;
    const Fit fit_;
    const double (&floors_)[3];
    const Limit &limit_;
    const double *e1_, *words_;
    const int resting_, line_;
    const Triple &unit_;
    const int64_t most_;
    double near_pj_, cycles_ = 0.0;
    Triple units_;
    double fine_[3], e_[3], f_[3], again_, per_piece_ = 0.0, far_pieces_ = 0.0;
    int64_t fewest_ = 0, best_ = 0;
};

}  // namespace

int64_t coarsest_piece(const Geometry &g, const Outer &o, int level, int resting, int line, const Triple &unit, int64_t most,
                       const Limit &limit, const double (&floors)[3]) {
    return PieceSearch(g, o, level, resting, line, unit, most, limit, floors).run();
}

Inside::Inside(const Share &s, const Hardware &hw, const Outer &outer, int levels) {
    const Memory &m = hw.memory;
    const bool per_core = m.per_core[0] != 0.0, refills = levels > 1 && m.refills != 0.0;
    words = outer.words[0];
    base_pj = s.macs * m.mac_pj;
    drain_pj = 0.0;
    for (int d = 0; d < 3; ++d) {
        const double at_array = s.array_total[d] * s.copies[d], at_level = per_core ? at_array : s.array_total[d];
        level_pj[d] = lane_pj[d] = pass_pj[d] = 0.0;
        if (m.registers_keep[d] != 0.0) {
            level_pj[d] = at_level * m.read_pj[0];
            lane_pj[d] = at_array * m.register_write_pj;
            base_pj += s.macs * (m.register_read_pj + (d == 2 ? m.register_write_pj : 0.0));
            if (d == 2) drain_pj = at_level * m.write_pj[0] + (m.refills != 0.0 ? at_array * m.register_read_pj : 0.0);
        } else {
            pass_pj[d] = at_level * (m.read_pj[0] + (d == 2 ? m.write_pj[0] : 0.0));
            if (d == 2) base_pj -= at_level * m.read_pj[0];
        }
    }
    refill_reads = refills ? outer.refill[0][2] : 0.0;
    refill_writes = refills ? outer.refill[0][0] + outer.refill[0][1] : 0.0;
    far_reads = levels > 1 ? outer.words[1][0] + outer.words[1][1] : 0.0;
    far_writes = levels > 1 ? outer.words[1][2] : 0.0;
    if (levels > 2) {
        far_reads += outer.refill[1][2];
        far_writes += outer.refill[1][0] + outer.refill[1][1];
    }
}

Candidate Inside::candidate(const Block &b, const double (&f)[3], const double (&lanes)[3]) const {
    Candidate c;
    c.compute = b.compute;
    c.pj = base_pj + drain_pj * f[2];
    for (int d = 0; d < 3; ++d) {
        c.pj += (level_pj[d] + lane_pj[d] * lanes[d]) * (d == 2 ? f[2] - 1.0 : f[d]);
        if (pass_pj[d] != 0.0) c.pj += pass_pj[d] * static_cast<double>(b.passes[d]);
    }
    c.reads[0] = words[0] * f[0] + words[1] * f[1] + words[2] * (f[2] - 1.0) + refill_reads;
    c.writes[0] = words[2] * f[2] + refill_writes;
    c.reads[1] = far_reads;
    c.writes[1] = far_writes;
    c.fetches[0] = c.fetches[1] = c.fetches[3] = 1.0;
    c.fetches[2] = 0.0;
    return c;
}

double inner_product(const Shape &shape, const Spatial &choice, const Hardware &hw) {
    const Share s = share_of(shape, {1, 1, 1, 1}, hw.memory.word_bits);
    double best = kInfinity;
    for (int64_t stationary = 0; stationary < 3; ++stationary) {
        const Inner inner = inner_of(s, {{1, 1, 1, 1}, choice.unroll, choice.registers, stationary, choice.spread}, hw);
        double f[3];
        for (int d = 0; d < 3; ++d)
            f[d] = d == stationary ? 1.0 : static_cast<double>(ceil_div(s.core[d], choice.unroll[d] * choice.registers[d]));
        const double energy =
            inner.base_pj + inner.e[0] * f[0] + inner.e[1] * f[1] + inner.e[2] * (f[2] - 1.0) + inner.e[3] * f[2];
        const double reads = s.total[0] * f[0] + s.array_total[1] * f[1] + s.total[2] * (f[2] - 1.0);
        const double cycles =
            std::max(inner.compute, std::max(reads * hw.read_cycles[0], s.total[2] * f[2] * hw.write_cycles[0]));
        best = std::min(best, energy * cycles);
    }
    return best;
}

}  // namespace mapping
