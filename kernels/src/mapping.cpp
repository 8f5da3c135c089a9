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

#include "mapping_arrays.h"
#include "mapping_factors_first.h"

namespace nb = nanobind;

namespace {

using mapping::Hardware;
using mapping::kInfinity;
using mapping::kMaxLevels;

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

using mapping::require;

// The plan of the wanted points (all where `wanted` is null) with less room in the last memory below DRAM. Points that were of one
// class stay so.
void narrow(const mapping::Plan &whole, double held_bits, const uint8_t *wanted, mapping::Plan &plan) {
    plan = whole;
    if (held_bits > 0.0)
        for (Hardware &hw : plan.points) {
            hw.memory.capacity[plan.levels - 2][3] = mapping::room_beside(hw.memory, plan.levels, held_bits);
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

void search(In<int64_t, 2> shapes, In<double, 2> operands, In<int64_t, 2> integers, In<double, 2> reals, In<double, 3> levels,
            int criterion, int threads, Out<double, 3> results, Out<double, 4> words, Out<int64_t, 3> mappings,
            Out<double, 3> by_operand, In<uint8_t, 2> wanted) {
    const size_t shape_count = shapes.shape(0), points = integers.shape(0), level_count = levels.shape(1);
    if (level_count < 1 || level_count > kMaxLevels) throw nb::value_error("between 1 and 6 memory levels are supported");
    require(shapes.shape(1) == mapping::kShapeColumns && operands.shape(1) == mapping::kOperandColumns && operands.shape(0) == shape_count,
            "shapes and operands must have one row a shape and 12 and 3 columns");
    require(integers.shape(1) == mapping::kIntColumns && reals.shape(1) == mapping::kRealColumns && reals.shape(0) == points &&
                levels.shape(0) == points && levels.shape(2) == mapping::kLevelColumns,
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
        mapping::check_shape(shapes.data() + s * mapping::kShapeColumns, operands.data() + s * mapping::kOperandColumns, s);
    for (size_t h = 0; h < points; ++h)
        mapping::check_point(integers.data() + h * mapping::kIntColumns, reals.data() + h * mapping::kRealColumns,
                    levels.data() + h * level_count * mapping::kLevelColumns, level_count, h);
    std::vector<Hardware> hardware;
    hardware.reserve(points);
    for (size_t h = 0; h < points; ++h)
        hardware.push_back(mapping::hardware_of(integers.data() + h * mapping::kIntColumns, reals.data() + h * mapping::kRealColumns,
                                                levels.data() + h * level_count * mapping::kLevelColumns, level_count));

    for (size_t s = 0; s < shape_count; ++s) {
        const int64_t *row = shapes.data() + s * mapping::kShapeColumns;
        if (row[mapping::kResident] == 0 && row[mapping::kHeldBits] == 0) continue;
        for (const Hardware &hw : hardware) mapping::check_resident(hw, level_count);
    }

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
            const int64_t *row = shapes.data() + s * mapping::kShapeColumns;
            const double *operand = operands.data() + s * mapping::kOperandColumns;
            const mapping::Shape shape = mapping::shape_of(row, operand, levels_used);
            const bool apart = row[mapping::kHeldBits] > 0 || choosy;
            if (apart) {
                narrow(plan, static_cast<double>(row[mapping::kHeldBits]), choosy ? wanted.data() + s * points : nullptr, narrowed);
                found.assign(points, mapping::Found());
            }
            const mapping::Plan &used = apart ? narrowed : plan;
            mapping::search_shape(used, shape, searcher, found);
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
