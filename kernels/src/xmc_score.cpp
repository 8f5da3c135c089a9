#include "xmc_score.h"

#include <algorithm>
#include <cmath>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// Wide vectors where the machine has them; the arithmetic, and so the result, is the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__)
#define XMC_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define XMC_CLONES
#endif
#define XMC_INLINE inline __attribute__((always_inline))

namespace xmc {

namespace {

// exp(x) for x <= 0, double precision, below 1 ulp: x = k ln 2 + r, |r| <= ln 2 / 2, Taylor to r^13 (the rest is below 2^-56).
// Arguments below -150 give exp(-150), which is zero in float like their own.
XMC_INLINE double exp_negative(double x) {
    x = x < -150.0 ? -150.0 : x;
    constexpr double kMagic52 = 6755399441055744.0;  // 1.5 x 2^52: adding it rounds to an integer, held in the low bits
    const double shifted = x * 1.4426950408889634 + kMagic52;
    const double k = shifted - kMagic52;
    const double r = (x - k * 0x1.62e42fefa38p-1) - k * 0x1.ef35793c7673p-45;  // ln 2 in two parts, the first with spare bits
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    int64_t bits, exponent;
    std::memcpy(&exponent, &shifted, 8);
    std::memcpy(&bits, &p, 8);
    bits += static_cast<int64_t>(static_cast<uint64_t>(exponent) << 52);
    std::memcpy(&p, &bits, 8);
    return p;
}

// z^P with one rounding: z is a float, so z^2 is exact in double, and z^3 and z^4 are rounded once.
template <int P>
XMC_INLINE double small_power(double z) {
    if (P == 1) return z;
    if (P == 2) return z * z;
    if (P == 3) return z * z * z;
    return (z * z) * (z * z);
}

XMC_INLINE double hinge(float v) {
    const double z = 1.0 - static_cast<double>(v);
    return static_cast<double>(static_cast<float>(z > 0.0 ? z : 0.0));
}

template <int P>
XMC_INLINE void hinge_scores(bool logarithm, bool combine, float parent, float *v, uint32_t n) {
    if (!logarithm) {
        const float times = combine ? parent : 1.0f;
        for (uint32_t i = 0; i < n; ++i) v[i] = static_cast<float>(exp_negative(-small_power<P>(hinge(v[i])))) * times;
    } else if (combine) {
        for (uint32_t i = 0; i < n; ++i) v[i] = static_cast<float>(-small_power<P>(hinge(v[i]))) + parent;
    } else {
        for (uint32_t i = 0; i < n; ++i) v[i] = static_cast<float>(-small_power<P>(hinge(v[i])));
    }
}

XMC_CLONES void hinge1(bool l, bool c, float parent, float *v, uint32_t n) { hinge_scores<1>(l, c, parent, v, n); }
XMC_CLONES void hinge2(bool l, bool c, float parent, float *v, uint32_t n) { hinge_scores<2>(l, c, parent, v, n); }
XMC_CLONES void hinge3(bool l, bool c, float parent, float *v, uint32_t n) { hinge_scores<3>(l, c, parent, v, n); }
XMC_CLONES void hinge4(bool l, bool c, float parent, float *v, uint32_t n) { hinge_scores<4>(l, c, parent, v, n); }

XMC_INLINE void prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }

// A bucket's record: where the key's row is, or null. `length` is its number of entries.
XMC_INLINE const uint8_t *find_row(const uint8_t *record, uint32_t key, uint32_t key_bytes, uint32_t entry_bytes, uint32_t &length) {
    const uint32_t n = *record;
    const uint8_t *keys = record + 1, *lengths = keys + n * key_bytes;
#if defined(__SSE2__)
    uint32_t hit;
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i *>(keys));
    if (key_bytes == 1) {
        hit = static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(first, _mm_set1_epi8(static_cast<char>(key)))));
    } else {
        const __m128i want = _mm_set1_epi16(static_cast<short>(key));
        const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i *>(keys + 16));
        hit = static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(_mm_cmpeq_epi16(first, want), _mm_cmpeq_epi16(second, want))));
    }
    hit &= (1u << n) - 1u;
    if (hit == 0) return nullptr;
    const uint32_t at = static_cast<uint32_t>(__builtin_ctz(hit));
    const __m128i order = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i before = _mm_cmplt_epi8(order, _mm_set1_epi8(static_cast<char>(at)));
    const __m128i sums = _mm_sad_epu8(_mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i *>(lengths)), before),
                                      _mm_setzero_si128());
    const uint32_t entries = static_cast<uint32_t>(_mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4)) + at;
#else
    uint32_t at = 0;
    while (at < n && (key_bytes == 1 ? keys[at] != key : (keys[2 * at] | keys[2 * at + 1] << 8) != static_cast<int>(key))) ++at;
    if (at == n) return nullptr;
    uint32_t entries = at;
    for (uint32_t i = 0; i < at; ++i) entries += lengths[i];
#endif
    length = lengths[at] + 1u;
    return lengths + n + entries * entry_bytes;
}

template <uint32_t V>
XMC_INLINE bool score_all(const Level &level, const Pair *pairs, size_t count, const Query *queries, uint32_t hash_bits,
                          const PostProcessor &post, bool combine, float *scores, uint32_t *offsets, uint32_t stride) {
    constexpr uint32_t kBytes = V == kFloat32 ? 4 : V == kFloat16 ? 2 : 1, kEntry = kBytes + 1;
    const uint8_t *blob = level.blob;
    bool sound = true;
    const auto tables = [&](size_t i) {
        const Chunk &c = level.chunks[pairs[i].chunk];
        const Query &q = queries[pairs[i].query];
        const uint32_t shift = hash_bits - c.log_buckets;
        const uint8_t *table = blob + c.start;
        for (uint32_t j = 0; j < q.nonzeros; ++j) prefetch(table + 4 * static_cast<uint64_t>(q.hashed[j] >> shift));
    };
    const auto records = [&](size_t i) {
        const Chunk &c = level.chunks[pairs[i].chunk];
        const Query &q = queries[pairs[i].query];
        const uint32_t shift = hash_bits - c.log_buckets;
        const uint8_t *table = blob + c.start, *first = table + (4ull << c.log_buckets);
        uint32_t *to = offsets + (i & 1) * stride;
        for (uint32_t j = 0; j < q.nonzeros; ++j) {
            const uint32_t at = load32(table + 4 * static_cast<uint64_t>(q.hashed[j] >> shift));
            to[j] = at;
            prefetch(first + at);
        }
    };
    if (count > 0) tables(0);
    if (count > 1) tables(1);
    if (count > 0) records(0);
    for (size_t i = 0; i < count; ++i) {
        if (i + 2 < count) {
            prefetch(&level.chunks[pairs[std::min(i + 4, count - 1)].chunk]);
            tables(i + 2);
        }
        if (i + 1 < count) records(i + 1);
        const Pair &pair = pairs[i];
        const Chunk &c = level.chunks[pair.chunk];
        const Query &q = queries[pair.query];
        const uint32_t key_mask = hash_mask(hash_bits - c.log_buckets), width = c.width;
        const uint8_t *first = blob + c.start + (4ull << c.log_buckets), *end = first + c.bytes;
        const uint32_t *at = offsets + (i & 1) * stride;
        float *out = scores + pair.out;
        for (uint32_t j = 0; j < width; ++j) out[j] = 0.0f;
        for (uint32_t j = 0; j < q.nonzeros; ++j) {
            if (__builtin_expect(at[j] >= c.bytes || first[at[j]] > kMaxInBucket, 0)) {
                sound = false;
                continue;
            }
            uint32_t length;
            const uint8_t *row = find_row(first + at[j], q.hashed[j] & key_mask, c.key_bytes, kEntry, length);
            if (row == nullptr) continue;
            if (__builtin_expect(row + length * kEntry > end || length > width, 0)) {
                sound = false;
                continue;
            }
            const float x = q.value[j];
            if (length == width) {
                for (uint32_t e = 0; e < width; ++e) out[e] += x * value_at(row + e * kBytes, V);
            } else {
                const uint8_t *columns = row + length * kBytes;
                for (uint32_t e = 0; e < length; ++e) {
                    const uint32_t column = columns[e];
                    if (__builtin_expect(column >= width, 0)) {
                        sound = false;
                        break;
                    }
                    out[column] += x * value_at(row + e * kBytes, V);
                }
            }
        }
        const float *bias = level.bias + c.first;
        if (V == kInt8) {
            const float *scale = level.scale + c.first;
            for (uint32_t j = 0; j < width; ++j) out[j] *= scale[j];
        }
        for (uint32_t j = 0; j < width; ++j) out[j] += bias[j];
        post_process(post, combine, pair.parent, out, width);
    }
    return sound;
}

#define XMC_ARGUMENTS                                                                                                            \
    const Level &level, const Pair *pairs, size_t count, const Query *queries, uint32_t bits, const PostProcessor &post, bool combine, \
        float *scores, uint32_t *offsets, uint32_t stride
#define XMC_PASSED level, pairs, count, queries, bits, post, combine, scores, offsets, stride
XMC_CLONES bool score_float32(XMC_ARGUMENTS) { return score_all<kFloat32>(XMC_PASSED); }
XMC_CLONES bool score_float16(XMC_ARGUMENTS) { return score_all<kFloat16>(XMC_PASSED); }
XMC_CLONES bool score_int8(XMC_ARGUMENTS) { return score_all<kInt8>(XMC_PASSED); }

// Larger scores have smaller keys; the two zeros are one number.
XMC_INLINE uint32_t key_of(float score) {
    score += 0.0f;
    int32_t bits;
    std::memcpy(&bits, &score, 4);
    const uint32_t sign = static_cast<uint32_t>(bits >> 31);
    return ~(static_cast<uint32_t>(bits) ^ (sign | 0x80000000u));
}

XMC_CLONES uint32_t make_keys(const float *scores, uint32_t n, uint32_t *keys) {
    uint32_t least = 0xffffffffu;
    for (uint32_t i = 0; i < n; ++i) {
        keys[i] = key_of(scores[i]);
        least = std::min(least, keys[i]);
    }
    return least;
}

}  // namespace

bool score_pairs(const Level &level, const Pair *pairs, size_t count, const Query *queries, uint32_t values, uint32_t bits,
                 const PostProcessor &post, bool combine, float *scores, uint32_t *offsets, uint32_t stride) {
    if (values == kFloat32) return score_float32(XMC_PASSED);
    if (values == kFloat16) return score_float16(XMC_PASSED);
    return score_int8(XMC_PASSED);
}

void post_process(const PostProcessor &post, bool combine, float parent, float *v, uint32_t n) {
    const bool logarithm = post.kind == PostProcessor::kLogHinge;
    switch (post.kind) {
        case PostProcessor::kNoop: return;
        case PostProcessor::kSigmoid:
            for (uint32_t i = 0; i < n; ++i) {
                const float s = static_cast<float>(1.0 / (1.0 + std::exp(-v[i])));
                v[i] = combine ? s * parent : s;
            }
            return;
        case PostProcessor::kLogSigmoid:
            for (uint32_t i = 0; i < n; ++i) {
                const float s = static_cast<float>(-std::log(1.0 + std::exp(-v[i])));
                v[i] = combine ? s + parent : s;
            }
            return;
        case PostProcessor::kHinge:
        case PostProcessor::kLogHinge:
            if (post.power == 3) return hinge3(logarithm, combine, parent, v, n);
            if (post.power == 1) return hinge1(logarithm, combine, parent, v, n);
            if (post.power == 2) return hinge2(logarithm, combine, parent, v, n);
            if (post.power == 4) return hinge4(logarithm, combine, parent, v, n);
            for (uint32_t i = 0; i < n; ++i) {
                const double power = -std::pow(hinge(v[i]), static_cast<double>(post.power));
                const float s = static_cast<float>(logarithm ? power : std::exp(power));
                v[i] = !combine ? s : logarithm ? s + parent : s * parent;
            }
    }
}

size_t select(const float *scores, uint32_t n, uint32_t keep, uint64_t *scratch, uint32_t *out) {
    constexpr uint32_t kBins = 1024;
    uint32_t *keys = reinterpret_cast<uint32_t *>(scratch + n), *bins = keys + n;
    uint64_t *chosen = scratch;
    const uint32_t least = make_keys(scores, n, keys);
    if (keep > n) keep = n;
    if (keep == 0) return 0;
    // Bins of 1/32 of an octave below the best: those before the bin that completes `keep` are in, sorted by bin already.
    const auto bin_of = [least](uint32_t key) { return std::min((key - least) >> 18, kBins - 1); };
    std::fill(bins, bins + kBins, 0u);
    for (uint32_t i = 0; i < n; ++i) ++bins[bin_of(keys[i])];
    uint32_t total = 0, last = 0, largest = 0;
    for (uint32_t b = 0; b < kBins; ++b) {
        const uint32_t held = bins[b];
        bins[b] = total;
        total += held;
        largest = std::max(largest, held);
        last = b;
        if (total >= keep) break;
    }
    for (uint32_t i = 0; i < n; ++i) {
        const uint32_t b = bin_of(keys[i]);
        if (b <= last) chosen[bins[b]++] = static_cast<uint64_t>(keys[i]) << 32 | i;
    }
    if (largest > 24) {
        if (total > 2 * keep + 64) {
            std::nth_element(chosen, chosen + keep, chosen + total);
            total = keep;
        }
        std::sort(chosen, chosen + total);
    } else {
        for (uint32_t i = 1; i < total; ++i) {
            const uint64_t v = chosen[i];
            uint32_t j = i;
            for (; j > 0 && chosen[j - 1] > v; --j) chosen[j] = chosen[j - 1];
            chosen[j] = v;
        }
    }
    for (uint32_t i = 0; i < keep; ++i) out[i] = static_cast<uint32_t>(chosen[i]);
    return keep;
}

}  // namespace xmc
