// Binding of the serving engine. dse_kernels.serving checks what comes in; sizes are checked here again, before memory is read.
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include "serving_engine.h"

namespace nb = nanobind;

namespace {

using Reals = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T, class Array> std::vector<T> copied(const Array &a) { return std::vector<T>(a.data(), a.data() + a.shape(0)); }

std::vector<double> increasing(const Reals &a) {
    auto v = copied<double>(a);
    if (v.size() < 2 || v[0] != 0.0) throw std::invalid_argument("serving: an axis of a table needs two points, the first 0");
    for (size_t i = 1; i < v.size(); ++i)
        if (!(v[i] > v[i - 1])) throw std::invalid_argument("serving: an axis of a table must increase");
    return v;
}

// tokens, s, J; batch, keys, s, J; take, done, s, J
serving::StepTable table_of(const std::vector<Reals> &p) {
    if (p.size() != 11) throw std::invalid_argument("serving: a step table has 11 arrays");
    serving::StepTable t;
    t.linear = {increasing(p[0]), copied<double>(p[1]), copied<double>(p[2])};
    t.decode = {increasing(p[3]), increasing(p[4]), copied<double>(p[5]), copied<double>(p[6])};
    t.prefill = {increasing(p[7]), increasing(p[8]), copied<double>(p[9]), copied<double>(p[10])};
    if (t.linear.seconds.size() != t.linear.knots.size() || t.linear.joules.size() != t.linear.knots.size())
        throw std::invalid_argument("serving: the linear table must have a value for every knot");
    for (const serving::Surface *s : {&t.decode, &t.prefill})
        if (s->seconds.size() != s->rows.size() * s->columns.size() || s->joules.size() != s->seconds.size())
            throw std::invalid_argument("serving: a surface must have a value for every pair of knots");
    return t;
}

serving::Policy policy_of(const Counts &p) {
    if (p.shape(0) != 11) throw std::invalid_argument("serving: a policy has 11 numbers");
    const int64_t *v = p.data();
    for (size_t i : {0, 1, 5, 6, 7, 9})
        if (v[i] < 1) throw std::invalid_argument("serving: number " + std::to_string(i) + " of a policy must be at least 1");
    return {v[0], v[1], v[2] != 0, v[3] != 0, v[4] != 0, v[5], v[6], v[7], v[8] != 0, v[9], v[10] != 0};
}

template <class T> nb::ndarray<nb::numpy, T, nb::ndim<1>> given(std::vector<T> &&v) {
    auto *held = new std::vector<T>(std::move(v));
    nb::capsule owner(held, [](void *p) noexcept { delete static_cast<std::vector<T> *>(p); });
    return {held->data(), {held->size()}, owner};
}

void check_lists(const Counts &offset, const Counts &items, size_t n, int64_t limit, const char *what) {
    bool good = offset.shape(0) == n + 1 && offset.data()[0] == 0 && offset.data()[n] == static_cast<int64_t>(items.shape(0));
    for (size_t i = 0; good && i < n; ++i) good = offset.data()[i] <= offset.data()[i + 1];
    for (size_t i = 0; good && limit >= 0 && i < items.shape(0); ++i) good = items.data()[i] >= 0 && items.data()[i] < limit;
    if (!good) throw std::invalid_argument(std::string("serving: offsets or items of ") + what + " do not fit");
}

}  // namespace

void bind_serving(nb::module_ &m) {
    m.def(
        "simulate_serving",
        [](Reals arrival, Reals gap, Counts prompt, Counts output, Counts steps, Counts session, Counts parent_offset, Counts parents,
           Counts block_offset, Counts block_ids, int64_t concurrency, int64_t prefill_workers, int64_t decode_workers, double transfer_s,
           double transfer_s_per_token, Counts prefill_policy, Counts decode_policy, std::vector<Reals> prefill_table,
           std::vector<Reals> decode_table, bool timeline) {
            const size_t n = prompt.shape(0);
            for (const size_t length : {arrival.shape(0), gap.shape(0), output.shape(0), steps.shape(0), session.shape(0)})
                if (length != n) throw std::invalid_argument("serving: columns of the requests differ in length");
            check_lists(parent_offset, parents, n, static_cast<int64_t>(n), "parents");
            check_lists(block_offset, block_ids, n, -1, "blocks");
            for (size_t i = 0; i < n; ++i)
                if (prompt.data()[i] < 1 || output.data()[i] < 1 || steps.data()[i] >= output.data()[i] ||
                    steps.data()[i] < (output.data()[i] > 1 ? 1 : 0))
                    throw std::invalid_argument("serving: request " + std::to_string(i) + " has no tokens, or steps that do not make them");
            if (prefill_workers < 1 || decode_workers < 0) throw std::invalid_argument("serving: no workers");
            const serving::Requests requests{n, arrival.data(), gap.data(), prompt.data(), output.data(), steps.data(), session.data(),
                                             parent_offset.data(), parents.data(), block_offset.data(), block_ids.data(), concurrency};
            const serving::Cluster cluster{prefill_workers, decode_workers, transfer_s, transfer_s_per_token, policy_of(prefill_policy),
                                           policy_of(decode_policy), table_of(prefill_table), table_of(decode_table)};
            serving::Outcome o;
            {
                nb::gil_scoped_release release;
                o = serving::simulate(requests, cluster, timeline);
            }
            nb::dict d;
            d["arrival_s"] = given(std::move(o.arrival_s));
            d["start_s"] = given(std::move(o.start_s));
            d["first_s"] = given(std::move(o.first_s));
            d["last_s"] = given(std::move(o.last_s));
            d["energy_j"] = given(std::move(o.energy_j));
            d["cached_tokens"] = given(std::move(o.cached_tokens));
            d["preemptions"] = given(std::move(o.preemptions));
            d["worker"] = given(std::move(o.worker));
            d["busy_s"] = given(std::move(o.busy_s));
            d["peak_blocks"] = given(std::move(o.peak_blocks));
            d["evicted_blocks"] = given(std::move(o.evicted_blocks));
            d["timeline"] = given(std::move(o.timeline));
            d["steps"] = o.steps;
            d["events"] = o.events;
            d["prefill_tokens"] = o.prefill_tokens;
            d["decode_tokens"] = o.decode_tokens;
            d["resumed"] = o.resumed;
            return d;
        },
        nb::arg("arrival"), nb::arg("gap"), nb::arg("prompt"), nb::arg("output"), nb::arg("steps"), nb::arg("session"),
        nb::arg("parent_offset"), nb::arg("parents"), nb::arg("block_offset"), nb::arg("block_ids"), nb::arg("concurrency"),
        nb::arg("prefill_workers"), nb::arg("decode_workers"), nb::arg("transfer_s"), nb::arg("transfer_s_per_token"),
        nb::arg("prefill_policy"), nb::arg("decode_policy"), nb::arg("prefill_table"), nb::arg("decode_table"), nb::arg("timeline"),
        "Times, energy and counts of every request; see dse_kernels.serving.");
}
