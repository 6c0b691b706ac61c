// Winograd's transforms along one axis: F(M, R) gives M outputs of a kernel of R taps by
// N = M + R - 1 products. `inference/engine/winograd.py` holds the transform of the kernels.
//
// References: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks",
// arXiv:1509.09308, 2015; on the choice of points B. Barabasz, A. Anderson, K. Soodhalter and
// D. Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
// Networks", ACM TOMS 46 (4), 2020.
#pragma once

#include "vector.hpp"

namespace petalign {
namespace PETALIGN_ISA {

template <int M_, int R_>
struct Transform;

// Points 0, 1, -1, infinity.
template <>
struct Transform<2, 3> {
    static constexpr int M = 2, R = 3, N = 4;

    static PETALIGN_INLINE void input(const V (&d)[N], V (&o)[N]) {
        o[0] = d[0] - d[2];
        o[1] = d[1] + d[2];
        o[2] = d[2] - d[1];
        o[3] = d[3] - d[1];
    }

    static PETALIGN_INLINE void output(const V (&m)[N], V (&o)[M]) {
        o[0] = m[0] + (m[1] + m[2]);
        o[1] = (m[1] - m[2]) + m[3];
    }
};

// Points 0, 1/sqrt 2, -1/sqrt 2, sqrt 2, -sqrt 2, infinity: the error is a quarter of that with the
// usual 1, -1, 2, -2, since powers of the points stay near 1.
template <>
struct Transform<4, 3> {
    static constexpr int M = 4, R = 3, N = 6;
    static constexpr float kP = 0.70710678f, kQ = 1.41421356f;

    static PETALIGN_INLINE void input(const V (&d)[N], V (&o)[N]) {
        const V a = d[4] - 2.f * d[2], b = d[3] - 2.f * d[1];
        const V c = d[4] - 0.5f * d[2], e = d[3] - 0.5f * d[1];
        o[0] = (d[0] + d[4]) - 2.5f * d[2];
        o[1] = a + kP * b;
        o[2] = a - kP * b;
        o[3] = c + kQ * e;
        o[4] = c - kQ * e;
        o[5] = (d[1] + d[5]) - 2.5f * d[3];
    }

    static PETALIGN_INLINE void output(const V (&m)[N], V (&o)[M]) {
        const V a = m[1] + m[2], b = kP * (m[1] - m[2]), c = m[3] + m[4], e = kQ * (m[3] - m[4]);
        o[0] = m[0] + (a + c);
        o[1] = b + e;
        o[2] = 0.5f * a + 2.f * c;
        o[3] = 0.5f * b + (2.f * e + m[5]);
    }
};

// Points 0, 1, -1, 2, -2, 1/2, -1/2, infinity.
template <>
struct Transform<4, 5> {
    static constexpr int M = 4, R = 5, N = 8;

    static PETALIGN_INLINE void input(const V (&d)[N], V (&o)[N]) {
        o[0] = 5.25f * (d[4] - d[2]) + (d[0] - d[6]);
        o[7] = 5.25f * (d[3] - d[5]) + (d[7] - d[1]);
        V a = (d[2] + d[6]) - 4.25f * d[4], b = (d[1] + d[5]) - 4.25f * d[3];
        o[1] = a + b;
        o[2] = a - b;
        a = 0.25f * d[2] + (d[6] - 1.25f * d[4]);
        b = 0.5f * d[1] + (2.f * d[5] - 2.5f * d[3]);
        o[3] = a + b;
        o[4] = a - b;
        a = 4.f * (d[2] - 1.25f * d[4]) + d[6];
        b = 2.f * d[1] + (0.5f * d[5] - 2.5f * d[3]);
        o[5] = a + b;
        o[6] = a - b;
    }

    static PETALIGN_INLINE void output(const V (&m)[N], V (&o)[M]) {
        const V a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
        const V e = m[5] + m[6], f = m[5] - m[6];
        o[0] = (m[0] + a) + (c + e);
        o[1] = 0.5f * f + (2.f * d + b);
        o[2] = 0.25f * e + (4.f * c + a);
        o[3] = m[7] + (0.125f * f + (8.f * d + b));
    }
};

}  // namespace PETALIGN_ISA
}  // namespace petalign
