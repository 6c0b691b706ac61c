// What Python asks of the library as a whole.

#include "library.hpp"
#include "vector.hpp"

// Digest of the sources that the library was built from.
PETALIGN_API const char* petalign_sources() { return PETALIGN_SOURCES; }

// The widest vectors of this processor: 2 AVX-512, 1 AVX2, 0 neither.
PETALIGN_API int petalign_widest() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512cd"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return 1;
#endif
    return 0;
}

PETALIGN_API int petalign_lanes() { return petalign::PETALIGN_ISA::L; }
