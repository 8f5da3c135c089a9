#include "mapping_arrays.h"

#include <cmath>
#include <stdexcept>

namespace mapping {

namespace {

constexpr double kMostElements = 4611686018427387904.0;  // 2^62: sums of two such counts are still int64
constexpr int64_t kMostUnits = int64_t{1} << 20;         // cores, rows, columns, words of a unit

}  // namespace

void require(bool fine, const std::string &what) {
    if (!fine) throw std::invalid_argument(what);
}

void check_shape(const int64_t *row, const double *operand, size_t at) {
    const std::string name = "shapes[" + std::to_string(at) + "]";
    double elements = 1.0;
    for (int c = kBatch; c <= kK; ++c) {
        require(row[c] >= 1, name + ": every dimension must be at least 1");
        elements *= static_cast<double>(row[c]);
    }
    require(elements < kMostElements, name + ": batch x m x n x k must be below 2^62");
    const double m = static_cast<double>(row[kM]), pixels = static_cast<double>(row[kPixels]);
    require(row[kPixels] >= 1 && row[kChannels] >= 1 && row[kTaps] >= 1 && row[kOverlap] >= 0 && row[kStep] >= 0,
            name + ": pixels, channels and taps must be at least 1, overlap and step at least 0");
    require(m * pixels < kMostElements && m * m * static_cast<double>(row[kStep]) < kMostElements &&
                pixels * static_cast<double>(row[kChannels]) < kMostElements &&
                m * static_cast<double>(row[kTaps]) < kMostElements && row[kTaps] <= row[kK] && row[kOverlap] <= row[kPixels],
            name + ": the window of a convolution must lie in its map, and its counts below 2^62");
    require(row[kResident] >= 0 && row[kResident] < 8 && row[kHeldBits] >= 0 && row[kHeldBits] < int64_t{1} << 62,
            name + ": resident must be a mask of three operands, held_bits at least 0 and below 2^62");
    for (int c = 0; c < kOperandColumns; ++c)
        require(operand[c] > 0.0 && std::isfinite(operand[c]), name + ": operand_bits must be positive");
}

void check_point(const int64_t *i, const double *r, const double *levels, size_t level_count, size_t at) {
    const std::string name = "point " + std::to_string(at);
    for (int c : {kCores, kRows, kColumns})
        require(i[c] >= 1 && i[c] <= kMostUnits, name + ": cores, array_rows and array_columns must be 1 to 2^20");
    require(i[kRegisterWords] >= 0 && i[kRegisterWords] <= kMostUnits, name + ": register_words must be 0 to 2^20");
    require(i[kKind] >= 0 && i[kKind] <= kDotProduct, name + ": array_kind must be 0, 1 or 2");
    require(i[kFlow] >= 0 && i[kFlow] <= kAnyDataflow, name + ": dataflow must be 0 to 3");
    for (int c = 0; c < kRealColumns; ++c) require(r[c] >= 0.0, name + ": energies and word_bits must not be negative");
    require(r[kWordBits] > 0.0, name + ": word_bits must be positive");
    for (size_t l = 0; l < level_count; ++l)
        for (int c = 0; c < kLevelColumns; ++c) {
            const double v = levels[l * kLevelColumns + c];
            require(v >= 0.0 && (v > 0.0 || (c != kReadBw && c != kWriteBw && c != kBuffers)),
                    name + ": sizes and energies of a level must not be negative, bandwidths and buffers must be positive");
        }
}

void check_resident(const Hardware &hw, size_t level_count) {
    require(level_count >= 2, "resident operands need a memory below DRAM");
    const Memory &m = hw.memory;
    require((m.per_core[level_count - 2] == 0.0 || hw.core.cores == 1) && m.capacity[level_count - 2][3] != kInfinity,
            "resident operands need a last memory below DRAM that all cores and operands share");
    require(!hw.core.factors_first, "resident operands are no part of the imitated search (factors_first)");
}

Hardware hardware_of(const int64_t *i, const double *r, const double *levels, size_t level_count) {
    Hardware hw;
    std::memset(static_cast<void *>(&hw), 0, sizeof hw);  // records are compared byte by byte
    hw.inner_limit = kInfinity;
    hw.core = {i[kCores], i[kRows], i[kColumns], i[kRegisterWords], i[kKind], i[kFlow], i[kSplitAxes], i[kSplitK], i[kFactorsFirst]};
    Memory &m = hw.memory;
    const int64_t keep[3] = {kKeepWeights, kKeepInputs, kKeepOutputs};
    for (int d = 0; d < 3; ++d) m.registers_keep[d] = i[kKeep] & keep[d] ? 1.0 : 0.0;
    m.refills = i[kRefills] ? 1.0 : 0.0;
    m.mac_pj = r[kMacPj];
    m.register_read_pj = r[kRegisterReadPj];
    m.register_write_pj = r[kRegisterWritePj];
    m.word_bits = r[kWordBits];
    for (size_t l = 0; l < level_count; ++l) {
        const double *v = levels + l * kLevelColumns;
        m.capacity[l][0] = v[kCapWeight];
        m.capacity[l][1] = v[kCapInput];
        m.capacity[l][2] = v[kCapOutput];
        m.capacity[l][3] = v[kCapTotal];
        m.read_pj[l] = v[kReadPj];
        m.write_pj[l] = v[kWritePj];
        m.per_core[l] = v[kPerCore];
        m.pooled_bandwidth[l] = v[kPooled];
        m.buffers[l] = v[kBuffers];
        hw.shared_bus[l] = v[kSharedBus];
        hw.read_cycles[l] = 1.0 / v[kReadBw];
        hw.write_cycles[l] = 1.0 / v[kWriteBw];
    }
    return hw;
}

Shape shape_of(const int64_t *row, const double *operand, int levels) {
    Shape shape{{row[kM], row[kN], row[kK]},
                row[kBatch],
                {operand[kWeightBits], operand[kInputBits], operand[kOutputBits]},
                row[kSpread] != 0 && row[kBatch] > 1,
                {row[kPixels], row[kChannels], row[kTaps], row[kOverlap], row[kStep], 0},
                {}};
    if (row[kResident] != 0) {
        shape.resident.dram = levels - 1;
        const int64_t masks[3] = {kKeepWeights, kKeepInputs, kKeepOutputs};
        for (int d = 0; d < 3; ++d) shape.resident.operand[d] = (row[kResident] & masks[d]) != 0;
    }
    return shape;
}

double room_beside(const Memory &m, int levels, double held_bits) {
    const double room = m.capacity[levels - 2][3];
    if (held_bits <= 0.0) return room;
    return std::max(0.0, std::floor(room - held_bits / m.word_bits / m.buffers[levels - 2]));
}

void search_shape(const Plan &plan, const Shape &shape, Searcher &searcher, std::vector<Found> &found, std::vector<int> *from) {
    searcher.run(plan, shape, found);
    if (from) from->assign(found.size(), shape.windowed() ? shape.window.from : kMaxLevels);
    if (!shape.windowed()) return;
    // A convolution may also keep tiles of its im2col matrix in the innermost memories, which hold less than rows of the map, up
    // to all of them: replace what is better so. Of equals what holds the map further in stays.
    std::vector<Found> got;
    for (int level = 1; level < plan.levels; ++level) {
        Shape other = shape;
        other.window.from = level;
        if (level + 1 == plan.levels) other.window.taps = 1;
        searcher.run(plan, other, got);
        for (const std::vector<int> &bundle : plan.bundles)
            for (int h : bundle) {
                const double least = std::min(found[h].least_cycles, got[h].least_cycles);
                if (got[h].feasible && (!found[h].feasible || got[h].cost.better_than(found[h].cost))) {
                    found[h] = got[h];
                    if (from) (*from)[h] = other.windowed() ? level : kMaxLevels;
                }
                found[h].least_cycles = least;
            }
    }
}

}  // namespace mapping
