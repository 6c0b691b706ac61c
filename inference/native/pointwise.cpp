// What works on single voxels, or on few: sums, scales, activations, resizing, pooling, softmax.

#include "program.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace {

constexpr int kTogether = 8;  // pixels whose activations are computed side by side

// Calls row(block, z, y) for every row of the result.
template <class Row>
void over_rows(const Tensor& out, int blocks, const Machine& machine, Row&& row) {
    const int rows = blocks * out.depth;
    machine.threads->over(rows, [&](int piece, int) {
        for (int y = 0; y < out.height; ++y) row(piece / out.depth, piece % out.depth, y);
    });
}

// activation(scale * x[place / sides] + bias + factor * residual); a missing scale is 1, a bias 0.
struct Map {
    const Op& op;
    const Machine& machine;

    void row(int b, int z, int y) const {
        const float* in =
            machine.base(op.in) + op.in.at(b, z / op.sides[0], y / op.sides[1], 0);
        const float* r =
            op.has_residual ? machine.base(op.residual) + op.residual.at(b, z, y, 0) : nullptr;
        float* out = machine.base(op.out) + op.out.at(b, z, y, 0);
        int x = 0;
        if (op.sides[2] == 1)
            for (; x + kTogether <= op.out.width; x += kTogether)
                some<kTogether, 1>(b, in + x * L, r ? r + x * L : nullptr, out + x * L);
        else if (op.sides[2] == 2)
            for (; x + kTogether <= op.out.width; x += kTogether)
                some<kTogether, 2>(b, in + x / 2 * L, r ? r + x * L : nullptr, out + x * L);
        for (; x < op.out.width; ++x)
            some<1, 1>(b, in + x / op.sides[2] * L, r ? r + x * L : nullptr, out + x * L);
    }

    template <int COUNT, int FACTOR>
    PETALIGN_INLINE void some(int b, const float* in, const float* r, float* out) const {
        V values[COUNT];
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; ++i) values[i] = load(in + i / FACTOR * L);
        if (op.weights) {
            const V scale = load(op.weights + b * L);
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i) values[i] *= scale;
        }
        if (op.bias) {
            const V bias = load(op.bias + b * L);
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i) values[i] += bias;
        }
        if (r) {
            const V factor = load(op.factor + b * L);
#pragma GCC unroll 16
            for (int i = 0; i < COUNT; ++i) values[i] += factor * load(r + i * L);
        }
        activate(values, op.activation, op.alpha);
#pragma GCC unroll 16
        for (int i = 0; i < COUNT; ++i) store(out + i * L, values[i]);
    }
};

// The part of a window that lies in the image.
struct Span {
    int first, last;
    Span(int place, int side, int stride, int before, int size) {
        const int start = place * stride - before;
        first = std::max(start, 0);
        last = std::min(start + side, size);
    }
};

template <bool IS_MEAN>
void pool_row(const Op& op, const Machine& machine, int b, int z, int y) {
    const float* in = machine.base(op.in);
    float* out = machine.base(op.out) + op.out.at(b, z, y, 0);
    const Span depth(z, op.sides[0], op.stride[0], op.before[0], op.in.depth);
    const Span height(y, op.sides[1], op.stride[1], op.before[1], op.in.height);
    for (int x = 0; x < op.out.width; ++x, out += L) {
        const Span width(x, op.sides[2], op.stride[2], op.before[2], op.in.width);
        V value = IS_MEAN ? V{} : load(in + op.in.at(b, depth.first, height.first, width.first));
        for (int k = depth.first; k < depth.last; ++k)
            for (int i = height.first; i < height.last; ++i) {
                const float* p = in + op.in.at(b, k, i, width.first);
                for (int j = width.first; j < width.last; ++j, p += L)
                    value = IS_MEAN ? value + load(p) : larger(value, load(p));
            }
        if (IS_MEAN)
            value /= float((depth.last - depth.first) * (height.last - height.first) *
                           (width.last - width.first));
        store(out, value);
    }
}

// Between the two neighbours of a place on each axis; `index` holds, axis by axis, the first of
// every place, then the second; `weights` how near each place is to its second.
struct LinearResize {
    const Op& op;
    const Machine& machine;

    void row(int b, int z, int y) const {
        const Tensor &in = op.in, &out = op.out;
        const int32_t *iz = op.index, *iy = iz + 2 * out.depth, *ix = iy + 2 * out.height;
        const float *wz = op.weights, *wy = wz + out.depth, *wx = wy + out.height;
        const float* corner[4];
        for (int i = 0; i < 4; ++i)
            corner[i] = machine.base(in) +
                        in.at(b, iz[z + i / 2 * out.depth], iy[y + i % 2 * out.height], 0);
        float* to = machine.base(out) + out.at(b, z, y, 0);
        for (int x = 0; x < out.width; ++x, to += L) {
            const int low = ix[x] * L, high = ix[x + out.width] * L;
            V edge[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const V a = load(corner[i] + low);
                edge[i] = a + (load(corner[i] + high) - a) * wx[x];
            }
            const V front = edge[0] + (edge[1] - edge[0]) * wy[y];
            const V back = edge[2] + (edge[3] - edge[2]) * wy[y];
            V values[1] = {front + (back - front) * wz[z]};
            activate(values, op.activation, op.alpha);
            store(to, values[0]);
        }
    }
};

// Over all channels of a voxel; channels must lie without gaps.
struct Softmax {
    const Op& op;
    const Machine& machine;

    void row(int z, int y) const {
        for (int x = 0; x < op.out.width; ++x) {
            const float* p = machine.base(op.in) + op.in.at(0, z, y, x);
            float* to = machine.base(op.out) + op.out.at(0, z, y, x);
            float largest = p[0], total = 0;
            each_channel([&](int b, int lane) {
                const float value = p[b * op.in.block + lane];
                largest = largest < value ? value : largest;
            });
            for (int b = 0; b < op.in.blocks(); ++b)
                store(to + b * op.out.block, power(load(p + b * op.in.block) - largest));
            each_channel([&](int b, int lane) { total += to[b * op.out.block + lane]; });
            for (int b = 0; b < op.in.blocks(); ++b) {
                float* q = to + b * op.out.block;
                store(q, load(q) / total);
            }
        }
    }

    template <class F>
    PETALIGN_INLINE void each_channel(F&& f) const {
        for (int c = 0; c < op.in.channels; ++c) f(c / L, c % L);
    }
};

}  // namespace

void run_map(const Op& op, const Machine& machine) {
    const Map map{op, machine};
    over_rows(op.out, op.out.blocks(), machine, [&](int b, int z, int y) { map.row(b, z, y); });
}

void run_pool(const Op& op, const Machine& machine) {
    over_rows(op.out, op.out.blocks(), machine, [&](int b, int z, int y) {
        if (op.kind == kMaxPool)
            pool_row<false>(op, machine, b, z, y);
        else
            pool_row<true>(op, machine, b, z, y);
    });
}

void run_linear_resize(const Op& op, const Machine& machine) {
    const LinearResize resize{op, machine};
    over_rows(op.out, op.out.blocks(), machine, [&](int b, int z, int y) { resize.row(b, z, y); });
}

void run_softmax(const Op& op, const Machine& machine) {
    const Softmax softmax{op, machine};
    over_rows(op.out, 1, machine, [&](int, int z, int y) { softmax.row(z, y); });
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
