// Vectors of LANES floats, the one width that a translation unit is compiled for, and activations.
//
// GCC's and Clang's vector extensions give the same operations on every processor. Products and
// sums are fused where the processor can: results differ by rounding between widths of vectors.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef LANES
#define LANES 4
#endif

#if LANES > 4
#include <immintrin.h>
#endif

#define PETALIGN_INLINE inline __attribute__((always_inline))

namespace petalign {
namespace PETALIGN_ISA {

constexpr int L = LANES;

typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t VI __attribute__((vector_size(4 * LANES)));

PETALIGN_INLINE V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

PETALIGN_INLINE void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

// Past the caches, to an address that is a multiple of the vector's size.
PETALIGN_INLINE void stream(float* p, V v) {
#if LANES == 16
    _mm512_stream_ps(p, (__m512)v);
#elif LANES == 8
    _mm256_stream_ps(p, (__m256)v);
#else
    store(p, v);
#endif
}

// Lets other threads see what was streamed.
PETALIGN_INLINE void end_stream() {
#if LANES > 4
    _mm_sfence();
#endif
}

// The first n lanes only.
PETALIGN_INLINE void store(float* p, V v, int n) { std::memcpy(p, &v, sizeof(float) * n); }

PETALIGN_INLINE V splat(float x) { return x - V{}; }

// A NaN stays one: of two values, the first is kept unless the second is really larger.
PETALIGN_INLINE V larger(V a, V b) { return a < b ? b : a; }

// e to the power of -87 <= x <= 88, to 2 units in the last place; below, that of -87.
PETALIGN_INLINE V power(V x) {
    x = larger(x, splat(-87.f));
    const V magic = splat(12582912.f);  // adding 1.5 * 2^23 rounds to a whole number
    const V whole = (x * 1.44269504f + magic) - magic;
    V r = x - whole * 0.693359375f;
    r = r - whole * -2.12194440e-4f;
    V p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + (r + 1.f);
    const VI exponent = (__builtin_convertvector(whole, VI) + 127) << 23;
    return p * (V)exponent;
}

enum Activation : int32_t { kLinear, kRelu, kLeaky, kElu, kTanh, kSigmoid };

PETALIGN_INLINE V elu(V x, float alpha) {
    const V below = (power(x < 0.f ? x : V{}) - 1.f) * alpha;
    return x < 0.f ? below : x;
}

PETALIGN_INLINE V tanh(V x) {
    const VI sign = (VI)x & INT32_MIN;
    const V size = (V)((VI)x & INT32_MAX);
    const V e = power(size * -2.f);
    return (V)((VI)((1.f - e) / (1.f + e)) | sign);
}

PETALIGN_INLINE V sigmoid(V x) {
    const V e = power(-(x < -80.f ? splat(-80.f) : x));
    return 1.f / (1.f + e);
}

// Applies an activation to n vectors; one decision for all of them.
template <int N>
PETALIGN_INLINE void activate(V (&y)[N], int32_t kind, float alpha) {
    switch (kind) {
        case kLinear: break;
        case kRelu:
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) y[i] = larger(y[i], V{});
            break;
        case kLeaky:
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) y[i] = y[i] < 0.f ? y[i] * alpha : y[i];
            break;
        case kElu:
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) y[i] = elu(y[i], alpha);
            break;
        case kTanh:
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) y[i] = tanh(y[i]);
            break;
        case kSigmoid:
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) y[i] = sigmoid(y[i]);
            break;
    }
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
