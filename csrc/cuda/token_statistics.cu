// Token statistics in two launches. A decoding step asks for 32 to 96 rows, fewer than a GPU has multiprocessors, so
// rows are cut into slices that depend on nothing but the vocabulary: a block works on one slice of one row, then a
// warp per entry merges its slices. Where a rule chooses by them and tokens are revealed at once, a block per canvas
// does that in the same, second launch.
#include "platform.cuh"

#include "../common/reveal.h"
#include "../common/select.h"
#include "merge_slices.cuh"
#include "resident.cuh"
#include "row_sums.cuh"
#include "team.cuh"

namespace tad {
namespace cuda {

constexpr int kSliceThreads = kRowThreads;
constexpr int kGroups = 4;  // per thread
constexpr int kSliceColumns = kSliceThreads * kGroups * kGroup;
constexpr int kRevealThreads = 768;  // of which each has 80 registers

/// Blocks per multiprocessor that registers must suffice for: of float64 each thread holds twice as many.
template <class Element, bool kSampled>
constexpr int kMinBlocks = sizeof(Element) == 8 ? 1
                           : kSampled           ? 2
                                                : 4;

__host__ __device__ __forceinline__ int64_t slices_of(int64_t vocabulary) {
  return (vocabulary + kSliceColumns - 1) / kSliceColumns;
}

/// Block (i, s): slice s of entry i.
template <class Element, bool kSampled>
__global__ void __launch_bounds__(kSliceThreads, kMinBlocks<Element, kSampled>)
    slice_statistics_kernel(TokenStatisticsArguments a, RowStatistics<typename RealOf<Element>::type>* slices) {
  using Real = typename RealOf<Element>::type;
  const int64_t entry = blockIdx.x, slice = blockIdx.y, row = existing_row(a, entry);
  if (row < 0) return;
  const Element* logits = row_pointer<Element>(a.logits, row);
  const int begin = int(slice * kSliceColumns);
  const int end = begin + kSliceColumns < a.vocabulary ? begin + kSliceColumns : int(a.vocabulary);

  const auto group = [&](int g) {
    return load_group<Real>(logits, begin + (g * kSliceThreads + int(threadIdx.x)) * kGroup, end);
  };
  RowStatistics<Real> part;
  // A thread's columns all at once, so that its sums are relative to the largest of them.
  {
    Group<Real> x[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) x[g] = group(g);
    part.sum = peaked_sum(x);
  }
  const bool apart = stands_apart(part.sum);  // rare but at a peak
  if (apart) part.sum.others = 0;
#pragma unroll 1
  for (int g = 0; g < kGroups; ++g) {  // once more, from the first-level cache
    const Group<Real> x = group(g);
    const int column = begin + (g * kSliceThreads + int(threadIdx.x)) * kGroup;
    const Real max = max_of(x);
    if (apart) part.sum.others += others_of(x, Real(part.sum.max));
    if (max > part.top.second_value)  // rare after the first groups
      for (int i = 0; i < kGroup; ++i)
        if (x.value[i] > part.top.second_value && !is_suppressed(a, column + i)) part.top.push(x.value[i], column + i);
    if (kSampled) {
      const GumbelBest::Bar bar = part.sample.bar(double(max), a.temperature);
      if (double(max) > bar.logit)
        for (int i = 0; i < kGroup; i += 4)  // columns behind the end are -inf and never win
          part.sample.offer(a, entry, x.value + i, (column + i) / 4, 4, bar);
    }
  }

  part = block_reduce<kSliceThreads>(part, OfStatistics());
  if (threadIdx.x == 0) slices[entry * gridDim.y + slice] = part;
}

/// Block i, one warp: entry i.
template <class Real>
__global__ void __launch_bounds__(kWarp)
    merge_slices_kernel(TokenStatisticsArguments a, const RowStatistics<Real>* slices, int64_t slice_count) {
  merge_slices(a, slices, slice_count, int64_t(blockIdx.x));
}

/// Block r: canvas r. Its warps take turns with the entries, its threads choose, its first warp reveals.
template <class Real>
__global__ void __launch_bounds__(kRevealThreads) select_reveal_kernel(
    TokenStatisticsArguments statistics, SelectionArguments selection, RevealArguments reveal,
    const RowStatistics<Real>* slices, int64_t slice_count) {
  const int64_t row = blockIdx.x, end = (row + 1) * selection.width;
  for (int64_t entry = row * selection.width + threadIdx.x / kWarp; entry < end; entry += kRevealThreads / kWarp)
    merge_slices(statistics, slices, slice_count, entry);
  __syncthreads();
  select_row(BlockTeam(), selection, row);
  if (threadIdx.x < kWarp) reveal_row(WarpTeam(), reveal, row);
}

int64_t token_statistics_workspace(const TokenStatisticsArguments& a) {
  const size_t bytes = a.logits.dtype == DType::kFloat64 ? sizeof(RowStatistics<double>) : sizeof(RowStatistics<float>);
  return a.entries * slices_of(a.vocabulary) * int64_t(bytes);
}

/// Launches the slices of all entries, then finish(slices, their number).
template <class Finish>
Status with_slices(const TokenStatisticsArguments& a, void* workspace, Stream stream, const Finish& finish) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    auto* slices = static_cast<RowStatistics<Real>*>(workspace);
    const int64_t slice_count = slices_of(a.vocabulary);
    const auto kernel =
        a.temperature > 0 ? slice_statistics_kernel<Element, true> : slice_statistics_kernel<Element, false>;
    const Status status =
        launch(kernel, dim3(unsigned(a.entries), unsigned(slice_count)), kSliceThreads, stream, a, slices);
    return status == cudaSuccess ? finish(slices, slice_count) : status;
  });
}

Status token_statistics(const TokenStatisticsArguments& a, void* workspace, Stream stream) {
  return with_slices(a, workspace, stream, [&](auto* slices, int64_t slice_count) {
    using Real = decltype(slices->top.value);
    const auto kernel = merge_slices_kernel<Real>;
    return launch(kernel, dim3(unsigned(a.entries)), kWarp, stream, a, slices, slice_count);
  });
}

Status select_reveal(
    const TokenStatisticsArguments& statistics, const SelectionArguments& selection, const RevealArguments& reveal,
    void* workspace, Stream stream) {
  return with_slices(statistics, workspace, stream, [&](auto* slices, int64_t slice_count) {
    using Real = decltype(slices->top.value);
    const auto kernel = select_reveal_kernel<Real>;
    return launch(
        kernel, dim3(unsigned(reveal.batch)), kRevealThreads, stream, statistics, selection, reveal, slices,
        slice_count);
  });
}

}  // namespace cuda
}  // namespace tad
