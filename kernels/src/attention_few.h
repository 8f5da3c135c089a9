// Few query heads a KV head: dot products as the keys lie, one load of a key for up to four heads.
#pragma once

#include "attention_block.h"

namespace attention {
namespace {

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

}  // namespace
}  // namespace attention
