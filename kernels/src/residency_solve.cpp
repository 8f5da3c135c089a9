// What stays on chip: for every model and point the least sum over its chains of steps, exactly.
//
// A mapping is searched only where it stands on a best path. A variant of a product that has not been searched has a lower bound
// (`Costs::bound`); a path whose variants are all known, and that no bound undercuts, is best. Searching the unknown variants
// along best paths, again and again, ends with the optimum.
#include <algorithm>
#include <array>
#include <cmath>

#include "residency_costs.h"
#include "residency_paths.h"

namespace residency {

namespace {

constexpr double kInfinity = mapping::kInfinity;
constexpr int kPairs = kPlaces * kPlaces;  // entries and exits

using Matrix = std::array<Cell, kPairs>;  // sums from entry to exit

void scale(Matrix &matrix, double times, int width) {
    for (Cell &cell : matrix)
        for (int i = 0; i < width; ++i) {
            cell.first[i] *= times;
            cell.second[i] *= times;
        }
}

// What a way through a chain adds up to.
struct Sums {
    double latency = 0.0, energy = 0.0, power = 0.0;
    Slack first, last;  // with prefetch: of its first and last step
    double first_energy = 0.0;
};

double power_of(double energy, double latency) { return latency > 0.0 ? energy / latency : 0.0; }

// What is read ahead between two chains of which any ways may follow each other: the least of all, so that it is never too much.
double least_prefetched(const Costs &costs, const std::vector<const Sums *> &before, const std::vector<const Sums *> &next, int point) {
    double least = kInfinity;
    for (const Sums *a : before)
        for (const Sums *b : next) least = std::min(least, costs.prefetched(a->last, b->first, point));
    return least;
}

// A chain on a strip of points.
class ChainStrip {
 public:
    ChainStrip(const Problem &problem, Costs &costs, const Chain &chain, double pinned_bits, const int *points, int count)
        : problem_(problem), costs_(costs), chain_(chain), graph_(problem.graphs[chain.graph]), pinned_(pinned_bits),
          points_(points), count_(count), width_(width_of(count)), known_(chain.price.size()), changes_(chain.price.size()),
          costs_of_(chain.price.size()) {
        now_.resize(graph_.states[0]);
        cells_.resize(graph_.states[0]);
        for (std::vector<Cell> &layers : cells_) {
            size_t size = 0;
            for (size_t l = 1; l < graph_.states.size(); ++l) size += graph_.states[l];
            layers.resize(size);
        }
    }

    // Values and bounds of every variant on the `open` points, then the best sums from each entry to each exit, as often as it `runs`.
    void find(double runs, uint16_t open) {
        bool changed = !filled_;
        for (size_t v = 0; v < chain_.price.size(); ++v)
            if (open & ~known_[v]) changed |= fill(v, open);
        filled_ = true;
        if (!changed) return;
        for (Cell &cell : best) clear(cell, kInfinity, width_);
        for (size_t entry = 0; entry < cells_.size(); ++entry) {
            for (int32_t s = 0; s < graph_.states[0]; ++s) clear(now_[s], static_cast<size_t>(s) == entry ? 0.0 : kInfinity, width_);
            const Cell *before = now_.data();
            Cell *next = cells_[entry].data();
            for (size_t l = 0; l < graph_.layers.size(); ++l) {
                const int32_t states = graph_.states[l + 1];
                for (int32_t s = 0; s < states; ++s) clear(next[s], kInfinity, width_);
                relax_layer(graph_.layers[l].data(), graph_.layers[l].size(), before, costs_of_.data(), next, width_);
                before = next;
                next += states;
            }
            Cell nothing;
            clear(nothing, 0.0, width_);
            for (int32_t s = 0; s < graph_.states.back(); ++s) relax(best[entry * kPlaces + graph_.exit[s]], before[s], nothing, s, width_);
        }
        scale(best, runs, width_);
        seen_.fill(0);
        summed_.fill(0);
    }

    // Ask for what is not known along the best way from entry to exit; whether there is any. What little room leaves is dear to
    // search: it is asked for where all else is known.
    bool ask(int pair, int lane, std::vector<Request> &wanted) {
        if (seen_[lane] >> pair & 1) return false;
        bool any = false;
        const size_t before = wanted.size();
        size_t whole = before;
        walk(pair, lane, [&](int32_t v) {
            if (known_[v] >> lane & 1) return;
            any = true;
            for (int at = chain_.price[v]; at >= 0; at = problem_.prices[at].next) {
                Value value;
                if (costs_.known(at, held(v), pinned_ > 0.0, points_[lane], value)) continue;
                const Request request = costs_.request(at, held(v), pinned_ > 0.0, points_[lane]);
                wanted.push_back(request);
                if (request.held < 0.0) std::swap(wanted[whole++], wanted.back());
            }
        });
        if (whole > before) wanted.resize(whole);
        if (!any) seen_[lane] |= static_cast<uint16_t>(1u << pair);
        return any;
    }

    // Of the best way; models that share the chain share it.
    const Sums &sums(int pair, int lane) {
        Sums &total = sums_[pair][lane];
        if (summed_[lane] >> pair & 1) return total;
        summed_[lane] |= static_cast<uint16_t>(1u << pair);
        total = {};
        bool after = false;  // a step runs after the one at hand: `total.first` is that step's
        walk(pair, lane, [&](int32_t v) {
            Value value{0.0, 0.0};
            for (int at = chain_.price[v]; at >= 0; at = problem_.prices[at].next) {
                const double times = problem_.prices[at].times;
                costs_.known(at, held(v), pinned_ > 0.0, points_[lane], value);
                total.latency += times * value.latency;
                total.energy += times * value.energy;
                total.power = std::max(total.power, power_of(value.energy, value.latency));
            }
            if (!costs_.prefetches()) return;  // every variant is then one price that runs once
            const Slack own = slack(v, lane);
            if (after) {
                const double less = costs_.prefetched(own, total.first, points_[lane]);
                total.latency -= less;
                total.power = std::max(total.power, power_of(total.first_energy, total.first.latency - less));
            } else {
                total.last = own;
            }
            total.first = own;
            total.first_energy = value.energy;
            after = true;
        });
        return total;
    }

    std::vector<Slack> slacks(const std::vector<int32_t> &way, int lane) const {
        std::vector<Slack> found;
        for (int32_t v : way) found.push_back(slack(v, lane));
        return found;
    }

    std::vector<int32_t> way(int pair, int lane) {
        std::vector<int32_t> found;
        walk(pair, lane, [&](int32_t v) { found.push_back(v); });
        std::reverse(found.begin(), found.end());
        return found;
    }

    Matrix best;

 private:
    double held(size_t v) const { return chain_.held[v] + (pinned_ > 0.0 ? pinned_ : chain_.own[v]); }
    Slack slack(int32_t v, int lane) const { return costs_.slack(chain_.price[v], held(v), pinned_ > 0.0, points_[lane]); }

    // Whether anything has changed.
    bool fill(size_t v, uint16_t open) {
        Cost &cost = costs_of_[v];
        if (!filled_)
            for (int i = 0; i < width_; ++i) cost.first[i] = cost.second[i] = kInfinity;
        const int price = chain_.price[v], changes = costs_.changes(price);
        if (filled_ && changes == changes_[v]) return false;
        changes_[v] = changes;
        const double bits = held(v);
        for (int i = 0; i < count_; ++i) {
            const uint16_t here = static_cast<uint16_t>(1u << i);
            if (!(open & here & ~known_[v])) continue;
            if (costs_.sum(price, bits, pinned_ > 0.0, points_[i], cost.first[i], cost.second[i])) known_[v] |= here;
        }
        return true;
    }

    // The variants along the best way, the last first.
    template <typename See>
    void walk(int pair, int lane, const See &see) const {
        int64_t state = best[pair].choice[lane];
        const std::vector<Cell> &cells = cells_[pair / kPlaces];
        size_t end = cells.size();
        for (size_t l = graph_.layers.size(); l-- > 0;) {
            end -= graph_.states[l + 1];
            const Edge &edge = graph_.layers[l][cells[end + state].choice[lane]];
            see(edge.variant);
            state = edge.from;
        }
    }

    const Problem &problem_;
    Costs &costs_;
    const Chain &chain_;
    const Graph &graph_;
    const double pinned_;
    const int *points_;
    const int count_, width_;
    std::vector<uint16_t> known_;   // of each variant, a bit a point
    std::vector<int> changes_;      // of each variant, when it was last looked at
    std::vector<Cost> costs_of_;    // with bounds where it is not known
    std::vector<Cell> now_;
    std::vector<std::vector<Cell>> cells_;  // by entry: states after each step
    bool filled_ = false;
    std::array<uint16_t, kStrip> seen_{}, summed_{};  // pairs whose way is known throughout; whose sums are
    std::array<std::array<Sums, kStrip>, kPairs> sums_;
};

// Powers of the matrix of a part for loops of any length: of 2^i runs, with the place in the middle as choice.
class Powers {
 public:
    // The first is the chain's own.
    void begin(const Matrix &one, int width) {
        all_.assign(1, one);
        width_ = width;
    }
    const Matrix &of(size_t i) {
        while (all_.size() <= i) {
            all_.emplace_back();
            Matrix &to = all_.back();
            const Matrix &from = all_[all_.size() - 2];
            for (int entry = 0; entry < kPlaces; ++entry)
                for (int exit = 0; exit < kPlaces; ++exit) {
                    Cell &cell = to[entry * kPlaces + exit];
                    clear(cell, kInfinity, width_);
                    for (int middle = 0; middle < kPlaces; ++middle)
                        relax(cell, from[entry * kPlaces + middle], from[middle * kPlaces + exit], middle, width_);
                }
        }
        return all_[i];
    }

 private:
    std::vector<Matrix> all_;
    int width_ = kStrip;
};

using Counts = std::array<int64_t, kPairs>;

// A model's way through its parts on a strip: the best sums, and how often each entry and exit of each part is used.
class ModelStrip {
 public:
    void run(const Family &family, size_t model, std::vector<Powers> &powers, int width) {
        const size_t parts = family.parts.size();
        repeats_ = family.repeats.data() + model * parts;
        family_ = &family;
        powers_ = &powers;
        width_ = width;
        steps_.resize(parts);
        enters_.resize(parts);
        std::array<Cell, kPlaces> total;
        for (Cell &cell : total) clear(cell, kInfinity, width_);
        clear(total[0], 0.0, width_);
        for (size_t p = 0; p < parts; ++p) {
            if (!family.parts[p].enters) total = in_memory(total, enters_[p]);
            steps_[p].clear();
            int64_t runs = family.parts[p].loops ? repeats_[p] : 1;
            for (size_t i = 0; runs > 0; ++i, runs >>= 1) {
                if (!(runs & 1)) continue;
                const Matrix *matrix = &powers[p].of(i);
                if (!family.parts[p].loops && repeats_[p] != 1) {  // every run begins and ends alike
                    often_ = *matrix;
                    scale(often_, static_cast<double>(repeats_[p]), width_);
                    matrix = &often_;
                }
                std::array<Cell, kPlaces> next;
                for (int exit = 0; exit < kPlaces; ++exit) {
                    clear(next[exit], kInfinity, width_);
                    for (int entry = 0; entry < kPlaces; ++entry)
                        relax(next[exit], total[entry], (*matrix)[entry * kPlaces + exit], entry, width_);
                }
                steps_[p].push_back({i, {}});
                for (int exit = 0; exit < kPlaces; ++exit) std::copy_n(next[exit].choice, width_, steps_[p].back().entry[exit]);
                total = next;
            }
        }
        result = in_memory(total, last_)[0];
    }

    // How often each pair of a part is used; none where there is no way. `see(part, counts)`, the last part first.
    template <typename See>
    void uses(int lane, const See &see) {
        if (!(result.first[lane] < kInfinity)) return;
        int at = static_cast<int>(last_[lane]);
        for (size_t p = family_->parts.size(); p-- > 0;) {
            levels_.assign(steps_[p].empty() ? 1 : steps_[p].back().power + 1, Counts{});
            for (size_t s = steps_[p].size(); s-- > 0;) {
                const int entry = static_cast<int>(steps_[p][s].entry[at][lane]);
                ++levels_[steps_[p][s].power][entry * kPlaces + at];
                at = entry;
            }
            for (size_t i = levels_.size(); i-- > 1;)
                for (int pair = 0; pair < kPairs; ++pair)
                    if (const int64_t count = levels_[i][pair]) {
                        const int middle = static_cast<int>((*powers_)[p].of(i)[pair].choice[lane]);
                        levels_[i - 1][pair / kPlaces * kPlaces + middle] += count;
                        levels_[i - 1][middle * kPlaces + pair % kPlaces] += count;
                    }
            if (!family_->parts[p].loops)
                for (int64_t &count : levels_[0]) count *= repeats_[p];
            see(p, levels_[0]);
            if (!family_->parts[p].enters && at == 0) at = static_cast<int>(enters_[p][lane]);
        }
    }

    Cell result;

 private:
    struct Step {
        size_t power;
        int64_t entry[kPlaces][kStrip];  // that each exit came by
    };
    using Origin = std::array<int64_t, kStrip>;

    // Sums where nothing passes on chip: what is also in memory is given up, what is on chip alone cannot be.
    std::array<Cell, kPlaces> in_memory(const std::array<Cell, kPlaces> &total, Origin &origin) const {
        std::array<Cell, kPlaces> out;
        for (Cell &cell : out) clear(cell, kInfinity, width_);
        Cell nothing;
        clear(nothing, 0.0, width_);
        relax(out[0], total[0], nothing, 0, width_);
        relax(out[0], total[2], nothing, 2, width_);
        std::copy_n(out[0].choice, width_, origin.begin());
        return out;
    }

    const Family *family_ = nullptr;
    const int64_t *repeats_ = nullptr;
    int width_ = kStrip;
    std::vector<Powers> *powers_ = nullptr;
    std::vector<std::vector<Step>> steps_;  // of each part
    std::vector<Origin> enters_;
    Origin last_{};
    std::vector<Counts> levels_;
    Matrix often_;
};

// The chains of a family of models on one strip; `pinned` bits of parameters stay.
class Strip {
 public:
    Strip(const Problem &problem, Costs &costs, const Family &family, double pinned, const int *points, int count)
        : problem_(problem), costs_(costs), family_(family), pinned_(pinned), points_(points), count_(count) {}

    // Which points take part; the others have no result.
    void choose(uint16_t lanes) { open_ = lanes; }
    bool open() const { return open_ != 0; }

    // Ask for what the bounds of the chains need.
    void ask_ideals(std::vector<Request> &wanted) const {
        for (const Part &part : family_.parts) {
            int last = -1;
            for (int32_t price : problem_.chains[part.chain].price)
                for (int at = price; at >= 0; at = problem_.prices[at].next) {
                    const int step = problem_.prices[at].step;
                    if (step == last) continue;
                    last = step;
                    for (int i = 0; i < count_; ++i)
                        if (open_ >> i & 1) costs_.ask_ideal(step, pinned_ > 0.0, points_[i], wanted);
                }
        }
    }

    // One more look at models first .. last - 1: what is unknown along their best ways is asked for, and a point where nothing is
    // does not stay open. `limit(model, lane, cell)`: false where no better result can come of it.
    template <typename Limit>
    void look(size_t first, size_t last, std::vector<Request> &wanted, const Limit &limit) {
        if (chains_.empty())
            for (const Part &part : family_.parts)
                chains_.emplace_back(problem_, costs_, problem_.chains[part.chain], pinned_, points_, count_);
        powers_.resize(family_.parts.size());
        for (size_t p = 0; p < family_.parts.size(); ++p) {
            chains_[p].find(family_.parts[p].runs, open_);
            powers_[p].begin(chains_[p].best, width_of(count_));
        }
        uint16_t still = 0;
        for (size_t m = first; m < last; ++m) {
            run(m);
            for (int i = 0; i < count_; ++i) {
                if (!(open_ >> i & 1) || !limit(m, i, model_.result)) continue;
                bool any = false;
                model_.uses(i, [&](size_t p, const Counts &counts) {
                    for (int pair = 0; pair < kPairs; ++pair)
                        if (counts[pair] > 0) any |= chains_[p].ask(pair, i, wanted);
                });
                if (any) still |= static_cast<uint16_t>(1u << i);
            }
        }
        open_ = still;
    }

    // A model's sums once all is known; `see(lane, cell, sums)`.
    template <typename See>
    void totals(size_t model, const See &see) {
        run(model);
        for (int i = 0; i < count_; ++i) {
            Sums total;
            if (!(model_.result.first[i] < kInfinity)) total.latency = total.energy = kInfinity;
            std::vector<const Sums *> here, after;
            bool follows = false;  // whether what comes after runs right after
            model_.uses(i, [&](size_t p, const Counts &counts) {
                here.clear();
                int64_t runs = 0;
                for (int pair = 0; pair < kPairs; ++pair) {
                    if (counts[pair] == 0) continue;
                    const Sums &own = chains_[p].sums(pair, i);
                    const double times = static_cast<double>(counts[pair]) * family_.parts[p].runs;
                    total.latency += times * own.latency;
                    total.energy += times * own.energy;
                    total.power = std::max(total.power, own.power);
                    runs += counts[pair];
                    here.push_back(&own);
                }
                if (!costs_.prefetches() || here.empty()) return;
                const auto take = [&](const std::vector<const Sums *> &next, double times) {
                    const double less = least_prefetched(costs_, here, next, points_[i]);
                    total.latency -= times * family_.parts[p].runs * less;
                    for (const Sums *b : next) total.power = std::max(total.power, power_of(b->first_energy, b->first.latency - less));
                };
                if (runs > 1) take(here, static_cast<double>(runs - 1));
                if (follows && !after.empty()) take(after, 1.0);
                std::swap(here, after);
                follows = family_.parts[p].follows;
            });
            see(i, model_.result, total);
        }
    }

    void ways(size_t model, std::vector<Way> &found) {
        run(model);
        found.clear();
        model_.uses(0, [&](size_t p, const Counts &counts) {
            for (int pair = 0; pair < kPairs; ++pair)
                if (counts[pair] > 0) {
                    found.push_back({static_cast<int>(p), pair / kPlaces, pair % kPlaces, counts[pair], chains_[p].way(pair, 0), {}});
                    if (costs_.prefetches()) found.back().slack = chains_[p].slacks(found.back().variants, 0);
                }
        });
        std::reverse(found.begin(), found.end());
    }

    const int *points() const { return points_; }
    int count() const { return count_; }

 private:
    void run(size_t model) { model_.run(family_, model, powers_, width_of(count_)); }

    const Problem &problem_;
    Costs &costs_;
    const Family &family_;
    const double pinned_;
    const int *points_;
    const int count_;
    uint16_t open_ = 0;
    std::vector<ChainStrip> chains_;
    std::vector<Powers> powers_;
    ModelStrip model_;
};

class Solver {
 public:
    Solver(const Problem &problem, const Points &points, Results &results)
        : problem_(problem), points_(points), results_(results), costs_(problem, points) {}

    void run() {
        for (const Family &family : problem_.families) {
            std::vector<Strip> strips = strips_of(family, 0.0);
            for (Strip &strip : strips) strip.choose(every(strip));
            settle(strips, 0, family.models.size(), [](size_t, int, const Strip &, const Cell &) { return true; });
            bests_.assign(family.models.size() * points_.count, {});
            for (size_t m = 0; m < family.models.size(); ++m)
                for (Strip &strip : strips)
                    strip.totals(m, [&](int lane, const Cell &cell, const Sums &sums) {
                        const int point = strip.points()[lane];
                        bests_[m * points_.count + point] = {cell.first[lane], cell.second[lane]};
                        store(family.models[m], point, sums, false);
                    });
            if (results_.ways) strips[0].ways(0, *results_.ways);
            if (points_.weights)
                for (size_t m = 0; m < family.models.size(); ++m) pin(family, m);
        }
        results_.searches = costs_.searches();
    }

 private:
    struct Best {
        double first, second;
    };

    static uint16_t every(const Strip &strip) { return static_cast<uint16_t>((1u << strip.count()) - 1u); }

    std::vector<Strip> strips_of(const Family &family, double pinned) {
        std::vector<Strip> strips;
        const std::vector<int> &order = costs_.order();
        for (size_t at = 0; at < order.size(); at += kStrip)
            strips.emplace_back(problem_, costs_, family, pinned, order.data() + at,
                                static_cast<int>(std::min<size_t>(kStrip, order.size() - at)));
        return strips;
    }

    template <typename Limit>
    void settle(std::vector<Strip> &strips, size_t first, size_t last, const Limit &limit) {
        for (const Strip &strip : strips)
            if (strip.open()) strip.ask_ideals(wanted_);
        costs_.search(wanted_);
        for (bool any = true; any;) {
            any = false;
            for (Strip &strip : strips) {
                if (!strip.open()) continue;
                strip.look(first, last, wanted_, [&](size_t m, int lane, const Cell &cell) { return limit(m, lane, strip, cell); });
                any |= strip.open();
            }
            costs_.search(wanted_);
        }
    }

    // A model with all its weights on chip, where they fit and that is better.
    void pin(const Family &family, size_t m) {
        const double bits = problem_.weight_bits[family.models[m]];
        if (!(bits > 0.0)) return;
        const auto fits = [&](int point) { return bits <= costs_.capacity_bits(point); };
        std::vector<Strip> strips = strips_of(family, bits);
        bool any = false;
        std::vector<uint16_t> chosen;
        for (Strip &strip : strips) {
            uint16_t lanes = 0;
            for (int i = 0; i < strip.count(); ++i)
                if (fits(strip.points()[i])) lanes |= static_cast<uint16_t>(1u << i);
            strip.choose(lanes);
            chosen.push_back(lanes);
            any |= lanes != 0;
        }
        if (!any) return;
        const auto better = [&](const Strip &strip, int lane, const Cell &cell) {
            const Best &free = bests_[m * points_.count + strip.points()[lane]];
            return cell.first[lane] < free.first || (cell.first[lane] == free.first && cell.second[lane] < free.second);
        };
        settle(strips, m, m + 1, [&](size_t, int lane, const Strip &strip, const Cell &cell) { return better(strip, lane, cell); });
        for (size_t s = 0; s < strips.size(); ++s) {
            if (chosen[s] == 0) continue;
            strips[s].totals(m, [&](int lane, const Cell &cell, const Sums &sums) {
                if (chosen[s] >> lane & 1 && better(strips[s], lane, cell)) store(family.models[m], strips[s].points()[lane], sums, true);
            });
            if (results_.ways && s == 0 && results_.pinned[family.models[m] * points_.count]) strips[0].ways(m, *results_.ways);
        }
    }

    void store(int64_t model, int point, const Sums &sums, bool pinned) {
        const size_t at = static_cast<size_t>(model) * points_.count + point;
        results_.sums[3 * at] = sums.latency;
        results_.sums[3 * at + 1] = sums.energy;
        results_.sums[3 * at + 2] = sums.power;
        results_.pinned[at] = pinned ? 1 : 0;
    }

    const Problem &problem_;
    const Points &points_;
    Results &results_;
    Costs costs_;
    std::vector<Best> bests_;  // of the family at hand: (models, points)
    std::vector<Request> wanted_;
};

}  // namespace

void solve(const Problem &problem, const Points &points, Results &results) { Solver(problem, points, results).run(); }

}  // namespace residency
