// Decode attention over whole calls: units of work, threads, and the merge of partial results.
//
// A unit is a fixed range of tokens of one row (and some of its KV heads), or of the shared prefix. Every unit writes a partial
// result of its own, and a row's partial results are merged in the order of their tokens: the answer has the same bits for any
// number of threads.
#include "attention_work.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "pool.h"

namespace attention {

namespace {

constexpr int64_t kSegment = 512;      // tokens of one partial result: 1 to 6 % of the cache's bytes are written for it
constexpr int64_t kPrefixSegment = 1024;  // the same for a shared prefix, whose partial results are of all rows
constexpr int kQueriesAtOnce = 256;    // of a shared prefix: their running sums stay in the second cache
constexpr int64_t kAheadBytes = 384 * 1024;  // of keys and values that one block of tokens of all heads may take: what is fetched ahead must fit
constexpr int64_t kOutputsToShare = 1 << 15;  // numbers of a result below which threads are not worth a meeting before and after the sums
constexpr float kNothing = -3.0e38f;

struct Partials {
    float *m, *l, *acc;  // (parts, count), (parts, count), (parts, count, d)
};

float widened(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
}

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

uint16_t narrowed(float x) {
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Memory of one call, kept by the calling thread: fresh pages would cost more than the sums of a short context.
float *room(size_t floats) {
    static thread_local std::vector<float> kept;
    if (kept.size() < floats + 16) kept.resize(floats + 16);
    const uintptr_t at = reinterpret_cast<uintptr_t>(kept.data());
    return kept.data() + (64 - at % 64) % 64 / 4;
}

size_t rounded(size_t floats) { return (floats + 15) / 16 * 16; }

// work(unit, worker) for every unit; who takes which depends on who is free.
template <class Work>
void share(int64_t units, int threads, Work &&work) {
    struct Shared {
        Work &work;
        const int64_t units;
        std::atomic<int64_t> next{0};
    } shared{work, units};
    pool::run((int)std::min<int64_t>(threads, units),
              [](void *context, int worker) {
                  Shared &s = *static_cast<Shared *>(context);
                  for (int64_t unit; (unit = s.next.fetch_add(1)) < s.units;) s.work(unit, worker);
              },
              &shared);
}

// The same over rows, in one thread where a row is little work.
template <class Work>
void share_rows(const Call &call, Work &&work) {
    const bool little = (int64_t)call.rows * call.map.heads() * call.d < kOutputsToShare;
    share(call.rows, little ? 1 : call.threads, [&](int64_t row, int) { work((int)row); });
}

// Queries as float32 and as bfloat16 bits, (rows, slots, d), or (slots, rows, d) where `by_slot`.
void gather_queries(const Call &call, bool by_slot, float *wide, uint16_t *narrow) {
    const int heads = call.map.heads();
    share_rows(call, [&](int b) {
        for (int slot = 0; slot < heads; ++slot) {
            const ptrdiff_t from = b * call.q.row + call.map.head_of_slot[slot] * call.q.head;
            const ptrdiff_t to = (by_slot ? (ptrdiff_t)slot * call.rows + b : (ptrdiff_t)b * heads + slot) * call.d;
            if (call.q.element == Element::float32) {
                const float *q = reinterpret_cast<const float *>(call.q.data) + from;
                std::memcpy(wide + to, q, sizeof(float) * call.d);
                if (narrow)
                    for (int x = 0; x < call.d; ++x) narrow[to + x] = narrowed(q[x]);
            } else {
                const uint16_t *q = reinterpret_cast<const uint16_t *>(call.q.data) + from;
                for (int x = 0; x < call.d; ++x) wide[to + x] = widened(q[x]);
                if (narrow) std::memcpy(narrow + to, q, sizeof(uint16_t) * call.d);
            }
        }
    });
}

void clear(const Partials &p, int64_t first, int64_t count, int d) {
    std::fill_n(p.m + first, count, kNothing);
    std::fill_n(p.l + first, count, 0.0f);
    std::fill_n(p.acc + first * d, count * d, 0.0f);
}

// Ranges of tokens of every row: parts of row b are first[b] .. first[b + 1].
struct Parts {
    std::vector<int64_t> first;
    std::vector<int32_t> row;
    int64_t count() const { return first.back(); }
};

Parts cut(const Call &call) {
    Parts parts;
    parts.first.push_back(0);
    for (int b = 0; b < call.rows; ++b) {
        int64_t longest = 0;
        for (int kv = 0; kv < (call.per_head ? call.map.kv_heads() : 1); ++kv) longest = std::max(longest, call.length(b, kv));
        const int64_t pieces = (longest + kSegment - 1) / kSegment;
        parts.first.push_back(parts.first.back() + pieces);
        parts.row.insert(parts.row.end(), pieces, b);
    }
    return parts;
}

// How many groups of KV heads the parts are divided into so that every thread has something to do.
int head_groups(int64_t parts, int threads, int kv_heads) {
    if (threads == 1 || parts >= 2 * threads) return 1;
    return (int)std::min<int64_t>(kv_heads, (2 * threads + parts - 1) / std::max<int64_t>(parts, 1));
}

// Merge: per (row, slot) the partial results of its parts, and those of the prefix.
int64_t merge(const Call &call, const Parts &parts, const Partials &own, const Partials *prefix, int64_t prefix_parts) {
    const int heads = call.map.heads(), d = call.d;
    std::vector<int64_t> bad(call.rows, -1);  // of each row
    share_rows(call, [&](int b) {
        std::vector<float> sum(d);
        for (int slot = 0; slot < heads; ++slot) {
            const int64_t begin = parts.first[b], own_parts = parts.first[b + 1] - begin;
            float high = kNothing, whole = 0.0f;
            auto index = [&](int64_t i) {
                return i < prefix_parts ? (i * heads + slot) * call.rows + b : (begin + i - prefix_parts) * heads + slot;
            };
            for (int64_t i = 0; i < prefix_parts + own_parts; ++i) high = std::max(high, (i < prefix_parts ? *prefix : own).m[index(i)]);
            std::fill(sum.begin(), sum.end(), 0.0f);
            for (int64_t i = 0; i < prefix_parts + own_parts; ++i) {
                const Partials &from = i < prefix_parts ? *prefix : own;
                const int64_t at = index(i);
                if (from.l[at] == 0.0f) continue;
                const float weight = std::exp2(from.m[at] - high);
                whole += from.l[at] * weight;
                const float *acc = from.acc + at * d;
                for (int x = 0; x < d; ++x) sum[x] += acc[x] * weight;
            }
            const float by = 1.0f / whole;
            const int head = call.map.head_of_slot[slot];
            const ptrdiff_t to = ((ptrdiff_t)b * heads + head) * d;
            uint32_t odd = 0;  // whole-number tests of the exponent: what a compiler can do on several numbers at once
            for (int x = 0; x < d; ++x) {
                sum[x] *= by;
                odd |= (bits_of(sum[x]) & 0x7f800000) == 0x7f800000;
            }
            if (odd && bad[b] < 0) bad[b] = (int64_t)b * heads + head;
            if (call.q.element == Element::float32) {
                std::memcpy(reinterpret_cast<float *>(call.out) + to, sum.data(), sizeof(float) * d);
            } else {
                uint16_t *out = reinterpret_cast<uint16_t *>(call.out) + to;
                for (int x = 0; x < d; ++x) out[x] = narrowed(sum[x]);
            }
        }
    });
    for (int64_t found : bad)
        if (found >= 0) return found;
    return -1;
}

// Where token t of a KV head lies.
void locate(const Cache &cache, int row, int kv, int64_t t, const char **k, const char **v) {
    const ptrdiff_t size = cache.element == Element::float32 ? 4 : 2;
    ptrdiff_t block = row, inside = t;
    if (cache.table) {
        block = cache.table[row * cache.table_row + t / cache.page];
        inside = t % cache.page;
    }
    *k = cache.k + (block * cache.k_row + inside * cache.k_token + kv * cache.k_head) * size;
    *v = cache.v + (block * cache.v_row + inside * cache.v_token + kv * cache.v_head) * size;
}

struct Range {
    int64_t begin, end;
    int kv_begin, kv_end;
};

void run_part(const Call &call, const Cache &cache, int row, const Range &range, const float *q, const uint16_t *q16, const Partials &p, int64_t part,
              float *scratch) {
    const int heads = call.map.heads(), d = call.d;
    const bool wide = cache.element == Element::float32;
    const bool tokens_outside = cache.k_token > cache.k_head;
    int64_t step = kBlock;
    if (tokens_outside) {
        step = kBlock / 2;  // fewer rows apart in memory are followed better
        const int64_t token_bytes = 2LL * call.map.kv_heads() * d * (wide ? 4 : 2);
        while (step > 16 && step * token_bytes > kAheadBytes) step /= 2;
    }
    // Blocks end at multiples of `step`, and at the ends of pages.
    auto after = [&](int64_t t) { return t + (cache.table ? std::min(step - t % step, cache.page - t % cache.page) : step - t % step); };
    auto tokens = [&](int kv, int64_t t) { return std::min({after(t), range.end, call.length(row, kv)}) - t; };
    auto block = [&](int kv, int64_t t, int next_kv, int64_t next_t) {
        const int first = call.map.first_slot[kv], count = call.map.first_slot[kv + 1] - first;
        const int64_t n = tokens(kv, t);
        if (n <= 0) return;
        const char *k, *v, *k_ahead = nullptr, *v_ahead = nullptr;
        locate(cache, row, kv, t, &k, &v);
        int64_t n_ahead = next_kv < range.kv_end && next_t < range.end ? std::max<int64_t>(0, tokens(next_kv, next_t)) : 0;
        if (n_ahead) locate(cache, row, next_kv, next_t, &k_ahead, &v_ahead);
        const int64_t at = part * heads + first;
        const Heads group{q + (ptrdiff_t)first * d, q16 ? q16 + (ptrdiff_t)first * d : nullptr, count, d, call.scale * 1.44269504f, p.m + at, p.l + at, p.acc + at * d};
        const Run run{k, v, cache.k_token, cache.v_token, (int)n, k_ahead, v_ahead, (int)n_ahead};
        (wide ? call.functions->run_f32 : call.functions->run_bf16)(group, run, scratch);
    };
    if (tokens_outside) {
        for (int64_t t = range.begin; t < range.end; t = after(t))
            for (int kv = range.kv_begin; kv < range.kv_end; ++kv) block(kv, t, kv, after(t));
    } else {
        for (int kv = range.kv_begin; kv < range.kv_end; ++kv)
            for (int64_t t = range.begin; t < range.end; t = after(t)) {
                const bool last = after(t) >= std::min(range.end, call.length(row, kv));
                block(kv, t, last ? kv + 1 : kv, last ? range.begin : after(t));
            }
    }
}

}  // namespace

int64_t attend(const Call &call, const Cache &cache, const Cache *prefix, int64_t prefix_tokens) {
    const int heads = call.map.heads(), kv_heads = call.map.kv_heads(), d = call.d;
    const bool narrow = cache.element == Element::bfloat16;
    const Parts parts = cut(call);
    const int64_t prefix_parts = prefix ? (prefix_tokens + kPrefixSegment - 1) / kPrefixSegment : 0;
    const int64_t outputs = (int64_t)call.rows * heads, results = parts.count() * heads + prefix_parts * outputs;
    int at_once = heads;  // the most query heads that one block function sees
    if (prefix) at_once = std::max<int64_t>(heads, std::min<int64_t>(kQueriesAtOnce, outputs));
    const size_t each = rounded(scratch_floats(at_once, d));
    const size_t copies = prefix ? 2 : 1, q_floats = rounded(outputs * d), q16_floats = narrow ? rounded((outputs * d + 1) / 2) : 0;
    float *const base = room(copies * (q_floats + q16_floats) + rounded(results * (d + 2) + 64) + each * call.threads);
    float *at = base;
    float *q = at;
    uint16_t *q16 = narrow ? reinterpret_cast<uint16_t *>(at + q_floats) : nullptr;
    at += q_floats + q16_floats;
    gather_queries(call, false, q, q16);
    float *prefix_q = nullptr;
    uint16_t *prefix_q16 = nullptr;
    if (prefix) {
        prefix_q = at;
        prefix_q16 = narrow ? reinterpret_cast<uint16_t *>(at + q_floats) : nullptr;
        at += q_floats + q16_floats;
        gather_queries(call, true, prefix_q, prefix_q16);
    }
    const int64_t own_results = parts.count() * heads, prefix_results = prefix_parts * outputs;
    const Partials own{at, at + own_results, at + 2 * own_results};
    at += own_results * (d + 2);
    const Partials shared{at, at + prefix_results, at + 2 * prefix_results};
    float *scratch = base + copies * (q_floats + q16_floats) + rounded(results * (d + 2) + 64);

    // Units of the prefix come first, being the longest: (part, kv head, run of queries of that head).
    struct PrefixUnit {
        int64_t part;
        int kv, first, count;
    };
    std::vector<PrefixUnit> prefix_units;
    for (int64_t part = 0; part < prefix_parts; ++part)
        for (int kv = 0; kv < kv_heads; ++kv) {
            const int queries = (call.map.first_slot[kv + 1] - call.map.first_slot[kv]) * call.rows;
            for (int first = 0; first < queries; first += kQueriesAtOnce)
                prefix_units.push_back({part, kv, first, std::min(kQueriesAtOnce, queries - first)});
        }
    const int groups = head_groups(parts.count(), call.threads, kv_heads);
    const int64_t leading = (int64_t)prefix_units.size();
    share(leading + parts.count() * groups, call.threads, [&](int64_t unit, int worker) {
        if (unit < leading) {
            const PrefixUnit &u = prefix_units[unit];
            const int64_t query = (int64_t)call.map.first_slot[u.kv] * call.rows + u.first, result = u.part * outputs + query;
            clear(shared, result, u.count, d);
            const Heads group{prefix_q + query * d, prefix_q16 ? prefix_q16 + query * d : nullptr, u.count, d, call.scale * 1.44269504f,
                              shared.m + result, shared.l + result, shared.acc + result * d};
            const int64_t end = std::min(prefix_tokens, (u.part + 1) * kPrefixSegment);
            for (int64_t t = u.part * kPrefixSegment; t < end; t += kBlock) {
                const char *k, *v, *k_ahead = nullptr, *v_ahead = nullptr;
                locate(*prefix, 0, u.kv, t, &k, &v);
                const int64_t n = std::min<int64_t>(kBlock, end - t), n_ahead = std::max<int64_t>(0, std::min<int64_t>(kBlock, end - t - n));
                if (n_ahead) locate(*prefix, 0, u.kv, t + n, &k_ahead, &v_ahead);
                const Run run{k, v, prefix->k_token, prefix->v_token, (int)n, k_ahead, v_ahead, (int)n_ahead};
                (narrow ? call.functions->run_bf16 : call.functions->run_f32)(group, run, scratch + worker * each);
            }
            return;
        }
        const int64_t part = (unit - leading) / groups;
        const int group = (int)((unit - leading) % groups), row = parts.row[part];
        const int64_t begin = (part - parts.first[row]) * kSegment;
        const Range range{begin, begin + kSegment, group * kv_heads / groups, (group + 1) * kv_heads / groups};
        const int first = call.map.first_slot[range.kv_begin], last = call.map.first_slot[range.kv_end];
        clear(own, part * heads + first, last - first, d);
        int64_t longest = 0;
        for (int kv = range.kv_begin; kv < range.kv_end; ++kv) longest = std::max(longest, call.length(row, kv));
        const Range inside{begin, std::min(range.end, longest), range.kv_begin, range.kv_end};
        run_part(call, cache, row, inside, q + (ptrdiff_t)row * heads * d, q16 ? q16 + (ptrdiff_t)row * heads * d : nullptr, own, part, scratch + worker * each);
    });
    return merge(call, parts, own, prefix ? &shared : nullptr, prefix_parts);
}

int64_t attend_int8(const Call &call, const QuantCache &cache) {
    const int heads = call.map.heads(), kv_heads = call.map.kv_heads(), d = call.d;
    const Parts parts = cut(call);
    const int64_t outputs = (int64_t)call.rows * heads, results = parts.count() * heads;
    const size_t q_floats = rounded(outputs * d), each = rounded(scratch_floats(heads, d));
    float *q = room(q_floats + rounded(results * (d + 2) + 64) + each * call.threads);
    const Partials own{q + q_floats, q + q_floats + results, q + q_floats + 2 * results};
    float *scratch = q + q_floats + rounded(results * (d + 2) + 64);
    gather_queries(call, false, q, nullptr);
    std::vector<int8_t> high(outputs * d), low(outputs * d);
    std::vector<int32_t> sum(outputs);
    std::vector<float> step(outputs);
    share_rows(call, [&](int b) {
        for (int64_t i = (int64_t)b * heads; i < (int64_t)(b + 1) * heads; ++i)
            call.functions->query_bytes(q + i * d, d, high.data() + i * d, low.data() + i * d, sum.data() + i, step.data() + i);
    });
    const int groups = head_groups(parts.count(), call.threads, kv_heads);
    share(parts.count() * groups, call.threads, [&](int64_t unit, int worker) {
        const int64_t part = unit / groups;
        const int group = (int)(unit % groups), row = parts.row[part];
        const int kv_begin = group * kv_heads / groups, kv_end = (group + 1) * kv_heads / groups;
        clear(own, part * heads + call.map.first_slot[kv_begin], call.map.first_slot[kv_end] - call.map.first_slot[kv_begin], d);
        const int64_t begin = (part - parts.first[row]) * kSegment;
        for (int kv = kv_begin; kv < kv_end; ++kv) {
            const int first = call.map.first_slot[kv], count = call.map.first_slot[kv + 1] - first;
            const int64_t end = std::min(begin + kSegment, call.length(row, kv)), at = (int64_t)row * heads + first, result = part * heads + first;
            const QuantHeads queries{high.data() + at * d, low.data() + at * d, sum.data() + at, step.data() + at, count, d,
                                     call.scale * 1.44269504f, own.m + result, own.l + result, own.acc + result * d};
            const int64_t base = ((int64_t)row * kv_heads + kv) * cache.capacity;
            for (int64_t t = begin; t < end; t += kBlock) {
                // What follows is the next run of this KV head, or the first of the next one, which lies a capacity further on.
                const int64_t next = t + kBlock < end ? base + t + kBlock : kv + 1 < kv_end ? base + cache.capacity + begin : base + t;
                const QuantRun run{cache.k + (base + t) * d, cache.v + (base + t) * d, cache.k_scale + base + t, cache.v_scale + base + t,
                                   (int)std::min<int64_t>(kBlock, end - t), cache.k + next * d, cache.v + next * d};
                call.functions->run_int8(queries, run, scratch + worker * each);
            }
        }
    });
    return merge(call, parts, own, nullptr, 0);
}

namespace {

std::vector<const Functions *> available() {
    std::vector<const Functions *> found;
#if defined(DSE_ATTENTION_X86)
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni")) found.push_back(&avx512_bf16_functions());
    if (avx512) found.push_back(&avx512_functions());
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2_functions());
#endif
    found.push_back(&plain_functions());
    return found;
}

}  // namespace

const Functions *functions_of(const std::string &name) {
    static const std::vector<const Functions *> found = available();
    for (const Functions *each : found)
        if (name.empty() || name == each->name) return each;
    return nullptr;
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Functions *each : available()) names.push_back(each->name);
    return names;
}

}  // namespace attention
