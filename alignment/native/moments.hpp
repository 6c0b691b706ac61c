// Weighted sums of an image under a template's weights, at every place that the template can take.
//
// The weights are a box, or two boxes in succession (a tent with a flat top of at most one pixel):
// then sums slide from place to place by additions alone. They are taken in 64-bit integers, hence
// exact, and the same wherever a tile begins.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "vector.hpp"

namespace petalign {

// Pixels of a feature image in steps of 1/256, 0 where `valid` is 0.
struct Image {
    const int16_t* grey;
    const uint8_t* valid;
    int32_t ny, nx;
};

namespace PETALIGN_ISA {

constexpr double kStep = 256;     // of a feature image, per unit
constexpr double kMinStd = 0.02;  // fainter is flat: features have a standard deviation of 1
constexpr double kFloor = kMinStd * kMinStd * kStep * kStep;

struct Weights {
    Weights(int t, bool is_tent) : first(is_tent ? (t + 1) / 2 : t), second(t + 1 - first) {
        integer.assign(t, 0);
        for (int a = 0; a < first; ++a)
            for (int b = 0; b < second; ++b) integer[a + b] += 1;
        sum = double(first) * second * first * second;
        profile.assign(t + 2 * kColumns, 0);  // read in whole vectors
        std::copy(integer.begin(), integer.end(), profile.begin());
    }
    int first, second;             // lengths of the boxes, px
    std::vector<int32_t> integer;  // along each axis
    std::vector<float> profile;    // the same, followed by zeros
    double sum;                    // over all pixels of a template
};

// Places y0 <= y < y0 + ny of a template's first pixel, x likewise.
struct Moments {
    int y0 = 0, x0 = 0, ny = 0, nx = 0;
    bool has_holes = false;
    std::vector<float> inverse_norm;  // 1 / sqrt(energy); NaN where flat or too little is valid
    std::vector<float> total, mean, energy;  // sums of w, of w a over that, of w (a - mean)^2

    size_t at(int y, int x) const { return size_t(y - y0) * nx + (x - x0); }
};

// Rows of an image from column x0 on, with zeros for what lies outside of it.
class Rows {
   public:
    Rows(const Image& image, int y0, int x0, int py, int px)
        : image_(image), y0_(y0), x0_(x0), zero_(px), zero_valid_(px) {
        const int low = std::max(0, -x0), high = std::min(px, image.nx - x0);
        if (low == 0 && high == px) return;
        // Columns are missing: what is there is copied once, between zeros.
        wide_.assign(size_t(py) * px, 0);
        wide_valid_.assign(size_t(py) * px, 0);
        if (low >= high) return;
        for (int y = std::max(0, -y0); y < std::min(py, image.ny - y0); ++y) {
            const size_t from = size_t(y0 + y) * image.nx + x0 + low, to = size_t(y) * px + low;
            std::memcpy(wide_.data() + to, image.grey + from, sizeof(int16_t) * (high - low));
            std::memcpy(wide_valid_.data() + to, image.valid + from, high - low);
        }
    }

    // Row y of the part, counted from y0.
    const int16_t* grey(int y) const { return here(y, image_.grey, wide_, zero_); }
    const uint8_t* valid(int y) const { return here(y, image_.valid, wide_valid_, zero_valid_); }

   private:
    template <class T>
    const T* here(int y, const T* image, const std::vector<T>& wide,
                  const std::vector<T>& zero) const {
        const int at = y0_ + y;
        if (y < 0 || at < 0 || at >= image_.ny) return zero.data();
        return wide.empty() ? image + size_t(at) * image_.nx + x0_
                            : wide.data() + size_t(y) * zero.size();
    }

    const Image& image_;
    int y0_, x0_;
    std::vector<int16_t> wide_, zero_;
    std::vector<uint8_t> wide_valid_, zero_valid_;
};

// out[x] = the weighted sum of row[x..]; its second difference is that of the boxes' four corners.
template <class T>
inline void slide_along(const T* row, int places, const Weights& weights, int64_t* out) {
    const int f = weights.first, s = weights.second;
    int64_t sum = 0, step = 0;
    for (int p = 0; p < f + s - 1; ++p) sum += int64_t(weights.integer[p]) * row[p];
    out[0] = sum;
    if (places == 1) return;
    for (int p = 0; p < f; ++p) step += int64_t(row[p + s]) - row[p];
    out[1] = sum += step;
    for (int x = 0; x + 2 < places; ++x) {
        step += int64_t(row[x + f + s]) - row[x + f] - row[x + s] + row[x];
        out[x + 2] = sum += step;
    }
}

inline Moments local_moments(const Image& image, int y0, int x0, int ny, int nx, int t,
                             const Weights& weights, double least) {
    Moments result;
    result.y0 = y0, result.x0 = x0, result.ny = ny, result.nx = nx;
    const int py = ny + t - 1, px = nx + t - 1;  // pixels that the places reach
    const Rows rows(image, y0, x0, py, px);
    for (int y = 0; y < py && !result.has_holes; ++y)
        result.has_holes = std::memchr(rows.valid(y), 0, px) != nullptr;
    const bool holes = result.has_holes;
    const size_t places = size_t(ny) * nx + L;  // rows are read in whole vectors
    result.inverse_norm.resize(places);
    if (holes)
        result.total.resize(places), result.mean.resize(places), result.energy.resize(places);

    // Down the columns, by second differences too. Features are below 2^11 and a box is at most
    // 257 px long, so that all but the sums of squares fit 32 bits.
    const int f = weights.first, s = weights.second;
    std::vector<int32_t> step(px), sum(px), step2(px), step0(px), sum0(px);
    std::vector<int64_t> sum2(px), line(nx), line2(nx), line0(nx);
    for (int y = 0; y < py; ++y) {
        const int16_t *a = rows.grey(y), *b = rows.grey(y - f), *c = rows.grey(y - s),
                      *d = rows.grey(y - f - s);
        for (int x = 0; x < px; ++x) {
            const int32_t ga = a[x], gb = b[x], gc = c[x], gd = d[x];
            step[x] += ga - gb - gc + gd;
            sum[x] += step[x];
            step2[x] += ga * ga - gb * gb - gc * gc + gd * gd;
            sum2[x] += step2[x];
        }
        if (holes) {
            const uint8_t *va = rows.valid(y), *vb = rows.valid(y - f), *vc = rows.valid(y - s),
                          *vd = rows.valid(y - f - s);
            for (int x = 0; x < px; ++x) {
                step0[x] += int32_t(va[x]) - vb[x] - vc[x] + vd[x];
                sum0[x] += step0[x];
            }
        }
        if (y < t - 1) continue;
        slide_along(sum.data(), nx, weights, line.data());
        slide_along(sum2.data(), nx, weights, line2.data());
        const size_t at = size_t(y - t + 1) * nx;
        float* norm = result.inverse_norm.data() + at;
        const float none = std::numeric_limits<float>::quiet_NaN();
        if (!holes) {
            const double share = 1 / weights.sum;
            const float floor = float(kFloor * weights.sum);
            for (int x = 0; x < nx; ++x) {
                const double m = double(line[x]);
                const float energy = float(double(line2[x]) - m * m * share);
                norm[x] = energy > floor ? 1 / std::sqrt(energy) : none;
            }
            continue;
        }
        slide_along(sum0.data(), nx, weights, line0.data());
        for (int x = 0; x < nx; ++x) {
            const double total = double(line0[x]), m = double(line[x]);
            const double mean = total > 0 ? m / total : 0;
            const double energy = double(line2[x]) - m * mean;
            result.total[at + x] = float(total);
            result.mean[at + x] = float(mean);
            result.energy[at + x] = float(energy);
            norm[x] =
                total >= least && energy > kFloor * total ? 1 / std::sqrt(float(energy)) : none;
        }
    }
    return result;
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
