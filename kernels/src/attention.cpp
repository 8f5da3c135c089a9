// Python's door to the attention kernels: every argument is checked here, before any memory of the cache is read.
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "attention_quant.h"
#include "attention_work.h"
#include "pool.h"

namespace nb = nanobind;

namespace {

using namespace attention;
using Input = nb::ndarray<nb::ro, nb::device::cpu>;
using Output = nb::ndarray<nb::device::cpu>;
using Index = nb::ndarray<const int64_t, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const int32_t, nb::ndim<2>, nb::device::cpu>;
using Bytes = nb::ndarray<uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Scales = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

constexpr int64_t kMost = int64_t{1} << 31;

[[noreturn]] void refuse(const std::string &text) { throw std::invalid_argument(text); }
std::string text(int64_t x) { return std::to_string(x); }

template <class A>
Element element_of(const A &array, const char *name) {
    if (array.dtype() == nb::dtype<float>()) return Element::float32;
    if (array.dtype() == nb::dtype<uint16_t>()) return Element::bfloat16;
    refuse(std::string(name) + " has a dtype that is neither float32 nor bfloat16");
}

template <class A>
void check_axes(const A &array, const char *name, size_t axes) {
    if (array.ndim() != axes) refuse(std::string(name) + " has " + text(array.ndim()) + " axes, must have " + text(axes));
    for (size_t i = 0; i < axes; ++i)
        if ((int64_t)array.shape(i) >= kMost) refuse(std::string(name) + " has an axis of " + text(array.shape(i)) + ", must be below 2^31");
    if (array.size() && array.shape(axes - 1) > 1 && array.stride(axes - 1) != 1)
        refuse(std::string(name) + " has stride " + text(array.stride(axes - 1)) + " in its last axis, must be 1");
}

void check_size(const char *name, const char *axis, int64_t value, int64_t wanted) {
    if (value != wanted) refuse(std::string(name) + " has " + text(value) + " " + axis + ", must have " + text(wanted));
}

HeadMap head_map(const Index &kv_of_head, int64_t heads, int64_t kv_heads) {
    if (kv_of_head.ndim() != 1) refuse("kv_of_head has " + text(kv_of_head.ndim()) + " axes, must have 1");
    check_size("kv_of_head", "entries", kv_of_head.shape(0), heads);
    HeadMap map;
    std::vector<int> readers(kv_heads, 0);
    for (int64_t h = 0; h < heads; ++h) {
        const int64_t kv = kv_of_head.data()[h];
        if (kv < 0 || kv >= kv_heads) refuse("kv_of_head[" + text(h) + "] is " + text(kv) + ", must be 0 to " + text(kv_heads - 1));
        ++readers[kv];
    }
    map.first_slot.push_back(0);
    for (int64_t kv = 0; kv < kv_heads; ++kv) {
        if (!readers[kv]) refuse("kv_of_head names no query head for KV head " + text(kv) + ", every KV head must have at least one");
        map.first_slot.push_back(map.first_slot.back() + readers[kv]);
        for (int64_t h = 0; h < heads; ++h)
            if (kv_of_head.data()[h] == kv) map.head_of_slot.push_back((int)h);
    }
    return map;
}

// The first of `count` numbers whose exponent is all ones (NaN or infinity), or count. Whole-number tests, many at a time.
template <class Bits>
int64_t not_finite(const char *data, ptrdiff_t at, int64_t count, Bits exponent) {
    const Bits *bits = reinterpret_cast<const Bits *>(data) + at;
    Bits any = 0;
    for (int64_t x = 0; x < count; ++x) any |= (Bits)((bits[x] & exponent) == exponent);
    if (!any) return count;
    int64_t x = 0;
    while ((bits[x] & exponent) != exponent) ++x;
    return x;
}

// What all calls share: queries (rows, heads, d), the map, the scale, threads, the result.
Call make_call(const Input &q, const Index &kv_of_head, int64_t kv_heads, int64_t d, const Index &lengths, int64_t least, int64_t most, double scale,
               int threads, const std::string &instructions, Output &out) {
    check_axes(q, "q", 3);
    const Element element = element_of(q, "q");
    if (!q.shape(0) || !q.shape(1) || !q.shape(2)) refuse("q is empty, must have at least one row, head and dim");
    check_size("q", "dims a head", q.shape(2), d);
    if (d > 1024) refuse("q has " + text(d) + " dims a head, must have at most 1024");
    if (!kv_heads) refuse("k has 0 KV heads, must have at least 1");
    if (!std::isfinite(scale)) refuse("scale is not a finite number");
    if (threads < 1 || threads > 1024) refuse("threads is " + text(threads) + ", must be 1 to 1024");
    const Functions *functions = functions_of(instructions);
    if (!functions) refuse("instructions is '" + instructions + "', which this machine does not have");
    const int rows = (int)q.shape(0);
    const bool per_head = lengths.ndim() == 2;
    if (lengths.ndim() != 1 && !per_head) refuse("lengths has " + text(lengths.ndim()) + " axes, must have 1 (rows) or 2 (rows, KV heads)");
    check_size("lengths", "rows", lengths.shape(0), rows);
    if (per_head) check_size("lengths", "KV heads", lengths.shape(1), kv_heads);
    for (size_t i = 0; i < lengths.size(); ++i)
        if (lengths.data()[i] < least || lengths.data()[i] > most)
            refuse("lengths[" + text(per_head ? i / kv_heads : i) + "] is " + text(lengths.data()[i]) + ", must be " + text(least) + " to " + text(most));
    check_axes(out, "out", 3);
    if (out.dtype() != q.dtype() || out.shape(0) != q.shape(0) || out.shape(1) != q.shape(1) || out.shape(2) != q.shape(2) ||
        (out.shape(1) > 1 && out.stride(1) != d) || (out.shape(0) > 1 && out.stride(0) != d * (int64_t)q.shape(1)))
        refuse("out must be contiguous, of the shape and dtype of q");
    Call call{rows, (int)d, threads, (float)scale, head_map(kv_of_head, q.shape(1), kv_heads),
              Queries{static_cast<const char *>(q.data()), element, q.stride(0), q.stride(1)},
              lengths.data(), per_head, static_cast<char *>(out.data()), functions};
    for (int b = 0; b < rows; ++b)
        for (size_t h = 0; h < q.shape(1); ++h) {
            const ptrdiff_t at = b * call.q.row + (ptrdiff_t)h * call.q.head;
            const int64_t bad = element == Element::float32 ? not_finite<uint32_t>(call.q.data, at, d, 0x7f800000u) : not_finite<uint16_t>(call.q.data, at, d, 0x7f80u);
            if (bad < d) refuse("q[" + text(b) + ", " + text(h) + ", " + text(bad) + "] is not a finite number");
        }
    return call;
}

// Keys and values of shape (blocks, tokens, kv heads, d), or (tokens, kv heads, d) with one block.
Cache make_cache(const Input &k, const Input &v, const char *k_name, const char *v_name, size_t axes, Element element) {
    check_axes(k, k_name, axes);
    check_axes(v, v_name, axes);
    if (element_of(k, k_name) != element || element_of(v, v_name) != element)
        refuse(std::string(k_name) + " and " + v_name + " must have the dtype of q");
    for (size_t i = 0; i < axes; ++i)
        if (k.shape(i) != v.shape(i))
            refuse(std::string(v_name) + " has " + text(v.shape(i)) + " entries in axis " + text(i) + ", must have " + text(k.shape(i)) + " as " + k_name);
    Cache cache;
    cache.k = static_cast<const char *>(k.data());
    cache.v = static_cast<const char *>(v.data());
    cache.element = element;
    const size_t token = axes - 3;
    if (axes == 4) {
        cache.k_row = k.stride(0);
        cache.v_row = v.stride(0);
    }
    cache.k_token = k.stride(token);
    cache.v_token = v.stride(token);
    cache.k_head = k.stride(token + 1);
    cache.v_head = v.stride(token + 1);
    return cache;
}

void check_finite(int64_t bad, int64_t heads) {
    if (bad >= 0)
        refuse("result of row " + text(bad / heads) + ", head " + text(bad % heads) + " is not a finite number: k or v holds NaN or infinity, or a score overflows");
}

void decode(const Input &q, const Input &k, const Input &v, const Index &kv_of_head, const Index &lengths, double scale, int threads,
            const std::string &instructions, Output out) {
    check_axes(q, "q", 3);
    check_axes(k, "k", 4);
    Call call = make_call(q, kv_of_head, k.shape(2), k.shape(3), lengths, 1, k.shape(1), scale, threads, instructions, out);
    const Cache cache = make_cache(k, v, "k", "v", 4, call.q.element);
    check_size("k", "rows", k.shape(0), call.rows);
    int64_t bad;
    {
        nb::gil_scoped_release release;
        bad = attend(call, cache, nullptr, 0);
    }
    check_finite(bad, call.map.heads());
}

void decode_paged(const Input &q, const Input &k, const Input &v, const Table &table, const Index &lengths, const Index &kv_of_head, double scale,
                  int threads, const std::string &instructions, Output out) {
    check_axes(q, "q", 3);
    check_axes(k, "k_pages", 4);
    const int64_t page = k.shape(1), pages = k.shape(0);
    if (!page) refuse("k_pages has pages of 0 tokens, must have at least 1");
    Call call = make_call(q, kv_of_head, k.shape(2), k.shape(3), lengths, 1, page * (int64_t)table.shape(1), scale, threads, instructions, out);
    Cache cache = make_cache(k, v, "k_pages", "v_pages", 4, call.q.element);
    check_size("block_table", "rows", table.shape(0), call.rows);
    if (table.shape(1) > 1 && table.stride(1) != 1) refuse("block_table has stride " + text(table.stride(1)) + " in its last axis, must be 1");
    for (int b = 0; b < call.rows; ++b) {
        int64_t longest = 0;
        for (int kv = 0; kv < call.map.kv_heads(); ++kv) longest = std::max(longest, call.length(b, kv));
        for (int64_t i = 0; i < (longest + page - 1) / page; ++i) {
            const int64_t named = table.data()[b * table.stride(0) + i];
            if (named < 0 || named >= pages) refuse("block_table[" + text(b) + ", " + text(i) + "] is " + text(named) + ", must be 0 to " + text(pages - 1));
        }
    }
    cache.table = table.data();
    cache.table_row = table.stride(0);
    cache.page = page;
    int64_t bad;
    {
        nb::gil_scoped_release release;
        bad = attend(call, cache, nullptr, 0);
    }
    check_finite(bad, call.map.heads());
}

void decode_shared(const Input &q, const Input &prefix_k, const Input &prefix_v, const Input &k, const Input &v, const Index &kv_of_head,
                   const Index &lengths, double scale, int threads, const std::string &instructions, Output out) {
    check_axes(q, "q", 3);
    check_axes(k, "k", 4);
    check_axes(prefix_k, "prefix_k", 3);
    Call call = make_call(q, kv_of_head, k.shape(2), k.shape(3), lengths, 0, k.shape(1), scale, threads, instructions, out);
    const Cache cache = make_cache(k, v, "k", "v", 4, call.q.element);
    check_size("k", "rows", k.shape(0), call.rows);
    const Cache prefix = make_cache(prefix_k, prefix_v, "prefix_k", "prefix_v", 3, call.q.element);
    if (!prefix_k.shape(0)) refuse("prefix_k has 0 tokens, must have at least 1");
    check_size("prefix_k", "KV heads", prefix_k.shape(1), k.shape(2));
    check_size("prefix_k", "dims a head", prefix_k.shape(2), call.d);
    int64_t bad;
    {
        nb::gil_scoped_release release;
        bad = attend(call, cache, &prefix, prefix_k.shape(0));
    }
    check_finite(bad, call.map.heads());
}

// k and v (rows, kv heads, capacity, d) bytes in blocks of 16 tokens, scales (rows, kv heads, capacity).
int64_t check_quantised(const Bytes &k, const Bytes &v, const Scales &k_scale, const Scales &v_scale) {
    const int64_t capacity = k.shape(2), d = k.shape(3);
    for (size_t i = 0; i < 4; ++i) check_size("v", "entries in an axis", v.shape(i), k.shape(i));
    for (const Scales *scales : {&k_scale, &v_scale})
        for (size_t i = 0; i < 3; ++i) check_size("scales", "entries in an axis", scales->shape(i), k.shape(i));
    if (capacity % kQuantBlock || !capacity || capacity >= kMost) refuse("capacity is " + text(capacity) + ", must be a multiple of " + text(kQuantBlock));
    if (d % 4 || d < 4 || d > 256) refuse("a quantised cache has " + text(d) + " dims a head, must have a multiple of 4 up to 256");
    return capacity;
}

void decode_int8(const Input &q, const Bytes &k, const Bytes &v, const Scales &k_scale, const Scales &v_scale, const Index &kv_of_head,
                 const Index &lengths, double scale, int threads, const std::string &instructions, Output out) {
    check_axes(q, "q", 3);
    const int64_t capacity = check_quantised(k, v, k_scale, v_scale);
    Call call = make_call(q, kv_of_head, k.shape(1), k.shape(3), lengths, 1, capacity, scale, threads, instructions, out);
    check_size("k", "rows", k.shape(0), call.rows);
    int64_t bad;
    {
        nb::gil_scoped_release release;
        bad = attend_int8(call, QuantCache{k.data(), v.data(), k_scale.data(), v_scale.data(), capacity});
    }
    check_finite(bad, call.map.heads());
}

void append_int8(Bytes k, Bytes v, Scales k_scale, Scales v_scale, const Tokens &new_k, const Tokens &new_v, const Index &positions) {
    const int64_t capacity = check_quantised(k, v, k_scale, v_scale);
    for (size_t i = 0; i < 4; ++i) check_size("v", "entries in an axis", new_v.shape(i), new_k.shape(i));
    check_size("k", "rows", new_k.shape(0), k.shape(0));
    check_size("k", "KV heads", new_k.shape(2), k.shape(1));
    check_size("k", "dims a head", new_k.shape(3), k.shape(3));
    if (positions.ndim() != 1) refuse("positions has " + text(positions.ndim()) + " axes, must have 1");
    check_size("positions", "rows", positions.shape(0), k.shape(0));
    const int64_t tokens = new_k.shape(1);
    for (size_t b = 0; b < positions.shape(0); ++b)
        if (positions.data()[b] < 0 || positions.data()[b] > capacity - tokens)
            refuse("positions[" + text(b) + "] is " + text(positions.data()[b]) + ", must be 0 to " + text(capacity - tokens) + " for " + text(tokens) +
                   " tokens in a cache of " + text(capacity));
    for (const Tokens *added : {&new_k, &new_v})
        for (size_t i = 0; i < added->size(); ++i)
            if (!std::isfinite(added->data()[i])) refuse("k or v holds a number that is not finite");
    nb::gil_scoped_release release;
    append(QuantTarget{k.data(), v.data(), k_scale.data(), v_scale.data(), (int)k.shape(1), (int)k.shape(3), capacity}, new_k.data(), new_v.data(),
           (int)k.shape(0), (int)tokens, positions.data());
}

}  // namespace

void bind_attention(nb::module_ &m) {
    m.def("attention_instruction_sets", &instruction_sets, "Instruction sets of this machine that the attention kernels are compiled for, best first.");
    m.def("pool_threads", &pool::kept_threads, "Threads that are kept between calls at present.");
    m.def("attention_decode", &decode, "Decode attention over a cache (rows, tokens, KV heads, d).");
    m.def("attention_decode_paged", &decode_paged, "Decode attention over pages (pages, tokens, KV heads, d).");
    m.def("attention_decode_shared", &decode_shared, "Decode attention over a prefix that all rows share and a cache of each row.");
    m.def("attention_decode_int8", &decode_int8, "Decode attention over the quantised cache.");
    m.def("attention_append_int8", &append_int8, "Write tokens into the quantised cache.");
}
