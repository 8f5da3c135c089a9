#include <algorithm>
#include <map>
#include <numeric>

#include "mapping_lanes.h"
#include "mapping_search.h"

namespace mapping {

namespace {

// Classes are numbered in the order of their keys, so that neighbours in number are neighbours in what they are.
std::vector<int> classes(const std::vector<std::vector<double>> &keys, int &count) {
    std::map<std::vector<double>, int> seen;
    for (const auto &key : keys) seen.emplace(key, 0);
    count = 0;
    for (auto &entry : seen) entry.second = count++;
    std::vector<int> out;
    for (const auto &key : keys) out.push_back(seen.at(key));
    return out;
}

void append(std::vector<double> &key, const double *values, size_t count) { key.insert(key.end(), values, values + count); }

}  // namespace

Plan make_plan(std::vector<Hardware> points, int levels, int criterion) {
    Plan plan;
    plan.points = std::move(points);
    plan.levels = levels;
    plan.criterion = criterion;
    if (plan.points.size() == 1) {
        plan.core = plan.memory = plan.cores = {0};
        plan.bundles = {{0}};
        plan.core_classes = plan.memory_classes = plan.cores_classes = 1;
        return plan;
    }
    std::vector<std::vector<double>> core, memory, cores, bundle;
    for (const Hardware &hw : plan.points) {
        const Core &c = hw.core;
        const Memory &m = hw.memory;
        std::vector<double> flags{m.refills, m.word_bits};
        append(flags, m.per_core, kMaxLevels);
        append(flags, m.pooled_bandwidth, kMaxLevels);
        append(flags, m.registers_keep, 3);
        std::vector<double> key;
        for (int64_t v : {c.cores, c.rows, c.columns, c.register_words, c.kind, c.dataflow, c.split_axes, c.split_k_over_cores,
                          c.factors_first})
            key.push_back(static_cast<double>(v));
        key.insert(key.end(), flags.begin(), flags.end());
        core.push_back(key);
        std::vector<double> innermost = flags;
        append(innermost, m.capacity[0], 4);
        for (double v : {m.read_pj[0], m.write_pj[0], m.register_read_pj, m.register_write_pj, m.mac_pj})
            innermost.push_back(v);
        key.insert(key.end(), innermost.begin(), innermost.end());
        key.push_back(hw.inner_limit);
        if (hw.inner_limit < kInfinity) {  // what is compared with the limit depends on the innermost bandwidth
            key.push_back(hw.read_cycles[0]);
            key.push_back(hw.write_cycles[0]);
        }
        bundle.push_back(key);
        for (int l = 1; l < levels; ++l) {
            append(innermost, m.capacity[l], 4);
            innermost.push_back(m.read_pj[l]);
            innermost.push_back(m.write_pj[l]);
        }
        memory.push_back(innermost);
        cores.push_back({static_cast<double>(c.cores), static_cast<double>(c.split_k_over_cores)});
    }
    plan.core = classes(core, plan.core_classes);
    plan.memory = classes(memory, plan.memory_classes);
    plan.cores = classes(cores, plan.cores_classes);
    int bundles = 0;
    const std::vector<int> bundle_of = classes(bundle, bundles);
    std::vector<std::vector<int>> members(bundles);
    for (size_t p = 0; p < plan.points.size(); ++p) members[bundle_of[p]].push_back(static_cast<int>(p));
    for (std::vector<int> &b : members) {
        std::stable_sort(b.begin(), b.end(), [&](int x, int y) { return plan.memory[x] < plan.memory[y]; });
        for (size_t at = 0; at < b.size(); at += kLanes)
            plan.bundles.emplace_back(b.begin() + at, b.begin() + std::min(b.size(), at + kLanes));
    }
    return plan;
}

}  // namespace mapping
