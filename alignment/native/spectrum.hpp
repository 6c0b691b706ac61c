// Spectra of real images, and correlations out of two of them.
//
// A column pair (x, x + h) is transformed along y as one complex column, LANES pairs at a time, and
// parted by symmetry; the halves are transposed, and rows of LANES frequencies ky are transformed
// along x. So a spectrum is a list of groups of LANES ky, each a whole transform along x that lies
// together in memory. The real frequencies ky = 0 and size / 2 share lane 0 of the first group.
#pragma once

#include <algorithm>
#include <new>

#include "fft.hpp"

namespace petalign {
namespace PETALIGN_ISA {

// Vectors on whole cache lines; what they hold is not set.
class Vectors {
   public:
    Vectors() = default;
    explicit Vectors(size_t n)
        : data_(static_cast<V*>(::operator new[](n * sizeof(V), std::align_val_t(64)))) {}
    Vectors(Vectors&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    Vectors& operator=(Vectors&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~Vectors() { ::operator delete[](data_, std::align_val_t(64)); }
    V* get() const { return data_; }

   private:
    V* data_ = nullptr;
};

class Correlator {
   public:
    // `size` is a multiple of 32 with no prime factor above 7.
    explicit Correlator(int size)
        : fft_(size),
          size(size),
          half_(size / 2),
          groups_(size / 2 / L),
          line_(2 * size),
          rows_(2 * size_t(size) * groups_) {}

    size_t spectrum_vectors() const { return 2 * size_t(size) * groups_; }

    // Spectrum, times 2, of an image of `ny` rows and `nx` columns; the rest up to `size` is 0.
    // `at(y, x)` gives LANES pixels, x a multiple of LANES; what it gives beyond nx belongs to the
    // image, so it must be 0 or harmless there.
    template <class At>
    void transform(int ny, int nx, At at, V* spectrum) {
        V* line = line_.get();
        const int h = whole_columns((nx + 1) / 2);
        for (int x = 0; x < h; x += L) {
            for (int y = 0; y < ny; ++y) line[2 * y] = at(y, x), line[2 * y + 1] = at(y, x + h);
            for (int y = 2 * ny; y < 2 * size; ++y) line[y] = V{};
            fft_.forward(line);
            for (int g = 0; g < groups_; ++g) part(g, x, h, spectrum + 2 * size_t(size) * g);
        }
        for (int g = 0; g < groups_; ++g) {
            V* group = spectrum + 2 * size_t(size) * g;
            for (int x = 4 * h; x < 2 * size; ++x) group[x] = V{};
            fft_.forward(group);
        }
    }

    // Correlation of `window` with `templ` at k x k lags, times 4 size^2: out[y * stride + x] is
    // the sum over p of window[p + (y, x)] templ[p]. With IsTurned, of the template turned by 180
    // degrees within its t x t pixels. `stride` is at least surface_stride(k).
    template <bool IsTurned>
    __attribute__((noinline)) void correlate(const V* window, const V* templ, int t, int k,
                                             float* out, int stride) {
        // Turning conjugates the template's spectrum and moves it by t - 1.
        const int first = IsTurned ? t - 1 : 0;
        const int h = surface_stride(k) / 2;
        V* line = line_.get();
        V* rows = rows_.get();
        for (int g = 0; g < groups_; ++g) {
            multiply<IsTurned>(window, templ, g);
            fft_.inverse(line);
            V* row = rows + 4 * size_t(h) * g;
            for (int x = 0; x < 2 * h; ++x) {
                const int at = (first + x) % size;
                row[2 * x] = line[2 * at], row[2 * x + 1] = line[2 * at + 1];
            }
        }
        for (int x = 0; x < h; x += L) {
            for (int g = 0; g < groups_; ++g) join(g, x, h, rows + 4 * size_t(h) * g);
            fft_.inverse(line);
            for (int y = 0; y < k; ++y) {
                const int at = (first + y) % size;
                store(out + size_t(y) * stride + x, line[2 * at]);
                store(out + size_t(y) * stride + h + x, line[2 * at + 1]);
            }
        }
    }

    static int surface_stride(int k) { return 2 * whole_columns((k + 1) / 2); }

    // What a correlation has to be multiplied by.
    double scale() const { return 0.25 / (double(size) * size); }

   private:
    // Part the spectra of the columns x.. and x + h.., and file them by ky.
    __attribute__((noinline)) void part(int g, int x, int h, V* group) {
        const V* line = line_.get();
        V ar[L], ai[L], br[L], bi[L];
        for (int i = 0; i < L; ++i) {
            const int k = g * L + i;
            const V* z = line + 2 * fft_.place[k];
            const V* c = line + 2 * fft_.place[(size - k) % size];
            ar[i] = z[0] + c[0], ai[i] = z[1] - c[1];
            br[i] = z[1] + c[1], bi[i] = c[0] - z[0];
        }
        if (g == 0) {
            const V* n = line + 2 * fft_.place[half_];
            ai[0] = n[0] + n[0], bi[0] = n[1] + n[1];
        }
        transpose(ar), transpose(ai), transpose(br), transpose(bi);
        V* a = group + 2 * x;
        V* b = group + 2 * (x + h);
        for (int i = 0; i < L; ++i) {
            a[2 * i] = ar[i], a[2 * i + 1] = ai[i];
            b[2 * i] = br[i], b[2 * i + 1] = bi[i];
        }
    }

    // The inverse of `part`: complex columns x.. + i (x + h)..
    __attribute__((noinline)) void join(int g, int x, int h, const V* rows) {
        V* line = line_.get();
        V ar[L], ai[L], br[L], bi[L];
        for (int i = 0; i < L; ++i) {
            const V* a = rows + 2 * (x + i);
            const V* b = rows + 2 * (x + h + i);
            ar[i] = a[0], ai[i] = a[1], br[i] = b[0], bi[i] = b[1];
        }
        transpose(ar), transpose(ai), transpose(br), transpose(bi);
        for (int i = 0; i < L; ++i) {
            const int k = g * L + i;
            if (k == 0) {
                V* zero = line + 2 * fft_.place[0];
                V* nyquist = line + 2 * fft_.place[half_];
                zero[0] = ar[0], zero[1] = br[0];
                nyquist[0] = ai[0], nyquist[1] = bi[0];
                continue;
            }
            V* z = line + 2 * fft_.place[k];
            V* c = line + 2 * fft_.place[size - k];
            z[0] = ar[i] - bi[i], z[1] = ai[i] + br[i];
            c[0] = ar[i] + bi[i], c[1] = br[i] - ai[i];
        }
    }

    template <bool IsTurned>
    __attribute__((noinline)) void multiply(const V* window, const V* templ, int g) {
        V* line = line_.get();
        const V* w = window + 2 * size_t(size) * g;
        const V* t = templ + 2 * size_t(size) * g;
        for (int x = 0; x < 2 * size; x += 2) {
            const V wr = w[x], wi = w[x + 1], tr = t[x], ti = t[x + 1];
            line[x] = IsTurned ? wr * tr - wi * ti : wr * tr + wi * ti;
            line[x + 1] = IsTurned ? wi * tr + wr * ti : wi * tr - wr * ti;
        }
        if (g > 0) return;
        // Lane 0 holds two transforms of real rows, a + i b; each is parted, multiplied, joined.
        const float* wl = reinterpret_cast<const float*>(w);
        const float* tl = reinterpret_cast<const float*>(t);
        float* out = reinterpret_cast<float*>(line);
        for (int k = 0; k < size; ++k) {
            const size_t at = size_t(2) * L * fft_.place[k];
            const size_t to = size_t(2) * L * fft_.place[(size - k) % size];
            const float war = wl[at] + wl[to], wai = wl[at + L] - wl[to + L];
            const float wbr = wl[at + L] + wl[to + L], wbi = wl[to] - wl[at];
            const float tar = tl[at] + tl[to], tai = (tl[at + L] - tl[to + L]) * sign<IsTurned>();
            const float tbr = tl[at + L] + tl[to + L], tbi = (tl[to] - tl[at]) * sign<IsTurned>();
            const float ar = war * tar - wai * tai, ai = war * tai + wai * tar;
            const float br = wbr * tbr - wbi * tbi, bi = wbr * tbi + wbi * tbr;
            out[at] = 0.25f * (ar - bi), out[at + L] = 0.25f * (ai + br);
        }
    }

    template <bool IsTurned>
    static constexpr float sign() {
        return IsTurned ? 1.0f : -1.0f;
    }

    Fft fft_;

   public:
    const int size;

   private:
    int half_, groups_;
    Vectors line_, rows_;
};

}  // namespace PETALIGN_ISA
}  // namespace petalign
