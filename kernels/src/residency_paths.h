// Least sums of pairs (first, second) over strips of hardware points: the arithmetic of shortest paths.
#pragma once

#include <cstdint>

#include "residency_problem.h"

namespace residency {

constexpr int kStrip = 16;  // points that are handled together

// A sum of each point of a strip, and which way was chosen to it.
struct alignas(32) Cell {
    double first[kStrip], second[kStrip];
    int64_t choice[kStrip];
    Cell() {}  // filled where it is used
};

// What a variant adds.
struct alignas(32) Cost {
    double first[kStrip], second[kStrip];
    Cost() {}
};

void clear(Cell &cell, double value);
// to = the lesser of itself and a + b, in the order of pairs; of equals it stays. `code` says where the new one came from.
void relax(Cell &to, const Cell &a, const Cell &b, int64_t code);
// One layer of a graph; the choice is the number of the edge.
void relax_layer(const Edge *edges, size_t count, const Cell *now, const Cost *costs, Cell *next);

}  // namespace residency
