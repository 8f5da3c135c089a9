// Pareto filter for minimisation over d objectives, ties kept: a point is dropped only if another is no worse in every
// objective and better in at least one.
//
// Points are visited in lexicographic order, so a point can be dominated only by points before it (or be equal to them);
// the kept list is therefore final as it grows. Two objectives need only the running minimum of the second; more
// objectives compare with the kept list, most recently successful dominator first, since neighbours in the order tend to
// fall to the same point.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <stdexcept>
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

// Indices that survive a linear pass against a few strong points. Most of a large set falls here, before the sort.
// The strong points minimise each objective and the sum of all, scaled to their range; they are points of the set, so
// whatever they strictly dominate is off the front, and they themselves are never dropped by an equal.
std::vector<int64_t> survivors(const double *points, size_t n, size_t d) {
    std::vector<int64_t> alive(n);
    std::iota(alive.begin(), alive.end(), 0);
    if (n < 64) return alive;
    std::vector<double> low(d), scale(d);
    for (size_t j = 0; j < d; ++j) {
        double lo = points[j], hi = points[j];
        for (size_t i = 1; i < n; ++i) {
            const double v = points[i * d + j];
            if (v < lo) lo = v;
            if (v > hi) hi = v;
        }
        low[j] = lo;
        scale[j] = hi > lo ? 1.0 / (hi - lo) : 0.0;
    }
    for (size_t w = 0; w <= d; ++w) {
        int64_t best = alive[0];
        double least = 0.0;
        for (size_t a = 0; a < alive.size(); ++a) {
            const double *p = points + alive[a] * d;
            double sum = 0.0;
            for (size_t j = 0; j < d; ++j) sum += (j == w ? 10.0 : 1.0) * scale[j] * (p[j] - low[j]);
            if (a == 0 || sum < least) {
                least = sum;
                best = alive[a];
            }
        }
        const double *strong = points + best * d;
        alive.erase(std::remove_if(alive.begin(), alive.end(),
                                   [&](int64_t i) {
                                       const double *p = points + i * d;
                                       return dominates_or_equals(strong, p, d) && !equals(strong, p, d);
                                   }),
                    alive.end());
    }
    return alive;
}

void front_mask(const double *points, size_t n, size_t d, bool *keep) {
    std::vector<int64_t> order = survivors(points, n, d);
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

using Columns = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Alive = nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

// Whether a is nowhere above column i of the points, and below it by more than the margin somewhere.
bool beats(const double *a, const double *columns, size_t n, size_t d, size_t i, double margin) {
    bool clearly = false;
    for (size_t j = 0; j < d; ++j) {
        const double p = columns[j * n + i], gap = p - a[j];
        if (!(gap >= 0.0)) return false;
        clearly |= gap > margin * std::max(std::fabs(p), std::fabs(a[j]));
    }
    return clearly;
}

// The last winner is tried first: neighbours tend to fall to the same point.
std::vector<int64_t> unbeaten(const double *columns, const bool *alive, size_t n, size_t d, const double *archive, size_t m,
                              double margin) {
    std::vector<int64_t> found;
    size_t recent = 0;
    for (size_t i = 0; i < n; ++i) {
        if (!alive[i]) continue;
        bool beaten = m > 0 && beats(archive + recent * d, columns, n, d, i, margin);
        for (size_t a = 0; a < m && !beaten; ++a)
            if (beats(archive + a * d, columns, n, d, i, margin)) {
                beaten = true;
                recent = a;
            }
        if (!beaten) found.push_back(static_cast<int64_t>(i));
    }
    return found;
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
    m.def(
        "unbeaten",
        [](Columns columns, Alive alive, Points archive, double margin) {
            const size_t d = columns.shape(0), n = columns.shape(1);
            if (alive.shape(0) != n || archive.shape(1) != d)
                throw std::invalid_argument("columns (d, n), alive (n,) and archive (m, d) do not fit together");
            std::vector<int64_t> found;
            {
                nb::gil_scoped_release release;
                found = unbeaten(columns.data(), alive.data(), n, d, archive.data(), archive.shape(0), margin);
            }
            int64_t *copy = new int64_t[found.size()];
            std::copy(found.begin(), found.end(), copy);
            nb::capsule owner(copy, [](void *p) noexcept { delete[] static_cast<int64_t *>(p); });
            return Indices(copy, {found.size()}, owner);
        },
        nb::arg("columns"), nb::arg("alive"), nb::arg("archive"), nb::arg("margin"),
        "Indices of the points (d, n) that are alive and that no row of the archive (m, d) clearly beats.");
}
