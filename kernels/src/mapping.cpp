// Python binding of the mapping search: arrays of shapes and of hardware points in, arrays (shapes, points) out.
//
// A shape is one task. Every pair is searched by itself and its result does not depend on what was searched before, so the
// arrays are the same bytes whatever the number of threads and the company a pair is searched in.
#include <atomic>
#include <thread>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

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

// Columns of the integer hardware array, of the real one, and of the per-level one; dse_kernels/mapping.py fills them.
enum { kCores, kRows, kColumns, kKind, kFlow, kRegisterWords, kKeep, kSplitAxes, kSplitK, kFillRegisters, kRefills, kIntColumns };
enum { kMacPj, kRegisterReadPj, kRegisterWritePj, kWordBits, kRealColumns };
enum { kInputBits, kWeightBits, kOutputBits, kExpansion, kOperandColumns };
enum { kCapInput, kCapWeight, kCapOutput, kCapTotal, kReadBw, kWriteBw, kReadPj, kWritePj, kPerCore, kPooled, kLevelColumns };

void search(In<int64_t, 2> shapes, In<double, 2> operands, In<int64_t, 2> integers, In<double, 2> reals, In<double, 3> levels, int criterion, int threads,
            Out<double, 3> results, Out<double, 4> words, Out<int64_t, 3> mappings) {
    const size_t shape_count = shapes.shape(0), points = integers.shape(0), level_count = levels.shape(1);
    if (level_count < 1 || level_count > kMaxLevels) throw nb::value_error("between 1 and 6 memory levels are supported");
    const bool want_words = words.shape(0) == shape_count, want_mapping = mappings.shape(0) == shape_count;
    const size_t mapping_columns = want_mapping ? mappings.shape(2) : 0;
    std::vector<Hardware> hardware(points);
    for (size_t h = 0; h < points; ++h) {
        Hardware &hw = hardware[h];
        const int64_t *i = integers.data() + h * kIntColumns;
        const double *r = reals.data() + h * kRealColumns;
        hw.cores = i[kCores];
        hw.rows = i[kRows];
        hw.columns = i[kColumns];
        hw.kind = static_cast<int>(i[kKind]);
        hw.dataflow = static_cast<int>(i[kFlow]);
        hw.register_words = i[kRegisterWords];
        hw.registers_keep[1] = i[kKeep] & 1;  // inputs
        hw.registers_keep[0] = i[kKeep] & 2;  // weights
        hw.registers_keep[2] = i[kKeep] & 4;  // outputs
        hw.split_axes = i[kSplitAxes];
        hw.split_k_over_cores = i[kSplitK];
        hw.fill_registers = i[kFillRegisters];
        hw.count_refills = i[kRefills];
        hw.mac_pj = r[kMacPj];
        hw.register_read_pj = r[kRegisterReadPj];
        hw.register_write_pj = r[kRegisterWritePj];
        hw.word_bits = r[kWordBits];
        hw.levels = static_cast<int>(level_count);
        for (size_t l = 0; l < level_count; ++l) {
            const double *v = levels.data() + (h * level_count + l) * kLevelColumns;
            mapping::Level &level = hw.level[l];
            level.capacity[1] = v[kCapInput];
            level.capacity[0] = v[kCapWeight];
            level.capacity[2] = v[kCapOutput];
            level.capacity[3] = v[kCapTotal];
            level.read_bandwidth = v[kReadBw];
            level.write_bandwidth = v[kWriteBw];
            level.read_pj = v[kReadPj];
            level.write_pj = v[kWritePj];
            level.per_core = v[kPerCore] != 0.0;
            level.pooled_bandwidth = v[kPooled] != 0.0;
        }
    }

    nb::gil_scoped_release release;
    std::atomic<size_t> next{0};
    const auto work = [&] {
        mapping::Search searcher(criterion);
        for (size_t s; (s = next.fetch_add(1)) < shape_count;) {
            const int64_t *row = shapes.data() + s * 4;
            const double *operand = operands.data() + s * kOperandColumns;
            const mapping::Shape shape{row[0], row[1], row[2], row[3],
                                       {operand[kWeightBits], operand[kInputBits], operand[kOutputBits]}, operand[kExpansion]};
            for (size_t h = 0; h < points; ++h) {
                mapping::Mapping found;
                mapping::Cost cost;
                mapping::Words traffic;
                const bool ok = searcher.run(shape, hardware[h], found, cost, traffic);
                double *out = results.data() + (s * points + h) * 3;
                out[0] = ok ? cost.cycles : kInfinity;
                out[1] = ok ? cost.compute : kInfinity;
                out[2] = ok ? cost.energy : kInfinity;
                if (want_words) {
                    double *w = words.data() + (s * points + h) * level_count * 2;
                    for (size_t l = 0; l < level_count; ++l) {
                        w[2 * l] = ok ? traffic.read[l] : kInfinity;
                        w[2 * l + 1] = ok ? traffic.write[l] : kInfinity;
                    }
                }
                if (want_mapping) {
                    int64_t *m = mappings.data() + (s * points + h) * mapping_columns;
                    std::fill(m, m + mapping_columns, ok ? 0 : -1);
                    if (!ok) continue;
                    for (int d = 0; d < 4; ++d) *m++ = found.spatial.split[d];
                    for (int d = 0; d < 3; ++d) *m++ = found.spatial.unroll[d];
                    for (int d = 0; d < 3; ++d) *m++ = found.spatial.registers[d];
                    for (size_t l = 0; l < level_count; ++l) *m++ = found.stationary[l];
                    for (size_t l = 0; l + 1 < level_count; ++l)
                        for (int d = 0; d < 3; ++d) *m++ = found.tile[l][d];
                    for (size_t l = 0; l + 1 < level_count; ++l)
                        for (int d = 0; d < 3; ++d) *m++ = found.count[l][d];
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
    m.def("mapping_search", &search, nb::arg("shapes"), nb::arg("operands"), nb::arg("integers"), nb::arg("reals"), nb::arg("levels"), nb::arg("criterion"),
          nb::arg("threads"), nb::arg("results"), nb::arg("words"), nb::arg("mappings"),
          "Best mapping of every shape (batch, m, n, k) on every hardware point; see dse_kernels.mapping.");
}
