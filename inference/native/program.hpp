// A network as a list of operations on tensors in one arena; `inference/native/structures.py`
// declares the same structures.
//
// Tensors are [channel block][z][y][x][lane], a block having as many channels as a vector has lanes;
// in y and x they may have a margin of zeros.
#pragma once

#include <algorithm>

#include "threads.hpp"
#include "vector.hpp"

namespace petalign {
namespace PETALIGN_ISA {

struct Tensor {
    int64_t origin;               // of voxel (0, 0, 0), floats from the beginning of the arena
    int64_t block, plane, row;    // from one to the next, floats
    int32_t pixel;                // likewise
    int32_t lanes;                // channels that lie side by side: L; 1 or all in plain arrays
    int32_t channels;             // all of them, with gaps between joined tensors
    int32_t depth, height, width;
    int32_t before_y, after_y, before_x, after_x;  // margin
    int32_t external;             // index of the caller's array that it lies in; -1: the arena

    int blocks() const { return (channels + lanes - 1) / lanes; }
    int64_t at(int b, int z, int y, int x) const {
        return origin + b * block + z * plane + y * row + int64_t(x) * pixel;
    }
};

enum Kind : int32_t {
    kRead, kWrite, kZeroMargin, kZeroAll, kDirect, kWinograd, kMap, kMaxPool, kAveragePool, kLinearResize,
    kSoftmax, kCopy
};

struct Op {
    int32_t kind;
    int32_t activation;
    float alpha;
    int32_t has_residual;
    int32_t sides[3], stride[3], before[3];  // of a kernel, a window, a factor; zeros in front
    int32_t vectors, pixels;      // a block of registers: vectors of channels, and pixels or tiles
    int32_t tile, tiles;          // Winograd: side of an output tile, tiles at a time
    int32_t slices;               // Winograd: of the result, computed together; 1 or 2
    int32_t depth_parts;          // Winograd: into how many parts z is cut
    int32_t is_streamed;          // Winograd: whether results go past the caches
    int32_t channel;              // a copy: the first channel that is written
    Tensor in, out, residual;
    const float *weights, *bias, *factor;  // factor: of the residual
    const int32_t* index;         // linear resizing: the two neighbours of each place
};

// What an operation runs on.
struct Machine {
    float* arena;
    float* const* arrays;  // the caller's
    Threads* threads;
    float* const* scratch;  // one for each thread

    float* base(const Tensor& t) const { return t.external < 0 ? arena : arrays[t.external]; }
};

void run_direct(const Op& op, const Machine& machine);
void run_winograd(const Op& op, const Machine& machine);
void run_map(const Op& op, const Machine& machine);
void run_pool(const Op& op, const Machine& machine);
void run_linear_resize(const Op& op, const Machine& machine);
void run_softmax(const Op& op, const Machine& machine);
void run_copy(const Op& op, const Machine& machine);
void run_zero(const Op& op, const Machine& machine);
void run_read(const Op& op, const Machine& machine);
void run_write(const Op& op, const Machine& machine);

}  // namespace PETALIGN_ISA
}  // namespace petalign
