// Teams of csrc/common/team.h on a GPU: a warp, and a block.
#pragma once

#include "platform.cuh"

#include "../common/team.h"
#include "reduce.cuh"

namespace tad {
namespace cuda {

/// Lane 0's reductions are handed to all lanes.
struct WarpTeam {
  __device__ int64_t rank() const { return threadIdx.x % kWarp; }
  __device__ int64_t size() const { return kWarp; }
  __device__ void sync() const { __syncwarp(); }
  __device__ int64_t sum(int64_t value) const {
    return from_lane_0(warp_reduce(value, [](int64_t x, int64_t y) { return x + y; }));
  }
  __device__ bool any(bool value) const { return __any_sync(~0u, value) != 0; }
  __device__ int64_t min(int64_t value) const {
    return from_lane_0(warp_reduce(value, [](int64_t x, int64_t y) { return x < y ? x : y; }));
  }
  __device__ Candidate best(const Candidate& value) const {
    const Candidate best =
        warp_reduce(value, [](const Candidate& x, const Candidate& y) { return y.better_than(x) ? y : x; });
    return {__shfl_sync(~0u, best.score, 0), from_lane_0(best.entry)};
  }
  __device__ int64_t place(bool value) const {
    const unsigned yes = __ballot_sync(~0u, value);
    return __popc(yes & ((1u << threadIdx.x % kWarp) - 1));
  }

 private:
  __device__ static int64_t from_lane_0(int64_t value) {
    return int64_t(__shfl_sync(~0u, static_cast<long long>(value), 0));
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
