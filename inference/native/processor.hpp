// What this processor and its system can do. Asked by hand: `__builtin_cpu_supports` says no to
// everything where zig links a library.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace petalign {

// The widest vectors: 2 AVX-512 (x86-64-v4), 1 AVX2 (x86-64-v3), 0 neither.
inline int widest_vectors() {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const unsigned first = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C | bit_MOVBE;
    if ((c & first) != first) return 0;
    unsigned kept, high;  // registers that the system keeps for each thread
    __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    if ((kept & 0x6) != 0x6) return 0;
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(c & bit_LZCNT)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned avx2 = bit_AVX2 | bit_BMI | bit_BMI2;
    if ((b & avx2) != avx2) return 0;
    const unsigned avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
    return (b & avx512) == avx512 && (kept & 0xe6) == 0xe6 ? 2 : 1;
#else
    return 0;
#endif
}

}  // namespace petalign
