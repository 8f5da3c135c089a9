// Work of one call: caches, query heads in the order of their KV heads, and the functions that attend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "attention.h"

namespace attention {

enum class Element { float32, bfloat16 };

// Which query heads read which KV head: slots are query heads in the order of their KV heads.
struct HeadMap {
    std::vector<int> head_of_slot;
    std::vector<int> first_slot;  // (kv heads + 1)
    int heads() const { return (int)head_of_slot.size(); }
    int kv_heads() const { return (int)first_slot.size() - 1; }
};

// Keys and values; strides in elements. Paged: `table` (rows, blocks) names the page of every block of `page` tokens.
struct Cache {
    const char *k = nullptr, *v = nullptr;
    Element element = Element::float32;
    ptrdiff_t k_row = 0, k_token = 0, k_head = 0, v_row = 0, v_token = 0, v_head = 0;
    const int32_t *table = nullptr;
    ptrdiff_t table_row = 0;
    int64_t page = 0;
};

// The quantised cache: see QuantRun; `capacity` tokens, a multiple of kQuantBlock.
struct QuantCache {
    const uint8_t *k, *v;
    const float *k_scale, *v_scale;
    int64_t capacity;
};

struct Queries {
    const char *data;
    Element element;
    ptrdiff_t row, head;  // strides in elements
};

struct Call {
    int rows, d, threads;
    float scale;
    HeadMap map;
    Queries q;
    const int64_t *lengths;  // (rows) or (rows, kv heads)
    bool per_head;           // which of the two
    char *out;               // (rows, heads, d) of q's element
    const Functions *functions;
    int64_t length(int row, int kv) const { return lengths[per_head ? (ptrdiff_t)row * map.kv_heads() + kv : row]; }
};

// Each returns -1, or the index row * heads + head of an output that is not a number.
int64_t attend(const Call &call, const Cache &cache, const Cache *prefix, int64_t prefix_tokens);
int64_t attend_int8(const Call &call, const QuantCache &cache);

// Functions of an instruction set by name ("" the best that the machine has); nullptr where it has not got them.
const Functions *functions_of(const std::string &name);
std::vector<std::string> instruction_sets();

}  // namespace attention
