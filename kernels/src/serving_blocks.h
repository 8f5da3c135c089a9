// Blocks of a paged KV cache: private ones are a count, named ones (prefixes) are shared and stay until evicted.
#pragma once

#include <cstdint>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace serving {

class BlockPool {
  public:
    BlockPool(int64_t capacity) : capacity_(capacity) {}

    int64_t available() const { return capacity_ - used_; }  // free or evictable
    int64_t used() const { return used_; }
    int64_t peak() const { return peak_; }
    int64_t evicted() const { return evicted_; }

    // How many leading ids are cached.
    int64_t match(const int64_t *ids, int64_t count) const {
        int64_t i = 0;
        while (i < count && named_.count(ids[i])) ++i;
        return i;
    }
    // Of these, how many nobody uses now: taking them leaves fewer to evict.
    int64_t idle(const int64_t *ids, int64_t count) const {
        int64_t n = 0;
        for (int64_t i = 0; i < count; ++i) n += named_.at(ids[i]).owners == 0;
        return n;
    }
    void share(int64_t id) {
        Named &b = named_.at(id);
        if (b.owners++ == 0) {
            order_.erase({b.stamp, id});
            take(1, false);
        }
    }
    void allocate(int64_t count) { take(count, true); }
    void release(int64_t count) {
        used_ -= count;
        if (used_ < 0) throw std::logic_error("serving: a block was released twice");
    }
    // A private block becomes the cached one of that name; false if the name is taken (the block stays private).
    bool publish(int64_t id) { return named_.emplace(id, Named{1, 0}).second; }
    void unshare(int64_t id) {
        Named &b = named_.at(id);
        if (b.owners <= 0) throw std::logic_error("serving: a shared block was released twice");
        if (--b.owners == 0) {
            b.stamp = ++clock_;
            order_.insert({b.stamp, id});
            release(1);
        }
    }

  private:
    struct Named {
        int64_t owners, stamp;
    };
    void take(int64_t count, bool fresh) {
        used_ += count;
        if (used_ > capacity_) throw std::logic_error("serving: more blocks used than there are");
        if (used_ > peak_) peak_ = used_;
        if (!fresh) return;
        while (used_ + static_cast<int64_t>(order_.size()) > capacity_) {
            named_.erase(order_.begin()->second);
            order_.erase(order_.begin());
            ++evicted_;
        }
    }
    int64_t capacity_, used_ = 0, peak_ = 0, evicted_ = 0, clock_ = 0;
    std::unordered_map<int64_t, Named> named_;
    std::set<std::pair<int64_t, int64_t>> order_;  // (stamp, id) of cached blocks that nobody uses, oldest first
};

}  // namespace serving
