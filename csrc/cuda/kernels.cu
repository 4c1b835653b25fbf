// The table of launchers.
#include "platform.cuh"

namespace tad {
namespace cuda {

const char* status_text(Status status) {
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

const Kernels kKernels = {
    tad_loss,         tad_totals,    scale,           log_softmax,   log_softmax_gradient, token_statistics_workspace,
    token_statistics, select_reveal, truncate_logits, commit_reveal, eligible_positions,   status_text};

}  // namespace cuda
}  // namespace tad
