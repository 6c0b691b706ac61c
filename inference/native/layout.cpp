// How tensors lie in memory: the caller's arrays (z, y, x, channel), margins of zeros, copies.

#include "program.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace {

void zero(float* p, int64_t count) { std::memset(p, 0, sizeof(float) * std::max<int64_t>(count, 0)); }

void zero_margin(const Tensor& t, float* plane) {
    const int64_t row = int64_t(t.before_x + t.width + t.after_x) * t.lanes;
    float* start = plane - t.before_y * t.row - t.before_x * t.pixel;
    for (int y = 0; y < t.before_y; ++y) zero(start + y * t.row, row);
    for (int y = 0; y < t.height; ++y) {
        float* p = start + (t.before_y + y) * t.row;
        zero(p, t.before_x * t.lanes);
        zero(p + (t.before_x + t.width) * t.lanes, t.after_x * t.lanes);
    }
    for (int y = 0; y < t.after_y; ++y) zero(start + (t.before_y + t.height + y) * t.row, row);
}

void zero_inside(const Tensor& t, float* plane) {
    for (int y = 0; y < t.height; ++y) zero(plane + y * t.row, int64_t(t.width) * t.lanes);
}

template <class F>
void over_planes(const Tensor& t, const Machine& machine, F&& f) {
    machine.threads->over(t.blocks() * t.depth,
                          [&](int piece, int) { f(piece / t.depth, piece % t.depth); });
}

}  // namespace

void run_zero(const Op& op, const Machine& machine) {
    over_planes(op.out, machine, [&](int b, int z) {
        float* plane = machine.base(op.out) + op.out.at(b, z, 0, 0);
        zero_margin(op.out, plane);
        if (op.kind == kZeroAll) zero_inside(op.out, plane);
    });
}

// From the caller's array; lanes without a channel become 0.
void run_read(const Op& op, const Machine& machine) {
    over_planes(op.out, machine, [&](int b, int z) {
        const int lanes = op.out.lanes, some = std::min(lanes, op.out.channels - b * lanes);
        for (int y = 0; y < op.out.height; ++y) {
            const float* p = machine.base(op.in) + op.in.at(0, z, y, 0) + b * lanes;
            float* to = machine.base(op.out) + op.out.at(b, z, y, 0);
            for (int x = 0; x < op.out.width; ++x, p += op.in.pixel, to += lanes)
                for (int i = 0; i < lanes; ++i) to[i] = i < some ? p[i] : 0.f;
        }
    });
}

// Into the caller's array.
void run_write(const Op& op, const Machine& machine) {
    machine.threads->over(op.in.depth * op.in.height, [&](int piece, int) {
        const int z = piece / op.in.height, y = piece % op.in.height;
        for (int b = 0; b < op.in.blocks(); ++b) {
            const int some = std::min(L, op.in.channels - b * L);
            const float* p = machine.base(op.in) + op.in.at(b, z, y, 0);
            float* to = machine.base(op.out) + op.out.at(0, z, y, 0) + b * L;
            for (int x = 0; x < op.in.width; ++x, p += L, to += op.out.pixel)
                std::memcpy(to, p, sizeof(float) * some);
        }
    });
}

// Channels of one tensor to those from `channel` on of another of the same size. The lanes behind
// the last one written become 0.
void run_copy(const Op& op, const Machine& machine) {
    const int first = op.channel, count = op.in.channels;
    machine.threads->over(op.out.depth * op.out.height, [&](int piece, int) {
        const int z = piece / op.out.height, y = piece % op.out.height;
        const float* in = machine.base(op.in) + op.in.at(0, z, y, 0);
        float* out = machine.base(op.out) + op.out.at(0, z, y, 0);
        for (int x = 0; x < op.out.width; ++x, in += op.in.pixel, out += op.out.pixel) {
            int c = 0;
            if (first % L == 0)  // whole vectors
                for (; c + L <= count; c += L)
                    store(out + (first + c) / L * op.out.block, load(in + c / L * op.in.block));
            for (; c < count; ++c)
                out[(first + c) / L * op.out.block + (first + c) % L] =
                    in[c / L * op.in.block + c % L];
            for (c += first; c % L; ++c) out[c / L * op.out.block + c % L] = 0.f;
        }
    });
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
