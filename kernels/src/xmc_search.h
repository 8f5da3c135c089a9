// Beam search over the levels of a tree, for one block of queries, and the same walk counted.
#pragma once

#include "xmc_score.h"

namespace xmc {

// Compressed sparse rows: features ascending in each row, values finite. Checked before, by check_queries.
struct Rows {
    const int64_t *start;
    const int32_t *feature;
    const float *value;
    uint64_t rows;
};

struct Options {
    uint32_t beam, topk;
    const PostProcessor *post;  // null: each level's own
};

// Throws std::invalid_argument naming row and feature where the queries break what Rows promises.
void check_queries(const Model &model, const Rows &x, uint64_t nonzeros);

// Scratch that grows to what the largest call needed and is kept.
class Workspace {
  public:
    // Rows begin .. end - 1 of x; results at row r - begin: topk labels and scores, -1 and 0 where there are none.
    // Returns false where the model's inner offsets are broken.
    bool search(const Model &model, const Rows &x, uint64_t begin, uint64_t end, const Options &options, int32_t *labels, float *scores);

  private:
    struct Beam {
        uint32_t parent;
        float score;
    };
    // A run of candidates and where it stands among the level's positions.
    struct Origin {
        uint32_t candidate, position;
    };
    void sort_pairs(uint64_t chunks);
    std::vector<uint32_t> hashed_, offsets_, order_, first_candidate_, first_origin_;
    std::vector<Query> queries_;
    std::vector<Beam> beams_;
    std::vector<Origin> origins_;
    std::vector<uint32_t> beam_sizes_;
    std::vector<Pair> pairs_, sorted_;
    std::vector<float> scores_;
    std::vector<uint64_t> keys_;
};

// What one query costs, counted by walking the same structure one step at a time.
struct Counts {
    int64_t macs, row_probes, row_hits, chunks, labels_scored, bytes, unique_lines, dependent_depth;
};
constexpr int kCountColumns = 8;

// counts: (levels, kCountColumns) of one query, levels in order.
bool count_query(const Model &model, const Query &query, const Options &options, Counts *counts);

}  // namespace xmc
