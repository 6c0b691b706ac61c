// Work on ranges of sections, side by side. What a range computes never depends on the ranges.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace petalign {
namespace PETALIGN_ISA {
namespace relax {  // of its own: a name that two sources share would be merged silently

// Threads that wait for work: starting new ones would cost more than a coarse level's work.
class Threads {
   public:
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

    // Calls work(first, last) for parts of [0, n) that cover it; small work stays on this thread.
    void over(int n, size_t size, const std::function<void(int, int)>& work) {
        if (count_ == 1 || n < 2 || size < kSmall) return work(0, n);
        {
            std::lock_guard<std::mutex> hold(mutex_);
            work_ = &work;
            n_ = n;
            running_ = count_ - 1;
            ++round_;
        }
        begin_.notify_all();
        part(0);
        std::unique_lock<std::mutex> hold(mutex_);
        done_.wait(hold, [this] { return running_ == 0; });
    }

   private:
    static constexpr size_t kSmall = 20000;

    void part(int k) {
        const int first = int(int64_t(n_) * k / count_), last = int(int64_t(n_) * (k + 1) / count_);
        if (first < last) (*work_)(first, last);
    }

    void wait_for_work(int k) {
        for (int seen = 0;;) {
            std::unique_lock<std::mutex> hold(mutex_);
            begin_.wait(hold, [&] { return is_ending_ || round_ != seen; });
            if (is_ending_) return;
            seen = round_;
            hold.unlock();
            part(k);
            hold.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    const int count_;
    std::vector<std::thread> pool_;
    std::mutex mutex_;
    std::condition_variable begin_, done_;
    const std::function<void(int, int)>* work_ = nullptr;
    int n_ = 0, running_ = 0, round_ = 0;
    bool is_ending_ = false;
};

}  // namespace relax
}  // namespace PETALIGN_ISA
}  // namespace petalign
