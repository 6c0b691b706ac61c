// Resampling of an 8-bit image at positions in whole steps of 1/32 px.
//
// Positions are bilinear between nodes: a row of pixels needs two products and sums a px, and no
// map of the box is ever made. Weights come from a table over the 32 x 32 fractions of a position;
// they and the pixels are integers, so that every processor gives the same bytes.
#include <algorithm>

#include "library.hpp"
#include "positions.hpp"
#include "taps.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace remap {

constexpr int kBits = 5;  // of a position below the px
constexpr int kSteps = 1 << kBits;
constexpr int kWeightBits = 14;  // the weights of a position add up to 1 << 14

// What a source pixel is; see `render.py`.
constexpr uint8_t kKnown = 1, kSome = 2, kSafe = 4;

struct Source {
    const uint8_t* pixels;  // 1 or more where known
    const uint8_t* marks;   // kKnown, kSome, kSafe; null if all pixels are known
    int64_t stride;         // of both, in bytes
    int32_t ny, nx;
};

inline VI load_lanes(const int32_t* p) {
    VI v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline VI limited(VI v, int low, int high) {
    const VI least = VI{} + low, most = VI{} + high;
    v = v > least ? v : least;
    return v < most ? v : most;
}

// From steps to the first pixel that a kernel of `Width` needs, kept inside the image, and to the
// place of the weights. The room behind the n pixels is filled too.
template <int Width>
void place(const Source& s, int n, Row& row) {
    constexpr int kBefore = Width / 2 - (Width > 1);
    constexpr int kAfter = Width / 2;
    const int whole = (n + 15) / 16 * 16;
    for (int i = n; i < whole; ++i) row.y[i] = row.x[i] = 0;
    for (int i = 0; i < whole; i += L) {
        VI y = load_lanes(row.y + i), x = load_lanes(row.x + i);
        if (Width == 1) y += kSteps / 2, x += kSteps / 2;
        const VI part = ((y & (kSteps - 1)) << kBits) + (x & (kSteps - 1));
        y = limited(y >> kBits, kBefore, s.ny - 1 - kAfter) - kBefore;
        x = limited(x >> kBits, kBefore, s.nx - 1 - kAfter) - kBefore;
        const VI offset = y * int32_t(s.stride) + x;
        std::memcpy(row.offset + i, &offset, sizeof offset);
        std::memcpy(row.part + i, &part, sizeof part);
    }
}

// Tissue is 1 at least.
template <int N>
inline void store_pixels(Sums<N> sum, int bits, uint8_t* out) {
    sum = (sum + (1 << (bits - 1))) >> bits;
    const Sums<N> least = Sums<N>{} + 1, most = Sums<N>{} + 255;
    sum = sum > least ? sum : least;
    sum = sum < most ? sum : most;
    const auto bytes = __builtin_convertvector(sum, typename Vector<N>::Bytes);
    std::memcpy(out, &bytes, sizeof bytes);
}

// 16 pixels with kernels of 4 x 4 or 8 x 8.
template <int Width>
struct Sampler {
    static constexpr int N = Width == 8 || L < 8 ? L : 8;

    static void sample(const Source& s, const int16_t* weights, const Row& row, int at,
                       uint8_t* out) {
        for (int first = 0; first < 16; first += N) {
            Sums<N> parts[N];
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i) {
                const int k = at + first + i;
                parts[i] = weigh<N, Width>(s.pixels + row.offset[k], s.stride,
                                           weights + row.part[k] * (Width * Width));
            }
            store_pixels<N>(fold<N>(parts), kWeightBits, out + first);
        }
    }
};

template <>
struct Sampler<1> {
    static void sample(const Source& s, const int16_t*, const Row& row, int at, uint8_t* out) {
        for (int i = 0; i < 16; ++i) out[i] = s.pixels[row.offset[at + i]];
    }
};

// Two by two: the weights are made of the fractions, which is as fast as looking them up.
template <>
struct Sampler<2> {
    static void sample(const Source&, const int16_t*, const Row& row, int at, uint8_t* out) {
        for (int first = 0; first < 16; first += L) {
            const VI square = load_lanes((const int32_t*)row.square + at + first);
            const VI part = load_lanes(row.part + at + first);
            const VI fx = part & (kSteps - 1), fy = part >> kBits;
            const Pairs<L> along_x = (Pairs<L>)((kSteps - fx) | fx << 16);
            const Pairs<L> along_y = (Pairs<L>)((kSteps - fy) | fy << 16);
            const VI top = (square & 0xff) | (square & 0xff00) << 8;
            const VI low = (square >> 16 & 0xff) | (square >> 8 & 0xff0000);
            const VI rows = multiply_pairs((Pairs<L>)top, along_x) |
                            multiply_pairs((Pairs<L>)low, along_x) << 16;
            store_pixels<L>(multiply_pairs((Pairs<L>)rows, along_y), 2 * kBits, out + first);
        }
    }
};

// Fetches the squares of a whole strip. Mixed with arithmetic, compilers build the vectors of them
// piece by piece, which takes twice as long.
inline void fetch_squares(const Source& s, int n, Row& row) {
    const uint8_t* top = s.pixels;
    const uint8_t* low = s.pixels + s.stride;
    for (int i = 0; i < (n + 15) / 16 * 16; ++i) {
        uint16_t a, b;
        std::memcpy(&a, top + row.offset[i], sizeof a);
        std::memcpy(&b, low + row.offset[i], sizeof b);
        row.square[i] = a | uint32_t(b) << 16;
    }
}

// A pixel whose kernel touches no data: the mean of its known neighbours with their linear weights,
// or 0 if these have less than half.
inline uint8_t at_the_rim(const Source& s, ptrdiff_t offset, int part) {
    const int fy = part >> kBits, fx = part & (kSteps - 1);
    int total = 0, weight = 0;
    for (int dy = 0; dy < 2; ++dy)
        for (int dx = 0; dx < 2; ++dx) {
            const ptrdiff_t at = offset + dy * s.stride + dx;
            if (!(s.marks[at] & kKnown)) continue;
            const int share = (dy ? fy : kSteps - fy) * (dx ? fx : kSteps - fx);
            total += share * s.pixels[at];
            weight += share;
        }
    return 2 * weight >= kSteps * kSteps ? uint8_t((2 * total + weight) / (2 * weight)) : 0;
}

template <int Width>
void render_strip(const Source& s, const int16_t* weights, int n, Row& row, uint8_t* out) {
    constexpr int kBefore = Width / 2 - (Width > 1);
    place<Width>(s, n, row);
    if (Width == 2) fetch_squares(s, n, row);
    alignas(64) uint8_t pixels[kRoom], marks[kRoom];
    const ptrdiff_t centre = kBefore * s.stride + kBefore;
    if (s.marks != nullptr)
        for (int i = 0; i < (n + 15) / 16 * 16; ++i) marks[i] = s.marks[row.offset[i] + centre];
    constexpr uint8_t kFull = Width == 1 ? kKnown : kSafe, kPart = Width == 1 ? kKnown : kSome;
    for (int at = 0; at < n; at += 16) {
        uint8_t all = 255, any = 0;
        if (s.marks != nullptr) {
            for (int i = at; i < at + 16; ++i) all &= marks[i], any |= marks[i];
            if (!(any & kPart)) {
                std::memset(pixels + at, 0, 16);
                continue;
            }
        }
        Sampler<Width>::sample(s, weights, row, at, pixels + at);
        if (all & kFull) continue;
        for (int i = at; i < at + 16; ++i) {
            if (marks[i] & kFull) continue;
            const bool rim = marks[i] & kPart;
            pixels[i] = rim ? at_the_rim(s, row.offset[i] + centre, row.part[i]) : 0;
        }
    }
    std::memcpy(out, pixels, n);
}

template <int Width>
void render(const Source& s, const int16_t* weights, const Nodes& nodes, int h, int w,
            uint8_t* out, int64_t out_stride) {
    Positions positions(nodes);
    Row row;
    for (int x = 0; x < w; x += kStrip) {
        const int n = std::min(kStrip, w - x);
        for (int y = 0; y < h; ++y) {
            positions.fill(y, x, n, row);
            render_strip<Width>(s, weights, n, row, out + y * out_stride + x);
        }
    }
}

template <int Width>
void render_at(const Source& s, const int16_t* weights, const int32_t* steps, int64_t n,
               uint8_t* out) {
    Row row;
    for (int64_t at = 0; at < n; at += kStrip) {
        const int count = int(std::min<int64_t>(kStrip, n - at));
        std::memcpy(row.y, steps + at, sizeof(int32_t) * count);
        std::memcpy(row.x, steps + n + at, sizeof(int32_t) * count);
        render_strip<Width>(s, weights, count, row, out + at);
    }
}

}  // namespace remap
}  // namespace PETALIGN_ISA
}  // namespace petalign

using namespace petalign::PETALIGN_ISA::remap;

// Renders a box of h x w pixels whose positions are bilinear between nodes. `width` is that of the
// kernel: 1, 2, 4 or 8; `weights` is its table, (32, 32, width, width). False for another width.
PETALIGN_API int petalign_remap(const Source* source, const int16_t* weights, int width,
                                const Nodes* nodes, int h, int w, uint8_t* out,
                                int64_t out_stride) {
    switch (width) {
        case 1: render<1>(*source, weights, *nodes, h, w, out, out_stride); return 1;
        case 2: render<2>(*source, weights, *nodes, h, w, out, out_stride); return 1;
        case 4: render<4>(*source, weights, *nodes, h, w, out, out_stride); return 1;
        case 8: render<8>(*source, weights, *nodes, h, w, out, out_stride); return 1;
    }
    return 0;
}

// The same at n positions, (2, n): y, x in steps.
PETALIGN_API int petalign_remap_at(const Source* source, const int16_t* weights, int width,
                                   const int32_t* steps, int64_t n, uint8_t* out) {
    switch (width) {
        case 1: render_at<1>(*source, weights, steps, n, out); return 1;
        case 2: render_at<2>(*source, weights, steps, n, out); return 1;
        case 4: render_at<4>(*source, weights, steps, n, out); return 1;
        case 8: render_at<8>(*source, weights, steps, n, out); return 1;
    }
    return 0;
}
