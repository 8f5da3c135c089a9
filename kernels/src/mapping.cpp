// Python binding of the mapping search: arrays of shapes and of hardware points in, arrays (shapes, points) out.
//
// A shape is one task. Every pair is searched by itself and its result does not depend on what was searched before, so the
// arrays are the same bytes whatever the number of threads and the company a pair is searched in.
#include <algorithm>
#include <atomic>
#include <cstring>
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

// Bits of the mask of operands that live in the registers.
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
enum { kInputBits, kWeightBits, kOutputBits, kExpansion, kOperandColumns };
enum { kCapInput, kCapWeight, kCapOutput, kCapTotal, kReadBw, kWriteBw, kReadPj, kWritePj, kPerCore, kPooled, kLevelColumns };

void search(In<int64_t, 2> shapes, In<double, 2> operands, In<int64_t, 2> integers, In<double, 2> reals, In<double, 3> levels,
            int criterion, int threads, Out<double, 3> results, Out<double, 4> words, Out<int64_t, 3> mappings) {
    const size_t shape_count = shapes.shape(0), points = integers.shape(0), level_count = levels.shape(1);
    if (level_count < 1 || level_count > kMaxLevels) throw nb::value_error("between 1 and 6 memory levels are supported");
    const bool want_words = words.shape(0) == shape_count, want_mapping = mappings.shape(0) == shape_count;
    const size_t mapping_columns = want_mapping ? mappings.shape(2) : 0;
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
            hw.read_cycles[l] = 1.0 / v[kReadBw];
            hw.write_cycles[l] = 1.0 / v[kWriteBw];
        }
    }

    nb::gil_scoped_release release;
    const int levels_used = static_cast<int>(level_count);
    std::vector<Hardware> plain = hardware;
    for (Hardware &hw : plain) hw.core.factors_first = 0;
    mapping::Plan plan = mapping::make_plan(plain, levels_used, criterion);
    plan.want_words = want_words;
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
        for (size_t s; (s = next.fetch_add(1)) < shape_count;) {
            const int64_t *row = shapes.data() + s * 4;
            const double *operand = operands.data() + s * kOperandColumns;
            const mapping::Shape shape{{row[1], row[2], row[3]},
                                       row[0],
                                       {operand[kWeightBits], operand[kInputBits], operand[kOutputBits]},
                                       operand[kExpansion]};
            searcher.run(plan, shape, found);
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
                if (want_mapping) {
                    int64_t *m = mappings.data() + (s * points + h) * mapping_columns;
                    std::fill(m, m + mapping_columns, -1);
                    if (!f.feasible) continue;
                    m = std::copy_n(f.mapping.spatial.split.begin(), 4, m);
                    m = std::copy_n(f.mapping.spatial.unroll.begin(), 3, m);
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
          nb::arg("mappings"),
          "Best mapping of every shape (batch, m, n, k) on every hardware point; see dse_kernels.mapping.");
}
