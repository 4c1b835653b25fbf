// One decoding step of every canvas: csrc/common/reveal.h, a warp per canvas; and csrc/common/eligible_positions.h
// after it.
#include "platform.cuh"

#include "../common/eligible_positions.h"
#include "../common/reveal.h"
#include "team.cuh"

namespace tad {
namespace cuda {

/// Block r: canvas r.
__global__ void __launch_bounds__(kWarp) commit_reveal_kernel(RevealArguments a) {
  reveal_row(WarpTeam(), a, int64_t(blockIdx.x));
}

__global__ void __launch_bounds__(kWarp) eligible_positions_kernel(EligiblePositionsArguments a) {
  eligible_positions_row(WarpTeam(), a, int64_t(blockIdx.x));
}

Status commit_reveal(const RevealArguments& a, Stream stream) {
  return launch(commit_reveal_kernel, dim3(unsigned(a.batch)), kWarp, stream, a);
}

Status eligible_positions(const EligiblePositionsArguments& a, Stream stream) {
  return launch(eligible_positions_kernel, dim3(unsigned(a.batch)), kWarp, stream, a);
}

}  // namespace cuda
}  // namespace tad
