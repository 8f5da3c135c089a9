// Python binding of the search of what stays on chip: a problem from arrays, solved for arrays of hardware points.
#include <array>
#include <cmath>
#include <string>
#include <tuple>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "residency_problem.h"

namespace nb = nanobind;

namespace {

using mapping::require;
using residency::kPlaces;

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Ints = In<int64_t, 2>;
using Reals = In<double, 2>;
using IntRow = In<int64_t, 1>;
using RealRow = In<double, 1>;

// Columns of the arrays; dse_kernels/residency.py fills them.
enum { kKind, kShape, kIdeal, kPins, kLanesBegin, kLanesEnd, kStepInts };
constexpr size_t kStepReals = 17, kLaneReals = 5, kPriceInts = 5, kPriceReals = 6, kPartInts = 4;

constexpr double kMost = 4611686018427387904.0;  // 2^62

void check_reals(const Reals &array, const char *name) {
    for (size_t i = 0; i < array.size(); ++i)
        require(array.data()[i] >= 0.0 && array.data()[i] < kMost, std::string(name) + " must hold numbers that are not negative and below 2^62");
}

int64_t within(int64_t value, int64_t low, int64_t high, const char *name) {
    require(value >= low && value < high, std::string(name) + " names what is not there");
    return value;
}

// The ends of rows of a list of `size`, each at or after the one before.
void check_ends(const IntRow &ends, size_t size, const char *name) {
    int64_t before = 0;
    for (size_t i = 0; i < ends.shape(0); ++i) {
        require(ends.data()[i] >= before, std::string(name) + " must not fall");
        before = ends.data()[i];
    }
    require(before == static_cast<int64_t>(size), std::string(name) + " must end with the list that it divides");
}

struct Owner {
    residency::Problem problem;

    Owner(Ints shapes, Reals operands, Reals lanes, Ints step_ints, Reals step_reals, Ints price_ints, Reals price_reals, Ints edges,
          IntRow edge_ends, IntRow states, IntRow exits, IntRow graph_steps, IntRow chain_graph, IntRow chain_ends, IntRow variant_price,
          RealRow variant_held, RealRow variant_own, Ints part_ints, RealRow part_runs, IntRow part_ends, IntRow models, IntRow model_ends, IntRow repeats,
          RealRow weight_bits, int64_t attention_rows) {
        take_steps(shapes, operands, lanes, step_ints, step_reals, attention_rows);
        take_prices(price_ints, price_reals);
        take_graphs(edges, edge_ends, states, exits, graph_steps);
        take_chains(chain_graph, chain_ends, variant_price, variant_held, variant_own);
        problem.weight_bits.assign(weight_bits.data(), weight_bits.data() + weight_bits.shape(0));
        take_families(part_ints, part_runs, part_ends, models, model_ends, repeats);
    }

    void take_steps(const Ints &shapes, const Reals &operands, const Reals &lanes, const Ints &ints, const Reals &reals, int64_t rows) {
        require(shapes.shape(1) == mapping::kShapeColumns && operands.shape(1) == mapping::kOperandColumns &&
                    operands.shape(0) == shapes.shape(0),
                "shapes and operands must have one row a shape and 12 and 3 columns");
        problem.shape_count = shapes.shape(0);
        for (size_t s = 0; s < problem.shape_count; ++s)
            mapping::check_shape(shapes.data() + s * mapping::kShapeColumns, operands.data() + s * mapping::kOperandColumns, s);
        problem.shapes.assign(shapes.data(), shapes.data() + shapes.size());
        problem.operands.assign(operands.data(), operands.data() + operands.size());
        require(lanes.shape(1) == kLaneReals && ints.shape(1) == kStepInts && reals.shape(1) == kStepReals && ints.shape(0) == reals.shape(0),
                "lanes must have 5 columns, step_ints 6 and step_reals 17, a row a step");
        check_reals(lanes, "lanes");
        check_reals(reals, "step_reals");
        for (size_t i = 0; i < lanes.shape(0); ++i) {
            const double *v = lanes.data() + i * kLaneReals;
            problem.lanes.push_back({v[0], v[1], v[2], v[3], v[4]});
        }
        require(rows >= 0 && rows < 1 << 20, "attention_rows must be 0 to 2^20");
        problem.attention_rows = static_cast<size_t>(rows);
        for (size_t i = 0; i < ints.shape(0); ++i) {
            const int64_t *n = ints.data() + i * kStepInts;
            const double *v = reals.data() + i * kStepReals;
            residency::Step step{};
            step.kind = static_cast<int>(within(n[kKind], 0, 3, "step_ints"));
            const int64_t most = step.kind == residency::kProduct ? problem.shape_count : step.kind == residency::kVector ? 1 : rows;
            step.shape = static_cast<int>(within(n[kShape], 0, most, "step_ints"));
            step.ideal = static_cast<int>(within(n[kIdeal], 0, 8, "step_ints"));
            step.pins = static_cast<int>(within(n[kPins], 0, 8, "step_ints"));
            step.lanes_begin = static_cast<int>(within(n[kLanesBegin], 0, lanes.shape(0) + 1, "step_ints"));
            step.lanes_end = static_cast<int>(within(n[kLanesEnd], step.lanes_begin, lanes.shape(0) + 1, "step_ints"));
            double *const fields[kStepReals] = {&step.bits,        &step.every,       &step.parameters, &step.macs,
                                                &step.bits_in,     &step.bits_out,    &step.row_bits,   &step.passes,
                                                &step.query_bits,  &step.second_bits, &step.out_bits,   &step.head_bits,
                                                &step.kv_heads,    &step.queries,     &step.keys,       &step.share,
                                                &step.weight_bits};
            for (size_t c = 0; c < kStepReals; ++c) *fields[c] = v[c];
            if (step.kind == residency::kAttention)
                require(step.kv_heads > 0.0 && step.keys > 0.0 && step.head_bits > 0.0, "attention needs heads, keys and their bits");
            problem.steps.push_back(step);
        }
    }

    void take_prices(const Ints &ints, const Reals &reals) {
        require(ints.shape(1) == kPriceInts && reals.shape(1) == kPriceReals && ints.shape(0) == reals.shape(0),
                "price_ints must have 5 columns and price_reals 6, a row a price");
        check_reals(reals, "price_reals");
        for (size_t i = 0; i < ints.shape(0); ++i) {
            const int64_t *n = ints.data() + i * kPriceInts;
            const double *v = reals.data() + i * kPriceReals;
            problem.prices.push_back({static_cast<int>(within(n[0], 0, problem.steps.size(), "price_ints")),
                                      static_cast<int>(within(n[1], 0, 8, "price_ints")), n[2] != 0, n[3] != 0, v[0], v[1], v[2], v[3],
                                      static_cast<int>(within(n[4], -1, i, "price_ints")), v[4], v[5]});
            problem.tiled |= n[4] >= 0 || v[4] != 1.0;
        }
    }

    void take_graphs(const Ints &edges, const IntRow &edge_ends, const IntRow &states, const IntRow &exits, const IntRow &graph_steps) {
        require(edges.shape(1) == 3, "edges must have 3 columns");
        check_ends(edge_ends, edges.shape(0), "edge_ends");
        size_t layer = 0, state = 0, exit = 0;
        int64_t edge = 0;
        for (size_t g = 0; g < graph_steps.shape(0); ++g) {
            const int64_t steps = within(graph_steps.data()[g], 1, 1 << 20, "graph_steps");
            require(layer + steps <= edge_ends.shape(0) && state + steps + 1 <= states.shape(0), "graph_steps must count edge_ends and states");
            residency::Graph graph;
            for (int64_t l = 0; l <= steps; ++l)
                graph.states.push_back(static_cast<int32_t>(within(states.data()[state + l], 1, 1 << 20, "states")));
            require(graph.states[0] <= kPlaces, "a graph begins with at most 3 states");
            for (int64_t l = 0; l < steps; ++l) {
                graph.layers.emplace_back();
                for (; edge < edge_ends.data()[layer + l]; ++edge) {
                    const int64_t *e = edges.data() + 3 * edge;
                    graph.layers.back().push_back({static_cast<int32_t>(within(e[0], 0, graph.states[l], "edges")),
                                                   static_cast<int32_t>(within(e[1], 0, graph.states[l + 1], "edges")),
                                                   static_cast<int32_t>(within(e[2], 0, 1 << 30, "edges"))});
                    graph.variants = std::max<size_t>(graph.variants, e[2] + 1);
                }
            }
            require(exit + graph.states.back() <= exits.shape(0), "exits must name the place of every last state");
            for (int32_t i = 0; i < graph.states.back(); ++i)
                graph.exit.push_back(static_cast<int32_t>(within(exits.data()[exit + i], 0, kPlaces, "exits")));
            layer += steps;
            state += steps + 1;
            exit += graph.states.back();
            problem.graphs.push_back(std::move(graph));
        }
        require(layer == edge_ends.shape(0), "graph_steps must count edge_ends");
    }

    void take_chains(const IntRow &graph, const IntRow &ends, const IntRow &price, const RealRow &held,
                     const RealRow &own) {
        require(graph.shape(0) == ends.shape(0) && price.shape(0) == held.shape(0) && price.shape(0) == own.shape(0),
                "a chain needs a graph, a variant a price");
        check_ends(ends, price.shape(0), "chain_ends");
        int64_t at = 0;
        for (size_t c = 0; c < graph.shape(0); ++c) {
            residency::Chain chain{static_cast<int>(within(graph.data()[c], 0, problem.graphs.size(), "chain_graph")), {}, {}, {}};
            for (; at < ends.data()[c]; ++at) {
                chain.price.push_back(static_cast<int32_t>(within(price.data()[at], -1, problem.prices.size(), "variant_price")));
                chain.held.push_back(held.data()[at]);
                chain.own.push_back(own.data()[at]);
                problem.tiled |= chain.price.back() < 0;
                for (double bits : {chain.held.back(), chain.own.back()})
                    require(bits >= 0.0 && bits < kMost, "variant_held and variant_own must be at least 0 and below 2^62");
            }
            require(chain.price.size() >= problem.graphs[chain.graph].variants, "a chain must have every variant of its graph");
            problem.chains.push_back(std::move(chain));
        }
    }

    void take_families(const Ints &ints, const RealRow &runs, const IntRow &part_ends, const IntRow &models, const IntRow &model_ends,
                       const IntRow &repeats) {
        require(ints.shape(1) == kPartInts && ints.shape(0) == runs.shape(0), "part_ints must have 4 columns, a row a part");
        require(part_ends.shape(0) == model_ends.shape(0), "a family needs parts and models");
        check_ends(part_ends, ints.shape(0), "part_ends");
        check_ends(model_ends, models.shape(0), "model_ends");
        int64_t part = 0, model = 0;
        size_t repeat = 0;
        for (size_t f = 0; f < part_ends.shape(0); ++f) {
            residency::Family family;
            for (; part < part_ends.data()[f]; ++part) {
                const int64_t *n = ints.data() + kPartInts * part;
                require(runs.data()[part] >= 0.0 && runs.data()[part] < kMost, "part_runs must be at least 0 and below 2^62");
                family.parts.push_back(
                    {static_cast<int>(within(n[0], 0, problem.chains.size(), "part_ints")), n[1] != 0, n[2] != 0, n[3] != 0, runs.data()[part]});
            }
            for (; model < model_ends.data()[f]; ++model) {
                family.models.push_back(within(models.data()[model], 0, problem.weight_bits.size(), "models"));
                for (size_t p = 0; p < family.parts.size(); ++p, ++repeat) {
                    require(repeat < repeats.shape(0), "repeats must have one number for each part of each model");
                    family.repeats.push_back(within(repeats.data()[repeat], 1, int64_t{1} << 48, "repeats"));
                }
            }
            problem.families.push_back(std::move(family));
        }
        require(repeat == repeats.shape(0), "repeats must have one number for each part of each model");
    }

    void check_points(const Ints &integers, const Reals &reals, const In<double, 3> &levels, const Reals &units, const In<double, 3> &rates,
                      const In<double, 3> &attention) const {
        const size_t points = integers.shape(0), depth = levels.shape(1);
        require(depth >= 2 && depth <= mapping::kMaxLevels, "between 2 and 6 memory levels are supported");
        require(integers.shape(1) == mapping::kIntColumns && reals.shape(1) == mapping::kRealColumns && reals.shape(0) == points &&
                    levels.shape(0) == points && levels.shape(2) == mapping::kLevelColumns && units.shape(0) == points &&
                    units.shape(1) == 4 && rates.shape(0) == points && rates.shape(1) == depth && rates.shape(2) == residency::kRates,
                "the hardware arrays must have one row a point and 11, 4, (levels, 12), 4 and (levels, 6) columns");
        require(problem.attention_rows == 0 || (attention.shape(0) == problem.attention_rows && attention.shape(1) == points &&
                                                attention.shape(2) == 5),
                "attention must have the shape (attention_rows, points, 5)");
        for (size_t p = 0; p < points; ++p) {
            mapping::check_point(integers.data() + p * mapping::kIntColumns, reals.data() + p * mapping::kRealColumns,
                                 levels.data() + p * depth * mapping::kLevelColumns, depth, p);
            for (int c = 0; c < 4; ++c)
                require(units.data()[4 * p + c] > 0.0 || (c == 3 && units.data()[4 * p + c] == 0.0), "units must be positive");
            for (size_t l = 0; l < depth; ++l)
                for (int c = 0; c < residency::kRates; ++c) {
                    const double v = rates.data()[(p * depth + l) * residency::kRates + c];
                    require(v >= 0.0 && (v > 0.0 || (c != 1 && c != 2)), "rates must not be negative, bandwidths positive");
                }
        }
    }

    // Sums (models, points, 3), which models keep their weights (models, points), and with `want_ways` how the one model runs on the
    // one point: part, entry, exit, how often, the variants, and with `prefetch` what each leaves free (six numbers, as in Slack).
    auto solve(Ints integers, Reals reals, In<double, 3> levels, Reals units, In<double, 3> rates, In<double, 3> attention, int criterion,
               bool weights, bool prefetch, Out<double, 3> sums, Out<uint8_t, 2> pinned, bool want_ways) const {
        check_points(integers, reals, levels, units, rates, attention);
        const size_t points = integers.shape(0), models = problem.weight_bits.size();
        require(!prefetch || !problem.tiled, "nothing is read ahead where steps run tile by tile");
        require(criterion >= mapping::kLatency && criterion <= mapping::kEnergyDelay, "criterion must be 0, 1 or 2");
        require(points >= 1 && sums.shape(0) == models && sums.shape(1) == points && sums.shape(2) == 3 && pinned.shape(0) == models &&
                    pinned.shape(1) == points,
                "the results must have the shapes (models, points, 3) and (models, points)");
        require(!want_ways || (points == 1 && problem.families.size() == 1 && problem.families[0].models.size() == 1),
                "ways are told of one model on one point");
        residency::Points given;
        given.count = points;
        given.levels = levels.shape(1);
        given.integers = integers.data();
        given.reals = reals.data();
        given.columns = levels.data();
        given.units = units.data();
        given.rates = rates.data();
        given.attention = attention.data();
        given.criterion = criterion;
        given.weights = weights;
        given.prefetch = prefetch;
        std::vector<residency::Way> ways;
        residency::Results results{sums.data(), pinned.data(), want_ways ? &ways : nullptr, 0};
        {
            nb::gil_scoped_release release;
            residency::solve(problem, given, results);
        }
        std::vector<std::tuple<int, int, int, int64_t, std::vector<int32_t>, std::vector<std::array<double, 6>>>> told;
        for (residency::Way &way : ways) {
            std::vector<std::array<double, 6>> slack;
            for (const residency::Slack &s : way.slack) slack.push_back({s.latency, s.other, s.reads, s.near, s.weight_bits, s.free_bits});
            told.emplace_back(way.part, way.entry, way.exit, way.count, std::move(way.variants), std::move(slack));
        }
        return std::make_tuple(results.searches, std::move(told));
    }
};

}  // namespace

void bind_residency(nb::module_ &m) {
    nb::class_<Owner>(m, "ResidencyProblem")
        .def(nb::init<Ints, Reals, Reals, Ints, Reals, Ints, Reals, Ints, IntRow, IntRow, IntRow, IntRow, IntRow, IntRow, IntRow, RealRow, RealRow, Ints,
                      RealRow, IntRow, IntRow, IntRow, IntRow, RealRow, int64_t>(),
             nb::arg("shapes"), nb::arg("operands"), nb::arg("lanes"), nb::arg("step_ints"), nb::arg("step_reals"), nb::arg("price_ints"),
             nb::arg("price_reals"), nb::arg("edges"), nb::arg("edge_ends"), nb::arg("states"), nb::arg("exits"), nb::arg("graph_steps"),
             nb::arg("chain_graph"), nb::arg("chain_ends"), nb::arg("variant_price"), nb::arg("variant_held"), nb::arg("variant_own"), nb::arg("part_ints"),
             nb::arg("part_runs"), nb::arg("part_ends"), nb::arg("models"), nb::arg("model_ends"), nb::arg("repeats"),
             nb::arg("weight_bits"), nb::arg("attention_rows"))
        .def("solve", &Owner::solve, nb::arg("integers"), nb::arg("reals"), nb::arg("levels"), nb::arg("units"), nb::arg("rates"),
             nb::arg("attention"), nb::arg("criterion"), nb::arg("weights"), nb::arg("prefetch"), nb::arg("sums"), nb::arg("pinned"),
             nb::arg("want_ways"),
             "What is best kept on chip on every point; see dse_kernels.residency.");
}
