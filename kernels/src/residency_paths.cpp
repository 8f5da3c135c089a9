#include "residency_paths.h"

#include <algorithm>

// Wide vectors where the machine has them; the arithmetic, and so the result, is the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

namespace residency {

namespace {

typedef double Vector __attribute__((vector_size(kWide * sizeof(double))));
typedef int64_t Mask __attribute__((vector_size(kWide * sizeof(int64_t))));

#define LOAD(array) (*reinterpret_cast<const Vector *>((array) + at))
#define STORE(array) (*reinterpret_cast<Vector *>((array) + at))
#define RELAX(to, a, b, code)                                                                                  \
    for (int at = 0; at < width; at += kWide) {                                                                \
        const Vector first = LOAD((a).first) + LOAD((b).first), second = LOAD((a).second) + LOAD((b).second);  \
        const Vector old_first = LOAD((to).first), old_second = LOAD((to).second);                             \
        const Mask better = (first < old_first) | ((first == old_first) & (second < old_second));              \
        STORE((to).first) = better ? first : old_first;                                                        \
        STORE((to).second) = better ? second : old_second;                                                     \
        Mask &choice = *reinterpret_cast<Mask *>((to).choice + at);                                            \
        choice = better ? (Mask{} + (code)) : choice;                                                          \
    }

}  // namespace

void clear(Cell &cell, double value, int width) {
    std::fill_n(cell.first, width, value);
    std::fill_n(cell.second, width, value);
    std::fill_n(cell.choice, width, -1);
}

CLONES void relax(Cell &to, const Cell &a, const Cell &b, int64_t code, int width) { RELAX(to, a, b, code) }

CLONES void relax_layer(const Edge *edges, size_t count, const Cell *now, const Cost *costs, Cell *next, int width) {
    for (size_t e = 0; e < count; ++e) {
        const Edge &edge = edges[e];
        RELAX(next[edge.to], now[edge.from], costs[edge.variant], static_cast<int64_t>(e))
    }
}

}  // namespace residency
