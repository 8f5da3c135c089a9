// The cost model of one mapping of a matrix product, and the records that the search over mappings works on.
//
// Dimensions are numbered 0 = m, 1 = n, 2 = k. An operand is numbered by the dimension that it does NOT have, since that is the
// loop over which it can be reused: operand 0 = weights (k x n), 1 = inputs (m x k), 2 = outputs (m x n).
//
// Storage 0 is the array of a core (registers), storages 1..levels are the memories, the last one DRAM. Boundary j lies between
// storages j and j + 1; fetches[j][d] says how many times operand d crosses it as a whole. docs/models/mapping.md has every formula.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace mapping {

constexpr int kMaxLevels = 6;  // memories, DRAM included
constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum Criterion { kLatency = 0, kEnergy = 1, kEnergyDelay = 2 };
enum ArrayKind { kSystolic = 0, kSystolicPipelined = 1, kDotProduct = 2 };
enum Dataflow { kOutputStationary = 0, kWeightStationary = 1, kInputStationary = 2, kAnyDataflow = 3 };

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Shape {
    int64_t batch, m, n, k;    // batch > 1 only where the second operand differs between batch entries
    double operand_bits[3];
    double input_expansion;    // input elements that the array consumes per element that is stored (im2col), >= 1
};

struct Level {
    double capacity[4];  // usable words of operands 0, 1, 2 and of all together
    double read_bandwidth, write_bandwidth;
    double read_pj, write_pj;
    bool per_core;
    bool pooled_bandwidth;  // the bandwidth is that of all cores together
};

struct Hardware {
    int64_t cores, rows, columns;
    int kind, dataflow;
    int64_t register_words;
    bool split_axes, split_k_over_cores;
    bool fill_registers;  // only register tiles to which nothing can be added
    bool registers_keep[3];
    bool count_refills;  // traffic with the level outside takes bandwidth and energy too
    double register_read_pj, register_write_pj, mac_pj;
    double word_bits;
    int levels;
    Level level[kMaxLevels];
};

// How the work is spread over cores and array, and which operand rests in the array: everything inside the innermost memory.
struct Spatial {
    int64_t split[4];       // cores along m, n, k, batch
    int64_t unroll[3];      // array units along m, n, k
    int64_t registers[3];   // elements that one array unit holds along m, n, k
    int stationary;         // innermost loop of the innermost memory: operand that rests in the array
};

struct Mapping {
    Spatial spatial;
    int64_t tile[kMaxLevels - 1][3];   // tile of each memory below DRAM, elements of one core (before clipping)
    int64_t count[kMaxLevels - 1][3];  // tiles along each dimension, of one core
    int stationary[kMaxLevels];        // innermost loop of each memory's block, [0] = spatial.stationary
};

struct Cost {
    double first = kInfinity, second = kInfinity;  // criterion and tie-break
    double cycles = kInfinity, compute = kInfinity, energy = kInfinity;
    bool better_than(const Cost &o) const { return first < o.first || (first == o.first && second < o.second); }
};

// What is constant for one spatial choice of one shape on one hardware point.
struct Work {
    double operand[3];       // words of each operand, all of it
    double operand_core[3];  // words of the share of the busiest core
    double expansion[3];     // words at the array per word stored
    double copies[3];        // cores that hold the same words of an operand
    double compute;          // cycles of the array at least
    double stream;           // systolic arrays: cycles added for each piece of the streamed dimension
    double base_energy;      // MACs, registers and operands that bypass the registers
    double lanes[3];         // array units that hold the same word of an operand
};

inline void finish(const Hardware &hw, int criterion, Cost &cost) {
    (void)hw;
    switch (criterion) {
        case kLatency: cost.first = cost.cycles; cost.second = cost.energy; break;
        case kEnergy: cost.first = cost.energy; cost.second = cost.cycles; break;
        default: cost.first = cost.cycles * cost.energy; cost.second = cost.cycles;
    }
}

// Words read from and written to each memory, for energy (all copies) and for time (the busiest instance).
struct Words {
    double read[kMaxLevels], write[kMaxLevels];
};

// The one place where fetch counts become cycles and energy. Every term grows with every count, also in floating point (sums,
// products and quotients of non-negative numbers round monotonically), so counts of 1 give bounds that never exceed the truth.
inline Cost evaluate(const Hardware &hw, const Work &work, const double fetches[][3], double compute, int criterion,
                     Words *words = nullptr) {
    Cost cost;
    cost.compute = compute;
    double cycles = compute;
    double energy = work.base_energy;
    for (int d = 0; d < 3; ++d)
        if (hw.registers_keep[d]) {
            const double words_in = work.operand[d] * work.expansion[d] * work.copies[d];
            energy += words_in * work.lanes[d] * (d == 2 ? fetches[0][d] - 1.0 : fetches[0][d]) * hw.register_write_pj;
            if (d == 2 && hw.count_refills) energy += words_in * fetches[0][d] * hw.register_read_pj;
        }
    for (int l = 0; l < hw.levels; ++l) {
        const Level &level = hw.level[l];
        double in[3];
        for (int d = 0; d < 3; ++d) in[d] = l == 0 && d == 1 ? fetches[l][d] * work.expansion[d] : fetches[l][d];
        double copies[3], busy[3];
        for (int d = 0; d < 3; ++d) {
            copies[d] = level.per_core ? work.operand[d] * work.copies[d] : work.operand[d];
            busy[d] = level.per_core && !level.pooled_bandwidth ? work.operand_core[d] : copies[d];
        }
        double reads = busy[0] * in[0] + busy[1] * in[1] + busy[2] * (in[2] - 1.0);
        double writes = busy[2] * in[2];
        double total_reads = copies[0] * in[0] + copies[1] * in[1] + copies[2] * (in[2] - 1.0);
        double total_writes = copies[2] * in[2];
        double charged_reads = total_reads, charged_writes = total_writes;
        if (l == 0) {  // operands that bypass the registers are charged in base_energy
            charged_reads = 0.0;
            charged_writes = 0.0;
            for (int d = 0; d < 2; ++d)
                if (hw.registers_keep[d]) charged_reads += copies[d] * in[d];
            if (hw.registers_keep[2]) {
                charged_reads += copies[2] * (in[2] - 1.0);
                charged_writes += copies[2] * in[2];
            }
        }
        if (l + 1 < hw.levels) {
            const double *out = fetches[l + 1];
            const double fills = copies[0] * out[0] + copies[1] * out[1] + copies[2] * (out[2] - 1.0);
            const double drains = copies[2] * out[2];
            charged_writes += fills;
            total_writes += fills;
            if (hw.count_refills) {
                reads += busy[2] * out[2];
                writes += busy[0] * out[0] + busy[1] * out[1] + busy[2] * (out[2] - 1.0);
                charged_reads += drains;
            }
            total_reads += drains;
        }
        cycles = std::max(cycles, std::max(reads / level.read_bandwidth, writes / level.write_bandwidth));
        energy += charged_reads * level.read_pj + charged_writes * level.write_pj;
        if (words) {
            words->read[l] = total_reads;
            words->write[l] = total_writes;
        }
    }
    cost.cycles = cycles;
    cost.energy = energy;
    finish(hw, criterion, cost);
    return cost;
}

}  // namespace mapping
