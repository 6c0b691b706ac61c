// Sums of weighted 8-bit pixels: products of 16-bit integers, added in 32 bits, so in any order.
//
// `N` lanes hold the partial sums of one position; `fold` adds up those of N positions at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef LANES
#define LANES 4
#endif

namespace petalign {
namespace PETALIGN_ISA {
namespace remap {

// Written out per width: GCC takes no template argument for the size of a vector.
template <int N>
struct Vector;
#define PETALIGN_VECTOR(N)                                               \
    template <>                                                          \
    struct Vector<N> {                                                   \
        typedef int32_t Sums __attribute__((vector_size(4 * (N))));      \
        typedef int16_t Pairs __attribute__((vector_size(4 * (N))));     \
        typedef uint8_t Pixels __attribute__((vector_size(2 * (N))));    \
        typedef uint8_t Bytes __attribute__((vector_size(N)));           \
        typedef uint32_t Rows4 __attribute__((vector_size(2 * (N))));    \
        typedef uint64_t Rows8 __attribute__((vector_size(2 * (N))));    \
    };
PETALIGN_VECTOR(4)
PETALIGN_VECTOR(8)
PETALIGN_VECTOR(16)

template <int N>
using Sums = typename Vector<N>::Sums;
template <int N>
using Pairs = typename Vector<N>::Pairs;  // 2 N integers of 16 bits

// Products of neighbouring 16-bit integers, added in pairs.
inline Sums<4> multiply_pairs(Pairs<4> a, Pairs<4> b) {
#if defined(__SSE2__)
    return (Sums<4>)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    Sums<4> s;
    for (int i = 0; i < 4; ++i) s[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    return s;
#endif
}
#if defined(__AVX2__)
inline Sums<8> multiply_pairs(Pairs<8> a, Pairs<8> b) {
    return (Sums<8>)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
#endif
#if defined(__AVX512BW__)
inline Sums<16> multiply_pairs(Pairs<16> a, Pairs<16> b) {
    return (Sums<16>)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
#endif

// Rows of `Width` pixels, one below the other, as many as 2 N pixels make.
template <int N, int Width>
inline Pairs<N> load_rows(const uint8_t* p, ptrdiff_t stride) {
    using Rows =
        std::conditional_t<Width == 8, typename Vector<N>::Rows8, typename Vector<N>::Rows4>;
    using Row = std::conditional_t<Width == 8, uint64_t, uint32_t>;
    Rows rows;
#pragma GCC unroll 8
    for (int i = 0; i < 2 * N / Width; ++i) {
        Row row;
        std::memcpy(&row, p + i * stride, sizeof row);
        rows[i] = row;
    }
    return __builtin_convertvector((typename Vector<N>::Pixels)rows, Pairs<N>);
}

template <int N>
inline Pairs<N> load_weights(const int16_t* p) {
    Pairs<N> w;
    std::memcpy(&w, p, sizeof w);
    return w;
}

// Weighted sum of a square of `Width` x `Width` pixels, in N parts.
template <int N, int Width>
inline Sums<N> weigh(const uint8_t* p, ptrdiff_t stride, const int16_t* weights) {
    constexpr int kRows = 2 * N / Width;
    Sums<N> sum{};
    for (int row = 0; row < Width; row += kRows)
        sum += multiply_pairs(load_rows<N, Width>(p + row * stride, stride),
                              load_weights<N>(weights + row * Width));
    return sum;
}

// Within each group of four lanes: the first two of a and b by turns, and the last two.
template <int N, int... I>
inline Sums<N> add_pairs(Sums<N> a, Sums<N> b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 4 / 2 + I % 2 * N)...) +
           __builtin_shufflevector(a, b, (I / 4 * 4 + 2 + I % 4 / 2 + I % 2 * N)...);
}
// Likewise: the first half of a, then that of b, and the second halves.
template <int N, int... I>
inline Sums<N> add_halves(Sums<N> a, Sums<N> b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 2 + I % 4 / 2 * N)...) +
           __builtin_shufflevector(a, b, (I / 4 * 4 + 2 + I % 2 + I % 4 / 2 * N)...);
}
// The even groups of four of a, then of b, and the odd ones.
template <int N, int... I>
inline Sums<N> add_groups(Sums<N> a, Sums<N> b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I / 4 * 8 % N + I % 4 + I / (N / 2) * N)...) +
           __builtin_shufflevector(a, b, (I / 4 * 8 % N + 4 + I % 4 + I / (N / 2) * N)...);
}

// The sums of N positions from the parts of each; the parts are overwritten.
template <int N>
inline Sums<N> fold(Sums<N>* parts) {
    constexpr std::make_integer_sequence<int, N> lanes{};
#pragma GCC unroll 8
    for (int i = 0; i < N / 4; ++i) {
        // Lane l of the first sum holds positions (0, 2, 0, 2), parts of the group of l.
        const Sums<N> even = add_pairs<N>(parts[4 * i], parts[4 * i + 1], lanes);
        const Sums<N> odd = add_pairs<N>(parts[4 * i + 2], parts[4 * i + 3], lanes);
        parts[i] = add_halves<N>(even, odd, lanes);
    }
    if constexpr (N > 4) {
#pragma GCC unroll 4
        for (int n = N / 4; n > 1; n /= 2)
#pragma GCC unroll 4
            for (int i = 0; i < n / 2; ++i)
                parts[i] = add_groups<N>(parts[2 * i], parts[2 * i + 1], lanes);
    }
    return parts[0];
}

}  // namespace remap
}  // namespace PETALIGN_ISA
}  // namespace petalign
