// Masked, weighted, zero-normalised cross-correlation of many templates with their search windows.
//
// Compiled once for every width of vectors, in a namespace of its own.
// The sums over the overlap are those of D. Padfield, "Masked object registration in the Fourier
// domain", IEEE Trans. Image Process. 21(5), 2012, with weights in place of the template's mask.
// A window's spectrum serves every template that is compared with it, and a template's every
// window: both are kept until newer ones need the room.
#include <array>
#include <exception>
#include <list>
#include <memory>

#include "library.hpp"
#include "moments.hpp"
#include "peak.hpp"
#include "spectrum.hpp"

namespace petalign {
namespace PETALIGN_ISA {

constexpr float kFftNoise =
    1e-5f;                    // of the largest energy: below it float32 cannot tell flat from not
constexpr size_t kKept = 12;  // windows, and templates, whose spectra are kept

struct Job {
    int32_t fixed, wy, wx, moving, ty, tx;
};
struct Settings {
    int32_t t, k, size, is_tent;
    double min_overlap;
};
constexpr int kFields = 14;

struct Patch {
    int32_t image, y, x;
    bool has_holes = false;
    // Of a window: a, v, a^2 (v: 1 where valid). Of a template: u b, u, u b^2 (u: weights where
    // valid, b: pixels less their mean). The last two are made when they are needed.
    std::array<Vectors, 3> spectra;
    std::array<bool, 3> has{};
    double mean = 0, energy = 0, total = 0;

    bool is(int32_t i, int32_t at_y, int32_t at_x) const {
        return image == i && y == at_y && x == at_x;
    }
};

class Matcher {
   public:
    Matcher(const Settings& s, const Image* images, int n_images, const Job* jobs, long n_jobs)
        : s_(s),
          w_(s.t + s.k - 1),
          images_(images),
          weights_(s.t, s.is_tent != 0),
          correlator_(s.size),
          stride_(Correlator::surface_stride(s.k)) {
        // A share of exactly the least must not fail by rounding.
        least_ = std::max(s.min_overlap, 1e-3) * weights_.sum * (1 - 1e-5);
        for (auto& sums : sums_) sums.resize(size_t(s.k) * stride_ + L);
        moments_.resize(n_images);
        std::vector<std::array<int, 4>> bounds(n_images,
                                               {INT32_MAX, INT32_MAX, INT32_MIN, INT32_MIN});
        for (long i = 0; i < n_jobs; ++i) {
            if (!has_tissue(jobs[i])) continue;
            auto& [y0, x0, y1, x1] = bounds[jobs[i].fixed];
            y0 = std::min(y0, int(jobs[i].wy)), y1 = std::max(y1, int(jobs[i].wy));
            x0 = std::min(x0, int(jobs[i].wx)), x1 = std::max(x1, int(jobs[i].wx));
        }
        for (int i = 0; i < n_images; ++i) {
            const auto [y0, x0, y1, x1] = bounds[i];
            if (y1 < y0) continue;
            moments_[i] = local_moments(images[i], y0, x0, y1 - y0 + s.k, x1 - x0 + s.k, s.t,
                                        weights_, least_);
        }
    }

    void match(const Job& job, double* out) {
        std::fill(out, out + kFields, std::numeric_limits<double>::quiet_NaN());
        if (!has_tissue(job)) return;
        Patch& templ = take(templates_, job.moving, job.ty, job.tx, &Matcher::open_template);
        const double floor = kFloor * templ.total;
        if (templ.total < least_ || !(templ.energy > floor)) return;
        Patch& window = take(windows_, job.fixed, job.wy, job.wx, &Matcher::open_window);
        score<false>(window, templ);
        const Peak peak = find_peak(surface_);
        if (!peak.is_good) return;
        score<true>(window, templ);
        const double turned = *std::max_element(surface_.row_max.begin(), surface_.row_max.end());
        const double mirror = std::clamp(1 - std::max(0.0, turned) / peak.score, 0.0, 1.0);
        const double fields[kFields] = {
            peak.dy,
            peak.dx,
            peak.score,
            peak.ratio,
            peak.delta[0],
            peak.delta[1],
            peak.delta[2],
            peak.sharpness,
            mirror,
            peak.curvature_ratio,
            templ.total / weights_.sum,
            peak.cov_yy,
            peak.cov_yx,
            peak.cov_xx,
        };
        std::copy(fields, fields + kFields, out);
    }

    // The whole surface of one job, (k, k), NaN where unknown.
    void surface(const Job& job, bool is_turned, float* out) {
        const float none = std::numeric_limits<float>::quiet_NaN();
        std::fill(out, out + size_t(s_.k) * s_.k, none);
        if (!has_tissue(job)) return;
        Patch& templ = take(templates_, job.moving, job.ty, job.tx, &Matcher::open_template);
        if (templ.total < least_ || !(templ.energy > kFloor * templ.total)) return;
        Patch& window = take(windows_, job.fixed, job.wy, job.wx, &Matcher::open_window);
        is_turned ? score<true>(window, templ) : score<false>(window, templ);
        for (int y = 0; y < s_.k; ++y)
            for (int x = 0; x < s_.k; ++x) {
                const float v = surface_.row(y)[x];
                out[size_t(y) * s_.k + x] = v == kUnknown ? none : v;
            }
    }

   private:
    // Whether window and template lie in their images at all.
    bool has_tissue(const Job& job) const {
        const Image &f = images_[job.fixed], &m = images_[job.moving];
        return job.wy + w_ > 0 && job.wx + w_ > 0 && job.wy < f.ny && job.wx < f.nx &&
               job.ty + s_.t > 0 && job.tx + s_.t > 0 && job.ty < m.ny && job.tx < m.nx;
    }

    // ------------------------------------------------------------ patches and their spectra

    Patch& take(std::list<Patch>& kept, int32_t image, int32_t y, int32_t x,
                void (Matcher::*open)(Patch&)) {
        for (auto it = kept.begin(); it != kept.end(); ++it)
            if (it->is(image, y, x)) {
                kept.splice(kept.begin(), kept, it);
                return kept.front();
            }
        if (kept.size() < kKept)
            kept.emplace_front();
        else
            kept.splice(kept.begin(), kept, std::prev(kept.end()));
        Patch& patch = kept.front();
        patch.image = image, patch.y = y, patch.x = x, patch.has = {};
        (this->*open)(patch);
        return patch;
    }

    // Copies a square of an image, extended by invalid pixels, in rows of whole vectors.
    void cut(const Patch& patch, int side) {
        const Image& image = images_[patch.image];
        const int stride = padded(side);
        grey_.assign(size_t(side) * stride, 0);
        valid_.assign(size_t(side) * stride, 0);
        const int low = std::max(0, -patch.x), high = std::min(side, image.nx - patch.x);
        if (low >= high) return;
        for (int y = std::max(0, -patch.y); y < std::min(side, image.ny - patch.y); ++y) {
            const size_t from = size_t(patch.y + y) * image.nx + patch.x + low;
            const size_t to = size_t(y) * stride + low;
            std::memcpy(grey_.data() + to, image.grey + from, sizeof(int16_t) * (high - low));
            std::memcpy(valid_.data() + to, image.valid + from, high - low);
        }
    }

    static int padded(int side) { return 2 * whole_columns((side + 1) / 2); }

    void open_template(Patch& patch) {
        const int t = s_.t, stride = padded(t);
        cut(patch, t);
        // Integers: exact in any order. A row's sums of w g^2 stay below 2^63, w g^2 below 2^31.
        const int32_t* w = weights_.integer.data();
        int64_t total = 0, sum = 0, squares = 0, count = 0;
        for (int y = 0; y < t; ++y) {
            const int16_t* grey = grey_.data() + size_t(y) * stride;
            const uint8_t* valid = valid_.data() + size_t(y) * stride;
            int64_t square = 0;
            int32_t n = 0, line = 0, known = 0;
            for (int x = 0; x < t; ++x) {
                const int32_t g = grey[x], u = valid[x] ? w[x] : 0;
                n += u, line += u * g, square += u * g * g, known += valid[x];
            }
            total += int64_t(w[y]) * n, sum += int64_t(w[y]) * line;
            squares += w[y] * square, count += known;
        }
        patch.has_holes = count < int64_t(t) * t;
        patch.total = double(total);
        patch.mean = total > 0 ? double(sum) / patch.total : 0;
        patch.energy = double(squares) - double(sum) * patch.mean;
        if (patch.total >= least_ && patch.energy > kFloor * patch.total)
            spectrum(patch, 0, true, true);
    }

    void open_window(Patch& patch) {
        patch.has_holes = false;
        const Moments& m = moments_[patch.image];
        if (m.has_holes) {
            const Image& image = images_[patch.image];
            if (!inside(patch)) {
                patch.has_holes = true;
            } else {
                for (int y = 0; y < w_ && !patch.has_holes; ++y) {
                    const uint8_t* valid = image.valid + size_t(patch.y + y) * image.nx + patch.x;
                    patch.has_holes = std::memchr(valid, 0, w_) != nullptr;
                }
            }
        }
        spectrum(patch, 0, false);
    }

    bool inside(const Patch& patch) const {  // of a window
        const Image& image = images_[patch.image];
        return patch.y >= 0 && patch.x >= 0 && patch.y + w_ <= image.ny && patch.x + w_ <= image.nx;
    }

    const V* spectrum(Patch& patch, int kind, bool is_template, bool is_cut = false) {
        Vectors& spectrum = patch.spectra[kind];
        if (patch.has[kind]) return spectrum.get();
        if (!spectrum.get()) spectrum = Vectors(correlator_.spectrum_vectors());
        patch.has[kind] = true;
        const int side = is_template ? s_.t : w_, stride = padded(side);
        if (!is_template && kind == 0 && inside(patch)) {
            const Image& image = images_[patch.image];
            const int16_t* first = image.grey + size_t(patch.y) * image.nx + patch.x;
            const size_t nx = image.nx;
            correlator_.transform(
                side, side,
                [=](int y, int x) {
                    // What lies beyond the window is left out: the image may end there.
                    const int16_t* p = first + y * nx + x;
                    return x + L <= side ? load_int16(p) : load_int16(p, std::max(0, side - x));
                },
                spectrum.get());
            return spectrum.get();
        }
        if (!is_cut) cut(patch, side);
        const int16_t* grey = grey_.data();
        if (is_template && kind == 0 && !patch.has_holes) {
            const float* w = weights_.profile.data();  // 0 beyond t
            const V mean = splat(float(patch.mean));
            correlator_.transform(
                side, side,
                [=](int y, int x) {
                    return (load_int16(grey + size_t(y) * stride + x) - mean) *
                           (load(w + x) * w[y]);
                },
                spectrum.get());
            return spectrum.get();
        }
        values_.assign(size_t(side) * stride, 0);
        const float mean = float(patch.mean);
        for (int y = 0; y < side; ++y)
            for (int x = 0; x < side; ++x) {
                const size_t at = size_t(y) * stride + x;
                const float g = grey[at], v = valid_[at] != 0;
                float value;
                if (is_template) {
                    const float u = v * weights_.profile[y] * weights_.profile[x], b = g - mean;
                    value = kind == 0 ? u * b : kind == 1 ? u : u * b * b;
                } else {
                    value = kind == 0 ? g : kind == 1 ? v : g * g;
                }
                values_[at] = value;
            }
        const float* values = values_.data();
        correlator_.transform(
            side, side, [=](int y, int x) { return load(values + size_t(y) * stride + x); },
            spectrum.get());
        return spectrum.get();
    }

    // ------------------------------------------------------------ scores

    template <bool IsTurned>
    const float* sum(Patch& window, int of_window, Patch& templ, int of_template, int slot) {
        correlator_.correlate<IsTurned>(spectrum(window, of_window, false),
                                        spectrum(templ, of_template, true), s_.t, s_.k,
                                        sums_[slot].data(), stride_);
        return sums_[slot].data();
    }

    template <bool IsTurned>
    void score(Patch& window, Patch& templ) {
        surface_.reset_if(s_.k);
        const float* cross = sum<IsTurned>(window, 0, templ, 0, 0);
        if (window.has_holes || templ.has_holes)
            score_masked<IsTurned>(window, templ, cross);
        else
            score_whole(window, templ, cross);
    }

    void score_whole(const Patch& window, const Patch& templ, const float* cross) {
        const Moments& m = moments_[window.image];
        const V scale = splat(float(correlator_.scale() / std::sqrt(templ.energy)));
        for (int y = 0; y < s_.k; ++y, cross += stride_) {
            const float* norm = m.inverse_norm.data() + m.at(window.y + y, window.x);
            keep_row(y, [=](int x) { return load(cross + x) * load(norm + x) * scale; });
        }
    }

    template <bool IsTurned>
    void score_masked(Patch& window, Patch& templ, const float* cross) {
        const bool holed = window.has_holes, partial = templ.has_holes;
        const Moments& m = moments_[window.image];
        const float* count = partial && holed ? sum<IsTurned>(window, 1, templ, 1, 1) : nullptr;
        const float* sum_a = partial ? sum<IsTurned>(window, 0, templ, 1, 2) : nullptr;
        const float* sum_aa = partial ? sum<IsTurned>(window, 2, templ, 1, 3) : nullptr;
        const float* sum_b = holed ? sum<IsTurned>(window, 1, templ, 0, 4) : nullptr;
        const float* sum_bb = holed ? sum<IsTurned>(window, 1, templ, 2, 5) : nullptr;
        const V scale = splat(float(correlator_.scale()));
        const V noise_a = splat(partial ? kFftNoise * largest(sum_aa) : 0);
        const V noise_b = splat(holed ? kFftNoise * largest(sum_bb) : 0);
        const V least = splat(float(least_)), floor = splat(float(kFloor)),
                none = splat(0) / splat(0);
        const V whole = splat(float(templ.total)), whole_b = splat(float(templ.energy));
        for (int y = 0; y < s_.k; ++y) {
            const size_t row = size_t(y) * stride_,
                         place = partial ? 0 : m.at(window.y + y, window.x);
            keep_row(y, [=, &m](int x) {
                const size_t at = row + x;
                V total = whole, mean, energy_a, energy_b = whole_b;
                V product = load(cross + at) * scale;
                if (partial) {
                    if (count) total = load(count + at) * scale;
                    const V a = load(sum_a + at) * scale;
                    mean = a / larger(total, least);
                    energy_a = load(sum_aa + at) * scale - mean * a;
                } else {
                    total = load(m.total.data() + place + x);
                    mean = load(m.mean.data() + place + x);
                    energy_a = load(m.energy.data() + place + x);
                }
                if (holed) {
                    const V b = load(sum_b + at) * scale;
                    energy_b = load(sum_bb + at) * scale - b * b / larger(total, least);
                    product -= b * mean;
                }
                const VI known = (total >= least) & (energy_a > larger(floor * total, noise_a)) &
                                 (energy_b > larger(floor * total, noise_b));
                return choose(known, product / root(choose(known, energy_a * energy_b, splat(1))),
                              none);
            });
        }
    }

    // Largest magnitude of some sums, scaled.
    float largest(const float* sums) const {
        V best{};
        for (int y = 0; y < s_.k; ++y)
            for (int x = 0; x < s_.k; x += L) {
                const V v = load(sums + size_t(y) * stride_ + x);
                best = larger(best, choose(lanes_below(s_.k - x), larger(v, -v), V{}));
            }
        return largest_lane(best) * float(correlator_.scale());
    }

    // Files LANES scores at a time, NaN where unknown, in row y of the surface.
    template <class At>
    void keep_row(int y, At at) {
        float* row = surface_.row(y);
        V best = splat(kUnknown);
        for (int x = 0; x < s_.k; x += L) {
            V v = at(x);
            v = choose(v > splat(1), splat(1), choose(v < splat(-1), splat(-1), v));
            v = choose((v == v) & lanes_below(s_.k - x), v, splat(kUnknown));
            store(row + x, v);
            best = larger(best, v);
        }
        surface_.row_max[y] = largest_lane(best);
    }

    const Settings s_;
    const int w_;
    const Image* images_;
    const Weights weights_;
    Correlator correlator_;
    const int stride_;
    double least_;
    std::vector<Moments> moments_;
    std::list<Patch> windows_, templates_;
    std::vector<int16_t> grey_;
    std::vector<uint8_t> valid_;
    std::vector<float> values_;
    std::array<std::vector<float>, 6> sums_;
    Surface surface_;
};

}  // namespace PETALIGN_ISA
}  // namespace petalign

// ------------------------------------------------------------ what Python calls

using namespace petalign;
using namespace petalign::PETALIGN_ISA;

// Both return 0, or 1 when memory ran out.
PETALIGN_API int petalign_match(const Settings* settings, const Image* images, int n_images,
                                const Job* jobs, long n_jobs, double* out) try {
    Matcher matcher(*settings, images, n_images, jobs, n_jobs);
    for (long i = 0; i < n_jobs; ++i) matcher.match(jobs[i], out + i * kFields);
    return 0;
} catch (const std::exception&) {
    return 1;
}

PETALIGN_API int petalign_surfaces(const Settings* settings, const Image* images, int n_images,
                                   const Job* jobs, long n_jobs, int is_turned, float* out) try {
    const size_t places = size_t(settings->k) * settings->k;
    Matcher matcher(*settings, images, n_images, jobs, n_jobs);
    for (long i = 0; i < n_jobs; ++i) matcher.surface(jobs[i], is_turned != 0, out + i * places);
    return 0;
} catch (const std::exception&) {
    return 1;
}

// Transforms L columns there and back `repeats` times: what benchmarks set the rest against.
PETALIGN_API int petalign_transforms(int size, long repeats) try {
    const Fft fft(size);
    const Vectors line(2 * size_t(size));
    std::fill(line.get(), line.get() + 2 * size, V{});
    for (long i = 0; i < repeats; ++i) fft.forward(line.get()), fft.inverse(line.get());
    return 0;
} catch (const std::exception&) {
    return 1;
}
