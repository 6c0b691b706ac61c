// Work on ranges of sections, side by side. What a range computes never depends on the ranges.
#pragma once

#include "threads.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace relax {

class Ranges {
   public:
    explicit Ranges(int count) : threads_(count) {}

    // Calls work(first, last) for parts of [0, n) that cover it; small work stays on this thread.
    template <class Work>
    void over(int n, size_t size, Work&& work) {
        const int parts = threads_.count();
        if (parts == 1 || n < 2 || size < kSmall) return work(0, n);
        threads_.over(parts, [&](int part, int) {
            const int first = int(int64_t(n) * part / parts);
            const int last = int(int64_t(n) * (part + 1) / parts);
            if (first < last) work(first, last);
        });
    }

   private:
    static constexpr size_t kSmall = 20000;

    Threads threads_;
};

}  // namespace relax
}  // namespace PETALIGN_ISA
}  // namespace petalign
