// Columns of a sparse matrix into chunks; see xmc_format.h for the layout.
#include "xmc_build.h"

#include <algorithm>
#include <cmath>

namespace xmc {

namespace {

struct Entry {
    uint32_t h;  // hashed row
    uint32_t column;
    float value;
};

// Stable, by hashed row: eleven bits at a time.
void sort_by_row(std::vector<Entry> &entries, std::vector<Entry> &other, uint32_t bits) {
    other.resize(entries.size());
    for (uint32_t shift = 0; shift < bits; shift += 11) {
        uint32_t start[2049] = {};
        for (const Entry &e : entries) ++start[((e.h >> shift) & 2047u) + 1];
        for (int i = 0; i < 2048; ++i) start[i + 1] += start[i];
        for (const Entry &e : entries) other[start[(e.h >> shift) & 2047u]++] = e;
        entries.swap(other);
    }
}

// IEEE 754 half precision, to nearest, ties to even.
uint16_t half_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const float size = std::fabs(value);
    if (size >= 65520.0f) throw std::invalid_argument("W: a weight beyond 65,504 has no float16");
    if (size < 6.103515625e-05f) {  // below the smallest normal: multiples of 2^-24
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 16777216.0f)));
    }
    std::memcpy(&bits, &size, 4);
    const uint32_t rest = bits & 0x1fffu, kept = (bits - (112u << 23)) >> 13;
    return static_cast<uint16_t>(sign | (kept + (rest > 0x1000u || (rest == 0x1000u && (kept & 1u)))));
}

inline uint8_t *write_value(uint8_t *at, float v, uint32_t values) {
    if (values == kFloat32) {
        std::memcpy(at, &v, 4);
        return at + 4;
    }
    if (values == kFloat16) {
        const uint16_t half = half_of(v);
        std::memcpy(at, &half, 2);
        return at + 2;
    }
    *at = static_cast<uint8_t>(static_cast<int8_t>(v));
    return at + 1;
}

// As it will be stored; zero if nothing is left of it.
float stored(float v, uint32_t values, float scale) {
    if (values == kInt8) return scale > 0.0f ? std::nearbyint(v / scale) : 0.0f;
    if (values == kFloat16 && (half_of(v) & 0x7fffu) == 0) return 0.0f;
    return v;
}

struct Builder {
    const Columns &in;
    const Layout &layout;
    Built &out;
    std::vector<Entry> entries, other;
    std::vector<uint32_t> row_start;  // of each distinct row among the entries
    std::vector<uint8_t> records;     // of the chunk at hand

    void read_columns(uint64_t first, uint64_t width) {
        entries.clear();
        const uint32_t mask = hash_mask(layout.hash_bits);
        for (uint64_t c = 0; c < width; ++c) {
            const uint64_t column = in.order[first + c];
            if (column >= in.columns) throw std::invalid_argument("C: holds a row that W has no column for");
            const int64_t begin = in.start[column], end = in.start[column + 1];
            if (begin < 0 || end < begin || end > static_cast<int64_t>(in.nonzeros))
                throw std::invalid_argument("W: indptr decreases or leaves the data at column " + std::to_string(column));
            float largest = 0.0f, bias = 0.0f;
            int64_t last = -1;
            for (int64_t i = begin; i < end; ++i) {
                const int64_t row = in.row_at(i);
                const float w = in.value_at(i);
                if (row < 0 || row >= static_cast<int64_t>(in.rows))
                    throw std::invalid_argument("W: row index " + std::to_string(row) + " in column " + std::to_string(column) +
                                                " is not in 0.." + std::to_string(in.rows - 1));
                if (row <= last)
                    throw std::invalid_argument("W: row indices of column " + std::to_string(column) + " are " +
                                                (row == last ? "duplicated" : "unsorted") + " at row " + std::to_string(row));
                if (!std::isfinite(w))
                    throw std::invalid_argument("W: weight of row " + std::to_string(row) + ", column " + std::to_string(column) +
                                                " is not a finite number");
                last = row;
                if (layout.has_bias && row + 1 == static_cast<int64_t>(in.rows))
                    bias = layout.bias * w;
                else
                    largest = std::max(largest, std::fabs(w));
            }
            const float scale = layout.values == kInt8 ? largest / 127.0f : 1.0f;
            out.bias.push_back(bias);
            out.scale.push_back(scale);
            for (int64_t i = begin; i < end; ++i) {
                if (layout.has_bias && in.row_at(i) + 1 == static_cast<int64_t>(in.rows)) continue;
                const float v = stored(in.value_at(i), layout.values, scale);
                if (v == 0.0f) continue;
                entries.push_back({(static_cast<uint32_t>(in.row_at(i)) * kMultiplier) & mask, static_cast<uint32_t>(c), v});
            }
        }
        sort_by_row(entries, other, layout.hash_bits);
        row_start.clear();
        for (uint32_t i = 0; i < entries.size(); ++i)
            if (i == 0 || entries[i].h != entries[i - 1].h) row_start.push_back(i);
        row_start.push_back(static_cast<uint32_t>(entries.size()));
    }

    uint64_t rows() const { return row_start.size() - 1; }

    // The fewest buckets with about three rows each, none above what one vector compare takes, and keys of at most 16 bits.
    uint32_t choose_buckets() const {
        uint32_t log = layout.hash_bits > kMaxKeyBits ? layout.hash_bits - kMaxKeyBits : 0;
        while (log < layout.hash_bits && (4ull << log) < rows()) ++log;
        for (; log < layout.hash_bits; ++log) {
            const uint32_t shift = layout.hash_bits - log;
            uint32_t run = 0, most = 0, last = 0;
            for (uint64_t r = 0; r < rows(); ++r) {
                const uint32_t bucket = entries[row_start[r]].h >> shift;
                run = r && bucket == last ? run + 1 : 1;
                last = bucket;
                most = std::max(most, run);
            }
            if (most <= kMaxInBucket) break;
        }
        return log;
    }

    uint8_t *write_row(uint8_t *at, uint64_t r, uint64_t width, uint64_t length) const {
        const Entry *e = entries.data() + row_start[r], *end = entries.data() + row_start[r + 1];
        if (length == width) {
            for (uint64_t c = 0; c < width; ++c) at = write_value(at, e < end && e->column == c ? (e++)->value : 0.0f, layout.values);
            for (uint64_t c = 0; c < width; ++c) *at++ = static_cast<uint8_t>(c);
            return at;
        }
        for (const Entry *i = e; i < end; ++i) at = write_value(at, i->value, layout.values);
        for (const Entry *i = e; i < end; ++i) *at++ = static_cast<uint8_t>(i->column);
        return at;
    }

    void chunk(uint64_t first, uint64_t width) {
        if (width < 1 || width > kMaxWidth) throw std::invalid_argument("chunk_first: a chunk has 1 to 256 columns");
        read_columns(first, width);
        const uint32_t log = choose_buckets(), shift = layout.hash_bits - log;
        out.blob.resize((out.blob.size() + 63) / 64 * 64);
        Chunk c{};
        c.start = layout.blob_start + out.blob.size();
        c.first = static_cast<uint32_t>(layout.position_start + first);
        c.rows = static_cast<uint32_t>(rows());
        c.nonzeros = static_cast<uint32_t>(entries.size());
        c.width = static_cast<uint16_t>(width);
        c.log_buckets = static_cast<uint8_t>(log);
        c.key_bytes = shift <= 8 ? 1 : 2;
        const size_t table = out.blob.size();
        out.blob.resize(table + (4ull << log));
        // At most: a count a bucket; a key of two bytes and a length a row; a row that is held in full is at least half full.
        const uint64_t room = (1ull << log) + 3 * rows() + 2 * entries.size() * (value_bytes(layout.values) + 1);
        if (records.size() < room) records.resize(room);
        uint8_t *at = records.data();
        uint64_t r = 0;
        for (uint64_t bucket = 0; bucket < 1ull << log; ++bucket) {
            const uint32_t offset = static_cast<uint32_t>(at - records.data());
            std::memcpy(out.blob.data() + table + 4 * bucket, &offset, 4);
            const uint64_t begin = r;
            while (r < rows() && (shift >= 32 ? 0u : entries[row_start[r]].h >> shift) == bucket) ++r;
            *at++ = static_cast<uint8_t>(r - begin);
            for (uint64_t i = begin; i < r; ++i) {
                const uint32_t key = entries[row_start[i]].h & hash_mask(shift);
                *at++ = static_cast<uint8_t>(key);
                if (c.key_bytes == 2) *at++ = static_cast<uint8_t>(key >> 8);
            }
            uint8_t *lengths = at;
            at += r - begin;
            for (uint64_t i = begin; i < r; ++i) {
                const uint64_t held = row_start[i + 1] - row_start[i];
                const uint64_t length = width >= 8 && 2 * held >= width ? width : held;
                *lengths++ = static_cast<uint8_t>(length - 1);
                at = write_row(at, i, width, length);
            }
        }
        if (at - records.data() > 0xffffffffll) throw std::invalid_argument("W: a chunk of more than 4 GB");
        out.blob.insert(out.blob.end(), records.data(), at);
        c.bytes = static_cast<uint32_t>(at - records.data());
        out.chunks.push_back(c);
    }
};

}  // namespace

Fault check_columns(const Columns &in, bool ordered) {
    for (uint64_t column = 0; column < in.columns; ++column) {
        int64_t last = -1;
        bool sound = true, finite = true, rising = true;
        for (int64_t i = in.start[column]; i < in.start[column + 1]; ++i) {
            const int64_t row = in.row_at(i);
            sound &= row >= 0 && row < static_cast<int64_t>(in.rows);
            rising &= row > last;
            finite &= std::isfinite(in.value_at(i));
            last = row;
        }
        if (!sound) return {Fault::kOutside, column};
        if (!finite) return {Fault::kNotFinite, column};
        if (ordered && !rising) return {Fault::kUnsorted, column};
    }
    return {Fault::kNone, 0};
}

Built build(const Columns &in, const Layout &layout, const uint32_t *chunk_first, uint64_t chunks) {
    const uint64_t features = in.rows - (layout.has_bias ? 1 : 0);
    if (in.rows < 1 || features < 1 || features - 1 > hash_mask(layout.hash_bits)) throw std::invalid_argument("W: more rows than hash bits hold");
    Built out;
    Builder builder{in, layout, out, {}, {}, {}, {}};
    for (uint64_t i = 0; i < chunks; ++i) {
        if (chunk_first[i + 1] < chunk_first[i] || chunk_first[i + 1] > in.positions)
            throw std::invalid_argument("chunk_first: decreases or leaves the columns");
        builder.chunk(chunk_first[i], chunk_first[i + 1] - chunk_first[i]);
    }
    return out;
}

}  // namespace xmc
