// Python binding of the mapping search: arrays of shapes and of hardware points in, arrays (shapes, points) out.
//
// A shape is one task. Every pair is searched by itself and its result does not depend on what was searched before, so the
// arrays are the same bytes whatever the number of threads and the company a pair is searched in.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "mapping_factors_first.h"
#include "mapping_search.h"

namespace nb = nanobind;

namespace {

using mapping::Hardware;
using mapping::kInfinity;
using mapping::kMaxLevels;

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Bits of the masks of operands: those that live in the registers, those that are resident.
enum { kKeepInputs = 1, kKeepWeights = 2, kKeepOutputs = 4 };
// Columns of the integer hardware array, of the real one, and of the per-level one; dse_kernels/mapping.py fills them.
enum {
    kCores,
    kRows,
    kColumns,
    kKind,
    kFlow,
    kRegisterWords,
    kKeep,
    kSplitAxes,
    kSplitK,
    kFactorsFirst,
    kRefills,
    kIntColumns
};
enum { kMacPj, kRegisterReadPj, kRegisterWritePj, kWordBits, kRealColumns };
enum { kInputBits, kWeightBits, kOutputBits, kOperandColumns };
enum { kBatch, kM, kN, kK, kSpread, kPixels, kChannels, kTaps, kOverlap, kStep, kResident, kHeldBits, kShapeColumns };
enum { kCapInput, kCapWeight, kCapOutput, kCapTotal, kReadBw, kWriteBw, kReadPj, kWritePj, kPerCore, kPooled, kBuffers, kLevelColumns };

constexpr double kMostElements = 4611686018427387904.0;  // 2^62: sums of two such counts are still int64
constexpr int64_t kMostUnits = int64_t{1} << 20;         // cores, rows, columns, words of a unit

void require(bool fine, const std::string &what) {
    if (!fine) throw nb::value_error(what.c_str());
}

// Everything that the search relies on, so that no array of a caller makes it divide by zero, count past int64 or read beyond.
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
    require(i[kKind] >= 0 && i[kKind] <= mapping::kDotProduct, name + ": array_kind must be 0, 1 or 2");
    require(i[kFlow] >= 0 && i[kFlow] <= mapping::kAnyDataflow, name + ": dataflow must be 0 to 3");
    for (int c = 0; c < kRealColumns; ++c) require(r[c] >= 0.0, name + ": energies and word_bits must not be negative");
    require(r[kWordBits] > 0.0, name + ": word_bits must be positive");
    for (size_t l = 0; l < level_count; ++l)
        for (int c = 0; c < kLevelColumns; ++c) {
            const double v = levels[l * kLevelColumns + c];
            require(v >= 0.0 && (v > 0.0 || (c != kReadBw && c != kWriteBw && c != kBuffers)),
                    name + ": sizes and energies of a level must not be negative, bandwidths and buffers must be positive");
        }
}

// What stays in the last memory below DRAM while a shape runs needs one such memory of all cores, with one capacity for all.
void check_residency(const int64_t *row, const Hardware &hw, size_t level_count) {
    if (row[kResident] == 0 && row[kHeldBits] == 0) return;
    require(level_count >= 2, "resident operands need a memory below DRAM");
    const mapping::Memory &m = hw.memory;
    require((m.per_core[level_count - 2] == 0.0 || hw.core.cores == 1) && m.capacity[level_count - 2][3] != kInfinity,
            "resident operands need a last memory below DRAM that all cores and operands share");
    require(!hw.core.factors_first, "resident operands are no part of the imitated search (factors_first)");
}

// The plan of the wanted points (all where `wanted` is null) with less room in the last memory below DRAM. Points that were of one
// class stay so.
void narrow(const mapping::Plan &whole, double held_bits, const uint8_t *wanted, mapping::Plan &plan) {
    plan = whole;
    if (held_bits > 0.0)
        for (Hardware &hw : plan.points) {
            mapping::Memory &m = hw.memory;
            double &room = m.capacity[plan.levels - 2][3];
            room = std::max(0.0, std::floor(room - held_bits / m.word_bits / m.buffers[plan.levels - 2]));
        }
    if (!wanted) return;
    plan.bundles.clear();
    for (const std::vector<int> &bundle : whole.bundles) {
        std::vector<int> kept;
        for (int p : bundle)
            if (wanted[p]) kept.push_back(p);
        if (!kept.empty()) plan.bundles.push_back(std::move(kept));
    }
}

// A convolution may also keep tiles of its im2col matrix in the innermost memories, which hold less than rows of the map, up to
// all of them: replace what is better so. Of equals what holds the map further in stays.
void matrices_inside(const mapping::Plan &plan, const mapping::Shape &shape, mapping::Searcher &searcher,
                     std::vector<mapping::Found> &found) {
    std::vector<mapping::Found> got;
    for (int from = 1; from < plan.levels; ++from) {
        mapping::Shape other = shape;
        other.window.from = from;
        if (from + 1 == plan.levels) other.window.taps = 1;
        searcher.run(plan, other, got);
        for (size_t h = 0; h < got.size(); ++h)
            if (got[h].feasible && (!found[h].feasible || got[h].cost.better_than(found[h].cost))) found[h] = got[h];
    }
}

void search(In<int64_t, 2> shapes, In<double, 2> operands, In<int64_t, 2> integers, In<double, 2> reals, In<double, 3> levels,
            int criterion, int threads, Out<double, 3> results, Out<double, 4> words, Out<int64_t, 3> mappings,
            Out<double, 3> by_operand, In<uint8_t, 2> wanted) {
    const size_t shape_count = shapes.shape(0), points = integers.shape(0), level_count = levels.shape(1);
    if (level_count < 1 || level_count > kMaxLevels) throw nb::value_error("between 1 and 6 memory levels are supported");
    require(shapes.shape(1) == kShapeColumns && operands.shape(1) == kOperandColumns && operands.shape(0) == shape_count,
            "shapes and operands must have one row a shape and 12 and 3 columns");
    require(integers.shape(1) == kIntColumns && reals.shape(1) == kRealColumns && reals.shape(0) == points &&
                levels.shape(0) == points && levels.shape(2) == kLevelColumns,
            "the hardware arrays must have one row a point and 11, 4 and (levels, 11) columns");
    require(criterion >= mapping::kLatency && criterion <= mapping::kEnergyDelay, "criterion must be 0, 1 or 2");
    const bool want_words = words.shape(0) == shape_count, want_mapping = mappings.shape(0) == shape_count;
    const bool want_operands = by_operand.shape(0) == shape_count, choosy = wanted.shape(0) == shape_count && shape_count > 0;
    const size_t mapping_columns = 4 + 4 + 3 + level_count + 6 * (level_count - 1);
    require(results.shape(0) == shape_count && results.shape(1) == points && results.shape(2) == 3 &&
                (!want_words || (words.shape(1) == points && words.shape(2) == level_count && words.shape(3) == 2)) &&
                (!want_mapping || (mappings.shape(1) == points && mappings.shape(2) == mapping_columns)) &&
                (!want_operands || (by_operand.shape(1) == points && by_operand.shape(2) == 4)) &&
                (!choosy || wanted.shape(1) == points),
            "the arrays of results do not have the shapes that the inputs ask for");
    for (size_t s = 0; s < shape_count; ++s)
        check_shape(shapes.data() + s * kShapeColumns, operands.data() + s * kOperandColumns, s);
    for (size_t h = 0; h < points; ++h)
        check_point(integers.data() + h * kIntColumns, reals.data() + h * kRealColumns,
                    levels.data() + h * level_count * kLevelColumns, level_count, h);
    std::vector<Hardware> hardware(points);
    for (size_t h = 0; h < points; ++h) {
        Hardware &hw = hardware[h];
        std::memset(static_cast<void *>(&hw), 0, sizeof hw);  // records are compared byte by byte
        const int64_t *i = integers.data() + h * kIntColumns;
        const double *r = reals.data() + h * kRealColumns;
        hw.inner_limit = kInfinity;
        hw.core = {i[kCores], i[kRows],      i[kColumns], i[kRegisterWords], i[kKind],
                   i[kFlow],  i[kSplitAxes], i[kSplitK],  i[kFactorsFirst]};
        mapping::Memory &m = hw.memory;
        const int64_t keep[3] = {kKeepWeights, kKeepInputs, kKeepOutputs};
        for (int d = 0; d < 3; ++d) m.registers_keep[d] = i[kKeep] & keep[d] ? 1.0 : 0.0;
        m.refills = i[kRefills] ? 1.0 : 0.0;
        m.mac_pj = r[kMacPj];
        m.register_read_pj = r[kRegisterReadPj];
        m.register_write_pj = r[kRegisterWritePj];
        m.word_bits = r[kWordBits];
        for (size_t l = 0; l < level_count; ++l) {
            const double *v = levels.data() + (h * level_count + l) * kLevelColumns;
            m.capacity[l][0] = v[kCapWeight];
            m.capacity[l][1] = v[kCapInput];
            m.capacity[l][2] = v[kCapOutput];
            m.capacity[l][3] = v[kCapTotal];
            m.read_pj[l] = v[kReadPj];
            m.write_pj[l] = v[kWritePj];
            m.per_core[l] = v[kPerCore];
            m.pooled_bandwidth[l] = v[kPooled];
            m.buffers[l] = v[kBuffers];
            hw.read_cycles[l] = 1.0 / v[kReadBw];
            hw.write_cycles[l] = 1.0 / v[kWriteBw];
        }
    }

    for (size_t s = 0; s < shape_count; ++s)
        for (const Hardware &hw : hardware) check_residency(shapes.data() + s * kShapeColumns, hw, level_count);

    nb::gil_scoped_release release;
    const int levels_used = static_cast<int>(level_count);
    std::vector<Hardware> plain = hardware;
    for (Hardware &hw : plain) hw.core.factors_first = 0;
    mapping::Plan plan = mapping::make_plan(plain, levels_used, criterion);
    plan.want_words = want_words || want_operands;
    // The points that imitate Sunstone's search need more than one pass; see factors_first.
    std::vector<Hardware> imitated;
    std::vector<size_t> imitated_at;
    for (size_t h = 0; h < points; ++h)
        if (hardware[h].core.factors_first) {
            imitated.push_back(hardware[h]);
            imitated_at.push_back(h);
        }
    const mapping::FactorsFirst imitation(imitated, levels_used, criterion, want_words);
    std::atomic<size_t> next{0};
    const auto work = [&] {
        mapping::Searcher &searcher = mapping::searcher(plan.levels);
        std::vector<mapping::Found> found;
        mapping::Plan narrowed;
        for (size_t s; (s = next.fetch_add(1)) < shape_count;) {
            const int64_t *row = shapes.data() + s * kShapeColumns;
            const double *operand = operands.data() + s * kOperandColumns;
            mapping::Shape shape{{row[kM], row[kN], row[kK]},
                                 row[kBatch],
                                 {operand[kWeightBits], operand[kInputBits], operand[kOutputBits]},
                                 row[kSpread] != 0 && row[kBatch] > 1,
                                 {row[kPixels], row[kChannels], row[kTaps], row[kOverlap], row[kStep], 0},
                                 {}};
            if (row[kResident] != 0) {
                shape.resident.dram = levels_used - 1;
                const int64_t masks[3] = {kKeepWeights, kKeepInputs, kKeepOutputs};
                for (int d = 0; d < 3; ++d) shape.resident.operand[d] = (row[kResident] & masks[d]) != 0;
            }
            const bool apart = row[kHeldBits] > 0 || choosy;
            if (apart) {
                narrow(plan, static_cast<double>(row[kHeldBits]), choosy ? wanted.data() + s * points : nullptr, narrowed);
                found.assign(points, mapping::Found());
            }
            const mapping::Plan &used = apart ? narrowed : plan;
            searcher.run(used, shape, found);
            if (shape.windowed()) matrices_inside(used, shape, searcher, found);
            if (!imitated.empty()) imitation.run(shape, imitated_at, found);
            for (size_t h = 0; h < points; ++h) {
                const mapping::Found &f = found[h];
                double *out = results.data() + (s * points + h) * 3;
                out[0] = f.cost.cycles;  // infinite where nothing fits
                out[1] = f.cost.compute;
                out[2] = f.cost.energy;
                if (want_words) {
                    double *w = words.data() + (s * points + h) * level_count * 2;
                    for (size_t l = 0; l < level_count; ++l) {
                        w[2 * l] = f.feasible ? f.read[l] : kInfinity;
                        w[2 * l + 1] = f.feasible ? f.write[l] : kInfinity;
                    }
                }
                if (want_operands) {
                    double *o = by_operand.data() + (s * points + h) * 4;
                    for (int d = 0; d < 4; ++d) o[d] = f.feasible ? f.operand[d] : kInfinity;
                }
                if (want_mapping) {
                    int64_t *m = mappings.data() + (s * points + h) * mapping_columns;
                    std::fill(m, m + mapping_columns, -1);
                    if (!f.feasible) continue;
                    m = std::copy_n(f.mapping.spatial.split.begin(), 4, m);
                    m = std::copy_n(f.mapping.spatial.unroll.begin(), 3, m);
                    *m++ = f.mapping.spatial.spread;
                    m = std::copy_n(f.mapping.spatial.registers.begin(), 3, m);
                    m = std::copy_n(f.mapping.stationary, level_count, m);
                    for (size_t l = 0; l + 1 < level_count; ++l) m = std::copy_n(f.mapping.tile[l].begin(), 3, m);
                    for (size_t l = 0; l + 1 < level_count; ++l) m = std::copy_n(f.mapping.count[l].begin(), 3, m);
                }
            }
        }
    };
    const size_t workers = std::max<size_t>(1, std::min<size_t>(static_cast<size_t>(std::max(threads, 1)), shape_count));
    std::vector<std::thread> pool;
    for (size_t t = 1; t < workers; ++t) pool.emplace_back(work);
    work();
    for (std::thread &t : pool) t.join();
}

}  // namespace

void bind_mapping(nb::module_ &m) {
    m.def("mapping_search", &search, nb::arg("shapes"), nb::arg("operands"), nb::arg("integers"), nb::arg("reals"),
          nb::arg("levels"), nb::arg("criterion"), nb::arg("threads"), nb::arg("results"), nb::arg("words"),
          nb::arg("mappings"), nb::arg("by_operand"), nb::arg("wanted"),
          "Best mapping of every shape (batch, m, n, k) on every hardware point; see dse_kernels.mapping.");
}
