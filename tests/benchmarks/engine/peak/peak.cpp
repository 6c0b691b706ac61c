// Products and sums of floats in registers, and nothing else: what a core can do at most.
//
// Twelve independent chains hide the latency of two units that fuse a product and a sum.

namespace {

constexpr int kChains = 12;
using Vector = float __attribute__((vector_size(LANES * sizeof(float))));

}  // namespace

extern "C" __attribute__((visibility("default"))) int petalign_peak_flops() {
  return 2 * kChains * LANES;
}

// Does `rounds` times as many operations as `petalign_peak_flops` says.
extern "C" __attribute__((visibility("default"))) float petalign_peak(long rounds) {
  Vector sums[kChains];
  const Vector factor = Vector{} + 0.999F, term = Vector{} + 0.001F;
#pragma GCC unroll 12
  for (int n = 0; n < kChains; ++n) sums[n] = Vector{} + static_cast<float>(rounds % (n + 7));
  // Chains begin with values that the compiler doesn't know, or it would work some out itself.
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int n = 0; n < kChains; ++n) sums[n] = sums[n] * factor + term;
  }
  Vector total{};
#pragma GCC unroll 12
  for (int n = 0; n < kChains; ++n) total += sums[n];
  return total[0];
}
