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
  __device__ int64_t sum(int64_t value) const {
    return by_pairs([](int64_t x, int64_t y) { return x + y; })(value);
  }
  __device__ int64_t count(bool value) const { return __popc(__ballot_sync(~0u, value)); }
  __device__ bool any(bool value) const { return __any_sync(~0u, value) != 0; }
  __device__ int64_t min(int64_t value) const {
    return by_pairs([](int64_t x, int64_t y) { return x < y ? x : y; })(value);
  }
  __device__ Candidate best(const Candidate& value) const {
    return by_pairs([](const Candidate& x, const Candidate& y) { return y.better_than(x) ? y : x; })(value);
  }
  __device__ int64_t place(bool value) const {
    const unsigned yes = __ballot_sync(~0u, value);
    return __popc(yes & ((1u << threadIdx.x % kWarp) - 1));
  }
};

/// Works together, and decides nothing.
struct BlockTeam {
  __device__ int64_t rank() const { return threadIdx.x; }
  __device__ int64_t size() const { return blockDim.x; }
  __device__ void sync() const { __syncthreads(); }
};

}  // namespace cuda
}  // namespace tad
