// Fourier transforms of L complex sequences at once, one in each lane, in place.
//
// Forward transforms decimate in frequency and leave the frequencies in digit-reversed order;
// inverse ones decimate in time and take them in that order. A correlation multiplies two spectra
// place by place and never needs them sorted, so no pass ever reorders (W. M. Gentleman, G. Sande,
// "Fast Fourier transforms: for fun and profit", AFIPS 1966). No transform is scaled.
#pragma once

#include <cmath>
#include <stdexcept>
#include <vector>

#include "vector.hpp"

namespace petalign {
namespace PETALIGN_ISA {

// ------------------------------------------------------------------ small transforms, e^(-2 pi i)

template <int R>
struct Small;

template <>
struct Small<2> {
    static inline void run(V* re, V* im) {
        V ar = re[0], ai = im[0];
        re[0] = ar + re[1], im[0] = ai + im[1];
        re[1] = ar - re[1], im[1] = ai - im[1];
    }
};

template <>
struct Small<3> {
    static inline void run(V* re, V* im) {
        const float s = 0.86602540378443864676f;
        V sr = re[1] + re[2], si = im[1] + im[2];
        V dr = (re[1] - re[2]) * s, di = (im[1] - im[2]) * s;
        V mr = re[0] - sr * 0.5f, mi = im[0] - si * 0.5f;
        re[0] += sr, im[0] += si;
        re[1] = mr + di, im[1] = mi - dr;
        re[2] = mr - di, im[2] = mi + dr;
    }
};

template <>
struct Small<4> {
    static inline void run(V* re, V* im) {
        V ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
        V cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
        re[0] = ar + cr, im[0] = ai + ci;
        re[1] = br + di, im[1] = bi - dr;
        re[2] = ar - cr, im[2] = ai - ci;
        re[3] = br - di, im[3] = bi + dr;
    }
};

template <>
struct Small<5> {
    static inline void run(V* re, V* im) {
        const float c1 = 0.30901699437494742410f, c2 = -0.80901699437494742410f;
        const float s1 = 0.95105651629515357212f, s2 = 0.58778525229247312917f;
        V ar = re[1] + re[4], ai = im[1] + im[4], br = re[1] - re[4], bi = im[1] - im[4];
        V cr = re[2] + re[3], ci = im[2] + im[3], dr = re[2] - re[3], di = im[2] - im[3];
        V pr = re[0] + ar * c1 + cr * c2, pi = im[0] + ai * c1 + ci * c2;
        V qr = re[0] + ar * c2 + cr * c1, qi = im[0] + ai * c2 + ci * c1;
        V ur = br * s1 + dr * s2, ui = bi * s1 + di * s2;
        V vr = br * s2 - dr * s1, vi = bi * s2 - di * s1;
        re[0] += ar + cr, im[0] += ai + ci;
        re[1] = pr + ui, im[1] = pi - ur;
        re[4] = pr - ui, im[4] = pi + ur;
        re[2] = qr + vi, im[2] = qi - vr;
        re[3] = qr - vi, im[3] = qi + vr;
    }
};

template <>
struct Small<7> {
    static inline void run(V* re, V* im) {
        const float c[3] = {0.62348980185873353053f, -0.22252093395631440429f,
                            -0.90096886790241912624f};
        const float s[3] = {0.78183148246802980871f, 0.97492791218182360702f,
                            0.43388373911755812048f};
        V ar[3], ai[3], br[3], bi[3];
        for (int k = 0; k < 3; ++k) {
            ar[k] = re[k + 1] + re[6 - k], ai[k] = im[k + 1] + im[6 - k];
            br[k] = re[k + 1] - re[6 - k], bi[k] = im[k + 1] - im[6 - k];
        }
        const V r0 = re[0], i0 = im[0];
        re[0] = r0 + ar[0] + ar[1] + ar[2], im[0] = i0 + ai[0] + ai[1] + ai[2];
        // cos and sin of 2 pi q p / 7 for q, p in 1..3 are those of c and s, up to sign.
        V pr = r0 + ar[0] * c[0] + ar[1] * c[1] + ar[2] * c[2];
        V pi = i0 + ai[0] * c[0] + ai[1] * c[1] + ai[2] * c[2];
        V ur = br[0] * s[0] + br[1] * s[1] + br[2] * s[2];
        V ui = bi[0] * s[0] + bi[1] * s[1] + bi[2] * s[2];
        re[1] = pr + ui, im[1] = pi - ur;
        re[6] = pr - ui, im[6] = pi + ur;
        pr = r0 + ar[0] * c[1] + ar[1] * c[2] + ar[2] * c[0];
        pi = i0 + ai[0] * c[1] + ai[1] * c[2] + ai[2] * c[0];
        ur = br[0] * s[1] - br[1] * s[2] - br[2] * s[0];
        ui = bi[0] * s[1] - bi[1] * s[2] - bi[2] * s[0];
        re[2] = pr + ui, im[2] = pi - ur;
        re[5] = pr - ui, im[5] = pi + ur;
        pr = r0 + ar[0] * c[2] + ar[1] * c[0] + ar[2] * c[1];
        pi = i0 + ai[0] * c[2] + ai[1] * c[0] + ai[2] * c[1];
        ur = br[0] * s[2] - br[1] * s[0] + br[2] * s[1];
        ui = bi[0] * s[2] - bi[1] * s[0] + bi[2] * s[1];
        re[3] = pr + ui, im[3] = pi - ur;
        re[4] = pr - ui, im[4] = pi + ur;
    }
};

template <>
struct Small<8> {
    static inline void run(V* re, V* im) {
        const float h = 0.70710678118654752440f;
        V er[4] = {re[0], re[2], re[4], re[6]}, ei[4] = {im[0], im[2], im[4], im[6]};
        V or_[4] = {re[1], re[3], re[5], re[7]}, oi[4] = {im[1], im[3], im[5], im[7]};
        Small<4>::run(er, ei);
        Small<4>::run(or_, oi);
        V r1 = (or_[1] + oi[1]) * h, i1 = (oi[1] - or_[1]) * h;
        V r3 = (oi[3] - or_[3]) * h, i3 = (or_[3] + oi[3]) * -h;
        V r2 = oi[2], i2 = -or_[2];
        re[0] = er[0] + or_[0], im[0] = ei[0] + oi[0];
        re[4] = er[0] - or_[0], im[4] = ei[0] - oi[0];
        re[1] = er[1] + r1, im[1] = ei[1] + i1;
        re[5] = er[1] - r1, im[5] = ei[1] - i1;
        re[2] = er[2] + r2, im[2] = ei[2] + i2;
        re[6] = er[2] - r2, im[6] = ei[2] - i2;
        re[3] = er[3] + r3, im[3] = ei[3] + i3;
        re[7] = er[3] - r3, im[7] = ei[3] - i3;
    }
};

// ------------------------------------------------------------------ one pass over all elements

// Element e is z[2 e] + i z[2 e + 1]. `twiddles` holds e^(-2 pi i j q / n) for each j, q = 1..R-1.
template <int R>
inline void forward_pass(V* z, int size, int n, const float* twiddles) {
    const int m = n / R;
    for (int j = 0; j < m; ++j, twiddles += 2 * (R - 1)) {
        for (V* p = z + 2 * j; p < z + 2 * size; p += 2 * n) {
            V re[R], im[R];
#pragma GCC unroll 8
            for (int q = 0; q < R; ++q) re[q] = p[2 * m * q], im[q] = p[2 * m * q + 1];
            Small<R>::run(re, im);
            p[0] = re[0], p[1] = im[0];
#pragma GCC unroll 8
            for (int q = 1; q < R; ++q) {
                const float c = twiddles[2 * q - 2], s = twiddles[2 * q - 1];
                p[2 * m * q] = re[q] * c - im[q] * s;
                p[2 * m * q + 1] = re[q] * s + im[q] * c;
            }
        }
    }
}

template <int R>
inline void inverse_pass(V* z, int size, int n, const float* twiddles) {
    const int m = n / R;
    for (int j = 0; j < m; ++j, twiddles += 2 * (R - 1)) {
        for (V* p = z + 2 * j; p < z + 2 * size; p += 2 * n) {
            V re[R], im[R];
            re[0] = p[0], im[0] = p[1];
#pragma GCC unroll 8
            for (int q = 1; q < R; ++q) {
                const float c = twiddles[2 * q - 2], s = twiddles[2 * q - 1];
                const V r = p[2 * m * q], i = p[2 * m * q + 1];
                re[q] = r * c + i * s;
                im[q] = i * c - r * s;
            }
            Small<R>::run(im, re);  // with the parts exchanged, the inverse
#pragma GCC unroll 8
            for (int q = 0; q < R; ++q) p[2 * m * q] = re[q], p[2 * m * q + 1] = im[q];
        }
    }
}

// The pass over neighbouring elements has no twiddles.
template <int R, bool IsInverse>
inline void last_pass(V* z, int size) {
    for (V* p = z; p < z + 2 * size; p += 2 * R) {
        V re[R], im[R];
#pragma GCC unroll 8
        for (int q = 0; q < R; ++q) re[q] = p[2 * q], im[q] = p[2 * q + 1];
        IsInverse ? Small<R>::run(im, re) : Small<R>::run(re, im);
#pragma GCC unroll 8
        for (int q = 0; q < R; ++q) p[2 * q] = re[q], p[2 * q + 1] = im[q];
    }
}

// ------------------------------------------------------------------ whole transforms

class Fft {
   public:
    explicit Fft(int size) : size(size), place(size) {
        int rest = size;
        for (int radix : {8, 4, 2, 7, 5, 3})
            while (rest % radix == 0) radices_.push_back(radix), rest /= radix;
        if (rest != 1) throw std::invalid_argument("size has a prime factor above 7");
        int n = size;
        for (int radix : radices_) {
            std::vector<float> table;
            for (int j = 0; j < n / radix; ++j)
                for (int q = 1; q < radix; ++q) {
                    const double angle = -2 * M_PI * j * q / n;
                    table.push_back(float(std::cos(angle)));
                    table.push_back(float(std::sin(angle)));
                }
            twiddles_.push_back(std::move(table));
            n /= radix;
        }
        for (int k = 0; k < size; ++k) {
            int at = 0, left = k, length = size;
            for (int radix : radices_) {
                length /= radix;
                at += left % radix * length;
                left /= radix;
            }
            place[k] = at;
        }
    }

    void forward(V* z) const {
        int n = size;
        const int last = int(radices_.size()) - 1;
        for (int s = 0; s < last; n /= radices_[s++]) {
            const float* w = twiddles_[s].data();
            switch (radices_[s]) {
                case 2: forward_pass<2>(z, size, n, w); break;
                case 3: forward_pass<3>(z, size, n, w); break;
                case 4: forward_pass<4>(z, size, n, w); break;
                case 5: forward_pass<5>(z, size, n, w); break;
                case 7: forward_pass<7>(z, size, n, w); break;
                default: forward_pass<8>(z, size, n, w);
            }
        }
        close<false>(z, radices_[last]);
    }

    void inverse(V* z) const {
        const int last = int(radices_.size()) - 1;
        close<true>(z, radices_[last]);
        int n = radices_[last];
        for (int s = last - 1; s >= 0; --s) {
            n *= radices_[s];
            const float* w = twiddles_[s].data();
            switch (radices_[s]) {
                case 2: inverse_pass<2>(z, size, n, w); break;
                case 3: inverse_pass<3>(z, size, n, w); break;
                case 4: inverse_pass<4>(z, size, n, w); break;
                case 5: inverse_pass<5>(z, size, n, w); break;
                case 7: inverse_pass<7>(z, size, n, w); break;
                default: inverse_pass<8>(z, size, n, w);
            }
        }
    }

    const int size;
    std::vector<int> place;  // where the forward transform leaves each frequency

   private:
    template <bool IsInverse>
    void close(V* z, int radix) const {
        switch (radix) {
            case 2: last_pass<2, IsInverse>(z, size); break;
            case 3: last_pass<3, IsInverse>(z, size); break;
            case 4: last_pass<4, IsInverse>(z, size); break;
            case 5: last_pass<5, IsInverse>(z, size); break;
            case 7: last_pass<7, IsInverse>(z, size); break;
            default: last_pass<8, IsInverse>(z, size);
        }
    }

    std::vector<int> radices_;
    std::vector<std::vector<float>> twiddles_;
};

}  // namespace PETALIGN_ISA
}  // namespace petalign
