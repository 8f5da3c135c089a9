// Vectors of the instruction set that a file is compiled for: the least that the attention kernels need, each with a plain form.
//
// Everything is static and free of library templates: the same header is compiled for several instruction sets, and a
// function shared between them by the linker could hold instructions that the machine does not have.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace attention {
namespace {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float V __attribute__((vector_size(W * 4)));
typedef int32_t VI __attribute__((vector_size(W * 4)));
typedef float VU __attribute__((vector_size(W * 4), aligned(4), may_alias));

inline V load(const float *p) { return *reinterpret_cast<const VU *>(p); }
inline void store(float *p, V x) { *reinterpret_cast<VU *>(p) = x; }
inline V all(float x) { return x - (V){}; }

inline V load(const uint16_t *p) {
#if defined(__AVX512F__)
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif defined(__AVX2__)
    return (V)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
    VI x;
    for (int i = 0; i < W; ++i) x[i] = (int32_t)((uint32_t)p[i] << 16);
    return (V)x;
#endif
}

inline float value(const float *p) { return *p; }
inline float value(const uint16_t *p) {
    const uint32_t bits = (uint32_t)*p << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline V fma(V a, V b, V c) {
#if defined(__AVX512F__)
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// The larger of two; NaN in `a` stays NaN.
inline V larger(V a, V b) { return a < b ? b : a; }

inline float largest(V x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#elif defined(__AVX2__)
    __m128 half = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
#else
    float r = x[0];
    for (int i = 1; i < W; ++i) r = x[i] > r ? x[i] : r;
    return r;
#endif
}

inline float total(V x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#elif defined(__AVX2__)
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#else
    float r = x[0];
    for (int i = 1; i < W; ++i) r += x[i];
    return r;
#endif
}

// 2^x for x <= 0, to 3e-7 of the result; below -126 it stays at 2^-126, which no sum of probabilities notices. The polynomial is the
// Taylor series of 2^f in f ln 2 to the sixth power on |f| <= 1/2: remainder below (0.5 ln 2)^7 / 7! = 1.2e-7.
inline V power_of_two(V x) {
    x = larger(x, all(-126.0f));
    const V magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const V shifted = x + magic;
    const V f = x - (shifted - magic);
    V p = all(1.5403530394e-4f);
    p = fma(p, f, all(1.3333558146e-3f));
    p = fma(p, f, all(9.6181291076e-3f));
    p = fma(p, f, all(5.5504108665e-2f));
    p = fma(p, f, all(2.4022650696e-1f));
    p = fma(p, f, all(6.9314718056e-1f));
    p = fma(p, f, all(1.0f));
    return (V)((VI)p + ((VI)shifted << 23));
}

inline float power_of_two(float x) { return power_of_two(all(x))[0]; }

// Sums of the lanes of kSums vectors.
constexpr int kSums = W == 16 ? 16 : 8;

inline void lane_sums(const V *x, float *out) {
#if defined(__AVX512F__)
    __m512 a[8], b[4], c[2];
    for (int i = 0; i < 8; ++i)  // lanes of each pair of elements: x[i] and x[i + 8]
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps((__m512)x[i], (__m512)x[i + 8]), _mm512_unpackhi_ps((__m512)x[i], (__m512)x[i + 8]));
    for (int i = 0; i < 4; ++i)
        b[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[i], a[i + 4]), _mm512_unpackhi_ps(a[i], a[i + 4]));
    // b[i] holds in every 128 bits the sums of x[i], x[i + 4], x[i + 8], x[i + 12].
    for (int i = 0; i < 2; ++i)
        c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[i], b[i + 2], 0x88), _mm512_shuffle_f32x4(b[i], b[i + 2], 0xdd));
    const __m512 d = _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
    // d: the parts of b[0], b[2], b[1], b[3].
    const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15);
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(order, d));
#elif defined(__AVX2__)
    for (int i = 0; i < 8; i += 4) {
        const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps((__m256)x[i], (__m256)x[i + 1]), _mm256_hadd_ps((__m256)x[i + 2], (__m256)x[i + 3]));
        _mm_storeu_ps(out + i, _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)));
    }
#else
    for (int i = 0; i < kSums; ++i) out[i] = total(x[i]);
#endif
}

// Rows of 32-bit elements to columns: out[j * out_stride + i] = in[i * in_stride + j] for i < rows, j < columns.
inline void transpose(const uint32_t *in, ptrdiff_t in_stride, int rows, int columns, uint32_t *out, ptrdiff_t out_stride) {
    int j = 0;
#if defined(__AVX512F__)
    if (rows == 16) {
        for (; j + 16 <= columns; j += 16) {
            __m512i a[16], b[16];
            for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + i * in_stride + j);
            for (int i = 0; i < 16; i += 2) {
                b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
                b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
            }
            for (int i = 0; i < 16; i += 4)
                for (int h = 0; h < 2; ++h) {
                    a[i + 2 * h] = _mm512_unpacklo_epi64(b[i + h], b[i + 2 + h]);
                    a[i + 2 * h + 1] = _mm512_unpackhi_epi64(b[i + h], b[i + 2 + h]);
                }
            for (int i = 0; i < 4; ++i) {
                const __m512i lo0 = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), hi0 = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
                const __m512i lo1 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88), hi1 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
                _mm512_storeu_si512(out + (j + i) * out_stride, _mm512_shuffle_i32x4(lo0, lo1, 0x88));
                _mm512_storeu_si512(out + (j + i + 8) * out_stride, _mm512_shuffle_i32x4(lo0, lo1, 0xdd));
                _mm512_storeu_si512(out + (j + i + 4) * out_stride, _mm512_shuffle_i32x4(hi0, hi1, 0x88));
                _mm512_storeu_si512(out + (j + i + 12) * out_stride, _mm512_shuffle_i32x4(hi0, hi1, 0xdd));
            }
        }
    }
#endif
    for (; j < columns; ++j)
        for (int i = 0; i < rows; ++i) std::memcpy(out + j * out_stride + i, in + i * in_stride + j, 4);
}

}  // namespace
}  // namespace attention
