// The best place of a surface of scores, and how far it stands out.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "vector.hpp"

namespace petalign {
namespace PETALIGN_ISA {

constexpr float kUnknown = -2;  // below any score
constexpr int kPeakRadius = 5;  // px; a maximum that near belongs to the best peak
constexpr int kDeltaRadii[] = {5, 10, 15};

// Scores at k x k places inside a rim of kUnknown, which ends each row of whole vectors too.
class Surface {
   public:
    void reset_if(int side) {
        if (side == k) return;  // every score is written anew, the rim stays
        k = side;
        stride = L + whole(side) + L;
        scores_.assign(size_t(side + 2) * stride, kUnknown);
        row_max.assign(side, kUnknown);
    }
    float* row(int y) { return scores_.data() + size_t(y + 1) * stride + L; }
    const float* row(int y) const { return scores_.data() + size_t(y + 1) * stride + L; }
    static int whole(int n) { return (n + L - 1) / L * L; }

    int k = 0, stride = 0;
    std::vector<float> row_max;

   private:
    std::vector<float> scores_;
};

struct Peak {
    double dy, dx, score, ratio, delta[3], sharpness, curvature_ratio, cov_yy, cov_yx, cov_xx;
    bool is_good = false;
};

inline float max_between(const float* row, int from, int to, float best) {
    for (int x = from; x < to; ++x) best = row[x] > best ? row[x] : best;
    return best;
}

// Largest score that lies more than `radius` from (py, px), along y or along x.
__attribute__((noinline)) inline float max_outside(const Surface& s, int py, int px, int radius) {
    float best = kUnknown;
    for (int y = 0; y < s.k; ++y) {
        if (y < py - radius || y > py + radius) {
            best = std::max(best, s.row_max[y]);
            continue;
        }
        best = max_between(s.row(y), 0, px - radius, best);
        best = max_between(s.row(y), px + radius + 1, s.k, best);
    }
    return best;
}

// Highest local maximum that lies more than kPeakRadius from (py, px).
__attribute__((noinline)) inline float second_peak(const Surface& s, int py, int px) {
    V best = splat(kUnknown);
    float lone = kUnknown;
    for (int y = 0; y < s.k; ++y) {
        if (s.row_max[y] <= std::max(lone, 0.0f)) continue;
        const float* row = s.row(y);
        const float* above = row - s.stride;
        const float* below = row + s.stride;
        const bool near = std::abs(y - py) <= kPeakRadius;
        for (int x = 0; x < s.k; x += L) {
            V around = splat(kUnknown);
            for (int d = -1; d <= 1; ++d)
                around = larger(around, larger(load(row + x + d),
                                               larger(load(above + x + d), load(below + x + d))));
            const V here = load(row + x);
            V peaks = choose(here >= around, here, splat(kUnknown));
            if (near && x + L > px - kPeakRadius && x <= px + kPeakRadius)
                for (int i = 0; i < L; ++i)
                    if (std::abs(x + i - px) <= kPeakRadius) peaks[i] = kUnknown;
            best = larger(best, peaks);
        }
        lone = largest_lane(best);
    }
    return lone;
}

// A quadratic through the 3 x 3 places round the maximum gives the offset and the Hessian.
__attribute__((noinline)) inline Peak find_peak(const Surface& s) {
    Peak peak;
    int py = 0;
    for (int y = 1; y < s.k; ++y)
        if (s.row_max[y] > s.row_max[py]) py = y;
    const float best = s.row_max[py];
    if (!(best > 0) || py == 0 || py == s.k - 1) return peak;
    const float* row = s.row(py);
    const int px = int(std::find(row, row + s.k, best) - row);
    if (px == 0 || px >= s.k - 1) return peak;
    double at[3][3];
    for (int y = 0; y < 3; ++y)
        for (int x = 0; x < 3; ++x) {
            at[y][x] = s.row(py + y - 1)[px + x - 1];
            if (at[y][x] == kUnknown) return peak;
        }
    const double gy = (at[2][1] - at[0][1]) / 2, gx = (at[1][2] - at[1][0]) / 2;
    // Minus the Hessian, positive definite at a maximum.
    const double cyy = 2 * at[1][1] - at[0][1] - at[2][1];
    const double cxx = 2 * at[1][1] - at[1][0] - at[1][2];
    const double cyx = (at[0][2] + at[2][0] - at[0][0] - at[2][2]) / 4;
    const double det = cyy * cxx - cyx * cyx;
    if (!(cyy > 0) || !(det > 0)) return peak;
    const double sy = (cxx * gy - cyx * gx) / det, sx = (cyy * gx - cyx * gy) / det;
    if (!(std::abs(sy) < 1) || !(std::abs(sx) < 1)) return peak;

    peak.is_good = true;
    peak.dy = py + sy, peak.dx = px + sx;
    peak.score = best;
    const double second = second_peak(s, py, px);
    peak.ratio = second > 0 ? best / second : std::numeric_limits<double>::infinity();
    for (int i = 0; i < 3; ++i)
        peak.delta[i] = best - std::max(0.0, double(max_outside(s, py, px, kDeltaRadii[i])));
    double least = best;
    for (int y = std::max(0, py - 5); y <= std::min(s.k - 1, py + 5); ++y)
        for (int x = std::max(0, px - 5); x <= std::min(s.k - 1, px + 5); ++x)
            if (const float v = s.row(y)[x]; v != kUnknown) least = std::min(least, double(v));
    peak.sharpness = (best - least) / best;
    peak.curvature_ratio = (cyy + cxx) * (cyy + cxx) / det;
    peak.cov_yy = cxx / det, peak.cov_yx = -cyx / det, peak.cov_xx = cyy / det;
    return peak;
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
