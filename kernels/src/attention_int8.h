// The attention kernel over the quantised cache: products of bytes in whole numbers, so that every instruction set agrees in them.
//
// The products of the hardware want unsigned bytes on one side and signed ones on the other. Keys are value + 128, and q is an integer of 15
// bits in two signed bytes (an error of a score is raised to a power); the 128 is taken off by the sum of q. Values are signed, and a probability
// (times the value's scale) is one unsigned byte. Largest sums, d <= 256: 255 * 127 * 256 * 128 + 255 * 64 * 256 < 2^31.
#pragma once

#include "attention_kernels.h"

namespace attention {
namespace {

constexpr int kFine = 254;  // steps of a probability within a block; a carried part may add one

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

// Probabilities times the scales of the values as bytes, and the step of one; bytes from n to the next multiple of kQuantBlock become 0.
//
// 255 steps lose what is smaller than half of one, and a flat tail of such tokens holds a tenth of the weight. So each of 16 lanes begins
// with a part of a step, all different, and carries what it cut off to its token of the next 16: no byte is off by a step or more, and the
// sum over the lanes is kept.
inline void quantise_row(const float *s, const float *scale, int n, uint8_t *bytes, float *step) {
    alignas(64) static const float parts[16] = {0.03125f, 0.34375f, 0.65625f, 0.96875f, 0.28125f, 0.59375f, 0.90625f, 0.21875f,
                                                0.53125f, 0.84375f, 0.15625f, 0.46875f, 0.78125f, 0.09375f, 0.40625f, 0.71875f};
    float product[kBlock];
    V tops = all(0.0f);
    for (int t = 0; t < n / W * W; t += W) {
        const V p = load(s + t) * load(scale + t);
        store(product + t, p);
        tops = larger(tops, p);
    }
    float top = largest(tops);
    for (int t = n / W * W; t < n; ++t) {
        product[t] = s[t] * scale[t];
        top = product[t] > top ? product[t] : top;
    }
    const float by = top > 0.0f ? kFine / top : 0.0f;
    *step = top / kFine;
    const int whole = (n + kQuantBlock - 1) / kQuantBlock * kQuantBlock;
    for (int t = n; t < whole; ++t) product[t] = 0.0f;
    V carried[kQuantBlock / W];
    for (int j = 0; j < kQuantBlock / W; ++j) carried[j] = load(parts + j * W);
    for (int t = 0; t < whole; t += kQuantBlock)
        for (int j = 0; j < kQuantBlock / W; ++j) {
            const V y = load(product + t + j * W) * all(by) + carried[j];
            const VI x = __builtin_convertvector(y, VI);  // down, being positive
            carried[j] = y - __builtin_convertvector(x, V);
#if defined(__AVX512F__)
            _mm_storeu_si128(reinterpret_cast<__m128i *>(bytes + t), _mm512_cvtusepi32_epi8((__m512i)x));
#else
            for (int i = 0; i < W; ++i) bytes[t + j * W + i] = (uint8_t)x[i];
#endif
        }
}

// The query of one head as whole numbers of 15 bits, in two signed bytes: value = 128 * high + low, times step.
inline void quantise_query(const float *q, int d, int8_t *high, int8_t *low, int32_t *sum, float *step) {
    constexpr float fine = 16256.0f;  // 127 * 128: high bytes stay within -127..127
    int32_t top_bits = 0;             // magnitudes are in the order of their bits
    for (int x = 0; x < d; ++x) {
        int32_t bits;
        std::memcpy(&bits, q + x, 4);
        bits &= 0x7fffffff;
        top_bits = bits > top_bits ? bits : top_bits;
    }
    float top;
    std::memcpy(&top, &top_bits, 4);
    *step = top / fine;
    const float by = top > 0.0f ? fine / top : 0.0f;
    int32_t total_of = 0;
    for (int x = 0; x < d; ++x) {
        // Adding 1.5 * 2^23 rounds to a whole number, ties to even, that stands in the low bits.
        const float rounded = q[x] * by + 12582912.0f;
        int32_t whole;
        std::memcpy(&whole, &rounded, 4);
        whole -= 0x4b400000;
        const int32_t upper = (whole + 64) >> 7;
        high[x] = (int8_t)upper;
        low[x] = (int8_t)(whole - 128 * upper);
        total_of += whole;
    }
    *sum = total_of;
}

template <int G>
inline void add_bytes(const uint8_t *v, int groups, int d, const Ahead<uint8_t> &ahead, const uint8_t *bytes, const float *step, const float *keep, float *acc) {
#if defined(__AVX512VNNI__)
    const char *soon = ahead.at(0);
    for (int x = 0; x < d; x += 64) {
        __mmask16 lanes[4];
        for (int u = 0; u < 4; ++u) {
            const int left = d - x - 16 * u;
            lanes[u] = left >= 16 ? (__mmask16)0xffff : left <= 0 ? (__mmask16)0 : (__mmask16)((1u << left) - 1);
        }
        __m512i sum[G][4];
        for (int g = 0; g < G; ++g)
            for (int u = 0; u < 4; ++u) sum[g][u] = _mm512_setzero_si512();
        for (int t = 0; t < groups; ++t) {
            const uint8_t *row = v + ((ptrdiff_t)t * d + x) * 4;
            __m512i value[4];
            for (int u = 0; u < 4; ++u) {
                value[u] = _mm512_maskz_loadu_epi32(lanes[u], row + 64 * u);
                line_soon(soon + 64 * u);
            }
            soon += 256;
            for (int g = 0; g < G; ++g) {
                int32_t p;
                std::memcpy(&p, bytes + g * kBlock + t * 4, 4);
                const __m512i four = _mm512_set1_epi32(p);
                for (int u = 0; u < 4; ++u) dot_bytes(sum[g][u], four, value[u]);
            }
        }
        for (int g = 0; g < G; ++g)
            for (int u = 0; u < 4; ++u) {
                float *to = acc + g * d + x + 16 * u;
                const __m512 before = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes[u], to), _mm512_set1_ps(keep[g]));
                _mm512_mask_storeu_ps(to, lanes[u], _mm512_add_ps(before, _mm512_mul_ps(_mm512_cvtepi32_ps(sum[g][u]), _mm512_set1_ps(step[g]))));
            }
    }
#else
    (void)ahead;
    for (int g = 0; g < G; ++g)
        for (int x = 0; x < d; ++x) {
            int32_t sum = 0;
            for (int t = 0; t < groups; ++t) sum += dot4(bytes + g * kBlock + t * 4, reinterpret_cast<const int8_t *>(v) + ((ptrdiff_t)t * d + x) * 4);
            acc[g * d + x] = acc[g * d + x] * keep[g] + (float)sum * step[g];
        }
#endif
}

template <int G>
inline void few_bytes(const QuantHeads &h, int first, const QuantRun &run, float *s) {
    const int blocks = (run.n + kQuantBlock - 1) / kQuantBlock;
    uint8_t bytes[G * kBlock];
    float keep[G], step[G];
    const ptrdiff_t size = (ptrdiff_t)blocks * kQuantBlock * h.d;
    score_bytes<G>(h, first, run.k, blocks, Ahead<uint8_t>{run.k, run.k_ahead, h.d, size, run.n}, s);
    for (int g = 0; g < G; ++g)
        for (int t = 0; t < run.n; ++t) s[g * kBlock + t] *= run.k_scale[t];
    softmax_rows<G>(s, run.n, h.factor, h.m + first, h.l + first, keep);
    for (int g = 0; g < G; ++g) quantise_row(s + g * kBlock, run.v_scale, run.n, bytes + g * kBlock, step + g);
    add_bytes<G>(run.v, blocks * 4, h.d, Ahead<uint8_t>{run.v, run.v_ahead, h.d, size, run.n}, bytes, step, keep, h.acc + first * h.d);
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
