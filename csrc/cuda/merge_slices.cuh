// The statistics of a row from those of its slices, by one warp.
#pragma once

#include "platform.cuh"

#include "../common/statistics.h"
#include "reduce.cuh"

namespace tad {
namespace cuda {

/// How the statistics of a warp's lanes become one.
struct OfStatistics {
  template <class Real>
  __device__ __forceinline__ RowStatistics<Real> operator()(const RowStatistics<Real>& part) const {
    const auto top = by_pairs([](const Top2<Real>& x, const Top2<Real>& y) { return merge(x, y); });
    const auto sample = by_pairs([](const GumbelBest& x, const GumbelBest& y) { return merge(x, y); });
    return {peaked_sum_of(part.sum), top(part.top), sample(part.sample)};
  }

  /// The maxima come first, then each lane moves its own sums to the largest, and these only add: one exponential
  /// instead of one at every step. The largest element of all stands apart: that of the first lane that has it.
  __device__ __forceinline__ static PeakedSum<double> peaked_sum_of(const PeakedSum<double>& part) {
    const double max = by_pairs(Larger())(part.max);
    const unsigned highest = __ballot_sync(~0u, part.max == max), lower = (1u << threadIdx.x % kWarp) - 1;
    RowSum<double> sum = part.whole();
    if (part.max == max && !(highest & lower)) sum.sum = part.others;
    const double shift = shift_to(max, sum, 1.0);
    sum = rebase(sum, max, shift, shift);
    return {max, by_pairs(Plus())(sum.sum), by_pairs(Plus())(sum.weighted)};
  }
};

/// The row of logits that an entry names; -1 for padding, and where there is no such row.
__device__ __forceinline__ int64_t existing_row(const TokenStatisticsArguments& a, int64_t entry) {
  const int64_t row = row_of_entry(a, entry);
  return row < a.logits.row_count ? row : -1;
}

/// Writes what an entry says. A lane merges every 32nd slice, then the lanes are merged.
template <class Real>
__device__ __forceinline__ void merge_slices(
    const TokenStatisticsArguments& a, const RowStatistics<Real>* slices, int64_t slice_count, int64_t entry) {
  const int64_t lane = threadIdx.x % kWarp;
  if (existing_row(a, entry) < 0) {
    if (lane == 0) write_empty_statistics(a, entry);
    return;
  }
  RowStatistics<Real> row;
  for (int64_t slice = lane; slice < slice_count; slice += kWarp) row = merge(row, slices[entry * slice_count + slice]);
  row = OfStatistics()(row);
  if (lane == 0) write_statistics(a, entry, row);
}

}  // namespace cuda
}  // namespace tad
