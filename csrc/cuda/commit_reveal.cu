// One decoding step of every canvas: csrc/common/reveal.h, a warp per canvas; and csrc/common/survey.h after it.
#include "platform.cuh"

#include "../common/reveal.h"
#include "../common/survey.h"
#include "team.cuh"

namespace tad {
namespace cuda {

/// Block r: canvas r.
__global__ void __launch_bounds__(kWarp) commit_reveal_kernel(RevealArguments a) {
  reveal_row(WarpTeam(), a, int64_t(blockIdx.x));
}

__global__ void __launch_bounds__(kWarp) survey_kernel(SurveyArguments a) {
  survey_row(WarpTeam(), a, int64_t(blockIdx.x));
}

Status commit_reveal(const RevealArguments& a, Stream stream) {
  return launch(commit_reveal_kernel, dim3(unsigned(a.batch)), kWarp, stream, a);
}

Status survey(const SurveyArguments& a, Stream stream) {
  return launch(survey_kernel, dim3(unsigned(a.batch)), kWarp, stream, a);
}

}  // namespace cuda
}  // namespace tad
