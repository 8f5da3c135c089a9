// The attention kernels over a float32 or bfloat16 cache, written once over the vectors of attention_vector.h.
#pragma once

#include "attention.h"
#include "attention_vector.h"

namespace attention {
namespace {

constexpr float kLowest = -3.0e38f;

inline void prefetch(const void *p, int rows, ptrdiff_t stride_bytes, int bytes) {
    // To the second cache: the first is too small for a block ahead.
    const char *row = static_cast<const char *>(p);
    for (int i = 0; i < rows; ++i, row += stride_bytes)
        for (int b = 0; b < bytes; b += 64) __builtin_prefetch(row + b, 0, 2);
}

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

// ---- few heads: dot products as the keys lie, one load of a key for up to four heads ----

template <int G, bool Stream, class T>
inline void score_few(const float *q, int d, const T *k, ptrdiff_t stride, int n, const Ahead<T> &ahead, float *s) {
    constexpr int padded = G == 3 ? 4 : G;
    constexpr int tokens = kSums / padded;
    const int whole = d / W * W;
    for (int t = 0; t < n; t += tokens) {
        V acc[kSums];
        const T *rows[tokens], *next[tokens];
        const char *soon = ahead.at(t * stride * (ptrdiff_t)sizeof(T));
        for (int i = 0; i < tokens; ++i) {
            rows[i] = k + (t + i < n ? t + i : n - 1) * stride;
            next[i] = ahead.row(t + i);
        }
        for (int i = 0; i < kSums; ++i) acc[i] = all(0.0f);
        for (int x = 0; x < whole; x += W) {
            V key[tokens];
            for (int i = 0; i < tokens; ++i) {
                key[i] = load(rows[i] + x);
                if (Stream) line_soon(soon + (x * tokens + i * W) * (ptrdiff_t)sizeof(T));
                else line_ahead(next[i] + x);
            }
            for (int g = 0; g < G; ++g) {
                const V query = load(q + g * d + x);
                for (int i = 0; i < tokens; ++i) acc[g * tokens + i] = fma(key[i], query, acc[g * tokens + i]);
            }
        }
        float sums[kSums];
        lane_sums(acc, sums);
        for (int x = whole; x < d; ++x)
            for (int g = 0; g < G; ++g)
                for (int i = 0; i < tokens; ++i) sums[g * tokens + i] += value(rows[i] + x) * q[g * d + x];
        for (int g = 0; g < G; ++g) std::memcpy(s + g * kBlock + t, sums + g * tokens, sizeof(float) * tokens);
    }
}

// acc = keep * acc + p v for U vectors of dims; `soon` walks over the lines of a stream, `next` are the same places of the next run.
template <int G, int U, bool Stream, class T>
inline void add_values_part(const float *s, int s_stride, const T *v, ptrdiff_t stride, int n, const T *next, const char *&soon, const float *keep, float *acc,
                            int d) {
    V sum[G][U];
    for (int g = 0; g < G; ++g)
        for (int u = 0; u < U; ++u) sum[g][u] = load(acc + g * d + u * W) * all(keep[g]);
    for (int t = 0; t < n; ++t, v += stride, next += stride) {
        V row[U];
        for (int u = 0; u < U; ++u) {
            row[u] = load(v + u * W);
            if (Stream) line_soon(soon + u * W * sizeof(T));
            else line_ahead(next + u * W);
        }
        if (Stream) soon += U * W * sizeof(T);
        for (int g = 0; g < G; ++g) {
            const V p = all(s[g * s_stride + t]);
            for (int u = 0; u < U; ++u) sum[g][u] = fma(p, row[u], sum[g][u]);
        }
    }
    for (int g = 0; g < G; ++g)
        for (int u = 0; u < U; ++u) store(acc + g * d + u * W, sum[g][u]);
}

template <int G, class T>
inline void add_values_tail(const float *s, int s_stride, const T *v, ptrdiff_t stride, int n, const float *keep, float *acc, int d, int from) {
    for (int x = from; x < d; ++x)
        for (int g = 0; g < G; ++g) {
            float sum = acc[g * d + x] * keep[g];
            for (int t = 0; t < n; ++t) sum += s[g * s_stride + t] * value(v + t * stride + x);
            acc[g * d + x] = sum;
        }
}

// Tokens of values that are worked on before the accumulators go back to memory: what a stream is ahead.
template <class T>
inline int value_run(const Ahead<T> &ahead, int n, int d) {
    if (!ahead.stream()) return n;
    const int rows = (int)(kAheadBytes / (d * (ptrdiff_t)sizeof(T))) / 2 * 2;
    return rows < 8 ? 8 : rows > n ? n : rows;
}

// acc = keep * acc + p v for G heads; scores of head g at s + g * s_stride.
template <int G, bool Stream, class T>
inline void add_values(const float *s, int s_stride, const T *v, ptrdiff_t stride, int n, const Ahead<T> &ahead, const float *keep, float *acc, int d) {
    constexpr int room = W == 16 ? 16 : 8;  // accumulators that stay in registers
    constexpr int wide = room / (G == 3 ? 4 : G);
    float once[G];
    for (int g = 0; g < G; ++g) once[g] = 1.0f;
    const int run = value_run(ahead, n, d);
    for (int t = 0; t < n; t += run, keep = once) {
        const int tokens = n - t < run ? n - t : run;
        const T *row = v + t * stride, *next = ahead.next + t * stride;
        const char *soon = ahead.at(t * stride * (ptrdiff_t)sizeof(T));
        int x = 0;
        for (; x + wide * W <= d; x += wide * W)
            add_values_part<G, wide, Stream>(s + t, s_stride, row + x, stride, tokens, next + x, soon, keep, acc + x, d);
        for (; x + W <= d; x += W) add_values_part<G, 1, Stream>(s + t, s_stride, row + x, stride, tokens, next + x, soon, keep, acc + x, d);
        if (x < d) add_values_tail<G>(s + t, s_stride, row, stride, tokens, keep, acc, d, x);
    }
}

#if defined(__AVX512BF16__)
inline V dot2(V acc, __m512i a, __m512i b) { return (V)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b); }

// Scores of bfloat16 queries and keys, two products an instruction.
template <int G, bool Stream>
inline void score_few_dot(const uint16_t *q, int d, const uint16_t *k, ptrdiff_t stride, int n, const Ahead<uint16_t> &ahead, float *s) {
    constexpr int padded = G == 3 ? 4 : G;
    constexpr int tokens = kSums / padded;
    for (int t = 0; t < n; t += tokens) {
        V acc[kSums];
        const uint16_t *rows[tokens], *next[tokens];
        const char *soon = ahead.at(t * stride * 2);
        for (int i = 0; i < tokens; ++i) {
            rows[i] = k + (t + i < n ? t + i : n - 1) * stride;
            next[i] = ahead.row(t + i);
        }
        for (int i = 0; i < kSums; ++i) acc[i] = all(0.0f);
        for (int x = 0; x < d; x += 32) {
            const __mmask32 inside = d - x >= 32 ? 0xffffffffu : (1u << (d - x)) - 1;
            __m512i key[tokens];
            for (int i = 0; i < tokens; ++i) {
                key[i] = _mm512_maskz_loadu_epi16(inside, rows[i] + x);
                if (Stream) line_soon(soon + 2 * (x * tokens + i * 32));
                else line_ahead(next[i] + x);
            }
            for (int g = 0; g < G; ++g) {
                const __m512i query = _mm512_maskz_loadu_epi16(inside, q + g * d + x);
                for (int i = 0; i < tokens; ++i) acc[g * tokens + i] = dot2(acc[g * tokens + i], key[i], query);
            }
        }
        float sums[kSums];
        lane_sums(acc, sums);
        for (int g = 0; g < G; ++g) std::memcpy(s + g * kBlock + t, sums + g * tokens, sizeof(float) * tokens);
    }
}

// Probabilities of two neighbouring tokens as one 32-bit pair of bfloat16; s is overwritten by n/2 pairs (n even, padded with 0).
inline void pair_probabilities(float *s, int n) {
    for (int t = 0; t < n; t += 16) {
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(s + t));
        std::memcpy(reinterpret_cast<char *>(s) + t * 2, &half, 32);
    }
}

// Two rows of values of 32 dims as pairs of neighbouring tokens: lanes of dims 0..15 and 16..31.
inline void pair_rows(const uint16_t *a, const uint16_t *b, __mmask32 inside, __m512i *low, __m512i *high) {
    alignas(64) static const uint16_t first[32] = {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39,
                                                   8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i x = _mm512_maskz_loadu_epi16(inside, a), y = _mm512_maskz_loadu_epi16(inside, b);
    const __m512i order = _mm512_load_si512(first);
    *low = _mm512_permutex2var_epi16(x, order, y);
    *high = _mm512_permutex2var_epi16(x, _mm512_add_epi16(order, _mm512_set1_epi16(16)), y);
}

// acc = keep * acc + p v, with bfloat16 probabilities in pairs (see pair_probabilities).
template <int G, bool Stream>
inline void add_values_dot(const float *s, int s_stride, const uint16_t *v, ptrdiff_t stride, int n, const Ahead<uint16_t> &ahead, const float *keep, float *acc,
                           int d) {
    constexpr int U = 4;  // vectors of 16 dims a pass
    float once[G];
    for (int g = 0; g < G; ++g) once[g] = 1.0f;
    const int run = value_run(ahead, n, d);  // even, or all
    for (int begin = 0; begin < n; begin += run, keep = once) {
        const int end = n - begin < run ? n : begin + run;
        const char *soon = ahead.at(begin * stride * 2);
        for (int x = 0; x < d; x += 16 * U) {
            V sum[G][U];
            __mmask16 lanes[U];
            for (int u = 0; u < U; ++u) {
                const int left = d - x - 16 * u;
                lanes[u] = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
                for (int g = 0; g < G; ++g)
                    sum[g][u] = (V)_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes[u], acc + g * d + x + 16 * u), (__m512)all(keep[g]));
            }
            for (int t = begin; t < end; t += 2) {
                const uint16_t *a = v + t * stride + x, *b = t + 1 < n ? a + stride : a;  // the odd last token has probability 0 beside it
                const uint16_t *next = ahead.next + t * stride + x;
                for (int u = 0; u < U; u += 2) {
                    const __mmask32 inside = (__mmask32)lanes[u] | (__mmask32)lanes[u + 1] << 16;
                    __m512i low, high;
                    pair_rows(a + 16 * u, b + 16 * u, inside, &low, &high);
                    if (Stream) {
                        line_soon(soon);
                        line_soon(soon + 64);
                        soon += 128;
                    } else {
                        line_ahead(next + 16 * u);
                        line_ahead(next + stride + 16 * u);
                    }
                    for (int g = 0; g < G; ++g) {
                        int32_t pair;
                        std::memcpy(&pair, reinterpret_cast<const char *>(s + g * s_stride) + t * 2, 4);
                        const __m512i p = _mm512_set1_epi32(pair);
                        sum[g][u] = dot2(sum[g][u], low, p);
                        sum[g][u + 1] = dot2(sum[g][u + 1], high, p);
                    }
                }
            }
            for (int g = 0; g < G; ++g)
                for (int u = 0; u < U; ++u) _mm512_mask_storeu_ps(acc + g * d + x + 16 * u, lanes[u], (__m512)sum[g][u]);
        }
    }
}
#endif

template <int G, bool Stream>
inline void few(const Heads &h, int first, const float *k, const Ahead<float> &k_ahead, const float *v, const Ahead<float> &v_ahead, int n, float *s) {
    float keep[G];
    score_few<G, Stream>(h.q + first * h.d, h.d, k, k_ahead.stride, n, k_ahead, s);
    softmax_rows<G>(s, n, h.factor, h.m + first, h.l + first, keep);
    add_values<G, Stream>(s, kBlock, v, v_ahead.stride, n, v_ahead, keep, h.acc + first * h.d, h.d);
}

template <int G, bool Stream>
inline void few(const Heads &h, int first, const uint16_t *k, const Ahead<uint16_t> &k_ahead, const uint16_t *v, const Ahead<uint16_t> &v_ahead, int n,
                float *s) {
    float keep[G];
#if defined(__AVX512BF16__)
    score_few_dot<G, Stream>(h.q16 + first * h.d, h.d, k, k_ahead.stride, n, k_ahead, s);
    softmax_rows<G>(s, n, h.factor, h.m + first, h.l + first, keep);
    for (int g = 0; g < G; ++g) pair_probabilities(s + g * kBlock, (n + 15) / 16 * 16);
    add_values_dot<G, Stream>(s, kBlock, v, v_ahead.stride, n, v_ahead, keep, h.acc + first * h.d, h.d);
#else
    score_few<G, Stream>(h.q + first * h.d, h.d, k, k_ahead.stride, n, k_ahead, s);
    softmax_rows<G>(s, n, h.factor, h.m + first, h.l + first, keep);
    add_values<G, Stream>(s, kBlock, v, v_ahead.stride, n, v_ahead, keep, h.acc + first * h.d, h.d);
#endif
}

// ---- many heads: keys of the run packed by dim, a tile of heads a pass ----

constexpr int kTile = W == 4 ? 4 : 6;             // heads
constexpr int kVectors = W == 16 ? 4 : 2;         // vectors of tokens (scores) or dims (values)

// s[h][t] += q[h] . k[t] for a tile of H heads and kVectors * W tokens; panel[x * kBlock + t] = k[t][x].
template <int H>
inline void score_tile(const float *q, int d, const float *panel, float *s) {
    V acc[H][kVectors];
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) acc[h][u] = all(0.0f);
    for (int x = 0; x < d; ++x) {
        V key[kVectors];
        for (int u = 0; u < kVectors; ++u) key[u] = load(panel + x * kBlock + u * W);
        for (int h = 0; h < H; ++h) {
            const V query = all(q[h * d + x]);
            for (int u = 0; u < kVectors; ++u) acc[h][u] = fma(query, key[u], acc[h][u]);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) store(s + h * kBlock + u * W, acc[h][u]);
}

template <int H>
inline void value_tile(const float *s, const float *v, ptrdiff_t stride, int n, const float *keep, float *acc, int d) {
    const char *none = nullptr;
    int x = 0;
    for (; x + kVectors * W <= d; x += kVectors * W) add_values_part<H, kVectors, false>(s, kBlock, v + x, stride, n, v + x, none, keep, acc + x, d);
    for (; x + W <= d; x += W) add_values_part<H, 1, false>(s, kBlock, v + x, stride, n, v + x, none, keep, acc + x, d);
    if (x < d) add_values_tail<H>(s, kBlock, v, stride, n, keep, acc, d, x);
}

inline void widen(const uint16_t *in, ptrdiff_t stride, int n, int d, float *out) {
    for (int t = 0; t < n; ++t)
        for (int x = 0; x < d; ++x) out[t * d + x] = value(in + t * stride + x);
}

template <class F>
inline void tiles(int count, F &&each) {
    int h = 0;
    for (; h + kTile <= count; h += kTile) each(h, kTile);
    for (; h < count; ++h) each(h, 1);
}

inline void many_float(const Heads &h, const float *k, ptrdiff_t k_stride, const float *v, ptrdiff_t v_stride, int n, float *s, float *panel) {
    int t = 0;
    for (; t + 16 <= n; t += 16)
        transpose(reinterpret_cast<const uint32_t *>(k) + t * k_stride, k_stride, 16, h.d, reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    if (t < n) transpose(reinterpret_cast<const uint32_t *>(k) + t * k_stride, k_stride, n - t, h.d, reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    float *keep = s + (size_t)h.count * kBlock;
    constexpr int wide = kVectors * W;
    for (t = 0; t < n; t += wide)
        tiles(h.count, [&](int first, int size) {
            if (size == kTile) score_tile<kTile>(h.q + first * h.d, h.d, panel + t, s + first * kBlock + t);
            else score_tile<1>(h.q + first * h.d, h.d, panel + t, s + first * kBlock + t);
        });
    for (int g = 0; g < h.count; ++g) softmax_rows<1>(s + g * kBlock, n, h.factor, h.m + g, h.l + g, keep + g);
    tiles(h.count, [&](int first, int size) {
        if (size == kTile) value_tile<kTile>(s + first * kBlock, v, v_stride, n, keep + first, h.acc + first * h.d, h.d);
        else value_tile<1>(s + first * kBlock, v, v_stride, n, keep + first, h.acc + first * h.d, h.d);
    });
}

inline void many(const Heads &h, const Run &run, float *s, float *panel, const float *) {
    const float *k = static_cast<const float *>(run.k), *v = static_cast<const float *>(run.v);
    many_float(h, k, run.k_stride, v, run.v_stride, run.n, s, panel);
}

#if defined(__AVX512BF16__)
template <int H>
inline void score_tile_dot(const uint16_t *q, int d, const float *panel, float *s) {
    V acc[H][kVectors];
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) acc[h][u] = all(0.0f);
    for (int x = 0; x < d; x += 2) {
        __m512i key[kVectors];
        for (int u = 0; u < kVectors; ++u) key[u] = _mm512_loadu_si512(panel + x / 2 * kBlock + u * W);
        for (int h = 0; h < H; ++h) {
            int32_t pair;
            std::memcpy(&pair, q + h * d + x, 4);
            const __m512i query = _mm512_set1_epi32(pair);
            for (int u = 0; u < kVectors; ++u) acc[h][u] = dot2(acc[h][u], key[u], query);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) store(s + h * kBlock + u * W, acc[h][u]);
}

// acc = keep * acc + p v; v as pairs of neighbouring tokens: values[(t/2) * d + x] is the pair of dim x.
template <int H>
inline void value_tile_dot(const float *s, const float *values, int n, const float *keep, float *acc, int d) {
    for (int x = 0; x < d; x += kVectors * W) {
        V sum[H][kVectors];
        __mmask16 lanes[kVectors];
        for (int u = 0; u < kVectors; ++u) {
            const int left = d - x - 16 * u;
            lanes[u] = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
            for (int h = 0; h < H; ++h)
                sum[h][u] = (V)_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes[u], acc + h * d + x + 16 * u), (__m512)all(keep[h]));
        }
        for (int t = 0; t < n; t += 2) {
            __m512i row[kVectors];
            for (int u = 0; u < kVectors; ++u) row[u] = _mm512_maskz_loadu_epi32(lanes[u], values + (ptrdiff_t)t / 2 * d + x + 16 * u);
            for (int h = 0; h < H; ++h) {
                int32_t pair;
                std::memcpy(&pair, reinterpret_cast<const char *>(s + h * kBlock) + t * 2, 4);
                const __m512i p = _mm512_set1_epi32(pair);
                for (int u = 0; u < kVectors; ++u) sum[h][u] = dot2(sum[h][u], row[u], p);
            }
        }
        for (int h = 0; h < H; ++h)
            for (int u = 0; u < kVectors; ++u) _mm512_mask_storeu_ps(acc + h * d + x + 16 * u, lanes[u], (__m512)sum[h][u]);
    }
}

inline void many_dot(const Heads &h, const uint16_t *k, ptrdiff_t k_stride, const uint16_t *v, ptrdiff_t v_stride, int n, float *s, float *panel) {
    // Pairs of dims of a key are 32-bit elements; rows of keys are at even offsets (the driver sees to it).
    const uint32_t *pairs = reinterpret_cast<const uint32_t *>(k);
    for (int t = 0; t < n; t += 16)
        transpose(pairs + t * (k_stride / 2), k_stride / 2, n - t < 16 ? n - t : 16, h.d / 2, reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    float *keep = s + (size_t)h.count * kBlock;
    tiles(h.count, [&](int first, int size) {
        if (size == kTile) score_tile_dot<kTile>(h.q16 + first * h.d, h.d, panel, s + first * kBlock);
        else score_tile_dot<1>(h.q16 + first * h.d, h.d, panel, s + first * kBlock);
    });
    for (int g = 0; g < h.count; ++g) {
        softmax_rows<1>(s + g * kBlock, n, h.factor, h.m + g, h.l + g, keep + g);
        pair_probabilities(s + g * kBlock, (n + 15) / 16 * 16);
    }
    float *values = panel;  // the keys are no longer needed
    for (int t = 0; t < n; t += 2)
        for (int x = 0; x < h.d; x += 32) {
            const int left = h.d - x;
            const __mmask32 inside = left >= 32 ? 0xffffffffu : (1u << left) - 1;
            const uint16_t *a = v + t * v_stride + x, *b = t + 1 < n ? a + v_stride : a;
            __m512i low, high;
            pair_rows(a, b, inside, &low, &high);
            float *to = values + (ptrdiff_t)t / 2 * h.d + x;
            _mm512_mask_storeu_epi32(to, (__mmask16)inside, low);
            _mm512_mask_storeu_epi32(to + 16, (__mmask16)(inside >> 16), high);
        }
    tiles(h.count, [&](int first, int size) {
        if (size == kTile) value_tile_dot<kTile>(s + first * kBlock, values, n, keep + first, h.acc + first * h.d, h.d);
        else value_tile_dot<1>(s + first * kBlock, values, n, keep + first, h.acc + first * h.d, h.d);
    });
}
#endif

inline void many(const Heads &h, const Run &run, float *s, float *panel, const uint16_t *) {
    const uint16_t *k = static_cast<const uint16_t *>(run.k), *v = static_cast<const uint16_t *>(run.v);
#if defined(__AVX512BF16__)
    if (h.d % 2 == 0 && run.k_stride % 2 == 0 && reinterpret_cast<uintptr_t>(k) % 4 == 0)
        return many_dot(h, k, run.k_stride, v, run.v_stride, run.n, s, panel);
#endif
    float *values = panel + kBlock * (h.d + 16);
    widen(k, run.k_stride, run.n, h.d, values);
    // Keys pass through the room of the values, which are widened after the scores would need them: two rooms keep it simple.
    int t = 0;
    for (; t < run.n; t += 16)
        transpose(reinterpret_cast<const uint32_t *>(values) + t * h.d, h.d, run.n - t < 16 ? run.n - t : 16, h.d, reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    float *keep = s + (size_t)h.count * kBlock;
    constexpr int wide = kVectors * W;
    for (t = 0; t < run.n; t += wide)
        tiles(h.count, [&](int first, int size) {
            if (size == kTile) score_tile<kTile>(h.q + first * h.d, h.d, panel + t, s + first * kBlock + t);
            else score_tile<1>(h.q + first * h.d, h.d, panel + t, s + first * kBlock + t);
        });
    widen(v, run.v_stride, run.n, h.d, values);
    for (int g = 0; g < h.count; ++g) softmax_rows<1>(s + g * kBlock, run.n, h.factor, h.m + g, h.l + g, keep + g);
    tiles(h.count, [&](int first, int size) {
        if (size == kTile) value_tile<kTile>(s + first * kBlock, values, h.d, run.n, keep + first, h.acc + first * h.d, h.d);
        else value_tile<1>(s + first * kBlock, values, h.d, run.n, keep + first, h.acc + first * h.d, h.d);
    });
}

template <bool Stream, class T>
inline void few_heads(const Heads &h, const T *k, Ahead<T> k_ahead, const T *v, Ahead<T> v_ahead, int n, float *scratch) {
    int g = 0;
    for (; g + 4 <= h.count; g += 4) {
        few<4, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        k_ahead.next = k, v_ahead.next = v;  // what comes ahead is asked for once, with the first heads; the others ask for what is there already
        k_ahead.n_next = v_ahead.n_next = n;
    }
    switch (h.count - g) {
        case 3: return few<3, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        case 2: return few<2, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        case 1: return few<1, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        default: return;
    }
}

template <class T>
void run_block(const Heads &h, const Run &run, float *scratch) {
    const T *tag = nullptr;
    if (h.count >= kManyHeads) {
        if (run.n_ahead) {
            prefetch(run.k_ahead, run.n_ahead, run.k_stride * (ptrdiff_t)sizeof(T), h.d * (int)sizeof(T));
            prefetch(run.v_ahead, run.n_ahead, run.v_stride * (ptrdiff_t)sizeof(T), h.d * (int)sizeof(T));
        }
        float *panel = scratch + (size_t)(h.count + 8) * (kBlock + 2);
        panel += (64 - reinterpret_cast<uintptr_t>(panel) % 64) % 64 / 4;
        return many(h, run, scratch, panel, tag);
    }
    const T *k = static_cast<const T *>(run.k), *v = static_cast<const T *>(run.v);
    const Ahead<T> k_ahead = ahead_of(k, run.k_ahead, run.k_stride, run.n, run.n_ahead, h.d);
    const Ahead<T> v_ahead = ahead_of(v, run.v_ahead, run.v_stride, run.n, run.n_ahead, h.d);
    if (k_ahead.stream() && v_ahead.stream()) few_heads<true>(h, k, k_ahead, v, v_ahead, run.n, scratch);
    else few_heads<false>(h, k, k_ahead, v, v_ahead, run.n, scratch);
}

}  // namespace
}  // namespace attention
