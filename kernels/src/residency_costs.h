// Costs of steps on the points of a call: mappings searched for a room and kept for every room in which they are best, and what
// vector work and attention cost in closed form.
#pragma once

#include <array>
#include <memory>

#include "residency_problem.h"

namespace residency {

struct Value {
    double latency, energy;
};

// A product's best mapping for every room from `need` to `room` words.
struct Mapped {
    double need, room;
    double cycles, energy_pj;  // infinite: nothing fits
    double least_cycles;       // that any mapping takes
    double read[mapping::kMaxLevels], write[mapping::kMaxLevels];
    double compute;  // cycles of the array
    double uneven;   // the share of the busiest core over that of all, at most
};

// A product with some operands resident, on every point.
struct Product {
    std::vector<Mapped> whole;                 // with all of the room; where `known`
    std::vector<double> most_held;             // bits up to which `whole` stays best; less than 0: not known
    std::vector<std::vector<Mapped>> narrow;   // with less
};

// A request for a search: of a product, with what is held (less than 0: nothing), on a point.
struct Request {
    int product;
    double held;
    int point;
    bool operator<(const Request &o) const {
        return product != o.product ? product < o.product : held != o.held ? held < o.held : point < o.point;
    }
    bool operator==(const Request &o) const { return product == o.product && held == o.held && point == o.point; }
};

class Costs {
 public:
    Costs(const Problem &problem, const Points &points);

    // The cost of a way to run a step beside `held` bits, the parameters that stay (`pinned`) included; false: not known.
    bool known(int price, double held, bool pinned, int point, Value &value);
    // What it leaves free beside itself; it must be known.
    Slack slack(int price, double held, bool pinned, int point) const;
    // By how much a step is shorter for what the one before it reads ahead of its parameters (docs/models/residency.md).
    double prefetched(const Slack &before, const Slack &next, int point) const;
    // How often what is known of it, and of all pieces beside it, has changed.
    int changes(int price) const;
    // Otherwise a lower bound of what the criterion makes of it (see `first_of`); the step's `ideal` product must be known.
    double bound(int price, double held, bool pinned, int point);
    // The request that makes it known, or brings it nearer.
    Request request(int price, double held, bool pinned, int point) const;
    // Ask for what bounds of a step need.
    void ask_ideal(int step, bool pinned, int point, std::vector<Request> &wanted) const;
    void search(std::vector<Request> &wanted);

    double capacity_bits(int point) const { return points_.rates[(point * points_.levels + points_.levels - 2) * kRates]; }
    double first_of(const Value &v) const;
    // Over the pieces of a variant: what the criterion adds, with bounds where something is not known; whether all is known.
    bool sum(int price, double held, bool pinned, int point, double &first, double &second);
    double second_of(const Value &v) const { return points_.criterion == mapping::kEnergy ? v.latency : v.energy; }
    // Points in the order in which they are searched together.
    const std::vector<int> &order() const { return order_; }
    int64_t searches() const { return searches_; }
    bool prefetches() const { return points_.prefetch; }

 private:
    static int mask_of(const Step &step, int mask, bool pinned) { return mask | (pinned ? step.pins : 0); }
    const Mapped *find(int product, double held, int point) const;
    // What the criterion of a mapping in this room is not below, by what is known of more room.
    double least_first(const Step &step, int mask, int ideal, double held, int point) const;
    double known_first(int product, double here, int point) const;  // `here` words of room
    double first_of(const Mapped &mapped) const;
    double ideal_bound(int price, bool pinned, int point);
    // What the step's mapping does not see: latency that it takes in any case, words beside it as energy [J].
    Value beside(int price, bool pinned, int point);
    double at_least(double first, const Value &beside, int point) const;
    // With `slack` also what is left beside it.
    Value product_value(const Price &price, bool pinned, int point, const Mapped &mapped, Slack *slack = nullptr) const;
    Value vector_value(const Price &price, double held, bool pinned, int point, Slack *slack = nullptr) const;
    Value attention_value(const Price &price, double held, int point, Slack *slack = nullptr) const;
    Value lanes_of(const Step &step, int point) const;
    double level_time(int point, size_t level, double read, double write) const;
    // The time of a level's words, and what it is in `slack`.
    double pass(int point, size_t level, double read, double write, double uneven, Slack *slack) const;
    double room_needed(const mapping::Shape &shape, const mapping::Hardware &hw, const mapping::Mapping &found, int from) const;
    const double *rate(int point, size_t level) const { return points_.rates + (point * points_.levels + level) * kRates; }
    double word(int point) const { return points_.reals[point * mapping::kRealColumns + mapping::kWordBits]; }
    double frequency(int point) const { return points_.units[point * 4]; }
    double room(int point, double held) const;

    const Problem &problem_;
    const Points &points_;
    mapping::Plan plan_, part_;
    std::vector<int> order_;
    std::vector<Product> products_;  // by shape and mask
    std::vector<int> changes_;       // of each shape, how often more became known
    std::vector<std::array<double, 3>> operand_bits_;  // of each shape: what inputs, weights and outputs move at least, in the order of the mask
    // Values that do not depend on the room: by price, parameters resident or not, row fits or not; NaN: not known yet.
    std::vector<std::unique_ptr<Value[]>> values_;
    std::vector<std::unique_ptr<double[]>> bounds_;
    std::vector<std::unique_ptr<Value[]>> beside_;
    std::vector<mapping::Found> found_;
    std::vector<int> from_;
    int64_t searches_ = 0;
};

}  // namespace residency
