// Opening a block of bytes as a model: every number that a later step trusts is checked here.
#include "xmc_format.h"

namespace xmc {

namespace {

[[noreturn]] void refuse(const std::string &what) { throw std::invalid_argument(what); }

void need(bool holds, const std::string &what) {
    if (!holds) refuse(what);
}

// An array of `count` items inside the block, aligned to its item.
template <typename T>
const T *array_at(const uint8_t *data, uint64_t bytes, uint64_t offset, uint64_t count, const std::string &name) {
    need(offset % alignof(T) == 0 && offset <= bytes && count <= (bytes - offset) / sizeof(T),
         name + " lies outside the file (offset " + std::to_string(offset) + ", " + std::to_string(count) + " items of " +
             std::to_string(sizeof(T)) + " bytes, file of " + std::to_string(bytes) + " bytes)");
    return reinterpret_cast<const T *>(data + offset);
}

bool all_digits(const std::string &s) {
    return !s.empty() && s.size() <= 3 && s.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

PostProcessor PostProcessor::of(const std::string &name) {
    PostProcessor p;
    if (name == "noop") return p;
    if (name == "sigmoid") return p.kind = kSigmoid, p;
    if (name == "log-sigmoid") return p.kind = kLogSigmoid, p;
    const bool logarithm = name.rfind("log-", 0) == 0;
    const std::string rest = logarithm ? name.substr(4) : name, tail = "-hinge";
    if (rest.size() > tail.size() && rest[0] == 'l' && rest.compare(rest.size() - tail.size(), tail.size(), tail) == 0) {
        const std::string digits = rest.substr(1, rest.size() - 1 - tail.size());
        if (all_digits(digits)) {
            p.kind = logarithm ? kLogHinge : kHinge;
            p.power = std::stoi(digits);
            return p;
        }
    }
    refuse("post_processor '" + name + "' is not known: noop, sigmoid, log-sigmoid, l<P>-hinge or log-l<P>-hinge, e.g. l3-hinge");
}

Model::Model(const uint8_t *data, uint64_t bytes) : base(data) {
    need(bytes >= sizeof(FileHeader), "header: the file has " + std::to_string(bytes) + " bytes, fewer than its header");
    std::memcpy(&head, data, sizeof head);
    need(std::memcmp(head.magic, kMagic, sizeof kMagic) == 0, "magic: not a tree file of this version");
    need(head.bytes == bytes, "bytes: the header says " + std::to_string(head.bytes) + " bytes, the file has " +
                                  std::to_string(bytes) + " (truncated?)");
    need(head.levels >= 1 && head.levels <= kMaxLevels, "levels: " + std::to_string(head.levels) + " is not in 1..64");
    need(head.values <= kInt8, "values: code " + std::to_string(head.values) + " is not 0 (float32), 1 (float16) or 2 (int8)");
    need(head.hash_bits >= 1 && head.hash_bits <= 32, "hash_bits: " + std::to_string(head.hash_bits) + " is not in 1..32");
    need(head.features >= 1 && head.features <= (1ull << 31) && head.features - 1 <= hash_mask(head.hash_bits),
         "features: " + std::to_string(head.features) + " do not fit " + std::to_string(head.hash_bits) + " hash bits");
    need(head.labels >= 1 && head.labels <= 0x7fffffffull, "labels: " + std::to_string(head.labels) + " is not in 1..2^31-1");
    need(head.leaves <= head.labels, "leaves: more leaves than labels");
    labels = array_at<uint32_t>(data, bytes, head.labels_offset, head.leaves, "labels");
    array_at<LevelHeader>(data, bytes, sizeof head, head.levels, "level headers");
    uint64_t parents = 1;
    for (uint32_t l = 0; l < head.levels; ++l) {
        const std::string at = "level " + std::to_string(l) + " ";
        Level level;
        LevelHeader &h = level.head;
        std::memcpy(&h, data + sizeof head + l * sizeof h, sizeof h);
        need(h.parents == parents && h.parents >= 1,
             at + "parents: " + std::to_string(h.parents) + ", the level above has " + std::to_string(parents) + " nodes");
        need(h.nodes <= 0x7fffffffull && h.chunks <= h.nodes, at + "chunks: more chunks than nodes");
        need(h.bias == h.bias && h.bias - h.bias == 0.0f, at + "bias: not a finite number");
        level.first_chunk = array_at<uint32_t>(data, bytes, h.parent_offset, h.parents + 1, at + "first_chunk");
        level.chunks = array_at<Chunk>(data, bytes, h.chunk_offset, h.chunks, at + "chunks");
        level.bias = array_at<float>(data, bytes, h.bias_offset, h.nodes, at + "bias");
        level.scale = head.values == kInt8 ? array_at<float>(data, bytes, h.scale_offset, h.nodes, at + "scale") : nullptr;
        level.blob = array_at<uint8_t>(data, bytes, h.blob_offset, h.blob_bytes, at + "weights");
        need(h.blob_bytes >= kSlack, at + "weights: shorter than the bytes kept behind them");
        need(level.first_chunk[0] == 0 && level.first_chunk[h.parents] == h.chunks, at + "first_chunk: does not span the chunks");
        for (uint64_t p = 0; p < h.parents; ++p)
            need(level.first_chunk[p] <= level.first_chunk[p + 1], at + "first_chunk: decreases at parent " + std::to_string(p));
        const uint64_t room = h.blob_bytes - kSlack;
        uint64_t position = 0;
        for (uint64_t i = 0; i < h.chunks; ++i) {
            const Chunk &c = level.chunks[i];
            const bool keys = c.log_buckets <= head.hash_bits && head.hash_bits - c.log_buckets <= 8u * c.key_bytes &&
                              (c.key_bytes == 1 || c.key_bytes == 2);
            need(keys && c.first == position && c.width >= 1 && c.width <= kMaxWidth && c.start <= room &&
                     (4ull << c.log_buckets) + c.bytes <= room - c.start,
                 at + "chunk " + std::to_string(i) + ": its columns or its bytes lie outside the level");
            position += c.width;
        }
        need(position == h.nodes, at + "chunks: hold " + std::to_string(position) + " of " + std::to_string(h.nodes) + " nodes");
        need(std::memchr(h.post_processor, 0, sizeof h.post_processor) != nullptr, at + "post_processor: not ended");
        level.post = PostProcessor::of(h.post_processor);
        parents = h.nodes;
        levels.push_back(level);
    }
    need(head.leaves == parents, "leaves: the last level has " + std::to_string(parents) + " nodes, the header says " +
                                     std::to_string(head.leaves));
}

}  // namespace xmc
