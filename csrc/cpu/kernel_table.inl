// Included last by each instruction set's translation unit: its table of kernels.
#include "log_softmax.h"
#include "tad_loss.h"
#include "token_statistics.h"
#include "truncate_logits.h"

namespace tad {
namespace TAD_ISA {

template <class Real>
constexpr KernelsOf<Real> kernels_of() {
  return {
      tad_sums<Real>,
      tad_loss<Real>,
      tad_gradient<Real>,
      softmax_sums<Real>,
      softmax_normalizer<Real>,
      log_softmax<Real>,
      gradient_sum<Real>,
      log_softmax_gradient<Real>,
      zero<Real>,
      slice_statistics<Real>,
      token_statistics<Real>,
      truncate_logits<Real>,
  };
}

}  // namespace TAD_ISA
}  // namespace tad
