// Tokens appended to the quantised cache: a scale a token and head, bytes laid where the byte products read them.
#include "attention_quant.h"

#include <algorithm>
#include <cmath>

namespace attention {

namespace {

// Largest magnitude becomes 127; a token of zeros has scale 0.
float scale_of(const float *x, int d) {
    float top = 0.0f;
    for (int i = 0; i < d; ++i) top = std::max(top, std::fabs(x[i]));
    return top / 127.0f;
}

uint8_t byte_of(float x, float by) { return (uint8_t)(128 + std::clamp((int)std::lrint(x * by), -127, 127)); }

}  // namespace

void append(const QuantTarget &to, const float *k, const float *v, int rows, int tokens, const int64_t *positions) {
    const int d = to.d;
    for (int b = 0; b < rows; ++b)
        for (int i = 0; i < tokens; ++i)
            for (int kv = 0; kv < to.kv_heads; ++kv) {
                const ptrdiff_t from = (((ptrdiff_t)b * tokens + i) * to.kv_heads + kv) * d;
                const int64_t t = positions[b] + i, base = ((int64_t)b * to.kv_heads + kv) * to.capacity;
                const float k_scale = scale_of(k + from, d), v_scale = scale_of(v + from, d);
                const float k_by = k_scale > 0.0f ? 1.0f / k_scale : 0.0f, v_by = v_scale > 0.0f ? 1.0f / v_scale : 0.0f;
                uint8_t *k_block = to.k + (base + t / kQuantBlock * kQuantBlock) * d, *v_block = to.v + (base + t / kQuantBlock * kQuantBlock) * d;
                const int inside = (int)(t % kQuantBlock);
                for (int x = 0; x < d; ++x) {
                    k_block[(x / 4 * kQuantBlock + inside) * 4 + x % 4] = byte_of(k[from + x], k_by);
                    v_block[(inside / 4 * d + x) * 4 + inside % 4] = byte_of(v[from + x], v_by) ^ 0x80;
                }
                to.k_scale[base + t] = k_scale;
                to.v_scale[base + t] = v_scale;
            }
}

}  // namespace attention
