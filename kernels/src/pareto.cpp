// Pareto filter for minimisation over d objectives, ties kept: a point is dropped only if another is no worse in every
// objective and better in at least one.
//
// Points are visited in lexicographic order, so a point can be dominated only by points before it (or be equal to them);
// the kept list is therefore final as it grows. Two objectives need only the running minimum of the second; more
// objectives compare with the kept list, most recently successful dominator first, since neighbours in the order tend to
// fall to the same point.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace {

using Points = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<nb::numpy, bool, nb::ndim<1>>;

bool dominates_or_equals(const double *a, const double *b, size_t d) {
    for (size_t j = 0; j < d; ++j)
        if (a[j] > b[j]) return false;
    return true;
}

bool equals(const double *a, const double *b, size_t d) { return std::equal(a, a + d, b); }

void front_mask(const double *points, size_t n, size_t d, bool *keep) {
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t x, int64_t y) {
        const double *a = points + x * d, *b = points + y * d;
        for (size_t j = 0; j < d; ++j)
            if (a[j] != b[j]) return a[j] < b[j];
        return x < y;
    });

    std::vector<const double *> kept;  // distinct vectors on the front so far
    size_t recent = 0;
    for (int64_t index : order) {
        const double *p = points + index * d;
        bool dominated = false;
        if (!kept.empty() && equals(kept.back(), p, d)) {
            keep[index] = true;  // a tie of a point on the front
            continue;
        }
        if (d <= 2) {
            // Lexicographic order: the last kept point has the least second objective of all so far.
            dominated = !kept.empty() && dominates_or_equals(kept.back(), p, d);
        } else if (!kept.empty()) {
            dominated = dominates_or_equals(kept[recent], p, d);
            for (size_t i = kept.size(); !dominated && i-- > 0;)
                if (dominates_or_equals(kept[i], p, d)) {
                    dominated = true;
                    recent = i;
                }
        }
        keep[index] = !dominated;
        if (!dominated) kept.push_back(p);
    }
}

}  // namespace

void bind_pareto(nb::module_ &m) {
    m.def(
        "pareto_mask",
        [](Points points) {
            const size_t n = points.shape(0), d = points.shape(1);
            bool *keep = new bool[n]();
            nb::capsule owner(keep, [](void *p) noexcept { delete[] static_cast<bool *>(p); });
            {
                nb::gil_scoped_release release;
                front_mask(points.data(), n, d, keep);
            }
            return Mask(keep, {n}, owner);
        },
        nb::arg("points"), "Mask of the non-dominated rows of a C-contiguous float64 array (n, d), all minimised.");
}
