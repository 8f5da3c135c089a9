// One phase of a model on one design: unit costs of its shapes, and their sums over the rows of its table.
//
// The same operations in the same order as the evaluation of many designs, so the same bits; see dse_kernels/design.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace {

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Columns of the arrays; dse_kernels/design.py names them.
enum { kCycles, kArrayCycles, kEnergyPj, kResultColumns };
enum { kElements, kRows, kElementCycles, kRowCycles, kPasses, kWidth, kBitsIn, kBitsOut, kRowBits, kWorkColumns };
enum { kLanes, kLaneBits, kLanePj, kWordBits, kFrequency, kPointColumns };
enum { kBits, kReadWords, kWriteWords, kReadPj, kWritePj, kSharedBus, kLevelColumns };

struct Unit {
    double seconds, joules, bytes;
};

// A vector operation: the closed form of `hw_models.technology.namespace.vector_unit`.
Unit vector_unit(const double *w, const double *p, const double *levels, size_t depth) {
    const double wide = std::ceil(w[kWidth] / p[kLaneBits]);
    const double steps =
        std::ceil(w[kElements] / p[kLanes]) * w[kElementCycles] + std::ceil(w[kRows] / p[kLanes]) * w[kRowCycles];
    const double in = w[kBitsIn] / p[kWordBits], back = w[kBitsOut] / p[kWordBits];
    double longest = steps * wide / p[kFrequency], move_pj = 0.0, refills = w[kPasses], reads = in, writes = in;
    for (size_t l = 0; l < depth; ++l) {
        const double *v = levels + l * kLevelColumns;
        reads = in * refills;
        refills = v[kBits] >= w[kRowBits] ? 1.0 : refills;
        writes = back;
        if (l + 1 < depth) {
            reads += back;
            writes += in * refills;
        }
        const double read = reads / v[kReadWords], write = writes / v[kWriteWords];
        longest = std::max(longest, (v[kSharedBus] != 0.0 ? read + write : std::max(read, write)) / p[kFrequency]);
        move_pj += reads * v[kReadPj] + writes * v[kWritePj];
    }
    const double lane_cycles = (w[kElements] * w[kElementCycles] + w[kRows] * w[kRowCycles]) * wide;
    return {longest, (lane_cycles * p[kLanePj] + move_pj) * 1e-12, (reads + writes) * p[kWordBits] / 8.0};
}

nb::tuple phase_sums(In<double, 3> results, In<double, 4> words, In<double, 2> work, In<double, 2> others, In<double, 1> point,
                     In<double, 2> levels, In<int64_t, 1> index, In<double, 1> repeat) {
    const size_t products = results.shape(0), vectors = work.shape(0), rest = others.shape(0), depth = levels.shape(0);
    const size_t count = products + vectors + rest, rows = index.shape(0);
    if (results.shape(1) != 1 || results.shape(2) != kResultColumns || words.shape(0) != products || words.shape(1) != 1 ||
        words.shape(2) < 1 || words.shape(3) != 2 || work.shape(1) != kWorkColumns || others.shape(1) != 3 ||
        point.shape(0) != kPointColumns || levels.shape(1) != kLevelColumns || repeat.shape(0) != rows)
        throw nb::value_error("phase_sums takes results (p, 1, 3), words (p, 1, levels, 2), work (v, 9), others (o, 3), "
                              "point (5,), levels (levels, 6), index (rows,) and repeat (rows,)");
    const double *p = point.data();
    std::vector<Unit> unit;
    unit.reserve(count);
    for (size_t i = 0; i < products; ++i) {
        const double *r = results.data() + i * kResultColumns;
        const double *outermost = words.data() + (i + 1) * words.shape(2) * 2 - 2;
        unit.push_back(
            {r[kCycles] / p[kFrequency], r[kEnergyPj] * 1e-12, (outermost[0] + outermost[1]) * (p[kWordBits] / 8.0)});
    }
    for (size_t i = 0; i < vectors; ++i) unit.push_back(vector_unit(work.data() + i * kWorkColumns, p, levels.data(), depth));
    for (size_t i = 0; i < rest; ++i) {
        const double *o = others.data() + i * 3;
        unit.push_back({o[0], o[1], o[2]});
    }
    Unit sum{0.0, 0.0, 0.0};
    double watts = 0.0;
    for (size_t r = 0; r < rows; ++r) {
        const int64_t at = index.data()[r];
        if (at < 0 || static_cast<size_t>(at) >= count) throw nb::value_error("phase_sums: an index is out of range");
        const Unit &u = unit[at];
        const double times = repeat.data()[r];
        sum.seconds += times * u.seconds;
        sum.joules += times * u.joules;
        sum.bytes += times * u.bytes;
        if (times > 0.0 && u.seconds > 0.0) watts = std::max(watts, u.joules / u.seconds);
    }
    return nb::make_tuple(sum.seconds, sum.joules, sum.bytes, watts);
}

}  // namespace

void bind_design(nb::module_ &m) {
    m.def("phase_sums", &phase_sums, nb::arg("results"), nb::arg("words"), nb::arg("work"), nb::arg("others"),
          nb::arg("point"), nb::arg("levels"), nb::arg("index"), nb::arg("repeat"),
          "Time [s], energy [J], DRAM bytes and largest power [W] of a phase on one design; see dse_kernels.design.");
}
