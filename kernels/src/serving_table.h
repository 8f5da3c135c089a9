// Step times and energies of one engine: three tables, linear between their points.
//
// A step costs linear(tokens of the step) + decode(sequences that decode, mean keys) + sum of prefill(take, done) over the
// chunks of prompts in it. Beyond its last point a table goes on with the slope of its last cell; every first point is 0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace serving {

struct Cost {
    double seconds = 0.0, joules = 0.0;
    Cost operator+(const Cost &o) const { return {seconds + o.seconds, joules + o.joules}; }
    Cost operator*(double f) const { return {seconds * f, joules * f}; }
};

// Cell i of increasing knots and the place u inside it, so that value = v[i] + u (v[i + 1] - v[i]).
struct Place {
    size_t cell;
    double part;
};

inline Place place(const std::vector<double> &knots, double x) {
    size_t i = std::upper_bound(knots.begin(), knots.end(), x) - knots.begin();
    i = std::min(std::max<size_t>(i, 1), knots.size() - 1) - 1;
    return {i, (x - knots[i]) / (knots[i + 1] - knots[i])};
}

struct Curve {  // one axis
    std::vector<double> knots, seconds, joules;
    Cost at(double x) const {
        const Place p = place(knots, x);
        return {seconds[p.cell] + p.part * (seconds[p.cell + 1] - seconds[p.cell]),
                joules[p.cell] + p.part * (joules[p.cell + 1] - joules[p.cell])};
    }
};

struct Surface {  // rows x columns, values row by row
    std::vector<double> rows, columns, seconds, joules;

    Cost knot(Place row, size_t column) const {
        const size_t w = columns.size(), a = row.cell * w + column, b = a + w;
        return {seconds[a] + row.part * (seconds[b] - seconds[a]), joules[a] + row.part * (joules[b] - joules[a])};
    }
    Cost at(double row, double column) const {
        const Place r = place(rows, row), c = place(columns, column);
        const Cost low = knot(r, c.cell), high = knot(r, c.cell + 1);
        return low + (high + low * -1.0) * c.part;
    }
    // Sum of at(row, column + grow j) for j = 0 .. count - 1: an arithmetic series in every cell that is crossed.
    Cost sum(double row, double column, double grow, int64_t count) const {
        const Place r = place(rows, row);
        Cost total;
        int64_t j = 0;
        while (j < count) {
            const double x = column + grow * static_cast<double>(j);
            const Place c = place(columns, x);
            int64_t here = count - j;
            if (grow > 0 && c.cell + 2 < columns.size()) {
                const double room = (columns[c.cell + 1] - x) / grow;
                if (room < static_cast<double>(here)) here = std::min(here, static_cast<int64_t>(room) + 1);
            }
            const Cost low = knot(r, c.cell), high = knot(r, c.cell + 1);
            const Cost slope = (high + low * -1.0) * (1.0 / (columns[c.cell + 1] - columns[c.cell]));
            const Cost first = low + slope * (x - columns[c.cell]);
            const double n = static_cast<double>(here);
            total = total + first * n + slope * (grow * n * (n - 1) / 2);
            j += here;
        }
        return total;
    }
};

struct StepTable {
    Curve linear;
    Surface decode, prefill;
};

}  // namespace serving
