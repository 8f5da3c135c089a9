#include "residency_costs.h"

#include <algorithm>
#include <cmath>

#include "mapping_bounds.h"

namespace residency {

namespace {

constexpr double kInfinity = mapping::kInfinity;
constexpr double kBelow = 1.0 - 1e-9;  // bounds sum their terms in another order than costs
constexpr double kPico = 1e-12;
constexpr int kAllResident = 7;  // mask of the three operands

// The busiest core's share of any operand over the mean of all cores, at most: every dimension by itself.
double uneven(const mapping::Shape &shape, const mapping::Split &split, int64_t cores) {
    double most = static_cast<double>(cores) * static_cast<double>(mapping::ceil_div(shape.batch, split[3])) / static_cast<double>(shape.batch);
    for (int d = 0; d < 3; ++d)
        most *= static_cast<double>(mapping::ceil_div(shape.dim[d], split[d])) / static_cast<double>(shape.dim[d]);
    return std::max(most, 1.0);
}

}  // namespace

Costs::Costs(const Problem &problem, const Points &points) : problem_(problem), points_(points) {
    std::vector<mapping::Hardware> hardware;
    hardware.reserve(points.count);
    for (size_t p = 0; p < points.count; ++p) {
        hardware.push_back(mapping::hardware_of(points.integers + p * mapping::kIntColumns, points.reals + p * mapping::kRealColumns,
                                                points.columns + p * points.levels * mapping::kLevelColumns, points.levels));
        mapping::check_resident(hardware.back(), points.levels);
    }
    plan_ = mapping::make_plan(std::move(hardware), static_cast<int>(points.levels), points.criterion);
    plan_.want_words = plan_.least_room = true;
    part_ = plan_;
    for (const std::vector<int> &bundle : plan_.bundles) order_.insert(order_.end(), bundle.begin(), bundle.end());
    products_.resize(problem.shape_count * 8);
    changes_.resize(problem.shape_count);
    values_.resize(problem.prices.size() * 4);
    bounds_.resize(problem.prices.size() * 2);
    beside_.resize(problem.prices.size() * 2);
    for (size_t s = 0; s < problem.shape_count; ++s) {
        const int64_t *row = problem.shapes.data() + s * mapping::kShapeColumns;
        const double *operand = problem.operands.data() + s * mapping::kOperandColumns;
        const double batch = static_cast<double>(row[mapping::kBatch]), m = static_cast<double>(row[mapping::kM]),
                     n = static_cast<double>(row[mapping::kN]), k = static_cast<double>(row[mapping::kK]);
        const double inputs = row[mapping::kTaps] > 1 ? 0.0 : batch * m * k * operand[mapping::kInputBits];
        operand_bits_.push_back({inputs, batch * k * n * operand[mapping::kWeightBits], batch * m * n * operand[mapping::kOutputBits]});
    }
}

double Costs::first_of(const Value &v) const {
    if (points_.criterion == mapping::kEnergy) return v.energy;
    if (points_.criterion == mapping::kLatency) return v.latency;
    return std::sqrt(v.energy * v.latency);
}

double Costs::room(int point, double held) const {
    return mapping::room_beside(plan_.points[point].memory, plan_.levels, held);
}

const Mapped *Costs::find(int product, double held, int point) const {
    const Product &p = products_[product];
    if (p.most_held.empty() || p.most_held[point] < 0.0) return nullptr;
    if (held <= p.most_held[point]) return &p.whole[point];
    if (p.narrow.empty() || p.narrow[point].empty()) return nullptr;
    const double here = room(point, held);
    for (const Mapped &m : p.narrow[point])
        if (m.need <= here && here <= m.room) return &m;
    return nullptr;
}

bool Costs::known(int price_number, double held, bool pinned, int point, Value &value) {
    const Price &price = problem_.prices[price_number];
    const Step &step = problem_.steps[price.step];
    // Where nothing is left, no tile of what is not resident fits.
    const bool tiles = step.kind == kProduct && mask_of(step, price.mask, pinned) != kAllResident;
    if (held > capacity_bits(point) || (tiles && room(point, held) == 0.0)) {
        value = {kInfinity, kInfinity};
        return true;
    }
    if (step.kind == kAttention) {
        value = attention_value(price, held, point);
        return true;
    }
    const Mapped *mapped = nullptr;
    bool kept = true;  // the value is kept for other chains
    bool fits = true;
    if (step.kind == kProduct) {
        const int product = step.shape * 8 + mask_of(step, price.mask, pinned);
        mapped = find(product, held, point);
        if (!mapped) return false;
        kept = mapped == &products_[product].whole[point];
    } else {
        fits = rate(point, points_.levels - 2)[0] - held >= step.row_bits;
    }
    if (!kept) {
        value = product_value(price, pinned, point, *mapped);
        return true;
    }
    std::unique_ptr<Value[]> &all = values_[price_number * 4 + (pinned ? 2 : 0) + (fits ? 1 : 0)];
    if (!all) {
        all.reset(new Value[points_.count]);
        std::fill_n(all.get(), points_.count, Value{std::nan(""), 0.0});
    }
    if (std::isnan(all[point].latency))
        all[point] = step.kind == kProduct ? product_value(price, pinned, point, *mapped) : vector_value(price, held, pinned, point);
    value = all[point];
    return true;
}

bool Costs::sum(int price, double held, bool pinned, int point, double &first, double &second) {
    first = second = 0.0;
    bool all = true;
    for (int at = price; at >= 0; at = problem_.prices[at].next) {
        const double times = problem_.prices[at].times;
        Value value;
        if (known(at, held, pinned, point, value)) {
            first += times * first_of(value);
            second += times * second_of(value);
            continue;
        }
        all = false;
        const double least = bound(at, held, pinned, point);
        first += times * least;
        if (least == kInfinity) second = kInfinity;
    }
    return all;
}

int Costs::changes(int price) const {
    int total = 0;
    for (int at = price; at >= 0; at = problem_.prices[at].next) {
        const Step &step = problem_.steps[problem_.prices[at].step];
        if (step.kind == kProduct) total += changes_[step.shape];
    }
    return total;
}

Request Costs::request(int price_number, double held, bool pinned, int point) const {
    const Price &price = problem_.prices[price_number];
    const Step &step = problem_.steps[price.step];
    const int product = step.shape * 8 + mask_of(step, price.mask, pinned);
    const Product &p = products_[product];
    return {product, p.most_held.empty() || p.most_held[point] < 0.0 ? -1.0 : held, point};
}

void Costs::ask_ideal(int number, bool pinned, int point, std::vector<Request> &wanted) const {
    const Step &step = problem_.steps[number];
    if (step.kind != kProduct) return;
    const int product = step.shape * 8 + mask_of(step, step.ideal, pinned);
    const Product &p = products_[product];
    if (p.most_held.empty() || p.most_held[point] < 0.0) wanted.push_back({product, -1.0, point});
}

double Costs::first_of(const Mapped &m) const {
    return points_.criterion == mapping::kEnergy ? m.energy_pj : points_.criterion == mapping::kLatency ? m.cycles : m.cycles * m.energy_pj;
}

double Costs::known_first(int product, double here, int point) const {
    const Product &p = products_[product];
    double first = p.most_held.empty() || p.most_held[point] < 0.0 ? 0.0 : first_of(p.whole[point]);
    if (!p.narrow.empty())
        for (const Mapped &m : p.narrow[point])
            if (m.room >= here) first = std::max(first, first_of(m));
    return first;
}

// By what is known of this product in more room, and with more operands resident: the others move once at least.
double Costs::least_first(const Step &step, int mask, int ideal, double held, int point) const {
    const double here = room(point, held);
    const int number = step.shape * 8;
    double first = known_first(number + mask, here, point);
    if (points_.criterion == mapping::kLatency) return first;
    const size_t last = points_.levels - 1;
    const double bits = word(point), *far = rate(point, last), *near = rate(point, last - 1);
    const double times = points_.criterion == mapping::kEnergy ? 1.0 : products_[number + ideal].whole[point].least_cycles;
    const double in = (far[3] + near[4]) / bits, out = (far[4] + near[3]) / bits;
    const std::array<double, 3> &size = operand_bits_[step.shape];
    for (int more = 1; more < 8; ++more) {
        if (more & mask || more & ~ideal) continue;
        const double pj = (more & 1 ? size[0] * in : 0.0) + (more & 2 ? size[1] * in : 0.0) + (more & 4 ? size[2] * out : 0.0);
        const double other = known_first(number + (mask | more), here, point);
        if (other > 0.0) first = std::max(first, other + pj * times);
    }
    return first * kBelow;
}

double Costs::bound(int number, double held, bool pinned, int point) {
    const double ideal = ideal_bound(number, pinned, point);
    const Price &price = problem_.prices[number];
    const Step &step = problem_.steps[price.step];
    const double first = least_first(step, mask_of(step, price.mask, pinned), mask_of(step, step.ideal, pinned), held, point);
    return first > 0.0 ? std::max(ideal, at_least(first, beside(number, pinned, point), point)) : ideal;
}

double Costs::ideal_bound(int number, bool pinned, int point) {
    std::unique_ptr<double[]> &all = bounds_[number * 2 + (pinned ? 1 : 0)];
    if (!all) {
        all.reset(new double[points_.count]);
        std::fill_n(all.get(), points_.count, -1.0);
    }
    if (all[point] >= 0.0) return all[point];
    const Price &price = problem_.prices[number];
    const Step &step = problem_.steps[price.step];
    const size_t last = points_.levels - 1;
    const double bits = word(point), *far = rate(point, last), *near = rate(point, last - 1);
    Value more = beside(number, pinned, point);
    // Words that this way to run it moves whatever its mapping, and the mapping with everything resident does not see.
    double words = (far[3] + near[4]) / bits * (price.least - price.extra);
    if (price.stores && !price.keeps) words += (far[4] + near[3]) / bits * step.bits;
    more.energy += words * kPico;
    const int ideal = step.shape * 8 + mask_of(step, step.ideal, pinned);
    return all[point] = at_least(first_of(products_[ideal].whole[point]), more, point);
}

Value Costs::beside(int number, bool pinned, int point) {
    std::unique_ptr<Value[]> &all = beside_[number * 2 + (pinned ? 1 : 0)];
    if (!all) {
        all.reset(new Value[points_.count]);
        std::fill_n(all.get(), points_.count, Value{-1.0, 0.0});
    }
    if (all[point].latency >= 0.0) return all[point];
    const Price &price = problem_.prices[number];
    const Step &step = problem_.steps[price.step];
    const size_t last = points_.levels - 1;
    const double bits = word(point), *far = rate(point, last), *near = rate(point, last - 1);
    const Value lanes = lanes_of(step, point);
    const double streamed = (price.extra + (pinned ? 0.0 : step.parameters)) / bits, passing = (step.every + step.parameters) / bits;
    double more = (far[3] + near[4]) * (streamed + (price.loaded + (pinned ? 0.0 : price.own)) / bits) + passing * near[3];
    for (size_t l = 0; l + 1 < last; ++l) more += passing * (rate(point, l)[3] + rate(point, l)[4]);
    if (price.stores && price.keeps) more += (far[4] + near[3]) / bits * step.bits;
    const double cycles = products_[step.shape * 8 + mask_of(step, step.ideal, pinned)].whole[point].least_cycles;
    return all[point] = {std::max(cycles / frequency(point), lanes.latency), more * kPico + lanes.energy};
}

double Costs::at_least(double first, const Value &beside, int point) const {
    if (first == kInfinity) return kInfinity;
    if (points_.criterion == mapping::kEnergy) return (first * kPico + beside.energy) * kBelow;
    if (points_.criterion == mapping::kLatency) return std::max(first / frequency(point), beside.latency) * kBelow;
    return std::sqrt(first * kPico / frequency(point) + beside.energy * beside.latency) * kBelow;
}

Value Costs::lanes_of(const Step &step, int point) const {
    const double *unit = points_.units + point * 4, lanes = unit[1];
    Value v{0.0, 0.0};
    for (int i = step.lanes_begin; i < step.lanes_end; ++i) {
        const Lanes &w = problem_.lanes[i];
        const double wide = std::ceil(w.width / unit[2]);
        const double steps = std::ceil(w.elements / lanes) * w.element_cycles + std::ceil(w.rows / lanes) * w.row_cycles;
        v.latency += steps * wide / unit[0];
        v.energy += (w.elements * w.element_cycles + w.rows * w.row_cycles) * wide * unit[3] * kPico;
    }
    return v;
}

double Costs::level_time(int point, size_t level, double read, double write) const {
    const double *r = rate(point, level);
    const double in = read / r[1], out = write / r[2];
    return (r[5] != 0.0 ? in + out : std::max(in, out)) / frequency(point);
}

double Costs::pass(int point, size_t level, double read, double write, double uneven, Slack *slack) const {
    const double time = level_time(point, level, read, write);
    if (!slack) return time;
    const double *r = rate(point, level);
    const bool turns = r[5] != 0.0;
    if (level + 1 == points_.levels) {
        slack->reads = turns ? time : read / r[1] / frequency(point);
        if (!turns) slack->other = std::max(slack->other, write / r[2] / frequency(point));
        return time;
    }
    if (level + 2 == points_.levels) slack->near = turns ? time : write / r[2] / frequency(point);
    slack->other = std::max(slack->other, time * uneven);
    return time;
}

Slack Costs::slack(int number, double held, bool pinned, int point) const {
    const Price &price = problem_.prices[number];
    const Step &step = problem_.steps[price.step];
    const size_t last = points_.levels - 1;
    const double left = rate(point, last - 1)[0] - held, bits = word(point);
    const mapping::Hardware &hw = plan_.points[point];
    const double buffers = hw.memory.buffers[last - 1];
    Slack slack;
    Value value{kInfinity, kInfinity};
    double used = 0.0;
    if (step.kind == kProduct) {
        const Mapped *mapped = find(step.shape * 8 + mask_of(step, price.mask, pinned), held, point);
        if (!mapped || mapped->cycles == kInfinity) return slack;
        value = product_value(price, pinned, point, *mapped, &slack);
        slack.weight_bits = pinned ? 0.0 : step.weight_bits;
        used = mapped->need * bits * buffers;
    } else if (step.kind == kVector) {
        value = vector_value(price, held, pinned, point, &slack);
        used = left >= step.row_bits ? step.row_bits * buffers : left;
    } else {
        value = attention_value(price, held, point, &slack);
        // Keys and values of one head on every core where these fit, else the tile of queries takes all there is.
        const double cores = hw.memory.per_core[last - 1] == 0.0 ? static_cast<double>(hw.core.cores) : 1.0;
        const double whole = (step.second_bits / step.kv_heads + step.head_bits) * buffers * cores;
        used = whole <= left ? whole : left;
    }
    slack.latency = value.latency;
    slack.other = value.latency > slack.reads ? value.latency : std::min(slack.other, value.latency);
    slack.free_bits = std::max(left - used, 0.0);
    return slack;
}

double Costs::prefetched(const Slack &before, const Slack &next, int point) const {
    const size_t last = points_.levels - 1;
    const double late = next.reads - next.other, idle = before.latency - before.reads;
    if (!(late > 0.0) || !(idle > 0.0)) return 0.0;
    const double room = std::min(std::min(before.free_bits, next.free_bits), next.weight_bits) / word(point);
    const double words = std::min(room, (before.latency - before.near) * frequency(point) * rate(point, last - 1)[2]);
    return std::max(std::min(std::min(late, idle), words / rate(point, last)[1] / frequency(point)), 0.0);
}

Value Costs::product_value(const Price &price, bool pinned, int point, const Mapped &mapped, Slack *slack) const {
    if (mapped.cycles == kInfinity) return {kInfinity, kInfinity};
    const Step &step = problem_.steps[price.step];
    const double bits = word(point);
    const size_t last = points_.levels - 1;
    const double streamed = (price.extra + (pinned ? 0.0 : step.parameters)) / bits, passing = (step.every + step.parameters) / bits;
    const double load = (price.loaded + (pinned ? 0.0 : price.own)) / bits, store = price.keeps && price.stores ? step.bits / bits : 0.0;
    const Value lanes = lanes_of(step, point);
    double energy = mapped.energy_pj, latency = std::max(mapped.cycles / frequency(point), lanes.latency);
    if (slack) slack->other = std::max(mapped.compute / frequency(point), lanes.latency);
    for (size_t l = 0; l <= last; ++l) {
        const double more_read = l == last ? streamed + load : passing + (l + 1 == last ? store : 0.0);
        const double more_write = l == last ? store : l + 1 == last ? streamed + load : passing;
        energy += more_read * rate(point, l)[3] + more_write * rate(point, l)[4];
        latency = std::max(latency, pass(point, l, mapped.read[l] + more_read, mapped.write[l] + more_write, mapped.uneven, slack));
    }
    return {latency, energy * kPico + lanes.energy};
}

Value Costs::vector_value(const Price &price, double held, bool pinned, int point, Slack *slack) const {
    const Step &step = problem_.steps[price.step];
    const double bits = word(point);
    const size_t last = points_.levels - 1;
    const double there = price.resident + (pinned ? step.parameters : 0.0);
    const double in = step.bits_in / bits, out = step.bits_out / bits, load = price.loaded / bits;
    const double streamed = std::max(step.bits_in - there, 0.0) / bits, stored = price.stores ? out : 0.0;
    const Value lanes = lanes_of(step, point);
    double refills = step.passes, energy = 0.0, latency = lanes.latency;
    if (slack) slack->other = latency;
    for (size_t l = 0; l <= last; ++l) {
        double read = l < last ? in * refills : streamed * refills + load;
        if (rate(point, l)[0] - (l + 1 == last ? held : 0.0) >= step.row_bits) refills = 1.0;
        double write = l < last ? out : stored;
        if (l + 1 < last) {
            read += out;
            write += in * refills;
        } else if (l + 1 == last) {
            read += stored;
            write += streamed * refills + load;
        }
        energy += read * rate(point, l)[3] + write * rate(point, l)[4];
        latency = std::max(latency, pass(point, l, read, write, 1.0, slack));
    }
    return {latency, energy * kPico + lanes.energy};
}

Value Costs::attention_value(const Price &price, double held, int point, Slack *slack) const {
    const Step &step = problem_.steps[price.step];
    const double *parts = points_.attention + (step.shape * points_.count + point) * 5;
    const mapping::Hardware &hw = plan_.points[point];
    const double bits = word(point), cores = static_cast<double>(hw.core.cores);
    const size_t last = points_.levels - 1;
    const double query = step.query_bits / bits, second = step.second_bits / bits, out = step.out_bits / bits;
    const double far = 1.0 - price.resident, query_far = 1.0 - price.least, stored = price.stores ? out : 0.0;
    const double load = price.loaded / bits, head = step.head_bits / bits, cache = second / step.kv_heads;
    const double block = std::min(step.keys, static_cast<double>(hw.core.columns));
    double energy = parts[2], latency = std::max(std::max(parts[0], parts[1]), parts[3]);
    if (slack) slack->other = latency;
    for (size_t l = 1; l <= last; ++l) {
        // How often keys and values come in from this level, by what the level inside has room for.
        double capacity = (rate(point, l - 1)[0] - (l == last ? held : 0.0)) / bits / hw.memory.buffers[l - 1];
        if (hw.memory.per_core[l - 1] == 0.0) capacity /= cores;
        const double tile = std::min(std::max(std::floor((capacity - block * head) / (head + block)), 1.0), step.queries);
        const double again = std::ceil(step.queries / tile);
        const double fetches = cache + head <= capacity ? 1.0 : again * std::max(step.share, 1.0 / again);
        double read = query * query_far + second * far * fetches + load, write = stored;
        if (l < last) {
            const bool holds = l + 1 == last;
            read = query + second * fetches + (holds ? stored : out);
            write = out + query * (holds ? query_far : 1.0) + second * (holds ? far : 1.0) + (holds ? load : 0.0);
        }
        energy += read * rate(point, l)[3] + write * rate(point, l)[4];
        latency = std::max(latency, pass(point, l, read, write, 1.0, slack));
    }
    return {latency, (energy + parts[4]) * kPico};
}

double Costs::room_needed(const mapping::Shape &shape, const mapping::Hardware &hw, const mapping::Mapping &found, int from) const {
    const int level = plan_.levels - 2;
    mapping::Shape mapped = shape;
    if (from == mapping::kMaxLevels)
        mapped.window.taps = 1;
    else
        mapped.window.from = from;
    const mapping::Share share = mapping::share_of(mapped, found.spatial.split, hw.memory.word_bits);
    mapping::Geometry g(mapped, share, found.spatial.split, found.spatial.spread);
    g.hw = &hw;
    double e[3];
    for (int d = 0; d < 3; ++d) e[d] = g.extent(level, d, found.tile[level][d]);
    return std::ceil(g.words(level, e) * (1.0 + 1e-12));  // another order than where it was found to fit
}

void Costs::search(std::vector<Request> &wanted) {
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    std::vector<uint8_t> asked(points_.count, 0);
    for (size_t begin = 0, end = 0; begin < wanted.size(); begin = end) {
        const Request &r = wanted[begin];
        while (end < wanted.size() && wanted[end].product == r.product && wanted[end].held == r.held) ++end;
        for (size_t i = begin; i < end; ++i) {
            const int at = wanted[i].point;
            asked[at] = 1;
            part_.points[at].memory.capacity[part_.levels - 2][3] = room(at, r.held);
        }
        part_.bundles.clear();
        for (const std::vector<int> &bundle : plan_.bundles) {
            std::vector<int> some;
            for (int at : bundle)
                if (asked[at]) some.push_back(at);
            if (!some.empty()) part_.bundles.push_back(std::move(some));
        }
        int64_t row[mapping::kShapeColumns];
        std::copy_n(problem_.shapes.data() + (r.product >> 3) * mapping::kShapeColumns, mapping::kShapeColumns, row);
        row[mapping::kResident] = r.product & 7;
        const mapping::Shape shape =
            mapping::shape_of(row, problem_.operands.data() + (r.product >> 3) * mapping::kOperandColumns, part_.levels);
        mapping::search_shape(part_, shape, mapping::searcher(part_.levels), found_, &from_);
        Product &product = products_[r.product];
        if (product.most_held.empty()) {
            product.most_held.assign(points_.count, -1.0);
            product.whole.resize(points_.count);
        }
        for (size_t i = begin; i < end; ++i) {
            const int at = wanted[i].point;
            asked[at] = 0;
            const mapping::Found &f = found_[at];
            const mapping::Memory &m = plan_.points[at].memory;
            Mapped mapped{0.0, part_.points[at].memory.capacity[part_.levels - 2][3], kInfinity, kInfinity, f.least_cycles, {}, {}, kInfinity, 1.0};
            if (f.feasible) {
                mapped.need = std::min(mapped.room, room_needed(shape, plan_.points[at], f.mapping, from_[at]));
                mapped.cycles = f.cost.cycles;
                mapped.compute = f.cost.compute;
                mapped.uneven = uneven(shape, f.mapping.spatial.split, plan_.points[at].core.cores);
                mapped.energy_pj = f.cost.energy;
                std::copy_n(f.read, points_.levels, mapped.read);
                std::copy_n(f.write, points_.levels, mapped.write);
            }
            if (r.held < 0.0) {
                product.whole[at] = mapped;
                // `need` is a whole number: what is held leaves that many words as long as it takes no more than the rest.
                product.most_held[at] = std::max(0.0, (mapped.room - mapped.need) * m.word_bits * m.buffers[part_.levels - 2]);
            } else {
                if (product.narrow.empty()) product.narrow.resize(points_.count);
                product.narrow[at].push_back(mapped);
            }
        }
        ++changes_[r.product >> 3];
        searches_ += static_cast<int64_t>(end - begin);
    }
    wanted.clear();
}

}  // namespace residency
