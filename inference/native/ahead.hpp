// Memory that is asked for before it is read, a part at a time between products: it takes so long to
// come that transforms would wait for most of their time.
#pragma once

#include "program.hpp"

namespace petalign {
namespace PETALIGN_ISA {

// Tiles of some slices and blocks of a tensor, of which each call of `some` asks for its share.
class Ahead {
   public:
    // All of them within a number of calls.
    void plan(int first_slice, int slices, int first_block, int blocks, int tiles, int calls) {
        z_ = first_slice, b_ = first_block, blocks_ = blocks, tiles_ = tiles;
        done_ = 0, all_ = slices * blocks * tiles, share_ = (all_ + calls - 1) / calls;
    }

    // Calls fetch(block, tile, z).
    template <class Fetch>
    PETALIGN_INLINE void some(Fetch&& fetch) {
        for (const int end = std::min(done_ + share_, all_); done_ < end; ++done_) {
            const int rest = done_ / blocks_;
            fetch(b_ + done_ % blocks_, rest % tiles_, z_ + rest / tiles_);
        }
    }

   private:
    int z_ = 0, b_ = 0, blocks_ = 1, tiles_ = 1, done_ = 0, all_ = 0, share_ = 0;
};

// Asks the second-level cache for some floats of each of some rows.
PETALIGN_INLINE void fetch(const float* p, int64_t row, int rows, int floats) {
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < floats; j += 16) __builtin_prefetch(p + i * row + j, 0, 2);
}

}  // namespace PETALIGN_ISA
}  // namespace petalign
