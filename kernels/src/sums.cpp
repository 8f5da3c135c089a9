// Cost of every model of a block on every hardware point: the sparse product of repeat counts and unit costs.
//
// Model i runs shape index[i][r] weight[i][r] times; its cost on point h is the sum over r in row order. The order of
// summation is fixed by the model alone, so a result does not depend on the block it was computed in or on the threads.
#include <cstdint>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace {

using Index = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::numpy, double, nb::ndim<2>>;

void weighted_sums(const int64_t *index, const double *weight, size_t models, size_t rows, const double *unit,
                   size_t points, double *out) {
    for (size_t i = 0; i < models; ++i) {
        double *target = out + i * points;
        for (size_t h = 0; h < points; ++h) target[h] = 0.0;
        for (size_t r = 0; r < rows; ++r) {
            const double *cost = unit + index[i * rows + r] * points;
            const double times = weight[i * rows + r];
            for (size_t h = 0; h < points; ++h) target[h] += times * cost[h];
        }
    }
}

}  // namespace

void bind_sums(nb::module_ &m) {
    m.def(
        "weighted_sums",
        [](Index index, Matrix weight, Matrix unit) {
            const size_t models = index.shape(0), rows = index.shape(1), points = unit.shape(1);
            double *out = new double[models * points];
            nb::capsule owner(out, [](void *p) noexcept { delete[] static_cast<double *>(p); });
            {
                nb::gil_scoped_release release;
                weighted_sums(index.data(), weight.data(), models, rows, unit.data(), points, out);
            }
            return Result(out, {models, points}, owner);
        },
        nb::arg("index"), nb::arg("weight"), nb::arg("unit"),
        "Sums over rows r of weight[i, r] * unit[index[i, r], h], shape (models, points).");
}
