// Threads that take pieces of work, one after another. What a piece computes never depends on who
// takes it.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace petalign {
namespace PETALIGN_ISA {

class Threads {
   public:
    using Work = std::function<void(int piece, int thread)>;

    explicit Threads(int count) : count_(std::max(count, 1)) {
        for (int k = 1; k < count_; ++k) pool_.emplace_back([this, k] { wait_for_work(k); });
    }
    ~Threads() {
        {
            std::lock_guard<std::mutex> hold(mutex_);
            is_ending_ = true;
        }
        begin_.notify_all();
        for (auto& thread : pool_) thread.join();
    }
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    int count() const { return count_; }

    // Calls work for each of n pieces.
    void over(int n, const Work& work) {
        if (count_ == 1 || n < 2) {
            for (int i = 0; i < n; ++i) work(i, 0);
            return;
        }
        {
            std::lock_guard<std::mutex> hold(mutex_);
            work_ = &work;
            n_ = n;
            next_.store(0, std::memory_order_relaxed);
            running_ = count_ - 1;
            ++round_;
        }
        begin_.notify_all();
        take(0);
        std::unique_lock<std::mutex> hold(mutex_);
        done_.wait(hold, [this] { return running_ == 0; });
    }

   private:
    void take(int thread) {
        for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) (*work_)(i, thread);
    }

    void wait_for_work(int thread) {
        for (unsigned seen = 0;;) {
            std::unique_lock<std::mutex> hold(mutex_);
            begin_.wait(hold, [&] { return is_ending_ || round_ != seen; });
            if (is_ending_) return;
            seen = round_;
            hold.unlock();
            take(thread);
            hold.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    const int count_;
    std::vector<std::thread> pool_;
    std::mutex mutex_;
    std::condition_variable begin_, done_;
    const Work* work_ = nullptr;
    std::atomic<int> next_{0};
    int n_ = 0, running_ = 0;
    unsigned round_ = 0;
    bool is_ending_ = false;
};

}  // namespace PETALIGN_ISA
}  // namespace petalign
