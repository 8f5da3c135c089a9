// See serving_engine.h. One loop over events: arrivals, and the end of a worker's step or run of steps. A run is a stretch of
// steps in which the same sequences decode; its length is known when it begins (first finish, end of memory, next poll), and
// an arrival that could be admitted cuts it at the end of the step in progress.
#include "serving_engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace serving {

namespace {

constexpr double NEVER = std::numeric_limits<double>::infinity();

struct Sequence {
    int64_t request;
    int64_t target = 0, done = 0;  // tokens of the prompt (and what is recomputed), and how many are in the cache
    int64_t steps_left = 0;        // decode steps
    int64_t made = 0, of = 1;      // a decode step adds made / of tokens
    int64_t taken = 0;             // decode steps since the prompt
    int64_t blocks = 0;                // all that it owns
    std::vector<int64_t> named;        // of these, the shared ones in order
    int64_t chunk = 0;                 // tokens in the step that runs
    double joules_mark = 0.0;
    int64_t order = 0;
    bool resumed = false;

    double context() const { return static_cast<double>(target) + static_cast<double>(taken) * grow(); }
    double grow() const { return static_cast<double>(made) / static_cast<double>(of); }
    // Whole tokens in the cache some steps from now: begun ones need room, only complete ones can be shared.
    int64_t begun(int64_t steps) const { return target + ((taken + steps) * made + of - 1) / of; }
    int64_t complete() const { return target + taken * made / of; }
};

struct Waiting {
    int64_t request, target, steps_left;
    bool resumed, computed;  // computed: its prompt was computed elsewhere
};

int64_t blocks_of(int64_t tokens, int64_t size) { return (tokens + size - 1) / size; }

struct Worker {
    Worker(const Policy &p, const StepTable &t, Role r) : policy(&p), table(&t), role(r), pool(p.blocks) {}
    const Policy *policy;
    const StepTable *table;
    Role role;
    BlockPool pool;
    std::deque<Waiting> inbox, waiting;
    std::vector<Sequence> prompts, decoding;
    double event_s = NEVER, begin_s = 0.0, busy_s = 0.0;
    int64_t run_steps = 0;  // of the run in progress; 0: one step with prompts
    double run_base_s = 0.0;
    int64_t steps = 0, assigned = 0, order = 0;
    double joules_each = 0.0;  // energy of decoding, a sequence, so far
    double mixed_joules = 0.0;  // of the sequences that decode in the step with prompts that runs

    bool has_work() const { return !(decoding.empty() && prompts.empty() && waiting.empty() && inbox.empty()); }
    double mean_keys() const {
        double sum = 0.0;
        for (const Sequence &s : decoding) sum += s.context();
        return sum / static_cast<double>(decoding.size()) + 1.0;
    }
    double mean_grow() const {
        double sum = 0.0;
        for (const Sequence &s : decoding) sum += s.grow();
        return sum / static_cast<double>(decoding.size());
    }
    Cost run(int64_t steps_) const {
        const double n = static_cast<double>(decoding.size());
        const Cost base = table->linear.at(n * static_cast<double>(policy->query_tokens));
        return base * static_cast<double>(steps_) + table->decode.sum(n, mean_keys(), mean_grow(), steps_);
    }
    int64_t growth(int64_t steps_) const {
        int64_t more = 0;
        for (const Sequence &s : decoding)
            more += std::max<int64_t>(0, blocks_of(s.begun(steps_), policy->block_tokens) - s.blocks);
        return more;
    }
};

class Engine {
  public:
    Engine(const Requests &r, const Cluster &c, bool timeline) : requests_(r), cluster_(c), timeline_(timeline) {
        const size_t n = r.count;
        for (auto *v : {&out_.arrival_s, &out_.start_s, &out_.first_s, &out_.last_s}) v->assign(n, std::nan(""));
        out_.energy_j.assign(n, 0.0);
        out_.cached_tokens.assign(n, 0);
        out_.preemptions.assign(n, 0);
        out_.worker.assign(n, -1);
        const bool apart = c.decode_workers > 0;
        for (int64_t i = 0; i < c.prefill_workers; ++i)
            workers_.emplace_back(c.prefill_policy, c.prefill_table, apart ? Role::prefill : Role::both);
        for (int64_t i = 0; i < c.decode_workers; ++i) workers_.emplace_back(c.decode_policy, c.decode_table, Role::decode);
        check();
        children_.resize(n);
        unfinished_.resize(n);
        for (size_t i = 0; i < n; ++i) {
            unfinished_[i] = r.parent_offset[i + 1] - r.parent_offset[i];
            for (int64_t k = r.parent_offset[i]; k < r.parent_offset[i + 1]; ++k) children_[r.parents[k]].push_back(static_cast<int64_t>(i));
        }
        if (r.concurrency > 0) {
            while (next_ < n && static_cast<int64_t>(next_) < r.concurrency) arrive(r.arrival_s[next_], next_), ++next_;
        } else {
            for (size_t i = 0; i < n; ++i)
                if (unfinished_[i] == 0) arrive(r.arrival_s[i], i);
        }
    }

    Outcome go() {
        while (true) {
            double now = arrivals_.empty() ? NEVER : arrivals_.top().time;
            for (const Worker &w : workers_) now = std::min(now, w.event_s);
            if (now == NEVER) break;
            ++out_.events;
            for (Worker &w : workers_)
                if (w.event_s == now) complete(w, now);
            while (!arrivals_.empty() && arrivals_.top().time <= now) {
                const Arrival a = arrivals_.top();
                arrivals_.pop();
                deliver(a, now);
            }
            for (Worker &w : workers_)
                if (w.event_s == NEVER && w.has_work()) plan(w, now);
        }
        for (Worker &w : workers_) {
            if (w.pool.used() != 0 || !w.waiting.empty() || !w.inbox.empty()) throw std::logic_error("serving: work is left behind");
            out_.busy_s.push_back(w.busy_s);
            out_.peak_blocks.push_back(w.pool.peak());
            out_.evicted_blocks.push_back(w.pool.evicted());
        }
        return std::move(out_);
    }

  private:
    struct Arrival {
        double time;
        int64_t serial, request;
        bool computed;
        bool operator<(const Arrival &o) const { return time != o.time ? time > o.time : serial > o.serial; }
    };

    void check() const {
        for (size_t i = 0; i < requests_.count; ++i) {
            const int64_t p = requests_.prompt[i], o = requests_.output[i];
            for (const Worker &w : workers_) {
                const int64_t held = w.role == Role::prefill ? p : p + o;
                if (blocks_of(held, w.policy->block_tokens) > w.policy->blocks)
                    throw std::invalid_argument("request " + std::to_string(i) + " needs " + std::to_string(held) +
                                                " tokens of KV cache, a worker holds " +
                                                std::to_string(w.policy->blocks * w.policy->block_tokens));
            }
        }
    }

    void arrive(double time, size_t request, bool computed = false) {
        arrivals_.push({time, serial_++, static_cast<int64_t>(request), computed});
    }

    int64_t steps_of(int64_t request) const { return requests_.decode_steps[request]; }

    void deliver(const Arrival &a, double now) {
        const int64_t session = requests_.session[a.request];
        size_t first = 0, last = cluster_.prefill_workers;
        if (a.computed) first = last, last = workers_.size();
        size_t best = first;
        for (size_t i = first; i < last; ++i)
            if (workers_[i].assigned < workers_[best].assigned) best = i;
        if (session >= 0 && !a.computed) best = home_.emplace(session, best).first->second;
        Worker &w = workers_[best];
        ++w.assigned;
        if (!a.computed) out_.arrival_s[a.request] = a.time;
        out_.worker[a.request] = static_cast<int64_t>(best);
        w.inbox.push_back({a.request, requests_.prompt[a.request], steps_of(a.request), false, a.computed});
        if (w.run_steps > 1 && w.event_s > now && (w.policy->poll_steps > 1 || may_admit(w))) cut(w, now);
    }

    bool may_admit(const Worker &w) const {
        return w.waiting.empty() && static_cast<int64_t>(w.decoding.size()) < w.policy->max_sequences && w.pool.available() > 0;
    }

    // The run ends with the step in progress, or with the step after which arrivals are received.
    void cut(Worker &w, double now) {
        int64_t low = 1, high = w.run_steps;
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (w.begin_s + w.run(middle).seconds >= now) high = middle;
            else low = middle + 1;
        }
        const int64_t poll = w.policy->poll_steps;
        if (poll > 1) low += (poll - (w.steps + low) % poll) % poll;
        w.run_steps = std::min(low, w.run_steps);
        w.event_s = w.begin_s + w.run(w.run_steps).seconds;
    }

    const int64_t *ids(int64_t request) const { return requests_.block_ids + requests_.block_offset[request]; }
    int64_t id_count(int64_t request) const { return requests_.block_offset[request + 1] - requests_.block_offset[request]; }

    // The named blocks of the first `tokens` tokens that are not yet the cache's become it.
    void publish(Worker &w, Sequence &s, int64_t tokens) {
        if (!w.policy->prefix_cache) return;
        const int64_t whole = std::min(tokens / w.policy->block_tokens, id_count(s.request));
        const int64_t *id = ids(s.request);
        while (static_cast<int64_t>(s.named.size()) < whole) {
            // Blocks are named in order: after one that another sequence has named, ours stay private.
            if (!w.pool.publish(id[s.named.size()])) break;
            s.named.push_back(id[s.named.size()]);
        }
    }

    void free_blocks(Worker &w, Sequence &s) {
        w.pool.release(s.blocks - static_cast<int64_t>(s.named.size()));
        for (size_t i = s.named.size(); i-- > 0;) w.pool.unshare(s.named[i]);  // the tail is evicted first
        s.named.clear();
        s.blocks = 0;
    }

    void leave_decoding(Worker &w, Sequence &s) { out_.energy_j[s.request] += w.joules_each - s.joules_mark; }

    void finish(Worker &w, Sequence &s, double now) {
        const int64_t r = s.request;
        publish(w, s, s.complete());
        free_blocks(w, s);
        --w.assigned;
        out_.last_s[r] = now;
        if (requests_.concurrency > 0 && next_ < requests_.count) arrive(std::max(now, requests_.arrival_s[next_]), next_), ++next_;
        for (const int64_t child : children_[r])
            if (--unfinished_[child] == 0) arrive(std::max(requests_.arrival_s[child], now + requests_.gap_s[child]), child);
    }

    void enter_decoding(Worker &w, Sequence &&s) {
        s.taken = 0;
        s.joules_mark = w.joules_each;
        w.decoding.push_back(std::move(s));
    }

    void complete(Worker &w, double now) {
        w.event_s = NEVER;
        w.busy_s += now - w.begin_s;
        const bool decode = w.run_steps > 0 || (w.policy->mixed && !w.decoding.empty());
        const int64_t steps = std::max<int64_t>(w.run_steps, 1);
        w.steps += steps;
        out_.steps += steps;
        std::vector<Sequence> ended;
        if (decode) {
            const double n = static_cast<double>(w.decoding.size());
            if (w.run_steps > 0) w.joules_each += w.run(steps).joules / n;
            else w.joules_each += w.mixed_joules / n;
            out_.decode_tokens += steps * static_cast<int64_t>(w.decoding.size());
            w.pool.allocate(w.growth(steps));
            size_t kept = 0;
            for (Sequence &s : w.decoding) {
                s.taken += steps;
                s.blocks = std::max(s.blocks, blocks_of(s.begun(0), w.policy->block_tokens));
                s.steps_left -= steps;
                if (s.steps_left == 0) {
                    leave_decoding(w, s);
                    ended.push_back(std::move(s));
                } else {
                    if (&w.decoding[kept] != &s) w.decoding[kept] = std::move(s);
                    ++kept;
                }
            }
            w.decoding.erase(w.decoding.begin() + kept, w.decoding.end());
        }
        if (w.run_steps == 0) complete_prompts(w, now);
        for (Sequence &s : ended) finish(w, s, now);
        w.run_steps = 0;
    }

    void complete_prompts(Worker &w, double now) {
        std::vector<Sequence> left;
        for (Sequence &s : w.prompts) {
            s.done += s.chunk;
            out_.prefill_tokens += s.chunk;
            s.chunk = 0;
            if (s.done < s.target) {
                left.push_back(std::move(s));
                continue;
            }
            publish(w, s, s.target);
            if (s.resumed) s.steps_left -= 1, ++out_.resumed;
            else if (w.role != Role::prefill) out_.first_s[s.request] = now;
            if (w.role == Role::prefill) {
                free_blocks(w, s);
                --w.assigned;
                const double wait = cluster_.transfer_s + cluster_.transfer_s_per_token * static_cast<double>(s.target);
                arrive(now + wait, static_cast<size_t>(s.request), true);
            } else if (s.steps_left == 0) {
                finish(w, s, now);
            } else {
                enter_decoding(w, std::move(s));
            }
        }
        w.prompts = std::move(left);
    }

    // The sequence that was admitted last gives its blocks back and waits first in line; what it had is computed again.
    void preempt(Worker &w) {
        std::vector<Sequence> *from = nullptr;
        size_t last = 0;
        for (auto *running : {&w.decoding, &w.prompts})
            for (size_t i = 0; i < running->size(); ++i)
                if (!from || (*running)[i].order > (*from)[last].order) from = running, last = i;
        Sequence s = std::move((*from)[last]);
        from->erase(from->begin() + static_cast<std::ptrdiff_t>(last));
        free_blocks(w, s);
        ++out_.preemptions[s.request];
        if (from == &w.decoding) {
            leave_decoding(w, s);
            s.target = s.complete() + 1;  // the last token made is not in the cache yet
            s.resumed = true;
        }
        w.waiting.push_front({s.request, s.target, s.steps_left, s.resumed, false});
    }

    bool admit(Worker &w, int64_t &budget, bool &any, int64_t ahead, double now) {
        const Waiting x = w.waiting.front();
        const Policy &p = *w.policy;
        const int64_t r = x.request;
        int64_t shared = 0, idle = 0;
        if (p.prefix_cache) {
            shared = w.pool.match(ids(r), std::min((x.target - 1) / p.block_tokens, id_count(r)));
            idle = w.pool.idle(ids(r), shared);
        }
        // A prompt that was computed elsewhere decodes in this very step and needs room for what it adds.
        Sequence s;
        s.request = r;
        s.target = x.target;
        s.steps_left = x.steps_left;
        s.resumed = x.resumed;
        s.of = std::max<int64_t>(steps_of(r), 1);
        s.made = requests_.output[r] - 1;
        const int64_t reserved = requests_.prompt[r] + requests_.output[r];
        const int64_t held = p.reserve && w.role != Role::prefill ? reserved : s.begun(x.computed ? 1 : 0);
        const int64_t total = blocks_of(held, p.block_tokens);
        if (total - shared > w.pool.available() - ahead - idle) return false;
        s.order = w.order++;
        const int64_t rest = x.computed ? 0 : x.target - shared * p.block_tokens;
        if (!x.computed) {
            // Uncut prompts that are longer than any budget run alone beside what decodes.
            if (budget <= 0 || (!p.chunked && rest > budget && any)) return false;
        }
        for (int64_t i = 0; i < shared; ++i) w.pool.share(ids(r)[i]);
        s.named.assign(ids(r), ids(r) + shared);
        w.pool.allocate(total - shared);
        s.blocks = total;
        w.waiting.pop_front();
        if (!x.resumed && !x.computed) {
            out_.start_s[r] = now;
            out_.cached_tokens[r] = shared * p.block_tokens;
        }
        if (x.computed) {
            s.done = x.target;
            out_.first_s[r] = now;
            if (s.steps_left == 0) finish(w, s, now);
            else enter_decoding(w, std::move(s));
            return true;
        }
        s.done = x.target - rest;
        s.chunk = p.chunked ? std::min(rest, budget) : rest;
        budget -= s.chunk;
        any = true;
        w.prompts.push_back(std::move(s));
        return true;
    }

    void plan(Worker &w, double now) {
        const Policy &p = *w.policy;
        const bool nothing = w.decoding.empty() && w.prompts.empty() && w.waiting.empty();
        if (!w.inbox.empty() && (p.poll_steps <= 1 || nothing || w.steps % p.poll_steps == 0)) {
            w.waiting.insert(w.waiting.end(), w.inbox.begin(), w.inbox.end());
            w.inbox.clear();
        }
        bool preempted = false;
        while (w.decoding.size() + w.prompts.size() > 1 && w.growth(1) > w.pool.available()) preempt(w), preempted = true;
        int64_t budget = p.token_budget;
        if (p.mixed) budget -= static_cast<int64_t>(w.decoding.size()) * p.query_tokens;
        bool any = false;
        for (Sequence &s : w.prompts) {
            s.chunk = std::min(s.target - s.done, std::max<int64_t>(budget, 0));
            budget -= s.chunk;
            any = any || s.chunk > 0;
        }
        // What decodes next must find its blocks: they are set aside while prompts are admitted.
        const int64_t ahead = std::min(w.growth(1), w.pool.available());
        while (!preempted && !w.waiting.empty() && static_cast<int64_t>(w.decoding.size() + w.prompts.size()) < p.max_sequences)
            if (!admit(w, budget, any, ahead, now)) break;
        note(w, now);
        if (any) {
            begin_prompts(w, now);
        } else if (!w.decoding.empty()) {
            begin_run(w, now, preempted);
        } else if (!w.waiting.empty() || !w.prompts.empty()) {
            throw std::logic_error("serving: a worker with free memory admits nothing");
        }
    }

    void begin_prompts(Worker &w, double now) {
        const Policy &p = *w.policy;
        const StepTable &t = *w.table;
        const double decoding = p.mixed ? static_cast<double>(w.decoding.size() * p.query_tokens) : 0.0;
        double tokens = decoding;
        for (const Sequence &s : w.prompts) tokens += static_cast<double>(s.chunk);
        const Cost linear = t.linear.at(tokens);
        Cost total = linear;
        for (const Sequence &s : w.prompts) {
            if (s.chunk == 0) continue;
            const Cost own = t.prefill.at(static_cast<double>(s.chunk), static_cast<double>(s.done));
            total = total + own;
            out_.energy_j[s.request] += own.joules + linear.joules * static_cast<double>(s.chunk) / tokens;
        }
        w.mixed_joules = 0.0;
        if (decoding > 0) {
            const Cost own = t.decode.at(static_cast<double>(w.decoding.size()), w.mean_keys());
            total = total + own;
            w.mixed_joules = own.joules + linear.joules * decoding / tokens;
        }
        start(w, now, 0, total.seconds);
    }

    void begin_run(Worker &w, double now, bool preempted) {
        int64_t steps = std::numeric_limits<int64_t>::max();
        for (const Sequence &s : w.decoding) steps = std::min(steps, s.steps_left);
        // After a preemption nothing was admitted; the next step may.
        if (!w.policy->skip || preempted) steps = 1;
        const int64_t poll = w.policy->poll_steps;
        if (poll > 1 && !w.inbox.empty()) steps = std::min(steps, poll - w.steps % poll);
        if (w.growth(steps) > w.pool.available()) {
            int64_t low = 1, high = steps;
            while (low < high) {
                const int64_t middle = low + (high - low + 1) / 2;
                if (w.growth(middle) <= w.pool.available()) low = middle;
                else high = middle - 1;
            }
            steps = low;
        }
        start(w, now, steps, w.run(steps).seconds);
    }

    void start(Worker &w, double now, int64_t run_steps, double seconds) {
        w.begin_s = now;
        w.run_steps = run_steps;
        w.event_s = now + seconds;
        if (!(w.event_s > now)) throw std::logic_error("serving: a step takes no time");
    }

    void note(const Worker &w, double now) {
        if (!timeline_) return;
        int64_t prompt_tokens = 0;
        for (const Sequence &s : w.prompts) prompt_tokens += s.chunk;
        for (const double v : {now, static_cast<double>(&w - workers_.data()), static_cast<double>(w.decoding.size()),
                               static_cast<double>(w.waiting.size() + w.inbox.size()), static_cast<double>(w.pool.used()),
                               static_cast<double>(prompt_tokens)})
            out_.timeline.push_back(v);
    }

    const Requests &requests_;
    const Cluster &cluster_;
    bool timeline_;
    Outcome out_;
    std::vector<Worker> workers_;
    std::priority_queue<Arrival> arrivals_;
    std::vector<std::vector<int64_t>> children_;
    std::vector<int64_t> unfinished_;
    std::unordered_map<int64_t, size_t> home_;
    size_t next_ = 0;
    int64_t serial_ = 0;
};

}  // namespace

Outcome simulate(const Requests &requests, const Cluster &cluster, bool timeline) {
    return Engine(requests, cluster, timeline).go();
}

}  // namespace serving
