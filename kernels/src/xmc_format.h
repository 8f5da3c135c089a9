// The tree of sparse linear models as one block of bytes that can be mapped from a file and is read in place.
//
//   FileHeader, LevelHeader[levels], then the arrays that the headers name by their offset from the start of the block.
//
// A level scores the children of parents. The children of a parent lie side by side in "positions" (the order of the parent's
// column in C); next level's parents are numbered by position. A chunk is at most 256 neighbouring positions of one parent with the
// weights of all of them: a hash table of rows (features), each row with the few weights it has.
//
//   feature -> h = feature * kMultiplier mod 2^bits (one to one) -> bucket = h >> shift, key = h mod 2^shift
//   chunk   -> uint32 offset[buckets], then the records: n, keys[n], (lengths - 1)[n], per row: values[length], columns[length]
//
// A row with as many entries as the chunk has columns holds them all in order ("full"), zeros included: it is added as a vector.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace xmc {

constexpr char kMagic[8] = {'D', 'S', 'E', 'X', 'M', 'C', '0', '1'};
constexpr uint32_t kMultiplier = 0x9E3779B1u;  // odd, so that multiplication modulo a power of two is one to one
constexpr uint32_t kMaxWidth = 256;            // columns of a chunk: they are numbered in a byte
constexpr uint32_t kMaxInBucket = 16;          // one vector of keys
constexpr uint32_t kMaxKeyBits = 16;
constexpr uint32_t kMaxLevels = 64;
constexpr uint64_t kSlack = 64;  // bytes behind the last record, so that a vector load of keys stays inside

enum Values : uint32_t { kFloat32 = 0, kFloat16 = 1, kInt8 = 2 };

struct FileHeader {
    char magic[8];
    uint32_t levels, values;
    uint64_t features, labels, leaves, bytes;  // features without the bias; leaves: positions of the last level
    uint32_t hash_bits, reserved;
    uint64_t labels_offset;  // uint32 label[leaves]
    uint64_t unused[8];
};
static_assert(sizeof(FileHeader) == 128, "written by dse_kernels.xmc");

struct LevelHeader {
    uint64_t parents, nodes, chunks, nonzeros;
    uint64_t parent_offset;  // uint32 first_chunk[parents + 1]
    uint64_t chunk_offset;   // Chunk[chunks]
    uint64_t bias_offset;    // float[nodes]: bias times its weight
    uint64_t scale_offset;   // float[nodes], int8 only
    uint64_t blob_offset, blob_bytes;
    float bias;
    uint32_t only_topk;
    char post_processor[24];
};
static_assert(sizeof(LevelHeader) == 112, "written by dse_kernels.xmc");

struct Chunk {
    uint64_t start;  // of the offsets, from the blob's start
    uint32_t first;  // position of the first column
    uint32_t rows, bytes, nonzeros;
    uint16_t width;
    uint8_t log_buckets, key_bytes;
    uint32_t reserved;
};
static_assert(sizeof(Chunk) == 32, "written by dse_kernels.xmc");

// What is done to a margin v, and how it meets the parent's score; named as PECOS names them.
struct PostProcessor {
    enum Kind { kNoop, kSigmoid, kLogSigmoid, kHinge, kLogHinge } kind = kNoop;
    int power = 0;
    static PostProcessor of(const std::string &name);  // throws std::invalid_argument
};

struct Level {
    LevelHeader head;
    const uint32_t *first_chunk;
    const Chunk *chunks;
    const float *bias, *scale;
    const uint8_t *blob;
    PostProcessor post;
};

// A checked view of the bytes. Everything but the inside of the chunks is checked when it is made; offsets inside a chunk are
// checked where they are followed.
struct Model {
    FileHeader head;
    std::vector<Level> levels;
    const uint32_t *labels = nullptr;
    const uint8_t *base = nullptr;
    Model(const uint8_t *data, uint64_t bytes);  // throws std::invalid_argument with the field's name
};

inline uint32_t load32(const uint8_t *p) {
    uint32_t v;
    std::memcpy(&v, p, 4);
    return v;
}

inline uint32_t hash_mask(uint32_t bits) { return bits >= 32 ? 0xffffffffu : (1u << bits) - 1u; }

inline uint32_t value_bytes(uint32_t values) { return values == kFloat32 ? 4 : values == kFloat16 ? 2 : 1; }

}  // namespace xmc
