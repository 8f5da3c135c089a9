// The cost model of one mapping of a matrix product, and the records that the search over mappings works on.
//
// Dimensions are numbered 0 = m, 1 = n, 2 = k. An operand is numbered by the dimension that it does NOT have, since that is the
// loop over which it can be reused: operand 0 = weights (k x n), 1 = inputs (m x k), 2 = outputs (m x n).
//
// Memory levels are numbered from the innermost, 0, to DRAM, L - 1. Boundary j lies between level j and what is inside it
// (level j - 1, or the array for j = 0); fetches[j][d] says how many times operand d crosses it as a whole.
// docs/models/mapping.md has every formula.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace mapping {

constexpr int kMaxLevels = 6;  // memories, DRAM included
constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum Criterion { kLatency = 0, kEnergy = 1, kEnergyDelay = 2 };
enum ArrayKind { kSystolic = 0, kSystolicPipelined = 1, kDotProduct = 2 };
enum Dataflow { kOutputStationary = 0, kWeightStationary = 1, kInputStationary = 2, kAnyDataflow = 3 };

// Quotients of what fits 32 bits, as nearly all sizes do, take a fraction of the time. a >= 0, b > 0.
inline int64_t quotient(int64_t a, int64_t b) {
    if ((static_cast<uint64_t>(a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
    return a / b;
}
inline int64_t ceil_div(int64_t a, int64_t b) { return quotient(a + b - 1, b); }

using Triple = std::array<int64_t, 3>;

// The feature map behind the first operand of a convolution's im2col product, of one entry of the batch. A run of outputs reads
// `step` (or pixels / m, if more) positions of the map for each output, and `overlap` more that it shares with the run before.
// Memories from `from` outwards hold the map itself, those inside it tiles of the im2col matrix.
struct Window {
    int64_t pixels;    // positions of the map that are stored
    int64_t channels;  // of the map; k counts the taps of the first channel, then those of the second, ...
    int64_t taps;      // of the filter; 1: no convolution, the operand is what it is
    int64_t overlap, step;
    int from;
};

// Operands that lie whole in the last memory below DRAM, one copy for the whole product: they do not cross the boundary `dram` and
// take no room of a tile there.
struct Resident {
    bool operand[3] = {false, false, false};
    int dram = kMaxLevels;  // boundary of DRAM; kMaxLevels: nothing is resident
};

struct Shape {
    Triple dim;
    int64_t batch;  // more than 1 only where the second operand differs between batch entries
    double operand_bits[3];
    bool spread;  // entries of the batch may lie side by side on the array
    Window window;
    Resident resident;

    bool windowed() const { return window.taps > 1; }
    // Positions of the map under `m` outputs in `runs` runs, and channels under `k` taps in `runs` runs.
    int64_t map_pixels(int64_t m, int64_t runs) const {
        const int64_t dense = std::max(window.pixels, window.step * dim[0]);
        return std::min(window.pixels, (m * dense + dim[0] - 1) / dim[0] + runs * window.overlap);
    }
    int64_t map_channels(int64_t k, int64_t runs) const {
        return std::min(window.channels, (k + window.taps - 2) / window.taps + runs);
    }
};

// What the choice of the work inside the innermost memory depends on.
struct Core {
    int64_t cores, rows, columns, register_words;
    int64_t kind, dataflow;
    int64_t split_axes, split_k_over_cores, factors_first;
    bool operator==(const Core &o) const { return std::memcmp(this, &o, sizeof(Core)) == 0; }
};

// What capacities and energies depend on: together with the shape and the split over cores it bounds the traffic.
struct Memory {
    double capacity[kMaxLevels][4];  // usable words of operands 0, 1, 2 and of all together
    double read_pj[kMaxLevels], write_pj[kMaxLevels];
    double per_core[kMaxLevels];          // 1: every core has its own
    double pooled_bandwidth[kMaxLevels];  // 1: the bandwidth is that of all cores together
    double buffers[kMaxLevels];           // 2: double buffered, `capacity` is half of what there is
    double registers_keep[3];             // 1: the operand lives in the registers
    double refills;                       // 1: traffic with the level outside takes bandwidth, and its drains energy
    double register_read_pj, register_write_pj, mac_pj, word_bits;
    bool operator==(const Memory &o) const { return std::memcmp(this, &o, sizeof(Memory)) == 0; }
};

struct Hardware {
    Core core;
    Memory memory;
    double read_cycles[kMaxLevels], write_cycles[kMaxLevels];  // cycles a word, the inverse of the bandwidth
    double shared_bus[kMaxLevels];  // 1: reads and writes of the memory take turns; bounds may take the longer of both
    double inner_limit;  // factors_first: choices inside the innermost memory with a larger energy-delay product are dropped
};

using Split = std::array<int64_t, 4>;  // cores along m, n, k, batch

// What happens inside the innermost memory: the split over cores, array units and elements of one unit along m, n, k, and the
// innermost loop of the innermost memory, which says what operand rests in the array.
struct Spatial {
    Split split;
    Triple unroll, registers;
    int64_t stationary;
    int64_t spread;  // array units along the batch
};

struct Mapping {
    Spatial spatial;
    Triple count[kMaxLevels - 1];    // tiles of each memory below DRAM along m, n, k, in the share of one core
    Triple tile[kMaxLevels - 1];     // elements of such a tile, before clipping
    int64_t stationary[kMaxLevels];  // innermost loop of each memory's block; [0] = spatial.stationary
};

struct Cost {
    double first = kInfinity, second = kInfinity;  // criterion and tie-break
    double cycles = kInfinity, compute = kInfinity, energy = kInfinity;
    bool better_than(const Cost &o) const { return first < o.first || (first == o.first && second < o.second); }
};

inline void judge(Cost &cost, int criterion) {
    cost.first = criterion == kLatency ? cost.cycles : criterion == kEnergy ? cost.energy : cost.cycles * cost.energy;
    cost.second = criterion == kLatency ? cost.energy : cost.cycles;
}

// How the words of a convolution's input grow with the cuts of its map: `full` is its im2col matrix.
struct Halo {
    double full, pixels, channels, overlap, runs_k, stored;
    // Words of one pass over those of the map uncut, when the map is cut into `runs_m` runs of outputs and the taps into
    // `pieces_k` pieces for each core.
    double ratio(double runs_m, double pieces_k) const {
        return std::min(full, (pixels + (runs_m - 1.0) * overlap) * (channels + (pieces_k * runs_k - 1.0))) / stored;
    }
};

// Words of the operands under one split over cores.
struct Share {
    Triple core;                 // dimensions of a core's share
    double total[3];             // words of each operand as it is stored
    double core_words[3];        // of the busiest core's share
    double array_total[3];       // the same as the array takes them: of a convolution's input its im2col matrix
    double array_core_words[3];
    double copies[3];            // cores that hold the same words
    double words[3];             // words per element
    int64_t batch_core;
    double batch, macs;
    int map_from;    // innermost memory that holds the map of a convolution; kMaxLevels: none does
    Halo all, busy;  // of all cores together, and of the busiest
    Resident resident;
    bool crosses(int boundary, int d) const { return boundary != resident.dram || !resident.operand[d]; }
    bool maps(int boundary) const { return boundary > map_from; }  // whether the map crosses it, or its im2col matrix
};

// Everything outside the array as linear forms in the fetch counts, for one hardware point and one split.
// Energy of boundary j: e[j][0] F0 + e[j][1] F1 + e[j][2] (F2 - 1) + e[j][3] F2, at least floor_pj[j].
struct Outer {
    double e[kMaxLevels][4];
    double words[kMaxLevels][3];   // words per fetch in the busiest instance, or in all where the bandwidth is pooled
    double refill[kMaxLevels][3];  // the same for traffic with the level outside
    const Halo *halo[kMaxLevels];  // which of the share's belongs to these words
    const Halo *all;
    int map_from;                  // as in Share
    double floor_pj[kMaxLevels];   // a lower bound of the energy of boundary j > 0
    double cycles;                 // a lower bound of the cycles of the levels above 0
};

// One spatial choice on one hardware point.
struct Inner {
    double compute;       // cycles of the array, the streamed dimension in one piece
    double folds, extra;  // systolic arrays: see compute_cycles
    double base_pj;       // multiply-accumulates, registers, operands that bypass the registers
    double e[4];          // energy of boundary 0, as in Outer
};

// Fetch counts of every boundary; [3]: into how many runs the cores cut the outputs of a convolution.
using Fetches = double[kMaxLevels][4];

// How often the stored words of the input cross boundary l, for the words that `halo` belongs to. The runs of the busiest core
// are its own; those of all cores together are cut by the cores too.
inline double input_fetches(const Outer &outer, int l, const Halo *halo, const Fetches &f) {
    if (l <= outer.map_from) return f[l][1];
    return f[l][1] * halo->ratio(halo == outer.all ? f[l][0] * f[l][3] : f[l][0], f[l][2]);
}

// The one place where fetch counts become cycles and energy. Every term grows with every count, also in floating point (sums
// and products of non-negative numbers round monotonically), so that counts that are too low give true bounds.
template <int L>
inline Cost evaluate(const Hardware &hw, const Outer &outer, const Inner &inner, const Fetches &f, double compute,
                     int criterion) {
    Cost cost;
    cost.compute = compute;
    double cycles = std::max(compute, outer.cycles);
    double energy =
        inner.base_pj + (inner.e[0] * f[0][0] + inner.e[1] * f[0][1] + inner.e[2] * (f[0][2] - 1.0) + inner.e[3] * f[0][2]);
    for (int l = 0; l < L; ++l) {
        const double *w = outer.words[l], *r = outer.refill[l];
        double reads = w[0] * f[l][0] + w[1] * input_fetches(outer, l, outer.halo[l], f) + w[2] * (f[l][2] - 1.0);
        double writes = w[2] * f[l][2];
        if (l + 1 < L) {
            reads += r[2] * f[l + 1][2];
            writes += r[0] * f[l + 1][0] + r[1] * input_fetches(outer, l + 1, outer.halo[l], f) + r[2] * (f[l + 1][2] - 1.0);
        }
        if (l > 0)
            energy += std::max(outer.floor_pj[l], outer.e[l][0] * f[l][0] + outer.e[l][1] * input_fetches(outer, l, outer.all, f) +
                                                      outer.e[l][2] * (f[l][2] - 1.0) + outer.e[l][3] * f[l][2]);
        const double in = reads * hw.read_cycles[l], out = writes * hw.write_cycles[l];
        cycles = std::max(cycles, hw.shared_bus[l] != 0.0 ? in + out : std::max(in, out));
    }
    cost.cycles = cycles;
    cost.energy = energy;
    judge(cost, criterion);
    return cost;
}

Share share_of(const Shape &shape, const Split &split, double word_bits);
void set_outer(const Share &share, const Hardware &hw, int levels, Outer &outer);
Inner inner_of(const Share &share, const Spatial &spatial, const Hardware &hw);

// The same where the array passes along each dimension and the units that hold the same word are known.
Inner inner_of(const Share &share, const double (&passes)[3], const double (&lanes)[3], int64_t stationary, int64_t spread,
               const Hardware &hw);

// Runs that the cores cut the outputs of a convolution into at boundary l, `resting` being the dimension of its innermost loop
// and `fetches` those of the weights. Neighbouring cores read what they share twice, except that a memory of all cores that holds
// their whole shares has it once.
inline double runs_of(const Memory &memory, const Share &share, int l, int resting, double fetches) {
    const bool once = l > 0 && memory.per_core[l - 1] == 0.0 && resting != 0 && fetches == 1.0;
    return once ? 1.0 : share.copies[0];
}

// Units along a dimension that hold the same word when each of them has `registers` elements of a core's share.
inline double lanes_of(int64_t unroll, int64_t core, int64_t registers) {
    return static_cast<double>(core > (unroll - 1) * registers ? unroll : ceil_div(core, registers));
}

// Cycles of the array with the streamed dimension in one piece, and what `compute_cycles` needs for more of them.
void set_array(const Core &core, const Share &share, const double (&passes)[3], int64_t stationary, int64_t spread,
               Inner &inner);

// Cycles of the array when the streamed dimension of a core (`length` elements) is cut into `tiles` pieces of `tile` elements.
inline double compute_cycles(const Inner &inner, const Core &core, int64_t length, int64_t tiles, int64_t tile) {
    if (core.kind == kDotProduct) return inner.compute;
    if (core.kind == kSystolic) return inner.folds * static_cast<double>(length) + inner.extra * static_cast<double>(tiles);
    // The next resting tile is loaded during this fold, one row a cycle: but for the last, a fold lasts at least `rows` cycles.
    const int64_t rest = length - (tiles - 1) * tile, last = std::max(rest, core.rows);
    return inner.folds * static_cast<double>((tiles - 1) * std::max(tile, core.rows) + last) -
           static_cast<double>(last - rest) + inner.extra;
}

// Words read from and written to each level, all instances together, for the report; and at DRAM by operand: inputs and weights
// read, outputs written, partial sums read again.
void traffic(const Share &share, const Outer &outer, const Memory &memory, int levels, const Fetches &f, double *read,
             double *write, double *operand);

}  // namespace mapping
