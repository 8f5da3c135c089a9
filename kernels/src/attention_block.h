// What all attention kernels over a block of tokens share: the softmax, and what is asked for ahead.
#pragma once

#include "attention.h"
#include "attention_vector.h"

namespace attention {
namespace {

constexpr float kLowest = -3.0e38f;

// Which line of memory is asked for while a vector of the present run is worked on. A processor drops a request when too many are
// under way, so they are spread over the work; and it follows a stream best when they come in the order of memory. Rows that lie
// one behind the other are therefore asked for in that order, kAheadBytes before they are needed, to the first cache; rows apart from each
// other by the place that they have in the next run, to the second cache.
constexpr ptrdiff_t kAheadBytes = 8192;

template <class T>
struct Ahead {
    const T *now, *next;      // the run and the one that follows
    ptrdiff_t stride;         // of rows, in elements
    ptrdiff_t bytes, n_next;  // of the run, where it is one stream (else 0); rows of the next run (0: the run itself, which is there already)
    bool stream() const { return bytes != 0; }
    // Where the stream is asked for while the line at `offset` bytes of the run is read.
    const char *at(ptrdiff_t offset) const {
        const ptrdiff_t to = offset + (bytes < kAheadBytes ? bytes : kAheadBytes);
        return to < bytes || next == now ? reinterpret_cast<const char *>(now) + to : reinterpret_cast<const char *>(next) + (to - bytes);
    }
    const T *row(int t) const { return next + (t < n_next ? t : n_next - 1) * stride; }
};

template <class T>
inline Ahead<T> ahead_of(const T *now, const void *next, ptrdiff_t stride, int n, int n_next, int d) {
    const bool stream = stride == d && (ptrdiff_t)d * (ptrdiff_t)sizeof(T) % 64 == 0;
    return {now, n_next ? static_cast<const T *>(next) : now, stride, stream ? n * stride * (ptrdiff_t)sizeof(T) : 0, n_next ? n_next : n};
}

inline void line_ahead(const void *p) { __builtin_prefetch(p, 0, 2); }
inline void line_soon(const void *p) { __builtin_prefetch(p, 0, 3); }

// Softmax of the scores of G heads of a run, in place: s[g][0..n) becomes 2^(factor s - m). keep: what acc must be multiplied by.
// Lanes from n to the next multiple of W are written, too.
template <int G>
inline void softmax_rows(float *s, int n, float factor, float *m, float *l, float *keep) {
    const V by = all(factor);
    const int whole = (n + W - 1) / W * W;
    float high[G], seen[G];
    for (int g = 0; g < G; ++g) {
        float *row = s + g * kBlock;
        for (int t = n; t < whole; ++t) row[t] = kLowest;
        V top = all(kLowest), sum = all(0.0f);
        for (int t = 0; t < n / W * W; t += W) {
            const V x = load(row + t) * by;
            store(row + t, x);
            top = larger(top, x);
            sum += x;
        }
        high[g] = largest(top);
        seen[g] = total(sum);
        for (int t = n / W * W; t < n; ++t) {
            row[t] *= factor;
            seen[g] += row[t];
            high[g] = row[t] > high[g] ? row[t] : high[g];
        }
        const float before = m[g];
        if (before > high[g]) high[g] = before;
        keep[g] = before == high[g] ? 1.0f : power_of_two(before - high[g]);
        m[g] = high[g];
    }
    for (int g = 0; g < G; ++g) {
        float *row = s + g * kBlock;
        V partial = all(0.0f);
        for (int t = 0; t < whole; t += W) {
            const V p = power_of_two(load(row + t) - all(high[g]));
            store(row + t, p);
            partial += p;
        }
        for (int t = n; t < whole; ++t) row[t] = 0.0f;
        // A score that is not a number is lost in the maximum; the sum of the scores keeps it.
        l[g] = seen[g] != seen[g] ? seen[g] : l[g] * keep[g] + total(partial);
    }
}

}  // namespace
}  // namespace attention
