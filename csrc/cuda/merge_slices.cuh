// The statistics of a row from those of its slices, by half a warp.
#pragma once

#include "platform.cuh"

#include "../common/statistics.h"
#include "reduce.cuh"

namespace tad {
namespace cuda {

/// Lanes that merge the slices of an entry, of which LLaDA's vocabulary has 8, Dream's 10: a warp has two entries at
/// once.
constexpr int kMergeLanes = 16;

/// How the statistics of an entry's lanes become one.
struct OfStatistics {
  bool sampled;  // otherwise no lane has a sample

  template <class Real>
  __device__ __forceinline__ RowStatistics<Real> operator()(RowStatistics<Real> part) const {
    constexpr Lanes<kMergeLanes> kLanes;
    part.sum = peaked_sum_of(part.sum);
    part.top = by_pairs([](const Top2<Real>& x, const Top2<Real>& y) { return merge(x, y); })(part.top, kLanes);
    if (sampled)
      part.sample = by_pairs([](const GumbelBest& x, const GumbelBest& y) { return merge(x, y); })(part.sample, kLanes);
    return part;
  }

  /// The maxima come first, then each lane moves its own sums to the largest, and these only add: one exponential
  /// instead of one at every step. The largest element of all stands apart: that of the first lane that has it.
  __device__ __forceinline__ static PeakedSum<double> peaked_sum_of(const PeakedSum<double>& part) {
    constexpr Lanes<kMergeLanes> kLanes;
    const double max = by_pairs(Larger())(part.max, kLanes);
    const unsigned lane = threadIdx.x % kMergeLanes, lower = (1u << lane) - 1;
    const unsigned highest = __ballot_sync(~0u, part.max == max) >> (threadIdx.x % kWarp - lane);
    RowSum<double> sum = part.whole();
    if (part.max == max && !(highest & lower)) sum.sum = part.others;
    const double shift = shift_to(max, sum, 1.0);
    sum = rebase(sum, max, shift, shift);
    return {max, by_pairs(Plus())(sum.sum, kLanes), by_pairs(Plus())(sum.weighted, kLanes)};
  }
};

/// The row of logits that an entry names; -1 for padding, and where there is no such row.
__device__ __forceinline__ int64_t existing_row(const TokenStatisticsArguments& a, int64_t entry) {
  const int64_t row = row_of_entry(a, entry);
  return row < a.logits.row_count ? row : -1;
}

/// The statistics of an entry below `end`, for all of its lanes; of padding, and from `end` on, something else. All
/// lanes of a warp must call this.
template <class Real>
__device__ __forceinline__ RowStatistics<Real> merged_slices(
    const TokenStatisticsArguments& a, const RowStatistics<Real>* slices, int64_t slice_count, int64_t entry,
    int64_t end) {
  slices += entry * slice_count;
  const int64_t lane = threadIdx.x % kMergeLanes, own_end = entry < end ? slice_count : 0;
  RowStatistics<Real> row;
  if (lane < own_end) row = slices[lane];  // of padding, too, which has none, so as not to wait for what says that
  if (!__any_sync(~0u, entry < end && existing_row(a, entry) >= 0)) return row;
  for (int64_t slice = lane + kMergeLanes; slice < own_end; slice += kMergeLanes) row = merge(row, slices[slice]);
  return OfStatistics{a.temperature > 0}(row);
}

/// Writes what an entry says, by one thread.
template <class Real>
__device__ __forceinline__ void write_entry(
    const TokenStatisticsArguments& a, int64_t entry, const RowStatistics<Real>& row) {
  if (existing_row(a, entry) < 0) return write_empty_statistics(a, entry);
  write_statistics(a, entry, row);
}

}  // namespace cuda
}  // namespace tad
