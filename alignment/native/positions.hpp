// Positions of pixels in a section, bilinear between nodes, a strip of a row at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "vector.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace remap {

constexpr int kStrip = 256;  // px of a row at a time: what they need stays in the first cache
constexpr int kRoom = kStrip + 16;

struct Nodes {
    const double* at;  // (2, my, mx): y, x of the nodes, in steps
    int32_t my, mx;
    int32_t spacing;  // of the nodes, px
    int32_t oy, ox;   // where in the first cell the box begins, px
    int32_t y0, x0;   // origin of the source, in steps
};

typedef double VD __attribute__((vector_size(4 * LANES)));
typedef int64_t VL __attribute__((vector_size(4 * LANES)));
typedef int32_t VH __attribute__((vector_size(2 * LANES)));
constexpr int kDoubles = L / 2;

// A strip: positions in steps, then the first pixel and the weights that each needs.
struct Row {
    alignas(64) int32_t y[kRoom], x[kRoom];
    alignas(64) int32_t offset[kRoom], part[kRoom];
    alignas(64) uint32_t square[kRoom];  // of 2 x 2 pixels, for the kernel of that size
};

// Whole steps of low + slope * share for n pixels; writes up to a vector more.
inline void fill_steps(double low, double slope, const double* share, int n, int32_t origin,
                       int32_t* out) {
    // Adding 1.5 * 2^52 rounds to whole numbers, halves to even, into the low bits.
    constexpr double kWhole = 6755399441055744.0;
    for (int i = 0; i < n; i += kDoubles) {
        VD s;
        std::memcpy(&s, share + i, sizeof s);
        const VD at = slope * s + low;
        const VH whole = __builtin_convertvector((VL)(at + kWhole), VH) - origin;
        std::memcpy(out + i, &whole, sizeof whole);
    }
}

class Positions {
   public:
    explicit Positions(const Nodes& nodes) : n_(nodes), share_(nodes.spacing + kDoubles) {
        for (int i = 0; i < n_.spacing; ++i) share_[i] = double(i) / n_.spacing;
        for (auto& line : line_) line.resize(n_.mx);
    }

    // The n pixels from (y, x) on.
    void fill(int y, int x, int n, Row& row) {
        const int k = (n_.oy + y) / n_.spacing;
        const double share = share_[(n_.oy + y) % n_.spacing];
        const int first = (n_.ox + x) / n_.spacing, last = (n_.ox + x + n - 1) / n_.spacing + 1;
        for (int c = 0; c < 2; ++c) {
            const double* low = n_.at + (size_t(c) * n_.my + k) * n_.mx;
            const double* high = low + n_.mx;
            for (int m = first; m <= last; ++m) line_[c][m] = low[m] + (high[m] - low[m]) * share;
        }
        int i = (n_.ox + x) % n_.spacing;
        for (int m = first, done = 0; done < n; ++m, i = 0) {
            const int count = std::min(n_.spacing - i, n - done);
            for (int c = 0; c < 2; ++c) {
                const double low = line_[c][m], slope = line_[c][m + 1] - low;
                fill_steps(low, slope, share_.data() + i, count, c ? n_.x0 : n_.y0,
                           (c ? row.x : row.y) + done);
            }
            done += count;
        }
    }

   private:
    const Nodes& n_;
    std::vector<double> share_, line_[2];
};

}  // namespace remap
}  // namespace PETALIGN_ISA
}  // namespace petalign
