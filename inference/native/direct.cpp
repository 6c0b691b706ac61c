// Convolution of any side and stride, as it is defined.
//
// Weights are [group of channels out][z][channel block in][y][x][channel in][channel out of group].

#include "blocks.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace {

constexpr int64_t kNear = 256 << 10;

struct Direct {
    const Op& op;
    const Machine& machine;

    int blocks_out() const { return (op.out.channels + L - 1) / L; }

    template <int VECTORS, int PIXELS>
    void run() {
        const int groups = (blocks_out() + VECTORS - 1) / VECTORS;
        const int rows = op.out.depth * op.out.height;
        // As many as stay in a second-level cache while all groups of channels are computed of them.
        const int64_t bytes = int64_t(4) * op.in.channels * op.in.width * op.sides[0];
        const int kept = int(std::min<int64_t>(16, kNear / bytes));
        const int part = std::max(1, std::min(kept, rows / (4 * machine.threads->count())));
        const int parts = (rows + part - 1) / part;
        machine.threads->over(parts * groups, [&](int piece, int) {
            const int group = piece % groups, first = piece / groups * part;
            for (int i = first; i < std::min(first + part, rows); ++i)
                if (op.in.pixel == L && op.stride[2] == 1)
                    row<VECTORS, PIXELS, L>(group, i / op.out.height, i % op.out.height);
                else if (op.in.pixel == 1 && op.stride[2] == 1)
                    row<VECTORS, PIXELS, 1>(group, i / op.out.height, i % op.out.height);
                else
                    row<VECTORS, PIXELS, 0>(group, i / op.out.height, i % op.out.height);
        });
    }

    template <int VECTORS, int PIXELS, int STEP>
    void row(int group, int z, int y) {
        for (int x = 0; x < op.out.width; x += PIXELS) block<VECTORS, PIXELS, STEP>(group, z, y, x);
    }

    // STEP: floats from a pixel's input to that of the next, if known.
    template <int VECTORS, int PIXELS, int STEP>
    void block(int group, int z, int y, int x) {
        const int64_t step = STEP ? STEP : int64_t(op.in.pixel) * op.stride[2];
        V sums[PIXELS][VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            const V bias = load(op.bias + (group * VECTORS + v) * L);
#pragma GCC unroll 16
            for (int m = 0; m < PIXELS; ++m) sums[m][v] = bias;
        }
        const int depth = op.sides[0], height = op.sides[1], width = op.sides[2];
        const int64_t slice = int64_t(height) * width * op.in.channels * VECTORS * L;
        const float* w = op.weights + group * depth * slice;
        const float* in = machine.base(op.in);
        for (int k = 0; k < depth; ++k) {
            const int from = z * op.stride[0] + k - op.before[0];
            if (from < 0 || from >= op.in.depth) {
                w += slice;
                continue;
            }
            for (int b = 0; b < op.in.blocks(); ++b) {
                const int n = std::min(op.in.lanes, op.in.channels - b * op.in.lanes);
                for (int i = 0; i < height; ++i) {
                    const float* p = in + op.in.at(b, from, y * op.stride[1] + i - op.before[1],
                                                   x * op.stride[2] - op.before[2]);
                    for (int j = 0; j < width; ++j, p += op.in.pixel, w += n * VECTORS * L)
                        accumulate<VECTORS, PIXELS>(sums, p, w, n, step);
                }
            }
        }
        finish<VECTORS, PIXELS>(sums, group, z, y, x);
    }

    template <int VECTORS, int PIXELS>
    PETALIGN_INLINE void finish(V (&sums)[PIXELS][VECTORS], int group, int z, int y, int x) {
        const int count = std::min(PIXELS, op.out.width - x);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            const int b = group * VECTORS + v;
            if (b >= blocks_out()) continue;
            V values[PIXELS];
#pragma GCC unroll 16
            for (int m = 0; m < PIXELS; ++m) values[m] = sums[m][v];
            if (op.has_residual) {
                const V factor = load(op.factor + b * L);
                const float* r = machine.base(op.residual) + op.residual.at(b, z, y, x);
                for (int m = 0; m < count; ++m)
                    values[m] += factor * load(r + m * int64_t(op.residual.pixel));
            }
            activate(values, op.activation, op.alpha);
            float* o = machine.base(op.out);
            if (op.out.lanes == L) {
                o += op.out.at(b, z, y, x);
                for (int m = 0; m < count; ++m) store(o + m * int64_t(op.out.pixel), values[m]);
            } else {  // the caller's array: channels side by side, without gaps
                o += op.out.at(0, z, y, x) + b * L;
                const int lanes = std::min(L, op.out.channels - b * L), size = op.out.pixel;
                int m = 0;
                if (size <= L)  // whole vectors, whose excess the next pixels overwrite
                    for (; (count - m) * size >= L; ++m) store(o + m * size, values[m]);
                for (; m < count; ++m) store(o + m * int64_t(size), values[m], lanes);
            }
        }
    }
};

}  // namespace

void run_direct(const Op& op, const Machine& machine) {
    with_block(op.vectors, op.pixels, Direct{op, machine});
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
