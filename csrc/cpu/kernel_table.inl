// Included last by each instruction set's translation unit: its table of kernels.
#include "log_softmax.h"
#include "tad_loss.h"
#include "token_statistics.h"

namespace tad {
namespace TAD_ISA {

template <class Real>
constexpr KernelsOf<Real> kernels_of() {
  return {
      tad_loss_entry<Real>, tad_gradient_entry<Real>, log_softmax_entry<Real>, log_softmax_gradient_entry<Real>,
      token_statistics_entry<Real>};
}

}  // namespace TAD_ISA
}  // namespace tad
