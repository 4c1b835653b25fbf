// Reductions over a warp and over a block, of any plain struct that has a merge(a, b). The order is fixed by the number
// of threads, so results have the same bits run after run.
#pragma once

#include <cstring>

#include "platform.cuh"

namespace tad {
namespace cuda {

/// The value of the lane `offset` further up (its own where there is none).
template <class T>
__device__ __forceinline__ T shuffle_down(const T& value, int offset) {
  static_assert(sizeof(T) % sizeof(uint32_t) == 0, "shuffles move 32-bit words");
  constexpr int kWords = sizeof(T) / sizeof(uint32_t);
  uint32_t words[kWords];
  memcpy(words, &value, sizeof(T));
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_down_sync(~0u, words[i], offset);
  T other;
  memcpy(&other, words, sizeof(T));
  return other;
}

/// Lane 0 gets all lanes' values merged, in the fixed order 0, 16, 8, 24, 4, ..., on which no more than the last bits
/// of a sum may depend.
template <class T, class Merge>
__device__ __forceinline__ T warp_reduce(T value, const Merge& merge) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = merge(value, shuffle_down(value, offset));
  return value;
}

/// Every thread of a block of kThreads, a multiple of 32, gets all threads' values merged, lower threads on the left. A
/// T() changes nothing it is merged with.
template <int kThreads, class T, class Merge>
__device__ __forceinline__ T block_reduce(T value, const Merge& merge) {
  constexpr int kWarps = kThreads / kWarp;
  T* scratch = shared_array<T, kWarps>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_reduce(value, merge);
  __syncthreads();  // the result of an earlier reduction may still be read
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  if (warp == 0) {
    value = warp_reduce(lane < kWarps ? scratch[lane] : T(), merge);
    if (lane == 0) scratch[0] = value;
  }
  __syncthreads();
  return scratch[0];
}

}  // namespace cuda
}  // namespace tad
