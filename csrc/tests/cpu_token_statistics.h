// The token statistics of a problem by the CPU kernels.
#pragma once

#include "../common/statistics.h"
#include "../cpu/kernels.h"
#include "token_statistics_problem.h"

namespace tad::checks {

template <class Real>
void run_on_cpu(const KernelsOf<Real>& kernels, const TokenStatisticsArguments& a) {
  std::vector<SliceStatistics> found(size_t(slices_of(a.vocabulary)));
  for (int64_t entry = 0; entry < a.entries; ++entry) {
    if (a.rows && (a.rows[entry] < 0 || a.rows[entry] >= a.logits.row_count)) {
      portable::write_empty_statistics(a, entry);
      continue;
    }
    for (size_t slice = found.size(); slice-- > 0;)  // in any order
      kernels.slice_statistics(a, entry, int64_t(slice), &found[slice]);
    kernels.token_statistics(a, entry, found.data());
  }
}

inline void run_on_cpu(const CpuKernels& kernels, const Problem& problem, Results& results) {
  const TokenStatisticsArguments a = results.fill(problem.arguments());
  if (problem.logits.dtype() == DType::kFloat64)
    run_on_cpu(kernels.float64, a);
  else
    run_on_cpu(kernels.float32, a);
}

}  // namespace tad::checks
