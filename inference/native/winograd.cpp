// Convolution by Winograd's minimal filtering in (y, x). Taps along z are summed while transformed,
// or, for pairs of slices, filtered by F(2, 3) as well: 4 products instead of 6.
//
// A piece of work is a number of tiles of every slice of a part of z. The transforms of the last few
// slices are kept in a ring, so that each slice is transformed once. Transformed inputs are
// [slice][place][block of tiles][channel block][tile][lane], so that the innermost loop is that of
// the direct convolution; weights are [group][place][z][channel in][channel out of group], where z
// is transformed for pairs.

#include "ahead.hpp"
#include "blocks.hpp"
#include "transforms.hpp"

namespace petalign {
namespace PETALIGN_ISA {
namespace {

constexpr int kApart = 16;  // keeps the places of a transform from falling onto the same cache sets

template <class T>
struct Winograd {
    static constexpr int M = T::M, N = T::N;

    const Op& op;
    const Machine& machine;

    template <int VECTORS, int TILES>
    void run() {
        const int across = (op.out.width + M - 1) / M, down = (op.out.height + M - 1) / M;
        const int pieces = (across * down + op.tiles - 1) / op.tiles;
        machine.threads->over(pieces * op.depth_parts, [&](int piece, int thread) {
            Piece<VECTORS, TILES> work{op, machine, across};
            work.first = piece / op.depth_parts * op.tiles;
            work.count = std::min(op.tiles, across * down - work.first);
            work.transformed = machine.scratch[thread];
            const int part = piece % op.depth_parts;
            work.run(op.out.depth * part / op.depth_parts,
                     op.out.depth * (part + 1) / op.depth_parts);
            if (op.is_streamed) end_stream();
        });
    }

    // Some tiles through all slices of a part.
    template <int VECTORS, int TILES>
    struct Piece {
        const Op& op;
        const Machine& machine;
        const int across;
        int first, count;
        float* transformed;
        float* sums_along_z;
        float* products;
        int64_t place, slot, product_place, product_slice;
        int blocks_of_tiles, ring;
        Ahead inputs, residuals;
        int first_ahead;

        void run(int from, int to) {
            const int depth = op.sides[0], slices = op.slices;
            ring = depth + slices - 1;
            blocks_of_tiles = (count + TILES - 1) / TILES;
            place = int64_t(blocks_of_tiles) * op.in.blocks() * TILES * L + kApart;
            slot = N * N * place;
            sums_along_z = transformed + ring * slot;
            products = sums_along_z + (slices == 1 ? 0 : ring * op.in.blocks() * TILES * L);
            product_place = int64_t(blocks_of_tiles) * VECTORS * TILES * L + kApart;
            product_slice = N * N * product_place;
            const int groups = (op.out.blocks() + VECTORS - 1) / VECTORS;
            int next = from - op.before[0];  // to be transformed
            for (int z = from; z < to; z += slices) {
                while (next < z - op.before[0] + ring) transform_slice(next++);
                if (z + slices < to)
                    plan_inputs(first, next, slices, groups);
                else  // the piece that this thread is likely to take next
                    plan_inputs(first + op.tiles * machine.threads->count(), from - op.before[0],
                                ring, groups);
                for (int group = 0; group < groups; ++group) {
                    const int vectors = std::min(VECTORS, op.out.blocks() - group * VECTORS);
                    const int made = op.has_residual ? std::min(slices, to - z) : 0;
                    residuals.plan(z, made, group * VECTORS, vectors, count, N * N);
                    if (slices == 1)
                        multiply(z, group);
                    else
                        multiply_pair(z, group);
                    for (int i = 0; i < slices && z + i < to; ++i)
                        finish_slice(z + i, group, products + i * product_slice);
                }
            }
        }

        // A part, of that number of slices, of the piece that begins with a tile.
        void plan_inputs(int tile, int z, int slices, int groups) {
            const int down = (op.out.height + M - 1) / M;
            const int tiles = std::max(std::min(op.tiles, across * down - tile), 0);
            const int end = std::min(z + slices, op.in.depth);
            z = std::max(z, 0);
            first_ahead = tile;
            inputs.plan(z, std::max(end - z, 0), 0, op.in.blocks(), tiles, groups * N * N);
        }

        // Of what the next transforms read, of images and of what is added to results.
        void fetch_ahead() {
            inputs.some([&](int b, int t, int z) {
                const int y = (first_ahead + t) / across * M, x = (first_ahead + t) % across * M;
                fetch(machine.base(op.in) + op.in.at(b, z, y - op.before[1], x - op.before[2]),
                      op.in.row, N, M * L);
            });
            residuals.some([&](int b, int t, int z) {
                const int y = (first + t) / across * M, x = (first + t) % across * M;
                fetch(machine.base(op.residual) + op.residual.at(b, z, y, x), op.residual.row, M,
                      M * L);
            });
        }

        // Outside the image: nothing, which `multiply` leaves out, or zeros for a pair.
        void transform_slice(int z) {
            float* to = transformed + slot_of(z);
            if (z < 0 || z >= op.in.depth) {
                if (op.slices == 2) std::memset(to, 0, slot * sizeof(float));
                return;
            }
            const float* in = machine.base(op.in);
            for (int t = 0; t < count; ++t) {
                const int y = (first + t) / across * M, x = (first + t) % across * M;
                float* tile = to + (int64_t(t / TILES) * op.in.blocks() * TILES + t % TILES) * L;
                for (int b = 0; b < op.in.blocks(); ++b)
                    transform(in + op.in.at(b, z, y - op.before[1], x - op.before[2]),
                              tile + int64_t(b) * TILES * L);
            }
        }

        PETALIGN_INLINE void transform(const float* p, float* to) {
            V rows[N][N];
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) {
                V d[N], o[N];
#pragma GCC unroll 8
                for (int i = 0; i < N; ++i) d[i] = load(p + i * op.in.row + j * L);
                T::input(d, o);
#pragma GCC unroll 8
                for (int i = 0; i < N; ++i) rows[i][j] = o[i];
            }
#pragma GCC unroll 8
            for (int i = 0; i < N; ++i) {
                V o[N];
                T::input(rows[i], o);
#pragma GCC unroll 8
                for (int j = 0; j < N; ++j) store(to + (i * N + j) * place, o[j]);
            }
        }

        int64_t slot_of(int z) const { return (z % ring + ring) % ring * slot; }

        void multiply(int z, int group) {
            const int depth = op.sides[0], start = z - op.before[0];
            const int k0 = std::max(0, -start), k1 = std::min(depth, op.in.depth - start);
            const int64_t slice = int64_t(op.in.channels) * VECTORS * L;
            const float* weights = op.weights + group * N * N * depth * slice;
            for (int n = 0; n < N * N; ++n, fetch_ahead())
                for (int t = 0; t < blocks_of_tiles; ++t) {
                    V sums[TILES][VECTORS];
                    clear(sums);
                    for (int k = k0; k < k1; ++k)
                        multiply_block(sums, transformed + slot_of(start + k) + block_at(n, t),
                                       weights + (n * depth + k) * slice);
                    store_products(products + product_at(n, t), sums);
                }
        }

        // Both slices of a pair from the sums of four: F(2, 3) with the points 0, 1, -1, infinity.
        void multiply_pair(int z, int group) {
            const int start = z - op.before[0], size = op.in.blocks() * TILES * L;
            const int64_t slice = int64_t(op.in.channels) * VECTORS * L;
            const float* weights = op.weights + group * N * N * 4 * slice;
            const float* slots[4];
            for (int k = 0; k < 4; ++k) slots[k] = transformed + slot_of(start + k);
            for (int n = 0; n < N * N; ++n, fetch_ahead())
                for (int t = 0; t < blocks_of_tiles; ++t) {
                    const float* in[4];
                    for (int k = 0; k < 4; ++k) in[k] = slots[k] + block_at(n, t);
                    for (int i = 0; i < size; i += L) {
                        const V d[4] = {load(in[0] + i), load(in[1] + i), load(in[2] + i),
                                        load(in[3] + i)};
                        V o[4];
                        Transform<2, 3>::input(d, o);
                        for (int k = 0; k < 4; ++k) store(sums_along_z + k * size + i, o[k]);
                    }
                    const float* w = weights + n * 4 * slice;
                    float* first = products + product_at(n, t);
                    float* second = first + product_slice;
                    V sums[TILES][VECTORS];
                    clear(sums);
                    multiply_block(sums, sums_along_z + size, w + slice);
                    store_products(first, sums);
                    clear(sums);
                    multiply_block(sums, sums_along_z + 2 * size, w + 2 * slice);
                    sum_and_difference(first, second, sums);
                    load_products(sums, second);
                    multiply_block(sums, sums_along_z + 3 * size, w + 3 * slice);
                    store_products(second, sums);
                    load_products(sums, first);
                    multiply_block(sums, sums_along_z, w);
                    store_products(first, sums);
                }
        }

        int64_t block_at(int n, int t) const {
            return n * place + int64_t(t) * op.in.blocks() * TILES * L;
        }

        int64_t product_at(int n, int t) const {
            return n * product_place + int64_t(t) * VECTORS * TILES * L;
        }

        // Adds the products of all channels of a block of tiles.
        PETALIGN_INLINE void multiply_block(V (&sums)[TILES][VECTORS], const float* p,
                                            const float* w) const {
            for (int c = 0; c < op.in.channels; c += L, p += TILES * L) {
                const int some = std::min(L, op.in.channels - c);
                accumulate<VECTORS, TILES>(sums, p, w, some, L);
                w += some * VECTORS * L;
            }
        }

        static PETALIGN_INLINE void clear(V (&sums)[TILES][VECTORS]) {
#pragma GCC unroll 16
            for (int m = 0; m < TILES; ++m)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) sums[m][v] = V{};
        }

        static PETALIGN_INLINE void load_products(V (&sums)[TILES][VECTORS], const float* p) {
#pragma GCC unroll 16
            for (int m = 0; m < TILES; ++m)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) sums[m][v] = load(p + (v * TILES + m) * L);
        }

        static PETALIGN_INLINE void store_products(float* p, const V (&sums)[TILES][VECTORS]) {
#pragma GCC unroll 16
            for (int m = 0; m < TILES; ++m)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) store(p + (v * TILES + m) * L, sums[m][v]);
        }

        // first holds the products with the point 1, sums those with -1.
        static PETALIGN_INLINE void sum_and_difference(float* first, float* second,
                                                       const V (&sums)[TILES][VECTORS]) {
#pragma GCC unroll 16
            for (int m = 0; m < TILES; ++m)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) {
                    const int at = (v * TILES + m) * L;
                    const V one = load(first + at);
                    store(first + at, one + sums[m][v]);
                    store(second + at, one - sums[m][v]);
                }
        }

        void finish_slice(int z, int group, const float* products) {
            for (int t = 0; t < count; ++t) {
                const int y = (first + t) / across * M, x = (first + t) % across * M;
                const float* tile =
                    products + (int64_t(t / TILES) * VECTORS * TILES + t % TILES) * L;
                for (int v = 0; v < VECTORS && group * VECTORS + v < op.out.blocks(); ++v)
                    finish(tile + v * TILES * L, group * VECTORS + v, z, y, x);
            }
        }

        PETALIGN_INLINE void finish(const float* p, int b, int z, int y, int x) {
            V rows[M][N];
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) {
                V m[N], o[M];
#pragma GCC unroll 8
                for (int i = 0; i < N; ++i) m[i] = load(p + (i * N + j) * product_place);
                T::output(m, o);
#pragma GCC unroll 8
                for (int i = 0; i < M; ++i) rows[i][j] = o[i];
            }
            const int width = std::min(M, op.out.width - x), height = std::min(M, op.out.height - y);
            const V bias = load(op.bias + b * L);
            float* to = machine.base(op.out) + op.out.at(b, z, y, x);
            if (width == M && height == M)
                finish_rows<true>(rows, b, z, y, x, bias, to, M, M);
            else
                finish_rows<false>(rows, b, z, y, x, bias, to, height, width);
        }

        template <bool IS_WHOLE>
        PETALIGN_INLINE void finish_rows(const V (&rows)[M][N], int b, int z, int y, int x, V bias,
                                         float* to, int height, int width) {
            const float* r = op.has_residual
                                 ? machine.base(op.residual) + op.residual.at(b, z, y, x)
                                 : nullptr;
            const V factor = r ? load(op.factor + b * L) : V{};
#pragma GCC unroll 8
            for (int i = 0; i < M; ++i) {
                if (!IS_WHOLE && i >= height) continue;
                V values[M];
                T::output(rows[i], values);
#pragma GCC unroll 8
                for (int j = 0; j < M; ++j) values[j] += bias;
                if (r)
#pragma GCC unroll 8
                    for (int j = 0; j < M; ++j)
                        if (IS_WHOLE || j < width)
                            values[j] += factor * load(r + i * op.residual.row + j * L);
                activate(values, op.activation, op.alpha);
#pragma GCC unroll 8
                for (int j = 0; j < M; ++j)
                    if (IS_WHOLE && op.is_streamed)
                        stream(to + i * op.out.row + j * L, values[j]);
                    else if (IS_WHOLE || j < width)
                        store(to + i * op.out.row + j * L, values[j]);
            }
        }
    };
};

}  // namespace

void run_winograd(const Op& op, const Machine& machine) {
    if (op.tile == 4 && op.sides[1] == 3)
        with_block(op.vectors, op.pixels, Winograd<Transform<4, 3>>{op, machine});
    else if (op.tile == 2 && op.sides[1] == 3)
        with_block(op.vectors, op.pixels, Winograd<Transform<2, 3>>{op, machine});
    else if (op.tile == 4 && op.sides[1] == 5)
        with_block(op.vectors, op.pixels, Winograd<Transform<4, 5>>{op, machine});
    else if (op.tile == 6 && op.sides[1] == 3)
        with_block(op.vectors, op.pixels, Winograd<Transform<6, 3>>{op, machine});
    else
        __builtin_trap();  // Python chose a transform that isn't compiled
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
