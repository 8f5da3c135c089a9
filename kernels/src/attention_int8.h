// The attention kernel over the quantised cache: products of bytes in whole numbers, so that every instruction set agrees in them.
//
// q is a 16-bit integer in two signed bytes, a probability (times the value's scale) a 14-bit integer in two; the cache holds
// value + 128 as unsigned bytes, as the byte products of the hardware want them, and the 128 is taken off by the sum of the other side.
// Largest sums, d <= 256: 255 * 127 * 256 * 128 + 255 * 64 * 256 < 2^31.
#pragma once

#include "attention_kernels.h"

namespace attention {
namespace {

constexpr int kFine = 16383;  // steps of a probability within a block

#if !defined(__AVX512VNNI__)
inline int32_t dot4(const uint8_t *a, const int8_t *b) {
    return (int32_t)a[0] * b[0] + (int32_t)a[1] * b[1] + (int32_t)a[2] * b[2] + (int32_t)a[3] * b[3];
}
#endif

#if defined(__AVX512VNNI__)
// acc += products of unsigned bytes a and signed bytes b. As an instruction by name: from the intrinsic GCC 12 makes two copies of
// every accumulator in every step, which takes as long as the products.
inline void dot_bytes(__m512i &acc, __m512i a, __m512i b) { asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b)); }
#endif

// Scores of G heads and `blocks` blocks of 16 tokens, still without the scales of the tokens.
template <int G>
inline void score_bytes(const QuantHeads &h, int first, const uint8_t *k, int blocks, const Ahead<uint8_t> &ahead, float *s) {
    const int groups = h.d / 4;
#if defined(__AVX512VNNI__)
    for (int b = 0; b < blocks; b += 2) {
        const bool pair = b + 1 < blocks;
        const uint8_t *left = k + (ptrdiff_t)b * groups * 64, *right = pair ? left + (ptrdiff_t)groups * 64 : left;
        const char *soon = ahead.at(left - k);
        __m512i high[G][2], low[G][2];
        for (int g = 0; g < G; ++g)
            for (int u = 0; u < 2; ++u) high[g][u] = low[g][u] = _mm512_setzero_si512();
        for (int x = 0; x < groups; ++x) {
            const __m512i key[2] = {_mm512_loadu_si512(left + x * 64), _mm512_loadu_si512(right + x * 64)};
            line_soon(soon + x * 128);
            line_soon(soon + x * 128 + 64);
            for (int g = 0; g < G; ++g) {
                int32_t a, c;
                std::memcpy(&a, h.high + (first + g) * h.d + x * 4, 4);
                std::memcpy(&c, h.low + (first + g) * h.d + x * 4, 4);
                const __m512i qa = _mm512_set1_epi32(a), qc = _mm512_set1_epi32(c);
                for (int u = 0; u < 2; ++u) {
                    dot_bytes(high[g][u], key[u], qa);
                    dot_bytes(low[g][u], key[u], qc);
                }
            }
        }
        for (int g = 0; g < G; ++g)
            for (int u = 0; u < 2; ++u) {  // not `pair ? 2 : 1`: an index that varies would keep the accumulators out of the registers
                const __m512i whole = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(high[g][u], 7), low[g][u]),
                                                       _mm512_set1_epi32(128 * h.sum[first + g]));
                if (u == 0 || pair) _mm512_storeu_ps(s + g * kBlock + (b + u) * 16, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(h.step[first + g])));
            }
    }
#else
    (void)ahead;
    for (int b = 0; b < blocks; ++b)
        for (int g = 0; g < G; ++g) {
            int32_t high[16] = {}, low[16] = {};
            for (int x = 0; x < groups; ++x) {
                const uint8_t *key = k + ((ptrdiff_t)b * groups + x) * 64;
                const int8_t *a = h.high + (first + g) * h.d + x * 4, *c = h.low + (first + g) * h.d + x * 4;
                for (int t = 0; t < 16; ++t) {
                    high[t] += dot4(key + t * 4, a);
                    low[t] += dot4(key + t * 4, c);
                }
            }
            for (int t = 0; t < 16; ++t)
                s[g * kBlock + b * 16 + t] = (float)(high[t] * 128 + low[t] - 128 * h.sum[first + g]) * h.step[first + g];
        }
#endif
}

// Probabilities times the scales of the values as integers of 14 bits: high and low bytes, the step and the sum.
inline void quantise_row(const float *s, const float *scale, int n, int whole, int8_t *high, int8_t *low, float *step, int32_t *sum) {
    V tops = all(0.0f);
    for (int t = 0; t < n / W * W; t += W) tops = larger(tops, load(s + t) * load(scale + t));
    float top = largest(tops);
    for (int t = n / W * W; t < n; ++t) top = s[t] * scale[t] > top ? s[t] * scale[t] : top;
    const float by = top > 0.0f ? kFine / top : 0.0f;
    *step = top / kFine;
    int32_t all_of = 0;
#if defined(__AVX512F__)
    // The same as below on 16 tokens at once; bytes from n to the next multiple of 16 become 0.
    __m512i both = _mm512_setzero_si512();
    for (int t = 0; t < whole; t += 16) {
        const int left = n - t;
        const __mmask16 inside = left >= 16 ? (__mmask16)0xffff : left <= 0 ? (__mmask16)0 : (__mmask16)((1u << left) - 1);
        const __m512 p = _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(inside, s + t), _mm512_maskz_loadu_ps(inside, scale + t)), _mm512_set1_ps(by));
        const __m512i x = _mm512_cvttps_epi32(_mm512_add_ps(p, _mm512_set1_ps(0.5f)));
        const __m512i clipped = _mm512_maskz_min_epi32(inside, x, _mm512_set1_epi32(kFine));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(high + t), _mm512_cvtepi32_epi8(_mm512_srli_epi32(clipped, 7)));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(low + t), _mm512_cvtepi32_epi8(_mm512_and_si512(clipped, _mm512_set1_epi32(127))));
        both = _mm512_add_epi32(both, clipped);
    }
    all_of = _mm512_reduce_add_epi32(both);
#else
    // s is 0 from n to the next multiple of W only, and the scales behind the last token are whatever an earlier one left: neither is read.
    for (int t = n; t < whole; ++t) high[t] = low[t] = 0;
    for (int t = 0; t < n; ++t) {
        const int32_t x = (int32_t)(s[t] * scale[t] * by + 0.5f);
        const int32_t clipped = x > kFine ? kFine : x;
        high[t] = (int8_t)(clipped >> 7);
        low[t] = (int8_t)(clipped & 127);
        all_of += clipped;
    }
#endif
    *sum = all_of;
}

template <int G>
inline void add_bytes(const uint8_t *v, int groups, int d, const Ahead<uint8_t> &ahead, const int8_t *high, const int8_t *low, const float *step, const int32_t *sum,
                      const float *keep, float *acc) {
#if defined(__AVX512VNNI__)
    const char *soon = ahead.at(0);
    for (int x = 0; x < d; x += 32) {
        const int left = d - x;
        const __mmask16 lanes[2] = {left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1),
                                    left >= 32 ? (__mmask16)0xffff : left <= 16 ? (__mmask16)0 : (__mmask16)((1u << (left - 16)) - 1)};
        __m512i a[G][2], c[G][2];
        for (int g = 0; g < G; ++g)
            for (int u = 0; u < 2; ++u) a[g][u] = c[g][u] = _mm512_setzero_si512();
        for (int t = 0; t < groups; ++t) {
            const uint8_t *row = v + ((ptrdiff_t)t * d + x) * 4;
            const __m512i value[2] = {_mm512_maskz_loadu_epi32(lanes[0], row), _mm512_maskz_loadu_epi32(lanes[1], row + 64)};
            line_soon(soon);
            line_soon(soon + 64);
            soon += 128;
            for (int g = 0; g < G; ++g) {
                int32_t p, r;
                std::memcpy(&p, high + g * kBlock + t * 4, 4);
                std::memcpy(&r, low + g * kBlock + t * 4, 4);
                const __m512i ph = _mm512_set1_epi32(p), pl = _mm512_set1_epi32(r);
                for (int u = 0; u < 2; ++u) {
                    dot_bytes(a[g][u], value[u], ph);
                    dot_bytes(c[g][u], value[u], pl);
                }
            }
        }
        for (int g = 0; g < G; ++g)
            for (int u = 0; u < 2; ++u) {
                const __m512i whole = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(a[g][u], 7), c[g][u]), _mm512_set1_epi32(128 * sum[g]));
                const __m512 add = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(step[g]));
                float *to = acc + g * d + x + 16 * u;
                const __m512 before = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes[u], to), _mm512_set1_ps(keep[g]));
                _mm512_mask_storeu_ps(to, lanes[u], _mm512_add_ps(before, add));
            }
    }
#else
    (void)ahead;
    for (int g = 0; g < G; ++g)
        for (int x = 0; x < d; ++x) {
            int32_t a = 0, c = 0;
            for (int t = 0; t < groups; ++t) {
                a += dot4(v + ((ptrdiff_t)t * d + x) * 4, high + g * kBlock + t * 4);
                c += dot4(v + ((ptrdiff_t)t * d + x) * 4, low + g * kBlock + t * 4);
            }
            acc[g * d + x] = acc[g * d + x] * keep[g] + (float)(a * 128 + c - 128 * sum[g]) * step[g];
        }
#endif
}

template <int G>
inline void few_bytes(const QuantHeads &h, int first, const QuantRun &run, float *s) {
    const int blocks = (run.n + kQuantBlock - 1) / kQuantBlock;
    int8_t high[G * kBlock], low[G * kBlock];
    float keep[G], step[G];
    int32_t sum[G];
    const ptrdiff_t bytes = (ptrdiff_t)blocks * kQuantBlock * h.d;
    score_bytes<G>(h, first, run.k, blocks, Ahead<uint8_t>{run.k, run.k_ahead, h.d, bytes, run.n}, s);
    for (int g = 0; g < G; ++g)
        for (int t = 0; t < run.n; ++t) s[g * kBlock + t] *= run.k_scale[t];
    softmax_rows<G>(s, run.n, h.factor, h.m + first, h.l + first, keep);
    for (int g = 0; g < G; ++g) {
        quantise_row(s + g * kBlock, run.v_scale, run.n, blocks * kQuantBlock, high + g * kBlock, low + g * kBlock, step + g, sum + g);
    }
    add_bytes<G>(run.v, blocks * 4, h.d, Ahead<uint8_t>{run.v, run.v_ahead, h.d, bytes, run.n}, high, low, step, sum, keep, h.acc + first * h.d);
}

inline void run_int8_block(const QuantHeads &h, const QuantRun &run, float *scratch) {
    int g = 0;
    for (; g + 4 <= h.count; g += 4) few_bytes<4>(h, g, run, scratch);
    switch (h.count - g) {
        case 3: return few_bytes<3>(h, g, run, scratch);
        case 2: return few_bytes<2>(h, g, run, scratch);
        case 1: return few_bytes<1>(h, g, run, scratch);
        default: return;
    }
}

}  // namespace
}  // namespace attention
