// The attention kernels over a float32 or bfloat16 cache, written once over the vectors of attention_vector.h.
#pragma once

#include "attention_many.h"

namespace attention {
namespace {

template <bool Stream, class T>
inline void few_heads(const Heads &h, const T *k, Ahead<T> k_ahead, const T *v, Ahead<T> v_ahead, int n, float *scratch) {
    int g = 0;
    for (; g + 4 <= h.count; g += 4) {
        few<4, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        k_ahead.next = k, v_ahead.next = v;  // what comes ahead is asked for once, with the first heads; the others ask for what is there already
        k_ahead.n_next = v_ahead.n_next = n;
    }
    switch (h.count - g) {
        case 3: return few<3, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        case 2: return few<2, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        case 1: return few<1, Stream>(h, g, k, k_ahead, v, v_ahead, n, scratch);
        default: return;
    }
}

template <class T>
void run_block(const Heads &h, const Run &run, float *scratch) {
    const T *tag = nullptr;
    if (h.count >= kManyHeads) {
        float *panel = scratch + (size_t)(h.count + 8) * (kBlock + 2);
        panel += (64 - reinterpret_cast<uintptr_t>(panel) % 64) % 64 / 4;
        return many(h, run, scratch, panel, tag);
    }
    const T *k = static_cast<const T *>(run.k), *v = static_cast<const T *>(run.v);
    const Ahead<T> k_ahead = ahead_of(k, run.k_ahead, run.k_stride, run.n, run.n_ahead, h.d);
    const Ahead<T> v_ahead = ahead_of(v, run.v_ahead, run.v_stride, run.n, run.n_ahead, h.d);
    if (k_ahead.stream() && v_ahead.stream()) few_heads<true>(h, k, k_ahead, v, v_ahead, run.n, scratch);
    else few_heads<false>(h, k, k_ahead, v, v_ahead, run.n, scratch);
}

}  // namespace
}  // namespace attention
