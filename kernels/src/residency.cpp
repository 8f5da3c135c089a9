// Shortest paths through the layered graph of what stays on chip between operations, one graph, costs of many designs.
//
// A layer is a step; a state says what is resident before it; an edge is a way to run the step and has the cost of its variant. For
// each design, each entry state and each exit class the least sum of (first, second) in the order of pairs, added step by step, and
// the variants along it. Of equal sums the edge that comes first stays.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace {

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void require(bool fine, const char *what) {
    if (!fine) throw nb::value_error(what);
}

struct Value {
    double first = kInfinity, second = kInfinity;
    bool less(const Value &o) const { return first < o.first || (first == o.first && second < o.second); }
};

// Paths of one design; `state`, `chosen` are reused from design to design.
struct Walker {
    std::vector<Value> now, next;
    std::vector<int32_t> chosen;  // (steps, most states): edge into each state
};

void paths(In<int32_t, 2> edges, In<int64_t, 1> layer_end, In<int32_t, 1> states, In<int32_t, 1> exit_of, int exits,
           In<double, 2> first, In<double, 2> second, int threads, Out<double, 4> best, Out<int32_t, 4> path) {
    const size_t steps = layer_end.shape(0), points = first.shape(0), variants = first.shape(1);
    require(steps >= 1 && states.shape(0) == steps + 1 && edges.shape(1) == 3, "one layer of states more than steps, edges of 3 columns");
    const int32_t *s = states.data();
    const int64_t *end = layer_end.data();
    const int32_t entries = s[0];
    int32_t most = 0;
    for (size_t l = 0; l <= steps; ++l) {
        require(s[l] >= 1 && s[l] < 1 << 20, "a layer has 1 to 2^20 states");
        most = std::max(most, s[l]);
    }
    require(exits >= 1 && exits <= 64 && exit_of.shape(0) == static_cast<size_t>(s[steps]), "exit_of must name an exit of every last state");
    for (int32_t i = 0; i < s[steps]; ++i) require(exit_of.data()[i] >= 0 && exit_of.data()[i] < exits, "an exit is out of range");
    int64_t at = 0;
    for (size_t l = 0; l < steps; ++l) {
        require(end[l] >= at && end[l] <= static_cast<int64_t>(edges.shape(0)), "layer_end must rise and lie within the edges");
        for (; at < end[l]; ++at) {
            const int32_t *e = edges.data() + 3 * at;
            require(e[0] >= 0 && e[0] < s[l] && e[1] >= 0 && e[1] < s[l + 1] && e[2] >= 0 && e[2] < static_cast<int64_t>(variants),
                    "an edge names a state or a variant that is not there");
        }
    }
    require(second.shape(0) == points && second.shape(1) == variants, "both costs must have the shape (points, variants)");
    const size_t pairs = static_cast<size_t>(entries) * exits;
    require(best.shape(0) == points && best.shape(1) == static_cast<size_t>(entries) && best.shape(2) == static_cast<size_t>(exits) &&
                best.shape(3) == 2 && path.shape(0) == points && path.shape(1) == best.shape(1) && path.shape(2) == best.shape(2) &&
                path.shape(3) == steps,
            "the results must have the shapes (points, entries, exits, 2) and (points, entries, exits, steps)");

    nb::gil_scoped_release release;
    std::atomic<size_t> task{0};
    constexpr size_t kChunk = 64;
    const auto work = [&] {
        Walker w;
        w.now.resize(most);
        w.next.resize(most);
        w.chosen.resize(steps * most);
        for (size_t begin; (begin = task.fetch_add(kChunk)) < points;)
            for (size_t p = begin; p < std::min(points, begin + kChunk); ++p) {
                const double *a = first.data() + p * variants, *b = second.data() + p * variants;
                for (int32_t entry = 0; entry < entries; ++entry) {
                    std::fill(w.now.begin(), w.now.end(), Value());
                    w.now[entry] = {0.0, 0.0};
                    int64_t edge = 0;
                    for (size_t l = 0; l < steps; ++l) {
                        std::fill_n(w.next.begin(), s[l + 1], Value());
                        int32_t *chosen = w.chosen.data() + l * most;
                        std::fill_n(chosen, s[l + 1], -1);
                        for (; edge < end[l]; ++edge) {
                            const int32_t *e = edges.data() + 3 * edge;
                            const Value &from = w.now[e[0]];
                            if (from.first == kInfinity) continue;
                            const Value to{from.first + a[e[2]], from.second + b[e[2]]};
                            if (to.first < kInfinity && to.less(w.next[e[1]])) {
                                w.next[e[1]] = to;
                                chosen[e[1]] = static_cast<int32_t>(edge);
                            }
                        }
                        std::swap(w.now, w.next);
                    }
                    for (int out = 0; out < exits; ++out) {
                        int32_t last = -1;
                        for (int32_t i = 0; i < s[steps]; ++i)
                            if (exit_of.data()[i] == out && w.now[i].first < kInfinity && (last < 0 || w.now[i].less(w.now[last]))) last = i;
                        const size_t cell = p * pairs + static_cast<size_t>(entry) * exits + out;
                        best.data()[2 * cell] = last < 0 ? kInfinity : w.now[last].first;
                        best.data()[2 * cell + 1] = last < 0 ? kInfinity : w.now[last].second;
                        int32_t *way = path.data() + cell * steps;
                        std::fill_n(way, steps, -1);
                        for (size_t l = steps; last >= 0 && l-- > 0;) {
                            const int32_t *e = edges.data() + 3 * static_cast<int64_t>(w.chosen[l * most + last]);
                            way[l] = e[2];
                            last = e[0];
                        }
                    }
                }
            }
    };
    const size_t workers = std::max<size_t>(1, std::min<size_t>(static_cast<size_t>(std::max(threads, 1)), points / kChunk + 1));
    std::vector<std::thread> pool;
    for (size_t t = 1; t < workers; ++t) pool.emplace_back(work);
    work();
    for (std::thread &t : pool) t.join();
}

}  // namespace

void bind_residency(nb::module_ &m) {
    m.def("residency_paths", &paths, nb::arg("edges"), nb::arg("layer_end"), nb::arg("states"), nb::arg("exit_of"), nb::arg("exits"),
          nb::arg("first"), nb::arg("second"), nb::arg("threads"), nb::arg("best"), nb::arg("path"),
          "Shortest paths through the layered graph of what stays on chip; see dse_kernels.residency.");
}
