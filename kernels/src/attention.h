// Decode attention: what the driver and the code for each instruction set say to each other.
//
// One call of a block function adds a run of tokens of one KV head to the running softmax of all query heads that read it:
// scores s = factor * q.k in powers of two, m = max, l = sum 2^(s - m), acc = sum 2^(s - m) v (Milakov and Gimelshein,
// arXiv:1805.02867). Partial results (m, l, acc) of disjoint runs merge exactly, in any order, up to rounding.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attention {

constexpr int kBlock = 64;        // tokens of one block: scores of a head stay in registers or the first cache
constexpr int kManyHeads = 8;     // from here on keys are packed, so that one load serves a tile of query heads
constexpr int kQuantBlock = 16;   // tokens whose bytes of one KV head are interleaved in the quantised cache

// Query heads that read one KV head.
struct Heads {
    const float *q;       // (count, d) float32
    const uint16_t *q16;  // (count, d) the same as bfloat16 bits, where the cache holds bfloat16
    int count, d;
    float factor;         // scale * log2(e)
    float *m, *l, *acc;   // (count), (count), (count, d)
};

// A run of at most kBlock tokens of one KV head; strides in elements. `ahead`: the next run, n_ahead tokens (0: none), to be fetched.
struct Run {
    const void *k, *v;
    ptrdiff_t k_stride, v_stride;
    int n;
    const void *k_ahead, *v_ahead;
    int n_ahead;
};

// Query heads over the quantised cache: q as two signed bytes, value = 128 * high + low, times step.
struct QuantHeads {
    const int8_t *high, *low;  // (count, d)
    const int32_t *sum;        // (count): sum of the 16-bit integers of q
    const float *step;         // (count)
    int count, d;
    float factor;
    float *m, *l, *acc;
};

// A run of at most kBlock tokens that begins at a multiple of kQuantBlock.
// k: [n/16][d/4][16 tokens][4 dims], bytes = value + 128; v: [n/16][4][d][4 tokens], signed bytes; a scale a token.
struct QuantRun {
    const uint8_t *k, *v;
    const float *k_scale, *v_scale;
    int n;
    const uint8_t *k_ahead, *v_ahead;  // the next run, to be fetched
};

// Functions of one instruction set. `scratch` holds scratch_floats(heads, d) floats, aligned to 64 bytes.
struct Functions {
    const char *name;
    void (*run_f32)(const Heads &, const Run &, float *scratch);
    void (*run_bf16)(const Heads &, const Run &, float *scratch);
    void (*run_int8)(const QuantHeads &, const QuantRun &, float *scratch);
    void (*query_bytes)(const float *q, int d, int8_t *high, int8_t *low, int32_t *sum, float *step);  // of one head, for QuantHeads
};

inline size_t scratch_floats(size_t heads, size_t d) {
    const size_t padded = heads + 8;
    return padded * (2 * kBlock + 4) + 2 * kBlock * (d + 16) + 256;
}

const Functions &plain_functions();
#if defined(DSE_ATTENTION_X86)
const Functions &avx2_functions();
const Functions &avx512_functions();
const Functions &avx512_bf16_functions();
#endif

}  // namespace attention
