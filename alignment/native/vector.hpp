// Vectors of LANES floats, the one width that a translation unit is compiled for.
//
// GCC's and Clang's vector extensions give the same operations on every processor; what they do per
// lane is what IEEE 754 says, so that the width of the vectors changes no result.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#ifndef LANES
#define LANES 4
#endif

namespace petalign {
namespace PETALIGN_ISA {

constexpr int L = LANES;

typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t VI __attribute__((vector_size(4 * LANES)));
typedef int16_t VS __attribute__((vector_size(2 * LANES)));

// Columns come in multiples of the widest vector whatever the width, so that all give equal bits.
constexpr int kColumns = 16;
inline int whole_columns(int n) { return (n + kColumns - 1) / kColumns * kColumns; }

inline V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

inline V load_int16(const int16_t* p) {
    VS v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, V);
}

// The first n pixels; the other lanes are 0.
inline V load_int16(const int16_t* p, int n) {
    VS v{};
    std::memcpy(&v, p, sizeof(int16_t) * n);
    return __builtin_convertvector(v, V);
}

inline V splat(float x) {
    V v;
    for (int i = 0; i < L; ++i) v[i] = x;
    return v;
}

inline V choose(VI condition, V yes, V no) {
    return (V)((condition & (VI)yes) | (~condition & (VI)no));
}

inline V larger(V a, V b) { return choose(a > b, a, b); }

inline V root(V v) {
    for (int i = 0; i < L; ++i) v[i] = std::sqrt(v[i]);
    return v;
}

// True in the first n lanes.
inline VI lanes_below(int n) {
    VI index;
    for (int i = 0; i < L; ++i) index[i] = i;
    return index < n;
}

inline float largest_lane(V v) {
    float best = v[0];
    for (int i = 1; i < L; ++i) best = v[i] > best ? v[i] : best;
    return best;
}

template <int... I>
inline V interleave_low(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I / 2 + (I % 2) * L)...);
}

template <int... I>
inline V interleave_high(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (L / 2 + I / 2 + (I % 2) * L)...);
}

// Transposes L rows of L lanes: a perfect shuffle of rows, repeated log2(L) times.
inline void transpose(V rows[L]) {
    constexpr std::make_integer_sequence<int, L> lanes{};
    V other[L];
    V* from = rows;
    V* to = other;
#pragma GCC unroll 4
    for (int step = 1; step < L; step *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < L / 2; ++i) {
            to[2 * i] = interleave_low(from[i], from[i + L / 2], lanes);
            to[2 * i + 1] = interleave_high(from[i], from[i + L / 2], lanes);
        }
        std::swap(from, to);
    }
    if (from != rows)
        for (int i = 0; i < L; ++i) rows[i] = from[i];
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
