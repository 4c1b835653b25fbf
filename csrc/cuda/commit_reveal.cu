// One decoding step of every canvas: csrc/common/reveal.h, a warp per canvas.
#include "platform.cuh"

#include "../common/reveal.h"
#include "reduce.cuh"

namespace tad {
namespace cuda {

/// A warp as a team. Lane 0's reductions are handed to all lanes.
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

 private:
  __device__ static int64_t from_lane_0(int64_t value) {
    return int64_t(__shfl_sync(~0u, static_cast<long long>(value), 0));
  }
};

/// Block r: canvas r.
__global__ void __launch_bounds__(kWarp) commit_reveal_kernel(RevealArguments a) {
  reveal_row(WarpTeam(), a, int64_t(blockIdx.x));
}

Status commit_reveal(const RevealArguments& a, Stream stream) {
  return launch(commit_reveal_kernel, dim3(unsigned(a.batch)), kWarp, stream, a);
}

}  // namespace cuda
}  // namespace tad
