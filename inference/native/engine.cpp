// What Python calls: a context (memory and threads), and a program that is run in it.

#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "program.hpp"
#include "processor.hpp"

#define PETALIGN_API extern "C" __attribute__((visibility("default")))

namespace petalign {
namespace PETALIGN_ISA {
namespace {

constexpr size_t kPage = size_t(2) << 20;  // of the large pages, where the system has them

// Floats, all 0, that begin on a page.
class Memory {
   public:
    explicit Memory(int64_t count) {
        const size_t bytes = (sizeof(float) * std::max<int64_t>(count, 1) + kPage - 1) / kPage * kPage;
        start_ = static_cast<float*>(std::aligned_alloc(kPage, bytes));
        if (!start_) throw std::bad_alloc();
#if defined(__linux__)
        madvise(start_, bytes, MADV_HUGEPAGE);
#endif
        std::memset(start_, 0, bytes);
    }
    ~Memory() { std::free(start_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    float* start() const { return start_; }

   private:
    float* start_;
};

struct Context {
    Context(int count, int64_t arena, int64_t scratch) : threads(count), arena(arena) {
        for (int i = 0; i < threads.count(); ++i) {
            scratches.push_back(std::make_unique<Memory>(scratch));
            scratch_of.push_back(scratches.back()->start());
        }
    }

    Threads threads;
    Memory arena;
    std::vector<std::unique_ptr<Memory>> scratches;
    std::vector<float*> scratch_of;
};

void run(const Op& op, const Machine& machine) {
    switch (op.kind) {
        case kRead: return run_read(op, machine);
        case kWrite: return run_write(op, machine);
        case kZeroMargin:
        case kZeroAll: return run_zero(op, machine);
        case kDirect: return run_direct(op, machine);
        case kWinograd: return run_winograd(op, machine);
        case kMap: return run_map(op, machine);
        case kMaxPool:
        case kAveragePool: return run_pool(op, machine);
        case kLinearResize: return run_linear_resize(op, machine);
        case kSoftmax: return run_softmax(op, machine);
        case kCopy: return run_copy(op, machine);
    }
}

}  // namespace
}  // namespace PETALIGN_ISA
}  // namespace petalign

using namespace petalign::PETALIGN_ISA;

// Digest of the sources that the library was built from.
PETALIGN_API const char* petalign_engine_sources() { return PETALIGN_SOURCES; }

PETALIGN_API int petalign_engine_widest() { return petalign::widest_vectors(); }

PETALIGN_API int petalign_engine_lanes() { return L; }

PETALIGN_API int petalign_engine_op_bytes() { return int(sizeof(Op)); }

// Returns memory of `arena` floats, threads, and `scratch` floats for each; null if there is no room.
PETALIGN_API void* petalign_engine_open(int threads, int64_t arena, int64_t scratch) {
    try {
        return new Context(threads, arena, scratch);
    } catch (const std::exception&) {
        return nullptr;
    }
}

PETALIGN_API void petalign_engine_close(void* context) { delete static_cast<Context*>(context); }

// Runs operations in their order; `seconds`, if given, gets the time of each on the clock.
PETALIGN_API void petalign_engine_run(void* context, const Op* ops, int count, float* const* arrays,
                                      double* seconds) {
    auto& c = *static_cast<Context*>(context);
    const Machine machine{c.arena.start(), arrays, &c.threads, c.scratch_of.data()};
    for (int i = 0; i < count; ++i) {
        const auto start = std::chrono::steady_clock::now();
        run(ops[i], machine);
        if (seconds)
            seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}
