// The innermost loop of all convolutions: a block of registers, vectors of channels by pixels.
#pragma once

#include "program.hpp"

namespace petalign {
namespace PETALIGN_ISA {

// Calls f.template run<vectors, pixels>() for the block that an operation asks for. The blocks fill
// the registers: 32 of them with AVX-512, 16 otherwise. `inference/engine/blocks.py` lists the same.
template <class F>
PETALIGN_INLINE void with_block(int vectors, int pixels, F&& f) {
    const int both = vectors * 100 + pixels;
    switch (both) {
#if LANES == 16
        case 116: return f.template run<1, 16>();
        case 212: return f.template run<2, 12>();
        case 308: return f.template run<3, 8>();
        case 406: return f.template run<4, 6>();
        case 505: return f.template run<5, 5>();
        case 108: return f.template run<1, 8>();
        case 206: return f.template run<2, 6>();
        case 304: return f.template run<3, 4>();
        case 403: return f.template run<4, 3>();
#else
        case 108: return f.template run<1, 8>();
        case 206: return f.template run<2, 6>();
        case 304: return f.template run<3, 4>();
        case 104: return f.template run<1, 4>();
        case 203: return f.template run<2, 3>();
        case 302: return f.template run<3, 2>();
#endif
    }
    __builtin_trap();  // Python chose a block that isn't compiled
}

// sums[pixel][vector] += p[pixel * step + k] * w[k][vector], for k < n.
template <int VECTORS, int PIXELS>
PETALIGN_INLINE void accumulate(V (&sums)[PIXELS][VECTORS], const float* p, const float* w, int n,
                                int64_t step) {
#pragma GCC unroll 2
    for (int k = 0; k < n; ++k, w += VECTORS * L) {
        V weights[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) weights[v] = load(w + v * L);
#pragma GCC unroll 16
        for (int m = 0; m < PIXELS; ++m) {
            const V value = splat(p[m * step + k]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sums[m][v] += value * weights[v];
        }
    }
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
