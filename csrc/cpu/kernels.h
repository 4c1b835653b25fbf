// The CPU backend's kernels as a table of functions, one table per instruction set, the best one chosen at run time.
#pragma once

#include <vector>

#include "../common/arguments.h"

namespace tad {

template <class Real>
struct KernelsOf {
  void (*tad_loss)(const TadLossArguments&, int64_t entry, double* loss, TadRowSums<Real>* sums);
  void (*tad_gradient)(
      const TadLossArguments&, int64_t entry, const TadRowSums<Real>&, Real scale, const MutableRows& gradient,
      int64_t gradient_row, bool add);
  void (*log_softmax)(const LogSoftmaxArguments&, int64_t entry, const MutableRows& out, Real* normalizer);
  void (*log_softmax_gradient)(
      const LogSoftmaxArguments&, int64_t entry, const Real* normalizer, const Rows& grad_out,
      const MutableRows& gradient, int64_t gradient_row, bool add);
  void (*token_statistics)(const TokenStatisticsArguments&, int64_t entry);
};

struct CpuKernels {
  const char* instruction_set;
  KernelsOf<float> float32;
  KernelsOf<double> float64;

  template <class Real>
  const KernelsOf<Real>& of() const;
};

template <>
inline const KernelsOf<float>& CpuKernels::of<float>() const {
  return float32;
}
template <>
inline const KernelsOf<double>& CpuKernels::of<double>() const {
  return float64;
}

extern const CpuKernels kPortableKernels;
#if defined(__x86_64__)
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

/// The tables this processor can run, the best one first.
std::vector<const CpuKernels*> runnable_cpu_kernels();

/// The best table this processor can run. The environment variable TAD_CPU_ISA (portable, avx2, avx512) chooses a
/// lesser one; a name that is unknown or that this processor cannot run throws std::invalid_argument.
const CpuKernels& cpu_kernels();

}  // namespace tad
