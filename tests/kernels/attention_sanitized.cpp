// The attention kernels on heap arrays of exactly the sizes they may touch, from several threads at once, for the address,
// undefined-behaviour and thread sanitizers.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>

#include "attention_quant.h"
#include "attention_work.h"

using namespace attention;

template <class T>
std::unique_ptr<T[]> filled(size_t n) {
    std::unique_ptr<T[]> p(new T[n]);
    for (size_t i = 0; i < n; ++i) p[i] = sizeof(T) == 4 ? (T)(std::sin(0.37 * i)) : (T)(0x3c00 + i % 512);
    return p;
}

int64_t failures_of_all_shapes() {
    int64_t failures = 0;
    for (const std::string &name : instruction_sets())
        for (int d : {4, 7, 36, 128})
            for (int heads : {1, 3, 4, 9})
                for (int tokens : {1, 17, 65, 520}) {
                    const int rows = 3;
                    HeadMap map;
                    for (int h = 0; h < heads; ++h) map.head_of_slot.push_back(h);
                    map.first_slot = {0, heads};
                    const size_t cache_size = (size_t)rows * tokens * d, q_size = (size_t)rows * heads * d;
                    const std::vector<int64_t> lengths{tokens, (tokens + 1) / 2, 1};
                    for (Element element : {Element::float32, Element::bfloat16}) {
                        const bool wide = element == Element::float32;
                        auto qf = filled<float>(q_size), kf = filled<float>(cache_size), vf = filled<float>(cache_size), of = filled<float>(q_size);
                        auto qh = filled<uint16_t>(q_size), kh = filled<uint16_t>(cache_size), vh = filled<uint16_t>(cache_size), oh = filled<uint16_t>(q_size);
                        Cache cache;
                        cache.k = wide ? (const char *)kf.get() : (const char *)kh.get();
                        cache.v = wide ? (const char *)vf.get() : (const char *)vh.get();
                        cache.element = element;
                        cache.k_row = cache.v_row = (ptrdiff_t)tokens * d;
                        cache.k_token = cache.v_token = cache.k_head = cache.v_head = d;
                        const Call call{rows, d, 3, 0.1f, map, Queries{wide ? (const char *)qf.get() : (const char *)qh.get(), element, heads * d, d},
                                        lengths.data(), false, wide ? (char *)of.get() : (char *)oh.get(), functions_of(name)};
                        Cache prefix = cache;
                        prefix.k_row = prefix.v_row = 0;
                        failures += attend(call, cache, nullptr, 0) >= 0;
                        failures += attend(call, cache, &prefix, tokens) >= 0;
                    }
                    if (d % 4 == 0) {
                        const int64_t capacity = (tokens + 15) / 16 * 16;
                        const size_t bytes = (size_t)rows * capacity * d, scales = (size_t)rows * capacity;
                        std::unique_ptr<uint8_t[]> k(new uint8_t[bytes]()), v(new uint8_t[bytes]());
                        std::unique_ptr<float[]> ks(new float[scales]()), vs(new float[scales]());
                        auto q = filled<float>(q_size), out = filled<float>(q_size), added = filled<float>(cache_size);
                        const std::vector<int64_t> positions(rows, 0);
                        append(QuantTarget{k.get(), v.get(), ks.get(), vs.get(), 1, d, capacity}, added.get(), added.get(), rows, tokens, positions.data());
                        const Call call{rows, d, 3, 0.1f, map, Queries{(const char *)q.get(), Element::float32, heads * d, d}, lengths.data(), false,
                                        (char *)out.get(), functions_of(name)};
                        failures += attend_int8(call, QuantCache{k.get(), v.get(), ks.get(), vs.get(), capacity}) >= 0;
                    }
                }
    return failures;
}

int main(int argc, char **) {
    int64_t failures = failures_of_all_shapes();
    if (argc > 1) {  // callers that meet: one has the threads that are kept, the other works alone
        int64_t others = 0;
        std::thread other([&] { others = failures_of_all_shapes(); });
        failures += failures_of_all_shapes();
        other.join();
        failures += others;
    }
    std::printf("%lld results that are not finite\n", (long long)failures);
    return failures != 0;
}
