// An inference engine with continuous batching, as events: what is scheduled when, never a token at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <queue>
#include <set>
#include <unordered_map>
#include <vector>

#include "serving_blocks.h"
#include "serving_table.h"

namespace serving {

enum class Role { both, prefill, decode };

struct Policy {
    int64_t token_budget;   // tokens of a step
    int64_t max_sequences;  // sequences that run at once
    bool chunked;           // prompts may be cut
    bool mixed;             // sequences decode in a step that computes prompts
    bool reserve;           // blocks for the whole output are taken at the start
    int64_t poll_steps;     // arrivals are received every so many steps
    int64_t blocks;         // of the KV cache
    int64_t block_tokens;
    bool prefix_cache;
    int64_t query_tokens;   // tokens that a decoding sequence brings into a step (1 + drafted)
    bool skip;              // jump over steps between events
};

struct Requests {
    size_t count;
    const double *arrival_s, *gap_s;
    const int64_t *prompt, *output, *decode_steps, *session;
    const int64_t *parent_offset, *parents, *block_offset, *block_ids;
    int64_t concurrency;  // 0: as they arrive
};

struct Cluster {
    int64_t prefill_workers, decode_workers;  // decode_workers 0: every worker does both
    double transfer_s, transfer_s_per_token;
    Policy prefill_policy, decode_policy;
    StepTable prefill_table, decode_table;
};

struct Outcome {
    std::vector<double> arrival_s, start_s, first_s, last_s, energy_j;
    std::vector<int64_t> cached_tokens, preemptions, worker;
    std::vector<double> busy_s;  // by worker
    std::vector<int64_t> peak_blocks, evicted_blocks;
    std::vector<double> timeline;  // rows of 6: time, worker, decoding, waiting, blocks used, tokens of prompts
    int64_t steps = 0, events = 0, prefill_tokens = 0, decode_tokens = 0, resumed = 0;  // resumed: prompts computed again to the end
};

Outcome simulate(const Requests &requests, const Cluster &cluster, bool timeline);

}  // namespace serving
