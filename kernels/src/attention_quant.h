// The quantised cache as it is written; see QuantRun for the layout.
#pragma once

#include "attention.h"

namespace attention {

struct QuantTarget {
    uint8_t *k, *v;           // (rows, kv heads, capacity / 16, ...)
    float *k_scale, *v_scale;  // (rows, kv heads, capacity)
    int kv_heads, d;
    int64_t capacity;
};

// k and v (rows, tokens, kv heads, d) float32, written at positions[row] .. positions[row] + tokens - 1.
void append(const QuantTarget &to, const float *k, const float *v, int rows, int tokens, const int64_t *positions);

}  // namespace attention
