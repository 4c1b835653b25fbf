// Teams of csrc/common/team.h on a GPU: a warp, and a block.
#pragma once

#include "platform.cuh"

#include "../common/team.h"
#include "reduce.cuh"

namespace tad {
namespace cuda {

struct WarpTeam {
  __device__ int64_t rank() const { return threadIdx.x % kWarp; }
  __device__ int64_t size() const { return kWarp; }
  __device__ void sync() const { __syncwarp(); }
  template <class T>
  __device__ T sum(T value) const {
    return by_pairs([](T x, T y) { return x + y; })(value);
  }
  __device__ int64_t count(bool value) const { return __popc(__ballot_sync(~0u, value)); }
  __device__ bool any(bool value) const { return __any_sync(~0u, value) != 0; }
  template <class T>
  __device__ T min(T value) const {
    return by_pairs([](T x, T y) { return y < x ? y : x; })(value);
  }
  __device__ Candidate best(const Candidate& value) const {
    return by_pairs([](const Candidate& x, const Candidate& y) { return y.better_than(x) ? y : x; })(value);
  }
  __device__ int64_t place(bool value) const {
    const unsigned yes = __ballot_sync(~0u, value);
    return __popc(yes & ((1u << threadIdx.x % kWarp) - 1));
  }
};

/// Divides its work among its warps.
struct BlockTeam {
  __device__ int64_t rank() const { return threadIdx.x; }
  __device__ int64_t size() const { return blockDim.x; }
  __device__ void sync() const { __syncthreads(); }

  __device__ int64_t parts() const { return blockDim.x / kWarp; }
  __device__ int64_t part_rank() const { return threadIdx.x / kWarp; }
  __device__ WarpTeam part() const { return {}; }
};

}  // namespace cuda
}  // namespace tad
