#include "xmc_search.h"

#include <algorithm>
#include <cmath>

namespace xmc {

namespace {

// Where a level's weights outgrow the nearer caches, a block's products go in the order of the chunks, so that a chunk is fetched once.
constexpr uint64_t kSortAbove = 8ull << 20;

template <typename T>
void grow(std::vector<T> &v, size_t n) {
    if (v.size() < n) v.resize(n);
}

}  // namespace

void check_queries(const Model &model, const Rows &x, uint64_t nonzeros) {
    if (x.start[0] != 0 || x.start[x.rows] != static_cast<int64_t>(nonzeros))
        throw std::invalid_argument("X: indptr does not span its " + std::to_string(nonzeros) + " values");
    for (uint64_t r = 0; r < x.rows; ++r)
        if (x.start[r + 1] < x.start[r]) throw std::invalid_argument("X: indptr decreases at row " + std::to_string(r));
    for (uint64_t r = 0; r < x.rows; ++r) {
        int64_t last = -1;
        for (int64_t i = x.start[r]; i < x.start[r + 1]; ++i) {
            const int64_t f = x.feature[i];
            if (f < 0 || f >= static_cast<int64_t>(model.head.features))
                throw std::invalid_argument("X: feature " + std::to_string(f) + " in row " + std::to_string(r) + " is not in 0.." +
                                            std::to_string(model.head.features - 1));
            if (f <= last)
                throw std::invalid_argument("X: features of row " + std::to_string(r) + " are " +
                                            (f == last ? "duplicated" : "unsorted") + " at feature " + std::to_string(f));
            if (!std::isfinite(x.value[i]))
                throw std::invalid_argument("X: value of feature " + std::to_string(f) + " in row " + std::to_string(r) +
                                            " is not a finite number");
            last = f;
        }
    }
}

void Workspace::sort_pairs(uint64_t chunks) {
    const size_t n = pairs_.size();
    grow(sorted_, n);
    for (uint32_t shift = 0; shift < 32 && (chunks - 1) >> shift != 0; shift += 11) {
        uint32_t start[2049] = {};
        for (size_t i = 0; i < n; ++i) ++start[((pairs_[i].chunk >> shift) & 2047u) + 1];
        for (int i = 0; i < 2048; ++i) start[i + 1] += start[i];
        for (size_t i = 0; i < n; ++i) sorted_[start[(pairs_[i].chunk >> shift) & 2047u]++] = pairs_[i];
        pairs_.swap(sorted_);
        sorted_.resize(n);
        pairs_.resize(n);
    }
}

bool Workspace::search(const Model &model, const Rows &x, uint64_t begin, uint64_t end, const Options &options, int32_t *labels,
                       float *scores) {
    const size_t n = end - begin;
    const uint32_t mask = hash_mask(model.head.hash_bits), bits = model.head.hash_bits;
    const int64_t base = x.start[begin];
    grow(hashed_, static_cast<size_t>(x.start[end] - base));
    grow(queries_, n);
    uint32_t longest = 0;
    for (size_t q = 0; q < n; ++q) {
        const int64_t from = x.start[begin + q], to = x.start[begin + q + 1];
        for (int64_t i = from; i < to; ++i) hashed_[i - base] = (static_cast<uint32_t>(x.feature[i]) * kMultiplier) & mask;
        queries_[q] = {hashed_.data() + (from - base), x.value + from, static_cast<uint32_t>(to - from)};
        longest = std::max(longest, queries_[q].nonzeros);
    }
    grow(offsets_, 2 * static_cast<size_t>(longest) + 2);
    grow(beam_sizes_, n);
    grow(first_candidate_, n + 1);
    grow(first_origin_, n + 1);
    size_t stride = 1;  // room for a query's beam
    grow(beams_, n);
    for (size_t q = 0; q < n; ++q) {
        beams_[q] = {0, 1.0f};
        beam_sizes_[q] = 1;
    }
    bool sound = true;
    for (size_t l = 0; l < model.levels.size(); ++l) {
        const Level &level = model.levels[l];
        const bool last = l + 1 == model.levels.size();
        const uint32_t asked = last ? options.topk : options.beam, keep = asked ? asked : level.head.only_topk;
        const PostProcessor &post = options.post ? *options.post : level.post;
        pairs_.clear();
        origins_.clear();
        uint64_t candidates = 0;
        uint32_t most = 0;
        for (size_t q = 0; q < n; ++q) {
            first_candidate_[q] = static_cast<uint32_t>(candidates);
            first_origin_[q] = static_cast<uint32_t>(origins_.size());
            for (uint32_t b = 0; b < beam_sizes_[q]; ++b) {
                const Beam &beam = beams_[q * stride + b];
                for (uint32_t c = level.first_chunk[beam.parent]; c < level.first_chunk[beam.parent + 1]; ++c) {
                    pairs_.push_back({c, static_cast<uint32_t>(q), static_cast<uint32_t>(candidates), beam.score});
                    origins_.push_back({static_cast<uint32_t>(candidates), level.chunks[c].first});
                    candidates += level.chunks[c].width;
                }
            }
            if (candidates > 0xf0000000ull) throw std::length_error("too many candidates in one block of queries");
            most = std::max(most, static_cast<uint32_t>(candidates) - first_candidate_[q]);
        }
        first_candidate_[n] = static_cast<uint32_t>(candidates);
        first_origin_[n] = static_cast<uint32_t>(origins_.size());
        grow(scores_, candidates + 1);
        if (n > 1 && level.head.blob_bytes > kSortAbove) sort_pairs(level.head.chunks);
        sound &= score_pairs(level, pairs_.data(), pairs_.size(), queries_.data(), model.head.values, bits, post, l > 0,
                             scores_.data(), offsets_.data(), longest + 1);
        const uint32_t kept = std::min(keep, most);
        grow(keys_, 2 * static_cast<size_t>(most) + 2048);
        grow(order_, most);
        if (!last) {
            stride = std::max<uint32_t>(kept, 1);
            grow(beams_, n * stride);
        }
        for (size_t q = 0; q < n; ++q) {
            const uint32_t from = first_candidate_[q], count = first_candidate_[q + 1] - from;
            const uint32_t found = static_cast<uint32_t>(select(scores_.data() + from, count, keep, keys_.data(), order_.data()));
            const Origin *origin = origins_.data() + first_origin_[q], *origins_end = origins_.data() + first_origin_[q + 1];
            const auto position = [&](uint32_t candidate) {
                const Origin *o = std::upper_bound(origin, origins_end, candidate + from,
                                                   [](uint32_t c, const Origin &at) { return c < at.candidate; }) - 1;
                return o->position + (candidate + from - o->candidate);
            };
            if (last) {
                int32_t *to = labels + q * options.topk;
                float *with = scores + q * options.topk;
                for (uint32_t i = 0; i < found; ++i) {
                    const uint32_t label = model.labels[position(order_[i])];
                    sound &= label < model.head.labels;
                    to[i] = static_cast<int32_t>(label);
                    with[i] = scores_[from + order_[i]];
                }
                std::fill(to + found, to + options.topk, -1);
                std::fill(with + found, with + options.topk, 0.0f);
            } else {
                for (uint32_t i = 0; i < found; ++i)
                    beams_[q * stride + i] = {position(order_[i]), scores_[from + order_[i]]};
                beam_sizes_[q] = found;
            }
        }
    }
    return sound;
}

namespace {

// The lines of 64 bytes that a walk touches, by their number in the file.
struct Touched {
    const uint8_t *base;
    std::vector<uint64_t> lines;
    int64_t bytes = 0;
    void read(const void *p, uint64_t n) {
        const uint64_t at = static_cast<uint64_t>(static_cast<const uint8_t *>(p) - base);
        for (uint64_t line = at / 64; line <= (at + n - 1) / 64; ++line) lines.push_back(line);
        bytes += static_cast<int64_t>(n);
    }
    int64_t distinct() {
        std::sort(lines.begin(), lines.end());
        return std::unique(lines.begin(), lines.end()) - lines.begin();
    }
};

}  // namespace

bool count_query(const Model &model, const Query &query, const Options &options, Counts *counts) {
    struct Node {
        uint32_t position;
        float score;
    };
    std::vector<Node> beam{{0, 1.0f}}, next;
    std::vector<float> scores;
    std::vector<uint32_t> positions, order, offsets(2 * static_cast<size_t>(query.nonzeros) + 2);
    std::vector<uint64_t> keys;
    const uint32_t value_size = value_bytes(model.head.values), bits = model.head.hash_bits;
    bool sound = true;
    for (size_t l = 0; l < model.levels.size(); ++l) {
        const Level &level = model.levels[l];
        const bool last = l + 1 == model.levels.size();
        const uint32_t asked = last ? options.topk : options.beam, keep = asked ? asked : level.head.only_topk;
        const PostProcessor &post = options.post ? *options.post : level.post;
        Counts &count = counts[l];
        count = {};
        Touched touched{model.base, {}};
        scores.clear();
        positions.clear();
        for (const Node &node : beam) {
            touched.read(level.first_chunk + node.position, 8);
            for (uint32_t i = level.first_chunk[node.position]; i < level.first_chunk[node.position + 1]; ++i) {
                const Chunk &c = level.chunks[i];
                touched.read(&c, sizeof c);
                touched.read(level.bias + c.first, 4ull * c.width);
                if (level.scale) touched.read(level.scale + c.first, 4ull * c.width);
                count.chunks += 1;
                count.labels_scored += c.width;
                count.row_probes += query.nonzeros;
                const uint8_t *table = level.blob + c.start, *first = table + (4ull << c.log_buckets);
                for (uint32_t j = 0; j < query.nonzeros; ++j) {
                    const uint8_t *slot = table + 4ull * (query.hashed[j] >> (bits - c.log_buckets));
                    touched.read(slot, 4);
                    const uint32_t at = load32(slot);
                    if (at >= c.bytes || first[at] > kMaxInBucket) {
                        sound = false;
                        continue;
                    }
                    const uint8_t *record = first + at, *lengths = record + 1 + record[0] * c.key_bytes, *row = lengths + record[0];
                    touched.read(record, 1u + record[0] * (c.key_bytes + 1u));
                    const uint32_t key = query.hashed[j] & hash_mask(bits - c.log_buckets);
                    for (uint32_t k = 0; k < record[0]; ++k) {
                        const uint32_t length = lengths[k] + 1u;
                        const uint8_t *held = record + 1 + k * c.key_bytes;
                        if (row + length * (value_size + 1) > first + c.bytes) {
                            sound = false;
                            break;
                        }
                        if ((c.key_bytes == 1 ? held[0] : static_cast<uint32_t>(held[0] | held[1] << 8)) == key) {
                            count.row_hits += 1;
                            touched.read(row, length * (value_size + (length == c.width ? 0u : 1u)));
                            for (uint32_t e = 0; e < length; ++e)
                                count.macs += value_at(row + e * value_size, model.head.values) != 0.0f;
                            break;
                        }
                        row += length * (value_size + 1);
                    }
                }
                const size_t from = scores.size();
                scores.resize(from + c.width);
                for (uint32_t w = 0; w < c.width; ++w) positions.push_back(c.first + w);
                const Pair pair{i, 0, 0, node.score};
                sound &= score_pairs(level, &pair, 1, &query, model.head.values, bits, post, l > 0, scores.data() + from, offsets.data(),
                                     query.nonzeros + 1);
            }
        }
        order.resize(scores.size() + 1);
        keys.resize(2 * scores.size() + 2048);
        const size_t found = select(scores.data(), static_cast<uint32_t>(scores.size()), keep, keys.data(), order.data());
        next.clear();
        for (size_t i = 0; i < found; ++i) next.push_back({positions[order[i]], scores[order[i]]});
        if (last)
            for (const Node &node : next) touched.read(model.labels + node.position, 4);
        count.bytes = touched.bytes;
        count.unique_lines = touched.distinct();
        // Parent's chunks, the chunk's head, the bucket's offset, the record: each address comes out of the read before it.
        count.dependent_depth = beam.empty() ? 0 : 4;
        beam.swap(next);
    }
    return sound;
}

}  // namespace xmc
