// SPDX-License-Identifier: Apache-2.0
#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace vision3d {
namespace {

thread_local bool inside_task = false;

constexpr int kSpins = 2000;  // looks before a sleep, some 30 microseconds: what waking a thread costs

inline void pause() {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("yield");
#endif
}

// One parallel call. Workers hold it by shared_ptr: a late one finds no task left and lets go.
struct Job {
    Job(int64_t n, const std::function<void(int64_t)> &f) : tasks(n), body(f) {}

    void work() {
        inside_task = true;
        for (;;) {
            const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
            if (task >= tasks) break;
            try {
                body(task);
            } catch (...) {
                std::lock_guard<std::mutex> lock(mutex);
                if (!error) error = std::current_exception();
            }
            if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks) {
                std::lock_guard<std::mutex> lock(mutex);
                finished.notify_all();
            }
        }
        inside_task = false;
    }

    void wait() {
        // The last tasks of both threads end almost together: a short look costs less than a sleep.
        for (int spin = 0; spin < kSpins; ++spin) {
            if (done.load(std::memory_order_acquire) == tasks) return;
            pause();
        }
        std::unique_lock<std::mutex> lock(mutex);
        finished.wait(lock, [this] { return done.load(std::memory_order_acquire) == tasks; });
    }

    const int64_t tasks;
    const std::function<void(int64_t)> &body;
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;
};

class Pool {
  public:
    void run(int64_t tasks, int threads, const std::function<void(int64_t)> &body) {
        std::lock_guard<std::mutex> turn(turn_);
        auto job = std::make_shared<Job>(tasks, body);
        const int helpers = static_cast<int>(std::min<int64_t>(usable_threads(threads), tasks)) - 1;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            try {
                while (static_cast<int>(workers_.size()) < helpers)
                    workers_.emplace_back([this, index = static_cast<int>(workers_.size())] { serve(index); });
            } catch (const std::system_error &) {
                // The system gives no more threads: those that there are do all tasks.
            }
            job_ = job;
            wanted_ = helpers;
            arrivals_.store(++generation_, std::memory_order_release);
        }
        wake_.notify_all();
        job->work();
        job->wait();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_.reset();
        }
        if (job->error) std::rethrow_exception(job->error);
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (auto &worker : workers_) worker.join();
    }

  private:
    void serve(int index) {
        uint64_t seen = 0;
        for (;;) {
            std::shared_ptr<Job> job;
            // Calls come in bursts, one pass of an algorithm after the other: a short look costs less than a sleep.
            for (int spin = 0; spin < kSpins && arrivals_.load(std::memory_order_acquire) == seen; ++spin) pause();
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
                if (stop_) return;
                seen = generation_;
                if (index < wanted_) job = job_;
            }
            if (job) job->work();
        }
    }

    std::mutex turn_;  // one parallel call at a time
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
    std::shared_ptr<Job> job_;
    int wanted_ = 0;
    uint64_t generation_ = 0;
    std::atomic<uint64_t> arrivals_{0};  // generation_, to be read without the lock
    bool stop_ = false;
};

Pool *pool = nullptr;
std::once_flag pool_made;

void make_pool() {
    pool = new Pool;
#if !defined(_WIN32)
    // Threads do not survive fork(); the child starts anew and leaves the parent's pool, whose locks may be held.
    static std::once_flag hooked;
    std::call_once(hooked, [] { pthread_atfork(nullptr, nullptr, [] { pool = new Pool; inside_task = false; }); });
#endif
}

}  // namespace

void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t)> &body) {
    if (tasks <= 0) return;
    if (threads <= 1 || tasks == 1 || inside_task) {
        for (int64_t task = 0; task < tasks; ++task) body(task);
        return;
    }
    std::call_once(pool_made, make_pool);
    pool->run(tasks, threads, body);
}

}  // namespace vision3d
