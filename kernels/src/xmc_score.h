// The inner loops of the beam search: products of queries with chunks, scores, and selection. Pure functions over arrays.
#pragma once

#include "xmc_format.h"

namespace xmc {

// A query's features, hashed (see xmc_format.h), and their values, in the query's order.
struct Query {
    const uint32_t *hashed;
    const float *value;
    uint32_t nonzeros;
};

// One product: a query against a chunk; its scores go to out[0 .. width).
struct Pair {
    uint32_t chunk, query, out;
    float parent;  // score of the parent
};

// Computes all pairs in order, two of them ahead in fetching. scores[out ...] of a pair are final afterwards: margin, bias last,
// post-processor, parent's score. `offsets` is scratch of 2 x the largest number of non-zeros. Returns false where the file's inner
// offsets leave their chunk (the file is corrupt); nothing outside is read.
bool score_pairs(const Level &level, const Pair *pairs, size_t count, const Query *queries, uint32_t values, uint32_t hash_bits,
                 const PostProcessor &post, bool combine, float *scores, uint32_t *offsets, uint32_t offset_stride);

// margins to scores, in place.
void post_process(const PostProcessor &post, bool combine, float parent, float *v, uint32_t n);

// Positions of the `keep` largest of scores[0 .. n) in order, equal ones by position, to out; returns how many. `scratch` holds
// 2 n + 2,048 words of 64 bits.
size_t select(const float *scores, uint32_t n, uint32_t keep, uint64_t *scratch, uint32_t *out);

inline float value_at(const uint8_t *p, uint32_t values) {
    if (values == kFloat32) {
        float v;
        std::memcpy(&v, p, 4);
        return v;
    }
    if (values == kInt8) return static_cast<float>(static_cast<int8_t>(*p));
    uint16_t half;
    std::memcpy(&half, p, 2);
    // Exponent and fraction moved in place, then scaled: exact, for subnormal numbers too. Infinity and NaN are never stored.
    const uint32_t moved = static_cast<uint32_t>(half & 0x7fffu) << 13;
    float v;
    std::memcpy(&v, &moved, 4);
    v *= 5.192296858534827628530496329220096e33f;  // 2^112
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    bits |= static_cast<uint32_t>(half & 0x8000u) << 16;
    std::memcpy(&v, &bits, 4);
    return v;
}

}  // namespace xmc
