// Least sums of pairs (first, second) over strips of hardware points: the arithmetic of shortest paths.
#pragma once

#include <cstdint>

#include "residency_problem.h"

namespace residency {

constexpr int kStrip = 16;  // points that are handled together
constexpr int kWide = 4;    // and their number in one vector

// Places of a strip that `count` points take: whole vectors.
inline int width_of(int count) { return (count + kWide - 1) / kWide * kWide; }

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

// All of these look at the first `width` places, and at no others.
void clear(Cell &cell, double value, int width);
// to = the lesser of itself and a + b, in the order of pairs; of equals it stays. `code` says where the new one came from.
void relax(Cell &to, const Cell &a, const Cell &b, int64_t code, int width);
// One layer of a graph; the choice is the number of the edge.
void relax_layer(const Edge *edges, size_t count, const Cell *now, const Cost *costs, Cell *next, int width);

}  // namespace residency
