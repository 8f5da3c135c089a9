// Models, and the ways to run their steps, for the search of what stays on chip (docs/models/residency.md): records made of a caller's
// arrays once, checked, and solved for any hardware points.
#pragma once

#include <cstdint>
#include <vector>

#include "mapping_arrays.h"

namespace residency {

constexpr int kRates = 6;   // columns of a level's rates: dse_kernels/residency.py names them
constexpr int kPlaces = 3;  // of a tensor that passes on: in memory alone, on chip alone, on both

enum StepKind { kProduct = 0, kVector = 1, kAttention = 2 };

// Work of the lanes: elements and rows, cycles for each, bits of the widest operand.
struct Lanes {
    double elements, rows, element_cycles, row_cycles, width;
};

// A row of an operation table with the rows in its epilogue. Bits are those of one run.
struct Step {
    int kind;
    int shape;                // kProduct: of the mapping search; kAttention: of the arrays of a call
    int ideal;                // kProduct: mask of all operands that can be resident but for parameters
    int pins;                 // kProduct: mask of the operand that is parameters, 0 if it is none
    int lanes_begin, lanes_end;
    double bits;              // of what it makes
    double every, parameters;  // kProduct: further operands and parameters of the epilogue; kVector: `parameters` of the row
    double macs;              // kProduct
    double bits_in, bits_out, row_bits, passes;  // kVector
    double query_bits, second_bits, out_bits, head_bits, kv_heads, queries, keys, share;  // kAttention
    double weight_bits;       // kProduct: of the operand that is parameters, 0 if none is
};

// A way to run a step, but for the room that is left; or a piece of one that runs tile by tile, whose other pieces follow.
struct Price {
    int step, mask;      // kProduct: operands that are resident, parameters aside
    bool keeps, stores;  // its result
    double loaded;       // bits of tensors that are loaded whole
    double extra;        // kProduct: further operands of the epilogue that are streamed
    double resident;     // kVector: bits that are on chip; kAttention: share of keys and values that is
    double least;        // kProduct: bits read from memory in any case; kAttention: 1 if the queries are resident
    int next;            // piece of the same variant, -1: the last one; always an earlier price
    double times;        // how often it runs
    double own;          // kProduct: bits of its parameters that are loaded whole where parameters do not stay
};

struct Edge {
    int32_t from, to, variant;
};

// The layered graph of a chain's choices: a layer a step, a state what is resident before it.
struct Graph {
    std::vector<std::vector<Edge>> layers;
    std::vector<int32_t> states;  // of each layer, and of the end
    std::vector<int32_t> exit;    // place that each last state is
    size_t variants = 0;
};

// Steps of a segment on a model's sizes: of each variant its price (-1: it does nothing) and the bits that are held while it runs; `own`:
// of parameters that it holds where they do not stay anyway.
struct Chain {
    int graph;
    std::vector<int32_t> price;
    std::vector<double> held, own;
};

struct Part {
    int chain;
    bool enters, loops;
    bool follows;  // the part before is of the same phase: it runs right before this one
    double runs;
};

// Models of the same chains, which differ in how often these run.
struct Family {
    std::vector<Part> parts;
    std::vector<int64_t> models;
    std::vector<int64_t> repeats;  // (models, parts)
};

struct Problem {
    std::vector<int64_t> shapes;  // rows as the mapping search takes them
    std::vector<double> operands;
    size_t shape_count = 0;
    std::vector<Lanes> lanes;
    std::vector<Step> steps;
    std::vector<Price> prices;
    std::vector<Graph> graphs;
    std::vector<Chain> chains;
    std::vector<Family> families;
    std::vector<double> weight_bits;  // of each model, if all stay
    size_t attention_rows = 0;
    bool tiled = false;  // some variant is not one price that runs once
};

// What one call is about: hardware points and where its results go.
struct Points {
    size_t count = 0, levels = 0;
    const int64_t *integers;   // as in the mapping search, (points, .)
    const double *reals;       // (points, .)
    const double *columns;     // (points, levels, .)
    const double *units;       // (points, 4): frequency, lanes, bits of a lane, energy of a lane's cycle
    const double *rates;       // (points, levels, 5): bits, words a cycle read and written, energy of a word read and written
    const double *attention;   // (rows, points, 5): array_s, inner_s, energy_pj, vector_s, vector_pj
    int criterion = mapping::kEnergyDelay;
    bool weights = false;
    bool prefetch = false;
};

// What a step leaves free for the words of the next one, and what it needs of its own [s, bits].
struct Slack {
    double latency = 0.0;
    double other = 0.0;        // the longest of all but the DRAM's reads
    double reads = 0.0;        // of the DRAM; with its writes where they take turns
    double near = 0.0;         // writing into the level that holds what stays; with its reads where they take turns
    double weight_bits = 0.0;  // parameters of a product that are streamed
    double free_bits = 0.0;    // of that level, beside the tiles and what stays
};

// How a model of one point runs: for each part, entry and exit that are used how often, and the variants along the way.
struct Way {
    int part, entry, exit;
    int64_t count;
    std::vector<int32_t> variants;
    std::vector<Slack> slack;  // of each of them, with `prefetch`
};

struct Results {
    double *sums;      // (models, points, 3): latency [s], energy [J], largest power of a step [W]
    uint8_t *pinned;   // (models, points)
    std::vector<Way> *ways = nullptr;  // of the first model on the first point
    int64_t searches = 0;              // mappings that were searched
};

// The results do not depend on which points are solved together.
void solve(const Problem &problem, const Points &points, Results &results);

}  // namespace residency
