// Many query heads a KV head: keys of the run packed by dim, a tile of heads a pass.
#pragma once

#include "attention_few.h"

namespace attention {
namespace {

constexpr int kTile = W == 4 ? 4 : 6;             // heads
constexpr int kVectors = W == 16 ? 4 : 2;         // vectors of tokens (scores) or dims (values)

template <int H>
struct Size {
    static constexpr int heads = H;
};

inline int tile_count(int count) { return (count + kTile - 1) / kTile; }

// `each(first, Size<H>)` for tiles of as equal sizes as can be, up to kTile: a tile of one head takes nearly as long as one of three.
template <class F>
inline void tiles(int count, F &&each) {
    const int parts = tile_count(count);
    for (int i = 0, h = 0; i < parts; ++i) {
        const int size = count / parts + (i < count % parts);
        switch (size) {
            case 6: each(h, Size<kTile >= 6 ? 6 : 1>()); break;
            case 5: each(h, Size<kTile >= 5 ? 5 : 1>()); break;
            case 4: each(h, Size<4>()); break;
            case 3: each(h, Size<3>()); break;
            case 2: each(h, Size<2>()); break;
            default: each(h, Size<1>());
        }
        h += size;
    }
}

// The lines of the next run's rows, one after another: asked for a few at a time between the products of a tile.
class Lines {
  public:
    Lines(const void *rows, int count, ptrdiff_t stride_bytes, int row_bytes, int steps)
        : row_(static_cast<const char *>(rows)), stride_(stride_bytes), row_bytes_(row_bytes), left_(count),
          each_((count * ((row_bytes + 63) / 64) + steps - 1) / steps) {}
    void some() {
        for (int i = 0; i < each_ && left_ > 0; ++i) {
            line_ahead(row_ + at_);
            at_ += 64;
            if (at_ >= row_bytes_) at_ = 0, row_ += stride_, --left_;
        }
    }

  private:
    const char *row_;
    ptrdiff_t stride_;
    int row_bytes_, left_, each_, at_ = 0;
};

// s[h][t] += q[h] . k[t] for a tile of H heads and kVectors * W tokens; panel[x * kBlock + t] = k[t][x].
template <int H>
inline void score_tile(const float *q, int d, const float *panel, float *s, Lines &lines) {
    V acc[H][kVectors];
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) acc[h][u] = all(0.0f);
    for (int x = 0; x < d; ++x) {
        V key[kVectors];
        for (int u = 0; u < kVectors; ++u) key[u] = load(panel + x * kBlock + u * W);
        lines.some();
        for (int h = 0; h < H; ++h) {
            const V query = all(q[h * d + x]);
            for (int u = 0; u < kVectors; ++u) acc[h][u] = fma(query, key[u], acc[h][u]);
        }
    }
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) store(s + h * kBlock + u * W, acc[h][u]);
}

template <int H>
inline void value_tile(const float *s, const float *v, ptrdiff_t stride, int n, const float *next, const float *keep, float *acc, int d) {
    const char *none = nullptr;
    int x = 0;
    for (; x + kVectors * W <= d; x += kVectors * W)
        add_values_part<H, kVectors, false>(s, kBlock, v + x, stride, n, next + x, none, keep, acc + x, d);
    for (; x + W <= d; x += W) add_values_part<H, 1, false>(s, kBlock, v + x, stride, n, next + x, none, keep, acc + x, d);
    if (x < d) add_values_tail<H>(s, kBlock, v, stride, n, keep, acc, d, x);
}

inline void widen(const uint16_t *in, ptrdiff_t stride, int n, int d, float *out) {
    for (int t = 0; t < n; ++t)
        for (int x = 0; x < d; ++x) out[t * d + x] = value(in + t * stride + x);
}

// The factors of the accumulators lie behind the scores.
inline void softmax_all(const Heads &h, int n, float *s) {
    float *keep = s + (size_t)h.count * kBlock;
    int g = 0;
    for (; g + 4 <= h.count; g += 4) softmax_rows<4>(s + g * kBlock, n, h.factor, h.m + g, h.l + g, keep + g);
    for (; g < h.count; ++g) softmax_rows<1>(s + g * kBlock, n, h.factor, h.m + g, h.l + g, keep + g);
}

// Scores of all heads from a packed panel of keys, then their softmax.
inline void many_scores(const Heads &h, int n, const float *panel, float *s, Lines &lines) {
    for (int t = 0; t < n; t += kVectors * W)
        tiles(h.count, [&](int first, auto size) {
            score_tile<decltype(size)::heads>(h.q + first * h.d, h.d, panel + t, s + first * kBlock + t, lines);
        });
    softmax_all(h, n, s);
}

// `next`: the rows of values that follow, asked for with the first tile.
inline void many_values(const Heads &h, const float *v, ptrdiff_t v_stride, int n, const float *next, const float *s) {
    const float *keep = s + (size_t)h.count * kBlock;
    tiles(h.count, [&](int first, auto size) {
        value_tile<decltype(size)::heads>(s + first * kBlock, v, v_stride, n, first ? v : next, keep + first, h.acc + first * h.d, h.d);
    });
}

// Lines of the keys that follow, spread over the products of all tiles.
inline Lines keys_ahead(const Heads &h, const Run &run, int size) {
    return Lines(run.k_ahead, run.n_ahead, run.k_stride * size, h.d * size, tile_count(h.count) * h.d * ((run.n + kVectors * W - 1) / (kVectors * W)));
}

inline void many(const Heads &h, const Run &run, float *s, float *panel, const float *) {
    const float *k = static_cast<const float *>(run.k), *v = static_cast<const float *>(run.v);
    Lines lines = keys_ahead(h, run, 4);
    for (int t = 0; t < run.n; t += 16)
        transpose(reinterpret_cast<const uint32_t *>(k) + t * run.k_stride, run.k_stride, run.n - t < 16 ? run.n - t : 16, h.d,
                  reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    many_scores(h, run.n, panel, s, lines);
    many_values(h, v, run.v_stride, run.n, run.n_ahead == run.n ? static_cast<const float *>(run.v_ahead) : v, s);
}

#if defined(__AVX512BF16__)
template <int H>
inline void score_tile_dot(const uint16_t *q, int d, const float *panel, float *s, Lines &lines) {
    V acc[H][kVectors];
    for (int h = 0; h < H; ++h)
        for (int u = 0; u < kVectors; ++u) acc[h][u] = all(0.0f);
    for (int x = 0; x < d; x += 2) {
        __m512i key[kVectors];
        for (int u = 0; u < kVectors; ++u) key[u] = _mm512_loadu_si512(panel + x / 2 * kBlock + u * W);
        lines.some();
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
inline void value_tile_dot(const float *s, const float *values, int n, const float *keep, float *acc, int d, Lines &lines) {
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
            lines.some();
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

inline void many_dot(const Heads &h, const Run &run, float *s, float *panel) {
    const uint16_t *k = static_cast<const uint16_t *>(run.k), *v = static_cast<const uint16_t *>(run.v);
    const ptrdiff_t k_stride = run.k_stride, v_stride = run.v_stride;
    const int n = run.n;
    Lines keys(run.k_ahead, run.n_ahead, k_stride * 2, h.d * 2, tile_count(h.count) * (h.d / 2));
    Lines rest(run.v_ahead, run.n_ahead, v_stride * 2, h.d * 2, tile_count(h.count) * ((n + 1) / 2) * ((h.d + kVectors * W - 1) / (kVectors * W)));
    // Pairs of dims of a key are 32-bit elements; rows of keys are at even offsets (the driver sees to it).
    const uint32_t *pairs = reinterpret_cast<const uint32_t *>(k);
    for (int t = 0; t < n; t += 16)
        transpose(pairs + t * (k_stride / 2), k_stride / 2, n - t < 16 ? n - t : 16, h.d / 2, reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    float *keep = s + (size_t)h.count * kBlock;
    tiles(h.count, [&](int first, auto size) {
        score_tile_dot<decltype(size)::heads>(h.q16 + first * h.d, h.d, panel, s + first * kBlock, keys);
    });
    softmax_all(h, n, s);
    for (int g = 0; g < h.count; ++g) pair_probabilities(s + g * kBlock, (n + 15) / 16 * 16);
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
    tiles(h.count, [&](int first, auto size) {
        value_tile_dot<decltype(size)::heads>(s + first * kBlock, values, n, keep + first, h.acc + first * h.d, h.d, rest);
    });
}
#endif

inline void many(const Heads &h, const Run &run, float *s, float *panel, const uint16_t *) {
    const uint16_t *k = static_cast<const uint16_t *>(run.k), *v = static_cast<const uint16_t *>(run.v);
#if defined(__AVX512BF16__)
    if (h.d % 2 == 0 && run.k_stride % 2 == 0 && reinterpret_cast<uintptr_t>(k) % 4 == 0)
        return many_dot(h, run, s, panel);
#endif
    float *values = panel + kBlock * (h.d + 16);
    widen(k, run.k_stride, run.n, h.d, values);
    // Keys pass through the room of the values, which are widened after the scores would need them: two rooms keep it simple.
    int t = 0;
    for (; t < run.n; t += 16)
        transpose(reinterpret_cast<const uint32_t *>(values) + t * h.d, h.d, run.n - t < 16 ? run.n - t : 16, h.d, reinterpret_cast<uint32_t *>(panel) + t, kBlock);
    Lines lines = keys_ahead(h, run, 2);
    many_scores(h, run.n, panel, s, lines);
    widen(v, run.v_stride, run.n, h.d, values);
    many_values(h, values, h.d, run.n, values, s);
}

}  // namespace
}  // namespace attention
