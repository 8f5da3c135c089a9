// From columns of weights to chunks; see xmc_format.h.
#pragma once

#include "xmc_format.h"

namespace xmc {

// Compressed sparse columns; order[p] is the column that stands at position p. row (int32) and value (float) may stand at any address: those
// of a mapped archive do.
struct Columns {
    const int64_t *start;
    const uint8_t *row, *value;
    uint64_t rows, columns, nonzeros;
    const uint32_t *order;
    uint64_t positions;

    int32_t row_at(int64_t i) const {
        int32_t held;
        std::memcpy(&held, row + 4 * i, 4);
        return held;
    }
    float value_at(int64_t i) const {
        float held;
        std::memcpy(&held, value + 4 * i, 4);
        return held;
    }
};

struct Layout {
    uint32_t values, hash_bits;
    bool has_bias;  // the last row of W
    float bias;
    uint64_t position_start, blob_start;  // where this part begins in its level
};

struct Built {
    std::vector<Chunk> chunks;
    std::vector<float> bias, scale;
    std::vector<uint8_t> blob;
};

// What is wrong with a matrix, and in which column.
struct Fault {
    enum Kind { kNone, kOutside, kNotFinite, kUnsorted } kind;
    uint64_t column;
};

// Row indices inside 0 .. rows - 1, values finite and, with `ordered`, row indices rising within a column: the first column where they
// are not, of `in` whose start rises from 0 to nonzeros. (`in.order` is not read.)
Fault check_columns(const Columns &in, bool ordered);

// Chunk i has the positions chunk_first[i] .. chunk_first[i + 1] - 1 of `in`. Throws std::invalid_argument naming the field.
Built build(const Columns &in, const Layout &layout, const uint32_t *chunk_first, uint64_t chunks);

}  // namespace xmc
