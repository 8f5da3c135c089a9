// A thread that has nothing to do watches for the next call for kWatch, then sleeps until it is woken: the calls of a decode step follow
// each other within that time, and a thread that is started or woken for each would come after the work is done.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace pool {

namespace {

constexpr auto kWatch = std::chrono::microseconds(40);

bool one_core_only() {
#if defined(__linux__)
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) == 1;
#else
    return std::thread::hardware_concurrency() == 1;
#endif
}

// Waits until ready() or kWatch has passed; at once on one core, where whoever is waited for could not run meanwhile.
template <class Ready>
void watch(Ready &&ready) {
    if (ready() || one_core_only()) return;
    const auto end = std::chrono::steady_clock::now() + kWatch;
    do {
        for (int i = 0; i < 16; ++i) {
            if (ready()) return;
#if defined(__x86_64__) || defined(_M_X64)
            __builtin_ia32_pause();
#endif
        }
    } while (std::chrono::steady_clock::now() < end);
}

class Pool {
  public:
    // Joins the threads. The pool itself stays, and stays in use: a thread of a daemon that calls later works alone.
    void stop() {
        in_use_.lock();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    int size() {
        std::lock_guard<std::mutex> lock(mutex_);
        return (int)threads_.size();
    }

    void run(int threads, void (*work)(void *, int), void *context) {
        std::unique_lock<std::mutex> mine(in_use_, std::try_to_lock);
        if (!mine.owns_lock()) return work(context, 0);
        bool sleepers;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            grow(threads - 1);
            work_ = work;
            context_ = context;
            entered_ = 0;
            places_ = threads - 1;
            sleepers = sleeping_ > 0;
        }
        if (sleepers) wake_.notify_all();
        work(context, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        places_ = 0;  // who has not come by now finds nothing left to do
        if (inside_ == 0) return;
        lock.unlock();
        watch([this] { return inside_ == 0; });
        lock.lock();
        left_.wait(lock, [this] { return inside_ == 0; });
    }

  private:
    void grow(int wanted) {
        while ((int)threads_.size() < wanted) {
            try {
                threads_.emplace_back([this] { serve(); });
            } catch (const std::system_error &) {
                return;  // no more threads to be had: the work is done by those that are there
            }
        }
    }

    void serve() {
        for (;;) {
            watch([this] { return places_ > 0 || stop_; });
            std::unique_lock<std::mutex> lock(mutex_);
            ++sleeping_;
            wake_.wait(lock, [this] { return places_ > 0 || stop_; });
            --sleeping_;
            if (stop_) return;
            --places_;
            ++inside_;
            const int worker = ++entered_;
            const auto work = work_;
            void *const context = context_;
            lock.unlock();
            work(context, worker);
            lock.lock();
            if (--inside_ == 0) left_.notify_one();
        }
    }

    std::mutex in_use_;  // held by the caller whose work it is
    std::mutex mutex_;   // of all that follows
    std::condition_variable wake_, left_;
    std::vector<std::thread> threads_;
    void (*work_)(void *, int) = nullptr;
    void *context_ = nullptr;
    int entered_ = 0, sleeping_ = 0;
    // Written under the mutex, watched without it.
    std::atomic<int> places_{0}, inside_{0};
    std::atomic<bool> stop_{false};
};

std::atomic<Pool *> current{nullptr};
std::atomic<bool> ended{false};

// Threads do not live on in a child of fork, and a mutex may be held there by one of them: the child forgets the pool (and never frees
// it) and makes its own. The end of the process joins the threads.
struct Keeper {
    Keeper() {
#if defined(__linux__)
        pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
#endif
    }
    ~Keeper() {
        ended = true;
        if (Pool *pool = current.load()) pool->stop();
    }
} keeper;

Pool *instance() {
    Pool *pool = current.load();
    if (pool || ended) return pool;
    Pool *made = new Pool;
    if (current.compare_exchange_strong(pool, made)) return made;
    delete made;
    return pool;
}

}  // namespace

void run(int threads, void (*work)(void *, int), void *context) {
    Pool *pool = threads > 1 ? instance() : nullptr;
    if (pool) pool->run(threads, work, context);
    else work(context, 0);
}

int kept_threads() {
    Pool *pool = current.load();
    return pool ? pool->size() : 0;
}

}  // namespace pool
